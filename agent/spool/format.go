package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// Format is the version of the bytes on disk that this package writes and
// reads. FORMAT.md describes it.
const Format = 1

// The fixed parts of the format, in bytes.
const (
	segmentMagic = "LASEGM\r\n"
	cursorMagic  = "LACURS\r\n"
	frameMagic   = "\xf5LF\n" // no UTF-8 text has the byte F5

	// sector is what frames and the segment header begin at multiples of: a
	// write never touches a sector that holds what was acknowledged before.
	sector = 512

	segmentHeaderSize = sector
	frameHeaderSize   = 64
	pieceEntrySize    = 36
	slotSize          = 512
	slotDistance      = 4096 // one slot to a page: a torn write meets one
	cursorSize        = 2 * slotDistance
	window            = 1024 // batches that a cursor can tell apart
	recordSize        = 33 + window/8

	flagSnapshot = 1
	forgotten    = ^uint32(0) // the length of a value that forgets its key
)

// Limits of what Append takes.
const (
	// MaxFrame is the most that one Append may carry, in bytes.
	MaxFrame = 16 << 20
	// MaxTail is the longest Piece.Tail.
	MaxTail = 64
	// maxName is the longest name of a destination.
	maxName = 256
)

var (
	le         = binary.LittleEndian
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

func checksum(p []byte) uint32 { return crc32.Checksum(p, castagnoli) }

// pad returns how many bytes are missing from n to whole sectors.
func pad(n int64) int64 { return -n & (sector - 1) }

func updateChecksum(crc uint32, p []byte) uint32 { return crc32.Update(crc, castagnoli, p) }

// segmentHeader begins a segment.
type segmentHeader struct {
	version uint32
	spool   uint64 // tells this spool's files from another's
	number  uint64 // of the segment
	first   uint64 // sequence number of the first frame
	rows    uint64 // appended before the first frame
}

func appendSegmentHeader(dst []byte, h segmentHeader) []byte {
	at := len(dst)
	dst = append(dst, segmentMagic...)
	dst = le.AppendUint32(dst, h.version)
	dst = le.AppendUint32(dst, 0)
	dst = le.AppendUint64(dst, h.spool)
	dst = le.AppendUint64(dst, h.number)
	dst = le.AppendUint64(dst, h.first)
	dst = le.AppendUint64(dst, h.rows)
	dst = le.AppendUint32(dst, checksum(dst[at:]))
	return append(dst, make([]byte, segmentHeaderSize-(len(dst)-at))...)
}

// parseSegmentHeader reads the header at the start of b. It accepts every
// version: magic, version and checksum keep their places in all of them.
func parseSegmentHeader(b []byte) (h segmentHeader, ok bool) {
	if len(b) < 52 || string(b[:8]) != segmentMagic || le.Uint32(b[48:]) != checksum(b[:48]) {
		return h, false
	}
	h.version = le.Uint32(b[8:])
	h.spool = le.Uint64(b[16:])
	h.number = le.Uint64(b[24:])
	h.first = le.Uint64(b[32:])
	h.rows = le.Uint64(b[40:])
	return h, true
}

// frameHeader begins a frame. The counts before the frame let a reader say
// exactly what is missing when frames are.
type frameHeader struct {
	spool       uint64
	seq         uint64
	rows        uint64 // appended before this frame
	next        ID     // the first batch number still free after this frame
	time        int64  // nanoseconds since 1970, for people only
	meta, data  uint32 // bytes of the two parts that follow
	flags       uint16
	pieceN      uint16 // how many of each the meta part has
	checkpointN uint32
}

// part is a piece with its place in its batch.
type part struct {
	Piece
	index          uint32
	dataCRC, whole uint32 // checksums of Data, and of Data with Tail
}

func (p *part) sum() {
	p.dataCRC = checksum(p.Data)
	p.whole = updateChecksum(p.dataCRC, p.Tail)
}

// appendFrame appends one whole frame and sets h.meta and h.data.
func appendFrame(dst []byte, h *frameHeader, parts []part, checkpoints []Checkpoint) []byte {
	at := len(dst)
	dst = append(dst, frameMagic...)
	dst = le.AppendUint32(dst, 0) // checksum
	dst = le.AppendUint64(dst, h.spool)
	dst = le.AppendUint64(dst, h.seq)
	dst = le.AppendUint64(dst, h.rows)
	dst = le.AppendUint64(dst, uint64(h.next))
	dst = le.AppendUint64(dst, uint64(h.time))
	dst = le.AppendUint64(dst, 0) // lengths
	dst = le.AppendUint16(dst, uint16(len(parts)))
	dst = le.AppendUint16(dst, h.flags)
	dst = le.AppendUint32(dst, uint32(len(checkpoints)))

	h.data = 0
	for i := range parts {
		dst = appendPieceEntry(dst, &parts[i])
		h.data += uint32(len(parts[i].Data) + len(parts[i].Tail))
	}
	for i := range checkpoints {
		dst = appendCheckpoint(dst, checkpoints[i])
	}
	h.meta = uint32(len(dst) - at - frameHeaderSize)
	le.PutUint32(dst[at+48:], h.meta)
	le.PutUint32(dst[at+52:], h.data)
	le.PutUint32(dst[at+4:], checksum(dst[at+8:]))
	for i := range parts {
		dst = append(dst, parts[i].Data...)
		dst = append(dst, parts[i].Tail...)
	}
	var zeros [sector]byte
	return append(dst, zeros[:pad(int64(len(dst)-at))]...)
}

func appendPieceEntry(dst []byte, p *part) []byte {
	dst = le.AppendUint64(dst, uint64(p.Batch))
	dst = le.AppendUint32(dst, p.index)
	dst = le.AppendUint32(dst, uint32(len(p.Data)))
	dst = le.AppendUint32(dst, uint32(p.Rows))
	dst = le.AppendUint32(dst, uint32(p.Raw))
	dst = le.AppendUint32(dst, p.dataCRC)
	dst = le.AppendUint32(dst, p.whole)
	dst = append(dst, byte(len(p.Tail)), 0)
	dst = le.AppendUint16(dst, uint16(len(p.Label)))
	return append(dst, p.Label...)
}

func appendCheckpoint(dst []byte, c Checkpoint) []byte {
	dst = le.AppendUint16(dst, uint16(len(c.Key)))
	if c.Value == nil {
		dst = le.AppendUint32(dst, forgotten)
		return append(dst, c.Key...)
	}
	dst = le.AppendUint32(dst, uint32(len(c.Value)))
	dst = append(dst, c.Key...)
	return append(dst, c.Value...)
}

// parseFrameHeader reads the fixed part of a frame at the start of b. Nothing
// in it is to be trusted before checkFrame has said so.
func parseFrameHeader(b []byte) (h frameHeader, ok bool) {
	if len(b) < frameHeaderSize || string(b[:4]) != frameMagic {
		return h, false
	}
	h.spool = le.Uint64(b[8:])
	h.seq = le.Uint64(b[16:])
	h.rows = le.Uint64(b[24:])
	h.next = ID(le.Uint64(b[32:]))
	h.time = int64(le.Uint64(b[40:]))
	h.meta = le.Uint32(b[48:])
	h.data = le.Uint32(b[52:])
	h.pieceN = le.Uint16(b[56:])
	h.flags = le.Uint16(b[58:])
	h.checkpointN = le.Uint32(b[60:])
	return h, true
}

// checkFrame reports whether b, header and meta part of a frame, is what was
// written.
func checkFrame(b []byte) bool { return le.Uint32(b[4:]) == checksum(b[8:]) }

// pieceEntry describes a piece in the meta part of a frame.
type pieceEntry struct {
	batch          ID
	index          uint32
	data           uint32
	rows, raw      uint32
	dataCRC, whole uint32 // checksums of Data, and of Data with Tail
	tail           uint8
	label          []byte
}

var errMeta = errors.New("meta part does not add up")

// contents are the meta part of a frame taken apart; its slices are reused and
// point into the bytes they were parsed from.
type contents struct {
	pieces      []pieceEntry
	checkpoints []Checkpoint
}

func (c *contents) parse(h *frameHeader, meta []byte) error {
	c.pieces, c.checkpoints = c.pieces[:0], c.checkpoints[:0]
	var data uint64
	for range h.pieceN {
		if len(meta) < pieceEntrySize {
			return errMeta
		}
		e := pieceEntry{
			batch: ID(le.Uint64(meta)), index: le.Uint32(meta[8:]), data: le.Uint32(meta[12:]),
			rows: le.Uint32(meta[16:]), raw: le.Uint32(meta[20:]),
			dataCRC: le.Uint32(meta[24:]), whole: le.Uint32(meta[28:]), tail: meta[32],
		}
		label := int(le.Uint16(meta[34:]))
		meta = meta[pieceEntrySize:]
		if len(meta) < label || e.batch == 0 || e.batch >= h.next || e.tail > MaxTail {
			return errMeta
		}
		e.label, meta = meta[:label:label], meta[label:]
		data += uint64(e.data) + uint64(e.tail)
		c.pieces = append(c.pieces, e)
	}
	for range h.checkpointN {
		if len(meta) < 6 {
			return errMeta
		}
		key, value := int(le.Uint16(meta)), le.Uint32(meta[2:])
		meta = meta[6:]
		if len(meta) < key {
			return errMeta
		}
		cp := Checkpoint{Key: string(meta[:key])}
		meta = meta[key:]
		if value != forgotten {
			if uint64(len(meta)) < uint64(value) {
				return errMeta
			}
			cp.Value, meta = meta[:value:value], meta[value:]
		}
		c.checkpoints = append(c.checkpoints, cp)
	}
	if len(meta) != 0 || data != uint64(h.data) || h.next >= maxID {
		return errMeta
	}
	return nil
}

// progress is how far a destination has got.
type progress struct {
	through   ID     // it has finished with this batch and all before
	base      uint64 // rows appended before it began
	delivered uint64 // rows it has accepted
	refused   uint64 // rows it has refused for good
	done      bitmap // batches after through that it has finished with
}

func (p *progress) finished(id ID) bool {
	return id <= p.through || p.done.has(uint64(id-p.through-1))
}

// last returns the highest batch that it has finished with.
func (p *progress) last() ID {
	for i := uint64(window); i > 0; i-- {
		if p.done.has(i - 1) {
			return p.through + ID(i)
		}
	}
	return p.through
}

// maxID is above every batch number that a spool can live to reach.
const maxID = 1 << 62

// bitmap's bit i stands for batch through+1+i.
type bitmap [window / 64]uint64

func (m *bitmap) has(i uint64) bool { return i < window && m[i/64]>>(i%64)&1 == 1 }

func (m *bitmap) set(i uint64) { m[i/64] |= 1 << (i % 64) }

// shift moves bit i+n to bit i.
func (m *bitmap) shift(n uint64) {
	if n >= window {
		*m = bitmap{}
		return
	}
	words, bits := int(n/64), n%64
	for i := range m {
		var low, high uint64
		if i+words < len(m) {
			low = m[i+words]
		}
		if i+words+1 < len(m) {
			high = m[i+words+1]
		}
		m[i] = low>>bits | high<<(64-bits)
	}
}

func (m *bitmap) append(dst []byte) []byte {
	for _, word := range m {
		dst = le.AppendUint64(dst, word)
	}
	return dst
}

func (m *bitmap) parse(b []byte) {
	for i := range m {
		m[i] = le.Uint64(b[8*i:])
	}
}

// slot is one of the two places for a cursor in its file.
type slot struct {
	version    uint32
	spool      uint64
	generation uint64
	name       string
	frames     uint64 // number of the next frame when it was written; 0 is not known
	progress
}

func appendSlot(dst []byte, s *slot) []byte {
	at := len(dst)
	dst = append(dst, cursorMagic...)
	dst = le.AppendUint32(dst, s.version)
	dst = le.AppendUint32(dst, uint32(len(s.name)))
	for _, v := range [...]uint64{
		s.spool, s.generation, uint64(s.through), s.base, s.delivered, s.refused,
	} {
		dst = le.AppendUint64(dst, v)
	}
	dst = s.done.append(dst)
	dst = append(dst, s.name...)
	dst = append(dst, make([]byte, slotSize-12-(len(dst)-at))...)
	dst = le.AppendUint64(dst, s.frames)
	return le.AppendUint32(dst, checksum(dst[at:]))
}

// parseSlot reads the slot at the start of b. It accepts every version: magic,
// version and checksum keep their places in all of them.
func parseSlot(b []byte) (s slot, ok bool) {
	if len(b) < slotSize || string(b[:8]) != cursorMagic ||
		le.Uint32(b[slotSize-4:]) != checksum(b[:slotSize-4]) {
		return s, false
	}
	s.version = le.Uint32(b[8:])
	name := le.Uint32(b[12:])
	if name > maxName {
		return s, false
	}
	s.spool = le.Uint64(b[16:])
	s.generation = le.Uint64(b[24:])
	s.through = ID(le.Uint64(b[32:]))
	s.base = le.Uint64(b[40:])
	s.delivered = le.Uint64(b[48:])
	s.refused = le.Uint64(b[56:])
	s.done.parse(b[64:])
	s.name = string(b[192 : 192+name])
	s.frames = le.Uint64(b[slotSize-12:])
	return s, s.through < maxID
}

// destinationKey begins the key of the checkpoint that remembers a
// destination. Such checkpoints are in snapshots only, and not to be seen from
// outside: no key of a caller begins with a zero byte.
const destinationKey = "\x00destination/"

// appendRecord appends what a snapshot remembers of a destination, for when its
// cursor is lost.
func appendRecord(dst []byte, p *progress, removed bool) []byte {
	dst = le.AppendUint64(dst, uint64(p.through))
	dst = le.AppendUint64(dst, p.base)
	dst = le.AppendUint64(dst, p.delivered)
	dst = le.AppendUint64(dst, p.refused)
	dst = p.done.append(dst)
	if removed {
		return append(dst, 1)
	}
	return append(dst, 0)
}

func parseRecord(b []byte) (p progress, removed, ok bool) {
	if len(b) != recordSize {
		return p, false, false
	}
	p.through = ID(le.Uint64(b))
	p.base = le.Uint64(b[8:])
	p.delivered = le.Uint64(b[16:])
	p.refused = le.Uint64(b[24:])
	p.done.parse(b[32:])
	return p, b[recordSize-1] == 1, p.through < maxID
}

// versionError says that a file is of a newer format.
func versionError(name string, version uint32) error {
	return fmt.Errorf("%w: %s has format %d, this version reads %d: "+
		"run the newer version to deliver what it holds, or open another folder beside it", ErrNewer, name, version, Format)
}
