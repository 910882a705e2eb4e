package perf

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// On the machine that runs the test, what does not change from one moment to
// the next is what other means say it is.
func TestThisMachine(t *testing.T) {
	p := open(t, Options{Sets: []Set{{time.Second, everything}}, Computer: "here", OSCaption: "this system"})
	g := p.groups[0]
	start := time.Now()
	g.take(t.Context(), start)
	g.take(t.Context(), start.Add(10*time.Second)) // counts grow little in the blink that it was
	got := map[string]float64{}
	for _, line := range measured(t, &g.sample) {
		name, text, _ := strings.Cut(line, " = ")
		value, err := strconv.ParseFloat(text, 64)
		if err != nil || value < 0 {
			t.Errorf("%s", line)
		}
		got[name] = value
	}
	for thing, text := range g.sample.troubles {
		t.Logf("trouble of %s: %s", thing, text)
	}

	expect := func(name string, want float64) {
		t.Helper()
		value, ok := got[name]
		if !ok || value < want*0.9999-0.02 || value > want*1.0001+0.02 {
			t.Errorf("%s = %v, %v, want %v", name, value, ok, want)
		}
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		t.Fatal(err)
	}
	unit := uint64(info.Unit)
	memory := got[`Memory(Memory)\Available MBytes Memory`] + got[`Memory(Memory)\Used Memory MBytes`]
	got["all memory"] = memory
	expect("all memory", float64(uint64(info.Totalram)*unit)/(1<<20))
	expect(`System(this system)\Size Stored In Paging Files`, float64(uint64(info.Totalswap)*unit/1024))
	if up := got[`System(this system)\Uptime`]; up < float64(info.Uptime)-60 || up > float64(info.Uptime)+1 {
		t.Errorf("uptime = %v, want about %v", up, info.Uptime)
	}
	if n := got[`System(this system)\CPUs`]; n < 1 || n < float64(runtime.NumCPU()) {
		t.Errorf("%v processors, of which this process may use %d", n, runtime.NumCPU())
	}
	if n := got[`System(this system)\Processes`]; n < 1 {
		t.Errorf("%v processes", n)
	}

	mounts := (&logicalDisk{mounts: mountTable{tree: &tree{}}}).mounts
	if err := mounts.load(); err != nil {
		t.Fatal(err)
	}
	for _, m := range mounts.mounts {
		u, err := hostStats{}.Usage(m.point)
		if err != nil || u.Blocks == 0 || m.device.major != 0 && m.device != (device{u.Major, u.Minor}) {
			continue // not to be had, or not what is mounted there for process 1
		}
		free, freeOK := got[fmt.Sprintf(`Logical Disk(%s)\%% Free Space`, m.point)]
		used, usedOK := got[fmt.Sprintf(`Logical Disk(%s)\%% Used Space`, m.point)]
		if !freeOK || !usedOK || free+used < 99.98 || free+used > 100.02 {
			t.Errorf("%s: %v %% free (%v), %v %% used (%v)", m.point, free, freeOK, used, usedOK)
		}
	}

	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for name := range got {
		instance, found := strings.CutPrefix(name, "Network(")
		instance, bytes := strings.CutSuffix(instance, `)\Total Bytes`)
		if found && bytes && !slices.ContainsFunc(interfaces, func(i net.Interface) bool { return i.Name == instance && i.Flags&net.FlagLoopback == 0 }) {
			t.Errorf("interface %s is not one of %v", instance, interfaces)
		}
	}
}

// Of a file system that does not change, every number is that of statfs.
func TestUsageIsThatOfStatfs(t *testing.T) {
	folder := t.TempDir()
	got, err := hostStats{root: filepath.Dir(folder)}.Usage("/" + filepath.Base(folder))
	if err != nil {
		t.Fatal(err)
	}
	var s unix.Statfs_t
	var st unix.Stat_t
	if err := errors.Join(unix.Statfs(folder, &s), unix.Stat(folder, &st)); err != nil {
		t.Fatal(err)
	}
	if got.BlockSize != uint64(s.Frsize) || got.Blocks != s.Blocks || got.Inodes != s.Files ||
		got.Major != unix.Major(st.Dev) || got.Minor != unix.Minor(st.Dev) {
		t.Errorf("usage = %+v, statfs says %+v", got, s)
	}
	if got.Available > got.Free || got.Free > got.Blocks {
		t.Errorf("usage = %+v", got)
	}
	if _, err := (hostStats{}).Usage("/no/such/folder"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("usage of no folder: %v, want fs.ErrNotExist", err)
	}
}

func TestUsersAreThoseOfUtmp(t *testing.T) {
	h := hostStats{root: t.TempDir()}
	if _, err := h.Users(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("users without utmp: %v, want fs.ErrNotExist", err)
	}
	// utmp(5): the type at 0, the user at 44; 7 is USER_PROCESS, 8 a dead one.
	size := 384
	if runtime.GOARCH == "arm64" {
		size = 400
	}
	var utmp bytes.Buffer
	for _, entry := range []struct {
		kind byte
		user string
	}{{7, "azureuser"}, {8, "gone"}, {7, "root"}} {
		record := make([]byte, size)
		record[0] = entry.kind
		copy(record[44:], entry.user)
		utmp.Write(record)
	}
	folder := filepath.Join(h.root, "var", "run")
	if err := os.MkdirAll(folder, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "utmp"), utmp.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := h.Users(t.Context())
	if err != nil || !slices.Equal(got, []string{"azureuser", "root"}) {
		t.Errorf("users = %q, %v, want azureuser and root", got, err)
	}
}

func TestNoKernelFilesNoSource(t *testing.T) {
	if _, err := New(Options{Root: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "mount /proc") {
		t.Errorf("New = %v, want it to say what to mount", err)
	}
}

// What one sample costs on this machine: time, processor time, allocations.
func BenchmarkSample(b *testing.B) {
	for _, bb := range []struct {
		name       string
		specifiers []string
	}{
		{"default", DefaultSpecifiers()},
		{"everything", everything},
	} {
		b.Run(bb.name, func(b *testing.B) {
			s, err := New(Options{Sets: []Set{{time.Minute, bb.specifiers}}, Computer: "here"})
			if err != nil {
				b.Fatal(err)
			}
			g := s.(*perf).groups[0]
			g.take(b.Context(), time.Now())
			b.ReportAllocs()
			before := processorTime(b)
			for b.Loop() {
				g.take(b.Context(), time.Now())
			}
			b.ReportMetric(float64((processorTime(b)-before).Microseconds())/1000/float64(b.N), "cpu-ms/op")
			b.ReportMetric(float64(len(g.sample.rows)), "rows")
		})
	}
}

func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
