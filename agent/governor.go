package agent

import (
	"context"
	"fmt"
	"math"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"sync"
	"time"

	"github.com/openloganalytics/agent/internal/cgroup"
)

const (
	// memoryRoom of the ceiling at least is left to what Go does not count: the
	// program's own pages, and the reporter that shares the ceiling.
	memoryRoom = 24 << 20
	// Memory is short when what is in use is above shortAt of the limit, and no
	// longer when it is below enoughAt.
	shortAt  = 0.85
	enoughAt = 0.75
	// cpuWindow of the CPU's ceiling may be used at once.
	cpuWindow = 10 * time.Second
	// lookEvery is how often a paused source looks whether it may go on.
	lookEvery = time.Second
)

// A governor keeps the agent below its ceilings by making sources wait that
// lose nothing by it. It has no goroutine and no timer: it looks whenever a
// source hands something over. What the system enforces besides, in the unit or
// the control group, is the last resort.
type governor struct {
	limit   int64   // of memory, in bytes; 0 is none
	share   float64 // of a core; 0 is none
	held    func() (cgroup.Held, error)
	used    func() int64
	cpuTime func() time.Duration
	changed func()
	free    chan struct{} // closed by letGo

	mu     sync.Mutex
	short  bool
	looked time.Time // when memory was last measured
	until  time.Time // while memory is short, sources go on until then

	collected time.Time // when garbage was last collected for want of memory

	credit time.Duration // CPU time that may be used now
	spent  time.Duration // CPU time used up to filled
	filled time.Time
}

func newGovernor(l Limits, changed func()) *governor {
	g := &governor{share: float64(l.CPUPercent) / 100, held: cgroup.HeldHere, used: memoryInUse, cpuTime: cpuTime, changed: changed, free: make(chan struct{})}
	g.limit = softLimit(ceiling(l, g.held))
	g.filled, g.spent, g.credit = time.Now(), g.cpuTime(), g.most()
	return g
}

// ceiling is the memory that may be used, in bytes: what the settings say, or
// less where the system gives less; 0 is as much as there is.
func ceiling(l Limits, held func() (cgroup.Held, error)) int64 {
	bytes := int64(max(l.MemoryMB, 0)) << 20
	if h, err := held(); err == nil && h.Memory > 0 && (bytes == 0 || h.Memory < bytes) {
		bytes = h.Memory
	}
	return bytes
}

// softLimit is what Go itself may use of a ceiling, in bytes; 0 without one.
func softLimit(ceiling int64) int64 {
	if ceiling <= 0 {
		return 0
	}
	return max(ceiling-max(ceiling*15/100, memoryRoom), 16<<20)
}

// hold makes the garbage collector keep to the limit, and returns what undoes
// that.
func (g *governor) hold() (release func()) {
	if g.limit == 0 {
		return func() {}
	}
	before := debug.SetMemoryLimit(g.limit)
	return func() { debug.SetMemoryLimit(before) }
}

// letGo lets everybody through from now on. It is called once, when the agent
// stops: what sources have read by then must not wait.
func (g *governor) letGo() { close(g.free) }

// admit waits until there is room for more. Who has a deadline cannot wait for
// it, and is let through.
func (g *governor) admit(ctx context.Context) error {
	if g == nil {
		return nil
	}
	if _, hurried := ctx.Deadline(); hurried {
		return nil
	}
	for waited := false; ; waited = true {
		wait, short := g.wait(time.Now())
		// While memory is short all go on for a moment each second, unless it is
		// out: what is short may stay so, and many small groups are little work.
		if wait <= 0 || short && waited && g.used() < g.limit {
			g.letOn(time.Now())
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-g.free:
			return nil
		case <-time.After(wait):
		}
	}
}

// letOn lets everybody go on for a moment although memory is short.
func (g *governor) letOn(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.short && !now.Before(g.until) {
		g.until = now.Add(lookEvery / 10)
	}
}

// wait returns how long a source has to wait before it asks again, 0 when it
// need not, and whether that is for memory.
func (g *governor) wait(now time.Time) (wait time.Duration, short bool) {
	g.mu.Lock()
	was := g.short
	if g.limit > 0 && now.Sub(g.looked) >= lookEvery/10 {
		g.looked = now
		part := float64(g.used()) / float64(g.limit)
		g.short = part > shortAt || g.short && part > enoughAt
	}
	short = g.short
	until := g.until
	debt := g.debt(now)
	collect := short && now.Sub(g.collected) >= lookEvery
	if collect {
		g.collected = now
	}
	g.mu.Unlock()
	if short != was {
		g.changed()
	}
	if collect {
		debug.FreeOSMemory() // nothing may be left that starts a collection
	}
	if short && !now.Before(until) {
		return max(lookEvery, debt), true
	}
	return debt, false
}

// most is the CPU time that may be used at once.
func (g *governor) most() time.Duration { return time.Duration(g.share * float64(cpuWindow)) }

// debt returns how long it takes until the CPU time that was used is within
// the ceiling again. The caller holds mu.
func (g *governor) debt(now time.Time) time.Duration {
	if g.share == 0 {
		return 0
	}
	spent := g.cpuTime()
	g.credit = min(g.credit+time.Duration(g.share*float64(now.Sub(g.filled)))-(spent-g.spent), g.most())
	g.filled, g.spent = now, spent
	if g.credit >= 0 {
		return 0
	}
	return time.Duration(math.Ceil(float64(-g.credit)/g.share)) + 1
}

// health says how the agent is doing with its ceilings.
func (g *governor) health(l Limits) LimitsHealth {
	h := LimitsHealth{MemoryMB: l.MemoryMB, CPUPercent: l.CPUPercent, UsedMB: int(g.used() >> 20), State: "ok", Note: g.note(l)}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.short {
		h.State = "short"
		h.Message = fmt.Sprintf("memory is short: %d MB are in use under a ceiling of %d MB; files and other sources that keep their own records are "+
			"paused until it is enough again. If this stays, raise memoryQuotaInMB, or what the control group allows", h.UsedMB, ceiling(l, g.held)>>20)
	}
	return h
}

// note says which ceilings no control group holds, and what to do; "" when the
// system holds them all, or knows no control groups.
func (g *governor) note(l Limits) string {
	held, err := g.held()
	if err != nil {
		return ""
	}
	memory := int64(l.MemoryMB) << 20
	var alone, ask []string
	if l.MemoryMB > 0 && (held.Memory == 0 || held.Memory > memory) {
		alone, ask = append(alone, "memoryQuotaInMB"), append(ask, fmt.Sprintf("%d MB of memory", l.MemoryMB))
	}
	if l.CPUPercent > 0 && (held.CPU == 0 || held.CPU > float64(l.CPUPercent)) {
		alone, ask = append(alone, "cpuQuotaPercentage"), append(ask, fmt.Sprintf("%d %% of a core", l.CPUPercent))
	}
	switch {
	case len(alone) > 0:
		return fmt.Sprintf("no control group of this system holds %s: the agent itself keeps to it by making sources wait, and nothing else would stop it; "+
			"to have the system hold it, use systemd, or limit the container to %s", strings.Join(alone, " and "), strings.Join(ask, " and "))
	case held.Memory > 0 && held.Memory < memory:
		return fmt.Sprintf("the control group gives %d MB of memory, less than memoryQuotaInMB: the agent keeps to that", held.Memory>>20)
	}
	return ""
}

// memoryInUse is the memory that a garbage collection would not free, in bytes.
func memoryInUse() int64 {
	samples := []metrics.Sample{
		{Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/heap/stacks:bytes"},
		{Name: "/memory/classes/metadata/mcache/inuse:bytes"},
		{Name: "/memory/classes/metadata/mspan/inuse:bytes"},
		{Name: "/memory/classes/metadata/other:bytes"},
		{Name: "/memory/classes/os-stacks:bytes"},
		{Name: "/memory/classes/other:bytes"},
	}
	metrics.Read(samples)
	var sum uint64
	for _, s := range samples {
		if s.Value.Kind() == metrics.KindUint64 {
			sum += s.Value.Uint64()
		}
	}
	return int64(sum)
}
