package spool

import (
	"errors"
	"fmt"
	"time"

	"github.com/openloganalytics/agent/internal/vfs"
)

// Stats is how the spool is doing.
type Stats struct {
	Bytes  int64 // of all its files, in the whole blocks that they take on the disk
	Budget int64
	Rows   int64 // appended since the spool began
	// State is "ok", "full" or "failing", about what was tried last. Message
	// says what is wrong and what to do when it is not ok.
	State   string
	Message string

	Damage       Damage
	Destinations []DestinationStats
}

// Damage is what was found to be damaged since Open.
type Damage struct {
	Frames int64 // missing
	Pieces int64 // that are there but not as they were written
	Rows   int64 // in those frames and pieces
	Bytes  int64 // between good frames that belong to none
	Torn   int64 // bytes after the last good frame: of a write that was cut off
}

// DestinationStats is how far one destination is, since the spool began. The
// rows of the spool are Before + Delivered + Refused + Lost + Waiting.
type DestinationStats struct {
	Name string
	// Before is the rows that were appended before it was first named, which
	// were never for it.
	Before    int64
	Delivered int64 // rows it has accepted
	Refused   int64 // rows it has refused for good
	// Lost is the rows that were damaged in the spool. It is less than zero
	// when the destination has rows of which the spool has lost the frames, and
	// that were therefore appended again.
	Lost           int64
	Waiting        int64 // rows
	WaitingBytes   int64 // of bodies
	WaitingBatches int
	Oldest         time.Time // when the oldest batch that waits was begun
}

// Stats returns the state of this moment.
func (s *Spool) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats()
}

// StatsWith returns the state of this moment and a copy of the checkpoint of
// this very moment: what a frame carries is in both or in neither.
func (s *Spool) StatsWith(key string) (Stats, []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var value []byte
	if known, ok := s.checkpoints[key]; ok {
		value = append([]byte{}, known...)
	}
	return s.stats(), value
}

// stats is Stats. The caller holds mu.
func (s *Spool) stats() Stats {
	st := Stats{
		Bytes: s.bytes, Budget: s.o.Budget, Rows: int64(s.rows),
		State: "ok", Damage: s.damage,
	}
	err := s.appendErr
	for _, d := range s.destinations {
		st.Destinations = append(st.Destinations, s.waits(d))
		if err == nil {
			err = d.err
		}
	}
	if err != nil {
		st.State, st.Message = "failing", advice(err)
		if errors.Is(err, ErrFull) {
			st.State = "full"
		}
	}
	return st
}

// advice says what is wrong and what to do.
func advice(err error) string {
	todo := "check the disk and the system log"
	switch {
	case errors.Is(err, ErrFull):
		todo = "sources wait; it empties when the destinations can be reached"
	case errors.Is(err, vfs.ErrNoSpace):
		todo = "free space on the file system; it goes on by itself"
	case errors.Is(err, vfs.ErrReadOnly):
		todo = "make the file system writable again; it goes on by itself"
	}
	return fmt.Sprintf("%v (%s)", err, todo)
}

// waits counts what a destination has not finished. The caller holds mu.
func (s *Spool) waits(d *destination) DestinationStats {
	st := DestinationStats{Name: d.name, Before: int64(d.base), Delivered: int64(d.delivered), Refused: int64(d.refused)}
	for _, b := range s.batches {
		if d.finished(b.id) {
			continue
		}
		if st.WaitingBatches == 0 {
			st.Oldest = time.Unix(0, b.since)
		}
		st.WaitingBatches++
		st.Waiting += int64(b.rows)
		st.WaitingBytes += b.size()
	}
	st.Lost = int64(s.rows-d.base) - st.Delivered - st.Refused - st.Waiting
	return st
}
