// Package sourcetest stands in for the spool when a source is tested: it keeps
// what the source emits, can block, fail and crash, and lets a test wait for
// what it expects instead of sleeping.
package sourcetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/openloganalytics/agent/agent/record"
	"github.com/openloganalytics/agent/agent/source"
)

// ErrCrashed is what a crashed Emitter answers.
var ErrCrashed = errors.New("emit: the emitter crashed")

// maxBody is the most that one Emit's rows may take as JSON: every byte of
// MaxEmit escaped, with as much again for keys.
const maxBody = 12 * source.MaxEmit

// A Row is one emitted record, decoded.
type Row = map[string]any

// An Emitter is a source.Emitter in memory. What is emitted stays open, and is
// lost in a Crash, until Durable or the source's own Flush makes it durable.
// Row and checkpoint queries show what was emitted, durable or not, unless
// they say otherwise.
type Emitter struct {
	compressor *record.Compressor

	mu          sync.Mutex
	changed     chan struct{} // closed and replaced at every change
	batches     map[*record.Table]*record.Batch
	rows        []tableRow
	kept        int // rows that are durable
	open        []source.Checkpoint
	checkpoints map[string][]byte // durable
	losses      []toldLoss
	troubles    map[string]string
	blocked     bool
	fail        error
}

// A toldLoss becomes durable as the agent makes it: with the place that the
// source emits next, or when one commit has passed without any.
type toldLoss struct {
	source.Loss
	due  bool // with the next commit
	kept bool
}

type tableRow struct {
	table string
	row   Row
}

// New returns an empty emitter.
func New() *Emitter {
	return &Emitter{
		compressor:  record.NewCompressor(),
		changed:     make(chan struct{}),
		batches:     make(map[*record.Table]*record.Batch),
		checkpoints: make(map[string][]byte),
		troubles:    make(map[string]string),
	}
}

// Emit implements source.Emitter. The rows pass through a real batch and come
// out of its body again, so a row that is not valid JSON is an error.
func (e *Emitter) Emit(ctx context.Context, table *record.Table, fill func(*record.Batch), at ...source.Checkpoint) error {
	if err := e.enter(ctx); err != nil {
		return err
	}
	defer e.leave()
	b := e.batches[table]
	if b == nil {
		b = record.NewBatch(table, e.compressor)
		e.batches[table] = b
	}
	b.Begin()
	if fill != nil {
		fill(b)
	}
	rows, err := decode(b)
	if err != nil {
		return err
	}
	for _, row := range rows {
		e.rows = append(e.rows, tableRow{table.Name, row})
	}
	e.dueLosses()
	for _, c := range at {
		e.open = append(e.open, source.Checkpoint{Key: c.Key, Value: slices.Clone(c.Value)})
	}
	return nil
}

func decode(b *record.Batch) ([]Row, error) {
	piece := b.Cut()
	if piece.Rows == 0 {
		return nil, nil
	}
	raw, err := record.Inflate(slices.Concat(piece.Data, piece.Tail), maxBody)
	if err != nil {
		return nil, err
	}
	texts, err := record.SplitRows(b.Table(), raw)
	if err != nil {
		return nil, err
	}
	if len(texts) != piece.Rows {
		return nil, fmt.Errorf("decode batch: %d rows added, %d in the body", piece.Rows, len(texts))
	}
	rows := make([]Row, len(texts))
	for i, text := range texts {
		if err := json.Unmarshal(text, &rows[i]); err != nil {
			return nil, fmt.Errorf("decode row %d: %w", i+1, err)
		}
	}
	return rows, nil
}

// enter waits while the emitter is blocked and returns with the lock held,
// or with an error and without it.
func (e *Emitter) enter(ctx context.Context) error {
	for {
		e.mu.Lock()
		switch {
		case e.fail != nil:
			defer e.mu.Unlock()
			return e.fail
		case ctx.Err() != nil:
			defer e.mu.Unlock()
			return ctx.Err()
		case !e.blocked:
			return nil
		}
		changed := e.changed
		e.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-changed:
		}
	}
}

// leave tells the waiters that something changed, and unlocks.
func (e *Emitter) leave() {
	close(e.changed)
	e.changed = make(chan struct{})
	e.mu.Unlock()
}

// Flush implements source.Emitter. It does not wait when there is nothing to
// make durable.
func (e *Emitter) Flush(ctx context.Context) error {
	e.mu.Lock()
	durable := e.fail == nil && e.kept == len(e.rows) && len(e.open) == 0 &&
		!slices.ContainsFunc(e.losses, func(l toldLoss) bool { return !l.kept })
	e.mu.Unlock()
	if durable {
		return ctx.Err()
	}
	if err := e.enter(ctx); err != nil {
		return err
	}
	defer e.leave()
	e.dueLosses()
	e.keep()
	return nil
}

// Durable makes everything emitted so far durable, as the spool does soon
// after each Emit. A loss that no Emit came after waits for one more Durable.
func (e *Emitter) Durable() {
	e.mu.Lock()
	defer e.leave()
	e.keep()
}

func (e *Emitter) keep() {
	e.kept = len(e.rows)
	for _, c := range e.open {
		if c.Value == nil {
			delete(e.checkpoints, c.Key)
		} else {
			e.checkpoints[c.Key] = c.Value
		}
	}
	e.open = nil
	for i := range e.losses {
		e.losses[i].kept = e.losses[i].due
	}
	e.dueLosses()
}

// dueLosses lets the next commit take all losses.
func (e *Emitter) dueLosses() {
	for i := range e.losses {
		e.losses[i].due = true
	}
}

// Crash ends this emitter as a power cut would: every later call fails with
// ErrCrashed. It returns the emitter of the next life, which has the durable
// rows, checkpoints and losses, and nothing else.
func (e *Emitter) Crash() *Emitter {
	e.mu.Lock()
	defer e.leave()
	next := New()
	next.rows = slices.Clone(e.rows[:e.kept])
	next.kept = e.kept
	next.checkpoints = maps.Clone(e.checkpoints)
	next.losses = slices.DeleteFunc(slices.Clone(e.losses), func(l toldLoss) bool { return !l.kept })
	e.fail = ErrCrashed
	return next
}

// Block makes every Emit and Flush wait, as a full spool does, until Unblock.
func (e *Emitter) Block() { e.set(func() { e.blocked = true }) }

// Unblock ends Block.
func (e *Emitter) Unblock() { e.set(func() { e.blocked = false }) }

// Fail makes every Emit and Flush return err and take nothing; nil ends it.
func (e *Emitter) Fail(err error) { e.set(func() { e.fail = err }) }

func (e *Emitter) set(change func()) {
	e.mu.Lock()
	defer e.leave()
	change()
}

// Checkpoint implements source.Emitter: the durable value.
func (e *Emitter) Checkpoint(key string) []byte {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.checkpoints[key])
}

// Latest returns the last value that was emitted for key, durable or not.
func (e *Emitter) Latest(key string) []byte {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range slices.Backward(e.open) {
		if c.Key == key {
			return slices.Clone(c.Value)
		}
	}
	return slices.Clone(e.checkpoints[key])
}

// Checkpoints implements source.Emitter: the durable values, in key order.
func (e *Emitter) Checkpoints(prefix string, yield func(key string, value []byte) bool) {
	e.mu.Lock()
	durable := maps.Clone(e.checkpoints)
	e.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(durable)) {
		if strings.HasPrefix(key, prefix) && !yield(key, durable[key]) {
			return
		}
	}
}

// Lost implements source.Emitter.
func (e *Emitter) Lost(loss source.Loss) {
	e.set(func() { e.losses = append(e.losses, toldLoss{Loss: loss}) })
}

// Trouble implements source.Emitter.
func (e *Emitter) Trouble(thing, text string) {
	e.set(func() {
		if text == "" {
			delete(e.troubles, thing)
		} else {
			e.troubles[thing] = text
		}
	})
}

// Rows returns the rows emitted to the table, in order.
func (e *Emitter) Rows(table string) []Row {
	e.mu.Lock()
	defer e.mu.Unlock()
	var rows []Row
	for _, r := range e.rows {
		if r.table == table {
			rows = append(rows, r.row)
		}
	}
	return rows
}

// Losses returns what was told to Lost, in order.
func (e *Emitter) Losses() []source.Loss {
	e.mu.Lock()
	defer e.mu.Unlock()
	losses := make([]source.Loss, len(e.losses))
	for i, l := range e.losses {
		losses[i] = l.Loss
	}
	return losses
}

// Troubles returns the troubles that are set.
func (e *Emitter) Troubles() map[string]string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return maps.Clone(e.troubles)
}

// Wait returns nil as soon as met does, which is asked at once and after every
// change, and an error with the present state when ctx ends first. met may
// call the emitter.
func (e *Emitter) Wait(ctx context.Context, met func() bool) error {
	for {
		e.mu.Lock()
		changed := e.changed
		e.mu.Unlock()
		if met() {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			e.mu.Lock()
			defer e.mu.Unlock()
			return fmt.Errorf("wait for emitter: %w; it has %d rows, losses %+v, troubles %v",
				ctx.Err(), len(e.rows), e.losses, e.troubles)
		}
	}
}

// WaitRows waits until at least n rows were emitted, to all tables together.
func (e *Emitter) WaitRows(ctx context.Context, n int) error {
	return e.Wait(ctx, func() bool { return e.count() >= n })
}

func (e *Emitter) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.rows)
}
