package agent

import (
	"context"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/openloganalytics/agent/agent/record"
	"github.com/openloganalytics/agent/agent/spool"
	"github.com/openloganalytics/agent/internal/logfile"
	"github.com/openloganalytics/agent/internal/vfs/memfs"
)

// A spool that fills up is told of once, and again after there was room.
func TestSpoolThatFillsUpIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := spool.Open(memfs.New(), spool.Options{Budget: 32 << 20, Destinations: []string{testDestination}, Log: logfile.Discard()})
		if err != nil {
			t.Fatal(err)
		}
		in, stop := startIntake(t, s)
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		r := newRunning(newOperations(in, "host1"), in, func() {})
		running.Go(func() { r.run(ctx) })
		noise := rand.NewChaCha8([32]byte{1})
		fill := func() {
			for 100*s.Stats().Bytes < 82*s.Stats().Budget {
				text := make([]byte, 100<<10)
				for i := range text {
					text[i] = byte(' ' + noise.Uint64()%90)
				}
				if err := in.emit(t.Context(), "test", testTable, func(b *record.Batch) { b.Add([]record.Field{{Key: "RawData", Value: text}}) }, nil); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second) // it becomes durable
			}
		}
		var text string
		for range 2 {
			fill()
			time.Sleep(5 * operationsEvery)
			delivered, _ := drain(t, s)
			text += delivered
			time.Sleep(2 * operationsEvery)
		}
		cancel()
		running.Wait()
		stop()
		if n := strings.Count(text, `"OperationStatus":"Warning","Category":"Spool nearly full","Solution":"Log Management","HelpLink":"","Detail":"The spool holds `); n != 2 {
			t.Errorf("%d rows, want 2", n)
		}
		if !strings.Contains(text, "MB of at most 32") {
			t.Error("the row does not say of how much")
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}
