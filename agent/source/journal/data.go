package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/klauspost/compress/zstd"
)

// A field is one that rows are made of.
type field uint8

const (
	fieldOther field = iota
	fieldMessage
	fieldPriority
	fieldFacility
	fieldIdent
	fieldSyslogPID
	fieldPID
	fieldComm
	fieldHost
	fieldTransport
	fieldSourceTime
	fieldCount
)

// nameOf tells the field by its name.
func nameOf(name []byte) field {
	switch string(name) {
	case "MESSAGE":
		return fieldMessage
	case "PRIORITY":
		return fieldPriority
	case "SYSLOG_FACILITY":
		return fieldFacility
	case "SYSLOG_IDENTIFIER":
		return fieldIdent
	case "SYSLOG_PID":
		return fieldSyslogPID
	case "_PID":
		return fieldPID
	case "_COMM":
		return fieldComm
	case "_HOSTNAME":
		return fieldHost
	case "_TRANSPORT":
		return fieldTransport
	case "_SOURCE_REALTIME_TIMESTAMP":
		return fieldSourceTime
	}
	return fieldOther
}

const (
	// maxName is the longest name of a field that journald takes, with its =.
	maxName = 64 + 1
	// maxMessage is the longest message that is kept whole, in bytes.
	maxMessage = 64 << 10
	// maxOther is the same for other fields: idents, hosts and numbers.
	maxOther = 1 << 10
)

// fields are the values of one entry. A field that comes twice has its first
// value.
type fields struct {
	arena  []byte
	values [fieldCount]struct{ from, to int }
	has    [fieldCount]bool
	cut    uint64 // bytes of the message that are missing, at least
}

func (f *fields) reset() {
	f.arena = f.arena[:0]
	f.has = [fieldCount]bool{}
	f.cut = 0
}

// value returns the value of a field, nil when the entry has none. It is good
// until the next reset.
func (f *fields) value(of field) []byte {
	if !f.has[of] {
		return nil
	}
	return f.arena[f.values[of].from:f.values[of].to]
}

// add takes a field of the whole length and as much of the value as there is.
func (f *fields) add(of field, value []byte, whole uint64) {
	if f.has[of] {
		return
	}
	from := len(f.arena)
	f.arena = append(f.arena, value[:min(len(value), limitOf(of))]...)
	f.has[of] = true
	f.values[of].from, f.values[of].to = from, len(f.arena)
	if kept := uint64(len(f.arena) - from); of == fieldMessage && whole > kept {
		f.cut = whole - kept
	}
}

func limitOf(of field) int {
	if of == fieldMessage {
		return maxMessage
	}
	return maxOther
}

// Entries share the data that they have in common: such an object lies before
// the entry that used it first. What it holds is remembered by its offset.
const (
	knownData  = 4096
	knownValue = 48 // the longest value that is remembered, bytes
)

type knownDatum struct {
	offset uint64
	field  field
	length uint8
	value  [knownValue]byte
}

// field reads the data object at offset, of the entry at another, into f.
func (r *reader) field(offset, entry uint64, f *fields) error {
	known := &r.cache.known[(offset>>3)*0x9E3779B97F4A7C15>>(64-12)]
	if known.offset == offset && offset != 0 {
		if known.field != fieldOther {
			f.add(known.field, known.value[:known.length], uint64(known.length))
		}
		return nil
	}
	before := len(f.arena)
	of, err := r.datum(offset, f)
	if err != nil {
		return err
	}
	length := len(f.arena) - before
	const near = 32 << 10 // what the entry brought with it is not used again, or seldom
	if (of == fieldOther || length > 0 && length <= knownValue) && of != fieldMessage && of != fieldSourceTime && offset+near < entry {
		known.offset, known.field, known.length = offset, of, uint8(length)
		copy(known.value[:], f.arena[before:])
	}
	return nil
}

// datum reads a data object: NAME=VALUE.
func (r *reader) datum(offset uint64, f *fields) (of field, err error) {
	head := uint64(dataHead)
	if r.compact() {
		head = compactHead
	}
	size, flags, err := r.object(offset, kindData, head)
	if err != nil {
		return fieldOther, err
	}
	if flags&(dataXZ|dataLZ4|dataZstd) != 0 {
		return r.cache.unpack.datum(io.NewSectionReader(r.file, int64(offset+head), int64(size-head)), flags, f)
	}
	size -= head
	if size == 0 {
		return fieldOther, damaged("the data at %d has no name", offset)
	}
	b, err := r.read(offset+head, min(size, maxName))
	if err != nil {
		return fieldOther, err
	}
	equals := bytes.IndexByte(b, '=')
	if equals < 1 {
		return fieldOther, damaged("the data at %d has no name", offset)
	}
	if of = nameOf(b[:equals]); of == fieldOther {
		return of, nil
	}
	if size > uint64(len(b)) {
		if b, err = r.read(offset+head, min(size, uint64(equals+1+limitOf(of)))); err != nil {
			return of, err
		}
	}
	f.add(of, b[equals+1:], size-uint64(equals+1))
	return of, nil
}

// errXZ is the cause when a field is compressed with XZ, as journald did until
// 2013 or so, and some distributions longer.
var errXZ = errors.New("compressed with XZ, which this agent cannot read; set Compress=no in journald.conf")

// An unpacker decompresses data, no more of it than is needed.
type unpacker struct {
	zstd   *zstd.Decoder
	packed []byte
	plain  []byte
}

// maxWindow is the most memory that a compressed field may want, bytes.
// journald's own need less than 8 MiB.
const maxWindow = 16 << 20

func (u *unpacker) datum(packed *io.SectionReader, flags byte, f *fields) (of field, err error) {
	var whole uint64
	switch {
	case flags&dataZstd != 0:
		of, whole, err = u.unpackZstd(packed)
	case flags&dataLZ4 != 0:
		of, whole, err = u.unpackLZ4(packed)
	default:
		return fieldOther, errXZ
	}
	if err != nil || of == fieldOther {
		return of, err
	}
	equals := bytes.IndexByte(u.plain, '=')
	value := u.plain[equals+1:]
	f.add(of, value, max(whole, uint64(len(u.plain)))-uint64(equals+1))
	return of, nil
}

// named tells the field that plain begins with.
func named(plain []byte) (field, error) {
	equals := bytes.IndexByte(plain[:min(len(plain), maxName)], '=')
	if equals < 1 {
		return fieldOther, damaged("compressed data has no name")
	}
	return nameOf(plain[:equals]), nil
}

// unpackZstd decompresses into plain: the name alone, and the rest when it is
// the name of a field that is wanted.
func (u *unpacker) unpackZstd(packed *io.SectionReader) (of field, whole uint64, err error) {
	if u.zstd == nil {
		u.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return fieldOther, 0, fmt.Errorf("decompress: %w", err)
		}
	}
	if err := u.zstd.Reset(packed); err != nil {
		return fieldOther, 0, damaged("%v", err)
	}
	defer func() { _ = u.zstd.Reset(nil) }() // lets go of the file
	n, err := u.fill(0, maxName)
	if err != nil {
		return fieldOther, 0, err
	}
	if of, err = named(u.plain); err != nil || of == fieldOther || n < maxName {
		return of, uint64(n), err
	}
	want := maxName + limitOf(of) + 1
	if n, err = u.fill(n, want); err != nil || n < want {
		return of, uint64(n), err
	}
	return of, max(contentSize(packed), uint64(n)), nil
}

// fill reads into plain, which has n bytes, until it has want or all.
func (u *unpacker) fill(n, want int) (int, error) {
	if cap(u.plain) < want {
		u.plain = append(make([]byte, 0, want), u.plain[:n]...)
	}
	more, err := io.ReadFull(u.zstd, u.plain[n:want])
	u.plain = u.plain[:n+more]
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return n + more, damaged("%v", err)
	}
	return n + more, nil
}

// contentSize is how long the data is that a frame of zstd holds, 0 when it does
// not say.
func contentSize(packed *io.SectionReader) uint64 {
	b := make([]byte, zstd.HeaderMaxSize)
	n, _ := packed.ReadAt(b, 0) // what is there is decoded, or is not
	var h zstd.Header
	if h.Decode(b[:n]) != nil || !h.HasFCS {
		return 0
	}
	return h.FrameContentSize
}

// unpackLZ4 does the same for LZ4: eight bytes with the length, then one block.
func (u *unpacker) unpackLZ4(packed *io.SectionReader) (of field, whole uint64, err error) {
	var head [8]byte
	if n, err := packed.ReadAt(head[:], 0); n < len(head) {
		return fieldOther, 0, cutOff(err)
	}
	whole = binary.LittleEndian.Uint64(head[:])
	// So many bytes hold as much, even where nothing could be made shorter. A
	// length takes a byte for every 255 of it.
	const most = maxName + maxMessage + 1
	size := 64 + most + min(whole, maxWhole)/255
	u.packed = slices.Grow(u.packed[:0], int(min(uint64(packed.Size()), size)))
	u.packed = u.packed[:min(uint64(packed.Size()), size)]
	if n, err := packed.ReadAt(u.packed, 0); n < len(u.packed) {
		return fieldOther, 0, cutOff(err)
	}
	if len(u.packed) <= 8 {
		return fieldOther, 0, damaged("compressed data of %d bytes", len(u.packed))
	}
	block := u.packed[8:]
	if u.plain, err = appendLZ4(u.plain[:0], block, int(min(whole, maxName))); err != nil {
		return fieldOther, 0, err
	}
	if of, err = named(u.plain); err != nil || of == fieldOther {
		return of, whole, err
	}
	u.plain, err = appendLZ4(u.plain[:0], block, int(min(whole, uint64(maxName+limitOf(of)))))
	return of, whole, err
}

// maxWhole is the longest data that journald takes, bytes.
const maxWhole = 768 << 20

func cutOff(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return damaged("it ends within compressed data")
	}
	return err
}

var errCut = damaged("a compressed block ends too soon")

// appendLZ4 appends the first n bytes that a block of LZ4 holds. dst is empty.
//
// A block is sequences: a byte with two lengths, a run of literal bytes, and a
// distance back in the output from which a copy is made.
func appendLZ4(dst, block []byte, n int) ([]byte, error) {
	long := func(length int) (int, bool) { // a length of 15 goes on in further bytes
		if length < 15 {
			return length, true
		}
		for len(block) > 0 {
			b := block[0]
			block = block[1:]
			length += int(b)
			if b < 255 {
				return length, true
			}
		}
		return 0, false
	}
	for len(dst) < n {
		if len(block) == 0 {
			return dst, errCut
		}
		token := block[0]
		block = block[1:]
		literals, ok := long(int(token >> 4))
		literals = min(literals, n-len(dst))
		if !ok || literals > len(block) {
			return dst, errCut
		}
		dst = append(dst, block[:literals]...)
		block = block[literals:]
		if len(dst) == n {
			break
		}
		if len(block) < 2 {
			return dst, errCut
		}
		back := int(binary.LittleEndian.Uint16(block))
		block = block[2:]
		length, ok := long(int(token & 15))
		if !ok || back == 0 || back > len(dst) {
			return dst, damaged("a compressed block refers to what is not there")
		}
		for range min(length+4, n-len(dst)) {
			dst = append(dst, dst[len(dst)-back])
		}
	}
	return dst, nil
}
