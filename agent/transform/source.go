package transform

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/openloganalytics/agent/agent/record"
	"github.com/openloganalytics/agent/agent/source"
)

// A Route is one way of the rows of a source.
type Route struct {
	// Wanted picks the rows that go this way by what their columns say; nil
	// takes all.
	Wanted func(column func(name string) []byte) bool
	// Pipeline changes them; nil leaves them as they are.
	Pipeline *Pipeline
	// Table is where they go; nil is the table that the source emits them to.
	Table *record.Table
}

// Options say what becomes of the rows of a source.
type Options struct {
	Routes []Route   // at least one; a row may go several ways
	Redact *Redactor // nil redacts nothing
}

// A Source is a source whose rows are transformed before they are emitted. What
// the rows of its windows add up to is part of the source's place: it is neither
// lost nor counted twice in a crash.
type Source struct {
	source.Source
	o   Options
	now func() time.Time

	mu       sync.Mutex
	filtered int64
	redacted map[string]int64
}

// Wrap returns s with its rows transformed.
func Wrap(s source.Source, o Options) *Source {
	return &Source{Source: s, o: o, now: time.Now, redacted: map[string]int64{}}
}

// Filtered returns how many rows were filtered out since the start: no route
// took them.
func (s *Source) Filtered() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.filtered
}

// Redacted returns how many secrets of each kind were redacted since the start.
func (s *Source) Redacted() map[string]int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.redacted)
}

func (s *Source) count(filtered int64, h hits) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.filtered += filtered
	for kind, n := range h {
		s.redacted[kind] += n
	}
}

// Run implements source.Source.
func (s *Source) Run(ctx context.Context, out source.Emitter) error {
	e := newEmitter(ctx, s, out)
	if err := e.restore(ctx); err != nil {
		return err
	}
	living, stop := context.WithCancel(ctx)
	var closing sync.WaitGroup
	var failed error
	closing.Go(func() {
		if failed = e.closeWindows(living); failed != nil {
			stop()
		}
	})
	err := s.Source.Run(living, e)
	stop()
	closing.Wait()
	if failed != nil && ctx.Err() == nil {
		return failed
	}
	return err
}

// key is the checkpoint that holds the open window of a route.
func (s *Source) key(route int) string { return Prefix + s.Name() + "/" + strconv.Itoa(route) }

// Prefix begins the key of each checkpoint of this package.
const Prefix = "transform:"

// emitter stands between a source and the agent.
type emitter struct {
	source.Emitter
	source *Source
	onStop func(func()) (forget func() bool) // when the source is to end

	turn    source.Turn // held by the one at work
	scratch map[*record.Table]*record.Batch
	routes  []routing
	members []column // of the row at hand
	row     row
	outputs []output
	opened  chan struct{} // a window may have been opened
}

// routing is what an emitter keeps of a route.
type routing struct {
	Route
	key     string            // of its checkpoint
	columns map[string]string // by the fields of the source's rows
	named   []column
	saved   []byte // its open window as the checkpoint has it
}

// sums reports whether the route sums rows up.
func (r *routing) sums() bool { return r.Pipeline != nil && r.Pipeline.aggregate != nil }

// An output is n rows for one table, a comma before each.
type output struct {
	table *record.Table
	rows  []byte
	n     int
}

func newEmitter(ctx context.Context, s *Source, out source.Emitter) *emitter {
	e := &emitter{
		Emitter: out, source: s, turn: source.NewTurn(), opened: make(chan struct{}, 1),
		onStop:  func(f func()) func() bool { return context.AfterFunc(ctx, f) },
		scratch: map[*record.Table]*record.Batch{},
	}
	for i, r := range s.o.Routes {
		routing := routing{Route: r, key: s.key(i)}
		if r.Pipeline != nil {
			routing.columns = r.Pipeline.header.known()
		}
		e.routes = append(e.routes, routing)
	}
	return e
}

// Emit implements source.Emitter.
func (e *emitter) Emit(ctx context.Context, table *record.Table, fill func(*record.Batch), at ...source.Checkpoint) error {
	if err := e.turn.Take(ctx); err != nil {
		return err
	}
	defer e.turn.Give()
	var filtered int64
	var hits hits
	if fill != nil {
		b := e.scratch[table]
		if b == nil {
			b = record.NewBatch(table, nil)
			e.scratch[table] = b
		}
		fill(b)
		n := b.Rows()
		rows := b.Drain()
		if e.source.o.Redact != nil {
			rows, hits = e.source.o.Redact.rows(rows)
		}
		var err error
		if filtered, err = e.distribute(ctx, table, rows, n); err != nil {
			e.outputs = e.outputs[:0]
			return e.settle(fmt.Errorf("transform rows of %s: %w", e.source.Name(), err))
		}
	}
	if err := e.send(ctx, table, at); err != nil {
		return err
	}
	e.source.count(filtered, hits)
	return nil
}

// distribute carries n rows along every route, into outputs.
func (e *emitter) distribute(ctx context.Context, table *record.Table, rows []byte, n int) (filtered int64, err error) {
	if e.foreign(table) {
		out := e.output(table)
		out.rows = append(out.rows, rows...)
		out.n += n
		return 0, nil
	}
	for len(rows) > 0 {
		var rest []byte
		if e.members, rest, err = cutRow(e.members[:0], rows[1:]); err != nil {
			return 0, err
		}
		one := rows[:len(rows)-len(rest)]
		rows = rest
		taken := false
		for i := range e.routes {
			took, err := e.along(ctx, &e.routes[i], table, one)
			if err != nil {
				return 0, err
			}
			taken = taken || took
		}
		if !taken {
			filtered++
		}
	}
	return filtered, nil
}

// foreign reports whether rows are of another kind than the pipelines are for:
// security messages among those of syslog. They go as they are.
func (e *emitter) foreign(table *record.Table) bool {
	return slices.ContainsFunc(e.routes, func(r routing) bool {
		return r.Pipeline != nil && r.Pipeline.header.table != "" && r.Pipeline.header.table != table.Name
	})
}

// along carries the row in members, whose text is one, along a route, and
// reports whether the route took it.
func (e *emitter) along(ctx context.Context, r *routing, table *record.Table, one []byte) (taken bool, err error) {
	if r.Wanted != nil && !r.Wanted(e.said) {
		return false, nil
	}
	to := table
	if r.Table != nil {
		to = r.Table
	}
	p := r.Pipeline
	if p == nil {
		out := e.output(to)
		out.rows = append(out.rows, one...)
		out.n++
		return true, nil
	}
	r.named = append(r.named[:0], e.members...)
	for i := range r.named {
		if name, is := r.columns[r.named[i].name]; is {
			r.named[i].name = name
		}
	}
	err = p.header.read(r.named, &e.row, func() error {
		if p.run(ctx, p.first, &e.row) {
			taken = true
			e.finish(ctx, p, to)
		}
		return nil
	})
	return taken, err
}

// said returns what a field of the row in members says.
func (e *emitter) said(name string) []byte {
	for _, m := range e.members {
		if m.name == name {
			return text(m.value)
		}
	}
	return nil
}

// finish writes the row, or sums it up.
func (e *emitter) finish(ctx context.Context, p *Pipeline, to *record.Table) {
	if p.aggregate == nil {
		e.write(p, to)
		return
	}
	now := e.source.now()
	if !p.aggregate.add(&e.row, now) {
		kept := e.row
		e.row = row{}
		e.end(ctx, p, to)
		e.row = kept
		if !p.aggregate.add(&e.row, now) {
			panic("BUG: an empty window takes no row")
		}
	}
	select {
	case e.opened <- struct{}{}:
	default:
	}
}

// end writes the rows of the open window, which is empty then.
func (e *emitter) end(ctx context.Context, p *Pipeline, to *record.Table) {
	p.aggregate.state.rows(&e.row, func() {
		if p.run(ctx, p.last, &e.row) {
			e.write(p, to)
		}
	})
	p.aggregate.reset()
}

func (e *emitter) write(p *Pipeline, to *record.Table) {
	out := e.output(to)
	out.rows = p.header.appendRow(out.rows, &e.row, to.LogType == "")
	out.n++
}

// output returns the output for a table; its buffer is used again.
func (e *emitter) output(table *record.Table) *output {
	for i := range e.outputs {
		if e.outputs[i].table == table {
			return &e.outputs[i]
		}
	}
	if len(e.outputs) < cap(e.outputs) {
		e.outputs = e.outputs[:len(e.outputs)+1]
	} else {
		e.outputs = append(e.outputs, output{})
	}
	out := &e.outputs[len(e.outputs)-1]
	out.table, out.rows, out.n = table, out.rows[:0], 0
	return out
}

// send emits the outputs, with the last of them the place after them and the
// windows that stay open. Once a part is taken the rest waits for room as long
// as the source runs: half of an Emit would be counted as lost, or come twice.
func (e *emitter) send(ctx context.Context, table *record.Table, at []source.Checkpoint) error {
	defer func() { e.outputs = e.outputs[:0] }()
	at = slices.Clone(at)
	for i := range e.routes {
		if r := &e.routes[i]; r.sums() {
			at = append(at, source.Checkpoint{Key: r.key, Value: r.Pipeline.aggregate.save(r.Table)})
		}
	}
	var parts []output
	for _, out := range e.outputs {
		parts = appendParts(parts, out)
	}
	if len(parts) == 0 {
		if len(at) == 0 {
			return nil
		}
		return e.settle(e.Emitter.Emit(ctx, table, nil, at...))
	}
	for i, part := range parts {
		var with []source.Checkpoint
		if i == len(parts)-1 {
			with = at
		}
		if i == 1 {
			var stop context.CancelFunc
			ctx, stop = context.WithCancel(context.WithoutCancel(ctx))
			defer e.onStop(stop)()
			defer stop()
		}
		fill := func(b *record.Batch) { b.AddRows(part.rows, part.n) }
		if err := e.Emitter.Emit(ctx, part.table, fill, with...); err != nil {
			return e.settle(err)
		}
	}
	return e.settle(nil)
}

// appendParts cuts an output into what one Emit may take.
func appendParts(parts []output, out output) []output {
	for out.n > 0 {
		rows, n := record.CutRows(out.rows, out.n, source.MaxEmit)
		parts = append(parts, output{out.table, rows, n})
		out.rows, out.n = out.rows[len(rows):], out.n-n
	}
	return parts
}

// settle remembers the open windows after an Emit, or goes back to those before
// it: of an Emit that failed nothing was taken.
func (e *emitter) settle(err error) error {
	for i := range e.routes {
		r := &e.routes[i]
		if !r.sums() {
			continue
		}
		if err == nil {
			r.saved = r.Pipeline.aggregate.save(r.Table)
			continue
		}
		if _, bad := r.Pipeline.aggregate.load(r.saved); bad != nil {
			panic("BUG: a window that was saved is not read: " + bad.Error())
		}
	}
	return err
}

// restore goes on with the windows that were open when the source last ran.
// What cannot go on is emitted as it is.
func (e *emitter) restore(ctx context.Context) error {
	old := map[string][]byte{}
	e.Checkpoints(Prefix+e.source.Name()+"/", func(key string, value []byte) bool {
		old[key] = slices.Clone(value)
		return true
	})
	for i := range e.routes {
		r := &e.routes[i]
		if !r.sums() {
			continue
		}
		saved := old[r.key]
		other, err := r.Pipeline.aggregate.load(saved)
		if err == nil && other == nil {
			r.saved = saved
			delete(old, r.key)
		}
	}
	for key, value := range old {
		if err := emitWindow(ctx, e.Emitter, key, value); err != nil {
			return err
		}
	}
	return nil
}

// emitWindow emits the rows of a window that nothing goes on with, and forgets it.
func emitWindow(ctx context.Context, out source.Emitter, key string, value []byte) error {
	forget := source.Checkpoint{Key: key}
	s, err := loadState(value)
	var table *record.Table
	if err == nil {
		table, err = record.ParseLabel(s.Table)
	}
	if err != nil {
		out.Lost(source.Loss{Reason: "sums-unreadable", Class: key, Bytes: int64(len(value))})
		return out.Emit(ctx, &record.Table{Name: "none"}, nil, forget)
	}
	var r row
	var rows []byte
	n := 0
	s.rows(&r, func() {
		rows = (&header{}).appendRow(rows, &r, false)
		n++
	})
	parts := appendParts(nil, output{table, rows, n})
	for i, part := range parts {
		var at []source.Checkpoint
		if i == len(parts)-1 {
			at = []source.Checkpoint{forget}
		}
		if err := out.Emit(ctx, table, func(b *record.Batch) { b.AddRows(part.rows, part.n) }, at...); err != nil {
			return err
		}
	}
	return nil
}

// closeWindows emits each window when its time is over, until ctx ends.
func (e *emitter) closeWindows(ctx context.Context) error {
	for {
		next, err := e.closeDue(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		var due <-chan time.Time
		if !next.IsZero() {
			timer := time.NewTimer(next.Sub(e.source.now()))
			defer timer.Stop()
			due = timer.C
		}
		select {
		case <-ctx.Done():
			return nil
		case <-due:
		case <-e.opened:
		}
	}
}

// closeDue emits the windows whose time is over, and returns when the next one
// ends; the zero time when none is open.
func (e *emitter) closeDue(ctx context.Context) (next time.Time, err error) {
	if err := e.turn.Take(ctx); err != nil {
		return next, err
	}
	defer e.turn.Give()
	now := e.source.now()
	var ended *record.Table
	for i := range e.routes {
		r := &e.routes[i]
		if !r.sums() {
			continue
		}
		end := r.Pipeline.aggregate.ends()
		switch {
		case end.IsZero():
		case !end.After(now):
			e.end(ctx, r.Pipeline, r.Table)
			ended = r.Table
		case next.IsZero() || end.Before(next):
			next = end
		}
	}
	if ended == nil {
		return next, nil
	}
	return next, e.send(ctx, ended, nil)
}

// Leftovers returns a source that emits the windows of sources that are there no
// more, nil when there are none. names are those of the sources that are.
func Leftovers(out func(prefix string, yield func(key string, value []byte) bool), names []string) source.Source {
	var l leftovers
	out(Prefix, func(key string, _ []byte) bool {
		if !slices.ContainsFunc(names, func(name string) bool {
			route, is := strings.CutPrefix(key, Prefix+name+"/")
			return is && !strings.Contains(route, "/")
		}) {
			l = append(l, key)
		}
		return true
	})
	if len(l) == 0 {
		return nil
	}
	return l
}

type leftovers []string // keys of checkpoints

func (leftovers) Name() string { return "transform" }

func (l leftovers) Run(ctx context.Context, out source.Emitter) error {
	if err := out.Flush(ctx); err != nil { // the source may have emitted more until it was stopped
		return err
	}
	for _, key := range l {
		value := out.Checkpoint(key)
		if value == nil {
			continue
		}
		if err := emitWindow(ctx, out, key, value); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return nil
}
