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

// operations is the source of Operation rows: what is lost, by the ledger or
// at a workspace, is told to the workspaces, once. Its checkpoint is the ledger
// as it was last told, with what was lost at the workspaces in it.
type operations struct {
	intake   *intake
	computer string
	table    *record.Table
}

func newOperations(in *intake, computer string) *operations {
	return &operations{in, computer, &record.Table{Name: operationTable, DataType: "OPERATION_BLOB", IPName: "LogManagement", EventTime: "Detail"}}
}

// operationsName is the source's name and the key of its checkpoint.
const operationsName = "operation"

// Name implements source.Source.
func (o *operations) Name() string { return operationsName }

// Run implements source.Source. It sleeps until something is lost.
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
		select {
		case <-ctx.Done():
			return nil
		case <-o.intake.lossy:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(operationsEvery):
		}
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
	stamp := record.AppendTime(nil, time.Now())
	return out.Emit(ctx, o.table, func(b *record.Batch) {
		for _, text := range details {
			b.Add([]record.Field{
				{Key: "Timestamp", Kind: record.JSON, Value: stamp},
				{Key: "Computer", Value: []byte(o.computer)},
				{Key: "OperationStatus", Value: []byte("Warning")},
				{Key: "Category", Value: []byte("Records lost")},
				{Key: "Solution", Value: []byte("Log Management")},
				{Key: "HelpLink"},
				{Key: "Detail", Value: []byte(text)},
			})
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
