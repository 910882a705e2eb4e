package tail

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/openloganalytics/agent/agent/source"
)

// TestF15DeletedJustBeforeTheStop: nobody noticed that the file was deleted, and
// what waits for the spool is in no other.
func TestF15DeletedJustBeforeTheStop(t *testing.T) {
	bubble(t, func(r *rig) {
		r.fill()
		r.add("app.log", "two\nthree\n")
		time.Sleep(time.Minute)
		r.remove("app.log")
		r.stop()
		r.wantLoss(source.Loss{Reason: lostDeleted, Class: "app.log", Records: 3, Bytes: int64(len("under way\ntwo\nthree\n"))})
	}, "app.log")
}

// TestF06StoppedAfterACopyTruncateWhileTheSpoolIsFull: what was cut is in the
// copy, what was written since the cut went with the file.
func TestF06StoppedAfterACopyTruncateWhileTheSpoolIsFull(t *testing.T) {
	for name, test := range map[string]struct {
		act  func(*rig)
		want []string
		loss []source.Loss
	}{
		"the file stays": {
			act:  func(r *rig) { r.add("app.log", "three\n") },
			want: []string{"first", "under way", "two", "three"},
		},
		"the file is deleted": {
			act: func(r *rig) {
				r.add("app.log", "gone\n")
				time.Sleep(time.Minute)
				r.remove("app.log")
			},
			want: []string{"first", "under way", "two"},
			loss: []source.Loss{{Reason: lostDeleted, Class: "app.log", Records: 1, Bytes: 5}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.fill()
				r.add("app.log", "two\n")
				time.Sleep(time.Minute)
				r.copyTruncate("app.log", "app.log.1")
				test.act(r)
				r.stop()
				r.out.Unblock()
				r.out.Durable()
				r.start()
				r.wantAny(test.want...)
				r.wantLoss(test.loss...)
			}, "app.log*")
		})
	}
}

// TestF07StoppedAfterACutWhileTheSpoolIsFull: the next run cannot know how much
// there was.
func TestF07StoppedAfterACutWhileTheSpoolIsFull(t *testing.T) {
	bubble(t, func(r *rig) {
		r.fill()
		r.add("app.log", "two\n")
		time.Sleep(time.Minute)
		r.check(os.WriteFile(r.path("app.log"), []byte("anew\n"), 0o644))
		r.stop()
		r.out.Unblock()
		r.out.Durable()
		r.start()
		r.want("first", "anew")
		r.wantLoss(source.Loss{Reason: lostTruncated, Class: "app.log", Records: 2, Bytes: int64(len("under way\ntwo\n"))})
	}, "app.log")
}

// TestF07StoppedWhileACopyIsLookedFor: the loss would be entered some seconds
// later.
func TestF07StoppedWhileACopyIsLookedFor(t *testing.T) {
	bubble(t, func(r *rig) {
		r.add("app.log", "one\nbegun")
		r.start()
		r.want("one")
		r.check(os.WriteFile(r.path("app.log"), []byte("anew\n"), 0o644))
		time.Sleep(2 * time.Second)
		r.restart(nil)
		r.want("one", "anew")
		r.wantLoss(source.Loss{Reason: lostTruncated, Class: "app.log", Records: 1, Bytes: 5})
	}, "app.log")
}

// TestF16CompressedWhileTheSpoolIsFull: what nobody reads is not lost.
func TestF16CompressedWhileTheSpoolIsFull(t *testing.T) {
	for name, end := range map[string]func(*rig){
		"deleted": func(*rig) {},
		"stopped": func(r *rig) { r.stop(); r.start() },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.fill()
				r.add("app.log.1.gz", "\x1f\x8b\x08\x00not to be read\n")
				time.Sleep(time.Minute)
				r.remove("app.log.1.gz")
				time.Sleep(time.Minute)
				end(r)
				r.out.Unblock()
				r.want("first", "under way")
				r.wantNoLoss()
			}, "app.log*")
		})
	}
}

// TestF03RotatedWhileDownBeforeAnythingOfItWasRead: a line that was not whole at
// the stop is all there was.
func TestF03RotatedWhileDownBeforeAnythingOfItWasRead(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start()
		r.add("app.log", "begun ")
		time.Sleep(time.Minute)
		r.restart(func() {
			r.add("app.log", "and ended\n")
			r.rename("app.log", "app.log.1")
			r.add("app.log", "two\n")
		})
		r.wantAny("begun and ended", "two")
		r.wantNoLoss()
	}, "app.log")
}

// hinder makes the spool full with the line of a file that is older than all
// others, before the run starts that finds them.
func (r *rig) hinder(down func()) {
	r.Helper()
	r.restart(func() {
		r.add("older.log", "older\n")
		r.tick()
		down()
		r.out.Block()
	})
	time.Sleep(time.Minute)
}

// TestF06TheOriginalGoesBeforeItIsLookedAt: its copy is read on from its place.
func TestF06TheOriginalGoesBeforeItIsLookedAt(t *testing.T) {
	for name, pattern := range map[string]string{"copy matches": "app.log*", "copy does not match": "app.log"} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.add("app.log", "one\n")
				r.start()
				r.want("one")
				r.hinder(func() {
					r.add("app.log", "two\n")
					r.copyTruncate("app.log", "app.log.1")
				})
				r.remove("app.log")
				r.out.Unblock()
				r.wantAny("one", "older", "two")
				r.wantNoLoss()
				r.restart(nil)
				r.wantAny("one", "older", "two")
			}, pattern, "older.log")
		})
	}
}

// TestF06TheNextCopyTakesTheNameOfTheOneBefore, which was not looked at yet when
// it got its next name.
func TestF06TheNextCopyTakesTheNameOfTheOneBefore(t *testing.T) {
	bubble(t, func(r *rig) {
		r.add("app.log", "one\n")
		r.start()
		r.want("one")
		r.hinder(func() {
			r.add("app.log", "two\n")
			r.copyTruncate("app.log", "app.log.1")
			first, err := os.Stat(r.path("older.log"))
			r.check(err)
			at := first.ModTime().Add(time.Nanosecond)
			r.check(os.Chtimes(r.path("app.log"), at, at)) // it is looked at before its copy
		})
		r.rename("app.log.1", "app.log.2")
		r.add("app.log", "three\n")
		r.copyTruncate("app.log", "app.log.1")
		r.add("app.log", "four\n")
		r.out.Unblock()
		r.wantAny("one", "older", "two", "three", "four")
		r.wantNoLoss()
	}, "app.log*", "older.log")
}

// TestF15AppearsAndIsDeletedWhileTheFirstPlacesWaitForTheSpool: the run has not
// read a line yet.
func TestF15AppearsAndIsDeletedWhileTheFirstPlacesWaitForTheSpool(t *testing.T) {
	bubble(t, func(r *rig) {
		r.add("app.log", "one\n")
		r.start()
		r.want("one")
		r.restart(func() {
			r.remove("app.log") // its place is to be forgotten
			r.out.Block()
		})
		time.Sleep(time.Minute)
		r.add("short.log", "two\n")
		time.Sleep(time.Minute)
		r.remove("short.log")
		time.Sleep(time.Minute)
		r.out.Unblock()
		r.want("one", "two")
		r.wantNoLoss()
	}, "*.log")
}

// TestF31TimesOfTheFilesJump as they do when the clock is set: neither what runs
// nor a later run goes by them.
func TestF31TimesOfTheFilesJump(t *testing.T) {
	bubble(t, func(r *rig) {
		var want []string
		jump := func(name string, by time.Duration) {
			at := time.Now().Add(by)
			r.check(os.Chtimes(r.path(name), at, at))
		}
		write := func(name, line string) {
			want = append(want, line)
			r.add(name, line+"\n")
		}
		r.start()
		day := 24 * time.Hour
		for i, by := range []time.Duration{-day, 2 * day, -10000 * day, 40000 * day} {
			write("app.log", fmt.Sprint("before ", i))
			jump("app.log", by)
			time.Sleep(time.Minute)
			write("app.log", fmt.Sprint("after ", i))
			jump("app.log", -by)
			r.rename("app.log", fmt.Sprint("app.log.", i))
			write("app.log", fmt.Sprint("next ", i))
			jump("app.log", by)
			r.restart(func() {
				write("app.log", fmt.Sprint("down ", i))
				jump("app.log", -by)
			})
			time.Sleep(time.Minute)
		}
		r.wantAny(want...)
		r.wantNoLoss()
	}, "app.log*")
}
