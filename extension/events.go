package extension

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/openloganalytics/agent/internal/logfile"
)

// An EventLevel is how grave an event is, in the guest agent's words.
type EventLevel string

// The levels in use here; the guest agent knows Critical, Verbose and LogAlways too.
const (
	LevelError         EventLevel = "Error"
	LevelWarning       EventLevel = "Warning"
	LevelInformational EventLevel = "Informational"
)

// What the guest agent takes, in characters: it cuts longer messages, and drops
// an event whose values are longer in all. It collects at most 300 events every
// five minutes and deletes the others. Bytes are at least as many as characters.
const (
	eventMessageLimit = 3072
	eventFieldLimit   = 256
	eventsInFolder    = 300
)

// An EventWriter leaves telemetry events for the guest agent, one to a file.
// They are optional: what cannot be written is mentioned in the log and
// forgotten. A nil EventWriter drops everything.
type EventWriter struct {
	folder      string
	staging     string
	version     string
	operationID string
	now         func() time.Time
	log         *logfile.Logger
}

// NewEventWriter returns a writer for one run of a command, or nil when this
// guest agent collects no events. operationID ties the events of a run
// together.
func NewEventWriter(env *Environment, guest GuestAgent, operationID string, log *logfile.Logger, now func() time.Time) *EventWriter {
	if env == nil || env.EventsFolder == "" || !slices.Contains(guest.SupportedFeatures, FeatureEvents) {
		return nil
	}
	if info, err := os.Stat(env.EventsFolder); err != nil || !info.IsDir() {
		return nil
	}
	return &EventWriter{
		folder:      env.EventsFolder,
		staging:     filepath.Dir(filepath.Clean(env.EventsFolder)),
		version:     guest.ExtensionVersion,
		operationID: operationID,
		now:         now,
		log:         log,
	}
}

// Log leaves one event. task is what the handler was at, a word or two.
func (w *EventWriter) Log(level EventLevel, task, message string) {
	if w == nil || clean(message) == "" { // The guest agent drops an empty message.
		return
	}
	if err := w.write(level, task, message); err != nil {
		w.log.Debug("event not written", "error", err)
	}
}

// event has the names and the types that the guest agent demands: all strings.
type event struct {
	Version     string
	Timestamp   string
	TaskName    string
	EventLevel  string
	Message     string
	EventPid    string
	EventTid    string
	OperationID string `json:"OperationId"`
}

// write makes the file beside the folder, because the guest agent reads and
// deletes whatever it finds inside, and links it in under a name that is free.
func (w *EventWriter) write(level EventLevel, task, message string) error {
	waiting, err := os.ReadDir(w.folder)
	if err != nil {
		return err
	}
	if len(waiting) >= eventsInFolder {
		return fmt.Errorf("%d events wait already", len(waiting))
	}
	now, pid := w.now().UTC(), strconv.Itoa(os.Getpid())
	data, err := encodeJSON(event{
		Version:     shorten(clean(w.version), eventFieldLimit),
		Timestamp:   now.Format("2006-01-02T15:04:05.000000Z"),
		TaskName:    shorten(clean(task), eventFieldLimit),
		EventLevel:  string(level),
		Message:     shorten(clean(message), eventMessageLimit),
		EventPid:    pid,
		EventTid:    pid, // Goroutines have no number of their own.
		OperationID: shorten(clean(w.operationID), eventFieldLimit),
	})
	if err != nil {
		return err
	}
	file, err := os.CreateTemp(w.staging, ".event-*.tmp")
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if err = errors.Join(err, file.Close()); err == nil {
		err = linkIn(file.Name(), w.folder, now)
	}
	return errors.Join(err, os.Remove(file.Name()))
}

// linkIn names the file after the time in microseconds, or the next free one:
// the guest agent takes names of digits only.
func linkIn(file, folder string, now time.Time) error {
	for name := now.UnixMicro(); ; name++ {
		err := os.Link(file, filepath.Join(folder, strconv.FormatInt(name, 10)+".json"))
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
}
