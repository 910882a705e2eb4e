package tail

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/openloganalytics/agent/agent/record"
	"github.com/openloganalytics/agent/agent/source"
)

// looked acts on what a look at f found.
func (t *follower) looked(ctx context.Context, f *file, found finding) error {
	now := time.Now()
	if found.verdict < replaced {
		f.seen = now
	}
	if found.verdict != failed && f.fails > 0 {
		f.fails = 0
		t.untrouble(f)
	}
	if f.size != f.last.size {
		f.size, f.moved = f.last.size, now
	}
	if found.verdict < truncated {
		f.resumed = false
	}
	switch found.verdict {
	case grown:
		return t.consume(ctx, f, found, now)
	case passed:
		f.passed(nil)
		t.lose(lostZeros, f, found.hole, 0)
		t.dues.set(f, now)
		return t.save(ctx, f)
	case truncated:
		if f.outside && f.headLen == 0 { // the name was used again for something else
			return t.forget(ctx, f, found.unread)
		}
		t.truncated(f, found.unread, now)
		return nil
	case replaced:
		path := f.where()
		t.detach(f, now)
		if t.matches(path) {
			t.found(path, found.status, false)
			if g := t.files[found.status.id]; g != nil && g != f && g.newcomer {
				g.after = f
			}
		}
		return nil
	case vanished:
		t.detach(f, now)
		return nil
	case reborn:
		return t.reborn(ctx, f, found.status.id)
	case failed:
		t.failed(f, found.err, now)
		return nil
	case unchanged:
	}
	return t.quiet(ctx, f, now)
}

// reborn goes on with f under another identity.
func (t *follower) reborn(ctx context.Context, f *file, id identity) error {
	delete(t.files, f.id)
	at := forgotten(f.key)
	f.id, f.key = id, t.key(id)
	t.files[id] = f
	f.check = true
	t.dues.set(f, time.Now())
	return t.keep(ctx, append(at, places([]*file{f})...)...)
}

// quiet decides what becomes of a file without news.
func (t *follower) quiet(ctx context.Context, f *file, now time.Time) error {
	if f.more { // a part of the file is still to be looked at
		t.dues.set(f, now)
		return nil
	}
	idle := now.Sub(f.moved)
	pending := f.last.size - f.offset
	switch {
	case f.is(rotated) && idle >= flushAfter && pending >= f.endLength() && !f.hole && !f.refused:
		f.flush = true
		t.dues.set(f, now)
		return nil
	case f.gone && idle >= lingerAfter, f.gone && idle >= flushAfter && f.last.links == 0:
		return t.forget(ctx, f, pending)
	}
	t.rest(f, now)
	return nil
}

// failed keeps a file that cannot be read just now, or for good.
func (t *follower) failed(f *file, err error, now time.Time) {
	f.fails++
	f.check, f.more = true, false
	var why refusalError
	switch {
	case outOfFiles(err):
		t.handleLimit = max(1, t.handles/2)
		t.closeIdle()
	case errors.As(err, &why):
		t.refuse(f, why)
	case errors.Is(err, fs.ErrPermission):
		t.trouble(f, fmt.Sprintf("cannot read %s: %v; make it readable for the agent's user or for one of its groups", f.where(), err))
	default:
		t.trouble(f, fmt.Sprintf("cannot read %s: %v; it is tried again", f.where(), err))
		if !f.gone { // the handle may be at fault: a network file system forgets them
			t.drop(f)
		}
	}
	t.rest(f, now)
}

// refuse keeps a file that is not to be read.
func (t *follower) refuse(f *file, why refusalError) {
	f.fails, f.check, f.refused = 0, false, true
	t.drop(f)
	if why == errCompressed {
		t.compressed++
		t.o.Log.Info("ignores a compressed file: what it holds was read while it was plain", "file", f.where(), "count", t.compressed)
		return
	}
	t.trouble(f, fmt.Sprintf("%s is not read: %v", f.where(), why))
}

// A cursor walks through the bytes that a look brought.
type cursor struct {
	buf []byte // the anchor first
	at  int
}

func (c *cursor) rest() []byte { return c.buf[c.at:] }

// after returns the mark of f when n more bytes are done.
func (c *cursor) after(f *file, n int) mark {
	m := f.mark
	done := c.buf[:c.at+n]
	if m.offset == int64(c.at) { // the bytes are those from the beginning
		m.begin(done)
	}
	m.offset += int64(n)
	m.anchor(done)
	return m
}

func (c *cursor) pass(f *file, n int) {
	f.mark = c.after(f, n)
	f.passed(c.rest()[:n])
	c.at += n
}

// consume emits the whole lines that a look brought.
func (t *follower) consume(ctx context.Context, f *file, found finding, now time.Time) error {
	c := cursor{buf: found.data, at: found.anchor}
	if f.newcomer && f.offset == 0 && t.hold(f, c.rest(), now) {
		return nil
	}
	start := f.offset
	if f.offset == 0 && !t.begin(f, &c) {
		return t.quiet(ctx, f, now)
	}
	if err := t.consumeLines(ctx, f, &c); err != nil {
		return err
	}
	f.flush = false
	if f.offset == start {
		return t.quiet(ctx, f, now)
	}
	f.moved = now
	if f.more {
		t.dues.set(f, now)
	} else {
		t.dues.set(f, now.Add(hotPause))
	}
	return nil
}

// begin finds out how the file is encoded and passes its byte order mark, which
// is not part of the first line. It reports whether it is known.
func (t *follower) begin(f *file, c *cursor) bool {
	if bytes.HasPrefix(c.rest(), []byte("\xef\xbb\xbf")) {
		c.pass(f, 3)
		return true
	}
	flags, bom, known := encodingOf(c.rest(), f.flush)
	if known {
		f.set(flags)
		c.pass(f, bom)
	}
	return known
}

func (t *follower) consumeLines(ctx context.Context, f *file, c *cursor) error {
	for rest := f.whole(c.rest()); len(rest) > 0; rest = f.whole(c.rest()) {
		whole := f.wholeLines(rest)
		var err error
		switch {
		case f.is(skipping):
			err = t.skip(ctx, f, c)
		case f.zeros(rest):
			f.hole, f.more = true, true // the next look finds out how many
			return nil
		case whole > 0:
			f.need = 0
			err = t.emit(ctx, f, c, f.fit(rest[:whole], t.o.RowBytes+len(f.label)), 0)
		case len(rest) > f.maxLine():
			f.need = 0
			err = t.emit(ctx, f, c, f.cutLong(rest), skipping)
		case f.flush && !f.more:
			return t.emit(ctx, f, c, len(rest), 0)
		default: // a line without its end
			if f.more {
				f.need = min(2*len(rest), MaxLine+2)
			}
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// emit hands over the next n bytes with the place behind them.
func (t *follower) emit(ctx context.Context, f *file, c *cursor, n int, flags byte) error {
	m := c.after(f, n)
	m.set(flags)
	block := c.rest()[:n]
	text := block
	if f.is(wide) {
		t.text = f.appendText(t.text[:0], block)
		text = t.text
	}
	fill := func(b *record.Batch) { t.lines(b, f.label, text) }
	t.emitting, t.proof = f, m
	err := t.hand(ctx, fill, source.Checkpoint{Key: f.key, Value: m.encode()})
	if err != nil { // the run ends, and asks what was being emitted
		return fmt.Errorf("emit lines of %s: %w", f.label, err)
	}
	t.emitting, t.proof = nil, mark{}
	f.mark, f.saved = m, true
	f.passed(block)
	c.at += n
	return nil
}

// skip passes what is left of a line that was too long.
func (t *follower) skip(ctx context.Context, f *file, c *cursor) error {
	rest := f.whole(c.rest())
	end := f.newline(rest)
	if end == 0 {
		f.skipped += int64(len(rest))
		c.pass(f, len(rest))
		return nil
	}
	c.pass(f, end)
	t.lose(lostLongLine, f, f.skipped+int64(end)-f.endLength(), 0)
	f.skipped = 0
	f.clear(skipping)
	return t.save(ctx, f)
}

// save makes the place in f durable without rows.
func (t *follower) save(ctx context.Context, files ...*file) error {
	return t.keep(ctx, places(files)...)
}

// places returns where the files are.
func places(files []*file) []source.Checkpoint {
	at := make([]source.Checkpoint, len(files))
	for i, f := range files {
		f.saved = true
		at[i] = source.Checkpoint{Key: f.key, Value: f.encode()}
	}
	return at
}

// keep makes places durable, without rows.
func (t *follower) keep(ctx context.Context, at ...source.Checkpoint) error {
	if len(at) == 0 {
		return nil
	}
	if err := t.hand(ctx, nil, at...); err != nil {
		return fmt.Errorf("save places in files: %w", err)
	}
	return nil
}
