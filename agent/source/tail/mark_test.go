package tail

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var testMark = mark{
	id:     identity{dev: 0x801, ino: 1234567, birth: 1767323045123456789},
	offset: 70000, headLen: 1024, tailLen: 256,
	head: digestOf([]byte("head")), tail: digestOf([]byte("tail")),
	flags: skipping | rotated, label: "/var/log/app.log", path: "/var/log/app.log.1",
}

// TestMarkBytes pins the format: a newer agent must find its place in files
// that an older one read.
func TestMarkBytes(t *testing.T) {
	const want = "01" + // version
		"8110" + "87ad4b" + "95fec79fa2deb2c318" + // dev, ino, birth
		"f0a204" + "8008" + "8002" + "03" + // offset, headLen, tailLen, flags
		"9f2e6d33a3717ee826353a404ba4618d" + "0c62f876ef1dea830de9f32c2f4b46dd" + // digests
		"10" + "2f7661722f6c6f672f6170702e6c6f67" + "12" + "2f7661722f6c6f672f6170702e6c6f672e31"
	if got := hex.EncodeToString(testMark.encode()); got != want {
		t.Errorf("mark = %s, want %s", got, want)
	}
	m, err := decodeMark(testMark.encode())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(testMark, m, cmp.AllowUnexported(mark{}, identity{})); diff != "" {
		t.Errorf("decoded mark (-want +got):\n%s", diff)
	}
}

func TestDecodeMarkRefuses(t *testing.T) {
	good := testMark.encode()
	for n := range good {
		if _, err := decodeMark(good[:n]); err == nil {
			t.Errorf("decodeMark took the first %d of %d bytes", n, len(good))
		}
	}
	if _, err := decodeMark(append(bytes.Clone(good), 0)); err == nil {
		t.Error("decodeMark took a byte too many")
	}
	newer := bytes.Clone(good)
	newer[0] = markVersion + 1
	if _, err := decodeMark(newer); err == nil {
		t.Error("decodeMark took another version")
	}
}

func FuzzDecodeMark(f *testing.F) {
	f.Add(testMark.encode())
	f.Add((&mark{label: "/a"}).encode())
	f.Add([]byte{1, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMark(b)
		if err != nil {
			return
		}
		again, err := decodeMark(m.encode())
		if err != nil || again != m {
			t.Errorf("mark %+v becomes %+v, %v", m, again, err)
		}
	})
}

func TestMarkHolds(t *testing.T) {
	content := []byte(strings.Repeat("0123456789abcde\n", 200))
	m := mark{offset: 2000}
	m.begin(content[:2000])
	m.anchor(content[:2000])
	other := func(at int) []byte {
		c := bytes.Clone(content)
		c[at] = '#'
		return c
	}
	for _, tt := range []struct {
		name    string
		content []byte
		want    bool
	}{
		{"the same", content, true},
		{"grown", append(bytes.Clone(content), "more"...), true},
		{"not a byte beyond", content[:2000], true},
		{"shorter", content[:1999], false},
		{"another first byte", other(0), false},
		{"another last byte of the head", other(maxHead - 1), false},
		{"another first byte of the anchor", other(2000 - maxAnchor), false},
		{"another last byte of the anchor", other(1999), false},
		{"another byte after the place", other(2000), true},
	} {
		if got := m.holds(bytes.NewReader(tt.content), int64(len(tt.content))); got != tt.want {
			t.Errorf("%s: holds = %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestIdentityAcrossBoots(t *testing.T) {
	now := identity{dev: 2, ino: 10, birth: 99}
	for _, tt := range []struct {
		saved identity
		want  bool
	}{
		{identity{dev: 2, ino: 10, birth: 99}, true},
		{identity{dev: 7, ino: 10, birth: 99}, true}, // device numbers change
		{identity{dev: 2, ino: 10, birth: 98}, false},
		{identity{dev: 2, ino: 11, birth: 99}, false},
	} {
		if got := now.again(tt.saved); got != tt.want {
			t.Errorf("again(%+v) = %v, want %v", tt.saved, got, tt.want)
		}
	}
	old := identity{dev: 2, ino: 10}
	if old.again(identity{dev: 7, ino: 10}) {
		t.Error("without a birth time the inode of another device is taken for the same file")
	}
}
