package perf

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// dfSays asks df for the size, what is used and what is available of file
// systems, in bytes, and the same of inodes.
func dfSays(t *testing.T, points []string) map[string][6]float64 {
	t.Helper()
	args := append([]string{"-B1", "--output=size,used,avail,itotal,iused,iavail", "--"}, points...)
	out, err := exec.CommandContext(t.Context(), "df", args...).Output()
	if err != nil {
		t.Fatalf("df: %v", err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")[1:]
	if len(lines) != len(points) {
		t.Fatalf("df says %q of %q", lines, points)
	}
	said := map[string][6]float64{}
	for i, line := range lines {
		var numbers [6]float64
		for k, word := range strings.Fields(line) {
			numbers[k], _ = strconv.ParseFloat(word, 64) // "-" is no number of inodes: 0
		}
		said[points[i]] = numbers
	}
	return said
}

// TestComplaint48FreeSpaceIsThatOfDf: free disk space was wrong. Each counter of
// how full a file system is follows from what df says at the same moment.
func TestComplaint48FreeSpaceIsThatOfDf(t *testing.T) {
	mounts := mountTable{tree: &tree{}}
	if err := mounts.load(); err != nil {
		t.Fatal(err)
	}
	points := []string{t.TempDir()}
	for _, m := range mounts.mounts {
		u, err := hostStats{}.Usage(m.point)
		if err == nil && u.Blocks > 0 && (m.device.major == 0 || m.device == device{u.Major, u.Minor}) {
			points = append(points, m.point)
		}
	}
	// Others write meanwhile: what df says before and after has to be the same.
	for attempt := 1; ; attempt++ {
		before := dfSays(t, points)
		got := map[string]values{}
		for _, point := range points {
			u, err := hostStats{}.Usage(point)
			if err != nil {
				t.Fatal(err)
			}
			var full space
			var v values
			full.add(u)
			full.set(&v)
			got[point] = v
		}
		after := dfSays(t, points)
		steady := slices.DeleteFunc(slices.Clone(points), func(p string) bool { return before[p] != after[p] })
		if len(steady) < len(points) && attempt < 200 {
			continue
		}
		if len(steady) == 0 {
			t.Fatal("no file system stands still for a moment")
		}
		for _, point := range steady {
			compareWithDf(t, point, got[point], before[point])
		}
		return
	}
}

func compareWithDf(t *testing.T, point string, v values, df [6]float64) {
	t.Helper()
	used, available, inodes, usedInodes := df[1], df[2], df[3], df[4]
	usedInodesPercent := 0.0
	if inodes > 0 {
		usedInodesPercent = 100 * usedInodes / inodes
	}
	for counter, want := range map[int]float64{
		logicalFreeMegabytes: available / (1 << 20),
		logicalFreeSpace:     100 * available / (used + available),
		logicalUsedSpace:     100 * used / (used + available),
		logicalUsedInodes:    usedInodesPercent,
		logicalFreeInodes:    100 - usedInodesPercent,
	} {
		if got := v.of[counter]; v.known&(1<<counter) == 0 || got < want-1e-6 || got > want+1e-6 {
			t.Errorf("%s: %s is %v, by df it is %v", point, objects[logicalDiskObject].counters[counter].name, got, want)
		}
	}
}

// diskLine is one line of /proc/diskstats as sar reads it: the numbers after
// the name.
type diskLine [11]uint64

func diskLines(t *testing.T) map[string]diskLine {
	t.Helper()
	data, err := os.ReadFile("/proc/diskstats")
	if err != nil {
		t.Fatal(err)
	}
	lines := map[string]diskLine{}
	for line := range strings.Lines(string(data)) {
		words := strings.Fields(line)
		var numbers diskLine
		for i := range numbers {
			if numbers[i], err = strconv.ParseUint(words[3+i], 10, 64); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
		}
		lines[words[2]] = numbers
	}
	return lines
}

// TestDiskRatesAreThoseOfSar recomputes each rate from /proc/diskstats, read
// right before and right after each of two samples: what the source says lies
// between the least and the most that can have happened between them.
func TestDiskRatesAreThoseOfSar(t *testing.T) {
	const elapsed = 10.0
	start := time.Now()
	d := &disks{tree: &tree{}}
	load := func(at time.Time) (before, after map[string]diskLine) {
		before = diskLines(t)
		if err := d.load(at); err != nil {
			t.Fatal(err)
		}
		return before, diskLines(t)
	}
	firstBefore, firstAfter := load(start)
	busy := filepath.Join(t.TempDir(), "busy")
	for range 4 {
		f, err := os.Create(busy)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(bytes.Repeat([]byte("x"), 1<<20)); err != nil {
			t.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	secondBefore, secondAfter := load(start.Add(elapsed * time.Second))

	compared := 0
	for _, k := range d.order {
		if !k.known {
			continue
		}
		least, most := secondBefore[k.name], secondAfter[k.name]
		for i := range least {
			least[i] -= firstAfter[k.name][i]
			most[i] -= firstBefore[k.name][i]
		}
		var logical, physical values
		(&logicalDisk{disks: d}).setRates(k.done, &logical)
		(&physicalDisk{disks: d}).set(k.done, &physical)
		between := func(what string, got float64, low, high uint64, unit float64) {
			t.Helper()
			compared++
			if got < float64(low)*unit/elapsed-1e-9 || got > float64(high)*unit/elapsed+1e-9 {
				t.Errorf("%s: %s is %v, /proc/diskstats says %v to %v", k.name, what, got, float64(low)*unit/elapsed, float64(high)*unit/elapsed)
			}
		}
		between("reads", logical.of[logicalReads], least[0], most[0], 1)
		between("writes", logical.of[logicalWrites], least[4], most[4], 1)
		between("transfers", logical.of[logicalTransfers], least[0]+least[4], most[0]+most[4], 1)
		between("bytes read", logical.of[logicalReadBytes], least[2], most[2], 512)
		between("bytes written", logical.of[logicalWriteBytes], least[6], most[6], 512)
		between("bytes", logical.of[logicalBytes], least[2]+least[6], most[2]+most[6], 512)
		between("bytes of the drive", physical.of[physicalBytes], least[2]+least[6], most[2]+most[6], 512)
		// sar's await: milliseconds for each operation. Only where nothing
		// happened while the samples were taken is it one number.
		if least == most {
			for _, one := range []struct {
				counter           int
				millis, transfers uint64
			}{
				{physicalReadTime, least[3], least[0]},
				{physicalWriteTime, least[7], least[4]},
				{physicalTransferTime, least[3] + least[7], least[0] + least[4]},
			} {
				want := float64(one.millis) / float64(max(one.transfers, 1)) / 1000
				if one.transfers == 0 {
					want = 0
				}
				if got := physical.of[one.counter]; got < want-1e-9 || got > want+1e-9 {
					t.Errorf("%s: %s is %v, sar says %v", k.name, objects[physicalDiskObject].counters[one.counter].name, got, want)
				}
			}
		}
	}
	if compared == 0 {
		t.Errorf("no disk to compare with: %v", d.order)
	}
}

// TestComplaint49PercentagesHaveDecimals: percentages had no precision. They
// have two decimals, and the whole numbers of the OMS agent for those who ask.
func TestComplaint49PercentagesHaveDecimals(t *testing.T) {
	for _, tt := range []struct {
		integer bool
		want    string
	}{{false, "36.84"}, {true, "37"}} {
		m := newMachine(t, "linux-6.8.first.txt")
		m.unpack("linux-6.8.second.txt")
		o := m.options(`Logical Disk(/)\% Free Space`)
		o.IntegerCompatible = tt.integer
		g := open(t, o).groups[0]
		g.take(t.Context(), noon)
		if got, want := measured(t, &g.sample), []string{`Logical Disk(/)\% Free Space = ` + tt.want}; !slices.Equal(got, want) {
			t.Errorf("integer-compatible %v: %q, want %q", tt.integer, got, want)
		}
	}
}

// TestComplaint51DefaultsAreThoseOfTheDocs: the counters collected by default
// differed from what was documented.
func TestComplaint51DefaultsAreThoseOfTheDocs(t *testing.T) {
	docs, err := os.ReadFile("../../../docs/settings.md")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(docs), "these counters every minute:\n\n")
	list, _, _ = strings.Cut(list, "\n\n")
	var documented []string
	object := ""
	for line := range strings.Lines(list) {
		text := strings.TrimSpace(line)
		if name, counters, ok := strings.Cut(text, "(*) "); ok {
			object, text = name, counters
		}
		for counter := range strings.SplitSeq(text, ",") {
			if counter = strings.TrimSpace(counter); counter != "" {
				documented = append(documented, fmt.Sprintf(`%s(*)\%s`, object, counter))
			}
		}
	}
	if collected := DefaultSpecifiers(); !slices.Equal(documented, collected) {
		t.Errorf("documented are\n%q, collected\n%q", documented, collected)
	}
}
