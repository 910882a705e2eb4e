package logfile

import (
	"io"

	"github.com/sirupsen/logrus"
)

// A Logger writes one line per event: a time, a level, a sentence and
// key=value pairs. It is the only door to logrus in this code. A nil Logger
// drops everything.
type Logger struct{ entry *logrus.Entry }

// Discard returns a logger that writes nothing.
func Discard() *Logger {
	l := logrus.New()
	l.SetOutput(io.Discard)
	return &Logger{logrus.NewEntry(l)}
}

// With returns a logger that adds key=value to each line.
func (l *Logger) With(key string, value any) *Logger {
	if l == nil {
		return nil
	}
	return &Logger{l.entry.WithField(key, value)}
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
	if l == nil {
		return
	}
	fields := make(logrus.Fields, len(kv)/2)
	for i := 0; i+1 < len(kv); i += 2 {
		if key, ok := kv[i].(string); ok {
			fields[key] = kv[i+1]
		}
	}
	l.entry.WithFields(fields).Log(level, msg)
}
