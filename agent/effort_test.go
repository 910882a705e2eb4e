package agent

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/openloganalytics/agent/internal/logfile"
	"github.com/openloganalytics/agent/internal/vfs/memfs"
)

// A backlog is told when it begins and a while after its end; the start of the
// agent is the first one.
func TestBacklogIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		var mu sync.Mutex
		var told []bool
		in := newIntake(openTestSpool(t, memfs.New()), logfile.Discard())
		in.effort = newEffort(func(backlog bool) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, backlog)
		})
		go in.run(ctx)
		want := func(what string, want ...bool) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if !slices.Equal(told, want) {
				t.Errorf("told %s: %v, want %v", what, told, want)
			}
		}
		emit := func(rows int) {
			t.Helper()
			if err := emitRows(t.Context(), in, testTable, 1, rows); err != nil {
				t.Fatal(err)
			}
			time.Sleep(commitEvery)
		}
		emit(10)
		want("at the start")
		time.Sleep(afterBacklog)
		want("after the start", false)
		emit(10)
		want("of a few rows", false)
		emit(commitBytes / 20)
		want("in a backlog", false, true)
		emit(10)
		want("just after it", false, true)
		time.Sleep(afterBacklog)
		want("a while after it", false, true, false)
		emit(commitBytes / 20)
		want("in the next one", false, true, false, true)
	})
}
