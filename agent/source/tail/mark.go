package tail

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const (
	maxHead   = 1024 // bytes at the beginning of a file that the head digest covers
	maxAnchor = 256  // bytes before the offset that the anchor covers
)

// An identity tells a file from all others while it exists; with a birth time,
// also from files that get its inode later.
type identity struct {
	dev, ino uint64
	birth    int64 // nanoseconds since 1970; 0 when the file system keeps none
}

// again reports whether saved, from an earlier run, may be this file. Device
// numbers change at boot; inode and birth time to the nanosecond do not.
func (id identity) again(saved identity) bool {
	return id == saved || id.birth != 0 && id.ino == saved.ino && id.birth == saved.birth
}

// A digest is the beginning of a SHA-256.
type digest [16]byte

func digestOf(p []byte) digest {
	sum := sha256.Sum256(p)
	return digest(sum[:16])
}

// A mark is a place in a file with what proves that it is still that place.
type mark struct {
	id      identity
	offset  int64 // the next byte to read
	headLen int   // bytes that head covers, up to maxHead and never more than offset
	head    digest
	tailLen int // bytes before offset that tail covers, up to maxAnchor
	tail    digest
	flags   byte
	label   string // the path that the file was found under
	path    string // where it was last, when that is another
}

// Flags of a mark.
const (
	skipping  byte = 1 << iota // inside a line of which enough was kept
	rotated                    // another file has taken its path: it is complete
	littleEnd                  // UTF-16, the lower byte first
	bigEnd                     // UTF-16, the higher byte first
)

func (m *mark) is(flag byte) bool { return m.flags&flag != 0 }
func (m *mark) set(flag byte)     { m.flags |= flag }
func (m *mark) clear(flag byte)   { m.flags &^= flag }

// where is the path that the file was last seen under.
func (m *mark) where() string {
	if m.path != "" {
		return m.path
	}
	return m.label
}

// holds reports whether r, a file of size bytes, has the place of the mark.
func (m *mark) holds(r io.ReaderAt, size int64) bool {
	if size < m.offset {
		return false
	}
	var buf [maxHead]byte
	return same(r, buf[:m.headLen], 0, m.head) && same(r, buf[:m.tailLen], m.offset-int64(m.tailLen), m.tail)
}

func same(r io.ReaderAt, buf []byte, at int64, want digest) bool {
	if len(buf) == 0 {
		return true
	}
	n, _ := r.ReadAt(buf, at) // whatever the error: fewer bytes are other bytes
	return n == len(buf) && digestOf(buf) == want
}

// markVersion is the first byte of an encoded mark. What follows: dev, ino,
// birth, offset, headLen and tailLen as uvarints, flags as a byte, the two
// digests, then label and path, each after its length as uvarint.
const markVersion = 1

func (m *mark) encode() []byte {
	b := make([]byte, 0, 96+len(m.label)+len(m.path))
	b = append(b, markVersion)
	for _, v := range []uint64{
		m.id.dev, m.id.ino, uint64(m.id.birth), uint64(m.offset),
		uint64(m.headLen), uint64(m.tailLen),
	} {
		b = binary.AppendUvarint(b, v)
	}
	b = append(b, m.flags)
	b = append(b, m.head[:]...)
	b = append(b, m.tail[:]...)
	for _, s := range []string{m.label, m.path} {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	return b
}

var errMark = errors.New("not a mark of this version")

func decodeMark(b []byte) (mark, error) {
	bad := func() (mark, error) {
		return mark{}, fmt.Errorf("read mark of %d bytes: %w", len(b), errMark)
	}
	if len(b) == 0 || b[0] != markVersion {
		return bad()
	}
	rest, whole := b[1:], true
	number := func() uint64 {
		v, n := binary.Uvarint(rest)
		whole = whole && n > 0
		rest = rest[max(n, 0):]
		return v
	}
	m := mark{id: identity{dev: number(), ino: number(), birth: int64(number())}}
	m.offset = int64(number())
	headLen, tailLen := number(), number()
	if !whole || len(rest) < 1+len(m.head)+len(m.tail) || headLen > maxHead || tailLen > maxAnchor || m.offset < int64(max(headLen, tailLen)) {
		return bad()
	}
	m.headLen, m.tailLen, m.flags = int(headLen), int(tailLen), rest[0]
	rest = rest[1:]
	rest = rest[copy(m.head[:], rest):]
	rest = rest[copy(m.tail[:], rest):]
	for _, s := range []*string{&m.label, &m.path} {
		n := number()
		if !whole || n > uint64(len(rest)) {
			return bad()
		}
		*s, rest = string(rest[:n]), rest[n:]
	}
	if len(rest) != 0 || m.label == "" {
		return bad()
	}
	return m, nil
}
