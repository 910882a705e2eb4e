package journal

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A file is one file of the journal, open while it is read.
type file struct {
	path     string
	info     fs.FileInfo
	volatile bool
	family   string // "system", "user-1000": files that follow one another
	header   header // as of the last look

	f    *os.File
	r    *reader
	next uint64 // ordinal of the next entry

	seqnum uint64 // place: number of the last entry that was read
	moved  bool   // the place was not emitted yet
	aside  bool   // by its name it is not written to any more
	done   bool   // and all of it was read
	head   entry  // the next entry, if it was read already
	peeked bool
	caches *caches
}

// system tells the files of the journal itself from those of its users.
func (f *file) system() bool { return f.family == "system" }

// base is the file's name, for messages and the ledger.
func (f *file) base() string { return filepath.Base(f.path) }

func (f *file) key() string { return name + "/" + f.header.file.String() }

// familyOf tells from a name whose file it is and whether it was put aside:
// system.journal is written to; system@….journal was, and system@….journal~ was
// found broken.
func familyOf(name string) (family string, aside, ok bool) {
	stem, broken := strings.CutSuffix(name, ".journal~")
	if !broken {
		if stem, ok = strings.CutSuffix(name, ".journal"); !ok {
			return "", false, false
		}
	}
	family, _, aside = strings.Cut(stem, "@")
	return family, aside || broken, family != ""
}

// scan brings the list of files up to date with the folders.
func (f *follower) scan() {
	before := f.files
	f.files, f.unreadable = nil, 0
	clear(f.seen)
	for _, dir := range f.source.folders() {
		f.scanFolder(dir, dir == f.source.opts.Volatile, before)
	}
	for _, old := range before {
		if !slices.Contains(f.files, old) {
			f.gone(old)
		}
	}
	f.forgetPlaces()
	slices.SortStableFunc(f.files, func(a, b *file) int {
		switch {
		case a.header.seqnumID == b.header.seqnumID && a.header.head != b.header.head:
			return cmp.Compare(a.header.head, b.header.head)
		case a.aside && !b.aside: // the one that is written to is the last
			return -1
		case b.aside && !a.aside:
			return 1
		}
		return cmp.Compare(a.header.realtime, b.header.realtime)
	})
}

// gone takes note that a file was deleted. While it is open what is in it can
// be read all the same.
func (f *follower) gone(file *file) {
	f.clearTrouble(file.path)
	if file.r != nil && !file.done {
		file.aside = true
		f.files = append(f.files, file)
		f.seen[file.key()] = true
		return
	}
	if !file.done && file.header.tail > file.seqnum {
		f.vanished = true
	}
	file.close()
}

// forgetPlaces forgets the places in files that are no more. Where no file is at
// all the disk may not be there yet, and the places are kept for it.
func (f *follower) forgetPlaces() {
	persistent := slices.ContainsFunc(f.files, func(o *file) bool { return !o.volatile })
	for key, p := range f.places {
		if f.seen[key] || f.unreadable > 0 || !p.Volatile && !persistent {
			continue
		}
		f.forget = append(f.forget, key)
		delete(f.places, key)
	}
}

func (f *follower) scanFolder(dir string, volatile bool, before []*file) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			f.unreadable++
			f.trouble(dir, err)
		}
		return
	}
	f.clearTrouble(dir)
	for _, e := range entries {
		family, aside, ok := familyOf(e.Name())
		if !ok || !e.Type().IsRegular() {
			continue
		}
		path := filepath.Join(dir, e.Name())
		info, err := e.Info()
		if err != nil {
			continue // it is just gone
		}
		known := slices.IndexFunc(before, func(o *file) bool { return o.is(path, info) })
		if known >= 0 {
			file := before[known]
			file.aside = file.aside || aside
			file.path, file.info = path, info
			f.files = append(f.files, file)
			f.seen[file.key()] = true
			continue
		}
		file := &file{path: path, info: info, volatile: volatile, family: family, aside: aside, caches: &f.caches}
		if err := file.open(); err != nil {
			f.refused(file, err)
			continue
		}
		f.clearTrouble(path)
		f.files = append(f.files, file)
		f.seen[file.key()] = true
		f.settle(file)
		file.close()
	}
}

// is tells whether a file that is known is the one at a path. One that was put
// aside keeps its name: another that has its inode now is another file.
func (f *file) is(path string, info fs.FileInfo) bool {
	return os.SameFile(f.info, info) && (f.path == path || !f.aside)
}

// errReplaced is the cause when a file became another one.
var errReplaced = errors.New("another journal file is in its place")

// refused tells why a file cannot be read.
func (f *follower) refused(file *file, err error) {
	if errors.Is(err, errFresh) || errors.Is(err, fs.ErrNotExist) {
		return // journald is just making it, or deleting it
	}
	if !errors.Is(err, errDamaged) { // of that nothing is to be had later on
		f.unreadable++
	}
	if errors.Is(err, fs.ErrPermission) {
		err = fmt.Errorf("%w; the agent's user has to be in the group systemd-journal", err)
	}
	f.trouble(file.path, err)
}

// open opens the file at its place.
func (f *file) open() error {
	opened, err := os.Open(f.path)
	if err != nil {
		return err
	}
	info, err := opened.Stat()
	if err == nil && !os.SameFile(info, f.info) {
		err = fs.ErrNotExist // another one has its name by now
	}
	var r *reader
	if err == nil {
		r, err = newReader(opened, f.caches)
	}
	if err == nil && f.header.file != (id{}) && r.header.file != f.header.file {
		err = errReplaced
	}
	if err != nil {
		return errors.Join(err, opened.Close())
	}
	f.r = r
	f.f, f.header = opened, f.r.header
	f.next = 0
	if f.seqnum > 0 {
		f.next = f.r.after(f.seqnum)
	}
	return nil
}

func (f *file) close() {
	if f.r != nil {
		f.r.rest()
		_ = f.f.Close() // only read from
	}
	f.f, f.r = nil, nil
}

// refresh looks what journald has added.
func (f *file) refresh() error {
	if err := f.r.refresh(); err != nil {
		return err
	}
	f.header = f.r.header
	return nil
}

// settle gives a file that is seen for the first time its place.
func (f *follower) settle(file *file) {
	if p, ok := f.places[file.key()]; ok {
		file.seqnum = p.Seqnum
		return
	}
	if !f.first {
		return // all of it is new
	}
	since := uint64(max(f.source.opts.Uptime()-firstLook, 0).Microseconds())
	ordinal := file.r.search(func(e *entry) bool { return e.boot == f.source.boot && e.monotonic >= since })
	if ordinal > 0 {
		if e, err := file.r.entry(ordinal - 1); err == nil {
			file.seqnum = e.seqnum
		}
	}
	file.moved = true
}
