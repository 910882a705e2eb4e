package service

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/openloganalytics/agent/internal/atomicfile"
)

// A runner runs one program to its end and returns what it printed.
type runner func(ctx context.Context, name string, args ...string) (string, error)

// systemd manages the service with systemctl.
type systemd struct {
	dir string // of unit files
	run runner
}

func newSystemd() *systemd { return &systemd{dir: "/etc/systemd/system", run: runProgram} }

// systemctlTimeout bounds one call; stopping waits for the agent's own end.
const systemctlTimeout = 60 * time.Second

// runProgram runs a program that lies in one of the system's own folders, with
// nothing of our environment.
func runProgram(ctx context.Context, name string, args ...string) (string, error) {
	path, err := findProgram(name)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, systemctlTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...) //nolint:gosec // a fixed program with arguments of our making
	cmd.Env = cleanEnv()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, firstLine(out.String()))
	}
	return out.String(), nil
}

// findProgram looks in fixed folders: PATH is not asked.
func findProgram(name string) (string, error) {
	for _, dir := range []string{"/usr/bin", "/bin", "/usr/sbin", "/sbin"} {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path, nil
		}
	}
	return "", fmt.Errorf("find %s: %w", name, fs.ErrNotExist)
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	if len(line) > 300 {
		line = line[:300]
	}
	return line
}

func (s *systemd) Kind() string { return "systemd" }

func (s *systemd) Install(ctx context.Context, u Unit) (changed bool, err error) {
	files := unitFiles(u)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		path := filepath.Join(s.dir, name)
		now, err := os.ReadFile(path)
		switch {
		case err == nil && string(now) == files[name]:
			continue
		case err == nil && !strings.HasPrefix(string(now), marker):
			return false, fmt.Errorf("write unit %s: the file is not ours; rename or remove it", path)
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return false, fmt.Errorf("read unit: %w", err)
		}
		if err := atomicfile.Write(path, []byte(files[name]), 0o644); err != nil {
			return false, fmt.Errorf("write unit: %w", err)
		}
		changed = true
	}
	if !changed {
		return false, nil
	}
	_, err = s.run(ctx, "systemctl", "daemon-reload")
	return true, err
}

func (s *systemd) Start(ctx context.Context, u Unit) error {
	_, err := s.run(ctx, "systemctl", "enable", "--now", u.Name+".service", u.Name+"-report.path")
	return err
}

func (s *systemd) Restart(ctx context.Context, u Unit) error {
	if _, err := s.run(ctx, "systemctl", "enable", u.Name+".service", u.Name+"-report.path"); err != nil {
		return err
	}
	if _, err := s.run(ctx, "systemctl", "restart", u.Name+".service", u.Name+"-report.path"); err != nil {
		return err
	}
	return nil
}

func (s *systemd) Stop(ctx context.Context, u Unit) error {
	units := s.present(u.Name+".service", u.Name+"-report.path")
	if len(units) == 0 {
		return nil
	}
	// The report may be the one that asks for the stop, so it is left to end
	// by itself.
	_, err := s.run(ctx, "systemctl", append([]string{"disable", "--now"}, units...)...)
	return err
}

// present returns those of the units that have a file.
func (s *systemd) present(names ...string) []string {
	return slices.DeleteFunc(names, func(name string) bool {
		_, err := os.Lstat(filepath.Join(s.dir, name))
		return err != nil
	})
}

func (s *systemd) Remove(ctx context.Context, u Unit) error {
	errs := []error{s.Stop(ctx, u)}
	if units := s.present(u.Name+"-report.service", sliceOf(u)); len(units) > 0 {
		_, err := s.run(ctx, "systemctl", append([]string{"stop"}, units...)...)
		errs = append(errs, err)
	}
	removed := false
	for _, name := range slices.Sorted(maps.Keys(unitFiles(u))) {
		path := filepath.Join(s.dir, name)
		now, err := os.ReadFile(path)
		if err != nil || !strings.HasPrefix(string(now), marker) {
			continue
		}
		if err := os.Remove(path); err != nil {
			errs = append(errs, fmt.Errorf("remove unit: %w", err))
		}
		removed = true
	}
	if removed {
		_, err := s.run(ctx, "systemctl", "daemon-reload")
		errs = append(errs, err)
		// It fails when no unit of ours had failed, which is as well.
		_, _ = s.run(ctx, "systemctl", "reset-failed", u.Name+".service", u.Name+"-report.service")
	}
	return errors.Join(errs...)
}

func (s *systemd) Status(ctx context.Context, u Unit) (State, error) {
	if len(s.present(u.Name+".service")) == 0 {
		return State{}, nil
	}
	out, err := s.run(ctx, "systemctl", "show", "-p", "ActiveState,MainPID,NRestarts,ControlGroup,ExecMainStartTimestamp", u.Name+".service")
	if err != nil {
		return State{}, err
	}
	return parseShow(out), nil
}

// parseShow reads systemctl's key=value lines. What is missing stays zero.
func parseShow(out string) State {
	var state State
	for line := range strings.Lines(out) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		number, _ := strconv.Atoi(value) // not every value is a number
		switch key {
		case "ActiveState":
			state.Running = value == "active" || value == "activating" || value == "reloading"
		case "MainPID":
			state.PID = number
		case "NRestarts":
			state.Restarts = number
		case "ControlGroup":
			state.Group = value
		case "ExecMainStartTimestamp":
			if t, err := time.ParseInLocation("Mon 2006-01-02 15:04:05 MST", value, time.Local); err == nil {
				state.Since = t
			}
		}
	}
	return state
}
