package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/gofrs/flock"

	"github.com/openloganalytics/agent/internal/atomicfile"
	"github.com/openloganalytics/agent/internal/logfile"
	"github.com/openloganalytics/agent/internal/paths"
)

// SuperviseOptions is what the supervisor needs to know.
type SuperviseOptions struct {
	Layout paths.Layout
	// Report brings the status file up to date; called after each change of the
	// agent's health, one call at a time.
	Report func(context.Context) error
	Log    *logfile.Logger

	timing timing // zero is the real one
}

// timing is what tests shorten.
type timing struct {
	firstRestart, lastRestart time.Duration // back-off, doubled
	steady                    time.Duration // after which the back-off begins anew
	watchdog                  time.Duration // silence after which the agent is hung
	vanished                  time.Duration // between looks at the handler's folder
	lock                      time.Duration // to wait for another supervisor to end
}

func (t *timing) setDefaults() {
	if *t == (timing{}) {
		*t = timing{time.Second, 5 * time.Minute, 5 * time.Minute, time.Minute, time.Minute, 5 * time.Second}
	}
}

// agentGrace is how long the agent may take to stop.
const agentGrace = 15 * time.Second

// errVanished is why the supervisor ends by itself: the guest agent deleted the
// handler without uninstalling it.
var errVanished = errors.New("the handler's folder is gone")

// Supervise keeps the agent running until ctx ends or the handler's folder
// vanishes. One supervisor runs at a time; the agent of one that was killed is
// ended first.
func Supervise(ctx context.Context, o SuperviseOptions) error {
	o.timing.setDefaults()
	s := newSupervisor(o.Layout)
	data, err := atomicfile.ReadLimited(s.file(unitFile), 64<<10)
	if err != nil {
		return fmt.Errorf("read unit: %w", err)
	}
	var u Unit
	if err := json.Unmarshal(data, &u); err != nil {
		return fmt.Errorf("read unit: %w", err)
	}
	lock := flock.New(s.file(lockFile))
	// One that was just killed may hold the lock for a moment longer.
	waiting, cancel := context.WithTimeout(ctx, o.timing.lock)
	defer cancel()
	if _, err := lock.TryLockContext(waiting, 10*time.Millisecond); err != nil {
		return fmt.Errorf("lock %s: another supervisor runs: %w", s.file(lockFile), err)
	}
	defer func() { _ = lock.Close() }() // the lock ends with the process anyway
	if err := s.read().Agent.end(agentGrace); err != nil {
		return err
	}
	w := &watch{o: o, s: s, unit: u, own: thisProcess(os.Getpid())}
	return w.run(ctx)
}

// A watch is a supervisor at work.
type watch struct {
	o        SuperviseOptions
	s        *supervisor
	unit     Unit
	own      process
	restarts int
}

func (w *watch) run(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	reporting := make(chan error, 1)
	go func() { reporting <- w.report(ctx) }()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		w.watchFolder(ctx, stop)
	}()
	wait := w.o.timing.firstRestart
	for {
		started := time.Now()
		err := w.once(ctx)
		if ctx.Err() != nil {
			break
		}
		if time.Since(started) > w.o.timing.steady {
			wait = w.o.timing.firstRestart
		}
		w.restarts++
		w.o.Log.Warn("agent ended and is started again", "reason", err, "wait", wait, "restarts", w.restarts)
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		if ctx.Err() != nil {
			break
		}
		wait = min(2*wait, w.o.timing.lastRestart)
	}
	<-gone
	if err := <-reporting; err != nil {
		w.o.Log.Warn("status was not reported", "error", err)
	}
	if cause := context.Cause(ctx); errors.Is(cause, errVanished) {
		w.o.Log.Warn("the extension was removed without its uninstall; the agent is stopped, its data stays", "folder", w.unit.HandlerDir)
	}
	return w.save(process{})
}

// watchFolder ends everything when the handler's folder is missing at two
// looks in a row: between them an update may put it back.
func (w *watch) watchFolder(ctx context.Context, stop context.CancelCauseFunc) {
	missing := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(w.o.timing.vanished):
		}
		if !Vanished(w.unit) {
			missing = 0
			continue
		}
		if missing++; missing == 2 {
			stop(errVanished)
			return
		}
	}
}

// Vanished reports whether the handler's folder is gone.
func Vanished(u Unit) bool {
	if u.HandlerDir == "" {
		return false
	}
	_, err := os.Stat(u.HandlerDir)
	return errors.Is(err, os.ErrNotExist)
}

// once starts the agent and waits for its end. It ends the agent when ctx does
// or when the agent has been silent for too long.
func (w *watch) once(ctx context.Context) error {
	uid, gid, err := w.account()
	if err != nil {
		return err
	}
	if err := w.runDir(uid, gid); err != nil {
		return err
	}
	notify, err := w.listen(ctx, uid)
	if err != nil {
		return err
	}
	var hearing sync.WaitGroup
	defer hearing.Wait()
	defer func() { _ = notify.Close() }() // only read from
	output, err := os.OpenFile(w.s.file(outputFile), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("open output of the agent: %w", err)
	}
	defer func() { _ = output.Close() }() // the agent writes to it, not we
	// Not CommandContext: the agent gets a signal and time before it is killed.
	cmd := exec.Command(w.unit.Binary, "run") //nolint:gosec,noctx // our own binary
	cmd.Dir = "/"
	cmd.Env = w.environment(notify.LocalAddr().String())
	cmd.Stdout, cmd.Stderr = output, output
	cmd.SysProcAttr, err = w.identity(uid, gid)
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start agent: %w", err)
	}
	agent := thisProcess(cmd.Process.Pid)
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	if err := w.save(agent); err != nil {
		w.o.Log.Warn("cannot keep the agent's number", "error", err)
	}
	preferToDie(cmd.Process.Pid)
	alive := make(chan struct{}, 1)
	hearing.Go(func() { hear(notify, alive) })
	silence := time.NewTimer(w.o.timing.watchdog)
	defer silence.Stop()
	for {
		select {
		case err := <-ended:
			return errors.Join(errors.New("agent ended"), err)
		case <-alive:
			silence.Reset(w.o.timing.watchdog)
		case <-silence.C:
			_ = cmd.Process.Signal(syscall.SIGQUIT) // its stacks go to the output file
			err := errors.Join(agent.end(2*time.Second), <-ended)
			return errors.Join(fmt.Errorf("agent gave no sign of life for %v", w.o.timing.watchdog), err)
		case <-ctx.Done():
			return errors.Join(ctx.Err(), agent.end(agentGrace), <-ended)
		}
	}
}

// save keeps who runs, for the manager and for the next supervisor.
func (w *watch) save(agent process) error {
	own := w.own
	if agent.PID == 0 {
		own = process{}
	}
	data, err := json.Marshal(processes{Supervisor: own, Agent: agent, Since: time.Now().UTC(), Restarts: w.restarts})
	if err != nil {
		return err
	}
	return atomicfile.Write(w.s.file(pidFile), data, 0o600)
}

// account returns the numbers of the unit's user, -1 without one.
func (w *watch) account() (uid, gid int, err error) {
	if w.unit.User == "" {
		return -1, -1, nil
	}
	return lookup(w.unit.User)
}

// runDir makes the folder of sockets anew: a reboot empties /run.
func (w *watch) runDir(uid, gid int) error {
	if err := os.MkdirAll(w.unit.RunDir, 0o755); err != nil {
		return fmt.Errorf("make run folder: %w", err)
	}
	if uid < 0 {
		return nil
	}
	if err := os.Lchown(w.unit.RunDir, uid, gid); err != nil {
		return fmt.Errorf("make run folder: %w", err)
	}
	return nil
}

// listen opens the socket on which the agent tells that it lives. It is the
// agent's to write to, in a folder that the agent cannot change.
func (w *watch) listen(ctx context.Context, uid int) (net.PacketConn, error) {
	path := filepath.Join(w.unit.ReadDir, "notify.sock")
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("open notify socket: %w", err)
	}
	conn, err := (&net.ListenConfig{}).ListenPacket(ctx, "unixgram", path)
	if err != nil {
		return nil, fmt.Errorf("open notify socket: %w", err)
	}
	if uid >= 0 {
		err = os.Lchown(path, uid, -1)
	}
	if err := errors.Join(err, os.Chmod(path, 0o600)); err != nil {
		return nil, errors.Join(fmt.Errorf("open notify socket: %w", err), conn.Close())
	}
	return conn, nil
}

// hear puts something into alive for each sign of life, until conn is closed.
func hear(conn net.PacketConn, alive chan<- struct{}) {
	buf := make([]byte, 4096)
	for {
		if _, _, err := conn.ReadFrom(buf); err != nil {
			return
		}
		select {
		case alive <- struct{}{}:
		default:
		}
	}
}

// environment is the agent's: nothing of ours but what it needs.
func (w *watch) environment(notify string) []string {
	env := append(cleanEnv(), w.s.rootEnv()...)
	env = append(env, "NOTIFY_SOCKET="+notify, "WATCHDOG_USEC="+strconv.FormatInt(w.o.timing.watchdog.Microseconds(), 10))
	if w.unit.MemoryMB > 0 {
		env = append(env, fmt.Sprintf("GOMEMLIMIT=%dMiB", softMemory(w.unit.MemoryMB)))
	}
	return env
}

// identity makes the agent a process group of its own, and the unit's user.
func (w *watch) identity(uid, gid int) (*syscall.SysProcAttr, error) {
	attr := &syscall.SysProcAttr{Setpgid: true}
	if uid < 0 {
		return attr, nil
	}
	attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	for _, name := range w.unit.Groups {
		group, err := user.LookupGroup(name)
		if err != nil {
			return nil, fmt.Errorf("look up group: %w", err)
		}
		id, err := strconv.ParseUint(group.Gid, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("look up group %s: %w", name, err)
		}
		attr.Credential.Groups = append(attr.Credential.Groups, uint32(id))
	}
	if w.unit.ReadAll {
		attr.AmbientCaps = []uintptr{capDacReadSearch}
	}
	return attr, nil
}

// capDacReadSearch is CAP_DAC_READ_SEARCH of linux/capability.h.
const capDacReadSearch = 2

// preferToDie makes the kernel take the agent before others when memory runs
// out. It is a courtesy to the machine: without the right to, nothing is lost.
func preferToDie(pid int) {
	_ = os.WriteFile("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", []byte("500"), 0o600)
}

// report calls o.Report once at the start and after each change of the health
// file, until ctx ends.
func (w *watch) report(ctx context.Context) error {
	events, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch the agent's health: %w", err)
	}
	defer func() { _ = events.Close() }() // nothing is left in it
	if err := events.Add(w.unit.StateDir); err != nil {
		return fmt.Errorf("watch the agent's health: %w", err)
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-events.Errors:
			w.o.Log.Warn("watching the agent's health", "error", err)
		case e := <-events.Events:
			if !strings.HasSuffix(e.Name, "/health.json") || !e.Has(fsnotify.Create|fsnotify.Write) {
				continue
			}
			if err := w.o.Report(ctx); err != nil {
				w.o.Log.Warn("cannot report the agent's health", "error", err)
			}
		}
	}
}
