package logfile

import (
	"cmp"
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
)

const (
	rate  = 10.0  // lines a second
	burst = 100.0 // lines at once
	// period is how long a line counts as known: the same again is counted.
	period = time.Minute
	// maxKinds are told apart; their first lines and their summaries, a minute,
	// are less than the rate gives.
	maxKinds = 256
	// maxLines of a kind are written in one period.
	maxLines = 50
)

// A limiter decides which lines are written.
//
// Lines of one level and message are a kind. The first of a kind is always
// written and begins a period; a line that was written in it is not written
// again, and others of the kind are as long as the kind has lines left and the
// bucket of all kinds has tokens. At the end of the period a summary counts
// what was held back. So a flood of one kind hides no other. While nothing is
// held back no timer runs.
type limiter struct {
	ended func()
	seed  maphash.Seed

	mu     sync.Mutex
	spent  float64 // tokens missing from a full bucket; first lines and summaries overdraw it
	since  time.Time
	kinds  map[kindKey]*kind
	timer  *time.Timer // of the next summary; nil until there was one
	due    time.Time   // when it rings; zero when it does not
	closed bool
}

type kindKey struct {
	level logrus.Level
	text  string
}

// A kind is what is known of its present period.
type kind struct {
	began   time.Time
	lines   []uint64 // digests of those written
	repeats int      // of lines that were written
	others  int      // lines that were not written
}

func (k *kind) held() int { return k.repeats + k.others }

// heldBack says how many lines of one kind were not written.
type heldBack struct {
	level           logrus.Level
	text            string
	repeats, others int
	during          time.Duration
}

// String is the summary.
func (h heldBack) String() string {
	of := fmt.Sprintf("in the last %d s: %q", int(h.during.Round(time.Second).Seconds()), h.text)
	if h.text == "" {
		of = strings.TrimSuffix(of, `""`) + "many messages"
	}
	switch {
	case h.others == 0:
		return fmt.Sprintf("repeated %d times %s", h.repeats, of)
	case h.repeats == 0:
		return fmt.Sprintf("%d lines not written %s", h.others, of)
	}
	return fmt.Sprintf("repeated %d times, and %d other lines not written, %s", h.repeats, h.others, of)
}

// newLimiter returns a limiter that calls ended, in a goroutine of its own, when
// a period ends in which lines were held back.
func newLimiter(ended func()) *limiter {
	return &limiter{ended: ended, seed: maphash.MakeSeed(), kinds: map[kindKey]*kind{}}
}

// digest tells lines of one kind apart by their pairs.
func (l *limiter) digest(pairs logrus.Fields) uint64 {
	var sum uint64
	for key, value := range pairs { // in any order
		sum += maphash.String(l.seed, key+"="+fmt.Sprint(value))
	}
	return sum
}

// take reports whether a line may be written now, and which summary is to be
// written before it.
func (l *limiter) take(now time.Time, level logrus.Level, text string, line uint64) (write bool, before []heldBack) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refill(now)
	key := l.key(level, text)
	if k := l.kinds[key]; k != nil && now.Sub(k.began) < period {
		return l.another(k, line), nil
	}
	before = l.end(now, func(other kindKey, _ *kind) bool { return other == key })
	l.kinds[key] = &kind{began: now, lines: []uint64{line}}
	l.spent++
	return true, before
}

// another reports whether a further line of a kind may be written.
func (l *limiter) another(k *kind, line uint64) bool {
	switch {
	case slices.Contains(k.lines, line):
		k.repeats++
	case len(k.lines) < maxLines && l.spent+1 <= burst:
		k.lines = append(k.lines, line)
		l.spent++
		return true
	default:
		k.others++
	}
	l.arm(k.began.Add(period))
	return false
}

// key is the kind of a line. While maxKinds are known, the others share one for
// each level.
func (l *limiter) key(level logrus.Level, text string) kindKey {
	key := kindKey{level, text}
	if l.kinds[key] == nil && len(l.kinds) >= maxKinds {
		l.forget(l.since)
		if len(l.kinds) >= maxKinds {
			key.text = ""
		}
	}
	return key
}

// refill returns tokens for the time that passed.
func (l *limiter) refill(now time.Time) {
	l.spent = max(0, l.spent-now.Sub(l.since).Seconds()*rate)
	l.since = now
}

// arm makes the timer ring at due, unless it rings before. The caller holds mu.
func (l *limiter) arm(due time.Time) {
	switch {
	case l.closed || !l.due.IsZero() && !due.Before(l.due):
		return
	case l.timer == nil:
		l.timer = time.AfterFunc(time.Until(due), l.ended)
	default:
		l.timer.Reset(time.Until(due))
	}
	l.due = due
}

// over returns the summaries of the periods that are over, and sets the timer
// for the next one.
func (l *limiter) over(now time.Time) []heldBack {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refill(now)
	l.due = time.Time{}
	over := l.end(now, func(_ kindKey, k *kind) bool { return now.Sub(k.began) >= period })
	l.forget(now)
	for _, k := range l.kinds {
		if k.held() > 0 {
			l.arm(k.began.Add(period))
		}
	}
	return over
}

// close returns all summaries and stops the timer.
func (l *limiter) close(now time.Time) []heldBack {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.timer != nil {
		l.timer.Stop()
	}
	return l.end(now, func(kindKey, *kind) bool { return true })
}

// end takes out the counts of the kinds that want chooses, in order of their
// texts.
func (l *limiter) end(now time.Time, want func(kindKey, *kind) bool) []heldBack {
	var held []heldBack
	for key, k := range l.kinds {
		if k.held() > 0 && want(key, k) {
			held = append(held, heldBack{key.level, key.text, k.repeats, k.others, now.Sub(k.began)})
			k.repeats, k.others = 0, 0
		}
	}
	l.spent += float64(len(held))
	slices.SortFunc(held, func(a, b heldBack) int {
		return cmp.Or(strings.Compare(a.text, b.text), cmp.Compare(a.level, b.level))
	})
	return held
}

// forget drops the kinds of which nothing needs to be known any more.
func (l *limiter) forget(now time.Time) {
	maps.DeleteFunc(l.kinds, func(_ kindKey, k *kind) bool { return k.held() == 0 && now.Sub(k.began) >= period })
}
