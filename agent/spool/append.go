package spool

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"slices"

	"github.com/openloganalytics/agent/internal/vfs"
)

// Append makes pieces and checkpoints durable as one frame and returns the
// batch of each piece. When it returns an error nothing of it is visible; the
// same call can be made again later (ErrFull, ErrFailing), or never
// (ErrTooLarge). Should the process end before that, a frame that failed may
// yet be found by the next Open, whole.
//
// A batch that Continue has held is given back either way. If a destination
// took it in between two tries, its piece comes to lie in a batch of its own
// that has no beginning, see Batch.Body.
func (s *Spool) Append(pieces []Piece, checkpoints []Checkpoint) ([]ID, error) {
	if err := check(pieces, checkpoints); err != nil {
		return nil, fmt.Errorf("append frame: %w", err)
	}
	if len(pieces) == 0 && len(checkpoints) == 0 {
		return nil, nil
	}
	s.appending.Lock()
	defer s.appending.Unlock()
	header, err := s.plan(pieces)
	if err != nil {
		return nil, fmt.Errorf("append frame: %w", err)
	}
	for i := range s.parts {
		s.parts[i].sum()
	}
	s.frame = appendFrame(s.frame[:0], &header, s.parts, checkpoints)
	seg, off, err := s.write(&header)
	if cap(s.frame) > keepBuffer {
		s.frame = nil
	}
	if err != nil {
		s.giveUp(pieces, err)
		return nil, fmt.Errorf("append frame: %w", err)
	}
	s.apply(&header, seg, off, checkpoints)
	ids := s.partIDs()
	clear(s.parts) // they refer to the caller's memory
	return ids, nil
}

// keepBuffer is the most that an idle spool holds on to, in bytes.
const keepBuffer = 4 << 20

// check refuses what the format has no room for.
func check(pieces []Piece, checkpoints []Checkpoint) error {
	var size, rows, raw uint64
	for i := range pieces {
		p := &pieces[i]
		if len(p.Tail) > MaxTail || len(p.Label) > math.MaxUint16 || p.Rows < 0 || p.Raw < 0 {
			return fmt.Errorf("%w: piece with a tail of %d and a label of %d bytes, %d rows, %d raw bytes",
				ErrTooLarge, len(p.Tail), len(p.Label), p.Rows, p.Raw)
		}
		size += uint64(pieceEntrySize + len(p.Label) + len(p.Data) + len(p.Tail))
		rows, raw = max(rows, uint64(p.Rows)), max(raw, uint64(p.Raw))
	}
	for i := range checkpoints {
		key := checkpoints[i].Key
		if len(key) > math.MaxUint16 || len(key) > 0 && key[0] == 0 {
			return fmt.Errorf("%w: checkpoint with a key of %d bytes, or one that begins with a zero byte", ErrTooLarge, len(key))
		}
		size += uint64(6 + len(key) + len(checkpoints[i].Value))
	}
	if size > MaxFrame || len(pieces) > math.MaxUint16 || rows > math.MaxUint32 || raw > math.MaxUint32 {
		return fmt.Errorf("%w: %d pieces and %d checkpoints of %d bytes together, %d allowed",
			ErrTooLarge, len(pieces), len(checkpoints), size, MaxFrame)
	}
	return nil
}

// plan gives each piece its batch and place, in parts, and holds the batches
// that are continued.
func (s *Spool) plan(pieces []Piece) (frameHeader, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return frameHeader{}, ErrClosed
	}
	for i := range pieces {
		if pieces[i].Batch >= s.next {
			return frameHeader{}, fmt.Errorf("batch %d was never begun", pieces[i].Batch)
		}
	}
	next := s.next
	s.parts = s.parts[:0]
	for i := range pieces {
		p := part{Piece: pieces[i]}
		if j := sameBatch(pieces[:i], p.Batch); p.Batch != 0 && j >= 0 {
			p.Batch, p.index = s.parts[j].Batch, s.parts[j].index+1
		} else if b := s.find(p.Batch); b != nil && !b.closed {
			b.pinned = true
			p.index = uint32(len(b.pieces))
		} else {
			if p.Batch != 0 {
				p.index = 1 // it was taken: this one has no beginning
			}
			p.Batch = next
			next++
		}
		s.parts = append(s.parts, p)
	}
	return frameHeader{
		spool: s.id, seq: s.seq, rows: s.rows, next: next, time: s.o.Clock().UnixNano(),
	}, nil
}

// sameBatch returns which is the last of pieces for batch id, or -1.
func sameBatch(pieces []Piece, id ID) int {
	for i, piece := range slices.Backward(pieces) {
		if piece.Batch == id {
			return i
		}
	}
	return -1
}

// giveUp is what follows a frame that could not be written.
func (s *Spool) giveUp(pieces []Piece, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.appendErr = err
	for i := range pieces {
		if b := s.find(pieces[i].Batch); b != nil {
			b.pinned = false
		}
	}
	s.wake()
}

// apply makes a durable frame, at off in seg, visible.
func (s *Spool) apply(h *frameHeader, seg *segment, off int64, checkpoints []Checkpoint) {
	s.mu.Lock()
	defer s.mu.Unlock()
	off += frameHeaderSize + int64(h.meta)
	for i := range s.parts {
		p := &s.parts[i]
		b := s.find(p.Batch)
		if b == nil {
			b = &batch{id: p.Batch, label: append([]byte(nil), p.Label...), since: h.time}
			s.batches = append(s.batches, b)
		}
		b.add(piece{
			segment: seg, off: off, index: p.index, tail: uint8(len(p.Tail)),
			size: uint32(len(p.Data)), rows: uint32(p.Rows), raw: uint32(p.Raw),
			dataCRC: p.dataCRC, whole: p.whole,
		})
		b.pinned = false
		seg.last = max(seg.last, p.Batch)
		s.rows += uint64(p.Rows)
		off += int64(len(p.Data) + len(p.Tail))
	}
	for i := range checkpoints {
		s.setCheckpoint(checkpoints[i])
	}
	s.seq++
	s.next = h.next
	s.appendErr = nil
	s.wake()
}

// partIDs returns the batches of the parts. They are cut off a longer slice, so
// that few calls allocate.
func (s *Spool) partIDs() []ID {
	if cap(s.ids)-len(s.ids) < len(s.parts) {
		s.ids = make([]ID, 0, max(len(s.parts), 512))
	}
	at := len(s.ids)
	for i := range s.parts {
		s.ids = append(s.ids, s.parts[i].Batch)
	}
	return s.ids[at:len(s.ids):len(s.ids)]
}

// Continue reports whether the batch can take another piece, and then holds it
// back from destinations until the next Append that names it, or Release. It
// is false for a batch that a destination has taken, that Open found, or that
// is unknown, and for any batch while room is short: then a piece has to begin
// a new batch.
func (s *Spool) Continue(id ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.find(id)
	if b == nil || b.closed || b.pieces[0].index != 0 || s.tight || s.appendErr != nil {
		return false
	}
	b.pinned = true
	return true
}

// Release gives a batch back that Continue holds.
func (s *Spool) Release(id ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.find(id); b != nil {
		b.pinned = false
		s.wake()
	}
}

// writer is the segment that frames are appended to; the zero writer is none.
type writer struct {
	segment *segment
	file    vfs.File
	head    int64 // bytes before the first frame that Append was given
}

// close ends the segment. All that counts in it is synced.
func (w *writer) close() error {
	if w.file == nil {
		return nil
	}
	err := w.file.Close()
	*w = writer{}
	return err
}

// write puts the frame at the end of the active segment and returns where it
// is. When that fails the segment is at its end and the frame goes into a new
// one: after a failed write or sync nobody knows what the kernel still has.
func (s *Spool) write(h *frameHeader) (*segment, int64, error) {
	if err := s.settle(); err != nil {
		return nil, 0, fmt.Errorf("%w: %w", ErrFailing, err)
	}
	if s.cursorFailed() {
		s.moveCursors()
	}
	size := int64(len(s.frame))
	if w := &s.active; w.file != nil && w.segment.size-w.head+size > s.o.SegmentBytes {
		if err := w.close(); err != nil {
			s.log.Warn("cannot close a full segment", "error", err)
		}
	}
	if s.active.file == nil {
		return s.begin(h)
	}
	if err := s.room(size); err != nil {
		return nil, 0, err
	}
	seg := s.active.segment
	off := seg.size
	n, err := s.active.file.WriteAt(s.frame, off)
	if err == nil {
		err = s.active.file.Sync()
	}
	if err != nil {
		s.log.Warn("cannot append to a segment, its next frame goes to a new one", "segment", seg.name, "error", err)
		s.seal(int64(n))
		return s.begin(h)
	}
	s.grow(seg, size)
	return seg, off, nil
}

// seal ends the active segment after a failure that left n doubtful bytes
// behind its last frame, and cuts them off if it can.
func (s *Spool) seal(n int64) {
	seg := s.active.segment
	if err := s.active.file.Truncate(seg.size); err != nil {
		s.log.Debug("cannot cut off a frame that failed", "segment", seg.name, "error", err)
		s.grow(seg, n)
	}
	if err := s.active.close(); err != nil {
		s.log.Debug("cannot close a segment that failed", "segment", seg.name, "error", err)
	}
}

func (s *Spool) grow(seg *segment, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bytes += OnDisk(seg.size+n) - OnDisk(seg.size)
	seg.size += n
}

// begin makes a new segment with a snapshot and the frame in it.
func (s *Spool) begin(h *frameHeader) (*segment, int64, error) {
	s.mu.Lock()
	seg := &segment{name: segmentName(s.number), number: s.number, first: h.seq, whole: true}
	s.number++
	snapshot := *h
	snapshot.flags, snapshot.next = flagSnapshot, s.next
	checkpoints := s.snapshot()
	s.mu.Unlock()
	head := appendSegmentHeader(nil, segmentHeader{
		version: Format, spool: h.spool, number: seg.number, first: h.seq, rows: h.rows,
	})
	head = appendFrame(head, &snapshot, nil, checkpoints)
	off := int64(len(head))
	if err := s.room(off + int64(len(s.frame))); err != nil {
		return nil, 0, err
	}
	s.ensureReserve()

	file, err := s.fs.Create(seg.name)
	if err != nil {
		return nil, 0, fmt.Errorf("%w: create segment: %w", ErrFailing, err)
	}
	n, err := file.WriteAt(head, 0)
	if err == nil {
		var m int
		m, err = file.WriteAt(s.frame, off)
		n += m
	}
	if err == nil {
		err = file.Sync()
	}
	if err == nil {
		err = s.fs.SyncDir()
	}
	if err != nil {
		err = fmt.Errorf("%w: write segment: %w", ErrFailing, err)
		return nil, 0, errors.Join(err, s.discard(seg, file, int64(n)))
	}
	s.active = writer{segment: seg, file: file, head: off}
	s.mu.Lock()
	s.segments = append(s.segments, seg)
	s.mu.Unlock()
	s.grow(seg, int64(n))
	return seg, off, nil
}

// discard removes a new segment that holds nothing but a frame that failed. If
// it stays, the next one makes its frame void, and it has to go before that one
// does: see FORMAT.md.
func (s *Spool) discard(seg *segment, file vfs.File, size int64) error {
	err := file.Close()
	if removeErr := s.fs.Remove(seg.name); removeErr != nil {
		seg.whole = false
		s.mu.Lock()
		s.segments = append(s.segments, seg)
		s.mu.Unlock()
		s.grow(seg, size)
		err = errors.Join(err, removeErr)
	}
	return err
}

// settle makes durable what Open has found: what an earlier process wrote, but
// did not live to sync, must not be built upon. A sync alone does not do: if one
// has failed before, the kernel may have dropped what is in the file and say
// that all is well. So the segment is copied beside itself and put in its place.
func (s *Spool) settle() error {
	s.mu.Lock()
	seg := s.unsettled
	s.mu.Unlock()
	if seg.segment == nil {
		return nil
	}
	beside := seg.name + besideSuffix
	err := s.copySegment(&seg, beside)
	if errors.Is(err, vfs.ErrNoSpace) && s.spendReserve() {
		err = s.copySegment(&seg, beside)
	}
	if err == nil {
		err = s.fs.Rename(beside, seg.name)
	}
	if err == nil {
		err = s.fs.SyncDir()
	}
	if err != nil {
		return fmt.Errorf("make last segment durable: %w", err)
	}
	s.grow(seg.segment, seg.end-seg.size)
	s.mu.Lock()
	s.unsettled = unsettled{}
	s.mu.Unlock()
	return nil
}

// copySegment writes a copy of the segment under another name, as far as it
// counts, and makes its bytes durable. What the copy holds is what Open has
// found, or it fails.
func (s *Spool) copySegment(seg *unsettled, name string) error {
	if err := s.fs.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	from, err := s.fs.Open(seg.name)
	if err != nil {
		return err
	}
	file, err := s.fs.Create(name)
	if err != nil {
		return errors.Join(err, from.Close())
	}
	_, err = io.CopyBuffer(io.NewOffsetWriter(file, 0), io.NewSectionReader(from, 0, seg.end), make([]byte, min(seg.end, 64<<10)))
	if err == nil {
		err = file.Sync()
	}
	err = errors.Join(err, file.Close(), from.Close())
	if err == nil {
		err = s.sameFrames(name, seg)
	}
	if err != nil {
		return errors.Join(err, s.fs.Remove(name))
	}
	return nil
}

// sameFrames returns an error unless the last good frame of a copy of the last
// segment is the last one that Open has found.
func (s *Spool) sameFrames(name string, seg *unsettled) error {
	sc, err := openScanner(s.fs, name)
	if err != nil {
		return err
	}
	sc.spool = s.id
	next := seg.first
	for f, ok := sc.next(segmentHeaderSize); ok; f, ok = sc.next(f.end()) {
		if f.flags&flagSnapshot == 0 && sc.verify(&f) == nil {
			next = max(next, f.seq+1)
		}
	}
	if err := sc.Close(); err != nil {
		return err
	}
	if next != seg.next {
		return fmt.Errorf("copy ends before frame %d, want %d: the disk does not give again what it gave at first", next, seg.next)
	}
	return nil
}

// room returns ErrFull when size more bytes are too many. A frame that
// continues batches may use the last of the room: they are held back from the
// destinations until it is written.
func (s *Spool) room(size int64) error {
	err := s.roomFor(size)
	if err == nil {
		return nil
	}
	// Segments may only be waiting for a cursor that could not be written.
	s.moveCursors()
	return s.roomFor(size)
}

func (s *Spool) roomFor(size int64) error {
	size = OnDisk(size)
	free := int64(math.MaxInt64) // who cannot tell is found out by the write
	if n, err := s.fs.Free(); err == nil && n < math.MaxInt64 {
		free = int64(n)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	continues := false
	for i := range s.parts {
		continues = continues || s.parts[i].index > 0
	}
	left := s.o.Budget - s.held() - s.bytes - size
	overFree := free - s.o.KeepFree - size
	s.tight = left < s.o.SegmentBytes || overFree < 0
	switch {
	case continues && left >= 0 && overFree >= -s.o.KeepFree/2, !s.tight:
		return nil
	case overFree < 0:
		return fmt.Errorf("%w: the file system has %d MiB left, %d MiB are kept free for others", ErrFull, free>>20, s.o.KeepFree>>20)
	}
	return fmt.Errorf("%w: %d of %d KiB are used", ErrFull, s.bytes>>10, s.o.Budget>>10)
}
