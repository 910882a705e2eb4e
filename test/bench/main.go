//go:build linux

// Command bench runs our agent and others at the same work on this machine and
// writes down what each needed: see docs/performance.md.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1) //nolint:forbidigo // this is main
	}
}

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// A bench is one run of the program.
type bench struct {
	dir      string // for everything it makes
	identity string // of our agent
	keep     bool
	rounds   int
	sizes    sizes
	ca       *authority
	peers    map[string]*peer
	only     map[string]bool // peers; all when empty
	machine  machine
	results  []result

	mu     sync.Mutex
	opened int
}

func run(ctx context.Context, args []string) error {
	if len(args) > 0 && args[0] == "ideal" {
		return runIdeal(args[1:])
	}
	b := &bench{peers: map[string]*peer{}, only: map[string]bool{}}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	agent := flags.String("agent", "build/log-analytics-agent", "our agent's `binary`")
	flags.StringVar(&b.dir, "dir", "build/bench", "`folder` for peers, data and results; not in memory, since writing to disk is measured")
	flags.IntVar(&b.rounds, "rounds", 3, "how often each work is done; medians are shown")
	flags.IntVar(&b.sizes.Backlog, "lines", 1000000, "lines of W1, 200 bytes each")
	flags.IntVar(&b.sizes.Messages, "messages", 500000, "syslog messages of W3")
	flags.DurationVar(&b.sizes.Steady, "steady", 30*time.Second, "length of W2")
	flags.DurationVar(&b.sizes.Window, "window", 30*time.Second, "length of W4 and W5")
	flags.BoolVar(&b.keep, "keep", false, "keep the folders of the agents")
	chosen := flags.String("works", "", "comma-separated `names` of works, such as W1,W2; all without")
	docs := flags.String("docs", "", "update the figures in this `file`, and the chart beside it")
	replay := flags.String("results", "", "show the results in this `file` instead of measuring")
	only := flags.String("peers", "", "comma-separated parts of peers' `names`; all without")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *replay != "" {
		text, err := os.ReadFile(*replay)
		if err != nil {
			return err
		}
		var r report
		if err := json.Unmarshal(text, &r); err != nil {
			return fmt.Errorf("read %s: %w", *replay, err)
		}
		return r.publish(b.dir, *docs)
	}
	if err := b.prepare(ctx, *agent, *only); err != nil {
		return err
	}
	b.machine = readMachine(ctx, b.dir)
	begun := time.Now()
	for round := range b.rounds {
		for _, w := range works() {
			if *chosen != "" && !strings.Contains(","+*chosen+",", ","+w.name+",") {
				continue
			}
			if err := b.do(ctx, w, round); err != nil {
				return err
			}
		}
	}
	r, err := b.report(*agent, begun)
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(b.dir, "results.json"), text, 0o644); err != nil {
		return err
	}
	return r.publish(b.dir, *docs)
}

// prepare makes everything that the works need.
func (b *bench) prepare(ctx context.Context, agent, only string) error {
	var err error
	if b.dir, err = filepath.Abs(b.dir); err != nil {
		return err
	}
	if agent, err = filepath.Abs(agent); err != nil {
		return err
	}
	b.identity = filepath.Join(b.dir, "identity")
	if err := errors.Join(os.RemoveAll(b.identity), os.RemoveAll(filepath.Join(b.dir, "run")), os.MkdirAll(b.dir, 0o755)); err != nil {
		return err
	}
	var fs syscall.Statfs_t
	if err := syscall.Statfs(b.dir, &fs); err != nil {
		return err
	}
	if fs.Type == 0x01021994 {
		return fmt.Errorf("%s lies in memory (tmpfs), where a sync costs nothing: give -dir a folder on a disk", b.dir)
	}
	if b.ca, err = newAuthority(filepath.Join(b.dir, "ca.pem"), workspaceID); err != nil {
		return err
	}
	for _, p := range peers(&installer{dir: filepath.Join(b.dir, "peers")}, agent, b.identity) {
		b.peers[p.name] = p
		for part := range strings.SplitSeq(only, ",") {
			if part != "" && strings.Contains(p.name, part) {
				b.only[p.name] = true
			}
		}
	}
	return b.onboard(ctx)
}

// do runs one round of a work.
func (b *bench) do(ctx context.Context, w *work, round int) error {
	var entries []entry
	for _, e := range w.entries {
		if (len(b.only) == 0 || b.only[e.peer]) && (round == 0 || !e.once) {
			entries = append(entries, e)
		}
	}
	var running sync.WaitGroup
	for _, e := range entries {
		r := result{Work: w.name, Peer: e.name(), Round: round}
		measure := func() {
			err := w.run(ctx, b, w, e, &r)
			if err != nil {
				r.Missing = err.Error()
			}
			b.mu.Lock()
			defer b.mu.Unlock()
			b.results = append(b.results, r)
			say("%d %-12s %-32s %s", round+1, w.name, e.name(), r.summary())
		}
		if w.together {
			running.Go(measure)
			continue
		}
		measure()
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	running.Wait()
	return ctx.Err()
}

func (r result) summary() string {
	if r.Missing != "" {
		return "none: " + r.Missing
	}
	return fmt.Sprintf("%.1f s, %.0f/s, CPU %.2f s (%.2f s/M, %.2f %%), peak %.0f MiB, PSS %.1f MiB, wire %.1f MB, disk %.1f MB, lost %d, dup %d, p50 %.0f ms, p99 %.0f ms, %.1f switches/s, start %.2f s, recovery %.1f s",
		r.Seconds, r.rate(), r.CPU, r.perMillion(), r.CPUPercent, mib(r.Peak), mib(r.PSS), mb(r.Wire), mb(r.Wrote), r.Lost, r.Dup, r.P50*1e3, r.P99*1e3, r.Switches, r.Start, r.Recovery)
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

func mb(n int64) float64 { return float64(n) / 1e6 }

// report puts together what was found.
func (b *bench) report(agent string, begun time.Time) (*report, error) {
	binary, err := os.Stat(agent)
	if err != nil {
		return nil, err
	}
	r := &report{
		When: begun, Machine: b.machine, Sizes: b.sizes, Rounds: b.rounds, Took: time.Since(begun),
		Binary: binary.Size(), Modes: map[string]string{}, Results: b.results,
	}
	for name, p := range b.peers {
		r.Modes[name] = p.mode
	}
	return r, nil
}
