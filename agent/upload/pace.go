package upload

import "time"

// The pace of one destination. Three things set it:
//
// A failure pauses the whole destination. A machine has an allowance of quick
// tries, one to two seconds apart: with it an outage of half a minute, a
// fail-over or a restart, is over for the machine two seconds after it is over
// for the service. Each quick try costs one of the allowance and each accepted
// batch earns one back, so that quick tries can at most double what a
// struggling service gets. Otherwise the pause is drawn from 0 to a ceiling
// that doubles from baseDelay to maxDelay ("full jitter"), for as long as it
// takes: there is no time after which data is given up.
//
// A Retry-After is honoured: no quick try is made then, and the pause is at
// least what the server asked for, plus up to as much again, so that not all
// machines come back in the same second.
//
// After an outage of patience or longer many machines have a backlog, and the
// time between two requests of one machine matters more than how it paused.
// That gap starts at a thirtieth of the outage, maxGap at most, and is varied by
// half each time; every accepted batch takes a quarter off it until it vanishes,
// every failure doubles it. After a shorter outage there is none.
const (
	quickTries = 24
	quickDelay = 2 * time.Second // upper end; the lower is half of it

	baseDelay = 5 * time.Second
	maxDelay  = 5 * time.Minute

	// holdDelay is the pause after Hold, when the destination names no other:
	// what is wrong is wrong until a person mends it.
	holdDelay = 15 * time.Minute

	patience = time.Minute
	maxGap   = 20 * time.Second
	worstGap = time.Minute // after failures while draining
	minGap   = time.Second // less is none
)

// A Pacer decides when the next attempt may begin at one destination. It
// starts no timer and asks no clock: time comes in with each call. It is for
// one goroutine at a time.
type Pacer struct {
	chance func() float64

	until    time.Time // no attempt before
	gap      time.Duration
	since    time.Time // of the first failure in a row; zero when all is well
	failures int       // in a row
	total    int       // failures in all
	doubled  int       // how often the ceiling was doubled
	quick    int       // allowance left
}

// NewPacer returns the pacer of a destination about which nothing is known.
// chance returns random numbers from 0 to 1.
func NewPacer(chance func() float64) *Pacer { return &Pacer{chance: chance, quick: quickTries} }

// Wait returns how long after now the next attempt may begin; 0 is at once.
func (p *Pacer) Wait(now time.Time) time.Duration { return max(0, p.until.Sub(now)) }

// Wide reports whether a second attempt may be under way at the same time.
func (p *Pacer) Wide() bool { return p.failures == 0 && p.gap == 0 }

// Failures returns how many attempts have failed in a row.
func (p *Pacer) Failures() int { return p.failures }

// Since returns when the first of them failed, the zero time without any.
func (p *Pacer) Since() time.Time { return p.since }

// Wake ends a pause: somebody knows that the destination is well again.
func (p *Pacer) Wake() { p.until = time.Time{} }

// Idle tells that there is no backlog, so that none is to be spread out.
func (p *Pacer) Idle() {
	if p.failures == 0 {
		p.gap, p.until = 0, time.Time{}
	}
}

// An Attempt is what the pacer knows of one attempt.
type Attempt struct{ failures int }

// Begin tells that an attempt begins.
func (p *Pacer) Begin() Attempt { return Attempt{p.total} }

// Answered takes the result of an attempt that ended at now. An attempt that
// began before the last failure came in shows nothing new: its success does not
// end the pause, and its failure only prolongs it, if the server wants that.
func (p *Pacer) Answered(a Attempt, now time.Time, r Result) {
	if r.Answer == Accepted {
		p.quick = min(p.quick+1, quickTries)
	}
	if a.failures < p.total {
		if r.RetryAfter > 0 {
			p.pause(now, r.RetryAfter+p.part(r.RetryAfter))
		}
		return
	}
	switch r.Answer {
	case Accepted, Refused, TooLarge: // bad rows are not the destination's fault
		p.recover(now)
	case Hold:
		p.fail(now)
		p.pause(now, orElse(r.RetryAfter, holdDelay))
	case Retry:
		p.fail(now)
		p.pause(now, p.delay(r.RetryAfter))
	}
}

// delay returns how long to wait after a failure.
func (p *Pacer) delay(asked time.Duration) time.Duration {
	switch {
	case asked > 0:
		return max(asked, p.backOff()) + p.part(asked)
	case p.quick > 0 && p.gap == 0:
		p.quick--
		return quickDelay/2 + p.part(quickDelay/2)
	}
	return p.backOff()
}

func (p *Pacer) recover(now time.Time) {
	if p.failures > 0 {
		p.gap = max(p.gap, gapAfter(now.Sub(p.since)))
	} else {
		p.gap = p.gap * 3 / 4
	}
	if p.gap < minGap {
		p.gap = 0
	}
	p.failures, p.doubled, p.since = 0, 0, time.Time{}
	p.until = now.Add(p.gap/2 + p.part(p.gap))
}

// gapAfter is the gap that draining starts with.
func gapAfter(outage time.Duration) time.Duration {
	if outage < patience {
		return 0
	}
	return min(outage/30, maxGap)
}

func (p *Pacer) fail(now time.Time) {
	if p.failures == 0 {
		p.since = now
	}
	p.failures++
	p.total++
	p.gap = min(2*p.gap, worstGap)
}

// pause puts the next attempt off, and never brings it nearer.
func (p *Pacer) pause(now time.Time, wait time.Duration) {
	if until := now.Add(wait); until.After(p.until) {
		p.until = until
	}
}

func (p *Pacer) backOff() time.Duration {
	ceiling := min(baseDelay<<p.doubled, maxDelay)
	if ceiling < maxDelay {
		p.doubled++
	}
	return p.part(ceiling)
}

// part returns a random part of d.
func (p *Pacer) part(d time.Duration) time.Duration {
	return time.Duration(p.chance() * float64(d))
}

func orElse(d, otherwise time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return otherwise
}
