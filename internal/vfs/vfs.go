// Package vfs is the file system as the spool sees it: few operations, each
// with a stated durability, so that a test can take the place of the disk,
// forget what was not synced and fail any single operation.
package vfs

import (
	"errors"
	"io"
)

// What a full or a read-only disk is called, whatever the system says. Errors
// of every operation that writes match these with errors.Is.
var (
	ErrNoSpace  = errors.New("no space left on the file system")
	ErrReadOnly = errors.New("the file system is read-only")
)

// FS is one folder. Names are single path elements inside it.
//
// A file's bytes and its length survive a power cut once its Sync returned
// nil. That a name exists, is gone or was renamed survives once SyncDir
// returned nil.
type FS interface {
	// Create makes a new file for writing. It fails with fs.ErrExist when the
	// name is taken: nothing is ever overwritten.
	Create(name string) (File, error)
	// OpenWrite opens an existing file for writing in place.
	OpenWrite(name string) (File, error)
	// Open opens an existing file for reading.
	Open(name string) (Reader, error)
	// Rename gives a file a new name and replaces what had that name. On
	// Windows neither file may be open.
	Rename(from, to string) error
	// Remove deletes a file. On Windows it may not be open.
	Remove(name string) error
	// List returns the names of the files in the folder in lexical order.
	List() ([]string, error)
	// SyncDir makes creations, renames and removals durable.
	SyncDir() error
	// Free returns the bytes that an unprivileged process can still write.
	Free() (uint64, error)
	// Lock takes the folder for this process. A second owner gets an error
	// that names the folder. Closing the result gives it back.
	Lock() (io.Closer, error)
}

// File is a file open for writing.
type File interface {
	io.WriterAt
	io.Closer
	// Sync makes all written bytes durable. After it failed the file must not
	// be synced again: the kernel may have dropped the pages and would say that
	// all is well.
	Sync() error
	// Truncate cuts the file to size bytes.
	Truncate(size int64) error
}

// Reader is a file open for reading.
type Reader interface {
	io.ReaderAt
	io.Closer
	// Size returns how many bytes ReadAt can reach.
	Size() (int64, error)
}
