package tail

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// A file is one file that is followed, wherever it is. While a look at it is
// under way (busy), only what that look reads and writes is shared: nobody
// else touches the fields of the first group.
type file struct {
	mark
	handle  *os.File // open, or nil
	real    string   // path without links, once it was opened
	last    status   // as of the last look
	more    bool     // bytes are left that were not looked at
	check   bool     // look at the bytes even if the status is as it was
	hole    bool     // the byte at the offset was zero
	need    int      // bytes that a look reads at most
	atEnd   bool     // start where the file ends now: it is older than its pattern
	flush   bool     // hand over a last line without its end
	gone    bool     // no path leads to it any more; only the handle does
	refused bool     // its bytes are not wanted unless it is written anew

	key  string // of the checkpoint
	busy bool
	hung bool

	stem     string // of the path that it was first found under
	outside  bool   // its path matches no pattern
	resumed  bool   // since an earlier run nobody has seen its bytes
	newcomer bool   // it may be a copy of a file that is followed
	former   *former
	after    *file     // whose path it took: its bytes come first
	held     time.Time // since when a newcomer waits for the fate of its original
	skipped  int64     // bytes of the line that is being skipped
	ahead    ahead

	job      job // what to do in place of a look
	queued   bool
	ending   bool      // counted as not having its first mark yet
	saved    bool      // a checkpoint may exist
	troubled bool      // a Trouble is set
	size     int64     // at the last look that was acted on
	sighted  int64     // when it was found
	seen     time.Time // when a look at its bytes was last acted on
	moved    time.Time // when the size last changed
	due      time.Time // when to look again
	place    int       // in dues, counted from 1; 0 when not in it
	armed    bool      // an event will tell the next change,
	sure     bool      // whatever it is
	fails    int       // looks that failed in a row
}

// A former is what a file was before it was truncated.
type former struct {
	mark
	unread  int64 // bytes that are known to have been there after the offset
	records int64 // how many records they are
	until   time.Time
}

const blockSize = 256 << 10 // bytes that a look reads

// A finding is what a look found.
type finding struct {
	verdict verdict
	err     error
	status  status // of what the path leads to
	data    []byte // anchor, then the bytes at offset
	anchor  int    // length of the first part
	hole    int64  // zeros that were passed
	unread  int64  // bytes after offset that were there before this look
}

type verdict int

const (
	unchanged verdict = iota
	grown             // data has bytes
	passed            // a hole ended: offset and tail are behind it
	truncated         // the bytes before offset are others
	replaced          // the path leads to another file
	vanished          // the path leads nowhere
	failed            // err says why
	reborn            // it has another identity and is the same file all the same
)

// look finds out what became of f since the last look, and reads what is new.
func (f *file) look(g guard, buf []byte) finding {
	st, err := f.stat()
	switch {
	case err != nil && missing(err):
		return finding{verdict: vanished}
	case err != nil:
		return finding{verdict: failed, err: err}
	case st.id != f.id && f.isAt(st.id):
		return finding{verdict: reborn, status: st}
	case st.id != f.id:
		return finding{verdict: replaced, status: st}
	}
	before := f.last
	changed := st.changedSince(before)
	f.last = st
	if f.refused && st.size < before.size { // it is written anew
		return finding{verdict: truncated, status: st}
	}
	if f.refused || !changed && !f.more && !f.check && !f.flush && !f.atEnd && !f.hole {
		return finding{verdict: unchanged, status: st}
	}
	opened := f.handle == nil
	if opened {
		h, now, real, err := g.open(f.where())
		if err != nil {
			return f.openFailed(st, err)
		}
		if now.id != f.id {
			_ = h.Close() // nothing was written
			return finding{verdict: replaced, status: now}
		}
		f.handle, f.real = h, real
	}
	if f.atEnd {
		return f.goToEnd(st, buf)
	}
	if f.hole && !changed && !f.more && !f.check && !f.filled(buf) {
		return finding{verdict: unchanged, status: st}
	}
	found := f.read(st, opened || !f.more, buf)
	f.check = changed || f.last.size > st.size // a change within the same tick of the clock is seen next time
	found.unread = max(0, before.size-f.offset)
	return found
}

func (f *file) stat() (status, error) {
	if f.gone {
		return statFile(f.handle)
	}
	return statPath(f.where())
}

// isAt reports whether the open file has the identity that its path leads to: an
// overlay gives a file another one when it copies it to its upper layer.
func (f *file) isAt(id identity) bool {
	if f.handle == nil {
		return false
	}
	st, err := statFile(f.handle)
	return err == nil && st.id == id
}

// openFailed judges an open that failed. A file that is older than its
// pattern keeps at least the size that it has now.
func (f *file) openFailed(st status, err error) finding {
	if missing(err) {
		return finding{verdict: vanished}
	}
	if f.atEnd {
		f.atEnd, f.offset = false, st.size
	}
	f.check = true
	return finding{verdict: failed, err: err}
}

// goToEnd makes the mark of the last line's begin; a line that is not complete
// yet will be read whole.
func (f *file) goToEnd(st status, buf []byte) finding {
	f.atEnd = false
	f.offset = st.size
	n, err := f.handle.ReadAt(buf[:maxHead], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return finding{verdict: failed, err: err}
	}
	flags, _, _ := encodingOf(buf[:n], n == maxHead)
	f.set(flags)
	from := max(0, st.size-int64(len(buf))) &^ 1
	n, err = f.handle.ReadAt(buf, from)
	if err != nil && !errors.Is(err, io.EOF) {
		return finding{verdict: failed, err: err}
	}
	end := buf[:n]
	if i := f.lastNewline(end); i > 0 || from == 0 {
		end = end[:i]
	}
	f.offset = from + int64(len(end))
	f.anchor(end)
	f.more = true // the rest of the last line
	return f.growHead(st.size, finding{verdict: unchanged, status: st})
}

// anchor makes the tail digest of the bytes before offset, which are the last
// of before.
func (m *mark) anchor(before []byte) {
	m.tailLen = min(len(before), maxAnchor)
	m.tail = digestOf(before[len(before)-m.tailLen:])
}

// begin makes the head digest of the first bytes, if that covers more.
func (m *mark) begin(head []byte) {
	if n := min(len(head), maxHead); n > m.headLen {
		m.headLen, m.head = n, digestOf(head[:n])
	}
}

// read reads what is at the offset, after making sure that it is the offset
// of old.
func (f *file) read(st status, prove bool, buf []byte) finding {
	cut := finding{verdict: truncated, status: st}
	if st.size < f.offset {
		return cut
	}
	if f.hole {
		return f.readHole(st, buf)
	}
	size := min(len(buf), f.tailLen+max(f.need, blockSize))
	n, err := f.handle.ReadAt(buf[:size], f.offset-int64(f.tailLen))
	if err != nil && !errors.Is(err, io.EOF) {
		return finding{verdict: failed, err: fmt.Errorf("read file: %w", err)}
	}
	if n < f.tailLen || f.tailLen > 0 && digestOf(buf[:f.tailLen]) != f.tail {
		return cut
	}
	f.more = n == size
	f.last.size = max(f.last.size, f.offset+int64(n-f.tailLen))
	found := finding{verdict: grown, status: st, data: buf[:n], anchor: f.tailLen}
	if n == f.tailLen {
		found.verdict = unchanged
	}
	if f.headLen < maxHead || prove {
		return f.growHead(f.last.size, found)
	}
	return found
}

// growHead proves the head digest, lets it cover what it can of the bytes
// before the offset, and judges the file by its first bytes. It returns found
// when all is well.
func (f *file) growHead(size int64, found finding) finding {
	var buf [maxHead]byte
	n, err := f.handle.ReadAt(buf[:min(size, maxHead)], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return finding{verdict: failed, err: fmt.Errorf("read file: %w", err)}
	}
	head := buf[:n]
	if n < f.headLen || f.headLen > 0 && digestOf(head[:f.headLen]) != f.head {
		return finding{verdict: truncated, status: found.status}
	}
	if err := admitHead(head); err != nil {
		return finding{verdict: failed, err: err}
	}
	f.begin(head[:min(int64(n), f.offset)])
	return found
}

// filled reports whether the first of the zeros at the offset were filled: a
// program that writes by mmap need not change the file's times.
func (f *file) filled(buf []byte) bool {
	n, err := f.handle.ReadAt(buf[:min(len(buf), maxHead)], f.offset)
	return err != nil || len(bytes.TrimLeft(buf[:n], "\x00")) > 0
}

// readHole looks for the end of the zeros at the offset: what a writer leaves
// that goes on at its old place after the file was truncated. Zeros that reach
// the end of the file may still be filled, and are waited for.
func (f *file) readHole(st status, buf []byte) finding {
	if !f.holds(f.handle, st.size) {
		return finding{verdict: truncated, status: st}
	}
	f.more = false
	for at := f.offset; ; {
		n, err := f.handle.ReadAt(buf, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return finding{verdict: failed, err: fmt.Errorf("read file: %w", err)}
		}
		data := bytes.TrimLeft(buf[:n], "\x00")
		at += int64(n - len(data))
		switch {
		case len(data) > 0 && f.is(wide):
			return f.passHole(st, at&^1, buf)
		case len(data) > 0:
			return f.passHole(st, at, buf)
		case n < len(buf):
			return finding{verdict: unchanged, status: st}
		}
		at = nextData(f.handle, at)
	}
}

// passHole puts the mark behind the zeros, at end.
func (f *file) passHole(st status, end int64, buf []byte) finding {
	before := buf[:min(end, maxAnchor)]
	n, err := f.handle.ReadAt(before, end-int64(len(before)))
	if n < len(before) {
		return finding{verdict: failed, err: fmt.Errorf("read file: %w", err)}
	}
	zeros := end - f.offset
	f.offset, f.hole, f.more = end, false, true
	f.anchor(before)
	return finding{verdict: passed, status: st, hole: zeros}
}

// home is the path whose folder the file lives in.
func (f *file) home() string {
	if f.real != "" {
		return f.real
	}
	return f.where()
}

// release closes the handle.
func (f *file) release() {
	if f.handle != nil {
		_ = f.handle.Close() // nothing was written
		f.handle = nil
	}
}
