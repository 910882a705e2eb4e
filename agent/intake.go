package agent

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/openloganalytics/agent/agent/ledger"
	"github.com/openloganalytics/agent/agent/record"
	"github.com/openloganalytics/agent/agent/source"
	"github.com/openloganalytics/agent/agent/spool"
	"github.com/openloganalytics/agent/internal/logfile"
)

// How records gather before one durable append.
const (
	// commitEvery lies between two appends on average, as long as there are few
	// records; after a pause commitBurst of them may come sooner.
	commitEvery = 450 * time.Millisecond
	commitBurst = 3
	// commitSoon is the least that a record waits for others.
	commitSoon = 20 * time.Millisecond
	// commitBytes of raw rows are appended without waiting.
	commitBytes = 1 << 20
	// maxPending raw bytes make Emit wait for the append under way.
	maxPending = 2 << 20
	// maxBody is the raw length at which a batch is closed.
	maxBody = 1 << 20
	// probeEvery is how often a spool that cannot take anything is tried again.
	probeEvery = 5 * time.Second
)

// ledgerKey is the checkpoint under which the ledger travels: in the frame of
// the very rows that it counts.
const ledgerKey = "ledger"

// unknownSource is what records in the spool are counted for whose ledger is
// gone.
const unknownSource = "unknown"

// An intake gathers what all sources emit into one open batch per table and
// makes it durable, group by group: one frame, one sync.
type intake struct {
	spool      *spool.Spool
	ledger     *ledger.Ledger
	compressor *record.Compressor
	log        *logfile.Logger
	governor   *governor // nil is none

	// run's own
	effort *effort // nil is none
	full   bool    // the last group was cut because there was much, not because it was time

	mu          sync.Mutex
	tables      []*openBatch
	checkpoints map[string][]byte // of the rows that are pending
	losses      []heldLoss        // told, and not in the ledger yet
	pending     int               // raw bytes not yet cut
	dirty       bool              // rows, checkpoints or ledger entries are pending
	emitted     uint64            // number of the group being gathered
	committed   uint64            // number of the last durable group
	changed     chan struct{}     // closed and replaced at every commit
	closed      bool

	first chan struct{} // something is pending: the clock of this group starts
	now   chan struct{} // do not wait for the clock
	lossy chan struct{} // something was entered as lost
}

// openBatch is a table's batch as it is gathered and as the spool knows it.
type openBatch struct {
	*record.Batch
	id    spool.ID // 0 when the next piece begins a batch
	label []byte
}

// A heldLoss waits for the place that its source emits next, so that both
// become durable together: a crash between them would make the source lose, and
// count, the same once more. It waits for one group at most.
type heldLoss struct {
	source string
	loss   ledger.Loss
	waited bool
}

// maxHeld bounds the held losses: a disk that takes nothing may last.
const maxHeld = 1000

func newIntake(s *spool.Spool, log *logfile.Logger) *intake {
	in := &intake{
		spool: s, log: log, compressor: record.NewCompressor(),
		checkpoints: map[string][]byte{}, emitted: 1,
		changed: make(chan struct{}), first: make(chan struct{}, 1), now: make(chan struct{}, 1), lossy: make(chan struct{}, 1),
	}
	stats, saved := s.StatsWith(ledgerKey)
	l, err := ledger.Decode(saved)
	switch {
	case err == nil:
		in.ledger = l
		return in
	case saved != nil:
		// The account is lost, the records are not: it begins anew beside it.
		log.Error("the ledger cannot be read; it is set aside and begun anew", "error", err)
		in.checkpoints[ledgerKey+" set aside"] = saved
	}
	in.ledger = newLedger(stats)
	if saved != nil || stats.Rows > 0 {
		in.dirty = true
		signal(in.first)
	}
	return in
}

// run commits groups until ctx ends, then commits what is left and returns.
// Whoever emits has to have stopped by then.
func (in *intake) run(ctx context.Context) {
	timer := time.NewTimer(0)
	<-timer.C
	taken := true
	even := time.Now() // when appends are as rare again as they should be
	for taken && ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-in.effort.over():
			in.effort.eased()
			continue
		case <-in.now:
			taken = in.commit(ctx)
		case <-in.first:
			timer.Reset(max(time.Until(even)-(commitBurst-1)*commitEvery, commitSoon))
			select {
			case <-ctx.Done():
			case <-timer.C:
			case <-in.now:
				timer.Stop()
			}
			taken = in.commit(ctx)
		}
		even = evenAfter(time.Now(), even)
		if in.full {
			in.effort.backlogged()
		}
	}
	if taken {
		in.mu.Lock()
		in.enter(func(*heldLoss) bool { return true })
		in.mu.Unlock()
		in.commit(ctx)
	}
	in.mu.Lock()
	in.closed = true
	close(in.changed)
	in.changed = make(chan struct{})
	in.mu.Unlock()
}

// evenAfter returns even after an append. It is never so far away that a record
// has to wait longer than commitEvery: many appends may have gone before, of a
// backlog that did not wait for the clock.
func evenAfter(now, even time.Time) time.Time {
	if even.Before(now) {
		even = now
	}
	even = even.Add(commitEvery)
	if most := now.Add(commitBurst * commitEvery); even.After(most) {
		return most
	}
	return even
}

// commit makes everything pending durable. While the spool cannot take it,
// commit goes on trying until ctx ends, then tries the same group once more; the
// sources wait meanwhile. It reports whether the group is durable: after one
// that is not, none may follow, because the places in it lie beyond the rows
// that are missing. What is not taken is read again next time.
func (in *intake) commit(ctx context.Context) bool {
	pieces, owners, checkpoints, group := in.cut()
	if len(pieces) == 0 && len(checkpoints) == 0 {
		return true
	}
	for last := false; ; {
		ids, err := in.spool.Append(pieces, checkpoints)
		if err == nil {
			in.done(owners, ids, group)
			return true
		}
		in.log.Warn("cannot append to the spool, sources are waiting", "error", err)
		if last {
			in.log.Error("what was read last is not in the spool; it is read again at the next start")
			return false
		}
		select {
		case <-ctx.Done():
			last = true
		case <-time.After(probeEvery):
		}
	}
}

// cut takes the pending rows and checkpoints out, ready for one frame.
func (in *intake) cut() (pieces []spool.Piece, owners []*openBatch, checkpoints []spool.Checkpoint, group uint64) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.full = in.pending >= commitBytes
	if !in.dirty {
		return nil, nil, nil, 0
	}
	in.enter(func(h *heldLoss) bool { return h.waited })
	for _, open := range in.tables {
		if open.Rows() == 0 {
			continue
		}
		if open.id == 0 || open.Raw() > maxBody || !in.spool.Continue(open.id) {
			open.Begin()
			open.id = 0
		}
		p := open.Cut()
		pieces = append(pieces, spool.Piece{Batch: open.id, Label: open.label, Data: p.Data, Tail: p.Tail, Rows: p.Rows, Raw: p.Raw})
		owners = append(owners, open)
	}
	for key, value := range in.checkpoints {
		checkpoints = append(checkpoints, spool.Checkpoint{Key: key, Value: value})
	}
	checkpoints = append(checkpoints, spool.Checkpoint{Key: ledgerKey, Value: in.ledger.Encode()})
	clear(in.checkpoints)
	in.pending, in.dirty = 0, len(in.losses) > 0
	for i := range in.losses {
		in.losses[i].waited = true
		signal(in.first)
	}
	group = in.emitted
	in.emitted++
	return pieces, owners, checkpoints, group
}

func (in *intake) done(owners []*openBatch, ids []spool.ID, group uint64) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for i, open := range owners {
		open.id = ids[i]
	}
	in.committed = group
	close(in.changed)
	in.changed = make(chan struct{})
}

func (in *intake) open(table *record.Table) *openBatch {
	for _, open := range in.tables {
		if open.Table() == table {
			return open
		}
	}
	open := &openBatch{Batch: record.NewBatch(table, in.compressor), label: table.Label()}
	in.tables = append(in.tables, open)
	return open
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// touched starts the clock of a group. The caller holds the lock.
func (in *intake) touched() {
	if !in.dirty {
		in.dirty = true
		signal(in.first)
	}
	if in.pending >= commitBytes {
		signal(in.now)
	}
}

// emit is source.Emitter's Emit for the source of that name.
func (in *intake) emit(ctx context.Context, name string, table *record.Table, fill func(*record.Batch), at []source.Checkpoint) error {
	if err := in.governor.admit(ctx); err != nil {
		return err
	}
	in.mu.Lock()
	for in.pending >= maxPending && !in.closed {
		changed := in.changed
		in.mu.Unlock()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
		in.mu.Lock()
	}
	defer in.mu.Unlock()
	if in.closed {
		return fmt.Errorf("emit to table %s: the agent has stopped", table.Name)
	}
	if fill != nil {
		open := in.open(table)
		rows, bytes := open.Rows(), open.Pending()
		fill(open.Batch)
		rows, bytes = open.Rows()-rows, open.Pending()-bytes
		in.pending += bytes
		in.ledger.Read(name, int64(rows), int64(bytes))
	}
	for _, cp := range at {
		in.checkpoints[cp.Key] = cp.Value
	}
	if len(in.losses) > 0 {
		in.enter(func(h *heldLoss) bool { return h.source == name })
	}
	in.touched()
	return nil
}

// enter moves the held losses that are due into the ledger. The caller holds
// the lock.
func (in *intake) enter(due func(*heldLoss) bool) {
	in.losses = slices.DeleteFunc(in.losses, func(h heldLoss) bool {
		if !due(&h) {
			return false
		}
		in.ledger.Lost(h.source, h.loss)
		return true
	})
}

// flush returns when everything emitted so far is durable.
func (in *intake) flush(ctx context.Context) error {
	in.mu.Lock()
	in.enter(func(*heldLoss) bool { return true })
	group := in.emitted
	if !in.dirty {
		group--
	}
	for in.committed < group && !in.closed {
		changed := in.changed
		in.mu.Unlock()
		signal(in.now)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
		in.mu.Lock()
	}
	defer in.mu.Unlock()
	if in.committed < group {
		return fmt.Errorf("flush: the agent stopped before the spool could take it")
	}
	return nil
}

// lost enters a loss into the ledger, with the place that the source emits next.
func (in *intake) lost(name string, l source.Loss) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.losses) >= maxHeld {
		in.enter(func(*heldLoss) bool { return true })
	}
	in.losses = append(in.losses, heldLoss{source: name, loss: ledger.Loss{
		Reason: l.Reason, Class: l.Class, Records: l.Records, Bytes: l.Bytes, First: l.First, Last: l.Last,
	}})
	in.touched()
	signal(in.lossy)
}

// copy returns a copy of the ledger as it is now, ahead of the durable one.
func (in *intake) copy() *ledger.Ledger {
	in.mu.Lock()
	defer in.mu.Unlock()
	now, err := ledger.Decode(in.ledger.Encode())
	if err != nil {
		panic("BUG: the ledger does not read what it wrote: " + err.Error())
	}
	return now
}
