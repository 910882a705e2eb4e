package fakeguest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// Status is a status file as the guest agent understands it.
type Status struct {
	Operation string
	Status    string // transitioning, success, warning, error
	Code      int
	Message   string
	Applied   time.Time // configurationAppliedTime
	Parts     []Part
}

// A Part is a substatus.
type Part struct {
	Name, Status, Message string
	Code                  int
}

// statusLimit is where the guest agent begins to cut.
const statusLimit = 128 << 10

// Status reads the status of the current settings and holds it to every rule
// of the guest agent.
func (g *Guest) Status() (Status, error) {
	return ReadStatus(filepath.Join(g.HandlerDir(g.version), "status", strconv.Itoa(g.seq)+".status"))
}

// ReadStatus reads one status file.
func ReadStatus(path string) (Status, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Status{}, fmt.Errorf("read status: %w", err)
	}
	s, err := parseStatus(data)
	if err != nil {
		return Status{}, fmt.Errorf("read status: %w", err)
	}
	return s, nil
}

type statusMessage struct{ Lang, Message *string }

type statusItem struct {
	Name                     string
	Operation                string
	Status                   string
	Code                     int
	ConfigurationAppliedTime string
	FormattedMessage         *statusMessage
	Substatus                []statusItem
}

// parseStatus is stricter than the guest agent, which reports some of what is
// refused here as something else than was meant.
func parseStatus(data []byte) (s Status, err error) {
	if len(data) > statusLimit {
		return s, fmt.Errorf("%d bytes, the guest agent takes %d", len(data), statusLimit)
	}
	var file []struct {
		Version      json.Number
		TimestampUTC string
		Status       *statusItem
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return s, err
	}
	if len(file) != 1 || file[0].Status == nil {
		return s, errors.New("not an array with one status")
	}
	if file[0].Version != "1.0" {
		return s, fmt.Errorf("version %s", file[0].Version)
	}
	if _, err := parseTime(file[0].TimestampUTC); err != nil {
		return s, err
	}
	top := file[0].Status
	part, err := top.part()
	if err != nil {
		return s, err
	}
	if top.Operation == "" {
		return s, errors.New("no operation")
	}
	s = Status{Operation: top.Operation, Status: part.Status, Code: part.Code, Message: part.Message}
	if top.ConfigurationAppliedTime != "" {
		if s.Applied, err = parseTime(top.ConfigurationAppliedTime); err != nil {
			return s, err
		}
	}
	for _, sub := range top.Substatus {
		part, err := sub.part()
		if err != nil {
			return s, fmt.Errorf("substatus %q: %w", sub.Name, err)
		}
		s.Parts = append(s.Parts, part)
	}
	return s, nil
}

func parseTime(text string) (time.Time, error) {
	return time.Parse("2006-01-02T15:04:05Z", text)
}

func (item statusItem) part() (Part, error) {
	if !slices.Contains([]string{"transitioning", "success", "warning", "error"}, item.Status) {
		return Part{}, fmt.Errorf("%q is no status", item.Status)
	}
	if m := item.FormattedMessage; m == nil || m.Lang == nil || m.Message == nil {
		return Part{}, errors.New("no lang or no message")
	}
	return Part{item.Name, item.Status, *item.FormattedMessage.Message, item.Code}, nil
}
