package tail

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// mountOf returns where on the way to path another file system begins: its mount
// point, or a link into it. It returns path itself where all of it is on the
// root's, which is the only one that it asks.
func mountOf(path string) string {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return path
	}
	points := mountPoints(string(table))
	if point := pointOf(path, points); point != "" {
		return point
	}
	for i := 1; i < len(path); i++ {
		if !os.IsPathSeparator(path[i]) {
			continue
		}
		dest, err := os.Readlink(path[:i])
		if err != nil {
			continue
		}
		if !filepath.IsAbs(dest) {
			dest = filepath.Join(filepath.Dir(path[:i]), dest)
		}
		if pointOf(dest, points) != "" {
			return path[:i]
		}
	}
	return path
}

// pointOf returns the longest of the points that path lies below, "" for none.
func pointOf(path string, points []string) string {
	best := ""
	for _, point := range points {
		if len(point) > len(best) && within(path, point) {
			best = point
		}
	}
	return best
}

// mountPoints returns the mount points in table, /proc/self/mountinfo, without
// the root.
func mountPoints(table string) []string {
	var points []string
	for line := range strings.Lines(table) {
		if fields := strings.Fields(line); len(fields) > 4 && fields[4] != "/" {
			points = append(points, unescape(fields[4]))
		}
	}
	return points
}

// unescape returns s with the characters that the kernel writes as \040.
func unescape(s string) string {
	text := ""
	for {
		before, rest, found := strings.Cut(s, `\`)
		text += before
		if !found {
			return text
		}
		c, err := strconv.ParseUint(rest[:min(3, len(rest))], 8, 8)
		if err != nil || len(rest) < 3 {
			return text + `\` + rest
		}
		text, s = text+string([]byte{byte(c)}), rest[3:]
	}
}
