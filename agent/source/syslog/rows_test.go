package syslog

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/openloganalytics/agent/agent/record"
)

// TestRows pins the rows byte for byte: the fields and spellings of the OMS
// agent for Linux (filter_syslog.rb).
func TestRows(t *testing.T) {
	asked := 0
	own := &self{name: "vm", now: func() time.Time { return testNow }, addresses: func() []string {
		asked++
		return []string{"10.0.0.4", "fd00::4"}
	}}
	const (
		head = `{"DataType":"LINUX_SYSLOGS_BLOB","IPName":"LOGMANAGEMENT","DataItems":[`
		now  = `"Timestamp":"2026-11-24T12:00:00.250Z",`
	)
	tests := []struct{ msg, want string }{
		{
			"<84>2026-11-24T10:00:00.999+02:00 VM.example.com sshd[77]: failed \"x\"",
			`{"ident":"sshd",` + now + `"EventTime":"2026-11-24T08:00:00.000Z","Host":"VM.example.com","HostIP":"10.0.0.4","Message":"failed \"x\"","ProcessId":"77","Facility":"authpriv","Severity":"warn"}`,
		},
		{
			"<13>no host and no tag",
			`{"ident":"",` + now + `"EventTime":"2026-11-24T12:00:00.000Z","Host":"vm","HostIP":"10.0.0.4","Message":"no host and no tag","Facility":"user","Severity":"notice"}`,
		},
		{
			"<191>2026-11-24T10:00:00Z fd00::7 app: b",
			`{"ident":"app",` + now + `"EventTime":"2026-11-24T10:00:00.000Z","Host":"fd00::7","HostIP":"fd00::7","Message":"b","Facility":"local7","Severity":"debug"}`,
		},
		{
			"<191>2026-11-24T10:00:00Z vmother app: b",
			`{"ident":"app",` + now + `"EventTime":"2026-11-24T10:00:00.000Z","Host":"vmother","HostIP":"Unknown IP","Message":"b","Facility":"local7","Severity":"debug"}`,
		},
		{
			`<120>1 2026-11-24T10:00:00Z localhost app - ID47 [a@1 b="c"] text`,
			`{"ident":"app",` + now + `"EventTime":"2026-11-24T10:00:00.000Z","Host":"localhost","HostIP":"10.0.0.4","Message":"ID47 [a@1 b=\"c\"] text","Facility":"at","Severity":"emerg"}`,
		},
		{
			`<120>1 2026-11-24T10:00:00Z [::1] app - - [a@1]`,
			`{"ident":"app",` + now + `"EventTime":"2026-11-24T10:00:00.000Z","Host":"[::1]","HostIP":"::1","Message":"[a@1]","Facility":"at","Severity":"emerg"}`,
		},
	}
	b := record.NewBatch(newTable(), record.NewCompressor())
	w := newWriter(own, newLevels())
	w.begin(testNow.Add(250 * time.Millisecond))
	want := make([]string, 0, len(tests))
	for _, tt := range tests {
		var m Message
		Parse([]byte(tt.msg), testNow, time.UTC, &m)
		if m.Time.IsZero() {
			m.Time = testNow
		}
		w.add(b, &m, netip.Addr{})
		want = append(want, tt.want)
	}
	piece := b.Cut()
	got, err := record.Inflate(append(piece.Data, piece.Tail...), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if want := head + strings.Join(want, ",") + "]}"; string(got) != want {
		t.Errorf("rows\n%s\nwant\n%s", strings.ReplaceAll(string(got), "},", "},\n"), strings.ReplaceAll(want, "},", "},\n"))
	}
	if asked != 1 {
		t.Errorf("own address asked %d times within five minutes, want once", asked)
	}
}

// TestOwnAddressIsAskedAgain: an address can change while the agent runs.
func TestOwnAddressIsAskedAgain(t *testing.T) {
	now, address := testNow, "10.0.0.4"
	own := &self{name: "vm", now: func() time.Time { return now }, addresses: func() []string { return []string{address} }}
	if got := own.ip("vm"); got != "10.0.0.4" {
		t.Errorf("ip = %s, want 10.0.0.4", got)
	}
	now, address = now.Add(addressFor+time.Second), "10.0.0.5"
	if got := own.ip("vm"); got != "10.0.0.5" {
		t.Errorf("ip after %v = %s, want 10.0.0.5", addressFor, got)
	}
	nobody := &self{name: "vm", now: time.Now}
	if got := nobody.ip("vm"); got != unknownIP {
		t.Errorf("ip without addresses = %s, want %s", got, unknownIP)
	}
}

func BenchmarkRow(b *testing.B) {
	line := []byte("<86>1 2026-11-24T10:00:00.123456+00:00 web-01 sshd[12345]: - - - Accepted publickey for azureuser from 10.0.0.4 port 50022 ssh2: RSA SHA256:abcdefghijklmnopqrstuvwxyz")
	batch := record.NewBatch(newTable(), record.NewCompressor())
	w := newWriter(&self{name: "web-01", now: time.Now}, newLevels())
	w.begin(testNow)
	var m Message
	b.ReportAllocs()
	for b.Loop() {
		Parse(line, testNow, time.UTC, &m)
		w.add(batch, &m, netip.Addr{})
		if batch.Pending() > 1<<19 {
			b.StopTimer()
			batch.Begin()
			batch.Cut()
			b.StartTimer()
		}
	}
}
