// Package sampling hands over what was measured at one moment. Such rows are
// worth little later: those that find no room in the spool in time are lost,
// and told to be, and the next ones are newer.
package sampling

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/openloganalytics/agent/agent/record"
	"github.com/openloganalytics/agent/agent/source"
)

// Patience is how long rows wait for room in the spool at most.
const Patience = 10 * time.Second

// Rows is what was measured at one moment.
type Rows struct {
	Table *record.Table
	At    time.Time
	Count int
	Size  func(row int) int                      // bytes of its values
	Fill  func(b *record.Batch, first, last int) // adds the rows from first to before last
	// Place is the source's checkpoint after the rows; no key is none.
	Place source.Checkpoint
}

// Emit hands the rows over, in as many portions as they need; the checkpoint
// goes with the last. It returns nil when they were taken, when patience was
// over and they are lost, and when ctx ended.
func Emit(ctx context.Context, out source.Emitter, r Rows, patience time.Duration) error {
	limit, cancel := context.WithTimeout(ctx, min(patience, Patience))
	defer cancel()
	for first := 0; first < r.Count; {
		last := r.portion(first)
		var places []source.Checkpoint
		if last == r.Count && r.Place.Key != "" {
			places = append(places, r.Place)
		}
		err := out.Emit(limit, r.Table, func(b *record.Batch) { r.Fill(b, first, last) }, places...)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, context.DeadlineExceeded):
			out.Lost(source.Loss{
				Reason: "spool-full", Class: r.Table.Name,
				Records: int64(r.Count - first), Bytes: r.size(first), First: r.At, Last: r.At,
			})
			return nil
		case err != nil:
			return fmt.Errorf("emit rows of %s: %w", r.Table.Name, err)
		}
		first = last
	}
	return nil
}

// portion returns the row after those that one Emit can take: one at least.
func (r Rows) portion(first int) int {
	room := source.MaxEmit - r.Size(first)
	last := first + 1
	for ; last < r.Count; last++ {
		if room -= r.Size(last); room < 0 {
			break
		}
	}
	return last
}

func (r Rows) size(first int) (bytes int64) {
	for row := first; row < r.Count; row++ {
		bytes += int64(r.Size(row))
	}
	return bytes
}
