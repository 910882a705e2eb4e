package emulator

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
)

// namespace is that of every document of the agent service.
const namespace = "http://schemas.microsoft.com/WorkloadMonitoring/HealthServiceProtocol/2014/09/"

// prolog is how every document begins, byte for byte.
const prolog = "<?xml version=\"1.0\"?>\n"

// An element is one node of a parsed document.
type element struct {
	name       string
	attributes map[string]string
	text       string // trimmed
	children   []element
}

// maxDepth is deeper than any document of the protocol.
const maxDepth = 8

// parseXML reads a document of the agent service: the prolog, then one root
// with everything in the namespace, elements with text or children, no
// directives, no comments, nothing afterwards.
func parseXML(body []byte) (element, error) {
	rest, ok := bytes.CutPrefix(body, []byte(prolog))
	if !ok {
		return element{}, fmt.Errorf("body does not begin with %q", prolog)
	}
	d := xml.NewDecoder(bytes.NewReader(rest))
	token, err := d.Token()
	if err != nil {
		return element{}, fmt.Errorf("body has no root element: %w", err)
	}
	start, ok := token.(xml.StartElement)
	if !ok {
		return element{}, errors.New("the prolog is not followed by the root element")
	}
	root, err := parseElement(d, start, 1)
	if err != nil {
		return element{}, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return element{}, errors.New("something follows the root element")
	}
	return root, nil
}

func parseElement(d *xml.Decoder, start xml.StartElement, depth int) (element, error) {
	n := element{name: start.Name.Local, attributes: map[string]string{}}
	if start.Name.Space != namespace {
		return n, fmt.Errorf("element %s is in namespace %q", n.name, start.Name.Space)
	}
	if depth > maxDepth {
		return n, errors.New("elements are nested too deeply")
	}
	for _, a := range start.Attr {
		if _, ok := n.attributes[a.Name.Local]; ok {
			return n, fmt.Errorf("element %s has attribute %s twice", n.name, a.Name.Local)
		}
		if a.Name.Space != "xmlns" && a.Name.Local != "xmlns" {
			n.attributes[a.Name.Local] = a.Value
		}
	}
	var text strings.Builder
	for {
		token, err := d.Token()
		if err != nil {
			return n, fmt.Errorf("element %s: %w", n.name, err)
		}
		switch t := token.(type) {
		case xml.StartElement:
			child, err := parseElement(d, t, depth+1)
			if err != nil {
				return n, err
			}
			n.children = append(n.children, child)
		case xml.CharData:
			text.Write(t)
		case xml.EndElement:
			n.text = strings.TrimSpace(text.String())
			if n.text != "" && len(n.children) > 0 {
				return n, fmt.Errorf("element %s has text between its children", n.name)
			}
			return n, nil
		default:
			return n, fmt.Errorf("element %s holds a %T", n.name, token)
		}
	}
}

// child returns the child with that name, or nil.
func (n element) child(name string) *element {
	for i := range n.children {
		if n.children[i].name == name {
			return &n.children[i]
		}
	}
	return nil
}

// inOrder checks that the children are among names, each once, in that order,
// and that none has attributes unless attributed says so.
func (n element) inOrder(names []string, attributed string) error {
	next := 0
	for _, child := range n.children {
		at := next
		for at < len(names) && names[at] != child.name {
			at++
		}
		if at == len(names) {
			return fmt.Errorf("element %s in %s is unknown, repeated or out of order (%s)", child.name, n.name, strings.Join(names, ", "))
		}
		if len(child.attributes) > 0 && child.name != attributed {
			return fmt.Errorf("element %s has attributes", child.name)
		}
		next = at + 1
	}
	return nil
}
