package syslogd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/openloganalytics/agent/agent/source/syslog"
)

// Names of daemons, as their services are called.
const (
	RSyslog  = "rsyslog"
	SyslogNG = "syslog-ng"
)

// A daemon is what differs between syslog daemons. Its methods are given the
// machine that it is on.
type daemon interface {
	// read takes from the configuration what has to be known of it, and says
	// what keeps our file from being obeyed.
	read(m *machine) (warning string)
	// prepare makes what messages wait in, or are written to. remade says that
	// the daemon has to be restarted for it.
	prepare(m *machine) (remade bool, warning string, err error)
	// text is our file, with the word that its parts are named by.
	text(m *machine, name string, wanted syslog.Selection) string
	// whole begins a configuration that includes all of the machine's, and alone
	// returns one with nothing but a text, "" when that cannot be.
	whole(m *machine) string
	alone(m *machine, text string) string
	// remove takes away what prepare made, and the queue.
	remove(m *machine) error
}

// A machine is what is known of a daemon here.
type machine struct {
	opts   Options
	daemon daemon

	name      string   // the daemon's, and its service's
	process   string   // as the kernel calls it
	programs  []string // where it can be installed
	pidFiles  []string
	mainFile  string // its configuration
	folder    string // for files like ours
	checkArgs []string

	program string // where it is, "" when it is not
}

// machines returns the machine as each of the daemons sees it.
func machines(o Options) []*machine {
	return []*machine{
		{
			opts: o, daemon: &rsyslog{}, name: RSyslog, process: "rsyslogd",
			programs: []string{"/usr/sbin/rsyslogd", "/sbin/rsyslogd"}, pidFiles: []string{"/run/rsyslogd.pid", "/var/run/rsyslogd.pid"},
			mainFile: mainFile, folder: folder, checkArgs: []string{"-N1", "-f"},
		},
		{
			opts: o, daemon: &syslogNG{}, name: SyslogNG, process: "syslog-ng",
			programs: []string{"/usr/sbin/syslog-ng", "/sbin/syslog-ng"}, pidFiles: []string{"/run/syslog-ng.pid", "/var/run/syslog-ng.pid"},
			mainFile: "/etc/syslog-ng/syslog-ng.conf", folder: "/etc/syslog-ng/conf.d", checkArgs: []string{"--syntax-only", "-f"},
		},
	}
}

const filename = "95-" + name

// file is the file that this package writes; pending, beside it, says that the
// daemon was not restarted yet; check is tried out. Only *.conf is read by the
// daemons, and nothing outside this folder when AppArmor confines them.
func (m *machine) file() string    { return m.folder + "/" + filename + ".conf" }
func (m *machine) pending() string { return m.folder + "/" + filename + ".pending" }
func (m *machine) check() string   { return m.folder + "/" + filename + ".check" }

func (m *machine) path(path string) string { return filepath.Join(m.opts.Root, path) }

// find looks for the daemon. The warning says why it cannot be configured.
func (m *machine) find() (warning string) {
	for _, path := range m.programs {
		if exists(m.path(path)) {
			m.program = m.path(path)
			break
		}
	}
	unread := m.daemon.read(m)
	switch {
	case m.program == "":
		return fmt.Sprintf("no %[1]s on this machine: there is no %[2]s; install %[1]s for its messages to be collected", m.name, m.programs[0])
	case !exists(m.path(m.folder)):
		return fmt.Sprintf("no %s on this machine that can be configured: there is no %s", m.name, m.folder)
	}
	return unread
}

// A Choice is the daemon that messages are to come from.
type Choice struct {
	Daemon string // RSyslog or SyslogNG; "" when there is none that can be told
	// Warning says why a daemon that is there is not the one.
	Warning string
}

// Choose looks for the daemon that takes this machine's messages: it is
// installed, can be told, and runs or is to run.
func Choose(ctx context.Context, o Options) Choice {
	var c Choice
	for _, m := range machines(o) {
		warning := m.find()
		if m.program == "" || !m.inUse(ctx) {
			continue
		}
		if warning == "" {
			return Choice{Daemon: m.name}
		}
		c.Warning = joined(c.Warning, warning)
	}
	return c
}

// inUse tells whether the daemon runs, or will after the next boot.
func (m *machine) inUse(ctx context.Context) bool {
	if !exists(m.path("/run/systemd/system")) {
		return true // there is nobody else who would take the messages
	}
	systemctl := m.first("/usr/bin/systemctl", "/bin/systemctl")
	for _, ask := range []string{"is-active", "is-enabled"} {
		if _, err := m.run(ctx, checkTimeout, systemctl, ask, "--quiet", m.name+".service"); err == nil {
			return true
		}
	}
	return false
}

// How long a program may take.
const (
	checkTimeout   = 20 * time.Second
	restartTimeout = time.Minute
)

func (m *machine) run(ctx context.Context, limit time.Duration, program string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if m.opts.Run != nil {
		return m.opts.Run(ctx, program, args...)
	}
	cmd := exec.CommandContext(ctx, program, args...) //nolint:gosec // absolute paths and fixed words only
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	cmd.WaitDelay = time.Second
	return cmd.CombinedOutput()
}

// restart makes the daemon read its configuration: rsyslog has to start anew for
// that. One that does not run is not started.
func (m *machine) restart(ctx context.Context) (warning string, err error) {
	stopped := m.name + " is installed but does not run; start it for its messages to be collected"
	if exists(m.path("/run/systemd/system")) {
		systemctl := m.first("/usr/bin/systemctl", "/bin/systemctl")
		if output, err := m.run(ctx, restartTimeout, systemctl, "try-restart", m.name+".service"); err != nil {
			return "", fmt.Errorf("restart %s: %w: %s", m.name, err, complaint(output))
		}
		if _, err := m.run(ctx, restartTimeout, systemctl, "is-active", "--quiet", m.name+".service"); err != nil {
			return stopped, nil //nolint:nilerr // the exit code is the answer
		}
		return "", nil
	}
	if !m.runs() {
		return stopped, nil
	}
	program, args := m.first("/usr/sbin/service", "/sbin/service"), []string{m.name, "restart"}
	if !exists(program) {
		program, args = m.path("/etc/init.d/"+m.name), []string{"restart"}
	}
	if !exists(program) {
		return "restart " + m.name + " for it to read " + m.file() + ": this machine has neither systemd nor a service script to do it with", nil
	}
	if output, err := m.run(ctx, restartTimeout, program, args...); err != nil {
		return "", fmt.Errorf("restart %s: %w: %s", m.name, err, complaint(output))
	}
	return "", nil
}

// first returns the first path that exists, or else the last.
func (m *machine) first(paths ...string) string {
	for _, path := range paths {
		if exists(m.path(path)) {
			return m.path(path)
		}
	}
	return m.path(paths[len(paths)-1])
}

// runs tells whether the process that the daemon has noted is one of its own.
func (m *machine) runs() bool {
	for _, path := range m.pidFiles {
		text, err := os.ReadFile(m.path(path))
		if err != nil {
			continue
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			continue
		}
		comm, err := os.ReadFile(m.path(fmt.Sprintf("/proc/%d/comm", pid)))
		if err == nil && strings.TrimSpace(string(comm)) == m.process {
			return true
		}
	}
	return false
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// removeFile removes a file that may be gone already.
func removeFile(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
