package logfile

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/sirupsen/logrus"

	"github.com/openloganalytics/agent/internal/secret"
)

// A page is what a mirror has got.
type page struct {
	mu   sync.Mutex
	text strings.Builder
}

func (p *page) Write(line []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.Write(line)
}

func (p *page) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

// tail returns the end of what was written.
func (p *page) tail() string { return p.String()[max(0, len(p.String())-120):] }

// open starts a log that the test ends.
func open(t *testing.T, o Options) *Logger {
	t.Helper()
	log, end, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := end.Close(); err != nil {
			t.Error(err)
		}
	})
	return log
}

// lines reads a file without its times.
func lines(t *testing.T, path string) []string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(string(data)) {
		got = append(got, line[min(len(line), len(timeLayout)+1):])
	}
	return got
}

func TestLineFormat(t *testing.T) {
	tests := []struct {
		name string
		log  func(*Logger)
		want string
	}{
		{"message alone", func(l *Logger) { l.Info("agent started") }, "info  agent started"},
		{"levels are equally wide", func(l *Logger) { l.Warn("w"); l.Error("e"); l.Debug("d") }, "warn  w\n2000-01-01T00:00:00.123Z error e\n2000-01-01T00:00:00.123Z debug d"},
		{"pairs in order of keys", func(l *Logger) { l.With("pid", 7).Info("m", "b", 2, "a", time.Second) }, "info  m a=1s b=2 pid=7"},
		{"values that need quotes", func(l *Logger) {
			l.Info("m", "a", "two words", "b", "", "c", `q"q`, "d", "k=v", "e", `C:\x`)
		}, `info  m a="two words" b="" c="q\"q" d="k=v" e="C:\\x"`},
		{"error and nil", func(l *Logger) { l.Info("m", "a", errors.New("open x: denied"), "b", nil) }, `info  m a="open x: denied" b=<nil>`},
		{"no second line", func(l *Logger) { l.Info("one\ntwo\r", "k", "v\nv") }, `info  one\ntwo\r k="v\nv"`},
		{"no terminal control", func(l *Logger) { l.Info("\x1b[31mred\x00", "k", "\u009b2J\x7f") }, `info  \x1b[31mred\x00 k="\u009b2J\x7f"`},
		{"no direction marks", func(l *Logger) { l.Info("\u202egnp.exe") }, `info  \u202egnp.exe`},
		{"invalid UTF-8", func(l *Logger) { l.Info("a\xffb", "k", "\xfe") }, `info  a\xffb k="\xfe"`},
		{"letters of all scripts", func(l *Logger) { l.Info("größer 日本", "k", "é") }, "info  größer 日本 k=é"},
		{"mistaken pairs are shown", func(l *Logger) { l.Info("m", 5, "five"); l.Info("n", "k") }, "info  m !nokey=five\n2000-01-01T00:00:00.123Z info  n !nokey=k"},
		{"secret type", func(l *Logger) { l.Info("m", "key", secret.New("hunter2")) }, "info  m key=***"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var mirror strings.Builder
			synctest.Test(t, func(t *testing.T) {
				time.Sleep(123456789)
				tt.log(open(t, Options{Mirror: &mirror, Level: LevelDebug}))
			})
			if diff := cmp.Diff("2000-01-01T00:00:00.123Z "+tt.want+"\n", mirror.String()); diff != "" {
				t.Errorf("line (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLongLineIsCut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	open(t, Options{Path: path}).Info(strings.Repeat("ä", maxLine))
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(data) > maxLine || len(data) < maxLine-3 || !strings.HasSuffix(string(data), "ä[cut]\n") {
		t.Errorf("%d bytes ending %q, want at most %d ending in a whole rune and [cut]", len(data), data[len(data)-12:], maxLine)
	}
}

func TestLevel(t *testing.T) {
	for level, want := range map[Level]string{LevelDebug: "diwe", LevelInfo: "iwe", LevelWarn: "we", LevelError: "e"} {
		var mirror strings.Builder
		log := open(t, Options{Mirror: &mirror, Level: level})
		log.Debug("d")
		log.Info("i")
		log.Warn("w")
		log.Error("e")
		got := ""
		for line := range strings.Lines(mirror.String()) {
			got += strings.TrimSpace(line[len(timeLayout)+7:])
		}
		if got != want {
			t.Errorf("level %d wrote %q, want %q", level, got, want)
		}
	}
}

func TestNilLoggerDropsEverything(*testing.T) {
	log := Discard()
	log.With("k", "v").Error("dropped")
	log.Scrub(secret.New("whatever"))
}

func TestAllFilesTogetherStayWithinMaxBytes(t *testing.T) {
	const maxBytes, files = 4000, 4
	dir := t.TempDir()
	path := filepath.Join(dir, "agent.log")
	// Larger parts and parts with higher numbers, as earlier options left them.
	for _, name := range []string{"agent.log", "agent.log.1", "agent.log.7"} {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, 3000), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// What is not the log's is left alone.
	for _, name := range []string{"agent.log.old", "agent.log.01", "other.log.1"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		log := open(t, Options{Path: path, MaxBytes: maxBytes, Files: files})
		for i := range 300 {
			time.Sleep(2 * time.Second)
			log.Info("line", "n", i)
			if got := totalSize(t, dir); got > maxBytes {
				t.Fatalf("after line %d the files have %d bytes, want at most %d", i, got, maxBytes)
			}
		}
	})
	newest := lines(t, path)
	if got, want := newest[len(newest)-1], "info  line n=299\n"; got != want {
		t.Errorf("newest line = %q, want %q", got, want)
	}
	var got []string
	for n := files - 1; n >= 0; n-- {
		got = append(got, lines(t, (&rotator{path: path}).name(n))...)
	}
	for i, line := range got {
		if want := fmt.Sprintf("info  line n=%d\n", 300-len(got)+i); line != want {
			t.Fatalf("line %d of the parts = %q, want %q", i, line, want)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != files+3 {
		t.Errorf("folder holds %v (%v), want %d parts and three others", entries, err, files)
	}
}

func totalSize(t *testing.T, dir string) int64 {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var total int64
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil {
			t.Fatal(err)
		}
		total += info.Size()
	}
	return total
}

func TestFileIsOpenedAgain(t *testing.T) {
	tests := []struct {
		name    string
		disturb func(path string) error
	}{
		{"after it was removed", os.Remove},
		{"after it was rotated by others", func(path string) error { return os.Rename(path, path+".moved") }},
		{"after the folder was removed", func(path string) error { return os.RemoveAll(filepath.Dir(path)) }},
		{"after it was replaced", func(path string) error {
			return errors.Join(os.Remove(path), os.WriteFile(path, nil, 0o600))
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "sub", "log")
			log := open(t, Options{Path: path})
			log.Info("before")
			if err := tt.disturb(path); err != nil {
				t.Fatal(err)
			}
			log.Info("after")
			if diff := cmp.Diff([]string{"info  after\n"}, lines(t, path)); diff != "" {
				t.Errorf("lines (-want +got):\n%s", diff)
			}
		})
	}
}

// A log that cannot be written costs its lines, not its caller, and says so
// when it can be written again.
func TestLostLinesAreCounted(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sub")
	path := filepath.Join(dir, "log")
	// A file where the folder should be: nobody can write below it, not even root.
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var mirror strings.Builder
	log, end, err := Open(Options{Path: path, Mirror: &mirror})
	if err == nil {
		t.Error("Open below a file succeeded")
	}
	log.Info("first")
	log.Info("second")
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	log.Info("third")
	got := lines(t, path)
	if len(got) != 2 || !strings.HasSuffix(got[0], " lines=2\n") || !strings.HasPrefix(got[0], "warn  lines were lost: ") || got[1] != "info  third\n" {
		t.Errorf("lines = %q, want a warning of 2 lost lines and the third", got)
	}
	if n := strings.Count(mirror.String(), "\n"); n != 3 {
		t.Errorf("mirror has %d lines, want 3", n)
	}
	if err := end.Close(); err != nil {
		t.Error(err)
	}
	log.Info("too late")
	if after := lines(t, path); len(after) != len(got) {
		t.Errorf("a line was written after Close: %q", after)
	}
}

func TestTornLineIsEnded(t *testing.T) {
	r := &rotator{path: filepath.Join(t.TempDir(), "log"), total: 1000, files: 2}
	if err := r.write([]byte("half of a li")); err != nil {
		t.Fatal(err)
	}
	r.torn = true
	if err := r.write([]byte("next\n")); err != nil {
		t.Fatal(err)
	}
	if err := r.close(); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(r.path); err != nil || string(data) != "half of a li\nnext\n" {
		t.Errorf("file = %q, %v", data, err)
	}
}

// unfold returns how many lines of each message a log stands for: those that
// are in it, and those that its summaries count.
func unfold(t *testing.T, log string) map[string]int {
	t.Helper()
	summary := regexp.MustCompile(`^(?:repeated (\d+) times)?(?:, and )?(?:(\d+) (?:other )?lines not written)?,? in the last \d+ s: (?:"(.*)"|many messages)$`)
	counts := map[string]int{}
	for line := range strings.Lines(log) {
		text := strings.TrimSuffix(line[len(timeLayout)+7:], "\n")
		m := summary.FindStringSubmatch(text)
		if m == nil {
			message, _, _ := strings.Cut(text, " n=")
			counts[message]++
			continue
		}
		for _, number := range m[1:3] {
			if n, err := strconv.Atoi(number); err == nil {
				counts[m[3]] += n
			}
		}
	}
	return counts
}

// The first of many equal lines is written at once, and the others are one
// line at the end of the minute, whether or not anything else is logged.
func TestRepeatsAreSummarised(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mirror page
		log := open(t, Options{Mirror: &mirror})
		for range 241 {
			log.With("input", "udp").Warn("socket overflowed", "cause", errors.New("full"))
			time.Sleep(100 * time.Millisecond)
		}
		want := "2000-01-01T00:00:00.000Z warn  socket overflowed cause=full input=udp\n"
		if diff := cmp.Diff(want, mirror.String()); diff != "" {
			t.Errorf("log before the minute is over (-want +got):\n%s", diff)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		want += "2000-01-01T00:01:00.000Z warn  repeated 240 times in the last 60 s: \"socket overflowed\"\n"
		if diff := cmp.Diff(want, mirror.String()); diff != "" {
			t.Errorf("log (-want +got):\n%s", diff)
		}
		log.With("input", "udp").Warn("socket overflowed", "cause", errors.New("full"))
		want += "2000-01-01T01:00:24.100Z warn  socket overflowed cause=full input=udp\n"
		if diff := cmp.Diff(want, mirror.String()); diff != "" {
			t.Errorf("log of what comes again (-want +got):\n%s", diff)
		}
	})
}

// Lines that differ in their pairs are no repeats, but a kind has only so many.
func TestLinesThatDifferAreWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mirror page
		log := open(t, Options{Mirror: &mirror})
		for n := range maxLines + 30 {
			log.Warn("trouble", "n", n)
			log.Warn("trouble", "n", 0)
		}
		if got := strings.Count(mirror.String(), "\n"); got != maxLines {
			t.Errorf("%d lines at once, want %d", got, maxLines)
		}
		time.Sleep(period)
		synctest.Wait()
		want := fmt.Sprintf("warn  repeated %d times, and 30 other lines not written, in the last 60 s: \"trouble\"\n", maxLines+30)
		if !strings.HasSuffix(mirror.String(), want) {
			t.Errorf("log ends %q, want %q", mirror.tail(), want)
		}
	})
}

// However much is logged, the log grows by no more than the rate, within its
// size on disk; no line is unaccounted for; and an error of a kind that was not
// there before is written at once.
func TestFloodOfEverythingIsBounded(t *testing.T) {
	dir := t.TempDir()
	var mirror page
	logged := map[string]int{}
	synctest.Test(t, func(t *testing.T) {
		log := open(t, Options{Mirror: &mirror, Path: filepath.Join(dir, "agent.log"), MaxBytes: 100_000})
		say := func(text string, n int) {
			log.Warn(text, "n", n)
			logged[text]++
		}
		const minutes = 20
		for second := range minutes * 60 {
			for n := range 200 {
				say("flood "+strconv.Itoa(n), second)
				say("torrent", n)
			}
			if second%100 == 50 {
				text := fmt.Sprintf("disk failed %d", second)
				log.Error(text)
				logged[text]++
				if want := "error " + text + "\n"; !strings.HasSuffix(mirror.String(), want) {
					t.Fatalf("the log ends %q, want %q", mirror.tail(), want)
				}
			}
			if got, most := strings.Count(mirror.String(), "\n"), 2*maxKinds+burst+(second+1)*rate; got > most {
				t.Fatalf("%d lines after %d s, want at most %d", got, second+1, most)
			}
			if got := totalSize(t, dir); got > 100_000 {
				t.Fatalf("the files have %d bytes", got)
			}
			time.Sleep(time.Second)
			synctest.Wait()
		}
		if got := strings.Count(mirror.String(), "\n"); got < 5*minutes*60 {
			t.Errorf("only %d lines in %d minutes", got, minutes)
		}
	})
	if diff := cmp.Diff(logged, unfold(t, mirror.String())); diff != "" {
		t.Errorf("lines logged and lines accounted for (-want +got):\n%s", diff)
	}
}

func TestManyDifferentMessagesAreBounded(t *testing.T) {
	l := newLimiter(func() {})
	now := time.Now()
	written := 0
	for i := range 10 * maxKinds {
		if ok, _ := l.take(now, logrus.InfoLevel, strconv.Itoa(i), uint64(i)); ok {
			written++
		}
	}
	if len(l.kinds) > maxKinds+1 || written > maxKinds+burst {
		t.Errorf("%d lines written, %d kinds remembered; want at most %v and %d", written, len(l.kinds), maxKinds+burst, maxKinds+1)
	}
	held := 0
	for _, h := range l.close(now) {
		if want := "many messages"; h.text != "" || !strings.HasSuffix(h.String(), want) {
			t.Errorf("summary is %q, want it to end in %q", h, want)
		}
		held += h.repeats + h.others
	}
	if held != 10*maxKinds-written {
		t.Errorf("%d held back, want %d", held, 10*maxKinds-written)
	}
}

// Nothing is held back longer than the log is open.
func TestCloseSummarises(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mirror strings.Builder
		log, end, err := Open(Options{Mirror: &mirror})
		if err != nil {
			t.Fatal(err)
		}
		for range 6 {
			log.Info("again")
		}
		time.Sleep(2 * time.Second)
		if err := end.Close(); err != nil {
			t.Fatal(err)
		}
		if want := "info  repeated 5 times in the last 2 s: \"again\"\n"; !strings.HasSuffix(mirror.String(), want) {
			t.Errorf("log ends %q, want %q", mirror.String(), want)
		}
		log.Info("again")
		time.Sleep(2 * period)
		if got := strings.Count(mirror.String(), "\n"); got != 2 {
			t.Errorf("%d lines, want 2: none after the end", got)
		}
	})
}

func TestSecretIsReplacedInEveryForm(t *testing.T) {
	const text = `pa"ss\wo/rd+<%>=é`
	const middle = "wo/rd+"
	traces := []string{middle, `wo\/rd`, "wo%2Frd"}
	for before := range 3 {
		for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
			traces = append(traces, base64Inside(encoding, middle, before))
		}
	}
	asJSON, err := json.Marshal(map[string]string{"k": text})
	if err != nil {
		t.Fatal(err)
	}
	for name, leak := range map[string]string{
		"as it is":           "key " + text + " refused",
		"URL query":          "?key=" + url.QueryEscape(text),
		"URL path":           "/" + url.PathEscape(text) + "/x",
		"URL user":           (&url.URL{Scheme: "http", User: url.UserPassword("u", text), Host: "h"}).String(),
		"JSON":               string(asJSON),
		"JSON without HTML":  `{"k":"pa\"ss\\wo/rd+<%>=é"}`,
		"JSON with \\/":      `{"k":"pa\"ss\\wo\/rd+<%>=é"}`,
		"Go":                 fmt.Sprintf("%q", text),
		"base64":             base64.StdEncoding.EncodeToString([]byte(text)),
		"base64 without =":   base64.RawStdEncoding.EncodeToString([]byte(text)),
		"base64 for URLs":    base64.RawURLEncoding.EncodeToString([]byte(text)),
		"Basic, 1 before":    base64.StdEncoding.EncodeToString([]byte(":" + text)),
		"Basic, 2 before":    base64.StdEncoding.EncodeToString([]byte("a:" + text + "x")),
		"Basic, 3 before":    base64.StdEncoding.EncodeToString([]byte("ab:" + text + "xy")),
		"Basic, longer user": base64.StdEncoding.EncodeToString([]byte("administrator:" + text)),
	} {
		for way, log := range map[string]func(*Logger){
			"message": func(l *Logger) { l.Info(leak) },
			"value":   func(l *Logger) { l.Info("m", "k", leak) },
			"error":   func(l *Logger) { l.Info("m", "k", errors.New(leak)) },
			"with":    func(l *Logger) { l.With("k", []string{leak}).Info("m") },
		} {
			var given, later, bare strings.Builder
			log(open(t, Options{Mirror: &given, Scrub: []secret.Secret{secret.New(text)}}))
			l := open(t, Options{Mirror: &later})
			l.Scrub(secret.New(text))
			log(l)
			log(open(t, Options{Mirror: &bare}))
			if given.String()[len(timeLayout):] != later.String()[len(timeLayout):] {
				t.Errorf("%s in %s: given at once %q, added later %q", name, way, given.String(), later.String())
			}
			if !strings.Contains(given.String(), mask) || given.Len() >= bare.Len() {
				t.Errorf("%s in %s: %q became %q, want the secret replaced by %s", name, way, bare.String(), given.String(), mask)
			}
			for _, trace := range traces {
				if strings.Contains(given.String(), trace) {
					t.Errorf("%s in %s: %q still shows %q", name, way, given.String(), trace)
				}
			}
		}
	}
}

func TestShortSecretDoesNotSpoilTheLog(t *testing.T) {
	var mirror strings.Builder
	log := open(t, Options{Mirror: &mirror, Scrub: []secret.Secret{secret.New("a"), {}}})
	log.Info("agent started")
	if !strings.HasSuffix(mirror.String(), "agent started\n") {
		t.Errorf("line = %q", mirror.String())
	}
}

func TestConcurrentUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	log := open(t, Options{Path: path, MaxBytes: 20_000})
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			mine := log.With("worker", i)
			for n := range 10 {
				mine.Scrub(secret.New(fmt.Sprintf("secret-%d-%d", i, n)))
				mine.Info("works", "n", n)
			}
		})
	}
	wg.Wait()
	if got := len(lines(t, path)); got != 40 {
		t.Errorf("%d lines, want 40", got)
	}
}

// Whatever is logged is one printable line, and never shows a scrubbed secret.
func FuzzLine(f *testing.F) {
	f.Add("message", "value", "secret")
	f.Add("a\x1b[0m\n", "k=v \"q\"", "k=v \"")
	f.Add("\xff\u2028", "dG9wIHNlY3JldA==", "top secret")
	f.Add(strings.Repeat("x", maxLine), "é", "xxxx")
	f.Fuzz(func(t *testing.T, msg, value, hidden string) {
		var s scrubber
		s.add(secret.New(hidden))
		line := string(appendLine(nil, &logrus.Entry{
			Message: msg + base64.StdEncoding.EncodeToString([]byte("user:"+hidden)),
			Data:    logrus.Fields{"k": value + hidden},
		}, s.hide))
		body, ended := strings.CutSuffix(line, "\n")
		if !ended || len(line) > maxLine || !utf8.ValidString(line) {
			t.Fatalf("not a line of text: %q", line)
		}
		for _, r := range body {
			if !strconv.IsPrint(r) {
				t.Fatalf("line holds %q: %q", r, line)
			}
		}
		if len(hidden) >= minSecret && strings.Contains(s.hide(value+hidden), hidden) && !strings.Contains(mask, hidden) && !strings.Contains(value+mask, hidden) {
			t.Fatalf("secret %q is still in %q", hidden, s.hide(value+hidden))
		}
	})
}
