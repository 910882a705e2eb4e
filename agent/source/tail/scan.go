package tail

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/bmatcuk/doublestar/v4"

	"github.com/openloganalytics/agent/agent/source"
)

const (
	// A scan for new files comes after minScan at the soonest, and so seldom
	// that it takes a 300th of the time, but within maxScan.
	minScan = 2 * time.Second
	maxScan = time.Minute
	// quietScan is the soonest where the kernel tells of new names, sureScan
	// where it tells of every one.
	quietScan = 10 * time.Second
	sureScan  = maxScan
	// maxFiles are followed by one source.
	maxFiles = 20000
)

// A sight is what one scan saw.
type sight struct {
	paths    []string
	dirs     []string          // to be watched for new names
	deep     bool              // new names may come in other folders as well
	troubles map[string]string // by pattern
	news     []sighting        // at paths where nobody was seen
	lost     []lost

	watched   bool // the kernel tells of new names,
	sure      bool // of every one
	fresh     bool // as of now
	unwatched error
}

type sighting struct {
	path string // "" for a file that is only held open
	st   status
}

func (s sighting) some() bool { return s.st.id != identity{} }

var errTooMany = errors.New("too many files")

// scan lists the paths that match. It runs off the loop.
func (t *follower) scan(w *walk) sight {
	s := sight{troubles: make(map[string]string)}
	seen := make(map[string]bool)
	dirs := make(map[string]bool)
	for _, pattern := range t.o.Patterns {
		slashed := filepath.ToSlash(pattern)
		base, rest := doublestar.SplitPattern(slashed)
		base = filepath.FromSlash(base)
		dirs[base] = true
		s.deep = s.deep || strings.Contains(rest, "/") || strings.Contains(rest, "**")
		if !w.enter(base) {
			continue
		}
		if err := listable(base); err != nil {
			s.troubles[pattern] = fmt.Sprintf("cannot list %s: %v; let the agent's user, or one of its groups, list it", base, err)
			continue
		}
		err := doublestar.GlobWalk(w.folders(base), rest, func(name string, _ fs.DirEntry) error {
			path := filepath.Join(base, filepath.FromSlash(name))
			if seen[path] || matchesAny(t.o.Exclude, path) {
				return nil
			}
			if len(s.paths) >= maxFiles {
				return errTooMany
			}
			seen[path] = true
			dirs[filepath.Dir(path)] = true
			s.paths = append(s.paths, path)
			return nil
		}, doublestar.WithNoFollow())
		if errors.Is(err, errTooMany) {
			s.troubles[pattern] = fmt.Sprintf("more than %d files match and not all are read; narrow the pattern", maxFiles)
		}
	}
	for dir := range dirs {
		s.dirs = append(s.dirs, dir)
	}
	return s
}

// scanPause is how long to wait after a scan that took so long.
func scanPause(took time.Duration) time.Duration { return min(max(300*took, minScan), maxScan) }

// listable returns why the folder, if there is one, cannot be listed.
func listable(dir string) error {
	if st, err := statPath(dir); err != nil || st.kind != fs.ModeDir {
		return nil // nothing to list, yet
	}
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("open folder: %w", err)
	}
	_ = d.Close() // nothing was written
	return nil
}

// scanSoon asks for a scan before its turn.
func (t *follower) scanSoon() { t.nextScan = earlier(t.nextScan, t.soonScan) }

// startScan looks for new files off the loop.
func (t *follower) startScan() {
	known := make(map[string]bool, len(t.paths))
	for path := range t.paths {
		known[path] = true
	}
	var missing saved
	if !t.started {
		missing = maps.Clone(t.saved)
	}
	start := time.Now()
	w, watch := newWalk(t.stuck, start), t.watch
	t.scanning = w
	go func() {
		s := t.scan(w)
		for _, path := range s.paths {
			if known[path] {
				continue
			}
			if st, err := w.stat(path); err == nil {
				s.news = append(s.news, sighting{path, st})
			}
		}
		slices.SortFunc(s.news, func(a, b sighting) int { return cmp.Compare(a.st.mtime, b.st.mtime) }) // rotated ones first
		s.lost = missing.search(t.guard, w, s.news)
		s.watchAll(watch, w)
		took := time.Since(start)
		t.scanned <- func(ctx context.Context) error {
			if w.stuck != "" { // others went ahead of it
				t.unstall(w)
				return t.seen(ctx, s)
			}
			t.scanning = nil
			now := time.Now()
			pause := scanPause(took)
			switch {
			case s.watched && s.sure:
				pause = max(pause, sureScan)
			case s.watched:
				pause = max(pause, quietScan)
			}
			t.nextScan, t.soonScan = now.Add(pause), now.Add(10*took)
			return t.seen(ctx, s)
		}
	}()
}

// watchAll watches the folders for new names.
func (s *sight) watchAll(watch *watcher, w *walk) {
	if watch == nil {
		return
	}
	s.watched, s.sure = !s.deep, true
	for _, dir := range s.dirs {
		if !w.enter(dir) {
			continue
		}
		started, err := watch.folder(dir)
		if err != nil {
			s.unwatched = err
			return
		}
		s.fresh = s.fresh || started
		s.sure = s.sure && local(dir)
	}
	s.watched = s.watched && watch.all(s.dirs)
}

// seen takes over what a scan saw.
func (t *follower) seen(ctx context.Context, s sight) error {
	for _, p := range t.o.Patterns {
		if text := s.troubles[p]; text != t.troubles[p] {
			t.troubles[p] = text
			t.out.Trouble("pattern "+p, text)
		}
	}
	if s.unwatched != nil {
		t.unwatched(s.unwatched)
	}
	t.watched = make(map[string]bool, len(s.dirs))
	for _, dir := range s.dirs {
		t.watched[dir] = true
	}
	if s.fresh {
		t.scanSoon() // for what came before the watch
	}
	var used []string // patterns that were used before
	for _, p := range t.o.Patterns {
		if !slices.Contains(t.unmarked, p) {
			used = append(used, p)
		}
	}
	at := t.stale
	for _, l := range s.lost {
		if t.saved.has(l.mark.id) {
			at = t.miss(at, l)
		}
	}
	for _, n := range s.news {
		t.found(n.path, n.st, !t.started && !t.o.FromStart && !matchesAny(used, n.path))
	}
	t.started, t.stale = true, nil
	if err := t.keep(ctx, at...); err != nil {
		return err
	}
	if time.Since(t.begun) > savedFor {
		if err := t.forgetSaved(ctx); err != nil {
			return err
		}
	}
	return t.markPatterns(ctx)
}

// ended makes the first mark of f durable, a file older than its pattern.
func (t *follower) ended(ctx context.Context, f *file) error {
	t.stopEnding(f)
	if t.files[f.id] == f && !f.refused {
		if err := t.save(ctx, f); err != nil {
			return err
		}
	}
	return t.markPatterns(ctx)
}

func (t *follower) stopEnding(f *file) {
	if f.ending {
		f.ending = false
		t.ending--
	}
}

// markPatterns notes that the patterns were used, once every file that is
// older has its mark: whatever appears from now on is new.
func (t *follower) markPatterns(ctx context.Context) error {
	if !t.started || t.ending > 0 || len(t.unmarked) == 0 {
		return nil
	}
	var at []source.Checkpoint
	for _, p := range t.unmarked {
		at = append(at, source.Checkpoint{Key: t.prefix + "pattern:" + p, Value: []byte{1}})
	}
	if err := t.hand(ctx, nil, at...); err != nil {
		return fmt.Errorf("mark patterns as used: %w", err)
	}
	t.unmarked = nil
	return nil
}

func (t *follower) matches(path string) bool {
	return matchesAny(t.o.Patterns, path) && !matchesAny(t.o.Exclude, path)
}

func matchesAny(patterns []string, path string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return doublestar.PathMatchUnvalidated(p, path) })
}

// found takes note of the file at path, a path that nobody was seen at.
// fromEnd starts at its end when it is not known.
func (t *follower) found(path string, st status, fromEnd bool) {
	if f := t.files[st.id]; f != nil {
		switch {
		case f.busy: // found again by a later scan
		case f.gone, f.outside:
			t.move(f, path)
		case f.where() != path: // another name of it, or its new one
			f.armed = false
			t.dues.set(f, time.Now())
		}
		return
	}
	if st.kind == fs.ModeDir && !slices.Contains(t.o.Patterns, path) {
		return // wildcards match folders too
	}
	if len(t.files) >= maxFiles {
		return // a Trouble says so
	}
	f := t.add(path, st)
	if st.kind != 0 {
		f.refused = true
		t.trouble(f, fmt.Sprintf("%s is not read: it is a %s, and only regular files are", path, kindName(st.kind)))
		return
	}
	if t.resume(f) {
		return
	}
	f.newcomer = !fromEnd
	if fromEnd {
		f.atEnd, f.ending = true, true
		t.ending++
	}
}

// key is the key of the checkpoint of the file id.
func (t *follower) key(id identity) string {
	return fmt.Sprintf("%sfile:%x-%x-%x", t.prefix, id.dev, id.ino, id.birth)
}

// add starts to follow the file at path.
func (t *follower) add(path string, st status) *file {
	f := &file{moved: time.Now()}
	f.id, f.label = st.id, path
	f.key = t.key(st.id)
	f.outside, f.sighted = !t.matches(path), st.size
	t.files[st.id] = f
	t.paths[path] = f
	t.enrol(f)
	t.enqueue(f)
	return f
}
