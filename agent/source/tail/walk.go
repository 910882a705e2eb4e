package tail

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"
)

// A walk is one way through folders, off the loop. It tells where it is, so that
// the loop sees when a file system does not answer.
type walk struct {
	avoid []string               // nothing there or below is asked for
	at    atomic.Pointer[string] // what is being asked for

	seen  *string // where it was as of the loop's last check,
	since time.Time
	stuck string // what does not answer: nobody waits for the walk any more
}

func newWalk(stuck map[string]*walk, now time.Time) *walk {
	w := &walk{since: now}
	for path := range stuck {
		w.avoid = append(w.avoid, path)
	}
	return w
}

// enter reports whether path may be asked for, and notes that it is.
func (w *walk) enter(path string) bool {
	for _, no := range w.avoid {
		if within(path, no) {
			return false
		}
	}
	w.at.Store(&path)
	return true
}

func within(path, folder string) bool {
	rest, ok := strings.CutPrefix(path, folder)
	return ok && (rest == "" || os.IsPathSeparator(rest[0]) || os.IsPathSeparator(folder[len(folder)-1]))
}

// waits returns when to check the walk again, and what it has been waiting for
// since hangAfter, if it has.
func (w *walk) waits(now time.Time) (next time.Time, path string) {
	at := w.at.Load()
	switch {
	case at != w.seen:
		w.seen, w.since = at, now
	case at != nil && now.Sub(w.since) >= hangAfter:
		path = *at
	}
	return w.since.Add(hangAfter), path
}

// stat is statPath on the way.
func (w *walk) stat(path string) (status, error) {
	if !w.enter(path) {
		return status{}, fs.ErrNotExist
	}
	return statPath(path)
}

// folders is the file system below base on the way, for doublestar.
func (w *walk) folders(base string) fs.FS { return walkFS{os.DirFS(base), base, w} }

type walkFS struct {
	dir  fs.FS
	base string
	w    *walk
}

// Open implements fs.FS.
func (f walkFS) Open(name string) (fs.File, error) {
	if err := f.enter("open", name); err != nil {
		return nil, err
	}
	return f.dir.Open(name)
}

// ReadDir implements fs.ReadDirFS.
func (f walkFS) ReadDir(name string) ([]fs.DirEntry, error) {
	if err := f.enter("readdir", name); err != nil {
		return nil, err
	}
	return fs.ReadDir(f.dir, name)
}

// Stat implements fs.StatFS.
func (f walkFS) Stat(name string) (fs.FileInfo, error) {
	if err := f.enter("stat", name); err != nil {
		return nil, err
	}
	return fs.Stat(f.dir, name)
}

func (f walkFS) enter(op, name string) error {
	if !f.w.enter(filepath.Join(f.base, filepath.FromSlash(name))) {
		return &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
	}
	return nil
}

// stall stops waiting for a walk. Until it comes back nothing is looked for
// where it is stuck: on the whole file system, unless that is the system's own.
func (t *follower) stall(w *walk, path string) {
	w.stuck = mountOf(path)
	t.stuck[w.stuck] = w
	t.out.Trouble(w.stuck, "the file system has not answered for "+hangAfter.String()+" when asked for "+path+
		"; files below it are looked for again when it does. See that the mount is healthy, or take it out of the patterns")
	t.scanSoon()
}

// unstall is called when a walk came back that nobody waits for.
func (t *follower) unstall(w *walk) {
	if t.stuck[w.stuck] == w {
		delete(t.stuck, w.stuck)
		t.out.Trouble(w.stuck, "")
		t.scanSoon()
	}
}
