package tail

import (
	"context"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// stem is what the names of a file's rotated copies begin with: the name up to
// its first dot, for app.log.1 and app-20260102.log are both copies of app.log.
func stem(path string) string {
	base := filepath.Base(path)
	if i := strings.IndexByte(base[1:], '.'); i >= 0 {
		return base[:i+1]
	}
	return base
}

// siblings returns the paths in the folder of path that may be rotated copies
// of it, and path itself.
func siblings(path string) []string {
	dir := filepath.Dir(path)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil // what cannot be listed is looked for in vain
	}
	var found []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), stem(path)) {
			found = append(found, filepath.Join(dir, e.Name()))
		}
	}
	return found
}

// detach notes that the path of f leads to it no more, and looks for where it
// is now.
func (t *follower) detach(f *file, now time.Time) {
	t.leave(f)
	f.set(rotated)
	f.gone, f.armed, f.moved = true, false, now
	from, was, open, held := f.home(), f.mark, f.handle != nil, t.held(f)
	f.job = func([]byte) func(context.Context) error {
		path, copied := locate(siblings(from), was.id), sighting{}
		if path == "" && !open && was.headLen > 0 { // it may have been cut before it went
			copied = t.guard.findAnyCopy(from, held, &was)
		}
		return func(ctx context.Context) error { return t.located(ctx, f, path, copied) }
	}
	t.enqueue(f)
	t.scanSoon()
}

// locate returns the path of those that leads to the file id, "" when none does.
func locate(paths []string, id identity) string {
	for _, path := range paths {
		if st, err := lstatPath(path); err == nil && st.id == id {
			return path
		}
	}
	return ""
}

// located goes on with f at its new path, or with its handle alone. Without
// either it goes on in the copy that was made of f, if there is one.
func (t *follower) located(ctx context.Context, f *file, path string, copied sighting) error {
	switch {
	case path != "" && f.gone:
		t.move(f, path)
		f.real = path
	case f.gone && f.handle == nil:
		unread := f.last.size - f.offset
		if f.resumed { // it was not looked at
			unread = f.sighted - f.offset
		}
		if copied.some() && f.former == nil && t.untouched(copied.st.id) {
			f.former = &former{mark: f.mark}
			if err := t.join(ctx, f, copied.path, copied.st); err != nil {
				return err
			}
			if f.former == nil { // it was joined
				unread = 0
			}
			f.former = nil
		}
		return t.forget(ctx, f, unread)
	}
	f.check = true
	t.dues.set(f, time.Now())
	return nil
}

// untouched reports whether nothing of the file id was read as its own.
func (t *follower) untouched(id identity) bool {
	g := t.files[id]
	if g == nil {
		return !t.saved.has(id)
	}
	return g.newcomer && !g.busy
}

// move notes that f is at path now.
func (t *follower) move(f *file, path string) {
	t.leave(f)
	f.path = path
	if path == f.label { // it is back
		f.path = ""
		f.clear(rotated)
	}
	f.gone, f.armed = false, false
	f.outside = !t.matches(path)
	t.paths[path] = f
	t.dues.set(f, time.Now())
}

// leave notes that f is at its path no more.
func (t *follower) leave(f *file) {
	if t.paths[f.where()] == f {
		delete(t.paths, f.where())
	}
}

// forget lets go of f, of which unread bytes were not read: of its handle, its
// checkpoint, its trouble.
func (t *follower) forget(ctx context.Context, f *file, unread int64) error {
	t.loseRest(f, unread)
	t.drop(f)
	t.dues.remove(f)
	t.leave(f)
	delete(t.files, f.id)
	t.strike(f)
	t.untrouble(f)
	t.stopEnding(f)
	if !f.saved {
		return nil
	}
	return t.keep(ctx, forgotten(f.key)...)
}

// truncated starts f anew, and looks for a copy of what it was.
func (t *follower) truncated(f *file, unread int64, now time.Time) {
	t.o.Log.Debug("a file was truncated or written anew", "file", f.where(), "offset", f.offset)
	old, records := f.mark, f.ahead.records(f.offset, unread)
	f.ahead = ahead{}
	f.mark = mark{id: old.id, label: old.label, path: old.path, flags: old.flags &^ (skipping | wide)}
	if old.is(skipping) {
		t.lose(lostLongLine, f, f.skipped, 0)
		f.skipped, unread = 0, 0
	}
	f.hole, f.need, f.more, f.refused = false, 0, false, false
	f.newcomer, f.held = true, time.Time{} // it may have been overwritten with a copy
	f.check, f.moved = true, now
	t.dues.set(f, now)
	t.untrouble(f)
	if old.headLen == 0 { // nothing to know a copy by
		t.lose(lostTruncated, f, unread, records)
		return
	}
	if f.former != nil { // cut twice before a copy was found
		t.loseFormer(f)
	}
	f.former = &former{mark: old, unread: unread, records: records, until: now.Add(formerFor)}
	t.cut[f] = struct{}{}
	from, resumed := f.home(), f.resumed
	f.resumed = false
	f.job = func([]byte) func(context.Context) error {
		path, st := t.guard.findCopy(from, &old)
		var later []sighting
		if path != "" && resumed {
			later = laterCopies(old.label, st)
		}
		return func(ctx context.Context) error {
			if err := t.adoptAll(ctx, old.label, later); err != nil {
				return err
			}
			switch {
			case f.former == nil: // it was given away meanwhile
			case path != "":
				return t.join(ctx, f, path, st)
			case f.outside: // its name was used again for something else
				return t.forget(ctx, f, 0)
			}
			return nil
		}
	}
	t.enqueue(f)
}

// laterCopies returns the rotated copies of the file at label that were made
// after copied: while the agent did not run the file may have been cut more
// than once.
func laterCopies(label string, copied status) []sighting {
	var later []sighting
	for _, path := range siblings(label) {
		st, err := lstatPath(path)
		if err == nil && st.kind == 0 && st.id.birth > copied.id.birth && st.mtime > copied.mtime && isCopyName(path, label) {
			later = append(later, sighting{path, st})
		}
	}
	return later
}

// adoptAll reads those files as what was once at label.
func (t *follower) adoptAll(ctx context.Context, label string, at []sighting) error {
	var fresh []*file
	for _, s := range at {
		fresh = t.adopt(fresh, label, s)
	}
	return t.save(ctx, fresh...)
}

// findCopy looks beside path for a file that has the place of m: the copy that
// was made before the truncation.
func (g guard) findCopy(path string, m *mark) (string, status) {
	for _, p := range siblings(path) {
		if st, err := lstatPath(p); err != nil || st.id == m.id || st.size < m.offset || st.kind != 0 {
			continue
		}
		if st, ok := g.hasPlace(p, m); ok {
			return p, st
		}
	}
	return "", status{}
}

// findAnyCopy is findCopy also among files that are held open and that no path
// leads to.
func (g guard) findAnyCopy(path string, held []*os.File, m *mark) sighting {
	if p, st := g.findCopy(path, m); p != "" {
		return sighting{p, st}
	}
	for _, h := range held {
		if st, err := statFile(h); err == nil && st.id != m.id && m.holds(h, st.size) {
			return sighting{st: st}
		}
	}
	return sighting{}
}

// held returns the open files that no path leads to and that may be copies of f:
// nothing of them was read.
func (t *follower) held(f *file) []*os.File {
	var held []*os.File
	for c := range t.akin(f) {
		if c != f && c.newcomer && c.gone && c.handle != nil {
			held = append(held, c.handle)
		}
	}
	return held
}

// hasPlace opens the file at path to see whether it has the place of m.
func (g guard) hasPlace(path string, m *mark) (status, bool) {
	h, st, _, err := g.open(path)
	if err != nil {
		return status{}, false
	}
	defer func() { _ = h.Close() }() // nothing was written
	return st, m.holds(h, st.size)
}

// join reads the file at path, a copy of what f was, from where f was; without a
// path it is one that is held open. Both places become durable together.
func (t *follower) join(ctx context.Context, f *file, path string, st status) error {
	old := f.former
	if old == nil {
		return nil
	}
	g := t.files[st.id]
	switch {
	case g == nil && path == "":
		return nil // it went too
	case g == nil:
		g = t.add(path, st)
	case g.busy:
		return nil
	}
	if g.former != nil { // an older copy that was written over
		t.loseFormer(g)
		t.reunite(g)
	}
	t.untrouble(g)
	id, at := g.id, g.where()
	if path != "" {
		t.leave(g)
		t.paths[path] = g
		g.gone, at = false, path
	}
	g.mark = old.mark
	g.id, g.path = id, at
	g.set(rotated)
	g.newcomer, g.check, g.more = false, true, true
	t.reunite(f)
	t.dues.set(g, time.Now())
	return t.save(ctx, g, f)
}

// hold reports whether f, which has data and was not read yet, is to wait: it
// begins as another file does, so it may be the copy that is made before a
// file is truncated.
func (t *follower) hold(f *file, data []byte, now time.Time) bool {
	original := t.original(f, data)
	if original == nil {
		f.newcomer, f.held = false, time.Time{}
		return false
	}
	if f.held.IsZero() || f.moved.Equal(now) {
		f.held = now
	}
	f.more, f.check = false, true
	if old := original.former; old != nil && begins(data, &old.mark) {
		path, gone := f.where(), f.gone
		f.job = func([]byte) func(context.Context) error {
			st, ok := status{}, false
			if gone && f.handle != nil {
				st, _ = statFile(f.handle)
				ok = old.holds(f.handle, st.size)
				path = ""
			} else {
				st, ok = t.guard.hasPlace(path, &old.mark)
			}
			return func(ctx context.Context) error {
				f.newcomer = false
				t.dues.set(f, time.Now())
				if !ok {
					return nil
				}
				return t.join(ctx, original, path, st)
			}
		}
		t.enqueue(f)
		return true
	}
	if now.Sub(f.held) >= holdFor {
		if original.seen.Sub(f.held) >= holdFor || original.hung || original.fails > 0 {
			f.newcomer = false
			return false
		}
		t.dues.set(original, now) // the loop may have waited for the spool since
	}
	t.dues.set(f, now.Add(5*hotPause))
	return true
}

// original returns the file that f may be a copy of, by its name and its first
// bytes; one that was truncated goes first, and one that was rotated away counts
// while nobody has looked whether it was cut before.
func (t *follower) original(f *file, data []byte) *file {
	var live *file
	for c := range t.akin(f) {
		if c == f || c.busy {
			continue
		}
		if c.former != nil && begins(data, &c.former.mark) {
			return c
		}
		if !c.newcomer && (!c.is(rotated) || t.unfinished(c)) && begins(data, &c.mark) {
			live = c
		}
	}
	return live
}

// akin yields the files whose rotated copy f may be by its name.
func (t *follower) akin(f *file) iter.Seq[*file] {
	base := filepath.Base(f.where())
	return func(yield func(*file) bool) {
		for i := range base {
			for c := range t.stems[base[:i+1]] {
				if !yield(c) {
					return
				}
			}
		}
	}
}

// enrol lets akin find f, and strike ends that.
func (t *follower) enrol(f *file) {
	f.stem = stem(f.label)
	if t.stems[f.stem] == nil {
		t.stems[f.stem] = make(map[*file]struct{})
	}
	t.stems[f.stem][f] = struct{}{}
}

func (t *follower) strike(f *file) {
	delete(t.stems[f.stem], f)
	if len(t.stems[f.stem]) == 0 {
		delete(t.stems, f.stem)
	}
}

func begins(data []byte, m *mark) bool {
	return m.headLen > 0 && len(data) >= m.headLen && digestOf(data[:m.headLen]) == m.head
}
