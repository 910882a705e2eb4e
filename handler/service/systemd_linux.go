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

// programTimeout bounds one program. It is longer than a restart by systemd may
// take: TimeoutStopSec and TimeoutStartSec of the agent's unit.
const programTimeout = 100 * time.Second

// runProgram runs a program that lies in one of the system's own folders, with
// nothing of our environment.
func runProgram(ctx context.Context, name string, args ...string) (string, error) {
	path, err := findProgram(name)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, programTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...) //nolint:gosec // a fixed program with arguments of our making
	cmd.Env = append(cleanEnv(), "TZ=UTC")         // times in what it prints
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
	version, err := s.version(ctx)
	if err != nil {
		return false, err
	}
	u.User, u.Group = system().unitName(u.User), system().unitName(u.Group)
	files := unitFiles(u, version)
	if err := atomicfile.Clean(s.dir, u.Name, 0); err != nil {
		return false, err
	}
	stale, err := s.stale(files)
	if err != nil || len(stale) == 0 {
		return false, err
	}
	for _, name := range stale {
		if err := atomicfile.Write(filepath.Join(s.dir, name), []byte(files[name]), 0o644); err != nil {
			return false, fmt.Errorf("write unit: %w", err)
		}
	}
	_, err = s.run(ctx, "systemctl", "daemon-reload")
	return true, err
}

// stale lists the unit files that are missing or different. One that is not
// ours is an error, before anything is written.
func (s *systemd) stale(files map[string]string) ([]string, error) {
	var stale []string
	for _, name := range slices.Sorted(maps.Keys(files)) {
		path := filepath.Join(s.dir, name)
		now, err := os.ReadFile(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, fmt.Errorf("read unit: %w", err)
		case string(now) == files[name]:
			continue
		case !strings.HasPrefix(string(now), marker):
			return nil, fmt.Errorf("write unit %s: the file is not ours; rename or remove it", path)
		}
		stale = append(stale, name)
	}
	return stale, nil
}

// version asks for the version of systemd, such as 252.
func (s *systemd) version(ctx context.Context) (int, error) {
	out, err := s.run(ctx, "systemctl", "--version")
	if err != nil {
		return 0, err
	}
	// systemd 252 (252.38-1~deb12u1)
	fields := strings.Fields(out)
	if len(fields) < 2 || fields[0] != "systemd" {
		return 0, fmt.Errorf("ask for the version of systemd: systemctl says %q", firstLine(out))
	}
	number, _, _ := strings.Cut(fields[1], ".")
	version, err := strconv.Atoi(number)
	if err != nil {
		return 0, fmt.Errorf("ask for the version of systemd: %w", err)
	}
	return version, nil
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

// present returns those of the units that have a file of ours.
func (s *systemd) present(names ...string) []string {
	return slices.DeleteFunc(names, func(name string) bool {
		text, err := os.ReadFile(filepath.Join(s.dir, name))
		return err != nil || !strings.HasPrefix(string(text), marker)
	})
}

func (s *systemd) Remove(ctx context.Context, u Unit) error {
	errs := []error{s.Stop(ctx, u), atomicfile.Clean(s.dir, u.Name, 0)}
	if units := s.present(u.Name+"-report.service", sliceOf(u)); len(units) > 0 {
		_, err := s.run(ctx, "systemctl", append([]string{"stop"}, units...)...)
		errs = append(errs, err)
	}
	files := s.present(slices.Sorted(maps.Keys(unitFiles(u, 0)))...)
	for _, name := range files {
		if err := os.Remove(filepath.Join(s.dir, name)); err != nil {
			errs = append(errs, fmt.Errorf("remove unit: %w", err))
		}
	}
	if len(files) > 0 {
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
			if t, err := time.Parse("Mon 2006-01-02 15:04:05 MST", value); err == nil {
				state.Since = t
			}
		}
	}
	return state
}
