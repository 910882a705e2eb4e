package spool

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Names of the files in the folder. Numbers are 16 hexadecimal digits, so that
// names sort as the numbers do.
const (
	segmentPrefix = "segment-"
	cursorPrefix  = "cursor-"
	asidePrefix   = "aside-"
	reserveName   = "reserve"
	besideSuffix  = ".new" // of a file that is to replace another
)

func segmentName(number uint64) string { return fmt.Sprintf("%s%016x", segmentPrefix, number) }

func asideName(number uint64, kind string) string {
	return fmt.Sprintf("%s%016x%s", asidePrefix, number, kind)
}

// numberOf returns the number after prefix in name; what follows its digits
// does not matter.
func numberOf(name, prefix string) uint64 {
	var n uint64
	digits := strings.TrimPrefix(name, prefix)
	if _, err := fmt.Sscanf(digits[:min(16, len(digits))], "%x", &n); err != nil {
		return 0
	}
	return n
}

// A recovery is Open at work.
type recovery struct {
	*Spool
	names   []string // of all files
	files   []foundSegment
	cursors []slot // one to a file, the newest valid
	records map[string]record

	// unsigned is the first batch with rows since the newest snapshot whose
	// segment has lost its own: nobody knows who they were for. 0 is none.
	unsigned ID

	found    map[ID]*batch
	current  *segment
	previous *segment
}

// record is what the last snapshot remembers of a destination.
type record struct {
	progress
	removed bool
}

// foundSegment is a segment as it was found.
type foundSegment struct {
	*segment
	header segmentHeader
	valid  bool // the header is
}

// restore reads the folder and builds the index.
func (s *Spool) restore() error {
	r := &recovery{Spool: s, records: map[string]record{}, found: map[ID]*batch{}}
	if err := r.list(); err != nil {
		return err
	}
	if err := r.chooseID(); err != nil {
		return err
	}
	if err := r.order(); err != nil {
		return err
	}
	for i := range r.files {
		if err := r.replay(i); err != nil {
			return err
		}
	}
	r.index()
	r.openDestinations()
	s.forget()
	if err := s.settle(); err != nil {
		s.log.Warn("cannot sync what the spool holds", "error", err)
	}
	s.moveCursors()
	s.report()
	return nil
}

// list finds the files and reads what is small: segment headers and cursors.
func (r *recovery) list() error {
	names, err := r.fs.List()
	if err != nil {
		return fmt.Errorf("list folder: %w", err)
	}
	r.names = names
	for _, name := range names {
		size := OnDisk(r.sizeOf(name))
		switch {
		case strings.HasSuffix(name, besideSuffix):
			// Written beside and never put in place: it holds nothing new.
			if err := r.fs.Remove(name); err != nil {
				r.log.Debug("cannot remove an unfinished file", "file", name, "error", err)
				break
			}
			continue
		case name == reserveName:
			r.reserved = true
		case strings.HasPrefix(name, segmentPrefix):
			if err := r.readHeader(name); err != nil {
				return err
			}
		case strings.HasPrefix(name, cursorPrefix):
			if err := r.readCursor(name); err != nil {
				return err
			}
		case strings.HasPrefix(name, asidePrefix):
			r.asideNumber = max(r.asideNumber, numberOf(name, asidePrefix))
			r.aside = append(r.aside, asideFile{name, size})
		}
		r.bytes += size
	}
	return nil
}

// sizeOf returns the size of a file, 0 when nobody can tell.
func (r *recovery) sizeOf(name string) (size int64) {
	f, err := r.fs.Open(name)
	if err == nil {
		size, err = f.Size()
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		r.log.Debug("cannot tell the size of a file", "file", name, "error", err)
	}
	return size
}

func (r *recovery) readHeader(name string) error {
	sc, err := openScanner(r.fs, name)
	if err != nil {
		return fmt.Errorf("read segment: %w", err)
	}
	f := foundSegment{segment: &segment{name: name, number: numberOf(name, segmentPrefix), size: sc.size}}
	f.header, f.valid = parseSegmentHeader(sc.bytes(0, segmentHeaderSize))
	if err := sc.Close(); err != nil {
		return fmt.Errorf("read segment %s: %w", name, err)
	}
	r.number = max(r.number, f.number+1)
	if f.valid && f.header.version > Format {
		return versionError(name, f.header.version)
	}
	r.files = append(r.files, f)
	return nil
}

// readCursor reads the newer valid slot of a cursor file.
func (r *recovery) readCursor(name string) error {
	sc, err := openScanner(r.fs, name)
	if err != nil {
		return fmt.Errorf("read cursor: %w", err)
	}
	var newest slot
	for _, off := range []int64{0, slotDistance} {
		if sl, ok := parseSlot(sc.bytes(off, slotSize)); ok && sl.generation > newest.generation {
			newest = sl
		}
	}
	if err := sc.Close(); err != nil {
		return fmt.Errorf("read cursor %s: %w", name, err)
	}
	if newest.version > Format {
		return versionError(name, newest.version)
	}
	if newest.generation > 0 {
		r.cursors = append(r.cursors, newest)
	}
	return nil
}

// chooseID finds out which spool this is: what most segments say, else a
// cursor, else the first frame anywhere, else it is a new one.
func (r *recovery) chooseID() error {
	votes := map[uint64]int{}
	for _, f := range r.files {
		if f.valid {
			votes[f.header.spool]++
		}
	}
	for id, n := range votes {
		if n > votes[r.id] || n == votes[r.id] && id > r.id {
			r.id = id
		}
	}
	if r.id == 0 && len(r.files) > 0 && len(r.cursors) > 0 {
		r.id = r.cursors[0].spool
	}
	for i := 0; r.id == 0 && i < len(r.files); i++ {
		f, ok, err := r.firstFrame(r.files[i].name)
		if err != nil {
			return err
		}
		if ok {
			r.id = f.spool
		}
	}
	if r.id == 0 {
		r.id = r.o.newID()
	}
	r.cursors = slices.DeleteFunc(r.cursors, func(sl slot) bool { return sl.spool != r.id })
	return nil
}

func (r *recovery) firstFrame(name string) (frameHeader, bool, error) {
	sc, err := openScanner(r.fs, name)
	if err != nil {
		return frameHeader{}, false, fmt.Errorf("read segment: %w", err)
	}
	sc.spool = r.id
	f, ok := sc.next(0)
	if err := sc.Close(); err != nil {
		return frameHeader{}, false, fmt.Errorf("read segment %s: %w", name, err)
	}
	return f.frameHeader, ok, nil
}

// order sorts the segments by their frames, whatever their names say, and sets
// aside those that are not this spool's or hold no frame.
func (r *recovery) order() error {
	var use []foundSegment
	for _, f := range r.files {
		if f.valid && f.header.spool == r.id {
			f.first = f.header.first
			use = append(use, f)
			continue
		}
		first, ok, err := r.firstFrame(f.name)
		if err != nil {
			return err
		}
		if !ok {
			r.strange(f.segment)
			continue
		}
		f.first, f.header.rows, f.damaged = first.seq, first.rows, true
		use = append(use, f)
	}
	slices.SortFunc(use, func(a, b foundSegment) int {
		return cmp.Or(cmp.Compare(a.first, b.first), cmp.Compare(a.number, b.number), cmp.Compare(a.name, b.name))
	})
	r.files = use
	for _, f := range use {
		r.segments = append(r.segments, f.segment)
	}
	return nil
}

// strange sets a segment aside of which nothing can be used: another spool's,
// or one that was being made when the power was cut.
func (r *recovery) strange(seg *segment) {
	if seg.size <= segmentHeaderSize {
		if err := r.fs.Remove(seg.name); err != nil {
			r.log.Debug("cannot remove an empty segment", "segment", seg.name, "error", err)
			return
		}
		r.bytes -= OnDisk(seg.size)
		return
	}
	r.log.Warn("a segment without a frame of this spool is set aside", "segment", seg.name, "bytes", seg.size)
	if !r.makeRoomAside(OnDisk(seg.size), 0) {
		return
	}
	name := r.nextAside(".segment")
	if err := r.fs.Rename(seg.name, name); err != nil {
		r.log.Warn("cannot set a segment aside", "segment", seg.name, "error", err)
		return
	}
	r.aside = append(r.aside, asideFile{name, OnDisk(seg.size)})
}

// held is a frame of the last segment whose data is bad, kept until a good one
// follows: without that it is the torn end of what was never acknowledged.
type heldFrame struct {
	frame
	bad []bool
}

// replay applies the frames of one segment. The last one is verified whole;
// the data of the others when it is delivered.
func (r *recovery) replay(i int) error {
	f := r.files[i]
	last := i == len(r.files)-1
	limit := uint64(math.MaxUint64)
	if !last {
		limit = r.files[i+1].first
	}
	sc, err := openScanner(r.fs, f.name)
	if err != nil {
		return fmt.Errorf("read segment: %w", err)
	}
	sc.spool = r.id
	r.previous, r.current = r.current, f.segment
	if i == 0 {
		r.seq, r.rows = f.first, f.header.rows
	}
	r.reach(f.first, f.header.rows)
	if last {
		r.unsettled = unsettled{f.segment, sc.size, r.seq}
	}
	var held []heldFrame
	before := r.seq
	off := int64(segmentHeaderSize)
	good := off
	for {
		fr, ok := sc.next(off)
		if !ok {
			break
		}
		if gap := fr.off - off; gap > 0 {
			f.damaged = true
			r.damage.Bytes += gap
		}
		off = fr.end()
		if fr.seq < r.seq || fr.seq > limit || fr.seq == limit && fr.flags&flagSnapshot == 0 {
			continue // void: see FORMAT.md
		}
		if last {
			if bad := sc.verify(&fr); bad != nil {
				held = append(held, hold(fr, bad))
				continue
			}
		}
		for i := range held {
			r.apply(&held[i].frame, held[i].bad)
		}
		held = nil
		if last && r.wentWithout(&fr) {
			r.log.Info("a frame that failed is there and does not count: a batch was delivered without it", "segment", f.name, "offset", fr.off)
			r.unsettled.end = fr.off
			break
		}
		r.apply(&fr, nil)
		r.unsettled.next = r.seq
		good = off
	}
	if !last && r.seq == before {
		f.whole = false // nothing in it was ever acknowledged: it need not be on the disk
	}
	f.rest = max(sc.size-off, 0)
	if last {
		r.damage.Torn += max(sc.size-good, 0)
	}
	if err := sc.Close(); err != nil {
		return fmt.Errorf("read segment %s: %w", f.name, err)
	}
	return nil
}

// hold copies a frame out of the scanner's buffers.
func hold(f frame, bad []bool) heldFrame {
	c := &contents{pieces: slices.Clone(f.pieces)}
	for i := range c.pieces {
		c.pieces[i].label = slices.Clone(c.pieces[i].label)
	}
	for _, cp := range f.checkpoints {
		if cp.Value != nil {
			cp.Value = append([]byte{}, cp.Value...)
		}
		c.checkpoints = append(c.checkpoints, cp)
	}
	f.contents = c
	return heldFrame{f, bad}
}

// wentWithout reports whether a destination has finished one of the frame's
// batches without the piece that is in it. Batches are held back while they are
// continued, so that Append must have failed, and nobody relies on the frame.
func (r *recovery) wentWithout(f *frame) bool {
	for i := range r.cursors {
		if c := &r.cursors[i]; c.frames > 0 && c.frames <= f.seq &&
			slices.ContainsFunc(f.pieces, func(e pieceEntry) bool { return c.finished(e.batch) }) {
			return true
		}
	}
	return false
}

// reach counts what is missing before the frame seq that was appended after
// so many rows.
func (r *recovery) reach(seq, rows uint64) {
	if seq <= r.seq {
		return
	}
	r.damage.Frames += int64(seq - r.seq)
	r.damage.Rows += int64(rows - r.rows)
	if r.previous != nil && r.previous.rest > 0 {
		r.previous.damaged = true // the missing frames were in the rest of it
	}
	r.seq, r.rows = seq, rows
}

// apply takes a frame into the index; bad tells which of its pieces are.
func (r *recovery) apply(f *frame, bad []bool) {
	r.reach(f.seq, f.rows)
	r.next = max(r.next, f.next)
	if f.flags&flagSnapshot != 0 {
		r.current.whole, r.unsigned = true, 0
		clear(r.checkpoints)
		clear(r.records)
		for _, c := range f.checkpoints {
			name, isRecord := strings.CutPrefix(c.Key, destinationKey)
			if !isRecord {
				r.setCheckpoint(c)
			} else if p, removed, ok := parseRecord(c.Value); ok {
				r.records[name] = record{p, removed}
			}
		}
		return
	}
	for _, c := range f.checkpoints {
		r.setCheckpoint(c)
	}
	off := f.dataOff()
	for i := range f.pieces {
		e := &f.pieces[i]
		if !r.current.whole && (r.unsigned == 0 || e.batch < r.unsigned) {
			r.unsigned = e.batch
		}
		b := r.found[e.batch]
		if b == nil {
			b = &batch{id: e.batch, label: slices.Clone(e.label), since: f.time, closed: true}
			r.found[e.batch] = b
		}
		b.add(piece{
			segment: r.current, off: off, index: e.index, tail: e.tail,
			size: e.data, rows: e.rows, raw: e.raw, dataCRC: e.dataCRC, whole: e.whole,
		})
		if bad != nil && bad[i] {
			r.damaged(&b.pieces[len(b.pieces)-1])
		}
		r.current.last = max(r.current.last, e.batch)
		off += int64(e.data) + int64(e.tail)
	}
	r.rows += f.rowCount()
	r.seq++
}

// index puts the batches in order. Numbers that a cursor knows are not used
// again, even if their frames are gone.
func (r *recovery) index() {
	for _, b := range r.found {
		r.batches = append(r.batches, b)
	}
	slices.SortFunc(r.batches, func(a, b *batch) int { return cmp.Compare(a.id, b.id) })
	for i := range r.cursors {
		r.next = max(r.next, r.cursors[i].last()+1)
	}
	for _, rec := range r.records {
		r.next = max(r.next, rec.last()+1)
	}
}

// openDestinations finds out how far each destination is.
func (r *recovery) openDestinations() {
	first := len(r.records) == 0 && len(r.cursors) == 0
	for _, name := range r.o.Destinations {
		d := newDestination(name)
		rec, known := r.records[name]
		i := slices.IndexFunc(r.cursors, func(sl slot) bool { return sl.name == name })
		switch {
		case i >= 0:
			d.progress, d.generation = r.cursors[i].progress, r.cursors[i].generation
		case known:
			d.progress = rec.progress
			r.log.Warn("a cursor is lost, its destination may get batches again", "destination", name, "from", d.through+1)
		case first:
		case r.unsigned > 0:
			// A power cut can take a cursor and the snapshot that has it, and
			// leave the frame behind that: it may be for this destination.
			d.through = r.unsigned - 1
		default:
			d.through = r.next - 1
		}
		d.counted = slices.Contains(r.names, d.file)
		d.dirty = true // what was read may not be on the disk: its file is made anew
		d.advance(r.Spool)
		if i < 0 && !known && !first || rec.removed {
			// What it missed while it was not named was never for it.
			d.base = r.rows - d.delivered - d.refused - uint64(r.waits(d).Waiting)
		}
		r.destinations = append(r.destinations, d)
		delete(r.records, name)
	}
	for name, rec := range r.records {
		r.removed[name] = rec.progress
		if !rec.removed {
			r.nobodyNames(name, rec.progress)
		}
	}
}

// nobodyNames says what waits for a destination that is named no more: nothing
// is held back for it, and nobody else gets it.
func (r *recovery) nobodyNames(name string, known progress) {
	d := newDestination(name)
	d.progress = known
	if i := slices.IndexFunc(r.cursors, func(sl slot) bool { return sl.name == name }); i >= 0 {
		d.progress = r.cursors[i].progress
	}
	d.advance(r.Spool)
	if waiting := r.waits(d).Waiting; waiting > 0 {
		r.log.Warn("rows wait for a destination that is no longer named; they go to no other, and are given up unless it is named again soon", "destination", name, "rows", waiting)
	}
}

// report logs what was found.
func (s *Spool) report() {
	log := s.log.With("segments", len(s.segments)).With("batches", len(s.batches)).With("bytes", s.bytes)
	d := s.damage
	if d.Frames+d.Pieces+d.Bytes > 0 {
		log.Error("the spool is damaged, all else in it is used",
			"frames", d.Frames, "pieces", d.Pieces, "rows", d.Rows, "strayBytes", d.Bytes)
		return
	}
	log.Info("spool is open", "torn", d.Torn)
}
