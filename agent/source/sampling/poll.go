package sampling

import (
	"context"
	"fmt"
	"time"

	"github.com/openloganalytics/agent/agent/record"
	"github.com/openloganalytics/agent/agent/source"
)

// A Poll asks an application for its counters at an interval.
type Poll struct {
	SourceName string        // see source.Source
	Interval   time.Duration // a second or more
	Computer   string        // short host name, column Host
	// Ask returns what the application says at a moment. An error says what is
	// wrong and what to do; it becomes a trouble of the source, and what came
	// with it is taken all the same. What is a rate needs two answers.
	Ask func(ctx context.Context, at time.Time) ([]Counters, error)
	// Close ends the connection to the application; nil when there is none.
	Close func() error
}

// askPatience is how long an application may take to answer.
const askPatience = 10 * time.Second

// Source returns the source of these counters.
func (p Poll) Source() source.Source { return &poll{Poll: p, table: Table()} }

type poll struct {
	Poll
	table *record.Table
}

// Name implements source.Source.
func (p *poll) Name() string { return p.SourceName }

// Run implements source.Source. The application is asked once at the start, for
// the rates, and its counters are emitted from one interval later on.
func (p *poll) Run(ctx context.Context, out source.Emitter) (err error) {
	if p.Close != nil {
		defer func() {
			if closed := p.Close(); closed != nil && err == nil && ctx.Err() == nil {
				err = fmt.Errorf("close the connection of %s: %w", p.SourceName, closed)
			}
		}()
	}
	now := time.Now()
	due := now.Add(p.Interval)
	_ = p.ask(ctx, now, out) // the first answer only begins the rates
	for {
		timer := time.NewTimer(time.Until(due))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		now = time.Now()
		counters := p.ask(ctx, now, out)
		for !due.After(now) {
			due = due.Add(p.Interval)
		}
		if err := Emit(ctx, out, Of(p.table, now, p.Computer, counters), p.Interval/2); err != nil {
			return err
		}
	}
}

// ask asks the application and tells what is wrong with it.
func (p *poll) ask(ctx context.Context, at time.Time, out source.Emitter) []Counters {
	asking, cancel := context.WithTimeout(ctx, min(askPatience, p.Interval))
	defer cancel()
	counters, err := p.Ask(asking, at)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		out.Trouble(p.SourceName, err.Error())
	default:
		out.Trouble(p.SourceName, "")
	}
	return counters
}
