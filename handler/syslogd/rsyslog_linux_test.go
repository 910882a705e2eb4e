package syslogd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openloganalytics/agent/agent/source/sourcetest"
	"github.com/openloganalytics/agent/agent/source/syslog"
)

// A rsyslogd is the real one, with a machine of its own below a temporary
// folder.
type rsyslogd struct {
	t     *testing.T
	o     Options
	input string // the socket that it receives from
	cmd   *exec.Cmd
	log   net.Conn
}

func newDaemon(t *testing.T) *rsyslogd {
	t.Helper()
	const installed = "/usr/sbin/rsyslogd"
	binary, err := os.ReadFile(installed)
	if err != nil {
		t.Fatalf("this test needs the real rsyslog: %v; install the package rsyslog", err)
	}
	root := t.TempDir()
	d := &rsyslogd{t: t, input: filepath.Join(root, "log")}
	d.o = Options{Daemon: RSyslog, Root: root, Pipe: filepath.Join(root, "pipe"), UID: os.Getuid(), Run: func(ctx context.Context, program string, args ...string) ([]byte, error) {
		return exec.CommandContext(ctx, program, args...).CombinedOutput()
	}}
	for _, dir := range []string{folder, "/usr/sbin", "/work"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	// A copy, because AppArmor may confine the installed one to the paths of
	// the machine.
	if err := os.WriteFile(filepath.Join(root, installed), binary, 0o700); err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`global(workDirectory="%[1]s/work")
module(load="imuxsock" sysSock.use="off")
input(type="imuxsock" socket="%[2]s" ratelimit.interval="0" useSpecialParser="off" ignoreTimestamp="off")
action(type="omfile" file="%[1]s/all.log")
$IncludeConfig %[1]s/etc/rsyslog.d/*.conf
# For find, which looks for the folder as the machine itself calls it:
$IncludeConfig /etc/rsyslog.d/no-such-file-*.conf
`, root, d.input)
	if err := os.WriteFile(filepath.Join(root, mainFile), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.stop)
	return d
}

func (d *rsyslogd) start() {
	d.t.Helper()
	d.cmd = exec.Command(filepath.Join(d.o.Root, "/usr/sbin/rsyslogd"), "-n", "-f", filepath.Join(d.o.Root, mainFile), "-i", filepath.Join(d.o.Root, "pid"))
	d.cmd.Stdout, d.cmd.Stderr = os.Stdout, os.Stderr
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		conn, err := net.Dial("unixgram", d.input)
		if err == nil {
			d.log = conn
			return
		}
		if time.Now().After(deadline) {
			d.t.Fatalf("rsyslogd does not open its socket: %v", err)
		}
	}
}

// stop ends rsyslogd as the service manager does.
func (d *rsyslogd) stop() {
	if d.cmd == nil {
		return
	}
	if err := errors.Join(d.log.Close(), d.cmd.Process.Signal(syscall.SIGTERM)); err != nil {
		d.t.Error(err)
	}
	if err := d.cmd.Wait(); err != nil {
		d.t.Error(err)
	}
	d.cmd = nil
}

func (d *rsyslogd) restart() {
	d.t.Helper()
	d.stop()
	d.start()
}

func (d *rsyslogd) send(format string, args ...any) {
	d.t.Helper()
	if _, err := fmt.Fprintf(d.log, format, args...); err != nil {
		d.t.Fatal(err)
	}
}

// accepted waits until rsyslogd has read n messages: what it has not read yet
// is lost when it stops.
func (d *rsyslogd) accepted(n int) {
	d.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		written, err := os.ReadFile(filepath.Join(d.o.Root, "all.log"))
		lines := bytes.Count(written, []byte("\n"))
		if lines >= n {
			return
		}
		if time.Now().After(deadline) {
			d.t.Fatalf("rsyslogd has written %d of %d messages, %v", lines, n, err)
		}
	}
}

// agent starts the agent's source on the pipe and returns what stops it.
func (d *rsyslogd) agent(out *sourcetest.Emitter) (stop func()) {
	d.t.Helper()
	s, err := syslog.New(syslog.Options{Pipe: d.o.Pipe, Hostname: "the-agent", Selectors: []syslog.Selector{{Facilities: []string{"*"}, Severities: []string{"*"}}}})
	if err != nil {
		d.t.Fatal(err)
	}
	if err := Attach(d.o.Pipe); err != nil {
		d.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(d.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, out) }()
	return func() {
		cancel()
		if err := errors.Join(<-ended, Detach(d.o.Pipe)); err != nil {
			d.t.Error(err)
		}
	}
}

func (d *rsyslogd) configure(selectors ...syslog.Selector) {
	d.t.Helper()
	d.o.Selectors = selectors
	if got, err := Configure(d.t.Context(), d.o); err != nil || !got.Changed {
		d.t.Fatalf("Configure = %+v, %v; want a change", got, err)
	}
}

func waitRows(t *testing.T, out *sourcetest.Emitter, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := out.WaitRows(ctx, n); err != nil {
		t.Fatal(err)
	}
}

// checkOnce holds that the messages 0 to count arrived, each of them once. The
// order is rsyslog's: what waited on disk can come after what did not.
func checkOnce(t *testing.T, out *sourcetest.Emitter, count int) {
	t.Helper()
	times := make([]int, count)
	for _, row := range out.Rows("Syslog") {
		n := -1
		if _, err := fmt.Sscanf(fmt.Sprint(row["Message"]), "message %d", &n); err != nil || n < 0 || n >= count {
			t.Errorf("unexpected row %v", row)
			continue
		}
		times[n]++
	}
	for n, arrived := range times {
		if arrived != 1 {
			t.Errorf("message %d arrived %d times, want once", n, arrived)
		}
	}
	if losses := out.Losses(); len(losses) > 0 {
		t.Errorf("losses %+v, want none", losses)
	}
}

// TestEveryMessageArrivesOnce sends numbered messages through the real rsyslogd
// with our file: while the agent runs, while it is stopped, while rsyslog is
// restarted and reopens its files in the meantime, and while both go on.
func TestEveryMessageArrivesOnce(t *testing.T) {
	d := newDaemon(t)
	d.configure(syslog.Selector{Facilities: []string{"user"}, Severities: []string{"*"}})
	d.start()
	sent := 0
	send := func(n int) {
		t.Helper()
		for range n {
			d.send("<13>Nov 24 10:00:00 app[7]: message %d", sent)
			sent++
		}
		d.accepted(sent)
	}
	out := sourcetest.New()
	stop := d.agent(out)
	send(1000)
	waitRows(t, out, sent)

	send(1000)
	stop() // some of them may still be on their way
	out = out.Crash()
	send(2000)
	d.restart()
	send(3000)
	d.restart() // what it wrote into a pipe that nobody has open would be gone
	if err := d.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	stop = d.agent(out)
	send(1000)
	waitRows(t, out, sent)
	d.restart()
	send(1000)
	waitRows(t, out, sent)
	stop()
	checkOnce(t, out.Crash(), sent)
}

// TestUnprivilegedDaemon: an rsyslogd that gives up root, as Ubuntu's does,
// reaches the pipe however strict the umask of who configures it was.
func TestUnprivilegedDaemon(t *testing.T) {
	before := syscall.Umask(0o077)
	t.Cleanup(func() { syscall.Umask(before) })
	d := newDaemon(t)
	if os.Geteuid() == 0 { // else it has no root to give up
		d.privileges("nobody")
	}
	d.configure(syslog.Selector{Facilities: []string{"*"}, Severities: []string{"*"}})
	d.start()
	out := sourcetest.New()
	stop := d.agent(out)
	for n := range 100 {
		d.send("<13>Nov 24 10:00:00 app[7]: message %d", n)
	}
	waitRows(t, out, 100)
	stop()
	checkOnce(t, out.Crash(), 100)
}

// privileges makes rsyslogd go on as that user, and gives it what it needs.
func (d *rsyslogd) privileges(name string) {
	d.t.Helper()
	u, err := user.Lookup(name)
	if err != nil {
		d.t.Fatal(err)
	}
	g, err := user.LookupGroupId(u.Gid)
	if err != nil {
		d.t.Fatal(err)
	}
	uid, _ := strconv.Atoi(u.Uid) // numbers on this system
	gid, _ := strconv.Atoi(u.Gid)
	config, err := os.ReadFile(filepath.Join(d.o.Root, mainFile))
	err = errors.Join(err, os.WriteFile(filepath.Join(d.o.Root, mainFile),
		fmt.Appendf(nil, "$PrivDropToUser %s\n$PrivDropToGroup %s\n%s", u.Username, g.Name, config), 0o600))
	for _, dir := range []string{d.o.Root, filepath.Dir(d.o.Root)} {
		err = errors.Join(err, os.Chmod(dir, 0o755))
	}
	for _, own := range []string{d.o.Root, filepath.Join(d.o.Root, "work")} {
		err = errors.Join(err, os.Chown(own, uid, gid))
	}
	if err != nil {
		d.t.Fatal(err)
	}
}

// TestMessagesKeepWhatTheyHave: rsyslog's own parser and our template lose
// nothing of what a message says, and a line break does not break it.
func TestMessagesKeepWhatTheyHave(t *testing.T) {
	d := newDaemon(t)
	d.configure(syslog.Selector{Facilities: []string{"*"}, Severities: []string{"*"}})
	d.start()
	out := sourcetest.New()
	stop := d.agent(out)
	long := strings.Repeat("long ", 1500)
	tests := []struct{ msg, ident, pid, text string }{
		{"<84>Nov 24 10:00:00 postfix/smtpd[77]: text", "postfix/smtpd", "77", "text"},
		{"<84>Nov 24 10:00:00 sudo:    root : TTY", "sudo", "", "root : TTY"},
		{"<84>Nov 24 10:00:00 kernel: [ 1.5] grüße \"quoted\" \\", "kernel", "", "[ 1.5] grüße \"quoted\" \\"},
		{"<84>Nov 24 10:00:00 app: two\nlines\x02", "app", "", "two#012lines#002"},
		{"<84>Nov 24 10:00:00 app: " + long, "app", "", long},
		{"<84>1 2026-11-24T10:00:00.123456Z host app 42 ID47 [a@1 b=\"c d\"] text", "app", "42", `ID47 [a@1 b="c d"] text`},
	}
	for _, tt := range tests {
		d.send("%s", tt.msg)
	}
	waitRows(t, out, len(tests))
	stop()
	for i, row := range out.Rows("Syslog") {
		tt := tests[i]
		if row["ident"] != tt.ident || row["Message"] != tt.text || row["Facility"] != "authpriv" || row["Severity"] != "warn" {
			t.Errorf("%.80q became %.300v", tt.msg, row)
		}
		if pid, ok := row["ProcessId"]; ok != (tt.pid != "") || ok && pid != tt.pid {
			t.Errorf("%.80q has process id %v, want %q", tt.msg, pid, tt.pid)
		}
		if host := row["Host"]; host == "" || host == "the-agent" {
			t.Errorf("%.80q has host %v, want the one that rsyslog gave it", tt.msg, host)
		}
	}
}

// TestSelectionIsExact: of all priorities rsyslog hands on what is selected.
func TestSelectionIsExact(t *testing.T) {
	d := newDaemon(t)
	selectors := []syslog.Selector{
		{Facilities: []string{"auth", "local0"}, Severities: []string{"emerg", "alert", "crit", "err"}},
		{Facilities: []string{"kern", "local7", "ftp"}, Severities: []string{"warning", "debug"}},
		{Facilities: []string{"audit"}, Severities: []string{"notice", "info"}},
		{Facilities: []string{"ntp", "uucp", "at"}, Severities: []string{"*"}},
	}
	wanted, err := syslog.Compile(selectors)
	if err != nil {
		t.Fatal(err)
	}
	d.configure(selectors...)
	d.start()
	out := sourcetest.New()
	stop := d.agent(out)
	var want []string
	for facility := range wanted {
		for severity := range severities {
			priority := facility*severities + severity
			d.send("<%d>Nov 24 10:00:00 app: %d", priority, priority)
			if wanted[facility]>>severity&1 == 1 {
				want = append(want, fmt.Sprint(priority))
			}
		}
	}
	d.send("<8>Nov 24 10:00:00 app: not selected")
	d.send("<64>Nov 24 10:00:00 app: last")
	want = append(want, "last")
	waitRows(t, out, len(want))
	stop()
	var got []string
	for _, row := range out.Rows("Syslog") {
		got = append(got, fmt.Sprint(row["Message"]))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("messages handed on (-want +got):\n%s", diff)
	}
}

// TestRealCheck: rsyslogd itself refuses what it cannot read, and its words
// are in the error.
func TestRealCheck(t *testing.T) {
	d := newDaemon(t)
	m := machines(d.o)[0]
	if warning := m.find(); warning != "" {
		t.Fatal(warning)
	}
	_, err := m.try(t.Context(), `action(type="ompipe")`+"\n")
	if err == nil || !strings.Contains(err.Error(), "'pipe' required") {
		t.Errorf("try of an action without its pipe = %v, want rsyslogd's words", err)
	}
}
