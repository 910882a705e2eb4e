package upload

import (
	"container/heap"
	"math/rand/v2"
	"testing"
	"time"
)

// A fleet is many machines with one batch a minute each and a service that was
// away for an hour and can take three times what they make. It moves from event
// to event on a clock of its own.
type fleet struct {
	machines []machine
	events   events
	capacity int // of the service, batches a second
	perSec   map[time.Duration]int

	rejected, answered, peak int // since the service is back
	caughtUp                 time.Duration
}

type machine struct {
	pacer *Pacer
	phase time.Duration // when in each minute it makes its batch
	sent  int
	done  bool
}

const (
	fleetSize   = 3000
	outageStart = 10 * time.Minute
	outageEnd   = 70 * time.Minute
	roundTrip   = 50 * time.Millisecond
)

func newFleet(rng *rand.Rand) *fleet {
	f := &fleet{machines: make([]machine, fleetSize), capacity: 3 * fleetSize / 60, perSec: map[time.Duration]int{}}
	for i := range f.machines {
		m := &f.machines[i]
		m.pacer, m.phase = NewPacer(rng.Float64), time.Duration(rng.Float64()*float64(time.Minute))
		heap.Push(&f.events, event{m.phase, m})
	}
	return f
}

// run goes on until every machine has caught up.
func (f *fleet) run(limit time.Duration) (left int) {
	left = len(f.machines)
	for left > 0 && f.events[0].at < limit {
		e := heap.Pop(&f.events).(event)
		m, now := e.machine, time.Unix(0, 0).Add(e.at)
		switch made := int((e.at-m.phase)/time.Minute) + 1; {
		case m.sent == made:
			m.pacer.Idle()
			if e.at > outageEnd && !m.done {
				m.done = true
				f.caughtUp = e.at - outageEnd
				left--
			}
			e.at = m.phase + time.Duration(made)*time.Minute
		case m.pacer.Wait(now) > 0:
			e.at += m.pacer.Wait(now)
		default:
			begun := m.pacer.Begin()
			r := f.answer(e.at)
			if r.Answer == Accepted {
				m.sent++
			}
			m.pacer.Answered(begun, now, r)
			e.at += roundTrip
		}
		heap.Push(&f.events, e)
	}
	return left
}

// answer is the service's.
func (f *fleet) answer(at time.Duration) Result {
	if at >= outageStart && at < outageEnd {
		return Result{Answer: Retry}
	}
	second := at.Truncate(time.Second)
	f.perSec[second]++
	tooMany := f.perSec[second] > f.capacity
	if at >= outageEnd {
		f.answered++
		f.peak = max(f.peak, f.perSec[second])
		if tooMany {
			f.rejected++
		}
	}
	if tooMany {
		return Result{Answer: Retry, RetryAfter: time.Minute}
	}
	return accepted
}

// TestFleetAfterAnHour: the pace of each machine adds up to a service that is
// not run over. No pace can catch up before half an hour has passed.
func TestFleetAfterAnHour(t *testing.T) {
	f := newFleet(rand.New(rand.NewPCG(1, 2)))
	if left := f.run(4 * time.Hour); left > 0 {
		t.Errorf("%d machines have not caught up", left)
	}
	t.Logf("peak %.2f of the capacity, %.1f %% rejected, caught up after %v",
		float64(f.peak)/float64(f.capacity), 100*float64(f.rejected)/float64(f.answered), f.caughtUp)
	if f.peak > f.capacity*8/5 {
		t.Errorf("peak %d a second, capacity %d", f.peak, f.capacity)
	}
	if f.rejected > f.answered/8 {
		t.Errorf("%d of %d requests rejected", f.rejected, f.answered)
	}
	if f.caughtUp > 45*time.Minute {
		t.Errorf("caught up after %v", f.caughtUp)
	}
}

type event struct {
	at      time.Duration
	machine *machine
}

// events is a heap by time.
type events []event

func (e events) Len() int           { return len(e) }
func (e events) Less(i, j int) bool { return e[i].at < e[j].at }
func (e events) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)        { *e = append(*e, x.(event)) }

func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}
