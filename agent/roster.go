package agent

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/openloganalytics/agent/agent/source"
	"github.com/openloganalytics/agent/agent/source/syslog"
	"github.com/openloganalytics/agent/agent/workspace"
)

// A roster is the sources at work. It brings them in line with another config
// while they run: who is not concerned goes on untouched.
type roster struct {
	o       Options
	machine *host
	intake  *intake
	changed func()
	follow  func(on bool) // asks the first workspace for its configuration, or no more

	changing sync.Mutex // one change at a time
	past     *past      // who ran before; belongs to who changes
	reading  sync.WaitGroup

	mu      sync.Mutex
	config  *Config
	pushed  *pushed // what the first workspace pushes; nil for nothing
	origin  string  // of the sources
	running []*running
}

func newRoster(o Options, machine *host, in *intake, changed func()) *roster {
	return &roster{o: o, machine: machine, intake: in, changed: changed, follow: func(bool) {}, config: o.Config}
}

// A plan is what is to run.
type plan struct {
	config  *Config
	pushed  *pushed
	origin  string
	sources []source.Source
	parts   map[string]part   // by the source's name
	origins map[string]string // by the source's name
}

// A part is what of the config a source was made from, as JSON. While that is
// the same, the source goes on. What selected says can change in a source that
// runs, if that is one of syslog and nothing around it.
type part struct{ fixed, selected string }

// plan makes the sources that a config and a pushed configuration ask for.
// None of them runs yet.
func (r *roster) plan(config *Config, p *pushed) (*plan, error) {
	inForce := *config
	var origin string
	inForce.Sources, origin = p.over(config)
	o := r.o
	o.Config = &inForce
	list, err := sources(o, r.machine)
	if err != nil {
		return nil, err
	}
	n := &plan{config: config, pushed: p, origin: origin, parts: map[string]part{}, origins: map[string]string{}}
	list = leftovers(list, r.intake.spool.Checkpoints)
	n.sources = append(list, newOperations(r.intake, r.machine.name))
	for _, s := range n.sources {
		name := s.Name()
		n.parts[name] = partOf(&inForce.Sources, name)
		n.origins[name] = originOf(name, origin, p)
	}
	return n, nil
}

// partOf returns the part of a source by its name.
func partOf(s *Sources, name string) part {
	kind, rest, _ := strings.Cut(name, ":")
	switch {
	case name == operationsName:
		return part{}
	case name == "heartbeat":
		return part{fixed: text(s.Heartbeat)}
	case kind == "perf":
		return part{fixed: text([]any{s.Counters, s.IntegerCounters})}
	case kind == "customlog":
		return part{fixed: text(slices.DeleteFunc(slices.Clone(s.CustomLogs), func(l CustomLog) bool { return l.Table != rest }))}
	case name == "syslog" && s.Syslog != nil:
		local := *s.Syslog
		local.Selectors = nil
		return part{text(local), text(s.Syslog.Selectors)}
	case kind == "syslog":
		var fixed []SyslogListener
		var selected []SyslogSelector
		for _, l := range s.SyslogListeners {
			if strings.HasPrefix(rest, l.Protocol+":") && strings.HasSuffix(rest, ":"+strconv.Itoa(l.Port)) {
				selected = append(selected, l.Selector)
				l.Selector = SyslogSelector{}
				fixed = append(fixed, l)
			}
		}
		return part{text(fixed), text(selected)}
	}
	return part{fixed: text(s)} // it may depend on anything
}

// text is v as JSON.
func text(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		panic("BUG: it does not marshal: " + err.Error())
	}
	return string(data)
}

// originOf says who asked for a source.
func originOf(name, origin string, p *pushed) string {
	switch {
	case name == operationsName:
		return OriginDefault
	case name == "heartbeat" && (origin != OriginWorkspace || p.heartbeat == 0):
		return OriginDefault
	case strings.HasPrefix(name, "syslog:"):
		return OriginSettings
	}
	return origin
}

// errStopping is why a change comes too late.
var errStopping = errors.New("the agent stops")

// apply stops the sources that the plan does not have, changes those that can
// be changed as they run, and starts the others. A source that another of its
// name follows has come to its end before that begins, and what it emitted is
// durable before the other reads its place. Sources end with ctx; wait waits
// for that.
func (r *roster) apply(ctx context.Context, n *plan) error {
	if ctx.Err() != nil {
		return errStopping
	}
	r.mu.Lock()
	before := r.running
	r.mu.Unlock()
	kept := unchanged(before, n)
	var stopping []*running
	for _, old := range before {
		if kept[old.source.Name()] == nil {
			old.stop()
			stopping = append(stopping, old)
		}
	}
	followed := map[string]bool{}
	for _, old := range stopping {
		<-old.done
		followed[old.source.Name()] = true
	}
	var now []*running
	for _, s := range n.sources {
		name := s.Name()
		if len(kept[name]) > 0 {
			old := kept[name][0]
			kept[name] = kept[name][1:]
			old.adjust(n.parts[name], s)
			now = append(now, old)
			continue
		}
		now = append(now, r.start(ctx, s, n.parts[name], followed[name]))
	}
	r.mu.Lock()
	r.config, r.pushed, r.origin, r.running = n.config, n.pushed, n.origin, now
	r.mu.Unlock()
	for _, one := range now {
		one.setOrigin(n.origins[one.source.Name()])
	}
	r.remember(now)
	r.follow(n.config.FollowWorkspace)
	r.changed()
	if len(before) > 0 {
		r.o.Log.Info("sources changed", "generation", n.config.Generation, "origin", n.origin, "sources", len(now), "stopped", len(stopping))
	}
	return nil
}

// unchanged returns the sources that go on, by name. Several of one name go on
// together or not at all.
func unchanged(before []*running, n *plan) map[string][]*running {
	wanted := map[string][]source.Source{}
	for _, s := range n.sources {
		wanted[s.Name()] = append(wanted[s.Name()], s)
	}
	kept := map[string][]*running{}
	for _, old := range before {
		name := old.source.Name()
		kept[name] = append(kept[name], old)
	}
	for name, list := range kept {
		if len(list) != len(wanted[name]) || !list[0].goesOn(n.parts[name], wanted[name][0]) {
			delete(kept, name)
		}
	}
	return kept
}

// goesOn reports whether the source can do what next would, which is made from
// another part of the config.
func (r *running) goesOn(p part, next source.Source) bool {
	_, is := r.source.(*syslog.Source)
	_, willBe := next.(*syslog.Source)
	return r.part.fixed == p.fixed && (r.part.selected == p.selected || is && willBe)
}

// adjust makes the source do what next would.
func (r *running) adjust(p part, next source.Source) {
	r.part = p
	is, _ := r.source.(*syslog.Source)
	willBe, _ := next.(*syslog.Source)
	if is != nil && willBe != nil {
		is.SelectAs(willBe)
	}
}

// start starts a source; again says that it follows another of its name.
func (r *roster) start(ctx context.Context, s source.Source, p part, again bool) *running {
	one := newRunning(s, r.intake, r.changed)
	one.again = again
	ctx, one.stop = context.WithCancel(ctx)
	one.part, one.done = p, make(chan struct{})
	r.reading.Go(func() {
		defer close(one.done)
		defer one.stop()
		one.run(ctx)
	})
	return one
}

// wait waits until all sources have ended, for no change to come after.
func (r *roster) wait() {
	r.changing.Lock()
	defer r.changing.Unlock()
	r.reading.Wait()
}

// obey brings the sources in line with another config.
func (r *roster) obey(ctx context.Context, config *Config) error {
	r.changing.Lock()
	defer r.changing.Unlock()
	n, err := r.plan(config, r.pushed)
	if err != nil {
		return err
	}
	return r.apply(ctx, n)
}

// push brings the sources in line with what the first workspace pushes.
func (r *roster) push(ctx context.Context, document []byte) workspace.Outcome {
	r.changing.Lock()
	defer r.changing.Unlock()
	p, err := readPushed(document, r.config.Workspaces[0].ID, r.config.AnyFile)
	if err != nil {
		return workspace.Outcome{Err: err}
	}
	n, err := r.plan(r.config, p)
	if err == nil {
		err = r.apply(ctx, n)
	}
	return workspace.Outcome{Err: err, Unobeyed: p.unobeyed}
}

// sourcesOnly reports whether two configs differ in nothing that needs more
// than other sources.
func sourcesOnly(a, b *Config) bool {
	x, y := *a, *b
	for _, c := range []*Config{&x, &y} {
		c.Generation, c.Sources, c.Origin, c.FollowWorkspace = "", Sources{}, "", false
	}
	return reflect.DeepEqual(x, y)
}

// inForce returns what runs now, and by which config.
func (r *roster) inForce() (generation string, list []*running) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.config.Generation, slices.Clone(r.running)
}

// configuration says where the sources come from; w is how the first
// workspace's client gets on with its own configuration.
func (r *roster) configuration(w workspace.ConfigurationState) ConfigurationHealth {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := ConfigurationHealth{Origin: r.origin, Asked: r.config.FollowWorkspace}
	if !h.Asked {
		return h
	}
	h.Workspace = r.config.Workspaces[0].ID
	h.Checksum, h.Answered, h.Problem = w.Checksum, w.Answered, w.Problem
	if r.pushed == nil {
		return h
	}
	for _, u := range r.pushed.unobeyed {
		h.Unobeyed = append(h.Unobeyed, u.Class+" "+u.ID+": "+u.Why)
	}
	return h
}
