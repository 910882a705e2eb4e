// Package gosyslog holds our syslog parser against go-syslog: what both read of
// RFC 5424, and what it costs.
package gosyslog

import (
	"bytes"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/leodido/go-syslog/v4"
	"github.com/leodido/go-syslog/v4/rfc3164"
	"github.com/leodido/go-syslog/v4/rfc5424"

	ours "github.com/openloganalytics/agent/agent/source/syslog"
)

const (
	modern   = `<165>1 2026-11-24T22:14:15.003456+02:00 web-01.example.com payments 8710 ID47 [req@32473 id="7f3a" user="a\"b"] order 4711 took 23 ms, status=200 client=10.0.0.7`
	plain    = `<165>1 2026-11-24T22:14:15.003456Z web-01 payments 8710 - - order 4711 took 23 ms, status=200 client=10.0.0.7 path=/api/v1/orders/4711/items agent=example/1.7`
	old      = `<38>Nov 24 22:14:15 web-01 sshd[811]: Accepted publickey for root from 10.0.0.7 port 50000 ssh2: ED25519 SHA256:abcdefghijklmnopqrstuvwxyz`
	firewall = `<134>Nov 24 22:14:15 fw kernel: CEF:0|Acme|Wall|1.0|100|worm stopped|10|src=10.0.0.1 dst=10.0.0.2 spt=1232 act=blocked cs1Label=rule cs1=deny all`
)

var now = time.Date(2026, time.November, 24, 22, 15, 0, 0, time.UTC)

// BenchmarkParse shows what one message costs.
func BenchmarkParse(b *testing.B) {
	theirs := map[string]syslog.Machine{
		"5424": rfc5424.NewParser(rfc5424.WithBestEffort()),
		"3164": rfc3164.NewParser(rfc3164.WithBestEffort(), rfc3164.WithYear(rfc3164.Year{YYYY: 2026})),
	}
	for _, tt := range []struct{ name, form, msg string }{
		{"5424 with data", "5424", modern}, {"5424", "5424", plain}, {"3164", "3164", old}, {"CEF", "3164", firewall},
	} {
		msg := []byte(tt.msg)
		b.Run(tt.name+"/ours", func(b *testing.B) {
			var m ours.Message
			b.ReportAllocs()
			b.SetBytes(int64(len(msg)))
			for b.Loop() {
				ours.Parse(msg, now, time.UTC, &m)
			}
			if len(m.Text) == 0 {
				b.Fatal("no text")
			}
		})
		b.Run(tt.name+"/go-syslog", func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(msg)))
			for b.Loop() {
				if m, err := theirs[tt.form].Parse(msg); m == nil || err != nil {
					b.Fatal(m, err)
				}
			}
		})
	}
}

// FuzzRFC5424: what go-syslog reads as RFC 5424, strictly, we read the same.
func FuzzRFC5424(f *testing.F) {
	for _, seed := range []string{
		modern, plain, `<0>1 - - - - - -`, `<191>1 2003-10-11T22:14:15Z - - - - [a b="c"][d e="\]\\\""] ` + "\xef\xbb\xbftext",
		`<34>1 2003-10-11T22:14:15.000001-07:00 h a p m [x]`, `<34>1 - h a: p m - text`, `<34>1 - h a[1]: - m - text`,
		`<34>1 2003-10-11T22:14:15.1Z h a p m - `,
	} {
		f.Add(seed)
	}
	parser := rfc5424.NewParser()
	f.Fuzz(func(t *testing.T, text string) {
		// What ends a message on its way is not part of it for us.
		if strings.TrimRight(text, "\n\r\x00") != text || !utf8.ValidString(text) {
			return
		}
		parsed, err := parser.Parse([]byte(text))
		if err != nil || parsed == nil || !parsed.Valid() {
			return
		}
		want := parsed.(*rfc5424.SyslogMessage)
		if want.Version != 1 { // there is no other RFC 5424
			return
		}
		var got ours.Message
		ours.Parse([]byte(text), now, time.UTC, &got)
		compare := func(field string, theirs *string, ours []byte) {
			value := ""
			if theirs != nil {
				value = *theirs
			}
			if value != string(ours) {
				t.Errorf("%q: %s is %q for go-syslog and %q for us", text, field, value, ours)
			}
		}
		if *want.Facility != got.Facility || *want.Severity != got.Severity {
			t.Errorf("%q: %d.%d for go-syslog and %d.%d for us", text, *want.Facility, *want.Severity, got.Facility, got.Severity)
		}
		if want.Timestamp != nil && !want.Timestamp.Equal(got.Time) || want.Timestamp == nil && !got.Time.IsZero() {
			t.Errorf("%q: time %v for go-syslog and %v for us", text, want.Timestamp, got.Time)
		}
		compare("host", want.Hostname, got.Host)
		compare("id", want.MsgID, got.ID)
		if app := want.Appname; app == nil || !isTag(*app) { // a whole tag we take apart: rsyslog sends such
			compare("ident", want.Appname, got.Ident)
			compare("process id", want.ProcID, got.PID)
			if text := want.Message; text == nil || !strings.HasPrefix(*text, "\ufeff") {
				compare("text", want.Message, got.Text)
			}
		}
		if (want.StructuredData != nil) != (len(got.Data) > 0) {
			t.Errorf("%q: structured data %v for go-syslog and %q for us", text, want.StructuredData, got.Data)
		}
		if want.StructuredData == nil {
			return
		}
		for id := range *want.StructuredData {
			if !bytes.Contains(got.Data, []byte("["+id)) {
				t.Errorf("%q: element %s is missing in %q", text, id, got.Data)
			}
		}
	})
}

func isTag(app string) bool { return strings.HasSuffix(app, ":") || strings.HasSuffix(app, "]") }
