package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/openloganalytics/agent/agent/ledger"
	"github.com/openloganalytics/agent/agent/record"
	"github.com/openloganalytics/agent/agent/source"
	"github.com/openloganalytics/agent/agent/spool"
	"github.com/openloganalytics/agent/internal/logfile"
	"github.com/openloganalytics/agent/internal/vfs"
	"github.com/openloganalytics/agent/internal/vfs/memfs"
)

var (
	testTable  = &record.Table{Name: "App_CL", LogType: "App", TimeField: "Timestamp"}
	otherTable = &record.Table{Name: "Syslog", DataType: "LINUX_SYSLOGS_BLOB", IPName: "LOGMANAGEMENT"}
)

const testDestination = "workspace/a"

func openTestSpool(t *testing.T, fs vfs.FS) *spool.Spool {
	t.Helper()
	s, err := spool.Open(fs, spool.Options{Budget: 64 << 20, Destinations: []string{testDestination}, Log: logfile.Discard()})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// startIntake runs an intake on the spool; stop ends it as a clean stop does.
func startIntake(t *testing.T, s *spool.Spool) (in *intake, stop func()) {
	t.Helper()
	in = newIntake(s, logfile.Discard())
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { in.run(ctx) })
	return in, func() {
		t.Helper()
		cancel()
		running.Wait()
		wantConserved(t, s)
	}
}

// wantConserved wants every record of a spool and its ledger accounted for.
func wantConserved(t *testing.T, s *spool.Spool) {
	t.Helper()
	if err := conserved(s); err != nil {
		t.Error(err)
	}
}

func conserved(s *spool.Spool) error {
	l, stats := account(s)
	h := Health{Ledger: ledgerHealth(l, ledger.New(), stats.Destinations)}
	for _, d := range stats.Destinations {
		w := WorkspaceHealth{ID: d.Name}
		w.count(&d)
		h.Workspaces = append(h.Workspaces, w)
		if d.Lost != 0 {
			return fmt.Errorf("%d records of %s have vanished from the spool", d.Lost, d.Name)
		}
	}
	return h.Conserved()
}

// emitRows emits rows that hold the numbers from first to last, and last as
// the place after them.
func emitRows(ctx context.Context, in *intake, table *record.Table, first, last int) error {
	fill := func(b *record.Batch) {
		for n := first; n <= last; n++ {
			b.Add([]record.Field{{Key: "RawData", Value: fmt.Appendf(nil, "row %d.", n)}})
		}
	}
	return in.emit(ctx, "test", table, fill, []source.Checkpoint{{Key: "test:place", Value: fmt.Append(nil, last)}})
}

// drain takes everything from the spool and returns the bodies as text.
func drain(t *testing.T, s *spool.Spool) (text string, batches int) {
	t.Helper()
	for {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		b, err := s.Next(ctx, testDestination)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			return text, batches
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := b.Body(nil)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := record.Inflate(body, 64<<20)
		if err != nil {
			t.Fatal(err)
		}
		text += string(raw)
		batches++
		if err := s.Done(testDestination, b.ID, spool.Outcome{Delivered: b.Rows}); err != nil {
			t.Fatal(err)
		}
	}
}

var rowNumber = regexp.MustCompile(`row (\d+)\.`)

// wantRows wants each row up to last in the text once.
func wantRows(t *testing.T, text string, last int) {
	t.Helper()
	seen := make([]int, last+1)
	for _, m := range rowNumber.FindAllStringSubmatch(text, -1) {
		if n, err := strconv.Atoi(m[1]); err == nil && n <= last {
			seen[n]++
		}
	}
	for n := 1; n <= last; n++ {
		if seen[n] != 1 {
			t.Fatalf("row %d of %d is there %d times", n, last, seen[n])
		}
	}
}

// A power cut keeps rows with the place after them, or neither.
func TestRowsAndPlaceAreDurableTogether(t *testing.T) {
	for seed := range uint64(30) {
		synctest.Test(t, func(t *testing.T) {
			fs := memfs.New()
			s := openTestSpool(t, fs)
			in, stop := startIntake(t, s)
			if err := errors.Join(emitRows(t.Context(), in, testTable, 1, 10), in.flush(t.Context())); err != nil {
				t.Fatal(err)
			}
			if err := emitRows(t.Context(), in, testTable, 11, 20); err != nil {
				t.Fatal(err)
			}
			after := openTestSpool(t, fs.Crash(rand.New(rand.NewPCG(seed, 1))))
			place := string(after.Checkpoint("test:place"))
			text, _ := drain(t, after)
			if place != "10" {
				t.Fatalf("place is %q, want the one that was flushed", place)
			}
			wantRows(t, text, 10)
			if strings.Contains(text, "row 11.") {
				t.Error("rows are there without their place")
			}
			stop()
			if place := string(s.Checkpoint("test:place")); place != "20" {
				t.Errorf("a clean stop left the place at %q", place)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// Rows of many groups join into few batches while nobody takes them, and one
// batch per group goes out when somebody does.
func TestBatchesGrowWhileTheyWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openTestSpool(t, memfs.New())
		in, stop := startIntake(t, s)
		for n := 1; n <= 50; n++ {
			if err := emitRows(t.Context(), in, testTable, n, n); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		stop()
		text, batches := drain(t, s)
		wantRows(t, text, 50)
		if batches != 1 {
			t.Errorf("%d batches for 50 small groups, want one", batches)
		}
	})
}

// A table's batch is closed once it is large.
func TestBatchesStayBelowTheirLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openTestSpool(t, memfs.New())
		in, stop := startIntake(t, s)
		line := []byte(strings.Repeat("x", 1000))
		for range 40 {
			err := in.emit(t.Context(), "test", testTable, func(b *record.Batch) {
				for range 200 {
					b.Add([]record.Field{{Key: "RawData", Value: line}})
				}
			}, nil)
			if err != nil {
				t.Fatal(err)
			}
		}
		stop()
		for {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			b, err := s.Next(ctx, testDestination)
			cancel()
			if err != nil {
				break
			}
			if b.Raw > maxBody+commitBytes+source.MaxEmit {
				t.Errorf("a batch of %d raw bytes", b.Raw)
			}
			if err := s.Done(testDestination, b.ID, spool.Outcome{Delivered: b.Rows}); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// While the disk is full the sources wait; nothing of an Emit that gave up was
// taken; and when there is room again everything arrives once.
func TestFullDiskMakesSourcesWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := memfs.New()
		s := openTestSpool(t, fs)
		in, stop := startIntake(t, s)
		fs.Fail(memfs.Fault{Op: memfs.Write, N: 1, Err: syscall.ENOSPC, Sticky: true})
		taken := 0
		for {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			err := emitRows(ctx, in, testTable, taken+1, taken+5000)
			cancel()
			if errors.Is(err, context.DeadlineExceeded) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			taken += 5000
			if taken > 10_000_000 {
				t.Fatal("a full disk does not make sources wait")
			}
		}
		if got := s.Stats(); got.State == "ok" || got.Message == "" {
			t.Errorf("the spool says %q: %q", got.State, got.Message)
		}
		fs.Heal()
		if err := emitRows(t.Context(), in, testTable, taken+1, taken+1); err != nil {
			t.Fatal(err)
		}
		if err := in.flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		stop()
		text, _ := drain(t, s)
		wantRows(t, text, taken+1)
	})
}

// A stop while the spool refuses leaves no place beyond rows that are missing,
// even when there is room again at the very end.
func TestStopWithAFailingDiskSkipsNothing(t *testing.T) {
	for healed := range 4 {
		synctest.Test(t, func(t *testing.T) {
			fs := memfs.New()
			s := openTestSpool(t, fs)
			in, stop := startIntake(t, s)
			for n := range healed + 2 {
				fs.Fail(memfs.Fault{Op: memfs.Write, N: n + 1, Err: syscall.ENOSPC})
			}
			if err := emitRows(t.Context(), in, testTable, 1, 10); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * commitEvery) // the first group is refused
			if err := emitRows(t.Context(), in, testTable, 11, 20); err != nil {
				t.Fatal(err)
			}
			stop()
			place := string(s.Checkpoint("test:place"))
			text, _ := drain(t, s)
			rows, _ := strconv.Atoi(place) // no place is none
			wantRows(t, text, rows)
		})
	}
}

// The ledger in the spool counts exactly the rows in the spool.
func TestLedgerIsExact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := memfs.New()
		s := openTestSpool(t, fs)
		in, stop := startIntake(t, s)
		if err := errors.Join(emitRows(t.Context(), in, testTable, 1, 7), emitRows(t.Context(), in, otherTable, 1, 5)); err != nil {
			t.Fatal(err)
		}
		in.lost("test", source.Loss{Reason: "spool-full", Records: 3})
		if err := in.flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		// These are lost with the crash, and so is their count.
		if err := emitRows(t.Context(), in, testTable, 8, 9); err != nil {
			t.Fatal(err)
		}
		again := openTestSpool(t, fs.Crash(rand.New(rand.NewPCG(1, 1))))
		l, err := ledger.Decode(again.Checkpoint(ledgerKey))
		if err != nil {
			t.Fatal(err)
		}
		read, dropped := l.Totals()
		if read != 12 || dropped != 3 || again.Stats().Rows != read {
			t.Errorf("read %d, dropped %d, spooled %d; want 12, 3, 12", read, dropped, again.Stats().Rows)
		}
		stop()
		in2, stop2 := startIntake(t, again)
		if read, dropped := in2.ledger.Source("test"); read != 12 || dropped != 3 {
			t.Errorf("after the restart: read %d, dropped %d", read, dropped)
		}
		stop2()
	})
}

// What is lost becomes a row of the Operation table, once, also over a restart.
func TestLossesAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := memfs.New()
		at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
		life := func(s *spool.Spool, lose func(*intake)) {
			in, stop := startIntake(t, s)
			ctx, cancel := context.WithCancel(t.Context())
			var running sync.WaitGroup
			r := newRunning(newOperations(in, "host1"), in, func() {})
			running.Go(func() { r.run(ctx) })
			lose(in)
			time.Sleep(2 * operationsEvery)
			cancel()
			running.Wait()
			stop()
			if h := healthOf(r); h.State != SourceRunning {
				t.Errorf("the source is %+v", h)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
		life(openTestSpool(t, fs), func(in *intake) {
			in.lost("syslog", source.Loss{Reason: "spool-full", Class: "auth", Records: 3, Bytes: 90, Last: at})
			in.lost("syslog", source.Loss{Reason: "spool-full", Class: "auth", Records: 2, Bytes: 10, Last: at})
			in.lost("customlog:A_CL", source.Loss{Reason: "truncated-file", Bytes: 500})
		})
		life(openTestSpool(t, fs), func(in *intake) {
			in.lost("syslog", source.Loss{Reason: "spool-full", Class: "auth", Records: 1, Bytes: 5, Last: at.Add(time.Hour)})
		})
		life(openTestSpool(t, fs), func(*intake) {})
		text, _ := drain(t, openTestSpool(t, fs))
		for _, want := range []string{
			`"Detail":"Source syslog lost 5 records, 100 bytes of auth: spool-full, at 2026-01-02T03:04:05Z."`,
			`"Detail":"Source customlog:A_CL lost 500 bytes of an unknown number of records: truncated-file."`,
			`"Detail":"Source syslog lost 1 records, 5 bytes of auth: spool-full, between 2026-01-02T03:04:05Z and 2026-01-02T04:04:05Z."`,
		} {
			if strings.Count(text, want) != 1 {
				t.Errorf("%s is there %d times in %s", want, strings.Count(text, want), text)
			}
		}
		if n := strings.Count(text, `"Category":"Records lost"`); n != 3 {
			t.Errorf("%d rows, want 3", n)
		}
	})
}

// A ledger that cannot be read is set aside; what it counted is still counted.
func TestUnreadableLedgerIsSetAside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openTestSpool(t, memfs.New())
		if _, err := s.Append([]spool.Piece{{Label: testTable.Label(), Rows: 5}}, []spool.Checkpoint{{Key: ledgerKey, Value: []byte("odd")}}); err != nil {
			t.Fatal(err)
		}
		in, stop := startIntake(t, s)
		if err := emitRows(t.Context(), in, testTable, 1, 2); err != nil {
			t.Fatal(err)
		}
		stop()
		if got := string(s.Checkpoint(ledgerKey + " set aside")); got != "odd" {
			t.Errorf("set aside is %q", got)
		}
		if l, err := ledger.Decode(s.Checkpoint(ledgerKey)); err != nil {
			t.Errorf("the new ledger is %+v, %v", l, err)
		} else if unknown, _ := l.Source(unknownSource); unknown != 5 {
			t.Errorf("the new ledger counts %d records of unknown sources, want the 5 that were there", unknown)
		}
	})
}

func TestEmitAfterTheEndIsRefused(t *testing.T) {
	s := openTestSpool(t, memfs.New())
	in, stop := startIntake(t, s)
	stop()
	if err := emitRows(t.Context(), in, testTable, 1, 1); err == nil {
		t.Error("rows were taken that nobody makes durable")
	}
	if err := in.flush(t.Context()); err != nil {
		t.Errorf("flush of nothing: %v", err)
	}
}

// healthOf is what status says of a source.
func healthOf(r *running) SourceHealth {
	l, _ := account(r.intake.spool)
	return r.health(l)
}

// fragile is a source that fails and panics before it works.
type fragile struct{ runs int }

func (f *fragile) Name() string { return "fragile" }

func (f *fragile) Run(ctx context.Context, out source.Emitter) error {
	f.runs++
	switch f.runs {
	case 1:
		return errors.New("broken")
	case 2:
		panic("worse")
	case 3:
		return nil // ends although nobody asked it to
	}
	out.Trouble("thing", "is odd")
	if err := out.Emit(ctx, testTable, func(b *record.Batch) { b.Add([]record.Field{{Key: "RawData", Value: []byte("row 1.")}}) }); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

func TestFailedSourceIsStartedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openTestSpool(t, memfs.New())
		in, stop := startIntake(t, s)
		changes := 0
		f := &fragile{}
		r := newRunning(f, in, func() { changes++ })
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { r.run(ctx) })
		time.Sleep(500 * time.Millisecond)
		if h := healthOf(r); h.State != SourceRestarting || !strings.Contains(h.Message, "broken") {
			t.Errorf("after the first failure: %+v", h)
		}
		time.Sleep(time.Minute)
		if h := healthOf(r); h.State != SourceRunning || h.Message != "" || h.Read != 1 || h.Troubles["thing"] != "is odd" {
			t.Errorf("in the end: %+v", h)
		}
		cancel()
		running.Wait()
		stop()
		if f.runs != 4 || changes == 0 {
			t.Errorf("%d runs, %d changes told", f.runs, changes)
		}
		text, _ := drain(t, s)
		wantRows(t, text, 1)
	})
}

// Appends are rare in a steady flow; after a pause a record does not wait.
func TestAppendsAreRareButNotLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openTestSpool(t, memfs.New())
		in, stop := startIntake(t, s)
		defer stop()
		appends, rows := 0, s.Stats().Rows
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			if err := emitRows(t.Context(), in, testTable, 1, 1); err != nil {
				t.Fatal(err)
			}
			if now := s.Stats().Rows; now != rows {
				appends, rows = appends+1, now
			}
		}
		if appends < 120 || appends > 60_000/450+1+commitBurst {
			t.Errorf("%d appends in a minute of steady flow", appends)
		}
		time.Sleep(time.Minute)
		for n := range commitBurst {
			before := s.Stats().Rows
			if err := emitRows(t.Context(), in, testTable, 1, 1); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * commitSoon)
			synctest.Wait()
			if s.Stats().Rows != before+1 {
				t.Errorf("record %d after a pause waits longer than %v", n+1, 2*commitSoon)
			}
		}
	})
}

// The last records of a backlog do not wait for the many appends before them.
func TestTheEndOfABacklogIsNotLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openTestSpool(t, memfs.New())
		in, stop := startIntake(t, s)
		defer stop()
		const lines, last = 10_000, 410_000
		for n := 0; n < last; n += lines {
			if err := emitRows(t.Context(), in, testTable, n+1, n+lines); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		time.Sleep(commitEvery)
		synctest.Wait()
		if got := s.Stats().Rows; got != last {
			t.Errorf("%d of %d rows are durable after %v", got, last, commitEvery)
		}
	})
}
