package spool

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openloganalytics/agent/internal/logfile"
	"github.com/openloganalytics/agent/internal/vfs"
)

// A tenant is a spool on the machine's disk to which anything may happen.
type tenant struct {
	*testing.T
	dir    string
	o      Options
	s      *Spool
	rng    *rand.Rand
	last   ID
	did    []string // what was done last
	before int64    // used before that
}

// usage is what all files of a folder take, by their length and by their blocks.
func usage(t *testing.T, dir string) (apparent, allocated int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			apparent += info.Size()
			allocated += allocation(info)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return apparent, allocated
}

func (n *tenant) open() {
	n.Helper()
	folder, err := vfs.OS(n.dir)
	if err != nil {
		n.Fatal(err)
	}
	if n.s, err = Open(folder, n.o); err != nil {
		n.Fatal(err)
	}
	n.last = 0
}

func (n *tenant) close() {
	n.Helper()
	if err := n.s.Close(); err != nil {
		n.Fatal(err)
	}
}

// size is small most of the time, and large enough to be more than a segment
// now and then.
func (n *tenant) size() int { return 1 + n.rng.IntN(1<<n.rng.IntN(19)) }

func (n *tenant) append() {
	n.Helper()
	p := Piece{Label: []byte("table"), Data: noise(n.rng, n.size()), Tail: []byte("."), Rows: 1, Raw: 1}
	if n.rng.IntN(2) == 0 && n.s.Continue(n.last) {
		p.Batch = n.last
	}
	place := Checkpoint{fmt.Sprint("file", n.rng.IntN(30)), noise(n.rng, n.rng.IntN(300))}
	ids, err := n.s.Append([]Piece{p}, []Checkpoint{place})
	switch {
	case err == nil:
		n.last = ids[0]
	case !errors.Is(err, ErrFull):
		n.Fatal(err)
	}
}

func noise(rng *rand.Rand, size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// finish lets a destination finish a batch, or refuse it, which sets it aside.
func (n *tenant) finish(refuse bool) {
	n.Helper()
	name := n.o.Destinations[n.rng.IntN(len(n.o.Destinations))]
	b := takeNow(n.s, name)
	if b == nil {
		return
	}
	outcome := Outcome{Delivered: b.Rows}
	if refuse {
		outcome = Outcome{Refused: b.Rows}
		if err := n.s.SetAside(name, b.ID, noise(n.rng, n.size()), "refused"); err != nil && !errors.Is(err, ErrTooLarge) {
			n.Fatal(err)
		}
	}
	if err := n.s.Done(name, b.ID, outcome); err != nil {
		n.Fatal(err)
	}
}

func (n *tenant) file(pattern string) string {
	n.Helper()
	found, err := filepath.Glob(filepath.Join(n.dir, pattern))
	if err != nil {
		n.Fatal(err)
	}
	if len(found) == 0 {
		return ""
	}
	return found[n.rng.IntN(len(found))]
}

// spoil makes a byte of a segment bad.
func (n *tenant) spoil() {
	n.Helper()
	path := n.file("segment-*")
	if path == "" {
		return
	}
	data, err := os.ReadFile(path)
	if err == nil && len(data) > 0 {
		data[n.rng.IntN(len(data))] ^= 0x40
		err = os.WriteFile(path, data, 0o600)
	}
	if err != nil {
		n.Fatal(err)
	}
}

// intrude puts a file into the folder that only looks like the spool's.
func (n *tenant) intrude() {
	n.Helper()
	names := []string{segmentName(n.rng.Uint64()), segmentName(n.rng.Uint64()) + besideSuffix}
	if err := os.WriteFile(filepath.Join(n.dir, names[n.rng.IntN(2)]), noise(n.rng, n.size()), 0o600); err != nil {
		n.Fatal(err)
	}
}

// step does one thing. What the test itself adds to the folder counts as there
// before.
func (n *tenant) step() {
	n.Helper()
	what := n.rng.IntN(100)
	name := "append"
	switch {
	case what < 55:
		n.append()
	case what < 75:
		name = "deliver"
		n.finish(false)
	case what < 87:
		name = "refuse"
		n.finish(true)
	case what < 91:
		name = "spoil"
		n.spoil()
	default:
		name = "restart"
		n.close()
		if n.rng.IntN(3) == 0 {
			name = "restart with a strange file"
			n.intrude()
		}
		if n.rng.IntN(3) == 0 {
			n.o.Budget = int64(1+n.rng.IntN(3)) << 20
			name += fmt.Sprintf(" and %d MiB", n.o.Budget>>20)
		}
		_, n.before = usage(n.T, n.dir)
		n.open()
	}
	n.did = append(n.did, name)
}

// check wants the folder within the budget and one segment. Who gave it more
// before, or put something into it, may find more; then it does not grow.
func (n *tenant) check() {
	n.Helper()
	apparent, allocated := usage(n.T, n.dir)
	most := n.o.Budget + n.o.SegmentBytes
	if allocated > most && allocated > n.before || apparent > most && apparent > n.before {
		n.Fatalf("the folder takes %d bytes, %d on the disk, after %d; %d are allowed and the spool counts %d\nlast %q",
			apparent, allocated, n.before, most, n.s.Stats().Bytes, n.did[max(len(n.did)-20, 0):])
	}
	n.before = allocated
}

// The budget is never exceeded by more than a segment, whatever happens to the
// spool in whatever order: seen after every step, on the machine's disk, with
// files that were set aside and in the blocks that they take.
func TestBudgetHoldsWhateverHappens(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			n := &tenant{T: t, dir: t.TempDir(), rng: rand.New(rand.NewPCG(seed, 1)), o: Options{
				Budget: 2 << 20, KeepFree: 1, SegmentBytes: 64 << 10, Destinations: []string{"a", "b"},
			}}
			n.open()
			defer n.close()
			for range 700 {
				n.step()
				n.check()
			}
		})
	}
}

// Small files take whole blocks. Many of them, from refused rows or from an
// agent that is started again and again, are counted as what they take.
func TestSmallFilesAreCountedAsBlocks(t *testing.T) {
	n := &tenant{T: t, dir: t.TempDir(), rng: rand.New(rand.NewPCG(1, 1)), o: Options{
		Budget: 1 << 20, KeepFree: 1, SegmentBytes: 64 << 10, Destinations: []string{"a"},
	}}
	n.open()
	defer func() { n.close() }()
	for range 600 {
		if _, err := n.s.Append(rows("short", 1), nil); err != nil && !errors.Is(err, ErrFull) {
			t.Fatal(err)
		}
		n.close()
		n.open()
		n.check()
	}
	for {
		b := takeNow(n.s, "a")
		if b == nil {
			break
		}
		if err := n.s.SetAside("a", b.ID, []byte("short"), "refused"); err != nil {
			t.Fatal(err)
		}
		if err := n.s.Done("a", b.ID, Outcome{Refused: b.Rows}); err != nil {
			t.Fatal(err)
		}
		n.check()
	}
}

// What an idle agent appends now and then, and what is delivered at once, takes
// no more than a segment, however long that lasts.
func TestDeliveredSpoolTakesOneSegment(t *testing.T) {
	n := &tenant{T: t, dir: t.TempDir(), rng: rand.New(rand.NewPCG(1, 1)), o: Options{KeepFree: 1, Destinations: []string{"a"}}}
	n.open()
	defer n.close()
	segments := map[string]bool{}
	for range 500 {
		if _, err := n.s.Append(rows(string(noise(n.rng, 100<<10)), 1), nil); err != nil {
			t.Fatal(err)
		}
		n.finish(false)
		if _, allocated := usage(t, n.dir); allocated > n.s.o.SegmentBytes+256<<10 {
			t.Fatalf("a spool that is delivered takes %d bytes, want no more than a segment of %d", allocated, n.s.o.SegmentBytes)
		}
		segments[n.file("segment-*")] = true
	}
	if len(segments) < 4 {
		t.Errorf("%d segments came and went", len(segments))
	}
}

// A damaged segment that there is no room to set aside is not removed without a
// word.
func TestDamagedSegmentWithoutRoomIsTold(t *testing.T) {
	var text strings.Builder
	log, end, err := logfile.Open(logfile.Options{Mirror: &text})
	if err != nil {
		t.Fatal(err)
	}
	n := &tenant{T: t, dir: t.TempDir(), rng: rand.New(rand.NewPCG(1, 1)), o: Options{
		Budget: 1 << 20, KeepFree: 1, Destinations: []string{"a"}, Log: log,
	}}
	n.open()
	for range 2 { // the second is in a segment of its own, and lets the first one go
		if _, err := n.s.Append(rows(string(noise(n.rng, 70<<10)), 1), nil); err != nil {
			t.Fatal(err)
		}
	}
	n.s.mu.Lock()
	n.s.segments[0].damaged = true
	n.s.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for range 2 {
		b, err := n.s.Next(ctx, "a")
		if err == nil {
			err = n.s.Done("a", b.ID, Outcome{Delivered: 1})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	n.close()
	if err := end.Close(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(text.String(), "a damaged segment is removed") {
		t.Errorf("the log does not tell of the segment:\n%s", text.String())
	}
}
