// Package vfs is the file system as the spool sees it: few operations, each
// with a stated durability, so that a test can take the place of the disk,
// forget what was not synced and fail any single operation.
package vfs

import (
	"io"
	"io/fs"
)

// FS is one folder. Names are single path elements inside it.
//
// A file's bytes survive a power cut once its Sync returned nil. That a name
// exists, is gone or was renamed survives once SyncDir returned nil.
type FS interface {
	// Create makes a new file for writing. It fails with fs.ErrExist when the
	// name is taken: nothing is ever overwritten.
	Create(name string) (File, error)
	// OpenAppend opens an existing file for writing at its end.
	OpenAppend(name string) (File, error)
	// Open opens an existing file for reading.
	Open(name string) (Reader, error)
	// Rename gives a file a new name and replaces what had that name.
	Rename(from, to string) error
	// Remove deletes a file.
	Remove(name string) error
	// List returns the names in the folder in lexical order.
	List() ([]string, error)
	// SyncDir makes creations, renames and removals durable.
	SyncDir() error
	// Free returns the bytes that an unprivileged process can still write.
	Free() (uint64, error)
	// Lock takes the folder for this process; a second owner gets an error
	// that names the folder. Closing the result gives it back.
	Lock() (io.Closer, error)
}

// File is a file open for writing.
type File interface {
	io.Writer
	io.Closer
	// Sync makes all written bytes durable. After it failed the file must not
	// be written or synced again: the kernel may have dropped the pages.
	Sync() error
	// Truncate cuts the file to size bytes.
	Truncate(size int64) error
}

// Reader is a file open for reading.
type Reader interface {
	io.ReaderAt
	io.Closer
	// Stat describes the file; Size is what ReadAt can reach.
	Stat() (fs.FileInfo, error)
}
