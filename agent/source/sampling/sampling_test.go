package sampling

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openloganalytics/agent/agent/record"
	"github.com/openloganalytics/agent/agent/source"
	"github.com/openloganalytics/agent/agent/source/sourcetest"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func TestRowsAreThoseOfTheOMSAgent(t *testing.T) {
	out := sourcetest.New()
	rows := Of(Table(), noon, "vm1", []Counters{
		{Object: "MySQL Server", Instance: "a\"b", Values: []Value{{"Key Cache Hit Pct", 99.5}, {"not \"known\"", math.NaN()}, {`odd "name"`, 1e-9}}},
		{Object: "load", Instance: "_Total", Host: "other", At: noon.Add(-time.Second), Values: []Value{{"shortterm", 1e21}, {"longterm", 1234567890123}}},
		{Object: "empty", Values: []Value{{"x", math.Inf(1)}}},
	})
	rows.Place = source.Checkpoint{Key: "k", Value: []byte("v")}
	if err := Emit(t.Context(), out, rows, time.Minute); err != nil {
		t.Fatal(err)
	}
	want := []sourcetest.Row{
		{
			"Timestamp": "2026-03-01T12:00:00.000Z", "Host": "vm1", "ObjectName": "MySQL Server", "InstanceName": `a"b`,
			"Collections": []any{
				map[string]any{"CounterName": "Key Cache Hit Pct", "Value": "99.5"},
				map[string]any{"CounterName": `odd "name"`, "Value": "1e-09"},
			},
		},
		{
			"Timestamp": "2026-03-01T11:59:59.000Z", "Host": "other", "ObjectName": "load", "InstanceName": "_Total",
			"Collections": []any{
				map[string]any{"CounterName": "shortterm", "Value": "1e+21"},
				map[string]any{"CounterName": "longterm", "Value": "1234567890123"},
			},
		},
	}
	if diff := cmp.Diff(want, out.Rows("Perf")); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	if err := out.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if string(out.Checkpoint("k")) != "v" {
		t.Errorf("checkpoint is %q", out.Checkpoint("k"))
	}
}

// A place is durable only with the last of the rows it stands behind.
func TestManyRowsTakeSeveralPortions(t *testing.T) {
	const count = 5000
	out := &counting{Emitter: sourcetest.New()}
	list := make([]Counters, count)
	for i := range list {
		list[i] = Counters{Object: "o", Instance: strings.Repeat("i", 100), Values: []Value{{"c", float64(i)}}}
	}
	rows := Of(Table(), noon, "vm1", list)
	rows.Place = source.Checkpoint{Key: "k", Value: []byte("v")}
	if err := Emit(t.Context(), out, rows, time.Minute); err != nil {
		t.Fatal(err)
	}
	if n := len(out.Rows("Perf")); n != count {
		t.Errorf("%d rows, want %d", n, count)
	}
	for i, places := range out.places {
		if last := i == len(out.places)-1; len(out.places) < 2 || (places == 1) != last {
			t.Errorf("portion %d of %d has %d checkpoints", i, len(out.places), places)
		}
	}
	for _, size := range out.sizes {
		if size > source.MaxEmit {
			t.Errorf("a portion has %d bytes", size)
		}
	}
}

type counting struct {
	*sourcetest.Emitter
	places, sizes []int
}

func (c *counting) Emit(ctx context.Context, table *record.Table, fill func(*record.Batch), at ...source.Checkpoint) error {
	c.places = append(c.places, len(at))
	return c.Emitter.Emit(ctx, table, func(b *record.Batch) {
		before := b.Pending()
		fill(b)
		c.sizes = append(c.sizes, b.Pending()-before-100*b.Rows()) // without the keys
	}, at...)
}

func TestRowsWithoutRoomAreLostAndTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := sourcetest.New()
		out.Block()
		rows := Of(Table(), noon, "vm1", []Counters{{Object: "o", Values: []Value{{"c", 1}}}, {Object: "p", Values: []Value{{"c", 1}}}})
		start := time.Now()
		if err := Emit(t.Context(), out, rows, time.Hour); err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(start); waited != Patience {
			t.Errorf("waited %v", waited)
		}
		losses := out.Losses()
		if len(losses) != 1 || losses[0].Reason != "spool-full" || losses[0].Class != "Perf" || losses[0].Records != 2 || !losses[0].First.Equal(noon) {
			t.Errorf("losses: %+v", losses)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := Emit(ctx, out, rows, time.Hour); err != nil || len(out.Losses()) != 1 {
			t.Errorf("after the end: %v, losses %+v", err, out.Losses())
		}
	})
}

func TestPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := sourcetest.New()
		asked, closed := 0, 0
		p := Poll{
			SourceName: "mysql", Interval: 10 * time.Second, Computer: "vm1",
			Ask: func(ctx context.Context, at time.Time) ([]Counters, error) {
				asked++
				c := Counters{Object: "MySQL Server", Instance: "i"}
				c.Set("asked", float64(asked))
				switch asked {
				case 3:
					return nil, errors.New("does not answer; start it")
				case 4: // hangs
					<-ctx.Done()
					return nil, ctx.Err()
				}
				return []Counters{c}, nil
			},
			Close: func() error { closed++; return nil },
		}
		ctx, cancel := context.WithTimeout(t.Context(), 55*time.Second)
		defer cancel()
		go func() {
			time.Sleep(25 * time.Second)
			if got := out.Troubles()["mysql"]; got != "does not answer; start it" {
				t.Errorf("trouble is %q", got)
			}
		}()
		if err := p.Source().Run(ctx, out); err != nil {
			t.Fatal(err)
		}
		var got []any
		for _, row := range out.Rows("Perf") {
			got = append(got, row["Timestamp"], row["Collections"].([]any)[0].(map[string]any)["Value"])
		}
		// The first answer begins the rates, the third is an error, the fourth
		// takes until the next is due.
		want := []any{"2000-01-01T00:00:10.000Z", "2", "2000-01-01T00:00:40.000Z", "5", "2000-01-01T00:00:50.000Z", "6"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("rows (-want +got):\n%s", diff)
		}
		if closed != 1 || len(out.Troubles()) > 0 {
			t.Errorf("closed %d times, troubles %v", closed, out.Troubles())
		}
	})
}

func TestRounding(t *testing.T) {
	for _, tt := range []struct {
		part, whole, precise, integer float64
	}{{1, 3, 33.33, 33}, {1, 8, 12.5, 13}, {1, 200, 0.5, 1}, {5, 0, 0, 0}, {7, 5, 100, 100}, {-1, 5, 0, 0}} {
		if got := Precise.Percent(tt.part, tt.whole); got != tt.precise {
			t.Errorf("%v in %v is %v %%, want %v", tt.part, tt.whole, got, tt.precise)
		}
		if got := Integer.Percent(tt.part, tt.whole); got != tt.integer {
			t.Errorf("%v in %v is %v %% in whole numbers, want %v", tt.part, tt.whole, got, tt.integer)
		}
	}
	if Precise.Rate(1.239) != 1.24 || Integer.Rate(1.999) != 1 {
		t.Error("rates are rounded wrongly")
	}
}
