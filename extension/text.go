package extension

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

const ellipsis = "…"

// clean makes text fit for a portal and a terminal: valid UTF-8, with blanks
// for line breaks and tabs and without other control or format characters.
func clean(text string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		switch {
		case r == '\n', r == '\r', r == '\t':
			return ' '
		case unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp):
			return -1
		default:
			return r
		}
	}, strings.ToValidUTF8(text, "\uFFFD")))
}

// shorten cuts text to at most limit bytes, between two runes, with an ellipsis
// for what is gone.
func shorten(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	end := max(limit-len(ellipsis), 0)
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + ellipsis
}
