package upload

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/openloganalytics/agent/agent/record"
	"github.com/openloganalytics/agent/agent/spool"
	"github.com/openloganalytics/agent/internal/logfile"
	"github.com/openloganalytics/agent/internal/vfs/memfs"
)

// A world is a spool on a disk in memory, destinations, and uploaders between
// them, in a bubble.
type world struct {
	t     *testing.T
	disk  *memfs.FS
	queue *spool.Spool
	log   *logfile.Logger
	lines strings.Builder
	rows  int // appended
	lost  int // damaged by the test
}

func newWorld(t *testing.T, destinations ...string) *world {
	t.Helper()
	w := &world{t: t, disk: memfs.New()}
	var err error
	w.queue, err = spool.Open(w.disk, spool.Options{Destinations: destinations})
	if err != nil {
		t.Fatal(err)
	}
	logger, closer, err := logfile.Open(logfile.Options{Mirror: &w.lines})
	if err != nil {
		t.Fatal(err)
	}
	w.log = logger
	t.Cleanup(func() {
		w.conserved()
		if err := w.queue.Close(); err != nil {
			t.Error(err)
		}
		if err := closer.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// conserved wants every row accounted for at every destination. Each test ends
// with it.
func (w *world) conserved() {
	w.t.Helper()
	st := w.queue.Stats()
	if st.Rows != int64(w.rows) {
		w.t.Errorf("the spool has %d rows, %d were appended", st.Rows, w.rows)
	}
	for _, d := range st.Destinations {
		if lost := st.Rows - d.Delivered - d.Refused - d.Waiting; lost != d.Lost || lost != 0 && lost != int64(w.lost) {
			w.t.Errorf("%d rows and not the %d damaged ones are unaccounted for: %+v", lost, w.lost, d)
		}
	}
}

func table() *record.Table {
	return &record.Table{Name: "Syslog", DataType: "LINUX_SYSLOGS_BLOB", IPName: "LOGMANAGEMENT"}
}

// append appends a batch of n rows, numbered on from the last append, in pieces
// of at most so many rows.
func (w *world) append(n, piece int) {
	w.t.Helper()
	batch := record.NewBatch(table(), record.NewCompressor())
	var id spool.ID
	for done := 0; done < n; {
		for range min(piece, n-done) {
			batch.Add([]record.Field{{Key: "N", Kind: record.JSON, Value: fmt.Append(nil, w.rows)}, {Key: "Text", Value: []byte(`a "row", {so}`)}})
			w.rows++
			done++
		}
		p := batch.Cut()
		if id != 0 && !w.queue.Continue(id) {
			w.t.Fatal("a batch that nobody took cannot be continued")
		}
		ids, err := w.queue.Append([]spool.Piece{{Batch: id, Label: table().Label(), Data: p.Data, Tail: p.Tail, Rows: p.Rows, Raw: p.Raw}}, nil)
		if err != nil {
			w.t.Fatal(err)
		}
		id = ids[0]
		synctest.Wait() // who wants to take the batch does so now
	}
}

// appendBatches appends batches of one row each.
func (w *world) appendBatches(n int) {
	for range n {
		w.append(1, 1)
	}
}

// run starts an uploader and returns it with what ends it; the test's end does
// that as well.
func (w *world) run(d *destination) (u *Uploader, stop func()) {
	return w.runWith(Options{Destination: d})
}

func (w *world) runWith(o Options) (u *Uploader, stop func()) {
	o.Queue, o.Log = w.queue, w.log
	u = New(o)
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		u.Run(ctx)
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	w.t.Cleanup(stop)
	synctest.Wait()
	return u, stop
}

func (w *world) stats(name string) spool.DestinationStats {
	for _, s := range w.queue.Stats().Destinations {
		if s.Name == name {
			return s
		}
	}
	w.t.Fatalf("no destination %s", name)
	return spool.DestinationStats{}
}

// aside returns the numbers of the rows that were set aside.
func (w *world) aside() []int {
	w.t.Helper()
	names, err := w.disk.List()
	if err != nil {
		w.t.Fatal(err)
	}
	var rows []int
	for _, name := range names {
		if !strings.HasSuffix(name, ".rows") {
			continue
		}
		_, body, _ := bytes.Cut(w.disk.ReadFile(name), []byte("\n"))
		rows = append(rows, rowNumbers(w.t, body)...)
	}
	return rows
}

// count returns how often the log says text.
func (w *world) count(text string) int { return strings.Count(w.lines.String(), text) }

// A destination answers as its function says, and keeps what it accepted.
type destination struct {
	t      *testing.T
	name   string
	answer func(a attempt) Result

	mu       sync.Mutex
	attempts []attempt
	rows     []int // accepted
	busy     int   // attempts under way
	widest   int
}

// An attempt is one Send.
type attempt struct {
	n    int // from 0
	at   time.Time
	rows []int
	Batch
}

func newDestination(t *testing.T, name string, answer func(a attempt) Result) *destination {
	t.Helper()
	return &destination{t: t, name: name, answer: answer}
}

func (d *destination) Name() string { return d.name }

func (d *destination) Send(_ context.Context, b Batch) Result {
	a := attempt{at: time.Now(), rows: numbersIn(d.t, b.Table, b.Body), Batch: b}
	if len(a.rows) != b.Rows {
		d.t.Errorf("a batch of %d rows says it has %d", len(a.rows), b.Rows)
	}
	d.mu.Lock()
	a.n = len(d.attempts)
	d.attempts = append(d.attempts, a)
	d.busy++
	d.widest = max(d.widest, d.busy)
	d.mu.Unlock()
	r := d.answer(a)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.busy--
	if r.Answer == Accepted {
		d.rows = append(d.rows, a.rows...)
	}
	return r
}

// forget makes the destination count anew what is under way at once.
func (d *destination) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.widest = 0
}

// made returns the attempts so far.
func (d *destination) made() []attempt {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.attempts)
}

// wantRows fails the test unless each of the numbers up to n but those in
// without were accepted exactly once.
func (d *destination) wantRows(n int, without ...int) {
	d.t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	times := make([]int, n)
	for _, row := range d.rows {
		times[row]++
	}
	var missing, repeated, unwanted []int
	for row, got := range times {
		switch refused := slices.Contains(without, row); {
		case refused && got > 0:
			unwanted = append(unwanted, row)
		case !refused && got == 0:
			missing = append(missing, row)
		case !refused && got > 1:
			repeated = append(repeated, row)
		}
	}
	if missing != nil || repeated != nil || unwanted != nil {
		d.t.Errorf("rows missing: %v, more than once: %v, not to be accepted: %v", missing, repeated, unwanted)
	}
}

func accept(attempt) Result { return accepted }

func rowNumbers(t *testing.T, body []byte) []int {
	t.Helper()
	return numbersIn(t, table(), body)
}

// numbersIn returns the numbers of the rows in a body for the table.
func numbersIn(t *testing.T, table *record.Table, body []byte) []int {
	t.Helper()
	raw, err := record.Inflate(body, 1<<24)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := record.SplitRows(table, raw)
	if err != nil {
		t.Fatal(err)
	}
	numbers := make([]int, len(rows))
	for i, row := range rows {
		if _, err := fmt.Sscanf(string(row), `{"N":%d,`, &numbers[i]); err != nil {
			t.Fatal(err)
		}
	}
	return numbers
}

func TestDelivers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a")
		w.append(100, 30)
		d := newDestination(t, "a", accept)
		w.run(d)
		w.appendBatches(3)
		synctest.Wait()
		d.wantRows(103)
		if s := w.stats("a"); s.Delivered != 103 || s.Waiting != 0 {
			t.Errorf("%+v", s)
		}
		for _, a := range d.made() {
			if a.Table.Name != "Syslog" || a.Table.DataType != "LINUX_SYSLOGS_BLOB" || a.ID == 0 || a.Raw == 0 || a.Failures != 0 {
				t.Errorf("%+v", a)
			}
		}
		if text := w.lines.String(); text != "" {
			t.Errorf("logged %q", text)
		}
	})
}

// TestTwoInFlight: two while there is a backlog, one otherwise.
func TestTwoInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a")
		w.appendBatches(10)
		d := newDestination(t, "a", func(attempt) Result {
			time.Sleep(time.Second)
			return accepted
		})
		start := time.Now()
		w.run(d)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		d.wantRows(10)
		if d.widest != 2 {
			t.Errorf("%d in flight with a backlog", d.widest)
		}
		if made := d.made(); made[9].at.Sub(start) != 4*time.Second {
			t.Errorf("the last attempt began after %v", made[9].at.Sub(start))
		}
		d.forget()
		for range 5 { // the second of each two comes while the first is under way
			w.appendBatches(1)
			time.Sleep(500 * time.Millisecond)
			w.appendBatches(1)
			time.Sleep(4 * time.Second)
		}
		synctest.Wait()
		if d.widest != 1 {
			t.Errorf("%d in flight without a backlog", d.widest)
		}
	})
}

// TestU01RetryAfter: the whole destination pauses, longer than asked and by
// chance.
func TestU01RetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a")
		w.appendBatches(1)
		d := newDestination(t, "a", func(a attempt) Result {
			if a.n == 0 {
				return Result{Answer: Retry, RetryAfter: time.Minute, Code: "server-busy", Why: "busy"}
			}
			return accepted
		})
		w.run(d)
		w.appendBatches(4)
		time.Sleep(10 * time.Minute)
		d.wantRows(5)
		made := d.made()
		if pause := made[1].at.Sub(made[0].at); pause < time.Minute || pause > 2*time.Minute {
			t.Errorf("pause %v, want 1m to 2m", pause)
		}
		if made[1].Failures != 1 || made[2].Failures != 0 {
			t.Errorf("attempts say %d and %d failures", made[1].Failures, made[2].Failures)
		}
	})
}

// TestU02NoEnd: a destination that is away for a week is tried for a week, at
// most five minutes apart, and gets everything. The log has one line for each
// cause and one for the end.
func TestU02NoEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const week = 7 * 24 * time.Hour
		w := newWorld(t, "a")
		w.appendBatches(1)
		start := time.Now()
		d := newDestination(t, "a", func(a attempt) Result {
			if time.Since(start) < week {
				return Result{Answer: Retry, Code: []string{"refused", "timeout"}[a.n%2], Why: "away"}
			}
			return accepted
		})
		w.run(d)
		w.appendBatches(19)
		time.Sleep(week + 10*time.Minute)
		d.wantRows(20)
		made := d.made()
		for i, a := range made[1:] {
			if pause := a.at.Sub(made[i].at); pause > maxDelay {
				t.Errorf("pause %v before attempt %d", pause, i+1)
			}
		}
		if d.widest != 1 {
			t.Errorf("%d in flight in an outage", d.widest)
		}
		if w.count("cannot deliver") != 2 || w.count("delivering again") != 1 || w.count("\n") != 3 {
			t.Errorf("log:\n%s", w.lines.String())
		}
	})
}

// TestShortOutageEndsInTwoSeconds is the goal for an outage of half a minute:
// two seconds after the service is back everything is delivered.
func TestShortOutageEndsInTwoSeconds(t *testing.T) {
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, "a")
			d := newDestination(t, "a", accept)
			w.run(d)
			start := time.Now()
			d.answer = func(attempt) Result {
				if time.Since(start) < 30*time.Second {
					return Result{Answer: Retry, Code: "server-busy", Why: "busy"}
				}
				return accepted
			}
			for range 60 {
				w.appendBatches(1)
				time.Sleep(500 * time.Millisecond)
			}
			time.Sleep(2 * time.Second)
			synctest.Wait()
			d.wantRows(60)
		})
	}
}

// TestLongOutageDrainsSlowly: first with gaps, then fast, all in half an hour.
func TestLongOutageDrainsSlowly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const batches = 200
		w := newWorld(t, "a")
		w.appendBatches(batches)
		start := time.Now()
		d := newDestination(t, "a", func(attempt) Result {
			if time.Since(start) < time.Hour {
				return Result{Answer: Retry, Code: "timeout", Why: "away"}
			}
			return accepted
		})
		u, _ := w.run(d)
		time.Sleep(time.Hour)
		if got := u.waiting(); got != batches {
			t.Errorf("%d batches wait, want %d", got, batches)
		}
		time.Sleep(42 * time.Minute)
		d.wantRows(batches)
		drain := slices.DeleteFunc(d.made(), func(a attempt) bool { return a.at.Sub(start) < time.Hour })
		slow := time.Hour * 10 / 13 / batches
		if got := drain[1].at.Sub(drain[0].at); got < slow/3 || got > slow*2 {
			t.Errorf("the first gap is %v, want about %v", got, slow)
		}
		if last := len(drain) - 1; drain[last].at.Sub(drain[last-10].at) > 10*slow/4 {
			t.Errorf("the last ten took %v, slow would have been %v", drain[last].at.Sub(drain[last-10].at), 10*slow)
		}
		if d.widest != 1 {
			t.Errorf("%d in flight while draining", d.widest)
		}
	})
}

// TestU03KeyRejected: nothing is dropped, the destination is asked four times
// an hour, and drains by itself when it takes the machine in again.
func TestU03KeyRejected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a")
		w.appendBatches(1)
		start := time.Now()
		d := newDestination(t, "a", func(attempt) Result {
			if time.Since(start) < 24*time.Hour-time.Minute {
				return Result{Answer: Hold, Code: "certificate-rejected", Why: "refused"}
			}
			return accepted
		})
		w.run(d)
		w.appendBatches(4)
		time.Sleep(24*time.Hour - 2*time.Minute)
		if n := len(d.made()); n != 24*4 {
			t.Errorf("%d attempts in a day, want 96", n)
		}
		time.Sleep(15 * time.Minute)
		d.wantRows(5)
	})
}

func TestWakeEndsAHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a")
		w.appendBatches(2)
		d := newDestination(t, "a", func(a attempt) Result {
			if a.n == 0 {
				return Result{Answer: Hold, Code: "certificate-rejected", Why: "refused"}
			}
			return accepted
		})
		u, _ := w.run(d)
		u.Wake()
		synctest.Wait()
		d.wantRows(2)
	})
}

// TestU04WorkspaceDeleted is asked once an hour.
func TestU04WorkspaceDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a")
		w.appendBatches(1)
		d := newDestination(t, "a", func(attempt) Result {
			return Result{Answer: Hold, RetryAfter: time.Hour, Code: "workspace-unknown", Why: "404"}
		})
		w.run(d)
		w.appendBatches(4)
		time.Sleep(24*time.Hour - time.Minute)
		if n := len(d.made()); n != 24 {
			t.Errorf("%d attempts in a day, want 24", n)
		}
		if s := w.stats("a"); s.Waiting != 5 {
			t.Errorf("%+v", s)
		}
	})
}

// TestU05PoisonRow: the bad rows alone are set aside, after few requests, and
// the next batch is not held up.
func TestU05PoisonRow(t *testing.T) {
	tests := []struct {
		rows    int
		bad     []int
		attempt int // at most, for this batch
	}{
		{1000, []int{617}, 21}, // 2·log2(1000) + 1
		{1000, []int{0}, 21},
		{1000, []int{999}, 12}, // a clean half shows that the other is bad
		{1000, nil, 1},
		{1, []int{0}, 1},
		{2, []int{1}, 3},
		{3, []int{0, 1, 2}, 6},
		{64, []int{5, 40}, 25},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprint(tt.rows, tt.bad), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "a")
				w.append(tt.rows, 300)
				w.append(1, 1)
				d := newDestination(t, "a", func(a attempt) Result {
					if slices.ContainsFunc(a.rows, func(row int) bool { return slices.Contains(tt.bad, row) }) {
						return Result{Answer: Refused, Code: "request-refused", Why: "400"}
					}
					return accepted
				})
				w.run(d)
				d.wantRows(tt.rows+1, tt.bad...)
				if n := len(d.made()) - 1; n > tt.attempt {
					t.Errorf("%d attempts, want at most %d", n, tt.attempt)
				}
				if got := w.aside(); !slices.Equal(got, tt.bad) {
					t.Errorf("set aside %v, want %v", got, tt.bad)
				}
				if s := w.stats("a"); s.Delivered != int64(tt.rows+1-len(tt.bad)) || s.Refused != int64(len(tt.bad)) || s.Waiting != 0 || s.Lost != 0 {
					t.Errorf("%+v", s)
				}
				if w.count("set aside") != min(1, len(tt.bad)) {
					t.Errorf("log:\n%s", w.lines.String())
				}
			})
		})
	}
}

// TestU05WholeTableIsRefused: where nothing of a batch is taken, that is found
// out by few requests and costs no more; other tables and batches go on.
func TestU05WholeTableIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a")
		w.append(5000, 1000)
		w.append(1, 1)
		d := newDestination(t, "a", func(a attempt) Result {
			if !slices.Contains(a.rows, 5000) {
				return Result{Answer: Refused, Code: "request-refused", Why: "400 InvalidLogType"}
			}
			return accepted
		})
		w.run(d)
		if n := len(d.made()); n > 60 {
			t.Errorf("%d requests for a batch that is refused whatever is in it", n)
		}
		if s := w.stats("a"); s.Delivered != 1 || s.Refused != 5000 || s.Waiting != 0 || s.Lost != 0 {
			t.Errorf("%+v", s)
		}
		if got := w.aside(); len(got) != 5000 {
			t.Errorf("%d rows are set aside, want every one", len(got))
		}
	})
}

// TestU05NoInnocentRowIsSetAside: two rows that are refused only together are
// both delivered.
func TestU05NoInnocentRowIsSetAside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a")
		w.append(4, 4)
		d := newDestination(t, "a", func(a attempt) Result {
			if slices.Contains(a.rows, 2) && slices.Contains(a.rows, 3) {
				return Result{Answer: Refused, Code: "request-refused", Why: "400"}
			}
			return accepted
		})
		w.run(d)
		d.wantRows(4)
		if got := w.aside(); got != nil {
			t.Errorf("set aside %v", got)
		}
	})
}

// TestU05TroubleWhileIsolating: what was delivered of a batch already is not
// delivered again when the destination goes away in between.
func TestU05TroubleWhileIsolating(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a")
		w.append(100, 100)
		d := newDestination(t, "a", func(a attempt) Result {
			switch {
			case a.n%2 == 1:
				return Result{Answer: Retry, Code: "timeout", Why: "away"}
			case slices.Contains(a.rows, 42):
				return Result{Answer: Refused, Code: "request-refused", Why: "400"}
			}
			return accepted
		})
		w.run(d)
		time.Sleep(time.Hour)
		d.wantRows(100, 42)
	})
}

// TestStopWhileIsolating gives the batch back: the next run begins anew.
func TestStopWhileIsolating(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a")
		w.append(10, 10)
		d := newDestination(t, "a", func(a attempt) Result {
			if a.n == 0 {
				return Result{Answer: Refused, Why: "400"}
			}
			return Result{Answer: Retry, Code: "timeout", Why: "away"}
		})
		_, stop := w.run(d)
		stop()
		if s := w.stats("a"); s.Waiting != 10 {
			t.Errorf("%+v", s)
		}
		d.answer = accept
		w.run(d)
		d.wantRows(10)
	})
}

// TestU06TooLarge: a batch is halved until it fits, a row that never fits is
// set aside.
func TestU06TooLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a")
		w.append(100, 100)
		d := newDestination(t, "a", func(a attempt) Result {
			if len(a.rows) > 30 || slices.Contains(a.rows, 77) {
				return Result{Answer: TooLarge, Code: "request-refused", Why: "413"}
			}
			return accepted
		})
		w.run(d)
		d.wantRows(100, 77)
		if got := w.aside(); !slices.Equal(got, []int{77}) {
			t.Errorf("set aside %v, want row 77", got)
		}
		// All of it, two halves, four quarters of 25, and the way to the row.
		if n := len(d.made()); n > 1+2+4+2*5 {
			t.Errorf("%d attempts", n)
		}
	})
}

// TestU07AnswerLost: the destination has the batch, but its answer is lost. One
// batch is repeated, under the same number.
func TestU07AnswerLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a")
		w.appendBatches(3)
		d := newDestination(t, "a", func(a attempt) Result {
			if a.n == 1 {
				return Result{Answer: Retry, Code: "connection-lost", Why: "cut off"}
			}
			return accepted
		})
		w.run(d)
		time.Sleep(time.Minute)
		times := map[uint64]int{}
		for _, a := range d.made() {
			times[a.ID]++
		}
		if len(times) != 3 || len(d.made()) != 4 {
			t.Errorf("attempts by batch: %v", times)
		}
		d.wantRows(3)
	})
}

// TestU08Hanging: a destination that hangs does not hold up the end.
func TestU08Hanging(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a")
		w.appendBatches(3)
		hanging := &hanging{}
		u := New(Options{Destination: hanging, Queue: w.queue, Log: w.log})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			u.Run(ctx)
		}()
		time.Sleep(time.Hour)
		start := time.Now()
		cancel()
		<-done
		if took := time.Since(start); took != 0 {
			t.Errorf("Run ended after %v", took)
		}
		if s := w.stats("a"); s.Waiting != 3 {
			t.Errorf("%+v", s)
		}
		if n := hanging.attempts.Load(); n < 12 {
			t.Errorf("%d attempts in an hour", n)
		}
		if w.count("cannot deliver") != 1 {
			t.Errorf("log:\n%s", w.lines.String())
		}
	})
}

// hanging is a destination whose attempts end by their own time-out only.
type hanging struct{ attempts atomic.Int64 }

func (h *hanging) Name() string { return "a" }

func (h *hanging) Send(ctx context.Context, _ Batch) Result {
	h.attempts.Add(1)
	select {
	case <-ctx.Done():
	case <-time.After(2 * time.Minute):
	}
	return Result{Code: "timeout", Why: "hangs"}
}

// TestU15UnexpectedAnswer: what a captive portal says is no acceptance, and
// makes one line.
func TestU15UnexpectedAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a")
		w.appendBatches(3)
		d := newDestination(t, "a", func(a attempt) Result {
			if a.n < 100 {
				return Result{Answer: Retry, Code: "unexpected-answer", Why: "a page"}
			}
			return accepted
		})
		w.run(d)
		time.Sleep(24 * time.Hour)
		d.wantRows(3)
		if w.count("cannot deliver") != 1 {
			t.Errorf("log:\n%s", w.lines.String())
		}
	})
}

// TestU20OneOfTwoIsDead: the other is not affected.
func TestU20OneOfTwoIsDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "dead", "well")
		dead := newDestination(t, "dead", func(attempt) Result { return Result{Answer: Retry, Code: "timeout", Why: "away"} })
		well := newDestination(t, "well", accept)
		w.run(dead)
		w.run(well)
		for range 100 {
			w.appendBatches(1)
			time.Sleep(time.Minute)
		}
		well.wantRows(100)
		made := well.made()
		for i, a := range made[1:] {
			if gap := a.at.Sub(made[i].at); gap != time.Minute {
				t.Errorf("attempt %d came %v after the one before", i+1, gap)
			}
		}
		if s := w.stats("dead"); s.Waiting != 100 || s.Delivered != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// TestRowsJoinABatchThatWaits: during a pause no batch is taken, so that a
// backlog is few large requests.
func TestRowsJoinABatchThatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a")
		w.appendBatches(1)
		d := newDestination(t, "a", func(a attempt) Result {
			if a.n == 0 {
				return Result{Answer: Hold, Code: "certificate-rejected", Why: "refused"}
			}
			return accepted
		})
		w.run(d)
		w.append(100, 1) // one batch of a hundred pieces: append fails the test if it is taken
		time.Sleep(holdDelay + time.Minute)
		d.wantRows(101)
		if n := len(d.made()); n != 3 {
			t.Errorf("%d attempts, want 3", n)
		}
	})
}

// TestDamagedBatch: what the disk has kept of a batch is delivered.
func TestDamagedBatch(t *testing.T) {
	for _, damaged := range []int{0, 1, 2} {
		t.Run(fmt.Sprint(damaged), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "a")
				w.append(30, 10)
				w.append(1, 1)
				w.damage(damaged)
				d := newDestination(t, "a", accept)
				w.run(d)
				lost := make([]int, 10)
				for i := range lost {
					lost[i] = 10*damaged + i
				}
				d.wantRows(31, lost...)
				if s := w.stats("a"); s.Delivered != 21 || s.Lost != 10 || s.Waiting != 0 {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

// damage flips a byte in the nth piece on the disk.
func (w *world) damage(n int) {
	w.t.Helper()
	batch, err := w.queue.Next(w.t.Context(), "a")
	if err != nil {
		w.t.Fatal(err)
	}
	var data []byte
	if err := batch.Pieces(func(index int, p spool.Piece) bool {
		data = bytes.Clone(p.Data)
		return index != n
	}); err != nil {
		w.t.Fatal(err)
	}
	w.queue.Return("a", batch.ID)
	names, err := w.disk.List()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, name := range names {
		file := w.disk.ReadFile(name)
		if at := bytes.Index(file, data); at >= 0 {
			w.lost = 10
			file[at+len(data)/2] ^= 0xff
			w.disk.WriteFile(name, file)
			return
		}
	}
	w.t.Fatal("the piece is not on the disk")
}

// TestUnreadableBatch: a disk that fails for a moment costs a moment.
func TestUnreadableBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a")
		w.append(3, 3)
		w.disk.Fail(memfs.Fault{Op: memfs.Read, N: 1, Err: errors.New("bad sector")})
		d := newDestination(t, "a", accept)
		w.run(d)
		if n := len(d.made()); n != 0 {
			t.Errorf("%d attempts with an unreadable batch", n)
		}
		time.Sleep(baseDelay)
		synctest.Wait()
		d.wantRows(3)
	})
}

// TestStrangeBatch: what cannot be taken apart, or has no label that makes
// sense, is set aside whole.
func TestStrangeBatch(t *testing.T) {
	for _, tt := range []struct{ label, body string }{
		{string(table().Label()), "not zlib"},
		{"not a label", "anything"},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, "a")
			if _, err := w.queue.Append([]spool.Piece{{Label: []byte(tt.label), Data: []byte(tt.body), Rows: 7, Raw: 100}}, nil); err != nil {
				t.Fatal(err)
			}
			w.rows = 7
			u := New(Options{Destination: refusing{}, Queue: w.queue, Log: w.log})
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				u.Run(ctx)
			}()
			synctest.Wait()
			cancel()
			<-done
			if s := w.stats("a"); s.Refused != 7 || s.Waiting != 0 {
				t.Errorf("%+v", s)
			}
			if w.count("set aside") != 1 || w.count(tt.body) != 0 {
				t.Errorf("log:\n%s", w.lines.String())
			}
		})
	}
}

type refusing struct{}

func (refusing) Name() string                       { return "a" }
func (refusing) Send(context.Context, Batch) Result { return Result{Answer: Refused, Why: "400"} }
