package memfs

import "fmt"

// Op is a kind of operation that can be counted and made to fail.
type Op int

// The operations. Any stands for each of them.
const (
	Any Op = iota
	Create
	OpenWrite
	Open
	Rename
	Remove
	List
	SyncDir
	Free
	Lock
	Write
	Sync
	Truncate
	Read
	Size
	opCount
)

// String returns the operation's name.
func (o Op) String() string {
	return [opCount]string{
		"any", "create", "openwrite", "open", "rename", "remove", "list", "syncdir",
		"free", "lock", "write", "sync", "truncate", "read", "size",
	}[o]
}

// A Fault makes one operation fail.
type Fault struct {
	Op  Op
	N   int   // the N-th of its kind from now fails, counted from 1
	Err error // what it fails with
	// Sticky faults stay: every later one of the kind fails, too.
	Sticky bool
	// Short is how many bytes a failing Write writes all the same.
	Short int

	seen int
}

// Fail adds a fault.
func (m *FS) Fail(f Fault) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.faults = append(m.faults, &f)
}

// Heal removes all faults.
func (m *FS) Heal() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.faults = nil
}

// Failed reports whether an operation of that kind has failed on the file that
// has the name.
func (m *FS) Failed(op Op, name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	node := m.names[name]
	return node != nil && node.failed&(1<<op) != 0
}

// Count returns how often an operation was tried.
func (m *FS) Count(op Op) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.counts[op]
}

// shortWriteError is an injected failure that writes n bytes first.
type shortWriteError struct {
	n   int
	err error
}

func (s *shortWriteError) Error() string { return s.err.Error() }

func (s *shortWriteError) Unwrap() error { return s.err }

// begin counts an operation and holds the lock when it returns nil. An
// operation that is to fail gets its error instead.
func (m *FS) begin(op Op, name string) error {
	if m.OnOp != nil {
		m.OnOp(op, name)
	}
	m.mu.Lock()
	m.counts[Any]++
	m.counts[op]++
	for _, f := range m.faults {
		if f.Op != op && f.Op != Any {
			continue
		}
		f.seen++
		if f.seen == f.N || f.Sticky && f.seen > f.N {
			if node := m.names[name]; node != nil {
				node.failed |= 1 << op
			}
			m.mu.Unlock()
			return &shortWriteError{f.Short, fmt.Errorf("%s %s: %w", op, name, f.Err)}
		}
	}
	return nil
}
