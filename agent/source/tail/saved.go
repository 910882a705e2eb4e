package tail

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/openloganalytics/agent/agent/source"
)

// saved holds the marks of earlier runs whose files were not found yet, by
// what of an identity outlives a boot.
type saved map[nativity][]savedMark

type nativity struct {
	ino   uint64
	birth int64
}

type savedMark struct {
	key  string // of the checkpoint
	mark mark
}

func (s saved) add(key string, m mark) {
	n := nativity{m.id.ino, m.id.birth}
	s[n] = append(s[n], savedMark{key, m})
}

// take returns the mark of the file id and lets go of it.
func (s saved) take(id identity) (savedMark, bool) {
	n := nativity{id.ino, id.birth}
	marks := s[n]
	i := slices.IndexFunc(marks, func(k savedMark) bool { return k.mark.id == id }) // its own device first
	if i < 0 {
		i = slices.IndexFunc(marks, func(k savedMark) bool { return id.again(k.mark.id) })
	}
	if i < 0 {
		return savedMark{}, false
	}
	k := marks[i]
	s[n] = slices.Concat(marks[:i], marks[i+1:]) // the slice may be shared with a search
	return k, true
}

// has reports whether there is a mark of the file id.
func (s saved) has(id identity) bool {
	return slices.ContainsFunc(s[nativity{id.ino, id.birth}], func(k savedMark) bool { return id.again(k.mark.id) })
}

// A lost is a file of an earlier run that does not match any more.
type lost struct {
	key       string
	mark      mark
	place     sighting   // where it is now, if it was found
	unmounted bool       // its file system is not there
	replaced  bool       // another file has its path
	copy      sighting   // what has its place, when it is gone itself
	between   []sighting // what may have had its path since, and was rotated away too
}

// resume gives f the mark that was saved for it.
func (t *follower) resume(f *file) bool {
	k, ok := t.saved.take(f.id)
	if !ok {
		return false
	}
	id, path := f.id, f.where()
	f.key, f.mark, f.saved = k.key, k.mark, true
	f.id, f.path = id, ""
	f.resumed = true
	f.newcomer = f.offset == 0 // nobody has seen yet what it begins with
	f.check = true             // it may have been cut meanwhile, and a copy of it waits for that
	if path != f.label {
		f.path = path
		f.set(rotated)
	}
	return true
}

// load reads the checkpoints of earlier runs.
func (t *follower) load() {
	var stale []string
	t.out.Checkpoints(t.prefix+"file:", func(key string, value []byte) bool {
		m, err := decodeMark(value)
		switch {
		case err != nil:
			t.o.Log.Warn("forgets a checkpoint that cannot be read: its file is read from the beginning", "key", key, "error", err)
			stale = append(stale, key)
		case !t.matches(m.label) && t.park(): // its pattern was taken away, and may come back
		case !t.matches(m.label):
			stale = append(stale, key)
		default:
			t.saved.add(key, m)
		}
		return true
	})
	marked := make(map[string]bool)
	t.out.Checkpoints(t.prefix+"pattern:", func(key string, _ []byte) bool {
		pattern := strings.TrimPrefix(key, t.prefix+"pattern:")
		marked[pattern] = true
		if !slices.Contains(t.o.Patterns, pattern) && !t.park() {
			stale = append(stale, key)
		}
		return true
	})
	for _, p := range t.o.Patterns {
		if !marked[p] {
			t.unmarked = append(t.unmarked, p)
		}
	}
	t.stale = forgotten(stale...)
}

// maxParked checkpoints are kept that no pattern asks for any more.
const maxParked = 1000

// park reports whether one more may be kept.
func (t *follower) park() bool {
	t.parked++
	return t.parked <= maxParked
}

// search finds out what became of the files that have a mark and are not among
// those that match.
func (s saved) search(g guard, w *walk, matching []sighting) []lost {
	for _, m := range matching {
		s.take(m.st.id)
	}
	var all []lost
	for _, marks := range s {
		for _, k := range marks {
			if w.enter(k.mark.where()) { // else its file system may come yet
				all = append(all, searchOne(g, k.key, k.mark))
			}
		}
	}
	copies := make(map[identity]bool)
	for _, l := range all {
		copies[l.copy.st.id] = true
	}
	for i := range all { // a copy of one file did not come after another
		all[i].between = slices.DeleteFunc(all[i].between, func(b sighting) bool { return copies[b.st.id] })
	}
	return all
}

func searchOne(g guard, key string, m mark) lost {
	l := lost{key: key, mark: m}
	for _, path := range siblings(m.where()) {
		st, err := lstatPath(path)
		switch {
		case err != nil:
		case st.id.again(m.id):
			l.place = sighting{path, st}
		case !m.is(rotated) && st.kind == 0 && st.id.birth > m.id.birth && isCopyName(path, m.label):
			l.between = append(l.between, sighting{path, st})
		}
	}
	if l.place.path != "" && !l.cutThere(g) {
		return l
	}
	dir, err := statPath(filepath.Dir(m.where()))
	if l.unmounted = err != nil || dir.id.dev != m.id.dev; l.unmounted {
		l.between = nil
	}
	_, err = lstatPath(m.label)
	l.replaced = err == nil
	if path, st := g.findCopy(m.where(), &m); path != "" && path != m.label && m.headLen > 0 {
		l.copy, l.place = sighting{path, st}, sighting{}
	}
	return l
}

// cutThere reports whether the file was cut before it got a name that is not
// asked for. What it has is what was written since, and comes after its copy.
func (l *lost) cutThere(g guard) bool {
	if l.mark.headLen == 0 || !isCopyName(l.place.path, l.mark.label) {
		return false
	}
	if _, ok := g.hasPlace(l.place.path, &l.mark); ok {
		return false
	}
	l.between = append(l.between, l.place)
	return true
}

// isCopyName reports whether rotation gives copies of the file at label the name
// of path: app.log.1, app.log-20260102 or app-20260102.log for app.log.
func isCopyName(path, label string) bool {
	if filepath.Dir(path) != filepath.Dir(label) || path == label {
		return false
	}
	letters := func(name string) string {
		return strings.Map(func(r rune) rune {
			if strings.ContainsRune("0123456789.-_", r) {
				return -1
			}
			return r
		}, name)
	}
	rest, ok := strings.CutPrefix(filepath.Base(path), stem(label))
	return ok && strings.IndexAny(rest, ".-_") == 0 && letters(rest) == letters(filepath.Base(label)[len(stem(label)):])
}

// miss acts on the fate of a file of an earlier run that does not match. It
// returns at with the places that have to become durable.
func (t *follower) miss(at []source.Checkpoint, l lost) []source.Checkpoint {
	var fresh []*file
	if l.copy.path != "" {
		t.saved.take(l.mark.id)
		fresh = t.inherit(fresh, l)
	}
	for _, b := range l.between {
		fresh = t.adopt(fresh, l.mark.label, b)
	}
	at = append(at, places(fresh)...)
	switch {
	case l.place.path != "":
		if t.files[l.place.st.id] == nil {
			t.resume(t.add(l.place.path, l.place.st))
		}
		return at
	case l.copy.path != "":
		if slices.ContainsFunc(fresh, func(f *file) bool { return f.key == l.key }) {
			return at
		}
		return append(at, forgotten(l.key)...)
	case l.unmounted:
		return at // its file system may come yet
	case l.replaced && !l.mark.is(rotated):
		now := time.Now()
		t.out.Lost(source.Loss{Reason: lostRotated, Class: l.mark.label, First: now, Last: now})
		t.out.Trouble(l.mark.label+" (before rotation)", fmt.Sprintf("%s was rotated while the agent did not run, and the old file is gone, moved to another folder or compressed: "+
			"what was written to it after byte %d is missing. Let rotation leave the newest old file plain beside it (logrotate: delaycompress)", l.mark.label, l.mark.offset))
	}
	t.saved.take(l.mark.id)
	return append(at, forgotten(l.key)...)
}

// inherit reads on in the copy of a file of an earlier run that is gone, unless
// the copy has a place of its own.
func (t *follower) inherit(fresh []*file, l lost) []*file {
	st := l.copy.st
	if t.files[st.id] != nil || t.saved.has(st.id) || len(t.files) >= maxFiles {
		return fresh
	}
	f := t.add(l.copy.path, st)
	f.mark = l.mark
	f.id, f.path, f.check = st.id, l.copy.path, true
	f.set(rotated)
	return append(fresh, f)
}

// adopt reads from its beginning the file that was written and rotated away at
// label while the agent did not run, if the patterns do not find it. Its mark
// becomes durable no later than that of the file it came after, which leads
// here no more once it is known as rotated.
func (t *follower) adopt(fresh []*file, label string, at sighting) []*file {
	if t.files[at.st.id] != nil || t.saved.has(at.st.id) || t.matches(at.path) || len(t.files) >= maxFiles {
		return fresh
	}
	f := t.add(at.path, at.st)
	f.label, f.path = label, at.path
	f.set(rotated)
	f.newcomer = true
	return append(fresh, f)
}

// forgetSaved lets go of the marks whose files did not come back.
func (t *follower) forgetSaved(ctx context.Context) error {
	var keys []string
	for _, marks := range t.saved {
		for _, k := range marks {
			keys = append(keys, k.key)
		}
	}
	clear(t.saved)
	return t.keep(ctx, forgotten(keys...)...)
}

// forgotten returns what makes the keys be forgotten.
func forgotten(keys ...string) []source.Checkpoint {
	at := make([]source.Checkpoint, len(keys))
	for i, key := range keys {
		at[i].Key = key
	}
	return at
}
