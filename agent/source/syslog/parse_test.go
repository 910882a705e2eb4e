package syslog

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// fields is a Message as a table row can spell it.
type fields struct {
	Priority                         string // facility.severity; "" is user.notice
	Time                             string // RFC 3339 with fraction; "" is none
	Host, Ident, PID, ID, Data, Text string
}

func parsed(msg string, now time.Time, loc *time.Location) fields {
	var m Message
	Parse([]byte(msg), now, loc, &m)
	f := fields{
		Priority: FacilityName(m.Facility) + "." + SeverityName(m.Severity),
		Host:     string(m.Host), Ident: string(m.Ident), PID: string(m.PID),
		ID: string(m.ID), Data: string(m.Data), Text: string(m.Text),
	}
	if f.Priority == "user.notice" {
		f.Priority = ""
	}
	if !m.Time.IsZero() {
		f.Time = m.Time.UTC().Format(time.RFC3339Nano)
	}
	return f
}

var (
	testNow  = time.Date(2026, time.November, 24, 12, 0, 0, 0, time.UTC)
	testZone = time.FixedZone("CET", 3600)
)

func TestParse(t *testing.T) {
	tests := []struct {
		msg  string
		want fields
	}{
		// The examples of RFC 3164 §5.4.
		{"<34>Oct 11 22:14:15 mymachine su: 'su root' failed for lonvick on /dev/pts/8", fields{
			Priority: "auth.crit", Time: "2026-10-11T21:14:15Z", Host: "mymachine", Ident: "su", Text: "'su root' failed for lonvick on /dev/pts/8",
		}},
		{"Use the BFG!", fields{Text: "Use the BFG!"}},
		{"<165>Aug 24 05:34:00 CST 1987 mymachine myproc[10]: %% It's time to make the do-nuts.  %%  Ingredients: Mix=OK", fields{
			Priority: "local4.notice", Time: "2026-08-24T04:34:00Z", Host: "CST",
			Text: "1987 mymachine myproc[10]: %% It's time to make the do-nuts.  %%  Ingredients: Mix=OK",
		}},
		{"<0>1990 Oct 22 10:52:01 TZ-6 scapegoat.dmz.example.org 10.1.2.3 sched[0]: That's All Folks!", fields{
			Priority: "kern.emerg", Time: "1990-10-22T09:52:01Z", Host: "TZ-6", Text: "scapegoat.dmz.example.org 10.1.2.3 sched[0]: That's All Folks!",
		}},

		// The examples of RFC 5424 §6.5.
		{"<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - \xef\xbb\xbf'su root' failed for lonvick on /dev/pts/8", fields{
			Priority: "auth.crit", Time: "2003-10-11T22:14:15.003Z", Host: "mymachine.example.com", Ident: "su", ID: "ID47", Text: "'su root' failed for lonvick on /dev/pts/8",
		}},
		{"<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - - %% It's time to make the do-nuts.", fields{
			Priority: "local4.notice", Time: "2003-08-24T12:14:15.000003Z", Host: "192.0.2.1", Ident: "myproc", PID: "8710", Text: "%% It's time to make the do-nuts.",
		}},
		{`<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog - ID47 [exampleSDID@32473 iut="3" eventSource="Application" eventID="1011"] ` + "\xef\xbb\xbfAn application event log entry...", fields{
			Priority: "local4.notice", Time: "2003-10-11T22:14:15.003Z", Host: "mymachine.example.com", Ident: "evntslog", ID: "ID47",
			Data: `[exampleSDID@32473 iut="3" eventSource="Application" eventID="1011"]`, Text: "An application event log entry...",
		}},
		{`<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog - ID47 [exampleSDID@32473 iut="3"][examplePriority@32473 class="high"]`, fields{
			Priority: "local4.notice", Time: "2003-10-11T22:14:15.003Z", Host: "mymachine.example.com", Ident: "evntslog", ID: "ID47",
			Data: `[exampleSDID@32473 iut="3"][examplePriority@32473 class="high"]`,
		}},

		// RFC 5424 at its edges.
		{"<13>1 - - - - - -", fields{}},
		{"<13>1 - - - - - - text", fields{Text: "text"}},
		{`<13>1 - h a - - [x@1 k="a \"quoted\" \\ \] and ] b"] text`, fields{Host: "h", Ident: "a", Data: `[x@1 k="a \"quoted\" \\ \] and ] b"]`, Text: "text"}},
		{`<13>1 - h a - - [x@1 k="never ends text`, fields{Host: "h", Ident: "a", Text: `[x@1 k="never ends text`}},
		{`<13>1 - h a - - [x@1]text`, fields{Host: "h", Ident: "a", Text: `[x@1]text`}},
		{"<13>1 - h a - - -text", fields{Host: "h", Ident: "a", Text: "-text"}},
		{"<13>1 2026-11-24T10:00:00Z h a p", fields{Text: "1 2026-11-24T10:00:00Z h a p"}},
		{"<13>1 yesterday h a p m - text", fields{Text: "1 yesterday h a p m - text"}},
		{"<13>2 2026-11-24T10:00:00Z h a p m - text", fields{Text: "2 2026-11-24T10:00:00Z h a p m - text"}},
		{"<13>1 - h a 7 - -   indented", fields{Host: "h", Ident: "a", PID: "7", Text: "  indented"}},

		// What rsyslog hands on with the template of handler/syslogd.
		{"<13>1 2026-11-24T11:14:09.996723+01:00 vm tag[1]: - - - plain", fields{Time: "2026-11-24T10:14:09.996723Z", Host: "vm", Ident: "tag", PID: "1", Text: "plain"}},
		{"<13>1 2026-11-24T11:14:09.9+00:00 vm postfix/smtpd[1]: - - - slash", fields{Time: "2026-11-24T11:14:09.9Z", Host: "vm", Ident: "postfix/smtpd", PID: "1", Text: "slash"}},
		{"<13>1 2026-11-24T11:14:09Z vm sudo: - - -    root : x", fields{Time: "2026-11-24T11:14:09Z", Host: "vm", Ident: "sudo", Text: "root : x"}},
		{"<13>1 2026-11-24T11:14:09Z vm hello - - - world", fields{Time: "2026-11-24T11:14:09Z", Host: "vm", Ident: "hello", Text: "world"}},
		{"<13>1 2026-11-24T11:14:09Z vm  - - - no tag", fields{Time: "2026-11-24T11:14:09Z", Host: "vm", Text: "no tag"}},
		{"<13>1 2026-11-24T11:14:09Z vm : - - - %ASA-6-1: built", fields{Time: "2026-11-24T11:14:09Z", Host: "vm", Text: "%ASA-6-1: built"}},
		{`<13>1 2026-11-24T11:14:09Z vm app[42] - ID47 [a@1 b="c"] text`, fields{Time: "2026-11-24T11:14:09Z", Host: "vm", Ident: "app", PID: "42", ID: "ID47", Data: `[a@1 b="c"]`, Text: "text"}},
		{"<13>1 2026-11-24T11:14:09Z vm [kernel] - - - x", fields{Time: "2026-11-24T11:14:09Z", Host: "vm", Ident: "[kernel]", Text: "x"}},
		{"<13>1 2026-11-24T11:14:09Z vm app[42] 43 - - both", fields{Time: "2026-11-24T11:14:09Z", Host: "vm", Ident: "app[42]", PID: "43", Text: "both"}},

		// PRI.
		{"<0>Nov 24 10:00:00 vm kernel: panic", fields{Priority: "kern.emerg", Time: "2026-11-24T09:00:00Z", Host: "vm", Ident: "kernel", Text: "panic"}},
		{"<191>Nov 24 10:00:00 vm a: b", fields{Priority: "local7.debug", Time: "2026-11-24T09:00:00Z", Host: "vm", Ident: "a", Text: "b"}},
		{"<192>Nov 24 10:00:00 vm a: b", fields{Text: "<192>Nov 24 10:00:00 vm a: b"}},
		{"<>a: b", fields{Text: "<>a: b"}},
		{"<1x>a: b", fields{Text: "<1x>a: b"}},
		{"<-1>text", fields{Text: "<-1>text"}},
		{"<13", fields{Text: "<13"}},
		{"<13>", fields{}},
		{"", fields{}},
		{"<6>kernel: [    1.234567] usb 1-1: new device", fields{Priority: "kern.info", Ident: "kernel", Text: "[    1.234567] usb 1-1: new device"}},
		{"<6>[    1.234567] usb 1-1: new device", fields{Priority: "kern.info", Text: "[    1.234567] usb 1-1: new device"}},
		{"<86>sshd[77]: Accepted publickey", fields{Priority: "authpriv.info", Ident: "sshd", PID: "77", Text: "Accepted publickey"}},

		// Times.
		{"<13>Nov  2 10:00:00 vm a: b", fields{Time: "2026-11-02T09:00:00Z", Host: "vm", Ident: "a", Text: "b"}},
		{"<13>Nov 2 10:00:00 vm a: b", fields{Time: "2026-11-02T09:00:00Z", Host: "vm", Ident: "a", Text: "b"}},
		{"<13>Nov 02 10:00:00 vm a: b", fields{Time: "2026-11-02T09:00:00Z", Host: "vm", Ident: "a", Text: "b"}},
		{"<13>NOV 22 09:31:07.123 vm a: b", fields{Time: "2026-11-22T08:31:07.123Z", Host: "vm", Ident: "a", Text: "b"}},
		{"<13>Nov 22 09:31:07,123456789012 vm a: b", fields{Time: "2026-11-22T08:31:07.123456789Z", Host: "vm", Ident: "a", Text: "b"}},
		{"<13>Nov 22 2024 09:31:07 vm a: b", fields{Time: "2024-11-22T08:31:07Z", Host: "vm", Ident: "a", Text: "b"}},
		{"<13>Nov 22 09:31:07 2024 vm a: b", fields{Time: "2024-11-22T08:31:07Z", Host: "vm", Ident: "a", Text: "b"}},
		{"<13>2026-11-24T10:00:00.123456+02:00 vm a[5]: b", fields{Time: "2026-11-24T08:00:00.123456Z", Host: "vm", Ident: "a", PID: "5", Text: "b"}},
		{"<13>2026-11-24T10:00:00.123456789Z vm a: b", fields{Time: "2026-11-24T10:00:00.123456789Z", Host: "vm", Ident: "a", Text: "b"}},
		{"<13>2026-11-24T10:00:00-0330 vm a: b", fields{Time: "2026-11-24T13:30:00Z", Host: "vm", Ident: "a", Text: "b"}},
		{"<13>2026-11-24T10:00:00 vm a: b", fields{Time: "2026-11-24T09:00:00Z", Host: "vm", Ident: "a", Text: "b"}},
		{"<13>2026-11-24 10:00:00,5 vm a: b", fields{Time: "2026-11-24T09:00:00.5Z", Host: "vm", Ident: "a", Text: "b"}},
		{"<13>2016-12-31T23:59:60Z vm a: b", fields{Time: "2017-01-01T00:00:00Z", Host: "vm", Ident: "a", Text: "b"}},
		{"<13>Nov 31 10:00:00 vm a: b", fields{Text: "Nov 31 10:00:00 vm a: b"}},
		{"<13>Nov 24 24:00:00 vm a: b", fields{Text: "Nov 24 24:00:00 vm a: b"}},
		{"<13>Feb 29 2026 10:00:00 vm a: b", fields{Text: "Feb 29 2026 10:00:00 vm a: b"}},
		{"<13>2026-02-29T10:00:00Z vm a: b", fields{Text: "2026-02-29T10:00:00Z vm a: b"}},
		{"<13>Nov 24 10:00:00x vm a: b", fields{Text: "Nov 24 10:00:00x vm a: b"}},
		{"<13>Nov 24 10:00:00", fields{Time: "2026-11-24T09:00:00Z"}},

		// Hosts.
		{"<13>Nov 24 10:00:00 sshd[12]: no host", fields{Time: "2026-11-24T09:00:00Z", Ident: "sshd", PID: "12", Text: "no host"}},
		{"<13>Nov 24 10:00:00 kernel: no host", fields{Time: "2026-11-24T09:00:00Z", Ident: "kernel", Text: "no host"}},
		{"<13>Nov 24 10:00:00 10.1.2.3 sshd: IPv4", fields{Time: "2026-11-24T09:00:00Z", Host: "10.1.2.3", Ident: "sshd", Text: "IPv4"}},
		{"<13>Nov 24 10:00:00 fe80::1 sshd: IPv6", fields{Time: "2026-11-24T09:00:00Z", Host: "fe80::1", Ident: "sshd", Text: "IPv6"}},
		{"<13>Nov 24 10:00:00 fe80::1%eth0 sshd: zone", fields{Time: "2026-11-24T09:00:00Z", Host: "fe80::1%eth0", Ident: "sshd", Text: "zone"}},
		{"<13>Nov 24 10:00:00 [2001:db8::2] sshd: brackets", fields{Time: "2026-11-24T09:00:00Z", Host: "[2001:db8::2]", Ident: "sshd", Text: "brackets"}},
		{"<13>Nov 24 10:00:00 web-01.corp_a.example.com app: name", fields{Time: "2026-11-24T09:00:00Z", Host: "web-01.corp_a.example.com", Ident: "app", Text: "name"}},
		{"<13>Nov 24 10:00:00 vm   app: spaces", fields{Time: "2026-11-24T09:00:00Z", Host: "vm", Ident: "app", Text: "spaces"}},
		{"<13>Nov 24 10:00:00 alone", fields{Time: "2026-11-24T09:00:00Z", Text: "alone"}},
		{"<13>Nov 24 10:00:00 last message repeated 3 times", fields{Time: "2026-11-24T09:00:00Z", Text: "last message repeated 3 times"}},
		{"<13>Nov 24 10:00:00 (root) CMD (run)", fields{Time: "2026-11-24T09:00:00Z", Text: "(root) CMD (run)"}},

		// Tags.
		{"<78>Nov 24 10:00:00 vm CRON[4711]: (root) CMD (run)", fields{Priority: "cron.info", Time: "2026-11-24T09:00:00Z", Host: "vm", Ident: "CRON", PID: "4711", Text: "(root) CMD (run)"}},
		{"<13>Nov 24 10:00:00 vm app[12] without a colon", fields{Time: "2026-11-24T09:00:00Z", Host: "vm", Ident: "app", PID: "12", Text: "without a colon"}},
		{"<13>Nov 24 10:00:00 vm my.app.name[12]: dots", fields{Time: "2026-11-24T09:00:00Z", Host: "vm", Ident: "my.app.name", PID: "12", Text: "dots"}},
		{"<13>Nov 24 10:00:00 vm worker[blue][12]: brackets", fields{Time: "2026-11-24T09:00:00Z", Host: "vm", Ident: "worker[blue]", PID: "12", Text: "brackets"}},
		{"<13>Nov 24 10:00:00 vm [audit]: brackets", fields{Time: "2026-11-24T09:00:00Z", Host: "vm", Ident: "audit", Text: "brackets"}},
		{"<13>Nov 24 10:00:00 vm su(pam_unix)[99]: session", fields{Time: "2026-11-24T09:00:00Z", Host: "vm", Ident: "su(pam_unix)", PID: "99", Text: "session"}},
		{"<13>Nov 24 10:00:00 vm /usr/sbin/cron[99]: path", fields{Time: "2026-11-24T09:00:00Z", Host: "vm", Ident: "/usr/sbin/cron", PID: "99", Text: "path"}},
		{"<13>Nov 24 10:00:00 vm app[12]x: no tag", fields{Time: "2026-11-24T09:00:00Z", Host: "vm", Text: "app[12]x: no tag"}},
		{"<13>Nov 24 10:00:00 vm app[]: no id", fields{Time: "2026-11-24T09:00:00Z", Host: "vm", Text: "app[]: no id"}},
		{"<13>Nov 24 10:00:00 vm app[a b]: no id", fields{Time: "2026-11-24T09:00:00Z", Host: "vm", Text: "app[a b]: no id"}},
		{"<13>Nov 24 10:00:00 vm two words: no tag", fields{Time: "2026-11-24T09:00:00Z", Host: "vm", Text: "two words: no tag"}},
		{"<13>Nov 24 10:00:00 vm https://example.com/ no tag", fields{Time: "2026-11-24T09:00:00Z", Host: "vm", Text: "https://example.com/ no tag"}},
		{"<13>Nov 24 10:00:00 vm 10:22:33 no tag", fields{Time: "2026-11-24T09:00:00Z", Host: "vm", Text: "10:22:33 no tag"}},
		{`<13>Nov 24 10:00:00 vm {"level": "info"}`, fields{Time: "2026-11-24T09:00:00Z", Host: "vm", Text: `{"level": "info"}`}},
		{"<13>Nov 24 10:00:00 vm C:\\Windows no tag", fields{Time: "2026-11-24T09:00:00Z", Host: "vm", Text: `C:\Windows no tag`}},
		{"<30>Nov 24 10:00:00 U7PG2,788a20,v4.3: hostapd: up", fields{Priority: "daemon.info", Time: "2026-11-24T09:00:00Z", Ident: "U7PG2,788a20,v4.3", Text: "hostapd: up"}},
		{"<13>Nov 24 10:00:00 vm app:", fields{Time: "2026-11-24T09:00:00Z", Host: "vm", Ident: "app"}},
		{"<13>Nov 24 10:00:00 vm sudo:     root : TTY=pts/0", fields{Time: "2026-11-24T09:00:00Z", Host: "vm", Ident: "sudo", Text: "root : TTY=pts/0"}},
		{"<134>Nov 24 10:00:00 fw CEF:0|Vendor|Product|1|2|3|4|", fields{Priority: "local0.info", Time: "2026-11-24T09:00:00Z", Host: "fw", Ident: "CEF", Text: "0|Vendor|Product|1|2|3|4|"}},

		// Network devices.
		{"<189>45: *Nov 22 09:31:07.123: %SYS-5-CONFIG_I: Configured from console", fields{
			Priority: "local7.notice", Time: "2026-11-22T08:31:07.123Z", Ident: "%SYS-5-CONFIG_I", Text: "Configured from console",
		}},
		{"<189>*Nov 22 09:31:07: %LINK-3-UPDOWN: up", fields{Priority: "local7.notice", Time: "2026-11-22T08:31:07Z", Ident: "%LINK-3-UPDOWN", Text: "up"}},
		{"<189>000123: .Nov 22 09:31:07 UTC: %LINK-3-UPDOWN: up", fields{Priority: "local7.notice", Time: "2026-11-22T09:31:07Z", Ident: "%LINK-3-UPDOWN", Text: "up"}},
		{"<189>12: Nov 22 09:31:07 CEST: %LINK-3-UPDOWN: up", fields{Priority: "local7.notice", Time: "2026-11-22T08:31:07Z", Ident: "%LINK-3-UPDOWN", Text: "up"}},
		{"<166>Nov 22 2026 09:31:07: %ASA-6-302013: Built inbound TCP", fields{Priority: "local4.info", Time: "2026-11-22T08:31:07Z", Ident: "%ASA-6-302013", Text: "Built inbound TCP"}},
		{"<166>Nov 22 2026 09:31:07 fw01 : %ASA-6-302013: Built", fields{Priority: "local4.info", Time: "2026-11-22T08:31:07Z", Host: "fw01", Ident: "%ASA-6-302013", Text: "Built"}},
		{"<166>:Nov 22 09:31:07 UTC: %ASA-session-6-302013: Built", fields{Priority: "local4.info", Time: "2026-11-22T09:31:07Z", Ident: "%ASA-session-6-302013", Text: "Built"}},
		{"<166>%ASA-6-302013: Built", fields{Priority: "local4.info", Ident: "%ASA-6-302013", Text: "Built"}},
		{"<134>1 1637571067.123456 MX84 flows src=10.0.0.1", fields{Priority: "local0.info", Time: "2021-11-22T08:51:07.123456Z", Host: "MX84", Text: "flows src=10.0.0.1"}},
		{"<189>45: text without a time", fields{Priority: "local7.notice", Text: "45: text without a time"}},

		// What ends a message is not part of it.
		{"<13>Nov 24 10:00:00 vm a: b\n", fields{Time: "2026-11-24T09:00:00Z", Host: "vm", Ident: "a", Text: "b"}},
		{"<13>Nov 24 10:00:00 vm a: b\r\n\x00", fields{Time: "2026-11-24T09:00:00Z", Host: "vm", Ident: "a", Text: "b"}},
		{"<13>Nov 24 10:00:00 vm a: two\nlines \x00 inside", fields{Time: "2026-11-24T09:00:00Z", Host: "vm", Ident: "a", Text: "two\nlines \x00 inside"}},
	}
	for _, tt := range tests {
		if diff := cmp.Diff(tt.want, parsed(tt.msg, testNow, testZone)); diff != "" {
			t.Errorf("Parse(%q) (-want +got):\n%s", tt.msg, diff)
		}
	}
}

// TestYearNearestToNow: a message without a year belongs to the year that puts
// it nearest to now, also for a zone in which the year is another one already.
func TestYearNearestToNow(t *testing.T) {
	tests := []struct{ now, stamp, want string }{
		{"2026-01-01T00:30:00Z", "Dec 31 23:59:59", "2025-12-31T23:59:59Z"},
		{"2025-12-31T23:59:59Z", "Jan  1 00:00:01", "2026-01-01T00:00:01Z"},
		{"2026-01-20T00:00:00Z", "Dec  1 00:00:00", "2025-12-01T00:00:00Z"},
		{"2026-06-15T00:00:00Z", "Jan  1 00:00:00", "2026-01-01T00:00:00Z"},
		{"2026-06-15T00:00:00Z", "Dec 20 00:00:00", "2025-12-20T00:00:00Z"},
		{"2024-02-28T00:00:00Z", "Feb 29 12:00:00", "2024-02-29T12:00:00Z"},
		{"2026-04-01T00:00:00Z", "Feb 29 12:00:00", "2028-02-29T12:00:00Z"},
		{"2025-03-01T00:00:00Z", "Feb 29 12:00:00", "2024-02-29T12:00:00Z"},
	}
	for _, tt := range tests {
		now, err := time.Parse(time.RFC3339, tt.now)
		if err != nil {
			t.Fatal(err)
		}
		if got := parsed(tt.stamp+" vm a: b", now, time.UTC).Time; got != tt.want {
			t.Errorf("%s read at %s = %s, want %s", tt.stamp, tt.now, got, tt.want)
		}
	}
	zone := time.FixedZone("", 2*3600)
	got := parsed("Jan  1 00:30:00 vm a: b", time.Date(2025, 12, 31, 22, 31, 0, 0, time.UTC), zone).Time
	if want := "2025-12-31T22:30:00Z"; got != want {
		t.Errorf("in a zone ahead of UTC = %s, want %s", got, want)
	}
}

// FuzzParse holds Parse to its promise: the fields are parts of the message in
// order, the text reaches to its end, and what is in no field is a header: the
// priority, the time and punctuation.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"<34>Oct 11 22:14:15 mymachine su[12]: 'su root' failed",
		"<165>1 2003-10-11T22:14:15.003Z host app 12 ID47 [a@1 b=\"\\]\"][c] \xef\xbb\xbftext",
		"<189>45: *Nov 22 09:31:07.123 UTC: %SYS-5-CONFIG_I: text",
		"<134>1 1637571067.123456 MX84 flows",
		"<0>1990 Oct 22 10:52:01 TZ-6 host : %ASA-1: x",
		"<13>2026-11-24 10:00:00,5-0330 fe80::1%eth0 a[b][c]: d",
		"<13>1 - vm a[1]: - - -    text",
		"<13>" + string(bytes.Repeat([]byte("[a]"), maxTag)),
		"<13>" + string(bytes.Repeat([]byte("a"), maxTag-1)) + "[][",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		var m Message
		Parse(msg, testNow, testZone, &m)
		if m.Facility >= facilities || m.Severity >= severities {
			t.Fatalf("facility %d, severity %d", m.Facility, m.Severity)
		}
		whole := bytes.TrimRight(msg, "\n\r\x00")
		at, outside := 0, []byte(nil)
		for _, field := range [][]byte{m.Host, m.Ident, m.PID, m.ID, m.Data, m.Text} {
			if len(field) == 0 {
				continue
			}
			start := offset(whole, field)
			if start < at {
				t.Fatalf("field %q at %d overlaps what ends at %d in %q", field, start, at, whole)
			}
			outside = append(outside, whole[at:start]...)
			at = start + len(field)
		}
		outside = append(outside, whole[at:]...)
		if len(m.Text) > 0 && at != len(whole) {
			t.Fatalf("text %q does not reach the end of %q", m.Text, whole)
		}
		if _, header := cutPriority(outside); m.Time.IsZero() && len(bytes.Trim(header, " :[]-\xef\xbb\xbf1")) > 0 {
			t.Fatalf("lost %q of %q", outside, whole)
		}
		if letters := len(bytes.Trim(outside, " :*.")); letters > 120 {
			t.Fatalf("lost %d bytes, %q, of %q", letters, outside, whole)
		}
	})
}

// offset returns where part, a slice of whole, begins.
func offset(whole, part []byte) int { return cap(whole) - cap(part) }

func BenchmarkParse(b *testing.B) {
	for name, line := range map[string]string{
		"rfc3164": "<86>Nov 24 10:00:00 web-01 sshd[12345]: Accepted publickey for azureuser from 10.0.0.4 port 50022 ssh2: RSA SHA256:abcdefghijklmnopqrstuvwxyz",
		"rsyslog": "<86>1 2026-11-24T10:00:00.123456+00:00 web-01 sshd[12345]: - - - Accepted publickey for azureuser from 10.0.0.4 port 50022 ssh2: RSA SHA256:abcdefghijklmnopqrstuvwxyz",
		"rfc5424": `<86>1 2026-11-24T10:00:00.123456Z web-01 sshd 12345 ID47 [origin@32473 ip="10.0.0.4"] Accepted publickey for azureuser from 10.0.0.4 port 50022 ssh2`,
	} {
		b.Run(name, func(b *testing.B) {
			msg := []byte(line)
			var m Message
			b.ReportAllocs()
			for b.Loop() {
				Parse(msg, testNow, time.UTC, &m)
			}
			if len(m.Text) == 0 {
				b.Fatalf("%+v", m)
			}
		})
	}
}

func TestParseAllocatesNothing(t *testing.T) {
	var m Message
	for _, line := range []string{
		"<86>Nov 24 10:00:00 web-01 sshd[12345]: Accepted publickey",
		"<189>45: *Nov 22 09:31:07.123 UTC: %SYS-5-CONFIG_I: Configured",
		`<86>1 2026-11-24T10:00:00.123456Z web-01 sshd[7]: - ID47 [origin@32473 ip="10.0.0.4"] text`,
	} {
		msg := []byte(line)
		if n := testing.AllocsPerRun(100, func() { Parse(msg, testNow, testZone, &m) }); n != 0 {
			t.Errorf("%v allocations for %q, want 0", n, line)
		}
	}
}
