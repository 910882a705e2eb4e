package logfile

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sirupsen/logrus"
)

// timeLayout is RFC 3339 in UTC with milliseconds, always equally wide.
const timeLayout = "2006-01-02T15:04:05.000Z"

// levelNames are equally wide, so that messages stand one below the other.
func levelName(level logrus.Level) string {
	switch level {
	case logrus.DebugLevel:
		return "debug"
	case logrus.InfoLevel:
		return "info "
	case logrus.WarnLevel:
		return "warn "
	default:
		return "error"
	}
}

// appendLine writes the entry as one line. hide takes secrets out of a text
// before it is escaped, since escaping would disguise them.
func appendLine(line []byte, e *logrus.Entry, hide func(string) string) []byte {
	line = e.Time.UTC().AppendFormat(line, timeLayout)
	line = append(line, ' ')
	line = append(line, levelName(e.Level)...)
	line = append(line, ' ')
	line = appendEscaped(line, hide(e.Message))
	for _, key := range sortedKeys(e.Data) {
		line = append(line, ' ')
		line = appendEscaped(line, key)
		line = append(line, '=')
		line = appendValue(line, hide(fmt.Sprint(e.Data[key])))
	}
	return append(cut(line, maxLine-1), '\n')
}

// lostLine tells of lines that could not be written.
func lostLine(now time.Time, lines int, why error, hide func(string) string) []byte {
	return appendLine(nil, &logrus.Entry{
		Time:    now,
		Level:   logrus.WarnLevel,
		Message: "lines were lost: the log could not be written",
		Data:    logrus.Fields{"lines": lines, "cause": why},
	}, hide)
}

func sortedKeys(fields logrus.Fields) []string {
	keys := make([]string, 0, len(fields))
	for key := range fields {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// appendValue quotes a value that would not read as one word.
func appendValue(line []byte, text string) []byte {
	if text == "" || strings.ContainsFunc(text, needsQuotes) || !utf8.ValidString(text) {
		return strconv.AppendQuote(line, text)
	}
	return append(line, text...)
}

func needsQuotes(r rune) bool {
	return r == ' ' || r == '"' || r == '=' || r == '\\' || !strconv.IsPrint(r)
}

// appendEscaped writes text with everything escaped that does not print: line
// ends, terminal control, direction marks, bytes that are not UTF-8.
func appendEscaped(line []byte, text string) []byte {
	for len(text) > 0 {
		r, width := utf8.DecodeRuneInString(text)
		switch {
		case r == utf8.RuneError && width == 1:
			line = fmt.Appendf(line, `\x%02x`, text[0])
		case strconv.IsPrint(r):
			line = utf8.AppendRune(line, r)
		default:
			quoted := strconv.QuoteRune(r)
			line = append(line, quoted[1:len(quoted)-1]...)
		}
		text = text[width:]
	}
	return line
}

// cut shortens a line to limit bytes, at the border of a rune.
func cut(line []byte, limit int) []byte {
	const mark = "[cut]"
	if len(line) <= limit {
		return line
	}
	end := limit - len(mark)
	for end > 0 && !utf8.RuneStart(line[end]) {
		end--
	}
	return append(line[:end], mark...)
}
