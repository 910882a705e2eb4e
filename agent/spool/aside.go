package spool

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"
)

// asideFile is a file that was set aside for a person to look at.
type asideFile struct {
	name string
	size int64 // on the disk
}

// block is what file systems give out: a file takes whole ones.
const block = 4096

// OnDisk is what a file of so many bytes takes, in bytes.
func OnDisk(size int64) int64 { return (size + block - 1) / block * block }

// asideBudget is what all files set aside may take together; the oldest make
// room for new ones.
func (s *Spool) asideBudget() int64 { return s.o.Budget / 16 }

// asideHeader is the first line of a file with rows that were set aside.
type asideHeader struct {
	Destination string    `json:"destination"`
	Batch       ID        `json:"batch"`
	Why         string    `json:"why"`
	Time        time.Time `json:"time"`
	Bytes       int       `json:"bytes"`
}

// SetAside keeps a body that a destination will never take, with the reason,
// in a file of its own. It is for people: nothing reads it again. Files set
// aside have a sixteenth of the budget, and the oldest go first. The caller
// finishes the batch with Done whether SetAside worked or not.
func (s *Spool) SetAside(name string, id ID, body []byte, why string) error {
	header, err := json.Marshal(asideHeader{name, id, why, s.o.Clock().UTC(), len(body)})
	if err != nil {
		return fmt.Errorf("set aside %d bytes of batch %d: %w", len(body), id, err)
	}
	data := append(append(header, '\n'), body...)

	s.sweeping.Lock()
	defer s.sweeping.Unlock()
	if s.isClosed() {
		return fmt.Errorf("set aside %d bytes of batch %d: %w", len(body), id, ErrClosed)
	}
	size := OnDisk(int64(len(data)))
	if !s.makeRoomAside(size, size) {
		return fmt.Errorf("set aside %d bytes of batch %d: %w: %d bytes are for all that is set aside, as long as the spool is within its budget",
			len(body), id, ErrTooLarge, s.asideBudget())
	}
	file := s.nextAside(".rows")
	err = s.writeFile(file, data)
	if err == nil {
		err = s.fs.SyncDir()
	}
	if err != nil {
		return fmt.Errorf("set aside %d bytes of batch %d: %w: %w", len(body), id, ErrFailing, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.aside = append(s.aside, asideFile{file, size})
	s.bytes += size
	return nil
}

func (s *Spool) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// nextAside returns a free name. The caller holds sweeping.
func (s *Spool) nextAside(kind string) string {
	s.asideNumber++
	return asideName(s.asideNumber, kind)
}

// makeRoomAside removes the oldest files set aside until size more bytes fit,
// and reports whether they do; the folder grows by so many bytes of them. A
// budget that is smaller than it was leaves no room to grow. The caller holds
// sweeping.
func (s *Spool) makeRoomAside(size, grows int64) bool {
	if size > s.asideBudget() {
		return false
	}
	for s.asideBytes()+size > s.asideBudget() || grows > 0 && s.exceeds(grows) {
		if len(s.aside) == 0 {
			return false
		}
		oldest := s.aside[0]
		if err := s.fs.Remove(oldest.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.log.Warn("cannot remove an old file that was set aside", "file", oldest.name, "error", err)
			return false
		}
		s.log.Warn("removed the oldest file that was set aside, to make room", "file", oldest.name)
		s.mu.Lock()
		s.aside = s.aside[1:]
		s.bytes -= oldest.size
		s.mu.Unlock()
	}
	return true
}

// exceeds reports whether the folder is over its budget with so many bytes more.
func (s *Spool) exceeds(size int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes+size > s.o.Budget
}

// asideBytes is what the files set aside take. Only the owner of sweeping
// changes it.
func (s *Spool) asideBytes() int64 {
	var n int64
	for _, f := range s.aside {
		n += f.size
	}
	return n
}

// held is what is kept for other than frames: for files set aside and for the
// reserve, as far as they are not there yet. The caller holds mu.
func (s *Spool) held() int64 {
	held := max(s.asideBudget()-s.asideBytes(), 0)
	if !s.reserved {
		held += reserveSize
	}
	return held + cursorSize // one is written beside another
}

// giveUpSegment removes the oldest segment, or sets it aside if it is damaged.
// The caller holds sweeping.
func (s *Spool) giveUpSegment(seg *segment) error {
	if err := s.syncRemoval(); err != nil {
		return err
	}
	s.mu.Lock()
	damaged := seg.damaged
	s.mu.Unlock()
	var err error
	kept := ""
	if damaged && s.makeRoomAside(OnDisk(seg.size), 0) {
		kept = s.nextAside(".segment")
		err = s.fs.Rename(seg.name, kept)
	} else {
		if damaged {
			s.log.Warn("a damaged segment is removed: it is too large to be set aside; what was good in it is delivered", "segment", seg.name, "bytes", seg.size)
		}
		err = s.fs.Remove(seg.name)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.unsynced = true
	s.mu.Lock()
	if kept != "" && err == nil {
		s.aside = append(s.aside, asideFile{kept, OnDisk(seg.size)})
	} else {
		s.bytes -= OnDisk(seg.size)
	}
	s.segments = s.segments[1:]
	s.mu.Unlock()
	return s.syncRemoval()
}

// syncRemoval makes the last removal durable. The caller holds sweeping.
func (s *Spool) syncRemoval() error {
	if !s.unsynced {
		return nil
	}
	if err := s.fs.SyncDir(); err != nil {
		return err
	}
	s.unsynced = false
	return nil
}
