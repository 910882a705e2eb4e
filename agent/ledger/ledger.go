// Package ledger accounts for every record: what was read is delivered, in the
// spool, or dropped for a stated reason.
//
// The ledger counts what was read and dropped; the spool knows what waits and
// what each destination took. The ledger travels as a checkpoint in the very
// frame that holds the rows it counts, so after a crash it is as exact as the
// spool itself.
package ledger

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Bounds of what the ledger keeps apart. Beyond them rows are still counted, but
// under the word other: first without their class, at last without anything.
const (
	maxSources = 1024
	maxLosses  = 256
	maxText    = 256 // bytes
	other      = "other"
)

// A Loss is records of one source that were dropped for one reason.
type Loss struct {
	Source  string
	Reason  string
	Class   string // facility, table, file; may be empty
	Records int64
	Bytes   int64
	First   time.Time // of the lost records, as well as it is known
	Last    time.Time
}

type lossKey struct{ source, reason, class string }

type count struct{ rows, bytes int64 }

// A Ledger is the account of one agent. It is for one goroutine at a time.
type Ledger struct {
	read   map[string]count
	losses map[lossKey]Loss
}

// New returns an empty ledger.
func New() *Ledger {
	return &Ledger{read: map[string]count{}, losses: map[lossKey]Loss{}}
}

// Read counts rows that a source emitted, and their bytes as JSON.
func (l *Ledger) Read(source string, rows, bytes int64) {
	source = short(source)
	c, known := l.read[source]
	if !known && len(l.read) >= maxSources {
		source = other
		c = l.read[source]
	}
	c.rows += rows
	c.bytes += bytes
	l.read[source] = c
}

// Lost counts records that a source read, or knows to have missed, and that
// were not emitted. A loss of the same source, reason and class adds up.
func (l *Ledger) Lost(source string, loss Loss) {
	key := l.key(lossKey{short(source), short(loss.Reason), short(loss.Class)})
	sum, known := l.losses[key]
	if !known {
		sum = Loss{Source: key.source, Reason: key.reason, Class: key.class, First: loss.First, Last: loss.Last}
	}
	sum.Records += loss.Records
	sum.Bytes += loss.Bytes
	if !loss.First.IsZero() && (sum.First.IsZero() || loss.First.Before(sum.First)) {
		sum.First = loss.First
	}
	if loss.Last.After(sum.Last) {
		sum.Last = loss.Last
	}
	l.losses[key] = sum
}

// key returns the entry that a loss goes to: its own while there is room.
func (l *Ledger) key(key lossKey) lossKey {
	if _, known := l.losses[key]; known || len(l.losses) < maxLosses {
		return key
	}
	key.class = other
	if _, known := l.losses[key]; known || len(l.losses) < 2*maxLosses {
		return key
	}
	return lossKey{other, other, other}
}

// short cuts a text to maxText bytes, between two characters.
func short(text string) string {
	if len(text) <= maxText {
		return text
	}
	cut := maxText
	for cut > 0 && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut]
}

// Balance returns how many records are unaccounted for at a destination that
// has finished with some (they are delivered, refused or lost on the disk)
// while others wait in the spool. What was dropped never came to the spool, so
// the result is 0 when every record is in its place.
func (l *Ledger) Balance(finished, waiting int64) int64 {
	read, _ := l.Totals()
	return read - finished - waiting
}

// Source returns how many records of one source were read and emitted, and how
// many were dropped besides.
func (l *Ledger) Source(name string) (read, dropped int64) {
	for key, loss := range l.losses {
		if key.source == name {
			dropped += loss.Records
		}
	}
	return l.read[name].rows, dropped
}

// Totals returns how many records all sources emitted, and dropped besides.
func (l *Ledger) Totals() (read, dropped int64) {
	for _, c := range l.read {
		read += c.rows
	}
	for _, loss := range l.losses {
		dropped += loss.Records
	}
	return read, dropped
}

// Losses lists what was dropped, in a stable order.
func (l *Ledger) Losses() []Loss {
	list := slices.Collect(maps.Values(l.losses))
	slices.SortFunc(list, func(a, b Loss) int {
		return strings.Compare(a.Source+"\x00"+a.Reason+"\x00"+a.Class, b.Source+"\x00"+b.Reason+"\x00"+b.Class)
	})
	return list
}

// version begins the encoding.
const version = 1

// Encode returns the ledger as bytes, the same for the same content: the
// version, then the counts of sources and the losses, numbers as varints, texts
// with their length before them, times in nanoseconds since 1970 and 0 when
// unknown.
func (l *Ledger) Encode() []byte {
	b := []byte{version}
	b = binary.AppendUvarint(b, uint64(len(l.read)))
	for _, name := range slices.Sorted(maps.Keys(l.read)) {
		b = appendText(b, name)
		b = binary.AppendVarint(b, l.read[name].rows)
		b = binary.AppendVarint(b, l.read[name].bytes)
	}
	losses := l.Losses()
	b = binary.AppendUvarint(b, uint64(len(losses)))
	for _, loss := range losses {
		for _, text := range []string{loss.Source, loss.Reason, loss.Class} {
			b = appendText(b, text)
		}
		for _, n := range []int64{loss.Records, loss.Bytes, nanos(loss.First), nanos(loss.Last)} {
			b = binary.AppendVarint(b, n)
		}
	}
	return b
}

func appendText(b []byte, text string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func fromNanos(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}

// Decode reads what Encode returned.
func Decode(data []byte) (*Ledger, error) {
	if len(data) == 0 || data[0] != version {
		return nil, errors.New("decode ledger: not version 1")
	}
	d := decoder{data[1:], nil}
	l := New()
	for range d.length() {
		name := d.text()
		l.read[name] = count{d.number(), d.number()}
	}
	for range d.length() {
		loss := Loss{Source: d.text(), Reason: d.text(), Class: d.text(), Records: d.number(), Bytes: d.number()}
		loss.First, loss.Last = fromNanos(d.number()), fromNanos(d.number())
		l.losses[lossKey{loss.Source, loss.Reason, loss.Class}] = loss
	}
	if d.err == nil && !bytes.Equal(l.Encode(), data) {
		d.err = errors.New("it is not what Encode writes")
	}
	if d.err != nil {
		return nil, fmt.Errorf("decode ledger: %w", d.err)
	}
	return l, nil
}

// A decoder takes values off the front of data until something is wrong.
type decoder struct {
	data []byte
	err  error
}

func (d *decoder) fail() { d.data, d.err = nil, errors.New("it is cut off") }

// length is a number of entries, each of which takes at least a byte.
func (d *decoder) length() int {
	n, size := binary.Uvarint(d.data)
	if size <= 0 || n > uint64(len(d.data)-size) {
		d.fail()
		return 0
	}
	d.data = d.data[size:]
	return int(n)
}

func (d *decoder) number() int64 {
	n, size := binary.Varint(d.data)
	if size <= 0 {
		d.fail()
		return 0
	}
	d.data = d.data[size:]
	return n
}

func (d *decoder) text() string {
	n := d.length()
	if d.err != nil {
		return ""
	}
	text := string(d.data[:n])
	d.data = d.data[n:]
	return text
}
