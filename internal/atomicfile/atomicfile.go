// Package atomicfile writes small files whole or not at all, and reads files
// that belong to somebody less trusted than the reader.
package atomicfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// ErrNotRegular is the cause when ReadLimited met a symbolic link, a folder, a
// pipe or a device where a file should be.
var ErrNotRegular = errors.New("not a regular file")

// ErrTooLarge is the cause when ReadLimited met a file beyond its limit.
var ErrTooLarge = errors.New("file is too large")

// keepOwner leaves the owner as the file system set it.
const keepOwner = -1

// Write makes path hold data with exactly the given mode, whatever the umask.
// A reader, and the machine after a power cut, sees the old file or the new
// one, never a part; when Write returned nil the new one is durable. The folder
// must exist. What path was before is replaced, a symbolic link as well. A
// crash can leave a file .<name>.*.tmp beside path, which Clean removes.
func Write(path string, data []byte, mode fs.FileMode) error {
	return WriteOwned(path, data, mode, keepOwner, keepOwner)
}

// WriteOwned is Write with an owner and a group, which the file has before it
// appears under its name; -1 leaves one as it is. Windows has no such numbers
// and ignores both: there the folder's access list decides.
func WriteOwned(path string, data []byte, mode fs.FileMode, uid, gid int) error {
	if err := writeOwned(path, data, mode, uid, gid); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func writeOwned(path string, data []byte, mode fs.FileMode, uid, gid int) (err error) {
	dir, name := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	// CreateTemp makes the file with O_EXCL and for the caller alone (0600).
	file, err := os.CreateTemp(dir, "."+name+".*.tmp")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, remove(file.Name()))
		}
	}()
	if err := fill(file, data, mode, uid, gid); err != nil {
		return err
	}
	if err := os.Rename(file.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// fill writes, dresses, syncs and closes the file.
func fill(file *os.File, data []byte, mode fs.FileMode, uid, gid int) error {
	_, err := file.Write(data)
	if err == nil {
		err = setOwner(file, uid, gid)
	}
	if err == nil {
		// After the owner: a change of owner can clear mode bits.
		err = file.Chmod(mode)
	}
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

// remove deletes a temporary file that may have been renamed already.
func remove(name string) error {
	if err := os.Remove(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// leftover is what the file of a write that was killed is called.
var leftover = regexp.MustCompile(`^\.(.+)\.[0-9]+\.tmp$`)

// Clean deletes from a folder what writes that were killed have left there: of
// files whose names begin with prefix, and not younger than age, so that writes
// under way are left alone. A folder that does not exist is clean.
func Clean(dir, prefix string, age time.Duration) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("clean folder: %w", err)
	}
	for _, entry := range entries {
		name := leftover.FindStringSubmatch(entry.Name())
		if name == nil || !strings.HasPrefix(name[1], prefix) {
			continue
		}
		info, err := entry.Info()
		if err != nil || !info.Mode().IsRegular() || time.Since(info.ModTime()) < age {
			continue // renamed meanwhile, not ours, or under way
		}
		if err := remove(filepath.Join(dir, entry.Name())); err != nil {
			return fmt.Errorf("clean folder: %w", err)
		}
	}
	return nil
}

// ReadLimited returns the content of the regular file path, which holds at most
// limit bytes. It neither follows a symbolic link as the last element nor waits
// on a pipe, so root can read a file that an unprivileged process controls. The
// cause of an error is ErrNotRegular, ErrTooLarge or the system's.
func ReadLimited(path string, limit int64) ([]byte, error) {
	data, err := readLimited(path, limit)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return data, nil
}

func readLimited(path string, limit int64) ([]byte, error) {
	file, err := openNoFollow(path)
	if err != nil {
		return nil, err
	}
	data, err := readRegular(file, limit)
	// Nothing was written, so a failed close loses nothing.
	_ = file.Close()
	return data, err
}

func readRegular(file *os.File, limit int64) ([]byte, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, ErrNotRegular
	}
	// One byte more than allowed tells a file that grows while it is read.
	data, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrTooLarge, limit)
	}
	return data, nil
}
