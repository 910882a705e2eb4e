// Package secret holds values that must never be printed.
package secret

import (
	"encoding/json"
	"fmt"
)

// mask is what every printing of a Secret shows.
const mask = "***"

// A Secret is text that prints as *** whatever prints it: fmt with any verb,
// JSON, a logger. Only Reveal gives it away, so a search for Reveal finds
// every place where a secret can leave the process. The zero Secret is empty.
//
// The text is behind a pointer because fmt cannot call the methods of a value
// in an unexported field, and would print what is in it.
type Secret struct{ text *string }

// New makes a secret of text.
func New(text string) Secret { return Secret{&text} }

// Reveal returns the text itself. The caller keeps it out of argv, the
// environment, URLs, logs and files that others can read.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// IsZero reports whether there is no secret.
func (s Secret) IsZero() bool { return s.Reveal() == "" }

// String returns ***.
func (s Secret) String() string { return mask }

// GoString returns ***, for %#v.
func (s Secret) GoString() string { return mask }

// Format prints *** for every verb.
func (s Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, mask) }

// MarshalJSON writes "***": what is saved by accident is not the secret.
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(mask) }

// MarshalText writes ***.
func (s Secret) MarshalText() ([]byte, error) { return []byte(mask), nil }

// UnmarshalJSON reads a JSON string. Its error names the JSON type found,
// never the value.
func (s *Secret) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return fmt.Errorf("read secret: not a JSON string")
	}
	s.text = &text
	return nil
}
