package agent

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/openloganalytics/agent/agent/ledger"
	"github.com/openloganalytics/agent/agent/record"
	"github.com/openloganalytics/agent/agent/source"
	"github.com/openloganalytics/agent/agent/spool"
	"github.com/openloganalytics/agent/internal/logfile"
	"github.com/openloganalytics/agent/internal/vfs/memfs"
)

// A moment is what was read and dropped up to some step of a session.
type moment struct{ read, dropped int64 }

// A bookkeeper plays a session with an intake and writes down what happened.
type bookkeeper struct {
	rng     *rand.Rand
	fs      *memfs.FS
	s       *spool.Spool
	in      *intake
	moments []moment // after each emit and each loss, in order
	durable int      // which of them is known to be on the disk
	looked  int
}

var bookkeeperOptions = spool.Options{
	Budget: 4 << 20, KeepFree: 1, SegmentBytes: 2000, Destinations: []string{"workspace/a", "workspace/b"}, Log: logfile.Discard(),
}

func (k *bookkeeper) open() error {
	s, err := spool.Open(k.fs, bookkeeperOptions)
	if err != nil {
		return err
	}
	k.s, k.in = s, newIntake(s, logfile.Discard())
	return nil
}

// step does one random thing.
func (k *bookkeeper) step(t *testing.T) error {
	now := k.moments[len(k.moments)-1]
	switch k.rng.IntN(8) {
	case 0, 1, 2:
		n := 1 + k.rng.IntN(20)
		if err := emitRows(t.Context(), k.in, testTable, 1, n); err != nil {
			return err
		}
		k.moments = append(k.moments, moment{now.read + int64(n), now.dropped})
	case 3:
		n := int64(1 + k.rng.IntN(5))
		class := fmt.Sprint(k.rng.IntN(3))
		k.in.lost("test", source.Loss{Reason: "spool-full", Class: class, Records: n, First: time.Unix(1, 0), Last: time.Unix(2, 0)})
		if k.rng.IntN(2) == 0 && !k.in.commit(t.Context()) { // just now
			return fmt.Errorf("a good disk took nothing")
		}
		place := source.Checkpoint{Key: "test:lost", Value: fmt.Append(nil, now.dropped+n)}
		if err := k.in.emit(t.Context(), "test", testTable, nil, []source.Checkpoint{place}); err != nil {
			return err
		}
		k.moments = append(k.moments, moment{now.read, now.dropped + n})
	case 4, 5:
		if !k.in.commit(t.Context()) {
			return fmt.Errorf("a good disk took nothing")
		}
		k.durable = len(k.moments) - 1
	default:
		return k.deliver(t)
	}
	return nil
}

// deliver takes a batch for one of the destinations and finishes it with some
// of its rows refused.
func (k *bookkeeper) deliver(t *testing.T) error {
	name := bookkeeperOptions.Destinations[k.rng.IntN(2)]
	for _, d := range k.s.Stats().Destinations {
		if d.Name != name || d.Waiting == 0 {
			continue
		}
		b, err := k.s.Next(t.Context(), name)
		if err != nil {
			return err
		}
		refused := k.rng.IntN(b.Rows + 1)
		return k.s.Done(name, b.ID, spool.Outcome{Delivered: b.Rows - refused, Refused: refused})
	}
	return nil
}

// check opens what a crash has left: every record has to be accounted for, and
// the ledger has to be that of one moment, not before what was known to be on
// the disk.
func (k *bookkeeper) check(fs *memfs.FS) error {
	k.looked++
	s, err := spool.Open(fs, bookkeeperOptions)
	if err != nil {
		return err
	}
	if err := conserved(s); err != nil {
		return err
	}
	l, _ := account(s)
	read, lost := l.Totals()
	if place := string(s.Checkpoint("test:lost")); place != fmt.Sprint(lost) && (place != "" || lost > 0) {
		return fmt.Errorf("dropped %d, but the place is behind %s", lost, place)
	}
	for _, m := range k.moments[k.durable:] {
		if m.read == read && m.dropped == lost {
			return s.Close()
		}
	}
	return fmt.Errorf("read %d and dropped %d at no moment; on the disk were %+v, the last was %+v",
		read, lost, k.moments[k.durable], k.moments[len(k.moments)-1])
}

// restart goes on with what a crash has left, and forgets what it took.
func (k *bookkeeper) restart() error {
	k.fs = k.fs.Crash(k.rng)
	if err := k.open(); err != nil {
		return err
	}
	l, _ := account(k.s)
	read, lost := l.Totals()
	k.moments, k.durable = []moment{{read, lost}}, 0
	return nil
}

// TestLedgerIsExactAfterAnyCrash cuts the power at the operations of the disk
// in random sessions of emits, losses, appends and deliveries.
func TestLedgerIsExactAfterAnyCrash(t *testing.T) {
	looked := 0
	for seed := uint64(1); looked < 3000; seed++ {
		k := &bookkeeper{rng: rand.New(rand.NewPCG(seed, 7)), fs: memfs.New(), moments: []moment{{}}}
		if err := k.open(); err != nil {
			t.Fatal(err)
		}
		for n := range 60 {
			var broken error
			k.fs.OnOp = func(op memfs.Op, name string) {
				if broken == nil && k.rng.IntN(3) == 0 {
					if err := k.check(k.fs.Crash(k.rng)); err != nil {
						broken = fmt.Errorf("power cut before %s %s: %w", op, name, err)
					}
				}
			}
			err := k.step(t)
			k.fs.OnOp = nil
			if err == nil {
				err = broken
			}
			if err == nil && k.rng.IntN(20) == 0 {
				err = k.restart()
			}
			if err != nil {
				t.Fatalf("session %d, step %d: %v", seed, n, err)
			}
		}
		looked += k.looked
	}
	t.Logf("looked at %d crash states", looked)
}

// Losses without a place are in the ledger soon, and do not pile up while the
// disk takes nothing.
func TestLossesWithoutAPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openTestSpool(t, memfs.New())
		in, stop := startIntake(t, s)
		in.lost("test", source.Loss{Reason: "spool-full", Records: 1})
		time.Sleep(3 * commitEvery)
		if l, _ := account(s); dropped(l) != 1 {
			t.Errorf("%d dropped records are durable, want 1", dropped(l))
		}
		for range 10 * maxHeld {
			in.lost("test", source.Loss{Reason: "spool-full", Records: 1})
		}
		in.mu.Lock()
		held := len(in.losses)
		in.mu.Unlock()
		if held > maxHeld {
			t.Errorf("%d losses are held", held)
		}
		stop()
		if l, _ := account(s); dropped(l) != 1+10*maxHeld {
			t.Errorf("%d dropped records after the end", dropped(l))
		}
	})
}

func dropped(l *ledger.Ledger) int64 {
	_, n := l.Totals()
	return n
}

// What a workspace refuses is told to the workspaces, each time it grows, and
// over a restart; what tells it, refused itself, is not.
func TestRefusedRowsAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := memfs.New()
		refuse := func(s *spool.Spool, n int) {
			b, err := s.Next(t.Context(), testDestination)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Done(testDestination, b.ID, spool.Outcome{Delivered: b.Rows - n, Refused: n}); err != nil {
				t.Fatal(err)
			}
		}
		var text string
		life := func(refused int, table string) {
			s := openTestSpool(t, fs)
			in, stop := startIntake(t, s)
			r := newRunning(newOperations(in, "host1"), in, func() {})
			var running sync.WaitGroup
			ctx, cancel := context.WithCancel(t.Context())
			running.Go(func() { r.run(ctx) })
			synctest.Wait() // it has looked at what earlier lives lost
			if err := emitRows(ctx, in, testTable, 1, 10); err != nil {
				t.Fatal(err)
			}
			if err := in.flush(ctx); err != nil {
				t.Fatal(err)
			}
			refuse(s, refused)
			in.lostBehind(table)
			time.Sleep(2 * operationsEvery)
			cancel()
			running.Wait()
			stop()
			told, _ := drain(t, s)
			text += told
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
		life(3, testTable.Name)
		life(2, testTable.Name)
		for _, want := range []string{
			`"Detail":"Workspace a lost 3 records: refused, at 2000-01-01T00:01:00Z."`,
			`"Detail":"Workspace a lost 2 records: refused, between 2000-01-01T00:01:00Z and 2000-01-01T00:03:01Z."`,
		} {
			if strings.Count(text, want) != 1 {
				t.Errorf("%s is there %d times in %s", want, strings.Count(text, want), text)
			}
		}
		before := strings.Count(text, "Workspace a lost")
		life(1, operationTable)
		if strings.Count(text, "Workspace a lost") != before {
			t.Errorf("a refused Operation row was told: %s", text)
		}
	})
}

// Signs of life and losses overtake what waits; nothing else does.
func TestUrgentRows(t *testing.T) {
	for table, want := range map[*record.Table]bool{
		{Name: "Heartbeat"}: true, {Name: "Operation"}: true,
		{Name: "HeartbeatLate_CL"}: false, otherTable: false, testTable: false,
	} {
		if urgent(table.Label()) != want {
			t.Errorf("rows of %s are urgent: %v, want %v", table.Name, !want, want)
		}
	}
	if urgent([]byte("no label")) {
		t.Error("a label that makes no sense is urgent")
	}
}

func TestConserved(t *testing.T) {
	good := Health{
		Ledger: LedgerHealth{Read: 100, Emitted: 90, Dropped: 10},
		Workspaces: []WorkspaceHealth{
			{ID: "a", Delivered: 70, Refused: 5, Damaged: 5, Waiting: 10},
			{ID: "b", Before: 50, Delivered: 43, Damaged: -3},
		},
	}
	if err := good.Conserved(); err != nil {
		t.Error(err)
	}
	for name, spoil := range map[string]func(h *Health){
		"read":      func(h *Health) { h.Ledger.Read++ },
		"dropped":   func(h *Health) { h.Ledger.Dropped-- },
		"emitted":   func(h *Health) { h.Ledger.Emitted++; h.Ledger.Read++ },
		"before":    func(h *Health) { h.Workspaces[1].Before++ },
		"delivered": func(h *Health) { h.Workspaces[0].Delivered-- },
		"refused":   func(h *Health) { h.Workspaces[0].Refused++ },
		"damaged":   func(h *Health) { h.Workspaces[1].Damaged++ },
		"waiting":   func(h *Health) { h.Workspaces[0].Waiting++ },
	} {
		bad := good
		bad.Workspaces = append([]WorkspaceHealth{}, good.Workspaces...)
		spoil(&bad)
		if err := bad.Conserved(); err == nil {
			t.Errorf("one %s too many or too few is not noticed", name)
		}
	}
}

// The health file names losses behind the sources first, then the latest.
func TestLossesInHealth(t *testing.T) {
	l := ledger.New()
	for n := range 2 * shownLosses {
		l.Lost("syslog", ledger.Loss{Reason: "spool-full", Class: fmt.Sprint(n), Records: 1, Last: time.Unix(int64(n), 0)})
	}
	told := ledger.New()
	told.Lost("workspace/a", ledger.Loss{Reason: lostRefused, Records: 3, First: time.Unix(5, 0), Last: time.Unix(6, 0)})
	h := ledgerHealth(l, told, []spool.DestinationStats{{Name: "workspace/a", Refused: 3, Lost: 2}, {Name: "workspace/b", Lost: -1}})
	if len(h.Losses) != shownLosses || h.Dropped != 2*shownLosses || h.Read != h.Dropped {
		t.Errorf("%d losses shown, %d dropped of %d", len(h.Losses), h.Dropped, h.Read)
	}
	for i, want := range []LossHealth{
		{Source: "workspace/a", Reason: lostRefused, Records: 3, First: time.Unix(5, 0), Last: time.Unix(6, 0)},
		{Source: "workspace/a", Reason: lostDamaged, Records: 2},
		{Source: "syslog", Reason: "spool-full", Class: "199", Records: 1, Last: time.Unix(199, 0)},
	} {
		if h.Losses[i] != want {
			t.Errorf("loss %d is %+v, want %+v", i, h.Losses[i], want)
		}
	}
}

func TestLateIsToldBeforeTwoDaysHavePassed(t *testing.T) {
	since := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tt := range []struct {
		waiting int64
		age     time.Duration
		says    string
	}{
		{5, 0, ""},
		{5, waitsLong - time.Second, ""},
		{5, waitsLong, "at 2026-01-04T03:04:05Z"},
		{5, waitsTooLong - time.Second, "at 2026-01-04T03:04:05Z"},
		{5, waitsTooLong, "more than two days"},
		{0, waitsTooLong, ""},
	} {
		w := WorkspaceHealth{Waiting: tt.waiting, OldestWait: since}
		got := w.Late(since.Add(tt.age))
		if !strings.Contains(got, tt.says) || (got == "") != (tt.says == "") {
			t.Errorf("%d waiting for %v: %q, want %q in it", tt.waiting, tt.age, got, tt.says)
		}
	}
}
