package transform

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Kinds of secrets that can be redacted, by the words of the settings.
const (
	RedactKeys      = "keys"      // account and access keys, SAS signatures, private keys
	RedactTokens    = "tokens"    // bearer and JSON web tokens, tokens of code hosts and chats
	RedactPasswords = "passwords" // what follows a word for a password
	RedactCards     = "cards"     // payment card numbers
)

// RedactKinds lists every kind.
func RedactKinds() []string { return []string{RedactKeys, RedactTokens, RedactPasswords, RedactCards} }

// hits counts what was redacted, by kind.
type hits map[string]int64

// A Redactor replaces secrets in the texts of rows. It is for one source.
type Redactor struct {
	patterns []pattern
}

// A pattern is one form of secret. What its first group matches is replaced, the
// whole match when it has none. Nothing is searched in a text without any of
// the hints.
type pattern struct {
	kind  string
	hints []string
	match *regexp.Regexp
	check func([]byte) bool // nil takes every match
}

// NewRedactor returns a redactor for the kinds.
func NewRedactor(kinds []string) (*Redactor, error) {
	r := &Redactor{}
	for _, kind := range kinds {
		if !slices.Contains(RedactKinds(), kind) {
			return nil, fmt.Errorf("read redaction: %q is no kind; use %s", kind, strings.Join(RedactKinds(), ", "))
		}
	}
	for _, p := range patterns() {
		if slices.Contains(kinds, p.kind) {
			r.patterns = append(r.patterns, p)
		}
	}
	return r, nil
}

// begin is what may stand before a secret: the beginning, a line feed or tab as
// JSON writes them, or anything that does not go on with a word.
const begin = `(?:^|\\[nrt]|[^0-9A-Za-z.+/-])`

// patterns are matched against JSON text: a line feed is the two characters \n
// and a quote is \".
func patterns() []pattern {
	return []pattern{
		{kind: RedactKeys, hints: []string{"PRIVATE KEY"}, match: regexp.MustCompile(`-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----(?:[^"]*?-----END (?:[A-Z]+ )*PRIVATE KEY-----|(?:[A-Za-z0-9+/=: -]|\\[nr])*)`)},
		{kind: RedactKeys, hints: []string{"Key=", "key=", "KEY="}, match: regexp.MustCompile(`(?i)(?:account|access|shared|primary|secondary|subscription|workspace|storage|api|signature)[_-]?(?:access)?[_-]?key=([A-Za-z0-9+/_-]{20,}={0,2})`)},
		{kind: RedactKeys, hints: []string{"=="}, match: regexp.MustCompile(begin + `([A-Za-z0-9+/]{86}==)`)},
		{kind: RedactKeys, hints: []string{"sig="}, match: regexp.MustCompile(`[?&;]sig=([A-Za-z0-9%+/]{40,}(?:=|%3[Dd])*)`)},
		{kind: RedactKeys, hints: []string{"AKIA", "ASIA"}, match: regexp.MustCompile(begin + `((?:AKIA|ASIA)[0-9A-Z]{16})\b`)},
		{kind: RedactTokens, hints: []string{"eyJ"}, match: regexp.MustCompile(begin + `(eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,})`)},
		{kind: RedactTokens, hints: []string{"earer ", "EARER "}, match: regexp.MustCompile(begin + `(?i:bearer) +([A-Za-z0-9._~+/-]{16,}=*)`)},
		{kind: RedactTokens, hints: []string{"ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"}, match: regexp.MustCompile(begin + `(gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{40,})`)},
		{kind: RedactTokens, hints: []string{"xox"}, match: regexp.MustCompile(begin + `(xox[abeoprs]-[A-Za-z0-9-]{10,})`)},
		{kind: RedactPasswords, hints: []string{"ass", "ASS", "wd", "WD", "ecret", "ECRET"}, match: regexp.MustCompile(`(?i)(?:password|passwd|passphrase|pwd|secret)(?:\\")?\s*[=:]\s*(?:\\")?([^\s"\\,;&]+)`)},
		{kind: RedactPasswords, hints: []string{"://"}, match: regexp.MustCompile(`://[^\s"/:@]+:([^\s"/@]+)@`)},
		{kind: RedactCards, match: regexp.MustCompile(begin + `([2-6][0-9]{3}(?:[ -]?[0-9]){9,15})`), check: isCard},
	}
}

// rows returns rows with every secret replaced, and how many there were. Only
// values are changed: no pattern reaches over a quote, and no name of a column
// is like a secret.
func (r *Redactor) rows(rows []byte) ([]byte, hits) {
	var found hits
	for i := range r.patterns {
		p := &r.patterns[i]
		if !p.hinted(rows) {
			continue
		}
		var n int64
		if rows, n = r.replace(p, rows); n > 0 {
			if found == nil {
				found = hits{}
			}
			found[p.kind] += n
		}
	}
	return rows, found
}

func (p *pattern) hinted(rows []byte) bool {
	return len(p.hints) == 0 || slices.ContainsFunc(p.hints, func(h string) bool { return bytes.Contains(rows, []byte(h)) })
}

func (r *Redactor) replace(p *pattern, rows []byte) ([]byte, int64) {
	var out []byte
	var n int64
	done, from := 0, 0
	for {
		at := p.match.FindSubmatchIndex(rows[from:])
		if at == nil {
			break
		}
		group := at[len(at)-2:]
		begin, end := from+group[0], from+group[1]
		from = end
		if p.check != nil && !p.check(rows[begin:end]) {
			continue
		}
		out = append(out, rows[done:begin]...)
		out = append(append(append(out, "[redacted "...), strings.TrimSuffix(p.kind, "s")...), ']')
		done = end
		n++
	}
	if n == 0 {
		return rows, 0
	}
	return append(out, rows[done:]...), n
}

// isCard tells whether digits, with or without blanks and dashes, are the number
// of a payment card: 13 to 19 of them, with the right check digit (ISO/IEC
// 7812-1, annex B).
func isCard(text []byte) bool {
	sum, n := 0, 0
	for _, c := range slices.Backward(text) {
		if c < '0' || c > '9' {
			continue
		}
		digit := int(c - '0')
		if n%2 == 1 {
			if digit *= 2; digit > 9 {
				digit -= 9
			}
		}
		sum += digit
		n++
	}
	return n >= 13 && n <= 19 && sum%10 == 0
}
