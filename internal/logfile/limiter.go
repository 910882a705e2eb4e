package logfile

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
)

const (
	rate  = 10.0  // lines a second
	burst = 100.0 // lines at once
	// reserve is what is left after a burst, for messages not written lately.
	reserve = 20.0
	// lately is how long a message counts as seen, and how long a summary
	// waits for a further repeat.
	lately = 10 * time.Second
	// maxTexts bounds the messages told apart.
	maxTexts = 256
)

// limiter decides which lines are written: a token bucket for all of them.
// The zero limiter is full.
type limiter struct {
	mu    sync.Mutex
	spent float64 // tokens missing from a full bucket
	since time.Time
	texts map[string]*message
}

// message is what is known of one message text.
type message struct {
	level   logrus.Level // of the most severe line held back
	written time.Time
	heldAt  time.Time
	held    int
}

// heldBack says how many lines of one message were not written.
type heldBack struct {
	text  string
	level logrus.Level
	lines int
}

// String is the summary.
func (h heldBack) String() string {
	if h.text == "" {
		return fmt.Sprintf("suppressed %d lines of many messages", h.lines)
	}
	return fmt.Sprintf("suppressed %d repeats of %q", h.lines, h.text)
}

// take reports whether a line may be written now, and which summaries are to
// be written before it.
func (l *limiter) take(now time.Time, level logrus.Level, text string) (write bool, due []heldBack) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refill(now)
	m := l.message(text)
	need := 1.0
	if !m.written.IsZero() && now.Sub(m.written) < lately {
		need += reserve
	}
	if burst+reserve-l.spent < need {
		m.hold(now, level)
		return false, nil
	}
	m.written = now
	due = l.due(func(other *message) bool {
		return other == m || now.Sub(other.heldAt) >= lately
	})
	l.forget(now)
	l.spent += float64(1 + len(due))
	return true, due
}

// flush returns all summaries.
func (l *limiter) flush() []heldBack {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.due(func(*message) bool { return true })
}

// refill returns tokens for the time that passed. A clock that was set back
// earns nothing.
func (l *limiter) refill(now time.Time) {
	if passed := now.Sub(l.since).Seconds(); passed > 0 {
		l.spent = max(0, l.spent-passed*rate)
	}
	l.since = now
}

// message finds what is known of text; beyond maxTexts all share one entry.
func (l *limiter) message(text string) *message {
	if l.texts == nil {
		l.texts = make(map[string]*message)
	}
	if m := l.texts[text]; m != nil {
		return m
	}
	if len(l.texts) >= maxTexts {
		text = ""
	}
	if l.texts[text] == nil {
		l.texts[text] = new(message)
	}
	return l.texts[text]
}

func (m *message) hold(now time.Time, level logrus.Level) {
	if m.held == 0 || level < m.level { // logrus counts downwards
		m.level = level
	}
	m.held++
	m.heldAt = now
}

// due takes out the counts that want chooses, in the order of their texts.
func (l *limiter) due(want func(*message) bool) []heldBack {
	var due []heldBack
	for text, m := range l.texts {
		if m.held > 0 && want(m) {
			due = append(due, heldBack{text, m.level, m.held})
			m.held = 0
		}
	}
	slices.SortFunc(due, func(a, b heldBack) int { return strings.Compare(a.text, b.text) })
	return due
}

// forget drops the messages of which nothing needs to be known any more.
func (l *limiter) forget(now time.Time) {
	for text, m := range l.texts {
		if m.held == 0 && now.Sub(m.written) >= lately {
			delete(l.texts, text)
		}
	}
}
