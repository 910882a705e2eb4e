package handler

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/openloganalytics/agent/extension"
	"github.com/openloganalytics/agent/internal/nearest"
)

// SettingsErrors is every wrong field of one settings file.
type SettingsErrors []*extension.SettingsError

func (e SettingsErrors) Error() string {
	texts := make([]string, len(e))
	for i := range e {
		texts[i] = e[i].Error()
	}
	return strings.Join(texts, ". ")
}

// Unwrap gives the errors one by one.
func (e SettingsErrors) Unwrap() []error {
	errs := make([]error, len(e))
	for i := range e {
		errs[i] = e[i]
	}
	return errs
}

// A decoder reads JSON objects strictly and collects every problem, so that a
// user mends a settings file in one go.
type decoder struct{ problems SettingsErrors }

func (d *decoder) wrong(field, problem, fix string) {
	d.problems = append(d.problems, &extension.SettingsError{Field: field, Problem: problem, Fix: fix})
}

// secretWrong is wrong for a protected setting: the text says that it is one.
func (d *decoder) secretWrong(field, problem, fix string) {
	d.wrong("protected setting "+field, problem, fix)
}

func (d *decoder) err() error {
	if len(d.problems) == 0 {
		return nil
	}
	return d.problems
}

// An object is a JSON object at a path. Its readers take members out; done
// complains about those that nobody took. A nil object reads as empty.
type object struct {
	d       *decoder
	path    string
	hidden  bool // protected: no value may be quoted
	members map[string]json.RawMessage
	known   []string // every name that was asked for
	taken   []string // of those, the ones that were there
}

// object reads data, which may be absent or null. The error for a protected
// object says nothing of its content.
func (d *decoder) object(path string, data json.RawMessage, hidden bool) *object {
	o := &object{d: d, path: path, hidden: hidden}
	if len(bytes.TrimSpace(data)) == 0 {
		return o
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&o.members); err != nil || !errors.Is(dec.Decode(new(json.RawMessage)), io.EOF) {
		field, fix := path, "write a JSON object: {\"name\": value}"
		if path == "" {
			field = "public settings"
			if hidden {
				field = "protected settings"
			}
		}
		d.wrong(field, "is not a JSON object", fix)
		o.members = nil
	}
	return o
}

// had reports whether the member was there, taken or not.
func (o *object) had(name string) bool {
	_, there := o.members[name]
	return there || slices.Contains(o.taken, name)
}

// peek returns a member's JSON and leaves it in.
func (o *object) peek(name string) json.RawMessage {
	if o == nil {
		return nil
	}
	return o.members[name]
}

func (o *object) names() []string {
	if o == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(o.members))
}

// take removes a member and returns its JSON, nil when absent or null.
func (o *object) take(name string) json.RawMessage {
	if o == nil {
		return nil
	}
	o.known = append(o.known, name)
	raw, ok := o.members[name]
	if !ok {
		return nil
	}
	delete(o.members, name)
	o.taken = append(o.taken, name)
	if string(raw) == "null" {
		return nil
	}
	return raw
}

func (o *object) field(name string) string {
	if o.path == "" {
		return name
	}
	return o.path + "." + name
}

func (o *object) mistyped(name, want string, raw json.RawMessage) {
	if o.hidden {
		o.d.secretWrong(o.field(name), "has the wrong type", "give "+want)
		return
	}
	shown := string(raw)
	if len(shown) > 60 {
		shown = shown[:60] + "…"
	}
	o.d.wrong(o.field(name), shown+" has the wrong type", "give "+want)
}

// text reads a string.
func (o *object) text(name string) string {
	raw := o.take(name)
	if raw == nil {
		return ""
	}
	var value string
	if json.Unmarshal(raw, &value) != nil {
		o.mistyped(name, "a text in quotes", raw)
	}
	return value
}

// boolean reads true or false, also as the texts that templates produce.
func (o *object) boolean(name string) bool {
	raw := o.take(name)
	switch strings.ToLower(strings.Trim(string(raw), `"`)) {
	case "true":
		return true
	case "", "false":
		return false
	}
	o.mistyped(name, "true or false", raw)
	return false
}

// integer reads a whole number between low and high, also as a text.
func (o *object) integer(name string, absent, low, high int) int {
	raw := o.take(name)
	if raw == nil {
		return absent
	}
	n, err := strconv.Atoi(strings.Trim(string(raw), `"`))
	if err != nil {
		o.mistyped(name, "a whole number", raw)
		return absent
	}
	if n < low || n > high {
		o.d.wrong(o.field(name), fmt.Sprintf("%d is out of range", n), fmt.Sprintf("give a number from %d to %d", low, high))
		return absent
	}
	return n
}

// texts reads an array of strings.
func (o *object) texts(name string) []string {
	raw := o.take(name)
	if raw == nil {
		return nil
	}
	var values []string
	if json.Unmarshal(raw, &values) != nil {
		o.mistyped(name, `a list of texts: ["a", "b"]`, raw)
	}
	return values
}

// object reads a nested object, nil when absent.
func (o *object) object(name string) *object {
	raw := o.take(name)
	if raw == nil {
		return nil
	}
	return o.d.object(o.field(name), raw, o.hidden)
}

// objects reads an array of objects, nil when absent.
func (o *object) objects(name string) []*object {
	raw := o.take(name)
	if raw == nil {
		return nil
	}
	var items []json.RawMessage
	if json.Unmarshal(raw, &items) != nil {
		o.mistyped(name, "a list of objects: [{…}]", raw)
		return nil
	}
	list := make([]*object, 0, len(items))
	for i, item := range items {
		list = append(list, o.d.object(fmt.Sprintf("%s[%d]", o.field(name), i), item, o.hidden))
	}
	return list
}

// maxShownName bounds the names of unknown protected settings in messages: a
// workspace key is longer.
const maxShownName = 32

// done reports every member that nobody took, with the name it may have been
// meant to be.
func (o *object) done() {
	for _, name := range o.names() {
		fix := "take it out, or see the list of settings"
		if near, differs := nearest.Name(name, o.known); near != "" && differs <= len(name)/3 {
			fix = fmt.Sprintf("did you mean %s?", near)
		}
		if o.hidden {
			if len(name) > maxShownName { // it may be a misplaced secret
				name = "(a name of " + strconv.Itoa(len(name)) + " characters)"
			}
			o.d.secretWrong(o.field(name), "is not a setting", fix)
			continue
		}
		o.d.wrong(o.field(name), "is not a setting", fix)
	}
}
