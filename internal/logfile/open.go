package logfile

import (
	"io"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/openloganalytics/agent/internal/secret"
)

// Options say where a log goes.
type Options struct {
	// Path is the file; older lines are in Path.1, Path.2 and so on, the
	// oldest in the highest. Empty writes to Mirror alone.
	Path string
	// MaxBytes bounds all these files together; 0 is 20 MB.
	MaxBytes int64
	// Files is how many there are at most; less than 2 is 4.
	Files int
	// Level is the least that is written; 0 is LevelInfo.
	Level Level
	// Mirror gets a copy of each line; its errors do not matter. May be nil.
	Mirror io.Writer
	// Scrub lists secrets to replace, see Logger.Scrub.
	Scrub []secret.Secret
}

const (
	defaultMaxBytes = 20 << 20
	defaultFiles    = 4
	// maxLine bounds one line, in bytes.
	maxLine = 8 << 10
)

// Open returns a logger that writes as o says, and what closes it; lines after
// that are dropped. When the file cannot be opened the error says why, and
// logger and closer are good all the same: the logger serves Mirror and tries
// the file again with each line. The same holds for a file that is removed,
// replaced or whose disk is full later: lines that could not be written are
// counted, and the count is written once there is room.
//
// A line is
//
//	2026-01-02T03:04:05.123Z info  message key=value other="two words"
//
// in UTC, with keys in order and control characters escaped as Go does.
//
// At most 10 lines a second are written, after a burst of 100. A line that was
// written within the last minute is not written again: at the end of the minute
// one line says how often it came. The first line of a kind, a level and a
// message, is always written, so that a flood of one does not hide another.
func Open(o Options) (*Logger, io.Closer, error) {
	if o.MaxBytes <= 0 {
		o.MaxBytes = defaultMaxBytes
	}
	if o.Files < 2 {
		o.Files = defaultFiles
	}
	s := &sink{mirror: o.Mirror}
	for _, hidden := range o.Scrub {
		s.scrub.add(hidden)
	}
	var err error
	if o.Path != "" {
		s.file = &rotator{path: o.Path, total: o.MaxBytes, files: o.Files}
		err = s.file.open()
	}
	engine := logrus.New()
	engine.SetOutput(s)
	engine.SetFormatter(s)
	engine.SetLevel(o.Level.logrusLevel())
	l := &Logger{logrus.NewEntry(engine), s}
	s.limit = newLimiter(func() {
		now := time.Now()
		l.summarise(now, s.limit.over(now))
	})
	return l, closer{l}, err
}

// closer ends a log.
type closer struct{ log *Logger }

// Close writes the summaries that are due and closes the file.
func (c closer) Close() error {
	now := time.Now()
	c.log.summarise(now, c.log.sink.limit.close(now))
	return c.log.sink.close()
}

// sink takes the lines from logrus: Format makes one of an entry, Write
// stores it. It never fails, so that logrus never complains on its own.
type sink struct {
	scrub  scrubber
	limit  *limiter
	mirror io.Writer

	mu     sync.Mutex
	file   *rotator // nil without a path
	closed bool
	lost   int   // lines that did not reach the file
	why    error // of the first of them
}

// Format is logrus.Formatter.
func (s *sink) Format(e *logrus.Entry) ([]byte, error) {
	return appendLine(nil, e, s.scrub.hide), nil
}

// Write is the io.Writer of logrus, one line at a time.
func (s *sink) Write(line []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return len(line), nil
	}
	if s.mirror != nil {
		// A closed standard error is no reason to lose the file's line.
		_, _ = s.mirror.Write(line)
	}
	if s.file != nil {
		s.store(line)
	}
	return len(line), nil
}

// store writes the line, and before it a word on those that were lost.
func (s *sink) store(line []byte) {
	if s.lost > 0 {
		line = append(lostLine(time.Now(), s.lost, s.why, s.scrub.hide), line...)
	}
	err := s.file.write(line)
	switch {
	case err == nil:
		s.lost, s.why = 0, nil
	case s.lost == 0:
		s.lost, s.why = 1, err
	default:
		s.lost++
	}
}

func (s *sink) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.file == nil {
		return nil
	}
	return s.file.close()
}
