package syslog

import (
	"bytes"

	"github.com/openloganalytics/agent/agent/record"
)

// Security messages have a table of their own, CommonSecurityLog: the Common
// Event Format (CEF) that many appliances speak, and the messages of Cisco ASA.
// The workspace takes their keys apart; what it needs is the message from the
// word that tells what it is.

// A lane is where a message goes.
type lane uint8

const (
	lanePlain lane = iota
	laneCEF
	laneASA
	laneCount
)

// newTables returns the table of each lane, dressed as the OMS agent for Linux
// does (filter_syslog_security.rb).
func newTables() [laneCount]*record.Table {
	return [laneCount]*record.Table{
		lanePlain: newTable(),
		laneCEF:   {Name: "CommonSecurityLog", DataType: "SECURITY_CEF_BLOB", IPName: "Security"},
		laneASA:   {Name: "CommonSecurityLog", DataType: "SECURITY_CISCO_ASA_BLOB", IPName: "Security"},
	}
}

// maxLead is how far into a text the word that tells is looked for, in bytes.
// Before it can be what a relay has put there.
const maxLead = 256

// classify tells whether m is a security message. If so, its ident becomes the
// word that tells, and its text what follows that.
func classify(m *Message) lane {
	if is, ok := bytes.CutPrefix(m.Ident, []byte("%ASA-")); ok && isASA(is) {
		return laneASA
	}
	if len(m.Ident) >= len("CEF") && bytes.HasSuffix(m.Ident, []byte("CEF")) && isCEF(m.Text) {
		m.Ident = m.Ident[len(m.Ident)-len("CEF"):]
		return laneCEF
	}
	lead := m.Text[:min(len(m.Text), maxLead)]
	if at := bytes.Index(lead, []byte("CEF:")); at >= 0 && startsWord(lead, at) {
		if text := bytes.TrimLeft(m.Text[at+len("CEF:"):], " "); isCEF(text) {
			m.Ident, m.Text = m.Text[at:at+len("CEF")], text
			return laneCEF
		}
	}
	if at := bytes.Index(lead, []byte("%ASA-")); at >= 0 && startsWord(lead, at) {
		word, text, ok := bytes.Cut(m.Text[at:], []byte(":"))
		if ok && isASA(word[len("%ASA-"):]) {
			m.Ident, m.Text = word, bytes.TrimLeft(text, " ")
			return laneASA
		}
	}
	return lanePlain
}

// startsWord tells whether a word can begin at that place.
func startsWord(text []byte, at int) bool {
	return at == 0 || text[at-1] == ' ' || text[at-1] == ':' || text[at-1] == '\t'
}

// isASA tells what follows %ASA-: a level, and the number of the message. The
// words between them, as some devices write, are of capitals.
func isASA(id []byte) bool {
	digits := 0
	for _, c := range id {
		switch {
		case isDigit(c):
			digits++
		case c == '-', c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z':
		default:
			return false
		}
	}
	return digits >= 2 && len(id) <= 40
}

// isCEF tells the header of CEF after its word: a version and six fields, with a
// bar before each of them. In a field a backslash takes the meaning away from a
// bar and from another backslash.
func isCEF(text []byte) bool {
	n := 0
	for n < len(text) && n < 2 && isDigit(text[n]) {
		n++
	}
	if n == 0 || n == len(text) || text[n] != '|' {
		return false
	}
	bars := 0
	for i := n; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '|':
			if bars++; bars == 6 {
				return true
			}
		}
	}
	return false
}

// addSecurity writes m, which classify knew, as one row.
func (w *writer) addSecurity(b *record.Batch, m *received) {
	w.when(m.Time)
	w.find(m.Host, m.peer)
	w.text = append(append(append(w.text[:0], m.Ident...), ": "...), m.Text...)
	w.fields = append(
		w.fields[:0],
		record.Field{Key: "ident", Value: m.Ident},
		record.Field{Kind: record.Members, Value: w.now},
		record.Field{Kind: record.Members, Value: w.event},
		record.Field{Kind: record.Members, Value: bytes.TrimSuffix(w.origin, []byte(`,"HostIP":"`+unknownIP+`"`))},
		record.Field{Key: "Message", Value: w.text},
		record.Field{Kind: record.Members, Value: w.levels[int(m.Facility)*severities+int(m.Severity)]},
	)
	b.Add(w.fields)
}
