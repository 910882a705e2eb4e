package extension

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/openloganalytics/agent/test/fakeguest"
)

var testNow = func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 999, time.UTC) }

// A checked status file has passed every rule of the guest agent.
type checked struct {
	Operation, Status, Message string
	Code                       int
	Applied                    string
	Parts                      []Substatus
}

// checkStatus reads a status file and holds it to the guest agent's rules.
func checkStatus(t testing.TB, path string) checked {
	t.Helper()
	s, err := fakeguest.ReadStatus(path)
	if err != nil {
		t.Fatal(err)
	}
	c := checked{Operation: s.Operation, Status: s.Status, Message: s.Message, Code: s.Code}
	if !s.Applied.IsZero() {
		c.Applied = s.Applied.Format(time.RFC3339)
	}
	for _, p := range s.Parts {
		c.Parts = append(c.Parts, Substatus{p.Name, Status(p.Status), p.Code, p.Message})
	}
	return c
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func reporter(t testing.TB) (*Reporter, string) {
	t.Helper()
	env := newEnvironment(t)
	return NewReporter(env, "", 4, "Enable", "/var/log/x/handler.log", testNow), filepath.Join(env.StatusFolder, "4.status")
}

func TestStatusFile(t *testing.T) {
	r, path := reporter(t)
	part := Substatus{Name: "spool", Status: StatusWarning, Code: 7, Message: "nearly full"}
	for _, tt := range []struct {
		write func() error
		want  checked
	}{
		{func() error { return r.Begin("Enable began.") }, checked{Status: "transitioning", Message: "Enable began. Log: /var/log/x/handler.log"}},
		{func() error { return r.Success("All is well.", part) }, checked{Status: "success", Message: "All is well. Log: /var/log/x/handler.log", Applied: "2026-01-02T03:04:05Z", Parts: []Substatus{part}}},
		{func() error { return r.Warning("Hm.") }, checked{Status: "warning", Message: "Hm. Log: /var/log/x/handler.log", Applied: "2026-01-02T03:04:05Z"}},
	} {
		if err := tt.write(); err != nil {
			t.Fatal(err)
		}
		got := checkStatus(t, path)
		tt.want.Operation = "Enable"
		if fmt.Sprint(got) != fmt.Sprint(tt.want) {
			t.Errorf("got %+v, want %+v", got, tt.want)
		}
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("%d files in the folder (%v), want the status alone", len(entries), err)
	}
}

func TestErrorSaysWhoseItIs(t *testing.T) {
	r, path := reporter(t)
	if err := r.Error(WithCode(ExitUnreachable, errors.New("no route"))); err != nil {
		t.Fatal(err)
	}
	got := checkStatus(t, path)
	if got.Status != "error" || got.Code != ExitUnreachable || len(got.Parts) != 1 || got.Parts[0].Name != "ErrorClarification" || got.Parts[0].Code <= 0 {
		t.Errorf("got %+v", got)
	}
	if err := r.Error(errors.New("ours")); err != nil {
		t.Fatal(err)
	}
	if got := checkStatus(t, path); got.Code != ExitFailed || got.Parts[0].Code > 0 {
		t.Errorf("got %+v", got)
	}
}

func TestTerminalStatusIsNotTakenBack(t *testing.T) {
	r, path := reporter(t)
	if err := r.Success("Done."); err != nil {
		t.Fatal(err)
	}
	if err := r.Transitioning("Still at it."); err != nil {
		t.Fatal(err)
	}
	if got := checkStatus(t, path); got.Status != "success" {
		t.Errorf("a late transitioning replaced the status: %+v", got)
	}
	if err := errors.Join(r.Begin("Again."), r.Transitioning("Half-way.")); err != nil {
		t.Fatal(err)
	}
	if got := checkStatus(t, path); got.Status != "transitioning" || !strings.HasPrefix(got.Message, "Half-way.") {
		t.Errorf("a new run has %+v", got)
	}
}

func TestStatusStaysSmall(t *testing.T) {
	r, path := reporter(t)
	parts := make([]Substatus, 1000)
	for i := range parts {
		parts[i] = Substatus{Name: strings.Repeat("名", 300), Status: StatusSuccess, Message: strings.Repeat("ü", 3000)}
	}
	parts[700] = Substatus{Name: "the bad one", Status: StatusError, Message: "broken"}
	parts[701] = Substatus{Name: "odd", Status: "fine", Message: "\x00\x1b[31mred\nline"}
	if err := r.Success(strings.Repeat("長", 10000), parts...); err != nil {
		t.Fatal(err)
	}
	if data := readFile(t, path); len(data) > 16<<10 || !utf8.Valid(data) {
		t.Errorf("%d bytes, valid UTF-8: %v", len(data), utf8.Valid(data))
	}
	got := checkStatus(t, path)
	if len(got.Message) > 1<<10 || !strings.HasSuffix(got.Message, "Log: /var/log/x/handler.log") {
		t.Errorf("message has %d bytes and ends with %q", len(got.Message), got.Message[len(got.Message)-30:])
	}
	if got.Parts[0].Name != "the bad one" || got.Parts[1].Status != StatusError || strings.ContainsAny(got.Parts[1].Message, "\x00\x1b\n") {
		t.Errorf("the worst parts come first and clean: %+v", got.Parts[:2])
	}
	if last := got.Parts[len(got.Parts)-1]; last.Name != "more" || !strings.Contains(last.Message, "more parts") {
		t.Errorf("the last part is %+v", last)
	}
}

func TestNilReporterDoesNothing(t *testing.T) {
	var r *Reporter
	if err := errors.Join(r.Begin("a"), r.Transitioning("b"), r.Success("c"), r.Warning("d"), r.Error(errors.New("e"))); err != nil {
		t.Error(err)
	}
}

// The time at which the settings were applied outlives later changes of state,
// and settings that were refused were not applied.
func TestAppliedTime(t *testing.T) {
	env := newEnvironment(t)
	path := filepath.Join(env.StatusFolder, "4.status")
	now := testNow()
	clock := func() time.Time { return now }
	enable := NewReporter(env, "", 4, "Enable", "", clock)
	if err := errors.Join(enable.Begin("a"), enable.Error(errors.New("b"))); err != nil {
		t.Fatal(err)
	}
	if got := checkStatus(t, path); got.Applied != "" {
		t.Errorf("an error has applied settings at %s", got.Applied)
	}
	if err := errors.Join(enable.Begin("c"), enable.Success("d")); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Hour)
	later := NewReporter(env, "", 4, "Enable", "", clock) // another process
	for _, report := range []func() error{
		func() error { return later.Warning("e") },
		func() error { return later.Error(errors.New("f")) },
		func() error { return later.Success("g") },
	} {
		if err := report(); err != nil {
			t.Fatal(err)
		}
		if got := checkStatus(t, path); got.Applied != "2026-01-02T03:04:05Z" {
			t.Errorf("%s: applied at %s", got.Message, got.Applied)
		}
	}
}

// Only a new run takes a terminal status of another process back.
func TestTransitioningAfterAnotherProcess(t *testing.T) {
	r, path := reporter(t)
	if err := r.Transitioning("First."); err != nil {
		t.Fatal(err)
	}
	if got := checkStatus(t, path); got.Status != "transitioning" {
		t.Errorf("with nothing there: %+v", got)
	}
	env := &Environment{StatusFolder: filepath.Dir(path)}
	for _, content := range []string{"", "null", "[]", "[{}]", "broken", "[{\"status\":null}]"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := NewReporter(env, "", 4, "Enable", "", testNow).Transitioning("Second."); err != nil {
			t.Fatal(err)
		}
		if got := checkStatus(t, path); got.Message != "Second." {
			t.Errorf("%q was taken for a status: %+v", content, got)
		}
	}
}

func TestStatusOfOneOfSeveralExtensions(t *testing.T) {
	env := newEnvironment(t)
	if err := NewReporter(env, "web", 4, "Enable", "", testNow).Success("ok"); err != nil {
		t.Fatal(err)
	}
	checkStatus(t, filepath.Join(env.StatusFolder, "web.4.status"))
}

func TestTextIsFitForAPortal(t *testing.T) {
	for _, tt := range []struct {
		text  string
		limit int
		want  string
	}{
		{"plain", 5, "plain"},
		{"plain text", 9, "plain …"},
		{" two\r\nlines\tand a tab ", 99, "two  lines and a tab"},
		{"\x1b[31mred\x00\x7f\u202e\u2028", 99, "[31mred"},
		{"bad \xff byte", 99, "bad \uFFFD byte"},
		{"ääää", 6, "ä…"},
		{"長長長", 8, "長…"},
		{"長", 2, "…"},
	} {
		if got := shorten(clean(tt.text), tt.limit); got != tt.want {
			t.Errorf("%q in %d bytes is %q, want %q", tt.text, tt.limit, got, tt.want)
		}
	}
}
