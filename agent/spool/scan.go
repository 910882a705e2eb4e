package spool

import (
	"errors"
	"io"
	"slices"

	"github.com/openloganalytics/agent/internal/vfs"
)

// scanWindow is what one read takes in: the head of a large frame, or many
// small frames.
const scanWindow = 8 << 10

// A scanner reads the frames of one segment, whatever its bytes are.
type scanner struct {
	r     vfs.Reader
	size  int64
	spool uint64 // whose frames count; 0 is any

	block []byte // bytes from offset at
	at    int64
	err   error // of the disk; what it did not read counts as zeros
	contents
}

// A frame is one found by a scanner; it is good until the next.
type frame struct {
	frameHeader
	*contents
	off int64 // in the segment
}

func (f *frame) dataOff() int64 { return f.off + frameHeaderSize + int64(f.meta) }

// end is where the next frame begins.
func (f *frame) end() int64 {
	n := f.dataOff() + int64(f.data)
	return n + pad(n)
}

func (f *frame) rowCount() uint64 {
	var n uint64
	for i := range f.pieces {
		n += uint64(f.pieces[i].rows)
	}
	return n
}

func openScanner(fsys vfs.FS, name string) (*scanner, error) {
	r, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	size, err := r.Size()
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return &scanner{r: r, size: size}, nil
}

// Close ends the scan; its error says that not all could be read.
func (sc *scanner) Close() error { return errors.Join(sc.err, sc.r.Close()) }

// bytes returns n bytes at off, fewer where the file ends. They are good until
// the next call.
func (sc *scanner) bytes(off int64, n int) []byte {
	end := min(off+int64(n), sc.size)
	if off >= end {
		return nil
	}
	if off < sc.at || end > sc.at+int64(len(sc.block)) {
		want := int(min(max(end-off, scanWindow), sc.size-off))
		sc.block = slices.Grow(sc.block[:0], want)[:want]
		sc.at = off
		sc.read(sc.block, off)
	}
	return sc.block[off-sc.at : end-sc.at]
}

// read fills p from off, at the second try if the first fails.
func (sc *scanner) read(p []byte, off int64) {
	n, err := sc.r.ReadAt(p, off)
	if n < len(p) && !errors.Is(err, io.EOF) {
		n, err = sc.r.ReadAt(p, off)
	}
	if n < len(p) {
		clear(p[n:])
		if !errors.Is(err, io.EOF) {
			sc.err = err
		}
	}
}

// next returns the first frame at or after off, which is where one may begin.
func (sc *scanner) next(off int64) (frame, bool) {
	for ; off < sc.size; off += sector {
		if f, ok := sc.parse(off); ok {
			return f, true
		}
	}
	return frame{}, false
}

func (sc *scanner) parse(off int64) (frame, bool) {
	h, ok := parseFrameHeader(sc.bytes(off, frameHeaderSize))
	if !ok || sc.spool != 0 && h.spool != sc.spool {
		return frame{}, false
	}
	f := frame{h, &sc.contents, off}
	if f.dataOff()+int64(h.data) > sc.size {
		return frame{}, false
	}
	head := sc.bytes(off, frameHeaderSize+int(h.meta))
	if !checkFrame(head) || sc.contents.parse(&h, head[frameHeaderSize:]) != nil {
		return frame{}, false
	}
	return f, true
}

// verify reads the data of a frame and reports which of its pieces are bad,
// nil when none is.
func (sc *scanner) verify(f *frame) (bad []bool) {
	buf := make([]byte, f.data)
	sc.read(buf, f.dataOff())
	for i := range f.pieces {
		e := &f.pieces[i]
		data, tail := buf[:e.data], buf[e.data:][:e.tail]
		crc := checksum(data)
		if crc != e.dataCRC || updateChecksum(crc, tail) != e.whole {
			if bad == nil {
				bad = make([]bool, len(f.pieces))
			}
			bad[i] = true
		}
		buf = buf[len(data)+len(tail):]
	}
	return bad
}
