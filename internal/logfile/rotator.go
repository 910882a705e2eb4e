package logfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// rotator appends lines to a file and keeps it and its older parts within a
// number of bytes. It does not mind what others do to the files: each write
// goes to the file that has the name at that moment.
type rotator struct {
	path  string
	total int64 // bytes of all files
	files int
	file  *os.File
	torn  bool // the last write ended within a line
}

// share is the bytes of one file.
func (r *rotator) share() int64 { return r.total / int64(r.files) }

// name is the path of the nth older part; 0 is the file itself.
func (r *rotator) name(n int) string {
	if n == 0 {
		return r.path
	}
	return r.path + "." + strconv.Itoa(n)
}

func (r *rotator) open() error {
	_, err := r.current()
	if err == nil {
		err = r.trim(r.total)
	}
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	return nil
}

// write appends whole lines. After an error it is as if they had never come,
// except that the file may end within one.
func (r *rotator) write(lines []byte) error {
	size, err := r.current()
	if err != nil {
		return err
	}
	if r.torn {
		lines = append([]byte{'\n'}, lines...)
	}
	if int64(len(lines)) > r.share() {
		lines = append(cut(lines, int(r.share())-1), '\n')
	}
	if size+int64(len(lines)) > r.share() {
		if err := r.rotate(); err != nil {
			return err
		}
	}
	n, err := r.file.Write(lines)
	if n > 0 {
		r.torn = n < len(lines)
	}
	return err
}

// current makes sure that the open file is the one at path, and returns its
// size.
func (r *rotator) current() (int64, error) {
	if r.file != nil {
		if size, ok := r.same(); ok {
			return size, nil
		}
		// The file is another's now; what its close says helps nobody.
		_ = r.close()
	}
	if err := os.MkdirAll(filepath.Dir(r.path), 0o750); err != nil {
		return 0, err
	}
	file, err := os.OpenFile(r.path, openFlags, 0o640)
	if err != nil {
		return 0, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", r.path)
	}
	if err != nil {
		return 0, errors.Join(err, file.Close())
	}
	r.file, r.torn = file, false
	return info.Size(), nil
}

// same reports whether the open file still has its name, and its size.
func (r *rotator) same() (int64, bool) {
	opened, err := r.file.Stat()
	if err != nil {
		return 0, false
	}
	named, err := os.Lstat(r.path)
	if err != nil || !os.SameFile(opened, named) {
		return 0, false
	}
	return opened.Size(), true
}

// rotate shifts every part by one, which overwrites the oldest, and begins a
// new file.
func (r *rotator) rotate() error {
	if err := r.close(); err != nil {
		return err
	}
	for n := r.files - 1; n > 0; n-- {
		if err := os.Rename(r.name(n-1), r.name(n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := r.trim(r.total - r.share()); err != nil {
		return err
	}
	_, err := r.current()
	return err
}

// trim deletes the oldest parts until all files together have no more than
// limit bytes, and parts beyond the number of files.
func (r *rotator) trim(limit int64) error {
	parts, err := r.parts()
	if err != nil {
		return err
	}
	for _, n := range parts {
		info, err := os.Lstat(r.name(n))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		limit -= info.Size()
		if n == 0 || (n < r.files && limit >= 0) {
			continue
		}
		if err := os.Remove(r.name(n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// parts lists the numbers of the files there are, the newest first.
func (r *rotator) parts() ([]int, error) {
	dir, base := filepath.Split(r.path)
	if dir == "" {
		dir = "."
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	parts := []int{0}
	for _, entry := range entries {
		suffix, ok := strings.CutPrefix(entry.Name(), base+".")
		n, err := strconv.Atoi(suffix)
		if ok && err == nil && n > 0 && strconv.Itoa(n) == suffix {
			parts = append(parts, n)
		}
	}
	slices.Sort(parts)
	return parts, nil
}

func (r *rotator) close() error {
	if r.file == nil {
		return nil
	}
	file := r.file
	r.file = nil
	return file.Close()
}
