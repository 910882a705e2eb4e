package agent

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openloganalytics/agent/agent/workspace"
	"github.com/openloganalytics/agent/internal/logfile"
	"github.com/openloganalytics/agent/internal/paths"
)

const pushingWorkspace = "11111111-2222-3333-4444-555555555555"

// document is one as the service makes it, with a resource of each kind.
const document = `
instance of MSFT_nxOMSSyslogObject as $Auth { Facility = "auth"; Severities = {"err", "Warning"}; };
instance of MSFT_nxOMSSyslogObject as $Mail { Facility = "Mail"; Severities = {"none"}; };
instance of MSFT_nxOMSSyslogObject as $Odd { Facility = "kernel"; Severities = {"err"}; };
instance of MSFT_nxOMSSyslogResource as $Syslog {
 ResourceId = "[nxOMSSyslog]Syslog"; ModuleName = "nx"; ModuleVersion = "1.0"; SourceInfo = "::7::1::nxOMSSyslog";
 WorkspaceID = "11111111-2222-3333-4444-555555555555"; SyslogSource = {$Auth, $Mail, $Odd};
};
instance of MSFT_nxOMSPerfCounterObject as $Cpu {
 ObjectName = "Processor"; InstanceName = "_Total"; AllInstances = False; IntervalSeconds = 10; PerformanceCounter = {"% Processor Time", "% Idle Time"};
};
instance of MSFT_nxOMSPerfCounterObject as $Disk {
 ObjectName = "Logical Disk"; AllInstances = True; InstanceName = "sda"; IntervalSeconds = 10; PerformanceCounter = {"Free Megabytes", "% Lost Space"};
};
instance of MSFT_nxOMSPerfCounterObject as $Slow {
 ObjectName = "Memory"; InstanceName = "*"; IntervalSeconds = 60000; PerformanceCounter = {"% Used Memory"};
};
instance of MSFT_nxOMSPerfCounterResource {
 ResourceId = "[nxOMSPerfCounter]Perf"; Name = "Perf"; HeartbeatIntervalSeconds = 30; PerfCounterObject = {$Cpu, $Disk, $Slow};
};
instance of MSFT_nxOMSCustomLogObject as $App {
 LogName = "CUSTOM_LOG_BLOB.MyApp_CL_11111111-2222-3333-4444-555555555555"; FilePath = {"/var/log/app/*.log", "/srv/%Y/%m-%d.log", "app.log", "/home/u/app.log"};
};
instance of MSFT_nxOMSCustomLogObject as $More { LogName = "CUSTOM_LOG_BLOB.MyApp_CL"; FilePath = {"/var/log/more.log"}; };
instance of MSFT_nxOMSCustomLogObject as $Bad { LogName = "CUSTOM_LOG_BLOB.My-App_CL"; FilePath = {"/var/log/x.log"}; };
instance of MSFT_nxOMSSudoCustomLogResource {
 ResourceId = "[nxOMSCustomLog]Logs"; EnableCustomLogConfiguration = True; Ensure = "Present"; CustomLogObjects = {$App, $More, $Bad};
};
instance of MSFT_nxOMSPluginResource { ResourceId = "[nxOMSPlugin]Plugins"; Plugins = {}; };
instance of MSFT_nxOMSFutureResource { ResourceId = "[nxOMSFuture]x"; };
instance of MSFT_nxOMSSyslogResource { ResourceId = "[nxOMSSyslog]Other"; WorkspaceID = "99999999-2222-3333-4444-555555555555"; SyslogSource = {$Odd}; };
instance of OMI_ConfigurationDocument { Version = "2.0.0"; MinimumCompatibleVersion = "1.0.0"; Name = "x"; };
`

func TestPushedDocumentIsRead(t *testing.T) {
	p, err := readPushed([]byte(document), pushingWorkspace, false)
	if err != nil {
		t.Fatal(err)
	}
	if !p.speaks || p.heartbeat != 30*time.Second {
		t.Errorf("speaks %v, heartbeat %v", p.speaks, p.heartbeat)
	}
	if diff := cmp.Diff([]SyslogSelector{{Facilities: []string{"auth"}, Severities: []string{"err", "warning"}}}, p.selectors); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]Counters{{Interval: Duration(10 * time.Second), Specifiers: []string{
		`Processor(_Total)\% Processor Time`, `Processor(_Total)\% Idle Time`, `Logical Disk(*)\Free Megabytes`,
	}}}, p.counters); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]CustomLog{{Table: "MyApp_CL", Patterns: []string{"/var/log/app/*.log", "/srv/*/*-*.log", "/var/log/more.log"}}}, p.logs); diff != "" {
		t.Error(diff)
	}
	want := []string{"kernel", "% Lost Space", "60000 seconds", `"app.log" is not a plain absolute path`, "useWorkspaceConfiguration", "My-App_CL", "runs none", "does not know", "another workspace"}
	for i, u := range p.unobeyed {
		if i >= len(want) || !strings.Contains(u.Why, want[i]) {
			t.Errorf("unobeyed %d is %+v", i, u)
		}
	}
	if len(p.unobeyed) != len(want) {
		t.Errorf("%d are not obeyed, want %d", len(p.unobeyed), len(want))
	}
	if diff := cmp.Diff(workspace.Resource{
		ID: "[nxOMSSyslog]Syslog", Class: "MSFT_nxOMSSyslogResource", Module: "nx", ModuleVersion: "1.0", SourceInfo: "::7::1::nxOMSSyslog", Why: p.unobeyed[0].Why,
	}, p.unobeyed[0]); diff != "" {
		t.Error(diff)
	}

	all, err := readPushed([]byte(document), pushingWorkspace, true)
	if err != nil || len(all.logs) != 1 || all.logs[0].Patterns[2] != "/home/u/app.log" {
		t.Errorf("with the right to every file: %+v, %v", all.logs, err)
	}
}

func TestPushedDocumentsThatAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		"<html>": "read MOF document: line 1",
		`instance of MSFT_nxOMSSyslogResource { ResourceId = "a"; SyslogSource = 5; };`:                                         "SyslogSource",
		`instance of MSFT_nxOMSSyslogResource { ResourceId = 5; };`:                                                             "ResourceId",
		`instance of X as $X { Facility = 1; }; instance of MSFT_nxOMSSyslogResource { ResourceId = "a"; SyslogSource = $X; };`: "Facility",
		`instance of MSFT_nxOMSPerfCounterResource { ResourceId = "a"; HeartbeatIntervalSeconds = "x"; };`:                      "HeartbeatIntervalSeconds",
		`instance of MSFT_nxOMSCustomLogResource { ResourceId = "a"; EnableCustomLogConfiguration = 1; };`:                      "EnableCustomLogConfiguration",
	} {
		if p, err := readPushed([]byte(text), pushingWorkspace, false); p != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// What a workspace can ask for is bounded.
func TestPushedDocumentIsBounded(t *testing.T) {
	var b strings.Builder
	var logs []string
	for i := range maxPushedLogs + 10 {
		fmt.Fprintf(&b, "instance of L as $L%d { LogName = \"CUSTOM_LOG_BLOB.App%d_CL\"; FilePath = {\"/l/%d\"}; };\n", i, i, i)
		logs = append(logs, fmt.Sprintf("$L%d", i))
	}
	var paths, objects []string
	for i := range maxPushedPatterns + 10 {
		paths = append(paths, fmt.Sprintf("\"/m/%d\"", i))
	}
	for i := range maxPushedCounters + 10 {
		fmt.Fprintf(&b, "instance of C as $C%d { ObjectName = \"Memory\"; InstanceName = \"%d\"; PerformanceCounter = {\"%% Used Memory\"}; };\n", i, i)
		objects = append(objects, fmt.Sprintf("$C%d", i))
	}
	fmt.Fprintf(&b, "instance of L as $Many { LogName = \"CUSTOM_LOG_BLOB.App0_CL\"; FilePath = {%s}; };\n", strings.Join(paths, ","))
	fmt.Fprintf(&b, "instance of MSFT_nxOMSCustomLogResource { ResourceId = \"a\"; CustomLogObjects = {%s, $Many}; };\n", strings.Join(logs, ","))
	fmt.Fprintf(&b, "instance of MSFT_nxOMSPerfCounterResource { ResourceId = \"b\"; PerfCounterObject = {%s}; };\n", strings.Join(objects, ","))
	for i := range maxUnobeyed + 10 {
		fmt.Fprintf(&b, "instance of X%d { ResourceId = \"%s\"; };\n", i, strings.Repeat("x", 5000))
	}
	p, err := readPushed([]byte(b.String()), pushingWorkspace, false)
	if err != nil {
		t.Fatal(err)
	}
	if len(p.logs) != maxPushedLogs || len(p.logs[0].Patterns) != maxPushedPatterns || len(p.counters[0].Specifiers) != maxPushedCounters || len(p.unobeyed) != maxUnobeyed {
		t.Errorf("%d logs, %d paths, %d counters, %d not obeyed", len(p.logs), len(p.logs[0].Patterns), len(p.counters[0].Specifiers), len(p.unobeyed))
	}
	for _, u := range p.unobeyed {
		if len(u.ID)+len(u.Why) > 3*maxTrouble {
			t.Fatalf("%d bytes are shown of a resource", len(u.ID)+len(u.Why))
		}
	}
}

// TestWhoChooses: the settings come before the workspace, and that before the
// default set. A workspace that says nothing of sources has not chosen.
func TestWhoChooses(t *testing.T) {
	chosen := Sources{
		Heartbeat:       Heartbeat{Interval: Duration(time.Minute)},
		Syslog:          &Syslog{UDP: "127.0.0.1:25224", Selectors: []SyslogSelector{{Facilities: []string{"*"}, Severities: []string{"*"}}}},
		Counters:        []Counters{{Interval: Duration(time.Minute), Specifiers: []string{`Memory(*)\*`}}},
		SyslogListeners: []SyslogListener{{Protocol: "udp", Port: 5514}},
	}
	read := func(text string) *pushed {
		t.Helper()
		p, err := readPushed([]byte(text), pushingWorkspace, false)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	const (
		silent = `instance of MSFT_nxOMSPluginResource { ResourceId = "x"; };`
		none   = `instance of MSFT_nxOMSSyslogResource { ResourceId = "x"; SyslogSource = {}; };`
	)
	local := func(selectors ...SyslogSelector) *Syslog {
		return &Syslog{UDP: "127.0.0.1:25224", Selectors: selectors}
	}
	whole := read(document)
	for name, tt := range map[string]struct {
		config Config
		pushed *pushed
		want   Sources
		origin string
	}{
		"settings":             {Config{Sources: chosen, Origin: OriginSettings}, whole, chosen, OriginSettings},
		"no word of who chose": {Config{Sources: chosen}, whole, chosen, OriginSettings},
		"not followed":         {Config{Sources: chosen, Origin: OriginDefault}, whole, chosen, OriginDefault},
		"nothing came":         {Config{Sources: chosen, Origin: OriginDefault, FollowWorkspace: true}, nil, chosen, OriginDefault},
		"nothing said":         {Config{Sources: chosen, Origin: OriginDefault, FollowWorkspace: true}, read(silent), chosen, OriginDefault},
		"nothing wanted": {
			Config{Sources: chosen, Origin: OriginDefault, FollowWorkspace: true},
			read(none),
			Sources{Heartbeat: chosen.Heartbeat, Syslog: local(), SyslogListeners: chosen.SyslogListeners},
			OriginWorkspace,
		},
		"workspace": {
			Config{Sources: chosen, Origin: OriginDefault, FollowWorkspace: true},
			whole,
			Sources{
				Heartbeat: Heartbeat{Interval: Duration(30 * time.Second)}, Syslog: local(whole.selectors...),
				Counters: whole.counters, CustomLogs: whole.logs, SyslogListeners: chosen.SyslogListeners,
			},
			OriginWorkspace,
		},
	} {
		got, origin := tt.pushed.over(&tt.config)
		if diff := cmp.Diff(tt.want, got); diff != "" || origin != tt.origin {
			t.Errorf("%s: from %s, %s", name, origin, diff)
		}
	}
	if len(chosen.Syslog.Selectors) != 1 {
		t.Error("the config was changed")
	}
}

// FuzzReadPushed: whatever the document, what is read of it makes sources.
func FuzzReadPushed(f *testing.F) {
	f.Add([]byte(document))
	f.Add([]byte(`instance of MSFT_nxOMSSyslogResource { ResourceId = "x"; };`))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := readPushed(text, pushingWorkspace, true)
		if err != nil {
			return
		}
		config := &Config{FollowWorkspace: true, Origin: OriginDefault, Sources: Sources{Syslog: &Syslog{}}}
		config.Sources, _ = p.over(config)
		o := Options{Config: config, Layout: paths.New("/nowhere"), Log: logfile.Discard()}
		if _, err := sources(o, &host{name: "vm"}); err != nil {
			t.Errorf("%+v makes no sources: %v", config.Sources, err)
		}
	})
}
