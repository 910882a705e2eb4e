package syslogd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openloganalytics/agent/agent/source/sourcetest"
	"github.com/openloganalytics/agent/agent/source/syslog"
)

// An ng is the real syslog-ng with a machine of its own below a temporary
// folder.
type ng struct {
	t     *testing.T
	o     Options
	input string // the socket that it receives from
	cmd   *exec.Cmd
	log   net.Conn
}

func newNG(t *testing.T) *ng {
	t.Helper()
	unpacked, err := filepath.Abs("../../build/syslog-ng")
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(unpacked, "usr/sbin/syslog-ng")
	if _, err := os.Stat(binary); err != nil {
		t.Fatalf("this test needs the real syslog-ng: %v; run make build/syslog-ng/usr/sbin/syslog-ng", err)
	}
	modules, err := filepath.Glob(filepath.Join(unpacked, "usr/lib/syslog-ng/[0-9]*"))
	libraries, err2 := filepath.Glob(filepath.Join(unpacked, "*/lib/*-linux-gnu*"))
	more, err3 := filepath.Glob(filepath.Join(unpacked, "lib/*-linux-gnu*"))
	if err := errors.Join(err, err2, err3); err != nil || len(modules) != 1 {
		t.Fatalf("%s has the modules %v, %v", unpacked, modules, err)
	}
	libraries = append(append(libraries, more...), filepath.Join(unpacked, "usr/lib/syslog-ng"))

	root := t.TempDir()
	d := &ng{t: t, input: filepath.Join(root, "log")}
	d.o = Options{Daemon: SyslogNG, Root: root, Pipe: filepath.Join(root, "pipe"), Socket: filepath.Join(root, "socket"), Run: func(ctx context.Context, program string, args ...string) ([]byte, error) {
		return exec.CommandContext(ctx, program, args...).CombinedOutput()
	}}
	d.write("/usr/sbin/syslog-ng", fmt.Sprintf("#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s --module-path=%s --no-caps \"$@\"\n", strings.Join(libraries, ":"), binary, modules[0]))
	if err := errors.Join(os.Chmod(filepath.Join(root, "/usr/sbin/syslog-ng"), 0o700),
		os.MkdirAll(filepath.Join(root, "/etc/syslog-ng/conf.d"), 0o700), os.MkdirAll(filepath.Join(root, persistent), 0o700)); err != nil {
		t.Fatal(err)
	}
	d.write("/etc/syslog-ng/syslog-ng.conf", fmt.Sprintf(`@version: 3.38
options { keep-hostname(yes); };
source s_local { unix-dgram("%[1]s/log"); };
source s_unused { unix-dgram("%[1]s/unused"); };
destination d_all { file("%[1]s/all.log"); };
log { source(s_local); destination(d_all); };
@include "%[1]s/etc/syslog-ng/conf.d/*.conf"
# For find, which looks for the folder as the machine itself calls it:
@include "/etc/syslog-ng/conf.d/95-log-analytics-agent*.conf"
`, root))
	t.Cleanup(d.stop)
	return d
}

func (d *ng) write(path, text string) {
	d.t.Helper()
	path = filepath.Join(d.o.Root, path)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		d.t.Fatal(err)
	}
}

func (d *ng) start() {
	d.t.Helper()
	at := func(path string) string { return filepath.Join(d.o.Root, path) }
	d.cmd = exec.Command(at("/usr/sbin/syslog-ng"), "--foreground", "-f", at("/etc/syslog-ng/syslog-ng.conf"),
		"-R", at(persistent+"/persist"), "-c", at("ctl"), "-p", at("pid"))
	d.cmd.Stderr = os.Stderr
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		conn, err := net.Dial("unixgram", d.input)
		if err == nil {
			d.log = conn
			return
		}
		if time.Now().After(deadline) {
			d.t.Fatalf("syslog-ng does not open its socket: %v", err)
		}
	}
}

func (d *ng) stop() {
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

func (d *ng) send(format string, args ...any) {
	d.t.Helper()
	if _, err := fmt.Fprintf(d.log, format, args...); err != nil {
		d.t.Fatal(err)
	}
}

// accepted waits until syslog-ng has read n messages: what it has not read yet
// is lost when it stops.
func (d *ng) accepted(n int) {
	d.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		written, err := os.ReadFile(filepath.Join(d.o.Root, "all.log"))
		lines := strings.Count(string(written), "\n")
		if lines >= n {
			return
		}
		if time.Now().After(deadline) {
			d.t.Fatalf("syslog-ng has written %d of %d messages, %v", lines, n, err)
		}
	}
}

// agent starts the agent's source on the socket and returns what stops it.
func (d *ng) agent(out *sourcetest.Emitter) (stop func()) {
	d.t.Helper()
	s, err := syslog.New(syslog.Options{Stream: d.o.Socket, Hostname: "the-agent", Selectors: []syslog.Selector{{Facilities: []string{"*"}, Severities: []string{"*"}}}})
	if err != nil {
		d.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(d.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, out) }()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			d.t.Error(err)
		}
	}
}

func (d *ng) configure(selectors ...syslog.Selector) {
	d.t.Helper()
	d.o.Selectors = selectors
	if got, err := Configure(d.t.Context(), d.o); err != nil || !got.Changed {
		d.t.Fatalf("Configure = %+v, %v; want a change", got, err)
	}
}

// TestNGEveryMessageArrivesOnce sends numbered messages through the real
// syslog-ng with our file: while the agent runs, is stopped and is started
// again, and while syslog-ng is restarted in the meantime.
func TestNGEveryMessageArrivesOnce(t *testing.T) {
	d := newNG(t)
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
	for range 3 {
		send(1000)
		stop() // some of them may still be on their way
		out = out.Crash()
		send(500)
		stop = d.agent(out)
	}
	waitRows(t, out, sent)
	stop()
	out = out.Crash()
	send(2000)
	d.stop()
	d.start()
	d.stop() // with nothing to send, it keeps the queue
	d.start()
	send(3000)
	stop = d.agent(out)
	send(1000)
	waitRows(t, out, sent)
	d.stop()
	d.start()
	send(1000)
	waitRows(t, out, sent)
	stop()
	checkOnce(t, out.Crash(), sent)
}

// TestNGMessagesKeepWhatTheyHave: syslog-ng's own parser and our template lose
// nothing of what a message says but its line breaks.
func TestNGMessagesKeepWhatTheyHave(t *testing.T) {
	d := newNG(t)
	d.configure(syslog.Selector{Facilities: []string{"*"}, Severities: []string{"*"}})
	d.start()
	out := sourcetest.New()
	stop := d.agent(out)
	long := strings.TrimSpace(strings.Repeat("long ", 1200))
	tests := []struct{ msg, ident, pid, text string }{
		{"<84>Nov 24 10:00:00 postfix/smtpd[77]: text", "postfix/smtpd", "77", "text"},
		{"<84>Nov 24 10:00:00 sudo: root : TTY", "sudo", "", "root : TTY"},
		{"<84>Nov 24 10:00:00 kernel: [ 1.5] grüße \"quoted\" 'single' \\", "kernel", "", "[ 1.5] grüße \"quoted\" 'single' \\"},
		{"<84>Nov 24 10:00:00 app: two\nlines", "app", "", "two lines"},
		{"<84>Nov 24 10:00:00 app: ${MESSAGE} $(echo)", "app", "", "${MESSAGE} $(echo)"},
		{"<84>Nov 24 10:00:00 app: " + long, "app", "", long},
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
			t.Errorf("%.80q has host %v, want the one that syslog-ng gave it", tt.msg, host)
		}
	}
}

// TestNGSelectionIsExact: of all priorities syslog-ng hands on what is selected.
func TestNGSelectionIsExact(t *testing.T) {
	d := newNG(t)
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

// TestNGRefused: syslog-ng itself refuses what it cannot read, its words are in
// the error, and the former file stays.
func TestNGRefused(t *testing.T) {
	d := newNG(t)
	d.configure(syslog.Selector{Facilities: []string{"user"}, Severities: []string{"*"}})
	m := machines(d.o)[1]
	if warning := m.find(); warning != "" {
		t.Fatal(warning)
	}
	_, err := m.try(t.Context(), "destination d { unix-stream(\"/x\" nonsense(1)); };\n")
	if err == nil || !strings.Contains(err.Error(), "refuses the new file: exit status 1: Error parsing within destination") {
		t.Errorf("try of nonsense = %v, want syslog-ng's words", err)
	}
	d.write("/etc/syslog-ng/conf.d/10-broken.conf", "nonsense {\n")
	d.o.Selectors[0].Facilities = []string{"mail"}
	if got, err := Configure(t.Context(), d.o); err != nil || !strings.Contains(got.Warning, "not the agent's") {
		t.Errorf("Configure beside a broken file = %+v, %v; want a warning about it", got, err)
	}
}

// TestNGRemove: nothing of ours is left, and nothing else is gone.
func TestNGRemove(t *testing.T) {
	d := newNG(t)
	before := tree(t, d.o.Root)
	d.configure(syslog.Selector{Facilities: []string{"user"}, Severities: []string{"*"}})
	if got, err := Configure(t.Context(), d.o); err != nil || got.Changed {
		t.Errorf("second Configure = %+v, %v; want nothing done", got, err)
	}
	// rsyslog's place is taken over when it is the daemon again.
	if got, err := Remove(t.Context(), d.o); err != nil || !got.Changed {
		t.Errorf("Remove = %+v, %v; want a change", got, err)
	}
	if diff := cmp.Diff(before, tree(t, d.o.Root)); diff != "" {
		t.Errorf("files of the machine (-before +after):\n%s", diff)
	}
}

func tree(t *testing.T, root string) []string {
	t.Helper()
	var paths []string
	if err := filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		paths = append(paths, strings.TrimPrefix(path, root))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return paths
}

// TestChoose: the daemon is one that is installed, can be told, and runs or will.
func TestChoose(t *testing.T) {
	tests := []struct {
		name    string
		machine func(f *fake)
		active  []string // what systemctl says yes to
		want    Choice
	}{
		{"rsyslog runs", nil, []string{"is-active rsyslog"}, Choice{Daemon: RSyslog}},
		{"rsyslog is to run", nil, []string{"is-enabled rsyslog"}, Choice{Daemon: RSyslog}},
		{"rsyslog is off", nil, nil, Choice{}},
		{"rsyslog is gone", func(f *fake) { f.remove("/usr/sbin/rsyslogd") }, []string{"is-enabled rsyslog"}, Choice{}},
		{"syslog-ng took over", ngMachine, []string{"is-active syslog-ng"}, Choice{Daemon: SyslogNG}},
		{"no systemd", func(f *fake) { f.remove("/run/systemd") }, nil, Choice{Daemon: RSyslog}},
		{
			"not to be told", func(f *fake) { f.write(mainFile, "") },
			[]string{"is-active rsyslog"},
			Choice{Warning: "rsyslog does not read /etc/rsyslog.d: add the line $IncludeConfig /etc/rsyslog.d/*.conf to /etc/rsyslog.conf"},
		},
	}
	for _, tt := range tests {
		f := newFake(t)
		if tt.machine != nil {
			tt.machine(f)
		}
		f.o.Run = func(_ context.Context, _ string, args ...string) ([]byte, error) {
			for _, yes := range tt.active {
				if args[0]+" "+strings.TrimSuffix(args[len(args)-1], ".service") == yes {
					return nil, nil
				}
			}
			return nil, errors.New("exit status 3")
		}
		if got := Choose(t.Context(), f.o); got != tt.want {
			t.Errorf("%s: Choose = %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

// ngMachine installs syslog-ng.
func ngMachine(f *fake) {
	f.write("/usr/sbin/syslog-ng", "")
	f.write("/etc/syslog-ng/syslog-ng.conf", "@version: 3.38\nlog { source(s); };\n@include \"conf.d/*.conf\"\n")
	f.write("/etc/syslog-ng/conf.d/empty.conf", "")
}

// TestOneDaemonAtATime: when syslog-ng takes over from rsyslog, or the other way
// round, the former hands on nothing any more.
func TestOneDaemonAtATime(t *testing.T) {
	f := newFake(t)
	ngMachine(f)
	f.configure()
	ours := f.path("/etc/syslog-ng/conf.d/" + filename + ".conf")
	if !exists(f.path(file)) || exists(ours) {
		t.Error("with rsyslog chosen the wrong files are there")
	}
	f.o.Daemon = SyslogNG
	f.o.Run = func(context.Context, string, ...string) ([]byte, error) { return nil, nil }
	f.configure()
	if exists(f.path(file)) || !exists(ours) {
		t.Error("with syslog-ng chosen the wrong files are there")
	}
	f.o.Daemon = RSyslog
	f.configure()
	if !exists(f.path(file)) || exists(ours) {
		t.Error("with rsyslog chosen again the wrong files are there")
	}
}
