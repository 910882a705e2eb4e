package syslog

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// frames feeds stream to a framer in pieces of at most n bytes and returns its
// messages; one that was cut ends in an ellipsis here.
func frames(f *framer, stream string, n int) (messages []string) {
	add := func(msg []byte, cut bool) {
		text := string(msg)
		if cut {
			text += "…"
		}
		messages = append(messages, text)
	}
	for len(stream) > 0 {
		space := f.space()
		read := copy(space[:min(len(space), n)], stream)
		stream = stream[read:]
		f.filled(read)
		for {
			msg, cut, ok := f.next()
			if !ok {
				break
			}
			add(msg, cut)
		}
	}
	if rest := f.rest(); len(rest) > 0 {
		add(rest, false)
	}
	return messages
}

func TestFramer(t *testing.T) {
	long := strings.Repeat("x", maxMessage)
	tests := []struct {
		name    string
		marked  bool
		stream  string
		want    []string
		skipped int64
	}{
		{"lines", false, "<13>a\n<13>b\n", []string{"<13>a", "<13>b"}, 0},
		{"octet counts", false, "5 <13>a7 <13>b\nc", []string{"<13>a", "<13>b\nc"}, 0},
		{"each its own", false, "5 <13>a<13>b\n5 <13>c<13>d\n", []string{"<13>a", "<13>b", "<13>c", "<13>d"}, 0},
		{"empty lines", false, "\n\n<13>a\n\n", []string{"<13>a"}, 0},
		{"digits that count nothing", false, "45: *Nov\n17 apples\n0 <13>a\n1234567890 <13>b\n7\n", []string{"45: *Nov", "17 apples", "0 <13>a", "1234567890 <13>b", "7"}, 0},
		{"no LF at the end", false, "<13>a\n<13>b", []string{"<13>a", "<13>b"}, 0},
		{"fewer octets than counted", false, "50 <13>a", []string{"<13>a"}, 0},
		{"longest line", false, long + "\n<13>b\n", []string{long, "<13>b"}, 0},
		{"line too long", false, long + "yz\n<13>b\n", []string{long + "…", "<13>b"}, 2},
		{"line too long without end", false, long + "yz", []string{long + "…"}, 2},
		{"octets too many", false, fmt.Sprintf("%d <13>%syz<13>b\n", 6+maxMessage, long), []string{"<13>" + long[4:] + "…", "<13>b"}, 6},
		{"marks", true, "\x02<13>a\n\x02<13>b\n", []string{"<13>a", "<13>b"}, 0},
		{"marks cut", true, "\x02<13>a\n\x02<13>b\x02<13>c\n\x02<13>d", []string{"<13>a", "<13>b…", "<13>c", "<13>d"}, 0},
		{"marks and filling", true, "\n\n\n\x02<13>a\n\n", []string{"<13>a"}, 0},
		{"marks too long", true, "\x02" + long + "yz\n\x02b\n", []string{long[1:] + "…", "b"}, 3},
		{"no octet counts in a pipe", true, "5 <13>a\n", []string{"5 <13>a"}, 0},
	}
	for _, tt := range tests {
		for _, n := range []int{1, 30, 5000, 1 << 20} {
			n = max(n, len(tt.stream)/500) // a long one takes too long byte by byte
			f := framer{marked: tt.marked}
			got := frames(&f, tt.stream, n)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("%s, %d bytes at a time (-want +got):\n%.2000s", tt.name, n, diff)
			}
			if f.skipped != tt.skipped {
				t.Errorf("%s, %d bytes at a time: skipped %d bytes, want %d", tt.name, n, f.skipped, tt.skipped)
			}
		}
	}
}

// FuzzFramer holds the framer to its promise: how a stream was read does not
// change its messages, no byte is made up or lost, and memory is bounded.
func FuzzFramer(f *testing.F) {
	f.Add("5 <13>a<13>b\n\n17 x\n", 1, false)
	f.Add("99999 <13>a\n", 2, false)
	f.Add("\x02<13>a\x02<13>b\n", 3, true)
	f.Fuzz(func(t *testing.T, stream string, n int, marked bool) {
		n = max(n, 1, len(stream)/1000)
		whole, pieces := framer{marked: marked}, framer{marked: marked}
		want := frames(&whole, stream, len(stream)+1)
		got := frames(&pieces, stream, n)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("%d bytes at a time (-whole +pieces):\n%s", n, diff)
		}
		if len(pieces.buf) > lastBuffer {
			t.Fatalf("buffer of %d bytes", len(pieces.buf))
		}
		at := 0
		for _, msg := range got {
			msg = strings.TrimSuffix(msg, "…")
			i := strings.Index(stream[at:], msg)
			if i < 0 {
				t.Fatalf("%q is not in the stream after %d bytes", msg, at)
			}
			at += i + len(msg)
		}
		if !marked && len(stream) < maxMessage && !bytes.ContainsAny([]byte(stream), "0123456789") {
			if lines := strings.FieldsFunc(stream, func(r rune) bool { return r == '\n' }); !cmp.Equal(lines, got) && len(lines)+len(got) > 0 {
				t.Fatalf("messages %q, want the lines %q", got, lines)
			}
		}
	})
}
