package logfile

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/openloganalytics/agent/internal/secret"
)

const (
	mask = "***"
	// minSecret is the shortest secret that is looked for, in bytes. To mask
	// a shorter one would spoil ordinary words, and tell by that what it is.
	minSecret = 4
)

// scrubber replaces secrets in text.
type scrubber struct {
	mu       sync.Mutex
	forms    []string // longest first
	replacer *strings.Replacer
}

func (s *scrubber) add(hidden secret.Secret) {
	text := hidden.Reveal()
	if len(text) < minSecret {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	all := append(s.forms, forms(text)...)
	slices.SortFunc(all, func(a, b string) int {
		if len(a) != len(b) {
			return len(b) - len(a)
		}
		return strings.Compare(a, b)
	})
	s.forms = slices.Compact(all)
	pairs := make([]string, 0, 2*len(s.forms))
	for _, form := range s.forms {
		pairs = append(pairs, form, mask)
	}
	s.replacer = strings.NewReplacer(pairs...)
}

// hide returns text without secrets.
func (s *scrubber) hide(text string) string {
	s.mu.Lock()
	replacer := s.replacer
	s.mu.Unlock()
	if replacer == nil {
		return text
	}
	return replacer.Replace(text)
}

// forms lists the spellings under which a secret can turn up.
func forms(text string) []string {
	all := []string{
		text,
		inner(strconv.Quote(text)),
		url.QueryEscape(text),
		url.PathEscape(text),
		url.UserPassword("", text).String()[1:],
	}
	plain, html := jsonForms(text)
	all = append(all, plain, html, strings.ReplaceAll(plain, "/", `\/`))
	for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
		all = append(all, encoding.EncodeToString([]byte(text)))
		for before := range 3 {
			all = append(all, base64Inside(encoding, text, before))
		}
	}
	return slices.DeleteFunc(all, func(form string) bool { return len(form) < minSecret })
}

// base64Inside is the part of the base64 text of something longer that stands
// for the secret alone, when before bytes (modulo 3) precede it: how
// a password looks in a Basic authorization.
func base64Inside(encoding *base64.Encoding, text string, before int) string {
	encoded := encoding.EncodeToString(append(make([]byte, before), text...))
	first := (before*8 + 5) / 6
	end := (before + len(text)) * 8 / 6
	return encoded[first:end]
}

// jsonForms is the text in a JSON string, with < > & as they are and escaped.
func jsonForms(text string) (plain, html string) {
	var buf bytes.Buffer
	encoder := json.NewEncoder(&buf)
	encoder.SetEscapeHTML(false)
	// Encoding a string into memory cannot fail.
	_ = encoder.Encode(text)
	plain = inner(strings.TrimSuffix(buf.String(), "\n"))
	buf.Reset()
	json.HTMLEscape(&buf, []byte(plain))
	return plain, buf.String()
}

// inner strips the quotes.
func inner(quoted string) string { return quoted[1 : len(quoted)-1] }
