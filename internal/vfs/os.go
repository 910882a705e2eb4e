package vfs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/gofrs/flock"
)

// lockName is the file that the lock is held on. It is never removed: a lock
// on a removed file excludes nobody.
const lockName = "lock"

// OS returns the folder path of the machine, made if it is missing. What it
// creates only its owner can read.
func OS(path string) (FS, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("sync parent of %s: %w", path, err)
	}
	return folder(path), nil
}

// WeakSync returns what kind of file system a folder is on when a sync there may
// promise less than FS says: one in memory, over the network, or in the hands of
// another process. It is "" for all others, and when the system cannot tell.
func WeakSync(path string) string { return weakSync(path) }

// folder is its path.
type folder string

func (d folder) join(name string) string { return filepath.Join(string(d), name) }

func (d folder) Create(name string) (File, error) {
	return openWrite(d.join(name), os.O_CREATE|os.O_EXCL)
}

func (d folder) OpenWrite(name string) (File, error) { return openWrite(d.join(name), 0) }

func openWrite(path string, flags int) (File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|flags, 0o600)
	if err != nil {
		return nil, classify(err)
	}
	return file{f}, nil
}

func (d folder) Open(name string) (Reader, error) {
	f, err := os.Open(d.join(name))
	if err != nil {
		return nil, err
	}
	return reader{f}, nil
}

func (d folder) Rename(from, to string) error {
	return classify(os.Rename(d.join(from), d.join(to)))
}

func (d folder) Remove(name string) error { return classify(os.Remove(d.join(name))) }

func (d folder) List() ([]string, error) {
	entries, err := os.ReadDir(string(d))
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		if e.Type().IsRegular() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

func (d folder) SyncDir() error { return classify(syncDir(string(d))) }

func (d folder) Free() (uint64, error) { return free(string(d)) }

func (d folder) Lock() (io.Closer, error) {
	lock := flock.New(d.join(lockName))
	held, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("lock folder %s: %w", string(d), classify(err))
	}
	if !held {
		return nil, errors.Join(
			fmt.Errorf("lock folder %s: another process owns it", string(d)), lock.Close())
	}
	return lock, nil
}

// file is a file for writing with the errors and the sync of this package.
type file struct{ *os.File }

func (f file) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.File.WriteAt(p, off)
	return n, classify(err)
}

func (f file) Sync() error { return classify(syncData(f.File)) }

func (f file) Truncate(size int64) error { return classify(f.File.Truncate(size)) }

type reader struct{ *os.File }

func (r reader) Size() (int64, error) {
	info, err := r.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// classify makes err match ErrNoSpace or ErrReadOnly when it is one.
func classify(err error) error {
	switch {
	case err == nil:
		return nil
	case isAny(err, noSpace):
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	case isAny(err, readOnly):
		return fmt.Errorf("%w: %w", ErrReadOnly, err)
	}
	return err
}

func isAny(err error, targets []error) bool {
	for _, target := range targets {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}
