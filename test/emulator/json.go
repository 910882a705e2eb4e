package emulator

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// An object is a decoded JSON object. Numbers are json.Number.
type object = map[string]any

// maxNesting is deeper than any row needs.
const maxNesting = 32

// decodeJSON reads exactly one JSON value, more strictly than encoding/json:
// the text has to be UTF-8 and an object may name a member only once. Errors
// give a place, not the text.
func decodeJSON(data []byte) (any, error) {
	if !utf8.Valid(data) {
		return nil, errors.New("the text is not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	value, err := decodeValue(d, 0)
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("something follows the JSON value at byte %d", d.InputOffset())
	}
	return value, nil
}

func decodeValue(d *json.Decoder, depth int) (any, error) {
	token, err := d.Token()
	if err != nil {
		return nil, notJSON(d)
	}
	if depth > maxNesting {
		return nil, fmt.Errorf("values are nested too deeply at byte %d", d.InputOffset())
	}
	switch token {
	case json.Delim('{'):
		return decodeObject(d, depth)
	case json.Delim('['):
		return decodeArray(d, depth)
	}
	return token, nil
}

func decodeObject(d *json.Decoder, depth int) (any, error) {
	members := object{}
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return nil, notJSON(d)
		}
		name, ok := token.(string)
		if !ok {
			return nil, notJSON(d)
		}
		if _, taken := members[name]; taken {
			return nil, fmt.Errorf("member %q is there twice at byte %d", clip(name, 64), d.InputOffset())
		}
		if members[name], err = decodeValue(d, depth+1); err != nil {
			return nil, err
		}
	}
	if _, err := d.Token(); err != nil {
		return nil, notJSON(d)
	}
	return members, nil
}

func decodeArray(d *json.Decoder, depth int) (any, error) {
	values := []any{}
	for d.More() {
		value, err := decodeValue(d, depth+1)
		if err != nil {
			return nil, err
		}
		values = append(values, value)
	}
	if _, err := d.Token(); err != nil {
		return nil, notJSON(d)
	}
	return values, nil
}

func notJSON(d *json.Decoder) error {
	return fmt.Errorf("the text is not JSON after byte %d", d.InputOffset())
}
