package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/sys/unix"

	"github.com/openloganalytics/agent/internal/atomicfile"
	"github.com/openloganalytics/agent/internal/cgroup"
	"github.com/openloganalytics/agent/internal/logfile"
	"github.com/openloganalytics/agent/internal/paths"
)

// SuperviseOptions is what the supervisor needs to know.
type SuperviseOptions struct {
	Layout paths.Layout
	// Prepare is called before each start of the agent, and Ended after each
	// end, with what it was, or with nothing when the supervisor itself ends.
	Prepare func(context.Context) error
	Ended   func(how string) error
	// Report brings the status file up to date; called at the start and after
	// each change of the agent's health, one call at a time.
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
	health                    time.Duration // between looks at the agent's health
	lock                      time.Duration // to wait for another supervisor to end
}

func (t *timing) setDefaults() {
	if *t == (timing{}) {
		*t = timing{
			firstRestart: time.Second, lastRestart: 5 * time.Minute, steady: 5 * time.Minute, watchdog: time.Minute,
			vanished: time.Minute, health: 5 * time.Second, lock: 5 * time.Second,
		}
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
	// Who cannot say who he is could not be stopped.
	if err := w.save(process{}); err != nil {
		return fmt.Errorf("keep the supervisor's number: %w", err)
	}
	w.settle()
	w.run(ctx)
	return s.write(processes{})
}

// settle puts this process, and so the agent, where it depends on nobody: in
// control groups of its own, and without core dumps, which could hold a key.
func (w *watch) settle() {
	if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}); err != nil {
		w.o.Log.Warn("core dumps are not switched off", "error", err)
	}
	if w.o.Layout.Root() != "" || os.Geteuid() != 0 {
		return
	}
	if err := cgroup.Join(w.unit.Name, cgroup.Limits{CPUPercent: w.unit.CPUPercent, MemoryMB: w.unit.MemoryMB}, w.own.PID); err != nil {
		w.o.Log.Info("the control groups stay those of the starter, at least in part", "error", err)
	}
	held, err := cgroup.HeldHere()
	if err != nil {
		w.o.Log.Info("it is not known which ceilings the system holds", "error", err)
	}
	w.o.Log.Info("supervisor started", "group", controlGroup(w.own.PID), "memoryCeiling", held.Memory, "cpuCeiling", held.CPU)
}

// A watch is a supervisor at work.
type watch struct {
	o        SuperviseOptions
	s        *supervisor
	unit     Unit
	own      process
	restarts int
}

func (w *watch) run(ctx context.Context) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var looking sync.WaitGroup
	looking.Go(func() { w.report(ctx) })
	looking.Go(func() { w.watchFolder(ctx, stop) })
	wait := w.o.timing.firstRestart
	for {
		started := time.Now()
		err := w.life(ctx)
		if ctx.Err() != nil {
			break
		}
		if time.Since(started) > w.o.timing.steady {
			wait = w.o.timing.firstRestart
		}
		w.restarts++
		if err := w.o.Report(ctx); err != nil {
			w.o.Log.Warn("cannot report the agent's end", "error", err)
		}
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
	looking.Wait()
	if cause := context.Cause(ctx); errors.Is(cause, errVanished) {
		w.o.Log.Warn("the extension was removed without its uninstall; the agent is stopped, its data stays", "folder", w.unit.HandlerDir)
	}
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

// life is one life of the agent, with what comes before and after.
func (w *watch) life(ctx context.Context) error {
	err := w.o.Prepare(ctx)
	if err == nil {
		err = w.once(ctx)
	}
	how := ""
	if ctx.Err() == nil {
		how = strings.ReplaceAll(err.Error(), "\n", ": ")
	}
	if err := w.o.Ended(how); err != nil {
		w.o.Log.Warn("cannot note the agent's end", "error", err)
	}
	return err
}

// once starts the agent and waits for its end. It ends the agent when ctx does
// or when the agent has been silent for too long.
func (w *watch) once(ctx context.Context) error {
	uid, gid, err := w.account()
	if err != nil {
		return err
	}
	notify, err := w.listen(ctx, uid)
	if err != nil {
		return err
	}
	var hearing sync.WaitGroup
	defer hearing.Wait()
	defer func() { _ = notify.Close() }() // only read from
	// The last words of the one before stay: they tell why it ended.
	if err := shorten(w.s.file(outputFile)); err != nil {
		w.o.Log.Warn("cannot shorten the last output of the agent", "error", err)
	}
	if err := os.Rename(w.s.file(outputFile), w.s.file(outputFile+".1")); err != nil && !errors.Is(err, os.ErrNotExist) {
		w.o.Log.Warn("cannot keep the last output of the agent", "error", err)
	}
	output, err := newLastWords(w.s.file(outputFile))
	if err != nil {
		return err
	}
	defer func() {
		if err := output.Close(); err != nil {
			w.o.Log.Warn("cannot keep all of the agent's output", "error", err)
		}
	}()
	// Not CommandContext: the agent gets a signal and time before it is killed.
	cmd := exec.Command(w.unit.Binary, "run") //nolint:gosec,noctx // our own binary
	cmd.Dir = "/"
	cmd.Env = w.environment(notify.LocalAddr().String())
	cmd.Stdout, cmd.Stderr = output, output
	cmd.WaitDelay = time.Second // nothing of it is to come when the agent has ended
	cmd.SysProcAttr = w.identity(uid, gid)
	if err := startUnprivileged(cmd); err != nil {
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
			return errors.Join(errors.New("ended"), err)
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

// shorten cuts a file at maxOutput, as an earlier version may have left it; one
// that is not there is short enough.
func shorten(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) || err == nil && info.Size() <= maxOutput {
		return nil
	}
	return errors.Join(err, os.Truncate(path, maxOutput))
}

// startUnprivileged starts a program that cannot gain rights by running others.
func startUnprivileged(cmd *exec.Cmd) error {
	// The attribute is a thread's and inherited by what the thread starts.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("give up new privileges: %w", err)
	}
	return cmd.Start()
}

// save keeps who runs, for the manager and for the next supervisor.
func (w *watch) save(agent process) error {
	return w.s.write(processes{Supervisor: w.own, Agent: agent, Since: time.Now().UTC(), Restarts: w.restarts})
}

// account returns the numbers of the unit's user, -1 without one.
func (w *watch) account() (uid, gid int, err error) {
	if w.unit.User == "" {
		return -1, -1, nil
	}
	return system().find(w.unit.User)
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
	env := append(cleanEnv(), w.s.kept()...)
	env = append(env, "NOTIFY_SOCKET="+notify, "WATCHDOG_USEC="+strconv.FormatInt(w.o.timing.watchdog.Microseconds(), 10))
	if w.unit.MemoryMB > 0 {
		env = append(env, fmt.Sprintf("GOMEMLIMIT=%dMiB", softMemory(w.unit.MemoryMB)))
	}
	return env
}

// identity makes the agent a process group of its own, and the unit's user.
func (w *watch) identity(uid, gid int) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true}
	if uid < 0 {
		return attr
	}
	attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid), Groups: system().groupNumbers(w.unit.Groups)}
	if w.unit.ReadAll {
		attr.AmbientCaps = append(attr.AmbientCaps, capDacReadSearch)
	}
	if w.unit.BindLow {
		attr.AmbientCaps = append(attr.AmbientCaps, capNetBindService)
	}
	return attr
}

// Capabilities of linux/capability.h.
const (
	capDacReadSearch  = 2
	capNetBindService = 10
)

// preferToDie makes the kernel take the agent before others when memory runs
// out. It is a courtesy to the machine: without the right to, nothing is lost.
func preferToDie(pid int) {
	_ = os.WriteFile("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", []byte("500"), 0o600)
}

// report calls o.Report at the start and after each change of the health file,
// until ctx ends. It looks at the file now and then: a watch on a folder ends
// unseen when the folder is made anew.
func (w *watch) report(ctx context.Context) {
	var reported stamp
	for {
		if now := stampOf(w.o.Layout.HealthFile()); now != reported {
			reported = now
			if err := w.o.Report(ctx); err != nil && ctx.Err() == nil {
				w.o.Log.Warn("cannot report the agent's health", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(w.o.timing.health):
		}
	}
}

// A stamp tells one writing of a file from another; zero without a file.
type stamp struct {
	size     int64
	modified time.Time
}

func stampOf(path string) stamp {
	info, err := os.Lstat(path)
	if err != nil {
		return stamp{}
	}
	return stamp{info.Size(), info.ModTime()}
}
