package record

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func TestAppendText(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"empty", "", `""`},
		{"plain", "GET /index.html HTTP/1.1", `"GET /index.html HTTP/1.1"`},
		{"html is left alone", "<a href='x'>&", `"<a href='x'>&"`},
		{"quote and backslash", `say "C:\temp"`, `"say \"C:\\temp\""`},
		{"short escapes", "a\bb\tc\nd\fe\rf", `"a\bb\tc\nd\fe\rf"`},
		{"control", "\x00\x01\x1f\x7f", `"\u0000\u0001\u001f` + "\x7f" + `"`},
		{"special in each place of a word", "\"234567 1\"34567 12\"4567 123\"567", `"\"234567 1\"34567 12\"4567 123\"567"`},
		{"words beyond ASCII", "größe 日志 🙂", `"größe 日志 🙂"`},
		{"a lone continuation byte", "a\x80b", `"a�b"`},
		{"each byte of a cut sequence", "日\xe6\x97", `"日��"`},
		{"a surrogate", "\xed\xa0\x80", `"���"`},
		{"an overlong quote", "\xc0\xa2", `"��"`},
		{"latin-1 among words", "caf\xe9 au lait", `"caf� au lait"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := string(AppendText([]byte("before "), []byte(tt.text))); got != "before "+tt.want {
				t.Errorf("AppendText(%q) = %s, want %s", tt.text, got, tt.want)
			}
		})
	}
}

// FuzzAppendText holds the string to what encoding/json makes of it.
func FuzzAppendText(f *testing.F) {
	for _, seed := range []string{
		"", "plain", `"`, "\\\x00\n", "日志 \xff", strings.Repeat("a", 100) + "\"", "\u2028", "12345678\x80",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		ours := AppendText(nil, text)
		var std bytes.Buffer
		enc := json.NewEncoder(&std)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(string(text)); err != nil {
			t.Fatal(err)
		}
		var got, want string
		if err := json.Unmarshal(ours, &got); err != nil {
			t.Fatalf("AppendText(%q) = %s: %v", text, ours, err)
		}
		if err := json.Unmarshal(std.Bytes(), &want); err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("AppendText(%q) means %q, want %q", text, got, want)
		}
		small := make([]byte, 0, 1) // growth does not change what is written
		if again := AppendText(small, text); !bytes.Equal(again, ours) {
			t.Errorf("AppendText(%q) into a small buffer = %s, want %s", text, again, ours)
		}
	})
}

func TestAppendTime(t *testing.T) {
	east := time.FixedZone("east", 2*60*60)
	tests := []struct {
		at   time.Time
		want string
	}{
		{time.Date(2024, 1, 2, 3, 4, 5, 123456789, time.UTC), `"2024-01-02T03:04:05.123Z"`},
		{time.Date(2024, 1, 1, 1, 30, 0, 999999999, east), `"2023-12-31T23:30:00.999Z"`},
		{time.Date(2026, 12, 31, 23, 59, 59, 0, time.UTC), `"2026-12-31T23:59:59.000Z"`},
		{time.Time{}, `"0001-01-01T00:00:00.000Z"`},
		{time.Date(12345, 6, 7, 0, 0, 0, 0, time.UTC), `"9999-06-07T00:00:00.000Z"`},
	}
	for _, tt := range tests {
		if got := string(AppendTime(nil, tt.at)); got != tt.want {
			t.Errorf("AppendTime(%v) = %s, want %s", tt.at, got, tt.want)
		}
	}
}
