package upload

import "time"

// The pace of one destination. A machine does not know how many others there
// are, but after an outage all of them come back at once. So it measures what it
// may do by what it sends when all is well: a service that takes that from
// everybody, and has some room, takes it after an outage as well. drain.go has
// what happens once batches are accepted again; here is what happens until then.
//
// A failure pauses the whole destination. A machine that usually sends at least
// every three seconds has an allowance of quick tries, one to two seconds apart,
// which is no more than it usually sends: with it an outage of half a minute, a
// fail-over or a restart, is over for the machine two seconds after it is over
// for the service. Each quick try costs one of the allowance and each accepted
// batch earns one back, so that quick tries can at most double what a struggling
// service gets. A machine of which nothing is known yet has them too.
//
// Otherwise the pause grows with the outage: it is drawn from the upper half of
// a quarter of it, at least baseDelay and two thirds of what usually lies between
// two requests, at most maxDelay, for as long as it takes: there is no time after
// which data is given up.
//
// A Retry-After is honoured: no quick try is made then, and the pause is at
// least what the server asked for, plus up to as much again, so that not all
// machines come back in the same second.
const (
	quickTries = 24
	quickDelay = 2 * time.Second // upper end; the lower is half of it

	baseDelay = 5 * time.Second
	maxDelay  = 5 * time.Minute

	// holdDelay is the pause after Hold, when the destination names no other:
	// what is wrong is wrong until a person mends it.
	holdDelay = 15 * time.Minute
)

// A Pacer decides when the next attempt may begin at one destination. It
// starts no timer and asks no clock: time comes in with each call. It is for
// one goroutine at a time.
type Pacer struct {
	chance  func() float64
	backlog func() int

	until    time.Time // no attempt before
	since    time.Time // of the first failure in a row; zero when all is well
	failed   time.Time // the last failure
	behind   time.Time // the first failure since there was no backlog; zero without any
	failures int       // in a row
	total    int       // failures in all
	quick    int       // allowance left
	sent     int       // batches accepted since behind
	asked    bool      // the last failure came with a Retry-After
	usual    usual
	drain    drain
}

// NewPacer returns the pacer of a destination about which nothing is known.
// chance returns random numbers from 0 to 1, backlog how many batches wait; it
// is asked when an outage ends.
func NewPacer(chance func() float64, backlog func() int) *Pacer {
	return &Pacer{chance: chance, backlog: backlog, quick: quickTries}
}

// Wait returns how long after now the next attempt may begin; 0 is at once.
func (p *Pacer) Wait(now time.Time) time.Duration { return max(0, p.until.Sub(now)) }

// Wide reports whether a second attempt may be under way at the same time.
func (p *Pacer) Wide() bool { return p.failures == 0 && p.drain.gap == 0 }

// Failures returns how many attempts have failed in a row.
func (p *Pacer) Failures() int { return p.failures }

// Since returns when the first of them failed, the zero time without any.
func (p *Pacer) Since() time.Time { return p.since }

// Wake ends a pause: somebody knows that the destination is well again.
func (p *Pacer) Wake() { p.until = time.Time{} }

// Idle tells that there is no backlog, so that none is to be spread out.
func (p *Pacer) Idle() {
	if p.failures == 0 {
		p.until, p.behind, p.drain = time.Time{}, time.Time{}, drain{}
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
		p.sent++
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
		p.fail(now, r)
		p.pause(now, orElse(r.RetryAfter, holdDelay))
	case Retry:
		p.fail(now, r)
		p.pause(now, p.delay(now, r.RetryAfter))
	}
}

// delay returns how long to wait after a failure.
func (p *Pacer) delay(now time.Time, asked time.Duration) time.Duration {
	switch {
	case asked > 0:
		return max(asked, p.backOff(now)) + p.part(asked)
	case p.quick > 0 && !p.drain.active() && p.usual.retry() <= quickDelay:
		p.quick--
		return p.upperHalf(quickDelay)
	}
	return p.backOff(now)
}

func (p *Pacer) backOff(now time.Time) time.Duration {
	ceiling := max(now.Sub(p.since)/4, baseDelay, p.usual.retry(), p.drain.gap)
	return p.upperHalf(min(ceiling, maxDelay))
}

func (p *Pacer) recover(now time.Time) {
	failures := p.failures
	p.failures, p.since = 0, time.Time{}
	if p.behind.IsZero() {
		p.usual.note(now)
		return
	}
	p.until = p.afterBatch(now, failures)
}

func (p *Pacer) fail(now time.Time, r Result) {
	// With its first Retry-After the service speaks again: that outage is over.
	if asked := r.RetryAfter > 0; p.failures == 0 || asked && !p.asked {
		p.since = now
	}
	p.asked = r.RetryAfter > 0
	if p.behind.IsZero() {
		p.behind, p.sent = now, 0
	}
	p.failed = now
	p.failures++
	p.total++
	p.usual.interrupt()
}

// pause puts the next attempt off, and never brings it nearer.
func (p *Pacer) pause(now time.Time, wait time.Duration) {
	if until := now.Add(wait); until.After(p.until) {
		p.until = until
	}
}

// part returns a random part of d.
func (p *Pacer) part(d time.Duration) time.Duration {
	return time.Duration(p.chance() * float64(d))
}

// upperHalf returns a random duration from half of d to d.
func (p *Pacer) upperHalf(d time.Duration) time.Duration { return d/2 + p.part(d/2) }

// A usual is what usually lies between two requests when all is well, 0 as long
// as that is not known. It is never more than longest: there is a heartbeat
// every minute.
type usual struct {
	mean time.Duration
	last time.Time
}

const longest = time.Minute

func (u *usual) note(now time.Time) {
	if !u.last.IsZero() {
		between := min(now.Sub(u.last), longest)
		if u.mean == 0 {
			u.mean = between
		}
		u.mean += (between - u.mean) / 4
	}
	u.last = now
}

// interrupt tells that what comes next is no interval between two requests.
func (u *usual) interrupt() { u.last = time.Time{} }

// retry is the longest pause after a first failure. With it a machine tries no
// more than twice as often as it usually sends.
func (u *usual) retry() time.Duration { return u.mean * 2 / 3 }

func orElse(d, otherwise time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return otherwise
}
