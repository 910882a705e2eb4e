// Package memfs is a disk for tests: it keeps apart what a process sees and
// what has been made durable, so that a test can cut the power at any moment
// and look at a state that a real disk might be left in. Any single operation
// can be made to fail.
package memfs

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/openloganalytics/agent/internal/vfs"
)

// sectorSize is the unit in which unsynced bytes reach the disk or do not.
const sectorSize = 512

// FS is a folder in memory, a vfs.FS. Make one with New.
type FS struct {
	// OnOp, when set, is called before each operation, outside all locks. It
	// may call Crash, to see what a power cut at this moment would leave.
	OnOp func(op Op, name string)

	mu       sync.Mutex
	names    map[string]*inode // what a process sees
	durable  map[string]*inode // what SyncDir has made sure of
	pending  []change          // what it has not
	bytes    int64             // of all files that have a name
	capacity int64
	life     int // of the process; handles of an earlier one are dead
	locked   bool
	counts   [opCount]int
	faults   []*Fault
}

// A change is one operation on names: to has node now, from is gone. Either
// may be empty.
type change struct {
	from, to string
	node     *inode
}

func (c change) apply(names map[string]*inode) {
	if c.from != "" {
		delete(names, c.from)
	}
	if c.to != "" {
		names[c.to] = c.node
	}
}

// An inode is a file's bytes, with or without a name.
type inode struct {
	seen   []byte           // what a process reads
	shared bool             // seen is another folder's memory, too: a write needs a copy
	size   int64            // as the last good Sync made sure of
	unsure map[int64]sector // those that may be on the disk or not, by their numbers
	linked bool             // it has a name
	failed uint32           // a bit for each Op that has failed on it
}

// A sector is one that was written since the last good Sync.
type sector struct {
	before []byte // what that made sure of; what is missing was beyond the end
	lost   bool   // a failed Sync has dropped it: the next one leaves it as it is
}

// New returns an empty folder on a disk without end.
func New() *FS {
	return &FS{names: map[string]*inode{}, durable: map[string]*inode{}, capacity: 1 << 60}
}

// SetCapacity limits the bytes that all files may hold together; what is there
// already stays.
func (m *FS) SetCapacity(size int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.capacity = size
}

// Used returns the bytes of all files together.
func (m *FS) Used() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.bytes
}

// ReadFile returns a copy of the bytes of a file, nil when there is none.
func (m *FS) ReadFile(name string) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	if node := m.names[name]; node != nil {
		return bytes.Clone(node.seen)
	}
	return nil
}

// WriteFile sets the bytes of a file and makes them durable at once; nil
// removes it.
func (m *FS) WriteFile(name string, data []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if old := m.names[name]; old != nil {
		m.bytes -= int64(len(old.seen))
		old.linked = false
	}
	if data == nil {
		delete(m.names, name)
		delete(m.durable, name)
		return
	}
	m.put(name, bytes.Clone(data))
}

// put makes a durable file of data, which nobody changes any more.
func (m *FS) put(name string, data []byte) {
	node := &inode{seen: data, shared: true, size: int64(len(data)), linked: true}
	m.names[name], m.durable[name] = node, node
	m.bytes += int64(len(data))
}

// Synced returns a copy of the bytes that were last made durable under the
// name, nil when there never were any. A change of names that no SyncDir has
// followed does not count yet.
func (m *FS) Synced(name string) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	if node := m.durable[name]; node != nil {
		return node.synced(node.size)
	}
	return nil
}

// Durable reports whether a power cut at this moment would surely leave the
// name with all the bytes that a process sees.
func (m *FS) Durable(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	node := m.names[name]
	return node != nil && m.durable[name] == node && node.whole() &&
		!slices.ContainsFunc(m.pending, func(c change) bool { return c.from == name || c.to == name })
}

// Kill ends the process that uses m: its handles are dead and its lock is
// free, but the kernel still has everything that was written.
func (m *FS) Kill() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.life++
	m.locked = false
}

// Killed returns what the next process would find if this one were killed now.
// All of it counts as durable.
func (m *FS) Killed() *FS {
	m.mu.Lock()
	defer m.mu.Unlock()
	after := New()
	after.capacity = m.capacity
	for name, node := range m.names {
		after.put(name, node.share())
	}
	return after
}

// Crash cuts the power of a copy of m and returns what is on the disk then.
// Each change of names since the last SyncDir may have been kept or not, and
// so may each sector written since the last Sync; a sector may also hold zeros
// or garbage. The file's length is anything between the old and the new.
func (m *FS) Crash(rng *rand.Rand) *FS {
	m.mu.Lock()
	defer m.mu.Unlock()
	names := maps.Clone(m.durable)
	keep := chooser(rng)
	for _, c := range m.pending {
		if keep() == kept {
			c.apply(names)
		}
	}
	after := New()
	after.capacity = m.capacity
	for _, name := range slices.Sorted(maps.Keys(names)) {
		after.put(name, names[name].crash(rng))
	}
	return after
}

// fate is what became of a change that was not synced.
type fate int

const (
	kept fate = iota
	dropped
	zeroed
	garbled
)

// chooser returns a source of fates. Often all of one crash are alike: those
// are the states in which much depends on few changes.
func chooser(rng *rand.Rand) func() fate {
	switch rng.IntN(6) {
	case 0:
		return func() fate { return kept }
	case 1:
		return func() fate { return dropped }
	case 2: // the first few, as an orderly disk would
		left := rng.IntN(8)
		return func() fate {
			if left--; left >= 0 {
				return kept
			}
			return dropped
		}
	}
	return func() fate {
		switch rng.IntN(8) {
		case 0:
			return zeroed
		case 1:
			return garbled
		case 2, 3, 4:
			return dropped
		}
		return kept
	}
}

// whole reports whether all that a process reads is durable.
func (n *inode) whole() bool { return len(n.unsure) == 0 && n.size == int64(len(n.seen)) }

// share returns what a process reads, for another folder to keep.
func (n *inode) share() []byte {
	n.shared = true
	return slices.Clip(n.seen)
}

// synced returns the first size bytes as the last good Sync made sure of them,
// in memory of its own.
func (n *inode) synced(size int64) []byte {
	data := make([]byte, size)
	copy(data, n.seen)
	for s, sec := range n.unsure {
		if part := sectorOf(data, s); len(part) > 0 {
			clear(part[copy(part, sec.before):])
		}
	}
	return data
}

// sectorOf returns the part of data that is in the sector.
func sectorOf(data []byte, s int64) []byte {
	at := min(s*sectorSize, int64(len(data)))
	return data[at:min(at+sectorSize, int64(len(data)))]
}

func (n *inode) crash(rng *rand.Rand) []byte {
	if n.whole() {
		return n.share()
	}
	size := n.size
	if low, high := min(int64(len(n.seen)), size), max(int64(len(n.seen)), size); low != high {
		size = []int64{low, high, low + rng.Int64N(high-low+1)}[rng.IntN(3)]
	}
	data := n.synced(size)
	choose := chooser(rng)
	for _, s := range slices.Sorted(maps.Keys(n.unsure)) {
		part := sectorOf(data, s)
		switch choose() {
		case kept:
			copy(part, sectorOf(n.seen, s))
		case zeroed:
			clear(part)
		case garbled:
			for i := range part {
				part[i] = byte(rng.Uint32())
			}
		case dropped:
		}
	}
	return data
}

// touch makes the sectors from one offset to another unsure, before they are
// changed.
func (n *inode) touch(from, to int64) {
	if n.shared {
		n.seen, n.shared = append(make([]byte, 0, max(to, int64(len(n.seen)))), n.seen...), false
	}
	if n.unsure == nil {
		n.unsure = map[int64]sector{}
	}
	for s := from / sectorSize; s*sectorSize < to; s++ {
		sec, known := n.unsure[s]
		if !known {
			sec.before = bytes.Clone(sectorOf(n.seen[:min(int64(len(n.seen)), n.size)], s))
		}
		sec.lost = false
		n.unsure[s] = sec
	}
}

// sync makes everything durable that no earlier failed sync has dropped.
func (n *inode) sync() {
	n.size = int64(len(n.seen))
	maps.DeleteFunc(n.unsure, func(_ int64, sec sector) bool { return !sec.lost })
}

// fail is a sync that failed: the kernel drops what it should have written and
// forgets that it ever had to.
func (n *inode) fail() {
	for s, sec := range n.unsure {
		sec.lost = true
		n.unsure[s] = sec
	}
}

// Create implements vfs.FS.
func (m *FS) Create(name string) (vfs.File, error) {
	if err := m.begin(Create, name); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	if m.names[name] != nil {
		return nil, &fs.PathError{Op: "create", Path: name, Err: fs.ErrExist}
	}
	node := &inode{}
	m.change(change{to: name, node: node})
	return &handle{fs: m, name: name, node: node, life: m.life}, nil
}

// OpenWrite implements vfs.FS.
func (m *FS) OpenWrite(name string) (vfs.File, error) {
	h, err := m.open(OpenWrite, name)
	if err != nil {
		return nil, err
	}
	return h, nil
}

// Open implements vfs.FS.
func (m *FS) Open(name string) (vfs.Reader, error) {
	h, err := m.open(Open, name)
	if err != nil {
		return nil, err
	}
	return h, nil
}

func (m *FS) open(op Op, name string) (*handle, error) {
	if err := m.begin(op, name); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	node := m.names[name]
	if node == nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return &handle{fs: m, name: name, node: node, life: m.life}, nil
}

// Rename implements vfs.FS.
func (m *FS) Rename(from, to string) error {
	if err := m.begin(Rename, from); err != nil {
		return err
	}
	defer m.mu.Unlock()
	node := m.names[from]
	if node == nil {
		return &fs.PathError{Op: "rename", Path: from, Err: fs.ErrNotExist}
	}
	m.change(change{from: from, to: to, node: node})
	return nil
}

// Remove implements vfs.FS.
func (m *FS) Remove(name string) error {
	if err := m.begin(Remove, name); err != nil {
		return err
	}
	defer m.mu.Unlock()
	if m.names[name] == nil {
		return &fs.PathError{Op: "remove", Path: name, Err: fs.ErrNotExist}
	}
	m.change(change{from: name})
	return nil
}

func (m *FS) change(c change) {
	for _, name := range []string{c.from, c.to} {
		if node := m.names[name]; node != nil {
			m.bytes -= int64(len(node.seen))
			node.linked = false
		}
	}
	c.apply(m.names)
	if c.to != "" {
		m.bytes += int64(len(c.node.seen))
		c.node.linked = true
	}
	m.pending = append(m.pending, c)
}

// List implements vfs.FS.
func (m *FS) List() ([]string, error) {
	if err := m.begin(List, ""); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.names)), nil
}

// SyncDir implements vfs.FS.
func (m *FS) SyncDir() error {
	if err := m.begin(SyncDir, ""); err != nil {
		return err
	}
	defer m.mu.Unlock()
	for _, c := range m.pending {
		c.apply(m.durable)
	}
	m.pending = m.pending[:0]
	return nil
}

// Free implements vfs.FS.
func (m *FS) Free() (uint64, error) {
	if err := m.begin(Free, ""); err != nil {
		return 0, err
	}
	defer m.mu.Unlock()
	return uint64(max(m.capacity-m.bytes, 0)), nil
}

// Lock implements vfs.FS.
func (m *FS) Lock() (io.Closer, error) {
	if err := m.begin(Lock, ""); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	if m.locked {
		return nil, errors.New("lock folder in memory: another process owns it")
	}
	m.locked = true
	return &lock{fs: m, life: m.life}, nil
}

type lock struct {
	fs   *FS
	life int
}

func (l *lock) Close() error {
	l.fs.mu.Lock()
	defer l.fs.mu.Unlock()
	if l.life == l.fs.life {
		l.fs.locked = false
	}
	return nil
}

// A handle is an open file, for writing or for reading.
type handle struct {
	fs     *FS
	name   string
	node   *inode
	life   int
	closed bool
}

// begin counts the operation, lets a fault have its way and takes the lock.
func (h *handle) begin(op Op) error {
	if err := h.fs.begin(op, h.name); err != nil {
		return err
	}
	if h.closed || h.life != h.fs.life {
		h.fs.mu.Unlock()
		return &fs.PathError{Op: op.String(), Path: h.name, Err: fs.ErrClosed}
	}
	return nil
}

// WriteAt implements io.WriterAt. A write that fails or meets the end of the
// disk leaves the part of the bytes written that fitted.
func (h *handle) WriteAt(p []byte, off int64) (int, error) {
	err := h.begin(Write)
	var short *shortWriteError
	switch {
	case errors.As(err, &short):
		h.fs.mu.Lock()
		defer h.fs.mu.Unlock()
		n := min(short.n, len(p))
		h.write(p[:n], off)
		return n, short.err
	case err != nil:
		return 0, err
	}
	defer h.fs.mu.Unlock()
	grow := max(off+int64(len(p))-int64(len(h.node.seen)), 0)
	if over := grow - max(h.fs.capacity-h.fs.bytes, 0); over > 0 {
		n := max(len(p)-int(over), 0)
		h.write(p[:n], off)
		return n, &fs.PathError{Op: "write", Path: h.name, Err: vfs.ErrNoSpace}
	}
	h.write(p, off)
	return len(p), nil
}

func (h *handle) write(p []byte, off int64) {
	if len(p) == 0 {
		return
	}
	n, end := h.node, off+int64(len(p))
	n.touch(off, end)
	if grow := end - int64(len(n.seen)); grow > 0 {
		if n.linked {
			h.fs.bytes += grow
		}
		n.seen = append(n.seen, make([]byte, grow)...)
	}
	copy(n.seen[off:], p)
}

// Sync implements vfs.File.
func (h *handle) Sync() error {
	if err := h.begin(Sync); err != nil {
		if !errors.Is(err, fs.ErrClosed) {
			h.fs.mu.Lock()
			defer h.fs.mu.Unlock()
			h.node.fail()
		}
		return err
	}
	defer h.fs.mu.Unlock()
	h.node.sync()
	return nil
}

// Truncate implements vfs.File.
func (h *handle) Truncate(size int64) error {
	if err := h.begin(Truncate); err != nil {
		return err
	}
	defer h.fs.mu.Unlock()
	end := int64(len(h.node.seen))
	cut := max(end-size, 0)
	h.node.touch(end-cut, end)
	h.node.seen = h.node.seen[:end-cut]
	if h.node.linked {
		h.fs.bytes -= cut
	}
	return nil
}

// ReadAt implements io.ReaderAt.
func (h *handle) ReadAt(p []byte, off int64) (int, error) {
	if err := h.begin(Read); err != nil {
		return 0, err
	}
	defer h.fs.mu.Unlock()
	if off >= int64(len(h.node.seen)) {
		return 0, io.EOF
	}
	n := copy(p, h.node.seen[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Size implements vfs.Reader.
func (h *handle) Size() (int64, error) {
	if err := h.begin(Size); err != nil {
		return 0, err
	}
	defer h.fs.mu.Unlock()
	return int64(len(h.node.seen)), nil
}

// Close implements io.Closer.
func (h *handle) Close() error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	h.closed = true
	return nil
}
