//go:build !race

// One goroutine, so there is nothing for the race detector to find; it would take
// minutes. `make race` runs these tests without it.

package upload

import (
	"flag"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// -agents makes the largest fleet larger.
var fleetSize = flag.Int("agents", 100_000, "machines in TestFleetAfterAnHour")

// A fleet is many machines, each with the pacer that the uploader has, and a
// service that takes three times what they make when all is well. It moves from
// slot to slot of a wheel on a clock of its own, in which nothing takes longer
// or shorter by how busy the computer is.
type fleet struct {
	outage
	end      time.Duration // of the outage
	machines []machine
	wheel    []int32 // by slot: the first of the machines that have something to do then, -1 for none
	rng      *rand.Rand

	capacity int // of the service, requests a second
	second   time.Duration
	requests int // in this second

	peak     int // requests in a second
	after    int // requests since the service is back
	rejected int // of these
	caughtUp []time.Duration
}

type machine struct {
	pacer  Pacer
	period time.Duration // it makes a batch each
	phase  time.Duration // of the first
	at     time.Duration // when it has something to do
	sent   int32
	tries  int32 // that failed in the outage
	next   int32 // machine in the same slot
	done   bool  // it has caught up
}

// An outage is what is wrong with the service, and for how long.
type outage struct {
	name string
	long time.Duration
	// takes reports whether the service is there for a request, so long after
	// the outage began; without it there is no service.
	takes func(in time.Duration, rng *rand.Rand) bool
	// throttled is how many times what the machines make is taken in the outage.
	throttled float64
	hangs     bool          // a request gets no answer until it is given up
	asks      time.Duration // Retry-After in the outage
	asksAfter time.Duration // Retry-After when there are too many afterwards

	periods []time.Duration // of the machines, by turns; every minute without any
	joined  int             // so many batches become one while they wait; 0 is 1

	most outcome // what is allowed
}

// An outcome is how an outage ended.
type outcome struct {
	peak     float64 // requests in a second, of the capacity
	rejected float64 // of the requests since the service is back
	caughtUp float64 // when 99.9 % have caught up, of the bound
	all      float64 // when all have
	tries    float64 // that failed in the outage, mean of the machines
	worst    int     // the same, most of a machine
}

const (
	slot       = 50 * time.Millisecond // a round trip takes one
	givenUp    = 100 * time.Second     // after which a request that hangs ends
	before     = 5 * time.Minute       // the outage begins
	headroom   = 3                     // capacity, of what the machines make
	smallFleet = 20_000
	waitFor    = 4 // bounds, until a fleet is given up
)

// bound is the least time in which a fleet can catch up: what the service has to
// spare is all used from the first moment.
func (o outage) bound() time.Duration { return o.long / (headroom - 1) }

func newFleet(o outage, size int, seed uint64) *fleet {
	f := &fleet{outage: o, end: before + o.long, rng: rand.New(rand.NewPCG(seed, 1)), machines: make([]machine, size)}
	limit := f.end + waitFor*o.bound() + 10*time.Minute
	f.wheel = slices.Repeat([]int32{-1}, int(limit/slot))
	demand := 0.0
	for i := range f.machines {
		m := &f.machines[i]
		m.period = time.Minute
		if len(o.periods) > 0 {
			m.period = o.periods[i%len(o.periods)]
		}
		m.phase = scale(m.period, f.rng.Float64())
		m.pacer = *NewPacer(f.rng.Float64, func() int { return (m.waiting() + f.joins() - 1) / f.joins() })
		demand += 1 / m.period.Seconds()
		f.plan(int32(i), m.phase)
	}
	f.capacity = int(headroom * demand)
	return f
}

func (o outage) joins() int { return max(1, o.joined) }

// plan has a machine do something at a time, but not in the slot that is being
// worked on.
func (f *fleet) plan(i int32, at time.Duration) {
	m := &f.machines[i]
	m.at = at
	if s := int(at / slot); s < len(f.wheel) {
		f.wheel[s], m.next = i, f.wheel[s]
	}
}

// run goes on until every machine has caught up, or it takes too long.
func (f *fleet) run() outcome {
	for s := range f.wheel {
		for i := f.wheel[s]; i >= 0; {
			next := f.machines[i].next
			f.plan(i, max(f.step(&f.machines[i]), time.Duration(s+1)*slot))
			i = next
		}
		if len(f.caughtUp) == len(f.machines) {
			break
		}
	}
	return f.outcome()
}

// made is how many batches the machine has made by now.
func (m *machine) made() int { return int((m.at-m.phase)/m.period) + 1 }

func (m *machine) waiting() int { return m.made() - int(m.sent) }

// step is what a machine does now; it returns when it has to do something next.
func (f *fleet) step(m *machine) time.Duration {
	now := time.Unix(0, 0).Add(m.at)
	if m.waiting() == 0 {
		m.pacer.Idle()
		if m.at >= f.end && !m.done {
			m.done = true
			f.caughtUp = append(f.caughtUp, m.at-f.end)
		}
		return m.phase + time.Duration(m.made())*m.period
	}
	if wait := m.pacer.Wait(now); wait > 0 {
		return m.at + wait
	}
	lanes := []Attempt{m.pacer.Begin(), m.pacer.Begin()}
	if !m.pacer.Wide() || m.waiting() <= f.joins() {
		lanes = lanes[:1]
	}
	end := m.at
	for _, begun := range lanes {
		result, took := f.answer(m.at)
		switch {
		case result.Answer == Accepted:
			m.sent += int32(min(f.joins(), m.waiting()))
		case m.at < f.end:
			m.tries++
		}
		m.pacer.Answered(begun, now.Add(took), result)
		end = max(end, m.at+took)
	}
	return end
}

// answer is the service's, and how long it takes.
func (f *fleet) answer(at time.Duration) (r Result, took time.Duration) {
	if second := at.Truncate(time.Second); second != f.second {
		f.second, f.requests = second, 0
	}
	f.requests++
	f.peak = max(f.peak, f.requests)
	capacity, asks := float64(f.capacity), f.asksAfter
	if at >= f.end {
		f.after++
	} else if at >= before {
		asks = f.asks
		switch {
		case f.throttled > 0:
			capacity *= f.throttled / headroom
		case f.takes != nil && f.takes(at-before, f.rng):
		case f.hangs:
			return Result{Answer: Retry}, givenUp
		default:
			return Result{Answer: Retry, RetryAfter: asks}, slot
		}
	}
	if float64(f.requests) <= capacity {
		return accepted, slot
	}
	if at >= f.end {
		f.rejected++
	}
	return Result{Answer: Retry, RetryAfter: asks}, slot
}

// outcome sums up. Who has not caught up counts as if that took for ever.
func (f *fleet) outcome() outcome {
	o := outcome{peak: float64(f.peak) / float64(f.capacity), rejected: float64(f.rejected) / float64(max(1, f.after))}
	for i := range f.machines {
		tries := int(f.machines[i].tries)
		o.tries += float64(tries) / float64(len(f.machines))
		o.worst = max(o.worst, tries)
	}
	for len(f.caughtUp) < len(f.machines) {
		f.caughtUp = append(f.caughtUp, 1000*time.Hour)
	}
	of := func(part float64) float64 {
		return f.caughtUp[int(part*float64(len(f.caughtUp)-1))].Seconds() / f.bound().Seconds()
	}
	o.caughtUp, o.all = of(0.999), of(1)
	return o
}

// check has a fleet live through an outage, logs a line of the table and
// compares it with what is allowed.
func (o outage) check(t *testing.T, size int, seed uint64) {
	t.Helper()
	got, most := newFleet(o, size, seed).run(), o.most
	t.Logf("%-34s %7d machines: peak %.2f × the capacity, %.2f %% rejected, 99.9 %% caught up after %.2f × the bound of %v, all after %.2f, %.1f tries a machine, %d at most",
		o.name, size, got.peak, 100*got.rejected, got.caughtUp, o.bound(), got.all, got.tries, got.worst)
	if got.peak > most.peak {
		t.Errorf("peak %.2f × the capacity, want at most %.2f", got.peak, most.peak)
	}
	if got.rejected > most.rejected {
		t.Errorf("%.2f %% rejected, want at most %.2f %%", 100*got.rejected, 100*most.rejected)
	}
	if got.caughtUp > most.caughtUp {
		t.Errorf("99.9 %% caught up after %.2f × the bound, want at most %.2f", got.caughtUp, most.caughtUp)
	}
	if got.all > most.all {
		t.Errorf("all caught up after %.2f × the bound, want at most %.2f", got.all, most.all)
	}
	if got.tries > most.tries || got.worst > most.worst {
		t.Errorf("%.1f tries a machine, %d at most; want %.1f and %d", got.tries, got.worst, most.tries, most.worst)
	}
}

// goals are those for an outage in which there is no service at all for an hour.
var goals = outcome{peak: 1.2, rejected: 0.01, caughtUp: 1.5, all: 2.5, tries: 35, worst: 35}

// with returns the goals with others for what an outage makes different.
func (o outcome) with(change func(o *outcome)) outcome {
	change(&o)
	return o
}

// tries returns the goals with other numbers of tries: in an outage in which
// something is taken now and then there are more, and fewer wait.
func tries(mean float64, worst int) outcome {
	return goals.with(func(o *outcome) { o.tries, o.worst = mean, worst })
}

// short returns the goals for a short outage: to twice the bound come two
// minutes, because a machine makes but one batch a minute.
func short(long time.Duration) outcome {
	return goals.with(func(o *outcome) {
		o.caughtUp = 2 + (2*time.Minute).Seconds()/(long.Seconds()/(headroom-1))
		o.all = 2 * o.caughtUp
	})
}

// every returns a service that is there for up out of each period.
func every(period, up time.Duration) func(time.Duration, *rand.Rand) bool {
	return func(in time.Duration, _ *rand.Rand) bool { return in%period >= period-up }
}

func half(_ time.Duration, rng *rand.Rand) bool { return rng.Float64() < 0.5 }

var outages = []outage{
	{name: "connections refused", long: time.Hour, asksAfter: time.Minute, most: goals},
	{name: "no Retry-After, not even later", long: time.Hour, most: goals},
	{name: "hanging", long: time.Hour, hangs: true, asksAfter: time.Minute, most: goals},
	{name: "503, Retry-After 1 min", long: time.Hour, asks: time.Minute, asksAfter: time.Minute, most: goals},
	// The server keeps machines away for up to ten minutes after it is back.
	{name: "503, Retry-After 5 min", long: time.Hour, asks: 5 * time.Minute, asksAfter: time.Minute, most: goals.with(func(o *outcome) { o.caughtUp = 1.6 })},
	{name: "half of what is made is taken, 429", long: time.Hour, throttled: 0.5, asks: time.Minute, asksAfter: time.Minute, most: tries(25, 45)},
	{name: "the same without Retry-After", long: time.Hour, throttled: 0.5, most: tries(40, 90)},
	{name: "every second request fails", long: time.Hour, takes: half, most: tries(45, 90)},
	{name: "back for 1 min of 4", long: time.Hour, takes: every(4*time.Minute, time.Minute), most: tries(90, 120)},
	{name: "back for 10 s of 70", long: time.Hour, takes: every(70*time.Second, 10*time.Second), most: tries(60, 110)},
	// Those that send every three seconds have their quick tries as well.
	{
		name: "machines of many sizes", long: time.Hour, asksAfter: time.Minute, most: tries(35, 65),
		periods: []time.Duration{3 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute, time.Minute, time.Minute, time.Minute, time.Minute},
	},
	{name: "batches that join", long: time.Hour, joined: 20, asksAfter: time.Minute, most: goals},
	{name: "3 h", long: 3 * time.Hour, asksAfter: time.Minute, most: tries(70, 80)},
	{name: "20 min", long: 20 * time.Minute, most: short(20 * time.Minute)},
	{name: "5 min", long: 5 * time.Minute, most: short(5 * time.Minute)},
	{name: "1 min", long: time.Minute, most: short(time.Minute)},
	{name: "20 s", long: 20 * time.Second, most: short(20 * time.Second)},
}

// TestFleetAfterAnHour: the pace of each machine adds up to a service that is
// not run over.
func TestFleetAfterAnHour(t *testing.T) { outages[0].check(t, *fleetSize, 1) }

// TestFleetOutages does the same with a smaller fleet, for outages of many shapes.
func TestFleetOutages(t *testing.T) {
	for i, o := range outages {
		t.Run(o.name, func(t *testing.T) {
			t.Parallel()
			o.check(t, smallFleet, uint64(i)+10)
		})
	}
}

// TestFleetByChance: it does not hang on how the dice fall.
func TestFleetByChance(t *testing.T) {
	for seed := range uint64(3) {
		outages[0].check(t, smallFleet, seed+100)
	}
}

// TestLoneMachineAfterAnHour is the other side: nobody else comes back. A busy
// machine, with a batch a minute, catches up within the time that a fleet needs,
// half of them in two thirds of it; a quiet one, of whose batches twenty become
// one, within ten minutes.
func TestLoneMachineAfterAnHour(t *testing.T) {
	for _, tt := range []struct {
		joined          int
		half, allWithin time.Duration
	}{
		{1, 22 * time.Minute, 42 * time.Minute},
		{20, 6 * time.Minute, 10 * time.Minute},
	} {
		f := newFleet(outage{long: time.Hour, joined: tt.joined}, 1000, 1)
		f.capacity = 1 << 30 // each has the service for itself
		f.run()
		n := len(f.caughtUp)
		t.Logf("%d batches joined: half of the machines after %v, all after %v", tt.joined, f.caughtUp[n/2], f.caughtUp[n-1])
		if f.caughtUp[n/2] > tt.half || f.caughtUp[n-1] > tt.allWithin {
			t.Errorf("%d batches joined: half of the machines after %v, all after %v; want %v and %v", tt.joined, f.caughtUp[n/2], f.caughtUp[n-1], tt.half, tt.allWithin)
		}
	}
}
