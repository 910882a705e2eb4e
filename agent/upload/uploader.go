package upload

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/openloganalytics/agent/agent/record"
	"github.com/openloganalytics/agent/agent/spool"
	"github.com/openloganalytics/agent/internal/logfile"
)

// Options is what an Uploader is made of.
type Options struct {
	Destination Destination
	Queue       *spool.Spool
	Log         *logfile.Logger
	// OnLoss is called after rows for the table were refused for good or found
	// damaged, with the table's name or "" when even that is damaged; nil calls
	// nobody.
	OnLoss func(table string)
}

// An Uploader brings the batches of the spool to one destination, oldest
// first, for as long as it takes. It has one request under way, two while
// there is a backlog and the destination is well, and pauses as Pacer says.
type Uploader struct {
	o    Options
	name string

	mu       sync.Mutex
	pacer    *Pacer
	backlog  bool                // the last batch was there before it was asked for
	inFlight int                 // attempts under way
	told     map[string]struct{} // causes logged since the outage began
	tooLarge tooLarge
	changed  chan struct{} // closed, and replaced, when a lane should look again
}

// New returns an uploader.
func New(o Options) *Uploader {
	u := &Uploader{
		o: o, name: o.Destination.Name(),
		told:    map[string]struct{}{},
		changed: make(chan struct{}),
	}
	u.pacer = NewPacer(rand.Float64, u.waiting) // chance spreads machines in time, guards nothing
	return u
}

// waiting returns how many batches wait for the destination.
func (u *Uploader) waiting() int {
	for _, d := range u.o.Queue.Stats().Destinations {
		if d.Name == u.name {
			return d.WaitingBatches
		}
	}
	return 0
}

// Run delivers until ctx ends or the spool is closed. An attempt under way
// then is cut short; its batch is delivered again by the next Run.
func (u *Uploader) Run(ctx context.Context) {
	var lanes sync.WaitGroup
	lanes.Go(func() { u.lane(ctx, u.mayStart, never) })
	lanes.Go(func() { u.lane(ctx, u.mayHelp, atOnce) })
	lanes.Wait()
}

// Wake ends a pause at once: the destination is known to be well again.
func (u *Uploader) Wake() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.pacer.Wake()
	u.look()
}

// never is how long a lane waits for what time alone does not bring.
const never = 24 * time.Hour

// mayStart returns how long until an attempt may begin, 0 for now. The caller
// holds mu.
func (u *Uploader) mayStart() time.Duration {
	if u.inFlight > 0 && (u.inFlight > 1 || !u.pacer.Wide()) {
		return never
	}
	return u.pacer.Wait(time.Now())
}

// mayHelp is mayStart for the lane that works only while there is a backlog.
func (u *Uploader) mayHelp() time.Duration {
	if !u.backlog || !u.pacer.Wide() {
		return never
	}
	return u.mayStart()
}

// atOnce is within what the spool hands out a batch that is there already.
const atOnce = 5 * time.Millisecond

// lane takes batches while may allows it, one after the other, and waits for
// each no longer than patience before it asks may again. It takes none during a
// pause: until a batch is taken, new rows still join it.
func (u *Uploader) lane(ctx context.Context, may func() time.Duration, patience time.Duration) {
	var body []byte // grown once, used for each batch
	for u.await(ctx, may, func() {}) {
		asked := time.Now()
		batch, err := u.next(ctx, patience)
		u.noteBacklog(time.Since(asked) < atOnce)
		switch {
		case errors.Is(err, context.DeadlineExceeded):
		case err != nil:
			u.ended(ctx, err)
			return
		default:
			body = u.deliver(ctx, batch, body[:0])
		}
	}
}

func (u *Uploader) next(ctx context.Context, patience time.Duration) (*spool.Batch, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return u.o.Queue.Next(ctx, u.name)
}

func (u *Uploader) noteBacklog(backlog bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.backlog = backlog
	if !backlog {
		u.pacer.Idle()
	}
	u.look()
}

func (u *Uploader) ended(ctx context.Context, err error) {
	if ctx.Err() == nil && !errors.Is(err, spool.ErrClosed) {
		u.o.Log.Error("upload has ended", "destination", u.name, "error", err)
	}
}

// await waits until may returns 0, calls then while nothing else can change,
// and reports false when ctx ended first.
func (u *Uploader) await(ctx context.Context, may func() time.Duration, then func()) bool {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		u.mu.Lock()
		wait, changed := may(), u.changed
		if wait == 0 {
			then()
			u.mu.Unlock()
			return true
		}
		u.mu.Unlock()
		timer.Reset(wait)
		select {
		case <-ctx.Done():
		case <-changed:
		case <-timer.C:
		}
	}
	return false
}

// look makes the lanes look again. The caller holds mu.
func (u *Uploader) look() {
	close(u.changed)
	u.changed = make(chan struct{})
}

// deliver makes one attempt with the batch, and finishes it or gives it back.
// Rows that are refused are isolated at once. It reads the body into buffer,
// which it returns.
func (u *Uploader) deliver(ctx context.Context, batch *spool.Batch, buffer []byte) []byte {
	d := &delivery{uploader: u, id: batch.ID}
	body, err := batch.Body(buffer)
	damaged := errors.Is(err, spool.ErrDamaged)
	if err != nil && !damaged {
		d.unreadable(ctx, err)
		return buffer
	}
	d.table, err = record.ParseLabel(batch.Label)
	switch {
	case err != nil:
		d.setAside(body, err.Error(), batch.Rows)
		d.finish()
		return body
	case damaged:
		d.salvage(ctx, batch)
		return body
	case d.redated(batch):
		d.deliverLate(ctx, body, batch)
		return body
	}
	result, ok := u.try(ctx, Batch{ID: uint64(batch.ID), Table: d.table, Body: body, Rows: batch.Rows, Raw: batch.Raw})
	switch {
	case !ok || result.Answer == Retry || result.Answer == Hold:
		d.giveBack()
	case result.Answer == Accepted:
		d.outcome.Delivered = batch.Rows
		d.finish()
	default:
		d.split(ctx, body, batch, result)
	}
	return body
}

// attempt waits for its turn and makes one attempt. ok is false when ctx ended
// before there was an answer.
func (u *Uploader) attempt(ctx context.Context, batch Batch) (result Result, ok bool) {
	var begun Attempt
	if !u.await(ctx, u.mayStart, func() {
		u.inFlight++
		begun, batch.Failures = u.pacer.Begin(), u.pacer.Failures()
	}) {
		return Result{}, false
	}
	result = u.o.Destination.Send(ctx, batch)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.inFlight--
	defer u.look()
	if ctx.Err() != nil && result.Answer == Retry {
		return result, false // our own end cut it short
	}
	failures, since := u.pacer.Failures(), u.pacer.Since()
	u.pacer.Answered(begun, time.Now(), result)
	switch {
	case result.Answer == Retry || result.Answer == Hold:
		u.tell(batch, result)
	case failures > 0 && u.pacer.Failures() == 0:
		clear(u.told)
		u.o.Log.Info("delivering again", "destination", u.name, "after", time.Since(since).Round(time.Second), "attempts", failures)
	}
	return result, true
}

// tell logs each cause of an outage once, not each attempt. The caller holds mu.
func (u *Uploader) tell(batch Batch, r Result) {
	if _, known := u.told[r.Code]; known {
		return
	}
	u.told[r.Code] = struct{}{}
	u.o.Log.Warn("cannot deliver", "destination", u.name, "cause", r.Code, "why", r.Why, "batch", batch.ID, "request", r.RequestID)
}
