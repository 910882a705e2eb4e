//go:build !race

package customlog

import (
	"testing"
	"time"

	"github.com/openloganalytics/agent/agent/record"
)

// TestJSONAllocatesNothing: the members of a line become a row without garbage.
// With the race detector encoding/json throws away what it pools.
func TestJSONAllocatesNothing(t *testing.T) {
	s := newSource(t, Options{Patterns: []string{t.TempDir()}, Computer: "host1", JSON: true})
	b := record.NewBatch(s.follow.Table, record.NewCompressor())
	line := []byte(`{"Level":"warn","Message":"a line of text","count":12,"tags":["a","b"]}`)
	at := time.Now()
	fill := func() {
		for range 1000 {
			s.addJSON(b, "/var/log/app/app.log", line, at)
		}
		b.Cut()
	}
	if n := testing.AllocsPerRun(20, fill); n != 0 {
		t.Errorf("%v allocations for 1000 lines, want 0", n)
	}
}
