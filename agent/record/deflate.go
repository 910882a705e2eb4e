package record

import (
	"encoding/binary"
	"math/bits"
)

// A deflater writes deflate data (RFC 1951). It is made for rows of JSON with
// log lines in them: such data repeats whole words and runs of words, so
// repetitions are looked for where a word begins, and nowhere else. Against a
// general encoder of the same ratio that saves half of the time.
//
// It is for one goroutine at a time, takes about 300 KB, and allocates nothing
// once its buffers have grown.
type deflater struct {
	// table holds where a word with that hash was seen last: the place in the
	// input plus base. What is less is of an earlier input.
	table [1 << hashBits]uint32
	base  uint32

	copies []repeat // of the present block
	tokens          // their statistics and codes
}

const (
	hashBits = 13
	hashed   = 5 // bytes of a word that its hash is made of

	window     = 32 << 10 // how far back a repetition may lie
	shortest   = 3        // bytes of a repetition, as deflate can say it
	longest    = 258
	blockBytes = 128 << 10 // of the input have one set of codes

	maxStored = 65535 // bytes of a stored block
)

// A repeat is literals and then a repetition: length bytes as they are
// distance bytes before. Length 0 ends the block.
type repeat struct {
	literals         uint32
	length, distance uint16 // less 1, for a distance of 32,768
}

// deflate appends to dst the deflate data of src: no reference to anything
// before, no final block, ending at a byte boundary.
func (d *deflater) deflate(dst, src []byte) []byte {
	if d.base > 1<<31 || d.base == 0 {
		d.table, d.base = [1 << hashBits]uint32{}, 1
	}
	w := bitWriter{out: dst}
	for start := 0; start < len(src); {
		end := start + blockBytes
		if end+blockBytes/2 > len(src) {
			end = len(src)
		}
		d.find(src, start, end)
		d.writeBlock(&w, src[start:end])
		start = end
	}
	d.base += uint32(len(src))
	return w.sync()
}

// find fills copies with the repetitions in src from start to end, and counts
// what has to be written.
func (d *deflater) find(src []byte, start, end int) {
	d.copies = d.copies[:0]
	d.reset()
	done := start // everything before it is in copies
	last := end - 16
	at, word := start, uint64(0)
	if at <= last {
		word = load64(src, at)
	}
	for at <= last {
		ends := delimiters(word)
		begins := ends << 8 &^ ends
		if begins == 0 {
			at += 8 - int(ends>>63) // a delimiter at the end may have a word behind it
			if word&highBits == 0 {
				word = load64(src, min(at, last))
				continue
			}
			if at -= 5; at > last { // one character of most scripts is three bytes
				break
			}
		} else {
			at += bits.TrailingZeros64(begins) / 8
		}
		word = load64(src, at)
		slot := &d.table[word<<(64-8*hashed)*0x9E3779B185EBCA87>>(64-hashBits)]
		seen := int(*slot) - int(d.base)
		*slot = d.base + uint32(at)
		if seen < 0 || at-seen > window || binary.LittleEndian.Uint32(src[seen:seen+4]) != uint32(word) {
			continue
		}
		n := 4 + common(src[seen+4:], src[at+4:end])
		from := at
		if seen >= 8 {
			before := load64(src, at-8) ^ load64(src, seen-8)
			same := min(bits.LeadingZeros64(before)/8, at-done)
			from, n = at-same, n+same
		}
		if n < hashed && at-seen > window/8 {
			continue // would take as much as the literals
		}
		d.countLiterals(src[done:from])
		d.add(from-done, n, at-seen)
		done = from + n
		at = done - 1 // a word may begin where the repetition ended
		word = load64(src, min(at, last))
	}
	d.countLiterals(src[done:end])
	d.copies = append(d.copies, repeat{literals: uint32(end - done)})
}

// add adds a repetition after literals, in parts that deflate can say.
func (d *deflater) add(literals, length, distance int) {
	for length > 0 {
		n := min(length, longest)
		if rest := length - n; rest > 0 && rest < shortest {
			n -= shortest
		}
		d.countRepeat(n, distance)
		d.copies = append(d.copies, repeat{uint32(literals), uint16(n), uint16(distance - 1)})
		literals, length = 0, length-n
	}
}

const (
	lowBits  = 0x0101010101010101
	highBits = 0x8080808080808080
)

// delimiters sets the high bit of each byte of word after which a word may
// begin: from space to slash, and from colon to at sign.
func delimiters(word uint64) uint64 {
	low := word &^ highBits
	fromSpace := low + (0x80-' ')*lowBits
	fromZero := low + (0x80-'0')*lowBits
	fromColon := low + (0x80-':')*lowBits
	fromA := low + (0x80-'A')*lowBits
	return (fromSpace&^fromZero | fromColon&^fromA) &^ word & highBits
}

func load64(b []byte, at int) uint64 { return binary.LittleEndian.Uint64(b[at : at+8]) }

// common returns how many bytes a and b have in common at their beginning. b is
// not longer than a.
func common(a, b []byte) int {
	n := 0
	for len(b)-n >= 8 {
		if diff := binary.LittleEndian.Uint64(a[n:]) ^ binary.LittleEndian.Uint64(b[n:]); diff != 0 {
			return n + bits.TrailingZeros64(diff)/8
		}
		n += 8
	}
	for n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// writeBlock writes the present block, whose input is src.
func (d *deflater) writeBlock(w *bitWriter, src []byte) {
	header, body := d.build()
	if size := (header + body) / 8; size >= len(src) {
		w.stored(src)
		return
	}
	w.room((header+body)/8 + 64)
	d.writeHeader(w)
	w.tokens(d, src)
	w.put(d.literalCodes[endOfBlock])
}
