package perf

import (
	"errors"
	"strings"
	"testing"
)

func TestSpecifiers(t *testing.T) {
	tests := []struct {
		text     string
		object   string
		instance string
		counter  string // "*" is all
	}{
		{`\Processor(_Total)\% Processor Time`, "Processor", "_Total", "% Processor Time"},
		{`Processor(*)\% Processor Time`, "Processor", "*", "% Processor Time"},
		{`\Processor Information(_Total)\% Processor Time`, "Processor", "_Total", "% Processor Time"},
		{`Memory(*)\Available MBytes Memory`, "Memory", "*", "Available MBytes Memory"},
		{`\Memory\Available MBytes Memory`, "Memory", "*", "Available MBytes Memory"},
		{`\Memory\Available MBytes`, "Memory", "*", "Available MBytes Memory"},
		{`Memory()\Pages/sec`, "Memory", "*", "Pages/sec"},
		{` memory ( * ) \ pages/SEC `, "", "", ""},
		{` memory(*)\ pages/SEC `, "Memory", "*", "Pages/sec"},
		{`Logical Disk(/mnt/a (b))\% Used Space`, "Logical Disk", "/mnt/a (b)", "% Used Space"},
		{`\LogicalDisk(/a)\b)\% Used Space`, "Logical Disk", `/a)\b`, "% Used Space"},
		{`Logical Disk(/back\slash)\Free Megabytes`, "Logical Disk", `/back\slash`, "Free Megabytes"},
		{`\LogicalDisk(_Total)\Disk Bytes/sec`, "Logical Disk", "_Total", "Logical Disk Bytes/sec"},
		{`Logical Disk(C:)\Free Megabytes`, "Logical Disk", "C:", "Free Megabytes"},
		{`\PhysicalDisk(_Total)\Disk Bytes/sec`, "Physical Disk", "_Total", "Physical Disk Bytes/sec"},
		{`\PhysicalDisk(sda)\Avg. Disk sec/Read`, "Physical Disk", "sda", "Avg. Disk sec/Read"},
		{`\Network Interface(*)\Packets Received Errors`, "Network", "*", "Total Rx Errors"},
		{`\Network Adapter(eth0)\Packets Outbound Errors`, "Network", "eth0", "Total Tx Errors"},
		{`\System\System Up Time`, "System", "*", "Uptime"},
		{`Process(*)\Used Memory`, "Process", "*", "Used Memory kBytes"},
		{`Process(nginx)\Used Memory kBytes`, "Process", "nginx", "Used Memory kBytes"},
		{`\Process(nginx)\% User Time`, "Process", "nginx", "Pct User Time"},
		{`Network(*)\*`, "Network", "*", "*"},
	}
	for _, tt := range tests {
		t.Run(tt.text, func(t *testing.T) {
			got, err := parseSpecifier(tt.text)
			if tt.object == "" {
				if err == nil {
					t.Fatalf("parsed as %+v, want an error", got)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			id, _ := findObject(tt.object)
			want := specifier{id, tt.instance, objects[id].all()}
			if n, ok := objects[id].find(tt.counter); ok {
				want.counters = 1 << n
			} else if tt.counter != "*" {
				t.Fatalf("the test's own %s has no counter %s", tt.object, tt.counter)
			}
			if got != want {
				t.Errorf("parsed as %+v, want %+v", got, want)
			}
		})
	}
}

func TestCheckNamesWhatIsWrong(t *testing.T) {
	tests := []struct {
		text, want  string
		windowsOnly bool
	}{
		{text: ``, want: `no \ stands before a counter; write Object(Instance)\Counter, for example`},
		{text: `Processor`, want: `no \ stands before a counter`},
		{text: `Processor(_Total)`, want: `the instance does not end with )\`},
		{text: `Processor(_Total`, want: `the instance does not end with )\`},
		{text: `Processor)(\% Idle Time`, want: `the instance does not end with )\`},
		{text: `Processor(*)\`, want: `names no object or no counter`},
		{text: `\\vm1\Processor(*)\% Idle Time`, want: `names no object or no counter`},
		{text: `(*)\% Idle Time`, want: `names no object or no counter`},
		{text: `Procesor(*)\% Idle Time`, want: `there is no object named "Procesor"; did you mean "Processor"?`},
		{text: `LogicalDisks(*)\% Used Space`, want: `did you mean "Logical Disk"?`},
		{text: `\Prozessor(_Total)\% Idle Time`, want: `did you mean "Processor"?`},
		{text: `Memory(*)\Available MByte Memory`, want: `there is no counter of Memory named "Available MByte Memory"; did you mean "Available MBytes Memory"?`},
		{text: `\Memory\% Used Memry`, want: `did you mean "% Used Memory"?`},
		{text: `Memory(*)\% Used Space`, want: `% Used Space is a counter of Logical Disk, not of Memory`},
		{text: `\LogicalDisk(_Total)\Avg. Disk Queue Length`, want: `this Windows counter has no equal on Linux; the nearest counter of Logical Disk is`, windowsOnly: true},
		{text: `\SQLServer:Locks(_Total)\Lock Waits/sec`, want: `this Windows counter has no equal on Linux`, windowsOnly: true},
		{text: `\LogicalDisk(C:)\% Free Space`, want: `it names a drive by its letter`, windowsOnly: true},
		{text: `\PhysicalDisk(0 C: D:)\Disk Bytes/sec`, want: `it names a drive by its letter`, windowsOnly: true},
		{text: `SQLServer:Locks(_Total)\Lock Waits/sec`, want: `there is no object named "SQLServer:Locks"`},
	}
	for _, tt := range tests {
		t.Run(tt.text, func(t *testing.T) {
			err := Check(tt.text)
			if err == nil {
				t.Fatal("Check = nil, want an error")
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Check = %v, want %s in it", err, tt.want)
			}
			if errors.Is(err, ErrWindowsOnly) != tt.windowsOnly {
				t.Errorf("is ErrWindowsOnly: %v, want %v", !tt.windowsOnly, tt.windowsOnly)
			}
		})
	}
}

// The counters of a data collection rule as the portal makes it, for Windows
// and Linux in one list.
func TestPortalRuleIsTaken(t *testing.T) {
	linux := []string{
		`Processor(*)\% Processor Time`, `Processor(*)\% Idle Time`, `Processor(*)\% User Time`, `Processor(*)\% Nice Time`,
		`Processor(*)\% Privileged Time`, `Processor(*)\% IO Wait Time`, `Processor(*)\% Interrupt Time`, `Processor(*)\% DPC Time`,
		`Memory(*)\Available MBytes Memory`, `Memory(*)\% Available Memory`, `Memory(*)\Used Memory MBytes`, `Memory(*)\% Used Memory`,
		`Memory(*)\Pages/sec`, `Memory(*)\Page Reads/sec`, `Memory(*)\Page Writes/sec`, `Memory(*)\Available MBytes Swap`,
		`Memory(*)\% Available Swap Space`, `Memory(*)\Used MBytes Swap Space`, `Memory(*)\% Used Swap Space`,
		`Process(*)\Pct User Time`, `Process(*)\Pct Privileged Time`, `Process(*)\Used Memory`, `Process(*)\Virtual Shared Memory`,
		`Logical Disk(*)\% Free Inodes`, `Logical Disk(*)\% Used Inodes`, `Logical Disk(*)\Free Megabytes`, `Logical Disk(*)\% Free Space`,
		`Logical Disk(*)\% Used Space`, `Logical Disk(*)\Logical Disk Bytes/sec`, `Logical Disk(*)\Disk Read Bytes/sec`,
		`Logical Disk(*)\Disk Write Bytes/sec`, `Logical Disk(*)\Disk Transfers/sec`, `Logical Disk(*)\Disk Reads/sec`, `Logical Disk(*)\Disk Writes/sec`,
		`Network(*)\Total Bytes Transmitted`, `Network(*)\Total Bytes Received`, `Network(*)\Total Bytes`, `Network(*)\Total Packets Transmitted`,
		`Network(*)\Total Packets Received`, `Network(*)\Total Rx Errors`, `Network(*)\Total Tx Errors`, `Network(*)\Total Collisions`,
		`System(*)\Uptime`, `System(*)\Load1`, `System(*)\Load5`, `System(*)\Load15`, `System(*)\Users`, `System(*)\Unique Users`, `System(*)\CPUs`,
	}
	for _, text := range linux {
		if err := Check(text); err != nil {
			t.Error(err)
		}
	}
	windowsOnly := []string{
		`\Processor Information(_Total)\Processor Frequency`, `\System\Context Switches/sec`, `\System\Processor Queue Length`,
		`\Process(_Total)\Thread Count`, `\Process(_Total)\Handle Count`, `\Process(_Total)\Working Set`, `\Process(_Total)\Working Set - Private`,
		`\Memory\% Committed Bytes In Use`, `\Memory\Available Bytes`, `\Memory\Committed Bytes`, `\Memory\Cache Bytes`, `\Memory\Pool Paged Bytes`,
		`\Memory\Pool Nonpaged Bytes`, `\Memory\Page Faults/sec`, `\LogicalDisk(_Total)\% Disk Time`, `\LogicalDisk(_Total)\% Idle Time`,
		`\LogicalDisk(_Total)\Avg. Disk sec/Transfer`, `\LogicalDisk(_Total)\Avg. Disk sec/Read`, `\LogicalDisk(_Total)\Avg. Disk sec/Write`,
		`\LogicalDisk(_Total)\Avg. Disk Queue Length`, `\PhysicalDisk(_Total)\Avg. Disk Queue Length`, `\PhysicalDisk(*)\Disk Reads/sec`,
		`\Network Interface(*)\Bytes Total/sec`, `\Network Interface(*)\Bytes Sent/sec`, `\Network Interface(*)\Bytes Received/sec`,
		`\Network Interface(*)\Packets/sec`, `\Network Interface(*)\Packets Sent/sec`, `\Network Interface(*)\Packets Received/sec`,
		`\VmInsights\DetailedMetrics`,
	}
	for _, text := range windowsOnly {
		if err := Check(text); !errors.Is(err, ErrWindowsOnly) {
			t.Errorf("Check(%s) = %v, want ErrWindowsOnly", text, err)
		}
	}
}

// The workspace's own configuration names the objects of applications, too.
func TestCountersOfApplicationsArePassedOver(t *testing.T) {
	for _, text := range []string{`MySQL Server(*)\Key Cache Hit Pct`, `\apache http server(*)\Busy Workers`, `MySQL Database(shop)\*`} {
		if err := Check(text); !errors.Is(err, ErrApplication) || errors.Is(err, ErrWindowsOnly) {
			t.Errorf("Check(%s) = %v, want ErrApplication", text, err)
		}
	}
	if err := Check(`MySQL Servers(*)\Key Cache Hit Pct`); err == nil || errors.Is(err, ErrApplication) {
		t.Errorf("Check of an object that is not known = %v", err)
	}
}

func TestDefaultCanBeCollected(t *testing.T) {
	specifiers := DefaultSpecifiers()
	if len(specifiers) == 0 {
		t.Error("nothing is collected by default")
	}
	for _, text := range specifiers {
		if err := Check(text); err != nil {
			t.Error(err)
		}
	}
}

func TestDuplicatesAreMerged(t *testing.T) {
	var s selection
	s.add("a", 1)
	s.add("a", 3)
	s.add("a*", 4)
	s.add("*", 8)
	s.add("*", 8)
	if len(s.named) != 2 || s.wanted() != 15 {
		t.Errorf("selection = %+v", s)
	}
	for instance, want := range map[string]counterSet{"a": 15, "ab": 12, "b": 8} {
		if got := s.of([]byte(instance)); got != want {
			t.Errorf("counters of %s = %b, want %b", instance, got, want)
		}
	}
}

func TestMatches(t *testing.T) {
	tests := []struct {
		pattern, name string
		want          bool
	}{
		{"", "", true},
		{"sda", "sda", true},
		{"sda", "sda1", false},
		{"sda", "SDA", false},
		{"sda*", "sda", true},
		{"sda*", "sda1", true},
		{"sda*", "xsda", false},
		{"*1", "sda1", true},
		{"*1", "sda11", true},
		{"*1", "sda12", false},
		{"/data*/x", "/data1/y/x", true},
		{"a*b*c", "aXbYbZc", true},
		{"a*b*c", "acb", false},
		{"a*a", "a", false},
		{"a*a*", "aa", true},
		{"*b*", "abc", true},
		{"*b*", "ac", false},
	}
	for _, tt := range tests {
		if got := matches(tt.pattern, tt.name); got != tt.want {
			t.Errorf("matches(%q, %q) = %v, want %v", tt.pattern, tt.name, got, tt.want)
		}
	}
}

// Specifiers that name a known counter mean the same however they are
// decorated.
func FuzzSpecifier(f *testing.F) {
	for _, text := range append(DefaultSpecifiers(), `\Memory\Available MBytes`, `Logical Disk(/mnt/a (b))\*`, `\\x\y(z)\w`, `(`, `\`, `()\`, `a(b)\c`) {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parseSpecifier(text)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "read counter specifier ") {
				t.Errorf("error %q does not name the specifier", err)
			}
			return
		}
		if got.counters == 0 || got.counters&^objects[got.object].all() != 0 || got.instance == "" {
			t.Fatalf("parsed as %+v", got)
		}
		for n, c := range objects[got.object].counters {
			if got.counters != 1<<n {
				continue
			}
			again, err := parseSpecifier(`\` + objects[got.object].name + "(" + got.instance + `)\` + c.name)
			if err != nil || again != got {
				t.Errorf("%q is %+v, written plainly it is %+v, %v", text, got, again, err)
			}
		}
	})
}
