package upload

import (
	"testing"
	"time"
)

// A course follows a pacer through attempts, each made as early as it may be.
type course struct {
	*Pacer
	now    time.Time
	chance float64
}

func newCourse() *course {
	c := &course{now: time.Unix(0, 0)}
	c.Pacer = NewPacer(func() float64 { return c.chance })
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

// TestQuickTries: the allowance covers an outage of half a minute, is used up
// then, and is earned back batch by batch.
func TestQuickTries(t *testing.T) {
	for _, chance := range []float64{0, 1} {
		c := newCourse()
		c.chance = chance
		want := quickDelay/2 + time.Duration(chance*float64(quickDelay/2))
		c.attempt(retry(0))
		for n := range quickTries {
			if got := c.attempt(retry(0)); got != want {
				t.Fatalf("pause %d is %v, want %v", n+1, got, want)
			}
			if n == quickTries-2 && chance == 1 && c.now.Sub(time.Unix(0, 0)) < 30*time.Second {
				t.Errorf("the allowance covers %v", c.now.Sub(time.Unix(0, 0)))
			}
		}
		if got, want := c.Wait(c.now), time.Duration(chance*float64(baseDelay)); got != want {
			t.Errorf("pause without allowance is %v, want %v", got, want)
		}
		c.attempt(accepted)
		c.attempt(accepted)
		c.attempt(retry(0))
		if got := c.attempt(retry(0)); got != want {
			t.Errorf("pause after two accepted batches is %v, want %v", got, want)
		}
		c.attempt(retry(0))
		if got, want := c.Wait(c.now), time.Duration(chance*float64(baseDelay)); got != want {
			t.Errorf("pause after three more failures is %v, want %v", got, want)
		}
	}
}

// TestFullJitter: from 0 to a ceiling that doubles up to five minutes and stays.
func TestFullJitter(t *testing.T) {
	for _, chance := range []float64{0, 0.5, 1} {
		c := newCourse()
		c.quick, c.chance = 0, chance
		c.attempt(retry(0))
		ceiling := baseDelay
		for n := range 10000 {
			if got, want := c.attempt(retry(0)), time.Duration(chance*float64(ceiling)); got != want {
				t.Fatalf("pause %d is %v, want %v", n+1, got, want)
			}
			ceiling = min(2*ceiling, maxDelay)
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
		{"less than the back-off", 20, time.Second, time.Second, maxDelay + time.Second},
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

// TestGapAfterAnOutage holds the rule: a thirtieth of the outage up to 20 s,
// varied by half, less by a quarter with each accepted batch, none below a
// second and none after a short outage.
func TestGapAfterAnOutage(t *testing.T) {
	tests := []struct {
		outage time.Duration
		first  time.Duration
		gaps   int // until there is none
	}{
		{59 * time.Second, 0, 0},
		{time.Minute, 2 * time.Second, 3},
		{5 * time.Minute, 10 * time.Second, 9},
		{100 * time.Hour, 20 * time.Second, 11},
	}
	for _, tt := range tests {
		for _, chance := range []float64{0, 1} {
			c := newCourse()
			c.chance = chance
			c.attempt(retry(0))
			c.now = c.now.Add(tt.outage)
			c.attempt(accepted)
			gap := tt.first
			for n := range tt.gaps + 2 {
				if n >= tt.gaps {
					gap = 0
				}
				want := gap/2 + time.Duration(chance*float64(gap))
				if wide := gap == 0; c.Wide() != wide {
					t.Errorf("after %v: gap %d allows two attempts at once: %v, want %v", tt.outage, n+1, c.Wide(), wide)
				}
				if got := c.attempt(accepted); got != want {
					t.Errorf("after %v: gap %d is %v, want %v", tt.outage, n+1, got, want)
				}
				gap = gap * 3 / 4
			}
		}
	}
}

func TestFailureWhileDrainingDoublesTheGap(t *testing.T) {
	c := newCourse()
	c.attempt(retry(0))
	c.now = c.now.Add(time.Hour)
	c.attempt(accepted) // 20 s
	for _, want := range []time.Duration{40 * time.Second, worstGap, worstGap} {
		quick := c.quick
		c.attempt(retry(0))
		if c.quick != quick {
			t.Error("a quick try was granted while draining")
		}
		c.attempt(accepted)
		if c.gap != want {
			t.Errorf("gap %v, want %v", c.gap, want)
		}
	}
	c.Idle()
	if c.gap != 0 || c.Wait(c.now) != 0 {
		t.Errorf("gap %v, pause %v without a backlog", c.gap, c.Wait(c.now))
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
