package service

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func testUnit() Unit {
	return Unit{
		Name: "log-analytics-agent", Binary: "/opt/log-analytics-agent/current/log-analytics-agent",
		User: "log-analytics-agent", Group: "log-analytics-agent", Groups: []string{"adm", "systemd-journal"},
		StateDir: "/var/lib/log-analytics-agent/agent", RunDir: "/run/log-analytics-agent", LogDir: "/var/log/log-analytics-agent/agent",
		ReadDir: "/var/lib/log-analytics-agent/config", HandlerDir: "/var/lib/waagent/P.T-1.0.0",
		CPUPercent: 20, MemoryMB: 256, ReadAll: true, PrivateTmp: true, ProtectHome: true,
	}
}

// systemd itself says how exposed the units are, and whether it understands
// them.
func TestUnitsAreHardened(t *testing.T) {
	const analyze = "/usr/bin/systemd-analyze"
	if _, err := os.Stat(analyze); err != nil {
		t.Fatalf("this test asks systemd about the units: install the package systemd (%v)", err)
	}
	dir := t.TempDir()
	u := testUnit()
	u.BindLow = true // with all that settings can add
	for name, text := range unitFiles(u, 252) {
		// The programs do not exist here; whether they do is not the question.
		text = strings.ReplaceAll(text, "/opt/log-analytics-agent/current/log-analytics-agent", "/bin/true")
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	level := regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`)
	for _, unit := range []string{"log-analytics-agent.service", "log-analytics-agent-report.service"} {
		path := filepath.Join(dir, unit)
		out, err := exec.Command(analyze, "security", "--offline=true", "--no-pager", path).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		m := level.FindSubmatch(out)
		if m == nil {
			t.Fatalf("systemd-analyze does not tell the exposure: %s", out)
		}
		if exposure, err := strconv.ParseFloat(string(m[1]), 64); err != nil || exposure > 2.0 {
			t.Errorf("%s is exposed by %s, want at most 2.0:\n%s", unit, m[1], out)
		}
	}
	cmd := exec.Command(analyze, "verify", "--man=no", filepath.Join(dir, "log-analytics-agent.service"), filepath.Join(dir, "log-analytics-agent-report.path"))
	cmd.Env = append(os.Environ(), "SYSTEMD_UNIT_PATH="+dir+":/usr/lib/systemd/system")
	if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), dir) {
		t.Errorf("systemd does not take the units: %v: %s", err, out)
	}
}

var update = flag.Bool("update", false, "write the golden files anew")

// The units, word for word, for an old, a usual and a new systemd.
func TestUnitFiles(t *testing.T) {
	for _, version := range []int{219, 252, 257} {
		files := unitFiles(testUnit(), version)
		var got strings.Builder
		for _, name := range slices.Sorted(maps.Keys(files)) {
			fmt.Fprintf(&got, "-- %s --\n%s", name, files[name])
		}
		golden := filepath.Join("testdata", fmt.Sprintf("units-%d.txt", version))
		if *update {
			if err := os.WriteFile(golden, []byte(got.String()), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got.String()); diff != "" {
			t.Errorf("systemd %d (-want +got; -update writes %s):\n%s", version, golden, diff)
		}
	}
}

func TestVersionOfSystemd(t *testing.T) {
	for out, want := range map[string]int{
		"systemd 252 (252.38-1~deb12u1)\n+PAM": 252,
		"systemd 219\n+PAM":                    219,
		"systemd 257.4-1 (x)\n":                257,
		"systemd x\n":                          0,
		"":                                     0,
	} {
		s := &systemd{run: func(context.Context, string, ...string) (string, error) { return out, nil }}
		got, err := s.version(t.Context())
		if got != want || (err == nil) != (want > 0) {
			t.Errorf("version of %q = %d, %v; want %d", out, got, err, want)
		}
	}
}

// Azure's DNS server shares its address with the guest agent's wire server.
func TestAgentReachesAzuresDNS(t *testing.T) {
	for name, text := range unitFiles(testUnit(), 252) {
		if strings.Contains(text, "168.63.129.16") {
			t.Errorf("%s cuts the agent off from DNS:\n%s", name, text)
		}
	}
}

func TestUnitFollowsSettings(t *testing.T) {
	u := testUnit()
	has := func(text string, lines ...string) {
		t.Helper()
		for _, line := range lines {
			if !strings.Contains(text, "\n"+line+"\n") {
				t.Errorf("the unit lacks %q", line)
			}
		}
	}
	files := unitFiles(u, 252)
	has(files["log-analytics-agent.service"],
		"Type=notify", "WatchdogSec=60", "User=log-analytics-agent", "SupplementaryGroups=adm systemd-journal", "Slice=loganalyticsagent.slice",
		"AmbientCapabilities=CAP_DAC_READ_SEARCH", "CapabilityBoundingSet=CAP_DAC_READ_SEARCH", "PrivateTmp=yes", "ProtectHome=yes",
		"ReadWritePaths=-/var/lib/log-analytics-agent/agent -/var/log/log-analytics-agent/agent", "Environment=GOMEMLIMIT=217MiB")
	has(files["loganalyticsagent.slice"], "CPUQuota=20%", "CPUWeight=20", "MemoryHigh=243M", "MemoryMax=256M")
	has(files["log-analytics-agent-report.path"],
		"PathChanged=/var/lib/log-analytics-agent/agent/health.json", "PathChanged=/var/lib/log-analytics-agent/handler/agent-ended.json")
	has(files["log-analytics-agent-report.service"], "ReadWritePaths=/var/lib/log-analytics-agent/handler -/var/lib/waagent/P.T-1.0.0")

	u.ReadAll, u.PrivateTmp, u.ProtectHome, u.Groups = false, false, false, nil
	text := unitFiles(u, 252)["log-analytics-agent.service"]
	has(text, "CapabilityBoundingSet=", "PrivateTmp=no", "ProtectHome=read-only")
	if strings.Contains(text, "CAP_") || strings.Contains(text, "SupplementaryGroups") {
		t.Error("the unit has rights that nothing asks for")
	}
	u.BindLow = true
	has(unitFiles(u, 252)["log-analytics-agent.service"], "AmbientCapabilities=CAP_NET_BIND_SERVICE", "CapabilityBoundingSet=CAP_NET_BIND_SERVICE")
	u.ReadAll = true
	has(unitFiles(u, 252)["log-analytics-agent.service"], "AmbientCapabilities=CAP_DAC_READ_SEARCH CAP_NET_BIND_SERVICE", "CapabilityBoundingSet=CAP_DAC_READ_SEARCH CAP_NET_BIND_SERVICE")
	for name, text := range files {
		if !strings.HasPrefix(text, marker+"\n") {
			t.Errorf("%s does not begin with our mark", name)
		}
	}
}

// recorded is a systemd whose programs are written down instead of run.
func recorded(t *testing.T, fail string) (*systemd, *[]string) {
	t.Helper()
	var calls []string
	return &systemd{dir: t.TempDir(), run: func(_ context.Context, name string, args ...string) (string, error) {
		call := name + " " + strings.Join(args, " ")
		calls = append(calls, call)
		if call == "systemctl --version" {
			return "systemd 252 (252.38-1~deb12u1)\n+PAM +AUDIT\n", nil
		}
		if fail != "" && strings.Contains(call, fail) {
			return "", errors.New("it fails")
		}
		return "", nil
	}}, &calls
}

func TestSystemdLife(t *testing.T) {
	s, calls := recorded(t, "")
	u := testUnit()
	for _, step := range []func() error{
		func() error { _, err := s.Install(t.Context(), u); return err },
		func() error { _, err := s.Install(t.Context(), u); return err }, // nothing new
		func() error { return s.Start(t.Context(), u) },
		func() error { return s.Restart(t.Context(), u) },
		func() error { return s.Stop(t.Context(), u) },
		func() error { return s.Remove(t.Context(), u) },
		func() error { return s.Remove(t.Context(), u) }, // nothing left
		func() error { return s.Stop(t.Context(), u) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	const service, path = "log-analytics-agent.service", "log-analytics-agent-report.path"
	want := []string{
		"systemctl --version",
		"systemctl daemon-reload",
		"systemctl --version",
		fmt.Sprintf("systemctl enable --now %s %s", service, path),
		fmt.Sprintf("systemctl enable %s %s", service, path),
		fmt.Sprintf("systemctl restart %s %s", service, path),
		fmt.Sprintf("systemctl disable --now %s %s", service, path),
		fmt.Sprintf("systemctl disable --now %s %s", service, path),
		"systemctl stop log-analytics-agent-report.service loganalyticsagent.slice",
		"systemctl daemon-reload",
		"systemctl reset-failed log-analytics-agent.service log-analytics-agent-report.service",
	}
	if diff := cmp.Diff(want, *calls); diff != "" {
		t.Error(diff)
	}
	if left, err := os.ReadDir(s.dir); err != nil || len(left) > 0 {
		t.Errorf("unit files are left: %v, %v", left, err)
	}
}

func TestChangedUnitIsInstalledAgain(t *testing.T) {
	s, _ := recorded(t, "")
	u := testUnit()
	for i, want := range []bool{true, false} {
		if changed, err := s.Install(t.Context(), u); err != nil || changed != want {
			t.Errorf("install %d: changed %v, %v", i, changed, err)
		}
	}
	u.MemoryMB = 512
	if changed, err := s.Install(t.Context(), u); err != nil || !changed {
		t.Errorf("another ceiling: changed %v, %v", changed, err)
	}
}

func TestUnitOfSomebodyElseStays(t *testing.T) {
	s, calls := recorded(t, "")
	path := filepath.Join(s.dir, "log-analytics-agent.service")
	if err := os.WriteFile(path, []byte("[Service]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Install(t.Context(), testUnit()); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v, want an error that names the file", err)
	}
	*calls = nil
	if err := errors.Join(s.Stop(t.Context(), testUnit()), s.Remove(t.Context(), testUnit())); err != nil {
		t.Error(err)
	}
	if len(*calls) > 0 {
		t.Errorf("somebody else's unit was touched: %q", *calls)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the file is gone: %v", err)
	}
}

func TestRemoveGoesOnWhenStopFails(t *testing.T) {
	s, _ := recorded(t, "disable")
	if _, err := s.Install(t.Context(), testUnit()); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context(), testUnit()); err == nil {
		t.Error("a stop that failed was not told")
	}
	if left, err := os.ReadDir(s.dir); err != nil || len(left) > 0 {
		t.Errorf("unit files are left: %v, %v", left, err)
	}
}

func TestParseShow(t *testing.T) {
	got := parseShow("ActiveState=active\nMainPID=42\nNRestarts=3\nControlGroup=/loganalyticsagent.slice/x.service\nExecMainStartTimestamp=Tue 2026-11-24 11:00:00 UTC\n")
	if !got.Running || got.PID != 42 || got.Restarts != 3 || got.Group != "/loganalyticsagent.slice/x.service" || got.Since.IsZero() {
		t.Errorf("got %+v", got)
	}
	if got := parseShow("ActiveState=failed\nMainPID=0\n"); got.Running || got.PID != 0 {
		t.Errorf("got %+v", got)
	}
}
