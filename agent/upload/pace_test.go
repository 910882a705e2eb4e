package upload

import (
	"testing"
	"time"
)

// A course follows a pacer through attempts, each made as early as it may be.
type course struct {
	*Pacer
	now     time.Time
	chance  float64
	waiting int // batches
}

func newCourse() *course {
	c := &course{now: time.Unix(0, 0)}
	c.Pacer = NewPacer(func() float64 { return c.chance }, func() int { return c.waiting })
	return c
}

// attempt waits and makes an attempt; it returns how long it waited.
func (c *course) attempt(r Result) time.Duration {
	wait := c.Wait(c.now)
	c.now = c.now.Add(wait)
	c.Answered(c.Begin(), c.now, r)
	return wait
}

func retry(after time.Duration) Result { return Result{Answer: Retry, RetryAfter: after} }

var accepted = Result{Answer: Accepted}

// between returns the duration that chance picks from a range.
func (c *course) between(from, to time.Duration) time.Duration {
	return from + time.Duration(c.chance*float64(to-from))
}

// backOff is what the pause has to be now, without a Retry-After.
func (c *course) backOff() time.Duration {
	ceiling := min(max(c.now.Sub(c.Since())/4, baseDelay), maxDelay)
	return ceiling/2 + time.Duration(c.chance*float64(ceiling/2))
}

// TestQuickTries: the allowance covers an outage of half a minute, is used up
// then, and is earned back batch by batch.
func TestQuickTries(t *testing.T) {
	for _, chance := range []float64{0, 1} {
		c := newCourse()
		c.chance = chance
		want := c.between(quickDelay/2, quickDelay)
		c.attempt(retry(0))
		for n := range quickTries {
			if got := c.attempt(retry(0)); got != want {
				t.Fatalf("pause %d is %v, want %v", n+1, got, want)
			}
			if n == quickTries-2 && chance == 1 && c.now.Sub(time.Unix(0, 0)) < 30*time.Second {
				t.Errorf("the allowance covers %v", c.now.Sub(time.Unix(0, 0)))
			}
		}
		if got, want := c.Wait(c.now), c.backOff(); got != want {
			t.Errorf("pause without allowance is %v, want %v", got, want)
		}
		c.attempt(accepted)
		c.Idle()
		c.attempt(accepted)
		c.attempt(retry(0))
		if got := c.attempt(retry(0)); got != want {
			t.Errorf("pause after two accepted batches is %v, want %v", got, want)
		}
		c.attempt(retry(0))
		if got, want := c.Wait(c.now), c.backOff(); got != want {
			t.Errorf("pause after three more failures is %v, want %v", got, want)
		}
	}
}

// TestQuickTriesAreForTheBusy: a machine tries about as often as it sends, and
// a machine that sends once a minute, or less often, pauses up to 40 s.
func TestQuickTriesAreForTheBusy(t *testing.T) {
	tests := []struct{ every, shortest, longest time.Duration }{
		{450 * time.Millisecond, time.Second, 2 * time.Second},
		{3 * time.Second, time.Second, 2 * time.Second},
		{6 * time.Second, 2500 * time.Millisecond, 5 * time.Second},
		{30 * time.Second, 10 * time.Second, 20 * time.Second},
		{time.Minute, 20 * time.Second, 40 * time.Second},
		{time.Hour, 20 * time.Second, 40 * time.Second},
	}
	for _, tt := range tests {
		for chance, want := range map[float64]time.Duration{0: tt.shortest, 1: tt.longest} {
			c := newCourse()
			c.chance = chance
			for range 30 {
				c.attempt(accepted)
				c.Idle()
				c.now = c.now.Add(tt.every)
			}
			c.attempt(retry(0))
			if got := c.Wait(c.now); got != want {
				t.Errorf("a batch every %v: pause %v, want %v", tt.every, got, want)
			}
		}
	}
}

// TestBackOff: the upper half of a quarter of the outage, from baseDelay to five
// minutes, for ever.
func TestBackOff(t *testing.T) {
	for _, chance := range []float64{0, 0.5, 1} {
		c := newCourse()
		c.quick, c.chance = 0, chance
		c.attempt(retry(0))
		for n := range 10000 {
			want := c.backOff()
			if got := c.attempt(retry(0)); got != want {
				t.Fatalf("pause %d is %v, want %v", n+1, got, want)
			}
		}
		if got := c.Wait(c.now); got < maxDelay/2 || got > maxDelay {
			t.Errorf("pause %v in the end", got)
		}
	}
}

func TestRetryAfterIsHonoured(t *testing.T) {
	tests := []struct {
		name           string
		failures       int // before
		after          time.Duration
		shortest, most time.Duration
	}{
		{"at first", 0, time.Minute, time.Minute, 2 * time.Minute},
		{"less than the back-off", 20, time.Second, baseDelay / 2, baseDelay + time.Second},
		{"more than the back-off", 20, time.Hour, time.Hour, 2 * time.Hour},
	}
	for _, tt := range tests {
		for _, chance := range []float64{0, 1} {
			c := newCourse()
			c.quick, c.chance = 0, chance
			for range tt.failures {
				c.attempt(retry(0))
			}
			c.quick = quickTries
			c.attempt(retry(tt.after))
			want := tt.shortest
			if chance == 1 {
				want = tt.most
			}
			if got := c.Wait(c.now); got != want {
				t.Errorf("%s: pause %v, want %v", tt.name, got, want)
			}
		}
	}
}

func TestHold(t *testing.T) {
	c := newCourse()
	c.attempt(Result{Answer: Hold})
	for range 100 {
		if got := c.attempt(Result{Answer: Hold}); got != 15*time.Minute {
			t.Fatalf("pause %v, want 15m", got)
		}
	}
	c.attempt(Result{Answer: Hold, RetryAfter: time.Hour})
	if got := c.Wait(c.now); got != time.Hour {
		t.Errorf("pause %v, want 1h", got)
	}
	c.Wake()
	if got := c.Wait(c.now); got != 0 {
		t.Errorf("pause %v after Wake", got)
	}
}

// afterHour returns a course at the moment at which the first batch is accepted
// after an outage of an hour, with so many batches waiting.
func afterHour(chance float64, waiting int) *course {
	c := newCourse()
	c.chance, c.waiting = chance, waiting
	c.attempt(retry(0))
	c.now = c.now.Add(time.Hour)
	c.attempt(retry(0))
	c.attempt(accepted)
	return c
}

// TestShortOutageLeavesNoGap: there is no turn to wait for.
func TestShortOutageLeavesNoGap(t *testing.T) {
	c := newCourse()
	c.waiting = 50
	c.attempt(retry(0))
	c.now = c.now.Add(patience - time.Second)
	c.attempt(accepted)
	if got := c.Wait(c.now); got != 0 || !c.Wide() {
		t.Errorf("pause %v, two attempts at once: %v", got, c.Wide())
	}
}

// TestSlowGap: a machine sends a little more than it makes, a few batches within
// minutes, and something every minute.
func TestSlowGap(t *testing.T) {
	tests := []struct {
		waiting int
		usual   time.Duration
		want    time.Duration
	}{
		{1, time.Minute, time.Minute},
		{1, time.Second, 20 * time.Second},
		{5, 30 * time.Second, 30 * time.Second},
		{60, time.Minute, 46 * time.Second},
		{600, time.Second, 4600 * time.Millisecond},
	}
	for _, tt := range tests {
		c := newCourse()
		c.waiting, c.usual.mean = tt.waiting, tt.usual
		if got := c.slowGap(time.Hour); got.Round(100*time.Millisecond) != tt.want && got.Round(time.Second) != tt.want {
			t.Errorf("%d batches, usually one every %v: gap %v, want %v", tt.waiting, tt.usual, got, tt.want)
		}
	}
}

// TestTurns: they are spread over eleven twentieths of the outage from the last
// failure on, and over an hour and a half at most.
func TestTurns(t *testing.T) {
	for _, chance := range []float64{0, 0.5, 1} {
		c := afterHour(chance, 100)
		pause := c.now.Sub(c.failed)
		window := turnsAfter(c.now.Sub(c.behind)) - pause
		if got, want := c.drain.turn.Sub(c.now), time.Duration(chance*float64(window)); got != want {
			t.Errorf("the turn comes after %v, want %v", got, want)
		}
	}
	for outage, want := range map[time.Duration]time.Duration{time.Hour: 33 * time.Minute, 1000 * time.Hour: 90 * time.Minute} {
		if got := turnsAfter(outage); got != want {
			t.Errorf("the turns of an outage of %v last %v, want %v", outage, got, want)
		}
	}
}

// TestDrain: slow gaps, varied by half, until the turn; then each is three
// tenths shorter, down to a twenty-fifth.
func TestDrain(t *testing.T) {
	for _, chance := range []float64{0.25, 0.5, 0.75} {
		c := afterHour(chance, 100)
		slow, turn := c.slowGap(c.now.Sub(c.behind)), c.drain.turn
		varied := func(gap time.Duration) time.Duration { return c.between(gap/2, gap*3/2).Round(time.Millisecond) }
		for c.now.Before(turn) {
			want := min(varied(slow), turn.Sub(c.now))
			if got := c.attempt(accepted).Round(time.Millisecond); got != want.Round(time.Millisecond) {
				t.Fatalf("pause %v, want %v, %v before the turn", got, want, turn.Sub(c.now))
			}
		}
		gap := slow / 4
		for n := range 20 {
			if got, want := c.attempt(accepted).Round(time.Millisecond), varied(gap); got != want {
				t.Fatalf("fast pause %d is %v, want %v", n+1, got, want)
			}
			gap = max(gap*7/10, slow/25)
		}
		c.Idle()
		if c.Wait(c.now) != 0 || !c.Wide() {
			t.Errorf("pause %v without a backlog, two attempts at once: %v", c.Wait(c.now), c.Wide())
		}
	}
}

// fast goes on until the turn has come.
func (c *course) fast() *course {
	for !c.drain.fast {
		c.attempt(accepted)
	}
	return c
}

// TestFailureWhileGoingFast: slow gaps again, and a turn behind all others.
func TestFailureWhileGoingFast(t *testing.T) {
	c := afterHour(0.5, 100)
	var windows []time.Duration
	for range 5 {
		before := c.fast().drain.last
		quick := c.quick
		c.attempt(retry(0))
		if c.quick < quick {
			t.Error("a quick try was granted while draining")
		}
		c.attempt(accepted)
		if c.drain.fast || c.drain.gap != c.drain.slow || c.drain.turn.Before(before) {
			t.Errorf("gap %v, slow %v; the turn comes %v after the others", c.drain.gap, c.drain.slow, c.drain.turn.Sub(before))
		}
		windows = append(windows, c.drain.last.Sub(later(before, c.now)))
	}
	for i, w := range windows {
		if twice := 2 * windows[max(0, i-1)]; i < 2 && w > 6*time.Minute || i >= 2 && w < twice*9/10 {
			t.Errorf("windows %v, want two of some minutes and then each twice as long", windows)
		}
	}
}

// TestFailureWhileGoingSlowly doubles the gap, which shrinks again; the turn stays.
func TestFailureWhileGoingSlowly(t *testing.T) {
	c := afterHour(0.99, 100)
	turn := c.drain.turn
	c.attempt(retry(0))
	c.attempt(accepted)
	if got, want := c.drain.gap, 2*c.drain.slow; got.Round(time.Second) != want.Round(time.Second) {
		t.Errorf("gap %v, want %v", got, want)
	}
	for range 8 {
		c.attempt(accepted)
	}
	if c.drain.gap != c.drain.slow || c.drain.turn != turn {
		t.Errorf("gap %v, want %v; the turn moved by %v", c.drain.gap, c.drain.slow, c.drain.turn.Sub(turn))
	}
	for range 100 {
		c.attempt(retry(0))
		c.attempt(accepted)
		if c.drain.gap > 8*c.drain.slow {
			t.Fatalf("gap %v, slow %v", c.drain.gap, c.drain.slow)
		}
		if c.drain.fast {
			return
		}
	}
}

// TestAnotherOutageWhileDraining: three failures in a row are one, and the turn
// is drawn anew.
func TestAnotherOutageWhileDraining(t *testing.T) {
	c := afterHour(0.5, 100).fast()
	for range freshOutage {
		c.attempt(retry(0))
	}
	c.attempt(accepted)
	if want := turnsAfter(c.now.Sub(c.behind)) / 4; c.drain.turn.Sub(c.now) < want {
		t.Errorf("the turn comes after %v, want at least %v", c.drain.turn.Sub(c.now), want)
	}
}

// TestServiceSpeaksAgain: when a Retry-After comes after failures without, the
// pause is no longer by how long there was none.
func TestServiceSpeaksAgain(t *testing.T) {
	c := newCourse()
	c.chance = 1
	c.attempt(retry(0))
	c.now = c.now.Add(time.Hour)
	c.attempt(retry(time.Minute))
	if got := c.Wait(c.now); got != 2*time.Minute {
		t.Errorf("pause %v, want 2m", got)
	}
	c.now = c.now.Add(time.Hour)
	c.attempt(retry(time.Minute))
	if got := c.Wait(c.now); got != maxDelay+time.Minute {
		t.Errorf("pause %v, want %v", got, maxDelay+time.Minute)
	}
}

func TestIdleEndsNoPause(t *testing.T) {
	c := newCourse()
	c.attempt(Result{Answer: Hold})
	c.Idle()
	if got := c.Wait(c.now); got != holdDelay {
		t.Errorf("pause %v, want %v", got, holdDelay)
	}
}

// TestTwoAtOnce: of two attempts that were under way together the second says
// nothing new once the first has failed.
func TestTwoAtOnce(t *testing.T) {
	c := newCourse()
	c.quick, c.chance = 0, 1
	first, second, third := c.Begin(), c.Begin(), c.Begin()
	c.Answered(first, c.now, retry(0))
	c.now = c.now.Add(time.Second)
	c.Answered(second, c.now, retry(0))
	if c.Failures() != 1 || c.Wait(c.now) != baseDelay-time.Second {
		t.Errorf("%d failures, pause %v", c.Failures(), c.Wait(c.now))
	}
	c.Answered(third, c.now, accepted)
	if c.Failures() != 1 || c.Wait(c.now) != baseDelay-time.Second {
		t.Errorf("%d failures, pause %v", c.Failures(), c.Wait(c.now))
	}
	c.Answered(third, c.now, retry(time.Minute))
	if got := c.Wait(c.now); got < time.Minute {
		t.Errorf("pause %v: the server's wish for a minute is forgotten", got)
	}
}

func TestRefusalsShowThatAllIsWell(t *testing.T) {
	for _, answer := range []Answer{Refused, TooLarge} {
		c := newCourse()
		c.attempt(retry(0))
		c.attempt(Result{Answer: answer})
		if c.Failures() != 0 || !c.Since().IsZero() || c.Wait(c.now) != 0 || c.quick != quickTries-1 {
			t.Errorf("after answer %d: %d failures since %v, pause %v, allowance %d", answer, c.Failures(), c.Since(), c.Wait(c.now), c.quick)
		}
	}
}
