package cli

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/openloganalytics/agent/agent"
)

var printed = time.Date(2026, 1, 4, 12, 0, 0, 0, time.UTC)

func healthy() *agent.Health {
	return &agent.Health{
		Version: "1.2.3", Started: printed.Add(-time.Hour), Updated: printed.Add(-time.Minute),
		Workspaces: []agent.WorkspaceHealth{{ID: "ws", State: agent.StateConnected, Delivered: 90, Waiting: 5, Refused: 2}},
		Sources:    []agent.SourceHealth{{Name: "syslog", State: agent.SourceRunning, Read: 97, Dropped: 3}},
		Spool:      agent.SpoolHealth{Bytes: 1 << 20, Budget: 10 << 20, State: "ok"},
		Ledger:     agent.LedgerHealth{Read: 100, Emitted: 97, Dropped: 3},
	}
}

func TestStatusShowsTheAccount(t *testing.T) {
	h := healthy()
	h.Workspaces[0].OldestWait = printed.Add(-40 * time.Hour)
	h.Sources[0].Troubles = map[string]string{"/var/log/\x1bapp": "is refused; do this"}
	h.Ledger.Losses = []agent.LossHealth{
		{Source: "workspace/ws", Reason: "refused", Records: 2, Last: printed.Add(-48 * time.Hour)},
		{Source: "syslog", Reason: "socket-buffer-full", Class: "auth", Records: 3, Bytes: 300, First: printed.Add(-time.Hour), Last: printed.Add(-time.Minute)},
	}
	var out strings.Builder
	r := newSummary(h, printed)
	r.print(&out, printed)
	for _, want := range []string{
		"Verdict: trouble",
		"100 read = 90 delivered + 5 waiting + 2 refused + 3 dropped\n",
		"after two days, at 2026-01-04T20:00:00Z",
		`! "source syslog, /var/log/\x1bapp: is refused; do this"`,
		"records were lost in the last day (socket-buffer-full): let the sender",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
	if len(r.Troubles) != 3 || strings.Contains(out.String(), "\x1b") {
		t.Errorf("%d troubles in\n%s", len(r.Troubles), out.String())
	}
}

// Notes are shown, and are no trouble.
func TestStatusShowsNotes(t *testing.T) {
	h := healthy()
	h.Limits = agent.LimitsHealth{MemoryMB: 256, CPUPercent: 20, UsedMB: 12, Note: "no control group holds them; do this"}
	h.Spool.Note = "a spool of a newer version\x07"
	var out strings.Builder
	r := newSummary(h, printed)
	r.print(&out, printed)
	for _, want := range []string{
		"Verdict: ok", "Ceilings: 256 MB of memory, of which 12 are in use, 20 % of a core\n  no control group holds them; do this\n",
		`1 of 10 MB used` + "\n" + `  "a spool of a newer version\a"` + "\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
}

// TestStatusShowsWhoChose: for each source, and what of the workspace's wishes
// has no effect. That is no trouble of this machine.
func TestStatusShowsWhoChose(t *testing.T) {
	h := healthy()
	h.Sources[0].Origin = agent.OriginWorkspace
	h.Configuration = agent.ConfigurationHealth{
		Origin: agent.OriginWorkspace, Asked: true, Workspace: "ws", Checksum: "abc", Answered: printed.Add(-time.Minute),
		Problem: "status 404", Unobeyed: []string{"MSFT_nxOMSPluginResource \x1b: runs no code"},
	}
	var out strings.Builder
	r := newSummary(h, printed)
	r.print(&out, printed)
	for _, want := range []string{
		"SOURCE  STATE    READ  DROPPED  FILTERED  REDACTED  FROM", "syslog  running  100   3        0         -         workspace",
		"What is collected comes from workspace ws.\n  last answer of the workspace ", ", document abc\n  not brought up to date: status 404\n",
		`  no effect: "MSFT_nxOMSPluginResource \x1b: runs no code"`,
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
	if r.Verdict != "ok" {
		t.Errorf("verdict %s: %q", r.Verdict, r.Troubles)
	}
	for want, c := range map[string]agent.ConfigurationHealth{
		"comes from the settings.":          {Origin: agent.OriginSettings},
		"the settings have no dataSources.": {Origin: agent.OriginDefault},
		"workspace ws has not pushed any.":  {Origin: agent.OriginDefault, Asked: true, Workspace: "ws"},
		"workspace ws names none.":          {Origin: agent.OriginDefault, Asked: true, Workspace: "ws", Checksum: "abc"},
	} {
		if got := c.Sentence(); !strings.HasSuffix(got, want) {
			t.Errorf("%+v: %s", c, got)
		}
	}
}

func TestVerdicts(t *testing.T) {
	tests := []struct {
		name    string
		change  func(h *agent.Health)
		verdict string
		says    string
	}{
		{"well", func(*agent.Health) {}, "ok", ""},
		{"stopped", func(h *agent.Health) { h.Clean, h.Updated = true, printed.AddDate(0, -1, 0) }, "stopped", ""},
		{"silent", func(h *agent.Health) { h.Updated = printed.Add(-time.Hour) }, "trouble", "told nothing for 1h"},
		{"a record is missing", func(h *agent.Health) { h.Workspaces[0].Delivered-- }, "trouble", "97 were emitted, but at workspace ws there are 96"},
		{"unreachable", func(h *agent.Health) { h.Workspaces[0].Message = "no route; check" }, "trouble", "workspace ws: no route; check"},
		{"full", func(h *agent.Health) { h.Spool.Message = "full; wait" }, "trouble", "spool: full; wait"},
	}
	for _, tt := range tests {
		h := healthy()
		tt.change(h)
		r := newSummary(h, printed)
		if r.Verdict != tt.verdict || (tt.says == "") != (len(r.Troubles) == 0) || !strings.Contains(strings.Join(r.Troubles, "\n"), tt.says) {
			t.Errorf("%s: verdict %s, troubles %q; want %s with %q", tt.name, r.Verdict, r.Troubles, tt.verdict, tt.says)
		}
		data, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var got struct {
			Verdict   string                  `json:"verdict"`
			Conserved bool                    `json:"conserved"`
			Spaces    []agent.WorkspaceHealth `json:"workspaces"`
		}
		if err := json.Unmarshal(data, &got); err != nil || got.Verdict != tt.verdict || len(got.Spaces) != 1 || got.Conserved != (tt.name != "a record is missing") {
			t.Errorf("%s: JSON %s (%v)", tt.name, data, err)
		}
	}
}
