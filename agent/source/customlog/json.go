package customlog

import (
	"bytes"
	"encoding/json"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/openloganalytics/agent/agent/record"
)

const (
	// maxColumns is what a table may have (Azure Monitor service limits: 500),
	// less those that every row has.
	maxColumns = 490
	// maxColumnName is how long the name of one may be, in characters.
	maxColumnName = 45
)

// columnNames remembers the columns that members become, so that nothing is
// allocated for those that come again.
type columnNames map[string]string

// maxNames bounds them: whoever writes the log can make names up.
const maxNames = 1000

func (names columnNames) of(member []byte) string {
	if name, known := names[string(member)]; known {
		return name
	}
	if len(names) >= maxNames {
		clear(names)
	}
	name := columnOf(member)
	names[string(member)] = name
	return name
}

// jsonFields appends the members of a JSON object as fields, and returns the
// time that it names, zero when there is none. It reports false for what is no
// object, or one that no table can take.
func (names columnNames) jsonFields(dst []record.Field, line []byte) (fields []record.Field, at time.Time, ok bool) {
	line = bytes.TrimSpace(line)
	if len(line) < 2 || line[0] != '{' || !json.Valid(line) {
		return dst, at, false
	}
	if !utf8.Valid(line) {
		line = bytes.ToValidUTF8(line, []byte("\uFFFD"))
	}
	begin := len(dst)
	for rest := trimLeft(line[1:]); rest[0] != '}'; {
		n := textLength(rest)
		name := names.of(rest[1 : n-1])
		rest = trimLeft(trimLeft(rest[n:])[1:]) // after the colon
		n = jsonLength(rest)
		value := rest[:n]
		rest = trimLeft(rest[n:])
		if rest[0] == ',' {
			rest = trimLeft(rest[1:])
		}
		if name == "TimeGenerated" || name == timeField {
			if when, is := timeOf(value); is {
				at = when
				continue
			}
			name = "Time"
		}
		dst = setField(dst, begin, record.Field{Key: name, Kind: record.JSON, Value: value})
	}
	return dst, at, len(dst)-begin <= maxColumns
}

// setField appends a field. A member that is there twice counts as its last.
func setField(fields []record.Field, begin int, f record.Field) []record.Field {
	for i := begin; i < len(fields); i++ {
		if fields[i].Key == f.Key {
			fields[i] = f
			return fields
		}
	}
	return append(fields, f)
}

func trimLeft(s []byte) []byte {
	for len(s) > 0 && (s[0] == ' ' || s[0] == '\t' || s[0] == '\r' || s[0] == '\n') {
		s = s[1:]
	}
	return s
}

// textLength is the length of the string that valid JSON begins with.
func textLength(s []byte) int {
	for i := 1; ; i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
}

// jsonLength is the length of the value that a member of valid JSON begins with.
func jsonLength(s []byte) int {
	depth := 0
	for i := 0; ; i++ {
		switch s[i] {
		case '"':
			i += textLength(s[i:]) - 1
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return i
			}
			depth--
		case ',':
			if depth == 0 {
				return i
			}
			continue
		case ' ', '\t', '\r', '\n':
			if depth == 0 {
				return i
			}
			continue
		default:
			continue
		}
		if depth == 0 {
			return i + 1
		}
	}
}

// columnOf makes the name of a column out of the name of a member: letters,
// digits and underscores, a letter first.
func columnOf(member []byte) string {
	if isColumn(member) {
		return string(member)
	}
	var name string
	if json.Unmarshal(append(append([]byte{'"'}, member...), '"'), &name) != nil {
		name = string(member)
	}
	name = strings.Map(func(r rune) rune {
		if r < utf8.RuneSelf && isWord(byte(r)) {
			return r
		}
		return '_'
	}, name)
	if name == "" || !isLetter(name[0]) {
		name = "c_" + strings.TrimLeft(name, "_")
	}
	return name[:min(len(name), maxColumnName)]
}

func isColumn(name []byte) bool {
	if len(name) == 0 || len(name) > maxColumnName || !isLetter(name[0]) {
		return false
	}
	for _, c := range name {
		if !isWord(c) {
			return false
		}
	}
	return true
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }
func isWord(c byte) bool   { return isLetter(c) || isDigit(c) || c == '_' }

// timeOf reads a time as JSON logs have it: RFC 3339, with or without a zone,
// or seconds or milliseconds since 1970.
func timeOf(value []byte) (time.Time, bool) {
	var text string
	if json.Unmarshal(value, &text) == nil {
		for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999Z07:00", "2006-01-02 15:04:05.999999999"} {
			if at, err := time.Parse(layout, text); err == nil {
				return at, true
			}
		}
		return time.Time{}, false
	}
	var number float64
	if json.Unmarshal(value, &number) != nil {
		return time.Time{}, false
	}
	const seconds2001, seconds2100 = 1e9, 4.2e9
	switch {
	case number >= seconds2001 && number < seconds2100:
		return time.UnixMilli(int64(number * 1e3)), true
	case number >= seconds2001*1e3 && number < seconds2100*1e3:
		return time.UnixMilli(int64(number)), true
	}
	return time.Time{}, false
}
