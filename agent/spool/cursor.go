package spool

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/openloganalytics/agent/internal/vfs"
)

// reserveSize is what the reserve file takes: room for the cursors to move
// when the disk is full, so that segments can be given up.
const reserveSize = 64 << 10

// newDestination returns a destination without a cursor file.
func newDestination(name string) *destination {
	return &destination{name: name, file: cursorName(name), flight: map[ID]struct{}{}}
}

// cursorName is the name of the file that holds the cursor of a destination.
// The destination's own name is in the file.
func cursorName(destination string) string {
	sum := sha256.Sum256([]byte(destination))
	return fmt.Sprintf("cursor-%x", sum[:8])
}

// moveCursor makes the destination's progress durable.
func (s *Spool) moveCursor(d *destination) error {
	d.writing.Lock()
	defer d.writing.Unlock()
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	if !d.dirty {
		s.mu.Unlock()
		return nil
	}
	d.dirty = false
	d.generation++
	sl := slot{version: Format, spool: s.id, generation: d.generation, name: d.name, frames: s.seq, progress: d.progress}
	s.mu.Unlock()

	err := s.writeCursor(d, &sl)
	s.mu.Lock()
	defer s.mu.Unlock()
	d.err = err
	if err != nil {
		d.dirty = true
		return fmt.Errorf("move cursor of %s: %w: %w", d.name, ErrFailing, err)
	}
	d.durable = sl.through
	if !d.counted {
		d.counted = true
		s.bytes += cursorSize
	}
	return nil
}

// cursorFailed reports whether a Done could not be made durable.
func (s *Spool) cursorFailed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.destinations, func(d *destination) bool { return d.err != nil })
}

// moveCursors does what Done has failed to do.
func (s *Spool) moveCursors() {
	for _, d := range s.destinations {
		if err := s.moveCursor(d); err != nil {
			s.log.Debug("cannot write a cursor", "error", err)
		}
	}
	s.sweep()
}

// writeCursor puts the slot over the older of the two in the file. A torn
// write leaves the newer one. When that fails the file is made anew.
func (s *Spool) writeCursor(d *destination, sl *slot) error {
	b := appendSlot(make([]byte, 0, slotSize), sl)
	if d.handle != nil {
		_, err := d.handle.WriteAt(b, slotOffset(sl.generation))
		if err == nil {
			err = d.handle.Sync()
		}
		if err == nil {
			return nil
		}
		s.log.Warn("cannot write a cursor in place, making its file anew", "destination", d.name, "error", err)
		if err := d.close(); err != nil {
			s.log.Debug("cannot close a cursor that failed", "destination", d.name, "error", err)
		}
	}
	err := s.replaceCursor(d, sl.generation, b)
	if errors.Is(err, vfs.ErrNoSpace) && s.spendReserve() {
		err = s.replaceCursor(d, sl.generation, b)
	}
	return err
}

func slotOffset(generation uint64) int64 { return int64(generation%2) * slotDistance }

// replaceCursor writes a whole cursor file beside the old one and puts it in
// its place.
func (s *Spool) replaceCursor(d *destination, generation uint64, b []byte) error {
	whole := make([]byte, cursorSize)
	copy(whole[slotOffset(generation):], b)
	beside := d.file + besideSuffix
	if err := s.fs.Remove(beside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := s.writeFile(beside, whole); err != nil {
		return err
	}
	if err := s.fs.Rename(beside, d.file); err != nil {
		return err
	}
	if err := s.fs.SyncDir(); err != nil {
		return err
	}
	handle, err := s.fs.OpenWrite(d.file)
	if err != nil {
		return err
	}
	d.handle = handle
	return nil
}

func (d *destination) close() error {
	if d.handle == nil {
		return nil
	}
	err := d.handle.Close()
	d.handle = nil
	return err
}

// writeFile makes a file with all of its bytes durable, but not yet its name.
// When it fails nothing of the file is left, if that can be helped.
func (s *Spool) writeFile(name string, data []byte) error {
	file, err := s.fs.Create(name)
	if err != nil {
		return err
	}
	_, err = file.WriteAt(data, 0)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return errors.Join(err, s.fs.Remove(name))
	}
	return nil
}

// ensureReserve makes the reserve file if it is not there. Without it only a
// full disk is worse off.
func (s *Spool) ensureReserve() {
	s.mu.Lock()
	reserved := s.reserved
	s.mu.Unlock()
	if reserved {
		return
	}
	filler := make([]byte, reserveSize)
	for i := range filler {
		filler[i] = byte(i * 7) // not all zeros: a file system may keep those for nothing
	}
	if err := s.writeFile(reserveName, filler); err != nil {
		s.log.Debug("cannot reserve space for the cursors", "error", err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reserved = true
	s.bytes += reserveSize
}

// spendReserve gives the reserved space back to the disk and reports whether
// there was any.
func (s *Spool) spendReserve() bool {
	s.mu.Lock()
	reserved := s.reserved
	s.reserved = false
	s.mu.Unlock()
	if !reserved {
		return false
	}
	if err := s.fs.Remove(reserveName); err != nil {
		s.log.Debug("cannot free the space reserved for the cursors", "error", err)
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bytes -= reserveSize
	return true
}

// sweep gives up the oldest segments, one after the other, as far as all
// destinations have durably finished with them. The removal of one is durable
// before the next: a gap between segments always means damage.
func (s *Spool) sweep() {
	s.sweeping.Lock()
	defer s.sweeping.Unlock()
	for {
		seg := s.oldestFinished()
		if seg == nil {
			return
		}
		if err := s.giveUpSegment(seg); err != nil {
			s.log.Warn("cannot remove a segment that is delivered", "segment", seg.name, "error", err)
			return
		}
	}
}

// oldestFinished returns the oldest segment if nobody needs it: no destination
// its batches, and the next start not its checkpoints.
func (s *Spool) oldestFinished() *segment {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.destinations) == 0 || len(s.segments) < 2 {
		return nil
	}
	oldest, later := s.segments[0], s.segments[1:]
	if oldest.last > s.through(func(d *destination) ID { return d.durable }) ||
		!slices.ContainsFunc(later, func(seg *segment) bool { return seg.whole && seg != s.unsettled.segment }) {
		return nil
	}
	return oldest
}
