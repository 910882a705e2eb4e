package extension

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/openloganalytics/agent/internal/logfile"
	"github.com/openloganalytics/agent/test/fakeguest"
)

var eventGuest = GuestAgent{ExtensionVersion: "1.2.3", SupportedFeatures: []string{FeatureEvents}}

func TestEvents(t *testing.T) {
	t.Parallel()
	env := newEnvironment(t)
	w := NewEventWriter(env, eventGuest, "op", logfile.Discard(), testNow)
	for range 3 { // all in the same microsecond
		w.Log(LevelError, strings.Repeat("long ", 999), "broken\x00\n"+strings.Repeat("ä", 9000))
	}
	w.Log(LevelWarning, "Enable", "\x00")
	if left, err := filepath.Glob(filepath.Join(env.LogFolder, ".*")); err != nil || len(left) > 0 {
		t.Errorf("left beside the folder: %q, %v", left, err)
	}
	events, err := fakeguest.CollectEvents(env.EventsFolder)
	if err != nil || len(events) != 3 {
		t.Fatalf("%d events, %v; want 3", len(events), err)
	}
	e := events[0]
	if e["EventLevel"] != "Error" || e["Version"] != "1.2.3" || e["OperationId"] != "op" || e["Timestamp"] != "2026-01-02T03:04:05.000000Z" ||
		e["EventPid"] != fmt.Sprint(os.Getpid()) || !strings.HasPrefix(e["Message"], "broken ää") || !utf8.ValidString(e["Message"]) {
		t.Errorf("event is %q", e)
	}
}

// The guest agent deletes what is too much; it is not written in the first place.
func TestEventsStopWhenNobodyCollects(t *testing.T) {
	t.Parallel()
	env := newEnvironment(t)
	w := NewEventWriter(env, eventGuest, "op", logfile.Discard(), testNow)
	for i := range eventsInFolder - 1 {
		if err := os.WriteFile(filepath.Join(env.EventsFolder, fmt.Sprintf("%d.json", i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		w.Log(LevelInformational, "Enable", "text")
	}
	if entries, err := os.ReadDir(env.EventsFolder); err != nil || len(entries) != eventsInFolder {
		t.Errorf("%d events, %v; want %d", len(entries), err, eventsInFolder)
	}
}

func TestEventsAreOff(t *testing.T) {
	t.Parallel()
	env := newEnvironment(t)
	for name, off := range map[string]*EventWriter{
		"no feature":  NewEventWriter(env, GuestAgent{}, "op", logfile.Discard(), testNow),
		"no folder":   NewEventWriter(&Environment{EventsFolder: filepath.Join(env.HandlerDir, "none")}, eventGuest, "op", logfile.Discard(), testNow),
		"none named":  NewEventWriter(&Environment{}, eventGuest, "op", logfile.Discard(), testNow),
		"environment": NewEventWriter(nil, eventGuest, "op", logfile.Discard(), testNow),
	} {
		if off != nil {
			t.Errorf("%s: events are on", name)
		}
		off.Log(LevelError, "Enable", "dropped")
	}
	// The folder can go at any time.
	w := NewEventWriter(env, eventGuest, "op", logfile.Discard(), testNow)
	if err := os.RemoveAll(env.EventsFolder); err != nil {
		t.Fatal(err)
	}
	w.Log(LevelError, "Enable", "dropped")
}
