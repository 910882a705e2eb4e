package spool

import (
	"flag"
	"fmt"
	"testing"

	"github.com/openloganalytics/agent/internal/vfs"
	"github.com/openloganalytics/agent/internal/vfs/memfs"
)

// -crashes makes the search for a broken promise longer.
var crashes = flag.Int("crashes", 4000, "crash states to look at")

// TestNoCrashLosesWhatWasAcknowledged plays random sessions and cuts the power
// at random operations of the disk, kills the process, and makes operations
// fail; in every state that this can leave, all acknowledged frames must be
// there with their checkpoints, in order, and nothing that was durably
// finished may come again.
func TestNoCrashLosesWhatWasAcknowledged(t *testing.T) {
	looked := 0
	for seed := uint64(1); looked < *crashes; seed++ {
		n, err := playSession(seed)
		if err != nil {
			t.Fatalf("session %d, after %d crash states: %v", seed, n, err)
		}
		looked += n
	}
	t.Logf("looked at %d crash states", looked)
}

func playSession(seed uint64) (looked int, broken error) {
	p, err := newPlayer(seed, testOptions("a", "b"))
	if err != nil {
		return 0, err
	}
	faulty := seed%3 == 0
	look := func(op memfs.Op, name string) {
		if broken != nil {
			return
		}
		if p.rng.IntN(400) == 0 {
			panic(killed{})
		}
		if p.rng.IntN(12) > 0 {
			return
		}
		looked++
		if err := p.m.check(p.fs.Crash(p.rng), p.o); err != nil {
			broken = fmt.Errorf("power cut before %s %s: %w", op, name, err)
		}
	}
	p.fs.OnOp = look
	for step := 0; step < 60 && broken == nil; step++ {
		if faulty && p.rng.IntN(6) == 0 {
			p.fs.Heal()
			p.fs.Fail(randomFault(p))
		}
		dead, err := p.stepOrDie()
		if err != nil {
			return looked, fmt.Errorf("step %d: %w", step, err)
		}
		if !dead && p.rng.IntN(15) > 0 {
			continue
		}
		p.fs.OnOp = nil
		p.fs.Heal()
		if p.rng.IntN(2) == 0 {
			p.fs.Kill()
		} else {
			p.fs = p.fs.Crash(p.rng)
		}
		if err := p.reopen(); err != nil {
			return looked, fmt.Errorf("step %d, after a restart: %w", step, err)
		}
		p.fs.OnOp = look
	}
	return looked, broken
}

// killed is what the process dies of in the middle of an operation.
type killed struct{}

// stepOrDie does one step and reports whether the process was killed in it.
func (p *player) stepOrDie() (dead bool, err error) {
	defer func() {
		switch cause := recover().(type) {
		case nil:
		case killed:
			dead = true
		default:
			panic(cause)
		}
	}()
	return false, p.step()
}

// randomFault makes one operation, or all from then on, fail in a way that a
// writer has to live with.
func randomFault(p *player) memfs.Fault {
	ops := []memfs.Op{memfs.Create, memfs.Rename, memfs.Remove, memfs.SyncDir, memfs.Write, memfs.Sync, memfs.Truncate, memfs.OpenWrite}
	errs := []error{vfs.ErrNoSpace, vfs.ErrReadOnly, errIO}
	return memfs.Fault{
		Op: ops[p.rng.IntN(len(ops))], N: 1 + p.rng.IntN(4), Err: errs[p.rng.IntN(len(errs))],
		Sticky: p.rng.IntN(2) == 0, Short: p.rng.IntN(600),
	}
}

type ioError struct{}

func (ioError) Error() string { return "input/output error" }

var errIO error = ioError{}
