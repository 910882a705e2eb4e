package spool

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/openloganalytics/agent/internal/logfile"
	"github.com/openloganalytics/agent/internal/vfs"
	"github.com/openloganalytics/agent/internal/vfs/memfs"
)

func rows(data string, n int) []Piece {
	return []Piece{{Label: []byte("table"), Data: []byte(data), Tail: []byte("."), Rows: n, Raw: 10 * n}}
}

func mustBody(t *testing.T, b *Batch) string {
	t.Helper()
	body, err := b.Body([]byte("in front:"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimPrefix(string(body), "in front:")
}

func TestBatchGrowsUntilItIsTaken(t *testing.T) {
	s := mustOpen(t, memfs.New(), testOptions("a"))
	id := mustAppend(t, s, rows("one", 1))[0]
	for _, more := range []string{" two", " three"} {
		if !s.Continue(id) {
			t.Fatalf("the batch cannot be continued with%s", more)
		}
		if b := takeNow(s, "a"); b != nil {
			t.Fatal("a batch was taken while it is continued")
		}
		piece := rows(more, 1)
		piece[0].Batch = id
		if got := mustAppend(t, s, piece)[0]; got != id {
			t.Fatalf("the piece is in batch %d, want %d", got, id)
		}
	}
	b := takeNow(s, "a")
	if got := mustBody(t, b); got != "one two three." || b.Rows != 3 || b.Raw != 30 || b.Size != int64(len(got)) {
		t.Errorf("batch is %q with %d rows, %d raw and %d bytes", got, b.Rows, b.Raw, b.Size)
	}
	if s.Continue(id) {
		t.Error("a batch that was taken can be continued")
	}
	s.Return("a", id)
	if s.Continue(id) {
		t.Error("a batch that was taken and returned can be continued")
	}
}

func TestReleaseGivesTheBatchBack(t *testing.T) {
	s := mustOpen(t, memfs.New(), testOptions("a"))
	id := mustAppend(t, s, rows("one", 1))[0]
	s.Continue(id)
	s.Release(id)
	if b := takeNow(s, "a"); b == nil || b.ID != id {
		t.Errorf("after Release %v is taken, want batch %d", b, id)
	}
	if s.Continue(0) || s.Continue(99) {
		t.Error("batches that do not exist can be continued")
	}
}

// TestPieceOfATakenBatch: whoever continued a batch that was taken meanwhile
// finds the piece in a batch of its own, without a beginning, with its data.
func TestPieceOfATakenBatch(t *testing.T) {
	fsys := memfs.New()
	s := mustOpen(t, fsys, testOptions("a"))
	id := mustAppend(t, s, rows("one", 1))[0]
	takeNow(s, "a")
	piece := rows(" two", 1)[0]
	piece.Batch = id
	ids := mustAppend(t, s, []Piece{piece, piece})
	if ids[0] != id+1 || ids[1] != id+1 {
		t.Fatalf("the pieces are in batches %d, want %d", ids, id+1)
	}
	if s.Continue(ids[0]) {
		t.Error("a batch without a beginning can be continued")
	}
	fsys.Kill()
	for _, s := range []*Spool{s, mustOpen(t, fsys, testOptions("a"))} {
		b := takeNow(s, "a")
		for b.ID != ids[0] {
			b = takeNow(s, "a")
		}
		b.spool = mustReader(fsys)
		if _, err := b.Body(nil); !errors.Is(err, ErrDamaged) {
			t.Errorf("Body: %v, want ErrDamaged", err)
		}
		var got []string
		if err := b.Pieces(func(index int, p Piece) bool {
			got = append(got, fmt.Sprintf("%d %s%s %d %s", index, p.Data, p.Tail, p.Rows, p.Label))
			return true
		}); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"1  two. 1 table", "2  two. 1 table"}, got); diff != "" {
			t.Errorf("pieces (-want +got):\n%s", diff)
		}
		if d := s.Stats().Damage; d != (Damage{}) {
			t.Errorf("damage is counted: %+v", d)
		}
	}
}

// mustReader is a spool that only reads: the handles of the killed one are dead.
func mustReader(fsys *memfs.FS) *Spool { return &Spool{fs: fsys} }

func TestNextHandsOutTheOldest(t *testing.T) {
	s := mustOpen(t, memfs.New(), testOptions("a", "b"))
	for i := range 4 {
		mustAppend(t, s, rows(fmt.Sprint(i), 1))
	}
	next := func(d string, want ID) {
		t.Helper()
		b, err := s.Next(t.Context(), d)
		if err != nil || b.ID != want {
			t.Fatalf("next of %s is %v, %v, want batch %d", d, b, err, want)
		}
	}
	done := func(d string, id ID) {
		t.Helper()
		if err := s.Done(d, id, Outcome{Delivered: 1}); err != nil {
			t.Fatal(err)
		}
	}
	next("a", 1)
	next("a", 2)
	next("b", 1) // each destination has its own place
	next("a", 3)
	done("a", 2)
	s.Return("a", 1)
	next("a", 1) // what comes back is the oldest again
	done("a", 1)
	next("a", 4)
	done("a", 4)
	done("a", 3)
	if err := s.Done("a", 3, Outcome{}); err == nil {
		t.Error("a batch can be finished twice")
	}
	if err := s.Done("x", 1, Outcome{}); err == nil {
		t.Error("an unknown destination can finish a batch")
	}
	next("b", 2)
}

// TestOneStuckBatchRepeatsNothing: while one batch is on its way, a destination
// gets no more of the others than its cursor can remember.
func TestOneStuckBatchRepeatsNothing(t *testing.T) {
	fsys := memfs.New()
	s := mustOpen(t, fsys, testOptions("a"))
	for i := 0; i < window+100; i += 100 {
		mustAppend(t, s, slices.Repeat(rows("d", 1), 100))
	}
	stuck := takeNow(s, "a")
	finished := 0
	for b := takeNow(s, "a"); b != nil; b = takeNow(s, "a") {
		if err := s.Done("a", b.ID, Outcome{Delivered: 1}); err != nil {
			t.Fatal(err)
		}
		finished++
	}
	if finished != window-1 {
		t.Errorf("%d batches went past the stuck one, want %d", finished, window-1)
	}
	fsys.Kill()
	s = mustOpen(t, fsys, testOptions("a"))
	if b := takeNow(s, "a"); b.ID != stuck.ID {
		t.Fatalf("after a restart batch %d comes first, want %d", b.ID, stuck.ID)
	}
	if err := s.Done("a", stuck.ID, Outcome{Delivered: 1}); err != nil {
		t.Fatal(err)
	}
	if b := takeNow(s, "a"); b == nil || b.ID != window+1 {
		t.Errorf("after the stuck batch comes %v, want batch %d", b, window+1)
	}
}

func TestNextWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mustOpen(t, memfs.New(), testOptions("a", "b"))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		results := make(chan error, 3)
		for _, d := range []string{"a", "a", "b"} {
			go func() {
				b, err := s.Next(ctx, d)
				if err == nil && b.ID != 1 {
					err = fmt.Errorf("batch %d", b.ID)
				}
				results <- err
			}()
		}
		synctest.Wait()
		if len(results) > 0 {
			t.Fatal("Next returned from an empty spool")
		}
		mustAppend(t, s, rows("one", 1))
		synctest.Wait()
		for range 2 {
			if err := <-results; err != nil {
				t.Errorf("Next: %v", err)
			}
		}
		synctest.Wait()
		if len(results) > 0 {
			t.Error("one batch was given to the same destination twice")
		}
		cancel()
		if err := <-results; !errors.Is(err, context.Canceled) {
			t.Errorf("Next after the context ended: %v", err)
		}
		go func() {
			_, err := s.Next(context.Background(), "a")
			results <- err
		}()
		synctest.Wait()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-results; !errors.Is(err, ErrClosed) {
			t.Errorf("Next after Close: %v", err)
		}
		if _, err := s.Next(ctx, "a"); !errors.Is(err, context.Canceled) {
			t.Errorf("Next with an ended context: %v", err)
		}
	})
}

// TestManyAtOnce continues batches while destinations take them. Every row must
// arrive once at each, in bodies that are whole.
func TestManyAtOnce(t *testing.T) {
	s := mustOpen(t, memfs.New(), testOptions("a", "b"))
	const frames = 300
	ctx, cancel := context.WithCancel(t.Context())
	var writing, reading sync.WaitGroup
	for w := range 2 {
		writing.Go(func() {
			var open ID
			for i := range frames {
				p := Piece{Label: []byte("table"), Data: fmt.Appendf(nil, "%d/%d ", w, i), Rows: 1}
				if s.Continue(open) {
					p.Batch = open
				}
				ids, err := s.Append([]Piece{p}, []Checkpoint{{fmt.Sprint("writer/", w), fmt.Append(nil, i)}})
				if err != nil {
					t.Errorf("append: %v", err)
					return
				}
				open = ids[0]
			}
		})
	}
	got := map[string]map[string]int{"a": {}, "b": {}}
	var mu sync.Mutex
	for _, d := range []string{"a", "a", "b"} {
		reading.Go(func() {
			for {
				b, err := s.Next(ctx, d)
				if err != nil {
					return
				}
				if b.ID%7 == 0 && b.Rows%2 == 0 {
					s.Return(d, b.ID)
					continue
				}
				body, err := b.Body(nil)
				if err != nil {
					t.Errorf("body: %v", err)
				}
				mu.Lock()
				for row := range strings.FieldsSeq(string(body)) {
					got[d][row]++
				}
				mu.Unlock()
				if err := s.Done(d, b.ID, Outcome{Delivered: b.Rows}); err != nil {
					t.Errorf("done: %v", err)
				}
				s.Stats()
			}
		})
	}
	writing.Wait()
	cancel()
	reading.Wait()
	for d, seen := range got {
		for b := takeNow(s, d); b != nil; b = takeNow(s, d) {
			for row := range strings.FieldsSeq(mustBody(t, b)) {
				seen[row]++
			}
		}
		for w := range 2 {
			for i := range frames {
				if n := seen[fmt.Sprintf("%d/%d", w, i)]; n != 1 {
					t.Errorf("row %d/%d came to %s %d times", w, i, d, n)
				}
			}
		}
	}
}

// blocksOf is what all files take in whole blocks.
func blocksOf(t *testing.T, fsys *memfs.FS) (n int64) {
	t.Helper()
	names, err := fsys.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		n += (int64(len(fsys.ReadFile(name))) + 4095) &^ 4095
	}
	return n
}

// TestBudgetHolds fills the spool to the brim again and again and empties it.
// The files never take more than the budget, and nothing is refused for good.
func TestBudgetHolds(t *testing.T) {
	fsys := memfs.New()
	o := testOptions("a")
	o.SegmentBytes = 64 << 10
	s := mustOpen(t, fsys, o)
	data := strings.Repeat("d", 3000)
	for round := range 3 {
		frames := 0
		for {
			_, err := s.Append(rows(data, 1), nil)
			if used := blocksOf(t, fsys); used > o.Budget || used != s.Stats().Bytes {
				t.Fatalf("files take %d bytes, Stats says %d of %d", used, s.Stats().Bytes, o.Budget)
			}
			if errors.Is(err, ErrFull) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			frames++
		}
		if st := s.Stats(); st.State != "full" || st.Message == "" {
			t.Errorf("state is %q: %q", st.State, st.Message)
		}
		if round == 0 && int64(frames)*3000 < o.Budget*6/10 {
			t.Errorf("only %d frames of 3000 bytes fit into %d bytes", frames, o.Budget)
		}
		for err := error(nil); err == nil; { // what continues a batch may use the last of it
			more := rows(data, 1)
			more[0].Batch = s.batches[len(s.batches)-1].id
			_, err = s.Append(more, nil)
		}
		if err := s.SetAside("a", 1, bytes.Repeat([]byte("x"), 60000), "does not fit"); err != nil {
			t.Errorf("a full spool sets nothing aside: %v", err)
		}
		if used := fsys.Used(); used > o.Budget {
			t.Errorf("files take %d bytes of %d after one was set aside", used, o.Budget)
		}
		for b := takeNow(s, "a"); b != nil; b = takeNow(s, "a") {
			if err := s.Done("a", b.ID, Outcome{Delivered: b.Rows}); err != nil {
				t.Fatal(err)
			}
		}
		mustAppend(t, s, rows("again", 1))
		if st := s.Stats(); st.State != "ok" || st.Message != "" {
			t.Errorf("state is %q after a good Append: %q", st.State, st.Message)
		}
	}
}

// TestHeldBatchDoesNotStopTheSpool: the oldest batch is being continued while
// all the room is used up. Were it held until there is room, and were room only
// to be had by delivering it, nothing would move again.
func TestHeldBatchDoesNotStopTheSpool(t *testing.T) {
	o := testOptions("a")
	o.SegmentBytes = 64 << 10
	s := mustOpen(t, memfs.New(), o)
	oldest := mustAppend(t, s, rows("oldest", 1))[0]
	data := strings.Repeat("d", 3000)
	for {
		p := rows(data, 1)
		if s.Continue(oldest) {
			p = append(p, rows(" more", 1)[0])
			p[1].Batch = oldest
		}
		held := len(p) == 2
		if _, err := s.Append(p, nil); err != nil {
			if held {
				t.Fatalf("a frame that continues a batch was refused: %v", err)
			}
			break
		}
	}
	if s.Continue(oldest) {
		t.Error("a full spool lets a batch be held")
	}
	if b := takeNow(s, "a"); b == nil || b.ID != oldest {
		t.Errorf("the oldest batch is not to be had: %v", b)
	}
}

// TestFreeSpaceIsKept: room on the file system that is for others is not used.
func TestFreeSpaceIsKept(t *testing.T) {
	fsys := memfs.New()
	fsys.SetCapacity(600 << 10)
	o := testOptions("a")
	o.KeepFree = 200 << 10
	s := mustOpen(t, fsys, o)
	for {
		_, err := s.Append(rows(strings.Repeat("d", 3000), 1), nil)
		if err != nil {
			if !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "file system") {
				t.Errorf("append on a nearly full file system: %v", err)
			}
			break
		}
	}
	if used := fsys.Used(); used > 400<<10 || used < 380<<10 {
		t.Errorf("files take %d of %d bytes, %d are to be kept free", used, 600<<10, o.KeepFree)
	}
}

// TestDiskFull: others have taken the whole disk. Deliveries go on and give
// room, and the next Append works without a restart.
func TestDiskFull(t *testing.T) {
	fsys := memfs.New()
	s := mustOpen(t, fsys, testOptions("a"))
	for i := range 10 {
		mustAppend(t, s, rows(strings.Repeat("d", 2000)+fmt.Sprint(i), 1))
	}
	fsys.SetCapacity(fsys.Used())
	_, err := s.Append(rows("no room", 1), nil)
	if !errors.Is(err, ErrFull) {
		t.Fatalf("append on a full disk: %v", err)
	}
	s.o.KeepFree = -1 << 40 // the check of the free space is too late
	_, err = s.Append(rows("no room", 1), nil)
	if !errors.Is(err, ErrFailing) || !errors.Is(err, vfs.ErrNoSpace) {
		t.Fatalf("append on a full disk: %v", err)
	}
	if st := s.Stats(); st.State != "failing" || !strings.Contains(st.Message, "free space") {
		t.Errorf("state is %q: %q", st.State, st.Message)
	}
	fsys.WriteFile(cursorName("a"), nil) // so that the cursor needs the reserve
	if err := s.destinations[0].close(); err != nil {
		t.Fatal(err)
	}
	before := fsys.Used()
	fsys.SetCapacity(before)
	for b := takeNow(s, "a"); b != nil; b = takeNow(s, "a") {
		if err := s.Done("a", b.ID, Outcome{Delivered: b.Rows}); err != nil {
			t.Fatalf("a full disk does not let a cursor move: %v", err)
		}
	}
	if after := fsys.Used(); after >= before {
		t.Errorf("delivering gave no room: %d bytes before, %d after", before, after)
	}
	mustAppend(t, s, rows("room", 1))
	if st := s.Stats(); st.State != "ok" || st.Bytes != blocksOf(t, fsys) {
		t.Errorf("after a good Append: %+v, the files take %d", st, blocksOf(t, fsys))
	}
}

func TestDestinationsComeAndGo(t *testing.T) {
	fsys := memfs.New()
	session := func(destinations []string, appended string, deliver ...string) map[string]string {
		t.Helper()
		s := mustOpen(t, fsys, testOptions(destinations...))
		defer s.Close()
		if appended != "" {
			mustAppend(t, s, rows(appended, 1))
		}
		got := map[string]string{}
		for _, d := range deliver {
			for b := takeNow(s, d); b != nil; b = takeNow(s, d) {
				got[d] += mustBody(t, b)
				if err := s.Done(d, b.ID, Outcome{Delivered: b.Rows}); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, d := range s.Stats().Destinations {
			if d.Lost != 0 {
				t.Errorf("%v, %s: %+v", destinations, appended, d)
			}
		}
		return got
	}
	steps := []struct {
		destinations []string
		appended     string
		deliver      []string
		want         map[string]string
	}{
		{nil, "1", nil, map[string]string{}},                                                        // nobody yet: all is kept
		{[]string{"a", "b"}, "2", []string{"a"}, map[string]string{"a": "1.2."}},                    // the first get all
		{[]string{"a", "b", "c"}, "3", []string{"a", "c"}, map[string]string{"a": "3.", "c": "3."}}, // a new one begins at the end
		{[]string{"a", "c"}, "4", []string{"a", "c"}, map[string]string{"a": "4.", "c": "4."}},      // b is gone
		{[]string{"a", "c"}, "5", []string{"c"}, map[string]string{"c": "5."}},
		{[]string{"a", "b", "c"}, "", []string{"a", "b", "c"}, map[string]string{"a": "5.", "b": "5."}}, // b is back; what it held back is gone
		{nil, "6", nil, map[string]string{}},
		{[]string{"b"}, "", []string{"b"}, map[string]string{"b": "6."}},
	}
	for i, step := range steps {
		if diff := cmp.Diff(step.want, session(step.destinations, step.appended, step.deliver...)); diff != "" {
			t.Errorf("step %d (-want +got):\n%s", i, diff)
		}
	}
}

// TestU22RowsOfADestinationThatIsNamedNoMore: they go to nobody else, which is
// said with their number, and it gets them if it comes back in time.
func TestU22RowsOfADestinationThatIsNamedNoMore(t *testing.T) {
	fsys := memfs.New()
	var lines strings.Builder
	session := func(destinations ...string) *Spool {
		lines.Reset()
		o := testOptions(destinations...)
		log, closer, err := logfile.Open(logfile.Options{Mirror: &lines})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := closer.Close(); err != nil {
				t.Error(err)
			}
		})
		o.Log = log
		return mustOpen(t, fsys, o)
	}
	s := session("old")
	mustAppend(t, s, rows("for old", 3))
	mustAppend(t, s, rows("for old", 4))
	if b := takeNow(s, "old"); s.Done("old", b.ID, Outcome{Delivered: b.Rows}) != nil {
		t.Fatal("not delivered")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = session("new")
	if !strings.Contains(lines.String(), "destination=old") || !strings.Contains(lines.String(), "rows=4") {
		t.Errorf("the log does not name the 4 rows of old:\n%s", lines.String())
	}
	if b := takeNow(s, "new"); b != nil {
		t.Errorf("new gets %d rows of old", b.Rows)
	}
	if st := s.Stats().Destinations[0]; st.Before != 7 || st.Waiting != 0 || st.Lost != 0 {
		t.Errorf("%+v", st)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = session("new", "old")
	if b := takeNow(s, "old"); b == nil || b.Rows != 4 {
		t.Error("old does not get its rows although it is back")
	}
	if strings.Contains(lines.String(), "no longer named") {
		t.Errorf("log:\n%s", lines.String())
	}
}

// TestFirstBatchesOvertake: those that First prefers are handed out first, in
// their order, and nothing is handed out twice or left, also over a restart.
func TestFirstBatchesOvertake(t *testing.T) {
	fsys := memfs.New()
	o := testOptions("a")
	asked := map[string]int{}
	o.First = func(label []byte) bool {
		asked[string(label)]++
		return string(label) == "alive"
	}
	s := mustOpen(t, fsys, o)
	for n := range 6 {
		label := fmt.Sprint("bulk ", n)
		if n == 2 || n == 4 {
			label = "alive"
		}
		mustAppend(t, s, []Piece{{Label: []byte(label), Data: fmt.Append(nil, n), Rows: 1}})
	}
	var got []string
	take := func() {
		b := takeNow(s, "a")
		got = append(got, mustBody(t, b))
		if err := s.Done("a", b.ID, Outcome{Delivered: 1}); err != nil {
			t.Fatal(err)
		}
	}
	take()
	take()
	take()
	fsys.Kill()
	s = mustOpen(t, fsys, o)
	mustAppend(t, s, []Piece{{Label: []byte("alive"), Data: []byte("6"), Rows: 1}})
	for range 4 {
		take()
	}
	if want := []string{"2", "4", "0", "6", "1", "3", "5"}; !slices.Equal(got, want) || takeNow(s, "a") != nil {
		t.Errorf("handed out %v, want %v", got, want)
	}
	if st := s.Stats().Destinations[0]; st.Delivered != 7 || st.Waiting != 0 || st.Lost != 0 {
		t.Errorf("%+v", st)
	}
	if asked["bulk 5"] > 2 {
		t.Errorf("asked %d times about one batch in two lives", asked["bulk 5"])
	}
}

func TestSetAsideIsBounded(t *testing.T) {
	fsys := memfs.New()
	s := mustOpen(t, fsys, testOptions("a"))
	row := []byte(`{"TimeGenerated":"never","Message":"a bad row"}`)
	if err := s.SetAside("a", 7, row, "400: TimeGenerated is not a time"); err != nil {
		t.Fatal(err)
	}
	line, body, _ := bytes.Cut(fsys.ReadFile(asideName(1, ".rows")), []byte("\n"))
	var header asideHeader
	if err := json.Unmarshal(line, &header); err != nil {
		t.Fatal(err)
	}
	want := asideHeader{"a", 7, "400: TimeGenerated is not a time", s.o.Clock(), len(row)}
	if diff := cmp.Diff(want, header); diff != "" || !bytes.Equal(body, row) {
		t.Errorf("set aside (-want +got):\n%s\n%s", diff, body)
	}
	for range 30 {
		if err := s.SetAside("a", 8, bytes.Repeat([]byte("x"), 10000), "why"); err != nil {
			t.Fatal(err)
		}
		if used := fsys.Used(); used > s.asideBudget()+cursorSize {
			t.Fatalf("files take %d bytes, %d may be set aside", used, s.asideBudget())
		}
	}
	if fsys.ReadFile(asideName(1, ".rows")) != nil || fsys.ReadFile(asideName(31, ".rows")) == nil {
		t.Error("it is not the oldest file that made room")
	}
	if err := s.SetAside("a", 9, make([]byte, 70000), "why"); !errors.Is(err, ErrTooLarge) {
		t.Errorf("setting too much aside: %v", err)
	}
	fsys.Kill()
	s = mustOpen(t, fsys, testOptions("a"))
	if err := s.SetAside("a", 9, row, "why"); err != nil || fsys.ReadFile(asideName(32, ".rows")) == nil {
		t.Errorf("numbers do not go on after a restart: %v", err)
	}
}

func TestStatsBalance(t *testing.T) {
	fsys := memfs.New()
	s := mustOpen(t, fsys, testOptions("a", "b"))
	for i := 1; i <= 4; i++ {
		mustAppend(t, s, rows("data", 10*i))
	}
	for _, o := range []Outcome{{Delivered: 10}, {Delivered: 15, Refused: 5}, {Delivered: 25}} {
		b := takeNow(s, "a")
		if err := s.Done("a", b.ID, o); err != nil {
			t.Fatal(err)
		}
	}
	oldest := s.o.Clock().Local()
	want := []DestinationStats{
		{Name: "a", Delivered: 50, Refused: 5, Lost: 5, Waiting: 40, WaitingBytes: 5, WaitingBatches: 1, Oldest: oldest},
		{Name: "b", Waiting: 100, WaitingBytes: 20, WaitingBatches: 4, Oldest: oldest},
	}
	check := func() {
		t.Helper()
		st := s.Stats()
		if diff := cmp.Diff(want, st.Destinations); diff != "" || st.Rows != 100 || st.State != "ok" {
			t.Errorf("%d rows, state %s, (-want +got):\n%s", st.Rows, st.State, diff)
		}
		if used := blocksOf(t, fsys); st.Bytes != used {
			t.Errorf("Stats says %d bytes, the files take %d", st.Bytes, used)
		}
	}
	check()
	fsys.Kill()
	s = mustOpen(t, fsys, testOptions("a", "b"))
	check()
}

func TestAppendRefuses(t *testing.T) {
	s := mustOpen(t, memfs.New(), testOptions("a"))
	long := strings.Repeat("k", 1<<16)
	tests := []struct {
		name        string
		pieces      []Piece
		checkpoints []Checkpoint
	}{
		{"a long tail", []Piece{{Tail: make([]byte, MaxTail+1)}}, nil},
		{"a long label", []Piece{{Label: []byte(long)}}, nil},
		{"rows below zero", []Piece{{Rows: -1}}, nil},
		{"a huge frame", []Piece{{Data: make([]byte, MaxFrame)}}, nil},
		{"a huge value", nil, []Checkpoint{{"k", make([]byte, MaxFrame)}}},
		{"a long key", nil, []Checkpoint{{long, nil}}},
		{"a key of our own", nil, []Checkpoint{{destinationKey + "a", nil}}},
	}
	for _, tt := range tests {
		if _, err := s.Append(tt.pieces, tt.checkpoints); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: %v, want ErrTooLarge", tt.name, err)
		}
	}
	if _, err := s.Append([]Piece{{Batch: 5}}, nil); err == nil {
		t.Error("a batch that was never begun can be continued")
	}
	if ids, err := s.Append(nil, nil); ids != nil || err != nil || s.Stats().Bytes != cursorSize {
		t.Errorf("an empty Append: %v, %v, %d bytes", ids, err, s.Stats().Bytes)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Append(rows("late", 1), nil); !errors.Is(err, ErrClosed) {
		t.Errorf("Append after Close: %v", err)
	}
	for _, names := range [][]string{{""}, {"a", "a"}, {strings.Repeat("n", maxName+1)}} {
		if _, err := Open(memfs.New(), testOptions(names...)); err == nil {
			t.Errorf("destinations %.20q are accepted", names)
		}
	}
}

func TestCheckpoints(t *testing.T) {
	s := mustOpen(t, memfs.New(), testOptions("a"))
	mustAppend(t, s, nil, Checkpoint{"tail/b", []byte("2")}, Checkpoint{"tail/a", []byte("1")}, Checkpoint{"perf", []byte{}})
	mustAppend(t, s, nil, Checkpoint{"tail/b", []byte("3")}, Checkpoint{"gone", []byte("x")})
	mustAppend(t, s, nil, Checkpoint{"gone", nil})
	var got []string
	s.Checkpoints("tail/", func(key string, value []byte) bool {
		got = append(got, key+"="+string(value))
		return true
	})
	if want := []string{"tail/a=1", "tail/b=3"}; !slices.Equal(got, want) {
		t.Errorf("checkpoints are %q, want %q", got, want)
	}
	if v := s.Checkpoint("perf"); v == nil || len(v) > 0 {
		t.Errorf("an empty value is %v, want one that is empty and not nil", v)
	}
	if v := s.Checkpoint("gone"); v != nil {
		t.Errorf("a forgotten key has the value %q", v)
	}
	if v := s.Checkpoint(destinationKey + "a"); v != nil {
		t.Error("the spool's own keys can be seen")
	}
	n := 0
	s.Checkpoints("", func(string, []byte) bool { n++; return false })
	if n != 1 {
		t.Errorf("yield was called %d times after it returned false", n)
	}
}

// TestOneSyncEach: Append and Done cost one write and one sync, but for the
// first of a segment.
func TestOneSyncEach(t *testing.T) {
	fsys := memfs.New()
	s := mustOpen(t, fsys, testOptions("a"))
	mustAppend(t, s, rows("first", 1))
	for name, do := range map[string]func(){
		"Append": func() { mustAppend(t, s, rows("more", 1), Checkpoint{"k", []byte("v")}) },
		"Done": func() {
			if err := s.Done("a", takeNow(s, "a").ID, Outcome{Delivered: 1}); err != nil {
				t.Fatal(err)
			}
		},
	} {
		all, writes, syncs, free := fsys.Count(memfs.Any), fsys.Count(memfs.Write), fsys.Count(memfs.Sync), fsys.Count(memfs.Free)
		do()
		all, writes, syncs, free = fsys.Count(memfs.Any)-all, fsys.Count(memfs.Write)-writes, fsys.Count(memfs.Sync)-syncs, fsys.Count(memfs.Free)-free
		if writes != 1 || syncs != 1 || all-free != 2 {
			t.Errorf("%s made %d writes and %d syncs, %d operations in all", name, writes, syncs, all)
		}
	}
}

// nullFS takes everything and costs nothing.
type nullFS struct{ vfs.FS }

func (nullFS) Lock() (io.Closer, error)               { return nullFS{}, nil }
func (nullFS) List() ([]string, error)                { return nil, nil }
func (nullFS) Create(string) (vfs.File, error)        { return nullFS{}, nil }
func (nullFS) OpenWrite(string) (vfs.File, error)     { return nullFS{}, nil }
func (nullFS) Remove(string) error                    { return fs.ErrNotExist }
func (nullFS) Rename(string, string) error            { return nil }
func (nullFS) SyncDir() error                         { return nil }
func (nullFS) Free() (uint64, error)                  { return 1 << 50, nil }
func (nullFS) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (nullFS) Sync() error                            { return nil }
func (nullFS) Truncate(int64) error                   { return nil }
func (nullFS) Close() error                           { return nil }

// TestAppendAllocatesNothing: what an Append allocates is shared by many.
func TestAppendAllocatesNothing(t *testing.T) {
	s, err := Open(nullFS{}, Options{Destinations: []string{"a"}})
	if err != nil {
		t.Fatal(err)
	}
	pieces := []Piece{{Label: []byte("table"), Data: make([]byte, 1000), Tail: []byte("."), Rows: 1}}
	checkpoints := []Checkpoint{{"tail/1", []byte("place")}}
	appendOne := func() {
		if s.Continue(pieces[0].Batch) {
			ids, err := s.Append(pieces, checkpoints)
			if err != nil || ids[0] != pieces[0].Batch {
				t.Fatal(ids, err)
			}
		}
	}
	ids, err := s.Append(pieces, checkpoints)
	if err != nil {
		t.Fatal(err)
	}
	pieces[0].Batch = ids[0]
	if n := testing.AllocsPerRun(2000, appendOne); n >= 1 {
		t.Errorf("Append allocates %v times", n)
	}
}

// TestOnTheRealDisk is a session on the file system of the machine.
func TestOnTheRealDisk(t *testing.T) {
	dir := t.TempDir() + "/spool"
	open := func() *Spool {
		t.Helper()
		fsys, err := vfs.OS(dir)
		if err != nil {
			t.Fatal(err)
		}
		s, err := Open(fsys, testOptions("a"))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open()
	for i := range 20 {
		mustAppend(t, s, rows(strings.Repeat("d", 500), 1), Checkpoint{"k", fmt.Append(nil, i)})
	}
	for range 12 {
		b := takeNow(s, "a")
		mustBody(t, b)
		if err := s.Done("a", b.ID, Outcome{Delivered: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open()
	if st := s.Stats(); st.Destinations[0].Delivered != 12 || st.Destinations[0].Waiting != 8 || st.Destinations[0].Lost != 0 {
		t.Errorf("after a restart: %+v", st)
	}
	if v := s.Checkpoint("k"); string(v) != "19" {
		t.Errorf("checkpoint is %q, want 19", v)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
