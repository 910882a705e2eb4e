//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/openloganalytics/agent/agent"
	"github.com/openloganalytics/agent/internal/cgroup"
	"github.com/openloganalytics/agent/test/emulator"
)

// The least memory that the settings take, the files that are followed with it,
// and the lines that are there when the agent starts.
const (
	leastMemory = 64 // MB
	manyFiles   = 10_000
	firstLines  = 10 * manyFiles
)

// memoryCeiling lets the agent follow ten thousand files that are being written,
// with one of two workspaces hanging, while a control group holds the least
// ceiling that the settings take. The kernel must not have to end it, the other
// workspace must not notice, and when the one that hangs is back it gets all.
func (l *lab) memoryCeiling(ctx context.Context) (err error) {
	through, err := throughCeiling(ctx)
	if err != nil {
		return err
	}
	root, err := l.folder("ceiling")
	if err != nil {
		return err
	}
	m, err := l.shaped(ctx, root, shape{destinations: 2, files: manyFiles, backlog: firstLines, rate: 20, patience: 3 * time.Minute, limits: agent.Limits{DiskMB: 128, MemoryMB: leastMemory}})
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, m.stop())
		cgroup.Remove(groupOf(os.Getpid()))
	}()
	if err := m.until(ctx, "every file has lines", func() bool { return m.written.Load() >= firstLines }); err != nil {
		return err
	}
	if err := m.longLines(); err != nil {
		return err
	}
	hangs, err := m.service.AddFault(emulator.Fault{Kind: emulator.FaultStall, Workspace: m.workspaces[1], Endpoint: "ods"})
	if err != nil {
		return err
	}
	if err := m.start(through...); err != nil {
		return err
	}
	if err := m.hang(ctx, 30*time.Second/time.Duration(l.part)); err != nil {
		return err
	}
	hung := m.second.most == 0
	m.service.ClearFaults(hangs.ID)
	lost, last, err := m.all(ctx)
	if err != nil {
		return err
	}
	if err := m.until(ctx, "all arrives where it hung", func() bool { return m.second.lost(last) == 0 }); err != nil {
		return err
	}
	same := m.running()
	peak, err := peakMemory(m.process.Process.Pid)
	if err != nil {
		return err
	}
	account := m.end()
	said := "the ledger adds up"
	if account != nil {
		said = account.Error()
	}
	repeated := m.arrived.repeated + m.second.repeated
	l.add("10,000 files, a workspace that hangs", fmt.Sprintf("below %d MiB by a control group: not killed, 0 lost, 0 repeated, the other workspace goes on", leastMemory),
		fmt.Sprintf("same process: %v, peak %d MiB, %d lines: %d lost, %d repeated, hung: %v, %s", same, peak>>20, last, lost, repeated, hung, said),
		same && peak < leastMemory<<20 && lost == 0 && repeated == 0 && hung && account == nil)
	return nil
}

// longLines writes files that are one long line each.
func (m *machine) longLines() error {
	line := strings.Repeat("long ", 190_000) + "\n"
	for n := range 100 {
		if err := appendTo(filepath.Join(m.logs, fmt.Sprintf("long-%d.log", n)), line); err != nil {
			return err
		}
	}
	return nil
}

// hang lets time pass, in which the first workspace has to get what is written.
func (m *machine) hang(ctx context.Context, length time.Duration) error {
	for end := time.Now().Add(length); ; {
		if _, err := m.follows(ctx); err != nil {
			return err
		}
		if time.Now().After(end) {
			return nil
		}
	}
}

// end asks the agent to stop and wants its account to add up, without a loss.
func (m *machine) end() error {
	if err := m.process.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if err := <-m.ended; err != nil {
		return fmt.Errorf("the agent ended badly: %w", err)
	}
	m.process = nil
	h, err := agent.ReadHealth(m.layout.HealthFile())
	if err != nil {
		return err
	}
	if h.Ledger.Dropped > 0 {
		return fmt.Errorf("%d records were dropped: %+v", h.Ledger.Dropped, h.Ledger.Losses)
	}
	return h.Conserved()
}

// groupOf names the control groups of the agent that a process starts.
func groupOf(pid int) string { return fmt.Sprintf("log-analytics-agent-crash-%d", pid) }

// throughCeiling returns the command that starts another below the ceiling. It
// tries it first: where no control group can be made nothing would be shown.
func throughCeiling(ctx context.Context) ([]string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	nothing, err := exec.LookPath("true")
	if err != nil {
		return nil, err
	}
	through := []string{self, "-ceiling", fmt.Sprint(leastMemory)}
	if out, err := exec.CommandContext(ctx, self, append(through[1:len(through):len(through)], nothing)...).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, bytes.TrimSpace(out))
	}
	return through, nil
}

// below moves this process below a ceiling of memory, in MB, as the supervisor
// does, and lets it become another program.
func below(mb int, args []string) error {
	joined := cgroup.Join(groupOf(os.Getppid()), cgroup.Limits{MemoryMB: mb}, os.Getpid())
	held, err := cgroup.HeldHere()
	if err != nil || held.Memory != int64(mb)<<20 {
		return fmt.Errorf("no control group with a ceiling of memory can be made here, which root can on a machine whose /sys/fs/cgroup it can write: %w", errors.Join(joined, err))
	}
	return unix.Exec(args[0], args, os.Environ())
}

// peakMemory is the most that a process has had resident, in bytes.
func peakMemory(pid int) (int64, error) {
	f, err := os.Open(filepath.Join("/proc", fmt.Sprint(pid), "status"))
	if err != nil {
		return 0, err
	}
	defer f.Close() //nolint:errcheck // only read
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var kib int64
		if rest, ok := strings.CutPrefix(lines.Text(), "VmHWM:"); ok {
			_, err := fmt.Sscan(rest, &kib)
			return kib << 10, err
		}
	}
	return 0, errors.New("read peak of memory: the kernel does not tell")
}
