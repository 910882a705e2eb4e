//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// oneBatch is what a crash may repeat of a source.
const oneBatch = "0 lost, repeated <= one batch a crash"

// A count of what a number of crashes did.
type toll struct {
	crashes, lines, lost, repeated int
	batches                        int // the most that one crash repeated
}

func (t toll) String() string {
	return fmt.Sprintf("%d crashes, %d lines: %d lost, %d repeated, of at most %d batches a crash", t.crashes, t.lines, t.lost, t.repeated, t.batches)
}

func (t toll) ok() bool { return t.lost == 0 && t.batches <= 1 && t.crashes > 0 && t.lines > 0 }

// after is called when the agent works again after a crash.
func (t *toll) after(m *machine) {
	t.crashes++
	t.batches = max(t.batches, len(m.arrived.requests))
	clear(m.arrived.requests)
}

func (t *toll) close(ctx context.Context, m *machine) (err error) {
	t.lost, t.lines, err = m.all(ctx)
	t.repeated = m.arrived.repeated
	return err
}

// agentCuts cuts the power under the agent while lines are written.
func (l *lab) agentCuts(ctx context.Context, kind string, cycles int) (err error) {
	d, err := l.disk(kind)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.remove()) }()
	m, err := l.machine(ctx, filepath.Join(d.mount, "vm"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.stop()) }()
	unix.Sync() // the configuration is not the agent's to make durable
	var t toll
	for range cycles {
		if err := m.work(ctx); err != nil {
			return err
		}
		if err := d.cut(); err != nil {
			return err
		}
		m.kill()
		if err := d.again(); err != nil {
			return err
		}
		if err := m.recover(ctx, &t); err != nil {
			return err
		}
	}
	if err := t.close(ctx, m); err != nil {
		return err
	}
	m.kill()
	l.add("power cut, agent on "+kind, oneBatch, t.String(), t.ok())
	return nil
}

// work runs the agent, if it does not run, until lines arrive, and a moment more.
func (m *machine) work(ctx context.Context) error {
	if m.process == nil {
		if err := m.start(); err != nil {
			return err
		}
	}
	if _, err := m.follows(ctx); err != nil {
		return err
	}
	time.Sleep(time.Duration(rand.IntN(900)) * time.Millisecond)
	return nil
}

// recover starts the agent after a crash and counts what that cost.
func (m *machine) recover(ctx context.Context, t *toll) error {
	for range 20 { // as a service manager would: the one before may not be gone yet
		if err := m.start(); err != nil {
			return err
		}
		time.Sleep(200 * time.Millisecond)
		if m.running() {
			break
		}
	}
	if _, err := m.follows(ctx); err != nil {
		return err
	}
	t.after(m)
	return nil
}

// kills kills the agent with SIGKILL at the n-th call of one kind that a thread
// of it makes. A call that it does not come to in time is no crash.
func (l *lab) kills(ctx context.Context) (err error) {
	root, err := l.folder("kill")
	if err != nil {
		return err
	}
	m, err := l.machine(ctx, root)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.stop()) }()
	if err := m.work(ctx); err != nil {
		return err
	}
	m.kill()
	var t toll
	for i, point := range []string{
		"pwrite64:1", "pwrite64:2", "pwrite64:3", "fdatasync:1", "fdatasync:2", "fdatasync:3", "fdatasync:5",
		"renameat:1", "renameat:2", "unlinkat:1", "fsync:1", "fsync:2", "sendto:1", "write:20", "write:40",
	} {
		if i%l.part != 0 {
			continue
		}
		call, n, _ := strings.Cut(point, ":")
		if err := m.start("strace", "-f", "-qq", "-o", "/dev/null", "--seccomp-bpf", "-e", "trace="+call, "-e", "inject="+call+":signal=KILL:when="+n); err != nil {
			return err
		}
		select {
		case err := <-m.ended:
			m.ended <- err
		case <-time.After(4 * time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
		reached := !m.running()
		m.kill()
		if err := m.recover(ctx, &t); err != nil {
			return err
		}
		if !reached {
			t.crashes-- // it was killed all the same, at any moment
		}
		m.kill()
	}
	if err := m.start(); err != nil {
		return err
	}
	if err := t.close(ctx, m); err != nil {
		return err
	}
	l.add("kill -9 at system calls", oneBatch, t.String(), t.ok())
	return nil
}

// onSmallDisk lets the agent work on a small tmpfs, does something to that and
// takes it back. The agent has to go on within ten seconds, the same process.
func (l *lab) onSmallDisk(ctx context.Context, what, options string, spoil func(dir string) (relieve func() error, err error)) (err error) {
	root, err := l.folder("small")
	if err != nil {
		return err
	}
	if err := unix.Mount("none", root, "tmpfs", 0, options); err != nil {
		return fmt.Errorf("mount tmpfs: %w", err)
	}
	defer func() { err = errors.Join(err, unmount(root)) }()
	m, err := l.machine(ctx, root)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.stop()) }()
	if err := m.work(ctx); err != nil {
		return err
	}
	relieve, err := spoil(root)
	if err != nil {
		return err
	}
	return l.resumes(ctx, m, what, relieve)
}

// resumes waits until nothing arrives any more, relieves the agent and measures
// how long it takes until lines written from then on arrive.
func (l *lab) resumes(ctx context.Context, m *machine, what string, relieve func() error) error {
	paused, err := m.pauses(ctx)
	if err != nil {
		return err
	}
	if err := relieve(); err != nil {
		return err
	}
	took, err := m.follows(ctx)
	if err != nil {
		return err
	}
	lost, last, err := m.all(ctx)
	if err != nil {
		return err
	}
	l.add(what, "paused, goes on within 10 s without a restart, 0 lost, 0 repeated",
		fmt.Sprintf("paused: %v, goes on after %.1f s, same process: %v, %d lines: %d lost, %d repeated", paused, took.Seconds(), m.running(), last, lost, m.arrived.repeated),
		paused && took <= 10*time.Second && m.running() && lost == 0 && m.arrived.repeated == 0)
	return nil
}

// pauses waits until nothing has arrived for three seconds, for half a minute
// at most.
func (m *machine) pauses(ctx context.Context) (bool, error) {
	still, most := time.Now(), -1
	for end := time.Now().Add(patience / 2); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if err := errors.Join(m.look(), ctx.Err()); err != nil {
			return false, err
		}
		if m.arrived.most != most {
			still, most = time.Now(), m.arrived.most
		}
		if time.Since(still) > 3*time.Second {
			return true, nil
		}
	}
	return false, nil
}

func (l *lab) fullDisk(ctx context.Context) error {
	return l.onSmallDisk(ctx, "full disk", "size=96m", func(dir string) (func() error, error) {
		hog := filepath.Join(dir, "hog")
		f, err := os.Create(hog)
		if err != nil {
			return nil, err
		}
		chunk := make([]byte, 64<<10)
		for err == nil {
			_, err = f.Write(chunk)
		}
		if !errors.Is(err, unix.ENOSPC) {
			return nil, errors.Join(err, f.Close())
		}
		return func() error { return os.Remove(hog) }, f.Close()
	})
}

func (l *lab) noInodes(ctx context.Context) error {
	return l.onSmallDisk(ctx, "no inodes", "size=128m,nr_inodes=200", func(dir string) (func() error, error) {
		many := filepath.Join(dir, "many")
		if err := os.Mkdir(many, 0o700); err != nil {
			return nil, err
		}
		for n := 0; ; n++ {
			err := os.WriteFile(filepath.Join(many, fmt.Sprint(n)), nil, 0o600)
			if errors.Is(err, unix.ENOSPC) {
				return func() error { return os.RemoveAll(many) }, nil
			}
			if err != nil {
				return nil, err
			}
		}
	})
}

// readOnly lets ext4 meet an error, on which it turns read-only under the open
// files of the agent, as it does on a bad disk. The kernel never makes such a
// file system writable again, and refuses to remount one that is written to, so
// it is mounted anew in the same place, as an administrator would.
func (l *lab) readOnly(ctx context.Context) (err error) {
	d, err := l.disk("ext4")
	if err != nil {
		return err
	}
	m, err := l.machine(ctx, filepath.Join(d.mount, "vm"))
	if err != nil {
		return errors.Join(err, d.remove())
	}
	defer func() { err = errors.Join(err, m.stop(), d.remove()) }()
	if err := m.work(ctx); err != nil {
		return err
	}
	if err := d.spoil(); err != nil {
		return err
	}
	return l.resumes(ctx, m, "read-only file system", func() error {
		if err := unix.Unmount(d.mount, unix.MNT_DETACH); err != nil {
			return err
		}
		return d.renew()
	})
}

// spoil makes ext4 believe that it has met an error.
func (d *disk) spoil() error {
	var s unix.Stat_t
	if err := unix.Stat(d.mount, &s); err != nil {
		return err
	}
	path := fmt.Sprintf("/sys/fs/ext4/loop%d/trigger_fs_error", unix.Minor(s.Dev))
	if err := os.WriteFile(path, []byte("1"), 0o200); err != nil {
		return fmt.Errorf("make ext4 meet an error: %w", err)
	}
	err := os.WriteFile(filepath.Join(d.mount, "probe"), nil, 0o600)
	if !errors.Is(err, unix.EROFS) {
		return fmt.Errorf("the file system is not read-only: %w", err)
	}
	return nil
}
