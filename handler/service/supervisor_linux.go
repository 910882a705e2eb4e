package service

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/gofrs/flock"

	"github.com/openloganalytics/agent/internal/atomicfile"
	"github.com/openloganalytics/agent/internal/cgroup"
	"github.com/openloganalytics/agent/internal/paths"
)

// supervisor manages the service on a machine without systemd: a process of
// our own, `supervise`, that nobody's end takes along.
type supervisor struct{ layout paths.Layout }

func newSupervisor(layout paths.Layout) *supervisor { return &supervisor{layout} }

// Files of the supervisor, in the handler's own folder.
const (
	unitFile   = "unit.json"       // the Unit, for the supervisor to obey
	lockFile   = "supervisor.lock" // locked by the supervisor as long as it lives
	pidFile    = "supervisor.json" // who it is and whom it started
	outputFile = "agent-output.log"
)

// processes is the content of pidFile.
type processes struct {
	Supervisor process   `json:"supervisor"`
	Agent      process   `json:"agent"`
	Since      time.Time `json:"since"` // of the agent
	Restarts   int       `json:"restarts"`
}

// A process is told from another with the same number by its start.
type process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks after boot, /proc/<pid>/stat
}

// thisProcess identifies a living process; the zero process when it is none.
func thisProcess(pid int) process {
	start, _, err := readStat(pid)
	if err != nil {
		return process{}
	}
	return process{pid, start}
}

// alive reports whether the process still runs.
func (p process) alive() bool {
	if p.PID <= 0 {
		return false
	}
	start, state, err := readStat(p.PID)
	return err == nil && start == p.Start && state != 'Z' && state != 'X'
}

// readStat returns start time and state of a process.
func readStat(pid int) (start uint64, state byte, err error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, 0, err
	}
	// The name in parentheses may hold anything; what follows is plain.
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(fields) < 20 {
		return 0, 0, fmt.Errorf("read state of process %d: %d fields", pid, len(fields))
	}
	start, err = strconv.ParseUint(fields[19], 10, 64)
	return start, fields[0][0], err
}

// end asks the process to stop, and stops it when it does not within grace.
func (p process) end(grace time.Duration) error {
	for _, step := range []struct {
		signal syscall.Signal
		wait   time.Duration
	}{{syscall.SIGTERM, grace}, {syscall.SIGKILL, 5 * time.Second}} {
		if !p.alive() {
			return nil
		}
		if err := syscall.Kill(p.PID, step.signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("stop process %d: %w", p.PID, err)
		}
		for deadline := time.Now().Add(step.wait); p.alive() && time.Now().Before(deadline); {
			time.Sleep(20 * time.Millisecond)
		}
	}
	if p.alive() {
		return fmt.Errorf("stop process %d: it is still there after being killed", p.PID)
	}
	return nil
}

func (s *supervisor) file(name string) string { return filepath.Join(s.layout.HandlerDir(), name) }

func (s *supervisor) read() processes {
	var p processes
	data, err := atomicfile.ReadLimited(s.file(pidFile), 64<<10)
	if err != nil || json.Unmarshal(data, &p) != nil {
		return processes{}
	}
	return p
}

func (s *supervisor) write(p processes) error {
	data, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return atomicfile.Write(s.file(pidFile), data, 0o600)
}

func (s *supervisor) Kind() string { return "supervisor" }

func (s *supervisor) Install(_ context.Context, u Unit) (changed bool, err error) {
	data, err := json.MarshalIndent(u, "", "  ")
	if err != nil {
		return false, fmt.Errorf("write unit: %w", err)
	}
	now, err := atomicfile.ReadLimited(s.file(unitFile), 64<<10)
	if err == nil && bytes.Equal(now, data) {
		return false, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("read unit: %w", err)
	}
	if err := atomicfile.Write(s.file(unitFile), data, 0o600); err != nil {
		return false, fmt.Errorf("write unit: %w", err)
	}
	return true, nil
}

// startPatience is how long a new supervisor may take to say that it is there.
const startPatience = 30 * time.Second

func (s *supervisor) Start(ctx context.Context, u Unit) error {
	if s.read().Supervisor.alive() {
		return nil
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("start supervisor: %w", err)
	}
	defer func() { _ = null.Close() }() // nothing was written
	// Not CommandContext: it is meant to outlive the command that starts it.
	cmd := exec.Command(u.Binary, "supervise") //nolint:gosec,noctx // our own binary
	cmd.Dir = "/"
	cmd.Env = append(cleanEnv(), s.kept()...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = null, null, null
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start supervisor: %w", err)
	}
	started := thisProcess(cmd.Process.Pid)
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // so that it is no zombie should it end while we are here
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	for s.read().Supervisor != started {
		select {
		case err := <-ended:
			return fmt.Errorf("start supervisor: it ended at once (%w); its log is %s", errors.Join(errors.New("exit"), err), s.file("supervisor.log"))
		case <-ctx.Done():
			return fmt.Errorf("start supervisor: it did not begin within %v; its log is %s", startPatience, s.file("supervisor.log"))
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

// kept is what passes from our environment to that of what we start.
func (s *supervisor) kept() []string {
	var env []string
	if root := s.layout.Root(); root != "" {
		env = append(env, paths.EnvRoot+"="+root)
	}
	if zone := os.Getenv("TZ"); zone != "" {
		env = append(env, "TZ="+zone)
	}
	return env
}

func (s *supervisor) Restart(ctx context.Context, u Unit) error {
	if err := s.Stop(ctx, u); err != nil {
		return err
	}
	return s.Start(ctx, u)
}

func (s *supervisor) Stop(ctx context.Context, u Unit) error {
	// Again for a supervisor that was just starting and had not said yet who
	// it is.
	for range 3 {
		p := s.read()
		// The supervisor ends its agent itself; an agent whose supervisor was
		// killed has to be ended here.
		if err := errors.Join(p.Supervisor.end(agentGrace+5*time.Second), p.Agent.end(agentGrace)); err != nil {
			return err
		}
		if free, err := s.free(ctx); free || err != nil {
			if s.layout.Root() == "" {
				cgroup.Remove(u.Name)
			}
			return err
		}
	}
	return fmt.Errorf("stop supervisor: %s is locked by a process that is not named in %s; find it with fuser and end it", s.file(lockFile), s.file(pidFile))
}

// free reports whether no supervisor holds the lock, after a moment's patience.
func (s *supervisor) free(ctx context.Context) (bool, error) {
	if _, err := os.Lstat(s.file(lockFile)); errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	lock := flock.New(s.file(lockFile))
	defer func() { _ = lock.Close() }() // it was taken to be given back
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	locked, err := lock.TryLockContext(ctx, 10*time.Millisecond)
	if errors.Is(err, context.DeadlineExceeded) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for a supervisor: %w", err)
	}
	return locked, nil
}

func (s *supervisor) Remove(ctx context.Context, u Unit) error {
	if err := s.Stop(ctx, u); err != nil {
		return err
	}
	for _, name := range []string{unitFile, pidFile, lockFile, outputFile, outputFile + ".1"} {
		if err := os.Remove(s.file(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove service: %w", err)
		}
	}
	return nil
}

func (s *supervisor) Status(context.Context, Unit) (State, error) {
	p := s.read()
	state := State{Running: p.Supervisor.alive(), Restarts: p.Restarts}
	if p.Agent.alive() {
		state.PID, state.Since, state.Group = p.Agent.PID, p.Since, controlGroup(p.Agent.PID)
	}
	return state, nil
}

// controlGroup is the last line of a process's control groups: the unified
// hierarchy where there is one.
func controlGroup(pid int) string {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	parts := strings.SplitN(lines[len(lines)-1], ":", 3)
	return parts[len(parts)-1]
}

// cleanEnv is the environment of every process we start: nothing of the guest
// agent's or of a person's leaks into it.
func cleanEnv() []string {
	return []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"}
}
