package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/openloganalytics/agent/agent/source"
	"github.com/openloganalytics/agent/agent/source/syslog"
)

// A follower is a Source at work.
type follower struct {
	source *Source
	out    source.Emitter
	group  *syslog.Group
	arena  []byte // the bytes of the group's messages
	fields fields
	caches caches

	files      []*file // in the order in which they are read
	fronts     []*file // of each family the one that is read
	unreadable int     // files and folders, at the last scan
	vanished   bool    // a file was deleted before all of it was read
	troubles   map[string]string

	first  bool // nothing was read in any former life
	cursor cursor
	places map[string]place // that are kept, or will be with the next emit
	seen   map[string]bool  // keys of the files that are there
	forget []string         // keys to forget

	passed  int           // entries since the last emit
	losses  []source.Loss // not told yet, one of a kind
	checked uint64        // number before which a gap was looked into
}

// follower returns what goes on where the last one has come to.
func (s *Source) follower(out source.Emitter) (*follower, error) {
	group, err := syslog.NewGroup(s.groupOptions())
	if err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	f := &follower{
		source: s, out: out, group: group, arena: make([]byte, 0, source.MaxEmit),
		troubles: map[string]string{}, places: map[string]place{}, seen: map[string]bool{},
	}
	if saved := out.Checkpoint(name); saved == nil || json.Unmarshal(saved, &f.cursor) != nil || f.cursor.Since != s.opts.Since {
		f.first, f.cursor = true, cursor{Since: s.opts.Since}
	}
	out.Checkpoints(name+"/", func(key string, value []byte) bool {
		var p place
		if f.first || json.Unmarshal(value, &p) != nil {
			f.forget = append(f.forget, key)
		} else {
			f.places[key] = p
		}
		return true
	})
	return f, nil
}

func (f *follower) close() {
	for _, file := range f.files {
		file.close()
	}
}

// drain reads what there is. quiet asks to keep the place even if there was
// nothing that is wanted.
func (f *follower) drain(ctx context.Context, quiet bool) error {
	f.group.Begin(f.source.opts.Now())
	f.openFronts()
	for ctx.Err() == nil {
		front := f.next()
		if front == nil {
			break
		}
		if f.gap(front) {
			f.scan() // numbers that are missing can be in a file that is new
			f.openFronts()
			continue
		}
		if err := f.take(ctx, front); err != nil {
			return err
		}
	}
	for _, front := range f.fronts {
		if front.r != nil {
			front.r.rest()
		}
	}
	f.tell()
	const many = 1000
	if f.group.Len() > 0 || len(f.losses) > 0 || f.first && f.unreadable == 0 || f.passed >= many || quiet && (f.passed > 0 || len(f.forget) > 0) {
		return f.emit(ctx)
	}
	return nil
}

// openFronts opens of each family the first file with something to read.
func (f *follower) openFronts() {
	f.fronts = f.fronts[:0]
	var families []string
	for _, file := range f.files {
		if file.done || slices.Contains(families, file.family) {
			continue
		}
		if f.look(file) {
			f.fronts = append(f.fronts, file)
		}
		if !file.done { // else the next file of the family is its front
			families = append(families, file.family)
		}
	}
}

// look opens or refreshes a file and tells whether it has something to read.
func (f *follower) look(file *file) bool {
	err := error(nil)
	file.peeked = false
	if file.r == nil {
		err = file.open()
	} else {
		err = file.refresh()
	}
	if errors.Is(err, errReplaced) {
		file.info = nil // the next scan takes it for what it is now
		file.done = true
		return false
	}
	if err != nil {
		f.refused(file, err)
		if errors.Is(err, errDamaged) && file.aside {
			f.finish(file, true)
		}
		return false
	}
	if file.next < file.header.entries {
		return true
	}
	if file.aside {
		f.finish(file, false)
	}
	return false
}

// finish has done with a file.
func (f *follower) finish(file *file, damaged bool) {
	if left := file.header.tail - file.seqnum; damaged && file.header.tail > file.seqnum {
		f.lose("damaged", file.base(), int64(left), time.Time{})
	}
	file.done = true
	file.close()
}

// next returns the front whose next entry is the first of all, nil when nothing
// is left.
func (f *follower) next() *file {
	for {
		var first *file
		for _, front := range f.fronts {
			if f.peek(front) && (first == nil || before(front, first)) {
				first = front
			}
		}
		if first != nil {
			return first
		}
		// What was read to its end may be followed by another file.
		ended := slices.ContainsFunc(f.fronts, func(o *file) bool { return o.aside && !o.done && o.next >= o.header.entries })
		if !ended {
			return nil
		}
		f.openFronts()
	}
}

// before tells which of two entries was first: by their numbers when they are
// of one count, by the boot's clock within a boot.
func before(a, b *file) bool {
	switch {
	case a.header.seqnumID == b.header.seqnumID:
		return a.head.seqnum < b.head.seqnum
	case a.head.boot == b.head.boot:
		return a.head.monotonic < b.head.monotonic
	}
	return a.head.realtime < b.head.realtime
}

// peek reads the head of a file's next entry, and leaves out those that cannot
// be read. The header was read before them, so they were whole by then.
func (f *follower) peek(file *file) bool {
	for !file.peeked {
		if file.r == nil || file.next >= file.header.entries {
			return false
		}
		var err error
		if file.head, err = file.r.entry(file.next); err == nil {
			file.peeked = true
			break
		}
		f.skip(file, err)
	}
	return true
}

// skip leaves out the next entry, or all that follow when the list of them is
// broken.
func (f *follower) skip(file *file, cause error) {
	n := uint64(1)
	if errors.Is(cause, errNoList) {
		n = file.header.entries - file.next
	}
	f.source.opts.Log.Warn("journal entries cannot be read", "file", file.path, "entries", n, "error", cause)
	f.lose("damaged", file.base(), int64(n), time.Time{})
	file.next += n
	f.passed++
	file.moved = true
	// Their numbers are not known, but how many they are.
	file.seqnum += n
	if f.cursor.Seqnum > 0 {
		f.cursor.Seqnum += n
	}
}

// gap looks into numbers that are missing before a file's next entry. It asks
// for a scan before it believes that they are.
func (f *follower) gap(front *file) (scan bool) {
	c, n := &f.cursor, front.head.seqnum
	switch {
	case c.Seqnum == 0 || n <= c.Seqnum+1 && !f.renumbered(front):
		return false
	case f.renumbered(front):
		if f.vanished {
			f.lose("vacuumed", "", 0, time.UnixMicro(int64(front.head.realtime)))
			f.vanished = false
		}
		return false
	}
	missing := n - c.Seqnum - 1
	if missing -= min(f.elsewhere(front, c.Seqnum, n), missing); missing == 0 || f.unreadable > 0 {
		return false
	}
	if f.checked != n {
		f.checked = n
		return true
	}
	f.lose("vacuumed", "", int64(missing), time.UnixMicro(int64(front.head.realtime)))
	f.vanished = false
	return false
}

// renumbered tells a file of journald's own with another count than before.
func (f *follower) renumbered(front *file) bool {
	return front.system() && front.header.seqnumID != f.cursor.SeqnumID
}

// elsewhere returns how many entries with numbers between two are in other
// files, still to be read.
func (f *follower) elsewhere(front *file, low, high uint64) (count uint64) {
	for _, file := range f.files {
		if file == front || file.done || file.volatile != front.volatile {
			continue
		}
		opened := file.r == nil
		if opened && file.open() != nil {
			continue
		}
		from, to := max(file.r.after(low), file.next), file.r.after(high-1)
		if to > from {
			count += to - from
		}
		if opened {
			file.close()
		}
	}
	return count
}

// take reads the next entry of a file.
func (f *follower) take(ctx context.Context, front *file) error {
	e := &front.head
	failed := front.r.fields(e, &f.fields)
	if !f.copied(front, e) {
		if err := f.message(ctx, front, e, failed); err != nil {
			return err
		}
	}
	f.passed++
	front.next++
	front.peeked = false
	front.seqnum, front.moved = e.seqnum, true
	f.advance(front, e)
	return nil
}

// copied tells an entry that was read before, in the volatile folder.
func (f *follower) copied(front *file, e *entry) bool {
	return !front.volatile && e.boot == f.cursor.VolatileBoot && e.monotonic <= f.cursor.VolatileMonotonic
}

// advance moves the cursor behind an entry.
func (f *follower) advance(front *file, e *entry) {
	c := &f.cursor
	if front.volatile {
		c.VolatileBoot, c.VolatileMonotonic = e.boot, e.monotonic
	}
	switch {
	case c.Seqnum == 0 || f.renumbered(front):
		c.SeqnumID = front.header.seqnumID
	case e.seqnum < c.Seqnum:
		return
	}
	c.Seqnum, c.Boot, c.Monotonic, c.Realtime = e.seqnum, e.boot, e.monotonic, e.realtime
}

// message adds the message that an entry is, if it is one and is wanted.
func (f *follower) message(ctx context.Context, front *file, e *entry, failed error) error {
	var m syslog.Message
	v := &f.fields
	m.Facility, m.Severity = v.facility(), v.severity()
	text := v.value(fieldMessage)
	switch {
	case text == nil && failed != nil:
		f.source.opts.Log.Warn("journal entry cannot be read", "file", front.path, "error", failed)
		f.lose(reasonOf(failed), front.base(), 1, time.UnixMicro(int64(e.realtime)))
		return nil
	case text == nil || !f.group.Wants(m.Facility, m.Severity):
		return nil
	}
	size := len(v.arena)
	if f.group.Full(size) || len(f.arena)+size > cap(f.arena) {
		if err := f.emit(ctx); err != nil {
			return err
		}
	}
	m.Time = v.time(e)
	m.Host = f.keep(v.value(fieldHost))
	m.Ident = f.keep(v.either(fieldIdent, fieldComm))
	m.PID = f.keep(v.either(fieldSyslogPID, fieldPID))
	m.Text = f.keep(text)
	f.group.Add(&m)
	if v.cut > 0 {
		f.loss("truncated", syslog.FacilityName(m.Facility), m.Time).Bytes += int64(v.cut)
	}
	return nil
}

func reasonOf(failed error) string {
	if errors.Is(failed, errXZ) {
		return "compressed-xz"
	}
	return "damaged"
}

// keep copies a value into the arena, which has room for it.
func (f *follower) keep(value []byte) []byte {
	from := len(f.arena)
	f.arena = append(f.arena, value...)
	return f.arena[from:len(f.arena):len(f.arena)]
}

// emit hands over what was read, with the places behind it.
func (f *follower) emit(ctx context.Context) error {
	at := []source.Checkpoint{checkpoint(name, &f.cursor)}
	for _, file := range f.files {
		if !file.moved {
			continue
		}
		p := place{Seqnum: file.seqnum, Volatile: file.volatile}
		f.places[file.key()] = p
		at = append(at, checkpoint(file.key(), p))
	}
	for _, key := range f.forget {
		at = append(at, source.Checkpoint{Key: key})
	}
	for _, loss := range f.losses {
		f.out.Lost(loss)
	}
	f.losses = f.losses[:0]
	if err := f.group.Emit(ctx, f.out, at...); err != nil {
		return fmt.Errorf("emit journal entries: %w", err)
	}
	f.group.Clear()
	f.group.Begin(f.source.opts.Now())
	f.arena = f.arena[:0]
	f.first = f.first && f.unreadable > 0 // those are still to be given their place
	f.forget, f.passed = nil, 0
	for _, file := range f.files {
		file.moved = false
	}
	return nil
}

// lose notes entries that are lost, which the next emit tells.
func (f *follower) lose(reason, class string, records int64, at time.Time) {
	if at.IsZero() {
		at = time.UnixMicro(int64(f.cursor.Realtime))
	}
	loss := f.loss(reason, class, at)
	loss.Records += records
	if f.cursor.Realtime > 0 && reason == "vacuumed" { // they were after the last one that was read
		loss.First = time.UnixMicro(int64(f.cursor.Realtime))
	}
}

// loss returns the loss of a kind that is not told yet, made new at a time.
func (f *follower) loss(reason, class string, at time.Time) *source.Loss {
	n := slices.IndexFunc(f.losses, func(l source.Loss) bool { return l.Reason == reason && l.Class == class })
	if n < 0 {
		n = len(f.losses)
		f.losses = append(f.losses, source.Loss{Reason: reason, Class: class, First: at})
	}
	f.losses[n].Last = at
	return &f.losses[n]
}

func (f *follower) trouble(thing string, err error) {
	text := fmt.Sprintf("%v; the agent goes on trying", err)
	if f.troubles[thing] != text {
		f.troubles[thing] = text
		f.out.Trouble(thing, text)
	}
}

func (f *follower) clearTrouble(thing string) {
	if _, there := f.troubles[thing]; there {
		delete(f.troubles, thing)
		f.out.Trouble(thing, "")
	}
}

// tell says when there is no journal at all.
func (f *follower) tell() {
	if len(f.files) > 0 || f.unreadable > 0 {
		f.clearTrouble(name)
		return
	}
	f.trouble(name, fmt.Errorf("there are no journal files in %s; see Storage= in journald.conf", strings.Join(f.source.folders(), " and ")))
}
