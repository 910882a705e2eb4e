package tail

import (
	"errors"
	"io/fs"
	"syscall"
)

// A status is what the file system says of a file.
type status struct {
	id    identity
	size  int64
	mtime int64 // nanoseconds; only ever compared for being equal
	ctime int64
	links uint64
	owner uint32
	kind  fs.FileMode // type bits
}

// changedSince reports whether the file may hold other bytes than at old.
func (s status) changedSince(old status) bool {
	return s.size != old.size || s.mtime != old.mtime || s.ctime != old.ctime
}

// missing reports whether err says that there is no such file.
func missing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}
