// Package mof reads the instances in a MOF document (DMTF DSP0004), as servers
// of desired configurations write them. Classes are not declared in such a
// document, so none are checked.
package mof

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode/utf16"
)

// Bounds of a document; one beyond them is an error.
const (
	MaxDocument  = 4 << 20 // bytes
	maxInstances = 10_000
	maxElements  = 100_000 // values of all properties and arrays together
)

// An Instance is one "instance of". Names of classes and properties know no
// case.
type Instance struct {
	Class string
	Line  int // where it begins

	alias      string
	properties map[string]value // by the name in lower case
}

// A value is nil for NULL, or a string, int64, float64, bool, *Instance or
// []value.
type value any

// reference is an alias until Parse has found its instance.
type reference string

// Is reports whether the instance is of the class.
func (i *Instance) Is(class string) bool { return strings.EqualFold(i.Class, class) }

func (i *Instance) get(name string) value { return i.properties[strings.ToLower(name)] }

// Text returns a property that is a text, "" when it is not there or NULL.
func (i *Instance) Text(name string) (string, error) { return read(i, name, "a text", "") }

// Boolean returns a property that is True or False; absent when it is not
// there or NULL.
func (i *Instance) Boolean(name string, absent bool) (bool, error) {
	return read(i, name, "True or False", absent)
}

// Integer returns a property that is a whole number; absent when it is not
// there or NULL.
func (i *Instance) Integer(name string, absent int64) (int64, error) {
	return read(i, name, "a whole number", absent)
}

// Texts returns a property that is an array of texts. One text is an array of
// one. given says that the property is there and not NULL.
func (i *Instance) Texts(name string) (list []string, given bool, err error) {
	return readAll[string](i, name, "texts")
}

// Instances returns a property that is an array of instances, as Texts does.
func (i *Instance) Instances(name string) (list []*Instance, given bool, err error) {
	return readAll[*Instance](i, name, "instances")
}

func read[T any](i *Instance, name, want string, absent T) (T, error) {
	v := i.get(name)
	if v == nil {
		return absent, nil
	}
	typed, ok := v.(T)
	if !ok {
		return absent, fmt.Errorf("%s of the %s in line %d is not %s", name, i.Class, i.Line, want)
	}
	return typed, nil
}

func readAll[T any](i *Instance, name, want string) (list []T, given bool, err error) {
	v := i.get(name)
	if v == nil {
		return nil, false, nil
	}
	elements, ok := v.([]value)
	if !ok {
		elements = []value{v}
	}
	for _, e := range elements {
		typed, ok := e.(T)
		if !ok {
			return nil, true, fmt.Errorf("%s of the %s in line %d is not an array of %s", name, i.Class, i.Line, want)
		}
		list = append(list, typed)
	}
	return list, true, nil
}

// Parse reads a document in UTF-8, or in UTF-16 with a byte order mark, and
// returns its instances in their order. Its errors have a line number and
// quote nothing.
func Parse(document []byte) ([]*Instance, error) {
	if len(document) > MaxDocument {
		return nil, fmt.Errorf("read MOF document: it has %d bytes, %d are allowed", len(document), MaxDocument)
	}
	text, err := decode(document)
	if err != nil {
		return nil, fmt.Errorf("read MOF document: %w", err)
	}
	p := &parser{rest: text, line: 1}
	instances, err := p.document()
	if err != nil {
		return nil, fmt.Errorf("read MOF document: line %d: %w", p.line, err)
	}
	if err := resolve(instances); err != nil {
		return nil, fmt.Errorf("read MOF document: %w", err)
	}
	return instances, nil
}

// decode returns the document in UTF-8, without a byte order mark.
func decode(document []byte) ([]byte, error) {
	var order binary.ByteOrder
	switch {
	case bytes.HasPrefix(document, []byte{0xff, 0xfe}):
		order = binary.LittleEndian
	case bytes.HasPrefix(document, []byte{0xfe, 0xff}):
		order = binary.BigEndian
	default:
		return bytes.TrimPrefix(document, []byte("\xef\xbb\xbf")), nil
	}
	document = document[2:]
	if len(document)%2 != 0 {
		return nil, errors.New("its UTF-16 ends within a character")
	}
	units := make([]uint16, len(document)/2)
	for i := range units {
		units[i] = order.Uint16(document[2*i:])
	}
	return []byte(string(utf16.Decode(units))), nil
}

// resolve puts instances in the place of their aliases.
func resolve(instances []*Instance) error {
	named := map[string]*Instance{}
	for _, i := range instances {
		if i.alias == "" {
			continue
		}
		alias := strings.ToLower(i.alias)
		if named[alias] != nil {
			return fmt.Errorf("the instances in lines %d and %d have the same alias", named[alias].Line, i.Line)
		}
		named[alias] = i
	}
	find := func(i *Instance, v value) (value, error) {
		r, ok := v.(reference)
		if !ok {
			return v, nil
		}
		target := named[strings.ToLower(string(r))]
		if target == nil {
			return nil, fmt.Errorf("the %.100q in line %d refers to an alias that no instance has", i.Class, i.Line)
		}
		return target, nil
	}
	for _, i := range instances {
		for name, v := range i.properties {
			var err error
			if list, ok := v.([]value); ok {
				for n := range list {
					if list[n], err = find(i, list[n]); err != nil {
						return err
					}
				}
				continue
			}
			if i.properties[name], err = find(i, v); err != nil {
				return err
			}
		}
	}
	return nil
}
