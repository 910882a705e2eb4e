package tail

import (
	"context"
	"os"
	"slices"
	"time"

	"github.com/openloganalytics/agent/agent/record"
	"github.com/openloganalytics/agent/agent/source"
)

const (
	// vigilAfter is how long the spool may take before a vigil is kept.
	vigilAfter = time.Second
	// maxDeleted bytes are kept on the disk by files that were deleted while the
	// spool had no room; what was deleted first is given up beyond that.
	maxDeleted = 1 << 30
)

// hand emits. While the spool has no room it keeps a vigil: files that appear
// are opened, so that rotation cannot take them out of reach before they are
// read, and what is waiting in them is counted, so that a loss is exact.
func (t *follower) hand(ctx context.Context, fill func(*record.Batch), at ...source.Checkpoint) error {
	taken := make(chan error, 1)
	go func() { taken <- t.out.Emit(ctx, t.o.Table, fill, at...) }()
	start := time.Now()
	timer := time.NewTimer(vigilAfter)
	defer timer.Stop()
	for {
		select {
		case err := <-taken:
			if now := time.Now(); now.Sub(start) >= vigilAfter {
				t.searchOn(now)
			}
			return err
		case v := <-t.vigils:
			t.endVigil(v)
			timer.Reset(scanPause(v.took))
		case <-timer.C:
			timer.Reset(t.watchOver(time.Now()))
		}
	}
}

// searchOn gives the search for copies the time that the loop had none.
func (t *follower) searchOn(now time.Time) {
	for f := range t.cut {
		f.former.until = now.Add(formerFor)
	}
}

// watchOver starts a round when none is under way, and returns when to call it
// again.
func (t *follower) watchOver(now time.Time) time.Duration {
	if t.watching != nil {
		next, path := t.watching.waits(now)
		if path == "" {
			return next.Sub(now)
		}
		t.stall(t.watching, path)
		t.watching = nil
	}
	if t.started && len(t.stuck) <= maxHung {
		t.startVigil()
	}
	return vigilAfter
}

// A vigil is what one round over all files found.
type vigil struct {
	walk  *walk
	wards []ward
	took  time.Duration
}

// A ward is one file as a round found it. What goes in is a copy, so that the
// round shares nothing with the loop but the handle, which both only read.
type ward struct {
	mark   mark
	path   string
	gone   bool
	handle *os.File
	ahead  ahead
	proof  mark // the last place that is known to be in the file

	st      status
	opened  bool   // handle is new,
	real    string // and this its path without links
	refused bool   // the next look will say why
}

// An ahead counts the lines from a file's offset on that wait to be read.
type ahead struct {
	to    int64 // counted so far; 0 when nothing is
	lines int64
	open  bool // bytes after the last line end
	cut   bool // the file was truncated meanwhile: the count stands for what it was
}

// passed takes off what was read of f up to its offset.
func (f *file) passed(read []byte) {
	if f.ahead.to <= f.offset {
		f.ahead = ahead{}
		return
	}
	f.ahead.lines -= f.countLines(read)
}

// records returns how many records the unread bytes from offset on are: at
// least one, and exactly as many where all of them were counted.
func (a *ahead) records(offset, unread int64) int64 {
	n := a.lines
	if a.open || a.to < offset+unread {
		n++
	}
	return n
}

// startVigil starts a round off the loop.
func (t *follower) startVigil() {
	if t.handles >= t.handleLimit {
		t.closeIdle()
	}
	room := t.handleLimit - t.handles
	wards := make(map[identity]ward, len(t.files))
	for id, f := range t.files {
		if f.busy || f.refused || t.hangs(f) {
			wards[id] = ward{gone: true} // known, and not looked at
			continue
		}
		w := ward{mark: f.mark, path: f.where(), gone: f.gone, handle: f.handle, ahead: f.ahead, proof: f.mark}
		if f == t.emitting {
			w.proof = t.proof
		}
		wards[id] = w
	}
	start := time.Now()
	w := newWalk(t.stuck, start)
	t.watching = w
	go func() {
		v := vigil{walk: w, wards: t.round(w, wards, room)}
		v.took = time.Since(start)
		t.vigils <- v
	}()
}

// round looks at the known files and at what else matches, and opens up to
// room of those that have something to read.
func (t *follower) round(on *walk, known map[identity]ward, room int) []ward {
	var found []ward
	buf := make([]byte, 64<<10)
	for _, path := range t.scan(on).paths {
		st, err := on.stat(path)
		if _, ok := known[st.id]; err != nil || ok || st.kind != 0 {
			continue
		}
		w := ward{mark: mark{id: st.id, label: path}, path: path, st: st}
		if room > 0 && w.open(t.guard) {
			room--
		}
		w.count(buf)
		found = append(found, w)
	}
	for _, w := range known {
		if !on.enter(w.path) || !w.stat() {
			continue
		}
		if w.handle == nil && w.st.size > w.mark.offset && room > 0 && w.open(t.guard) {
			room--
		}
		w.count(buf)
		found = append(found, w)
	}
	return found
}

// stat finds out how the file is now, whether a path leads to it or not.
func (w *ward) stat() bool {
	var err error
	if !w.gone {
		w.st, err = statPath(w.path)
		if err == nil && w.st.id == w.mark.id {
			return true
		}
	}
	if w.handle == nil {
		return false
	}
	w.gone = true
	w.st, err = statFile(w.handle)
	return err == nil && w.st.id == w.mark.id
}

func (w *ward) open(g guard) bool {
	h, st, final, err := g.open(w.path)
	if err != nil {
		return false // the next look says why
	}
	w.refused = refused(h)
	if st.id != w.mark.id || w.refused {
		_ = h.Close() // nothing was written
		return false
	}
	w.handle, w.real, w.st, w.opened = h, final, st, true
	return true
}

// refused reports whether a file is not to be read because of its first bytes.
func refused(h *os.File) bool {
	var head [maxHead]byte
	n, _ := h.ReadAt(head[:], 0) // what cannot be read now is judged later
	return admitHead(head[:n]) != nil
}

// count counts the lines that came since the last round, if the file is still
// the one that they come after.
func (w *ward) count(buf []byte) {
	a := &w.ahead
	if a.to == 0 {
		a.to = w.mark.offset
	}
	switch {
	case w.handle == nil || a.cut:
		return
	case w.st.size < a.to || w.st.size > a.to && !w.proof.holds(w.handle, w.st.size):
		a.cut = true
		return
	}
	for a.to < w.st.size {
		n, err := w.handle.ReadAt(buf[:min(int64(len(buf)), w.st.size-a.to)], a.to)
		if a.to == 0 {
			flags, _, _ := encodingOf(buf[:n], true)
			w.mark.set(flags)
		}
		read := w.mark.whole(buf[:n])
		a.open = w.mark.lastNewline(read) < n
		if len(read) == 0 {
			w.st.size = a.to // counts what could be read
			break
		}
		a.to += int64(len(read))
		a.lines += w.mark.countLines(read)
		if err != nil {
			w.st.size = a.to
		}
	}
}

// endVigil takes over what a round found.
func (t *follower) endVigil(v vigil) {
	if v.walk.stuck != "" { // others went ahead of it
		t.unstall(v.walk)
		for _, w := range v.wards {
			if w.opened {
				_ = w.handle.Close() // nothing was written
			}
		}
		return
	}
	t.watching = nil
	var deleted []*file
	for _, w := range v.wards {
		f := t.files[w.mark.id]
		if f == nil {
			t.found(w.path, w.st, false)
			f = t.files[w.mark.id]
		}
		if f == nil || f.busy || w.refused || w.opened && f.handle != nil {
			if w.opened {
				_ = w.handle.Close() // nothing was written
			}
			continue
		}
		if w.opened {
			f.handle, f.real = w.handle, w.real
			t.handles++
		}
		f.last.links = w.st.links
		if w.mark.offset != f.offset { // it was read on meanwhile
			continue
		}
		f.ahead = w.ahead
		if !f.ahead.cut && w.st.size > f.last.size {
			f.last.size, f.check = w.st.size, true
		}
		if f == t.emitting || f.handle == nil {
			continue
		}
		if w.gone && !f.gone {
			t.detach(f, time.Now())
			if g := t.paths[w.path]; g != nil && g.newcomer {
				g.after = f
			}
		}
		if w.st.links == 0 {
			deleted = append(deleted, f)
		}
	}
	t.boundDeleted(deleted)
}

// boundDeleted gives up what was deleted first while files that no name leads
// to hold more of the disk than they may.
func (t *follower) boundDeleted(deleted []*file) {
	slices.SortFunc(deleted, func(a, b *file) int { return a.moved.Compare(b.moved) })
	var held int64
	for _, f := range deleted {
		held += f.last.size
	}
	for _, f := range deleted {
		if held <= t.deletedLimit {
			return
		}
		held -= f.last.size
		t.abandon(f)
	}
}

// abandon closes f, which no path leads to, before it was read to its end.
func (t *follower) abandon(f *file) {
	t.loseRest(f, f.last.size-f.offset)
	f.last.size, f.skipped = f.offset, 0
	f.clear(skipping)
	f.gone = true
	t.drop(f)
	f.job = func([]byte) func(context.Context) error {
		return func(ctx context.Context) error { return t.located(ctx, f, "", sighting{}) }
	}
	t.dues.remove(f)
	t.enqueue(f)
}
