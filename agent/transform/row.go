package transform

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/openloganalytics/agent/agent/record"
)

// A column of a row. The value is JSON; nil stands for null.
type column struct {
	name  string
	value []byte
}

// A row is one record between two processors.
type row struct {
	columns []column
	made    []byte // where values that processors made are kept
}

func (r *row) clear() {
	r.columns, r.made = r.columns[:0], r.made[:0]
}

// get returns the value of a column, nil when there is none.
func (r *row) get(name string) []byte {
	if i := r.find(name); i >= 0 {
		return r.columns[i].value
	}
	return nil
}

func (r *row) find(name string) int {
	for i := range r.columns {
		if r.columns[i].name == name {
			return i
		}
	}
	return -1
}

// set gives a column a value, and adds the column when it is new.
func (r *row) set(name string, value []byte) {
	if i := r.find(name); i >= 0 {
		r.columns[i].value = value
		return
	}
	r.columns = append(r.columns, column{name, value})
}

// make returns what write appends, in memory that lives as long as the row.
func (r *row) make(write func([]byte) []byte) []byte {
	begin := len(r.made)
	r.made = write(r.made)
	return r.made[begin:len(r.made):len(r.made)]
}

var errNoRow = errors.New("parse row: not a flat JSON object")

// cutRow returns the members of the JSON object that text begins with, and what
// follows it.
func cutRow(dst []column, text []byte) (columns []column, rest []byte, err error) {
	if len(text) < 2 || text[0] != '{' {
		return nil, nil, errNoRow
	}
	if text[1] == '}' {
		return dst, text[2:], nil
	}
	for text = text[1:]; ; text = text[1:] {
		n := valueLength(text)
		if n < 2 || text[0] != '"' || n >= len(text) || text[n] != ':' {
			return nil, nil, errNoRow
		}
		name := string(text[1 : n-1])
		text = text[n+1:]
		n = valueLength(text)
		if n == 0 || n >= len(text) {
			return nil, nil, errNoRow
		}
		dst = append(dst, column{name, orNil(text[:n])})
		switch text = text[n:]; text[0] {
		case '}':
			return dst, text[1:], nil
		case ',':
		default:
			return nil, nil, errNoRow
		}
	}
}

func orNil(value []byte) []byte {
	if string(value) == "null" {
		return nil
	}
	return value
}

// valueLength returns the length of the compact JSON value that s begins with,
// 0 when it does not end.
func valueLength(s []byte) int {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"':
			n := stringLength(s[i:])
			if n == 0 {
				return 0
			}
			i += n - 1
		case '{', '[':
			depth++
			continue
		case '}', ']':
			if depth == 0 {
				return i
			}
			depth--
		case ',', ':':
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
	return 0
}

// stringLength returns the length of the JSON string that s begins with.
func stringLength(s []byte) int {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return 0
}

// isText tells whether a value is a JSON string.
func isText(value []byte) bool { return len(value) >= 2 && value[0] == '"' }

// text returns what a value says: a string without its quotes and escapes, any
// other value as it is written. Nothing of it may be changed.
func text(value []byte) []byte {
	if !isText(value) {
		return value
	}
	inner := value[1 : len(value)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		return inner
	}
	var s string
	if json.Unmarshal(value, &s) != nil {
		return inner
	}
	return []byte(s)
}

// number returns the number that a value is, or says.
func number(value []byte) (float64, bool) {
	if value == nil {
		return 0, false
	}
	n, err := strconv.ParseFloat(strings.TrimSpace(string(text(value))), 64)
	return n, err == nil && n-n == 0 // neither infinite nor no number
}

// Types of columns, by the words of a rule.
const (
	typeString   = "string"
	typeInt      = "int"
	typeLong     = "long"
	typeReal     = "real"
	typeBool     = "bool"
	typeDatetime = "datetime"
	typeDynamic  = "dynamic" // any; not a type that a rule can ask for
)

// castable are the types that typeAs may ask for.
var castable = []string{typeString, typeInt, typeLong, typeReal, typeBool, typeDatetime}

func numeric(kind string) bool {
	return kind == typeInt || kind == typeLong || kind == typeReal || kind == typeDynamic
}

// cast returns a value as another type, nil when it cannot be that.
func (r *row) cast(value []byte, kind string) []byte {
	if value == nil || kind == "" {
		return value
	}
	said := text(value)
	switch kind {
	case typeString:
		if isText(value) {
			return value
		}
		return r.make(func(b []byte) []byte { return record.AppendText(b, said) })
	case typeInt, typeLong:
		n, ok := number(value)
		limit := float64(1 << 31)
		if kind == typeLong {
			limit = 1 << 63
		}
		if !ok || n >= limit || n < -limit {
			return nil
		}
		whole, err := strconv.ParseInt(strings.TrimSpace(string(said)), 10, 64)
		if err != nil {
			whole = int64(n)
		}
		return r.make(func(b []byte) []byte { return strconv.AppendInt(b, whole, 10) })
	case typeReal:
		n, ok := number(value)
		if !ok {
			return nil
		}
		return r.make(func(b []byte) []byte { return appendReal(b, n) })
	case typeBool:
		switch strings.ToLower(strings.TrimSpace(string(said))) {
		case "true", "1":
			return []byte("true")
		case "false", "0":
			return []byte("false")
		}
		return nil
	case typeDatetime:
		at, ok := parseTime(string(said))
		if !ok {
			return nil
		}
		return r.make(func(b []byte) []byte { return record.AppendTime(b, at) })
	}
	panic("BUG: no type " + kind)
}

func appendReal(dst []byte, n float64) []byte { return strconv.AppendFloat(dst, n, 'g', -1, 64) }

// parseTime reads a time as datetime values are written; UTC where it does not
// say otherwise.
func parseTime(s string) (time.Time, bool) {
	s = strings.TrimSpace(s)
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02 15:04:05Z07:00", time.DateTime, "2006-01-02T15:04:05", time.DateOnly} {
		if at, err := time.Parse(layout, s); err == nil {
			return at.UTC(), true
		}
	}
	return time.Time{}, false
}
