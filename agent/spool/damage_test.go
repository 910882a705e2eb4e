package spool

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/openloganalytics/agent/internal/vfs/memfs"
)

// sample is a spool of three segments: batches 1 to 9 with rows 1 to 9, of
// which batch 1 is continued by the fifth frame and batch 2 was delivered. Its
// process was killed.
func sample(t *testing.T) *memfs.FS {
	t.Helper()
	fs := memfs.New()
	o := testOptions("a")
	o.SegmentBytes = 3 * sector
	s := mustOpen(t, fs, o)
	for i := 1; i <= 9; i++ {
		pieces := []Piece{{Label: fmt.Appendf(nil, "table %d", i), Data: fmt.Appendf(nil, "rows of %d %s", i, strings.Repeat("d", 260)), Tail: []byte("end"), Rows: i}}
		if i == 5 && s.Continue(1) {
			pieces = append(pieces, Piece{Batch: 1, Label: []byte("table 1"), Data: []byte(" and more"), Tail: []byte("END"), Rows: 100})
		}
		mustAppend(t, s, pieces, Checkpoint{fmt.Sprintf("source/%d", i), []byte("place")}, Checkpoint{serial, fmt.Append(nil, i)})
		if i == 2 {
			takeNow(s, "a")
			b := takeNow(s, "a")
			s.Return("a", 1)
			if err := s.Done("a", b.ID, Outcome{Delivered: b.Rows}); err != nil {
				t.Fatal(err)
			}
			s.batches[0].closed = false // as if nobody had taken it
		}
	}
	if n := len(s.segments); n != 3 {
		t.Fatalf("the sample has %d segments, want 3", n)
	}
	fs.Kill()
	return fs
}

// found is what can be had of a spool.
type found struct {
	Whole  []ID // batches with a body
	Broken []ID // batches without
	Rows   int  // in what is whole
	Serial string
	Damage Damage
	Lost   int64
}

// drain opens the spool, delivers all that is whole and tells what was there.
func drain(t *testing.T, fs *memfs.FS) found {
	t.Helper()
	s := mustOpen(t, fs, testOptions("a"))
	f := found{Serial: string(s.Checkpoint(serial))}
	for b := takeNow(s, "a"); b != nil; b = takeNow(s, "a") {
		rows := b.Rows
		if _, err := b.Body(nil); errors.Is(err, ErrDamaged) {
			f.Broken = append(f.Broken, b.ID)
			rows = 0
			if err := b.Pieces(func(_ int, p Piece) bool {
				rows += p.Rows
				return true
			}); err != nil {
				t.Fatal(err)
			}
		} else if err != nil {
			t.Fatal(err)
		} else {
			f.Whole = append(f.Whole, b.ID)
		}
		f.Rows += rows
		if err := s.Done("a", b.ID, Outcome{Delivered: rows}); err != nil {
			t.Fatal(err)
		}
	}
	st := s.Stats()
	f.Damage, f.Lost = st.Damage, st.Destinations[0].Lost
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return f
}

// TestW09EveryBitFlipCostsOnePiece flips a bit in every byte of every file in
// turn. The spool opens, all other rows are there, and what is missing is
// counted to the row.
func TestW09EveryBitFlipCostsOnePiece(t *testing.T) {
	base := sample(t)
	base.WriteFile(reserveName, nil) // nobody reads it
	names, err := base.List()
	if err != nil {
		t.Fatal(err)
	}
	const waiting = 1 + 3 + 4 + 5 + 100 + 6 + 7 + 8 + 9
	for _, name := range names {
		data := base.ReadFile(name)
		spans := spansOf(t, base, name)
		for i := range data {
			if i%slotDistance >= slotSize && strings.HasPrefix(name, cursorPrefix) {
				continue // nobody reads that either
			}
			fs := copyOf(base, names)
			flipped := bytes.Clone(data)
			flipped[i] ^= 1 << (i % 8)
			fs.WriteFile(name, flipped)
			got := drain(t, fs)
			sp := spans[slices.IndexFunc(spans, func(s span) bool { return int64(i) < s.end })]
			if msg := sp.judge(got, waiting); msg != "" {
				t.Fatalf("bit flipped in byte %d of %s (%s): %s: %+v", i, name, sp.what, msg, got)
			}
		}
	}
}

// TestW09BitFlipsIn64KiB flips a bit in one of eleven bytes of a segment of 64
// KiB; in a long search each bit of every byte. The spool opens, what the bit
// does not lie in is delivered whole, and the rest is counted to the row.
func TestW09BitFlipsIn64KiB(t *testing.T) {
	t.Parallel()
	base := memfs.New()
	o := testOptions("a")
	o.Budget, o.SegmentBytes = 4<<20, 80<<10
	s := mustOpen(t, base, o)
	total := 0
	for i := 0; len(s.segments) < 2; i++ {
		var pieces []Piece
		for j := range 2 {
			rows := 1 << (i + j) % 20
			total += rows
			pieces = append(pieces, Piece{Data: bytes.Repeat([]byte{byte(i)}, 8000+700*j), Tail: []byte("end"), Rows: rows})
		}
		mustAppend(t, s, pieces, Checkpoint{serial, fmt.Append(nil, i)})
	}
	last := string(s.Checkpoint(serial))
	base.Kill()
	name := segmentName(1)
	data := base.ReadFile(name)
	spans := stretches(t, base, name)
	step := 8*11 + 1
	if *crashes >= 1e6 {
		step = 1
	}
	if len(data) < 64<<10 || len(spans) < 15 {
		t.Fatalf("the segment has %d bytes and %d stretches", len(data), len(spans))
	}
	inParallel(len(data)*8/step, func(n int) {
		at, bit := n*step/8, n*step%8
		flipped := bytes.Clone(data)
		flipped[at] ^= 1 << bit
		fs := base.Killed()
		fs.WriteFile(name, flipped)
		sp := spans[slices.IndexFunc(spans, func(s span) bool { return int64(at) < s.end })]
		s, err := Open(fs, o)
		if err != nil {
			t.Errorf("bit %d of byte %d (%s): %v", bit, at, sp.what, err)
			return
		}
		rows, err := drainRows(s, "a")
		d := s.Stats()
		if err != nil || d.Rows != int64(total) || rows != total-sp.lost || d.Damage.Rows != int64(sp.lost) || d.Destinations[0].Lost != int64(sp.lost) || string(s.Checkpoint(serial)) != last {
			t.Errorf("bit %d of byte %d (%s): %d of %d rows are there, want all but %d; %v, %+v", bit, at, sp.what, rows, total, sp.lost, err, d)
		}
	})
}

// drainRows delivers all that is whole and returns how many rows that were.
func drainRows(s *Spool, destination string) (rows int, err error) {
	for b := takeNow(s, destination); b != nil; b = takeNow(s, destination) {
		n := 0
		if err := b.Pieces(func(_ int, p Piece) bool {
			n += p.Rows
			return true
		}); err != nil {
			return rows, err
		}
		rows += n
		if err := s.Done(destination, b.ID, Outcome{Delivered: n}); err != nil {
			return rows, err
		}
	}
	return rows, nil
}

// stretches takes a segment apart in which each piece is a batch, and says how
// many rows a damaged bit costs in each part.
func stretches(t *testing.T, fs *memfs.FS, name string) []span {
	t.Helper()
	sc, err := openScanner(fs, name)
	if err != nil {
		t.Fatal(err)
	}
	defer sc.Close()
	spans := []span{{what: "header", end: segmentHeaderSize}}
	for f, ok := sc.next(segmentHeaderSize); ok; f, ok = sc.next(f.end()) {
		end := f.dataOff()
		spans = append(spans, span{what: "head of a frame", end: end, lost: int(f.rowCount())})
		for _, e := range f.pieces {
			end += int64(e.data) + int64(e.tail)
			spans = append(spans, span{what: "piece", end: end, lost: int(e.rows)})
		}
		spans = append(spans, span{what: "padding", end: f.end()})
	}
	return spans
}

func copyOf(base *memfs.FS, names []string) *memfs.FS {
	fs := memfs.New()
	for _, name := range names {
		fs.WriteFile(name, append([]byte{}, base.ReadFile(name)...))
	}
	return fs
}

// A span is a stretch of a file and what a flipped bit in it may cost.
type span struct {
	what string
	end  int64
	lost int  // rows that are not delivered
	seen int  // rows that are found to be damaged
	last bool // in the last frame, which then was never there
}

func (sp span) judge(got found, waiting int) string {
	again := 0
	if len(got.Whole) > 1 && got.Whole[1] == 2 {
		again = 2 // batch 2 is delivered twice: its cursor is damaged
	}
	switch {
	case again > 0 && sp.what != "cursor":
		return "a batch is delivered again"
	case got.Rows-again != waiting-sp.lost:
		return fmt.Sprintf("%d rows are there, want %d", got.Rows-again, waiting-sp.lost)
	case sp.last && (got.Serial != "8" || got.Damage.Torn == 0 || got.Lost != 0):
		return "the last frame is half there"
	case sp.last:
		return ""
	case got.Serial != "9":
		return "checkpoints are lost"
	case got.Lost != int64(sp.lost) || got.Damage.Rows != int64(sp.seen):
		return fmt.Sprintf("lost rows are not counted exactly, want %d, %d seen", sp.lost, sp.seen)
	case sp.seen > 0 && got.Damage.Frames+got.Damage.Pieces != 1:
		return "not one frame or piece is missing"
	}
	return ""
}

// spansOf takes a file of the sample apart.
func spansOf(t *testing.T, fs *memfs.FS, name string) []span {
	t.Helper()
	if !strings.HasPrefix(name, segmentPrefix) {
		return []span{{what: "cursor", end: 1 << 30}}
	}
	sc, err := openScanner(fs, name)
	if err != nil {
		t.Fatal(err)
	}
	defer sc.Close()
	spans := []span{{what: "header", end: segmentHeaderSize}}
	add := func(what string, f *frame, end int64, lost, seen int) {
		last := f.seq == 9 && f.flags == 0 && lost > 0
		if last {
			lost = int(f.rowCount())
		}
		if f.seq == 2 {
			lost = 0 // it is delivered
		}
		spans = append(spans, span{fmt.Sprintf("%s of frame %d", what, f.seq), end, lost, seen, last})
	}
	for f, ok := sc.next(segmentHeaderSize); ok; f, ok = sc.next(f.end()) {
		rows := int(f.rowCount())
		end := f.dataOff()
		add("head", &f, end, rows, rows)
		for _, e := range f.pieces {
			lost, seen := int(e.rows), int(e.rows)
			if f.seq == 2 {
				seen = 0 // nobody looks
			}
			end += int64(e.data)
			add("data", &f, end, lost, seen)
			if f.seq == 1 {
				lost, seen = 0, 0 // its batch goes on
			}
			end += int64(e.tail)
			add("tail", &f, end, lost, seen)
		}
		add("padding", &f, f.end(), 0, 0)
	}
	return spans
}

func TestW10Segments(t *testing.T) {
	seg := segmentName
	all := wholeSample
	damagedFolders(t, []damagedFolder{
		{
			name:   "nothing",
			damage: func(*testing.T, *memfs.FS) {},
			want:   found{Whole: all, Rows: 143, Serial: "9"},
		},
		{
			name:   "segment in the middle missing",
			damage: func(_ *testing.T, fs *memfs.FS) { fs.WriteFile(seg(2), nil) },
			want:   found{Whole: []ID{1, 3, 7, 8, 9}, Rows: 28, Serial: "9", Damage: Damage{Frames: 3, Rows: 115}, Lost: 115},
		},
		{
			name:   "segment in the middle empty",
			damage: func(_ *testing.T, fs *memfs.FS) { fs.WriteFile(seg(2), []byte{}) },
			want:   found{Whole: []ID{1, 3, 7, 8, 9}, Rows: 28, Serial: "9", Damage: Damage{Frames: 3, Rows: 115}, Lost: 115},
		},
		{
			name:   "first segment missing",
			damage: func(_ *testing.T, fs *memfs.FS) { fs.WriteFile(seg(1), nil) },
			want:   found{Whole: []ID{4, 5, 6, 7, 8, 9}, Broken: []ID{1}, Rows: 139, Serial: "9", Lost: 4},
		},
		{
			name: "segments with swapped names",
			damage: func(_ *testing.T, fs *memfs.FS) {
				one, two := fs.ReadFile(seg(1)), fs.ReadFile(seg(2))
				fs.WriteFile(seg(1), two)
				fs.WriteFile(seg(2), one)
			},
			want: found{Whole: all, Rows: 143, Serial: "9"},
		},
		{
			name:   "segment twice",
			damage: func(_ *testing.T, fs *memfs.FS) { fs.WriteFile(seg(7), fs.ReadFile(seg(2))) },
			want:   found{Whole: all, Rows: 143, Serial: "9"},
		},
		{
			name: "segment of another spool",
			damage: func(t *testing.T, fs *memfs.FS) {
				other := memfs.New()
				o := testOptions("a")
				o.newID = func() uint64 { return 5 }
				mustAppend(t, mustOpen(t, other, o), []Piece{{Data: []byte("x"), Rows: 1}})
				fs.WriteFile(seg(9), other.ReadFile(seg(1)))
			},
			want: found{Whole: all, Rows: 143, Serial: "9"},
		},
		{
			name: "a segment of garbage",
			damage: func(_ *testing.T, fs *memfs.FS) {
				fs.WriteFile(seg(4), bytes.Repeat([]byte{0xf5, 'L', 'F', '\n'}, 5000))
			},
			want: found{Whole: all, Rows: 143, Serial: "9"},
		},
		{
			name:   "files that are not ours",
			damage: func(_ *testing.T, fs *memfs.FS) { fs.WriteFile("notes.txt", []byte("hello")) },
			want:   found{Whole: all, Rows: 143, Serial: "9"},
		},
		{
			name: "a torn end",
			damage: func(_ *testing.T, fs *memfs.FS) {
				fs.WriteFile(seg(3), append(fs.ReadFile(seg(3)), "half a frame"...))
			},
			want: found{Whole: all, Rows: 143, Serial: "9", Damage: Damage{Torn: 12}},
		},
	})
}

func TestW11Cursors(t *testing.T) {
	cursor := cursorName("a")
	all := wholeSample
	again := []ID{1, 2, 3, 4, 5, 6, 7, 8, 9}
	damagedFolders(t, []damagedFolder{
		{
			name:   "cursor missing: repeated, not lost",
			damage: func(_ *testing.T, fs *memfs.FS) { fs.WriteFile(cursor, nil) },
			want:   found{Whole: all, Rows: 143, Serial: "9"}, // a later snapshot knows
		},
		{
			name:   "cursor short",
			damage: func(_ *testing.T, fs *memfs.FS) { fs.WriteFile(cursor, fs.ReadFile(cursor)[:100]) },
			want:   found{Whole: all, Rows: 143, Serial: "9"},
		},
		{
			name:   "cursor empty",
			damage: func(_ *testing.T, fs *memfs.FS) { fs.WriteFile(cursor, []byte{}) },
			want:   found{Whole: all, Rows: 143, Serial: "9"},
		},
		{
			name: "cursor of another spool",
			damage: func(_ *testing.T, fs *memfs.FS) {
				fs.WriteFile(cursor, cursorFile(slot{version: 1, spool: 99, generation: 7, name: "a", progress: progress{through: 9}}))
			},
			want: found{Whole: all, Rows: 143, Serial: "9"},
		},
		{
			name: "cursor older than the data, first slot of its life",
			damage: func(_ *testing.T, fs *memfs.FS) {
				fs.WriteFile(cursor, cursorFile(slot{version: 1, spool: 0x1122334455667788, generation: 1, name: "a"}))
			},
			want: found{Whole: again, Rows: 145, Serial: "9"},
		},
		{
			name: "cursor newer than the data: its numbers are not used again",
			damage: func(t *testing.T, fs *memfs.FS) {
				fs.WriteFile(cursor, cursorFile(slot{version: 1, spool: 0x1122334455667788, generation: 50, name: "a", progress: progress{through: 20, delivered: 145}}))
				s := mustOpen(t, fs, testOptions("a"))
				if id := mustAppend(t, s, []Piece{{Data: []byte("new"), Rows: 1}}, Checkpoint{serial, []byte("10")})[0]; id != 21 {
					t.Errorf("the next batch is %d, want 21", id)
				}
				fs.Kill()
			},
			want: found{Whole: []ID{21}, Rows: 1, Serial: "10"},
		},
		{
			name: "a file written beside",
			damage: func(_ *testing.T, fs *memfs.FS) {
				fs.WriteFile(cursor+".new", []byte("half"))
			},
			want: found{Whole: all, Rows: 143, Serial: "9"},
		},
	})
}

// wholeSample are the batches of the sample that wait.
var wholeSample = []ID{1, 3, 4, 5, 6, 7, 8, 9}

// A damagedFolder is something done to the sample and what is found then.
type damagedFolder struct {
	name   string
	damage func(t *testing.T, fs *memfs.FS)
	want   found
}

func damagedFolders(t *testing.T, tests []damagedFolder) {
	t.Helper()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			fs := sample(t)
			tt.damage(t, fs)
			if diff := cmp.Diff(tt.want, drain(t, fs)); diff != "" {
				t.Errorf("found (-want +got):\n%s", diff)
			}
			after := drain(t, fs)
			if len(after.Whole)+len(after.Broken) > 0 || after.Serial != tt.want.Serial {
				t.Errorf("the second time: %+v", after)
			}
		})
	}
}

// cursorFile is a cursor file with one slot.
func cursorFile(s slot) []byte {
	data := make([]byte, cursorSize)
	copy(data[slotOffset(s.generation):], appendSlot(nil, &s))
	return data
}

// TestDamagedSegmentIsSetAside: what is damaged is kept for a person when its
// batches are delivered.
func TestDamagedSegmentIsSetAside(t *testing.T) {
	fs := sample(t)
	data := fs.ReadFile(segmentName(1))
	data[segmentHeaderSize+600] ^= 1
	fs.WriteFile(segmentName(1), data)
	drain(t, fs)
	if got := fs.ReadFile(asideName(1, ".segment")); !bytes.Equal(got, data) {
		names, err := fs.List()
		t.Errorf("the damaged segment is not set aside: %q, %v", names, err)
	}
	if fs.ReadFile(segmentName(2)) != nil {
		t.Error("a segment that is delivered and not damaged is still there")
	}
}

// TestNewerVersionIsLeftUntouched: a file of a newer format makes Open fail
// with ErrNewer and changes nothing.
func TestNewerVersionIsLeftUntouched(t *testing.T) {
	id := uint64(0x1122334455667788)
	for name, data := range map[string][]byte{
		segmentName(9):  appendSegmentHeader(nil, segmentHeader{version: Format + 1, spool: id, number: 9, first: 100}),
		cursorName("a"): cursorFile(slot{version: Format + 1, spool: id, generation: 60, name: "a"}),
	} {
		fs := sample(t)
		fs.WriteFile(name, data)
		before := fs.Count(memfs.Write) + fs.Count(memfs.Remove) + fs.Count(memfs.Rename) + fs.Count(memfs.Create)
		_, err := Open(fs, testOptions("a"))
		if !errors.Is(err, ErrNewer) || !strings.Contains(fmt.Sprint(err), name) {
			t.Errorf("Open with a newer %s: %v, want ErrNewer that names it", name, err)
		}
		if after := fs.Count(memfs.Write) + fs.Count(memfs.Remove) + fs.Count(memfs.Rename) + fs.Count(memfs.Create); after != before {
			t.Errorf("Open with a newer %s changed the folder %d times", name, after-before)
		}
		if lock, err := fs.Lock(); err != nil {
			t.Errorf("the folder is still locked: %v", err)
		} else if err := lock.Close(); err != nil {
			t.Error(err)
		}
	}
}
