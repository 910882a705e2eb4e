package upload

import (
	"bytes"
	"compress/flate"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/openloganalytics/agent/agent/record"
	"github.com/openloganalytics/agent/agent/spool"
)

// A delivery is what becomes of one batch that could not go as it is.
type delivery struct {
	uploader *Uploader
	id       spool.ID
	table    *record.Table
	outcome  spool.Outcome
	aside    int // rows set aside, logged once in the end
	damaged  bool
	why      string

	before, asideBefore int // of both when the present table's rows began
}

// envelopeRoom is what a body may hold beyond its rows.
const envelopeRoom = 4 << 10

// split delivers the rows of a body that the destination has refused as a
// whole, all but those at fault, which are set aside.
func (d *delivery) split(ctx context.Context, body []byte, batch *spool.Batch, whole Result) {
	rows, err := rowsIn(d.table, body, batch)
	if err != nil {
		d.setAside(body, fmt.Sprintf("%s, and it cannot be taken apart", whole.Why), batch.Rows)
		d.finish()
		return
	}
	if d.refused(ctx, rows, whole) {
		d.finish()
	} else {
		d.giveBack()
	}
}

// rowsIn takes a body apart.
func rowsIn(table *record.Table, body []byte, batch *spool.Batch) ([][]byte, error) {
	raw, err := record.Inflate(body, batch.Raw+envelopeRoom)
	if err != nil {
		return nil, err
	}
	rows, err := record.SplitRows(table, raw)
	if err == nil && len(rows) == 0 {
		err = errors.New("there is no row in it")
	}
	return rows, err
}

// maxAlone is how many rows of a batch are refused alone before it is clear
// that the fault is not theirs.
const maxAlone = 16

// hopeless reports whether the destination refuses whatever is in this batch:
// the table is at fault, not a row.
func (d *delivery) hopeless() bool {
	return d.outcome.Delivered == d.before && d.aside-d.asideBefore >= maxAlone
}

// send delivers rows of which nothing is known yet. It reports whether the
// destination took them all, and false for ok when ctx ended first.
func (d *delivery) send(ctx context.Context, rows [][]byte) (clean, ok bool) {
	if d.hopeless() {
		d.setAside(record.Body(d.table, rows), d.why, len(rows))
		return false, true
	}
	result, ok := d.attempts(ctx, rows)
	switch {
	case !ok:
		return false, false
	case result.Answer == Accepted:
		d.outcome.Delivered += len(rows)
		return true, true
	}
	return false, d.refused(ctx, rows, result)
}

// refused deals with rows that the destination did not take as they are: a
// single one is set aside, of more the halves are sent. One bad row among n
// costs at most 2·log2(n) + 1 requests, because where a clean half shows that
// the other is bad that is halved without asking. A row is set aside that was
// refused alone, and the rest of a batch of which nothing at all is taken.
func (d *delivery) refused(ctx context.Context, rows [][]byte, result Result) (ok bool) {
	if len(rows) == 1 || d.hopeless() {
		d.setAside(record.Body(d.table, rows), result.Why, len(rows))
		return true
	}
	half := len(rows) / 2
	first, second := rows[:half], rows[half:]
	clean, ok := d.send(ctx, first)
	if !ok {
		return false
	}
	if clean && result.Answer == Refused && len(second) > 1 {
		return d.refused(ctx, second, result)
	}
	_, ok = d.send(ctx, second)
	return ok
}

// attempts tries until the destination has answered to the rows themselves. It
// does not give the batch back in between: the part that is delivered already
// would be delivered again.
func (d *delivery) attempts(ctx context.Context, rows [][]byte) (Result, bool) {
	raw := envelopeRoom
	for _, row := range rows {
		raw += len(row) + 1
	}
	batch := Batch{ID: uint64(d.id), Table: d.table, Body: record.Body(d.table, rows), Rows: len(rows), Raw: raw}
	for {
		result, ok := d.uploader.try(ctx, batch)
		if !ok || (result.Answer != Retry && result.Answer != Hold) {
			return result, ok
		}
	}
}

// setAside keeps what the destination will never take, for a person to see.
func (d *delivery) setAside(body []byte, why string, rows int) {
	d.outcome.Refused += rows
	d.aside += rows
	d.why = why
	u := d.uploader
	if err := u.o.Queue.SetAside(u.name, d.id, body, why); err != nil {
		u.o.Log.Error("cannot keep refused rows", "destination", u.name, "batch", d.id, "rows", rows, "error", err)
	}
}

// salvage delivers what is left of a batch that the disk has damaged.
func (d *delivery) salvage(ctx context.Context, batch *spool.Batch) {
	d.damaged = true
	var rows [][]byte
	err := batch.Pieces(func(index int, p spool.Piece) bool {
		whole, err := rowsOf(index, p)
		if err != nil {
			d.setAside(p.Data, err.Error(), p.Rows)
		}
		rows = append(rows, whole...)
		return true
	})
	if err != nil {
		d.unreadable(ctx, err)
		return
	}
	if len(rows) > 0 {
		if !d.sendDated(ctx, rows) {
			d.giveBack()
			return
		}
	}
	d.uploader.o.Log.Error("a part of a batch was lost on the disk, the rest is delivered", "destination", d.uploader.name,
		"batch", d.id, "rows", batch.Rows, "left", len(rows))
	d.finish()
}

// rowsOf returns the rows in one piece of a body: deflate data that refers to
// nothing outside and has no end. The first piece begins with the zlib header
// and the table's envelope, every other one with a comma.
func rowsOf(index int, p spool.Piece) ([][]byte, error) {
	data, before := p.Data, ","
	if index == 0 && len(data) >= 2 {
		data, before = data[2:], "["
	}
	text, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(data)), int64(p.Raw)+1))
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("inflate piece of %d bytes: %w", len(p.Data), err)
	}
	_, list, _ := bytes.Cut(text, []byte(before))
	array := bytes.Join([][]byte{[]byte("["), list, []byte("]")}, nil)
	return record.SplitRows(new(record.Table), array)
}

// unreadable gives a batch back that the disk did not deliver, after a while in
// which the disk may recover.
func (d *delivery) unreadable(ctx context.Context, err error) {
	d.uploader.o.Log.Warn("cannot read a batch from the spool", "destination", d.uploader.name, "batch", d.id, "error", err)
	select {
	case <-ctx.Done():
	case <-time.After(baseDelay):
	}
	d.giveBack()
}

// giveBack ends the delivery without a change: the batch is taken again later.
func (d *delivery) giveBack() { d.uploader.o.Queue.Return(d.uploader.name, d.id) }

// finish moves the destination's cursor.
func (d *delivery) finish() {
	u := d.uploader
	if d.aside > 0 {
		u.o.Log.Warn("rows were refused and set aside", "destination", u.name, "batch", d.id, "rows", d.aside, "why", d.why)
	}
	if err := u.o.Queue.Done(u.name, d.id, d.outcome); err != nil {
		u.o.Log.Warn("a delivered batch may be delivered again after a crash", "destination", u.name, "batch", d.id, "error", err)
	}
	if u.o.OnLoss != nil && (d.aside > 0 || d.damaged) {
		name := ""
		if d.table != nil {
			name = d.table.Name
		}
		u.o.OnLoss(name)
	}
}
