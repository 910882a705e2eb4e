package syslog

import "bytes"

// maxMessage is the longest message that is kept whole, in bytes.
const maxMessage = 64 << 10

// startMark begins each message in the pipe. rsyslog writes to a pipe without
// waiting and takes a part that still fitted for the whole, so the pipe can
// hold the head of a long message with the next one right behind it. No
// message has the mark inside: rsyslog escapes control characters.
const startMark = 0x02

// A framer cuts a stream of bytes into messages. They end in LF, or follow
// their octet count ("17 <13>…"), and each tells which (RFC 6587 §3.4).
type framer struct {
	marked bool // messages begin with startMark and end in LF

	buf        []byte
	start, end int // of what was read and not yet cut

	// Of a message that is too long the head was returned and the rest is
	// skipped: so many bytes, or up to the next LF.
	skip     int
	skipLine bool
	skipped  int64 // bytes, since the caller last set it to 0
}

// A framer's buffer grows when a read fills it, so a quiet connection stays
// small. In bytes.
const (
	firstBuffer = 16 << 10
	lastBuffer  = 256 << 10
)

// space returns where to read to. What next returned before is gone then.
func (f *framer) space() []byte {
	held, size := f.buf[f.start:f.end], len(f.buf)
	switch {
	case size == 0:
		f.buf = make([]byte, firstBuffer)
	case f.full() && size < lastBuffer:
		f.buf = make([]byte, 2*size)
		f.start, f.end = 0, copy(f.buf, held)
	case len(held) == 0, size-f.end < size/4:
		f.start, f.end = 0, copy(f.buf, held)
	}
	return f.buf[f.end:]
}

// filled says that n bytes were read into space.
func (f *framer) filled(n int) { f.end += n }

// whole tells whether no part of a message is held.
func (f *framer) whole() bool { return f.start == f.end && !f.skipLine && f.skip == 0 }

// full tells whether the last read filled the space, so that there may be more.
func (f *framer) full() bool { return f.end == len(f.buf) }

// next returns the next message that is not empty, and whether its end is
// missing. It is not ok when no message is complete.
func (f *framer) next() (msg []byte, cut, ok bool) {
	for {
		f.skipRest()
		held := f.buf[f.start:f.end]
		header, length := f.octets(held)
		switch {
		case header == unknown:
			return nil, false, false
		case header > 0:
			keep := min(length, maxMessage)
			if header+keep > len(held) {
				return nil, false, false
			}
			f.start += header + keep
			f.skip = length - keep
			return held[header:][:keep], f.skip > 0, true
		}
		if msg, cut, ok = f.line(held); !ok || len(msg) > 0 {
			return msg, cut, ok
		}
	}
}

// line cuts one line off the front of held.
func (f *framer) line(held []byte) (msg []byte, cut, ok bool) {
	end := bytes.IndexByte(held, '\n')
	if f.marked && len(held) > 0 {
		if next := 1 + bytes.IndexByte(held[1:], startMark); next > 0 && (end < 0 || next < end) {
			f.start += next
			return bytes.TrimPrefix(held[:next], []byte{startMark}), true, true
		}
	}
	switch {
	case end < 0 && len(held) <= maxMessage:
		return nil, false, false
	case end < 0 || end > maxMessage:
		f.start += maxMessage
		f.skipLine = true
		msg, cut = held[:maxMessage], true
	default:
		f.start += end + 1
		msg = held[:end]
	}
	if f.marked {
		msg = bytes.TrimPrefix(msg, []byte{startMark})
	}
	return msg, cut, true
}

// rest returns the message at the end of a stream that ended without its LF or
// before its octet count was reached.
func (f *framer) rest() []byte {
	f.skipRest()
	rest := f.buf[f.start:f.end]
	if header, _ := f.octets(rest); header > 0 {
		rest = rest[header:]
	}
	f.start = f.end
	if f.marked {
		rest = bytes.TrimPrefix(rest, []byte{startMark})
	}
	return rest
}

// skipRest passes over what is left of a message that was too long.
func (f *framer) skipRest() {
	n := min(f.skip, f.end-f.start)
	f.skip -= n
	if f.skipLine {
		n = bytes.IndexByte(f.buf[f.start:f.end], '\n')
		f.skipLine = n < 0
		if n < 0 {
			n = f.end - f.start
		}
	}
	f.start += n
	f.skipped += int64(n)
}

// unknown is a header whose end was not read yet.
const unknown = -1

// octets reads an octet count: the length of the count with its space, and the
// length of the message. The header is 0 when held begins with no such count.
func (f *framer) octets(held []byte) (header, length int) {
	const maxDigits = 9
	if f.marked {
		return 0, 0
	}
	n := 0
	for n < len(held) && n <= maxDigits && isDigit(held[n]) {
		length = 10*length + int(held[n]-'0')
		n++
	}
	switch {
	case n == 0 || n > maxDigits || held[0] == '0':
		return 0, 0
	case n == len(held), n+1 == len(held) && held[n] == ' ':
		return unknown, 0
	case held[n] == ' ' && held[n+1] == '<':
		return n + 1, length
	}
	return 0, 0
}
