package spool

import (
	"flag"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/openloganalytics/agent/internal/vfs"
	"github.com/openloganalytics/agent/internal/vfs/memfs"
)

// -crashes makes the search for a broken promise longer.
var crashes = flag.Int("crashes", 20000, "crash states to look at, in all explorations together")

func TestMain(m *testing.M) {
	flag.Parse()
	debug.SetGCPercent(800) // many small spools, none of which lives long
	os.Exit(m.Run())
}

// An exploration plays random sessions and cuts the power at random operations
// of the disk, kills the process, and makes operations fail. In every state
// that this can leave, all acknowledged frames must be there with their
// checkpoints, in order, and nothing that was durably finished may come again:
// that is the model's to say. What else has to hold is in the functions.
type exploration struct {
	options func(p *player, o *Options) // changes those of the tests
	weights weights
	faults  []memfs.Op // which operations may fail
	errs    []error    // what with; nil is any
	atOnce  bool       // all of them fail together
	kills   bool       // the process is killed only, and the power stays on

	// before is called before each operation, acked after each step that was
	// not killed, crashed with each state before the model looks at it.
	before  func(p *player, op memfs.Op, name string) error
	acked   func(p *player) error
	crashed func(p *player, after *memfs.FS) error
}

// explore looks at a share, in percent, of the crash states.
func explore(t *testing.T, share int, e exploration) {
	t.Helper()
	t.Parallel()
	budget := int64(max(*crashes*share/100, 1))
	var looked, seeds atomic.Int64
	var broken atomic.Bool
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for looked.Load() < budget && !broken.Load() {
				seed := seeds.Add(1)
				n, err := e.session(t.Name(), uint64(seed))
				now := looked.Add(int64(n))
				if tenth := budget / 10; tenth > 10000 && now/tenth > (now-int64(n))/tenth {
					t.Logf("looked at %d of %d crash states", now, budget)
				}
				if err != nil {
					broken.Store(true)
					t.Errorf("session %d, after %d crash states: %v", seed, n, err)
				}
			}
		})
	}
	workers.Wait()
	t.Logf("looked at %d crash states of %d sessions", looked.Load(), seeds.Load())
}

// writing are the operations that change the disk: before any other a crash
// leaves what it would have left before.
var writing = map[memfs.Op]bool{
	memfs.Create: true, memfs.Rename: true, memfs.Remove: true, memfs.SyncDir: true,
	memfs.Write: true, memfs.Sync: true, memfs.Truncate: true,
}

func (e *exploration) session(name string, seed uint64) (looked int, broken error) {
	stream := fnv.New64a()
	_, _ = stream.Write([]byte(name)) // a hash does not fail
	p := newPlayer(rand.New(rand.NewPCG(seed, stream.Sum64())), testOptions("a", "b"))
	p.weights = e.weights
	if e.options != nil {
		e.options(p, &p.o)
	}
	look := func(op memfs.Op, name string) {
		if broken != nil {
			return
		}
		if e.before != nil {
			broken = e.before(p, op, name)
		}
		if p.rng.IntN(400) == 0 {
			panic(killed{})
		}
		if broken != nil || !writing[op] || p.rng.IntN(4) > 0 {
			return
		}
		looked++
		if err := e.look(p); err != nil {
			broken = fmt.Errorf("power cut before %s %s: %w", op, name, err)
		}
	}
	p.fs.OnOp = look
	if err := e.restart(p, look); err != nil {
		return looked, err
	}
	for step := 0; step < 60 && broken == nil; step++ {
		if p.rng.IntN(6) == 0 {
			e.fault(p)
		}
		dead, err := orDie(func() error {
			err := p.step()
			if err == nil && e.acked != nil {
				err = e.acked(p)
			}
			return err
		})
		if err != nil {
			return looked, fmt.Errorf("step %d: %w", step, err)
		}
		if !dead && p.rng.IntN(15) > 0 {
			continue
		}
		if err := e.restart(p, look); err != nil {
			return looked, fmt.Errorf("step %d, after a restart: %w", step, err)
		}
	}
	return looked, broken
}

// look judges one state that a crash at this moment can leave.
func (e *exploration) look(p *player) error {
	if e.kills {
		return p.m.check(p.fs.Killed(), p.o)
	}
	after := p.fs.Crash(p.rng)
	if e.crashed != nil {
		if err := e.crashed(p, after); err != nil {
			return err
		}
	}
	return p.m.check(after, p.o)
}

// restart ends the process and starts another, which may fail and be killed at
// its start, too.
func (e *exploration) restart(p *player, look func(memfs.Op, string)) error {
	for {
		p.fs.Heal()
		if e.kills || p.rng.IntN(2) == 0 {
			p.fs.Kill()
		} else {
			p.fs = p.fs.Crash(p.rng)
		}
		p.fs.OnOp = look
		if p.rng.IntN(2) == 0 {
			e.fault(p)
		}
		dead, err := orDie(p.open)
		if dead {
			continue
		}
		if err != nil {
			p.fs.Heal()
			p.fs.Kill() // what Open cannot read now it can read later
			if dead, err = orDie(p.open); dead {
				continue
			}
		}
		if err != nil {
			return err
		}
		p.fs.Heal()
		if dead, err = orDie(p.settle); dead {
			continue
		}
		return err
	}
}

// fault makes one operation, or all of a kind from then on, fail in a way that
// a writer has to live with.
func (e *exploration) fault(p *player) {
	p.fs.Heal()
	errs := e.errs
	if errs == nil {
		errs = []error{vfs.ErrNoSpace, vfs.ErrReadOnly, errIO}
	}
	if e.atOnce {
		for _, op := range e.faults {
			p.fs.Fail(memfs.Fault{Op: op, N: 1, Err: errs[p.rng.IntN(len(errs))], Sticky: p.rng.IntN(2) == 0})
		}
		return
	}
	for range min(len(e.faults), 1+p.rng.IntN(2)) {
		p.fs.Fail(memfs.Fault{
			Op: e.faults[p.rng.IntN(len(e.faults))], N: 1 + p.rng.IntN(4), Err: errs[p.rng.IntN(len(errs))],
			Sticky: p.rng.IntN(2) == 0, Short: p.rng.IntN(600),
		})
	}
}

// killed is what the process dies of in the middle of an operation.
type killed struct{}

// orDie reports whether the process was killed in what it does.
func orDie(do func() error) (dead bool, err error) {
	defer func() {
		switch cause := recover().(type) {
		case nil:
		case killed:
			dead = true
		default:
			panic(cause)
		}
	}()
	return false, do()
}

type ioError struct{}

func (ioError) Error() string { return "input/output error" }

var errIO error = ioError{}
