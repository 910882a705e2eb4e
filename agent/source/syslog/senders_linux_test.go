package syslog

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestLogger: util-linux's logger sends, in each of its forms and frames.
func TestLogger(t *testing.T) {
	if _, err := exec.LookPath("logger"); err != nil {
		t.Fatalf("this test sends with logger: install the package bsdutils (%v)", err)
	}
	for _, tt := range []struct {
		protocol string
		args     []string
	}{
		{UDP, []string{"--udp", "--rfc3164"}},
		{UDP, []string{"--udp", "--rfc5424=notq"}},
		{TCP, []string{"--tcp", "--rfc3164"}},
		{TCP, []string{"--tcp", "--rfc5424=notq", "--octet-count"}},
	} {
		address, thing, out, stop := listen(t, Listener{Protocol: tt.protocol})
		opened(t, out, thing)
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("logger", append(tt.args, "--server", host, "--port", port, "--tag", "app", "--priority", "local3.err")...)
		var lines strings.Builder
		const count = 200
		for i := range count {
			fmt.Fprintf(&lines, "message %d\n", i)
		}
		cmd.Stdin = strings.NewReader(lines.String())
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("logger %q: %v: %s", tt.args, err, text)
		}
		if err := out.WaitRows(within(t), count); err != nil {
			t.Fatalf("logger %q: %v", tt.args, err)
		}
		stop()
		checkNumbered(t, out, count)
		row := out.Rows("Syslog")[0]
		if row["ident"] != "app" || row["Facility"] != "local3" || row["Severity"] != "err" || row["Host"] == "" {
			t.Errorf("logger %q: row %v", tt.args, row)
		}
	}
}

// TestRsyslogForwards: rsyslogd reads a file and forwards it by TCP, with octet
// counts and with lines. All it has read arrives once.
func TestRsyslogForwards(t *testing.T) {
	const daemon = "/usr/sbin/rsyslogd"
	if _, err := os.Stat(daemon); err != nil {
		t.Fatalf("this test sends with rsyslogd: install the package rsyslog (%v)", err)
	}
	for _, framing := range []string{"octet-counted", "traditional"} {
		address, thing, out, stop := listen(t, Listener{Protocol: TCP})
		opened(t, out, thing)
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		log, config := filepath.Join(dir, "app.log"), filepath.Join(dir, "rsyslog.conf")
		const count = 20000
		var lines strings.Builder
		for i := range count {
			fmt.Fprintf(&lines, "message %d\n", i)
		}
		write(t, log, lines.String())
		write(t, config, fmt.Sprintf(`global(workDirectory=%q)
module(load="imfile")
ruleset(name="forward") { action(type="omfwd" target=%q port=%q protocol="tcp" tcp_framing=%q template="RSYSLOG_SyslogProtocol23Format"
	queue.type="LinkedList" queue.timeoutEnqueue="60000") }
input(type="imfile" file=%q tag="app" facility="local3" ruleset="forward" freshStartTail="off")
`, dir, host, port, framing, log))
		cmd := exec.Command(daemon, "-n", "-f", config, "-i", filepath.Join(dir, "pid"))
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		waited := out.WaitRows(within(t), count)
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("rsyslogd: %v", err)
		}
		if waited != nil {
			t.Fatalf("%s: %v", framing, waited)
		}
		stop()
		checkNumbered(t, out, count)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
