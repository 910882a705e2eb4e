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

type statusMessage struct{ Lang, Message *string }

type statusItem struct {
	Name             string
	Operation        string
	Status           string
	Code             *json.Number
	FormattedMessage *statusMessage
	Substatus        []statusItem
}

// ReadStatus reads one status file.
func ReadStatus(path string) (Status, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Status{}, fmt.Errorf("read status: %w", err)
	}
	var file []struct {
		Version      json.Number
		TimestampUTC string
		Status       *statusItem
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return Status{}, fmt.Errorf("read status: %w", err)
	}
	switch {
	case len(data) > statusLimit:
		return Status{}, fmt.Errorf("read status: %d bytes, the guest agent takes %d", len(data), statusLimit)
	case len(file) != 1 || file[0].Status == nil:
		return Status{}, errors.New("read status: not an array with one status")
	case file[0].Version != "1.0" && file[0].Version != "1":
		return Status{}, fmt.Errorf("read status: version %s", file[0].Version)
	}
	if _, err := time.Parse("2006-01-02T15:04:05Z", file[0].TimestampUTC); err != nil {
		return Status{}, fmt.Errorf("read status: %w", err)
	}
	top := *file[0].Status
	if top.Operation == "" {
		return Status{}, errors.New("read status: no operation")
	}
	part, err := check(top)
	if err != nil {
		return Status{}, err
	}
	s := Status{Operation: top.Operation, Status: part.Status, Code: part.Code, Message: part.Message}
	for _, sub := range top.Substatus {
		part, err := check(sub)
		if err != nil {
			return Status{}, fmt.Errorf("substatus %q: %w", sub.Name, err)
		}
		s.Parts = append(s.Parts, part)
	}
	return s, nil
}

func check(item statusItem) (Part, error) {
	if !slices.Contains([]string{"transitioning", "success", "warning", "error"}, item.Status) {
		return Part{}, fmt.Errorf("read status: %q is no status", item.Status)
	}
	if m := item.FormattedMessage; m == nil || m.Lang == nil || m.Message == nil {
		return Part{}, errors.New("read status: no lang or no message")
	}
	p := Part{Name: item.Name, Status: item.Status, Message: *item.FormattedMessage.Message}
	if item.Code != nil {
		code, err := strconv.Atoi(item.Code.String())
		if err != nil {
			return Part{}, fmt.Errorf("read status: code %s", *item.Code)
		}
		p.Code = code
	}
	return p, nil
}
