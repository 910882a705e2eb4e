package fakeguest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A Run is one command that was run. As an error it says that it failed.
type Run struct {
	Command  string // install
	Version  string
	ExitCode int
	Output   string // what it printed
	Took     time.Duration
}

func (r Run) Error() string {
	return fmt.Sprintf("%s of %s: exit code %d: %s", r.Command, r.Version, r.ExitCode, strings.TrimSpace(r.Output))
}

// run runs a command of HandlerManifest.json as the guest agent does: by the
// shell, in the handler's folder, in a session of its own, with its output in
// a file. An exit code is no error.
func (g *Guest) run(version, verb string, seq int, env ...string) (Run, error) {
	r := Run{Command: verb, Version: version}
	dir := g.HandlerDir(version)
	command, err := manifestCommand(dir, verb)
	if err != nil {
		return r, err
	}
	output, err := os.CreateTemp(dir, ".output-")
	if err != nil {
		return r, fmt.Errorf("run %s: %w", verb, err)
	}
	defer func() {
		_ = output.Close()           // read to its end
		_ = os.Remove(output.Name()) // an uninstall may have been faster
	}()
	cmd := exec.Command("/bin/sh", "-c", filepath.Join(dir, command))
	cmd.Dir = dir
	cmd.Env = append([]string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"ConfigSequenceNumber=" + strconv.Itoa(seq),
		"AZURE_GUEST_AGENT_EXTENSION_PATH=" + dir,
		"AZURE_GUEST_AGENT_EXTENSION_VERSION=" + version,
		"AZURE_GUEST_AGENT_WIRE_PROTOCOL_ADDRESS=168.63.129.16",
		`AZURE_GUEST_AGENT_EXTENSION_SUPPORTED_FEATURES=[{"Key":"ExtensionTelemetryPipeline","Value":"1.0"}]`,
	}, append(env, g.o.Env...)...)
	cmd.Stdout, cmd.Stderr = output, output
	ownSession(cmd)
	began := time.Now()
	err = cmd.Run()
	r.Took = time.Since(began)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		r.ExitCode, err = exit.ExitCode(), nil
	}
	if err != nil {
		return r, fmt.Errorf("run %s: %w", verb, err)
	}
	text, err := os.ReadFile(output.Name())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return r, fmt.Errorf("run %s: %w", verb, err)
	}
	r.Output = string(text)
	g.o.Log(fmt.Sprintf("%-9s %s  exit code %d  %.1f s", verb, version, r.ExitCode, r.Took.Seconds()))
	return r, nil
}

func manifestCommand(dir, verb string) (string, error) {
	data, err := os.ReadFile(filepath.Join(dir, "HandlerManifest.json"))
	if err != nil {
		return "", fmt.Errorf("read manifest: %w", err)
	}
	var manifest []struct {
		Commands map[string]any `json:"handlerManifest"`
	}
	if err := json.Unmarshal(data, &manifest); err != nil || len(manifest) == 0 {
		return "", errors.Join(errors.New("read manifest: not an array with an entry"), err)
	}
	command, ok := manifest[0].Commands[verb+"Command"].(string)
	if !ok {
		return "", fmt.Errorf("read manifest: no %sCommand", verb)
	}
	return strings.TrimPrefix(command, "/"), nil
}
