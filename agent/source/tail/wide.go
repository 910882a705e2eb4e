package tail

import (
	"bytes"
	"encoding/binary"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/openloganalytics/agent/agent/source"
)

// A file is taken for UTF-16 when it begins with a byte order mark, or when its
// first line shows it: most of its characters are ASCII, with the zero byte of
// each on the same side. Places are counted in bytes all the same, and lie
// between two code units; what is handed over is UTF-8.

// wide is set in the mark of a file of UTF-16.
const wide = littleEnd | bigEnd

// maxWide is MaxLine for UTF-16, in bytes of the file: two bytes of it become
// three of UTF-8 at most.
const maxWide = MaxLine / 3 * 2

// encodingOf tells from the first bytes of a file whether it is UTF-16: wide
// flags, and the length of the byte order mark. It is known once the first
// line is whole, or maxHead bytes are there, or no more are to be waited for.
func encodingOf(head []byte, all bool) (flags byte, bom int, known bool) {
	head = head[:min(len(head), maxHead)]
	all = all || len(head) == maxHead
	switch {
	case bytes.HasPrefix(head, []byte("\xff\xfe")):
		return littleEnd, 2, all || len(head) >= 4 // or it is UTF-32
	case bytes.HasPrefix(head, []byte("\xfe\xff")):
		return bigEnd, 2, true
	}
	end := bytes.IndexByte(head, '\n')
	if end < 0 {
		return zeroSide(head), 0, all
	}
	side := zeroSide(head[:end])
	switch {
	case side == littleEnd && end%2 == 0 && end+1 == len(head):
		return 0, 0, all
	case side == littleEnd && end%2 == 0 && head[end+1] == 0:
		return littleEnd, 0, true
	case side == bigEnd && end%2 == 1 && bytes.HasSuffix(head[:end], []byte{0}):
		return bigEnd, 0, true
	}
	return 0, 0, true
}

// zeroSide returns which byte of the code units is zero in most of line, and
// never the other one; 0 when neither is.
func zeroSide(line []byte) byte {
	var zeros [2]int
	units := len(line) / 2
	for i, c := range line[:2*units] {
		if c == 0 {
			zeros[i%2]++
		}
	}
	switch {
	case zeros[0] == 0 && 10*zeros[1] > 7*units:
		return littleEnd
	case zeros[1] == 0 && 10*zeros[0] > 7*units:
		return bigEnd
	}
	return 0
}

func (m *mark) order() binary.ByteOrder {
	if m.is(bigEnd) {
		return binary.BigEndian
	}
	return binary.LittleEndian
}

// appendText appends block, whole code units, as UTF-8.
func (m *mark) appendText(buf, block []byte) []byte {
	order := m.order()
	for i := 0; i+1 < len(block); i += 2 {
		r := rune(order.Uint16(block[i:]))
		if r < utf8.RuneSelf {
			buf = append(buf, byte(r))
			continue
		}
		if utf16.IsSurrogate(r) {
			next := rune(utf8.RuneError)
			if i+3 < len(block) {
				next = rune(order.Uint16(block[i+2:]))
			}
			if r = utf16.DecodeRune(r, next); r != utf8.RuneError {
				i += 2
			}
		}
		buf = utf8.AppendRune(buf, r)
	}
	return buf
}

// whole returns data without a part of a code unit at its end.
func (m *mark) whole(data []byte) []byte {
	if m.is(wide) {
		return data[:len(data)&^1]
	}
	return data
}

// newline returns the place behind the first line end of data, 0 when there is
// none.
func (m *mark) newline(data []byte) int {
	if !m.is(wide) {
		return bytes.IndexByte(data, '\n') + 1
	}
	for from := 0; ; {
		i := bytes.IndexByte(data[from:], '\n')
		if i < 0 {
			return 0
		}
		if end := (from + i) &^ 1; m.unitAt(data, end) == '\n' {
			return end + 2
		}
		from += i + 1
	}
}

// lastNewline returns the place behind the last line end of data, 0 when there
// is none.
func (m *mark) lastNewline(data []byte) int {
	if !m.is(wide) {
		return bytes.LastIndexByte(data, '\n') + 1
	}
	for to := len(data) &^ 1; ; {
		i := bytes.LastIndexByte(data[:to], '\n')
		if i < 0 {
			return 0
		}
		if end := i &^ 1; m.unitAt(data, end) == '\n' {
			return end + 2
		}
		to = i
	}
}

// endLength is the length of a line end, and of any character at least.
func (m *mark) endLength() int64 {
	if m.is(wide) {
		return 2
	}
	return 1
}

// countLines returns the number of line ends in data.
func (m *mark) countLines(data []byte) int64 {
	if !m.is(wide) {
		return int64(bytes.Count(data, []byte("\n")))
	}
	n := int64(0)
	for end := m.newline(data); end > 0; end = m.newline(data) {
		data = data[end:]
		n++
	}
	return n
}

// unitAt returns the code unit of data at i, -1 when it is not there whole.
func (m *mark) unitAt(data []byte, i int) int {
	if i+2 > len(data) {
		return -1
	}
	return int(m.order().Uint16(data[i:]))
}

// zeros reports whether data begins with a character of zeros.
func (m *mark) zeros(data []byte) bool {
	if m.is(wide) {
		return m.unitAt(data, 0) == 0
	}
	return data[0] == 0
}

// wholeLines returns the length of the whole lines that data begins with, up
// to one that begins with zeros.
func (m *mark) wholeLines(data []byte) int {
	n := m.lastNewline(data)
	if !m.is(wide) {
		if bytes.IndexByte(data[:n], 0) >= 0 {
			if i := bytes.Index(data[:n], []byte("\n\x00")); i >= 0 {
				return i + 1
			}
		}
		return n
	}
	for at := 0; ; {
		i := bytes.Index(data[at:n], []byte{0, 0})
		if i < 0 {
			return n
		}
		at += i
		if at%2 == 0 && at >= 2 && m.unitAt(data, at-2) == '\n' {
			return at
		}
		at++
	}
}

// fit returns the length of the whole lines that one Emit may take of block,
// when each row costs cost bytes besides its line. It is one line at least.
func (m *mark) fit(block []byte, cost int) int {
	limit := int64(source.MaxEmit)
	if m.is(wide) {
		limit = limit * 2 / 3
	}
	for {
		rows := m.countLines(block)
		size := int64(len(block)) + rows*int64(cost)
		if size <= limit || rows == 1 {
			return len(block)
		}
		part := int(int64(len(block)) * limit / size)
		end := m.lastNewline(block[:part])
		if end == 0 {
			end = m.newline(block)
		}
		block = block[:end]
	}
}

// cutLong returns how much is kept of a line that is too long: it ends between
// two characters.
func (m *mark) cutLong(line []byte) int {
	if !m.is(wide) {
		return runeStart(line, MaxLine)
	}
	if last := m.unitAt(line, maxWide-2); 0xd800 <= last && last < 0xdc00 {
		return maxWide - 2
	}
	return maxWide
}

// maxLine is the most that is kept of a line, in bytes of the file.
func (m *mark) maxLine() int {
	if m.is(wide) {
		return maxWide
	}
	return MaxLine
}

// runeStart returns the last place at or before n where a character of line
// begins, or n when line is not UTF-8 there.
func runeStart(line []byte, n int) int {
	for i := n; i > 0 && i > n-utf8.UTFMax; i-- {
		if utf8.RuneStart(line[i]) {
			return i
		}
	}
	return n
}
