package agent

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openloganalytics/agent/agent/source"
	"github.com/openloganalytics/agent/agent/source/syslog"
	"github.com/openloganalytics/agent/internal/logfile"
	"github.com/openloganalytics/agent/internal/vfs/memfs"
)

// TestPartsTellSourcesApart: a source's part changes when what it was made from
// does, and only then.
func TestPartsTellSourcesApart(t *testing.T) {
	base := func() *Config {
		return &Config{Sources: Sources{
			Heartbeat: Heartbeat{Interval: Duration(time.Minute)},
			Syslog:    &Syslog{Selectors: []SyslogSelector{{Facilities: []string{"auth"}, Severities: []string{"*"}}}},
			Counters:  []Counters{{Interval: Duration(time.Minute), Specifiers: []string{`Memory(*)\% Used Memory`}}},
			CustomLogs: []CustomLog{
				{Table: "App_CL", Patterns: []string{"/var/log/app.log"}}, {Table: "Other_CL", Patterns: []string{"/var/log/other.log"}},
			},
			SyslogListeners: []SyslogListener{{Protocol: "udp", Address: "127.0.0.1", Port: 5514, Selector: SyslogSelector{Facilities: []string{"*"}, Severities: []string{"*"}}}},
		}}
	}
	parts := func(c *Config) map[string]part {
		t.Helper()
		in := newIntake(openTestSpool(t, memfs.New()), logfile.Discard())
		r := &roster{o: testOptions(t), machine: &host{name: "vm"}, intake: in}
		n, err := r.plan(c, nil)
		if err != nil {
			t.Fatal(err)
		}
		return n.parts
	}
	before := parts(base())
	for name, tt := range map[string]struct {
		change func(s *Sources)
		want   []string // whose part changes, with a + when only the selection does
	}{
		"nothing":           {func(*Sources) {}, nil},
		"heartbeat":         {func(s *Sources) { s.Heartbeat.Interval *= 2 }, []string{"heartbeat"}},
		"counters":          {func(s *Sources) { s.Counters[0].Interval *= 2 }, []string{"perf"}},
		"a path":            {func(s *Sources) { s.CustomLogs[0].Patterns[0] += "x" }, []string{"customlog:App_CL"}},
		"selectors":         {func(s *Sources) { s.Syslog.Selectors[0].Facilities[0] = "kern" }, []string{"+syslog"}},
		"local port":        {func(s *Sources) { s.Syslog.UDP = "127.0.0.1:25224" }, []string{"syslog"}},
		"listener selector": {func(s *Sources) { s.SyslogListeners[0].Selector.Facilities[0] = "kern" }, []string{"+syslog:udp:127.0.0.1:5514"}},
		"listener limit":    {func(s *Sources) { s.SyslogListeners[0].MaxConnections = 5 }, []string{"syslog:udp:127.0.0.1:5514"}},
		"another log": {func(s *Sources) {
			s.CustomLogs = append(s.CustomLogs, CustomLog{Table: "More_CL", Patterns: []string{"/x"}})
		}, []string{"customlog:More_CL"}},
		"a log less": {func(s *Sources) { s.CustomLogs = s.CustomLogs[:1] }, []string{"customlog:Other_CL"}},
	} {
		c := base()
		tt.change(&c.Sources)
		after := parts(c)
		var changed []string
		for name, now := range after {
			switch old := before[name]; {
			case now == old:
			case now.fixed == old.fixed:
				changed = append(changed, "+"+name)
			default:
				changed = append(changed, name)
			}
		}
		for name := range before {
			if _, there := after[name]; !there {
				changed = append(changed, name)
			}
		}
		slices.Sort(changed)
		if diff := cmp.Diff(tt.want, changed); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	want := []string{"customlog:App_CL", "customlog:Other_CL", "heartbeat", "operation", "perf", "syslog", "syslog:udp:127.0.0.1:5514"}
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(before))); diff != "" {
		t.Error(diff)
	}
	// Of a source that nobody knows here any change may be one.
	s := base().Sources
	known := partOf(&s, "unknown")
	s.Counters[0].Interval *= 2
	if partOf(&s, "unknown") == known {
		t.Error("a source that may depend on anything does not depend on the counters")
	}
}

// TestSelectionChangesWithinSyslogOnly: a source that wraps one of syslog cannot
// be told of another selection, and makes room for another source.
func TestSelectionChangesWithinSyslogOnly(t *testing.T) {
	bare := func(facility string) *syslog.Source {
		t.Helper()
		s, err := syslog.New(syslog.Options{UDP: "127.0.0.1:514", Selectors: []syslog.Selector{{Facilities: []string{facility}, Severities: []string{"*"}}}})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	type wrapped struct{ source.Source }
	for name, tt := range map[string]struct {
		old, next source.Source
		selected  string
		want      bool
	}{
		"the same":          {bare("auth"), bare("auth"), "x", true},
		"another selection": {bare("auth"), bare("kern"), "y", true},
		"wrapped, the same": {wrapped{bare("auth")}, wrapped{bare("auth")}, "x", true},
		"wrapped":           {wrapped{bare("auth")}, wrapped{bare("kern")}, "y", false},
		"wrapped from now":  {bare("auth"), wrapped{bare("kern")}, "y", false},
		"wrapped before":    {wrapped{bare("auth")}, bare("kern"), "y", false},
	} {
		r := &running{source: tt.old, part: part{"f", "x"}}
		if got := r.goesOn(part{"f", tt.selected}, tt.next); got != tt.want {
			t.Errorf("%s: goes on: %v", name, got)
		}
		if r.goesOn(part{"g", tt.selected}, tt.next) {
			t.Errorf("%s: goes on with another port", name)
		}
	}
}
