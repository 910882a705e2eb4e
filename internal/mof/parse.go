package mof

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A parser takes a document apart from its beginning. It never goes back, and
// nothing in it recurses: MOF has no arrays of arrays, and instances within
// instances are referred to by alias.
type parser struct {
	rest     []byte
	line     int
	elements int
}

var errEnd = errors.New("the document ends too early")

func (p *parser) document() ([]*Instance, error) {
	var all []*Instance
	for {
		if err := p.space(); err != nil {
			return nil, err
		}
		if len(p.rest) == 0 {
			return all, nil
		}
		if len(all) == maxInstances {
			return nil, fmt.Errorf("there are more than %d instances", maxInstances)
		}
		i, err := p.instance()
		if err != nil {
			return nil, err
		}
		all = append(all, i)
	}
}

// space skips white space, comments and compiler directives.
func (p *parser) space() error {
	for len(p.rest) > 0 {
		switch c := p.rest[0]; {
		case c == '\n':
			p.line++
			p.rest = p.rest[1:]
		case c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v':
			p.rest = p.rest[1:]
		case c == '#', bytes.HasPrefix(p.rest, []byte("//")):
			end := bytes.IndexByte(p.rest, '\n')
			if end < 0 {
				end = len(p.rest)
			}
			p.rest = p.rest[end:]
		case bytes.HasPrefix(p.rest, []byte("/*")):
			end := bytes.Index(p.rest[2:], []byte("*/"))
			if end < 0 {
				return errors.New("a comment has no end")
			}
			p.line += bytes.Count(p.rest[:end+2], []byte("\n"))
			p.rest = p.rest[end+4:]
		default:
			return nil
		}
	}
	return nil
}

// mark takes one character that has to come next.
func (p *parser) mark(c byte) error {
	found, err := p.found(c)
	if err == nil && !found {
		err = fmt.Errorf("there is no %q where one belongs", string(c))
		if len(p.rest) == 0 {
			err = errEnd
		}
	}
	return err
}

// found takes one character if it comes next.
func (p *parser) found(c byte) (bool, error) {
	if err := p.space(); err != nil {
		return false, err
	}
	if len(p.rest) == 0 || p.rest[0] != c {
		return false, nil
	}
	p.rest = p.rest[1:]
	return true, nil
}

// maxName is the most that a name has, in bytes.
const maxName = 256

// name takes the name that has to come next.
func (p *parser) name() (string, error) {
	if err := p.space(); err != nil {
		return "", err
	}
	n := 0
	for n < len(p.rest) && letter(p.rest[n], n > 0) {
		n++
	}
	switch {
	case len(p.rest) == 0:
		return "", errEnd
	case n == 0 || n > maxName:
		return "", errors.New("there is no name where one belongs")
	}
	name := string(p.rest[:n])
	p.rest = p.rest[n:]
	return name, nil
}

func letter(c byte, within bool) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || within && c >= '0' && c <= '9'
}

// word takes the word that has to come next.
func (p *parser) word(want string) error {
	name, err := p.name()
	if err == nil && !strings.EqualFold(name, want) {
		err = fmt.Errorf("there is no %q where it belongs", want)
	}
	return err
}

// instance takes one instance, as in: instance of Class as $Alias { name = value; };.
func (p *parser) instance() (*Instance, error) {
	i := &Instance{Line: p.line, properties: map[string]value{}}
	if err := p.word("instance"); err != nil {
		return nil, err
	}
	if err := p.word("of"); err != nil {
		return nil, err
	}
	var err error
	if i.Class, err = p.name(); err != nil {
		return nil, err
	}
	opened, err := p.found('{')
	if err == nil && !opened {
		i.alias, err = p.alias()
	}
	if err != nil {
		return nil, err
	}
	for {
		closed, err := p.found('}')
		if err != nil {
			return nil, err
		}
		if closed {
			return i, p.mark(';')
		}
		if err := p.property(i); err != nil {
			return nil, err
		}
	}
}

// alias takes as $Alias and the brace after it.
func (p *parser) alias() (string, error) {
	if err := p.word("as"); err != nil {
		return "", err
	}
	if err := p.mark('$'); err != nil {
		return "", err
	}
	alias, err := p.name()
	if err == nil {
		err = p.mark('{')
	}
	return alias, err
}

func (p *parser) property(i *Instance) error {
	name, err := p.name()
	if err == nil {
		err = p.mark('=')
	}
	if err != nil {
		return err
	}
	name = strings.ToLower(name)
	if _, twice := i.properties[name]; twice {
		return errors.New("an instance has a property twice")
	}
	if i.properties[name], err = p.valueOrArray(); err != nil {
		return err
	}
	return p.mark(';')
}

func (p *parser) valueOrArray() (value, error) {
	array, err := p.found('{')
	if err != nil {
		return nil, err
	}
	if !array {
		return p.value()
	}
	list := []value{}
	closed, err := p.found('}')
	for err == nil && !closed {
		var v value
		if v, err = p.value(); err != nil {
			return nil, err
		}
		list = append(list, v)
		if closed, err = p.found('}'); err == nil && !closed {
			err = p.mark(',')
		}
	}
	return list, err
}

func (p *parser) value() (value, error) {
	if p.elements++; p.elements > maxElements {
		return nil, fmt.Errorf("there are more than %d values", maxElements)
	}
	if err := p.space(); err != nil {
		return nil, err
	}
	if len(p.rest) == 0 {
		return nil, errEnd
	}
	switch c := p.rest[0]; {
	case c == '"':
		return p.text()
	case c == '$':
		p.rest = p.rest[1:]
		alias, err := p.name()
		return reference(alias), err
	case letter(c, false):
		return p.constant()
	}
	return p.number()
}

func (p *parser) constant() (value, error) {
	word, err := p.name()
	if err != nil {
		return nil, err
	}
	switch strings.ToLower(word) {
	case "true":
		return true, nil
	case "false":
		return false, nil
	case "null":
		return nil, nil
	}
	return nil, errors.New("a value is no text, number, True, False, NULL or $alias")
}

// number takes a whole number, decimal or with 0x, or one with a fraction.
func (p *parser) number() (value, error) {
	n := 0
	for n < len(p.rest) && n < 64 && (p.rest[n] == '+' || p.rest[n] == '-' || p.rest[n] == '.' || letter(p.rest[n], true)) {
		n++
	}
	text := string(p.rest[:n])
	p.rest = p.rest[n:]
	sign, digits := "", strings.TrimLeft(text, "+-")
	if len(text)-len(digits) == 1 && text[0] == '-' {
		sign = "-"
	}
	base := 10
	if hex, ok := strings.CutPrefix(strings.ToLower(digits), "0x"); ok {
		base, digits = 16, hex
	}
	if whole, err := strconv.ParseInt(sign+digits, base, 64); err == nil && len(text)-len(digits) <= 3 {
		return whole, nil
	}
	real, err := strconv.ParseFloat(text, 64)
	if err != nil || strings.ContainsAny(text, "_xXnN") { // Go knows 1_0, 0x1p-2, NaN and Inf
		return nil, errors.New("a value is no text, number, True, False, NULL or $alias")
	}
	return real, nil
}

// text takes a text; several in a row are one.
func (p *parser) text() (value, error) {
	var b []byte
	for {
		p.rest = p.rest[1:] // the quote
		for {
			n := bytes.IndexAny(p.rest, "\"\\\n")
			if n < 0 {
				return nil, errors.New("a text has no end")
			}
			b = append(b, p.rest[:n]...)
			c := p.rest[n]
			p.rest = p.rest[n+1:]
			if c == '"' {
				break
			}
			if c == '\n' {
				p.line++
				b = append(b, c)
				continue
			}
			b = p.escape(b)
		}
		if err := p.space(); err != nil {
			return nil, err
		}
		if len(p.rest) == 0 || p.rest[0] != '"' {
			return strings.ToValidUTF8(string(b), "\uFFFD"), nil
		}
	}
}

var escapes = map[byte]byte{'b': '\b', 't': '\t', 'n': '\n', 'f': '\f', 'r': '\r', '"': '"', '\'': '\'', '\\': '\\'}

// escape takes what follows a backslash. One that escapes nothing stands for
// itself.
func (p *parser) escape(b []byte) []byte {
	if len(p.rest) == 0 {
		return b
	}
	c := p.rest[0]
	if plain, ok := escapes[c]; ok {
		p.rest = p.rest[1:]
		return append(b, plain)
	}
	if c == 'x' || c == 'X' {
		n := 1
		for n < len(p.rest) && n <= 4 && strings.IndexByte("0123456789abcdefABCDEF", p.rest[n]) >= 0 {
			n++
		}
		if code, err := strconv.ParseUint(string(p.rest[1:n]), 16, 32); err == nil {
			p.rest = p.rest[n:]
			return utf8.AppendRune(b, rune(code))
		}
	}
	return append(b, '\\')
}
