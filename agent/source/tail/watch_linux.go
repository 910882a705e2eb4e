package tail

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A watcher is an inotify instance. Folders are watched for names that come
// and go. A file is watched for its next change only, while it is quiet: a
// busy file is looked at ten times a second instead, which costs less than an
// event for each write.
type watcher struct {
	file  *os.File
	hints *hints
	done  chan struct{} // closed when the reading goroutine ended
	stop  chan struct{}

	mu      sync.Mutex
	names   map[int32]string // watch descriptor -> path
	folders map[string]int32
	early   map[int32]bool // told of what has no name here yet; whether the watch is over
}

// eventPause is how long events gather before the next read.
const eventPause = 20 * time.Millisecond

// newWatcher starts a watcher that writes to h. It returns nil and an error
// when the kernel gives no instance.
func newWatcher(h *hints) (*watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("start inotify: %w", err)
	}
	w := &watcher{
		file: os.NewFile(uintptr(fd), "inotify"), hints: h,
		done: make(chan struct{}), stop: make(chan struct{}),
		names: make(map[int32]string), folders: make(map[string]int32), early: make(map[int32]bool),
	}
	go w.read()
	return w, nil
}

func (w *watcher) close() {
	close(w.stop)
	go func() { _ = w.file.Close() }() // ends the read under way, then waits for a file system that hangs
	<-w.done
}

// folder watches the names in dir from now on, and reports whether it did not
// before. A folder that is not there is no error.
func (w *watcher) folder(dir string) (started bool, err error) {
	if w.all([]string{dir}) {
		return false, nil
	}
	return w.add(dir, unix.IN_CREATE|unix.IN_MOVED_FROM|unix.IN_MOVED_TO|unix.IN_DELETE|unix.IN_MOVE_SELF|unix.IN_ONLYDIR, true)
}

// all reports whether the names in all those folders are watched.
func (w *watcher) all(dirs []string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, dir := range dirs {
		if _, ok := w.folders[dir]; !ok {
			return false
		}
	}
	return true
}

// once watches the file at path for its next change.
func (w *watcher) once(path string) error {
	_, err := w.add(path, unix.IN_MODIFY|unix.IN_ATTRIB|unix.IN_MOVE_SELF|unix.IN_ONESHOT, false)
	return err
}

// add reports whether there is something at path that is watched now. The file
// system may hang, so nothing is locked while the kernel looks for path.
func (w *watcher) add(path string, mask uint32, folder bool) (bool, error) {
	wd, err := w.addWatch(path, mask)
	switch {
	case errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.ENOMEM):
		return false, fmt.Errorf("watch %s: %w", path, err)
	case err != nil:
		return false, nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if over, early := w.early[wd]; early { // it was told before the kernel was back
		delete(w.early, wd)
		w.hints.add(path)
		if over {
			return true, nil
		}
	}
	w.names[wd] = path
	if folder {
		w.folders[path] = wd
	}
	return true, nil
}

// addWatch keeps the instance open while the kernel looks for path.
func (w *watcher) addWatch(path string, mask uint32) (int32, error) {
	raw, err := w.file.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("watch %s: %w", path, err)
	}
	var wd int
	closed := raw.Control(func(fd uintptr) { wd, err = unix.InotifyAddWatch(int(fd), path, mask) })
	return int32(wd), errors.Join(closed, err)
}

func (w *watcher) read() {
	defer close(w.done)
	buf := make([]byte, 16<<10)
	for {
		n, err := w.file.Read(buf)
		if err != nil {
			return // closed
		}
		for events := buf[:n]; len(events) >= unix.SizeofInotifyEvent; {
			size := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(events[12:]))
			w.event(
				int32(binary.NativeEndian.Uint32(events)),
				binary.NativeEndian.Uint32(events[4:]),
				strings.TrimRight(string(events[unix.SizeofInotifyEvent:size]), "\x00"))
			events = events[size:]
		}
		select {
		case <-w.stop:
			return
		case <-time.After(eventPause):
		}
	}
}

func (w *watcher) event(wd int32, mask uint32, name string) {
	if mask&unix.IN_Q_OVERFLOW != 0 {
		w.hints.addAll()
		return
	}
	w.mu.Lock()
	path, known := w.names[wd]
	if !known && wd >= 0 {
		w.early[wd] = mask&unix.IN_IGNORED != 0
	}
	moved := mask&unix.IN_MOVE_SELF != 0 && known && w.folders[path] == wd // the name may lead to another
	if moved || mask&unix.IN_IGNORED != 0 {                                // the watch is over
		delete(w.names, wd)
		if w.folders[path] == wd {
			delete(w.folders, path)
		}
	}
	w.mu.Unlock()
	if path == "" {
		return
	}
	if name != "" {
		path = filepath.Join(path, name)
	}
	w.hints.add(path)
}
