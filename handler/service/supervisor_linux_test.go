package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gofrs/flock"

	"github.com/google/go-cmp/cmp"

	"github.com/openloganalytics/agent/internal/atomicfile"
	"github.com/openloganalytics/agent/internal/paths"
)

// The test binary is also the agent and the supervisor that the tests start.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) > 1 && os.Args[1] == "run":
		os.Exit(fakeAgent())
	case len(os.Args) > 1 && os.Args[1] == "supervise":
		os.Exit(fakeSupervisor())
	}
	os.Exit(m.Run())
}

// quick is timing that a test can wait for. Only a hung agent meets the
// watchdog: a busy machine does not make a good one late.
func quick(mode string) timing {
	t := timing{
		firstRestart: 10 * time.Millisecond, lastRestart: 100 * time.Millisecond, steady: time.Hour, watchdog: time.Hour,
		vanished: 20 * time.Millisecond, health: 10 * time.Millisecond, lock: 2 * time.Second,
	}
	if mode == "hung" {
		t.watchdog = 300 * time.Millisecond
	}
	return t
}

func prepareNothing(context.Context) error { return nil }

func fakeSupervisor() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	layout := paths.New(os.Getenv(paths.EnvRoot))
	mode, err := os.ReadFile(filepath.Join(layout.AgentDir(), "mode"))
	if err != nil {
		return 2
	}
	err = Supervise(ctx, SuperviseOptions{
		Layout: layout, Prepare: prepareNothing, Ended: func(string) error { return nil },
		Report: func(context.Context) error { return nil }, timing: quick(string(mode)),
	})
	if err != nil {
		// Who started us reads the log in the error's place.
		log := newSupervisor(layout).file("supervisor.log")
		_ = os.WriteFile(log, []byte(err.Error()), 0o600) // the exit code tells, too
		return 1
	}
	return 0
}

// fakeAgent obeys the word in the file "mode" of its state folder.
func fakeAgent() int {
	state := paths.New(os.Getenv(paths.EnvRoot)).AgentDir()
	mode, err := os.ReadFile(filepath.Join(state, "mode"))
	if err != nil {
		return 2
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	if string(mode) == "deaf" {
		signal.Ignore(syscall.SIGTERM)
	}
	rights, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 8
	}
	if err := os.WriteFile(filepath.Join(state, "rights"), rights, 0o600); err != nil {
		return 9
	}
	note := fmt.Sprintf("%d\n%s", os.Getpid(), strings.Join(os.Environ(), "\n"))
	if err := atomicfile.Write(filepath.Join(state, "started"), []byte(note), 0o600); err != nil {
		return 3
	}
	if string(mode) == "crash" {
		return 4
	}
	notify, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		return 5
	}
	if string(mode) == "loud" {
		if err := shout(state); err != nil {
			return 10
		}
	}
	for {
		if string(mode) != "hung" {
			if _, err := notify.Write([]byte("WATCHDOG=1")); err != nil {
				return 6
			}
		}
		select {
		case <-stop:
			if err := atomicfile.Write(filepath.Join(state, "stopped"), []byte("cleanly"), 0o600); err != nil {
				return 7
			}
			return 0
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// shout writes more to the standard output than is kept of it.
func shout(state string) error {
	const flood = 3 << 20
	if _, err := fmt.Printf("the beginning\n%s\nthe end\n", strings.Repeat("x", flood)); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(state, "shouted"), nil, 0o600)
}

// A rig is a machine in a folder with the test binary as agent.
type rig struct {
	*testing.T
	layout paths.Layout
	unit   Unit
	s      *supervisor
}

func newRig(t *testing.T, mode string) *rig {
	t.Helper()
	root, err := os.MkdirTemp("", "svc-") //nolint:usetesting // sockets have short paths
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	layout := paths.New(root)
	r := &rig{T: t, layout: layout, s: newSupervisor(layout)}
	r.unit = Unit{
		Name: "log-analytics-agent", Binary: self, StateDir: layout.AgentDir(), RunDir: layout.RunDir(), LogDir: layout.LogDir(),
		ReadDir: layout.ConfigDir(), HandlerDir: filepath.Join(root, "handler"), MemoryMB: 100,
	}
	for _, dir := range []string{layout.HandlerDir(), layout.AgentDir(), layout.ConfigDir(), r.unit.HandlerDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r.mode(mode)
	if changed, err := r.s.Install(t.Context(), r.unit); err != nil || !changed {
		t.Fatalf("install: changed %v, %v", changed, err)
	}
	t.Cleanup(func() {
		if err := errors.Join(r.s.Remove(context.Background(), r.unit), os.RemoveAll(root)); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *rig) mode(word string) {
	r.Helper()
	if err := os.WriteFile(filepath.Join(r.layout.AgentDir(), "mode"), []byte(word), 0o600); err != nil {
		r.Fatal(err)
	}
}

// eventually waits for check without asserting how long it takes.
func (r *rig) eventually(what string, check func() bool) {
	r.Helper()
	for deadline := time.Now().Add(30 * time.Second); !check(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.Fatalf("it did not happen: %s; processes are %+v", what, r.s.read())
		}
	}
}

// agent waits for a living agent other than the given one, which has come far
// enough to hear signals, and returns it.
func (r *rig) agent(other process) (now process) {
	r.Helper()
	r.eventually("another agent runs", func() bool {
		now = r.s.read().Agent
		note, err := os.ReadFile(filepath.Join(r.layout.AgentDir(), "started"))
		return now != other && now.alive() && err == nil && strings.HasPrefix(string(note), strconv.Itoa(now.PID)+"\n")
	})
	return now
}

func (r *rig) start() {
	r.Helper()
	if err := r.s.Start(r.Context(), r.unit); err != nil {
		log, _ := os.ReadFile(r.s.file("supervisor.log")) // it may not have come that far
		r.Fatalf("%v: %s", err, log)
	}
}

func TestSupervisorLife(t *testing.T) {
	t.Parallel()
	r := newRig(t, "good")
	r.start()
	first := r.agent(process{})
	r.start() // it runs already
	if now := r.s.read().Agent; now != first {
		t.Errorf("a second start changed the agent from %+v to %+v", first, now)
	}
	state, err := r.s.Status(t.Context(), r.unit)
	if err != nil || !state.Running || state.PID != first.PID || state.Since.IsZero() || state.Group == "" {
		t.Errorf("status is %+v, %v", state, err)
	}
	if err := r.s.Restart(t.Context(), r.unit); err != nil {
		t.Fatal(err)
	}
	second := r.agent(first)
	supervisor := r.s.read().Supervisor
	if err := r.s.Stop(t.Context(), r.unit); err != nil {
		t.Fatal(err)
	}
	if second.alive() || supervisor.alive() {
		t.Error("a process is left after stop")
	}
	if _, err := os.Stat(filepath.Join(r.layout.AgentDir(), "stopped")); err != nil {
		t.Errorf("the agent could not stop cleanly: %v", err)
	}
	if state, err := r.s.Status(t.Context(), r.unit); err != nil || state.Running {
		t.Errorf("status after stop is %+v, %v", state, err)
	}
	if err := r.s.Stop(t.Context(), r.unit); err != nil {
		t.Errorf("a second stop: %v", err)
	}
}

func TestAgentIsStartedAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t, "good")
	r.start()
	first := r.agent(process{})
	if err := syscall.Kill(first.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.agent(first)
	r.mode("crash")
	if err := syscall.Kill(r.s.read().Agent.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.eventually("several restarts", func() bool { return r.s.read().Restarts > 4 })
	r.mode("good")
	r.agent(first)
}

func TestHungAgentIsReplaced(t *testing.T) {
	t.Parallel()
	r := newRig(t, "hung")
	r.start()
	first := r.agent(process{})
	r.mode("good")
	r.agent(first)
}

// The agent of a supervisor that was killed is ended before another starts.
func TestOrphanIsEnded(t *testing.T) {
	t.Parallel()
	r := newRig(t, "good")
	r.start()
	orphan := r.agent(process{})
	killed := r.s.read().Supervisor
	if err := syscall.Kill(killed.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.eventually("the supervisor is gone", func() bool { return !killed.alive() })
	r.start()
	r.agent(orphan)
	if orphan.alive() {
		t.Error("two agents run")
	}
	// And stop ends an orphan, too.
	last := r.s.read()
	if err := syscall.Kill(last.Supervisor.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := r.s.Stop(t.Context(), r.unit); err != nil || r.s.read().Agent.alive() {
		t.Errorf("the orphan is left: %v", err)
	}
}

func TestOneSupervisorAtATime(t *testing.T) {
	t.Parallel()
	r := newRig(t, "good")
	r.start()
	r.agent(process{})
	err := Supervise(t.Context(), SuperviseOptions{Layout: r.layout, timing: quick("")})
	if err == nil || !strings.Contains(err.Error(), "another supervisor") {
		t.Errorf("a second supervisor: %v", err)
	}
}

// What an agent writes is bounded while it runs, too; its beginning and its end
// are kept.
func TestLoudAgentDoesNotFillTheDisk(t *testing.T) {
	t.Parallel()
	r := newRig(t, "loud")
	r.start()
	first := r.agent(process{})
	r.eventually("it has shouted", func() bool {
		_, err := os.Stat(filepath.Join(r.layout.AgentDir(), "shouted"))
		return err == nil
	})
	if info, err := os.Stat(r.s.file(outputFile)); err != nil || info.Size() > maxOutput {
		t.Errorf("the output of an agent that runs: %v, want at most %d bytes (%v)", info, maxOutput, err)
	}
	r.mode("good")
	if err := syscall.Kill(first.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.agent(first)
	data, err := os.ReadFile(r.s.file(outputFile + ".1"))
	text := string(data)
	if err != nil || len(text) > maxOutput || len(text) < maxOutput/2 || !strings.HasPrefix(text, "the beginning\n") || !strings.HasSuffix(text, "\nthe end\n") {
		t.Errorf("%d of at most %d bytes are kept, from %.20q to %q (%v)", len(text), maxOutput, text, text[max(len(text)-20, 0):], err)
	}
	if !strings.Contains(text, " bytes are left out]\n") {
		t.Error("it does not say that something is left out")
	}
}

// The output that an earlier version left is kept from its beginning, and
// bounded.
func TestLastWordsAreBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), outputFile)
	for _, size := range []int{-1, 0, maxOutput, maxOutput + 1, 3 * maxOutput} {
		if size >= 0 {
			if err := os.WriteFile(path, append([]byte("panic: "), make([]byte, size)...)[:size], 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := shorten(path); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(path)
		if size < 0 && errors.Is(err, os.ErrNotExist) {
			continue
		}
		if want := min(size, maxOutput); err != nil || len(data) != want || size > 7 && string(data[:7]) != "panic: " {
			t.Errorf("of %d bytes %d are left, want %d from the beginning (%v)", size, len(data), want, err)
		}
	}
}

func TestVanishedHandlerEndsEverything(t *testing.T) {
	t.Parallel()
	r := newRig(t, "good")
	r.start()
	agent, supervisor := r.agent(process{}), r.s.read().Supervisor
	if err := os.RemoveAll(r.unit.HandlerDir); err != nil {
		t.Fatal(err)
	}
	r.eventually("both are gone", func() bool { return !agent.alive() && !supervisor.alive() })
	if _, err := os.Stat(r.layout.AgentDir()); err != nil {
		t.Errorf("the data is gone, too: %v", err)
	}
}

func TestDeafAgentIsKilled(t *testing.T) {
	t.Parallel()
	r := newRig(t, "deaf")
	r.start()
	p := r.agent(process{})
	r.mode("good") // for the next one
	if err := p.end(50 * time.Millisecond); err != nil || p.alive() {
		t.Errorf("it lives on: %v", err)
	}
}

func TestEnvironmentIsClean(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://somewhere")
	t.Setenv("SSL_CERT_FILE", "/some/file")
	r := newRig(t, "good")
	r.start()
	r.agent(process{})
	note, err := os.ReadFile(filepath.Join(r.layout.AgentDir(), "started"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(note), "\n")[1:]
	for _, line := range lines {
		name, value, _ := strings.Cut(line, "=")
		switch name {
		case "PATH", "LANG", "NOTIFY_SOCKET", "WATCHDOG_USEC":
		case paths.EnvRoot:
			if value != r.layout.Root() {
				t.Errorf("root is %s", value)
			}
		case "GOMEMLIMIT":
			if value != "85MiB" {
				t.Errorf("memory limit is %s of 100 MB", value)
			}
		default:
			t.Errorf("the agent has %s from elsewhere", name)
		}
	}
}

// A supervisor that cannot start its agent is known, and can be stopped.
func TestSupervisorWithoutAgentIsStopped(t *testing.T) {
	t.Parallel()
	r := newRig(t, "good")
	r.unit.ReadDir = filepath.Join(r.layout.Root(), "missing") // no place for the notify socket
	if _, err := r.s.Install(t.Context(), r.unit); err != nil {
		t.Fatal(err)
	}
	r.start()
	supervisor := r.s.read().Supervisor
	if err := r.s.Stop(t.Context(), r.unit); err != nil {
		t.Fatal(err)
	}
	if supervisor == (process{}) || supervisor.alive() {
		t.Errorf("supervisor %+v is not stopped", supervisor)
	}
}

// A lock whose holder nobody knows is an error, not a stop that succeeded.
func TestStopNoticesUnknownSupervisor(t *testing.T) {
	t.Parallel()
	r := newRig(t, "good")
	unknown := flock.New(r.s.file(lockFile))
	if locked, err := unknown.TryLock(); err != nil || !locked {
		t.Fatal(locked, err)
	}
	if err := r.s.Stop(t.Context(), r.unit); err == nil || !strings.Contains(err.Error(), lockFile) {
		t.Errorf("stop = %v, want an error that names the lock", err)
	}
	if err := unknown.Close(); err != nil {
		t.Fatal(err)
	}
	if err := r.s.Stop(t.Context(), r.unit); err != nil {
		t.Error(err)
	}
}

// The agent has the rights of its user, one capability at most, and no way to
// more. Without root it has ours.
func TestAgentIsUnprivileged(t *testing.T) {
	for name, readAll := range map[string]bool{"groups only": false, "reads all": true} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, "good")
			uid, capability := os.Getuid(), "0000000000000000"
			if uid == 0 {
				uid = r.asNobody()
				if readAll {
					capability = "0000000000000004"
				}
			}
			r.unit.ReadAll = readAll
			if _, err := r.s.Install(t.Context(), r.unit); err != nil {
				t.Fatal(err)
			}
			r.start()
			r.agent(process{})
			rights, err := os.ReadFile(filepath.Join(r.layout.AgentDir(), "rights"))
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{fmt.Sprintf("Uid:\t%d\t%d", uid, uid), "CapEff:\t" + capability, "NoNewPrivs:\t1"} {
				if !strings.Contains(string(rights), "\n"+want) {
					t.Errorf("the agent's rights lack %q:\n%s", want, rights)
				}
			}
		})
	}
}

// asNobody makes the rig's agent run as nobody, and returns that one's number.
func (r *rig) asNobody() int {
	r.Helper()
	uid, gid, err := system().find("nobody")
	if err != nil {
		r.Fatal(err)
	}
	// Where go test builds is nobody's business.
	binary, err := os.ReadFile(r.unit.Binary)
	if err != nil {
		r.Fatal(err)
	}
	r.unit.User, r.unit.Binary = "nobody", filepath.Join(r.layout.Root(), "agent")
	if err := errors.Join(
		os.WriteFile(r.unit.Binary, binary, 0o600),
		os.Chmod(r.unit.Binary, 0o755),
		os.Chmod(r.layout.Root(), 0o755),
		os.Chown(r.layout.AgentDir(), uid, gid),
		os.Chown(filepath.Join(r.layout.AgentDir(), "mode"), uid, gid),
	); err != nil {
		r.Fatal(err)
	}
	return uid
}

func TestHealthIsReported(t *testing.T) {
	t.Parallel()
	r := newRig(t, "good")
	// What there is at the start is reported, too: a reboot emptied nothing.
	if err := atomicfile.Write(r.layout.HealthFile(), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	var reports atomic.Int32
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- Supervise(ctx, SuperviseOptions{
			Layout: r.layout, timing: quick(""), Prepare: prepareNothing, Ended: func(string) error { return nil },
			Report: func(context.Context) error { reports.Add(1); return nil },
		})
	}()
	r.agent(process{})
	for n := range int32(4) {
		r.eventually("a report for a change", func() bool { return reports.Load() == n+1 })
		if n == 2 {
			// A folder that was made anew is looked at as well.
			if err := errors.Join(os.RemoveAll(r.unit.StateDir), os.Mkdir(r.unit.StateDir, 0o700)); err != nil {
				t.Fatal(err)
			}
			r.eventually("a report that the health is gone", func() bool { return reports.Load() == n+2 })
			break
		}
		if err := atomicfile.Write(r.layout.HealthFile(), []byte(strconv.Itoa(int(n))), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	seen := reports.Load()
	if err := atomicfile.Write(r.layout.HealthFile(), []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.eventually("a report from the new folder", func() bool { return reports.Load() > seen })
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// Every start is prepared, and every end is told, with its reason unless it was
// asked for; an agent whose start cannot be prepared is not started.
func TestStartAndEndOfTheAgent(t *testing.T) {
	t.Parallel()
	r := newRig(t, "crash")
	var mu sync.Mutex
	var told []string
	tell := func(what string) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, what)
	}
	seen := func(n int) bool {
		mu.Lock()
		defer mu.Unlock()
		return len(told) >= n
	}
	refusals := 1
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- Supervise(ctx, SuperviseOptions{
			Layout: r.layout, timing: quick(""), Report: func(context.Context) error { return nil },
			Prepare: func(context.Context) error {
				tell("prepare")
				if refusals--; refusals == 0 {
					return errors.New("no room")
				}
				return nil
			},
			Ended: func(how string) error { tell("ended: " + how); return nil },
		})
	}()
	r.eventually("two lives", func() bool { return seen(4) })
	if now := r.s.read().Restarts; now < 1 {
		t.Errorf("%d restarts", now)
	}
	r.mode("good")
	r.agent(process{})
	r.eventually("the good one lives", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return told[len(told)-1] == "prepare" && r.s.read().Agent.alive()
	})
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	want := []string{"prepare", "ended: no room", "prepare", "ended: ended: exit status 4"}
	if diff := cmp.Diff(want, told[:4]); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
	if last := told[len(told)-1]; last != "ended: " {
		t.Errorf("the last word is %q, want an end that was asked for", last)
	}
}

func TestProcessIsNotTakenForAnother(t *testing.T) {
	own := thisProcess(os.Getpid())
	if !own.alive() {
		t.Error("this process does not live")
	}
	for _, p := range []process{{}, {own.PID, own.Start + 1}, {1 << 22, 5}} {
		if p.alive() {
			t.Errorf("%+v lives", p)
		}
		if err := p.end(time.Second); err != nil {
			t.Errorf("ending what does not live: %v", err)
		}
	}
}

func TestUnitTravelsToTheSupervisor(t *testing.T) {
	r := newRig(t, "good")
	data, err := os.ReadFile(r.s.file(unitFile))
	if err != nil {
		t.Fatal(err)
	}
	var got Unit
	if err := json.Unmarshal(data, &got); err != nil || fmt.Sprint(got) != fmt.Sprint(r.unit) {
		t.Errorf("got %+v, %v", got, err)
	}
	if changed, err := r.s.Install(t.Context(), r.unit); err != nil || changed {
		t.Errorf("the same unit again: changed %v, %v", changed, err)
	}
}
