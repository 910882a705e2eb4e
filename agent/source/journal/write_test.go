package journal

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// A journald writes journal files as journald does, as far as a reader can tell:
// an entry is in the file before it is in the list of entries, and the header
// counts it last.
type journald struct {
	t       testing.TB
	dir     string
	compact bool
	lz4     bool // compresses messages
	boot    id
	seqnums id
	last    uint64            // number of the latest entry, of all files
	mono    uint64            // its time, µs
	files   map[string]*jfile // that are written to, by family
	made    byte
}

// A jfile is a file that is written to.
type jfile struct {
	path    string
	f       *os.File
	end     uint64
	array   uint64 // the last array of entries
	room    uint64 // in it
	entries uint64
	data    map[string]uint64
	offsets []uint64 // of entries
}

func newJournald(t testing.TB, dir string) *journald {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return &journald{t: t, dir: dir, boot: id{0xb0}, seqnums: id{0x5e}, files: map[string]*jfile{}}
}

func (j *journald) check(err error) {
	j.t.Helper()
	if err != nil {
		j.t.Fatal(err)
	}
}

const testHeader = 264

func (j *journald) file(family string) *jfile {
	if f := j.files[family]; f != nil {
		return f
	}
	path := filepath.Join(j.dir, family+".journal")
	f, err := os.Create(path)
	j.check(err)
	j.t.Cleanup(func() { _ = f.Close() })
	j.made++
	h := make([]byte, testHeader)
	copy(h, signature)
	flags := uint32(flagKeyedHash)
	if j.compact {
		flags |= flagCompact
	}
	if j.lz4 {
		flags |= flagLZ4
	}
	binary.LittleEndian.PutUint32(h[12:], flags)
	h[16] = 1 // online
	h[24], h[25] = 0xf1, j.made
	copy(h[72:], j.seqnums[:])
	binary.LittleEndian.PutUint64(h[88:], testHeader)
	n := &jfile{path: path, f: f, end: testHeader, data: map[string]uint64{}}
	n.write(j.t, 0, h)
	j.files[family] = n
	return n
}

func (f *jfile) write(t testing.TB, at uint64, b []byte) {
	t.Helper()
	if _, err := f.f.WriteAt(b, int64(at)); err != nil {
		t.Fatal(err)
	}
}

func (f *jfile) number(t testing.TB, at, n uint64) {
	t.Helper()
	f.write(t, at, binary.LittleEndian.AppendUint64(nil, n))
}

// object appends an object and returns where it is.
func (f *jfile) object(t testing.TB, kind, flags byte, body []byte) uint64 {
	t.Helper()
	at := (f.end + 7) &^ 7
	b := make([]byte, objectHeader, objectHeader+len(body))
	b[0], b[1] = kind, flags
	binary.LittleEndian.PutUint64(b[8:], uint64(objectHeader+len(body)))
	f.write(t, at, append(b, body...))
	f.end = at + uint64(objectHeader+len(body))
	return at
}

// log adds an entry to the file of a family: its fields are NAME=VALUE.
func (j *journald) log(family string, fields ...string) {
	j.t.Helper()
	f := j.file(family)
	var offsets []uint64
	for _, field := range fields {
		offsets = append(offsets, j.datum(f, field))
	}
	j.last++
	j.mono += 1000
	body := make([]byte, entryHead-objectHeader)
	for at, n := range map[int]uint64{0: j.last, 8: 1_790_000_000_000_000 + j.mono, 16: j.mono} {
		binary.LittleEndian.PutUint64(body[at:], n)
	}
	copy(body[24:], j.boot[:])
	for _, offset := range offsets {
		if j.compact {
			body = binary.LittleEndian.AppendUint32(body, uint32(offset))
		} else {
			body = binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(body, offset), 0)
		}
	}
	entry := f.object(j.t, kindEntry, 0, body)
	f.offsets = append(f.offsets, entry)
	j.list(f, entry)
	f.entries++
	if f.entries == 1 {
		f.number(j.t, 168, j.last)
		f.number(j.t, 184, 1_790_000_000_000_000+j.mono)
	}
	f.number(j.t, 160, j.last)
	f.number(j.t, 152, f.entries)
}

// datum returns where a field is, which is written once.
func (j *journald) datum(f *jfile, field string) uint64 {
	if at, ok := f.data[field]; ok {
		return at
	}
	head, flags, payload := dataHead, byte(0), []byte(field)
	if j.compact {
		head = compactHead
	}
	if j.lz4 && len(field) > 512 {
		flags, payload = dataLZ4, packLZ4(payload)
	}
	at := f.object(j.t, kindData, flags, append(make([]byte, head-objectHeader), payload...))
	f.data[field] = at
	return at
}

// packLZ4 compresses runs of one byte and nothing else.
func packLZ4(plain []byte) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(plain)))
	long := func(n int) {
		for n -= 15; n >= 0; n -= 255 {
			b = append(b, byte(min(n, 255)))
			if n < 255 {
				break
			}
		}
	}
	literal := 0
	for i := 0; i < len(plain); {
		run := 1
		for i+run < len(plain) && plain[i+run] == plain[i] {
			run++
		}
		whole := run
		if run = min(run, len(plain)-12-i); run < 20 { // a block ends in literals
			i += whole
			continue
		}
		lit := plain[literal : i+1]
		b = append(b, byte(min(len(lit), 15))<<4|byte(min(run-1-4, 15)))
		long(len(lit))
		b = append(append(b, lit...), 1, 0)
		long(run - 1 - 4)
		i += run
		literal = i
	}
	lit := plain[literal:]
	b = append(b, byte(min(len(lit), 15))<<4)
	long(len(lit))
	return append(b, lit...)
}

// list adds an entry to the list of entries.
func (j *journald) list(f *jfile, entry uint64) {
	size := uint64(8)
	if j.compact {
		size = 4
	}
	if f.room == 0 {
		f.room = max(4, 2*f.entries)
		at := f.object(j.t, kindEntryArray, 0, make([]byte, arrayHead-objectHeader+f.room*size))
		if f.array == 0 {
			f.number(j.t, 176, at)
		} else {
			f.number(j.t, f.array+objectHeader, at)
		}
		f.array = at
		f.data[""] = at + arrayHead // where the next item goes
	}
	at := f.data[""]
	if j.compact {
		f.write(j.t, at, binary.LittleEndian.AppendUint32(nil, uint32(entry)))
	} else {
		f.number(j.t, at, entry)
	}
	f.data[""] = at + size
	f.room--
}

// rotate puts a family's file aside; the next entry begins a new one.
func (j *journald) rotate(family string) (path string) {
	j.t.Helper()
	f := j.files[family]
	delete(j.files, family)
	path = filepath.Join(j.dir, fmt.Sprintf("%s@%x-%016x.journal", family, j.seqnums, j.last))
	j.check(os.Rename(f.path, path))
	f.write(j.t, 16, []byte{2}) // archived
	return path
}

// messages logs numbered messages, from first on.
func (j *journald) messages(family string, first, n int) {
	j.t.Helper()
	for i := first; i < first+n; i++ {
		j.log(family, "_TRANSPORT=syslog", "PRIORITY=6", "SYSLOG_FACILITY=3", "SYSLOG_IDENTIFIER=app", "_HOSTNAME=vm", fmt.Sprintf("MESSAGE=message %d", i))
	}
}

// remove deletes files as journald does when they take too much.
func (j *journald) remove(paths ...string) {
	j.t.Helper()
	for _, path := range slices.Compact(paths) {
		j.check(os.Remove(path))
	}
}
