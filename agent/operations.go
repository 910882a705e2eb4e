package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/openloganalytics/agent/agent/ledger"
	"github.com/openloganalytics/agent/agent/record"
	"github.com/openloganalytics/agent/agent/source"
)

// operationsEvery is how long losses gather before they become rows.
const operationsEvery = time.Minute

// operations is the source of Operation rows: what the ledger counts as lost
// is told to the workspace, once. Its checkpoint is the ledger as it was last
// told.
type operations struct {
	intake   *intake
	computer string
	table    *record.Table
}

func newOperations(in *intake, computer string) *operations {
	return &operations{in, computer, &record.Table{Name: "Operation", DataType: "OPERATION_BLOB", IPName: "LogManagement"}}
}

// Name implements source.Source.
func (o *operations) Name() string { return "operation" }

// Run implements source.Source. It sleeps until something is lost.
func (o *operations) Run(ctx context.Context, out source.Emitter) error {
	told := ledger.New()
	if saved := out.Checkpoint(o.Name()); saved != nil {
		l, err := ledger.Decode(saved)
		if err != nil {
			return fmt.Errorf("read what was told of losses: %w", err)
		}
		told = l
	}
	for {
		now, losses := o.intake.losses()
		if err := o.tell(ctx, out, told, now, losses); err != nil {
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

// tell emits a row for each loss that has grown since it was last told.
func (o *operations) tell(ctx context.Context, out source.Emitter, told, now *ledger.Ledger, losses []ledger.Loss) error {
	before := map[[3]string]ledger.Loss{}
	for _, l := range told.Losses() {
		before[[3]string{l.Source, l.Reason, l.Class}] = l
	}
	var details []string
	for _, l := range losses {
		old := before[[3]string{l.Source, l.Reason, l.Class}]
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
	}, source.Checkpoint{Key: o.Name(), Value: now.Encode()})
}

// detail says what was lost since old, and when.
func detail(l, old ledger.Loss) string {
	text := fmt.Sprintf("Source %s lost %d records, %d bytes", l.Source, l.Records-old.Records, l.Bytes-old.Bytes)
	if l.Records == old.Records {
		text = fmt.Sprintf("Source %s lost %d bytes of an unknown number of records", l.Source, l.Bytes-old.Bytes)
	}
	if l.Class != "" {
		text += " of " + l.Class
	}
	text += ": " + l.Reason
	if !l.Last.IsZero() {
		text += ", the last at " + l.Last.UTC().Format(time.RFC3339)
	}
	return text + "."
}
