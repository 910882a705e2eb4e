package customlog

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/openloganalytics/agent/agent/record"
	"github.com/openloganalytics/agent/agent/source"
	"github.com/openloganalytics/agent/agent/source/tail"
)

const (
	// framePatience is how long a record may wait for its next line.
	framePatience = 5 * time.Second
	// maxRecord is what is kept together as one record, in bytes; a longer one
	// goes on in the next.
	maxRecord = 128 << 10
)

// A framer stands between the files and the agent where a record is not simply
// a line. The lines of a record that has begun and may go on are kept with the
// place in the file, so that a crash neither loses nor repeats them.
type framer struct {
	source.Emitter
	s      *Source
	prefix string // of the checkpoints of records that may go on

	turn    source.Turn   // held by the one at work
	begun   chan struct{} // a record was begun
	pending map[string]*pending
	path    string // of the block that the last fill brought
	block   []byte
	batch   *record.Batch
	strange map[string]bool // files with lines that are no JSON
}

// pending is a record that may go on.
type pending struct {
	path string
	text []byte
	at   time.Time // that it names
	due  time.Time // when it is taken to be whole
}

func newFramer(s *Source, out source.Emitter) *framer {
	return &framer{
		Emitter: out, s: s, prefix: s.Name() + ":open:", turn: source.NewTurn(), begun: make(chan struct{}, 1),
		pending: map[string]*pending{}, batch: record.NewBatch(s.follow.Table, nil), strange: map[string]bool{},
	}
}

// run follows the files until ctx ends.
func (f *framer) run(ctx context.Context, follow func(context.Context) error) error {
	f.load()
	living, stop := context.WithCancel(ctx)
	var completing sync.WaitGroup
	var failed error
	completing.Go(func() {
		if failed = f.complete(living); failed != nil {
			stop()
		}
	})
	err := follow(living)
	stop()
	completing.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return errors.Join(failed, err)
}

// load goes on with the records that were open when the source last ran.
func (f *framer) load() {
	f.Checkpoints(f.prefix, func(key string, value []byte) bool {
		p, err := decodePending(value)
		if err != nil {
			f.s.follow.Log.Error("a record that had begun cannot be read and is counted as lost", "error", err)
			f.Lost(source.Loss{Reason: "record-unreadable", Records: 1, Bytes: int64(len(value))})
			p = &pending{}
		}
		p.due = time.Now().Add(framePatience)
		f.pending[strings.TrimPrefix(key, f.prefix)] = p
		return true
	})
}

// lines takes a block, which is only good until it returns.
func (f *framer) lines(_ *record.Batch, path string, block []byte) {
	f.path, f.block = path, append(f.block[:0], block...)
}

// Emit implements source.Emitter for tail: fill brings a block of one file,
// whose place is the first of at.
func (f *framer) Emit(ctx context.Context, table *record.Table, fill func(*record.Batch), at ...source.Checkpoint) error {
	if err := f.turn.Take(ctx); err != nil {
		return err
	}
	defer f.turn.Give()
	before := map[string]*pending{} // to go back to
	var strange int
	if fill != nil && len(at) > 0 {
		fill(nil)
		key := at[0].Key
		before[key] = f.pending[key]
		strange = f.frame(key)
	}
	for _, c := range at {
		if open := f.pending[c.Key]; c.Value == nil && open != nil { // the file is forgotten: its last record is whole
			before[c.Key] = open
			f.whole(open)
			delete(f.pending, c.Key)
		}
	}
	if err := f.send(ctx, at, before); err != nil {
		for key, p := range before {
			f.restore(key, p)
		}
		return err
	}
	if fill != nil {
		f.tell(strange)
	}
	return nil
}

func (f *framer) restore(key string, p *pending) {
	if p == nil {
		delete(f.pending, key)
		return
	}
	f.pending[key] = p
}

// send emits the rows of batch with the places after them. changed are the files
// whose open records are others now.
func (f *framer) send(ctx context.Context, at []source.Checkpoint, changed map[string]*pending) error {
	rows, n := f.batch.Rows(), 0
	left := f.batch.Drain()
	at = slices.Clone(at)
	for key, was := range changed {
		now := f.pending[key]
		switch {
		case now != nil:
			at = append(at, source.Checkpoint{Key: f.prefix + key, Value: now.encode()})
		case was != nil:
			at = append(at, source.Checkpoint{Key: f.prefix + key})
		}
	}
	for n < rows {
		part, k := record.CutRows(left, rows-n, source.MaxEmit)
		left, n = left[len(part):], n+k
		var with []source.Checkpoint
		if n == rows {
			with = at
		}
		if err := f.Emitter.Emit(ctx, f.s.follow.Table, func(b *record.Batch) { b.AddRows(part, k) }, with...); err != nil {
			return err
		}
	}
	if rows == 0 && len(at) > 0 {
		return f.Emitter.Emit(ctx, f.s.follow.Table, nil, at...)
	}
	return nil
}

// frame turns the block into records, and returns how many lines were no JSON.
// The last record stays open where one can go on.
func (f *framer) frame(key string) (strange int) {
	block := f.block
	if f.s.decoder != nil {
		block = f.decode(block)
	}
	if f.s.start == nil {
		return f.frameLines(block)
	}
	open := f.pending[key]
	if open != nil {
		open = &pending{path: open.path, text: bytes.Clone(open.text), at: open.at}
	}
	for len(block) > 0 {
		var line []byte
		line, block = tail.CutLine(block)
		at, starts := f.s.start.at(line)
		switch {
		case open == nil && len(line) == 0:
			continue
		case open == nil || starts || len(open.text)+1+len(line) > maxRecord:
			if open != nil {
				f.whole(open)
			}
			open = &pending{path: f.path, at: at, text: bytes.Clone(line)}
		default:
			open.text = append(append(open.text, '\n'), line...)
		}
	}
	delete(f.pending, key)
	if open != nil {
		open.due = time.Now().Add(framePatience)
		f.pending[key] = open
		select {
		case f.begun <- struct{}{}:
		default:
		}
	}
	return 0
}

// decode returns block in UTF-8. What cannot be decoded becomes U+FFFD.
func (f *framer) decode(block []byte) []byte {
	text, err := f.s.decoder.Bytes(block)
	if err != nil { // decoders replace what they do not know
		return block
	}
	return text
}

func (f *framer) frameLines(block []byte) (strange int) {
	now := time.Now()
	if !f.s.json {
		f.s.rows(f.batch, f.path, block)
		return 0
	}
	for len(block) > 0 {
		var line []byte
		line, block = tail.CutLine(block)
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		if !f.s.addJSON(f.batch, f.path, line, now) {
			strange++
		}
	}
	return strange
}

// whole adds a record. Its time is the one that it names, if it does.
func (f *framer) whole(p *pending) {
	at := p.at
	if at.IsZero() {
		at = time.Now()
	}
	text := bytes.TrimRight(p.text, "\n")
	if len(text) == 0 {
		return
	}
	f.s.begin(p.path, at)
	f.s.add(f.batch, text)
}

// tell says which files have lines that are no JSON, until they have none.
func (f *framer) tell(strange int) {
	switch {
	case !f.s.json:
	case strange > 0:
		f.strange[f.path] = true
		f.Trouble("lines of "+f.path, fmt.Sprintf("%d lines read last are no JSON objects, or have more than %d members; they arrive as they are in the column RawData. "+
			"Let the application write one object per line, or set format to text", strange, maxColumns))
	case f.strange[f.path]:
		delete(f.strange, f.path)
		f.Trouble("lines of "+f.path, "")
	}
}

// complete emits each record that has waited long enough, until ctx ends.
func (f *framer) complete(ctx context.Context) error {
	for {
		next, err := f.completeDue(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("emit records of %s: %w", f.s.Name(), err)
		}
		var due <-chan time.Time
		if !next.IsZero() {
			due = time.After(time.Until(next))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-due:
		case <-f.begun:
		}
	}
}

// completeDue emits the records that are due and returns when the next one is.
func (f *framer) completeDue(ctx context.Context) (next time.Time, err error) {
	if err := f.turn.Take(ctx); err != nil {
		return next, err
	}
	defer f.turn.Give()
	now := time.Now()
	ended := map[string]*pending{}
	for key, p := range f.pending {
		switch {
		case !p.due.After(now):
			ended[key] = p
			f.whole(p)
			delete(f.pending, key)
		case next.IsZero() || p.due.Before(next):
			next = p.due
		}
	}
	if len(ended) == 0 {
		return next, nil
	}
	if err := f.send(ctx, nil, ended); err != nil {
		for key, p := range ended {
			f.restore(key, p)
		}
		return next, err
	}
	return next, nil
}

// encode returns the record as its checkpoint holds it: the time that it names
// as nanoseconds since 1970 (0 is none), and the length of the path, as
// varints; then the path and the text.
func (p *pending) encode() []byte {
	var at int64
	if !p.at.IsZero() {
		at = p.at.UnixNano()
	}
	b := binary.AppendVarint(nil, at)
	b = binary.AppendUvarint(b, uint64(len(p.path)))
	return append(append(b, p.path...), p.text...)
}

var errPending = errors.New("decode the beginning of a record: it is cut off")

func decodePending(b []byte) (*pending, error) {
	at, n := binary.Varint(b)
	if n <= 0 {
		return nil, errPending
	}
	length, m := binary.Uvarint(b[n:])
	if m <= 0 || length > uint64(len(b)-n-m) {
		return nil, errPending
	}
	b = b[n+m:]
	p := &pending{path: string(b[:length]), text: bytes.Clone(b[length:])}
	if at != 0 {
		p.at = time.Unix(0, at)
	}
	return p, nil
}
