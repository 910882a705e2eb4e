package spool

import (
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"

	"github.com/openloganalytics/agent/internal/vfs/memfs"
)

// -update writes the golden files from what the code does now. A change of
// them is a change of the format: see FORMAT.md on versions.
var update = flag.Bool("update", false, "write golden files")

// TestGoldenBytes pins the bytes that FORMAT.md describes: another build, or
// another version with the same Format, has to find these.
func TestGoldenBytes(t *testing.T) {
	fs := memfs.New()
	s := mustOpen(t, fs, testOptions("workspace/one", "workspace/two"))
	first := mustAppend(t, s, []Piece{
		{Label: []byte(`{"name":"Syslog"}`), Data: []byte("<first>"), Tail: []byte("</>"), Rows: 3, Raw: 300},
		{Label: []byte(`{"name":"Perf"}`), Data: []byte("<other>"), Rows: 1, Raw: 100},
	}, Checkpoint{"tail/1", []byte("place")}, Checkpoint{"tail/0", nil})
	if !s.Continue(first[0]) {
		t.Fatal("the first batch cannot be continued")
	}
	mustAppend(t, s, []Piece{
		{Batch: first[0], Label: []byte(`{"name":"Syslog"}`), Data: []byte("<more>"), Tail: []byte("</>"), Rows: 2, Raw: 200},
	}, Checkpoint{"tail/1", []byte("further")})
	for range 2 {
		b := takeNow(s, "workspace/one")
		if err := s.Done("workspace/one", b.ID, Outcome{Delivered: b.Rows - 1, Refused: 1}); err != nil {
			t.Fatal(err)
		}
	}
	s.o.SegmentBytes = 1
	mustAppend(t, s, nil, Checkpoint{"ledger", []byte{}})
	for file, name := range map[string]string{
		"segment-1": segmentName(1), "segment-2": segmentName(2), "cursor": cursorName("workspace/one"),
	} {
		golden := filepath.Join("testdata", file+".hex")
		got := dump(fs.ReadFile(name))
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", golden, diff)
		}
	}
}

// dump is a hex dump without the lines that are all zeros.
func dump(data []byte) string {
	var lines []string
	for line := range strings.Lines(hex.Dump(data)) {
		if !strings.Contains(line, strings.Repeat(" 00", 8)+" "+strings.Repeat(" 00", 8)) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

// undump is the file that was dumped.
func undump(t *testing.T, name string, size int) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, size)
	for line := range strings.Lines(string(text)) {
		var at int
		if _, err := fmt.Sscanf(line, "%x", &at); err != nil {
			t.Fatal(err)
		}
		row, err := hex.DecodeString(strings.ReplaceAll(line[8:min(59, len(line))], " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		copy(data[at:], row)
	}
	return data
}

// TestCursorOfBefore: cursors were written without the number of the next frame
// once. They are read all the same, and who reads them knows that it is missing;
// nothing else is different.
func TestCursorOfBefore(t *testing.T) {
	before, now := newestSlot(undump(t, "cursor-before.hex", cursorSize)), newestSlot(undump(t, "cursor.hex", cursorSize))
	if before.frames != 0 || now.frames != 3 || before.generation == 0 {
		t.Errorf("the next frame is %d and %d, want 0 and 3", before.frames, now.frames)
	}
	now.frames = 0
	if before != now {
		t.Errorf("before %+v, now %+v", before, now)
	}
}

// TestIndexIsSmall: a long backlog must not cost memory.
func TestIndexIsSmall(t *testing.T) {
	if size := unsafe.Sizeof(piece{}); size > 64 {
		t.Errorf("a piece takes %d bytes of memory, want at most 64", size)
	}
}

func TestBitmapShift(t *testing.T) {
	for _, n := range []uint64{0, 1, 63, 64, 65, 128, 700, window - 1, window, window + 5} {
		var m bitmap
		set := []uint64{0, 1, 63, 64, 127, 128, 500, 777, window - 1}
		for _, i := range set {
			m.set(i)
		}
		m.shift(n)
		for i := range uint64(window) {
			want := false
			for _, j := range set {
				want = want || j == i+n
			}
			if m.has(i) != want {
				t.Errorf("shifted by %d: bit %d is %v", n, i, !want)
			}
		}
	}
}

// FuzzSegment opens a folder whose only segment is any bytes.
func FuzzSegment(f *testing.F) {
	fs := memfs.New()
	s, err := Open(fs, testOptions("a"))
	if err != nil {
		f.Fatal(err)
	}
	for i := range 3 {
		if _, err := s.Append([]Piece{{Data: []byte("data"), Tail: []byte("."), Rows: i}}, []Checkpoint{{"k", []byte("v")}}); err != nil {
			f.Fatal(err)
		}
	}
	whole := fs.ReadFile(segmentName(1))
	f.Add(whole, 0, uint32(0))
	f.Add(whole, 1024+48, uint32(0xffffffff))
	f.Add(whole[:1100], 1024, uint32(1))
	f.Add([]byte{}, 0, uint32(0))
	f.Fuzz(func(t *testing.T, data []byte, at int, value uint32) {
		// Change one word, and make the checksum of its frame right again, so
		// that the fields are tried and not only the checksums.
		data = append([]byte{}, data...)
		if at >= 0 && at+4 <= len(data) {
			le.PutUint32(data[at:], value)
			fixChecksum(data, at)
		}
		fs := memfs.New()
		fs.WriteFile(segmentName(1), data)
		s, err := Open(fs, testOptions("a"))
		if err != nil {
			return // of a newer version
		}
		for b := takeNow(s, "a"); b != nil; b = takeNow(s, "a") {
			body, err := b.Body(nil)
			if err == nil && int64(len(body)) != b.Size {
				t.Errorf("body of %d bytes, said to be %d", len(body), b.Size)
			}
			if err := b.Pieces(func(int, Piece) bool { return true }); err != nil {
				t.Errorf("pieces: %v", err)
			}
			if err := s.Done("a", b.ID, Outcome{}); err != nil {
				t.Error(err)
			}
		}
		if _, err := s.Append([]Piece{{Data: []byte("new"), Rows: 1}}, nil); err != nil {
			t.Errorf("append: %v", err)
		}
		if b := takeNow(s, "a"); b == nil {
			t.Error("what was appended is not there")
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// fixChecksum makes the frame around data[at] valid, as far as its lengths go.
func fixChecksum(data []byte, at int) {
	start := at / sector * sector
	for start >= segmentHeaderSize && string(data[start:start+4]) != frameMagic {
		start -= sector
	}
	if start < segmentHeaderSize {
		if len(data) >= 52 {
			le.PutUint32(data[48:], checksum(data[:48]))
		}
		return
	}
	h, ok := parseFrameHeader(data[start:])
	if end := start + frameHeaderSize + int(h.meta); ok && end <= len(data) {
		le.PutUint32(data[start+4:], checksum(data[start+8:end]))
	}
}

// FuzzCursor opens a folder whose cursor is any bytes.
func FuzzCursor(f *testing.F) {
	f.Add(cursorFile(slot{version: 1, spool: 0x1122334455667788, generation: 3, name: "a", progress: progress{through: 7}}), true)
	f.Add([]byte("LACURS\r\n"), false)
	f.Fuzz(func(t *testing.T, data []byte, fix bool) {
		if fix && len(data) >= slotSize {
			data = append([]byte{}, data...)
			le.PutUint32(data[slotSize-4:], checksum(data[:slotSize-4]))
		}
		fs := memfs.New()
		if data == nil {
			data = []byte{}
		}
		fs.WriteFile(cursorName("a"), data)
		s, err := Open(fs, testOptions("a"))
		if err != nil {
			return // of a newer version
		}
		ids, err := s.Append([]Piece{{Data: []byte("new"), Rows: 1}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if b := takeNow(s, "a"); b == nil || b.ID != ids[0] {
			t.Errorf("batch %d was appended, %v is taken", ids[0], b)
		}
	})
}

// TestOpenReadsHeadsOnly: of older segments Open reads what it needs and not
// the data.
func TestOpenReadsHeadsOnly(t *testing.T) {
	fs := memfs.New()
	o := testOptions("a")
	o.Budget, o.SegmentBytes, o.Clock = 64<<20, 1<<20, time.Now
	s := mustOpen(t, fs, o)
	data := make([]byte, 200<<10)
	for range 50 {
		mustAppend(t, s, []Piece{{Data: data, Rows: 1}})
	}
	fs.Kill()
	before := fs.Count(memfs.Read)
	mustOpen(t, fs, o)
	if n := fs.Count(memfs.Read) - before; n > 150 {
		t.Errorf("Open of 10 segments with 50 frames read %d times, want one read a frame and a few more", n)
	}
}
