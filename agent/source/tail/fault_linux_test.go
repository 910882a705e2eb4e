package tail

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// opening makes the follower open files through hook.
func (r *rig) opening(hook func(path string) (*os.File, error)) {
	r.edit = func(t *follower) {
		t.guard.openFile = func(path string) (*os.File, error) {
			if f, err := hook(filepath.Base(path)); f != nil || err != nil {
				return f, err
			}
			return openPlain(path)
		}
	}
}

func TestF26ManyFilesFewHandles(t *testing.T) {
	bubble(t, func(r *rig) {
		const files, limit = 200, 20
		most := 0
		r.edit = func(f *follower) { f.handleLimit = limit }
		r.start()
		var want []string
		for round := range 3 {
			for i := range files {
				line := fmt.Sprintf("file %d round %d", i, round)
				want = append(want, line)
				r.add(fmt.Sprintf("%d.log", i), line+"\n")
			}
			r.settle(len(want))
			most = max(most, openBelow(t, r.dir))
		}
		r.wantAny(want...)
		r.wantNoLoss()
		if most > limit {
			t.Errorf("%d files are open, want at most %d", most, limit)
		}
	}, "*.log")
}

// TestF26TenThousandFiles: fifty of them are written to again and again.
func TestF26TenThousandFiles(t *testing.T) {
	bubble(t, func(r *rig) {
		const files, hot, rounds = 10000, 50, 5
		var want []string
		write := func(file, round int) {
			line := fmt.Sprintf("file %d round %d", file, round)
			want = append(want, line)
			r.add(fmt.Sprintf("%d.log", file), line+"\n")
		}
		for i := range files {
			write(i, 0)
		}
		before := heapInUse()
		r.start()
		r.settle(len(want))
		most := openBelow(t, r.dir)
		for round := 1; round <= rounds; round++ {
			for i := range hot {
				write(i*files/hot, round)
			}
			time.Sleep(30 * time.Second)
			most = max(most, openBelow(t, r.dir))
		}
		if used := heapInUse() - before; used > 32<<20 {
			t.Errorf("%d bytes are in use, the delivered rows among them, want at most 32 MiB", used)
		}
		r.wantAny(want...)
		r.wantNoLoss()
		if most > maxOpen {
			t.Errorf("%d files are open, want at most %d", most, maxOpen)
		}
	}, "*.log")
}

func heapInUse() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func openBelow(t *testing.T, dir string) int {
	t.Helper()
	fds, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && strings.HasPrefix(to, dir) {
			n++
		}
	}
	return n
}

func TestF27WithoutEvents(t *testing.T) {
	bubble(t, func(r *rig) {
		r.edit = func(f *follower) { f.unwatched(errors.New("no space left on device")) }
		r.start()
		r.add("app.log", "one\n")
		r.want("one")
		r.add("app.log", "two\n")
		r.want("one", "two")
		if text := r.out.Troubles()["inotify"]; !strings.Contains(text, "fs.inotify.max_user_watches") {
			t.Errorf("trouble = %q, want the setting to raise", text)
		}
	}, "app.log")
}

func TestF28OutOfFileHandles(t *testing.T) {
	bubble(t, func(r *rig) {
		open := func() int { return openBelow(t, r.dir) }
		r.opening(func(string) (*os.File, error) {
			if open() >= 5 {
				return nil, syscall.EMFILE
			}
			return nil, nil
		})
		r.start()
		var want []string
		for i := range 30 {
			line := fmt.Sprint("file ", i)
			want = append(want, line)
			r.add(fmt.Sprintf("%d.log", i), line+"\n")
		}
		r.wantAny(want...)
		r.wantNoLoss()
	}, "*.log")
}

func TestF29PermissionTakenAndGivenBack(t *testing.T) {
	bubble(t, func(r *rig) {
		var denied atomic.Bool
		denied.Store(true)
		r.opening(func(name string) (*os.File, error) {
			if denied.Load() && name == "app.log" {
				return nil, syscall.EACCES
			}
			return nil, nil
		})
		r.add("app.log", "one\n")
		r.add("other.log", "other\n")
		r.start()
		r.wantTrouble("app.log", "make it readable")
		r.want("other")
		denied.Store(false)
		r.want("other", "one")
		if got := r.out.Troubles(); len(got) > 0 {
			t.Errorf("troubles %v, want none", got)
		}
		denied.Store(true) // the handle is kept
		r.add("app.log", "two\n")
		r.want("other", "one", "two")
	}, "*.log")
}

func TestF29UnreadableAtTheFirstStartIsNotReadFromTheBeginning(t *testing.T) {
	bubble(t, func(r *rig) {
		r.o.FromStart = false
		var denied atomic.Bool
		denied.Store(true)
		r.opening(func(string) (*os.File, error) {
			if denied.Load() {
				return nil, syscall.EACCES
			}
			return nil, nil
		})
		r.add("app.log", "old\n")
		r.add("cut.log", "old and long\n")
		r.start()
		r.wantTrouble("app.log", "make it readable")
		r.wantTrouble("cut.log", "make it readable")
		denied.Store(false)
		r.check(os.WriteFile(r.path("cut.log"), []byte("cut\n"), 0o600))
		r.want("cut")
		r.add("app.log", "new\n")
		r.want("cut", "new")
	}, "*.log")
}

func TestF30ReadErrors(t *testing.T) {
	bubble(t, func(r *rig) {
		var failing atomic.Bool
		failing.Store(true)
		r.opening(func(name string) (*os.File, error) {
			if failing.Load() && name == "app.log" {
				return os.OpenFile(r.path(name), os.O_WRONLY, 0) // every read fails
			}
			return nil, nil
		})
		r.add("app.log", "one\n")
		r.add("other.log", "other\n")
		r.start()
		r.wantTrouble("app.log", "cannot read")
		r.want("other")
		failing.Store(false)
		r.want("other", "one")
		if got := r.out.Troubles(); len(got) > 0 {
			t.Errorf("troubles %v, want none", got)
		}
	}, "*.log")
}

func TestF34HangingFileStallsNoOther(t *testing.T) {
	bubble(t, func(r *rig) {
		answer := make(chan struct{})
		r.opening(func(name string) (*os.File, error) {
			if strings.HasPrefix(name, "hangs") {
				<-answer
			}
			return nil, nil
		})
		for i := range 3 {
			r.add(fmt.Sprintf("hangs%d.log", i), fmt.Sprintf("late %d\n", i))
		}
		r.add("app.log", "one\n")
		r.start()
		r.want("one")
		r.wantTrouble("hangs0.log", "has not answered")
		r.add("app.log", "two\n")
		r.want("one", "two")
		close(answer)
		r.wantAny("one", "two", "late 0", "late 1", "late 2")
		if got := r.out.Troubles(); len(got) > 0 {
			t.Errorf("troubles %v, want none", got)
		}
	}, "*.log")
}

func TestStopWhileAFileHangs(t *testing.T) {
	bubble(t, func(r *rig) {
		answer := make(chan struct{})
		r.opening(func(string) (*os.File, error) {
			<-answer
			return nil, nil
		})
		r.add("app.log", "one\n")
		r.start()
		r.wantTrouble("app.log", "has not answered")
		r.stop() // returns
		close(answer)
	}, "*.log")
}

func TestEmitFailureEndsTheRunAndRepeats(t *testing.T) {
	bubble(t, func(r *rig) {
		r.add("app.log", "one\n")
		r.start()
		r.want("one")
		r.out.Durable()
		cause := errors.New("the spool is gone")
		r.out.Fail(cause)
		r.add("app.log", "two\n")
		if err := <-r.done; !errors.Is(err, cause) {
			t.Errorf("run ended with %v, want %v", err, cause)
		}
		r.out.Fail(nil)
		r.start()
		r.want("one", "two")
	}, "app.log")
}
