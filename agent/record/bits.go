package record

import (
	"encoding/binary"
	"slices"
)

// A bitWriter appends bits to out, the first in the lowest place (RFC 1951
// §3.1.1).
type bitWriter struct {
	out  []byte
	bits uint64
	n    uint // bits in bits; less than 8 between two calls
}

// room makes room for as many bytes, and for the eight that flush writes.
func (w *bitWriter) room(bytes int) { w.out = slices.Grow(w.out, bytes+8) }

// add adds n bits; at most 56 fit in between two flushes.
func (w *bitWriter) add(value uint64, n uint) {
	w.bits |= value << (w.n & 63)
	w.n += n
}

// flush moves whole bytes to out, in which there is room.
func (w *bitWriter) flush() {
	at := len(w.out)
	binary.LittleEndian.PutUint64(w.out[at:at+8], w.bits)
	w.out = w.out[:at+int(w.n/8)]
	w.bits >>= w.n &^ 7
	w.n &= 7
}

func (w *bitWriter) put(c code) {
	w.add(uint64(c&0xffff), c.size())
	w.flush()
}

// tokens writes the copies of d, whose input is src. There has to be room.
func (w *bitWriter) tokens(d *deflater, src []byte) {
	acc, n, at := w.bits, w.n, len(w.out)
	out := w.out[:cap(w.out)]
	codes := &d.literalCodes
	for i := range d.copies {
		c := &d.copies[i]
		text := src[:c.literals]
		src = src[int(c.literals)+int(c.length):]
		for len(text) >= 4 {
			a, b, c, d := codes[text[0]], codes[text[1]], codes[text[2]], codes[text[3]]
			acc |= uint64(a&0xffff) << (n & 63)
			n += uint(a >> 16)
			acc |= uint64(b&0xffff) << (n & 63)
			n += uint(b >> 16)
			acc |= uint64(c&0xffff) << (n & 63)
			n += uint(c >> 16)
			acc |= uint64(d&0xffff) << (n & 63)
			n += uint(d >> 16)
			text = text[4:]
			binary.LittleEndian.PutUint64(out[at:], acc)
			at += int(n / 8)
			acc >>= n &^ 7 & 63
			n &= 7
		}
		for _, c := range text {
			code := codes[c]
			acc |= uint64(code&0xffff) << (n & 63)
			n += uint(code >> 16)
		}
		binary.LittleEndian.PutUint64(out[at:], acc)
		at += int(n / 8)
		acc >>= n &^ 7 & 63
		n &= 7
		if c.length == 0 {
			break
		}
		length := d.lengthCodes[uint8(c.length-shortest)]
		acc |= uint64(length&0xffffff) << (n & 63)
		n += uint(length >> 24)
		symbol, extra := distanceSymbol(uint32(c.distance))
		distance := d.distanceCodes[symbol&31]
		acc |= uint64(distance&0xffff) << (n & 63)
		n += uint(distance >> 16)
		acc |= uint64(c.distance) & (1<<(extra&63) - 1) << (n & 63)
		n += extra
		binary.LittleEndian.PutUint64(out[at:], acc)
		at += int(n / 8)
		acc >>= n &^ 7 & 63
		n &= 7
	}
	w.bits, w.n, w.out = acc, n, out[:at]
}

// writeHeader writes the header of a block that is not the last, with the
// codes of t.
func (t *tokens) writeHeader(w *bitWriter) {
	const dynamic = 2 << 1
	w.add(dynamic, 3)
	w.add(uint64(t.literals-firstLength), 5)
	w.add(uint64(t.distances-1), 5)
	w.add(uint64(t.orders-4), 4)
	w.flush()
	for _, symbol := range order[:t.orders] {
		w.add(uint64(t.orderCodes[symbol].size()), 3)
		w.flush()
	}
	for _, h := range t.header {
		c := t.orderCodes[h.symbol]
		w.add(uint64(c&0xffff), c.size())
		w.add(uint64(h.extra), uint(orderExtra(h.symbol)))
		w.flush()
	}
}

// stored writes text in blocks without compression.
func (w *bitWriter) stored(text []byte) {
	for len(text) > 0 {
		n := min(len(text), maxStored)
		w.startStored(n)
		w.out = append(w.out, text[:n]...)
		text = text[n:]
	}
}

// sync ends at a byte boundary, with an empty stored block, and returns what
// was written.
func (w *bitWriter) sync() []byte {
	w.startStored(0)
	return w.out
}

func (w *bitWriter) startStored(n int) {
	w.room(16)
	w.add(0, 3)
	w.n = (w.n + 7) &^ 7
	w.flush()
	w.out = binary.LittleEndian.AppendUint16(w.out, uint16(n))
	w.out = binary.LittleEndian.AppendUint16(w.out, ^uint16(n))
}
