package record

import (
	"encoding/binary"
	"math/bits"
	"slices"
	"time"
	"unicode/utf8"
)

// AppendText appends s as a JSON string with its quotes. Quote, backslash and
// control characters are escaped, every byte that is not part of valid UTF-8
// becomes U+FFFD, and all else is copied as it is.
func AppendText(dst, s []byte) []byte {
	i, j := 0, len(dst)
	out := stretch(dst, len(s))
	out[j] = '"'
	j++
	for {
		// Eight bytes at a time, up to the first that needs a closer look.
		for i+8 <= len(s) {
			word := binary.LittleEndian.Uint64(s[i:])
			binary.LittleEndian.PutUint64(out[j:], word)
			if special := specialBytes(word); special != 0 {
				clean := bits.TrailingZeros64(special) / 8
				i, j = i+clean, j+clean
				break
			}
			i, j = i+8, j+8
		}
		if i == len(s) {
			break
		}
		switch c := s[i]; {
		case c == '"' || c == '\\':
			out[j], out[j+1] = '\\', c
			i, j = i+1, j+2
		case c >= utf8.RuneSelf:
			n := 0
			out, n = appendRunes(out[:j], s[i:])
			i, j = i+n, len(out)
		case c < ' ':
			out = appendControl(out[:j], c)
			i, j = i+1, len(out)
		default: // plain: fewer than eight bytes are left
			out[j] = c
			i, j = i+1, j+1
		}
		out = stretch(out[:j], len(s)-i)
	}
	out[j] = '"'
	return out[:j+1]
}

// stretch makes room behind b for n bytes, and for what AppendText writes
// besides: an escape, a quote, a whole word where one byte is meant. It
// returns b with all its capacity.
func stretch(b []byte, n int) []byte {
	const slack = 16
	if cap(b)-len(b) < n+slack {
		b = slices.Grow(b, n+slack)
	}
	return b[:cap(b)]
}

// specialBytes sets the high bit of each byte of word that is not plain. Only
// the lowest such bit is exact; bytes above it may be flagged wrongly.
func specialBytes(word uint64) uint64 {
	const low, high = 0x0101010101010101, 0x8080808080808080
	quote := word ^ low*'"'
	slash := word ^ low*'\\'
	return (word | (word - low*' ') | (quote - low) | (slash - low)) & high
}

// appendControl appends the escape of a control character.
func appendControl(dst []byte, c byte) []byte {
	const hex = "0123456789abcdef"
	switch c {
	case '\b':
		return append(dst, `\b`...)
	case '\t':
		return append(dst, `\t`...)
	case '\n':
		return append(dst, `\n`...)
	case '\f':
		return append(dst, `\f`...)
	case '\r':
		return append(dst, `\r`...)
	}
	return append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
}

// appendRunes copies the bytes of s before the next ASCII character, with
// U+FFFD for each byte that is not part of valid UTF-8, and returns how many
// bytes of s those are.
func appendRunes(dst, s []byte) ([]byte, int) {
	copied, n := 0, 0
	for n < len(s) && s[n] >= utf8.RuneSelf {
		r, size := utf8.DecodeRune(s[n:])
		if r == utf8.RuneError && size == 1 {
			dst = append(append(dst, s[copied:n]...), "\uFFFD"...)
			copied = n + 1
		}
		n += size
	}
	return append(dst, s[copied:n]...), n
}

// AppendTime appends t as the JSON string "YYYY-MM-DDThh:mm:ss.mmmZ", in UTC,
// the form of every time in a body. Years are kept within 0 to 9999.
func AppendTime(dst []byte, t time.Time) []byte {
	t = t.UTC()
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	dst = append(dst, '"')
	dst = appendDigits(dst, min(max(year, 0), 9999), 4)
	dst = appendDigits(append(dst, '-'), int(month), 2)
	dst = appendDigits(append(dst, '-'), day, 2)
	dst = appendDigits(append(dst, 'T'), hour, 2)
	dst = appendDigits(append(dst, ':'), minute, 2)
	dst = appendDigits(append(dst, ':'), second, 2)
	dst = appendDigits(append(dst, '.'), t.Nanosecond()/1e6, 3)
	return append(dst, 'Z', '"')
}

// appendDigits appends n as width decimal digits.
func appendDigits(dst []byte, n, width int) []byte {
	dst = append(dst, "0000"[:width]...)
	for i := len(dst) - 1; n > 0; i-- {
		dst[i] += byte(n % 10)
		n /= 10
	}
	return dst
}
