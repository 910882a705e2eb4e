package spool

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/openloganalytics/agent/internal/vfs/memfs"
)

// failEverywhere makes the N-th operation of each kind fail with err, for every
// N of a session, once or for a while; and what happens then is that the session
// goes on, that the process is killed and another started, or that the power is
// cut. The session has to come to its end with nothing lost, and a power cut
// right after it must find everything.
func failEverywhere(t *testing.T, err error) {
	t.Helper()
	t.Parallel()
	quiet := faultySession{fs: memfs.New()}
	created := map[memfs.Op][]int{} // how many files were made before each
	quiet.fs.OnOp = func(op memfs.Op, _ string) { created[op] = append(created[op], quiet.fs.Count(memfs.Create)) }
	if err := quiet.play(); err != nil {
		t.Fatalf("without a fault: %v", err)
	}
	counts := map[memfs.Op]int{}
	for op := memfs.Create; op <= memfs.Size; op++ {
		counts[op] = quiet.fs.Count(op)
	}
	if err := quiet.end(); err != nil {
		t.Fatalf("without a fault: %v", err)
	}
	var faults [][]memfs.Fault
	for op := memfs.Create; op <= memfs.Size; op++ {
		for n := 1; n <= counts[op]; n++ { // Truncate has none on its own: below
			for _, sticky := range []bool{false, true} {
				faults = append(faults, []memfs.Fault{{Op: op, N: n, Err: err, Sticky: sticky, Short: 700 * (n % 3)}})
			}
		}
	}
	// A frame is cut off only after it failed, and then goes to a new segment, so
	// these come together.
	for _, op := range []memfs.Op{memfs.Write, memfs.Sync} {
		for n := 1; n <= counts[op]; n++ {
			faults = append(faults, []memfs.Fault{
				{Op: op, N: n, Err: err, Short: 700 * (n % 3)},
				{Op: memfs.Truncate, N: 1, Err: err},
				{Op: memfs.Create, N: created[op][n-1] + 1, Err: err},
			})
		}
	}
	kill := func(p *player) *memfs.FS { return p.fs.Killed() }
	cut := func(p *player) *memfs.FS { return p.fs.Crash(p.rng) }
	accidents := []struct {
		name    string
		happen  func(*player) *memfs.FS
		deliver bool // what there is, before it
	}{
		{"the process goes on", nil, false},
		{"the process is killed", kill, false},
		{"the power is cut", cut, false},
		{"all is delivered and the process killed", kill, true},
		{"all is delivered and the power cut", cut, true},
	}
	happened := make([]atomic.Int64, len(accidents))
	inParallel(len(faults)*len(accidents), func(i int) {
		f, a := faults[i/len(accidents)], accidents[i%len(accidents)]
		session := faultySession{fs: memfs.New(), fault: f[0], accident: a.happen, deliver: a.deliver}
		for _, fault := range f {
			session.fs.Fail(fault)
		}
		err := session.play()
		if err == nil {
			err = session.end()
		}
		if err != nil {
			t.Errorf("%s number %d fails (sticky: %v, and %d more), then %s: %v", f[0].Op, f[0].N, f[0].Sticky, len(f)-1, a.name, err)
		}
		if session.happened {
			happened[i%len(accidents)].Add(1)
		}
	})
	if len(faults) < 400 {
		t.Errorf("only %d faults were tried", len(faults))
	}
	for i := range accidents[1:] {
		if n := int(happened[i+1].Load()); n != len(faults) {
			t.Errorf("after %d of %d faults %s", n, len(faults), accidents[i+1].name)
		}
	}
}

// A faultySession appends, delivers and restarts, and tries everything again
// that fails. A fault that stays is healed after some failures.
type faultySession struct {
	fs    *memfs.FS
	fault memfs.Fault
	// accident, when there is one, happens once, right after the step that met
	// the fault; it returns the folder that the next process finds.
	accident func(*player) *memfs.FS
	deliver  bool // all that there is, before that
	happened bool

	p        *player
	failures int
	last     ID // that the process has begun
}

func (f *faultySession) play() error {
	f.p = newPlayer(rand.New(rand.NewPCG(7, 7)), testOptions("a", "b"))
	f.p.fs = f.fs
	if err := f.open(); err != nil {
		return err
	}
	for i := range 14 {
		if err := f.append(i); err != nil {
			return fmt.Errorf("append %d: %w", i, err)
		}
		if err := f.p.oneDelivery(i, f.failed); err != nil {
			return err
		}
		if _, err := f.meetAccident(); err != nil {
			return err
		}
		if i == 9 {
			f.p.fs.Kill()
			if err := f.open(); err != nil {
				return err
			}
		}
	}
	return nil
}

// failed heals the disk after some failures, and reports whether to try again.
func (f *faultySession) failed() bool {
	if f.failures++; f.failures == 2 {
		f.p.fs.Heal()
	}
	return f.failures < 10
}

// open starts a process, as often as it takes.
func (f *faultySession) open() error {
	f.last = 0
	err := f.p.reopen()
	for err != nil && f.failed() {
		f.p.fs.Kill()
		err = f.p.reopen()
	}
	if err == nil {
		_, err = f.meetAccident()
	}
	return err
}

// meetAccident lets the accident happen if its time has come, and starts the
// next process.
func (f *faultySession) meetAccident() (happened bool, err error) {
	if f.accident == nil || f.happened || f.fs.Count(f.fault.Op) < f.fault.N {
		return false, nil
	}
	f.happened = true
	for f.deliver && f.p.s != nil {
		b := takeNow(f.p.s, "a")
		if b == nil {
			break
		}
		if err := f.p.compare(b); err != nil && !injected(err) {
			return true, err
		}
		f.p.done("a", b)
	}
	f.p.fs = f.accident(f.p)
	return true, f.open()
}

// append appends one frame, whatever it takes. After an accident it may be there
// or not.
func (f *faultySession) append(i int) error {
	p, want := f.p, strconv.Itoa(i)
	for {
		frame := f.frame(i)
		p.m.maybe = append(p.m.maybe, frame)
		ids, err := p.s.Append(frame.pieces, frame.checkpoints)
		if err == nil {
			p.m, f.last = p.m.with(frame), ids[0]
			return nil
		}
		if !errors.Is(err, ErrFailing) && !errors.Is(err, ErrFull) {
			return fmt.Errorf("not a typed error: %w", err)
		}
		happened, accidentErr := f.meetAccident()
		if accidentErr != nil {
			return accidentErr
		}
		if p.m.checkpoints[serial] == want {
			return nil // it has become durable
		}
		if !happened && !f.failed() {
			return err
		}
	}
}

func (f *faultySession) frame(i int) modelFrame {
	piece := Piece{Label: []byte("table"), Data: fmt.Appendf(nil, "%d%s", i, strings.Repeat("d", 100*i)), Tail: []byte("."), Rows: i + 1}
	if i%3 > 0 && f.p.s.Continue(f.last) {
		piece.Batch = f.last
	}
	return modelFrame{
		pieces: []Piece{piece}, closed: map[ID]bool{},
		checkpoints: []Checkpoint{{serial, fmt.Append(nil, i)}, {fmt.Sprintf("source/%d", i%3), []byte(strings.Repeat("v", 50*i))}},
	}
}

// end holds what the session has left against the model, and once more after a
// power cut.
func (f *faultySession) end() error {
	p := f.p
	if d := p.s.Stats().Damage; d.Frames != 0 || d.Pieces != 0 || d.Rows != 0 {
		return fmt.Errorf("damage was counted: %+v", d)
	}
	if err := p.m.check(p.fs.Crash(p.rng), p.o); err != nil {
		return fmt.Errorf("after a power cut: %w", err)
	}
	if err := p.s.Close(); err != nil && f.failures == 0 {
		return err
	}
	p.fs.Heal()
	p.fs.Kill()
	return p.m.check(p.fs, p.o)
}

// oneDelivery brings the oldest batch to one of the destinations, from time to
// time.
func (p *player) oneDelivery(i int, failed func() bool) error {
	d := p.o.Destinations[i%2]
	if i%5 == 4 {
		if err := p.s.SetAside(d, 1, []byte("a bad row"), "it is bad"); err != nil && !failed() {
			return err
		}
	}
	b := takeNow(p.s, d)
	if b == nil || i%4 == 3 {
		return nil
	}
	for err := p.compare(b); err != nil; err = p.compare(b) {
		if errors.Is(err, ErrDamaged) || !failed() {
			return fmt.Errorf("read batch %d: %w", b.ID, err)
		}
	}
	p.taken = map[string][]*Batch{}
	p.done(d, b)
	return nil
}

// TestFrameThatFailedIsVoid: a frame fails in every way at once, so that its
// bytes stay in the old segment, and other rows are appended instead. Neither a
// kill nor a power cut may bring the first back beside them.
func TestFrameThatFailedIsVoid(t *testing.T) {
	for seed := range uint64(50) {
		fs := memfs.New()
		s := mustOpen(t, fs, testOptions("a"))
		mustAppend(t, s, rows("before", 1), Checkpoint{serial, []byte("1")})
		fs.Fail(memfs.Fault{Op: memfs.Sync, N: 1, Err: errIO})
		fs.Fail(memfs.Fault{Op: memfs.Truncate, N: 1, Err: errIO})
		fs.Fail(memfs.Fault{Op: memfs.Create, N: 1, Err: errIO})
		if _, err := s.Append(rows("failed", 10), []Checkpoint{{serial, []byte("2")}}); !errors.Is(err, ErrFailing) {
			t.Fatalf("append: %v, want ErrFailing", err)
		}
		mustAppend(t, s, rows("instead", 100), Checkpoint{serial, []byte("3")})
		after := fs.Crash(rand.New(rand.NewPCG(seed, 2)))
		fs.Kill()
		for _, fs := range []*memfs.FS{fs, after} {
			s := mustOpen(t, fs, testOptions("a"))
			got := ""
			for b := takeNow(s, "a"); b != nil; b = takeNow(s, "a") {
				got += mustBody(t, b)
			}
			if got != "before.instead." || s.Stats().Rows != 101 || s.Stats().Damage.Frames != 0 {
				t.Fatalf("found %q, %+v", got, s.Stats())
			}
		}
	}
}

// TestFrameThatABatchWentWithoutIsVoid: a frame fails that was to continue a
// batch, and stays on the disk whole. The batch is delivered without it, and the
// process ends. The next one must not find rows that nobody delivers, nor a place
// behind them; without the delivery it may find both.
func TestFrameThatABatchWentWithoutIsVoid(t *testing.T) {
	tests := []struct {
		name    string
		deliver bool
		cursor  func(*slot) // what the cursor says then
		place   string
		rows    int64 // found
		lost    int64
	}{
		{name: "delivered without it", deliver: true, place: "1", rows: 1},
		{name: "not delivered", place: "2", rows: 11},
		{name: "with a cursor of before, which cannot tell", deliver: true, cursor: func(sl *slot) { sl.frames = 0 }, place: "2", rows: 11, lost: 10},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			fs := memfs.New()
			o := testOptions("a", "b")
			s := mustOpen(t, fs, o)
			id := mustAppend(t, s, rows("before", 1), Checkpoint{serial, []byte("1")})[0]
			s.Continue(id)
			fs.Fail(memfs.Fault{Op: memfs.Sync, N: 1, Err: errIO})
			fs.Fail(memfs.Fault{Op: memfs.Truncate, N: 1, Err: errIO})
			fs.Fail(memfs.Fault{Op: memfs.Create, N: 1, Err: errIO})
			more := rows(" and more", 10)
			more[0].Batch = id
			if _, err := s.Append(more, []Checkpoint{{serial, []byte("2")}}); !errors.Is(err, ErrFailing) {
				t.Fatalf("append: %v, want ErrFailing", err)
			}
			if tt.deliver {
				if got := mustBody(t, takeNow(s, "a")); got != "before." {
					t.Fatalf("the batch is %q", got)
				}
				if err := s.Done("a", id, Outcome{Delivered: 1}); err != nil {
					t.Fatal(err)
				}
			}
			fs.Kill()
			if tt.cursor != nil {
				sl := newestSlot(fs.ReadFile(cursorName("a")))
				tt.cursor(&sl)
				fs.WriteFile(cursorName("a"), cursorFile(sl))
			}
			for range 3 { // the next start, and more in which nothing is appended
				s = mustOpen(t, fs, o)
				st := s.Stats()
				if got := string(s.Checkpoint(serial)); got != tt.place || st.Rows != tt.rows || st.Destinations[0].Lost != tt.lost || st.Destinations[1].Lost != 0 {
					t.Fatalf("the place is %s, want %s: %+v", got, tt.place, st)
				}
				if st.Bytes != blocksOf(t, fs) {
					t.Errorf("Stats says %d bytes, the files take %d", st.Bytes, blocksOf(t, fs))
				}
				fs.Kill()
			}
			s = mustOpen(t, fs, o)
			mustAppend(t, s, rows("again", 10), Checkpoint{serial, []byte("3")})
			s = mustOpen(t, fs.Crash(rand.New(rand.NewPCG(1, 1))), o)
			if st := s.Stats(); st.Rows != tt.rows+10 || st.Damage != (Damage{}) || st.Destinations[0].Lost != tt.lost {
				t.Errorf("after a power cut: %+v", st)
			}
		})
	}
}

// TestVoidFramesGoWithWhatMakesThemVoid: segments in which a frame failed cannot
// be removed. They must not outlive the segment after them, or their frames
// would count once that is gone.
func TestVoidFramesGoWithWhatMakesThemVoid(t *testing.T) {
	fs := memfs.New()
	o := testOptions("a")
	o.SegmentBytes = 1 // a segment for each frame
	s := mustOpen(t, fs, o)
	mustAppend(t, s, rows("before", 1))
	fs.Fail(memfs.Fault{Op: memfs.Sync, N: 1, Err: errIO, Sticky: true})
	fs.Fail(memfs.Fault{Op: memfs.Remove, N: 1, Err: errIO, Sticky: true})
	for range 2 {
		if _, err := s.Append(rows("failed", 10), nil); !errors.Is(err, ErrFailing) {
			t.Fatalf("append: %v, want ErrFailing", err)
		}
	}
	fs.Heal()
	mustAppend(t, s, rows("instead", 1))
	mustAppend(t, s, rows("last", 1))
	for range 2 {
		if err := s.Done("a", takeNow(s, "a").ID, Outcome{Delivered: 1}); err != nil {
			t.Fatal(err)
		}
	}
	for n := range uint64(4) {
		if fs.ReadFile(segmentName(n+1)) != nil {
			t.Errorf("segment %d is left, nobody needs it", n+1)
		}
	}
	fs.Kill()
	s = mustOpen(t, fs, o)
	if got := mustBody(t, takeNow(s, "a")); got != "last." || takeNow(s, "a") != nil || s.Stats().Rows != 3 || s.Stats().Damage != (Damage{}) {
		t.Errorf("after a restart %q comes first, %+v", got, s.Stats())
	}
}

// TestNothingIsBuiltOnWhatIsNotSynced: a process is killed between the write
// and the sync of a new segment. The next one finds it, delivers what the older
// segments hold and removes them; a power cut then must not take the checkpoints
// along.
func TestNothingIsBuiltOnWhatIsNotSynced(t *testing.T) {
	for seed := range uint64(100) {
		fs := memfs.New()
		s := mustOpen(t, fs, testOptions("a"))
		mustAppend(t, s, rows("old", 1), Checkpoint{"k", []byte("1")})
		s.o.SegmentBytes = 1 // the next frame begins a segment
		fs.OnOp = func(op memfs.Op, name string) {
			if op == memfs.Sync && name == segmentName(2) {
				panic(killed{})
			}
		}
		func() {
			defer func() { _ = recover() }() // the kill
			mustAppend(t, s, rows("new", 1), Checkpoint{"k", []byte("2")})
		}()
		fs.OnOp = nil
		fs.Kill()
		s = mustOpen(t, fs, testOptions("a"))
		b := takeNow(s, "a")
		if err := s.Done("a", b.ID, Outcome{Delivered: 1}); err != nil {
			t.Fatal(err)
		}
		s = mustOpen(t, fs.Crash(rand.New(rand.NewPCG(seed, 3))), testOptions("a"))
		if v := s.Checkpoint("k"); v == nil {
			t.Fatalf("seed %d: the checkpoints are lost", seed)
		}
	}
}

// TestSnapshotAloneCounts: a process is killed between the snapshot of a new
// segment and its first frame. The next one makes that segment durable and
// removes the older one, and the power is cut while it begins a third.
func TestSnapshotAloneCounts(t *testing.T) {
	fs := memfs.New()
	s := mustOpen(t, fs, testOptions("a"))
	mustAppend(t, s, nil, Checkpoint{"k", []byte("1")})
	s.o.SegmentBytes = 1 // the next frame begins a segment
	written := false
	fs.OnOp = func(op memfs.Op, name string) {
		if op == memfs.Write && name == segmentName(2) {
			if written {
				panic(killed{})
			}
			written = true
		}
	}
	dead, err := orDie(func() error {
		_, err := s.Append(rows("new", 1), nil)
		return err
	})
	if !dead || err != nil {
		t.Fatalf("the process is not dead: %v", err)
	}
	fs.OnOp = nil
	fs.Kill()
	mustOpen(t, fs, testOptions("a"))
	if fs.ReadFile(segmentName(1)) != nil {
		t.Fatal("the first segment is still there")
	}
	fs.Kill()
	fs.WriteFile(segmentName(3), appendSegmentHeader(nil, segmentHeader{version: Format, spool: s.id, number: 3, first: 2}))
	for range 2 {
		s = mustOpen(t, fs, testOptions("a"))
		if v := string(s.Checkpoint("k")); v != "1" || s.Stats().Damage != (Damage{}) {
			t.Fatalf("the checkpoint is %q, %+v", v, s.Stats().Damage)
		}
		fs.Kill()
	}
	s = mustOpen(t, fs, testOptions("a"))
	mustAppend(t, s, rows("new", 1))
	s = mustOpen(t, fs.Crash(rand.New(rand.NewPCG(1, 1))), testOptions("a"))
	if v := string(s.Checkpoint("k")); v != "1" || s.Stats().Rows != 1 {
		t.Errorf("after one more frame the checkpoint is %q, %+v", v, s.Stats())
	}
}

// TestSegmentsGoInOrder: each removal is durable before the next.
func TestSegmentsGoInOrder(t *testing.T) {
	fs := memfs.New()
	s := mustOpen(t, fs, testOptions("a"))
	for range 12 {
		mustAppend(t, s, rows(strings.Repeat("d", 900), 1))
	}
	pending, removed := 0, 0
	fs.OnOp = func(op memfs.Op, name string) {
		switch {
		case op == memfs.Remove && strings.HasPrefix(name, segmentPrefix):
			if pending++; pending > 1 {
				t.Errorf("%s is removed while another removal is not durable", name)
			}
			removed++
		case op == memfs.SyncDir:
			pending = 0
		}
	}
	taken := []*Batch{}
	for b := takeNow(s, "a"); b != nil; b = takeNow(s, "a") {
		taken = append(taken, b)
	}
	for _, b := range slices.Backward(taken) { // the oldest last: it frees them all
		if err := s.Done("a", b.ID, Outcome{Delivered: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if removed < 3 {
		t.Errorf("only %d segments were removed", removed)
	}
}

// TestSegmentsWaitForTheCursor: while the cursor cannot be written nothing that
// it would free is removed, whoever looks, and all of it is once it can.
func TestSegmentsWaitForTheCursor(t *testing.T) {
	fs := memfs.New()
	s := mustOpen(t, fs, testOptions("a"))
	for range 12 {
		mustAppend(t, s, rows(strings.Repeat("d", 900), 1))
	}
	segments := len(s.segments)
	fs.Fail(memfs.Fault{Op: memfs.Sync, N: 1, Err: errIO, Sticky: true})
	for b := takeNow(s, "a"); b != nil; b = takeNow(s, "a") {
		if err := s.Done("a", b.ID, Outcome{Delivered: 1}); !errors.Is(err, ErrFailing) {
			t.Fatalf("Done without a cursor: %v, want ErrFailing", err)
		}
	}
	s.sweep() // as another destination's Done would
	if len(s.segments) != segments {
		t.Errorf("%d of %d segments are left before the cursor is durable", len(s.segments), segments)
	}
	if st := s.Stats(); st.State != "failing" || st.Message == "" {
		t.Errorf("state is %q: %q", st.State, st.Message)
	}
	fs.Heal()
	mustAppend(t, s, rows("more", 1))
	b := takeNow(s, "a")
	if err := s.Done("a", b.ID, Outcome{Delivered: 1}); err != nil {
		t.Fatal(err)
	}
	if len(s.segments) != 1 {
		t.Errorf("%d segments are left when all is delivered, want 1", len(s.segments))
	}
}
