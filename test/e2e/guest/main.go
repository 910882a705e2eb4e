// Command guest lets the real Azure Linux guest agent drive the real package:
// two versions of it are installed, configured, updated, downgraded and
// removed, with the guest agent and the machine restarted in between, while
// numbered lines and syslog messages are written all the time. Every one of
// them has to arrive in the workspace emulator.
//
// The guest agent comes with a harness that plays Azure's side (GUEST_HARNESS).
// It needs root.
package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/google/uuid"

	"github.com/openloganalytics/agent/internal/product"
	"github.com/openloganalytics/agent/test/emulator"
)

// inside is the work folder as the sandbox sees it.
const inside = "/e2e"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e-guest:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) > 0 {
		switch args[0] {
		case "write":
			return write(ctx)
		case "check":
			return check(ctx)
		}
	}
	flags := flag.NewFlagSet("guest", flag.ContinueOnError)
	only := flags.String("only", "", "none or systemd: one of the runs")
	if err := flags.Parse(args); err != nil {
		return err
	}
	harness, err := findHarness()
	if err != nil {
		return err
	}
	for _, r := range []struct {
		name string
		args []string
	}{
		{"none", []string{"--init", "none"}},
		{"systemd", []string{"--init", "systemd"}},
	} {
		if *only != "" && *only != r.name {
			continue
		}
		fmt.Printf("\n=== the guest agent with --init %s\n", r.name)
		if err := drive(ctx, harness, r.name, r.args); err != nil {
			return fmt.Errorf("--init %s: %w", r.name, err)
		}
	}
	return nil
}

// findHarness returns the absolute path of the harness.
func findHarness() (string, error) {
	dir := os.Getenv("GUEST_HARNESS")
	if dir == "" {
		dir = filepath.Join("..", "shared", "harness", "waagent")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(filepath.Join(dir, "run.sh")); err != nil {
		return "", fmt.Errorf("no guest-agent harness in %s: set GUEST_HARNESS to the folder that holds its run.sh", dir)
	}
	if os.Geteuid() != 0 {
		return "", errors.New("the harness makes namespaces and mounts: run it as root")
	}
	return dir, nil
}

const (
	oldVersion = "1.0.0"
	newVersion = "1.1.0"
	domain     = "opinsights.azure.com" // the default: no setting names it
	table      = "E2E_CL"
	service    = "127.0.0.3"
)

// drive runs the harness once and judges what arrived.
func drive(ctx context.Context, harness, name string, args []string) error {
	work, err := filepath.Abs(filepath.Join("build", "e2e", name))
	if err != nil {
		return err
	}
	if err := os.RemoveAll(work); err != nil {
		return err
	}
	ws, err := prepare(ctx, work)
	if err != nil {
		return err
	}
	settings, err := writeSettings(work, ws)
	if err != nil {
		return err
	}
	handlerName := product.Publisher + "." + product.TypeLinux
	args = append([]string{
		"--name", handlerName,
		"--package", oldVersion + "=" + filepath.Join("build", handlerName+"-"+oldVersion+".zip"),
		"--package", newVersion + "=" + filepath.Join("build", handlerName+"-"+newVersion+".zip"),
		"--steps", "install,reenable,settings,rotate,badsecret,settings,restart,reboot,update,downgrade,uninstall",
		"--survive-restart", "--timeout", "900",
		"--bind", work + ":" + inside,
		"--trust", filepath.Join(work, "emulator", "ca.pem"),
		"--host", ws.ID + ".oms." + domain + "=" + service,
		"--host", ws.ID + ".ods." + domain + "=" + service,
		"--sidecar", inside + "/workspace-emulator -dir " + inside + "/emulator -domain " + domain +
			" -listen " + service + ":443 -gateway '' -api 127.0.0.1:8088",
		"--wait-port", service + ":443",
		"--sidecar", inside + "/guest write",
		"--check", inside + "/guest check",
		"--out", filepath.Join(work, "out"),
	}, append(args, settings...)...)
	cmd := exec.CommandContext(ctx, filepath.Join(harness, "run.sh"), args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run the guest agent: %w; what it left is in %s", err, filepath.Join(work, "out"))
	}
	return judge(work)
}

// prepare makes the work folder: both packages, the programs that run in the
// sandbox, the emulator's workspace and authority.
func prepare(ctx context.Context, work string) (emulator.Workspace, error) {
	var ws emulator.Workspace
	if err := os.MkdirAll(filepath.Join(work, "emulator"), 0o755); err != nil {
		return ws, err
	}
	for _, args := range [][]string{
		{"make", "-s", "package", "VERSION=" + oldVersion},
		{"make", "-s", "package", "VERSION=" + newVersion},
		{"go", "build", "-o", filepath.Join(work, "workspace-emulator"), "./test/emulator/cmd/workspace-emulator"},
		{"go", "build", "-o", filepath.Join(work, "guest"), "./test/e2e/guest"},
	} {
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err := cmd.Run(); err != nil {
			return ws, fmt.Errorf("%s: %w", strings.Join(args, " "), err)
		}
	}
	ws = emulator.Workspace{ID: uuid.NewString(), Keys: []string{newKey(), newKey()}}
	data, err := json.Marshal(ws)
	if err != nil {
		return ws, err
	}
	dir := filepath.Join(work, "emulator")
	if err := os.WriteFile(filepath.Join(dir, "workspace.json"), data, 0o600); err != nil {
		return ws, err
	}
	// The authority is made now, so that the sandbox can trust it.
	e, err := emulator.New(emulator.Options{Dir: dir, Workspaces: []emulator.Workspace{ws}, Domain: domain})
	if err != nil {
		return ws, err
	}
	ca, err := os.ReadFile(e.CAFile())
	if err != nil {
		return ws, err
	}
	return ws, os.WriteFile(filepath.Join(dir, "ca.pem"), ca, 0o644)
}

func newKey() string {
	key := make([]byte, 64)
	rand.Read(key)
	return base64.StdEncoding.EncodeToString(key)
}

// writeSettings returns the harness's arguments for the settings before and
// after the step "settings", which also changes the key. They travel in files:
// a command line is public.
func writeSettings(work string, ws emulator.Workspace) ([]string, error) {
	source := func(sampling int) map[string]any {
		return map[string]any{
			"workspaceId": ws.ID,
			"dataSources": map[string]any{
				"syslog":              []any{map[string]any{"name": "all", "streams": []string{"Microsoft-Syslog"}, "facilityNames": []string{"*"}, "logLevels": []string{"*"}}},
				"performanceCounters": []any{map[string]any{"name": "few", "streams": []string{"Microsoft-Perf"}, "samplingFrequencyInSeconds": sampling, "counterSpecifiers": []string{"Processor(_Total)\\% Processor Time", "Memory(*)\\% Used Memory"}}},
				"logFiles":            []any{map[string]any{"name": "app", "streams": []string{"Custom-" + table}, "filePatterns": []string{logDir + "/*.log"}, "format": "text", "fromStart": true}},
			},
		}
	}
	var args []string
	for _, s := range []struct {
		flag, file string
		value      any
	}{
		{"--public", "public.json", source(5)},
		{"--protected", "protected.json", map[string]any{"workspaceKey": ws.Keys[0]}},
		{"--public2", "public2.json", source(2)},
		{"--protected2", "protected2.json", map[string]any{"workspaceKey": ws.Keys[1]}},
	} {
		data, err := json.Marshal(s.value)
		if err != nil {
			return nil, err
		}
		path := filepath.Join(work, s.file)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			return nil, err
		}
		args = append(args, s.flag, "@"+path)
	}
	return args, nil
}
