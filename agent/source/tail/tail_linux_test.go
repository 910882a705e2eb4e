package tail

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openloganalytics/agent/agent/record"
	"github.com/openloganalytics/agent/agent/source"
	"github.com/openloganalytics/agent/agent/source/sourcetest"
)

// A rig follows real files in a folder of its own. Tests that run it in a
// synctest bubble look at the files at intervals and wait no real time.
type rig struct {
	*testing.T
	dir  string
	o    Options
	out  *sourcetest.Emitter
	edit func(*follower) // changes the follower before it runs

	cancel context.CancelFunc
	done   chan error
}

var testTable = &record.Table{Name: "Test_CL", LogType: "Test"}

// bubble runs test in a rig that follows the patterns, relative to its folder,
// from the start of files.
func bubble(t *testing.T, test func(*rig), patterns ...string) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, dir, patterns...)
		r.o.pollOnly = true
		test(r)
		r.stop()
	})
}

func newRig(t *testing.T, dir string, patterns ...string) *rig {
	r := &rig{T: t, dir: dir, out: sourcetest.New(), o: Options{Name: "test", Table: testTable, FromStart: true}}
	for _, p := range patterns {
		r.o.Patterns = append(r.o.Patterns, filepath.Join(dir, p))
	}
	return r
}

func testLines(b *record.Batch, path string, block []byte) {
	for len(block) > 0 {
		var line []byte
		line, block = CutLine(block)
		b.Add([]record.Field{
			{Key: "File", Value: []byte(filepath.Base(path))},
			{Key: "Line", Value: line},
		})
	}
}

func (r *rig) start() {
	ctx, cancel := context.WithCancel(r.Context())
	r.cancel, r.done = cancel, make(chan error, 1)
	t := newFollower(r.o, r.out, testLines)
	if r.edit != nil {
		r.edit(t)
	}
	go func() {
		err := t.run(ctx)
		t.close()
		if ctx.Err() != nil {
			err = nil
		}
		r.done <- err
	}()
}

func (r *rig) stop() {
	r.Helper()
	if r.cancel == nil {
		return
	}
	r.cancel()
	r.cancel = nil
	if err := <-r.done; err != nil && !errors.Is(err, sourcetest.ErrCrashed) {
		r.Errorf("follower ended: %v", err)
	}
}

// restart stops in good order, everything emitted made durable, and starts.
func (r *rig) restart(between func()) {
	r.Helper()
	r.stop()
	r.out.Durable()
	if between != nil {
		between()
	}
	r.start()
}

// crash loses what is not durable, and starts again.
func (r *rig) crash() {
	r.Helper()
	next := r.out.Crash()
	r.stop()
	r.out = next
	r.start()
}

func (r *rig) path(name string) string { return filepath.Join(r.dir, name) }

func (r *rig) check(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// add appends text to the file.
func (r *rig) add(name, text string) {
	r.Helper()
	f, err := os.OpenFile(r.path(name), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	r.check(err)
	_, err = f.WriteString(text)
	r.check(err)
	r.check(f.Close())
}

func (r *rig) rename(from, to string) {
	r.Helper()
	r.check(os.Rename(r.path(from), r.path(to)))
}

func (r *rig) remove(name string) {
	r.Helper()
	r.check(os.Remove(r.path(name)))
}

// copyTruncate does what logrotate's copytruncate does.
func (r *rig) copyTruncate(name, to string) {
	r.Helper()
	data, err := os.ReadFile(r.path(name))
	r.check(err)
	r.check(os.WriteFile(r.path(to), data, 0o644))
	r.check(os.Truncate(r.path(name), 0))
}

func (r *rig) lines() []string {
	var lines []string
	for _, row := range r.out.Rows("Test_CL") {
		lines = append(lines, row["Line"].(string))
	}
	return lines
}

// wait waits until met.
func (r *rig) wait(met func() bool) {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), 30*time.Minute)
	defer cancel()
	r.check(r.out.Wait(ctx, met))
}

// want waits for the lines and makes sure that no others come, in order.
func (r *rig) want(lines ...string) {
	r.Helper()
	r.settle(len(lines))
	if diff := cmp.Diff(lines, r.lines()); diff != "" {
		r.Fatalf("lines emitted (-want +got):\n%s", diff)
	}
}

// wantAny is want for lines of several files, in any order.
func (r *rig) wantAny(lines ...string) {
	r.Helper()
	r.settle(len(lines))
	got := slices.Sorted(slices.Values(r.lines()))
	slices.Sort(lines)
	if diff := cmp.Diff(lines, got); diff != "" {
		r.Fatalf("lines emitted, sorted (-want +got):\n%s", diff)
	}
}

func (r *rig) settle(n int) {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), 20*time.Minute)
	defer cancel()
	r.check(r.out.WaitRows(ctx, n))
	time.Sleep(2 * time.Minute) // of the bubble's time: whatever else comes has come
}

func (r *rig) wantNoLoss() {
	r.Helper()
	if l := r.out.Losses(); len(l) > 0 {
		r.Errorf("losses %+v, want none", l)
	}
}

// wantLoss compares reason and bytes of the losses.
func (r *rig) wantLoss(want ...source.Loss) {
	r.Helper()
	var got []source.Loss
	for _, l := range r.out.Losses() {
		got = append(got, source.Loss{Reason: l.Reason, Class: filepath.Base(l.Class), Bytes: l.Bytes, Records: l.Records})
	}
	if diff := cmp.Diff(want, got); diff != "" {
		r.Errorf("losses (-want +got):\n%s", diff)
	}
}

func (r *rig) wantTrouble(name, part string) {
	r.Helper()
	r.wait(func() bool { return strings.Contains(r.out.Troubles()[r.path(name)], part) })
}

// number returns the lines "<prefix> 1" to "<prefix> n".
func number(prefix string, n int) []string {
	lines := make([]string, n)
	for i := range lines {
		lines[i] = fmt.Sprint(prefix, " ", i+1)
	}
	return lines
}

func text(lines []string) string { return strings.Join(lines, "\n") + "\n" }

func TestF01RenameWhileTheWriterKeepsTheOldFile(t *testing.T) {
	for name, pattern := range map[string]string{"rotated names match": "app.log*", "rotated names do not match": "app.log"} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.start()
				var want []string
				write := func(f *os.File, rotation, part, n int) {
					for i := range n {
						line := fmt.Sprintf("rotation %d part %d line %d", rotation, part, i)
						want = append(want, line)
						_, err := f.WriteString(line + "\n")
						r.check(err)
						if i%10 == 0 {
							time.Sleep(time.Millisecond)
						}
					}
				}
				for rotation := range 40 {
					f, err := os.OpenFile(r.path("app.log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
					r.check(err)
					time.Sleep(3 * time.Second)
					write(f, rotation, 1, 50)
					r.rename("app.log", fmt.Sprintf("app.log.%d", rotation))
					write(f, rotation, 2, 50)
					r.check(f.Close())
				}
				r.want(want...)
				r.wantNoLoss()
			}, pattern)
		})
	}
}

func TestF02CrashesRepeatButLoseNothing(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start()
		var want []string
		for i := range 60 {
			lines := number(fmt.Sprint("round ", i), 20)
			want = append(want, lines...)
			r.add("app.log", text(lines))
			time.Sleep(time.Duration(i%7) * 40 * time.Millisecond)
			if i%9 == 8 {
				r.rename("app.log", fmt.Sprintf("app.log.%d", i))
			}
			if i%3 == 1 {
				r.out.Durable()
			}
			if i%5 == 4 {
				r.crash()
			}
		}
		time.Sleep(time.Minute)
		got := make(map[string]int)
		for _, line := range r.lines() {
			got[line]++
		}
		for _, line := range want {
			if got[line] != 1 { // the emitter of the next life has durable rows only
				t.Errorf("%q was delivered %d times, want once", line, got[line])
			}
		}
		r.wantNoLoss()
	}, "app.log*")
}

func TestF03RotatedTwiceWhileDown(t *testing.T) {
	bubble(t, func(r *rig) {
		r.add("app.log", "one\ntwo\n")
		r.start()
		r.want("one", "two")
		r.restart(func() {
			r.add("app.log", "three\n")
			r.rename("app.log", "app.log.2")
			r.add("app.log", "four\n")
			r.rename("app.log", "app.log.1")
			r.add("app.log", "five\n")
		})
		r.wantAny("one", "two", "three", "four", "five")
		r.wantNoLoss()
	}, "app.log*")
}

func TestF03RotatedTwiceOutOfThePatternsWhileDown(t *testing.T) {
	bubble(t, func(r *rig) {
		r.add("app.log.7", "not asked for: older\n")
		r.tick()
		r.add("app.log", "one\n")
		r.start()
		r.want("one")
		r.restart(func() {
			r.add("app.log", "two\n")
			r.rename("app.log", "app.log.2")
			r.tick()
			r.add("app.log", "three\n")
			r.rename("app.log", "app.log.1")
			r.add("app.log", "four\n")
			r.add("app.log.old.gz", "not asked for: no copy\n")
			r.add("app-web.log", "not asked for: another log\n")
		})
		r.wantAny("one", "two", "three", "four")
		for _, row := range r.out.Rows("Test_CL") {
			if row["File"] != "app.log" {
				t.Errorf("line %q is from %q, want the name that matched, app.log", row["Line"], row["File"])
			}
		}
		r.wantNoLoss()
		r.restart(func() {})
		r.wantAny("one", "two", "three", "four")
	}, "app.log")
}

func TestF03TheFileInBetweenIsKnownBeforeItIsRead(t *testing.T) {
	bubble(t, func(r *rig) {
		var denied atomic.Bool
		denied.Store(true)
		r.opening(func(name string) (*os.File, error) {
			if denied.Load() && name == "app.log.1" {
				return nil, syscall.EACCES
			}
			return nil, nil
		})
		r.add("app.log", "one\n")
		r.start()
		r.want("one")
		r.tick()
		r.restart(func() {
			r.add("app.log", "two\n") // which makes it known as rotated
			r.rename("app.log", "app.log.2")
			r.add("app.log", "three\n")
			r.rename("app.log", "app.log.1")
			r.add("app.log", "four\n")
		})
		r.wantAny("one", "two", "four")
		r.restart(func() { denied.Store(false) })
		r.wantAny("one", "two", "three", "four")
		r.wantNoLoss()
	}, "app.log")
}

// tick lets the clock of the file system go on: files that are made from now on
// are younger than those there are.
func (r *rig) tick() {
	r.Helper()
	birth := func() int64 {
		r.add("tick", "")
		st, err := lstatPath(r.path("tick"))
		r.check(err)
		r.check(os.Remove(r.path("tick")))
		return st.id.birth
	}
	for begin := birth(); birth() == begin; {
	}
}

func TestF04RotatedOutOfThePatternsWhileDown(t *testing.T) {
	t.Run("beside the new file", func(t *testing.T) {
		bubble(t, func(r *rig) {
			r.add("app.log", "one\n")
			r.start()
			r.want("one")
			r.restart(func() {
				r.add("app.log", "two\n")
				r.rename("app.log", "app.log.1")
				r.add("app.log", "three\n")
			})
			r.wantAny("one", "two", "three")
			for _, row := range r.out.Rows("Test_CL") {
				if row["File"] != "app.log" {
					t.Errorf("line %q is from %q, want the name that matched, app.log", row["Line"], row["File"])
				}
			}
			r.wantNoLoss()
		}, "app.log")
	})
	t.Run("out of reach", func(t *testing.T) {
		bubble(t, func(r *rig) {
			r.add("app.log", "one\n")
			r.start()
			r.want("one")
			r.restart(func() {
				r.check(os.Mkdir(r.path("old"), 0o755))
				r.rename("app.log", "old/app.log.1")
				r.add("app.log", "three\n")
			})
			r.want("one", "three")
			r.wantLoss(source.Loss{Reason: "rotated-out-of-reach", Class: "app.log"})
			r.wantTrouble("app.log (before rotation)", "was rotated while the agent did not run")
		}, "app.log")
	})
}

func TestF05CopyTruncateOfAFileThatWasRead(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start()
		var want []string
		for i := range 5 {
			lines := number(fmt.Sprint("life ", i), 50)
			want = append(want, lines...)
			r.add("app.log", text(lines))
			r.settle(len(want))
			r.copyTruncate("app.log", fmt.Sprintf("app.log.%d", i))
		}
		r.want(want...)
		r.wantNoLoss()
	}, "app.log*")
}

// TestF05CopyOverAnOlderCopy: the copy always has the same name, and so the
// same file is overwritten.
func TestF05CopyTruncateThenRenameBeforeTheNextLook(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start()
		r.add("app.log", "one\n")
		r.want("one")
		r.copyTruncate("app.log", "app.log.1")
		r.rename("app.log.1", "app.log.2")
		r.rename("app.log", "app.log.1")
		r.add("app.log", "two\n")
		r.want("one", "two")
		r.wantNoLoss()
	}, "app.log*")
}

func TestF05CopyTruncateThenRenameWhileDown(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start()
		r.add("app.log", "one\n")
		r.want("one")
		r.restart(func() {
			r.copyTruncate("app.log", "app.log.1")
			r.tick()
			r.rename("app.log.1", "app.log.2")
			r.add("app.log", "two\n")
			r.rename("app.log", "app.log.1")
			r.add("app.log", "three\n")
		})
		r.wantAny("one", "two", "three")
		r.wantNoLoss()
	}, "app.log*")
}

// TestF05CutThenRenamedOutOfThePatterns: what was in the file before the cut is
// in the copy, what was written since goes on under a name nobody asked for.
func TestF05CutThenRenamedOutOfThePatterns(t *testing.T) {
	rotate := func(r *rig) {
		r.tick()
		r.add("app.log", "two\n")
		r.copyTruncate("app.log", "app.log.1")
		r.tick()
		r.rename("app.log.1", "app.log.2")
		r.add("app.log", "three\n")
		r.rename("app.log", "app.log.1")
		r.tick()
		r.add("app.log", "four\n")
	}
	for name, act := range map[string]func(*rig){
		"running": rotate,
		"down":    func(r *rig) { r.restart(func() { rotate(r) }) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.add("app.log", "zero\n")
				r.start()
				r.want("zero")
				r.rename("app.log", "app.log.3") // has a place too, and is older than all
				r.tick()
				r.add("app.log", "one\n")
				r.want("zero", "one")
				act(r)
				r.wantAny("zero", "one", "two", "three", "four")
				r.wantNoLoss()
			}, "app.log")
		})
	}
}

// TestF04CopiedAndDeletedWhileDown: the copy is read on from where the file was.
func TestF04CopiedAndDeletedWhileDown(t *testing.T) {
	for name, pattern := range map[string]string{"copy matches": "app.log*", "copy does not match": "app.log"} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.start()
				r.add("app.log", "one\n")
				r.want("one")
				r.restart(func() {
					r.add("app.log", "two\n")
					r.copyTruncate("app.log", "app.log.1")
					r.remove("app.log")
					r.add("app.log", "three\n")
				})
				r.wantAny("one", "two", "three")
				r.wantNoLoss()
				r.restart(nil)
				r.wantAny("one", "two", "three")
			}, pattern)
		})
	}
}

// TestF05CopyTruncateSoonAfterARewrite: while a copy of what was rewritten is
// looked for, the copy of what is there now appears.
func TestF05CopyTruncateSoonAfterARewrite(t *testing.T) {
	bubble(t, func(r *rig) {
		r.add("app.log", "zero\n")
		r.start()
		synctest.Wait()
		r.check(os.WriteFile(r.path("app.log"), []byte("one and more\n"), 0o644))
		time.Sleep(1950 * time.Millisecond) // the next scan comes before the next look
		r.copyTruncate("app.log", "app.log-20260102")
		r.rename("app.log", "app.log.1")
		r.add("app.log", "two\n")
		r.want("zero", "one and more", "two")
		r.wantNoLoss()
	}, "app.log*")
}

// TestF06TheOriginalTakesTheNameOfItsCopy: the copy waits for the original to be
// looked at, and the original for nobody.
func TestF06TheOriginalTakesTheNameOfItsCopy(t *testing.T) {
	bubble(t, func(r *rig) {
		r.add("app.log", "one\n")
		r.start()
		r.want("one")
		r.out.Block()
		r.add("app.log", "two\n")
		time.Sleep(time.Minute)
		r.copyTruncate("app.log", "app.log.1")
		time.Sleep(time.Minute)
		r.rename("app.log.1", "app.log.2")
		r.rename("app.log", "app.log.1")
		r.add("app.log", "three\n")
		r.out.Unblock()
		r.want("one", "two", "three")
		r.wantNoLoss()
	}, "app.log*")
}

// TestF05TheCopyWaitsWhileTheSpoolIsFull: that the loop had no time to look at
// the original does not make the copy a file of its own.
func TestF05TheCopyWaitsWhileTheSpoolIsFull(t *testing.T) {
	for name, after := range map[string]func(r *rig){
		"the copy stays":                func(*rig) {},
		"the copy is deleted meanwhile": func(r *rig) { r.remove("app.log.2") },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.add("app.log", "one\n")
				r.add("other.log", "")
				r.start()
				r.want("one")
				r.out.Block()
				r.add("other.log", "other\n") // what the loop waits with
				time.Sleep(time.Minute)
				r.copyTruncate("app.log", "app.log.1")
				r.rename("app.log.1", "app.log.2")
				r.rename("app.log", "app.log.1")
				r.add("app.log", "two\n")
				time.Sleep(time.Minute)
				after(r)
				r.out.Unblock()
				synctest.Wait()
				r.out.Block()
				time.Sleep(time.Minute)
				r.out.Unblock()
				r.wantAny("one", "other", "two")
				r.wantNoLoss()
			}, "app.log*", "other.log")
		})
	}
}

func TestF06CopyTruncatedTwiceWhileDown(t *testing.T) {
	for name, pattern := range map[string]string{"copies match": "app.log*", "copies do not match": "app.log"} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.add("app.log", "one\n")
				r.start()
				r.want("one")
				r.restart(func() {
					r.add("app.log", "two\n")
					r.copyTruncate("app.log", "app.log.1")
					r.tick()
					r.rename("app.log.1", "app.log.2")
					r.add("app.log", "three\n")
					r.copyTruncate("app.log", "app.log.1")
					r.tick()
					r.add("app.log", "four\n")
				})
				r.wantAny("one", "two", "three", "four")
				r.wantNoLoss()
				r.restart(nil)
				r.wantAny("one", "two", "three", "four")
			}, pattern)
		})
	}
}

func TestF05CopyOverAnOlderCopy(t *testing.T) {
	for name, pattern := range map[string]string{"copy matches": "app.log*", "copy does not match": "app.log"} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.start()
				var want []string
				for i := range 10 {
					lines, unread := number(fmt.Sprint("life ", i), 50), number(fmt.Sprint("end of life ", i), i)
					r.add("app.log", text(lines))
					r.settle(len(want) + len(lines))
					want = slices.Concat(want, lines, unread)
					if i > 0 {
						r.add("app.log", text(unread))
					}
					r.copyTruncate("app.log", "app.log.1")
					r.settle(len(want))
				}
				r.want(want...)
				r.wantNoLoss()
			}, pattern)
		})
	}
}

func TestF05CrashAfterCopyTruncate(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start()
		first, after := number("first", 50), number("after", 50)
		r.add("app.log", text(first))
		r.settle(len(first))
		r.copyTruncate("app.log", "app.log.1")
		r.add("app.log", text(after))
		r.settle(len(first) + len(after))
		r.out.Durable()
		r.crash()
		r.want(slices.Concat(first, after)...)
		r.wantNoLoss()
	}, "app.log*")
}

func TestF06CopyTruncateWithUnreadLines(t *testing.T) {
	for name, pattern := range map[string]string{"copy matches": "app.log*", "copy does not match": "app.log"} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.start()
				first, unread, after := number("first", 100), number("unread", 100), number("after", 100)
				r.add("app.log", text(first))
				r.settle(len(first))
				r.add("app.log", text(unread))
				r.copyTruncate("app.log", "app.log.1")
				r.add("app.log", text(after))
				r.wantAny(slices.Concat(first, unread, after)...)
				r.wantNoLoss()
			}, pattern)
		})
	}
	t.Run("while down", func(t *testing.T) {
		bubble(t, func(r *rig) {
			r.start()
			first, unread, after := number("first", 100), number("unread", 100), number("after", 10)
			r.add("app.log", text(first))
			r.settle(len(first))
			r.restart(func() {
				r.add("app.log", text(unread))
				r.copyTruncate("app.log", "app.log.1")
				r.add("app.log", text(after))
			})
			r.wantAny(slices.Concat(first, unread, after)...)
			r.wantNoLoss()
		}, "app.log*")
	})
	t.Run("copy is found before the truncation", func(t *testing.T) {
		bubble(t, func(r *rig) {
			r.start()
			first, unread := number("first", 100), number("unread", 100)
			r.add("app.log", text(first))
			r.settle(len(first))
			data, err := os.ReadFile(r.path("app.log"))
			r.check(err)
			r.check(os.WriteFile(r.path("app.log.1"), data, 0o644))
			time.Sleep(4 * time.Second) // the copy is seen meanwhile
			r.add("app.log", text(unread))
			data, err = os.ReadFile(r.path("app.log"))
			r.check(err)
			r.check(os.WriteFile(r.path("app.log.1"), data, 0o644))
			r.check(os.Truncate(r.path("app.log"), 0))
			r.wantAny(slices.Concat(first, unread)...)
			r.wantNoLoss()
		}, "app.log*")
	})
	t.Run("a copy that is only a copy", func(t *testing.T) {
		bubble(t, func(r *rig) {
			r.start()
			first := number("first", 100)
			r.add("app.log", text(first))
			r.settle(len(first))
			r.check(os.WriteFile(r.path("app.log.bak"), []byte(text(first)), 0o644))
			r.wantAny(slices.Concat(first, first)...)
		}, "app.log*")
	})
}

func TestF07CopyTruncateOutOfReachCountsTheLoss(t *testing.T) {
	bubble(t, func(r *rig) {
		r.check(os.Mkdir(r.path("old"), 0o755))
		first := number("first", 10)
		r.add("app.log", text(first))
		r.start()
		r.settle(len(first))
		r.out.Block()
		synctest.Wait() // nobody looks while the lines are being written
		line := strings.Repeat("x", 999) + "\n"
		r.add("app.log", strings.Repeat(line, 300)) // more than a block of 262 whole lines
		time.Sleep(5 * time.Second)
		r.copyTruncate("app.log", "old/app.log.1")
		r.out.Unblock()
		r.settle(len(first) + 262)
		if got := len(r.lines()); got != len(first)+262 {
			t.Errorf("%d lines, want %d", got, len(first)+262)
		}
		r.wantLoss(source.Loss{Reason: "truncated-file", Class: "app.log", Records: 300 - 262, Bytes: (300 - 262) * 1000})
	}, "app.log")
}

func TestF08RewrittenToTheSameSize(t *testing.T) {
	bubble(t, func(r *rig) {
		r.add("app.log", "first life\n")
		r.start()
		r.want("first life")
		r.check(os.WriteFile(r.path("app.log"), []byte("other life\n"), 0o644))
		r.want("first life", "other life")
	}, "app.log")
}

func TestF09RewrittenLargerWithTheSameBeginning(t *testing.T) {
	bubble(t, func(r *rig) {
		banner := strings.Repeat("#", maxHead)
		r.add("app.log", banner+"\none\n")
		r.start()
		r.want(banner, "one")
		r.check(os.WriteFile(r.path("app.log"), []byte(banner+"\nother one\ntwo\n"), 0o644))
		r.want(banner, "one", banner, "other one", "two")
	}, "app.log")
}

func TestF09RewrittenWithAnotherBeginning(t *testing.T) {
	bubble(t, func(r *rig) {
		rest := strings.Repeat("the same\n", 200)
		r.add("app.log", "one\n"+rest)
		r.start()
		r.settle(201)
		f, err := os.OpenFile(r.path("app.log"), os.O_WRONLY, 0)
		r.check(err)
		_, err = f.WriteAt([]byte("two\n"), 0)
		r.check(err)
		r.check(f.Close())
		r.add("app.log", "three\n")
		r.settle(201 + 202)
		if got := r.lines()[201:]; len(got) != 202 || got[0] != "two" || got[201] != "three" {
			t.Errorf("%d lines from %q to %q after the change, want 202 from two to three", len(got), got[0], got[len(got)-1])
		}
	}, "app.log")
}

func TestF10CreatedAgainWithTheSameLinesAndMore(t *testing.T) {
	bubble(t, func(r *rig) {
		r.add("app.log", text(number("line", 3)))
		r.start()
		r.settle(3)
		r.remove("app.log")
		r.add("app.log", text(number("line", 4)))
		r.want(slices.Concat(number("line", 3), number("line", 4))...)
	}, "app.log")
}

func TestF10DeletedAndCreatedAgain(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start()
		var want []string
		for i := range 10 {
			lines := number(fmt.Sprint("life ", i), 3)
			want = append(want, lines...)
			r.add("app.log", text(lines))
			r.settle(len(want))
			r.remove("app.log") // the inode goes to the next file
		}
		r.want(want...)
		r.wantNoLoss()
	}, "app.log")
}

func TestF10InodeGivenToAnotherFileWhileDown(t *testing.T) {
	bubble(t, func(r *rig) {
		r.add("app.log", text(number("line", 5)))
		r.start()
		r.settle(5)
		r.restart(func() {
			r.remove("app.log")
			r.add("app.log", text(number("line", 9))) // only its birth tells it from the first
		})
		r.want(slices.Concat(number("line", 5), number("line", 9))...)
	}, "app.log")
}

func TestF12LinkLedElsewhereAndBack(t *testing.T) {
	bubble(t, func(r *rig) {
		point := func(to string) {
			r.check(os.Symlink(to, r.path("next")))
			r.rename("next", "current")
		}
		r.check(os.Mkdir(r.path("real"), 0o755))
		r.add("real/a.txt", "a1\n")
		r.add("real/b.txt", "b1\n")
		point("real/a.txt")
		r.start()
		r.want("a1")
		r.add("real/a.txt", "a2\n")
		point("real/b.txt")
		r.want("a1", "a2", "b1")
		point("real/a.txt")
		r.add("real/a.txt", "a3\n")
		r.want("a1", "a2", "b1", "a3")
		r.wantNoLoss()
	}, "current")
}

func TestF14HardLinksAreReadOnce(t *testing.T) {
	bubble(t, func(r *rig) {
		r.add("a.log", "one\n")
		r.check(os.Link(r.path("a.log"), r.path("b.log")))
		r.start()
		r.want("one")
		r.add("b.log", "two\n")
		r.want("one", "two")
		r.remove("a.log")
		r.add("b.log", "three\n")
		r.want("one", "two", "three")
		r.wantNoLoss()
	}, "*.log")
}

func TestF15DeletedWhileMuchIsUnread(t *testing.T) {
	bubble(t, func(r *rig) {
		r.add("app.log", "first\n")
		r.start()
		r.want("first")
		r.out.Durable()
		r.out.Block()
		unread := number(strings.Repeat("x", 100), 20000) // some 2 MB, eight blocks
		r.add("app.log", text(unread)+"the last line has no end")
		time.Sleep(time.Second)
		r.remove("app.log")
		r.out.Unblock()
		r.want(slices.Concat([]string{"first"}, unread, []string{"the last line has no end"})...)
		r.out.Durable()
		r.out.Checkpoints("test:file:", func(key string, _ []byte) bool {
			t.Errorf("checkpoint %s is kept of a deleted file", key)
			return true
		})
		if fds := openDeleted(t, r.dir); len(fds) > 0 {
			t.Errorf("deleted files are held open: %v", fds)
		}
		r.wantNoLoss()
	}, "app.log")
}

// openDeleted lists what this process holds open below dir after its deletion.
func openDeleted(t *testing.T, dir string) []string {
	t.Helper()
	fds, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	var open []string
	for _, fd := range fds {
		to, err := os.Readlink(fd)
		if err == nil && strings.HasPrefix(to, dir) && strings.HasSuffix(to, " (deleted)") {
			open = append(open, to)
		}
	}
	return open
}

func TestF16CompressedFilesAreIgnored(t *testing.T) {
	bubble(t, func(r *rig) {
		for name, magic := range map[string]string{
			"gz": "\x1f\x8b\x08\x00", "zst": "\x28\xb5\x2f\xfd", "bz2": "BZh91AY", "xz": "\xfd7zXZ\x00",
		} {
			r.add("app.log.1."+name, magic+"not to be read\n")
		}
		r.add("app.log", "one\n")
		var ignored func() int
		r.edit = func(f *follower) { ignored = func() int { return f.compressed } }
		r.start()
		r.want("one")
		r.wantNoLoss()
		if got := r.out.Troubles(); len(got) > 0 {
			t.Errorf("troubles %v, want none: rotation is no trouble", got)
		}
		r.stop()
		if got := ignored(); got != 4 {
			t.Errorf("%d compressed files counted, want 4", got)
		}
	}, "app.log*")
}

func TestF17PartialLineAcrossAStop(t *testing.T) {
	bubble(t, func(r *rig) {
		r.add("app.log", "one\nbegun ")
		r.start()
		r.want("one")
		r.restart(func() { r.add("app.log", "and ended\n") })
		r.want("one", "begun and ended")
	}, "app.log")
}

func TestF18PartialLineOfARotatedFile(t *testing.T) {
	bubble(t, func(r *rig) {
		r.add("app.log", "one\nbegun ")
		r.start()
		r.want("one") // two minutes pass: a live file's line is waited for
		r.rename("app.log", "app.log.1")
		r.want("one", "begun ")
		r.add("app.log.1", "and ended\n")
		r.want("one", "begun ", "and ended")
		r.wantNoLoss()
	}, "app.log*")
}

func TestRotatedNameUsedForSomethingElse(t *testing.T) {
	bubble(t, func(r *rig) {
		r.add("app.log", "one\n")
		r.start()
		r.want("one")
		r.rename("app.log", "app.log.1")
		r.add("app.log.1", "two\n")
		r.want("one", "two")
		r.check(os.WriteFile(r.path("app.log.1"), []byte("none of ours\n"), 0o644))
		r.check(os.WriteFile(r.path("app.log.1"), []byte("x\n"), 0o644))
		r.want("one", "two")
		r.wantNoLoss()
	}, "app.log")
}

func TestF19LongLineIsCutAndTheNextIsWhole(t *testing.T) {
	bubble(t, func(r *rig) {
		long := strings.Repeat("x", MaxLine-1) + strings.Repeat("é", 4<<20) // the limit is inside the first é
		r.add("app.log", "one\n"+long+"\nnext\n"+long+"\nlast\n")
		r.start()
		kept := strings.Repeat("x", MaxLine-1)
		r.want("one", kept, "next", kept, "last")
		loss := source.Loss{Reason: "line-too-long", Class: "app.log", Bytes: int64(len(long) - len(kept))}
		r.wantLoss(loss, loss)
	}, "app.log")
}

func TestF19LineAtTheLimitIsWhole(t *testing.T) {
	bubble(t, func(r *rig) {
		limit := strings.Repeat("x", MaxLine)
		r.add("app.log", "a\n"+limit+"\r\n"+limit+"\nnext\n")
		r.start()
		r.want("a", limit, limit, "next")
		r.wantNoLoss()
	}, "app.log")
}

func TestF20TwoGiBWithoutALineEnd(t *testing.T) {
	const size = 2 << 30
	bubble(t, func(r *rig) {
		r.add("app.log", strings.Repeat("x", 2<<20))
		r.check(os.Truncate(r.path("app.log"), size)) // the rest takes no room on the disk
		r.add("app.log", "\nnext\n")
		r.add("other.log", "other\n")
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		r.start()
		r.settle(3)
		runtime.ReadMemStats(&after)
		lines := r.lines()
		if len(lines) != 3 || lines[2] != "next" || !slices.Contains(lines, "other") {
			t.Errorf("%d lines, want the beginning of the long one and the other file's before the next one", len(lines))
		}
		r.wantLoss(source.Loss{Reason: "line-too-long", Class: "app.log", Bytes: size - MaxLine})
		if used := after.TotalAlloc - before.TotalAlloc; used > 64<<20 {
			t.Errorf("%d bytes were allocated in all, want at most 64 MiB", used)
		}
	}, "*.log")
}

func TestF20CrashInsideALongLine(t *testing.T) {
	bubble(t, func(r *rig) {
		r.add("app.log", strings.Repeat("x", MaxLine+500000))
		r.start()
		r.settle(1)
		r.out.Durable()
		r.crash()
		r.add("app.log", strings.Repeat("y", 500000)+"\nnext\n")
		r.want(strings.Repeat("x", MaxLine), "next")
		r.wantLoss(source.Loss{Reason: "line-too-long", Class: "app.log", Bytes: 1000000})
	}, "app.log")
}

func TestF21LineEnds(t *testing.T) {
	bubble(t, func(r *rig) {
		r.add("app.log", "lf\ncrlf\r\nlone\rcr\n\r\r\n\nlast\r")
		r.start()
		r.want("lf", "crlf", "lone\rcr", "\r", "")
		r.add("app.log", "\n")
		r.want("lf", "crlf", "lone\rcr", "\r", "", "last")
	}, "app.log")
}

func TestF24Holes(t *testing.T) {
	bubble(t, func(r *rig) {
		r.add("app.log", text(number("first", 10)))
		r.start()
		r.settle(10)
		// A writer that does not append goes on at its old place.
		f, err := os.OpenFile(r.path("app.log"), os.O_WRONLY, 0)
		r.check(err)
		r.check(f.Truncate(0))
		const hole = 1 << 30
		_, err = f.WriteAt([]byte("after the hole\nnul\x00inside\n"), hole)
		r.check(err)
		r.check(f.Close())
		r.want(append(number("first", 10), "after the hole", "nul\x00inside")...)
		r.wantLoss(source.Loss{Reason: "nul-bytes", Class: "app.log", Bytes: hole})
	}, "app.log")
}

func TestF24ZerosAtTheEndMayBeFilled(t *testing.T) {
	bubble(t, func(r *rig) {
		r.add("app.log", "one\n"+strings.Repeat("\x00", 8))
		r.start()
		r.want("one")
		f, err := os.OpenFile(r.path("app.log"), os.O_WRONLY, 0)
		r.check(err)
		_, err = f.WriteAt([]byte("two\n"), 4)
		r.check(err)
		r.check(f.Close())
		r.want("one", "two")
		r.add("app.log", "three\n") // behind the last four zeros
		r.want("one", "two", "three")
		r.wantLoss(source.Loss{Reason: "nul-bytes", Class: "app.log", Bytes: 4})
	}, "app.log")
}

func TestF24ZerosBetweenLines(t *testing.T) {
	bubble(t, func(r *rig) {
		r.add("app.log", "one\ntwo\n\x00\x00\x00three\n\x00four\n")
		r.start()
		r.want("one", "two", "three", "four")
		r.wantLoss(
			source.Loss{Reason: "nul-bytes", Class: "app.log", Bytes: 3},
			source.Loss{Reason: "nul-bytes", Class: "app.log", Bytes: 1})
	}, "app.log")
}

func TestF25FolderComesAndGoes(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start()
		time.Sleep(time.Minute)
		r.check(os.MkdirAll(r.path("logs"), 0o755))
		r.add("logs/app.log", "one\n")
		r.want("one")
		r.check(os.RemoveAll(r.path("logs")))
		time.Sleep(time.Minute)
		r.check(os.MkdirAll(r.path("elsewhere"), 0o755))
		r.add("elsewhere/app.log", "two\n")
		r.check(os.Symlink("elsewhere", r.path("logs")))
		r.want("one", "two")
	}, "logs/*.log")
}

// TestF32WrittenThroughMemory: the file has its size from the start, and a page
// that is dirty already is written to without a change of any time.
func TestF32WrittenThroughMemory(t *testing.T) {
	bubble(t, func(r *rig) {
		f, err := os.OpenFile(r.path("app.log"), os.O_RDWR|os.O_CREATE, 0o644)
		r.check(err)
		defer func() { r.check(f.Close()) }()
		r.check(f.Truncate(64 << 10))
		page, err := syscall.Mmap(int(f.Fd()), 0, 64<<10, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
		r.check(err)
		defer func() { r.check(syscall.Munmap(page)) }()
		at := copy(page, "one\n")
		r.start()
		r.want("one")
		before, err := lstatPath(r.path("app.log"))
		r.check(err)
		copy(page[at:], "two\n")
		after, err := lstatPath(r.path("app.log"))
		r.check(err)
		if after.changedSince(before) {
			r.Log("the kernel noticed the write: this run shows less than it could")
		}
		r.want("one", "two")
		r.wantNoLoss()
	}, "app.log")
}

func TestF33ReplacedByRename(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start()
		var want []string
		for i := range 20 {
			lines := number(fmt.Sprint("version ", i), 5)
			want = append(want, lines...)
			r.add("new", text(lines))
			r.rename("new", "app.log")
			time.Sleep(3 * time.Second)
		}
		r.want(want...)
		r.wantNoLoss()
	}, "app.log")
}

func TestF40FirstStart(t *testing.T) {
	t.Run("from the end", func(t *testing.T) {
		bubble(t, func(r *rig) {
			r.o.FromStart = false
			r.add("old.log", text(number("old", 100))+"begun ")
			r.start()
			time.Sleep(time.Minute)
			r.add("old.log", "and ended\n")
			r.add("new.log", "new 1\n")
			r.wantAny("begun and ended", "new 1")
			r.restart(func() {
				r.add("old.log", "old 101\n")
				r.add("born while down.log", "born\n")
			})
			r.wantAny("begun and ended", "new 1", "old 101", "born")
		}, "*.log")
	})
	t.Run("from the start", func(t *testing.T) {
		bubble(t, func(r *rig) {
			r.add("old.log", text(number("old", 100)))
			r.start()
			r.want(number("old", 100)...)
		}, "*.log")
	})
	t.Run("a pattern added later has a first start of its own", func(t *testing.T) {
		bubble(t, func(r *rig) {
			r.o.FromStart = false
			r.start()
			time.Sleep(time.Minute)
			r.add("a.log", "a1\n")
			r.want("a1")
			r.restart(func() {
				r.add("b.txt", text(number("old", 10)))
				r.add("a.log", "a2\n")
				r.o.Patterns = append(r.o.Patterns, r.path("*.txt"))
			})
			r.want("a1", "a2")
			r.add("b.txt", "b1\n")
			r.want("a1", "a2", "b1")
		}, "*.log")
	})
	t.Run("a crash before the first mark", func(t *testing.T) {
		bubble(t, func(r *rig) {
			r.o.FromStart = false
			r.add("old.log", text(number("old", 100)))
			r.start()
			time.Sleep(time.Minute)
			r.crash() // nothing was durable
			time.Sleep(time.Minute)
			r.add("old.log", "old 101\n")
			r.want("old 101")
		}, "*.log")
	})
}

// FuzzLines appends content in two parts and compares with a plain model of
// what lines are.
func FuzzLines(f *testing.F) {
	for _, seed := range []string{
		"one\ntwo\r\nthree", "\xef\xbb\xbfone\n", "\n\n\r\n", "a\x00b\n\x00\x00c\n\x00", "\xff\xfea\x00\n\x00", "\x00\n", "BZh\n",
	} {
		f.Add([]byte(seed), 3)
	}
	f.Fuzz(func(t *testing.T, content []byte, cut int) {
		cut = min(max(cut, 0), len(content))
		content = append(content, "\nend\n"...)
		if flags, _, _ := encodingOf(content, true); flags != 0 {
			return // see FuzzWideLines
		}
		var want []string
		if admitHead(content[:min(len(content), maxHead)]) == nil {
			plain := strings.TrimPrefix(string(content), "\xef\xbb\xbf")
			for line := range strings.SplitSeq(strings.TrimSuffix(plain, "\n"), "\n") {
				want = append(want, strings.ToValidUTF8(strings.TrimSuffix(strings.TrimLeft(line, "\x00"), "\r"), ""))
			}
		}
		bubble(t, func(r *rig) {
			r.add("app.log", string(content[:cut]))
			r.start()
			time.Sleep(10 * time.Second)
			r.add("app.log", string(content[cut:]))
			time.Sleep(time.Minute)
			var got []string
			for _, line := range r.lines() {
				got = append(got, strings.ReplaceAll(line, "\uFFFD", ""))
			}
			for i := range want {
				want[i] = strings.ReplaceAll(want[i], "\uFFFD", "")
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("lines of %q cut at %d (-want +got):\n%s", content, cut, diff)
			}
		}, "app.log")
	})
}

// TestFit: one Emit takes no more than MaxEmit bytes of values, whether lines
// or columns are the larger part, and at least one line.
func TestFit(t *testing.T) {
	for _, line := range []int{0, 1, 50, 199, 5000, 200000, source.MaxEmit} {
		for _, cost := range []int{0, 10, 150, 5000} {
			row := line + 1 + cost
			block := []byte(strings.Repeat(strings.Repeat("x", line)+"\n", 1+2*source.MaxEmit/row))
			rows := 0
			for len(block) > 0 {
				n := new(mark).fit(block, cost)
				if n == 0 || block[n-1] != '\n' {
					t.Fatalf("lines of %d bytes, cost %d: fit = %d, not the end of a line", line, cost, n)
				}
				lines := n / (line + 1)
				if lines > 1 && lines*row > source.MaxEmit {
					t.Errorf("lines of %d bytes, cost %d: %d bytes of values, want at most %d", line, cost, lines*row, source.MaxEmit)
				}
				rows += lines
				block = block[n:]
			}
			if want := 1 + 2*source.MaxEmit/row; rows != want {
				t.Errorf("lines of %d bytes, cost %d: %d lines, want %d", line, cost, rows, want)
			}
		}
	}
}

func TestCheckPatterns(t *testing.T) {
	if err := CheckPatterns([]string{"/var/log/*.log", "/a/**/{b,c}[0-9]?"}); err != nil {
		t.Errorf("CheckPatterns: %v", err)
	}
	for _, bad := range [][]string{nil, {"relative/*.log"}, {"/var/log/[a"}, {"/var/log/{a,b"}, {""}} {
		if err := CheckPatterns(bad); err == nil {
			t.Errorf("CheckPatterns(%q) = nil, want an error", bad)
		}
	}
}
