package perf

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openloganalytics/agent/agent/record"
	"github.com/openloganalytics/agent/agent/source"
	"github.com/openloganalytics/agent/agent/source/sourcetest"
)

// everything selects every counter of every instance.
var everything = []string{
	`Processor(*)\*`, `Memory(*)\*`, `Network(*)\*`, `Physical Disk(*)\*`, `System(*)\*`, `Process(*)\*`, `Logical Disk(*)\*`,
}

// A machine is a tree of kernel files that a test changes as time goes on,
// and the answers of its operating system.
type machine struct {
	t    *testing.T
	root string

	mu    sync.Mutex
	users []string
	usage map[string]Usage
	fail  map[string]error
	hang  chan struct{} // while set, /data does not answer before it is closed
	asked atomic.Int64  // how often /data was asked
}

// newMachine lays out the files of an archive in testdata.
func newMachine(t *testing.T, archive string) *machine {
	t.Helper()
	m := &machine{t: t, root: t.TempDir(), usage: map[string]Usage{}, fail: map[string]error{}}
	m.unpack(archive)
	return m
}

// unpack lays an archive over the machine. Its sections usage, users and gone
// are for the machine itself; the others but want and integer are files.
func (m *machine) unpack(archive string) {
	m.t.Helper()
	for name, text := range readArchive(m.t, archive) {
		lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
		switch name {
		case "want", "integer":
		case "users":
			m.users = lines
		case "usage":
			for _, line := range lines {
				m.parseUsage(line)
			}
		case "gone":
			for _, name := range lines {
				m.remove(name)
			}
		default:
			m.write(name, text)
		}
	}
}

// readArchive returns the sections of a recorded machine in testdata: each
// follows a line "-- name --".
func readArchive(tb testing.TB, archive string) map[string]string {
	tb.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", archive))
	if err != nil {
		tb.Fatal(err)
	}
	sections, name := map[string]string{}, ""
	for line := range strings.Lines(string(data)) {
		if head, ok := strings.CutPrefix(line, "-- "); ok && strings.HasSuffix(head, " --\n") {
			name = strings.TrimSuffix(head, " --\n")
			continue
		}
		if name != "" {
			sections[name] += line
		}
	}
	return sections
}

// parseUsage reads "path device blocksize blocks free available inodes free".
func (m *machine) parseUsage(line string) {
	m.t.Helper()
	words := strings.Split(line, " ")
	n := len(words) - 7
	dev, ok := parseDevice([]byte(words[n]))
	u := Usage{Major: dev.major, Minor: dev.minor}
	for i, dst := range []*uint64{&u.BlockSize, &u.Blocks, &u.Free, &u.Available, &u.Inodes, &u.FreeInodes} {
		var err error
		if *dst, err = strconv.ParseUint(words[n+1+i], 10, 64); err != nil || !ok {
			m.t.Fatalf("usage line %q: %v", line, err)
		}
	}
	m.usage[strings.Join(words[:n], " ")] = u
}

func (m *machine) write(name, text string) {
	m.t.Helper()
	path := filepath.Join(m.root, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) remove(name string) {
	m.t.Helper()
	if err := os.RemoveAll(filepath.Join(m.root, filepath.FromSlash(name))); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) Users(context.Context) ([]string, error) {
	if m.users == nil {
		return nil, fs.ErrNotExist
	}
	return m.users, nil
}

func (m *machine) Usage(path string) (Usage, error) {
	m.mu.Lock()
	hang := m.hang
	if path != "/data" {
		hang = nil
	} else {
		m.asked.Add(1)
	}
	u, known := m.usage[path]
	err := m.fail[path]
	m.mu.Unlock()
	if hang != nil {
		<-hang
	}
	if !known && err == nil {
		err = fmt.Errorf("statfs: %w", fs.ErrNotExist)
	}
	return u, err
}

// options are those of a source that samples the machine every ten seconds.
func (m *machine) options(specifiers ...string) Options {
	return Options{
		Sets:     []Set{{Interval: 10 * time.Second, Specifiers: specifiers}},
		Computer: "vm1", OSCaption: "Ubuntu 24.04", Root: m.root, Stats: m,
	}
}

func open(t *testing.T, o Options) *perf {
	t.Helper()
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	p := s.(*perf)
	for _, g := range p.groups {
		if s, ok := g.samplers[processObject].(*process); ok {
			s.pageKB = 4 // as on the machines in testdata
		}
	}
	return p
}

// measured is the sample as lines "Object(Instance)\Counter = value".
func measured(t *testing.T, s *sample) []string {
	t.Helper()
	var lines []string
	for _, r := range s.rows {
		var collections []struct{ CounterName, Value string }
		if err := json.Unmarshal(s.text[r.middle:r.end], &collections); err != nil {
			t.Fatalf("Collections %s: %v", s.text[r.middle:r.end], err)
		}
		for _, c := range collections {
			lines = append(lines, fmt.Sprintf(`%s(%s)\%s = %s`, objects[r.object].name, s.text[r.begin:r.middle], c.CounterName, c.Value))
		}
	}
	return lines
}

// only keeps the lines that begin with prefix, in order.
func only(prefix string, lines []string) []string {
	var kept []string
	for _, line := range lines {
		if strings.HasPrefix(line, prefix) {
			kept = append(kept, line)
		}
	}
	return kept
}

// section returns the lines of one section of an archive.
func section(t *testing.T, archive, name string) []string {
	t.Helper()
	text, ok := readArchive(t, archive)[name]
	if !ok {
		t.Fatalf("%s has no section %s", archive, name)
	}
	return strings.Split(strings.TrimSpace(text), "\n")
}

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// The values were worked out by hand from the differences that the head of
// each second archive lists.
func TestRecordedMachines(t *testing.T) {
	tests := []struct {
		name, caption string
		elapsed       time.Duration
	}{
		{"linux-6.8", "Ubuntu 24.04", 10 * time.Second},
		{"linux-3.2", "SLES 11", 4 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			second := tt.name + ".second.txt"
			want := section(t, second, "want")
			var specifiers []string
			for _, line := range want {
				object, rest, _ := strings.Cut(line, "(")
				counter, _, _ := strings.Cut(rest[strings.LastIndex(rest, `)\`)+2:], " = ")
				specifiers = append(specifiers, object+`(*)\`+counter)
			}
			m := newMachine(t, tt.name+".first.txt")
			o := m.options(specifiers...)
			o.OSCaption = tt.caption
			precise := open(t, o).groups[0]
			o.IntegerCompatible = true
			integer := open(t, o).groups[0]

			precise.take(t.Context(), noon)
			integer.take(t.Context(), noon)
			m.unpack(second)
			precise.take(t.Context(), noon.Add(tt.elapsed))
			integer.take(t.Context(), noon.Add(tt.elapsed))

			got := measured(t, &precise.sample)
			slices.Sort(got)
			slices.Sort(want)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("counters (-want +got):\n%s", diff)
			}
			if len(precise.sample.troubles) > 0 {
				t.Errorf("troubles: %v", precise.sample.troubles)
			}
			if tt.name != "linux-6.8" {
				return
			}
			whole := measured(t, &integer.sample)
			for _, line := range section(t, second, "integer") {
				if !slices.Contains(whole, line) {
					t.Errorf("integer-compatible: no %s in\n%s", line, strings.Join(whole, "\n"))
				}
			}
		})
	}
}

func TestRowIsThePerfBlobOfTheOMSAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t, "linux-6.8.first.txt")
		p := open(t, m.options(`\Network(eth0)\Total Bytes`, `Network(eth0)\Total Collisions`))
		out := sourcetest.New()
		stop := run(t, p, out)
		time.Sleep(9 * time.Second)
		synctest.Wait()
		if n := len(out.Rows("Perf")); n > 0 {
			t.Errorf("%d rows before the first interval is over, want 0", n)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		stop()
		want := []sourcetest.Row{{
			"Timestamp":    "2000-01-01T00:00:10.000Z", // where synctest's clock starts
			"Host":         "vm1",
			"ObjectName":   "Network",
			"InstanceName": "eth0",
			"Collections": []any{
				map[string]any{"CounterName": "Total Bytes", "Value": "1250000"},
				map[string]any{"CounterName": "Total Collisions", "Value": "7"},
			},
		}}
		if diff := cmp.Diff(want, out.Rows("Perf")); diff != "" {
			t.Errorf("rows (-want +got):\n%s", diff)
		}
		if want := (record.Table{Name: "Perf", DataType: "LINUX_PERF_BLOB", IPName: "LogManagement"}); *p.table != want {
			t.Errorf("table = %+v, want %+v", *p.table, want)
		}
	})
}

// run starts the source; the result stops it and reports its error.
func run(t *testing.T, p *perf, out source.Emitter) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx, out) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v, want nil after its context ended", err)
		}
	}
}

func TestEachIntervalKeepsItsPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t, "linux-6.8.first.txt")
		o := m.options()
		o.Sets = []Set{
			{10 * time.Second, []string{`Network(eth0)\Total Bytes`}},
			{25 * time.Second, []string{`System(*)\Uptime`}},
			{10 * time.Second, []string{`Network(eth0)\Total Bytes`, `Memory(*)\% Used Memory`}},
		}
		p := open(t, o)
		out := sourcetest.New()
		stop := run(t, p, out)
		time.Sleep(61 * time.Second)
		synctest.Wait()
		stop()
		got := map[string][]string{}
		for _, row := range out.Rows("Perf") {
			object := row["ObjectName"].(string)
			got[object] = append(got[object], row["Timestamp"].(string)[17:19])
		}
		want := map[string][]string{
			"Network": {"10", "20", "30", "40", "50", "00"},
			"Memory":  {"10", "20", "30", "40", "50", "00"},
			"System":  {"25", "50"},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("seconds of the rows (-want +got):\n%s", diff)
		}
	})
}

func TestNothingToCollectWaitsForTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t, "linux-6.8.first.txt")
		o := m.options()
		o.Sets = nil
		run(t, open(t, o), sourcetest.New())()
	})
}

func TestRatesNeedTwoSamples(t *testing.T) {
	m := newMachine(t, "linux-6.8.first.txt")
	m.unpack("linux-6.8.second.txt")
	g := open(t, m.options(everything...)).groups[0]
	g.take(t.Context(), noon)
	for _, line := range measured(t, &g.sample) {
		for _, rate := range []string{"/sec ", "Avg. Disk", "Pct ", "Processor("} {
			if strings.Contains(line, rate) {
				t.Errorf("first sample has %s", line)
			}
		}
	}
	if got := only(`Logical Disk(/)\`, measured(t, &g.sample)); len(got) != 5 {
		t.Errorf("first sample has of / %q, want its five space counters", got)
	}
}

// A count that went back gives no value, and the next sample has one again.
func TestCountsThatGoBack(t *testing.T) {
	const (
		later   = "cpu  300 0 0 300 0 0 0\ncpu0 300 0 0 300 0 0 0\n"
		cpuBack = "cpu  200 0 0 200 0 0 0\ncpu0 200 0 0 200 0 0 0\n"
		disk    = "8 0 sda %d 0 %d %d 0 0 0 0 0 0 0\n"
	)
	tests := []struct {
		name, file    string
		first, second string // the second goes back
		third         string
		prefix        string
		want          []string // of the third
	}{
		{
			"processor is another", "proc/stat", later, cpuBack, later,
			`Processor(0)\% Pro`,
			[]string{`Processor(0)\% Processor Time = 50`},
		},
		{
			"no time passed", "proc/stat", cpuBack, cpuBack, later,
			`Processor(0)\% Pro`,
			[]string{`Processor(0)\% Processor Time = 50`},
		},
		{
			"disk is another", "proc/diskstats", fmt.Sprintf(disk, 900, 900, 900), fmt.Sprintf(disk, 1, 100, 10), fmt.Sprintf(disk, 2, 110, 20),
			`Physical Disk(sda)\`,
			[]string{
				`Physical Disk(sda)\Physical Disk Bytes/sec = 512`, `Physical Disk(sda)\Avg. Disk sec/Read = 0.01`,
				`Physical Disk(sda)\Avg. Disk sec/Write = 0`, `Physical Disk(sda)\Avg. Disk sec/Transfer = 0.01`,
			},
		},
		{
			"milliseconds wrapped", "proc/diskstats", fmt.Sprintf(disk, 900, 900, 4294967290), fmt.Sprintf(disk, 901, 901, 3), fmt.Sprintf(disk, 902, 902, 5),
			`Physical Disk(sda)\Avg. Disk sec/Read`,
			[]string{`Physical Disk(sda)\Avg. Disk sec/Read = 0.002`},
		},
		{
			"paging out", "proc/vmstat", "pgpgin 100\npgpgout 100\n", "pgpgin 200\npgpgout 50\n", "pgpgin 300\npgpgout 60\n",
			`Memory(Memory)\Page`,
			[]string{
				`Memory(Memory)\Pages/sec = 11`, `Memory(Memory)\Page Reads/sec = 10`, `Memory(Memory)\Page Writes/sec = 1`,
			},
		},
		{
			"paging in", "proc/vmstat", "pgpgin 100\npgpgout 100\n", "pgpgin 50\npgpgout 200\n", "pgpgin 60\npgpgout 300\n",
			`Memory(Memory)\Page Reads`,
			[]string{`Memory(Memory)\Page Reads/sec = 1`},
		},
		{
			"process is another", "proc/42/stat", processLine(9000, 500), processLine(9100, 600), processLine(9600, 600),
			`Process(worker)\Pct User`,
			[]string{`Process(worker)\Pct User Time = 50`},
		},
		{
			"process went back", "proc/42/stat", processLine(9000, 500), processLine(100, 500), processLine(600, 500),
			`Process(worker)\Pct User`,
			[]string{`Process(worker)\Pct User Time = 50`},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine(t, "linux-6.8.first.txt")
			g := open(t, m.options(everything...)).groups[0]
			for i, text := range []string{tt.first, tt.second, tt.third} {
				m.write(tt.file, text)
				g.take(t.Context(), noon.Add(time.Duration(i)*10*time.Second))
				want := []string(nil)
				if i == 2 {
					want = tt.want
				}
				if diff := cmp.Diff(want, only(tt.prefix, measured(t, &g.sample))); diff != "" {
					t.Errorf("sample %d (-want +got):\n%s", i+1, diff)
				}
			}
		})
	}
}

// processLine is /proc/42/stat of a process that used some ticks and started
// at a tick.
func processLine(user, started int) string {
	return fmt.Sprintf("42 (worker) R 1 1 1 0 -1 0 0 0 0 0 %d 0 0 0 20 0 1 0 %d 0 20 0\n", user, started)
}

// The kernel's idle and iowait counts may step back a little while all is well.
func TestIdleTimeThatStepsBackStandsStill(t *testing.T) {
	was := cpuTimes{user: 10, idle: 100, iowait: 50}
	now := cpuTimes{user: 20, idle: 99, iowait: 80}
	var v values
	if !now.shares(was, &v) {
		t.Fatal("shares knows nothing")
	}
	got := [3]float64{v.of[cpuProcessor], v.of[cpuIdle], v.of[cpuIOWait]}
	if want := [3]float64{25, 0, 75}; got != want {
		t.Errorf("processor, idle, iowait = %v, want %v", got, want)
	}
}

func TestManyProcessorsComeAndGo(t *testing.T) {
	// Of processor i, i of each 256 ticks are busy.
	stat := func(ticks int, without int) string {
		var b strings.Builder
		fmt.Fprintf(&b, "cpu  %d 0 0 %d 0 0 0\n", ticks*255*128, ticks*257*128)
		for i := range 256 {
			if i != without {
				fmt.Fprintf(&b, "cpu%d %d 0 0 %d 0 0 0\n", i, ticks*i, ticks*(256-i))
			}
		}
		return b.String()
	}
	m := newMachine(t, "linux-6.8.first.txt")
	g := open(t, m.options(`Processor(*)\% Processor Time`, `System(*)\CPUs`)).groups[0]
	for i, without := range []int{-1, -1, 7, -1, -1} {
		m.write("proc/stat", stat(i+1, without))
		g.take(t.Context(), noon.Add(time.Duration(i)*time.Second))
		got := measured(t, &g.sample)
		var want []string
		switch i {
		case 0:
		default:
			want = append(want, fmt.Sprintf(`Processor(_Total)\%% Processor Time = %v`, hundredths(100*255.0/512)))
			for id := range 256 {
				if id != 7 || i == 1 || i == 4 {
					want = append(want, fmt.Sprintf(`Processor(%d)\%% Processor Time = %v`, id, hundredths(100*float64(id)/256)))
				}
			}
		}
		cpus := 256
		if without >= 0 {
			cpus = 255
		}
		want = append(want, fmt.Sprintf(`System(Ubuntu 24.04)\CPUs = %d`, cpus))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("sample %d (-want +got):\n%s", i+1, diff)
		}
	}
}

func TestDevicesComeAndGo(t *testing.T) {
	const (
		sda  = "8 0 sda 100 0 100 0 0 0 0 0 0 0 0\n"
		sda2 = "8 0 sda 110 0 120 0 0 0 0 0 0 0 0\n"
		sdb  = "8 16 sdb 500 0 500 0 0 0 0 0 0 0 0\n"
		sdb2 = "8 16 sdb 530 0 540 0 0 0 0 0 0 0 0\n"
		// another disk gets sdb's number
		sdc = "8 16 sdc 900 0 900 0 0 0 0 0 0 0 0\n"
	)
	m := newMachine(t, "linux-6.8.first.txt")
	m.write("sys/block/sdb/device/model", "x\n")
	m.write("sys/block/sdc/device/model", "x\n")
	m.write("proc/1/mountinfo", "1 1 8:16 / /b rw - ext4 /dev/sdb rw\n")
	g := open(t, m.options(`Physical Disk(*)\Physical Disk Bytes/sec`, `Logical Disk(*)\Disk Reads/sec`)).groups[0]
	steps := []struct {
		diskstats string
		want      []string
	}{
		{sda, nil},
		{sda2 + sdb, []string{
			`Physical Disk(sda)\Physical Disk Bytes/sec = 1024`,
			`Physical Disk(_Total)\Physical Disk Bytes/sec = 1024`,
		}},
		{sda2 + sdb2, []string{
			`Physical Disk(sda)\Physical Disk Bytes/sec = 0`,
			`Physical Disk(sdb)\Physical Disk Bytes/sec = 2048`,
			`Physical Disk(_Total)\Physical Disk Bytes/sec = 2048`,
			`Logical Disk(/b)\Disk Reads/sec = 3`,
			`Logical Disk(_Total)\Disk Reads/sec = 3`,
		}},
		{sdc, nil},
		{sdc, []string{
			`Physical Disk(sdc)\Physical Disk Bytes/sec = 0`,
			`Physical Disk(_Total)\Physical Disk Bytes/sec = 0`,
			`Logical Disk(/b)\Disk Reads/sec = 0`,
			`Logical Disk(_Total)\Disk Reads/sec = 0`,
		}},
		{"", nil},
		{sdc, nil},
	}
	for i, step := range steps {
		m.write("proc/diskstats", step.diskstats)
		g.take(t.Context(), noon.Add(time.Duration(i)*10*time.Second))
		if diff := cmp.Diff(step.want, measured(t, &g.sample)); diff != "" {
			t.Errorf("step %d (-want +got):\n%s", i+1, diff)
		}
	}
}

func TestInterfaceThatHasBeenUpStays(t *testing.T) {
	m := newMachine(t, "linux-6.8.first.txt")
	g := open(t, m.options(`Network(dummy0)\Total Bytes`)).groups[0]
	for i, flags := range []string{"0x82\n", "0x83\n", "0x82\n"} {
		m.write("sys/class/net/dummy0/flags", flags)
		g.take(t.Context(), noon.Add(time.Duration(i)*time.Second))
		if got, want := len(g.sample.rows), min(i, 1); got != want {
			t.Errorf("flags %s as reading %d: %d rows, want %d", flags, i+1, got, want)
		}
	}
}

func TestMountsAreReadAgainWhenTheyChange(t *testing.T) {
	m := newMachine(t, "linux-3.2.first.txt")
	m.unpack("linux-3.2.second.txt")
	g := open(t, m.options(`Logical Disk(*)\% Used Space`)).groups[0]
	g.take(t.Context(), noon)
	m.write("proc/self/mountinfo", "1 1 104:1 / /new rw - ext3 /dev/x rw\n")
	m.usage["/new"] = Usage{Major: 104, Minor: 1, BlockSize: 1, Blocks: 4, Free: 1, Available: 1}
	g.take(t.Context(), noon.Add(time.Second))
	want := []string{`Logical Disk(/new)\% Used Space = 75`, `Logical Disk(_Total)\% Used Space = 75`}
	if diff := cmp.Diff(want, measured(t, &g.sample)); diff != "" {
		t.Errorf("counters (-want +got):\n%s", diff)
	}
}

func TestFileSystemThatDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t, "linux-6.8.first.txt")
		m.unpack("linux-6.8.second.txt")
		m.hang = make(chan struct{})
		o := m.options(`Logical Disk(*)\% Used Space`, `System(*)\Uptime`)
		o.Sets = append(o.Sets, Set{12 * time.Second, []string{`Logical Disk(/data)\Disk Reads/sec`, `Logical Disk(/data)\Free Megabytes`}})
		p := open(t, o)
		out := sourcetest.New()
		stop := run(t, p, out)
		defer stop()
		time.Sleep(32 * time.Second)
		synctest.Wait()

		want := "cannot tell how full the file system at /data is: it has not answered since 2000-01-01T00:00:00Z; see to its server, or unmount it"
		if diff := cmp.Diff(map[string]string{"/data": want}, out.Troubles()); diff != "" {
			t.Errorf("troubles (-want +got):\n%s", diff)
		}
		if n := m.asked.Load(); n != 1 {
			t.Errorf("/data was asked %d times while it owed an answer, want once", n)
		}
		got := map[string]int{}
		for _, row := range out.Rows("Perf") {
			got[row["InstanceName"].(string)]++
		}
		if diff := cmp.Diff(map[string]int{"/": 3, "/srv": 3, "/backup": 3, "/mnt/a (b)/tab\tx": 3, "_Total": 3, "Ubuntu 24.04": 3, "/data": 2}, got); diff != "" {
			t.Errorf("rows by instance (-want +got):\n%s", diff)
		}

		close(m.hang)
		known := len(out.Rows("Perf"))
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if len(out.Troubles()) > 0 {
			t.Errorf("troubles after the answer: %v", out.Troubles())
		}
		space := 0
		for _, row := range out.Rows("Perf")[known:] {
			if row["InstanceName"] == "/data" {
				space++
			}
		}
		if space != 2 {
			t.Errorf("%d rows of /data after the answer, want one of each interval", space)
		}
	})
}

func TestProberHoldsFewThreads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var asked atomic.Int64
		p := newProber(func(string) (Usage, error) {
			asked.Add(1)
			<-release
			return Usage{}, nil
		})
		for i := range maxSilent + 5 {
			if _, err := p.usage(t.Context(), fmt.Sprint(i)); err == nil {
				t.Errorf("file system %d answered", i)
			}
		}
		if n := asked.Load(); n != maxSilent {
			t.Errorf("%d file systems were asked, want %d", n, maxSilent)
		}
		close(release)
		synctest.Wait()
		if _, err := p.usage(t.Context(), "0"); err != nil {
			t.Errorf("after all answered: %v", err)
		}
	})
}

func TestFullSpoolLosesTheSampleAndSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t, "linux-6.8.first.txt")
		p := open(t, m.options(`Network(eth0)\Total Bytes`, `System(*)\Uptime`))
		out := sourcetest.New()
		out.Block()
		stop := run(t, p, out)
		time.Sleep(16 * time.Second)
		synctest.Wait()
		at := time.Date(2000, 1, 1, 0, 0, 10, 0, time.UTC)
		values := `"2000-01-01T00:00:10.000Z"vm1Networketh0[{"CounterName":"Total Bytes","Value":"1250000"}]` +
			`"2000-01-01T00:00:10.000Z"vm1SystemUbuntu 24.04[{"CounterName":"Uptime","Value":"12335"}]`
		want := []source.Loss{{Reason: "spool-full", Class: "Perf", Records: 2, Bytes: int64(len(values)), First: at, Last: at}}
		got := out.Losses()
		for i := range got {
			got[i].First, got[i].Last = got[i].First.UTC(), got[i].Last.UTC()
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("losses (-want +got):\n%s", diff)
		}
		out.Unblock()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		stop()
		if n := len(out.Rows("Perf")); n != 2 {
			t.Errorf("%d rows after the spool had room again, want 2", n)
		}
		if n := len(out.Losses()); n != 1 {
			t.Errorf("%d losses, want 1", n)
		}
	})
}

func TestStopDoesNotWaitForTheSpool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t, "linux-6.8.first.txt")
		out := sourcetest.New()
		out.Block()
		stop := run(t, open(t, m.options(`System(*)\Uptime`)), out)
		time.Sleep(11 * time.Second)
		synctest.Wait()
		stop()
		if got := out.Losses(); len(got) > 0 {
			t.Errorf("losses = %+v, want none: the sample was not taken", got)
		}
	})
}

func TestEmitThatFailsEndsTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t, "linux-6.8.first.txt")
		out := sourcetest.New()
		cause := errors.New("spool is gone")
		out.Fail(cause)
		if err := open(t, m.options(`System(*)\Uptime`)).Run(t.Context(), out); !errors.Is(err, cause) {
			t.Errorf("Run = %v, want the cause %v", err, cause)
		}
	})
}

// countingEmitter notes the bytes of field values and the rows of each Emit.
type countingEmitter struct {
	*sourcetest.Emitter
	bytes, rows []int
}

func (e *countingEmitter) Emit(_ context.Context, table *record.Table, fill func(*record.Batch), _ ...source.Checkpoint) error {
	b := record.NewBatch(table, record.NewCompressor())
	fill(b)
	const around = `,{"Timestamp":,"Host":"","ObjectName":"","InstanceName":"","Collections":}`
	e.rows = append(e.rows, b.Rows())
	e.bytes = append(e.bytes, b.Pending()-b.Rows()*len(around))
	return nil
}

func TestThousandsOfProcessesAreSplit(t *testing.T) {
	const processes = 10_000
	m := newMachine(t, "linux-6.8.first.txt")
	p := open(t, m.options(`Process(*)\Used Memory`))
	out := &countingEmitter{Emitter: sourcetest.New()}
	s := &p.groups[0].sample
	s.start(noon)
	s.begin(processObject, &p.groups[0].selections[processObject])
	for pid := range processes {
		var v values
		v.set(processMemory, float64(pid))
		s.add([]byte("worker"), &v)
	}
	if err := p.emit(t.Context(), out, s); err != nil {
		t.Fatal(err)
	}
	sum := 0
	for i, n := range out.bytes {
		sum += out.rows[i]
		if n > source.MaxEmit {
			t.Errorf("Emit %d has %d bytes of values, more than %d", i+1, n, source.MaxEmit)
		}
		if i < len(out.bytes)-1 && n < source.MaxEmit-200 {
			t.Errorf("Emit %d has only %d bytes of values", i+1, n)
		}
	}
	if sum != processes || len(out.rows) < 2 {
		t.Errorf("%d rows in %d Emits, want %d in several", sum, len(out.rows), processes)
	}
}

func TestTroublesSayWhatIsWrong(t *testing.T) {
	tests := []struct {
		name   string
		change func(*machine)
		want   map[string]string // thing -> part of the sentence
	}{
		{"nothing", func(*machine) {}, nil},
		{"no processors", func(m *machine) { m.write("proc/stat", "btime 1\n") }, map[string]string{"Processor": "no processor in the 8 bytes"}},
		{"no MemTotal", func(m *machine) { m.write("proc/meminfo", "MemT") }, map[string]string{"Memory": "no MemTotal", "System": "no MemTotal"}},
		{"no vmstat", func(m *machine) { m.remove("proc/vmstat") }, map[string]string{"Memory": "read paging: open"}},
		{"half a vmstat", func(m *machine) { m.write("proc/vmstat", "pgpgin 1\n") }, map[string]string{"Memory": "no pgpgin and pgpgout"}},
		{"no interfaces", func(m *machine) { m.remove("proc/net/dev") }, map[string]string{"Network": "read network interfaces: open"}},
		{"no diskstats", func(m *machine) { m.remove("proc/diskstats") }, map[string]string{"Physical Disk": "read disks: open", "Logical Disk": "read disks: open"}},
		{"no mounts", func(m *machine) { m.remove("proc/1/mountinfo") }, map[string]string{"Logical Disk": "read mounts: open"}},
		{"odd loadavg", func(m *machine) { m.write("proc/loadavg", "0.1 x\n") }, map[string]string{"System": "word 2 of its 6 bytes is not a number"}},
		{"hidden processes", func(m *machine) { m.remove("proc/1/stat"); m.hideFirst() }, map[string]string{
			"System": "hidepid", "Process": "hidepid",
		}},
		{"no record of sessions", func(m *machine) { m.users = nil }, nil},
		{"closed folder", func(m *machine) { m.fail["/data"] = fs.ErrPermission }, map[string]string{"/data": "enter the folders above it"}},
		{"service sees another folder", func(m *machine) {
			m.usage["/data"] = Usage{Minor: 25, BlockSize: 1, Blocks: 9}
		}, map[string]string{"/data": "sees device 0:25 there, not 253:0"}},
		{"unmounted this moment", func(m *machine) { delete(m.usage, "/data") }, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine(t, "linux-6.8.first.txt")
			m.unpack("linux-6.8.second.txt")
			tt.change(m)
			g := open(t, m.options(everything...)).groups[0]
			g.take(t.Context(), noon)
			got := g.sample.troubles
			if len(got) != len(tt.want) {
				t.Errorf("troubles: %v, want %v", got, tt.want)
			}
			for thing, part := range tt.want {
				if !strings.Contains(got[thing], part) {
					t.Errorf("trouble of %s: %q, want %q in it", thing, got[thing], part)
				}
			}
		})
	}
}

// hideFirst makes process 1 invisible and keeps its mounts where a service
// would look next.
func (m *machine) hideFirst() {
	data, err := os.ReadFile(filepath.Join(m.root, "proc/1/mountinfo"))
	if err != nil {
		m.t.Fatal(err)
	}
	m.write("proc/self/mountinfo", string(data))
	m.remove("proc/1")
}

func TestInstanceThatIsNotThereIsTold(t *testing.T) {
	m := newMachine(t, "linux-6.8.first.txt")
	p := open(t, m.options(`Physical Disk(sdz)\*`, `Physical Disk(sd*)\*`, `Process(nginx)\*`))
	out := sourcetest.New()
	p.groups[0].take(t.Context(), noon)
	p.tell(out)
	want := map[string]string{
		"Physical Disk(sdz)": `there is no Physical Disk "sdz" on this machine now: correct the counter specifier, or wait until it appears`,
	}
	if diff := cmp.Diff(want, out.Troubles()); diff != "" {
		t.Errorf("troubles (-want +got):\n%s", diff)
	}
	m.write("proc/diskstats", "8 0 sda 0 0 0 0 0 0 0 0\n65 144 sdz 0 0 0 0 0 0 0 0\n")
	m.write("sys/block/sdz/device/model", "x\n")
	p.groups[0].take(t.Context(), noon.Add(time.Second))
	p.tell(out)
	if len(out.Troubles()) > 0 {
		t.Errorf("troubles after it appeared: %v", out.Troubles())
	}
}

// What one interval still finds wrong stays told when another does not.
func TestTroublesOfTwoIntervals(t *testing.T) {
	out := sourcetest.New()
	a, b := &group{}, &group{}
	p := &perf{groups: []*group{a, b}, told: map[string]string{}}
	a.sample.troubles = map[string]string{"/x": "wrong"}
	b.sample.troubles = map[string]string{"/x": "wrong"}
	p.tell(out)
	a.sample.troubles = nil
	p.tell(out)
	if want := map[string]string{"/x": "wrong"}; !cmp.Equal(want, out.Troubles()) {
		t.Errorf("troubles = %v, want %v", out.Troubles(), want)
	}
	b.sample.troubles = nil
	p.tell(out)
	if len(out.Troubles()) > 0 {
		t.Errorf("troubles = %v, want none", out.Troubles())
	}
}

func TestNewRefusesWhatCannotBeCollected(t *testing.T) {
	m := newMachine(t, "linux-6.8.first.txt")
	o := m.options(`Processor(*)\% Processor Tim`, `\Memory\Cache Bytes`, `System(*)\Uptime`)
	o.Sets = append(o.Sets, Set{Interval: time.Millisecond, Specifiers: []string{`System(*)\Uptime`}})
	_, err := New(o)
	want := `read counter specifier "Processor(*)\\% Processor Tim": there is no counter of Processor named "% Processor Tim"; did you mean "% Processor Time"?` +
		"\nsample performance counters every 1ms: the shortest interval is 1s"
	if err == nil || err.Error() != want {
		t.Errorf("New = %v, want %s", err, want)
	}
	if _, err := New(m.options(`\Memory\Cache Bytes`, `System(*)\Uptime`)); err != nil {
		t.Errorf("New with a counter that only Windows has = %v, want nil", err)
	}
}
