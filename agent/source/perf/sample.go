package perf

import (
	"context"
	"math/bits"
	"time"

	"github.com/openloganalytics/agent/agent/record"
)

// A sampler reads one object of the machine. It keeps what the last reading
// found: a rate is known from the second on.
type sampler interface {
	// read adds the instances of the object to out. An error says what could
	// not be read; what could be is added all the same.
	read(ctx context.Context, out *sample) error
}

// values is what was measured of one instance.
type values struct {
	of    [maxCounters]float64
	known counterSet
}

func (v *values) set(counter int, value float64) {
	v.of[counter] = value
	v.known |= 1 << counter
}

// A sample is what was read of the machine at one moment. Its buffers are used
// again for the next.
type sample struct {
	at        time.Time
	timestamp []byte // at, as JSON
	computer  []byte
	integer   bool // integer-compatible values

	object    objectID   // being read
	selection *selection // of it

	text     []byte // of all rows, one after the other
	rows     []row
	troubles map[string]string
}

// A row is one instance of one object. Its instance name is
// text[begin:middle], its Collections are text[middle:end].
type row struct {
	object             objectID
	begin, middle, end int
}

// start empties the sample for a reading at the given time.
func (s *sample) start(at time.Time) {
	s.at = at
	s.timestamp = record.AppendTime(s.timestamp[:0], at)
	s.text, s.rows = s.text[:0], s.rows[:0]
	clear(s.troubles)
}

// begin says that the instances of an object follow.
func (s *sample) begin(id objectID, selected *selection) {
	s.object, s.selection = id, selected
	for i := range selected.named {
		selected.named[i].seen = false
	}
}

// add takes what was measured of one instance, as far as it is wanted.
func (s *sample) add(instance []byte, v *values) {
	set := s.selection.of(instance) & v.known
	if set == 0 {
		return
	}
	begin := len(s.text)
	s.text = append(s.text, instance...)
	middle := len(s.text)
	s.text = s.appendCollections(s.text, set, v)
	s.rows = append(s.rows, row{s.object, begin, middle, len(s.text)})
}

// trouble notes what is wrong with one thing.
func (s *sample) trouble(thing, text string) { s.troubles[thing] = text }

// appendCollections appends the JSON array that column Collections holds. The
// workspace takes each value as a string.
func (s *sample) appendCollections(dst []byte, set counterSet, v *values) []byte {
	counters := objects[s.object].counters
	separator := byte('[')
	for ; set != 0; set &= set - 1 {
		n := bits.TrailingZeros16(uint16(set))
		dst = append(dst, separator)
		dst = append(dst, `{"CounterName":"`...)
		dst = append(dst, counters[n].name...) // no name needs escaping
		dst = append(dst, `","Value":"`...)
		dst = counters[n].unit.appendValue(dst, v.of[n], s.integer)
		dst = append(dst, `"}`...)
		separator = ','
	}
	return append(dst, ']')
}

// size is how many bytes of values a row adds to an Emit.
func (s *sample) size(n int) int {
	r := s.rows[n]
	return len(s.timestamp) + len(s.computer) + len(objects[r.object].name) + r.end - r.begin
}

// fill adds rows to the batch, shaped as the OMS agent for Linux sends them
// (LINUX_PERF_BLOB).
func (s *sample) fill(b *record.Batch, first, last int) {
	fields := [...]record.Field{
		{Key: "Timestamp", Kind: record.JSON, Value: s.timestamp},
		{Key: "Host", Value: s.computer},
		{Key: "ObjectName"},
		{Key: "InstanceName"},
		{Key: "Collections", Kind: record.JSON},
	}
	var name []byte
	for _, r := range s.rows[first:last] {
		name = append(name[:0], objects[r.object].name...)
		fields[2].Value = name
		fields[3].Value = s.text[r.begin:r.middle]
		fields[4].Value = s.text[r.middle:r.end]
		b.Add(fields[:])
	}
}
