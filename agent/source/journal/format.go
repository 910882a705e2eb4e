package journal

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// The format of a journal file, as systemd documents it (JOURNAL_FILE_FORMAT):
// a header, then objects, each at a multiple of eight bytes. All numbers are
// little-endian. What is not needed to read entries in their order (hash
// tables, seals) is not looked at.

// An id is one of the journal's 128-bit ids.
type id [16]byte

func (i id) String() string { return hex.EncodeToString(i[:]) }

// Words of the header's incompatible flags. A file with one that is not known
// cannot be read.
const (
	flagXZ        = 1 << 0
	flagLZ4       = 1 << 1
	flagKeyedHash = 1 << 2
	flagZstd      = 1 << 3
	flagCompact   = 1 << 4

	knownFlags = flagXZ | flagLZ4 | flagKeyedHash | flagZstd | flagCompact
)

// Kinds of objects.
const (
	kindData       = 1
	kindEntry      = 3
	kindEntryArray = 6
)

// Flags of a data object: how its payload is compressed.
const (
	dataXZ   = 1 << 0
	dataLZ4  = 1 << 1
	dataZstd = 1 << 2
)

const (
	signature = "LPKSHHRH"
	// minHeader is the header of the first version of the format, bytes.
	minHeader    = 208
	objectHeader = 16 // kind, flags, six bytes of nothing, size
	entryHead    = 64 // an entry before its items
	arrayHead    = 24 // an array of entries before its items
	dataHead     = 64 // data before its payload, but in
	compactHead  = 72 // files of the compact form
)

// A header is what heads a file. Of a file that is written to, counts and tail
// grow.
type header struct {
	file     id
	seqnumID id // of the numbers that entries have
	flags    uint32
	size     uint64 // of the header, bytes
	entries  uint64 // in the file
	array    uint64 // offset of the first array of entries, 0 while there is none
	head     uint64 // number of the first entry, 0 while there is none
	tail     uint64 // number of the last
	realtime uint64 // of the first entry, µs since 1970
}

func (h *header) compact() bool { return h.flags&flagCompact != 0 }

var (
	// errDamaged is the cause when a file says what cannot be.
	errDamaged = errors.New("damaged journal file")
	// errFresh is the cause when a file has no header yet.
	errFresh = errors.New("journal file without a header")
)

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errDamaged, fmt.Sprintf(format, args...))
}

// parseHeader reads the header, of which b has at least minHeader bytes.
func parseHeader(b []byte) (h header, err error) {
	if string(b[:8]) != signature {
		if [8]byte(b) == [8]byte{} {
			return header{}, errFresh
		}
		return header{}, damaged("it does not begin with %s", signature)
	}
	at := func(offset int) uint64 { return binary.LittleEndian.Uint64(b[offset:]) }
	h = header{
		flags: binary.LittleEndian.Uint32(b[12:]), file: id(b[24:]), seqnumID: id(b[72:]),
		size: at(88), entries: at(152), tail: at(160), head: at(168), array: at(176), realtime: at(184),
	}
	if unknown := h.flags &^ knownFlags; unknown != 0 {
		return header{}, fmt.Errorf("the journal file has a form (incompatible flags %#x) that this version cannot read", unknown)
	}
	if h.size < minHeader {
		return header{}, damaged("a header of %d bytes", h.size)
	}
	return h, nil
}

// parse reads an id as files and the kernel write it: 32 hexadecimal digits,
// with dashes or without.
func (i *id) parse(text string) error {
	text = strings.ReplaceAll(strings.TrimSpace(text), "-", "")
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(i) {
		return fmt.Errorf("%.40q is no id of 32 hexadecimal digits", text)
	}
	copy(i[:], b)
	return nil
}
