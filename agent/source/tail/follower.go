package tail

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/openloganalytics/agent/agent/source"
)

const (
	// hotPause lies between two looks at a file that is being written.
	hotPause = 100 * time.Millisecond
	// quietLook lies at most between two looks at a file of which an event will
	// tell every change.
	quietLook = time.Minute
	// hangAfter is how long a look may take before others go ahead of it.
	hangAfter = 2 * time.Second
	// maxHung looks, and as many walks, may hang at the same time; each keeps a
	// thread, and a look its buffer.
	maxHung = 32
	// maxHungEach of them may hang in one file system; its other files wait.
	maxHungEach = 4
	// maxOpen handles are kept open.
	maxOpen = 1024
	// flushAfter this long a complete file's last line is taken without its
	// end, and a deleted file is closed.
	flushAfter = 5 * time.Second
	// lingerAfter this long a file is closed that was moved out of reach.
	lingerAfter = 10 * time.Minute
	// holdFor this long a copy that does not grow waits for its original to be
	// truncated.
	holdFor = 5 * time.Second
	// formerFor this long after a truncation a copy of the file is looked for.
	formerFor = 10 * time.Second
	// savedFor this long a checkpoint is kept whose file system is not there.
	savedFor = 24 * time.Hour
)

// Reasons of losses.
const (
	lostTruncated = "truncated-file"       // cut before it was read to its end, and no copy found
	lostDeleted   = "deleted-file"         // deleted, or moved out of reach, before
	lostRotated   = "rotated-out-of-reach" // rotated away while the agent did not run; nobody knows how much
	lostLongLine  = "line-too-long"        // what a line had beyond MaxLine
	lostZeros     = "nul-bytes"            // zeros in place of a line: no text
)

// A job is done off the loop, because it may hang in the file system. What it
// returns is then done on the loop.
type job func(buf []byte) (then func(context.Context) error)

type result struct {
	f    *file
	buf  []byte
	then func(context.Context) error
}

// A follower is one run of Follow. All its fields belong to the goroutine of
// run; looks at files happen in a goroutine of their own, one at a time unless
// one hangs.
type follower struct {
	o      Options
	out    source.Emitter
	lines  Lines
	guard  guard
	prefix string // of the checkpoint keys

	hints *hints
	watch *watcher // nil when files are looked at at intervals only

	files map[identity]*file
	paths map[string]*file              // who was last seen at a path
	stems map[string]map[*file]struct{} // what their rotated copies are named after
	saved saved                         // marks whose file was not found yet
	stale []source.Checkpoint           // to be forgotten

	urgent, ready []*file // to look at, in order
	turn          int
	active        *file // whose job runs
	since         time.Time
	results       chan result
	spare         []byte
	text          []byte // UTF-8 of what is UTF-16
	hung          int
	handles       int
	handleLimit   int

	dues       dues
	cut        map[*file]struct{} // with a former that was not found again
	nextScan   time.Time
	soonScan   time.Time         // no scan before, whatever happens
	troubles   map[string]string // by pattern
	started    bool              // the first scan is done
	watched    map[string]bool   // folders that are watched for new names
	vigils     chan vigil
	watching   *walk            // the round of a vigil that is under way
	emitting   *file            // whose lines are being handed over,
	proof      mark             // and the place behind them
	scanning   *walk            // that is under way
	stuck      map[string]*walk // walks that nobody waits for, by where they are
	devices    map[uint64]int   // looks that hang, by device
	scanned    chan func(context.Context) error
	begun      time.Time
	unmarked   []string // patterns that are used for the first time
	parked     int      // checkpoints kept that no pattern asks for any more
	ending     int      // files that are to be read from their end and have no mark
	compressed int

	deletedLimit int64
}

func newFollower(o Options, out source.Emitter, lines Lines) *follower {
	return &follower{
		o: o, out: out, lines: lines, guard: newGuard(o.Deny), prefix: o.Name + ":",
		hints: newHints(),
		files: make(map[identity]*file), paths: make(map[string]*file), saved: make(saved),
		stems: make(map[string]map[*file]struct{}),
		cut:   make(map[*file]struct{}), troubles: make(map[string]string),
		results: make(chan result, maxHung+1), scanned: make(chan func(context.Context) error, 2*maxHung),
		stuck: make(map[string]*walk), devices: make(map[uint64]int),
		vigils:      make(chan vigil, 2*maxHung),
		handleLimit: maxOpen, deletedLimit: maxDeleted, begun: time.Now(),
	}
}

func (t *follower) run(ctx context.Context) error {
	if err := t.out.Flush(ctx); err != nil { // an earlier run may have emitted what is not durable yet
		return fmt.Errorf("flush what was read before: %w", err)
	}
	t.startWatch()
	t.load()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(time.Until(t.schedule(time.Now())))
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		case <-t.hints.ready:
			t.heed(time.Now())
		case r := <-t.results:
			err = t.finish(ctx, r)
		case then := <-t.scanned:
			err = then(ctx)
		case v := <-t.vigils: // the spool took the lines before the round ended
			t.endVigil(v)
		}
		if err != nil {
			return err
		}
	}
}

func (t *follower) startWatch() {
	if t.o.pollOnly {
		return
	}
	w, err := newWatcher(t.hints)
	if err != nil {
		t.unwatched(err)
		return
	}
	t.watch = w
	t.out.Trouble("inotify", "")
}

// unwatched goes on without events.
func (t *follower) unwatched(err error) {
	if t.watch != nil {
		t.watch.close()
		t.watch = nil
	}
	for _, f := range t.files {
		t.awake(f, time.Now())
	}
	t.out.Trouble("inotify", fmt.Sprintf("files are looked at at intervals, up to some seconds apart, because the kernel gives no more watches (%v); "+
		"raise fs.inotify.max_user_watches and fs.inotify.max_user_instances, then restart the agent", err))
}

// close waits for the job under way, unless that hangs, and lets go of all
// files.
func (t *follower) close() {
	if t.watch != nil {
		t.watch.close()
	}
	within, cancel := context.WithTimeout(context.Background(), hangAfter)
	defer cancel()
	for waiting := true; waiting && (t.scanning != nil || t.watching != nil || t.active != nil && t.active.busy); {
		select {
		case r := <-t.results:
			r.f.busy = false
		case <-t.scanned: // no matter which
			t.scanning = nil
		case v := <-t.vigils:
			t.endVigil(v)
		case <-within.Done():
			waiting = false
		}
	}
	t.part(within)
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		for _, f := range t.files {
			if !f.busy { // else its goroutine hangs in the kernel and owns the handle
				f.release()
			}
		}
	}()
	select {
	case <-closed:
	case <-within.Done(): // closing hangs too
	}
}

// schedule starts what is due and returns when to be called again.
func (t *follower) schedule(now time.Time) time.Time {
	for f := range t.cut {
		t.expire(f, now)
	}
	next := now.Add(time.Minute)
	for len(t.dues) > 0 {
		f := t.dues[0]
		if f.due.After(now) {
			next = earlier(next, f.due)
			break
		}
		t.dues.remove(f)
		t.enqueue(f)
	}
	if t.active != nil && now.Sub(t.since) >= t.patience(t.active) {
		t.giveUpWaiting()
	}
	if t.active == nil {
		t.dispatch(now)
	}
	if t.active != nil {
		next = earlier(next, t.since.Add(t.patience(t.active)))
	}
	return earlier(next, t.scheduleScan(now))
}

// scheduleScan looks for new files when it is time, and gives up waiting for a
// scan that hangs. It returns when to be called again.
func (t *follower) scheduleScan(now time.Time) time.Time {
	if t.scanning != nil {
		next, path := t.scanning.waits(now)
		if path == "" {
			return next
		}
		t.stall(t.scanning, path)
		t.scanning = nil
	}
	if len(t.stuck) > maxHung {
		return now.Add(time.Minute)
	}
	if now.Before(t.nextScan) {
		return t.nextScan
	}
	t.startScan()
	return now.Add(hangAfter)
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// enqueue puts f up for a look. Those that were rotated away have a line of
// their own.
func (t *follower) enqueue(f *file) {
	if f.queued || f.busy {
		return
	}
	f.queued = true
	if f.is(rotated) || f.job != nil {
		t.urgent = append(t.urgent, f)
	} else {
		t.ready = append(t.ready, f)
	}
}

// dispatch starts the job of the next file in line.
func (t *follower) dispatch(now time.Time) {
	if t.hung >= maxHung {
		return
	}
	f := t.next(now)
	if f == nil {
		return
	}
	work := f.job
	if work == nil {
		work = func(buf []byte) func(context.Context) error {
			found := f.look(t.guard, buf)
			return func(ctx context.Context) error { return t.looked(ctx, f, found) }
		}
	}
	f.job, f.busy = nil, true
	t.active, t.since = f, now
	buf := t.spare
	t.spare = nil
	if size := maxAnchor + max(f.need, blockSize); len(buf) != size {
		buf = make([]byte, size)
	}
	if f.handle != nil {
		t.handles--
	} else if t.handles >= t.handleLimit {
		t.closeIdle()
	}
	go func() { t.results <- result{f, buf, work(buf)} }()
}

// next takes the file whose turn it is, one of each line in turn. A file that
// took another's path comes after it.
func (t *follower) next(now time.Time) *file {
	for len(t.urgent)+len(t.ready) > 0 {
		line := &t.ready
		if len(t.urgent) > 0 && (t.turn%2 == 0 || len(t.ready) == 0) {
			line = &t.urgent
		}
		t.turn++
		f := (*line)[0]
		*line = (*line)[1:]
		f.queued = false
		switch {
		case t.files[f.id] != f: // forgotten
		case t.hangs(f): // another of its file system's will wake it
		case f.after != nil && f.job == nil && t.unfinished(f.after):
			t.dues.set(f, now.Add(hotPause))
		default:
			f.after = nil
			return f
		}
	}
	return nil
}

// unfinished reports whether bytes of f are known to be left.
func (t *follower) unfinished(f *file) bool {
	return t.files[f.id] == f && !f.hung && f.fails == 0 && (f.more || f.check || f.job != nil)
}

// finish does on the loop what a job led to.
func (t *follower) finish(ctx context.Context, r result) error {
	f := r.f
	f.busy = false
	if t.active == f {
		t.active = nil
	}
	if f.hung {
		t.answered(f)
	}
	if f.handle != nil {
		t.handles++
	}
	err := r.then(ctx)
	t.spare = r.buf
	if err == nil && f.ending && !f.atEnd {
		err = t.ended(ctx, f)
	}
	if t.files[f.id] == f && !f.queued && f.place == 0 { // it became due meanwhile
		t.dues.set(f, time.Now())
	}
	return err
}

// patience is how long a look at f may take: not as long again where one hangs.
func (t *follower) patience(f *file) time.Duration {
	if t.devices[f.id.dev] > 0 {
		return hangAfter / 8
	}
	return hangAfter
}

// giveUpWaiting lets others go ahead of a job that does not come back.
func (t *follower) giveUpWaiting() {
	f := t.active
	t.active = nil
	f.hung = true
	t.hung++
	t.devices[f.id.dev]++
	t.stopEnding(f)
	others := ""
	if t.hangs(f) {
		others = ", as all others on it are"
	}
	t.trouble(f, "the file system has not answered for "+hangAfter.String()+"; the file is read on when it does"+others+". See that the mount is healthy")
}

// hangs reports whether the file system of f is not to be asked: enough looks
// hang in it.
func (t *follower) hangs(f *file) bool { return t.devices[f.id.dev] >= maxHungEach }

// answered notes that a look at f came back that nobody waited for. What was put
// off meanwhile is looked at.
func (t *follower) answered(f *file) {
	f.hung = false
	t.hung--
	t.untrouble(f)
	if t.devices[f.id.dev]--; t.devices[f.id.dev] == 0 {
		delete(t.devices, f.id.dev)
	}
	for _, g := range t.files {
		if g.id.dev == f.id.dev && !g.busy && !g.queued && g.place == 0 {
			t.dues.set(g, time.Now())
		}
	}
}

// closeIdle closes the handles that were not needed for longest, a quarter of
// them; a file that no path leads to keeps its own.
func (t *follower) closeIdle() {
	var oldest []*file
	for _, f := range t.files {
		if f.handle != nil && !f.gone && !f.busy {
			oldest = append(oldest, f)
		}
	}
	slices.SortFunc(oldest, func(a, b *file) int { return a.moved.Compare(b.moved) })
	for _, f := range oldest[:min(len(oldest), max(1, t.handleLimit/4))] {
		t.drop(f)
	}
}

// drop closes the handle of f.
func (t *follower) drop(f *file) {
	switch {
	case f.handle == nil:
		return
	case t.devices[f.id.dev] > 0: // to close would hang as well
		h := f.handle
		f.handle = nil
		go func() { _ = h.Close() }() // nothing was written
	default:
		f.release()
	}
	t.handles--
}

// heed looks at what the watcher noticed.
func (t *follower) heed(now time.Time) {
	paths, all := t.hints.take()
	if all {
		for _, f := range t.files {
			t.awake(f, now)
		}
		t.scanSoon()
		return
	}
	for path := range paths {
		if f := t.paths[path]; f != nil {
			t.awake(f, now)
		} else if t.matches(path) || t.watched[path] {
			t.scanSoon()
		}
	}
}

func (t *follower) awake(f *file, now time.Time) {
	f.armed = false
	t.dues.set(f, now)
}

// rest sets when to look at f again after a look that found nothing new. With
// an event to come that is seldom, else it depends on how long f has been
// quiet and on how many there are: about a thousand looks a second at most.
func (t *follower) rest(f *file, now time.Time) {
	switch {
	case f.fails > 0:
		t.dues.set(f, now.Add(min(time.Second<<min(f.fails-1, 5), 30*time.Second)))
		return
	case f.check:
		t.dues.set(f, now.Add(hotPause))
		return
	case t.watch != nil && !f.armed && !f.gone && !f.refused:
		t.arm(f)
		return
	}
	most := max(time.Second, time.Duration(len(t.files))*time.Millisecond)
	switch {
	case f.armed && f.sure && !f.hole: // zeros may be filled through memory, without an event
		most = max(quietLook, most)
	case f.armed:
		most *= 5
	}
	if f.is(rotated) {
		most = min(most, flushAfter)
	}
	pause := min(max(now.Sub(f.moved)/4, hotPause), most)
	at := now.Add(pause)
	if pause >= time.Second { // those that can wait are looked at together
		at = t.begun.Add(at.Sub(t.begun).Truncate(time.Second))
	}
	t.dues.set(f, at)
}

// arm has the kernel tell the next change of f.
func (t *follower) arm(f *file) {
	watch, path := t.watch, f.where()
	f.job = func([]byte) func(context.Context) error {
		sure := local(path)
		err := watch.once(path)
		return func(context.Context) error {
			switch {
			case t.watch != watch: // nobody listens any more
			case err != nil:
				t.unwatched(err)
			default:
				f.armed, f.sure = true, sure
			}
			t.dues.set(f, time.Now()) // look once more for what came before the watch
			return nil
		}
	}
	t.enqueue(f)
}

// expire ends the search for a copy of what f was before it was truncated.
func (t *follower) expire(f *file, now time.Time) {
	if !now.Before(f.former.until) {
		t.loseFormer(f)
		t.reunite(f)
	}
}

// reunite ends the search for the former of f.
func (t *follower) reunite(f *file) {
	f.former = nil
	delete(t.cut, f)
}

// lose enters bytes into the ledger that were in f and cannot be read, which
// are so many records; none when they are parts of records only.
func (t *follower) lose(reason string, f *file, bytes, records int64) {
	if bytes <= 0 {
		return
	}
	now := time.Now()
	t.out.Lost(source.Loss{Reason: reason, Class: f.label, Records: records, Bytes: bytes, First: now, Last: now})
}

// loseFormer enters what f was before it was truncated.
func (t *follower) loseFormer(f *file) {
	t.lose(lostTruncated, f, f.former.unread, f.former.records)
}

// loseRest enters what is lost with f, when unread bytes of it were not read.
func (t *follower) loseRest(f *file, unread int64) {
	switch {
	case f.is(skipping):
		t.lose(lostLongLine, f, f.skipped, 0)
	case !f.refused:
		t.lose(lostDeleted, f, unread, f.ahead.records(f.offset, unread))
	}
	if f.former != nil {
		t.loseFormer(f)
		t.reunite(f)
	}
}

func (t *follower) trouble(f *file, text string) {
	f.troubled = true
	t.out.Trouble(f.label, text)
}

func (t *follower) untrouble(f *file) {
	if f.troubled {
		f.troubled = false
		t.out.Trouble(f.label, "")
	}
}
