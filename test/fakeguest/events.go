package fakeguest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"unicode/utf8"
)

// What the guest agent takes, in characters of one event and bytes of one file.
const (
	eventLimit        = 6144
	eventMessageLimit = 3072
	eventFileLimit    = 4 << 20
)

// An Event is a telemetry event, its values by their names.
type Event map[string]string

// CollectEvents reads the events that commands have left and empties the folder,
// as the guest agent does every five minutes. The error names each one that the
// guest agent would have dropped or cut.
func (g *Guest) CollectEvents() ([]Event, error) { return CollectEvents(g.eventsDir()) }

// CollectEvents is Guest.CollectEvents for any folder.
func CollectEvents(folder string) (events []Event, err error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, fmt.Errorf("collect events: %w", err)
	}
	var faults []error
	for _, entry := range entries {
		path := filepath.Join(folder, entry.Name())
		event, err := readEvent(path)
		if err != nil {
			faults = append(faults, fmt.Errorf("event %s: %w", entry.Name(), err))
		} else {
			events = append(events, event)
		}
		faults = append(faults, os.Remove(path))
	}
	return events, errors.Join(faults...)
}

func readEvent(path string) (Event, error) {
	if !regexp.MustCompile(`^\d+\.json$`).MatchString(filepath.Base(path)) {
		return nil, errors.New("its name is not made of digits")
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if len(data) > eventFileLimit {
		return nil, errors.New("it is too large")
	}
	var event Event
	if err := json.Unmarshal(data, &event); err != nil {
		return nil, err
	}
	length := 0
	for _, name := range []string{"Version", "Timestamp", "TaskName", "EventLevel", "Message", "EventPid", "EventTid", "OperationId"} {
		value, ok := event[name]
		if !ok {
			return nil, fmt.Errorf("it has no %s", name)
		}
		length += utf8.RuneCountInString(value)
	}
	levels := []string{"Critical", "Error", "Warning", "Verbose", "Informational", "LogAlways"}
	switch {
	case event["Message"] == "":
		return nil, errors.New("its message is empty")
	case !slices.Contains(levels, event["EventLevel"]):
		return nil, fmt.Errorf("%q is no level", event["EventLevel"])
	case utf8.RuneCountInString(event["Message"]) > eventMessageLimit || length > eventLimit:
		return nil, errors.New("its values are too long")
	}
	return event, nil
}
