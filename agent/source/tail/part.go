package tail

import (
	"context"
	"os"
	"time"

	"github.com/openloganalytics/agent/agent/source"
)

// partingPatience is how long the spool may take at the end of a run to note
// where files are.
const partingPatience = 500 * time.Millisecond

// A parting is the last that a run sees of an open file of which something was
// not read.
type parting struct {
	f      *file
	handle *os.File
	home   string
	held   []*os.File // that may be copies of it
	gone   bool       // its path leads to it no more
	mark   mark       // the last place that is known to be in the file
	former *mark      // of what it was before it was cut, if a copy of that was not found yet

	err        error
	st         status
	out        bool     // no path in its folder leads to it
	cut        bool     // what was not read was cut off
	copied     sighting // a copy of what was cut off,
	formerCopy sighting // and of what it was before
}

// part looks once more at the open files of which something was not read. What
// nobody can read after this run is entered as lost, and the others keep their
// place, so that the next run knows them by whatever name they have then. It
// gives up when ctx ends: a file system may hang.
func (t *follower) part(ctx context.Context) {
	var open []parting
	for _, f := range t.files {
		if f.handle == nil || f.busy || f.refused || t.hangs(f) || f.last.size <= f.offset && !f.gone && f.former == nil {
			continue
		}
		p := parting{f: f, handle: f.handle, home: f.home(), held: t.held(f), gone: f.gone, mark: f.mark}
		if f == t.emitting {
			p.mark = t.proof
		}
		if f.former != nil {
			p.former = &f.former.mark
		}
		f.busy = true
		open = append(open, p)
	}
	looked := make(chan parting, len(open))
	go func() {
		for _, p := range open {
			p.look(t.guard)
			looked <- p
		}
	}()
	var found []parting
	for range open {
		select {
		case p := <-looked:
			p.f.busy = false
			if p.err == nil {
				found = append(found, p)
			}
		case <-ctx.Done():
			return
		}
	}
	keep := t.settleAll(found)
	if len(keep) == 0 {
		return
	}
	short, cancel := context.WithTimeout(ctx, partingPatience)
	defer cancel()
	_ = t.out.Emit(short, t.o.Table, nil, keep...) // the spool has no room: the next run has to find them by itself
}

func (p *parting) look(g guard) {
	if p.st, p.err = statFile(p.handle); p.err != nil {
		return
	}
	p.out = p.st.links == 0 || p.gone && locate(siblings(p.home), p.mark.id) == ""
	p.cut = !p.mark.holds(p.handle, p.st.size)
	if p.cut && p.mark.headLen > 0 {
		p.copied = g.findAnyCopy(p.home, p.held, &p.mark)
	}
	if p.former != nil {
		p.formerCopy = g.findAnyCopy(p.home, p.held, p.former)
	}
}

// settleAll settles the partings, and returns the places that have to be kept.
func (t *follower) settleAll(all []parting) []source.Checkpoint {
	for _, p := range all {
		if p.copied.some() && p.copied.path == "" { // it has the bytes of p, and goes too
			g := t.files[p.copied.st.id]
			g.offset, g.ahead = p.f.offset, ahead{}
		}
	}
	var keep []source.Checkpoint
	for _, p := range all {
		keep = append(keep, t.settle(p)...)
	}
	return keep
}

// settle enters what is lost, and returns the places that have to be kept
// because the next run would not find them.
func (t *follower) settle(p parting) []source.Checkpoint {
	var keep []source.Checkpoint
	f, unread := p.f, p.f.last.size-p.f.offset
	if f.former != nil {
		if !p.formerCopy.some() {
			t.loseFormer(f)
		} else if !f.saved || f.offset > 0 {
			keep = t.keepCopy(keep, p.formerCopy, f.former.mark)
		}
		t.reunite(f)
	}
	switch {
	case p.cut && f.is(skipping):
		t.lose(lostLongLine, f, f.skipped, 0)
	case p.cut && !p.copied.some():
		t.lose(lostTruncated, f, unread, f.ahead.records(f.offset, unread))
	case p.cut && !f.saved:
		keep = t.keepCopy(keep, p.copied, f.mark)
	case p.cut: // the copy is found by the place of f
	case p.out:
		t.loseRest(f, p.st.size-f.offset)
	case !f.saved && !f.atEnd:
		keep = append(keep, places([]*file{f})...)
	}
	if p.cut && p.out {
		t.lose(lostDeleted, f, p.st.size, 1)
	}
	return keep
}

// keepCopy adds the place m in a copy that no pattern finds.
func (t *follower) keepCopy(keep []source.Checkpoint, copied sighting, m mark) []source.Checkpoint {
	if copied.path == "" {
		return keep // what is lost with it is entered with it
	}
	if g := t.files[copied.st.id]; g != nil && (g.saved || g.offset > 0) || t.matches(copied.path) {
		return keep
	}
	m.id, m.path = copied.st.id, copied.path
	m.set(rotated)
	return append(keep, source.Checkpoint{Key: t.key(m.id), Value: m.encode()})
}
