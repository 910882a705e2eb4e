package extension

import (
	"errors"
	"fmt"
)

// Bounds on what readBER takes: an envelope nests 11 deep, and one of the
// greatest size cut into pieces of 64 bytes has about 4,000 elements.
const (
	berMaxDepth    = 32
	berMaxElements = 16 << 10
)

// Identifier octets (X.690 §8.1.2): class, constructed bit and number.
const (
	tagInteger     = 0x02
	tagOctetString = 0x04
	tagOID         = 0x06
	tagSequence    = 0x30
	tagSet         = 0x31
	tagConstructed = 0x20
	tagContext     = 0x80 // context-specific 0; or it with the number
)

// An element is one value in BER. DER is read as the special case it is.
type element struct {
	tag   byte
	raw   []byte    // the whole encoding
	body  []byte    // content of a primitive element
	parts []element // content of a constructed element
}

// readBER reads exactly one element that fills data: definite and indefinite
// lengths, tag numbers below 31.
func readBER(data []byte) (element, error) {
	r := berReader{left: berMaxElements}
	e, rest, err := r.element(data, 0)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%d bytes follow its end", len(rest))
	}
	return e, err
}

type berReader struct{ left int }

var errBERShort = errors.New("it is cut short")

func (r *berReader) element(data []byte, depth int) (e element, rest []byte, err error) {
	if r.left--; r.left < 0 || depth > berMaxDepth {
		return e, nil, errors.New("it has more parts than any real one")
	}
	if len(data) < 2 {
		return e, nil, errBERShort
	}
	e.tag = data[0]
	if e.tag&0x1f == 0x1f || e.tag == 0 {
		return e, nil, fmt.Errorf("it has an element with tag %#02x", e.tag)
	}
	length, header, err := berLength(data)
	if err != nil {
		return e, nil, err
	}
	constructed := e.tag&tagConstructed != 0
	if length == indefinite {
		if !constructed {
			return e, nil, errors.New("it has a primitive element of indefinite length")
		}
		e.parts, rest, err = r.partsToEnd(data[header:], depth+1)
		e.raw = data[:len(data)-len(rest)]
		return e, rest, err
	}
	if length > len(data)-header {
		return e, nil, errBERShort
	}
	end := header + length
	e.raw, rest = data[:end], data[end:]
	if !constructed {
		e.body = data[header:end]
		return e, rest, nil
	}
	for inner := data[header:end]; len(inner) > 0; {
		var part element
		if part, inner, err = r.element(inner, depth+1); err != nil {
			return e, nil, err
		}
		e.parts = append(e.parts, part)
	}
	return e, rest, nil
}

// partsToEnd reads elements up to the end-of-contents octets.
func (r *berReader) partsToEnd(data []byte, depth int) (parts []element, rest []byte, err error) {
	for {
		if len(data) >= 2 && data[0] == 0 && data[1] == 0 {
			return parts, data[2:], nil
		}
		var part element
		if part, data, err = r.element(data, depth); err != nil {
			return nil, nil, err
		}
		parts = append(parts, part)
	}
}

// indefinite stands for a length that end-of-contents octets will tell.
const indefinite = -1

// berLength reads the length octets after one identifier octet and returns
// the content's length and where the content begins.
func berLength(data []byte) (length, header int, err error) {
	first := data[1]
	switch {
	case first < 0x80:
		return int(first), 2, nil
	case first == 0x80:
		return indefinite, 2, nil
	case first > 0x84:
		return 0, 0, errors.New("it has an element longer than any real one")
	}
	header = 2 + int(first&0x7f)
	if len(data) < header {
		return 0, 0, errBERShort
	}
	n := uint32(0)
	for _, b := range data[2:header] {
		n = n<<8 | uint32(b)
	}
	if int64(n) > int64(len(data)-header) {
		return 0, 0, errBERShort
	}
	return int(n), header, nil
}

// part returns the i-th part if it is there and has the tag.
func (e element) part(i int, tag byte) (element, bool) {
	if i >= len(e.parts) || e.parts[i].tag != tag {
		return element{}, false
	}
	return e.parts[i], true
}

// octets returns the content of an octet string, primitive or in parts. tag is
// the identifier of its primitive form.
func (e element) octets(tag byte) ([]byte, bool) {
	switch e.tag {
	case tag:
		return e.body, true
	case tag | tagConstructed:
		var all []byte
		for _, part := range e.parts {
			piece, ok := part.octets(tagOctetString)
			if !ok {
				return nil, false
			}
			all = append(all, piece...)
		}
		return all, true
	default:
		return nil, false
	}
}
