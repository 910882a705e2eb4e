package spool

import (
	"bytes"
	"compress/flate"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	records "github.com/openloganalytics/agent/agent/record"
	"github.com/openloganalytics/agent/internal/vfs"
	"github.com/openloganalytics/agent/internal/vfs/memfs"
)

// The hazards that a spool meets, each with the test that holds it:
//
//	W01  torn end, every byte and every sector            TestW01TornEnd
//	W02  writes between syncs in any order                TestW02WritesInAnyOrder, every explore
//	W03  a sync is left out                               TestW03LeftOutSyncsAreSeen, make mutants
//	W04  kill before every operation                      TestW04KillAtEveryOperation, make crash
//	W05  power cut before every operation                 TestW05PowerCutAtEveryOperation, make crash
//	W06  no space at every write, then space again        TestW06NoSpaceAtEveryOperation, make crash
//	W07  I/O error at every operation, once and for long  TestW07IOErrorAtEveryOperation
//	W08  read-only                                        TestW08ReadOnlyAtEveryOperation, make crash
//	W09  bit flip at every byte                           TestW09EveryBitFlipCostsOnePiece, TestW09BitFlipsIn64KiB
//	W10  segments missing, empty, exchanged, twice        TestW10Segments
//	W11  cursor missing, short, old, new, another's       TestW11Cursors
//	W12  clock a year back, ten years ahead               TestW12ClockDoesNotMatter, TestS12
//	W13  two processes                                    TestW13SecondProcessIsRefused
//	W14  budget below what is used, and more again        TestW14BudgetChanges
//	W15  many segments, wide numbers, a huge record       TestW15WideNumbers, TestAppendRefuses
//	W16  slow disk                                        TestW16SlowDiskHoldsNobodyElse
//	W17  torn compressed stream                           TestW17TornCompressedStream
//	W18  file system without the meaning of fsync         TestW18WeakFileSystems in internal/vfs
//
// W14 asks for the oldest to be dropped when the budget shrinks. Here nothing is
// dropped: sources wait until there is room, see DESIGN on back-pressure.

// lastFrame is a spool with one acknowledged batch, and where the frame behind
// it, which was not, lies in its segment.
func lastFrame(t *testing.T) (fs *memfs.FS, name string, from, to int) {
	t.Helper()
	fs = memfs.New()
	o := testOptions("a")
	o.SegmentBytes = 8192
	s := mustOpen(t, fs, o)
	mustAppend(t, s, rows("acknowledged", 1), Checkpoint{serial, []byte("1")})
	name, from = s.active.segment.name, int(s.active.segment.size)
	mustAppend(t, s, rows("not yet "+strings.Repeat("d", 2900), 2), Checkpoint{serial, []byte("2")})
	to = int(s.active.segment.size)
	fs.Kill()
	return fs, name, from, to
}

// holdsWholeFrames fails unless the spool holds the first frame, and the second
// whole or not at all.
func holdsWholeFrames(fs *memfs.FS) error {
	s, err := Open(fs, testOptions("a"))
	if err != nil {
		return err
	}
	bodies := ""
	for b := takeNow(s, "a"); b != nil; b = takeNow(s, "a") {
		body, err := b.Body(nil)
		if err != nil {
			return err
		}
		bodies += string(body)
	}
	got := string(s.Checkpoint(serial)) + bodies
	if got != "1acknowledged." && got != "2acknowledged.not yet "+strings.Repeat("d", 2900)+"." {
		return fmt.Errorf("found %.80q", got)
	}
	if d := s.Stats().Damage; d.Frames != 0 || d.Pieces != 0 || d.Rows != 0 {
		return fmt.Errorf("a torn end is taken for damage: %+v", d)
	}
	return nil
}

func TestW01TornEnd(t *testing.T) {
	t.Parallel()
	base, name, from, to := lastFrame(t)
	whole := base.ReadFile(name)
	try := func(what string, data []byte) {
		t.Helper()
		fs := base.Killed()
		fs.WriteFile(name, data)
		if err := holdsWholeFrames(fs); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	for n := from; n <= to; n++ {
		try(fmt.Sprintf("cut after %d bytes of the frame", n-from), whole[:n])
		try(fmt.Sprintf("zeros after %d bytes of the frame", n-from), append(bytes.Clone(whole[:n]), make([]byte, to-n)...))
	}
	garbage := rand.New(rand.NewPCG(1, 1))
	for _, unit := range []int{512, 4096} {
		for at := from / unit * unit; at < to; at += unit {
			for _, fill := range []func() byte{func() byte { return 0 }, func() byte { return byte(garbage.Uint32()) }} {
				data := bytes.Clone(whole)
				for i := max(at, from); i < min(at+unit, to); i++ {
					data[i] = fill()
				}
				try(fmt.Sprintf("sector of %d bytes at %d spoilt", unit, at), data)
			}
		}
	}
}

// TestW02WritesInAnyOrder: each sector of a frame may have come to the disk, or
// not, or hold garbage: all such states there are.
func TestW02WritesInAnyOrder(t *testing.T) {
	t.Parallel()
	base, name, from, to := lastFrame(t)
	whole := base.ReadFile(name)
	sectors := (to - from) / sector
	states := 1
	for range sectors {
		states *= 3
	}
	for state := range states {
		data, n := bytes.Clone(whole), state
		for i := range sectors {
			switch part := data[from+i*sector:][:sector]; n % 3 {
			case 1:
				clear(part)
			case 2:
				for j := range part {
					part[j] = byte(j * 37)
				}
			}
			n /= 3
		}
		fs := base.Killed()
		fs.WriteFile(name, data)
		if err := holdsWholeFrames(fs); err != nil {
			t.Fatalf("state %d of %d: %v", state, states, err)
		}
	}
	if states < 729 {
		t.Errorf("only %d states: the frame is too short", states)
	}
}

// lazyFS says that it has synced and has not.
type lazyFS struct {
	*memfs.FS
	files, names bool
}

func (l lazyFS) SyncDir() error {
	if l.names {
		return nil
	}
	return l.FS.SyncDir()
}

func (l lazyFS) Create(name string) (vfs.File, error) {
	f, err := l.FS.Create(name)
	if err != nil || !l.files {
		return f, err
	}
	return lazyFile{f}, nil
}

type lazyFile struct{ vfs.File }

func (lazyFile) Sync() error { return nil }

// TestW03LeftOutSyncsAreSeen: the tests have teeth. On a disk that does not
// sync files, or names, a few power cuts are enough to find a frame lost.
func TestW03LeftOutSyncsAreSeen(t *testing.T) {
	t.Parallel()
	for what, lazy := range map[string]lazyFS{"files": {files: true}, "names": {names: true}} {
		lost := 0
		for seed := range uint64(20) {
			lazy.FS = memfs.New()
			o := testOptions("a")
			s, err := Open(lazy, o)
			if err != nil {
				t.Fatal(err)
			}
			mustAppend(t, s, rows("acknowledged", 1), Checkpoint{serial, []byte("1")})
			after := mustOpen(t, lazy.Crash(rand.New(rand.NewPCG(seed, 3))), o)
			if string(after.Checkpoint(serial)) != "1" {
				lost++
			}
		}
		if lost == 0 {
			t.Errorf("without a sync of %s nothing is lost in 20 power cuts", what)
		}
	}
}

// everywhere does the same session once for every operation in it, with an
// accident before that operation, and judges what is left.
func everywhere(t *testing.T, accident func(p *player) *memfs.FS) {
	t.Helper()
	t.Parallel()
	quiet := faultySession{fs: memfs.New()}
	if err := errors.Join(quiet.play(), quiet.end()); err != nil {
		t.Fatal(err)
	}
	total := quiet.fs.Count(memfs.Any)
	inParallel(total, func(n int) {
		p := newPlayer(rand.New(rand.NewPCG(uint64(n), 4)), testOptions("a", "b"))
		seen := 0
		p.fs.OnOp = func(memfs.Op, string) {
			if seen++; seen > n {
				panic(killed{})
			}
		}
		dead, err := orDie(func() error {
			err := p.reopen()
			for err == nil {
				err = p.step()
			}
			return err
		})
		if !dead {
			t.Errorf("before operation %d: %v", n, err)
			return
		}
		p.fs.OnOp = nil
		if err := p.m.check(accident(p), p.o); err != nil {
			t.Errorf("before operation %d: %v", n, err)
		}
	})
}

// inParallel calls do with 0 to n-1.
func inParallel(n int, do func(int)) {
	var next atomic.Int64
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				do(i)
			}
		})
	}
	workers.Wait()
}

func TestW04KillAtEveryOperation(t *testing.T) {
	everywhere(t, func(p *player) *memfs.FS { return p.fs.Killed() })
}

func TestW05PowerCutAtEveryOperation(t *testing.T) {
	everywhere(t, func(p *player) *memfs.FS { return p.fs.Crash(p.rng) })
}

func TestW06NoSpaceAtEveryOperation(t *testing.T) {
	failEverywhere(t, vfs.ErrNoSpace)
}

func TestW07IOErrorAtEveryOperation(t *testing.T) {
	failEverywhere(t, errIO)
}

func TestW08ReadOnlyAtEveryOperation(t *testing.T) {
	failEverywhere(t, vfs.ErrReadOnly)
}

// TestW06HalfAFrameSpoilsNoLater: a frame that met the end of the disk is left
// half written, and what is appended once there is room must be found.
func TestW06HalfAFrameSpoilsNoLater(t *testing.T) {
	t.Parallel()
	for short := range 1200 {
		fs := memfs.New()
		s := mustOpen(t, fs, testOptions("a"))
		mustAppend(t, s, rows("before", 1), Checkpoint{serial, []byte("1")})
		used := fs.Used()
		fs.SetCapacity(used + int64(short))
		fs.Fail(memfs.Fault{Op: memfs.Truncate, N: 1, Err: errIO}) // it cannot be cut off either
		s.o.KeepFree = -1 << 40
		if _, err := s.Append(rows(strings.Repeat("h", 1000), 1), []Checkpoint{{serial, []byte("2")}}); !errors.Is(err, vfs.ErrNoSpace) {
			t.Fatalf("%d bytes free: append says %v", short, err)
		}
		fs.SetCapacity(1 << 60)
		fs.Heal()
		mustAppend(t, s, rows("after", 1), Checkpoint{serial, []byte("3")})
		got := ""
		s = mustOpen(t, fs.Crash(rand.New(rand.NewPCG(uint64(short), 6))), testOptions("a"))
		for b := takeNow(s, "a"); b != nil; b = takeNow(s, "a") {
			got += mustBody(t, b)
		}
		if v := string(s.Checkpoint(serial)); got != "before.after." || v != "3" {
			t.Fatalf("%d bytes free: found %q and %q", short, v, got)
		}
	}
}

// TestW17TornCompressedStream: the body is one compressed stream of three
// pieces, of which the last is torn at any byte, or any byte of one is wrong. A
// body that is given out inflates to whole rows; of a damaged one every piece
// that is left inflates on its own.
func TestW17TornCompressedStream(t *testing.T) {
	t.Parallel()
	base := memfs.New()
	s := mustOpen(t, base, testOptions("a"))
	table := &records.Table{Name: "W17_CL", LogType: "W17"}
	open := records.NewBatch(table, records.NewCompressor())
	var id ID
	var texts []string // of the pieces
	var seg *segment
	for i := range 3 {
		text := ""
		for j := range 5 {
			value := fmt.Sprint(i, " and ", j, strings.Repeat(" the same text", 1+i))
			open.Add([]records.Field{{Key: "RawData", Kind: records.Text, Value: []byte(value)}})
			text += `,{"RawData":"` + value + `"}`
		}
		if i == 0 {
			text = "[" + text[1:]
		}
		texts = append(texts, text)
		p := open.Cut()
		s.Continue(id)
		id = mustAppend(t, s, []Piece{{Batch: id, Label: table.Label(), Data: bytes.Clone(p.Data), Tail: bytes.Clone(p.Tail), Rows: p.Rows, Raw: p.Raw}})[0]
		seg = s.active.segment
	}
	base.Kill()
	whole := base.ReadFile(seg.name)
	last := int(s.batches[0].pieces[2].off) - 200 // in the frame, or before it
	try := func(what string, data []byte) {
		fs := base.Killed()
		fs.WriteFile(seg.name, data)
		if err := inflatesTo(fs, texts); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	inParallel(len(whole)-last, func(n int) { try(fmt.Sprintf("torn at byte %d", last+n), whole[:last+n]) })
	inParallel(len(whole), func(n int) {
		data := bytes.Clone(whole)
		data[n] ^= 0x55
		try(fmt.Sprintf("byte %d is wrong", n), data)
	})
}

// inflatesTo holds what the only batch of a spool gives out against the texts of
// its pieces.
func inflatesTo(fs *memfs.FS, texts []string) error {
	s, err := Open(fs, testOptions("a"))
	if err != nil {
		return err
	}
	b := takeNow(s, "a")
	if b == nil {
		return errors.New("no piece is left")
	}
	body, err := b.Body(nil)
	if err == nil {
		raw, err := records.Inflate(body, 1<<20)
		for n := range texts {
			if string(raw) == strings.Join(texts[:n+1], "")+"]" {
				return err
			}
		}
		return fmt.Errorf("the body is %q, %w", raw, err)
	}
	if !errors.Is(err, ErrDamaged) {
		return err
	}
	left := 0
	err = b.Pieces(func(index int, p Piece) bool {
		data := p.Data
		if index == 0 {
			data = data[2:] // the header of the stream
		}
		raw, _ := io.ReadAll(flate.NewReader(bytes.NewReader(data))) // it has no end of its own
		if string(raw) == texts[index] {
			left++
			return true
		}
		return false
	})
	if err == nil && left != len(texts)-1 {
		err = fmt.Errorf("%d pieces can be read, want all but one", left)
	}
	return err
}

func TestW12ClockDoesNotMatter(t *testing.T) {
	fsys := memfs.New()
	o := testOptions("a")
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	o.Clock = func() time.Time { return now }
	want := ""
	for i, year := range []int{2026, 2036, 2025, 1970, 2200, 1900} {
		now = time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC)
		s := mustOpen(t, fsys, o)
		mustAppend(t, s, rows(fmt.Sprint(i), 1))
		want += fmt.Sprint(i) + "."
		fsys.Kill()
	}
	s, got := mustOpen(t, fsys, o), ""
	for b := takeNow(s, "a"); b != nil; b = takeNow(s, "a") {
		got += mustBody(t, b)
	}
	if got != want {
		t.Errorf("batches come as %q, want %q", got, want)
	}
}

// TestW13SecondProcessIsRefused runs this test binary once more on the same
// folder: it has to be told who is in the way, and to leave all as it is.
func TestW13SecondProcessIsRefused(t *testing.T) {
	const folder = "SPOOL_TEST_FOLDER"
	if dir := os.Getenv(folder); dir != "" {
		if _, err := Open(must(vfs.OS(dir)), testOptions("a")); err != nil {
			fmt.Println(err)
		}
		return
	}
	dir := t.TempDir()
	s, err := Open(must(vfs.OS(dir)), testOptions("a"))
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, s, rows("mine", 1))
	second := exec.Command(os.Args[0], "-test.run=^TestW13SecondProcessIsRefused$")
	second.Env = append(os.Environ(), folder+"="+dir)
	out, err := second.CombinedOutput()
	if want := "lock folder " + dir + ": another process owns it"; err != nil || !strings.Contains(string(out), want) {
		t.Errorf("the second process says %q, %v, want %q", out, err, want)
	}
	mustAppend(t, s, rows("still mine", 1))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(os.Args[0], "-test.run=^$").CombinedOutput(); err != nil {
		t.Errorf("%s: %v", out, err)
	}
}

func TestW14BudgetChanges(t *testing.T) {
	t.Parallel()
	fs := memfs.New()
	o := testOptions("a")
	o.Budget, o.SegmentBytes = 4<<20, 64<<10
	s := mustOpen(t, fs, o)
	data := strings.Repeat("d", 3000)
	want := 0
	for _, err := s.Append(rows(data, 1), nil); err == nil; _, err = s.Append(rows(data, 1), nil) {
		want++
	}
	fs.Kill()
	o.Budget = 1 << 20
	s = mustOpen(t, fs, o)
	if _, err := s.Append(rows(data, 1), nil); !errors.Is(err, ErrFull) {
		t.Fatalf("append over a budget that shrank: %v, want ErrFull", err)
	}
	got, accepts := 0, false
	for b := takeNow(s, "a"); b != nil; b = takeNow(s, "a") {
		if len(mustBody(t, b)) == len(data)+1 {
			got++
		}
		if err := s.Done("a", b.ID, Outcome{Delivered: 1}); err != nil {
			t.Fatal(err)
		}
		if used := fs.Used(); !accepts && used < o.Budget/2 {
			mustAppend(t, s, rows(data, 1))
			want, accepts = want+1, true
		}
	}
	if got != want || s.Stats().Damage != (Damage{}) {
		t.Errorf("%d of %d batches came out of the smaller spool, %+v", got, want, s.Stats().Damage)
	}
	fs.Kill()
	o.Budget = 8 << 20
	s = mustOpen(t, fs, o)
	mustAppend(t, s, rows(data, 1))
	if st := s.Stats(); st.State != "ok" || st.Destinations[0].Lost != 0 {
		t.Errorf("with a larger budget: %+v", st)
	}
}

// TestW15WideNumbers begins just before the numbers of segments, frames,
// batches and rows get wider than 16 and 32 bits.
func TestW15WideNumbers(t *testing.T) {
	t.Parallel()
	for _, start := range []uint64{1<<16 - 5, 1<<32 - 5, 1<<48 - 5} {
		fs := memfs.New()
		o := testOptions("a")
		o.SegmentBytes = 1 // a segment for each frame
		s := mustOpen(t, fs, o)
		s.number, s.seq, s.rows, s.next = start, start, start, ID(start)
		s.destinations[0].through, s.destinations[0].base = ID(start-1), start
		s.destinations[0].dirty = true
		for i := range 10 {
			piece := rows(fmt.Sprint(i), 1)
			piece[0].Rows = 1 << 30
			mustAppend(t, s, piece, Checkpoint{serial, fmt.Append(nil, i)})
		}
		s.moveCursors()
		fs.Kill()
		s = mustOpen(t, fs, o)
		got := ""
		for b := takeNow(s, "a"); b != nil; b = takeNow(s, "a") {
			got += mustBody(t, b)
			if err := s.Done("a", b.ID, Outcome{Delivered: b.Rows}); err != nil {
				t.Fatal(err)
			}
		}
		st := s.Stats()
		if got != "0.1.2.3.4.5.6.7.8.9." || st.Damage != (Damage{}) || st.Rows != int64(start)+10<<30 ||
			st.Destinations[0].Delivered != 10<<30 || st.Destinations[0].Lost != 0 {
			t.Errorf("from %d on: %q, %+v", start, got, st)
		}
	}
}

// TestW15ManySegments has more segments than 16 bits can count.
func TestW15ManySegments(t *testing.T) {
	t.Parallel()
	const n = 1<<16 + 100
	fs := memfs.New()
	o := testOptions("a")
	o.Budget, o.SegmentBytes = 1<<30, 1
	s := mustOpen(t, fs, o)
	for i := range n {
		mustAppend(t, s, rows("d", 1), Checkpoint{serial, fmt.Append(nil, i)})
	}
	if len(s.segments) != n {
		t.Fatalf("%d segments, want %d", len(s.segments), n)
	}
	fs.Kill()
	s = mustOpen(t, fs, o)
	if st := s.Stats(); st.Destinations[0].Waiting != n || st.Damage != (Damage{}) {
		t.Errorf("of %d segments: %+v", n, st)
	}
}

// TestW16SlowDiskHoldsNobodyElse: while a sync takes its time batches are taken,
// read and asked about, and a Done of another destination is as fast as its own
// disk.
func TestW16SlowDiskHoldsNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := memfs.New()
		s := mustOpen(t, fs, testOptions("a"))
		ids := mustAppend(t, s, rows("first", 1))
		fs.OnOp = func(op memfs.Op, name string) {
			if op == memfs.Sync && strings.HasPrefix(name, segmentPrefix) {
				time.Sleep(time.Minute)
			}
		}
		begun := time.Now()
		var appending sync.WaitGroup
		appending.Go(func() { mustAppend(t, s, rows("slow", 1)) })
		synctest.Wait()
		if st := s.Stats(); st.Rows != 1 {
			t.Errorf("%d rows are there while the sync runs, want 1", st.Rows)
		}
		if !s.Continue(ids[0]) {
			t.Error("a batch cannot be continued while a sync runs")
		}
		s.Release(ids[0])
		b, err := s.Next(context.Background(), "a")
		if err != nil || mustBody(t, b) != "first." {
			t.Errorf("next while a sync runs: %v", err)
		}
		if err := s.Done("a", b.ID, Outcome{Delivered: 1}); err != nil {
			t.Error(err)
		}
		if waited := time.Since(begun); waited != 0 {
			t.Errorf("the others waited %v for the disk", waited)
		}
		appending.Wait()
		if waited := time.Since(begun); waited != time.Minute {
			t.Errorf("append returned after %v, before its sync", waited)
		}
		if b := takeNow(s, "a"); b == nil {
			t.Error("the slow frame is not there")
		}
	})
}
