package upload

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/openloganalytics/agent/agent/record"
	"github.com/openloganalytics/agent/agent/spool"
)

// TestU21TimeOfOldRows: rows of a table without a column for their own time go
// beside it once the service would replace that time, and only those; tables
// with such a column get them as they are.
func TestU21TimeOfOldRows(t *testing.T) {
	perf := &record.Table{Name: "Perf", DataType: "LINUX_PERF_BLOB", IPName: "LogManagement"}
	syslog := &record.Table{Name: "Syslog", DataType: "LINUX_SYSLOGS_BLOB", IPName: "LOGMANAGEMENT", EventTime: "EventTime"}
	custom := &record.Table{Name: "App_CL", LogType: "App", TimeField: "Timestamp"}
	// A row every hour, then an outage until the oldest is so old.
	tests := []struct {
		table *record.Table
		age   time.Duration
		late  int // of ten rows
	}{
		{perf, 47 * time.Hour, 0},
		{perf, 50 * time.Hour, 3},
		{perf, 100 * time.Hour, 10},
		{syslog, 100 * time.Hour, 0},
		{custom, 100 * time.Hour, 0},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprint(tt.table.Name, tt.age), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "a")
				batch := record.NewBatch(tt.table, record.NewCompressor())
				id := spool.ID(0)
				start := time.Now()
				for n := range 10 {
					batch.Add([]record.Field{
						{Key: "N", Kind: record.JSON, Value: fmt.Append(nil, n)},
						{Key: "Timestamp", Kind: record.JSON, Value: record.AppendTime(nil, time.Now())},
					})
					p := batch.Cut()
					if id != 0 && !w.queue.Continue(id) {
						t.Fatal("the batch was taken")
					}
					ids, err := w.queue.Append([]spool.Piece{{Batch: id, Label: tt.table.Label(), Data: p.Data, Tail: p.Tail, Rows: 1, Raw: p.Raw}}, nil)
					if err != nil {
						t.Fatal(err)
					}
					id = ids[0]
					w.rows++
					time.Sleep(time.Hour)
				}
				got := map[string][]int{}
				d := newDestination(t, "a", func(a attempt) Result {
					got[a.Table.Name] = append(got[a.Table.Name], a.rows...)
					return accepted
				})
				time.Sleep(time.Until(start.Add(tt.age)))
				w.run(d)
				want := map[string][]int{}
				for n := range 10 {
					name := tt.table.Name
					if n < tt.late {
						name = "PerfLate_CL"
					}
					want[name] = append(want[name], n)
				}
				for _, name := range []string{tt.table.Name, "PerfLate_CL"} {
					if !slices.Equal(got[name], want[name]) {
						t.Errorf("%s got rows %v, want %v", name, got[name], want[name])
					}
				}
				if s := w.stats("a"); s.Delivered != 10 || s.Waiting != 0 {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

// A workspace that takes no late rows has them set aside after few requests,
// and the others of their batch delivered.
func TestU21LateTableIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a")
		table := &record.Table{Name: "Perf", DataType: "LINUX_PERF_BLOB", IPName: "LogManagement"}
		batch := record.NewBatch(table, record.NewCompressor())
		for n := range 1000 {
			at := time.Now()
			if n < 10 {
				at = at.Add(70 * time.Hour)
			}
			batch.Add([]record.Field{
				{Key: "N", Kind: record.JSON, Value: fmt.Append(nil, n)},
				{Key: "Timestamp", Kind: record.JSON, Value: record.AppendTime(nil, at)},
			})
		}
		p := batch.Cut()
		if _, err := w.queue.Append([]spool.Piece{{Label: table.Label(), Data: p.Data, Tail: p.Tail, Rows: p.Rows, Raw: p.Raw}}, nil); err != nil {
			t.Fatal(err)
		}
		w.rows = 1000
		time.Sleep(70 * time.Hour)
		d := newDestination(t, "a", func(a attempt) Result {
			if a.Table.Name != "Perf" {
				return Result{Answer: Refused, Code: "request-refused", Why: "400"}
			}
			return accepted
		})
		w.run(d)
		if s := w.stats("a"); s.Delivered != 10 || s.Refused != 990 {
			t.Errorf("%+v", s)
		}
		if n := len(d.made()); n > 60 {
			t.Errorf("%d requests for rows that are refused whatever they are", n)
		}
	})
}
