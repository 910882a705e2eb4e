// Package spool is the durable queue between the sources and the destinations.
//
// It stores bytes and does not know what a record is. Everything it accepts
// arrives in frames: one Append is one frame, written and synced as a whole or
// not at all. A frame carries pieces of batches and the checkpoints of the
// sources whose records those pieces hold, so position and data can never
// disagree. FORMAT.md gives the bytes.
//
// A batch is a chain of pieces, the body of one request. It stays open, to be
// continued by later frames, until a destination takes it: a destination that
// keeps up gets each piece as soon as it is durable, one that was away finds
// few large batches.
//
// Two promises hold whatever happens to the process or the power:
//
//   - What Append returned nil for is delivered to every destination, and its
//     checkpoints are found again. What Append failed for is durable as a
//     whole or not at all.
//   - What Done returned nil for is not delivered to that destination again.
//     Other batches may be, even if they were on their way.
//
// There is nothing to flush: a killed process leaves what a stopped one does.
package spool

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/openloganalytics/agent/internal/logfile"
	"github.com/openloganalytics/agent/internal/vfs"
)

// Why the spool does not do what it was asked. Errors match with errors.Is.
var (
	// ErrFull: the budget is used up, or the file system nearly so. There is
	// room again once destinations have taken batches.
	ErrFull = errors.New("spool is full")
	// ErrFailing: the disk does not take what is written. The next Append
	// tries again.
	ErrFailing = errors.New("spool cannot write")
	// ErrTooLarge: no Append can take this, ever.
	ErrTooLarge = errors.New("too large for the spool")
	// ErrNewer: a newer version of this program wrote the folder. Nothing in
	// it was touched.
	ErrNewer = errors.New("spool of a newer version")
	// ErrClosed: the spool was closed.
	ErrClosed = errors.New("spool is closed")
	// ErrDamaged: pieces of the batch are gone. See Batch.Body.
	ErrDamaged = errors.New("batch is damaged")
)

// ID numbers a batch, from 1, in order of the batches' first frames. 0 is none.
type ID uint64

// A Checkpoint is a value that becomes durable in the frame it is appended
// with. Keys are at most 64 KiB and do not begin with a zero byte. A nil Value
// forgets the key.
type Checkpoint struct {
	Key   string
	Value []byte
}

// A Piece is the next part of a batch's body.
type Piece struct {
	// Batch is the batch to continue, which Continue has said can be; 0
	// begins a new one.
	Batch ID
	// Label says what the batch is for, at most 64 KiB. All pieces of a batch
	// have the same.
	Label []byte
	// Data continues the body; Tail, at most MaxTail bytes, ends it if no
	// piece follows.
	Data, Tail []byte
	// Rows and Raw are what the piece counts for: rows, and bytes before
	// compression.
	Rows, Raw int
}

// Options say how a spool is to be kept.
type Options struct {
	// Budget is the most that all files of the spool together may take, in
	// bytes, each counted in whole blocks of 4 KiB; default 1 GiB, at least
	// 1 MiB. What is there already may be more; then nothing is added.
	Budget int64
	// KeepFree is how much of the file system stays free for others, in bytes;
	// default 64 MiB.
	KeepFree int64
	// SegmentBytes is when a new segment begins; default 8 MiB, at most a
	// sixteenth of Budget.
	SegmentBytes int64
	// Destinations are the names of who gets everything, each at most 256
	// bytes. A destination not seen before gets what is appended from now on;
	// the very first ones of a spool get what is already there, too. One that
	// is no longer named holds nothing back; if it comes back it goes on where
	// it was, as far as that is still there.
	Destinations []string
	// First says by its label that a batch is handed out before older ones, as
	// far as a cursor can tell batches apart; nil is none. It is asked once for
	// each batch.
	First func(label []byte) bool
	// Clock gives the times that people see; default time.Now. Nothing is
	// decided by it.
	Clock func() time.Time
	Log   *logfile.Logger

	newID func() uint64 // of a new spool; tests fix it
}

func (o *Options) setDefaults() {
	if o.Budget == 0 {
		o.Budget = 1 << 30
	}
	o.Budget = max(o.Budget, 1<<20)
	if o.KeepFree == 0 {
		o.KeepFree = 64 << 20
	}
	if o.SegmentBytes == 0 {
		o.SegmentBytes = 8 << 20
	}
	o.SegmentBytes = min(o.SegmentBytes, o.Budget/16)
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.newID == nil {
		o.newID = func() uint64 {
			var b [8]byte
			rand.Read(b[:])
			return le.Uint64(b[:]) | 1 // not 0
		}
	}
}

// A Spool is the queue. Its methods are safe for concurrent use.
//
// Locks are taken in the order appending, destination.writing, sweeping, mu.
// Only mu is never held during input or output.
type Spool struct {
	fs   vfs.FS
	o    Options
	log  *logfile.Logger
	lock io.Closer

	// appending makes one Append at a time the owner of the fields below.
	appending sync.Mutex
	active    writer
	parts     []part // scratch
	frame     []byte // scratch
	ids       []ID   // what Append returned; cut off piece by piece
	number    uint64 // of the next segment

	// sweeping is held while files are removed or set aside.
	sweeping    sync.Mutex
	unsynced    bool // the removal of a segment may not be durable
	asideNumber uint64

	mu           sync.Mutex
	id           uint64     // of this spool, in all its files
	segments     []*segment // in order of their frames; all but the active one are finished
	batches      []*batch   // in order of ID; those that some destination has not finished
	checkpoints  map[string][]byte
	destinations []*destination
	removed      map[string]progress // destinations that are no longer named
	seq          uint64              // of the next frame
	next         ID                  // the next free batch number
	rows         uint64              // appended so far, in the whole life of the spool
	bytes        int64               // of all files in the folder, see OnDisk
	tight        bool                // the last Append found room only for frames that continue batches
	unsettled    unsettled           // found by Open and not known to be on the disk
	aside        []asideFile         // oldest first
	reserved     bool                // the reserve file is there
	damage       Damage
	appendErr    error // why the last Append failed
	closed       bool
	waiting      int           // callers of Next
	changed      chan struct{} // closed, and replaced, when they should look again
}

// segment is a file of frames.
type segment struct {
	name    string
	number  uint64
	first   uint64 // sequence number of its first frame
	size    int64
	last    ID    // the highest batch with a piece in it
	rest    int64 // bytes after its last frame, as Open found it
	whole   bool  // it has all the checkpoints of its beginning
	damaged bool
}

// unsettled is the last segment that an earlier process has left.
type unsettled struct {
	*segment        // nil: it is durable, or there was none
	end      int64  // what is behind it does not count
	next     uint64 // the number after that of its last good frame
}

// batch is a batch as the index knows it.
type batch struct {
	id     ID
	label  []byte
	pieces []piece
	rows   int
	raw    int
	since  int64 // nanoseconds since 1970
	pinned bool  // Continue was asked and Append is to come
	closed bool  // no piece will be added
	tries  int   // to read it that the disk has failed
	turn   turn
}

// turn is whether a batch goes before older ones.
type turn uint8

const (
	turnUnknown turn = iota
	turnFirst
	turnInOrder
)

// first reports whether First wants the batch handed out before older ones.
func (s *Spool) first(b *batch) bool {
	if b.turn == turnUnknown {
		b.turn = turnInOrder
		if s.o.First != nil && s.o.First(b.label) {
			b.turn = turnFirst
		}
	}
	return b.turn == turnFirst
}

// piece is where one piece of a body lies.
type piece struct {
	segment        *segment
	off            int64
	size           uint32 // of Data; Tail follows it
	rows, raw      uint32
	dataCRC, whole uint32 // checksums of Data, and of Data with Tail
	index          uint32
	tail           uint8
	bad            bool // known to be unreadable
}

func (b *batch) add(p piece) {
	b.pieces = append(b.pieces, p)
	b.rows += int(p.rows)
	b.raw += int(p.raw)
}

// size is how long the body is.
func (b *batch) size() int64 {
	var n int64
	for i := range b.pieces {
		n += int64(b.pieces[i].size)
	}
	return n + int64(b.pieces[len(b.pieces)-1].tail)
}

// Open takes the folder and reads what is in it. Bad bytes never make it fail:
// what is damaged is counted and set aside. It fails when another process has
// the folder, when a newer version has written it (ErrNewer), and when the
// disk does not read a file: that may pass, and what cannot be seen must not be
// taken for gone.
func Open(fsys vfs.FS, o Options) (*Spool, error) {
	o.setDefaults()
	for i, name := range o.Destinations {
		if name == "" || len(name) > maxName || slices.Contains(o.Destinations[:i], name) {
			return nil, fmt.Errorf("open spool: destination name %q: not between 1 and %d bytes, or there twice", name, maxName)
		}
	}
	lock, err := fsys.Lock()
	if err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	s := &Spool{
		fs: fsys, o: o, log: o.Log, lock: lock,
		checkpoints: map[string][]byte{}, removed: map[string]progress{},
		next: 1, seq: 1, number: 1, changed: make(chan struct{}),
		unsynced: true, // an earlier process may have been killed before it had synced one
	}
	if err := s.restore(); err != nil {
		return nil, errors.Join(fmt.Errorf("open spool: %w", err), lock.Close())
	}
	return s, nil
}

// SetBudget changes Options.Budget from now on. Segments that are begun later
// are as large as before.
func (s *Spool) SetBudget(bytes int64) {
	s.appending.Lock()
	defer s.appending.Unlock()
	s.sweeping.Lock()
	defer s.sweeping.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.o.Budget = max(bytes, 1<<20)
}

// Close gives the folder back. It has nothing to save.
func (s *Spool) Close() error {
	s.appending.Lock()
	defer s.appending.Unlock()
	s.mu.Lock()
	closed := s.closed
	s.closed = true
	s.wake()
	s.mu.Unlock()
	if closed {
		return ErrClosed
	}
	errs := []error{s.active.close()}
	for _, d := range s.destinations {
		d.writing.Lock()
		errs = append(errs, d.close())
		d.writing.Unlock()
	}
	s.sweeping.Lock()
	defer s.sweeping.Unlock()
	return errors.Join(append(errs, s.lock.Close())...)
}

// wake makes every Next look again. The caller holds mu.
func (s *Spool) wake() {
	if s.waiting > 0 {
		close(s.changed)
		s.changed = make(chan struct{})
		s.waiting = 0
	}
}

// Checkpoint returns a copy of the last durable value for key, nil when there
// is none.
func (s *Spool) Checkpoint(key string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if value, ok := s.checkpoints[key]; ok {
		return append([]byte{}, value...)
	}
	return nil
}

// Checkpoints calls yield with each durable key that begins with prefix and a
// copy of its value, in order of the keys, until yield returns false.
func (s *Spool) Checkpoints(prefix string, yield func(key string, value []byte) bool) {
	var found []Checkpoint
	s.mu.Lock()
	for key, value := range s.checkpoints {
		if strings.HasPrefix(key, prefix) {
			found = append(found, Checkpoint{key, append([]byte{}, value...)})
		}
	}
	s.mu.Unlock()
	slices.SortFunc(found, func(a, b Checkpoint) int { return strings.Compare(a.Key, b.Key) })
	for _, c := range found {
		if !yield(c.Key, c.Value) {
			return
		}
	}
}

// setCheckpoint keeps a copy of c, in the memory of the previous value when it
// fits. The caller holds mu.
func (s *Spool) setCheckpoint(c Checkpoint) {
	if c.Value == nil {
		delete(s.checkpoints, c.Key)
		return
	}
	old := s.checkpoints[c.Key]
	if old == nil {
		old = make([]byte, 0, len(c.Value))
	}
	s.checkpoints[c.Key] = append(old[:0], c.Value...)
}

// snapshot returns what a new segment begins with: all checkpoints and how far
// the destinations are, in order of the keys. The values are not copies: only
// the owner of appending changes them. The caller holds mu.
func (s *Spool) snapshot() []Checkpoint {
	all := make([]Checkpoint, 0, len(s.checkpoints)+len(s.destinations)+len(s.removed))
	for key, value := range s.checkpoints {
		all = append(all, Checkpoint{key, value})
	}
	for _, d := range s.destinations {
		all = append(all, Checkpoint{destinationKey + d.name, appendRecord(nil, &d.progress, false)})
	}
	for _, name := range slices.Sorted(maps.Keys(s.removed)) {
		p := s.removed[name]
		all = append(all, Checkpoint{destinationKey + name, appendRecord(nil, &p, true)})
	}
	slices.SortFunc(all, func(a, b Checkpoint) int { return strings.Compare(a.Key, b.Key) })
	return all
}

// find returns the batch of that number, nil when it is not in the index. The
// caller holds mu.
func (s *Spool) find(id ID) *batch {
	if i, ok := slices.BinarySearchFunc(s.batches, id, compareID); ok {
		return s.batches[i]
	}
	return nil
}

func compareID(b *batch, id ID) int {
	switch {
	case b.id < id:
		return -1
	case b.id > id:
		return 1
	}
	return 0
}
