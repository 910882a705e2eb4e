package extension

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/openloganalytics/agent/internal/atomicfile"
)

// A Status is one of the four words that the guest agent takes. Any other word
// would make it report the whole file as malformed.
type Status string

// The four statuses. All but Transitioning are terminal.
const (
	StatusTransitioning Status = "transitioning"
	StatusSuccess       Status = "success"
	StatusWarning       Status = "warning"
	StatusError         Status = "error"
)

// A Substatus is the state of one part of the extension.
type Substatus struct {
	Name    string
	Status  Status
	Code    int
	Message string
}

// clarificationName is the substatus in which Azure looks for whose error it is.
const clarificationName = "ErrorClarification"

// Limits, in bytes. The guest agent cuts a file above 128 KiB as it likes, and
// portals show about 1 KiB of a message.
const (
	statusLimit  = 16 << 10
	messageLimit = 1 << 10
	nameLimit    = 128
	pathLimit    = 256
)

// A Reporter writes the status file of one sequence number, which the guest
// agent reads every few seconds for as long as the extension is there.
//
// A terminal status is not taken back: Transitioning does nothing where one
// stands, unless Begin has said that a new run of a command began. All methods
// are safe for concurrent use, and a nil Reporter, for a number that is not
// known, does nothing. Only one process at a time may write a number's file.
type Reporter struct {
	path      string
	name      string
	operation string
	logPath   string
	now       func() time.Time

	mu     sync.Mutex
	last   Status // what this Reporter wrote last
	before []byte // the file with the terminal status that Begin replaced
}

// NewReporter returns a reporter for one operation ("Enable") on the settings
// of one number. Each message ends with logPath, for who wants to know more;
// it may be empty.
func NewReporter(env *Environment, extensionName string, seq int, operation, logPath string, now func() time.Time) *Reporter {
	return &Reporter{
		path:      filepath.Join(env.StatusFolder, sequenceFile(extensionName, seq, ".status")),
		name:      env.Name,
		operation: operation,
		logPath:   logPath,
		now:       now,
	}
}

// Begin says that a new run of the command began. It replaces whatever stands.
func (r *Reporter) Begin(message string) error {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if found := r.read(); found.terminal() {
		r.before = found.data
	}
	return r.write(StatusTransitioning, 0, message, nil)
}

// Transitioning says what the command is doing.
func (r *Reporter) Transitioning(message string, parts ...Substatus) error {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last != StatusTransitioning && r.read().terminal() {
		return nil
	}
	return r.write(StatusTransitioning, 0, message, parts)
}

// Success says that the settings are in force and all is well.
func (r *Reporter) Success(message string, parts ...Substatus) error {
	return r.conclude(StatusSuccess, 0, message, parts)
}

// Warning says that the settings are in force and that something is not well.
func (r *Reporter) Warning(message string, parts ...Substatus) error {
	return r.conclude(StatusWarning, 0, message, parts)
}

// Error says what is wrong. The code is that of CodeOf, and a substatus tells
// Azure whose it is to mend.
func (r *Reporter) Error(err error, parts ...Substatus) error {
	return r.fail(CodeOf(err), err.Error(), parts...)
}

// fail is Error with the exit code and the message given.
func (r *Reporter) fail(code int, message string, parts ...Substatus) error {
	clarification := Substatus{
		Name:    clarificationName,
		Status:  StatusError,
		Code:    Clarification(code),
		Message: Meaning(code),
	}
	return r.conclude(StatusError, code, message, append([]Substatus{clarification}, parts...))
}

func (r *Reporter) conclude(status Status, code int, message string, parts []Substatus) error {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.write(status, code, message, parts)
}

// lastWritten returns what this Reporter wrote last, empty for nothing.
func (r *Reporter) lastWritten() Status {
	if r == nil {
		return ""
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

// withdraw ends a run that has nothing to say: the terminal status that Begin
// replaced stands again, or, where there was none, success with the message.
func (r *Reporter) withdraw(message string) error {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.last != StatusTransitioning:
		return nil
	case r.before != nil:
		return r.replace(r.before, "")
	default:
		return r.write(StatusSuccess, 0, message, nil)
	}
}

// statusMode keeps the file from everybody but the guest agent, which is root.
const statusMode = 0o600

// write makes a new file. The caller holds mu.
func (r *Reporter) write(status Status, code int, message string, parts []Substatus) error {
	now := r.now().UTC().Format(time.RFC3339)
	file := statusFile{Version: "1.0", Timestamp: now, Report: report{
		Name:      r.name,
		Operation: r.operation,
		Status:    status,
		Code:      code,
		Message:   formatted{"en-US", r.message(message)},
	}}
	switch {
	case r.last != StatusTransitioning:
		// The state changed, not the settings.
		file.Report.AppliedTime = r.read().Report.AppliedTime
	case status == StatusSuccess, status == StatusWarning:
		file.Report.AppliedTime = now
	}
	data, err := file.encode(parts)
	if err != nil {
		return fmt.Errorf("encode status: %w", err)
	}
	return r.replace(data, status)
}

func (r *Reporter) replace(data []byte, status Status) error {
	if err := atomicfile.Write(r.path, data, statusMode); err != nil {
		return fmt.Errorf("write status: %w", err)
	}
	r.last = status
	return nil
}

// message is text with the path of the log behind it; the path is never cut
// away.
func (r *Reporter) message(text string) string {
	suffix := ""
	if r.logPath != "" {
		suffix = " Log: " + shorten(clean(r.logPath), pathLimit)
	}
	return shorten(clean(text), messageLimit-len(suffix)) + suffix
}

// statusFile is the only element of the file's array.
type statusFile struct {
	Version   json.Number `json:"version"`
	Timestamp string      `json:"timestampUTC"`
	Report    report      `json:"status"`

	data []byte // what it was read from
}

type report struct {
	Name        string    `json:"name"`
	Operation   string    `json:"operation"`
	Status      Status    `json:"status"`
	Code        int       `json:"code"`
	AppliedTime string    `json:"configurationAppliedTime,omitempty"`
	Message     formatted `json:"formattedMessage"`
	Parts       []part    `json:"substatus,omitempty"`
}

type part struct {
	Name    string    `json:"name"`
	Status  Status    `json:"status"`
	Code    int       `json:"code"`
	Message formatted `json:"formattedMessage"`
}

type formatted struct {
	Lang    string `json:"lang"`
	Message string `json:"message"`
}

// encode returns the file's content with the parts, in at most statusLimit
// bytes: where there is too much, messages are shortened, and then the parts
// that are worst stay and one part counts the others.
func (f statusFile) encode(substatuses []Substatus) ([]byte, error) {
	parts := make([]part, len(substatuses))
	for i, s := range substatuses {
		parts[i] = part{
			Name:    shorten(clean(s.Name), nameLimit),
			Status:  s.Status.valid(),
			Code:    s.Code,
			Message: formatted{"en-US", shorten(clean(s.Message), messageLimit)},
		}
	}
	for limit := messageLimit; limit >= messageLimit/8; limit /= 2 {
		data, err := f.with(parts, limit)
		if err != nil || len(data) <= statusLimit {
			return data, err
		}
	}
	slices.SortStableFunc(parts, func(a, b part) int { return severity(b.Status) - severity(a.Status) })
	var data []byte
	var err error
	// The greatest number of parts that fits is the one before the first that
	// does not.
	kept := sort.Search(len(parts), func(n int) bool {
		data, err = f.with(summarise(parts, n), messageLimit/8)
		return err != nil || len(data) > statusLimit
	}) - 1
	if err != nil {
		return nil, err
	}
	return f.with(summarise(parts, max(kept, 0)), messageLimit/8)
}

// with encodes the file with parts whose messages have at most limit bytes.
func (f statusFile) with(parts []part, limit int) ([]byte, error) {
	f.Report.Parts = slices.Clone(parts)
	for i := range f.Report.Parts {
		message := &f.Report.Parts[i].Message.Message
		*message = shorten(*message, limit)
	}
	return encodeJSON([]statusFile{f})
}

// summarise returns the first n parts and one that counts the others.
func summarise(worst []part, n int) []part {
	rest := worst[n:]
	counts := map[Status]int{}
	for _, p := range rest {
		counts[p.Status]++
	}
	return append(slices.Clone(worst[:n]), part{
		Name:   "more",
		Status: rest[0].Status,
		Message: formatted{"en-US", fmt.Sprintf("%d more parts: %d error, %d warning, %d transitioning, %d success", len(rest),
			counts[StatusError], counts[StatusWarning], counts[StatusTransitioning], counts[StatusSuccess])},
	})
}

// severity orders statuses from good to bad.
func severity(s Status) int {
	return slices.Index([]Status{StatusSuccess, StatusTransitioning, StatusWarning, StatusError}, s)
}

// valid is s, or error for a word that is none of the four, as the guest agent
// itself takes one.
func (s Status) valid() Status {
	switch s {
	case StatusTransitioning, StatusSuccess, StatusWarning, StatusError:
		return s
	default:
		return StatusError
	}
}

// encodeJSON is json.Marshal without escapes for HTML.
func encodeJSON(value any) ([]byte, error) {
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(value)
	return buffer.Bytes(), err
}

func (f statusFile) terminal() bool {
	return f.Report.Status != "" && f.Report.Status != StatusTransitioning
}

// read returns the file as it stands. What is not there or makes no sense
// counts as nothing: it is about to be replaced.
func (r *Reporter) read() statusFile {
	data, err := atomicfile.ReadLimited(r.path, 8*statusLimit)
	if err != nil {
		return statusFile{}
	}
	var file []statusFile
	if err := json.Unmarshal(trimBOM(data), &file); err != nil || len(file) == 0 {
		return statusFile{}
	}
	file[0].data = data
	return file[0]
}
