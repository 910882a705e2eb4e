//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A result is one agent's figures in one run of one work.
type result struct {
	Work, Peer string
	Round      int
	Missing    string  `json:",omitempty"` // why there are no figures
	Records    int64   // that there were
	Lines      int64   `json:",omitempty"` // bytes of them
	Seconds    float64 // from the start of the work to the last upload
	CPU        float64 // seconds, user and system
	CPUPercent float64 `json:",omitempty"` // of one core
	Peak       int64   // resident bytes
	PSS        int64   `json:",omitempty"` // bytes, median
	Switches   float64 `json:",omitempty"` // a second
	Wrote      int64   // bytes to storage
	Store      int64   // bytes of the store, at most
	Wire       int64
	Requests   int64
	Lost, Dup  int64
	P50, P99   float64 `json:",omitempty"` // seconds from written to received
	Start      float64 `json:",omitempty"` // seconds from exec to the first record received
	Recovery   float64 `json:",omitempty"` // seconds from the end of the outage until all from before it was in
	PerSample  float64 `json:",omitempty"` // CPU seconds
}

// perMillion returns CPU seconds per million records.
func (r result) perMillion() float64 { return r.CPU / float64(r.Records-r.Lost) * 1e6 }

func (r result) rate() float64 { return float64(r.Records-r.Lost) / r.Seconds }

// A work is what agents are given to do.
type work struct {
	name, title string
	// entries are who does it; in together they do it at the same time, each
	// with a sink of its own, else one after the other.
	entries  []entry
	together bool
	run      func(ctx context.Context, b *bench, w *work, e entry, r *result) error
}

// An entry is a peer in a work.
type entry struct {
	peer  string
	label string // of the result, when it is not the peer's name
	part  int    // does a part-th of the records only; 0 is all
	once  bool   // in the first round only
	setup setup
	kills bool
}

func (e entry) name() string {
	if e.label != "" {
		return e.label
	}
	return e.peer
}

func (e entry) share(n int) int { return n / max(e.part, 1) }

// Sizes of the works.
type sizes struct {
	Backlog  int           // lines of W1
	Steady   time.Duration // of W2
	Messages int           // of W3
	Window   time.Duration // of W4 and W5
}

const (
	steadyRate   = 1000
	outageRate   = 2000
	datagramRate = 100000
)

// works lists all of them in the order in which they run.
func works() []*work {
	file := setup{Input: "file"}
	tcp, udp := setup{Input: "tcp", Form: "3164"}, setup{Input: "udp", Form: "3164"}
	modern := setup{Input: "tcp", Form: "5424"}
	counters, processes := setup{Input: "metrics"}, setup{Input: "metrics", Processes: true}
	list := []*work{
		{name: "W1", title: "tail a backlog", run: runBacklog, entries: []entry{
			{peer: ours, setup: file},
			{peer: ideal, setup: file},
			{peer: rsyslogMemory, setup: file},
			{peer: otelMemory, setup: file},
			{peer: otelDisk, setup: file},
			{peer: syslogNGDisk, part: 10, once: true, setup: file},
			{peer: telegrafMemory, part: 10, once: true, setup: file},
		}},
		{name: "W1-kill", title: "the same, killed once a third has arrived", run: runKilled, entries: []entry{
			{peer: ours, setup: file},
			{peer: otelDisk, once: true, part: 2, setup: file},
			{peer: rsyslogDisk, once: true, part: 2, setup: file},
			{peer: syslogNGDisk, once: true, part: 10, setup: file},
			{peer: telegrafMemory, once: true, part: 10, setup: file},
		}},
		{name: "W2", title: "1,000 lines a second", run: runSteady, together: true, entries: []entry{
			{peer: ours, setup: file},
			{peer: otelMemory, setup: file},
			{peer: otelDisk, setup: file},
			{peer: syslogNGDisk, setup: file},
			{peer: rsyslogMemory, setup: file},
			{peer: telegrafMemory, setup: file},
		}},
		{name: "W3-tcp", title: "syslog over TCP, RFC 3164", run: runMessages, entries: []entry{
			{peer: ours, setup: tcp}, {peer: rsyslogMemory, setup: tcp}, {peer: otelDisk, part: 4, setup: tcp}, {peer: syslogNGDisk, once: true, part: 4, setup: tcp},
		}},
		{name: "W3-tcp-5424", title: "syslog over TCP, RFC 5424", run: runMessages, entries: []entry{{peer: ours, setup: modern}, {peer: rsyslogMemory, setup: modern}}},
		{name: "W3-udp", title: "syslog over UDP, 100,000 a second", run: runMessages, entries: []entry{{peer: ours, setup: udp}, {peer: rsyslogMemory, setup: udp}}},
		{name: "W4", title: "counters every 10 s", run: runCounters, together: true, entries: []entry{
			{peer: ours, setup: counters},
			{peer: otelMemory, setup: counters},
			{peer: telegrafMemory, setup: counters},
			{peer: ours, label: ours + ", every process", setup: processes},
			{peer: otelMemory, label: otelMemory + ", every process", setup: processes},
		}},
		{name: "W5", title: "idle", run: runIdle, together: true, entries: []entry{
			{peer: ours, setup: file}, {peer: otelDisk, setup: file}, {peer: syslogNGDisk, setup: file}, {peer: rsyslogMemory, setup: file}, {peer: telegrafMemory, setup: file},
		}},
		{name: "W5-start", title: "start to first record", run: runStart, entries: []entry{
			{peer: ours, setup: file}, {peer: otelDisk, setup: file}, {peer: syslogNGDisk, setup: file}, {peer: rsyslogMemory, setup: file}, {peer: telegrafMemory, setup: file},
		}},
		{name: "W6", title: "30 s outage at 2,000 lines a second", run: runOutage, together: true, entries: []entry{
			{peer: ours, setup: file},
			{peer: otelDisk, setup: file},
			{peer: syslogNGDisk, setup: file},
			{peer: ours, label: ours + ", two kills", setup: file, kills: true},
			{peer: otelDisk, label: otelDisk + ", two kills", setup: file, kills: true},
			{peer: syslogNGDisk, label: syslogNGDisk + ", two kills", setup: file, kills: true},
		}},
	}
	return append(list, spoolWorks()...)
}

// figures fills in what every work reports, from t0 on and with what had been
// used until then taken off.
func (in *instance) figures(r *result, t0 time.Time, before usage) {
	now := in.used()
	in.sink.settle()
	seen := in.sink.count()
	elapsed := time.Since(t0).Seconds()
	r.CPU = (now.cpu - before.cpu).Seconds()
	r.CPUPercent = 100 * r.CPU / elapsed
	r.Switches = float64(now.switches-before.switches) / elapsed
	r.Peak, r.Wrote, r.PSS = in.peak, now.wrote-before.wrote, in.medianPSS(0)
	r.Store = in.store
	r.Wire, r.Requests = seen.Wire, seen.Requests
	if !seen.last.IsZero() {
		r.Seconds = seen.last.Sub(t0).Seconds()
	}
	total := seen.Total
	if in.setup.Input == "tcp" || in.setup.Input == "udp" {
		total /= in.peer.copies
	}
	r.Lost, r.Dup = r.Records-seen.Unique, total-seen.Unique
	r.P50, r.P99 = in.sink.latency(0.5).Seconds(), in.sink.latency(0.99).Seconds()
	if seen.Broken > 0 {
		r.Missing = fmt.Sprintf("%d uploads could not be read", seen.Broken)
	}
}

const (
	still    = 3 * time.Second // without a sign of work is the end
	patience = 5 * time.Minute
	settling = 4 * time.Second // from start to the begin of a work
)

// runBacklog has a file that is there already read to its end.
func runBacklog(ctx context.Context, b *bench, _ *work, e entry, r *result) (err error) {
	in, err := b.backlog(ctx, e, r, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.close()) }()
	if err := in.start(ctx); err != nil {
		return err
	}
	if err := in.quiet(still); err != nil {
		return err
	}
	in.figures(r, in.started, usage{})
	return nil
}

// backlog opens an instance that has a file of lines to read.
func (b *bench) backlog(ctx context.Context, e entry, r *result, later bool) (*instance, error) {
	n := e.share(b.sizes.Backlog)
	s := e.setup
	s.File = filepath.Join(b.dir, fmt.Sprintf("lines-%d.log", n))
	size, err := makeLog(s.File, n)
	if err != nil {
		return nil, err
	}
	r.Records, r.Lines = int64(n), size
	return b.open(ctx, b.peers[e.peer], s, n, later)
}

// runKilled sends SIGKILL once a third has arrived.
func runKilled(ctx context.Context, b *bench, _ *work, e entry, r *result) (err error) {
	in, err := b.backlog(ctx, e, r, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.close()) }()
	if err := in.start(ctx); err != nil {
		return err
	}
	for end := time.Now().Add(patience); in.sink.count().Unique < r.Records/3; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) || !in.alive() {
			return fmt.Errorf("a third never arrived: %s", in.tail())
		}
	}
	if err := in.restart(ctx); err != nil {
		return err
	}
	if err := in.quiet(2 * still); err != nil {
		return err
	}
	in.figures(r, in.started, usage{})
	return nil
}

// runSteady appends lines at a steady rate.
func runSteady(ctx context.Context, b *bench, _ *work, e entry, r *result) (err error) {
	n := steadyRate * int(b.sizes.Steady.Seconds())
	r.Records = int64(n)
	in, err := b.open(ctx, b.peers[e.peer], e.setup, n, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.close()) }()
	if err := in.start(ctx); err != nil {
		return err
	}
	time.Sleep(settling)
	before, t0, mark := in.used(), time.Now(), in.samples()
	if err := appendLines(in.setup.File, n, steadyRate, func(int) {}); err != nil {
		return err
	}
	loaded, elapsed := in.used(), time.Since(t0).Seconds()
	r.PSS = in.medianPSS(mark)
	pss := r.PSS
	if err := in.quiet(still); err != nil {
		return err
	}
	in.figures(r, t0, before)
	// The load is what counts, not the wait for its last lines.
	r.PSS = pss
	r.CPU = (loaded.cpu - before.cpu).Seconds()
	r.CPUPercent = 100 * r.CPU / elapsed
	r.Switches = float64(loaded.switches-before.switches) / elapsed
	return nil
}

// runMessages sends syslog messages: as fast as they are taken over TCP, at
// a rate over UDP.
func runMessages(ctx context.Context, b *bench, _ *work, e entry, r *result) (err error) {
	n, rate := e.share(b.sizes.Messages), 0
	if e.setup.Input == "udp" {
		rate = datagramRate
	}
	r.Records = int64(n)
	in, err := b.open(ctx, b.peers[e.peer], e.setup, n, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.close()) }()
	if err := in.start(ctx); err != nil {
		return err
	}
	time.Sleep(settling)
	before, t0 := in.used(), time.Now()
	if err := sendMessages(e.setup.Input, "127.0.0.1:"+in.setup.Listen, e.setup.Form, n, rate); err != nil {
		return fmt.Errorf("%w: %s", err, in.tail())
	}
	if err := in.quiet(still); err != nil {
		return err
	}
	in.figures(r, t0, before)
	return nil
}

// runCounters has counters sampled every ten seconds.
func runCounters(ctx context.Context, b *bench, _ *work, e entry, r *result) (err error) {
	if err := b.watch(ctx, e, r); err != nil {
		return err
	}
	r.PerSample = r.CPU / (b.sizes.Window.Seconds() / 10)
	return nil
}

// runIdle has nothing happen.
func runIdle(ctx context.Context, b *bench, _ *work, e entry, r *result) (err error) {
	return b.watch(ctx, e, r)
}

// watch measures an agent for a window of time.
func (b *bench) watch(ctx context.Context, e entry, r *result) (err error) {
	in, err := b.open(ctx, b.peers[e.peer], e.setup, 1, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.close()) }()
	if err := in.start(ctx); err != nil {
		return err
	}
	time.Sleep(2 * settling)
	before, t0, mark := in.used(), time.Now(), in.samples()
	time.Sleep(b.sizes.Window)
	in.figures(r, t0, before)
	r.PSS, r.Lost, r.Dup = in.medianPSS(mark), 0, 0
	if !in.alive() {
		return fmt.Errorf("it has ended by itself: %s", in.tail())
	}
	return nil
}

// runStart has one line wait when the agent starts.
func runStart(ctx context.Context, b *bench, _ *work, e entry, r *result) (err error) {
	in, err := b.open(ctx, b.peers[e.peer], e.setup, 1, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.close()) }()
	if err := os.WriteFile(in.setup.File, append(newWriter(1).line(nil, 0, time.Now().UnixNano()), '\n'), 0o644); err != nil {
		return err
	}
	r.Records = 1
	if err := in.start(ctx); err != nil {
		return err
	}
	for end := time.Now().Add(20 * time.Second); in.sink.count().Unique == 0 && time.Now().Before(end); {
		time.Sleep(2 * time.Millisecond)
	}
	in.figures(r, in.started, usage{})
	r.Start = r.Seconds
	return nil
}

// The course of W6.
const (
	outageFrom = 10 * time.Second
	firstKill  = 25 * time.Second // in the outage
	outageTo   = 40 * time.Second
	secondKill = 55 * time.Second // when all is well
	outageEnd  = 60 * time.Second // of the lines
)

// runOutage appends lines while the sink answers 503 for half a minute.
func runOutage(ctx context.Context, b *bench, _ *work, e entry, r *result) (err error) {
	n := outageRate * int(outageEnd.Seconds())
	r.Records = int64(n)
	in, err := b.open(ctx, b.peers[e.peer], e.setup, n, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.close()) }()
	if err := in.start(ctx); err != nil {
		return err
	}
	time.Sleep(settling)
	before, t0 := in.used(), time.Now()
	var written atomic.Int64
	var writeErr error
	var writing sync.WaitGroup
	writing.Go(func() {
		writeErr = appendLines(in.setup.File, n, outageRate, func(n int) { written.Store(int64(n)) })
	})
	until := func(at time.Duration) { time.Sleep(time.Until(t0.Add(at))) }
	until(outageFrom)
	in.sink.outage.Store(true)
	until(firstKill)
	if e.kills {
		if err := in.restart(ctx); err != nil {
			return err
		}
	}
	until(outageTo)
	backlog, back := written.Load(), time.Now()
	in.sink.outage.Store(false)
	for time.Since(back) < time.Minute {
		if in.sink.count().Unique >= backlog {
			r.Recovery = time.Since(back).Seconds()
			break
		}
		if e.kills && time.Since(t0) > secondKill {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	until(secondKill)
	if e.kills {
		if err := in.restart(ctx); err != nil {
			return err
		}
	}
	writing.Wait()
	if writeErr != nil {
		return writeErr
	}
	for end := time.Now().Add(time.Minute); in.sink.count().Unique < r.Records && time.Now().Before(end); {
		time.Sleep(100 * time.Millisecond)
	}
	time.Sleep(2 * still) // for what comes twice
	st, err := os.Stat(in.setup.File)
	if err != nil {
		return err
	}
	r.Lines = st.Size()
	in.figures(r, t0, before)
	return nil
}

// onboard makes an identity that the sink knows, once for all instances, as on
// a machine where the agent has been for long: what is measured is collecting.
func (b *bench) onboard(ctx context.Context) (err error) {
	in, err := b.open(ctx, b.peers[ours], setup{}, 1, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.close()) }()
	if err := in.start(ctx); err != nil {
		return err
	}
	dir := filepath.Join(in.setup.Dir, "vm/var/lib/log-analytics-agent/agent/workspaces", workspaceID)
	for end := time.Now().Add(30 * time.Second); exists(filepath.Join(dir, "workspace.key")); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) || !in.alive() {
			return fmt.Errorf("our agent did not onboard: %s", in.tail())
		}
	}
	in.kill(syscall.SIGTERM)
	return os.CopyFS(b.identity, os.DirFS(dir))
}
