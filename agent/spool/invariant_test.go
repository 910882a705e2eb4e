package spool

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openloganalytics/agent/internal/vfs"
	"github.com/openloganalytics/agent/internal/vfs/memfs"
)

// The invariants of the spool. Each has one property test, found by its number:
//
//	S01  a source's place never gets ahead of the rows that are durable
//	S02  a new segment is durable, name and bytes, before its first frame is acknowledged
//	S03  a cursor is durable before the segments go that it frees; either may be missing
//	S04  after a write that failed or was short the segment is at its end
//	S05  after a sync that failed nothing is built on that file
//	S06  a damaged stretch costs what lies in it, and all else is found behind it
//	S07  what is damaged is counted to the row, and never stops the start
//	S08  cursors and names can be rebuilt; no file is ever overwritten
//	S09  the files never take more than the budget and one segment
//	S10  on a full disk the cursors still move, and that makes room
//	S11  no space, no inodes, read-only: what failed can be done again without a restart
//	S12  order comes from numbers, never from the clock
//	S13  a folder has one owner
//	S14  what a newer version wrote is left as it is
//	S15  what a destination refuses for good is kept, bounded, and counted
//	S16  a killed process leaves what a stopped one does
//
// The hazards W01 to W18 are in hazard_test.go.

// anything is every operation that a writer may see fail.
var anything = []memfs.Op{
	memfs.Create, memfs.Rename, memfs.Remove, memfs.SyncDir, memfs.Write, memfs.Sync, memfs.Truncate,
	memfs.OpenWrite, memfs.Open, memfs.Read, memfs.Size, memfs.List, memfs.Free,
}

// The model compares rows and places in every state. Here a third party does,
// who counts on a destination that never gets anything: what the newest place
// says was read must be in the bodies, and nothing beyond it.
func TestS01PlaceIsNeverAheadOfTheRows(t *testing.T) {
	explore(t, 25, exploration{
		faults:  anything,
		options: func(p *player, o *Options) { p.weights = weights{append: 6, take: 1} },
		crashed: func(p *player, after *memfs.FS) error {
			s, err := Open(after, p.o)
			if err != nil {
				return err
			}
			defer after.Kill()
			place := 0
			if v := s.Checkpoint(serial); v != nil {
				if _, err := fmt.Sscan(string(v), &place); err != nil {
					return err
				}
			}
			var bodies []byte
			for b := takeNow(s, "a"); b != nil; b = takeNow(s, "a") {
				if err := b.Pieces(func(_ int, piece Piece) bool {
					bodies = append(bodies, piece.Data...)
					return true
				}); err != nil {
					return err
				}
			}
			for _, n := range p.frames {
				if !bytes.Contains(bodies, fmt.Appendf(nil, "<%d:", n)) {
					return fmt.Errorf("the place is %d, the rows of %d are missing", place, n)
				}
			}
			for n := place + 1; n <= p.n; n++ {
				if bytes.Contains(bodies, fmt.Appendf(nil, "<%d:", n)) {
					return fmt.Errorf("the place is %d, rows of %d would be read again", place, n)
				}
			}
			return nil
		},
	})
}

func TestS02NewSegmentIsDurableBeforeItsFirstAck(t *testing.T) {
	explore(t, 10, exploration{
		faults: []memfs.Op{memfs.SyncDir, memfs.Create, memfs.Sync, memfs.Write},
		options: func(p *player, o *Options) {
			p.weights = weights{append: 8, take: 1, done: 1}
			o.SegmentBytes = int64(1 + p.rng.IntN(2000))
		},
		acked: func(p *player) error {
			w := &p.s.active
			if w.file == nil || len(p.frames) == 0 || p.frames[len(p.frames)-1] != p.n {
				return nil // the last step was no good Append
			}
			if !p.fs.Durable(w.segment.name) {
				return fmt.Errorf("%s is not durable after an acknowledged frame", w.segment.name)
			}
			return nil
		},
	})
}

func TestS03CursorIsDurableBeforeSegmentsGo(t *testing.T) {
	explore(t, 15, exploration{
		faults: anything,
		options: func(p *player, o *Options) {
			p.weights = weights{append: 4, take: 5, done: 5}
			o.SegmentBytes = 1000
		},
		before: func(p *player, op memfs.Op, name string) error {
			if op != memfs.Remove || !strings.HasPrefix(name, segmentPrefix) || strings.HasSuffix(name, besideSuffix) {
				return nil
			}
			last := lastBatch(p.fs.ReadFile(name))
			for _, d := range p.o.Destinations {
				if sl := newestSlot(p.fs.Synced(cursorName(d))); last > 0 && sl.through < last && !discarded(p, name) {
					return fmt.Errorf("%s with batch %d goes, the cursor of %s is durable up to %d", name, last, d, sl.through)
				}
			}
			return nil
		},
		crashed: func(p *player, after *memfs.FS) error {
			return p.lostWithout(after.Killed())
		},
	})
}

// lostWithout looks for a batch that is not finished and not there once the
// cursors are gone: that costs repetitions and nothing else.
func (p *player) lostWithout(fs *memfs.FS) error {
	for _, d := range p.o.Destinations {
		fs.WriteFile(cursorName(d), nil)
	}
	s, err := Open(fs, p.o)
	if err != nil {
		return err
	}
	for _, d := range p.o.Destinations {
		got := map[ID]bool{}
		for b := takeNow(s, d); b != nil; b = takeNow(s, d) {
			got[b.ID] = true
		}
		for _, b := range p.m.batches {
			if !p.delivered[d][b.id] && !got[b.id] {
				return fmt.Errorf("without cursors batch %d is lost for %s", b.id, d)
			}
		}
	}
	return nil
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// discarded reports whether a segment is not one of the spool's: its first
// frame failed, or Open found no use for it.
func discarded(p *player, name string) bool {
	if p.s == nil {
		return true
	}
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	return !slices.ContainsFunc(p.s.segments, func(seg *segment) bool { return seg.name == name && seg.last > 0 })
}

// lastBatch is the highest batch in the frames of a segment.
func lastBatch(data []byte) (last ID) {
	fs := memfs.New()
	fs.WriteFile("x", append([]byte{}, data...))
	sc := must(openScanner(fs, "x"))
	for f, ok := sc.next(segmentHeaderSize); ok; f, ok = sc.next(f.end()) {
		for _, e := range f.pieces {
			last = max(last, e.batch)
		}
	}
	return last
}

func newestSlot(data []byte) (newest slot) {
	for off := 0; off+slotSize <= len(data); off += slotDistance {
		if sl, ok := parseSlot(data[off:]); ok && sl.generation > newest.generation {
			newest = sl
		}
	}
	return newest
}

func TestS04FailedWriteEndsTheSegment(t *testing.T) {
	explore(t, 10, exploration{
		faults:  []memfs.Op{memfs.Write, memfs.Truncate},
		options: mostlyAppends,
		before:  noneAfterFailure(memfs.Write),
	})
}

func TestS05FailedSyncIsNotBuiltUpon(t *testing.T) {
	explore(t, 15, exploration{
		faults:  []memfs.Op{memfs.Sync, memfs.Truncate, memfs.Remove},
		options: mostlyAppends,
		before:  noneAfterFailure(memfs.Sync),
	})
}

// TestS05BatchesGoWithoutWhatFailed: a frame fails in every way at once and
// stays on the disk, batches are delivered without its rows, and the process
// ends. The rows are delivered, or will be read again.
func TestS05BatchesGoWithoutWhatFailed(t *testing.T) {
	explore(t, 5, exploration{
		faults: []memfs.Op{memfs.Sync, memfs.Truncate, memfs.Create}, atOnce: true,
		options: func(p *player, _ *Options) { p.weights = weights{append: 5, take: 4, done: 4} },
	})
}

func mostlyAppends(p *player, _ *Options) { p.weights = weights{append: 8, take: 2, done: 2} }

// noneAfterFailure holds that an operation which failed on a segment is not
// tried again on that file: the disk is asked once.
func noneAfterFailure(op memfs.Op) func(*player, memfs.Op, string) error {
	return func(p *player, now memfs.Op, name string) error {
		if now != op || !strings.HasPrefix(name, segmentPrefix) {
			return nil
		}
		if p.fs.Failed(op, name) {
			return fmt.Errorf("another %s of %s after one that failed", op, name)
		}
		return nil
	}
}

// TestS06DamageCostsWhatLiesInIt and S07 spoil a random stretch of a random
// spool. Every piece outside it is delivered, whole and in order.
func TestS06DamageCostsWhatLiesInIt(t *testing.T) {
	t.Parallel()
	spoilMany(t, func(c *spoilt) error {
		for i, p := range c.pieces {
			if got := c.delivered[i]; got == p.hit && !p.doubtful {
				return fmt.Errorf("piece %d of batch %d is delivered: %v, damaged: %v", p.index, p.batch, got, p.hit)
			}
		}
		return nil
	})
}

func TestS07DamageIsCountedToTheRow(t *testing.T) {
	t.Parallel()
	spoilMany(t, func(c *spoilt) error {
		lost := 0
		for i, p := range c.pieces {
			if !c.delivered[i] && !p.doubtful {
				lost += p.rows
			}
		}
		if c.torn > 0 {
			return nil // the last frame counts as never acknowledged
		}
		if int(c.stats.Destinations[0].Lost) != lost || int(c.stats.Damage.Rows) != lost {
			return fmt.Errorf("%d rows are lost, counted are %d (%+v)", lost, c.stats.Destinations[0].Lost, c.stats.Damage)
		}
		return nil
	})
}

// spoilt is a spool with a damaged stretch and what was delivered from it.
type spoilt struct {
	pieces    []spoiltPiece
	delivered []bool
	stats     Stats
	torn      int64
}

type spoiltPiece struct {
	batch    ID
	index    int
	rows     int
	hit      bool // the damage touches it, or the head of its frame
	frame    bool // the damage touches its frame
	doubtful bool // it is in the last frame, which may count as never written
}

func spoilMany(t *testing.T, judge func(*spoilt) error) {
	t.Helper()
	for seed := range uint64(400) {
		rng := rand.New(rand.NewPCG(seed, 6))
		c, err := spoil(rng)
		if err == nil {
			err = judge(c)
		}
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

// spoil fills a spool, damages a stretch of one segment and drains it.
func spoil(rng *rand.Rand) (*spoilt, error) {
	fs := memfs.New()
	o := testOptions("a")
	o.SegmentBytes = 6000
	s, err := Open(fs, o)
	if err != nil {
		return nil, err
	}
	for i := range 12 + rng.IntN(12) {
		var pieces []Piece
		for j := range 1 + rng.IntN(3) {
			pieces = append(pieces, Piece{
				Label: []byte("table"), Data: bytes.Repeat([]byte{byte('a' + j)}, 1+rng.IntN(1500)), Tail: []byte("."), Rows: 1 + rng.IntN(50),
			})
		}
		if _, err := s.Append(pieces, []Checkpoint{{serial, fmt.Append(nil, i)}}); err != nil {
			return nil, err
		}
	}
	fs.Kill()
	name := s.segments[rng.IntN(len(s.segments))].name
	data := fs.ReadFile(name)
	from := segmentHeaderSize + rng.IntN(len(data)-segmentHeaderSize)
	to := min(from+1+rng.IntN(2000), len(data))
	c := &spoilt{}
	for _, seg := range s.segments {
		c.list(fs, seg, name, int64(from), int64(to))
	}
	// Frames that are damaged up to the end look like one that was cut off.
	if last := c.pieces[len(c.pieces)-1]; last.frame {
		for i := range c.pieces {
			c.pieces[i].doubtful = c.pieces[i].doubtful || c.pieces[i].frame
		}
	}
	c.delivered = make([]bool, len(c.pieces))
	for i := from; i < to; i++ {
		data[i] ^= byte(1 + rng.IntN(255)) // every byte of the stretch is wrong
	}
	fs.WriteFile(name, data)
	return c, c.drain(fs, o)
}

// list enters the pieces of one segment, and which the stretch touches.
func (c *spoilt) list(fs *memfs.FS, seg *segment, name string, from, to int64) {
	sc := must(openScanner(fs, seg.name))
	touches := func(start, end int64) bool { return seg.name == name && start < to && from < end }
	first := len(c.pieces)
	for f, ok := sc.next(segmentHeaderSize); ok; f, ok = sc.next(f.end()) {
		head, off := touches(f.off, f.dataOff()), f.dataOff()
		if f.flags&flagSnapshot == 0 {
			for i := range c.pieces {
				c.pieces[i].doubtful = false
			}
			first = len(c.pieces)
		}
		for _, e := range f.pieces {
			end := off + int64(e.data) + int64(e.tail)
			c.pieces = append(c.pieces, spoiltPiece{batch: e.batch, index: int(e.index), rows: int(e.rows), hit: head || touches(off, end), frame: touches(f.off, f.end())})
			off = end
		}
	}
	for i := first; i < len(c.pieces); i++ {
		c.pieces[i].doubtful = true
	}
}

func (c *spoilt) drain(fs *memfs.FS, o Options) error {
	s, err := Open(fs, o)
	if err != nil {
		return err
	}
	for b := takeNow(s, "a"); b != nil; b = takeNow(s, "a") {
		rows := 0
		if err := b.Pieces(func(index int, p Piece) bool {
			i := slices.IndexFunc(c.pieces, func(q spoiltPiece) bool { return q.batch == b.ID && q.index == index })
			if i < 0 {
				return false
			}
			c.delivered[i] = true
			rows += p.Rows
			return true
		}); err != nil {
			return err
		}
		if err := s.Done("a", b.ID, Outcome{Delivered: rows}); err != nil {
			return err
		}
	}
	c.stats = s.Stats()
	c.torn = c.stats.Damage.Torn
	if _, err := s.Append(rows("goes on", 1), nil); err != nil {
		return fmt.Errorf("append after damage: %w", err)
	}
	return s.Close()
}

// TestS08NothingIsOverwritten puts a file where the next segment would go, and
// gives the segments of a random spool each other's names.
func TestS08MetadataIsRebuiltAndNothingOverwritten(t *testing.T) {
	t.Parallel()
	for seed := range uint64(100) {
		p := played(t, seed, 40, testOptions("a", "b"))
		stray := segmentName(p.s.number + 1)
		p.fs.WriteFile(stray, []byte("not ours"))
		p.s.o.SegmentBytes = 1
		for range 4 {
			if err := p.append(); err != nil {
				t.Fatal(err)
			}
		}
		if got := p.fs.ReadFile(stray); string(got) != "not ours" {
			t.Fatalf("seed %d: a file in the way was overwritten: %.40q", seed, got)
		}
		p.fs.WriteFile(stray, nil)
		p.fs.Kill()
		names := slices.DeleteFunc(must(p.fs.List()), func(n string) bool { return !strings.HasPrefix(n, segmentPrefix) })
		contents := map[string][]byte{}
		for _, n := range names {
			contents[n] = p.fs.ReadFile(n)
		}
		for i, j := range p.rng.Perm(len(names)) {
			p.fs.WriteFile(names[i], contents[names[j]])
		}
		if err := p.m.check(p.fs, p.o); err != nil {
			t.Fatalf("seed %d, with names exchanged: %v", seed, err)
		}
	}
}

// played is a player after some steps on a disk that works.
func played(t *testing.T, seed uint64, steps int, o Options) *player {
	t.Helper()
	p := newPlayer(rand.New(rand.NewPCG(seed, 8)), o)
	err := p.reopen()
	for range steps {
		if err == nil {
			err = p.step()
		}
	}
	if err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	return p
}

func TestS09FilesStayWithinTheBudget(t *testing.T) {
	t.Parallel()
	for seed := range uint64(30) {
		o := testOptions("a", "b")
		o.SegmentBytes = 64 << 10
		p := played(t, seed, 0, o)
		most := int64(0)
		watch := func(op memfs.Op, name string) { most = max(most, p.fs.Used()) }
		p.fs.OnOp = watch
		full := 0
		for range 600 {
			data := strings.Repeat("d", p.rng.IntN(20000))
			switch _, err := p.s.Append(rows(data, 1), nil); {
			case errors.Is(err, ErrFull):
				full++
			case err != nil:
				t.Fatal(err)
			}
			d := o.Destinations[p.rng.IntN(2)]
			if b := takeNow(p.s, d); b != nil && p.rng.IntN(4) == 0 {
				if p.rng.IntN(3) == 0 {
					_ = p.s.SetAside(d, b.ID, []byte(data), "refused") // too large is an answer
				}
				if err := p.s.Done(d, b.ID, Outcome{Refused: 1}); err != nil {
					t.Fatal(err)
				}
			}
			if p.rng.IntN(100) == 0 {
				p.fs.Kill()
				p.fs.OnOp = watch
				p.s = mustOpen(t, p.fs, o)
			}
		}
		if most > o.Budget+o.SegmentBytes {
			t.Errorf("seed %d: the files took %d bytes, the budget is %d", seed, most, o.Budget)
		}
		if full == 0 {
			t.Errorf("seed %d: the spool was never full", seed)
		}
	}
}

func TestS10CursorsMoveOnAFullDisk(t *testing.T) {
	t.Parallel()
	for seed := range uint64(100) {
		p := played(t, seed, 60, testOptions("a", "b"))
		if p.rng.IntN(2) == 0 { // a new process makes its cursors anew
			p.fs.Kill()
			p.fs.SetCapacity(p.fs.Used())
			if err := p.reopen(); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		p.fs.SetCapacity(p.fs.Used())
		before := len(p.s.segments)
		for _, d := range p.o.Destinations {
			for _, b := range p.taken[d] {
				p.s.Return(d, b.ID)
			}
			for b := takeNow(p.s, d); b != nil; b = takeNow(p.s, d) {
				if err := p.s.Done(d, b.ID, Outcome{Delivered: b.Rows}); err != nil {
					t.Fatalf("seed %d: a full disk does not let the cursor of %s move: %v", seed, d, err)
				}
			}
		}
		if before > 2 && len(p.s.segments) > 2 {
			t.Errorf("seed %d: %d of %d segments are left on a full disk", seed, len(p.s.segments), before)
		}
	}
}

// TestS11ResumesWithoutARestart makes the disk refuse everything that needs it,
// in every way it has, from any moment on, and then heal. The agent's probe
// every 5 s is the next call here.
func TestS11ResumesWithoutARestart(t *testing.T) {
	t.Parallel()
	ways := map[string]func(*memfs.FS){
		"no space":  func(fs *memfs.FS) { fs.SetCapacity(fs.Used()) },
		"no inodes": func(fs *memfs.FS) { fs.Fail(memfs.Fault{Op: memfs.Create, N: 1, Err: vfs.ErrNoSpace, Sticky: true}) },
		"read-only": func(fs *memfs.FS) {
			for op := range writing {
				fs.Fail(memfs.Fault{Op: op, N: 1, Err: vfs.ErrReadOnly, Sticky: true})
			}
		},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(60) {
				p := played(t, seed, 30, testOptions("a", "b"))
				way(p.fs)
				failed := 0
				for range 30 {
					before := p.m.maybe
					if err := p.step(); err != nil {
						t.Fatalf("seed %d: %v", seed, err)
					}
					if len(p.m.maybe) > len(before) {
						failed++
						if st := p.s.Stats(); st.State == "ok" || st.Message == "" {
							t.Fatalf("seed %d: the state is %q: %q", seed, st.State, st.Message)
						}
					}
				}
				if failed == 0 {
					t.Fatalf("seed %d: nothing failed", seed)
				}
				p.fs.Heal()
				p.fs.SetCapacity(1 << 60)
				mustAppend(t, p.s, nil, Checkpoint{serial, []byte("healed")})
				p.m = p.m.with(modelFrame{checkpoints: []Checkpoint{{serial, []byte("healed")}}})
				if st := p.s.Stats(); st.State != "ok" {
					t.Errorf("seed %d: the state is %q after the disk is well: %s", seed, st.State, st.Message)
				}
				if err := p.m.check(p.fs.Crash(p.rng), p.o); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
			}
		})
	}
}

func TestS12OrderIsNotTheClocks(t *testing.T) {
	explore(t, 5, exploration{
		options: func(p *player, o *Options) {
			clock := rand.New(rand.NewPCG(p.rng.Uint64(), 12))
			o.Clock = func() time.Time { return time.Unix(clock.Int64N(1<<33)-1<<32, 0) }
		},
	})
}

func TestS13FolderHasOneOwner(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		p := played(t, seed, 20, testOptions("a", "b"))
		before := contentsOf(p.fs)
		if _, err := Open(p.fs, p.o); err == nil || !strings.Contains(err.Error(), "another process owns it") {
			t.Fatalf("a second owner got %v", err)
		}
		if !maps.EqualFunc(before, contentsOf(p.fs), bytes.Equal) {
			t.Error("the second owner changed something")
		}
		if err := p.append(); err != nil {
			t.Error(err)
		}
		if err := p.s.Close(); err != nil {
			t.Fatal(err)
		}
		if err := p.reopen(); err != nil {
			t.Errorf("the folder is not given back: %v", err)
		}
	}
}

func contentsOf(fs *memfs.FS) map[string][]byte {
	contents := map[string][]byte{}
	for _, name := range must(fs.List()) {
		contents[name] = fs.ReadFile(name)
	}
	return contents
}

// TestS14NewerVersionIsLeftUntouched gives any one segment or cursor of a
// random spool a newer version.
func TestS14NewerVersionIsLeftUntouched(t *testing.T) {
	t.Parallel()
	for seed := range uint64(40) {
		p := played(t, seed, 40, testOptions("a", "b"))
		p.fs.Kill()
		for _, name := range must(p.fs.List()) {
			data := p.fs.ReadFile(name)
			switch {
			case strings.HasPrefix(name, segmentPrefix):
				le.PutUint32(data[8:], Format+1)
				le.PutUint32(data[48:], checksum(data[:48]))
			case strings.HasPrefix(name, cursorPrefix):
				sl := newestSlot(data)
				sl.version, sl.generation = Format+1, sl.generation+1
				copy(data[slotOffset(sl.generation):], appendSlot(nil, &sl))
			default:
				continue
			}
			fs := p.fs.Killed()
			fs.WriteFile(name, data)
			before := contentsOf(fs)
			if _, err := Open(fs, p.o); !errors.Is(err, ErrNewer) {
				t.Fatalf("seed %d, newer %s: Open says %v", seed, name, err)
			}
			if !maps.EqualFunc(before, contentsOf(fs), bytes.Equal) {
				t.Fatalf("seed %d, newer %s: the folder was changed", seed, name)
			}
		}
	}
}

// TestS15RefusedIsKeptAndCounted: whatever a destination takes or refuses, the
// account balances in every state that a crash leaves, and what is set aside
// stays within its bound.
func TestS15RefusedIsKeptAndCounted(t *testing.T) {
	explore(t, 5, exploration{
		options: func(p *player, o *Options) { p.weights = weights{append: 4, take: 4, done: 4} },
		acked: func(p *player) error {
			if p.rng.IntN(4) > 0 {
				return nil
			}
			row := bytes.Repeat([]byte("r"), p.rng.IntN(30000))
			if err := p.s.SetAside("a", 1, row, "refused"); err != nil {
				return err
			}
			newest := p.fs.ReadFile(asideName(p.s.asideNumber, ".rows"))
			if !bytes.HasSuffix(newest, row) {
				return errors.New("what was set aside is not there")
			}
			var kept int64
			for name, data := range contentsOf(p.fs) {
				if strings.HasPrefix(name, asidePrefix) {
					kept += int64(len(data))
				}
			}
			if kept > p.s.asideBudget() {
				return fmt.Errorf("%d bytes are set aside, %d may be", kept, p.s.asideBudget())
			}
			return nil
		},
		crashed: func(p *player, after *memfs.FS) error {
			s, err := Open(after, p.o)
			if err != nil {
				return err
			}
			defer after.Kill()
			for _, d := range s.Stats().Destinations {
				if d.Lost != 0 {
					return fmt.Errorf("the account does not balance: %+v", d)
				}
			}
			return nil
		},
	})
}

func TestS16KilledIsAsGoodAsStopped(t *testing.T) {
	t.Parallel()
	for seed := range uint64(100) {
		p := played(t, seed, 50, testOptions("a", "b"))
		killed := contentsOf(p.fs)
		if err := p.s.Close(); err != nil {
			t.Fatal(err)
		}
		if !maps.EqualFunc(killed, contentsOf(p.fs), bytes.Equal) {
			t.Fatalf("seed %d: Close changed the files", seed)
		}
		if err := p.m.check(p.fs, p.o); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
	// And with the power on nothing is lost by a kill at any operation.
	t.Run("at any operation", func(t *testing.T) { explore(t, 10, exploration{faults: anything, kills: true}) })
}
