package handler

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openloganalytics/agent/agent"
	"github.com/openloganalytics/agent/internal/paths"
)

// TestChooseRoad: a syslog daemon comes first, then the journal, which begins
// anew whenever it is chosen again.
func TestChooseRoad(t *testing.T) {
	root := t.TempDir()
	write := func(path, text string) {
		t.Helper()
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h, s := &Handler{Layout: paths.New(root), Root: true}, &state{}
	now := time.Date(2026, time.November, 24, 12, 0, 0, 0, time.UTC)
	choose := func() (road, since, note string) {
		t.Helper()
		now = now.Add(time.Second)
		cfg := &agent.Syslog{Selectors: []agent.SyslogSelector{{Facilities: []string{"*"}, Severities: []string{"*"}}}}
		note = h.chooseRoad(t.Context(), s, cfg, now)
		return cfg.Road, cfg.Since, note
	}
	if road, since, note := choose(); road != agent.RoadRSyslog || since != "" || note != "" {
		t.Errorf("without anything the road is %q since %q, note %q; want that of rsyslog, to be installed", road, since, note)
	}
	write("/run/systemd/journal/socket", "")
	road, first, note := choose()
	if road != agent.RoadJournal || first == "" || !strings.Contains(note, "systemd's journal") {
		t.Errorf("with a journal the road is %q since %q, note %q; want the journal", road, first, note)
	}
	if road, again, _ := choose(); road != agent.RoadJournal || again != first {
		t.Errorf("the second time the road is %q since %q, want the journal since %q still", road, again, first)
	}
	write("/usr/sbin/rsyslogd", "")
	write("/etc/rsyslog.d/50-default.conf", "")
	if road, _, note := choose(); road != agent.RoadJournal || !strings.Contains(note, "rsyslog does not read /etc/rsyslog.d") {
		t.Errorf("with an rsyslog that cannot be told the road is %q, note %q; want the journal, and why", road, note)
	}
	write("/etc/rsyslog.conf", "$IncludeConfig /etc/rsyslog.d/*.conf\n")
	if road, since, note := choose(); road != agent.RoadRSyslog || since != "" || note != "Syslog comes from rsyslog." {
		t.Errorf("with rsyslog the road is %q since %q, note %q; want rsyslog", road, since, note)
	}
	if err := os.Remove(filepath.Join(root, "/usr/sbin/rsyslogd")); err != nil {
		t.Fatal(err)
	}
	if road, later, _ := choose(); road != agent.RoadJournal || later == first {
		t.Errorf("after rsyslog was removed the road is %q since %q, want the journal anew", road, later)
	}
	if note := h.chooseRoad(t.Context(), s, nil, now); note != "" {
		t.Errorf("without syslog the note is %q", note)
	}
}
