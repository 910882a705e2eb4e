package tail

import (
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/openloganalytics/agent/agent/source"
)

// encode returns s as UTF-16, "le" or "be", with a byte order mark if asked for.
func encode(s, end string, bom bool) string {
	var order binary.AppendByteOrder = binary.LittleEndian
	if end == "be" {
		order = binary.BigEndian
	}
	units := utf16.Encode([]rune(s))
	if bom {
		units = slices.Insert(units, 0, 0xfeff)
	}
	var b []byte
	for _, u := range units {
		b = order.AppendUint16(b, u)
	}
	return string(b)
}

// encodings runs test for each kind of UTF-16.
func encodings(t *testing.T, test func(r *rig, encoded func(s string, first bool) string)) {
	t.Helper()
	for _, end := range []string{"le", "be"} {
		for _, bom := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s bom %v", end, bom), func(t *testing.T) {
				bubble(t, func(r *rig) {
					test(r, func(s string, first bool) string { return encode(s, end, bom && first) })
				}, "app.log*")
			})
		}
	}
}

func TestF22UTF8ByteOrderMark(t *testing.T) {
	bubble(t, func(r *rig) {
		r.add("app.log", "\xef\xbb\xbfone\n")
		r.start()
		r.want("one")
		r.wantNoLoss()
	}, "app.log")
}

// TestF22UTF16ByteByByte: no read ends where a character does, and U+0A0A and
// U+0D0A look like line ends to whoever counts in bytes.
func TestF22UTF16ByteByByte(t *testing.T) {
	encodings(t, func(r *rig, encoded func(string, bool) string) {
		want := []string{"first one", "\u0a0a\u010a\u0a01 gurmukhi", "face \U0001F600\U0001F4A9 end", "", "crlf", "caf\u00e9"}
		text := strings.Replace(text(want), "crlf\n", "crlf\r\n", 1)
		r.start()
		for _, c := range []byte(encoded(text, true)) {
			r.add("app.log", string([]byte{c}))
			time.Sleep(3 * time.Second)
		}
		r.want(want...)
		r.wantNoLoss()
	})
}

// TestF22UTF16BeginsAnywhere gives the first look any part of the file.
func TestF22UTF16BeginsAnywhere(t *testing.T) {
	encodings(t, func(r *rig, encoded func(string, bool) string) {
		raw := encoded("x\none \U0001F600\nlast\n", true)
		var want []string
		r.start()
		for cut := range len(raw) {
			name := fmt.Sprint("app.log", cut)
			r.add(name, raw[:cut])
			time.Sleep(10 * time.Second)
			r.add(name, raw[cut:])
			want = append(want, "x", "one \U0001F600", "last")
		}
		r.wantAny(want...)
		r.wantNoLoss()
	})
}

func TestF22UTF16AcrossRestartsRotationAndTruncation(t *testing.T) {
	encodings(t, func(r *rig, encoded func(string, bool) string) {
		r.add("app.log", encoded("one\nbegun ", true))
		r.start()
		r.want("one")
		r.restart(func() { r.add("app.log", encoded("and ended\nodd", false)+"\x01") })
		r.want("one", "begun and ended")
		r.rename("app.log", "app.log.1")
		r.want("one", "begun and ended", "odd") // without half a character
		r.add("app.log", "utf-8 from now on\n")
		r.want("one", "begun and ended", "odd", "utf-8 from now on")
		r.copyTruncate("app.log", "app.log.2")
		r.add("app.log", encoded("wide again\n", true))
		r.want("one", "begun and ended", "odd", "utf-8 from now on", "wide again")
		r.wantNoLoss()
	})
}

func TestF22UTF16FromTheEnd(t *testing.T) {
	encodings(t, func(r *rig, encoded func(string, bool) string) {
		r.o.FromStart = false
		r.add("app.log", encoded(strings.Repeat("old\n", 100000)+"begun ", true))
		r.start()
		time.Sleep(time.Minute)
		r.add("app.log", encoded("and ended\n", false))
		r.want("begun and ended")
	})
}

func TestF22UTF16LongLinesAndHoles(t *testing.T) {
	encodings(t, func(r *rig, encoded func(string, bool) string) {
		kept := strings.Repeat("x", maxWide/2-1)
		long := kept + strings.Repeat("\U0001F600", 300000) // the limit is inside the first pair
		r.add("app.log", encoded("one\n"+long+"\nnext\n", true)+strings.Repeat("\x00", 5000)+encoded("a\n", false))
		r.start()
		r.want("one", kept, "next", "a")
		r.wantLoss(
			source.Loss{Reason: "line-too-long", Class: "app.log", Bytes: 300000 * 4},
			source.Loss{Reason: "nul-bytes", Class: "app.log", Bytes: 5000})
	})
}

func TestF22UTF16LossIsCountedInRecords(t *testing.T) {
	encodings(t, func(r *rig, encoded func(string, bool) string) {
		r.o.Patterns = []string{r.path("app.log"), r.path("other.log")}
		r.start()
		r.add("app.log", encoded("one\n", true))
		r.want("one")
		r.out.Block()
		r.add("other.log", "under way\n")
		time.Sleep(time.Minute)
		lost := encoded(strings.Repeat("\u0a0a lost\n", 50000), false)
		r.add("app.log", lost)
		time.Sleep(time.Minute)
		r.check(os.Truncate(r.path("app.log"), 0))
		time.Sleep(time.Minute)
		r.out.Unblock()
		r.want("one", "under way")
		r.wantLoss(source.Loss{Reason: lostTruncated, Class: "app.log", Records: 50000, Bytes: int64(len(lost))})
	})
}

// FuzzWideLines appends UTF-16 in two parts, cut anywhere.
func FuzzWideLines(f *testing.F) {
	f.Add("one\ntwo\r\nthree", 3, true, true)
	f.Add("\n\u0a0a\n\U0001F600\r\n", 5, false, true)
	f.Add("a\nb", 1, true, false)
	f.Fuzz(func(t *testing.T, s string, cut int, little, bom bool) {
		s = strings.ReplaceAll(strings.ReplaceAll(strings.ToValidUTF8(s, "?"), "\x00", "0"), "\ufeff", "") + "\nend\n"
		if !bom {
			s = "first\n" + s
		}
		end := "be"
		if little {
			end = "le"
		}
		raw := encode(s, end, bom)
		if admitHead([]byte(raw[:min(len(raw), maxHead)])) != nil {
			return
		}
		cut = min(max(cut, 0), len(raw))
		var want []string
		for line := range strings.SplitSeq(strings.TrimSuffix(s, "\n"), "\n") {
			want = append(want, strings.TrimSuffix(line, "\r"))
		}
		bubble(t, func(r *rig) {
			r.add("app.log", raw[:cut])
			r.start()
			time.Sleep(10 * time.Second)
			r.add("app.log", raw[cut:])
			time.Sleep(time.Minute)
			if diff := cmp.Diff(want, r.lines()); diff != "" {
				t.Errorf("lines of %q cut at %d (-want +got):\n%s", raw, cut, diff)
			}
		}, "app.log")
	})
}

// TestF23OtherEncodings: what is not UTF-8 becomes U+FFFD, byte by byte, and
// harms no line beside it.
func TestF23OtherEncodings(t *testing.T) {
	bubble(t, func(r *rig) {
		r.add("app.log", "caf\xe9\n"+"\x83\x65\x83\x58\x83\x67\n"+"overlong \xc0\xaf\n"+"surrogate \xed\xa0\x80\n"+"cut \xe2\x82\n"+"plain\n")
		r.start()
		const bad = string(utf8.RuneError)
		r.want("caf"+bad, bad+"e"+bad+"X"+bad+"g", "overlong "+bad+bad, "surrogate "+bad+bad+bad, "cut "+bad+bad, "plain")
		r.wantNoLoss()
	}, "app.log")
}
