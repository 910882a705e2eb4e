package agent

import (
	"context"
	"fmt"
	"maps"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/openloganalytics/agent/agent/ledger"
	"github.com/openloganalytics/agent/agent/record"
	"github.com/openloganalytics/agent/agent/source"
	"github.com/openloganalytics/agent/agent/transform"
)

// Back-off of a source that failed: doubled from the first to the last, and
// begun anew once the source has run for long enough.
const (
	firstRestart = time.Second
	lastRestart  = 5 * time.Minute
)

// A running is one source at work: its Emitter and what status says of it.
type running struct {
	source  source.Source
	intake  *intake
	changed func()
	again   bool // something of its name has run before, in this life

	// Of the roster.
	part part
	stop context.CancelFunc
	done chan struct{} // closed at its end

	mu       sync.Mutex
	origin   string
	state    string
	message  string
	troubles map[string]string
}

func newRunning(s source.Source, in *intake, changed func()) *running {
	return &running{source: s, intake: in, changed: changed, state: SourceRunning, troubles: map[string]string{}}
}

// run keeps the source going until ctx ends.
func (r *running) run(ctx context.Context) {
	wait := firstRestart
	for {
		started := time.Now()
		err := r.once(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(started) > lastRestart {
			wait = firstRestart
		}
		r.intake.log.Error("source failed and is started again", "source", r.source.Name(), "error", err, "wait", wait)
		r.set(SourceRestarting, fmt.Sprintf("failed: %v; it is started again in %v", err, wait))
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = min(2*wait, lastRestart)
		r.set(SourceRunning, "")
	}
}

// once runs the source and turns a panic into an error: one source's fault is
// not every source's end. What was emitted before is durable first: the source
// goes on from the last durable place.
func (r *running) once(ctx context.Context) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
			r.intake.log.Error("source panicked", "source", r.source.Name(), "stack", string(debug.Stack()))
		}
	}()
	if r.again {
		if err := r.Flush(ctx); err != nil {
			return err
		}
	}
	r.again = true
	if err := r.source.Run(ctx, r); err != nil {
		return err
	}
	return fmt.Errorf("source ended by itself")
}

func (r *running) set(state, message string) {
	r.mu.Lock()
	r.state, r.message = state, message
	r.mu.Unlock()
	r.changed()
}

func (r *running) setOrigin(origin string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.origin = origin
}

// Emit implements source.Emitter.
func (r *running) Emit(ctx context.Context, table *record.Table, fill func(*record.Batch), at ...source.Checkpoint) error {
	return r.intake.emit(ctx, r.source.Name(), table, fill, at)
}

// Flush implements source.Emitter.
func (r *running) Flush(ctx context.Context) error { return r.intake.flush(ctx) }

// Checkpoint implements source.Emitter.
func (r *running) Checkpoint(key string) []byte { return r.intake.spool.Checkpoint(key) }

// Checkpoints implements source.Emitter.
func (r *running) Checkpoints(prefix string, yield func(string, []byte) bool) {
	r.intake.spool.Checkpoints(prefix, yield)
}

// Lost implements source.Emitter.
func (r *running) Lost(loss source.Loss) {
	r.intake.log.Warn("records lost", "source", r.source.Name(), "reason", loss.Reason, "class", loss.Class, "records", loss.Records, "bytes", loss.Bytes)
	r.intake.lost(r.source.Name(), loss)
}

// maxTroubles and maxTrouble bound what one source can say of itself: anybody
// who may put files where one looks can make trouble.
const (
	maxTroubles = 50
	maxTrouble  = 500 // bytes
)

func shorten(text string) string {
	if len(text) > maxTrouble {
		return strings.ToValidUTF8(text[:maxTrouble], "") + "…"
	}
	return text
}

// Trouble implements source.Emitter.
func (r *running) Trouble(thing, text string) {
	r.mu.Lock()
	known := r.troubles[thing]
	switch {
	case text == "":
		delete(r.troubles, thing)
	case len(r.troubles) >= maxTroubles && known == "":
		thing, text = "more", fmt.Sprintf("more than %d things are in trouble; the log names more of them", maxTroubles)
		known = r.troubles[thing]
		r.troubles[thing] = text
	default:
		r.troubles[thing] = shorten(text)
	}
	r.mu.Unlock()
	if known == text {
		return
	}
	if text != "" {
		r.intake.log.Warn("trouble", "source", r.source.Name(), "thing", thing, "text", text)
	}
	r.changed()
}

// health is how the source is doing; l has its counts.
func (r *running) health(l *ledger.Ledger) SourceHealth {
	read, dropped := l.Source(r.source.Name())
	r.mu.Lock()
	defer r.mu.Unlock()
	h := SourceHealth{
		Name: r.source.Name(), Origin: r.origin, State: r.state, Message: r.message,
		Read: read, Dropped: dropped, Troubles: maps.Clone(r.troubles),
	}
	if t, is := r.source.(*transform.Source); is {
		h.Filtered, h.Redacted = t.Filtered(), t.Redacted()
	}
	return h
}
