package fakeguest

import (
	"errors"
	"fmt"
	"io"
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
	// Output is what the guest agent shows: the beginning of what was printed,
	// first as output and then as error.
	Output   string
	TimedOut bool // it was killed
	Took     time.Duration
}

func (r Run) Error() string {
	what := fmt.Sprintf("exit code %d", r.ExitCode)
	if r.TimedOut {
		what = fmt.Sprintf("killed after %v", r.Took.Round(time.Second))
	}
	return fmt.Sprintf("%s of %s: %s: %s", r.Command, r.Version, what, strings.TrimSpace(r.Output))
}

// run runs a command of HandlerManifest.json as the guest agent does: by the
// shell, in the handler's folder, in a session of its own, with its output in
// files. When its time is over, the process group is killed, without a warning.
// An exit code is no error.
func (g *Guest) run(version, verb string, seq int, env ...string) (Run, error) {
	r := Run{Command: verb, Version: version}
	dir := g.HandlerDir(version)
	manifest, err := readManifest(dir)
	if err != nil {
		return r, err
	}
	command, err := manifest.command(verb)
	if err != nil {
		return r, err
	}
	var files [2]*os.File
	for i := range files {
		if files[i], err = unlinked(dir); err != nil {
			return r, fmt.Errorf("run %s: %w", verb, err)
		}
		defer func() { _ = files[i].Close() }() // read before
	}
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
	cmd.Stdout, cmd.Stderr = files[0], files[1]
	ownSession(cmd)
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return r, fmt.Errorf("run %s: %w", verb, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err = <-ended:
	case <-time.After(g.limit(verb)):
		r.TimedOut = true
		err = errors.Join(killGroup(cmd), <-ended)
	}
	r.Took = time.Since(began)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return r, fmt.Errorf("run %s: %w", verb, err)
	}
	r.ExitCode = cmd.ProcessState.ExitCode() // -1 when a signal ended it
	for _, file := range files {
		text, err := io.ReadAll(io.NewSectionReader(file, 0, outputLimit))
		if err != nil {
			return r, fmt.Errorf("run %s: %w", verb, err)
		}
		r.Output += string(text)
	}
	g.o.Log(fmt.Sprintf("%-9s %s  exit code %d  %.1f s", verb, version, r.ExitCode, r.Took.Seconds()))
	return r, nil
}

// outputLimit is what the guest agent reads of each kind of output, in bytes.
const outputLimit = 3200

// unlinked makes a file that has no name any more, as the guest agent does: what
// a command leaves running goes on writing to it and keeps nobody waiting.
func unlinked(dir string) (*os.File, error) {
	file, err := os.CreateTemp(dir, ".output-")
	if err != nil {
		return nil, err
	}
	return file, os.Remove(file.Name())
}

func (g *Guest) limit(verb string) time.Duration {
	if limit, ok := g.o.Limits[verb]; ok {
		return limit
	}
	if verb == "enable" || verb == "uninstall" {
		return 300 * time.Second
	}
	return 900 * time.Second
}
