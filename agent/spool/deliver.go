package spool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sync"
	"time"

	"github.com/openloganalytics/agent/internal/vfs"
)

// A Batch is one that a destination has taken: the body of one request.
type Batch struct {
	ID    ID
	Label []byte
	Rows  int
	Raw   int       // bytes before compression
	Size  int64     // bytes of the body
	Since time.Time // when its first piece was appended

	spool  *Spool
	batch  *batch
	pieces []piece // batch's: it is closed, they do not change
}

// An Outcome is what became of a batch's rows. Rows that are in neither count
// as lost: they were in pieces that are damaged.
type Outcome struct {
	Delivered int // the destination has them
	Refused   int // it will never take them
}

// A destination is one reader of the queue.
type destination struct {
	name string
	file string // name of its cursor's file

	// writing is held while the cursor is written.
	writing    sync.Mutex
	handle     vfs.File // nil: the file is to be made anew
	generation uint64   // of the last slot written

	// guarded by Spool.mu
	progress
	flight  map[ID]struct{}
	dirty   bool  // progress is ahead of the cursor
	durable ID    // through, as the cursor has it
	err     error // why the cursor could not be written
	counted bool  // the cursor's file is in Spool.bytes
}

// advance moves through over all that is finished. Numbers without a batch are
// finished too: their frames are gone, or another destination's.
func (d *destination) advance(s *Spool) {
	through := s.next - 1
	i, _ := slices.BinarySearchFunc(s.batches, d.through+1, compareID)
	for ; i < len(s.batches); i++ {
		if !d.finished(s.batches[i].id) {
			through = s.batches[i].id - 1
			break
		}
	}
	if through > d.through {
		d.done.shift(uint64(through - d.through))
		d.through = through
	}
}

func (s *Spool) destination(name string) (*destination, error) {
	for _, d := range s.destinations {
		if d.name == name {
			return d, nil
		}
	}
	return nil, fmt.Errorf("destination %s is not one of this spool", name)
}

// Next takes the oldest batch that the destination has not finished and has
// not in flight, one that Options.First prefers before any other, and waits for
// one until ctx ends. Nothing is added to a batch once it was taken. Several
// batches may be in flight at once; each is returned by Done or Return.
func (s *Spool) Next(ctx context.Context, name string) (*Batch, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	d, err := s.destination(name)
	for err == nil {
		if s.closed {
			err = ErrClosed
			break
		}
		if b := s.take(d); b != nil {
			s.mu.Unlock()
			return b, nil
		}
		s.waiting++
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		s.mu.Lock()
	}
	s.mu.Unlock()
	return nil, fmt.Errorf("take next batch: %w", err)
}

// take is Next without waiting; nil when there is nothing. The caller holds mu.
func (s *Spool) take(d *destination) *Batch {
	var next *batch
	i, _ := slices.BinarySearchFunc(s.batches, d.through+1, compareID)
	for _, b := range s.batches[i:] {
		if b.id > d.through+window {
			break // the cursor could not remember that it is finished
		}
		if _, busy := d.flight[b.id]; busy || b.pinned || d.finished(b.id) {
			continue
		}
		if next == nil {
			next = b
		}
		if s.o.First == nil {
			break
		}
		if s.first(b) {
			next = b
			break
		}
	}
	if next == nil {
		return nil
	}
	next.closed = true
	d.flight[next.id] = struct{}{}
	return &Batch{
		ID: next.id, Label: next.label, Rows: next.rows, Raw: next.raw, Size: next.size(),
		Since: time.Unix(0, next.since), spool: s, batch: next, pieces: next.pieces,
	}
}

// Done says that the destination has finished with a batch that it took. When
// Done returns nil that is durable, at the cost of one sync. When it returns
// an error the batch is finished all the same and only a crash would repeat
// it; the next Done or Append tries again to make it durable.
func (s *Spool) Done(name string, id ID, outcome Outcome) error {
	s.mu.Lock()
	d, err := s.returned(name, id)
	if err != nil {
		s.mu.Unlock()
		return fmt.Errorf("finish batch %d: %w", id, err)
	}
	d.delivered += uint64(max(outcome.Delivered, 0))
	d.refused += uint64(max(outcome.Refused, 0))
	d.done.set(uint64(id - d.through - 1))
	d.dirty = true
	d.advance(s)
	s.forget()
	s.wake()
	s.mu.Unlock()
	if err := s.moveCursor(d); err != nil {
		return fmt.Errorf("finish batch %d: %w", id, err)
	}
	s.sweep()
	return nil
}

// Return gives a batch back that the destination took, for another try later.
func (s *Spool) Return(name string, id ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.returned(name, id); err != nil {
		s.log.Debug("cannot return a batch", "batch", id, "error", err)
		return
	}
	s.wake()
}

// returned ends the flight of a batch. The caller holds mu.
func (s *Spool) returned(name string, id ID) (*destination, error) {
	d, err := s.destination(name)
	if err != nil {
		return nil, err
	}
	if _, ok := d.flight[id]; !ok {
		return nil, fmt.Errorf("destination %s has not taken it", name)
	}
	delete(d.flight, id)
	return d, nil
}

// forget drops from the index what all destinations have finished. The caller
// holds mu.
func (s *Spool) forget() {
	through := s.through(func(d *destination) ID { return d.through })
	n := 0
	for n < len(s.batches) && s.batches[n].id <= through {
		s.batches[n] = nil
		n++
	}
	s.batches = s.batches[n:]
}

// through returns the least of the destinations' places; without destinations
// all is kept. The caller holds mu.
func (s *Spool) through(place func(*destination) ID) ID {
	if len(s.destinations) == 0 {
		return 0
	}
	least := place(s.destinations[0])
	for _, d := range s.destinations[1:] {
		least = min(least, place(d))
	}
	return least
}

// Body appends the body to dst: Data of all pieces, then Tail of the last. It
// reads from the disk and verifies every byte.
//
// A batch of which pieces are gone has no body: the error is ErrDamaged, every
// time, and Pieces yields what is left. Any other error is worth another try.
func (b *Batch) Body(dst []byte) ([]byte, error) {
	body := slices.Grow(dst, int(b.Size))
	r := pieceReader{spool: b.spool, batch: b.batch}
	defer r.close()
	for i := range b.pieces {
		p := &b.pieces[i]
		size := int(p.size)
		if i == len(b.pieces)-1 {
			size += int(p.tail)
		}
		at := len(body)
		body = body[:at+size]
		whole, err := r.read(p, body[at:])
		if err != nil {
			return dst, fmt.Errorf("read batch %d: %w", b.ID, err)
		}
		if !whole || p.index != uint32(i) {
			return dst, fmt.Errorf("read batch %d: %w", b.ID, ErrDamaged)
		}
	}
	return body, nil
}

// Pieces calls yield with each piece of the batch that is whole, in order, for
// batches that have no body. index is its place in the body, from 0: where it
// does not count up a piece is missing. The piece is good until yield returns.
func (b *Batch) Pieces(yield func(index int, p Piece) bool) error {
	r := pieceReader{spool: b.spool, batch: b.batch}
	defer r.close()
	var buf []byte
	for i := range b.pieces {
		p := &b.pieces[i]
		size := int(p.size)
		buf = slices.Grow(buf[:0], size+int(p.tail))[:size+int(p.tail)]
		whole, err := r.read(p, buf)
		if err != nil {
			return fmt.Errorf("read pieces of batch %d: %w", b.ID, err)
		}
		if !whole {
			continue
		}
		if !yield(int(p.index), Piece{
			Batch: b.ID, Label: b.Label, Data: buf[:size:size], Tail: buf[size:],
			Rows: int(p.rows), Raw: int(p.raw),
		}) {
			return nil
		}
	}
	return nil
}

// pieceReader reads pieces of one batch, and opens each segment once.
type pieceReader struct {
	spool   *Spool
	batch   *batch
	segment *segment
	r       vfs.Reader
}

func (r *pieceReader) close() {
	if r.r != nil {
		if err := r.r.Close(); err != nil {
			r.spool.log.Debug("cannot close a segment after reading", "segment", r.segment.name, "error", err)
		}
	}
	r.r = nil
}

// maxTries is how often a disk may fail to read a batch before what it cannot
// read counts as gone.
const maxTries = 10

// read fills dst with the piece, with its Tail when dst has room for that, and
// reports whether it is what was appended.
func (r *pieceReader) read(p *piece, dst []byte) (whole bool, err error) {
	if r.r == nil || r.segment != p.segment {
		r.close()
		opened, err := r.spool.fs.Open(p.segment.name)
		if errors.Is(err, fs.ErrNotExist) {
			r.spool.noteDamage(p)
			return false, nil
		}
		if err != nil {
			return false, err
		}
		r.segment, r.r = p.segment, opened
	}
	n, err := r.r.ReadAt(dst, p.off)
	if n < len(dst) && !errors.Is(err, io.EOF) && r.spool.tryAgain(r.batch) {
		return false, err
	}
	want := p.dataCRC
	if len(dst) > int(p.size) {
		want = p.whole
	}
	if n < len(dst) || checksum(dst) != want {
		r.spool.noteDamage(p)
		return false, nil
	}
	return true, nil
}

// tryAgain counts a failure to read and reports whether to hope for better.
func (s *Spool) tryAgain(b *batch) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	b.tries++
	return b.tries < maxTries
}

// noteDamage counts a piece that is gone, once.
func (s *Spool) noteDamage(p *piece) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.bad {
		return
	}
	s.damaged(p)
	s.log.Error("a part of a batch is damaged on the disk", "segment", p.segment.name, "offset", p.off, "rows", p.rows)
}

// damaged enters a bad piece into the books. The caller holds mu.
func (s *Spool) damaged(p *piece) {
	p.bad = true
	p.segment.damaged = true
	s.damage.Pieces++
	s.damage.Rows += int64(p.rows)
}
