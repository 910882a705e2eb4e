package agent

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/openloganalytics/agent/agent/ledger"
	"github.com/openloganalytics/agent/agent/record"
	"github.com/openloganalytics/agent/agent/source"
)

// operationsEvery is how long losses gather before they become rows.
const operationsEvery = time.Minute

// operationTable is where losses are told.
const operationTable = "Operation"

// Shares of the disk quota, in percent: from the first on the spool is nearly
// full, which is told once, and again only after it was below the second. Rows
// may take no more than seven eighths of the quota.
const (
	nearlyFull = 80
	wellBelow  = 65
)

// operations is the source of Operation rows: what is lost, by the ledger or
// at a workspace, is told to the workspaces, once; and before that, that the
// spool fills up. Its checkpoint is the ledger as it was last told, with what
// was lost at the workspaces in it.
type operations struct {
	intake   *intake
	computer string
	table    *record.Table
	full     bool // is told
}

func newOperations(in *intake, computer string) *operations {
	return &operations{intake: in, computer: computer, table: &record.Table{Name: operationTable, DataType: "OPERATION_BLOB", IPName: "LogManagement", EventTime: "Detail"}}
}

// operationsName is the source's name and the key of its checkpoint.
const operationsName = "operation"

// Name implements source.Source.
func (o *operations) Name() string { return operationsName }

// Run implements source.Source. It tells of losses when there are some, and
// looks at the spool once a minute.
func (o *operations) Run(ctx context.Context, out source.Emitter) error {
	told, err := toldLosses(out.Checkpoint(operationsName))
	if err != nil {
		return err
	}
	for {
		now := o.losses(told, time.Now())
		if err := o.tell(ctx, out, told, now); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		told = now
		if err := o.wait(ctx, out); err != nil || ctx.Err() != nil {
			return err
		}
	}
}

// wait returns when something was lost, and a minute later, so that losses
// gather; or when ctx ended.
func (o *operations) wait(ctx context.Context, out source.Emitter) error {
	lossy := o.intake.lossy
	var gathered <-chan time.Time
	ticker := time.NewTicker(operationsEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-lossy:
			lossy, gathered = nil, time.After(operationsEvery)
		case <-gathered:
			return nil
		case <-ticker.C:
			if err := o.watchRoom(ctx, out); err != nil {
				return err
			}
		}
	}
}

// watchRoom tells when the spool is nearly full. When there is no room even for
// that, it is tried again.
func (o *operations) watchRoom(ctx context.Context, out source.Emitter) error {
	stats := o.intake.spool.Stats()
	switch used := 100 * stats.Bytes; {
	case used < wellBelow*stats.Budget:
		o.full = false
	case used >= nearlyFull*stats.Budget && !o.full:
		const mb = 1 << 20
		detail := fmt.Sprintf("The spool holds %d MB of at most %d: the workspaces take less than is collected. When it is full, files and logs that keep "+
			"their own records wait, and the others are lost. See the extension's status for the reason, or raise diskQuotaInMB.", stats.Bytes/mb, stats.Budget/mb)
		emitting, cancel := context.WithTimeout(ctx, operationsEvery/2)
		defer cancel()
		err := out.Emit(emitting, o.table, func(b *record.Batch) { b.Add(o.row(time.Now(), "Spool nearly full", detail)) })
		if err != nil && emitting.Err() == nil {
			return err
		}
		o.full = err == nil
	}
	return nil
}

// row is the fields of a row, as the OMS agent for Linux sends them
// (OPERATION_BLOB).
func (o *operations) row(at time.Time, category, detail string) []record.Field {
	return []record.Field{
		{Key: "Timestamp", Kind: record.JSON, Value: record.AppendTime(nil, at)},
		{Key: "Computer", Value: []byte(o.computer)},
		{Key: "OperationStatus", Value: []byte("Warning")},
		{Key: "Category", Value: []byte(category)},
		{Key: "Solution", Value: []byte("Log Management")},
		{Key: "HelpLink"},
		{Key: "Detail", Value: []byte(detail)},
	}
}

// toldLosses reads the source's checkpoint.
func toldLosses(saved []byte) (*ledger.Ledger, error) {
	if saved == nil {
		return ledger.New(), nil
	}
	told, err := ledger.Decode(saved)
	if err != nil {
		return ledger.New(), fmt.Errorf("read what was told of losses: %w", err)
	}
	return told, nil
}

// losses returns the ledger as it is now, with what was lost at the workspaces.
// When that was is known from when it was first and last seen to grow.
func (o *operations) losses(told *ledger.Ledger, at time.Time) *ledger.Ledger {
	now := o.intake.copy()
	before := byKind(told)
	for _, loss := range behind(o.intake.spool.Stats().Destinations) {
		old := before[kindOf(loss)]
		loss.First, loss.Last = old.First, old.Last
		if loss.Records != old.Records {
			loss.Last = at
		}
		if loss.First.IsZero() {
			loss.First = at
		}
		now.Lost(loss.Source, loss)
	}
	return now
}

// tell emits a row for each loss that has grown since it was last told.
func (o *operations) tell(ctx context.Context, out source.Emitter, told, now *ledger.Ledger) error {
	before := byKind(told)
	var details []string
	for _, l := range now.Losses() {
		old := before[kindOf(l)]
		if l.Records == old.Records && l.Bytes == old.Bytes {
			continue
		}
		details = append(details, detail(l, old))
	}
	if len(details) == 0 {
		return nil
	}
	at := time.Now()
	return out.Emit(ctx, o.table, func(b *record.Batch) {
		for _, text := range details {
			b.Add(o.row(at, "Records lost", text))
		}
	}, source.Checkpoint{Key: operationsName, Value: now.Encode()})
}

// detail says what was lost since old, and when.
func detail(l, old ledger.Loss) string {
	who := "Source " + l.Source
	if id, found := strings.CutPrefix(l.Source, "workspace/"); found {
		who = "Workspace " + id
	}
	records, bytes := l.Records-old.Records, l.Bytes-old.Bytes
	text := fmt.Sprintf("%s lost %d records, %d bytes", who, records, bytes)
	switch {
	case records == 0:
		text = fmt.Sprintf("%s lost %d bytes of an unknown number of records", who, bytes)
	case bytes == 0:
		text = fmt.Sprintf("%s lost %d records", who, records)
	}
	if l.Class != "" {
		text += " of " + l.Class
	}
	text += ": " + l.Reason
	from, to := l.First, l.Last
	if !old.Last.IsZero() {
		from = old.Last
	}
	switch {
	case to.IsZero():
	case from.IsZero() || !from.Before(to):
		text += ", at " + to.UTC().Format(time.RFC3339)
	default:
		text += ", between " + from.UTC().Format(time.RFC3339) + " and " + to.UTC().Format(time.RFC3339)
	}
	return text + "."
}
