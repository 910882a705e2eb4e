//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"
)

// An instance is one agent at work, with a sink and a folder of its own.
type instance struct {
	*bench
	peer    *peer
	setup   setup
	sink    *sink
	launch  launch
	cmd     *exec.Cmd
	log     *os.File
	ended   chan struct{} // closed when the process of now has ended
	started time.Time

	mu       sync.Mutex
	past     usage // of earlier processes
	peak     int64
	pss      []int64
	store    int64 // bytes of the store, at most
	sampling sync.WaitGroup
	stop     context.CancelFunc
}

// open makes the instance without starting the agent. later is the sink's.
func (b *bench) open(ctx context.Context, p *peer, s setup, most int, later bool) (*instance, error) {
	b.mu.Lock()
	b.opened++
	s.Dir = filepath.Join(b.dir, fmt.Sprintf("run/%03d", b.opened))
	b.mu.Unlock()
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return nil, err
	}
	in := &instance{bench: b, peer: p}
	var err error
	if in.sink, err = newSink(b.ca, most, later); err != nil {
		return nil, err
	}
	s.Sink, s.Gateway, s.CA, s.Durable, s.Count = in.sink.Port, in.sink.Gateway, b.ca.file, p.durable, most
	if s.File == "" {
		s.File = filepath.Join(s.Dir, "live.log")
		if err := os.WriteFile(s.File, nil, 0o644); err != nil {
			return nil, err
		}
	}
	if s.Listen, err = freePort(); err != nil {
		return nil, err
	}
	in.setup = s
	if in.log, err = os.Create(filepath.Join(s.Dir, "output.log")); err != nil {
		return nil, err
	}
	if in.launch, err = p.prepare(ctx, s); err != nil {
		return nil, errors.Join(err, in.close())
	}
	return in, nil
}

// freePort returns a port that nobody uses now, above those that the
// agent's settings refuse.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, errors.Join(err, l.Close())
}

// start starts the agent.
func (in *instance) start(ctx context.Context) error {
	c := exec.CommandContext(ctx, in.launch.args[0], in.launch.args[1:]...)
	c.Dir = in.setup.Dir
	c.Env = append(os.Environ(), in.launch.env...)
	c.Stdout, c.Stderr = in.log, in.log
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in.started = time.Now()
	if err := c.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	in.mu.Lock()
	if in.cmd != nil {
		in.past.add(final(in.cmd))
	}
	in.cmd, in.ended = c, ended
	in.mu.Unlock()
	go func() {
		_ = c.Wait() // how it ended does not matter; that it did does
		close(ended)
	}()
	if in.stop == nil {
		var sampling context.Context
		sampling, in.stop = context.WithCancel(ctx)
		in.sampling.Go(func() { in.sample(sampling) })
	}
	return nil
}

func (in *instance) alive() bool {
	select {
	case <-in.ended:
		return false
	default:
		return true
	}
}

// sample looks at memory and store five times a second.
func (in *instance) sample(ctx context.Context) {
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		in.mu.Lock()
		pid := in.cmd.Process.Pid
		in.mu.Unlock()
		u := used(pid, i%5 == 4)
		var store int64
		if in.launch.store != "" && i%2 == 0 {
			store = sizeOf(in.launch.store)
		}
		in.mu.Lock()
		in.peak, in.store = max(in.peak, u.peak), max(in.store, store)
		if u.pss > 0 {
			in.pss = append(in.pss, u.pss)
		}
		in.mu.Unlock()
	}
}

// used returns what the agent has used in all its processes.
func (in *instance) used() usage {
	in.mu.Lock()
	u, c := in.past, in.cmd
	in.mu.Unlock()
	now := usage{}
	if in.alive() {
		now = used(c.Process.Pid, false)
	}
	if !now.alive {
		<-in.ended
		now = final(c)
	}
	in.mu.Lock()
	in.peak = max(in.peak, now.peak)
	in.mu.Unlock()
	u.add(now)
	return u
}

// final returns what a process that has ended used in its life.
func final(c *exec.Cmd) usage {
	r, ok := c.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		return usage{}
	}
	return usage{
		cpu:  time.Duration(r.Utime.Nano() + r.Stime.Nano()),
		peak: r.Maxrss << 10, wrote: r.Oublock * 512, switches: r.Nvcsw + r.Nivcsw,
	}
}

// kill ends the agent with a signal and waits for its end.
func (in *instance) kill(signal syscall.Signal) {
	if in.cmd == nil {
		return
	}
	pid := in.cmd.Process.Pid
	// An agent that has ended already needs no signal.
	_ = syscall.Kill(-pid, signal)
	select {
	case <-in.ended:
	case <-time.After(10 * time.Second):
		_ = syscall.Kill(-pid, syscall.SIGKILL)
		<-in.ended
	}
}

// restart is a SIGKILL and a new start two seconds later.
func (in *instance) restart(ctx context.Context) error {
	in.kill(syscall.SIGKILL)
	time.Sleep(2 * time.Second)
	return in.start(ctx)
}

// close ends everything and removes the folder.
func (in *instance) close() error {
	in.kill(syscall.SIGKILL)
	if in.stop != nil {
		in.stop()
		in.sampling.Wait()
	}
	in.sink.close()
	err := in.log.Close()
	if in.keep {
		return err
	}
	return errors.Join(err, os.RemoveAll(in.setup.Dir))
}

// tail returns the last lines of what the agent printed, for an error.
func (in *instance) tail() string {
	text, err := os.ReadFile(in.log.Name())
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-600):])
}

// medianPSS returns the median of the samples since mark.
func (in *instance) medianPSS(mark int) int64 {
	in.mu.Lock()
	defer in.mu.Unlock()
	list := slices.Clone(in.pss[mark:])
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	return list[len(list)/2]
}

func (in *instance) samples() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return len(in.pss)
}

// quiet waits until nothing has come for so long and the agent has used no CPU
// to speak of, or it has died, or patience is over.
func (in *instance) quiet(still time.Duration) error {
	end := time.Now().Add(patience)
	before, cpu, since := in.sink.count(), in.used().cpu, time.Now()
	for time.Now().Before(end) {
		time.Sleep(50 * time.Millisecond)
		now, u := in.sink.count(), in.used()
		if now.Wire != before.Wire || now.Refused != before.Refused || u.cpu-cpu > 50*time.Millisecond {
			before, cpu, since = now, u.cpu, time.Now()
		}
		switch {
		case time.Since(since) > still:
			return nil
		case !in.alive() && in.peer.name != ideal:
			return fmt.Errorf("%s has ended by itself: %s", in.peer.name, in.tail())
		case !in.alive():
			return nil
		}
	}
	return nil
}
