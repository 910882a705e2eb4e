package logfile

import (
	"time"

	"github.com/sirupsen/logrus"

	"github.com/openloganalytics/agent/internal/secret"
)

// A Logger writes one line per event: a time, a level, a sentence and
// key=value pairs. It is the only door to logrus in this code. A nil Logger
// drops everything. Loggers are safe for concurrent use and never fail or
// block their caller for longer than a write to the disk takes.
type Logger struct {
	entry *logrus.Entry
	sink  *sink
}

// A Level says who should care for a line.
type Level int8

// The levels; the zero Level is LevelInfo.
const (
	LevelDebug Level = iota - 1 // what only a developer needs
	LevelInfo                   // what happened
	LevelWarn                   // what somebody should look at
	LevelError                  // what does not work
)

// Discard returns a logger that writes nothing.
func Discard() *Logger { return nil }

// With returns a logger that adds key=value to each line.
func (l *Logger) With(key string, value any) *Logger {
	if l == nil {
		return nil
	}
	return &Logger{l.entry.WithField(key, value), l.sink}
}

// Scrub replaces s from now on with *** in every line of this log, whatever
// way it came in: as it is, or as base64, URL or JSON spell it.
func (l *Logger) Scrub(s secret.Secret) {
	if l != nil {
		l.sink.scrub.add(s)
	}
}

// Debug logs what only a developer needs.
func (l *Logger) Debug(msg string, kv ...any) { l.log(logrus.DebugLevel, msg, kv) }

// Info logs what happened.
func (l *Logger) Info(msg string, kv ...any) { l.log(logrus.InfoLevel, msg, kv) }

// Warn logs what somebody should look at.
func (l *Logger) Warn(msg string, kv ...any) { l.log(logrus.WarnLevel, msg, kv) }

// Error logs what does not work.
func (l *Logger) Error(msg string, kv ...any) { l.log(logrus.ErrorLevel, msg, kv) }

func (l *Logger) log(level logrus.Level, msg string, kv []any) {
	if l == nil || !l.entry.Logger.IsLevelEnabled(level) {
		return
	}
	now := time.Now()
	e := l.entry.WithTime(now).WithFields(pairs(kv))
	write, before := l.sink.limit.take(now, level, msg, l.sink.limit.digest(e.Data))
	l.summarise(now, before)
	if write {
		e.Log(level, msg)
	}
}

// summarise logs what the limiter held back.
func (l *Logger) summarise(now time.Time, held []heldBack) {
	for _, h := range held {
		logrus.NewEntry(l.entry.Logger).WithTime(now).Log(h.level, h.String())
	}
}

// pairs makes fields of key, value, key, value. A value without a key is kept
// under a name that shows the mistake.
func pairs(kv []any) logrus.Fields {
	const noKey = "!nokey"
	fields := make(logrus.Fields, len(kv)/2)
	for i := 0; i < len(kv); i += 2 {
		key, ok := kv[i].(string)
		switch {
		case i+1 == len(kv):
			fields[noKey] = kv[i]
		case ok:
			fields[key] = kv[i+1]
		default:
			fields[noKey] = kv[i+1]
		}
	}
	return fields
}

// logrusLevel maps ours onto the engine's.
func (level Level) logrusLevel() logrus.Level {
	switch {
	case level <= LevelDebug:
		return logrus.DebugLevel
	case level == LevelInfo:
		return logrus.InfoLevel
	case level == LevelWarn:
		return logrus.WarnLevel
	}
	return logrus.ErrorLevel
}
