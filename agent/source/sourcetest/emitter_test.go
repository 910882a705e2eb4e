package sourcetest

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openloganalytics/agent/agent/record"
	"github.com/openloganalytics/agent/agent/source"
)

var table = &record.Table{Name: "Test_CL", LogType: "Test"}

func add(values ...string) func(*record.Batch) {
	return func(b *record.Batch) {
		for _, v := range values {
			b.Add([]record.Field{{Key: "Value", Value: []byte(v)}})
		}
	}
}

func emit(t *testing.T, e *Emitter, value, place string) {
	t.Helper()
	at := source.Checkpoint{Key: "test:place", Value: []byte(place)}
	if err := e.Emit(t.Context(), table, add(value), at); err != nil {
		t.Fatal(err)
	}
}

func TestCrashForgetsWhatIsNotDurable(t *testing.T) {
	e := New()
	emit(t, e, "one", "1")
	if got := e.Checkpoint("test:place"); got != nil {
		t.Errorf("checkpoint before Flush = %q, want none", got)
	}
	if err := e.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	emit(t, e, "two", "2")
	e.Lost(source.Loss{Reason: "test", Records: 3})
	next := e.Crash()

	if want := []Row{{"Value": "one"}}; !cmp.Equal(next.Rows("Test_CL"), want) {
		t.Errorf("rows after crash: %s", cmp.Diff(want, next.Rows("Test_CL")))
	}
	got := map[string]string{}
	next.Checkpoints("test:", func(key string, value []byte) bool {
		got[key] = string(value)
		return true
	})
	if want := map[string]string{"test:place": "1"}; !cmp.Equal(got, want) {
		t.Errorf("checkpoints after crash: %s", cmp.Diff(want, got))
	}
	if n := len(next.Losses()); n != 0 {
		t.Errorf("%d losses after crash, want 0", n)
	}
	if err := e.Emit(t.Context(), table, add("three")); !errors.Is(err, ErrCrashed) {
		t.Errorf("Emit on the crashed emitter = %v, want ErrCrashed", err)
	}
}

func TestNilCheckpointForgetsTheKey(t *testing.T) {
	e := New()
	emit(t, e, "one", "1")
	e.Durable()
	if err := e.Emit(t.Context(), table, nil, source.Checkpoint{Key: "test:place"}); err != nil {
		t.Fatal(err)
	}
	e.Durable()
	if got := e.Checkpoint("test:place"); got != nil {
		t.Errorf("checkpoint = %q, want none", got)
	}
}

func TestALossIsDurableWithTheNextPlaceOrOneCommitLater(t *testing.T) {
	loss := source.Loss{Reason: "overflow", Bytes: 1}
	for name, c := range map[string]struct {
		then func(*Emitter)
		want int
	}{
		"crash":                        {func(*Emitter) {}, 0},
		"commit and crash":             {(*Emitter).Durable, 0},
		"two commits and crash":        {func(e *Emitter) { e.Durable(); e.Durable() }, 1},
		"place and crash":              {func(e *Emitter) { emit(t, e, "one", "1") }, 0},
		"place, commit and crash":      {func(e *Emitter) { emit(t, e, "one", "1"); e.Durable() }, 1},
		"commit, place, commit, crash": {func(e *Emitter) { e.Durable(); emit(t, e, "one", "1"); e.Durable() }, 1},
		"flush and crash":              {func(e *Emitter) { _ = e.Flush(t.Context()) }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			e := New()
			e.Lost(loss)
			c.then(e)
			if got := len(e.Crash().Losses()); got != c.want {
				t.Errorf("%d losses after the crash, want %d", got, c.want)
			}
		})
	}
}

func TestFlushOfNothingDoesNotWait(t *testing.T) {
	e := New()
	e.Block()
	if err := e.Flush(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestBlockHoldsEmitUntilUnblockOrContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := New()
		e.Block()
		done := make(chan error)
		go func() { done <- e.Emit(t.Context(), table, add("one")) }()
		synctest.Wait()
		if n := len(e.Rows("Test_CL")); n != 0 {
			t.Fatalf("%d rows while blocked, want 0", n)
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := e.Emit(short, table, add("two")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("blocked Emit = %v, want the context's error", err)
		}
		e.Unblock()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if want := []Row{{"Value": "one"}}; !cmp.Equal(e.Rows("Test_CL"), want) {
			t.Errorf("rows: %s", cmp.Diff(want, e.Rows("Test_CL")))
		}
	})
}

func TestFailTakesNothing(t *testing.T) {
	e := New()
	cause := errors.New("disk on fire")
	e.Fail(cause)
	if err := e.Emit(t.Context(), table, add("one")); !errors.Is(err, cause) {
		t.Errorf("Emit = %v, want %v", err, cause)
	}
	e.Fail(nil)
	emit(t, e, "two", "2")
	if want := []Row{{"Value": "two"}}; !cmp.Equal(e.Rows("Test_CL"), want) {
		t.Errorf("rows: %s", cmp.Diff(want, e.Rows("Test_CL")))
	}
}

func TestEmitRefusesARowThatIsNotJSON(t *testing.T) {
	e := New()
	err := e.Emit(t.Context(), table, func(b *record.Batch) {
		b.Add([]record.Field{{Key: "Value", Kind: record.JSON, Value: []byte("1,")}})
	})
	if err == nil {
		t.Error("Emit took a row that is not JSON")
	}
}

func TestTroubleIsSetAndCleared(t *testing.T) {
	e := New()
	e.Trouble("/a", "cannot read")
	e.Trouble("/b", "cannot read")
	e.Trouble("/a", "")
	if want := map[string]string{"/b": "cannot read"}; !cmp.Equal(e.Troubles(), want) {
		t.Errorf("troubles: %s", cmp.Diff(want, e.Troubles()))
	}
}

func TestWaitRows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := New()
		go func() {
			time.Sleep(time.Second)
			emit(t, e, "one", "1")
		}()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := e.WaitRows(ctx, 1); err != nil {
			t.Error(err)
		}
		if err := e.WaitRows(ctx, 2); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("WaitRows = %v, want the context's error", err)
		}
	})
}
