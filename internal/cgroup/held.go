package cgroup

import (
	"fmt"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Held is what the control groups around a process let it use; 0 is no ceiling.
type Held struct {
	Memory int64   // bytes
	CPU    float64 // percent of one core
}

// HeldHere returns what holds this process. Where there are no control groups
// the error says so.
func HeldHere() (Held, error) {
	found, err := mounted()
	if err != nil {
		return Held{}, err
	}
	groups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return Held{}, fmt.Errorf("find own control group: %w", err)
	}
	return held(found, string(groups)), nil
}

// held reads the ceilings of the groups that the text of /proc/self/cgroup
// names (cgroups(7)) and of those above them, as far as they can be seen.
func held(found []hierarchy, groups string) Held {
	var least Held
	for line := range strings.Lines(groups) {
		fields := strings.SplitN(strings.TrimRight(line, "\n"), ":", 3) // 4:memory:/a/b
		if len(fields) < 3 {
			continue
		}
		for _, h := range found {
			if h.is(fields[1]) {
				h.around(fields[2], &least)
			}
		}
	}
	return least
}

// is reports whether a line of /proc/self/cgroup with these controllers is about
// the hierarchy.
func (h hierarchy) is(controllers string) bool {
	if controllers == "" || h.controllers == nil {
		return controllers == "" && h.controllers == nil
	}
	for name := range strings.SplitSeq(controllers, ",") {
		if !slices.Contains(h.controllers, name) {
			return false
		}
	}
	return true
}

// around lowers least to the ceilings of a group and of all above it that are
// mounted. In a container only a part of the tree is.
func (h hierarchy) around(group string, least *Held) {
	below, ok := strings.CutPrefix(path.Clean(group), strings.TrimSuffix(h.root, "/"))
	if !ok || below != "" && below[0] != '/' {
		below = "" // it cannot be told which of those that can be seen it is
	}
	for below = path.Join("/", below); ; below = path.Dir(below) {
		h.read(filepath.Join(h.path, below), least)
		if below == "/" {
			return
		}
	}
}

// read lowers least to the ceilings of the group in a folder.
func (h hierarchy) read(dir string, least *Held) {
	if h.controllers == nil {
		least.memory(number(dir, "memory.max"))
		if most := words(dir, "cpu.max"); len(most) == 2 {
			least.cpu(most[0], most[1])
		}
		return
	}
	if slices.Contains(h.controllers, "memory") {
		least.memory(number(dir, "memory.limit_in_bytes"))
	}
	if slices.Contains(h.controllers, "cpu") {
		quota, period := words(dir, "cpu.cfs_quota_us"), words(dir, "cpu.cfs_period_us")
		if len(quota) == 1 && len(period) == 1 {
			least.cpu(quota[0], period[0])
		}
	}
}

// unlimited is what version 1 writes for no ceiling: the most that there is in
// whole pages.
const unlimited = math.MaxInt64 &^ (1<<16 - 1)

func (h *Held) memory(bytes int64) {
	if bytes > 0 && bytes < unlimited && (h.Memory == 0 || bytes < h.Memory) {
		h.Memory = bytes
	}
}

func (h *Held) cpu(quota, period string) {
	q, err := strconv.ParseFloat(quota, 64)
	if err != nil {
		return // "max"
	}
	p, err := strconv.ParseFloat(period, 64)
	if err != nil || q <= 0 || p <= 0 {
		return
	}
	if percent := 100 * q / p; h.CPU == 0 || percent < h.CPU {
		h.CPU = percent
	}
}

// words returns the words of a file of a group, none when there is no such file.
func words(dir, file string) []string {
	data, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return nil
	}
	return strings.Fields(string(data))
}

// number returns the number in a file of a group, 0 when there is none.
func number(dir, file string) int64 {
	all := words(dir, file)
	if len(all) != 1 {
		return 0
	}
	n, err := strconv.ParseInt(all[0], 10, 64)
	if err != nil {
		return 0 // "max"
	}
	return n
}
