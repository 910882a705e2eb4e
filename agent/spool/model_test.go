package spool

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/openloganalytics/agent/internal/vfs"
	"github.com/openloganalytics/agent/internal/vfs/memfs"
)

// A model is what the spool must hold, kept by the simplest means.
type model struct {
	batches     []*modelBatch
	next        ID
	checkpoints map[string]string
	finished    map[string]map[ID]bool // by destination; Done returned nil
	unsure      map[string]map[ID]bool // Done is under way, or failed
	maybe       []modelFrame           // appends that are under way, or failed
}

type modelBatch struct {
	id     ID
	label  string
	data   []byte
	tail   []byte
	rows   int
	broken bool // it has no beginning
}

type modelFrame struct {
	pieces      []Piece // with Batch as given to Append; closed tells which are taken
	closed      map[ID]bool
	checkpoints []Checkpoint
}

func newModel(destinations ...string) *model {
	m := &model{
		next: 1, checkpoints: map[string]string{},
		finished: map[string]map[ID]bool{}, unsure: map[string]map[ID]bool{},
	}
	for _, d := range destinations {
		m.finished[d], m.unsure[d] = map[ID]bool{}, map[ID]bool{}
	}
	return m
}

func (m *model) find(id ID) *modelBatch {
	for _, b := range m.batches {
		if b.id == id {
			return b
		}
	}
	return nil
}

// with returns the model after the frame f.
func (m *model) with(f modelFrame) *model {
	after := *m
	after.batches = slices.Clone(m.batches)
	after.checkpoints = maps.Clone(m.checkpoints)
	after.maybe = nil
	for _, p := range f.pieces {
		fresh := p.Batch == 0 || f.closed[p.Batch]
		if fresh {
			after.batches = append(after.batches, &modelBatch{id: after.next, label: string(p.Label), broken: p.Batch != 0})
			p.Batch = after.next
			after.next++
		}
		i := slices.IndexFunc(after.batches, func(b *modelBatch) bool { return b.id == p.Batch })
		b := *after.batches[i]
		b.data = append(slices.Clip(b.data), p.Data...)
		b.tail, b.rows = p.Tail, b.rows+p.Rows
		after.batches[i] = &b
	}
	for _, c := range f.checkpoints {
		if c.Value == nil {
			delete(after.checkpoints, c.Key)
		} else {
			after.checkpoints[c.Key] = string(c.Value)
		}
	}
	return &after
}

// serial is the checkpoint that each frame of a test carries, to tell which
// frame was the last.
const serial = "serial"

// resolve returns the model that agrees with an opened spool: m, or m after
// one of the frames that may have become durable. A frame cannot be there when
// a destination has finished a batch without the piece that the frame has for
// it: its rows would be lost.
func (m *model) resolve(s *Spool) (*model, error) {
	got := string(s.Checkpoint(serial))
	if got == m.checkpoints[serial] {
		return m, nil
	}
	for _, f := range m.maybe {
		if after := m.with(f); got == after.checkpoints[serial] && !m.wentWithout(f) {
			return after, nil
		}
	}
	return nil, fmt.Errorf("last frame is %q, acknowledged was %q", got, m.checkpoints[serial])
}

func (m *model) wentWithout(f modelFrame) bool {
	for _, p := range f.pieces {
		for _, finished := range m.finished {
			if p.Batch != 0 && !f.closed[p.Batch] && finished[p.Batch] {
				return true
			}
		}
	}
	return false
}

// check opens the spool on fs and compares everything in it with the model,
// then delivers all and opens it once more.
func (m *model) check(fs *memfs.FS, o Options) error {
	s, err := Open(fs, o)
	if err != nil {
		return err
	}
	want, err := m.resolve(s)
	if err != nil {
		return err
	}
	if err := want.compareCheckpoints(s); err != nil {
		return err
	}
	if d := s.Stats().Damage; d.Frames != 0 || d.Pieces != 0 || d.Rows != 0 {
		return fmt.Errorf("a crash is taken for damage: %+v", d)
	}
	for _, d := range o.Destinations {
		if err := want.deliver(s, d); err != nil {
			return fmt.Errorf("destination %s: %w", d, err)
		}
	}
	if err := s.Close(); err != nil {
		return err
	}
	if s, err = Open(fs, o); err != nil {
		return fmt.Errorf("second: %w", err)
	}
	if err := want.compareCheckpoints(s); err != nil {
		return fmt.Errorf("second: %w", err)
	}
	for _, d := range s.Stats().Destinations {
		if d.Waiting != 0 || d.Lost != 0 {
			return fmt.Errorf("second: %+v", d)
		}
	}
	return s.Close()
}

func (m *model) compareCheckpoints(s *Spool) error {
	got := map[string]string{}
	s.Checkpoints("", func(key string, value []byte) bool {
		got[key] = string(value)
		return true
	})
	if !maps.Equal(got, m.checkpoints) {
		return fmt.Errorf("checkpoints are %q, want %q", got, m.checkpoints)
	}
	return nil
}

// deliver takes and finishes all that waits for a destination, and compares it
// with the model: all that is not finished, nothing that is, in order.
func (m *model) deliver(s *Spool, name string) error {
	var last ID
	seen := map[ID]bool{}
	for {
		b := takeNow(s, name)
		if b == nil {
			break
		}
		want := m.find(b.ID)
		switch {
		case want == nil:
			return fmt.Errorf("batch %d was never appended", b.ID)
		case m.finished[name][b.ID]:
			return fmt.Errorf("batch %d is delivered again", b.ID)
		case b.ID <= last:
			return fmt.Errorf("batch %d comes after %d", b.ID, last)
		}
		last, seen[b.ID] = b.ID, true
		if err := want.compare(b); err != nil {
			return err
		}
		if err := s.Done(name, b.ID, Outcome{Delivered: b.Rows}); err != nil {
			return err
		}
	}
	for _, b := range m.batches {
		if !seen[b.id] && !m.finished[name][b.id] && !m.unsure[name][b.id] {
			return fmt.Errorf("batch %d is lost", b.id)
		}
	}
	return nil
}

func (want *modelBatch) compare(b *Batch) error {
	body, err := b.Body(nil)
	if want.broken {
		if !errors.Is(err, ErrDamaged) {
			return fmt.Errorf("batch %d without a beginning has a body (%w)", b.ID, err)
		}
		err = b.Pieces(func(index int, p Piece) bool {
			if index == 0 {
				body = append(body, "first"...)
			}
			body = append(body, p.Data...)
			return true
		})
		body = append(body, want.tail...)
	}
	switch {
	case err != nil:
		return err
	case b.Rows != want.rows || string(b.Label) != want.label:
		return fmt.Errorf("batch %d has %d rows for %q, want %d for %q", b.ID, b.Rows, b.Label, want.rows, want.label)
	case string(body) != string(want.data)+string(want.tail):
		return fmt.Errorf("batch %d has the body %q, want %q%q", b.ID, body, want.data, want.tail)
	}
	return nil
}

// takeNow is Next without waiting.
func takeNow(s *Spool, name string) *Batch {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, err := s.destination(name)
	if err != nil {
		panic(err)
	}
	return s.take(d)
}

// testOptions make many small segments and fixed bytes.
func testOptions(destinations ...string) Options {
	return Options{
		Budget: 1 << 20, KeepFree: 1, SegmentBytes: 3000, Destinations: destinations,
		Clock: func() time.Time { return time.Date(2026, 11, 22, 9, 31, 7, 0, time.UTC) },
		newID: func() uint64 { return 0x1122334455667788 },
	}
}

func mustOpen(t *testing.T, fs *memfs.FS, o Options) *Spool {
	t.Helper()
	s, err := Open(fs, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustAppend(t *testing.T, s *Spool, pieces []Piece, checkpoints ...Checkpoint) []ID {
	t.Helper()
	ids, err := s.Append(pieces, checkpoints)
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

// weights are how often each kind of step is taken; the zero value is the usual
// mixture.
type weights struct{ append, take, done, giveBack int }

// A player does random things to a spool and its model at once.
type player struct {
	rng     *rand.Rand
	fs      *memfs.FS
	o       Options
	weights weights
	s       *Spool
	m       *model
	n       int
	frames  []int // that were acknowledged with rows
	growing []ID  // batches of this life
	taken   map[string][]*Batch

	delivered map[string]map[ID]bool // Done was called, in any life
}

func newPlayer(rng *rand.Rand, o Options) *player {
	return &player{
		rng: rng, fs: memfs.New(), o: o,
		m: newModel(o.Destinations...), taken: map[string][]*Batch{},
		delivered: newModel(o.Destinations...).finished,
	}
}

// reopen opens the spool and finds out which of the unsure things came true.
func (p *player) reopen() error {
	if err := p.open(); err != nil {
		return err
	}
	return p.settle()
}

func (p *player) open() error {
	p.growing, p.taken = nil, map[string][]*Batch{}
	s, err := Open(p.fs, p.o)
	p.s = s
	return err
}

// settle compares what was opened with the model. A start that could not sync
// what it found does so before the first Append, at the latest.
func (p *player) settle() error {
	if err := p.s.settle(); err != nil {
		return err
	}
	m, err := p.m.resolve(p.s)
	if err != nil {
		return err
	}
	// What was not found may come back until something is durable after it: where
	// a failed segment was removed that may not be on the disk.
	p.m = m
	for _, d := range p.s.destinations {
		for id := range p.m.unsure[d.name] {
			if d.finished(id) && d.dirty {
				continue // it may yet be durable or not
			}
			if d.finished(id) {
				p.m.finished[d.name][id] = true
			}
			delete(p.m.unsure[d.name], id)
		}
	}
	return p.m.compareCheckpoints(p.s)
}

// step does one random thing. The errors it returns are broken promises.
func (p *player) step() error {
	w := p.weights
	if w == (weights{}) {
		w = weights{append: 5, take: 3, done: 3, giveBack: 1}
	}
	d := p.o.Destinations[p.rng.IntN(len(p.o.Destinations))]
	switch n := p.rng.IntN(w.append + w.take + w.done + w.giveBack); {
	case n < w.append:
		return p.append()
	case n < w.append+w.take:
		if b := takeNow(p.s, d); b != nil {
			p.taken[d] = append(p.taken[d], b)
			if p.rng.IntN(2) > 0 {
				return nil
			}
			if err := p.compare(b); !injected(err) {
				return err
			}
		}
	case n < w.append+w.take+w.done:
		if len(p.taken[d]) > 0 {
			i := p.rng.IntN(len(p.taken[d]))
			b := p.taken[d][i]
			p.taken[d] = slices.Delete(p.taken[d], i, i+1)
			p.done(d, b)
		}
	default:
		if len(p.taken[d]) > 0 {
			p.s.Return(d, p.taken[d][0].ID)
			p.taken[d] = p.taken[d][1:]
		}
	}
	return nil
}

// injected reports whether an error is one that a fault made.
func injected(err error) bool {
	return errors.Is(err, errIO) || errors.Is(err, vfs.ErrNoSpace) || errors.Is(err, vfs.ErrReadOnly)
}

func (p *player) compare(b *Batch) error {
	want := p.m.find(b.ID)
	if want == nil {
		return fmt.Errorf("batch %d was never appended", b.ID)
	}
	return want.compare(b)
}

func (p *player) done(d string, b *Batch) {
	delivered := p.rng.IntN(b.Rows + 1)
	p.m.unsure[d][b.ID], p.delivered[d][b.ID] = true, true
	if err := p.s.Done(d, b.ID, Outcome{Delivered: delivered, Refused: b.Rows - delivered}); err == nil {
		// A later Done makes an earlier one that failed durable, too.
		for id := range p.m.unsure[d] {
			p.m.finished[d][id] = true
			delete(p.m.unsure[d], id)
		}
	}
}

func (p *player) append() error {
	p.n++
	f := modelFrame{closed: map[ID]bool{}}
	f.checkpoints = append(f.checkpoints, Checkpoint{serial, []byte(strconv.Itoa(p.n))})
	if key := fmt.Sprintf("source/%d", p.rng.IntN(4)); p.rng.IntN(3) > 0 {
		value := bytes.Repeat([]byte{'v'}, p.rng.IntN(40))
		if p.rng.IntN(5) == 0 {
			value = nil
		}
		f.checkpoints = append(f.checkpoints, Checkpoint{key, value})
	}
	for range p.rng.IntN(4) {
		piece := Piece{
			Label: []byte("table"), Rows: 1 + p.rng.IntN(9), Raw: 100,
			Data: fmt.Appendf(nil, "<%d:%s>", p.n, bytes.Repeat([]byte{'d'}, p.rng.IntN(400))),
			Tail: fmt.Appendf(nil, "/%d", p.n),
		}
		if len(p.growing) > 0 && p.rng.IntN(2) == 0 {
			if id := p.growing[p.rng.IntN(len(p.growing))]; p.s.Continue(id) {
				piece.Batch = id
			}
		}
		f.pieces = append(f.pieces, piece)
	}
	// The one who continues a batch cannot know whether it was given up to a
	// destination meanwhile; here it is known, and sometimes made to happen.
	for i := range f.pieces {
		id := f.pieces[i].Batch
		if id != 0 && p.rng.IntN(20) == 0 {
			p.s.Release(id)
			d := p.o.Destinations[0]
			for b := takeNow(p.s, d); b != nil; b = takeNow(p.s, d) {
				p.taken[d] = append(p.taken[d], b)
				p.growing = slices.DeleteFunc(p.growing, func(id ID) bool { return id == b.ID })
			}
		}
	}
	for _, piece := range f.pieces {
		if piece.Batch == 0 {
			continue
		}
		if b := p.s.find(piece.Batch); b == nil || b.closed {
			f.closed[piece.Batch] = true
		}
	}
	if dup := sameTakenTwice(f); dup {
		f.pieces = f.pieces[:1]
	}
	p.m.maybe = append(p.m.maybe, f)
	ids, err := p.s.Append(f.pieces, f.checkpoints)
	if err != nil {
		return nil // it may be durable or not
	}
	p.m = p.m.with(f)
	if len(f.pieces) > 0 {
		p.frames = append(p.frames, p.n)
	}
	for i, id := range ids {
		if p.m.find(id) == nil {
			return fmt.Errorf("piece %d is in batch %d, which should not be", i, id)
		}
		if f.pieces[i].Batch == 0 {
			p.growing = append(p.growing, id)
		}
	}
	return nil
}

// sameTakenTwice reports whether two pieces continue the same taken batch; the
// model does not follow those into their common new batch.
func sameTakenTwice(f modelFrame) bool {
	seen := map[ID]bool{}
	for _, p := range f.pieces {
		if f.closed[p.Batch] && seen[p.Batch] {
			return true
		}
		seen[p.Batch] = true
	}
	return false
}
