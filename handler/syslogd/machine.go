package rsyslog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const mainFile = "/etc/rsyslog.conf"

// A machine is what is known of the rsyslog here.
type machine struct {
	opts          Options
	rsyslogd      string // the daemon's path
	workDirectory string // where its queues are, "" when it has none
	group         int    // that it writes files as
}

func (m *machine) path(path string) string { return filepath.Join(m.opts.Root, path) }

// find looks for rsyslog. The warning says why it cannot be configured.
func find(o Options) (m *machine, warning string) {
	m = &machine{opts: o}
	for _, path := range []string{"/usr/sbin/rsyslogd", "/sbin/rsyslogd"} {
		if exists(m.path(path)) {
			m.rsyslogd = m.path(path)
			break
		}
	}
	included := m.read()
	switch {
	case m.rsyslogd == "":
		return m, "no rsyslog on this machine: there is no /usr/sbin/rsyslogd; install rsyslog for its messages to be collected"
	case !exists(m.path(folder)):
		return m, "no rsyslog on this machine that can be configured: there is no " + folder
	case !included:
		return m, "rsyslog does not read " + folder + ": add the line $IncludeConfig " + folder + "/*.conf to " + mainFile
	}
	return m, ""
}

// read takes from the configuration what has to be known of it, in both of
// its languages, and tells whether it includes our folder.
func (m *machine) read() (included bool) {
	var (
		work    = regexp.MustCompile(`(?i)(?:^\$WorkDirectory\s+|\bworkDirectory\s*=\s*")([^"\s]+)`)
		group   = regexp.MustCompile(`(?i)(?:^\$PrivDropToGroup\s+|\bprivdrop\.group\.name\s*=\s*")([^"\s]+)`)
		person  = regexp.MustCompile(`(?i)(?:^\$PrivDropToUser\s+|\bprivdrop\.user\.name\s*=\s*")([^"\s]+)`)
		include = regexp.MustCompile(`(?i)(?:^\$IncludeConfig\s+|\bfile\s*=\s*")` + folder + `/`)
	)
	files, err := filepath.Glob(m.path(folder) + "/*.conf")
	if err != nil {
		files = nil // a Root with brackets in it, and no such machine
	}
	var groupName, userName string
	for _, path := range append([]string{m.path(mainFile)}, files...) {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // what rsyslog cannot read either has no say
		}
		for line := range strings.Lines(string(text)) {
			line = strings.TrimSpace(line)
			if strings.HasPrefix(line, "#") {
				continue
			}
			for into, pattern := range map[*string]*regexp.Regexp{&m.workDirectory: work, &groupName: group, &userName: person} {
				if found := pattern.FindStringSubmatch(line); found != nil {
					*into = found[1]
				}
			}
			included = included || include.MatchString(line)
		}
	}
	m.group = groupID(groupName, userName)
	return included
}

// groupID returns the id of a group, or of a user's group; 0 when there is
// neither: rsyslogd then is root's.
func groupID(groupName, userName string) int {
	id := "0"
	if g, err := user.LookupGroup(groupName); err == nil {
		id = g.Gid
	} else if u, err := user.Lookup(userName); err == nil {
		id = u.Gid
	}
	gid, err := strconv.Atoi(id)
	if err != nil {
		return 0 // Windows, where there is no rsyslog
	}
	return gid
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

// restart makes rsyslog read its configuration: for that it has to start anew,
// SIGHUP does not do it. An rsyslog that does not run is not started.
func (m *machine) restart(ctx context.Context) (warning string, err error) {
	const stopped = "rsyslog is installed but does not run; start it for its messages to be collected"
	if exists(m.path("/run/systemd/system")) {
		systemctl := m.first("/usr/bin/systemctl", "/bin/systemctl")
		if output, err := m.run(ctx, restartTimeout, systemctl, "try-restart", "rsyslog.service"); err != nil {
			return "", fmt.Errorf("restart rsyslog: %w: %s", err, complaint(output))
		}
		if _, err := m.run(ctx, restartTimeout, systemctl, "is-active", "--quiet", "rsyslog.service"); err != nil {
			return stopped, nil //nolint:nilerr // the exit code is the answer
		}
		return "", nil
	}
	if !m.runs() {
		return stopped, nil
	}
	program, args := m.first("/usr/sbin/service", "/sbin/service"), []string{"rsyslog", "restart"}
	if !exists(program) {
		program, args = m.path("/etc/init.d/rsyslog"), []string{"restart"}
	}
	if !exists(program) {
		return "restart rsyslog for it to read " + file + ": this machine has neither systemd nor a service script to do it with", nil
	}
	if output, err := m.run(ctx, restartTimeout, program, args...); err != nil {
		return "", fmt.Errorf("restart rsyslog: %w: %s", err, complaint(output))
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

// runs tells whether the process that rsyslogd has noted is one of its own.
func (m *machine) runs() bool {
	for _, path := range []string{"/run/rsyslogd.pid", "/var/run/rsyslogd.pid"} {
		text, err := os.ReadFile(m.path(path))
		if err != nil {
			continue
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			continue
		}
		comm, err := os.ReadFile(m.path(fmt.Sprintf("/proc/%d/comm", pid)))
		if err == nil && strings.TrimSpace(string(comm)) == "rsyslogd" {
			return true
		}
	}
	return false
}

// removeQueue deletes the files of our queue: what nobody will read any more.
func (m *machine) removeQueue() error {
	var failed error
	for _, dir := range []string{m.workDirectory, "/var/spool/rsyslog", "/var/lib/rsyslog"} {
		if dir == "" {
			continue
		}
		entries, err := os.ReadDir(m.path(dir))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = errors.Join(failed, err)
		}
		for _, entry := range entries {
			rest, ours := strings.CutPrefix(entry.Name(), name+".")
			if _, err := strconv.ParseUint(rest, 10, 64); ours && (err == nil || rest == "qi") && entry.Type().IsRegular() {
				failed = errors.Join(failed, removeFile(filepath.Join(m.path(dir), entry.Name())))
			}
		}
	}
	return failed
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
