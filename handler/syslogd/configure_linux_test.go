package syslogd

import (
	"context"
	"errors"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/openloganalytics/agent/agent/source/syslog"
)

// A fake is a machine with an rsyslog that notes what is done to it.
type fake struct {
	t    *testing.T
	o    Options
	runs []string
	// refuse and fail answer for rsyslogd -N1 and for the restart.
	refuse func(config string) string // the complaint; "" accepts
	fail   error
}

// Our files for rsyslog.
const (
	file    = folder + "/" + filename + ".conf"
	pending = folder + "/" + filename + ".pending"
	check   = folder + "/" + filename + ".check"
)

const mainConfig = `# $WorkDirectory /commented/out
$WorkDirectory /var/spool/rsyslog
$IncludeConfig /etc/rsyslog.d/*.conf
`

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{t: t}
	root := t.TempDir()
	f.o = Options{Daemon: RSyslog, Root: root, Pipe: filepath.Join(root, "pipe"), UID: os.Getuid(), Run: f.run, Selectors: []syslog.Selector{
		{Facilities: []string{"auth"}, Severities: []string{"*"}},
	}}
	f.write("/usr/sbin/rsyslogd", "")
	f.write("/etc/rsyslog.conf", mainConfig)
	f.write("/usr/bin/systemctl", "")
	for _, dir := range []string{folder, "/run/systemd/system", "/var/spool/rsyslog"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func (f *fake) path(path string) string { return filepath.Join(f.o.Root, path) }

func (f *fake) write(path, text string) {
	f.t.Helper()
	if err := os.MkdirAll(filepath.Dir(f.path(path)), 0o700); err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(f.path(path), []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fake) read(path string) string {
	f.t.Helper()
	text, err := os.ReadFile(f.path(path))
	if err != nil {
		f.t.Fatal(err)
	}
	return string(text)
}

func (f *fake) remove(path string) {
	f.t.Helper()
	if err := os.RemoveAll(f.path(path)); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fake) run(_ context.Context, program string, args ...string) ([]byte, error) {
	program = strings.TrimPrefix(program, f.o.Root)
	if program == "/usr/sbin/rsyslogd" {
		f.runs = append(f.runs, "check")
		if args[0] != "-N1" || args[1] != "-f" {
			f.t.Errorf("rsyslogd is run with %q, want -N1 -f FILE", args)
		}
		config, err := os.ReadFile(args[2])
		if err != nil {
			f.t.Error(err)
		}
		if f.refuse != nil {
			if complaint := f.refuse(string(config)); complaint != "" {
				return []byte("rsyslogd: version 8, config validation run\nrsyslogd: " + complaint + "\nrsyslogd: End of config validation run. Bye.\n"), errors.New("exit status 1")
			}
		}
		return nil, nil
	}
	f.runs = append(f.runs, program+" "+strings.Join(args, " "))
	return nil, f.fail
}

// ran returns what was run since it was last asked.
func (f *fake) ran() []string {
	runs := f.runs
	f.runs = nil
	return runs
}

func (f *fake) configure() Result {
	f.t.Helper()
	result, err := Configure(f.t.Context(), f.o)
	if err != nil {
		f.t.Fatal(err)
	}
	return result
}

const (
	tryRestart = "/usr/bin/systemctl try-restart rsyslog.service"
	isActive   = "/usr/bin/systemctl is-active --quiet rsyslog.service"
)

func TestConfigure(t *testing.T) {
	f := newFake(t)
	if got := f.configure(); got != (Result{Changed: true}) {
		t.Errorf("first Configure = %+v, want a change", got)
	}
	if diff := cmp.Diff([]string{"check", tryRestart, isActive}, f.ran()); diff != "" {
		t.Errorf("programs run (-want +got):\n%s", diff)
	}
	wanted, err := syslog.Compile(f.o.Selectors)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(marker+dropin("log-analytics-agent", f.o.Pipe, wanted, true), f.read(file)); diff != "" {
		t.Errorf("file (-want +got):\n%s", diff)
	}
	entries, err := os.ReadDir(f.path(folder))
	if err != nil || len(entries) != 1 {
		t.Errorf("the folder has %v, %v; want our file alone", entries, err)
	}

	if got := f.configure(); got != (Result{}) || f.ran() != nil {
		t.Errorf("second Configure = %+v, want nothing done", got)
	}
	f.o.Selectors[0].Severities = []string{"err"}
	if got := f.configure(); got != (Result{Changed: true}) {
		t.Errorf("Configure with another selection = %+v, want a change", got)
	}
	f.ran()
	// After a crash between file and restart the restart is made good.
	f.write(pending, "")
	if got := f.configure(); got != (Result{Changed: true}) || len(f.ran()) != 3 || exists(f.path(pending)) {
		t.Errorf("Configure after a crash = %+v, want a restart", got)
	}
	// rsyslogd may hold open a pipe that somebody has removed.
	f.remove("pipe")
	if got := f.configure(); got != (Result{Changed: true}) || len(f.ran()) != 3 {
		t.Errorf("Configure without the pipe = %+v, want a restart", got)
	}
	f.o.Selectors = nil
	if got := f.configure(); got != (Result{Changed: true}) || exists(f.path(file)) {
		t.Errorf("Configure with nothing selected = %+v, want the file removed", got)
	}
}

func TestConfigureElsewhere(t *testing.T) {
	tests := []struct {
		name    string
		machine func(f *fake)
		changed bool
		warning string
		ran     []string
	}{
		{"no rsyslog", func(f *fake) { f.remove("/usr/sbin/rsyslogd") }, false, "no rsyslog on this machine", nil},
		{"no folder", func(f *fake) { f.remove(folder) }, false, "no /etc/rsyslog.d", nil},
		{"folder not read", func(f *fake) { f.write(mainFile, "# $IncludeConfig /etc/rsyslog.d/*.conf\n") }, false, "add the line $IncludeConfig", nil},
		{"newer language", func(f *fake) {
			f.write(mainFile, `global(workDirectory="/var/lib/rsyslog")`+"\n"+`include(file="/etc/rsyslog.d/*.conf" mode="optional")`)
		}, true, "", []string{"check", tryRestart, isActive}},
		{"no work directory", func(f *fake) { f.write(mainFile, "$IncludeConfig /etc/rsyslog.d/*.conf\n") }, true, "no work directory", []string{"check", tryRestart, isActive}},
		{"no systemd, running", func(f *fake) {
			f.remove("/run/systemd")
			f.write("/run/rsyslogd.pid", "4711\n")
			f.write("/proc/4711/comm", "rsyslogd\n")
			f.write("/usr/sbin/service", "")
		}, true, "", []string{"check", "/usr/sbin/service rsyslog restart"}},
		{"no systemd, init script", func(f *fake) {
			f.remove("/run/systemd")
			f.write("/var/run/rsyslogd.pid", "4711\n")
			f.write("/proc/4711/comm", "rsyslogd\n")
			f.write("/etc/init.d/rsyslog", "")
		}, true, "", []string{"check", "/etc/init.d/rsyslog restart"}},
		{"no systemd, no script", func(f *fake) {
			f.remove("/run/systemd")
			f.write("/run/rsyslogd.pid", "4711\n")
			f.write("/proc/4711/comm", "rsyslogd\n")
		}, true, "restart rsyslog for it to read", []string{"check"}},
		{"no systemd, another process has the number", func(f *fake) {
			f.remove("/run/systemd")
			f.write("/run/rsyslogd.pid", "4711\n")
			f.write("/proc/4711/comm", "cron\n")
			f.write("/usr/sbin/service", "")
		}, true, "does not run", []string{"check"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t)
			tt.machine(f)
			got := f.configure()
			if got.Changed != tt.changed || (tt.warning == "") != (got.Warning == "") || !strings.Contains(got.Warning, tt.warning) {
				t.Errorf("Configure = %+v, want changed %v and a warning with %q", got, tt.changed, tt.warning)
			}
			if diff := cmp.Diff(tt.ran, f.ran()); diff != "" {
				t.Errorf("programs run (-want +got):\n%s", diff)
			}
			if exists(f.path(file)) != tt.changed {
				t.Errorf("the file exists: %v, want %v", !tt.changed, tt.changed)
			}
		})
	}
}

// TestRefused: what rsyslog does not accept, or does not start with, leaves
// the former file in place.
func TestRefused(t *testing.T) {
	f := newFake(t)
	f.configure()
	former := f.read(file)
	f.o.Selectors[0].Severities = []string{"err"}

	f.refuse = func(config string) string {
		if strings.Contains(config, "template(") {
			return "unknown parameter"
		}
		return ""
	}
	_, err := Configure(t.Context(), f.o)
	if err == nil || !strings.Contains(err.Error(), "refuses the new file: exit status 1: unknown parameter") {
		t.Errorf("Configure of a refused file = %v, want rsyslogd's words", err)
	}
	if f.read(file) != former || exists(f.path(check)) || exists(f.path(pending)) {
		t.Error("a refused file left its traces")
	}

	f.refuse, f.fail = nil, errors.New("exit status 3")
	_, err = Configure(t.Context(), f.o)
	if err == nil || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("Configure without a restart = %v, want the restart's error", err)
	}
	if f.read(file) != former {
		t.Error("after a failed restart the former file is not back")
	}

	// rsyslog fails with the new file and starts with the former one.
	f.fail = nil
	once := errors.New("exit status 4")
	run := f.o.Run
	f.o.Run = func(ctx context.Context, program string, args ...string) ([]byte, error) {
		output, err := run(ctx, program, args...)
		if args[0] == "try-restart" && once != nil {
			once, err = nil, once
		}
		return output, err
	}
	_, err = Configure(t.Context(), f.o)
	if err == nil || !strings.Contains(err.Error(), "exit status 4") || !strings.Contains(err.Error(), "the former configuration is back") {
		t.Errorf("Configure with a failed restart = %v, want that the former is back", err)
	}
	if f.read(file) != former || exists(f.path(pending)) {
		t.Error("after a failed restart the former state is not back")
	}
}

// TestFaultsOfTheMachine: a configuration that is broken without us does not
// keep the agent from its messages, and is reported.
func TestFaultsOfTheMachine(t *testing.T) {
	f := newFake(t)
	f.refuse = func(config string) string {
		if strings.Contains(config, "$IncludeConfig") {
			return "broken in line 7"
		}
		return ""
	}
	got := f.configure()
	if !got.Changed || !strings.Contains(got.Warning, "not the agent's") || !strings.Contains(got.Warning, "broken in line 7") {
		t.Errorf("Configure = %+v, want the file and a warning about line 7", got)
	}
}

func TestForeignFilesAreLeftAlone(t *testing.T) {
	f := newFake(t)
	f.write(file, "# mine\n")
	if _, err := Configure(t.Context(), f.o); err == nil || !strings.Contains(err.Error(), "left alone") {
		t.Errorf("Configure = %v, want an error about the file", err)
	}
	if _, err := Remove(t.Context(), f.o); err != nil {
		t.Errorf("Remove = %v, want nil: nothing of ours is there", err)
	}
	if got := f.read(file); got != "# mine\n" {
		t.Errorf("the file is %q, want it untouched", got)
	}
	f.remove(file)
	victim := f.path("victim")
	f.write("victim", "precious")
	if err := os.Symlink(victim, f.o.Pipe); err != nil {
		t.Fatal(err)
	}
	if _, err := Configure(t.Context(), f.o); err == nil {
		t.Error("Configure followed a symbolic link in the pipe's place")
	}
	f.remove("pipe")
	f.write("pipe", "precious")
	if _, err := Configure(t.Context(), f.o); err == nil || !strings.Contains(err.Error(), "left alone") {
		t.Errorf("Configure with a file in the pipe's place = %v, want an error", err)
	}
	if _, err := Remove(t.Context(), f.o); err != nil || f.read("pipe") != "precious" {
		t.Errorf("Remove = %v and the file is %q, want both untouched", err, f.read("pipe"))
	}
	var stat unix.Stat_t
	if err := unix.Stat(victim, &stat); err != nil || stat.Mode&0o777 != 0o600 {
		t.Errorf("the link's target has mode %o, %v; want it untouched", stat.Mode, err)
	}
}

// TestPipe: the pipe is for the agent and for the group that rsyslogd runs as.
func TestPipe(t *testing.T) {
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	group, err := user.LookupGroupId(nobody.Gid)
	if err != nil {
		t.Fatal(err)
	}
	gid, err := strconv.Atoi(nobody.Gid)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		config string
		group  int
	}{
		{"", 0},
		{"$PrivDropToUser nobody\n$PrivDropToGroup " + group.Name, gid},
		{"$PrivDropToUser nobody", gid},
		{`global(privdrop.user.name="nobody" privdrop.group.name="` + group.Name + `")`, gid},
		{"# $PrivDropToUser nobody", 0},
	} {
		f := newFake(t)
		f.o.UID = 12345
		f.write(mainFile, mainConfig+tt.config+"\n")
		f.configure()
		var stat unix.Stat_t
		if err := unix.Lstat(f.o.Pipe, &stat); err != nil {
			t.Fatal(err)
		}
		if os.Geteuid() == 0 && (stat.Uid != 12345 || int(stat.Gid) != tt.group) {
			t.Errorf("with %q the pipe is of %d:%d, want 12345:%d", tt.config, stat.Uid, stat.Gid, tt.group)
		}
		if stat.Mode != unix.S_IFIFO|0o660 {
			t.Errorf("the pipe's mode is %o, want a pipe with 660", stat.Mode)
		}
	}
}

func TestRemove(t *testing.T) {
	f := newFake(t)
	f.configure()
	f.ran()
	const spool = "/var/spool/rsyslog/"
	ours := []string{"log-analytics-agent.qi", "log-analytics-agent.00000001"}
	others := []string{"log-analytics-agent.qi.bak", "log-analytics-agent-check.qi", "fwd.qi", "log-analytics-agent.txt"}
	for _, file := range append(ours, others...) {
		f.write(spool+file, "x")
	}
	got, err := Remove(t.Context(), f.o)
	if err != nil || got != (Result{Changed: true}) {
		t.Errorf("Remove = %+v, %v; want a change", got, err)
	}
	if diff := cmp.Diff([]string{tryRestart, isActive}, f.ran()); diff != "" {
		t.Errorf("programs run (-want +got):\n%s", diff)
	}
	for _, path := range append([]string{file, pending, check, "pipe"}, spool+ours[0], spool+ours[1]) {
		if exists(f.path(path)) {
			t.Errorf("%s is still there", path)
		}
	}
	for _, file := range others {
		if !exists(f.path(spool + file)) {
			t.Errorf("%s is gone, and was not ours", file)
		}
	}
	if got, err := Remove(t.Context(), f.o); err != nil || got != (Result{}) || f.ran() != nil {
		t.Errorf("second Remove = %+v, %v; want nothing done", got, err)
	}
	f.configure()
	f.fail = errors.New("exit status 3")
	if got, err := Remove(t.Context(), f.o); err != nil || exists(f.path(file)) || exists(f.path(pending)) || !strings.Contains(got.Warning, "exit status 3") {
		t.Errorf("Remove without a restart = %+v, %v; want all removed and a warning", got, err)
	}
	f.fail = nil
	f.configure()
	f.remove("/usr/sbin/rsyslogd") // the package was removed first
	if _, err := Remove(t.Context(), f.o); err != nil || exists(f.path(file)) {
		t.Errorf("Remove without rsyslog = %v, want the file gone", err)
	}
}

func TestComplaintIsBounded(t *testing.T) {
	got := complaint([]byte("rsyslogd: version 8.2302.0, config validation run\nrsyslogd: a\n\n" + strings.Repeat("ä", 1000)))
	if !strings.HasPrefix(got, "a; ää") || len(got) > 410 || strings.ContainsAny(got, "\n\uFFFD") {
		t.Errorf("complaint = %q of %d bytes, want one line of at most 410", got, len(got))
	}
}
