package tail

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/openloganalytics/agent/agent/source"
)

// fill starts, and makes the spool full with a line under way.
func (r *rig) fill() {
	r.Helper()
	r.start()
	r.add("app.log", "first\n")
	r.want("first")
	r.out.Block()
	r.add("app.log", "under way\n")
	time.Sleep(time.Minute)
}

func TestF01RotatedTwiceWhileTheSpoolIsFull(t *testing.T) {
	for _, pattern := range []string{"app.log", "app.log*"} {
		t.Run(pattern, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.fill()
				want := []string{"first", "under way"}
				for i := range 5 {
					r.rename("app.log", fmt.Sprint("app.log.", i))
					line := fmt.Sprint("after rotation ", i)
					want = append(want, line)
					r.add("app.log", line+"\n")
					time.Sleep(time.Minute)
				}
				r.out.Unblock()
				r.want(want...)
				r.wantNoLoss()
			}, pattern)
		})
	}
}

func TestF15AppearsAndIsDeletedWhileTheSpoolIsFull(t *testing.T) {
	bubble(t, func(r *rig) {
		r.fill()
		r.add("short.log", "one\ntwo")
		time.Sleep(time.Minute)
		r.remove("short.log")
		time.Sleep(time.Minute)
		r.out.Unblock()
		r.wantAny("first", "under way", "one", "two")
		r.wantNoLoss()
		if fds := openDeleted(t, r.dir); len(fds) > 0 {
			t.Errorf("deleted files are held open: %v", fds)
		}
	}, "*.log")
}

func TestF15DeletedFilesHoldLittleOfTheDisk(t *testing.T) {
	bubble(t, func(r *rig) {
		r.edit = func(f *follower) { f.deletedLimit = 1000 }
		r.fill()
		for i := range 3 {
			name := fmt.Sprint(i, ".log")
			r.add(name, text(number(name, 60))) // some 600 bytes
			time.Sleep(time.Minute)
			r.remove(name)
			time.Sleep(time.Minute)
			if fds := openDeleted(t, r.dir); len(fds) > 1 {
				t.Errorf("%v are held open, more than 1000 bytes", fds)
			}
		}
		r.out.Unblock()
		r.wantAny(append(number("2.log", 60), "first", "under way")...)
		size := int64(len(text(number("0.log", 60))))
		r.wantLoss(
			source.Loss{Reason: lostDeleted, Class: "0.log", Records: 60, Bytes: size},
			source.Loss{Reason: lostDeleted, Class: "1.log", Records: 60, Bytes: size},
		)
	}, "*.log")
}

func TestF07TruncatedAfterItGrewWhileTheSpoolIsFull(t *testing.T) {
	for name, end := range map[string]string{"whole lines": "", "the last line is not whole": "begun"} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.fill()
				lost := int64(5000)
				bytes := int64(0)
				for part := range slices.Chunk(number("unread", int(lost)), 500) {
					bytes += int64(len(text(part)))
					r.add("app.log", text(part))
					time.Sleep(time.Minute)
				}
				if end != "" {
					r.add("app.log", end)
					lost, bytes = lost+1, bytes+int64(len(end))
					time.Sleep(time.Minute)
				}
				r.check(os.Truncate(r.path("app.log"), 0))
				r.add("app.log", strings.Repeat("another life\n", 10))
				time.Sleep(time.Minute)
				r.out.Unblock()
				r.want(append([]string{"first", "under way"}, slices.Repeat([]string{"another life"}, 10)...)...)
				r.wantLoss(source.Loss{Reason: lostTruncated, Class: "app.log", Records: lost, Bytes: bytes})
			}, "app.log")
		})
	}
}

// TestF07LinesInMemoryAreNotLost truncates a file of which a block was read
// that takes several Emits: what those bring is not lost.
func TestF07LinesInMemoryAreNotLost(t *testing.T) {
	bubble(t, func(r *rig) {
		r.o.RowBytes = 1000
		r.start()
		r.add("app.log", "first\n")
		r.want("first")
		r.out.Block()
		synctest.Wait()
		lines := number(strings.Repeat("x", 90), 5000)
		r.add("app.log", text(lines))
		time.Sleep(time.Minute)
		r.check(os.Truncate(r.path("app.log"), 0))
		time.Sleep(time.Minute)
		r.out.Unblock()
		time.Sleep(time.Minute)
		read := len(r.lines()) - 1
		if read < 1000 || read > 4000 {
			t.Fatalf("%d lines were read, want those of one block", read)
		}
		r.want(append([]string{"first"}, lines[:read]...)...)
		left := lines[read:]
		r.wantLoss(source.Loss{Reason: lostTruncated, Class: "app.log", Records: int64(len(left)), Bytes: int64(len(text(left)))})
	}, "app.log")
}

func TestVigilKeepsToTheHandleLimit(t *testing.T) {
	bubble(t, func(r *rig) {
		const limit = 8
		r.edit = func(f *follower) { f.handleLimit = limit }
		r.fill()
		want := []string{"first", "under way"}
		for i := range 30 {
			line := fmt.Sprint("file ", i)
			want = append(want, line)
			r.add(fmt.Sprint(i, ".log"), line+"\n")
		}
		for range 50 {
			time.Sleep(time.Second / 2)
			if n := openBelow(t, r.dir); n > limit {
				t.Errorf("%d files are open, want at most %d", n, limit)
			}
		}
		r.out.Unblock()
		r.wantAny(want...)
		r.wantNoLoss()
	}, "*.log")
}

// TestF15StoppedAfterAFileWasReplacedWhileTheSpoolIsFull: the lines that wait to
// be taken are in a file that nobody can open again.
func TestF15StoppedAfterAFileWasReplacedWhileTheSpoolIsFull(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start()
		r.add("app.log", "one\n")
		r.want("one")
		r.out.Block()
		r.add("app.log", "two\nthree\n")
		time.Sleep(time.Minute)
		r.remove("app.log")
		time.Sleep(time.Minute)
		r.stop()
		r.wantLoss(source.Loss{Reason: "deleted-file", Class: "app.log", Records: 2, Bytes: 10})
	}, "app.log*")
}

// TestF07FirstLinesInMemoryWhileTheFileIsRewritten: what was cut had been read,
// and what is there now is no part of it.
func TestF07FirstLinesInMemoryWhileTheFileIsRewritten(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start()
		time.Sleep(time.Minute)
		r.out.Block()
		r.add("app.log", "one\n")
		time.Sleep(time.Minute)
		r.check(os.WriteFile(r.path("app.log"), []byte("two\nthree\n"), 0o644))
		time.Sleep(time.Minute)
		r.out.Unblock()
		r.want("one", "two", "three")
		r.wantNoLoss()
	}, "app.log")
}

func TestStopWhileTheSpoolIsFull(t *testing.T) {
	bubble(t, func(r *rig) {
		r.fill()
		r.stop()
		r.out.Unblock()
		r.start()
		r.want("first", "under way")
		r.wantNoLoss()
	}, "app.log")
}

// TestStartedAgainBeforeItIsDurable is what a failure of Run leads to.
func TestStartedAgainBeforeItIsDurable(t *testing.T) {
	bubble(t, func(r *rig) {
		r.add("app.log", "one\n")
		r.start()
		r.want("one")
		r.stop()
		r.start()
		r.want("one")
	}, "app.log")
}

func TestCheckpointKeysBeginWithTheName(t *testing.T) {
	bubble(t, func(r *rig) {
		r.add("app.log", "one\n")
		r.start()
		r.want("one")
		r.out.Durable()
		keys := 0
		r.out.Checkpoints("", func(key string, _ []byte) bool {
			keys++
			if !strings.HasPrefix(key, r.o.Name+":") {
				t.Errorf("checkpoint key %q, want one that begins with %q", key, r.o.Name+":")
			}
			return true
		})
		if keys == 0 {
			t.Error("no checkpoints")
		}
	}, "app.log")
}
