package customlog

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openloganalytics/agent/agent/record"
	"github.com/openloganalytics/agent/agent/source/sourcetest"
)

func TestStartFormats(t *testing.T) {
	zone := time.FixedZone("", 2*3600)
	at := func(s string) time.Time {
		when, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			t.Fatal(err)
		}
		return when
	}
	for _, c := range []struct {
		format, line string
		want         string // empty: no record begins here
	}{
		{"ISO 8601", "2026-03-04T05:06:07.25Z text", "2026-03-04T05:06:07.25Z"},
		{"ISO 8601", "2026-03-04T05:06:07+0100 text", "2026-03-04T05:06:07+01:00"},
		{"ISO 8601", "2026-03-04T05:06:07 text", "2026-03-04T05:06:07+02:00"},
		{"iso 8601", "[2026-03-04T05:06:07,5+05:30] text", "2026-03-04T05:06:07.5+05:30"},
		{"ISO 8601", "  at 2026-03-04T05:06:07Z", ""},
		{"ISO 8601", "2026-13-04T05:06:07Z", ""},
		{"yyyy-MM-ddTHH:mm:ssK", "2026-03-04T05:06:07-08:00", "2026-03-04T05:06:07-08:00"},
		{"YYYY-MM-DD HH:MM:SS", "2026-03-04 05:06:07,123 text", "2026-03-04T05:06:07.123+02:00"},
		{"YYYY-MM-DD HH:MM:SS", "2026-03-04 05:06", ""},
		{"YYYY-MM-DD HH:MM:SS", "2026-03-04 05:06:0789", ""},
		{"M/D/YYYY HH:MM:SS AM/PM", "3/4/2026 5:06:07 PM text", "2026-03-04T17:06:07+02:00"},
		{"M/D/YYYY HH:MM:SS AM/PM", "12/31/2026 12:06:07 am", "2026-12-31T00:06:07+02:00"},
		{"M/D/YYYY HH:MM:SS AM/PM", "3/4/2026 17:06:07 PM", ""},
		{"Mon DD, YYYY HH:MM:SS", "Mar 04, 2026 05:06:07 text", "2026-03-04T05:06:07+02:00"},
		{"Mon DD, YYYY HH:MM:SS", "Mxr 04, 2026 05:06:07 text", ""},
		{"yyMMdd HH:mm:ss", "260304  5:06:07 12 Connect", "2026-03-04T05:06:07+02:00"},
		{"ddMMyy HH:mm:ss", "040326 05:06:07 text", "2026-03-04T05:06:07+02:00"},
		{"ddMMyy HH:mm:ss", "320326 05:06:07 text", ""},
		{"MMM d hh:mm:ss", "Mar  4 05:06:07 host text", "2026-03-04T05:06:07+02:00"},
		{"MMM d hh:mm:ss", "Dec 31 05:06:07 host text", "2025-12-31T05:06:07+02:00"},
		{"dd/MMM/yyyy:HH:mm:ss zzz", "[04/Mar/2026:05:06:07 -0800] text", "2026-03-04T05:06:07-08:00"},
		{"dd/MMM/yyyy:HH:mm:ss zzz", "04/Mar/2026:05:06:07 text", ""},
	} {
		s, err := NewStart(c.format, zone)
		if err != nil {
			t.Fatal(err)
		}
		s.now = func() time.Time { return at("2026-03-05T00:00:00Z") }
		got, starts := s.at([]byte(c.line))
		if starts != (c.want != "") || starts && !got.Equal(at(c.want)) {
			t.Errorf("%s: %q begins a record: %v, of %v; want %q", c.format, c.line, starts, got, c.want)
		}
	}
	if _, err := NewStart("HH:MM", zone); err == nil || !strings.Contains(err.Error(), "ISO 8601") {
		t.Errorf("NewStart of an unknown format = %v", err)
	}
}

// TestExclude: what is excluded is not read, whenever it appears; dates in a
// pattern match any day.
func TestExclude(t *testing.T) {
	dir := t.TempDir()
	write := func(name string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("2026-03-04/a.log")
	write("2026-03-04/debug.log")
	write("other/a.log")
	w := newWorld(t, Options{Exclude: []string{filepath.Join(dir, "**", "debug*.log")}})
	w.o.Patterns = []string{filepath.Join(dir, "%Y-%m-%d", "*.log")}
	w.start()
	w.want("2026-03-04/a.log")
	write("2026-03-05/debug2.log")
	write("2026-03-05/b.log")
	w.want("2026-03-04/a.log", "2026-03-05/b.log")
	w.stop()
}

func TestStartPattern(t *testing.T) {
	s, err := NewStartPattern(`\[\d+\]|BEGIN`)
	if err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]bool{"[12] a": true, "BEGIN": true, " [12]": false, "the BEGIN": false} {
		if _, got := s.at([]byte(line)); got != want {
			t.Errorf("%q begins a record: %v", line, got)
		}
	}
	for _, bad := range []string{"(", ".*", "", strings.Repeat("a", maxPattern+1)} {
		if _, err := NewStartPattern(bad); err == nil {
			t.Errorf("NewStartPattern(%.20q) gave no error", bad)
		}
	}
}

func TestExpandDates(t *testing.T) {
	for pattern, want := range map[string]string{
		"/a/%Y/%m-%d.log": "/a/[0-9][0-9][0-9][0-9]/[0-1][0-9]-[0-3][0-9].log", "/a/100%%": "/a/100%", "/a": "/a",
	} {
		if got, err := ExpandDates(pattern); err != nil || got != want {
			t.Errorf("ExpandDates(%q) = %q, %v; want %q", pattern, got, err, want)
		}
	}
	for _, bad := range []string{"/a/%Q", "/a/%"} {
		if _, err := ExpandDates(bad); err == nil {
			t.Errorf("ExpandDates(%q) gave no error", bad)
		}
	}
}

// world is a custom log, its folder and the emitter that it runs with.
type world struct {
	t    *testing.T
	o    Options
	dir  string
	out  *sourcetest.Emitter
	stop func()
}

func newWorld(t *testing.T, o Options) *world {
	t.Parallel() // they wait for records to be taken as whole
	w := &world{t: t, dir: t.TempDir(), out: sourcetest.New()}
	o.Patterns, o.FromStart, o.Computer = []string{filepath.Join(w.dir, "*.log")}, true, "host1"
	w.o = o
	return w
}

func (w *world) add(text string) {
	w.t.Helper()
	f, err := os.OpenFile(filepath.Join(w.dir, "app.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		w.t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) start() {
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	s, out := newSource(w.t, w.o), w.out
	go func() { done <- s.Run(ctx, out) }()
	w.stop = func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("Run = %v, want nil once the context ended", err)
		}
	}
}

// want waits for the texts in RawData, and for no more.
func (w *world) want(texts ...string) []sourcetest.Row {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
	defer cancel()
	if err := w.out.WaitRows(ctx, len(texts)); err != nil {
		w.t.Fatalf("%v; rows are %v", err, w.out.Rows("MyApp_CL"))
	}
	rows := w.out.Rows("MyApp_CL")
	var got []string
	for _, row := range rows {
		text, _ := row["RawData"].(string)
		got = append(got, text)
	}
	if diff := cmp.Diff(texts, got); diff != "" {
		w.t.Errorf("records (-want +got):\n%s", diff)
	}
	return rows
}

func startAt(t *testing.T, format string) *Start {
	t.Helper()
	s, err := NewStart(format, time.UTC)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestMultiLine: a record ends where the next begins, or when nothing has come
// for a while; its time is the one that it names.
func TestMultiLine(t *testing.T) {
	w := newWorld(t, Options{Start: startAt(t, "YYYY-MM-DD HH:MM:SS")})
	w.add("a part\n2026-03-04 05:06:07 one\n  at a\r\n\n  at b\n2026-03-04 05:06:08 two\n")
	w.start()
	rows := w.want("a part", "2026-03-04 05:06:07 one\n  at a\n\n  at b", "2026-03-04 05:06:08 two")
	if got := []any{rows[1]["Timestamp"], rows[2]["Timestamp"]}; got[0] != "2026-03-04T05:06:07.000Z" || got[1] != "2026-03-04T05:06:08.000Z" {
		t.Errorf("the times are %v, want those that the records name", got)
	}
	w.add("  late\n")
	w.want("a part", "2026-03-04 05:06:07 one\n  at a\n\n  at b", "2026-03-04 05:06:08 two", "  late")
	w.stop()
}

// TestMultiLineCrash: the beginning of a record is as durable as the place in
// the file.
func TestMultiLineCrash(t *testing.T) {
	w := newWorld(t, Options{Start: startAt(t, "YYYY-MM-DD HH:MM:SS")})
	w.add("2026-03-04 05:06:07 one\n2026-03-04 05:06:08 two\n")
	w.start()
	w.want("2026-03-04 05:06:07 one")
	w.out.Durable()
	w.stop()
	w.out = w.out.Crash()
	w.add(" goes on\n2026-03-04 05:06:09 three\n")
	w.start()
	rows := w.want("2026-03-04 05:06:07 one", "2026-03-04 05:06:08 two\n goes on", "2026-03-04 05:06:09 three")
	if rows[1]["FilePath"] != filepath.Join(w.dir, "app.log") {
		t.Errorf("FilePath = %v", rows[1]["FilePath"])
	}
	w.stop()
	w.out.Durable()
	left := 0
	w.out.Checkpoints("customlog:MyApp_CL:open:", func(string, []byte) bool { left++; return true })
	if left != 0 {
		t.Errorf("%d open records are left", left)
	}
}

// TestMultiLineRotation: the record at the end of a file does not go on in the
// next one.
func TestMultiLineRotation(t *testing.T) {
	w := newWorld(t, Options{Start: startAt(t, "YYYY-MM-DD HH:MM:SS")})
	w.add("2026-03-04 05:06:07 one\n")
	w.start()
	w.want("2026-03-04 05:06:07 one")
	w.add("2026-03-04 05:06:08 two\n")
	if err := os.Rename(filepath.Join(w.dir, "app.log"), filepath.Join(w.dir, "app.1")); err != nil {
		t.Fatal(err)
	}
	w.add(" another file\n")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := w.out.WaitRows(ctx, 3); err != nil {
		t.Fatal(err)
	}
	w.stop()
	for _, row := range w.out.Rows("MyApp_CL") {
		if text := row["RawData"].(string); strings.Contains(text, "two") && strings.Contains(text, "another") {
			t.Errorf("%q is of two files", text)
		}
	}
}

// TestLongRecord: what is too long for one record goes on in the next.
func TestLongRecord(t *testing.T) {
	w := newWorld(t, Options{Start: startAt(t, "YYYY-MM-DD HH:MM:SS")})
	line := strings.Repeat("x", 1000) + "\n"
	w.add("2026-03-04 05:06:07 one\n" + strings.Repeat(line, 300))
	w.start()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := w.out.WaitRows(ctx, 3); err != nil {
		t.Fatal(err)
	}
	w.stop()
	n := 0
	for _, row := range w.out.Rows("MyApp_CL") {
		n += strings.Count(row["RawData"].(string), "x")
	}
	if n != 300*1000 {
		t.Errorf("%d bytes of the lines arrived, want %d", n, 300*1000)
	}
}

func TestJSONLines(t *testing.T) {
	w := newWorld(t, Options{JSON: true})
	w.add(`{"TimeGenerated":"2026-03-04T05:06:07Z", "Level" : "warn", "n": 1.50, "nested": {"a": [1, "}"]}, "user-name":"Ann", "2nd": null, "FilePath":"mine", "Level":"error"}` + "\n" +
		"\n" + `{}` + "\n" + `{"Timestamp":1772600767.5,"Computer":"other"}` + "\n" + `{"Timestamp":"soon"}` + "\n")
	w.start()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := w.out.WaitRows(ctx, 4); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(w.dir, "app.log")
	rows := w.out.Rows("MyApp_CL")
	delete(rows[1], "Timestamp") // those of reading
	delete(rows[3], "Timestamp")
	want := []sourcetest.Row{
		{
			"Timestamp": "2026-03-04T05:06:07.000Z", "Computer": "host1", "FilePath": "mine", "Level": "error", "n": 1.5,
			"nested": map[string]any{"a": []any{1.0, "}"}}, "user_name": "Ann", "c_2nd": nil,
		},
		{"Computer": "host1", "FilePath": path},
		{"Timestamp": "2026-03-04T05:06:07.500Z", "Computer": "other", "FilePath": path},
		{"Computer": "host1", "FilePath": path, "Time": "soon"},
	}
	if diff := cmp.Diff(want, rows); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	if got := w.out.Troubles(); len(got) != 0 {
		t.Errorf("troubles %v", got)
	}
	w.add("no JSON\n")
	if err := w.out.Wait(ctx, func() bool { return w.out.Troubles()["lines of "+path] != "" }); err != nil {
		t.Fatal(err)
	}
	if got := w.out.Rows("MyApp_CL")[4]["RawData"]; got != "no JSON" {
		t.Errorf("RawData = %v, want the line as it is", got)
	}
	w.add("{\"a\":1}\n")
	if err := w.out.Wait(ctx, func() bool { return w.out.Troubles()["lines of "+path] == "" }); err != nil {
		t.Fatal(err)
	}
	w.stop()
}

func TestEncodings(t *testing.T) {
	for encoding, text := range map[string]string{
		"iso-8859-1": "caf\xe9\n", "windows-1252": "caf\xe9 \x80\n", "Shift_JIS": "\x83\x86\x81[\x83U\x81[\n", "utf-8": "\xef\xbb\xbfcafé\n",
	} {
		want := map[string]string{"iso-8859-1": "café", "windows-1252": "café €", "Shift_JIS": "ユーザー", "utf-8": "café"}[encoding]
		t.Run(encoding, func(t *testing.T) {
			w := newWorld(t, Options{Encoding: encoding})
			w.add(text)
			w.start()
			w.want(want)
			w.stop()
		})
	}
	table, err := Table("MyApp_CL")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(Options{Table: table, Patterns: []string{"/a"}, Encoding: "ebcdic"}); err == nil || !strings.Contains(err.Error(), "shift_jis") {
		t.Errorf("New with an unknown encoding = %v", err)
	}
}

func FuzzStart(f *testing.F) {
	for _, seed := range []string{"2026-03-04 05:06:07,1 x", "3/4/2026 5:06:07 PM", "Mar  4 05:06:07", "[04/Mar/2026:05:06:07 +0100]", "260304  5:06:07"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		for _, format := range StartFormats() {
			if at, starts := startAt(t, format).at(line); starts && at.IsZero() {
				t.Errorf("%s: %q begins a record of no time", format, line)
			}
		}
	})
}

// FuzzJSONLine: whatever is written, a row is JSON and nothing of an object is
// missing.
func FuzzJSONLine(f *testing.F) {
	for _, seed := range []string{`{"a":1,"b":{"c":[]}}`, ` { "a" : "\u0022" } `, `{"":0," ":1}`, `{"a":"\xff"}`, `[1]`, `{"Computer":null}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		s := newSource(t, Options{Patterns: []string{t.TempDir()}, JSON: true})
		b := record.NewBatch(s.follow.Table, nil)
		ok := s.addJSON(b, "/a", line, time.Unix(0, 0))
		var row map[string]any
		if err := json.Unmarshal(b.Drain()[1:], &row); err != nil {
			t.Fatalf("%q became no JSON: %v", line, err)
		}
		var object map[string]any
		if isObject := json.Unmarshal(line, &object) == nil && object != nil; isObject != ok && len(object) <= maxColumns {
			t.Errorf("%q is an object: %v, became columns: %v", line, isObject, ok)
		}
		for name := range object {
			if !isColumn([]byte(name)) || strings.EqualFold(name, timeField) || name == "TimeGenerated" {
				continue
			}
			if got, there := row[name]; !there || name != "Time" && !cmp.Equal(got, object[name]) {
				t.Errorf("%q: %s became %v", line, name, got)
			}
		}
	})
}

// FuzzPending: a checkpoint is read as it was written, or refused.
func FuzzPending(f *testing.F) {
	f.Add((&pending{path: "/a", text: []byte("x"), at: time.Unix(1, 2)}).encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := decodePending(data)
		if err != nil {
			return
		}
		again, err := decodePending(p.encode())
		if err != nil || again.path != p.path || string(again.text) != string(p.text) || !again.at.Equal(p.at) {
			t.Errorf("%q became %+v (%v)", data, again, err)
		}
	})
}
