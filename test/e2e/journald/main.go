//go:build linux

// Command journald holds the journal's source against the real journald: it runs
// one in a mount namespace of its own, sends it numbered messages by its three
// roads, lets it rotate, restarts the source now and then, and counts. Then
// journald deletes what was not read, and the source has to say how much. It
// needs root and systemd-journald, and touches no service of the machine.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/openloganalytics/agent/agent/source/journal"
	"github.com/openloganalytics/agent/agent/source/sourcetest"
	"github.com/openloganalytics/agent/agent/source/syslog"
	"github.com/openloganalytics/agent/internal/logfile"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	count := flag.Int("messages", 100000, "messages to send")
	below := flag.String("journald", "", "become the journald of the machine below this folder, in a mount namespace")
	flag.Parse()
	work := func() error { return run(ctx, *count) }
	if *below != "" {
		work = func() error { return become(*below) }
	}
	if err := work(); err != nil {
		fmt.Fprintln(os.Stderr, "journald:", err)
		os.Exit(1)
	}
}

// A machine has a journald of its own below a folder.
type machine struct {
	dir     string
	id      string
	process *exec.Cmd
	native  net.Conn
	syslog  net.Conn
}

const daemon = "/usr/lib/systemd/systemd-journald"

// become puts a machine's folders in the place of the system's, in this mount
// namespace, and goes on as journald.
func become(dir string) error {
	for from, to := range map[string]string{"run": "/run", "log": "/var/log", "journald.conf": "/etc/systemd/journald.conf"} {
		if err := syscall.Mount(filepath.Join(dir, from), to, "", syscall.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount %s: %w", to, err)
		}
	}
	return fmt.Errorf("start journald: %w", syscall.Exec(daemon, []string{daemon}, os.Environ()))
}

// start starts journald, which writes files of half a mebibyte at most.
func (m *machine) start(ctx context.Context, most string) error {
	config := "[Journal]\nStorage=persistent\nRateLimitIntervalSec=0\nReadKMsg=no\nAudit=no\nCompress=yes\nSystemMaxFileSize=512K\nSystemMaxFiles=100000\nSystemMaxUse=" + most + "\n"
	err := os.WriteFile(filepath.Join(m.dir, "journald.conf"), []byte(config), 0o644)
	for _, dir := range []string{"run/systemd/journal", "log/journal"} {
		err = errors.Join(err, os.MkdirAll(filepath.Join(m.dir, dir), 0o755))
	}
	// What tells journald that the disk is there.
	err = errors.Join(err, os.WriteFile(filepath.Join(m.dir, "run/systemd/journal/flushed"), nil, 0o644))
	if err != nil {
		return err
	}
	m.process = exec.CommandContext(ctx, "/proc/self/exe", "-journald", m.dir)
	m.process.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	m.process.Stderr = os.Stderr
	if err := m.process.Start(); err != nil {
		return err
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		m.native, err = net.Dial("unixgram", filepath.Join(m.dir, "run/systemd/journal/socket"))
		if err == nil {
			m.syslog, err = net.Dial("unixgram", filepath.Join(m.dir, "run/systemd/journal/dev-log"))
		}
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

func (m *machine) stop() error {
	err := errors.Join(m.native.Close(), m.syslog.Close(), m.process.Process.Signal(syscall.SIGTERM))
	return errors.Join(err, m.process.Wait())
}

// send sends message n, now by the socket of the journal, now by that of syslog.
func (m *machine) send(n int) error {
	var err error
	if n%2 == 0 {
		_, err = fmt.Fprintf(m.native, "MESSAGE=number %d\nPRIORITY=6\nSYSLOG_FACILITY=19\nSYSLOG_IDENTIFIER=app\nNOTE=%s\n", n, strings.Repeat("x", n%1000))
	} else {
		_, err = fmt.Fprintf(m.syslog, "<158>Nov 24 10:00:00 app[7]: number %d", n)
	}
	return err
}

// source starts the source and returns what stops it.
func (m *machine) source(ctx context.Context, out *sourcetest.Emitter) (stop func() error, err error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, err
	}
	s, err := journal.New(journal.Options{
		Volatile: filepath.Join(m.dir, "run/log/journal", m.id), Persistent: filepath.Join(m.dir, "log/journal", m.id),
		Since: "the test", BootID: string(boot), Uptime: func() time.Duration { return 0 }, Hostname: "vm",
		Selectors: []syslog.Selector{{Facilities: []string{"local3"}, Severities: []string{"info"}}}, Log: logfile.Discard(),
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, out) }()
	return func() error { cancel(); return <-ended }, nil
}

func run(ctx context.Context, count int) error {
	dir, err := os.MkdirTemp("", "journald")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	id, err := os.ReadFile("/etc/machine-id")
	if err != nil {
		return err
	}
	m := &machine{dir: dir, id: strings.TrimSpace(string(id))}
	out, err := m.everyMessage(ctx, count)
	if err != nil {
		return err
	}
	return m.vacuum(ctx, out, count)
}

// everyMessage sends messages while the source is killed now and then and
// journald is restarted once: each arrives, once.
func (m *machine) everyMessage(ctx context.Context, count int) (*sourcetest.Emitter, error) {
	if err := m.start(ctx, "1G"); err != nil {
		return nil, err
	}
	out := sourcetest.New()
	stop, err := m.source(ctx, out)
	if err != nil {
		return nil, err
	}
	begun := time.Now()
	for n := range count {
		if err := m.send(n); err != nil {
			return nil, fmt.Errorf("send message %d: %w", n, err)
		}
		if n%(count/5+1) == count/10 {
			if err := stop(); err != nil {
				return nil, err
			}
			out = out.Crash()
			if stop, err = m.source(ctx, out); err != nil {
				return nil, err
			}
		}
		if n == count/2 {
			if err := errors.Join(m.stop(), m.start(ctx, "1G")); err != nil {
				return nil, err
			}
		}
	}
	sent := time.Since(begun)
	if err := wait(ctx, out, func() bool { return len(out.Rows("Syslog")) >= count }); err != nil {
		return nil, err
	}
	fmt.Printf("%d messages sent to journald in %v, the last read %v after the first\n", count, sent.Round(time.Millisecond), time.Since(begun).Round(time.Millisecond))
	out.Durable()
	if err := stop(); err != nil {
		return nil, err
	}
	seen := make([]bool, count)
	for _, row := range out.Rows("Syslog") {
		n := -1
		if _, err := fmt.Sscanf(fmt.Sprint(row["Message"]), "number %d", &n); err != nil || n < 0 || n >= count || seen[n] {
			return nil, fmt.Errorf("row %v is not one of the messages, or came twice", row)
		}
		seen[n] = true
	}
	if losses := out.Losses(); len(losses) > 0 {
		return nil, fmt.Errorf("losses %+v, want none", losses)
	}
	fmt.Println("each arrived once")
	return out.Crash(), m.stop()
}

// vacuum lets journald delete most of what the source has not read: what is
// missing and what arrives are all that was sent.
func (m *machine) vacuum(ctx context.Context, out *sourcetest.Emitter, count int) error {
	if err := m.start(ctx, "4M"); err != nil {
		return err
	}
	const more = 60000
	for n := range more {
		if err := m.send(count + n); err != nil {
			return err
		}
	}
	before := len(out.Rows("Syslog"))
	stop, err := m.source(ctx, out)
	if err != nil {
		return err
	}
	last := fmt.Sprintf("number %d", count+more-1)
	if err := wait(ctx, out, func() bool {
		rows := out.Rows("Syslog")
		return rows[len(rows)-1]["Message"] == last
	}); err != nil {
		return err
	}
	var lost int64
	for _, loss := range out.Losses() {
		if loss.Reason == "vacuumed" {
			lost += loss.Records
		}
	}
	read := len(out.Rows("Syslog")) - before
	fmt.Printf("journald deleted some of %d messages: %d read + %d lost\n", more, read, lost)
	// journald's own words about itself are numbered as well, and lost with the rest.
	const own = 100
	if lost == 0 || int64(read)+lost < more || int64(read)+lost > more+own {
		return errors.New("that does not add up")
	}
	return errors.Join(stop(), m.stop())
}

func wait(ctx context.Context, out *sourcetest.Emitter, met func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for !met() { // now and then: looking at all rows takes longer than emitting some
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait: %w; there are %d rows, losses %+v, troubles %v", ctx.Err(), len(out.Rows("Syslog")), out.Losses(), out.Troubles())
		case <-time.After(100 * time.Millisecond):
		}
	}
	return nil
}
