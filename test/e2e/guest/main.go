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
	"archive/zip"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
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
	// brokenVersion is one whose update fails.
	brokenVersion = "1.2.0"
	domain        = "opinsights.azure.com" // the default: no setting names it
	table         = "E2E_CL"
	service       = "127.0.0.3"
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
	scenario, err := writeScenario(work, ws)
	if err != nil {
		return err
	}
	handlerName := product.Publisher + "." + product.TypeLinux
	args = append([]string{
		"--name", handlerName,
		"--package", oldVersion + "=" + filepath.Join("build", handlerName+"-"+oldVersion+".zip"),
		"--package", newVersion + "=" + filepath.Join("build", handlerName+"-"+newVersion+".zip"),
		"--package", brokenVersion + "=" + filepath.Join(work, "broken.zip"),
		"--scenario", scenario,
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
	}, args...)
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
	good := filepath.Join("build", product.Publisher+"."+product.TypeLinux+"-"+newVersion+".zip")
	if err := breakPackage(good, filepath.Join(work, "broken.zip")); err != nil {
		return ws, err
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

// breakPackage writes a package like the good one, in which every command fails
// as one that a machine cannot run does.
func breakPackage(good, broken string) (err error) {
	in, err := zip.OpenReader(good)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // only read
	file, err := os.Create(broken)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	out := zip.NewWriter(file)
	for _, entry := range in.File {
		if !strings.HasPrefix(entry.Name, "bin/") || entry.FileInfo().IsDir() {
			if err := out.Copy(entry); err != nil {
				return err
			}
			continue
		}
		header := entry.FileHeader
		w, err := out.CreateHeader(&zip.FileHeader{Name: header.Name, ExternalAttrs: header.ExternalAttrs, CreatorVersion: header.CreatorVersion})
		if err == nil {
			_, err = io.WriteString(w, "#!/bin/sh\nexit 52\n")
		}
		if err != nil {
			return err
		}
	}
	return out.Close()
}

// brokenUpdate is the step after which nobody collects until the next one.
const brokenUpdate = "broken update"

// writeScenario writes what happens in the machine's life, for the harness. It
// is in a file that only root reads, because a command line is public.
func writeScenario(work string, ws emulator.Workspace) (path string, err error) {
	settings := func(sampling int) map[string]any {
		return map[string]any{
			"workspaceId": ws.ID,
			"dataSources": map[string]any{
				"syslog":              []any{map[string]any{"name": "all", "streams": []string{"Microsoft-Syslog"}, "facilityNames": []string{"*"}, "logLevels": []string{"*"}}},
				"performanceCounters": []any{map[string]any{"name": "few", "streams": []string{"Microsoft-Perf"}, "samplingFrequencyInSeconds": sampling, "counterSpecifiers": []string{"Processor(_Total)\\% Processor Time", "Memory(*)\\% Used Memory"}}},
				"logFiles":            []any{map[string]any{"name": "app", "streams": []string{"Custom-" + table}, "filePatterns": []string{logDir + "/*.log"}, "format": "text", "fromStart": true}},
			},
		}
	}
	key := func(n int) map[string]any { return map[string]any{"workspaceKey": ws.Keys[n]} }
	type step = map[string]any
	runs := func(commands ...string) []string { return commands }
	enabled := runs("enable " + oldVersion)
	secret := step{"action": "enable", "unknown_certificate": true, "expect": "error", "allow_failed_commands": true, "expect_commands": enabled}
	with := func(s step, more step) step {
		s = maps.Clone(s)
		maps.Copy(s, more)
		return s
	}
	steps := []step{
		{"name": "install", "action": "enable", "version": oldVersion, "seq": 0, "public": settings(5), "protected": key(0), "expect_commands": runs("install "+oldVersion, "enable "+oldVersion)},
		{"action": "reenable", "expect_commands": enabled},
		{"name": "settings", "action": "enable", "seq": 1, "public": settings(2), "protected": key(1), "expect_commands": enabled},
		{"name": "rotate", "action": "enable", "seq": 2, "new_certificate": true, "expect_commands": enabled},
		with(secret, step{"name": "bad secret", "seq": 3}),
		// The settings are still the ones that nobody can open: after the boot
		// the agent goes on with those it has.
		with(secret, step{"name": "reboot with a bad secret", "action": "reboot"}),
		{"name": "good settings", "action": "enable", "seq": 4, "public": settings(5), "protected": key(1), "expect_commands": enabled},
		{"action": "restart", "expect_commands": enabled},
		{"action": "reboot", "expect_commands": enabled},
		{"name": "update", "action": "enable", "version": newVersion, "expect_commands": runs("disable "+oldVersion, "update "+newVersion, "uninstall "+oldVersion, "install "+newVersion, "enable "+newVersion)},
		{"name": "downgrade", "action": "enable", "version": oldVersion, "expect_commands": runs("disable "+newVersion, "update "+newVersion, "uninstall "+newVersion, "install "+oldVersion, "enable "+oldVersion)},
		{"name": brokenUpdate, "action": "enable", "version": brokenVersion, "expect": "any", "expect_handler": "NotReady", "allow_failed_commands": true},
		{"name": "back from it", "action": "enable", "version": oldVersion},
		{"action": "uninstall"},
	}
	data, err := json.Marshal(steps)
	if err != nil {
		return "", err
	}
	path = filepath.Join(work, "scenario.json")
	return path, os.WriteFile(path, data, 0o600)
}
