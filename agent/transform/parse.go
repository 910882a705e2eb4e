package transform

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/openloganalytics/agent/agent/record"
)

// extraction is the configuration of every processor that takes columns out of
// another one.
type extraction struct {
	ColumnName string `json:"columnName"`
	All        []struct {
		Path   string `json:"path"`
		NameAs string `json:"nameAs"`
		TypeAs string `json:"typeAs"`
	} `json:"all"`
}

// A part is one column that is taken out of another one.
type part[P any] struct {
	path P
	name string
	kind string
}

// extract reads the configuration of a processor whose paths compile reads.
func extract[P any](b *builder, raw json.RawMessage, compile func(string) (P, error)) (from string, parts []part[P]) {
	var c extraction
	if !b.decode(raw, &c) {
		return "", nil
	}
	source, _ := b.column("configuration.columnName", c.ColumnName)
	if len(c.All) == 0 {
		b.wrong("configuration.all", "is empty", "name at least one path")
	}
	for i, given := range c.All {
		field := fmt.Sprintf("configuration.all[%d]", i)
		path, err := compile(given.Path)
		if err != nil {
			b.wrong(field+".path", fmt.Sprintf("%.100q cannot be read", given.Path), err.Error())
			continue
		}
		if !b.fresh(field+".nameAs", given.NameAs) || !b.kind(field+".typeAs", given.TypeAs) {
			continue
		}
		kind := given.TypeAs
		if kind == "" {
			kind = typeDynamic
		}
		b.p.schema = append(b.p.schema, columnType{given.NameAs, kind})
		parts = append(parts, part[P]{path, given.NameAs, given.TypeAs})
	}
	return source.name, parts
}

// jsonPath takes columns out of JSON.
type jsonPath struct {
	from  string
	parts []part[[]string]
}

func (b *builder) jsonPath(raw json.RawMessage) {
	from, parts := extract(b, raw, compileJSONPath)
	b.add(&jsonPath{from, parts})
}

// compileJSONPath reads a path such as $.user.name, $['a b'] or $.list[0].name.
// A step is a member's name, or an index as its digits in brackets.
func compileJSONPath(path string) ([]string, error) {
	help := errors.New(`begin with $ and go on with .name, ['name'] or [0], as in $.user.name`)
	rest, found := strings.CutPrefix(path, "$")
	if !found {
		return nil, help
	}
	var steps []string
	for rest != "" {
		switch {
		case strings.HasPrefix(rest, "["):
			inner, after, closed := strings.Cut(rest[1:], "]")
			if len(inner) >= 2 && (inner[0] == '\'' || inner[0] == '"') {
				// The name itself may hold a bracket.
				end := strings.Index(rest[2:], string(inner[0])+"]")
				if end < 0 {
					return nil, help
				}
				steps = append(steps, rest[2:2+end])
				rest = rest[2+end+2:]
				continue
			}
			if _, err := strconv.ParseUint(inner, 10, 31); err != nil || !closed {
				return nil, help
			}
			steps = append(steps, "["+inner)
			rest = after
		case strings.HasPrefix(rest, "."):
			end := strings.IndexAny(rest[1:], ".[")
			if end < 0 {
				end = len(rest) - 1
			}
			name := rest[1 : 1+end]
			if name == "" || strings.ContainsAny(name, "*?@()") {
				return nil, help
			}
			steps = append(steps, name)
			rest = rest[1+end:]
		default:
			return nil, help
		}
	}
	return steps, nil
}

func (s *jsonPath) apply(_ context.Context, r *row) bool {
	value := r.get(s.from)
	var doc []byte
	if isText(value) {
		doc = text(value)
	} else {
		doc = value // a JSON log has objects in its columns
	}
	for _, p := range s.parts {
		r.set(p.name, r.cast(r.compact(walk(doc, p.path)), p.kind))
	}
	return true
}

// walk returns the JSON value at the path, nil when there is none.
func walk(doc []byte, path []string) json.RawMessage {
	value := json.RawMessage(doc)
	for _, step := range path {
		if index, is := strings.CutPrefix(step, "["); is {
			var list []json.RawMessage
			i, err := strconv.Atoi(index)
			if json.Unmarshal(value, &list) != nil || err != nil || i >= len(list) {
				return nil
			}
			value = list[i]
			continue
		}
		var members map[string]json.RawMessage
		if json.Unmarshal(value, &members) != nil {
			return nil
		}
		value = members[step]
		if value == nil {
			return nil
		}
	}
	if !json.Valid(value) {
		return nil
	}
	return value
}

// compact returns a value without white space between its parts.
func (r *row) compact(value json.RawMessage) []byte {
	if value == nil || string(value) == "null" {
		return nil
	}
	var b bytes.Buffer
	if json.Compact(&b, value) != nil {
		return nil
	}
	if isText(b.Bytes()) { // written as all text is, with invalid UTF-8 replaced
		return r.make(func(dst []byte) []byte { return record.AppendText(dst, text(b.Bytes())) })
	}
	return b.Bytes()
}

// xmlPath takes columns out of XML.
type xmlPath struct {
	from  string
	parts []part[xmlSteps]
}

// xmlSteps is /Event/EventData/Data[@Name='x'] or …/Data/@Name.
type xmlSteps struct {
	elements  []xmlStep
	attribute string // of the last element; empty for its text
}

type xmlStep struct{ name, attribute, value string }

func (s *xmlStep) is(e xml.StartElement) bool {
	if s.name != "*" && s.name != e.Name.Local {
		return false
	}
	if s.attribute == "" {
		return true
	}
	value, found := attributeOf(e, s.attribute)
	return found && value == s.value
}

func attributeOf(e xml.StartElement, name string) (string, bool) {
	for _, a := range e.Attr {
		if a.Name.Local == name {
			return a.Value, true
		}
	}
	return "", false
}

func (b *builder) xmlPath(raw json.RawMessage) {
	from, parts := extract(b, raw, compileXMLPath)
	b.add(&xmlPath{from, parts})
}

func compileXMLPath(path string) (xmlSteps, error) {
	help := errors.New("write /Root/Child, with [@Name='value'] behind an element, and /@Name at the end for an attribute")
	var s xmlSteps
	rest, found := strings.CutPrefix(path, "/")
	if !found || strings.HasPrefix(rest, "/") {
		return s, help
	}
	for rest != "" {
		if s.attribute != "" {
			return s, help
		}
		end := strings.IndexAny(rest, "/[")
		if end < 0 {
			end = len(rest)
		}
		name := rest[:end]
		rest = rest[end:]
		if attribute, is := strings.CutPrefix(name, "@"); is && attribute != "" && len(s.elements) > 0 {
			s.attribute = attribute
		} else if name == "text()" && rest == "" && len(s.elements) > 0 {
			break
		} else if name == "" || strings.ContainsAny(name, "@()='\"") {
			return s, help
		} else {
			s.elements = append(s.elements, xmlStep{name: name})
		}
		if strings.HasPrefix(rest, "[") {
			inner, after, closed := strings.Cut(rest[1:], "]")
			attribute, value, equal := strings.Cut(inner, "=")
			attribute, at := strings.CutPrefix(strings.TrimSpace(attribute), "@")
			value = strings.TrimSpace(value)
			if !closed || !equal || !at || len(value) < 2 || value[0] != value[len(value)-1] || value[0] != '\'' && value[0] != '"' {
				return s, help
			}
			last := &s.elements[len(s.elements)-1]
			last.attribute, last.value = attribute, value[1:len(value)-1]
			rest = after
		}
		if rest, found = strings.CutPrefix(rest, "/"); !found && rest != "" || found && rest == "" {
			return s, help
		}
	}
	if len(s.elements) == 0 {
		return s, help
	}
	return s, nil
}

func (s *xmlPath) apply(_ context.Context, r *row) bool {
	found := s.find(text(r.get(s.from)))
	for i, p := range s.parts {
		var value []byte
		if found[i] != nil {
			value = r.make(func(b []byte) []byte { return record.AppendText(b, found[i]) })
		}
		r.set(p.name, r.cast(value, p.kind))
	}
	return true
}

// find returns the text of the first element or attribute at each path. What
// follows a fault in the document is not looked at.
func (s *xmlPath) find(doc []byte) [][]byte {
	found := make([][]byte, len(s.parts))
	at := make([]int, len(s.parts)) // how many steps the open elements match
	texts := make([]int, len(s.parts))
	for i := range texts {
		texts[i] = -1
	}
	d := xml.NewDecoder(bytes.NewReader(doc))
	d.Strict = false
	d.CharsetReader = func(_ string, in io.Reader) (io.Reader, error) { return in, nil } // the column is UTF-8, whatever it says
	for depth := 0; ; {
		token, err := d.RawToken()
		if err != nil {
			return found
		}
		switch t := token.(type) {
		case xml.StartElement:
			for i := range s.parts {
				steps := &s.parts[i].path
				if at[i] != depth || depth >= len(steps.elements) || !steps.elements[depth].is(t) {
					continue
				}
				at[i]++
				if at[i] < len(steps.elements) || found[i] != nil {
					continue
				}
				if steps.attribute == "" {
					found[i], texts[i] = []byte{}, depth
				} else if value, has := attributeOf(t, steps.attribute); has {
					found[i] = []byte(value)
				}
			}
			depth++
		case xml.CharData:
			for i := range s.parts {
				if texts[i] == depth-1 && texts[i] >= 0 {
					found[i] = append(found[i], t...)
				}
			}
		case xml.EndElement:
			depth--
			for i := range s.parts {
				at[i] = min(at[i], max(depth, 0))
				if texts[i] >= depth {
					texts[i] = -1
				}
			}
		}
	}
}
