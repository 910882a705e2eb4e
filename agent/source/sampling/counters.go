package sampling

import (
	"cmp"
	"math"
	"strconv"
	"time"

	"github.com/openloganalytics/agent/agent/record"
)

// Counters are the counters of one instance of one object: a row on the wire,
// as many rows of the table Perf as it has values.
type Counters struct {
	Object   string
	Instance string
	Values   []Value

	Host string    // short name of another computer; "" is this one
	At   time.Time // of the sample, when it is another than that of all
}

// A Value is one counter. One that is no finite number is left out.
type Value struct {
	Name  string
	Value float64
}

// Set appends a value.
func (c *Counters) Set(name string, value float64) {
	c.Values = append(c.Values, Value{name, value})
}

// Table returns the table Perf. Each source has one of its own.
func Table() *record.Table {
	return &record.Table{Name: "Perf", DataType: "LINUX_PERF_BLOB", IPName: "LogManagement"}
}

// Of returns counters as rows of the table, sampled at a time on a computer
// (short host name), shaped as the OMS agent for Linux sends them
// (LINUX_PERF_BLOB).
func Of(table *record.Table, at time.Time, computer string, list []Counters) Rows {
	stamp := record.AppendTime(nil, at)
	rows := make([]row, 0, len(list))
	for _, c := range list {
		if values := collections(c.Values); values != nil {
			r := row{object: []byte(c.Object), instance: []byte(c.Instance), values: values, host: []byte(cmp.Or(c.Host, computer)), stamp: stamp}
			if !c.At.IsZero() {
				r.stamp = record.AppendTime(nil, c.At)
			}
			rows = append(rows, r)
		}
	}
	return Rows{
		Table: table, At: at, Count: len(rows),
		Size: func(n int) int { return rows[n].size() },
		Fill: func(b *record.Batch, first, last int) {
			fields := [...]record.Field{
				{Key: "Timestamp", Kind: record.JSON},
				{Key: "Host"},
				{Key: "ObjectName"},
				{Key: "InstanceName"},
				{Key: "Collections", Kind: record.JSON},
			}
			for _, r := range rows[first:last] {
				for i, value := range [...][]byte{r.stamp, r.host, r.object, r.instance, r.values} {
					fields[i].Value = value
				}
				b.Add(fields[:])
			}
		},
	}
}

// A row is Counters in bytes.
type row struct{ stamp, host, object, instance, values []byte }

func (r row) size() int {
	return len(r.stamp) + len(r.host) + len(r.object) + len(r.instance) + len(r.values)
}

// collections returns the JSON array of the values, nil when there is none. The
// workspace takes each value as a text.
func collections(values []Value) []byte {
	var dst []byte
	separator := byte('[')
	for _, v := range values {
		if math.IsNaN(v.Value) || math.IsInf(v.Value, 0) {
			continue
		}
		dst = append(dst, separator)
		dst = record.AppendText(append(dst, `{"CounterName":`...), []byte(v.Name))
		dst = appendNumber(append(dst, `,"Value":"`...), v.Value)
		dst = append(dst, `"}`...)
		separator = ','
	}
	if dst == nil {
		return nil
	}
	return append(dst, ']')
}

// appendNumber appends a number with all its digits, with an exponent only
// where it would be very long without.
func appendNumber(dst []byte, v float64) []byte {
	format := byte('f')
	if size := math.Abs(v); size != 0 && (size < 1e-6 || size >= 1e21) {
		format = 'e'
	}
	return strconv.AppendFloat(dst, v, format, -1, 64)
}

// Rounding is how values are rounded.
type Rounding bool

// The two ways of rounding.
const (
	Precise Rounding = false // two decimals
	Integer Rounding = true  // the whole numbers of the OMS agent for Linux
)

// Percent is part in whole as a percentage from 0 to 100, rounded half up; 0
// when there is no whole.
func (r Rounding) Percent(part, whole float64) float64 {
	if whole == 0 {
		return 0
	}
	v := min(max(100*part/whole, 0), 100)
	if r == Integer {
		return math.Floor(v + 0.5)
	}
	return math.Floor(100*v+0.5) / 100
}

// Rate rounds something for each second, down to whole ones.
func (r Rounding) Rate(v float64) float64 {
	if r == Integer {
		return math.Floor(v)
	}
	return math.Round(100*v) / 100
}
