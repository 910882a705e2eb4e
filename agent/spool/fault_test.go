package spool

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/openloganalytics/agent/internal/vfs"
	"github.com/openloganalytics/agent/internal/vfs/memfs"
)

// TestEveryOperationMayFail makes the N-th operation of each kind fail, for
// every N of a session and in every way, once or for a while. The session has
// to come to its end with nothing lost, and a power cut right after it must
// find everything.
func TestEveryOperationMayFail(t *testing.T) {
	quiet := memfs.New()
	if err := faultySession(quiet); err != nil {
		t.Fatalf("without a fault: %v", err)
	}
	runs := 0
	for op := memfs.Create; op <= memfs.Size; op++ {
		for n := 1; n <= quiet.Count(op); n++ {
			for _, sticky := range []bool{false, true} {
				f := memfs.Fault{Op: op, N: n, Err: faultFor(n), Sticky: sticky, Short: 700 * (n % 3)}
				fs := memfs.New()
				fs.Fail(f)
				runs++
				if err := faultySession(fs); err != nil {
					t.Errorf("%s number %d fails (sticky: %v): %v", op, n, sticky, err)
				}
			}
		}
	}
	if runs < 400 {
		t.Errorf("only %d faults were tried", runs)
	}
}

func faultFor(n int) error {
	return []error{vfs.ErrNoSpace, errIO, vfs.ErrReadOnly}[n%3]
}

// faultySession appends, delivers and restarts, and tries everything again
// that fails. A fault that stays is healed after some failures.
func faultySession(fs *memfs.FS) error {
	o := testOptions("a", "b")
	p := &player{fs: fs, o: o, m: newModel("a", "b"), rng: rand.New(rand.NewPCG(7, 7))}
	failures := 0
	failed := func() bool {
		if failures++; failures == 2 {
			fs.Heal()
		}
		return failures < 10
	}
	reopen := func() error {
		err := p.reopen()
		for err != nil && failed() {
			fs.Kill()
			err = p.reopen()
		}
		return err
	}
	if err := reopen(); err != nil {
		return err
	}
	var last ID
	for i := range 14 {
		f := modelFrame{checkpoints: []Checkpoint{
			{serial, fmt.Append(nil, i)}, {fmt.Sprintf("source/%d", i%3), []byte(strings.Repeat("v", 50*i))},
		}, closed: map[ID]bool{}}
		piece := Piece{Label: []byte("table"), Data: fmt.Appendf(nil, "%d%s", i, strings.Repeat("d", 100*i)), Tail: []byte("."), Rows: i + 1}
		if i%3 > 0 && p.s.Continue(last) {
			piece.Batch = last
		}
		f.pieces = []Piece{piece}
		p.m.maybe = []modelFrame{f}
		ids, err := p.s.Append(f.pieces, f.checkpoints)
		for err != nil {
			if !failed() {
				return fmt.Errorf("append %d: %w", i, err)
			}
			if !errors.Is(err, ErrFailing) && !errors.Is(err, ErrFull) {
				return fmt.Errorf("append %d: not a typed error: %w", i, err)
			}
			ids, err = p.s.Append(f.pieces, f.checkpoints)
		}
		p.m = p.m.with(f)
		last = ids[0]
		if err := p.oneDelivery(i, failed); err != nil {
			return err
		}
		if i == 9 {
			fs.Kill()
			if err := reopen(); err != nil {
				return err
			}
		}
	}
	if st := p.s.Stats(); st.Damage.Frames+st.Damage.Pieces+st.Damage.Rows > 0 {
		return fmt.Errorf("damage was counted: %+v", st.Damage)
	}
	if err := p.m.check(fs.Crash(p.rng), o); err != nil {
		return fmt.Errorf("after a power cut: %w", err)
	}
	if err := p.s.Close(); err != nil && failures == 0 {
		return err
	}
	fs.Heal()
	fs.Kill()
	return p.m.check(fs, o)
}

// oneDelivery brings the oldest batch to one of the destinations, from time to
// time.
func (p *player) oneDelivery(i int, failed func() bool) error {
	d := p.o.Destinations[i%2]
	if i%5 == 4 {
		if err := p.s.SetAside(d, 1, []byte("a bad row"), "it is bad"); err != nil && !failed() {
			return err
		}
	}
	b := takeNow(p.s, d)
	if b == nil || i%4 == 3 {
		return nil
	}
	for err := p.compare(b); err != nil; err = p.compare(b) {
		if errors.Is(err, ErrDamaged) || !failed() {
			return fmt.Errorf("read batch %d: %w", b.ID, err)
		}
	}
	p.taken = map[string][]*Batch{}
	p.done(d, b)
	return nil
}
