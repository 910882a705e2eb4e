package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
)

// A reader reads one journal file, which journald may write to meanwhile. It
// copies what it reads and maps nothing: journald cuts files short, and a map of
// what is gone would end the process. It is for one goroutine.
type reader struct {
	file io.ReaderAt
	header

	arrays []array // of entries, as far as they were followed
	caches *caches
	cache  *cache // nil while nothing is read
}

// A cache is what a reader needs to read fast. Only files of which something is
// read have one.
type cache struct {
	owner  *reader // that it was last used by
	blocks [blockCount]block
	joined []byte // what lies in two blocks
	items  []uint64
	known  [knownData]knownDatum
	unpack unpacker
}

// caches are those that no reader has.
type caches struct{ free []*cache }

// take returns a cache for a reader, the one that it had before if it is there.
func (c *caches) take(r *reader) *cache {
	n := len(c.free)
	if n == 0 {
		return &cache{owner: r}
	}
	i := max(slices.IndexFunc(c.free, func(c *cache) bool { return c.owner == r }), 0)
	taken := c.free[i]
	c.free = slices.Delete(c.free, i, i+1)
	if taken.owner != r {
		taken.owner, taken.known = r, [knownData]knownDatum{}
	}
	taken.forget()
	return taken
}

// give takes a cache back. Few are kept.
func (c *caches) give(given *cache) {
	const kept = 2
	if given != nil && len(c.free) < kept {
		c.free = append(c.free, given)
	}
}

// forget forgets what was read of the file, but not what will not change in it.
func (c *cache) forget() {
	for i := range c.blocks {
		c.blocks[i].at = 0
	}
}

// rest gives the cache back for as long as there is nothing to read.
func (r *reader) rest() {
	r.caches.give(r.cache)
	r.cache = nil
}

// An array lists entries of a file, by their offsets. Each array has the offset
// of the next, which is written when it is full.
type array struct {
	offset uint64
	items  uint64 // it has room for
	first  uint64 // entries before it
}

// A block is a part of the file that was read. What is behind the header is
// written once and stays, so a block is good until the file has grown.
type block struct {
	at   uint64 // number of the block, from 1; 0 is none
	data []byte
}

const (
	blockSize  = 16 << 10
	blockCount = 32
)

// newReader reads the header of a file.
func newReader(file io.ReaderAt, c *caches) (*reader, error) {
	r := &reader{file: file, caches: c}
	return r, r.refresh()
}

// refresh reads the header again, and forgets what was read of the file.
func (r *reader) refresh() error {
	b := make([]byte, minHeader)
	n, err := r.file.ReadAt(b, 0)
	switch {
	case n < len(b) && (err == nil || errors.Is(err, io.EOF)):
		if n == 0 {
			return errFresh
		}
		return damaged("it ends within its header")
	case n < len(b):
		return err
	}
	h, err := parseHeader(b)
	if err != nil {
		return err
	}
	if r.size != 0 && h.file != r.header.file {
		return damaged("it became another file")
	}
	r.header = h
	if r.cache != nil {
		r.cache.forget()
	}
	return nil
}

// read returns n bytes at an offset. They are good until the next read.
func (r *reader) read(offset, n uint64) ([]byte, error) {
	first, last := offset/blockSize, (offset+n-1)/blockSize
	if n == 0 || offset > maxFile || offset+n < offset || n > maxRead {
		return nil, damaged("%d bytes at %d", n, offset)
	}
	if first == last {
		b, err := r.block(first)
		if err != nil {
			return nil, err
		}
		from := offset - first*blockSize
		if from+n > uint64(len(b)) {
			return nil, damaged("it ends before %d", offset+n)
		}
		return b[from:][:n], nil
	}
	var joined []byte
	for number := first; number <= last; number++ {
		b, err := r.block(number)
		if err != nil {
			return nil, err
		}
		if number == first {
			joined = r.cache.joined[:0]
		}
		from := max(offset, number*blockSize) - number*blockSize
		to := min(offset+n, (number+1)*blockSize) - number*blockSize
		if to > uint64(len(b)) {
			return nil, damaged("it ends before %d", offset+n)
		}
		joined = append(joined, b[from:to]...)
	}
	r.cache.joined = joined
	return joined, nil
}

const (
	// maxRead is the most that is read in one piece, bytes.
	maxRead = 1 << 20
	// maxFile is more than a file can have, bytes.
	maxFile = 1 << 60
)

// block returns a block of the file, the last one short.
func (r *reader) block(number uint64) ([]byte, error) {
	if r.cache == nil {
		r.cache = r.caches.take(r)
	}
	b := &r.cache.blocks[number%blockCount]
	if b.at == number+1 {
		return b.data, nil
	}
	if cap(b.data) == 0 {
		b.data = make([]byte, blockSize)
	}
	n, err := r.file.ReadAt(b.data[:blockSize], int64(number*blockSize))
	if err != nil && !errors.Is(err, io.EOF) {
		b.at = 0
		return nil, fmt.Errorf("read journal: %w", err)
	}
	b.at, b.data = number+1, b.data[:n]
	return b.data, nil
}

// object checks the head of an object and returns its size, all of it, and its
// flags.
func (r *reader) object(offset uint64, kind byte, least uint64) (size uint64, flags byte, err error) {
	if offset%8 != 0 || offset < r.size {
		return 0, 0, damaged("no object can be at %d", offset)
	}
	head, err := r.read(offset, objectHeader)
	if err != nil {
		return 0, 0, err
	}
	size = binary.LittleEndian.Uint64(head[8:])
	if head[0] != kind || size < least || offset+size < offset {
		return 0, 0, damaged("at %d is an object of kind %d with %d bytes, want kind %d", offset, head[0], size, kind)
	}
	return size, head[1], nil
}

// itemSize is what an array takes for each entry, bytes.
func (r *reader) itemSize() uint64 {
	if r.compact() {
		return 4
	}
	return 8
}

// follow finds the arrays up to the one that has the entry with that ordinal.
func (r *reader) follow(ordinal uint64) (*array, error) {
	for {
		var last *array
		if n := len(r.arrays); n > 0 {
			last = &r.arrays[n-1]
			if ordinal < last.first+last.items {
				i := sort.Search(n, func(i int) bool { return ordinal < r.arrays[i].first+r.arrays[i].items })
				return &r.arrays[i], nil
			}
		}
		next, first := r.array, uint64(0)
		if last != nil {
			b, err := r.read(last.offset+objectHeader, 8)
			if err != nil {
				return nil, err
			}
			next, first = binary.LittleEndian.Uint64(b), last.first+last.items
			if next != 0 && next <= last.offset { // they only ever grow: no circle
				return nil, damaged("the array of entries after %d is at %d", last.offset, next)
			}
		}
		if next == 0 {
			return nil, damaged("entry %d is in no array", ordinal)
		}
		size, _, err := r.object(next, kindEntryArray, arrayHead+r.itemSize())
		if err != nil {
			return nil, err
		}
		r.arrays = append(r.arrays, array{offset: next, items: (size - arrayHead) / r.itemSize(), first: first})
	}
}

// An entry is the head of one.
type entry struct {
	seqnum    uint64
	realtime  uint64 // µs since 1970, when journald took it
	monotonic uint64 // µs since the boot
	boot      id
	offset    uint64
	size      uint64
}

// errNoList is the cause when the list of entries is broken: none of those from
// there on can be found.
var errNoList = errors.New("the list of entries is broken")

// entry reads the head of the entry with that ordinal, from 0.
func (r *reader) entry(ordinal uint64) (e entry, err error) {
	a, err := r.follow(ordinal)
	if err != nil {
		return entry{}, fmt.Errorf("%w: %w", errNoList, err)
	}
	item, err := r.read(a.offset+arrayHead+(ordinal-a.first)*r.itemSize(), r.itemSize())
	if err != nil {
		return entry{}, err
	}
	if r.compact() {
		e.offset = uint64(binary.LittleEndian.Uint32(item))
	} else {
		e.offset = binary.LittleEndian.Uint64(item)
	}
	if e.size, _, err = r.object(e.offset, kindEntry, entryHead); err != nil {
		return entry{}, err
	}
	b, err := r.read(e.offset, entryHead)
	if err != nil {
		return entry{}, err
	}
	e.seqnum = binary.LittleEndian.Uint64(b[16:])
	e.realtime = binary.LittleEndian.Uint64(b[24:])
	e.monotonic = binary.LittleEndian.Uint64(b[32:])
	e.boot = id(b[40:])
	if e.seqnum == 0 {
		return entry{}, damaged("the entry at %d has no number", e.offset)
	}
	return e, nil
}

// search returns the ordinal of the first entry that is so, which all that
// follow it have to be too; the number of entries when none is. What cannot be
// read counts as not so.
func (r *reader) search(is func(*entry) bool) uint64 {
	n := min(r.entries, 1<<40)
	return uint64(sort.Search(int(n), func(i int) bool {
		e, err := r.entry(uint64(i))
		return err == nil && is(&e)
	}))
}

// after returns the ordinal of the first entry with a higher number.
func (r *reader) after(seqnum uint64) uint64 {
	return r.search(func(e *entry) bool { return e.seqnum > seqnum })
}

// maxItems bounds what is looked at of an entry. journald itself takes no
// more than a thousand or so fields.
const maxItems = 4096

// fields reads the fields of an entry into f. The error says that some could
// not be read; the others are in f all the same.
func (r *reader) fields(e *entry, f *fields) error {
	f.reset()
	itemSize := uint64(16)
	if r.compact() {
		itemSize = 4
	}
	count := min((e.size-entryHead)/itemSize, maxItems)
	items := []uint64(nil)
	if count > 0 {
		b, err := r.read(e.offset+entryHead, count*itemSize)
		if err != nil {
			return err
		}
		items = r.cache.items[:0]
		for i := range count {
			if r.compact() {
				items = append(items, uint64(binary.LittleEndian.Uint32(b[i*itemSize:])))
			} else {
				items = append(items, binary.LittleEndian.Uint64(b[i*itemSize:]))
			}
		}
		r.cache.items = items
	}
	var failed error
	for _, offset := range items {
		if err := r.field(offset, e.offset, f); err != nil && failed == nil {
			failed = err
		}
	}
	return failed
}
