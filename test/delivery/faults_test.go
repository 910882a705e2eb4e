//go:build linux

package delivery

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/openloganalytics/agent/agent"
	"github.com/openloganalytics/agent/agent/record"
	"github.com/openloganalytics/agent/agent/spool"
	"github.com/openloganalytics/agent/internal/vfs"
	"github.com/openloganalytics/agent/test/emulator"
)

// U01: a busy service is left alone for as long as it asks, and gets everything.
func TestU01RetryAfter(t *testing.T) {
	t.Parallel()
	m := newMachine(t, 1)
	for _, asked := range []string{"1", "0", "-5", "soon"} {
		f := m.order(emulator.Fault{Kind: emulator.FaultStatus, Status: 503, Endpoint: "ods", RetryAfter: asked, Times: 1})
		m.write(50)
		m.struck(f, 1)
		m.wantLines(m.ids[0], 0)
	}
}

// U02: connections break before and within the answer. What was answered only
// in part may come again.
func TestU02BrokenConnections(t *testing.T) {
	t.Parallel()
	m := newMachine(t, 1)
	f := m.order(emulator.Fault{Kind: emulator.FaultReset, Endpoint: "ods", Times: 3})
	m.write(100)
	m.struck(f, 3)
	m.wantLines(m.ids[0], 0)
	f = m.order(emulator.Fault{Kind: emulator.FaultCut, Endpoint: "ods", Times: 1, Bytes: 20})
	m.write(100)
	m.struck(f, 1)
	m.wantLines(m.ids[0], 100)
}

// U05: of a thousand lines the one that is refused is set aside and counted.
func TestU05PoisonRow(t *testing.T) {
	t.Parallel()
	m := newMachine(t, 1)
	f := m.order(emulator.Fault{Kind: emulator.FaultStatus, Status: 400, Endpoint: "ods", Marker: "poison"})
	m.write(1000, 617)
	m.struck(f, 2)
	m.wantLines(m.ids[0], 0, 617)
	m.write(10)
	m.wantLines(m.ids[0], 0, 617)
	if h := m.conserved(); h.Workspaces[0].Refused != 1 || len(h.Ledger.Losses) != 1 || h.Ledger.Losses[0].Reason != "refused" {
		t.Errorf("%+v, lost %+v", h.Workspaces[0], h.Ledger.Losses)
	}
}

// What was refused is told to the workspace, with the number and the time.
func TestLossesAreTold(t *testing.T) {
	t.Parallel()
	m := newMachine(t, 1)
	m.order(emulator.Fault{Kind: emulator.FaultStatus, Status: 400, Endpoint: "ods", Marker: "poison"})
	m.write(100, 7, 70)
	m.wantLines(m.ids[0], 0, 7, 70)
	want := fmt.Sprintf("Workspace %s lost 2 records: refused, at ", m.ids[0])
	m.eventually(func() error { // they gather for a minute
		rows, err := m.service.Rows(m.ids[0], "Operation")
		if err == nil && (len(rows) != 1 || !strings.HasPrefix(rows[0]["Detail"].(string), want)) {
			err = fmt.Errorf("Operation has %v", rows)
		}
		return err
	})
}

// U06: a service that takes ten rows at once gets ten rows at once.
func TestU06TooLarge(t *testing.T) {
	t.Parallel()
	m := newMachine(t, 1)
	f := m.order(emulator.Fault{Kind: emulator.FaultStatus, Status: 413, Endpoint: "ods", OverRows: 10})
	m.write(200)
	m.struck(f, 2)
	m.wantLines(m.ids[0], 0)
}

// U07: the service has the rows, but its answer is lost: one batch comes again.
func TestU07AnswerLost(t *testing.T) {
	t.Parallel()
	m := newMachine(t, 1)
	m.write(1)
	m.wantLines(m.ids[0], 0)
	f := m.order(emulator.Fault{Kind: emulator.FaultLostAnswer, Endpoint: "ods", Times: 1})
	m.write(100)
	m.struck(f, 1)
	m.wantLines(m.ids[0], 100)
}

// U10: nobody but the service gets data, and the state says who was there.
func TestU10ServerIsNotTheService(t *testing.T) {
	t.Parallel()
	for certificate, want := range map[string][2]string{
		"expired":    {"tls-expired", "renew"},
		"wrong-host": {"tls-name", "another name"},
		"untrusted":  {"tls-untrusted", "issued by"},
		"none":       {"tls-protocol", "TLS"},
	} {
		t.Run(certificate, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t, 1)
			m.write(1)
			m.wantLines(m.ids[0], 0)
			f := m.order(emulator.Fault{Kind: emulator.FaultCertificate, Certificate: certificate})
			cut := m.order(emulator.Fault{Kind: emulator.FaultReset, Endpoint: "ods", Times: 2}) // connections that are kept
			m.write(50)
			m.struck(f, 1)
			if certificate == "none" {
				m.eventually(func() error { return m.troubled() })
			} else if message := m.cause(m.ids[0], want[0]); !strings.Contains(message, want[1]) {
				t.Errorf("%q does not say %q", message, want[1])
			}
			m.service.ClearFaults(f.ID)
			m.service.ClearFaults(cut.ID)
			m.wantLines(m.ids[0], 0)
		})
	}
}

// troubled returns nil once the agent says that it cannot deliver.
func (m *machine) troubled() error {
	h, err := agent.ReadHealth(m.layout.HealthFile())
	if err == nil && h.Workspaces[0].State != agent.StateUnreachable {
		err = fmt.Errorf("the workspace is %s", h.Workspaces[0].State)
	}
	return err
}

// U11: the service's clock is days ahead; its time is learned.
func TestU11ClockSkew(t *testing.T) {
	t.Parallel()
	for _, skew := range []time.Duration{20 * time.Minute, -20 * time.Minute, 20 * time.Hour} {
		t.Run(skew.String(), func(t *testing.T) {
			t.Parallel()
			m := newMachine(t, 1)
			if err := m.service.Set(emulator.Settings{Skew: emulator.Duration(skew)}); err != nil {
				t.Fatal(err)
			}
			m.write(50)
			m.wantLines(m.ids[0], 0)
			rows, err := m.service.Rows(m.ids[0], "App_CL")
			if err != nil {
				t.Fatal(err)
			}
			at, err := time.Parse(time.RFC3339, rows[0]["TimeGenerated"].(string))
			if err != nil || time.Since(at).Abs() > patience {
				t.Errorf("the time of a line became %v (%v)", at, err)
			}
		})
	}
}

// U12: a proxy that wants a password is told from the service, and nothing goes
// around it.
func TestU12ProxyWantsAPassword(t *testing.T) {
	t.Parallel()
	m := newMachine(t, 1)
	m.write(1)
	m.wantLines(m.ids[0], 0)
	m.stop()
	if err := m.service.Set(emulator.Settings{GatewayUser: "me", GatewayPassword: "p@ss/word"}); err != nil {
		t.Fatal(err)
	}
	m.start(m.service, "me:wrong@")
	m.write(20)
	if message := m.cause(m.ids[0], "proxy-auth"); !strings.Contains(message, m.service.gateway) || strings.Contains(message, "wrong") {
		t.Errorf("message %q", message)
	}
	m.stop()
	m.start(m.service, "me:p%40ss/word@")
	m.wantLines(m.ids[0], 0)
	text, err := os.ReadFile(m.agentLog())
	if err != nil || strings.Contains(string(text), "p@ss") || strings.Contains(string(text), "p%40ss") {
		t.Errorf("a password is in the log (%v)", err)
	}
}

// U16: whoever refuses compressed data gets it uncompressed.
func TestU16CompressionRefused(t *testing.T) {
	t.Parallel()
	m := newMachine(t, 1)
	f := m.order(emulator.Fault{Kind: emulator.FaultStatus, Status: 415, Endpoint: "ods", Times: 1})
	m.write(300)
	m.struck(f, 1)
	m.wantLines(m.ids[0], 0)
	rows, bytes := 0, 0
	for _, r := range m.service.Requests() {
		if r.Table == "App_CL" && r.Status == 200 {
			rows, bytes = rows+r.Rows, bytes+r.Bytes
		}
	}
	if bytes < rows*len("line number=1 of the application") {
		t.Errorf("%d lines came in %d bytes", rows, bytes)
	}
}

// U20: of two workspaces one hangs; the other has everything meanwhile.
func TestU20OneOfTwoIsDead(t *testing.T) {
	t.Parallel()
	m := newMachine(t, 2)
	m.write(1)
	m.wantLines(m.ids[0], 0)
	m.wantLines(m.ids[1], 0)
	f := m.order(emulator.Fault{Kind: emulator.FaultStall, Workspace: m.ids[0], Endpoint: "ods"})
	for range 20 {
		m.write(10)
		m.wantLines(m.ids[1], 0)
	}
	m.struck(f, 1)
	if times, err := m.arrived(m.ids[0]); err != nil || times[m.written] != 0 {
		t.Errorf("the dead workspace has got the last line %d times (%v)", times[m.written], err)
	}
	m.service.ClearFaults(f.ID)
	m.stop()
	m.start(m.service, "")
	m.wantLines(m.ids[0], 0)
}

// U21: rows have waited for more than two days. Lines keep their time in their
// own column, heartbeats in a table of their own; a fresh one is an ordinary
// heartbeat.
func TestU21RowsOlderThanTwoDays(t *testing.T) {
	t.Parallel()
	m := prepare(t, 1)
	old := time.Now().Add(-60 * time.Hour).UTC().Truncate(time.Second)
	m.spool(old,
		&record.Table{Name: "Heartbeat", DataType: "HEALTH_ASSESSMENT_BLOB", IPName: "LogManagement"},
		func(at, _ string) string {
			return fmt.Sprintf(`"Timestamp":%q,"Computer":"c","OSType":"Linux","Category":"Agent","SCAgentChannel":"Direct","Version":"1.0.0-0"`, at)
		})
	m.spool(old,
		&record.Table{Name: "App_CL", LogType: "App", TimeField: "Timestamp"},
		func(at, text string) string { return fmt.Sprintf(`"Timestamp":%q,"RawData":%q`, at, text) })
	m.start(m.service, "")
	m.wantLines(m.ids[0], 0)

	want := old.Format("2006-01-02T15:04:05.000Z")
	for table, count := range map[string]int{"HeartbeatLate_CL": 1, "App_CL": 2} {
		m.eventually(func() error {
			rows, err := m.service.Rows(m.ids[0], table)
			if err == nil && (len(rows) != count || rows[0]["Timestamp_t"] != want || rows[0]["TimeGenerated"] == want) {
				err = fmt.Errorf("%s has %d rows with times other than %s: %v", table, len(rows), want, rows)
			}
			return err
		})
	}
	rows, err := m.service.Rows(m.ids[0], "Heartbeat")
	if err != nil || len(rows) == 0 {
		t.Errorf("no fresh heartbeat (%v)", err)
	}
	for _, row := range rows {
		if row["Computer"] == "c" && row["TimeGenerated"] == want {
			t.Errorf("the service took an old time for granted: %v", row)
		}
	}
}

// spool leaves a batch in the agent's spool as an earlier run would have, with
// a row that is old and a fresh one. row returns the members of one for a time
// and the text of a line.
func (m *machine) spool(old time.Time, table *record.Table, row func(at, text string) string) {
	m.Helper()
	if err := os.MkdirAll(m.layout.SpoolDir(), 0o700); err != nil {
		m.Fatal(err)
	}
	disk, err := vfs.OS(m.layout.SpoolDir())
	if err != nil {
		m.Fatal(err)
	}
	queue, err := spool.Open(disk, spool.Options{Destinations: []string{"workspace/" + m.ids[0]}, Clock: func() time.Time { return old }})
	if err != nil {
		m.Fatal(err)
	}
	batch := record.NewBatch(table, record.NewCompressor())
	for _, at := range []time.Time{old, time.Now()} {
		text := ""
		if table.Name == "App_CL" {
			m.written++
			text = fmt.Sprintf("line number=%d of the application", m.written)
		}
		members := row(at.UTC().Format("2006-01-02T15:04:05.000Z"), text)
		batch.Add([]record.Field{{Kind: record.Members, Value: []byte(members)}})
	}
	p := batch.Cut()
	_, err = queue.Append([]spool.Piece{{Label: table.Label(), Data: p.Data, Tail: p.Tail, Rows: p.Rows, Raw: p.Raw}}, nil)
	if err := errors.Join(err, queue.Close()); err != nil {
		m.Fatal(err)
	}
}

// U22: what waits follows its workspace to another domain, and goes to no other
// workspace.
func TestU22BacklogFollowsItsWorkspace(t *testing.T) {
	t.Parallel()
	m := newMachine(t, 1)
	m.write(1)
	m.wantLines(m.ids[0], 0)
	m.order(emulator.Fault{Kind: emulator.FaultStatus, Status: 503, Endpoint: "ods"})
	m.write(50)
	m.cause(m.ids[0], "server-busy")
	m.stop()

	moved := serve(t, "moved.test", m.service.workspaces)
	m.start(moved, "")
	m.eventually(func() error {
		times, err := m.arrived(m.ids[0])
		for n := 2; n <= m.written && err == nil; n++ {
			if times[n] != 1 {
				err = fmt.Errorf("line %d arrived %d times at the new domain", n, times[n])
			}
		}
		return err
	})

	m.order(emulator.Fault{Kind: emulator.FaultStatus, Status: 503, Endpoint: "ods"})
	waits := m.written
	m.write(20)
	m.cause(m.ids[0], "server-busy")
	m.stop()
	other := serve(t, "other.test", newWorkspaces(1))
	m.start(other, "")
	m.write(5)
	id := other.workspaces[0].ID
	m.eventually(func() error {
		times, err := m.arrived(id)
		for n := waits + 21; n <= m.written && err == nil; n++ {
			if times[n] != 1 {
				err = fmt.Errorf("line %d arrived %d times at the new workspace", n, times[n])
			}
		}
		return err
	})
	times, err := m.arrived(id)
	for n := 1; n <= waits; n++ {
		if times[n] != 0 || err != nil {
			t.Fatalf("line %d of another workspace arrived (%v)", n, err)
		}
	}
}
