package perf

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openloganalytics/agent/agent/source/sourcetest"
)

func openInsights(t *testing.T, m *machine) *insights {
	t.Helper()
	s, err := NewInsights(InsightsOptions{Interval: 10 * time.Second, Computer: "vm1", Root: m.root, Stats: m})
	if err != nil {
		t.Fatal(err)
	}
	return s.(*insights)
}

// The values were worked out by hand from the differences that the head of the
// second archive lists, and those of the interface here.
func TestInsightsOfARecordedMachine(t *testing.T) {
	m := newMachine(t, "linux-6.8.first.txt")
	for _, name := range []string{"dummy0", "ifb0"} {
		m.write("sys/devices/virtual/net/"+name+"/flags", "0x1")
	}
	i := openInsights(t, m)
	i.take(t.Context(), noon)
	for _, row := range i.metrics {
		if strings.HasSuffix(row.name, "PerSecond") || row.name == "UtilizationPercentage" {
			t.Errorf("%s is known from one sample", row.name)
		}
	}
	m.unpack("linux-6.8.second.txt")
	m.write("proc/net/dev", "  lo: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0\n"+
		"eth0: 1002000 5000 3 1 0 0 0 4 250030 2500 2 0 0 7 0 0\ndummy0: 5 1 0 0 0 0 0 0 5 1 0 0 0 0 0 0\n")
	i.take(t.Context(), noon.Add(10*time.Second))
	var got []string
	for _, row := range i.metrics {
		got = append(got, fmt.Sprintf("%s %s %s %s", row.namespace, row.name, appendNumber(nil, row.value), row.tags))
	}
	disk := func(mount string, rows ...string) []string {
		var lines []string
		for _, row := range rows {
			name, value, _ := strings.Cut(row, " ")
			value, more, _ := strings.Cut(value, " ")
			lines = append(lines, fmt.Sprintf(`LogicalDisk %s %s {"vm.azm.ms/mountId":%q%s}`, name, value, mount, more))
		}
		return lines
	}
	want := slices.Concat([]string{
		`Computer Heartbeat 1 {}`,
		`Memory AvailableMB 1000.5 {"vm.azm.ms/memorySizeMB":4000}`,
		`Processor UtilizationPercentage 66.67 {"vm.azm.ms/totalCpus":2}`, // 202 of 303
		`Network ReadBytesPerSecond 200 {"vm.azm.ms/networkDeviceId":"eth0","vm.azm.ms/bytes":2000}`,
		`Network WriteBytesPerSecond 3 {"vm.azm.ms/networkDeviceId":"eth0","vm.azm.ms/bytes":30}`,
	},
		disk("/", "Status 1", "FreeSpacePercentage 35", `FreeSpaceMB 1367.19 ,"vm.azm.ms/diskSizeMB":3906.25`,
			"ReadsPerSecond 9", "WritesPerSecond 30", "TransfersPerSecond 39",
			"ReadBytesPerSecond 92160", "WriteBytesPerSecond 307200", "BytesPerSecond 399360"),
		disk("/srv", "Status 1", "FreeSpacePercentage 35", `FreeSpaceMB 1367.19 ,"vm.azm.ms/diskSizeMB":3906.25`,
			"ReadsPerSecond 9", "WritesPerSecond 30", "TransfersPerSecond 39",
			"ReadBytesPerSecond 92160", "WriteBytesPerSecond 307200", "BytesPerSecond 399360"),
		disk("/data", "Status 1", "FreeSpacePercentage 50", `FreeSpaceMB 512 ,"vm.azm.ms/diskSizeMB":1024`,
			"ReadsPerSecond 0.5", "WritesPerSecond 0.5", "TransfersPerSecond 1",
			"ReadBytesPerSecond 2048", "WriteBytesPerSecond 51200", "BytesPerSecond 53248"),
		disk("/backup", "Status 1", "FreeSpacePercentage 75", `FreeSpaceMB 768 ,"vm.azm.ms/diskSizeMB":1024`,
			"ReadsPerSecond 0", "WritesPerSecond 2", "TransfersPerSecond 2",
			"ReadBytesPerSecond 0", "WriteBytesPerSecond 8192", "BytesPerSecond 8192"),
		disk("/mnt/a (b)/tab\tx", "Status 1", "FreeSpacePercentage 0.05", `FreeSpaceMB 0 ,"vm.azm.ms/diskSizeMB":1`,
			"ReadsPerSecond 1", "WritesPerSecond 0", "TransfersPerSecond 1",
			"ReadBytesPerSecond 4096", "WriteBytesPerSecond 0", "BytesPerSecond 4096"),
	)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
	if len(i.troubles) > 0 {
		t.Errorf("troubles: %v", i.troubles)
	}
}

func TestInsightsRowOnTheWire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := openInsights(t, newMachine(t, "linux-6.8.first.txt"))
		out := sourcetest.New()
		ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second)
		defer cancel()
		if err := i.Run(ctx, out); err != nil {
			t.Fatal(err)
		}
		rows := out.Rows("InsightsMetrics")
		if len(rows) < 2 {
			t.Fatalf("%d rows", len(rows))
		}
		want := sourcetest.Row{
			"Origin": "vm.azm.ms", "Namespace": "Memory", "Name": "AvailableMB", "Value": 1953.13,
			"Tags": `{"vm.azm.ms/memorySizeMB":4000}`, "CollectionTime": "2000-01-01T00:00:10Z", "Computer": "vm1",
		}
		if diff := cmp.Diff(want, rows[1]); diff != "" {
			t.Errorf("row (-want +got):\n%s", diff)
		}
	})
}

func TestInsightsGoOnWithoutAPart(t *testing.T) {
	m := newMachine(t, "linux-6.8.first.txt")
	m.unpack("linux-6.8.second.txt")
	m.remove("proc/meminfo")
	m.fail["/data"] = errors.New("input/output error")
	i := openInsights(t, m)
	out := sourcetest.New()
	i.take(t.Context(), noon)
	i.tell(out)
	if !slices.ContainsFunc(i.metrics, func(r metric) bool { return r.namespace == "LogicalDisk" }) {
		t.Errorf("no disks in %v", i.metrics)
	}
	troubles := out.Troubles()
	if len(troubles) != 2 || !strings.Contains(troubles["Memory"], "meminfo") || !strings.Contains(troubles["/data"], "input/output error") {
		t.Errorf("troubles: %v", troubles)
	}
	m.unpack("linux-6.8.first.txt")
	delete(m.fail, "/data")
	i.take(t.Context(), noon.Add(time.Minute))
	i.tell(out)
	if troubles := out.Troubles(); len(troubles) > 0 {
		t.Errorf("troubles stay: %v", troubles)
	}
}
