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
	// maxFiles are followed by one source.
	maxFiles = 20000
)

// A sight is what one scan saw.
type sight struct {
	paths    []string
	dirs     []string          // to be watched for new names
	troubles map[string]string // by pattern
	news     []sighting        // at paths where nobody was seen
	lost     []lost
}

type sighting struct {
	path string
	st   status
}

// A lost is a file of an earlier run that does not match any more.
type lost struct {
	key       string
	mark      mark
	place     sighting // where it is now, if it was found
	unmounted bool     // its file system is not there
	replaced  bool     // another file has its path
}

var errTooMany = errors.New("too many files")

// scan lists the paths that match. It runs off the loop.
func (t *follower) scan() sight {
	s := sight{troubles: make(map[string]string, len(t.o.Patterns))}
	seen := make(map[string]bool)
	dirs := make(map[string]bool)
	for _, pattern := range t.o.Patterns {
		slashed := filepath.ToSlash(pattern)
		base, rest := doublestar.SplitPattern(slashed)
		base = filepath.FromSlash(base)
		dirs[base] = true
		s.troubles[pattern] = ""
		if d, err := os.Open(base); errors.Is(err, fs.ErrPermission) {
			s.troubles[pattern] = fmt.Sprintf("cannot list %s: %v; let the agent's user, or one of its groups, list it", base, err)
			continue
		} else if err == nil {
			_ = d.Close() // nothing was written
		}
		err := doublestar.GlobWalk(os.DirFS(base), rest, func(name string, _ fs.DirEntry) error {
			path := filepath.Join(base, filepath.FromSlash(name))
			if seen[path] {
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

// startScan looks for new files off the loop.
func (t *follower) startScan() {
	t.scanning = true
	known := make(map[string]bool, len(t.paths))
	for path := range t.paths {
		known[path] = true
	}
	var saved map[string]mark
	if !t.started {
		saved = maps.Clone(t.saved)
	}
	go func() {
		start := time.Now()
		s := t.scan()
		for _, path := range s.paths {
			if known[path] {
				continue
			}
			if st, err := statPath(path); err == nil {
				s.news = append(s.news, sighting{path, st})
			}
		}
		slices.SortFunc(s.news, func(a, b sighting) int { return cmp.Compare(a.st.mtime, b.st.mtime) }) // rotated ones first
		s.lost = search(saved, s.news)
		pause := min(max(300*time.Since(start), minScan), maxScan)
		t.scanned <- func(ctx context.Context) error {
			t.nextScan = time.Now().Add(pause)
			return t.seen(ctx, s)
		}
	}()
}

// search finds out what became of the files that have a mark and are not among
// those that match.
func search(saved map[string]mark, matching []sighting) []lost {
	var all []lost
	for key, m := range saved {
		if !slices.ContainsFunc(matching, func(s sighting) bool { return s.st.id.again(m.id) }) {
			all = append(all, searchOne(key, m))
		}
	}
	return all
}

func searchOne(key string, m mark) lost {
	for _, path := range siblings(m.where()) {
		if st, err := lstatPath(path); err == nil && st.id.again(m.id) {
			return lost{key: key, mark: m, place: sighting{path, st}}
		}
	}
	dir, err := statPath(filepath.Dir(m.where()))
	_, pathErr := lstatPath(m.label)
	return lost{
		key: key, mark: m,
		unmounted: err != nil || dir.id.dev != m.id.dev,
		replaced:  pathErr == nil,
	}
}

// seen takes over what a scan saw.
func (t *follower) seen(ctx context.Context, s sight) error {
	for pattern, text := range s.troubles {
		t.out.Trouble("pattern "+pattern, text)
	}
	for _, dir := range s.dirs {
		if t.watch == nil {
			break
		}
		started, err := t.watch.folder(dir)
		if err != nil {
			t.unwatched(err)
		}
		if started {
			t.nextScan = time.Time{} // for what came before the watch
		}
	}
	var used []string // patterns that were used before
	for _, p := range t.o.Patterns {
		if !slices.Contains(t.unmarked, p) {
			used = append(used, p)
		}
	}
	for _, l := range s.lost {
		if err := t.recover(ctx, l); err != nil {
			return err
		}
	}
	for _, n := range s.news {
		t.found(n.path, n.st, !t.started && !t.o.FromStart && !matchesAny(used, n.path))
	}
	t.started = true
	if time.Since(t.begun) > savedFor {
		for key := range t.saved {
			if err := t.forgetKey(ctx, key); err != nil {
				return err
			}
		}
	}
	return t.markPatterns(ctx)
}

// recover acts on the fate of a file that was followed in an earlier run.
func (t *follower) recover(ctx context.Context, l lost) error {
	switch {
	case l.place.path != "":
		if t.files[l.place.st.id] == nil {
			t.resume(t.add(l.place.path, l.place.st))
		}
		return nil
	case l.unmounted:
		return nil // its file system may come yet
	case l.replaced && !l.mark.is(rotated):
		now := time.Now()
		t.out.Lost(source.Loss{Reason: "rotated-out-of-reach", Class: l.mark.label, First: now, Last: now})
		t.out.Trouble(l.mark.label+" (before rotation)", fmt.Sprintf("%s was rotated while the agent did not run, and the old file is gone, moved to another folder or compressed: "+
			"what was written to it after byte %d is missing. Let rotation leave the newest old file plain beside it (logrotate: delaycompress)", l.mark.label, l.mark.offset))
	}
	return t.forgetKey(ctx, l.key)
}

func (t *follower) forgetKey(ctx context.Context, key string) error {
	delete(t.saved, key)
	if err := t.out.Emit(ctx, t.o.Table, nil, source.Checkpoint{Key: key}); err != nil {
		return fmt.Errorf("forget checkpoint: %w", err)
	}
	return nil
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
	if err := t.out.Emit(ctx, t.o.Table, nil, at...); err != nil {
		return fmt.Errorf("mark patterns as used: %w", err)
	}
	t.unmarked = nil
	return nil
}

func (t *follower) matches(path string) bool { return matchesAny(t.o.Patterns, path) }

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

// add starts to follow the file at path.
func (t *follower) add(path string, st status) *file {
	f := &file{moved: time.Now()}
	f.id, f.label = st.id, path
	f.key = fmt.Sprintf("%sfile:%x-%x-%x", t.prefix, st.id.dev, st.id.ino, st.id.birth)
	f.outside = !t.matches(path)
	t.files[st.id] = f
	t.paths[path] = f
	t.enqueue(f)
	return f
}

// resume gives f the mark that was saved for it.
func (t *follower) resume(f *file) bool {
	for key, m := range t.saved {
		if !f.id.again(m.id) {
			continue
		}
		delete(t.saved, key)
		path := f.where()
		m.id = f.id
		f.key, f.mark, f.saved = key, m, true
		f.path = ""
		if path != m.label {
			f.path = path
			f.set(rotated)
		}
		return true
	}
	return false
}

// load reads the checkpoints of earlier runs.
func (t *follower) load(ctx context.Context) error {
	var stale []source.Checkpoint
	t.out.Checkpoints(t.prefix+"file:", func(key string, value []byte) bool {
		m, err := decodeMark(value)
		switch {
		case err != nil:
			t.o.Log.Warn("forgets a checkpoint that cannot be read: its file is read from the beginning", "key", key, "error", err)
			stale = append(stale, source.Checkpoint{Key: key})
		case !t.matches(m.label): // the patterns were changed
			stale = append(stale, source.Checkpoint{Key: key})
		default:
			t.saved[key] = m
		}
		return true
	})
	marked := make(map[string]bool)
	t.out.Checkpoints(t.prefix+"pattern:", func(key string, _ []byte) bool {
		pattern := strings.TrimPrefix(key, t.prefix+"pattern:")
		marked[pattern] = true
		if !slices.Contains(t.o.Patterns, pattern) {
			stale = append(stale, source.Checkpoint{Key: key})
		}
		return true
	})
	for _, p := range t.o.Patterns {
		if !marked[p] {
			t.unmarked = append(t.unmarked, p)
		}
	}
	if len(stale) == 0 {
		return nil
	}
	if err := t.out.Emit(ctx, t.o.Table, nil, stale...); err != nil {
		return fmt.Errorf("forget checkpoints: %w", err)
	}
	return nil
}
