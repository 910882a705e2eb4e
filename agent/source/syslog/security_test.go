package syslog

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openloganalytics/agent/agent/source/sourcetest"
)

// TestClassify: CEF and Cisco ASA are known however a device or a relay wraps
// them, and nothing else is.
func TestClassify(t *testing.T) {
	const cef, asa = `0|Acme|Wall|1.0|100|worm \| stopped|10|src=10.0.0.1 msg=a b`, "Built inbound TCP connection"
	tests := []struct {
		msg         string
		want        lane
		ident, text string
	}{
		{"<134>Nov 24 10:00:00 fw CEF:" + cef, laneCEF, "CEF", cef},
		{"<134>Nov 24 10:00:00 fw CEF: " + cef, laneCEF, "CEF", cef},
		{"<134>CEF:" + cef, laneCEF, "CEF", cef},
		{"<134>2026-11-24T10:00:00Z 10.0.0.9 CEF:" + cef, laneCEF, "CEF", cef},
		{"<134>Nov 24 10:00:00 fw app[7]: CEF:" + cef, laneCEF, "CEF", cef},
		{"<134>Nov 24 10:00:00 fw relayed by me CEF:" + cef, laneCEF, "CEF", cef},
		{"<134>1 2026-11-24T10:00:00Z fw app - - - CEF:" + cef, laneCEF, "CEF", cef},
		{"<134>1 2026-11-24T10:00:00Z fw CEF - - - " + cef, laneCEF, "CEF", cef},
		{"<134>Nov 24 10:00:00 fw CEF:1|a|b|c|d|e|5|", laneCEF, "CEF", "1|a|b|c|d|e|5|"},
		{"<134>Nov 24 10:00:00 fw CEF:0|a|b|c|d|e|5", laneCEF, "CEF", "0|a|b|c|d|e|5"},
		{"<166>Nov 24 10:00:00 asa %ASA-6-302013: " + asa, laneASA, "%ASA-6-302013", asa},
		{"<166>Nov 24 2026 10:00:00 asa : %ASA-6-302013: " + asa, laneASA, "%ASA-6-302013", asa},
		{"<166>Nov 24 2026 10:00:00: %ASA-6-302013: " + asa, laneASA, "%ASA-6-302013", asa},
		{"<166>%ASA-session-6-302013: " + asa, laneASA, "%ASA-session-6-302013", asa},
		{"<166>Nov 24 10:00:00 relay asa: %ASA-6-302013: " + asa, laneASA, "%ASA-6-302013", asa},

		{"<134>Nov 24 10:00:00 fw CEF:0|a|b|c|d|e", lanePlain, "CEF", "0|a|b|c|d|e"},
		{`<134>Nov 24 10:00:00 fw CEF:0|a|b|c|d|e\|5\|6`, lanePlain, "CEF", `0|a|b|c|d|e\|5\|6`},
		{"<134>Nov 24 10:00:00 fw app: a word like XCEF:" + cef, lanePlain, "app", "a word like XCEF:" + cef},
		{"<134>Nov 24 10:00:00 fw app: CEF: is a format", lanePlain, "app", "CEF: is a format"},
		{"<134>Nov 24 10:00:00 fw app: " + strings.Repeat("far ", 70) + "CEF:" + cef, lanePlain, "app", strings.Repeat("far ", 70) + "CEF:" + cef},
		{"<134>Nov 24 10:00:00 fw app: %ASA- is a mark", lanePlain, "app", "%ASA- is a mark"},
		{"<134>Nov 24 10:00:00 sw %LINK-3-UPDOWN: changed", lanePlain, "%LINK-3-UPDOWN", "changed"},
		{"<134>Nov 24 10:00:00 fw app: text", lanePlain, "app", "text"},
		{"<134>", lanePlain, "", ""},
	}
	for _, tt := range tests {
		var m Message
		Parse([]byte(tt.msg), testNow, time.UTC, &m)
		if got := classify(&m); got != tt.want || string(m.Ident) != tt.ident || string(m.Text) != tt.text {
			t.Errorf("%.90q is of lane %d, ident %q, text %.60q; want %d, %q, %.60q", tt.msg, got, m.Ident, m.Text, tt.want, tt.ident, tt.text)
		}
	}
}

// TestSecurityRows: a security message is in CommonSecurityLog or in Syslog, as
// the selectors say, and never in both.
func TestSecurityRows(t *testing.T) {
	all := []string{"*"}
	g, err := NewGroup(Options{
		Hostname: "vm", Now: func() time.Time { return testNow },
		Selectors: []Selector{{Facilities: []string{"local0", "auth"}, Severities: all}},
		Security:  []Selector{{Facilities: []string{"local0", "local4"}, Severities: all}},
	})
	if err != nil {
		t.Fatal(err)
	}
	g.Begin(testNow)
	for _, msg := range []string{
		"<134>Nov 24 10:00:00 fw CEF:0|local0, both want it|b|c|d|e|5|",
		"<166>Nov 24 10:00:00 10.0.0.9 %ASA-6-302013: local4, for security alone",
		"<38>Nov 24 10:00:00 fw CEF:0|auth, for syslog alone|b|c|d|e|5|",
		"<134>Nov 24 10:00:00 fw app: local0, not of security",
		"<166>Nov 24 10:00:00 fw app: local4, not of security, wanted by nobody",
	} {
		var m Message
		Parse([]byte(msg), testNow, time.UTC, &m)
		if g.Wants(m.Facility, m.Severity) {
			g.Add(&m)
		}
	}
	out := sourcetest.New()
	if err := g.Emit(t.Context(), out); err != nil {
		t.Fatal(err)
	}
	g.Clear()
	if err := g.Emit(t.Context(), out); err != nil || g.Len() != 0 {
		t.Errorf("a group that was cleared has %d messages, %v", g.Len(), err)
	}
	const now, event = "2026-11-24T12:00:00.000Z", "2026-11-24T10:00:00.000Z"
	wantSecurity := []sourcetest.Row{
		{
			"ident": "%ASA-6-302013", "Timestamp": now, "EventTime": event, "Host": "10.0.0.9", "HostIP": "10.0.0.9",
			"Message": "%ASA-6-302013: local4, for security alone", "Facility": "local4", "Severity": "info",
		},
		{
			"ident": "CEF", "Timestamp": now, "EventTime": event, "Host": "fw",
			"Message": "CEF: 0|local0, both want it|b|c|d|e|5|", "Facility": "local0", "Severity": "info",
		},
	}
	if diff := cmp.Diff(wantSecurity, out.Rows("CommonSecurityLog")); diff != "" {
		t.Errorf("CommonSecurityLog (-want +got):\n%s", diff)
	}
	want := []string{"0|auth, for syslog alone|b|c|d|e|5|", "local0, not of security"}
	if diff := cmp.Diff(want, messages(out)); diff != "" {
		t.Errorf("Syslog (-want +got):\n%s", diff)
	}
}

// TestSecurityAllocations: to tell security messages from others costs nothing
// but time.
func TestSecurityAllocations(t *testing.T) {
	g, err := NewGroup(Options{Security: []Selector{{Facilities: []string{"*"}, Severities: []string{"*"}}}})
	if err != nil {
		t.Fatal(err)
	}
	msgs := [][]byte{
		[]byte("<134>Nov 24 10:00:00 fw CEF:0|Acme|Wall|1.0|100|worm|10|src=10.0.0.1"),
		[]byte("<166>Nov 24 10:00:00 asa %ASA-6-302013: Built inbound TCP connection"),
		[]byte("<134>Nov 24 10:00:00 fw app: text that is neither"),
	}
	fill := func() {
		for _, msg := range msgs {
			Parse(msg, testNow, time.UTC, g.next(netip.Addr{}))
			g.keep(len(msg))
		}
		g.Clear()
	}
	fill()
	if n := testing.AllocsPerRun(100, fill); n > 0 {
		t.Errorf("%v allocations for three messages, want none", n)
	}
}

// FuzzClassify: whatever the message, it stays whole behind the word that tells,
// and that word is one that the service knows.
func FuzzClassify(f *testing.F) {
	f.Add([]byte("<134>Nov 24 10:00:00 fw CEF:0|Ac\\|me|Wall|1.0|100|worm|10|src=10.0.0.1"))
	f.Add([]byte("<166>Nov 24 10:00:00 asa %ASA-6-302013: Built"))
	f.Add([]byte("CEF: CEF:0|a|b|c|d|e|5|"))
	f.Fuzz(func(t *testing.T, msg []byte) {
		var before, m Message
		Parse(msg, testNow, time.UTC, &before)
		m = before
		switch to := classify(&m); {
		case to == lanePlain:
			if !bytes.Equal(m.Ident, before.Ident) || !bytes.Equal(m.Text, before.Text) {
				t.Errorf("%q was changed and is no security message", msg)
			}
		case to == laneCEF && string(m.Ident) != "CEF", to == laneASA && !bytes.HasPrefix(m.Ident, []byte("%ASA-")):
			t.Errorf("%q has the ident %q", msg, m.Ident)
		case !bytes.HasSuffix(before.Text, m.Text):
			t.Errorf("%q lost a part of its end: %q", msg, m.Text)
		case to == laneCEF && bytes.Count(m.Text, []byte("|")) < 6:
			t.Errorf("%q has no header of CEF", msg)
		}
	})
}
