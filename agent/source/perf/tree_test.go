package perf

import (
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseNumbers(t *testing.T) {
	whole := map[string]uint64{"0": 0, "007": 7, "18446744073709551615": math.MaxUint64}
	for text, want := range whole {
		if got, ok := parseUint([]byte(text)); !ok || got != want {
			t.Errorf("parseUint(%q) = %d, %v, want %d", text, got, ok, want)
		}
	}
	for _, text := range []string{"", "-1", "+1", "1 ", "0x1", "1.0", "18446744073709551616", "99999999999999999999"} {
		if got, ok := parseUint([]byte(text)); ok {
			t.Errorf("parseUint(%q) = %d, want nothing", text, got)
		}
	}
	decimal := map[string]float64{"0.00": 0, "12.34": 12.34, "7": 7, "0.05": 0.05}
	for text, want := range decimal {
		if got, ok := parseDecimal([]byte(text)); !ok || math.Abs(got-want) > 1e-12 {
			t.Errorf("parseDecimal(%q) = %v, %v, want %v", text, got, ok, want)
		}
	}
	for _, text := range []string{"", ".", "1.", ".5", "-1.0", "1.2.3", "1e3"} {
		if got, ok := parseDecimal([]byte(text)); ok {
			t.Errorf("parseDecimal(%q) = %v, want nothing", text, got)
		}
	}
}

func TestUnescape(t *testing.T) {
	tests := map[string]string{
		`/plain`:                 "/plain",
		`/a\040b\011c\012d\134e`: "/a b\tc\nd\\e",
		`/\1`:                    `/\1`,
		`/\400\189`:              `/\400\189`,
		"/\\303\\244\u00a0":      "/ä\u00a0",
	}
	for text, want := range tests {
		if got := unescape([]byte(text)); got != want {
			t.Errorf("unescape(%q) = %q, want %q", text, got, want)
		}
	}
}

func TestValues(t *testing.T) {
	tests := []struct {
		unit             unit
		value            float64
		precise, integer string
	}{
		{count, 12.99, "12", "12"},
		{count, 1e15, "1000000000000000", "1000000000000000"},
		{percent, 12.494, "12.49", "12"},
		{percent, 12.5, "12.5", "13"},
		{percent, 100.004, "100", "100"},
		{percent, 0.004, "0", "0"},
		{percentOfOne, 350.126, "350.13", "100"},
		{percentOfOne, 0.5, "0.5", "1"},
		{megabytes, 1.999, "2", "1"},
		{megabytesUp, 1.001, "1", "2"},
		{perSecond, 0.999, "1", "0"},
		{perSecond, 1234567.891, "1234567.89", "1234567"},
		{seconds, 0.0012926829, "0.001293", "0.001293"},
		{load, 0.05, "0.05", "0.05"},
	}
	for _, tt := range tests {
		precise := string(tt.unit.appendValue(nil, tt.value, false))
		integer := string(tt.unit.appendValue(nil, tt.value, true))
		if precise != tt.precise || integer != tt.integer {
			t.Errorf("unit %d: %v is %s and %s, want %s and %s", tt.unit, tt.value, precise, integer, tt.precise, tt.integer)
		}
	}
}

func TestObjectsFitTheirSets(t *testing.T) {
	for id := range objects {
		o := &objects[id]
		if o.name == "" || len(o.counters) == 0 || len(o.counters) > maxCounters {
			t.Errorf("object %d: %q has %d counters", id, o.name, len(o.counters))
		}
		for _, c := range o.counters {
			if c.name == "" || strings.ContainsAny(c.name, "\"\\\n") {
				t.Errorf("%s: counter %q would have to be escaped", o.name, c.name)
			}
		}
	}
}

func TestReadFollowsGrowingFiles(t *testing.T) {
	tr := &tree{root: t.TempDir()}
	for _, size := range []int{0, 1, 4095, 4096, 4097, 100_000, 3} {
		text := strings.Repeat("x", size)
		if err := os.WriteFile(filepath.Join(tr.root, "f"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := tr.read("/f"); err != nil || string(got) != text {
			t.Errorf("read of %d bytes = %d bytes, %v", size, len(got), err)
		}
	}
	if _, err := tr.read("/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("read of no file = %v", err)
	}
}

func TestOddLinesArePassedOver(t *testing.T) {
	if got := parseStat(nil, []byte("cpu\ncpu0 1 2 3\ncpux 1 2 3 4\ncpu1 1 2 3 4\ncpu99999999999 1 2 3 4\ncpu")); !cmp.Equal(got, []cpu{{1, cpuTimes{user: 1, nice: 2, system: 3, idle: 4}}}, cmp.AllowUnexported(cpu{}, cpuTimes{})) {
		t.Errorf("parseStat = %+v", got)
	}
	n := 0
	parseNetDev([]byte("eth0: 1 2 3\nno colon\neth1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 x\n"), func([]byte, netTotals) { n++ })
	parseDiskstats([]byte("8 0 sda\n8 x sda 1 2 3 4 5 6 7 8\n8 1 sda1 1 2 3 4 5 6 7\n"), func(device, []byte, diskTimes) { n++ })
	if n > 0 {
		t.Errorf("%d odd lines were taken", n)
	}
	if got := parseMounts([]byte("1 2 8:1 / /x rw ext4 /dev/x\n1 2 8 / /x rw - ext4 /dev/x rw\n1 2 8:1 / - ext4 /dev/x rw\n\n")); len(got) > 0 {
		t.Errorf("parseMounts = %+v", got)
	}
	for _, text := range []string{"", "1 systemd S", ")(", "1 (x) S 1 2 3", "1 (x) S 0 1 1 0 -1 0 1 1 1 1 u 3 7 8 20 0 1 0 5 1 3000"} {
		if got, ok := parseProcessStat([]byte(text)); ok {
			t.Errorf("parseProcessStat(%q) = %+v", text, got)
		}
	}
	if _, ok := parseStatm([]byte("1 2")); ok {
		t.Error("parseStatm took two numbers")
	}
}

// No file of the kernel makes a parser fail in any other way than it says.
func FuzzKernelFiles(f *testing.F) {
	archives, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(archives) == 0 {
		f.Fatalf("no recorded files: %v", err)
	}
	for _, archive := range archives {
		for _, text := range readArchive(f, filepath.Base(archive)) {
			f.Add([]byte(text))
		}
	}
	f.Add([]byte("1 2 8:1 / /a\\04 rw - ext4 /dev/x\\777 rw"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, c := range parseStat(nil, data) {
			if c.id < -1 || c.id > maxCPU {
				t.Errorf("processor %d", c.id)
			}
		}
		if m, err := parseMeminfo(data); err == nil && (m.available > m.total || m.swapFree > m.swapTotal) {
			t.Errorf("meminfo %+v", m)
		}
		parseVmstat(data)
		parseNetDev(data, func(name []byte, _ netTotals) {
			if strings.Contains(string(name), "\n") {
				t.Errorf("interface %q", name)
			}
		})
		parseDiskstats(data, func(_ device, name []byte, _ diskTimes) {
			if len(name) == 0 || strings.ContainsAny(string(name), " \t\n") {
				t.Errorf("disk %q", name)
			}
		})
		points := map[string]bool{}
		for _, m := range parseMounts(data) {
			if points[m.point] || !isDisk(m.kind) {
				t.Errorf("mount %+v", m)
			}
			points[m.point] = true
		}
		parseProcessStat(data)
		parseStatm(data)
		if n, ok := parseDecimal(data); ok && (n < 0 || math.IsNaN(n)) {
			t.Errorf("decimal %v", n)
		}
	})
}
