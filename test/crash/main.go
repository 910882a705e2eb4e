//go:build linux

// Command crash does to the real agent what machines do: it cuts the power
// under ext4 and XFS, kills the agent at chosen system calls, fills its disk,
// takes its inodes, makes its file system read-only and gives it little memory
// and a workspace that hangs, while lines are being written. It ends in one
// table and fails when a line is lost, when more is repeated than was promised,
// or when the agent does not go on by itself.
//
// It needs root, strace, xfsprogs and control groups that it can make. Everything happens in a mount namespace
// of its own and in one temporary folder, so nothing is left on the machine.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "crash:", err)
		os.Exit(1)
	}
}

// insideEnv tells the process in the namespace where to work.
const insideEnv = "CRASH_FOLDER"

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("crash", flag.ContinueOnError)
	agentBinary := flags.String("agent", "build/log-analytics-agent", "the agent's `binary`")
	length := flags.Duration("for", 0, "repeat everything for this long; 0 is once")
	short := flags.Bool("short", false, "a third of each")
	only := flags.String("only", "", "do only what has this `text` in its name")
	ceiling := flags.Int("ceiling", 0, "become the command that follows, below a ceiling of so many `MB` of memory; used by the command itself")
	writer := flags.String("write-spool", "", "be the writer of the spool in this `folder`; used by the command itself")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *writer != "" {
		return writeSpool(*writer)
	}
	if *ceiling > 0 {
		return below(*ceiling, flags.Args())
	}
	dir := os.Getenv(insideEnv)
	if dir == "" {
		return inNamespace(ctx, args)
	}
	binary, err := filepath.Abs(*agentBinary)
	if err == nil {
		_, err = os.Stat(binary)
	}
	if err != nil {
		return fmt.Errorf("find the agent: %w; make build makes it", err)
	}
	l := &lab{dir: dir, agent: binary, only: *only, part: 1}
	if *short {
		l.part = 3
	}
	return l.all(ctx, *length)
}

// inNamespace runs this command once more where its mounts are its own, and
// removes what it leaves.
func inNamespace(ctx context.Context, args []string) error {
	if os.Geteuid() != 0 {
		return errors.New("power cuts need root: loop devices and mounts")
	}
	for _, tool := range []string{"mkfs.ext4", "mkfs.xfs", "strace", "cp"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("find %s: %w; .ci/run installs it", tool, err)
		}
	}
	dir, err := os.MkdirTemp("", "crash-")
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	inside := exec.CommandContext(ctx, self, args...)
	inside.Cancel = func() error { return inside.Process.Signal(syscall.SIGTERM) }
	inside.WaitDelay = time.Minute
	inside.Env = append(os.Environ(), insideEnv+"="+dir)
	inside.Stdout, inside.Stderr = os.Stdout, os.Stderr
	inside.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err = inside.Run()
	if _, failed := errors.AsType[*exec.ExitError](err); failed {
		err = errors.New("see above")
	}
	return errors.Join(err, os.RemoveAll(dir))
}

// A lab is where all of it happens.
type lab struct {
	dir   string
	agent string
	only  string
	part  int // one in so many accidents is made
	rows  []result
	n     int // of folders made so far
}

// A result is a row of the table.
type result struct {
	what, target, measured string
	ok                     bool
}

func (l *lab) add(what, target, measured string, ok bool) {
	l.rows = append(l.rows, result{what, target, measured, ok})
	fmt.Printf("  %s: %s (%s)\n", what, measured, target)
}

// folder makes a new folder.
func (l *lab) folder(name string) (string, error) {
	l.n++
	dir := filepath.Join(l.dir, fmt.Sprintf("%s-%d", name, l.n))
	return dir, os.Mkdir(dir, 0o755)
}

// all does everything once, and again until length is over.
func (l *lab) all(ctx context.Context, length time.Duration) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	type accident struct {
		name string
		do   func(context.Context) error
	}
	accidents := []accident{
		{"spool on ext4", func(ctx context.Context) error { return l.spoolCuts(ctx, "ext4", 30/l.part) }},
		{"spool on xfs", func(ctx context.Context) error { return l.spoolCuts(ctx, "xfs", 15/l.part) }},
		{"spool without fsync", l.teeth},
		{"agent on ext4", func(ctx context.Context) error { return l.agentCuts(ctx, "ext4", 6/l.part) }},
		{"agent on xfs", func(ctx context.Context) error { return l.agentCuts(ctx, "xfs", max(4/l.part, 1)) }},
		{"kill at system calls", l.kills},
		{"full disk", l.fullDisk},
		{"no inodes", l.noInodes},
		{"read-only", l.readOnly},
		{"memory ceiling", l.memoryCeiling},
	}
	begun := time.Now()
	for round := 1; ; round++ {
		for _, a := range accidents {
			if !strings.Contains(a.name, l.only) {
				continue
			}
			fmt.Printf("%s (%d s)\n", a.name, int(time.Since(begun).Seconds()))
			if err := a.do(ctx); err != nil {
				l.table()
				return fmt.Errorf("%s: %w", a.name, err)
			}
		}
		if time.Since(begun) >= length || l.missed() > 0 {
			break
		}
		fmt.Printf("round %d is over after %v\n", round, time.Since(begun).Round(time.Second))
	}
	l.table()
	if n := l.missed(); n > 0 {
		return fmt.Errorf("%d targets missed", n)
	}
	return nil
}

func (l *lab) missed() (n int) {
	for _, r := range l.rows {
		if !r.ok {
			n++
		}
	}
	return n
}

// table prints the newest row of each kind and every one that missed.
func (l *lab) table() {
	count := map[string]int{}
	newest := map[string]int{}
	for i, r := range l.rows {
		count[r.what]++
		newest[r.what] = i
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nwhat was done\truns\ttarget\tmeasured\tverdict")
	for i, r := range l.rows {
		if r.ok && newest[r.what] != i {
			continue
		}
		verdict := "ok"
		if !r.ok {
			verdict = "MISSED"
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\n", r.what, count[r.what], r.target, r.measured, verdict)
	}
	_ = w.Flush() // to the terminal
}
