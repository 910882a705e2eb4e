package syslog

import (
	"bytes"
	"time"
)

// A Message is one syslog message taken apart. The slices are parts of the
// bytes that were parsed, in the order of the fields here, and Text reaches to
// their end. What the message does not have is empty.
type Message struct {
	Facility uint8     // 0 to 23
	Severity uint8     // 0 to 7
	Time     time.Time // zero when the message has none
	Host     []byte
	Ident    []byte // the program's tag without process id
	PID      []byte
	ID       []byte // MSGID of RFC 5424
	Data     []byte // structured data of RFC 5424, as it came
	Text     []byte
}

// Parse takes msg apart. It never fails: what is not found stays empty, and
// what is not understood is part of Text, so nothing is lost.
//
// It reads RFC 5424, and RFC 3164 as it is spoken: without PRI, host or time;
// with a year, a fraction or an ISO 8601 time; with the sequence numbers and
// marks of Cisco devices. A time without a year is given the one that puts it
// nearest to now; a time without a zone is in loc.
func Parse(msg []byte, now time.Time, loc *time.Location, m *Message) {
	msg = trimEnd(msg)
	priority, rest := cutPriority(msg)
	*m = Message{Facility: priority / severities, Severity: priority % severities}
	if parse5424(rest, m) {
		return
	}
	rest = cutHeader(rest, now, loc, m)
	m.Ident, m.PID, m.Text = cutTag(rest)
}

// trimEnd takes off what frames a message on its way: LF, CR LF, NUL.
func trimEnd(msg []byte) []byte {
	n := len(msg)
	for n > 0 && (msg[n-1] == '\n' || msg[n-1] == '\r' || msg[n-1] == 0) {
		n--
	}
	return msg[:n]
}

// cutPriority takes <PRI> off. Without one, or with one beyond 191, the whole
// of msg is left.
func cutPriority(msg []byte) (priority uint8, rest []byte) {
	if len(msg) < len("<1>") || msg[0] != '<' {
		return defaultPriority, msg
	}
	value, n := 0, 1
	for n < len(msg) && n < len("<191") && isDigit(msg[n]) {
		value = 10*value + int(msg[n]-'0')
		n++
	}
	if n == 1 || n == len(msg) || msg[n] != '>' || value >= facilities*severities {
		return defaultPriority, msg
	}
	return uint8(value), msg[n+1:]
}

// parse5424 reads "1 TIME HOST APP PROCID MSGID DATA [TEXT]" (RFC 5424 §6), or
// changes nothing but m and returns false.
//
// It takes empty fields, and an APP that is a tag of RFC 3164 with its process
// id and colon: rsyslog forwards such tags whole.
func parse5424(msg []byte, m *Message) bool {
	if len(msg) < 2 || msg[0] != '1' || msg[1] != ' ' {
		return false
	}
	rest := msg[2:]
	at, n := parseISO(rest, time.UTC)
	if n == 0 && len(rest) > 0 && rest[0] == '-' {
		n = 1 // no time
	}
	if n == 0 || n == len(rest) || rest[n] != ' ' || n > 10 && rest[10] == ' ' {
		return false
	}
	host, rest := cutToken(rest[n+1:])
	app, rest := cutToken(rest)
	pid, rest := cutToken(rest)
	id, rest := cutToken(rest)
	if rest == nil {
		return false
	}
	m.Time, m.Host, m.PID, m.ID = at, value(host), value(pid), value(id)
	data := structuredData(rest)
	text, tagged := rest[data:], false
	if m.Ident, tagged = value(app), isTag(app); tagged {
		ident, tagPID, left := cutTag(app)
		if len(left) == 0 && (m.PID == nil || tagPID == nil) {
			m.Ident = ident
			if m.PID == nil {
				m.PID = tagPID
			}
		}
	}
	m.Data = value(rest[:data])
	if len(text) > 0 && text[0] == ' ' {
		text = text[1:]
	}
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	if tagged {
		text = trimSpaces(text)
	}
	m.Text = text
	return true
}

// structuredData returns how long the structured data is that rest begins
// with, 0 when there is none that ends.
func structuredData(rest []byte) int {
	if len(rest) > 0 && rest[0] == '-' && (len(rest) == 1 || rest[1] == ' ') {
		return 1
	}
	i := 0
	for i < len(rest) && rest[i] == '[' {
		n := element(rest[i:])
		if n == 0 {
			return 0
		}
		i += n
	}
	if i < len(rest) && rest[i] != ' ' {
		return 0
	}
	return i
}

// element returns the length of [ID NAME="VALUE"…], 0 when it does not end. In
// a value a backslash takes away what the next character means (RFC 5424 §6.3.3).
func element(s []byte) int {
	quoted := false
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '\\' && quoted:
			i++
		case s[i] == '"':
			quoted = !quoted
		case s[i] == ']' && !quoted:
			return i + 1
		}
	}
	return 0
}

// cutHeader takes time and host off the front of a message of RFC 3164. When
// there is no time it takes nothing: then nothing tells a host from a text.
func cutHeader(msg []byte, now time.Time, loc *time.Location, m *Message) []byte {
	rest := trimMarks(cutSequence(msg))
	if len(rest) > 2 && rest[0] == '1' && rest[1] == ' ' && isEpoch(rest[2:]) {
		rest = rest[2:] // Cisco Meraki: a version, but then seconds since 1970
	}
	at, n := parseTime(rest, now, loc)
	if n == 0 {
		return msg
	}
	m.Time = at
	rest = rest[n:]
	if rest = cutZone(rest, m); len(rest) > 0 && rest[0] == ':' {
		return trimSpaces(rest[1:]) // Cisco: the tag is next
	}
	rest = trimSpaces(rest)
	if len(rest) > 0 && rest[0] == 'l' && bytes.HasPrefix(rest, []byte("last message repeated ")) {
		return rest // syslogd's own words, without a host
	}
	host, after := cutToken(rest)
	if after == nil || !isHost(host) {
		return rest
	}
	m.Host = host
	after = trimSpaces(after)
	if colon, ok := bytes.CutPrefix(after, []byte(": ")); ok {
		after = trimSpaces(colon) // Cisco ASA: "host : %ASA-…"
	}
	return after
}

// cutSequence takes "45: " off, the message number that Cisco devices send.
func cutSequence(msg []byte) []byte {
	n := 0
	for n < len(msg) && isDigit(msg[n]) {
		n++
	}
	if n > 0 && n < len(msg)-1 && msg[n] == ':' && msg[n+1] == ' ' {
		return msg[n+2:]
	}
	return msg
}

// cutZone takes " UTC" off when a colon follows, as Cisco devices write it. Of
// other zones the name is all that is known, so the time stays in loc.
func cutZone(rest []byte, m *Message) []byte {
	if len(rest) < 5 || rest[0] != ' ' {
		return rest
	}
	n := 1
	for n < len(rest) && n < 6 && rest[n] >= 'A' && rest[n] <= 'Z' {
		n++
	}
	if n < 4 || n == len(rest) || rest[n] != ':' {
		return rest
	}
	if zone := string(rest[1:n]); zone == "UTC" || zone == "GMT" {
		t := m.Time
		m.Time = time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
	}
	return rest[n:]
}

// cutTag takes the program's tag off a text: "ident:", "ident[pid]:",
// "ident[pid] " or "[ident]:". Without one of these the text stays whole.
func cutTag(text []byte) (ident, pid, rest []byte) {
	if len(text) > 0 && text[0] == '[' {
		end := bytes.IndexByte(text, ']')
		if end < 2 || end+1 == len(text) || text[end+1] != ':' || bytes.IndexByte(text[:end], ' ') >= 0 {
			return nil, nil, text
		}
		return text[1:end], nil, trimSpaces(text[end+2:])
	}
	n, end := 0, min(len(text), maxTag)
	for n < end && text[n] != ' ' && text[n] != ':' && text[n] != '[' {
		n++
	}
	if n == end {
		return nil, nil, text
	}
	ident = text[:n]
	switch {
	case text[n] == ' ' || !isIdent(ident):
		return nil, nil, text
	case text[n] == '[':
		return cutBrackets(text, n)
	case n+1 < len(text) && text[n+1] != ' ' && !isWord(ident):
		return nil, nil, text // the colon of a time or an address
	case n+1 < len(text) && (text[n+1] == '/' || text[n+1] == '\\'):
		return nil, nil, text // of a URL or a path
	}
	return nonEmpty(ident), nil, trimSpaces(text[n+1:])
}

// maxTag is the longest tag that is looked for, in bytes. RFC 3164 allows 32;
// container and unit names are longer.
const maxTag = 256

// cutBrackets takes the tag off whose first bracket is at n. Of "a[b][c]:" the
// last bracket is the process id.
func cutBrackets(text []byte, n int) (ident, pid, rest []byte) {
	head := text[:min(len(text), maxTag)]
	open := n
	for open < len(head) {
		end := open + 1
		for end < len(head) && head[end] != ']' && head[end] != ' ' {
			end++
		}
		if end == open+1 || end == len(head) || head[end] == ' ' {
			return nil, nil, text
		}
		ident, pid, end = text[:open], text[open+1:end], end+1
		switch {
		case end == len(text):
			return nonEmpty(ident), pid, text[end:]
		case text[end] == '[':
			open = end
		case text[end] == ':':
			return nonEmpty(ident), pid, trimSpaces(text[end+1:])
		case text[end] == ' ':
			return nonEmpty(ident), pid, trimSpaces(text[end:])
		default:
			return nil, nil, text
		}
	}
	return nil, nil, text
}

// isIdent tells whether a tag can be called that: what programs, units and
// devices are called, and not the beginning of a sentence, a JSON object or a
// number.
func isIdent(ident []byte) bool {
	digits := 0
	for _, c := range ident {
		switch c {
		case '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
			digits++
		case '.', '_', '-', '/', '%', '(', ')', '@', '+', '#', '$', '~', ',', '*':
		default:
			if !isLetter(c) {
				return false
			}
		}
	}
	return digits < len(ident) || digits == 0
}

// isWord tells an ident that is one whatever follows its colon, such as the
// CEF of "CEF:0|…".
func isWord(ident []byte) bool {
	for _, c := range ident {
		if !isLetter(c) {
			return false
		}
	}
	return len(ident) > 0
}

// isTag tells whether the APP of RFC 5424 is a whole tag of RFC 3164.
func isTag(app []byte) bool {
	return len(app) > 0 && (app[len(app)-1] == ':' || app[len(app)-1] == ']')
}

// isHost tells whether the token after a time is a host: a name or an address,
// and no tag.
func isHost(token []byte) bool {
	if len(token) == 0 || len(token) > 255 {
		return false
	}
	if token[0] == '[' { // [fe80::1]
		inside, ok := bytes.CutSuffix(token[1:], []byte("]"))
		return ok && bytes.Count(inside, []byte(":")) >= 2 && isHost(inside)
	}
	colons := 0
	for _, c := range token {
		switch {
		case isLetter(c), c >= '-' && c <= '9' && c != '/', c == '_', c == '%':
		case c == ':':
			colons++
		default:
			return false
		}
	}
	return colons == 0 && token[0] != '%' || colons >= 2 && isIPv6(token)
}

// isIPv6 tells whether a token with colons looks like an IPv6 address, which
// may have a zone.
func isIPv6(token []byte) bool {
	address, _, _ := bytes.Cut(token, []byte("%"))
	for _, c := range address {
		if !isDigit(c) && c != ':' && c != '.' && (c|0x20 < 'a' || c|0x20 > 'f') {
			return false
		}
	}
	return true
}

// trimSpaces takes the spaces off the front.
func trimSpaces(s []byte) []byte {
	n := 0
	for n < len(s) && s[n] == ' ' {
		n++
	}
	return s[n:]
}

// trimMarks takes off what Cisco devices put before a time.
func trimMarks(s []byte) []byte {
	n := 0
	for n < len(s) && (s[n] == ' ' || s[n] == ':' || s[n] == '*' || s[n] == '.') {
		n++
	}
	return s[n:]
}

// cutToken splits at the first space; rest is nil when there is none.
func cutToken(s []byte) (token, rest []byte) {
	for i, c := range s {
		if c == ' ' {
			return s[:i], s[i+1:]
		}
	}
	return s, nil
}

// isNil tells the NILVALUE of RFC 5424.
func isNil(field []byte) bool { return len(field) == 1 && field[0] == '-' }

func value(field []byte) []byte {
	if isNil(field) {
		return nil
	}
	return nonEmpty(field)
}

func nonEmpty(s []byte) []byte {
	if len(s) == 0 {
		return nil
	}
	return s
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// isLetter tells letters, and all of what is not ASCII.
func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' || c >= 0x80 }

// number reads a decimal number of at most nine digits.
func number(s []byte) (n int, ok bool) {
	for _, c := range s {
		if !isDigit(c) {
			return 0, false
		}
		n = 10*n + int(c-'0')
	}
	return n, len(s) > 0 && len(s) <= 9
}
