package upload

import (
	"context"
	"time"

	"github.com/openloganalytics/agent/agent/record"
	"github.com/openloganalytics/agent/agent/spool"
)

// maxAge is how old the service lets a row be that keeps its time: two days,
// less what a request takes. Rows that are older, or a day ahead, are filed
// under the time of their arrival.
//
// How old a row is tells the clock that gave it its time. By the service's clock
// all rows of a machine would be out of range whose own is wrong by days, and
// for those the arrival is the better time.
const maxAge = 48*time.Hour - 10*time.Minute

func late(at time.Time) bool { return time.Since(at) > maxAge }

// redated reports whether rows of the batch would lose their own time: it is
// old, and its table has no other column for that.
func (d *delivery) redated(batch *spool.Batch) bool {
	return !d.table.KeepsTime() && late(batch.Since)
}

// deliverLate delivers a batch of which rows may have lost their time.
func (d *delivery) deliverLate(ctx context.Context, body []byte, batch *spool.Batch) {
	rows, err := rowsIn(d.table, body, batch)
	if err != nil {
		d.setAside(body, err.Error(), batch.Rows)
		d.finish()
		return
	}
	if d.sendDated(ctx, rows) {
		d.finish()
	} else {
		d.giveBack()
	}
}

// sendDated delivers rows: those whose time the service would replace to a
// table beside their own, which keeps it, and the others as they are. It
// reports false when ctx ended first.
func (d *delivery) sendDated(ctx context.Context, rows [][]byte) (ok bool) {
	fresh, old := rows, [][]byte(nil)
	if !d.table.KeepsTime() {
		fresh = nil
		for _, row := range rows {
			if at, known := record.TimeOf(row); known && late(at) {
				old = append(old, row)
			} else {
				fresh = append(fresh, row)
			}
		}
	}
	own := d.table
	for _, part := range []struct {
		table *record.Table
		rows  [][]byte
	}{{own, fresh}, {own.Late(), old}} {
		if len(part.rows) == 0 {
			continue
		}
		d.table, d.before, d.asideBefore = part.table, d.outcome.Delivered, d.aside
		if _, ok := d.send(ctx, part.rows); !ok {
			return false
		}
	}
	return true
}
