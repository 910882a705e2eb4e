package upload

import "time"

// How a backlog is sent after an outage of patience or longer.
//
// A machine first goes slowly, by slow gaps: not much faster than it would have
// sent the backlog without the outage, so that a fleet that is back as a whole
// asks for little more than usual. It waits for its turn: a moment drawn from
// turns of the outage, counted from the last failure and so from a moment at which the
// outage was not over yet. From then on it goes fast: each accepted batch takes three
// tenths off the gap. With a service that takes three times what the fleet makes
// about as many turns begin as there is room for.
//
// A failure while it goes fast says that there was no room. It goes slowly
// again and waits for another turn, behind all that were given out; from the
// third time on each wait may be twice as long. A failure while it goes slowly
// doubles the gap, which shrinks again by a tenth with each accepted batch.
// Three failures in a row are another outage.
//
// docs/decisions/0010 has the reasons and what they cost a machine that is alone.
const (
	patience = time.Minute

	turns      = 0.55 // of the outage
	latestTurn = 90 * time.Minute
	nextTurns  = 0.05 // of the time since the outage began

	ahead   = 1.3 // of what the machine makes is sent with slow gaps
	fairGap = 20 * time.Second
	maxGap  = time.Minute
	minGap  = 100 * time.Millisecond // less is none

	freshOutage = 3 // failures in a row
)

// A drain is how far the sending of a backlog has come. The zero value is none.
type drain struct {
	turn   time.Time // from then on it is sent fast
	last   time.Time // of all turns given out so far
	slow   time.Duration
	gap    time.Duration // at present
	struck int           // failures while it was sent fast
	fast   bool
}

func (d *drain) active() bool { return !d.turn.IsZero() }

// afterBatch returns when the next attempt may begin after a batch that was
// accepted while there is a backlog, and after so many failures in a row.
func (p *Pacer) afterBatch(now time.Time, failures int) time.Time {
	d, lag := &p.drain, now.Sub(p.behind)
	switch {
	case !d.active() && (failures == 0 || lag < patience):
		return time.Time{}
	case !d.active() || failures >= freshOutage:
		p.takeTurn(now, lag)
	case failures > 0 && d.fast:
		p.takeAnotherTurn(now, lag)
	case failures > 0:
		d.slow = p.slowGap(lag)
		d.gap = min(max(2*d.gap, d.slow), 8*d.slow)
	case now.Before(d.turn):
		d.gap = max(d.gap*9/10, d.slow)
	default:
		d.hurry()
	}
	next := now.Add(d.gap/2 + p.part(d.gap))
	if d.gap == d.slow && now.Before(d.turn) && d.turn.Before(next) {
		return d.turn
	}
	return next
}

// takeTurn draws the first turn after an outage.
func (p *Pacer) takeTurn(now time.Time, lag time.Duration) {
	last := later(p.failed.Add(turnsAfter(lag)+p.usual.mean/2), now)
	p.goSlowly(now.Add(p.part(last.Sub(now))), last, lag)
}

// takeAnotherTurn draws a turn from those that come after all given out so far.
func (p *Pacer) takeAnotherTurn(now time.Time, lag time.Duration) {
	window := scale(lag, nextTurns) + p.usual.mean/2
	for range p.drain.struck - 1 {
		window = min(2*window, turnsAfter(lag))
	}
	from := later(p.drain.last, now)
	last := from.Add(window)
	if latest := now.Add(turnsAfter(lag)); last.After(latest) {
		last = latest
	}
	p.drain.struck++
	p.goSlowly(from.Add(p.part(window)), last, lag)
}

func (p *Pacer) goSlowly(turn, last time.Time, lag time.Duration) {
	d := &p.drain
	d.turn, d.last, d.fast = turn, last, false
	d.slow = p.slowGap(lag)
	d.gap = d.slow
}

// hurry makes the gap smaller, down to a twenty-fifth of the slow one.
func (d *drain) hurry() {
	if d.fast {
		d.gap = max(d.gap*7/10, d.slow/25)
	} else {
		d.fast, d.gap = true, d.slow/4
	}
	if d.gap < minGap {
		d.gap = 0
	}
}

// slowGap is what lies between two requests that together send a little more
// than the machine makes. It is at most fairGap for a machine that usually sends
// more often than that, so that a few batches do not take long.
func (p *Pacer) slowGap(lag time.Duration) time.Duration {
	made := p.sent + max(1, p.backlog())
	return min(scale(lag, 1/(ahead*float64(made))), max(p.usual.mean, fairGap), maxGap)
}

// turnsAfter is how long the turns last after an outage.
func turnsAfter(outage time.Duration) time.Duration {
	return min(scale(outage, turns), latestTurn)
}

func scale(d time.Duration, by float64) time.Duration { return time.Duration(float64(d) * by) }

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
