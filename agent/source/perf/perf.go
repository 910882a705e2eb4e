// Package perf samples the performance of the machine: its processors, memory,
// network, disks, system and processes, as counters into the table Perf (New)
// and as the metrics of VM insights into the table InsightsMetrics
// (NewInsights).
//
// Objects, counters, instances and formulas are those of the OMS agent for
// Linux, so that queries and alerts written for it go on working. Three things
// differ. A rate is over the time between two samples, not over the last five
// minutes, and is missing, not 0, until two samples exist. Values keep their
// fractions unless Options.IntegerCompatible says otherwise. And a count that
// went back (a device replaced, a counter wrapped) gives no value instead of a
// wrong one.
package perf

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/openloganalytics/agent/agent/record"
	"github.com/openloganalytics/agent/agent/source"
	"github.com/openloganalytics/agent/agent/source/sampling"
	"github.com/openloganalytics/agent/internal/logfile"
)

// A Set is counters that are sampled at one interval. Sets of the same
// interval are sampled as one, and what they both name is collected once.
type Set struct {
	Interval   time.Duration // a second or more
	Specifiers []string      // see Check
}

// Options says what is sampled and how it is told.
type Options struct {
	Name     string // of the source; "" is "perf"
	Sets     []Set
	Computer string // short host name, column Host
	// OSCaption names the operating system: the instance of System. "" is
	// "System".
	OSCaption string
	// IntegerCompatible gives the whole numbers of the OMS agent for Linux.
	IntegerCompatible bool

	Root  string    // folder that holds proc and sys; "" is the machine itself
	Stats HostStats // nil asks the machine itself
	Log   *logfile.Logger
}

// HostStats is what the operating system tells by calls, not by files.
type HostStats interface {
	// Users returns the user of each login session. An error that is
	// fs.ErrNotExist says that this system does not record sessions.
	Users(ctx context.Context) ([]string, error)
	// Usage asks the file system that is mounted at path how full it is. It
	// takes as long as the file system does, perhaps for ever.
	Usage(path string) (Usage, error)
}

// Usage is how full a file system is.
type Usage struct {
	Major, Minor uint32 // of the device, as stat tells it
	BlockSize    uint64 // bytes
	Blocks       uint64
	Free         uint64 // blocks
	Available    uint64 // blocks that an unprivileged user may fill
	Inodes       uint64 // 0 when the file system does not count them
	FreeInodes   uint64
}

// New returns the source of the Perf table. It fails when a specifier is
// wrong; those of Windows and of applications are logged and passed over, since
// rules hold the counters of both systems and of all sources. It fails, too, on a machine that
// cannot be sampled: with errors.ErrUnsupported on Windows.
func New(o Options) (source.Source, error) {
	if o.Stats == nil {
		stats, err := newHostStats(o.Root)
		if err != nil {
			return nil, fmt.Errorf("collect performance counters: %w", err)
		}
		o.Stats = stats
	}
	p := &perf{
		name:  cmp.Or(o.Name, "perf"),
		table: &record.Table{Name: "Perf", DataType: "LINUX_PERF_BLOB", IPName: "LogManagement"},
		told:  map[string]string{},
	}
	var wrong []error
	var foreign []string
	for _, set := range o.Sets {
		if set.Interval < time.Second {
			wrong = append(wrong, fmt.Errorf("sample performance counters every %v: the shortest interval is 1s", set.Interval))
			continue
		}
		g := p.group(set.Interval)
		for _, text := range set.Specifiers {
			s, err := parseSpecifier(text)
			switch {
			case err == nil:
				g.selections[s.object].add(s.instance, s.counters)
			case errors.Is(err, ErrWindowsOnly), errors.Is(err, ErrApplication):
				foreign = append(foreign, text)
			default:
				wrong = append(wrong, err)
			}
		}
	}
	if len(wrong) > 0 {
		return nil, errors.Join(wrong...)
	}
	if len(foreign) > 0 {
		o.Log.Info("counters that this machine does not have are not collected here", "specifiers", foreign)
	}
	spaces := newProber(o.Stats.Usage)
	for _, g := range p.groups {
		g.equip(o, spaces)
	}
	return p, nil
}

// perf is the source.
type perf struct {
	name   string
	table  *record.Table
	groups []*group
	told   map[string]string // troubles, as the emitter knows them
}

// A group is all that is sampled at one interval.
type group struct {
	interval   time.Duration
	due        time.Time
	selections [objectCount]selection
	samplers   [objectCount]sampler // nil when the object is not wanted
	sample     sample
}

// group returns the group of an interval.
func (p *perf) group(interval time.Duration) *group {
	for _, g := range p.groups {
		if g.interval == interval {
			return g
		}
	}
	g := &group{interval: interval}
	p.groups = append(p.groups, g)
	return g
}

// equip makes the samplers that the selections need.
func (g *group) equip(o Options, spaces *prober) {
	g.sample = sample{computer: []byte(o.Computer), integer: o.IntegerCompatible, troubles: map[string]string{}}
	t := &tree{root: o.Root}
	shared := &disks{tree: t}
	for id := range objectCount {
		wanted := g.selections[id].wanted()
		if wanted == 0 {
			continue
		}
		switch id {
		case processorObject:
			g.samplers[id] = &processor{tree: t}
		case memoryObject:
			g.samplers[id] = &memory{tree: t, wanted: wanted}
		case networkObject:
			g.samplers[id] = &network{tree: t, up: map[string]bool{}}
		case physicalDiskObject:
			g.samplers[id] = &physicalDisk{disks: shared}
		case systemObject:
			g.samplers[id] = &system{tree: t, wanted: wanted, caption: []byte(cmp.Or(o.OSCaption, "System")), stats: o.Stats}
		case processObject:
			g.samplers[id] = newProcess(t, wanted)
		case logicalDiskObject:
			g.samplers[id] = newLogicalDisk(t, shared, wanted, spaces)
		case objectCount:
		}
	}
}

// Name implements source.Source.
func (p *perf) Name() string { return p.name }

// Run implements source.Source. Each set is read once at the start, for the
// rates, and emitted from one interval later on.
func (p *perf) Run(ctx context.Context, out source.Emitter) error {
	if len(p.groups) == 0 {
		<-ctx.Done()
		return nil
	}
	start := time.Now()
	for _, g := range p.groups {
		g.take(ctx, start)
		g.due = start.Add(g.interval)
	}
	p.tell(out)
	for {
		if !waitUntil(ctx, p.nextDue()) {
			return nil
		}
		now := time.Now()
		for _, g := range p.groups {
			if g.due.After(now) {
				continue
			}
			g.take(ctx, now)
			for !g.due.After(now) {
				g.due = g.due.Add(g.interval)
			}
			if err := p.emit(ctx, out, &g.sample); err != nil {
				return err
			}
		}
		p.tell(out)
	}
}

func (p *perf) nextDue() time.Time {
	return slices.MinFunc(p.groups, func(a, b *group) int { return a.due.Compare(b.due) }).due
}

// waitUntil reports whether the time came before ctx ended.
func waitUntil(ctx context.Context, due time.Time) bool {
	timer := time.NewTimer(time.Until(due))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return ctx.Err() == nil
	}
}

// take reads everything that the group wants.
func (g *group) take(ctx context.Context, at time.Time) {
	out := &g.sample
	out.start(at)
	for id, s := range g.samplers {
		if s == nil {
			continue
		}
		name, selected := objects[id].name, &g.selections[id]
		out.begin(objectID(id), selected)
		if err := s.read(ctx, out); err != nil {
			out.trouble(name, fmt.Sprintf("cannot collect all counters of %s: %v", name, err))
			continue
		}
		if objectID(id) == processObject {
			continue // a process that does not run is nothing wrong
		}
		for _, n := range selected.named {
			if !n.seen {
				out.trouble(fmt.Sprintf("%s(%s)", name, n.pattern), fmt.Sprintf("there is no %s %q on this machine now: "+
					"correct the counter specifier, or wait until it appears", name, n.pattern))
			}
		}
	}
}

// emit hands over a sample.
func (p *perf) emit(ctx context.Context, out source.Emitter, s *sample) error {
	return sampling.Emit(ctx, out, sampling.Rows{
		Table: p.table, At: s.at, Count: len(s.rows), Size: s.size, Fill: s.fill,
	}, p.shortest()/2)
}

func (p *perf) shortest() time.Duration {
	return slices.MinFunc(p.groups, func(a, b *group) int { return cmp.Compare(a.interval, b.interval) }).interval
}

// tell brings the emitter's troubles up to those of the last samples.
func (p *perf) tell(out source.Emitter) {
	for thing := range p.told {
		if !slices.ContainsFunc(p.groups, func(g *group) bool { return g.sample.troubles[thing] != "" }) {
			delete(p.told, thing)
			out.Trouble(thing, "")
		}
	}
	for _, g := range p.groups {
		for thing, text := range g.sample.troubles {
			if p.told[thing] != text {
				p.told[thing] = text
				out.Trouble(thing, text)
			}
		}
	}
}
