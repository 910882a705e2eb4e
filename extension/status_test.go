package extension

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
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
	data := readFile(t, path)
	if len(data) > 128<<10 || !utf8.Valid(data) {
		t.Errorf("%d bytes, valid UTF-8: %v", len(data), utf8.Valid(data))
	}
	type message struct{ Lang, Message *string }
	var file []struct {
		Version      json.Number
		TimestampUTC string
		Status       struct {
			Name, Operation, Status  string
			Code                     *int
			ConfigurationAppliedTime string
			FormattedMessage         message
			Substatus                []struct {
				Name, Status     string
				Code             *int
				FormattedMessage message
			}
		}
	}
	if err := json.Unmarshal(data, &file); err != nil || len(file) != 1 {
		t.Fatalf("not an array of one: %v in %s", err, data)
	}
	s := file[0].Status
	if file[0].Version.String() != "1.0" || s.Operation == "" || s.Code == nil || s.FormattedMessage.Lang == nil || s.FormattedMessage.Message == nil {
		t.Errorf("something required is missing: %s", data)
	}
	if _, err := time.Parse("2006-01-02T15:04:05Z", file[0].TimestampUTC); err != nil {
		t.Error(err)
	}
	c := checked{Operation: s.Operation, Status: s.Status, Message: *s.FormattedMessage.Message, Code: *s.Code, Applied: s.ConfigurationAppliedTime}
	words := "transitioning success warning error"
	if !strings.Contains(words, s.Status) {
		t.Errorf("status is %q", s.Status)
	}
	for _, sub := range s.Substatus {
		if !strings.Contains(words, sub.Status) || sub.Code == nil || sub.FormattedMessage.Lang == nil || sub.FormattedMessage.Message == nil {
			t.Errorf("substatus %q lacks something", sub.Name)
			continue
		}
		c.Parts = append(c.Parts, Substatus{sub.Name, Status(sub.Status), *sub.Code, *sub.FormattedMessage.Message})
	}
	return c
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
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode is %v, %v", info.Mode(), err)
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
	if size := len(readFile(t, path)); size > 16<<10 {
		t.Errorf("%d bytes", size)
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

func TestExitCodes(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want int
	}{
		{nil, 0}, {errors.New("x"), ExitFailed}, {ErrNoSettings, ExitBadSettings},
		{fmt.Errorf("a: %w", &SettingsError{"f", "p", "x"}), ExitBadSettings},
		{fmt.Errorf("a: %w", WithCode(ExitUnsupportedOS, errors.New("x"))), ExitUnsupportedOS},
		{WithCode(ExitUnreachable, WithCode(ExitBadSettings, errors.New("x"))), ExitUnreachable},
	} {
		if got := CodeOf(tt.err); got != tt.want {
			t.Errorf("%v: got %d, want %d", tt.err, got, tt.want)
		}
	}
	if WithCode(ExitFailed, nil) != nil {
		t.Error("no error has a code")
	}
	seen := map[string]int{}
	for _, code := range []int{ExitOK, ExitUsage, ExitFailed, ExitUnsupportedOS, ExitMissingDependency, ExitBadSettings, ExitUnreachable, 200} {
		if other, ok := seen[Meaning(code)]; ok {
			t.Errorf("%d and %d mean the same", code, other)
		}
		seen[Meaning(code)] = code
	}
}
