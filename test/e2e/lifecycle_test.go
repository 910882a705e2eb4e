//go:build linux

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/openloganalytics/agent/extension"
	"github.com/openloganalytics/agent/internal/paths"
	"github.com/openloganalytics/agent/test/emulator"
	"github.com/openloganalytics/agent/test/fakeguest"
)

func TestLifeFromInstallToUninstall(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.enable(oldVersion, m.settings(nil))
	m.appendLines(1, 100)
	m.wantLines(100)
	pid := m.health().PID

	// The same settings again change nothing: the agent is not disturbed.
	if _, err := m.guest.Restart(); err != nil {
		t.Fatal(err)
	}
	m.wantStatus("success")
	if now := m.health().PID; now != pid {
		t.Errorf("enable with the same settings restarted the agent: process %d became %d", pid, now)
	}

	m.appendLines(101, 200)
	m.enable(newVersion, m.settings(nil))
	m.appendLines(201, 300)
	m.wantLines(300)
	if v := m.health().Version; v != newVersion {
		t.Errorf("version %s runs after the update", v)
	}

	m.appendLines(301, 400)
	m.enable(oldVersion, m.settings(nil))
	m.wantLines(400)
	if v := m.health().Version; v != oldVersion {
		t.Errorf("version %s runs after the downgrade", v)
	}

	m.conserved()
	if _, err := m.guest.Uninstall(); err != nil {
		t.Fatal(err)
	}
	m.wantNothing()
}

func wantNoProcess(t *testing.T, root string) {
	t.Helper()
	for _, pid := range processesOf(t, root) {
		t.Errorf("process %d is left", pid)
	}
}

// processesOf returns the processes whose program lies, or lay, below root.
func processesOf(t *testing.T, root string) (pids []int) {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		program, err := os.Readlink(filepath.Join("/proc", e.Name(), "exe"))
		if err == nil && strings.HasPrefix(program, root+"/") {
			pids = append(pids, pid)
		}
	}
	return pids
}

// The agent is killed and started again with nothing lost; so is its
// supervisor, by the next enable.
func TestKilledProcessesComeBack(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.enable(oldVersion, m.settings(nil))
	m.appendLines(1, 50)
	m.wantLines(50)
	first := m.health().PID
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	m.appendLines(51, 100)
	m.eventually(func() error {
		if h := m.health(); h.PID == first || h.Workspaces[0].State != "connected" {
			return fmt.Errorf("the agent was not started again: %+v", h)
		}
		return nil
	})
	m.wantLines(100)

	for _, pid := range processesOf(t, m.root) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			t.Fatal(err)
		}
	}
	m.appendLines(101, 150)
	if _, err := m.guest.Restart(); err != nil {
		t.Fatal(err)
	}
	m.wantLines(150)
}

// Settings that cannot be applied stop nothing: not after a reboot, and not in
// an update.
func TestBadSettingsKeepTheAgentAlive(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.enable(oldVersion, m.settings(nil))
	m.appendLines(1, 5) // files that exist before the first start are read from their end
	m.wantLines(5)
	bad := m.settings(func(pub, _ map[string]any) { pub["unheardOf"] = true })
	for _, pid := range processesOf(t, m.root) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			t.Fatal(err)
		}
	}
	_, err := m.guest.Enable(oldVersion, bad)
	wantExit(t, err, extension.ExitBadSettings)
	m.appendLines(6, 10)
	m.wantLines(10)
	_, err = m.guest.Enable(newVersion, bad)
	wantExit(t, err, extension.ExitBadSettings)
	m.appendLines(11, 20)
	m.wantLines(20)
	if v := m.health().Version; v != newVersion {
		t.Errorf("version %s runs after the update", v)
	}
	m.enable(newVersion, m.settings(nil))
}

// An agent that does not run is not called healthy because of what it said
// before it was killed.
func TestDeadAgentIsNotCalledHealthy(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.enable(oldVersion, m.settings(nil))
	spool := m.layout.SpoolDir()
	if err := os.Rename(spool, spool+".away"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(spool, []byte("no folder"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(m.health().PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	m.eventually(func() error {
		status, err := m.guest.Status()
		if err == nil && (status.Status != "error" || !strings.Contains(status.Message, "does not run")) {
			err = fmt.Errorf("status is %s: %s", status.Status, status.Message)
		}
		return err
	})
	if err := errors.Join(os.Remove(spool), os.Rename(spool+".away", spool)); err != nil {
		t.Fatal(err)
	}
	m.enable(oldVersion, m.settings(nil))
}

// The same key is handed over again when the identity that it made is gone.
func TestLostIdentityIsMadeAnew(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.enable(oldVersion, m.settings(nil))
	if err := os.Remove(filepath.Join(m.layout.WorkspaceDir(m.workspace.ID), "identity.pem")); err != nil {
		t.Fatal(err)
	}
	m.enable(oldVersion, m.settings(nil))
	m.appendLines(1, 10)
	m.wantLines(10)
}

func TestSyslogMessagesArrive(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.enable(oldVersion, m.settings(nil))
	conn, err := net.Dial("unixgram", m.layout.SyslogSocket())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for n := 1; n <= 20; n++ {
		if _, err := fmt.Fprintf(conn, "<11>%s host1 app[12]: message=%d", time.Now().Format(time.Stamp), n); err != nil {
			t.Fatal(err)
		}
	}
	m.eventually(func() error {
		rows, err := m.service.Rows(m.workspace.ID, "Syslog")
		if err == nil && len(rows) != 20 {
			err = fmt.Errorf("%d messages arrived, want 20", len(rows))
		}
		return err
	})
	rows, err := m.service.Rows(m.workspace.ID, "Syslog")
	if err != nil {
		t.Fatal(err)
	}
	for column, want := range map[string]any{"Facility": "user", "SeverityLevel": "err", "ProcessName": "app", "SyslogMessage": "message=1"} {
		if rows[0][column] != want {
			t.Errorf("%s is %v, want %v", column, rows[0][column], want)
		}
	}
}

// An outage costs nothing: what was written in it arrives when it is over.
func TestOutageLosesNothing(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.enable(oldVersion, m.settings(nil))
	fault, err := m.service.AddFault(emulator.Fault{Kind: emulator.FaultStatus, Status: 503, Endpoint: "ods", RetryAfter: "1"})
	if err != nil {
		t.Fatal(err)
	}
	m.appendLines(1, 500)
	m.eventually(func() error {
		for _, f := range m.service.Faults() {
			if f.ID == fault.ID && f.Struck > 0 {
				return nil
			}
		}
		return errors.New("the outage was not noticed")
	})
	m.service.ClearFaults(fault.ID)
	m.wantLines(500)
}

// Every wrong setting is told with its field and fix, in the status and by the
// exit code, while the agent goes on with the settings it has.
func TestBadInputKeepsTheOldConfiguration(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	good := m.settings(nil)
	m.enable(oldVersion, good)
	generation := m.health().Generation
	written := 0
	other := "b" + m.workspace.Keys[0][1:]
	for _, tt := range []struct {
		name     string
		settings fakeguest.Settings
		say      []string
	}{
		{"no workspace id", m.settings(func(pub, _ map[string]any) { delete(pub, "workspaceId") }), []string{"workspaceId", "is missing"}},
		{"malformed workspace id", m.settings(func(pub, _ map[string]any) { pub["workspaceId"] = "contoso" }), []string{"workspaceId", "GUID"}},
		{"no key", m.settings(func(_, prot map[string]any) { delete(prot, "workspaceKey") }), []string{"workspaceKey", "is missing"}},
		{"malformed key", m.settings(func(_, prot map[string]any) { prot["workspaceKey"] = "!" + other }), []string{"workspaceKey", "base64"}},
		{"unknown field", m.settings(func(pub, _ map[string]any) { pub["workspaceKey"] = other }), []string{"workspaceKey", "not a setting"}},
		{"wrong type", m.settings(func(pub, _ map[string]any) { pub["cpuQuotaPercentage"] = []int{1} }), []string{"cpuQuotaPercentage", "whole number"}},
		{"decrypted text is not JSON", fakeguest.Settings{Public: good.Public, Protected: []byte("key=" + other)}, []string{"protectedSettings", "JSON"}},
		{"undecryptable envelope", fakeguest.Settings{Raw: raw(m, good, "AAAA")}, []string{"protectedSettings", "opened"}},
		{"1 MiB of settings", fakeguest.Settings{Raw: bytes.Repeat([]byte("x"), 1<<20)}, []string{"settings", "KiB"}},
		{"not JSON at all", fakeguest.Settings{Raw: []byte("{")}, []string{"settings", "JSON"}},
		{"no settings at all", fakeguest.Settings{}, []string{"without settings"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := m.guest.Enable(oldVersion, tt.settings)
			wantExit(t, err, extension.ExitBadSettings)
			status, err := m.guest.Status()
			if err != nil {
				t.Fatal(err)
			}
			if status.Status != "error" || status.Code != extension.ExitBadSettings {
				t.Errorf("status is %s with code %d, want error with %d", status.Status, status.Code, extension.ExitBadSettings)
			}
			for _, text := range tt.say {
				if !strings.Contains(status.Message, text) {
					t.Errorf("message %q does not say %q", status.Message, text)
				}
			}
			if strings.Contains(status.Message, other) {
				t.Errorf("message shows a secret: %q", status.Message)
			}
			m.appendLines(written+1, written+10)
			written += 10
			m.wantLines(written)
			if g := m.health().Generation; g != generation {
				t.Errorf("the agent obeys other settings: %s", g)
			}
		})
	}
	m.enable(oldVersion, good)
	m.wantNoSecret(other)
}

// raw is a settings file whose protected half is replaced.
func raw(m *machine, s fakeguest.Settings, protected string) []byte {
	m.Helper()
	return fmt.Appendf(nil, `{"runtimeSettings":[{"handlerSettings":{"publicSettings":%s,"protectedSettings":%q,"protectedSettingsCertThumbprint":%q}}]}`,
		s.Public, protected, m.guest.Thumbprint())
}

func wantExit(t *testing.T, err error, code int) {
	t.Helper()
	var run fakeguest.Run
	if !errors.As(err, &run) || run.ExitCode != code {
		t.Errorf("enable ended with %v, want exit code %d", err, code)
	}
}

// wantNoSecret looks for texts in every file of the machine but the emulator's
// and the guest agent's own, and in every command line and environment.
func (m *machine) wantNoSecret(secrets ...string) {
	m.Helper()
	holds := func(data []byte) bool {
		for _, s := range secrets {
			if bytes.Contains(data, []byte(s)) {
				return true
			}
		}
		return false
	}
	err := filepath.WalkDir(m.root, func(path string, d fs.DirEntry, err error) error {
		elsewhere := strings.HasPrefix(path, filepath.Join(m.root, "service")) || strings.HasPrefix(path, filepath.Join(m.root, "var", "lib", "waagent"))
		if err != nil || !d.Type().IsRegular() || elsewhere {
			return err
		}
		data, err := os.ReadFile(path)
		if err == nil && holds(data) {
			info, err := d.Info()
			if err != nil {
				return err
			}
			m.Errorf("%s (%v) holds a secret", path, info.Mode())
		}
		return err
	})
	if err != nil {
		m.Error(err)
	}
	for _, pid := range processesOf(m.T, m.root) {
		for _, name := range []string{"cmdline", "environ"} {
			data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), name))
			if err != nil {
				m.Error(err)
			}
			if holds(data) {
				m.Errorf("%s of process %d holds a secret", name, pid)
			}
		}
	}
}

func TestKeyOfAnotherWorkspace(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	wrong := "AAAA" + m.workspace.Keys[0][4:]
	_, err := m.guest.Enable(oldVersion, m.settings(func(_, prot map[string]any) { prot["workspaceKey"] = wrong }))
	wantExit(t, err, extension.ExitBadSettings)
	status := m.wantStatus("error")
	if !strings.Contains(status.Message, "key") || !strings.Contains(status.Message, m.workspace.ID) || status.Code != extension.ExitBadSettings {
		t.Errorf("status is %+v, want it to name the workspace and the key", status)
	}
	// The right key mends it, and the key is gone from the disk once it was used.
	m.enable(oldVersion, m.settings(nil))
	m.wantNoSecret(m.workspace.Keys[0], wrong)
	// A wrong key later is told, although the old certificate goes on working.
	_, err = m.guest.Enable(oldVersion, m.settings(func(_, prot map[string]any) { prot["workspaceKey"] = wrong }))
	wantExit(t, err, extension.ExitBadSettings)
	m.appendLines(1, 10)
	m.wantLines(10)
	m.enable(oldVersion, m.settings(nil))
}

func TestClockOffByAnHour(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	if err := m.service.Set(emulator.Settings{Skew: emulator.Duration(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	_, err := m.guest.Enable(oldVersion, m.settings(nil))
	wantExit(t, err, extension.ExitBadSettings)
	if status := m.wantStatus("error"); !strings.Contains(status.Message, "clock") {
		t.Errorf("status is %q, want it to name the clock", status.Message)
	}
}

func TestUnreachableHost(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	closed, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := closed.Addr().String()
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = m.guest.Enable(oldVersion, m.settings(func(_, prot map[string]any) { prot["proxy"] = address }))
	wantUnreachable(m, err, address)
	// The agent has kept trying; the right settings bring what was written.
	m.appendLines(1, 20)
	m.enable(oldVersion, m.settings(nil))
	m.wantLines(20)
}

// A workspace id makes a host name; one that does not exist is a wrong setting.
func TestUnknownHost(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	_, err := m.guest.Enable(oldVersion, m.settings(func(_, prot map[string]any) {
		delete(prot, "proxy")
		prot["domain"] = "unreachable.invalid"
	}))
	wantExit(t, err, extension.ExitBadSettings)
	if status := m.wantStatus("error"); !strings.Contains(status.Message, "unreachable.invalid") || !strings.Contains(status.Message, "workspaceId") {
		t.Errorf("status is %q, want it to name the host and the setting", status.Message)
	}
}

func TestProxyRefused(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	if _, err := m.service.AddFault(emulator.Fault{Kind: emulator.FaultStatus, Status: 403, Endpoint: "gateway"}); err != nil {
		t.Fatal(err)
	}
	_, err := m.guest.Enable(oldVersion, m.settings(nil))
	wantUnreachable(m, err, strings.TrimPrefix(m.gateway, "http://"))
	// Once the proxy lets us through, the status mends itself.
	m.service.ClearFaults(0)
	m.eventually(func() error {
		status, err := m.guest.Status()
		if err == nil && status.Status != "success" {
			err = fmt.Errorf("status is still %s: %s", status.Status, status.Message)
		}
		return err
	})
}

func wantUnreachable(m *machine, err error, say string) {
	m.Helper()
	wantExit(m.T, err, extension.ExitUnreachable)
	status := m.wantStatus("error")
	if status.Code != extension.ExitUnreachable || !strings.Contains(status.Message, say) {
		m.Errorf("status is %+v, want code %d and a message that names %s", status, extension.ExitUnreachable, say)
	}
}

func TestCertificateMissing(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	if err := m.guest.Forget(); err != nil {
		t.Fatal(err)
	}
	_, err := m.guest.Enable(oldVersion, m.settings(nil))
	wantExit(t, err, extension.ExitBadSettings)
	if status := m.wantStatus("error"); !strings.Contains(status.Message, m.guest.Thumbprint()) {
		t.Errorf("status is %q, want it to name the certificate", status.Message)
	}
}

// A disk without room changes nothing and says how much is needed. The disk is
// a small file system of its own, which a user namespace lets anybody mount.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.enable(oldVersion, m.settings(nil))
	dir := m.guest.HandlerDir(oldVersion)
	state := filepath.Join(m.root, "full")
	if err := os.MkdirAll(filepath.Join(state, "var", "lib", "log-analytics-agent"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/usr/bin/unshare", "-rm", "/bin/sh", "-c",
		`mount -t tmpfs -o size=1m none "$1/var/lib/log-analytics-agent" && exec bin/log-analytics-agent enable`, "sh", state)
	m.wantRefusal(cmd, dir, state, "MB needed")
}

// A folder that cannot be written is named. /sys takes no folders from anybody.
func TestReadOnlyFolder(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.enable(oldVersion, m.settings(nil))
	dir := m.guest.HandlerDir(oldVersion)
	m.wantRefusal(exec.Command(filepath.Join(dir, "bin", "log-analytics-agent"), "enable"), dir, "/sys/kernel", "/sys/kernel")
}

// wantRefusal runs enable by hand with another root and wants exit code 52 and
// a status that says why.
func (m *machine) wantRefusal(cmd *exec.Cmd, dir, root, say string) {
	m.Helper()
	// The status of this machine's own agent would go into the same file.
	if _, err := m.guest.Disable(); err != nil {
		m.Fatal(err)
	}
	cmd.Dir = dir
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", paths.EnvRoot + "=" + root, "ConfigSequenceNumber=" + strconv.Itoa(m.guest.Sequence())}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != extension.ExitMissingDependency {
		m.Errorf("enable ended with %v, want exit code %d: %s", err, extension.ExitMissingDependency, out)
	}
	status := m.wantStatus("error")
	if status.Code != extension.ExitMissingDependency || !strings.Contains(status.Message, say) {
		m.Errorf("status is %+v, want code %d and a message with %q", status, extension.ExitMissingDependency, say)
	}
}

// Nothing is installed: disable and uninstall succeed all the same.
func TestDisableAndUninstallNeedNothing(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.enable(oldVersion, m.settings(nil))
	dir := m.guest.HandlerDir(oldVersion)
	empty := t.TempDir()
	for _, verb := range []string{"disable", "uninstall", "uninstall", "disable"} {
		cmd := exec.Command(filepath.Join(dir, "bin", "log-analytics-agent"), verb)
		cmd.Dir = "/"
		cmd.Env = []string{"PATH=/usr/bin:/bin", paths.EnvRoot + "=" + empty, "ConfigSequenceNumber=99"}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s on an empty machine: %v: %s", verb, err, out)
		}
		layout := paths.New(empty)
		for _, dir := range []string{layout.VersionsDir(), layout.StateDir(), layout.RunDir(), layout.LogDir()} {
			if _, err := os.Lstat(dir); verb == "uninstall" && err == nil {
				t.Errorf("uninstall leaves %s", dir)
			}
		}
	}
}

func TestNoListenerByDefault(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.enable(oldVersion, m.settings(nil))
	inodes := map[string]bool{}
	for _, pid := range processesOf(t, m.root) {
		fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		if err != nil {
			t.Fatal(err)
		}
		for _, fd := range fds {
			if target, err := os.Readlink(fd); err == nil {
				if inode, ok := strings.CutPrefix(target, "socket:["); ok {
					inodes[strings.TrimSuffix(inode, "]")] = true
				}
			}
		}
	}
	if len(inodes) == 0 {
		t.Fatal("the agent has no socket at all: this test looks in the wrong place")
	}
	for file, waiting := range map[string]string{"tcp": "0A", "tcp6": "0A", "udp": "07", "udp6": "07"} {
		data, err := os.ReadFile("/proc/net/" + file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(data)) {
			fields := strings.Fields(line)
			if len(fields) > 9 && fields[3] == waiting && inodes[fields[9]] {
				t.Errorf("the agent listens: %s %s", file, fields[1])
			}
		}
	}
}

// Killed at any of its system calls, with new settings before it, a command
// leaves what the next one puts right, and no line is lost.
func TestCommandsSurviveBeingKilled(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.enable(oldVersion, m.settings(nil))
	written := 0
	for _, verb := range []string{"install", "enable", "update", "disable"} {
		m.killing(verb, func(kill func() bool) bool {
			settings := m.settings(func(pub, _ map[string]any) { pub["diskQuotaInMB"] = 100 + written })
			if err := m.guest.Offer(settings); err != nil {
				t.Fatal(err)
			}
			killed := kill()
			m.appendLines(written+1, written+5)
			written += 5
			m.enable(oldVersion, settings)
			m.wantLines(written)
			if got := m.health().Spool.Budget; got != int64(100+written-5)<<20 {
				t.Errorf("%s: the settings in force have a budget of %d", verb, got)
			}
			return killed
		})
	}
}

// An uninstall that was killed can be repeated, leaves nothing then, and what
// is installed afterwards works.
func TestUninstallSurvivesBeingKilled(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	written := 0
	m.killing("uninstall", func(kill func() bool) bool {
		if err := os.Remove(m.logFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		m.enable(oldVersion, m.settings(nil))
		m.appendLines(written+1, written+5)
		written += 5
		m.wantLines(written)
		killed := kill()
		if _, err := m.guest.Uninstall(); err != nil {
			t.Fatal(err)
		}
		m.wantNothing()
		return killed
	})
}

// killing calls try for the first to third call of each kind of system call. The
// kill that it hands over runs the installed handler's command with a SIGKILL
// at that call, and reports whether the command made it.
func (m *machine) killing(verb string, try func(kill func() bool) bool) {
	m.Helper()
	const strace = "/usr/bin/strace"
	if _, err := os.Stat(strace); err != nil {
		m.Fatalf("this test kills at chosen system calls: install the package strace (%v)", err)
	}
	killed := 0
	for _, call := range []string{"renameat", "fsync", "fchmod,fchmodat", "mkdirat", "unlinkat", "write"} {
		for n := 1; n <= 3; n++ {
			if try(func() bool { return m.kill(strace, verb, call, n) }) {
				killed++
			}
		}
	}
	if killed < 3 {
		m.Errorf("%s was killed %d times only: this test looks in the wrong places", verb, killed)
	}
}

func (m *machine) kill(strace, verb, call string, n int) bool {
	m.Helper()
	dir := m.guest.HandlerDir(oldVersion)
	cmd := exec.Command(strace, "-f", "-qq", "-b", "execve", "-o", os.DevNull, "-e", "trace="+call, "-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", call, n),
		filepath.Join(dir, "bin", "log-analytics-agent-linux-"+runtime.GOARCH), verb)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=/usr/bin:/bin", paths.EnvRoot + "=" + m.root, "AZURE_GUEST_AGENT_EXTENSION_PATH=" + dir, "ConfigSequenceNumber=" + strconv.Itoa(m.guest.Sequence())}
	out, err := cmd.CombinedOutput()
	var ended *exec.ExitError
	if err == nil {
		return false // the command does not make so many of these calls
	}
	if !errors.As(err, &ended) || ended.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		m.Errorf("%s, to be killed at %s %d, ended otherwise: %v: %s", verb, call, n, err, out)
	}
	return true
}

// wantNothing holds that no folder and no process of the product is left.
func (m *machine) wantNothing() {
	m.Helper()
	for _, dir := range []string{m.layout.VersionsDir(), m.layout.StateDir(), m.layout.RunDir(), m.layout.LogDir()} {
		if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
			m.Errorf("%s is left (%v)", dir, err)
		}
	}
	wantNoProcess(m.T, m.root)
}
