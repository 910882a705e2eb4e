package record

import "encoding/binary"

// A Batch is the open batch of one table: rows go in, pieces of a request body
// come out.
//
// A body is one zlib stream (RFC 1950) of the table's envelope around the rows.
// Each piece is deflate data that refers to nothing before it and ends at a
// byte boundary, so the body is the Data of its pieces one after the other,
// then the Tail of the last: complete after every piece, and never in need of
// a compressor's state.
//
// A Batch is for one goroutine at a time.
type Batch struct {
	table      *Table
	compressor *Compressor
	head, foot []byte

	rows []byte // the pending rows, a comma before each
	n    int    // how many

	begun bool   // pieces of the present body were cut
	raw   int    // raw bytes in them
	sum   uint32 // Adler-32 of those bytes

	data, tail []byte // of the last piece
}

// NewBatch returns an empty batch for rows of t; its first Cut begins a body.
func NewBatch(t *Table, c *Compressor) *Batch {
	return &Batch{table: t, compressor: c, head: t.head(), foot: t.foot(), sum: adlerInit}
}

// Table returns the table the rows are bound for.
func (b *Batch) Table() *Table { return b.table }

// Rows returns how many rows are pending: added and not yet cut.
func (b *Batch) Rows() int { return b.n }

// Pending returns the raw bytes of the pending rows.
func (b *Batch) Pending() int { return len(b.rows) }

// Raw returns how long the body is before compression, with the pending rows.
func (b *Batch) Raw() int {
	if b.begun {
		return b.raw + len(b.rows) + len(b.foot)
	}
	return len(b.head) + max(len(b.rows)-1, 0) + len(b.foot) // no comma before the first row
}

// Add adds one row. It keeps nothing of fields, and allocates only while the
// batch's buffer still grows.
func (b *Batch) Add(fields []Field) {
	row := append(b.rows, ',', '{')
	for i := range fields {
		f := &fields[i]
		if i > 0 {
			row = append(row, ',')
		}
		if f.Kind == Members {
			row = append(row, f.Value...)
			continue
		}
		row = append(row, '"')
		row = append(row, f.Key...)
		row = append(row, '"', ':')
		if f.Kind == Text {
			row = AppendText(row, f.Value)
		} else {
			row = append(row, f.Value...)
		}
	}
	b.rows = append(row, '}')
	b.n++
}

// Drain returns the pending rows, each a JSON object with a comma before it, and
// forgets them. They are valid until the next Add.
func (b *Batch) Drain() []byte {
	rows := b.rows
	b.rows, b.n = b.rows[:0], 0
	return rows
}

// AddRows adds n rows in the form in which Drain returns them.
func (b *Batch) AddRows(rows []byte, n int) {
	b.rows = append(b.rows, rows...)
	b.n += n
}

// CutRows returns the first of n rows, in the form in which Drain returns them,
// that have limit bytes together, and how many they are: one at least.
func CutRows(rows []byte, n, limit int) (first []byte, k int) {
	if len(rows) <= limit {
		return rows, n
	}
	size := 0
	for k < n {
		next := 1 + rowLength(rows[size+1:])
		if k > 0 && size+next > limit {
			break
		}
		size += next
		k++
	}
	return rows[:size], k
}

// Begin ends the body: the next Cut begins a new one, and the pending rows
// belong to it.
func (b *Batch) Begin() {
	b.begun, b.raw, b.sum = false, 0, adlerInit
}

// A Piece is the next part of a body. The bytes are valid, and the same, until
// the next Cut: who could not store a piece offers this one again. A piece
// that was cut must be stored before the next one of its body.
type Piece struct {
	Data []byte
	Tail []byte // ends the body if no piece follows
	Rows int    // in Data
	Raw  int    // bytes of Data before compression
}

// Cut compresses the pending rows into the next piece of the body. Without
// pending rows it returns the zero Piece and changes nothing.
func (b *Batch) Cut() Piece {
	if b.n == 0 {
		return Piece{}
	}
	var head []byte
	rows := b.rows
	b.data = b.data[:0]
	if !b.begun {
		b.begun = true
		head, rows = b.head, rows[1:]
		b.data = append(b.data, zlibHeader...)
	}
	b.data = b.compressor.compress(b.data, head, rows)
	b.sum = adler(adler(b.sum, head), rows)
	b.raw += len(head) + len(rows)
	b.tail = appendTail(b.tail[:0], b.foot, b.sum)

	piece := Piece{Data: b.data, Tail: b.tail, Rows: b.n, Raw: len(head) + len(rows)}
	if oversized(b.data) {
		b.data = nil
	}
	if oversized(b.rows) {
		b.rows = nil
	}
	b.rows, b.n = b.rows[:0], 0
	return piece
}

// oversized reports whether a buffer is much larger than what it was used for,
// as one is after a burst. Such a buffer is given back.
func oversized(b []byte) bool { return cap(b) > 64<<10 && len(b) < cap(b)/8 }

// zlibHeader says deflate with a window of 32 KiB, fastest algorithm.
const zlibHeader = "\x78\x01"

// appendTail appends the end of a zlib stream: foot in a final stored block,
// then the Adler-32 of the whole body, whose bytes before foot have sum.
func appendTail(dst, foot []byte, sum uint32) []byte {
	n := uint16(len(foot))
	dst = append(dst, 1) // final, stored
	dst = binary.LittleEndian.AppendUint16(dst, n)
	dst = binary.LittleEndian.AppendUint16(dst, ^n)
	dst = append(dst, foot...)
	return binary.BigEndian.AppendUint32(dst, adler(sum, foot))
}
