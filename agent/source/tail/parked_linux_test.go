package tail

import (
	"fmt"
	"path/filepath"
	"testing"
)

// A pattern that is taken away and comes back goes on where it was, also when it
// reads files from their beginning.
func TestPatternThatComesBack(t *testing.T) {
	bubble(t, func(r *rig) {
		both := r.o.Patterns
		r.add("a.log", "a1\n")
		r.add("b.log", "b1\n")
		r.start()
		r.wantAny("a1", "b1")
		r.restart(func() { r.o.Patterns = both[:1] })
		r.add("a.log", "a2\n")
		r.add("b.log", "b2\n")
		r.add("c.log", "c1\n")
		r.wantAny("a1", "b1", "a2")
		r.restart(func() { r.o.Patterns = both })
		r.wantAny("a1", "b1", "a2", "b2", "c1")
	}, "a.log", "[bc].log")
}

// What no pattern asks for is kept in bounds.
func TestParkedCheckpointsAreBounded(t *testing.T) {
	bubble(t, func(r *rig) {
		for i := range maxParked + 10 {
			r.add(fmt.Sprintf("b%d.log", i), "x\n")
		}
		r.start()
		if err := r.out.WaitRows(r.Context(), maxParked+10); err != nil {
			t.Fatal(err)
		}
		r.restart(func() { r.o.Patterns = []string{filepath.Join(r.dir, "a.log")} })
		r.add("a.log", "a1\n")
		if err := r.out.WaitRows(r.Context(), maxParked+11); err != nil {
			t.Fatal(err)
		}
		r.stop()
		r.out.Durable()
		kept := 0
		r.out.Checkpoints("test:", func(string, []byte) bool { kept++; return true })
		if kept < maxParked || kept > maxParked+3 { // and those of a.log
			t.Errorf("%d checkpoints are kept", kept)
		}
	}, "b*.log")
}
