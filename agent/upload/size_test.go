package upload

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/openloganalytics/agent/agent/record"
	"github.com/openloganalytics/agent/agent/spool"
)

// appendLarge appends a batch of so many rows whose body does not compress.
func (w *world) appendLarge(rows, bytes int) {
	w.t.Helper()
	rng := rand.NewChaCha8([32]byte{})
	batch := record.NewBatch(table(), record.NewCompressor())
	for range rows {
		text := make([]byte, bytes/2)
		_, _ = rng.Read(text) // does not fail
		batch.Add([]record.Field{
			{Key: "N", Kind: record.JSON, Value: fmt.Append(nil, w.rows)},
			{Key: "Text", Value: fmt.Appendf(nil, "%x", text)},
		})
		w.rows++
	}
	p := batch.Cut()
	if _, err := w.queue.Append([]spool.Piece{{Label: table().Label(), Data: p.Data, Tail: p.Tail, Rows: p.Rows, Raw: p.Raw}}, nil); err != nil {
		w.t.Fatal(err)
	}
}

// TestU06SizeIsRemembered: one request finds out that a size is too large; the
// batches after it are divided without asking, until an hour later the whole is
// tried again. A batch that is not large is never divided for the size.
func TestU06SizeIsRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a")
		var limit atomic.Int64
		d := newDestination(t, "a", func(a attempt) Result {
			if int64(len(a.Body)) > limit.Load() {
				return Result{Answer: TooLarge, Code: "request-refused", Why: "413"}
			}
			return accepted
		})
		w.run(d)
		steps := []struct {
			wait     time.Duration
			limit    int64
			attempts int
		}{
			{0, 200 << 10, 1 + 2},
			{time.Minute, 200 << 10, 2},
			{sizeKnownFor - 2*time.Minute, 200 << 10, 2},
			{2 * time.Minute, 200 << 10, 1 + 2},
			{sizeKnownFor, 1 << 30, 1},
			{time.Minute, 1 << 30, 1},
		}
		for i, step := range steps {
			time.Sleep(step.wait)
			limit.Store(step.limit)
			before := len(d.made())
			w.appendLarge(8, 64<<10) // about 260 KB compressed, half of it less than the limit
			synctest.Wait()
			if n := len(d.made()) - before; n != step.attempts {
				t.Errorf("step %d: %d attempts, want %d", i, n, step.attempts)
			}
		}
		d.wantRows(w.rows)
	})
}

// TestU18SlowLinkGetsLess has a link that passes 200 KB in the time of an
// attempt: large batches go in parts, with few attempts in vain.
func TestU18SlowLinkGetsLess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a")
		for range 10 {
			w.appendLarge(16, 80<<10) // about 650 KB compressed: goes in four parts
		}
		link := &slowLink{destination: newDestination(t, "a", accept), rate: 200 << 10, patience: 2 * time.Minute}
		w.runWith(Options{Destination: link})
		time.Sleep(24 * time.Hour)
		link.wantRows(w.rows)
		if n := link.vain.Load(); n > 15 { // it would be 30, three for each batch
			t.Errorf("%d attempts in vain", n)
		}
	})
}

// A slowLink passes rate bytes in the time that an attempt has.
type slowLink struct {
	*destination
	rate     int
	patience time.Duration
	vain     atomic.Int64
}

func (l *slowLink) Send(ctx context.Context, b Batch) Result {
	if len(b.Body) > l.rate && b.Rows > 1 {
		time.Sleep(l.patience)
		l.vain.Add(1)
		return Result{Answer: TooLarge, Code: "timeout", Why: "slow"}
	}
	time.Sleep(l.patience * time.Duration(len(b.Body)) / time.Duration(l.rate))
	return l.destination.Send(ctx, b)
}
