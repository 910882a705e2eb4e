package syslogd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/openloganalytics/agent/agent/source/syslog"
)

// syslogNG sends to a Unix stream socket, through a queue of its own on disk. A
// named pipe, as rsyslog has, would not do: syslog-ng opens one only when there
// is a message for it, and forgets a queue on disk that it has not opened.
type syslogNG struct {
	version string   // of the configuration, as it says itself
	sources []string // that the machine's own log statements read
}

// persistent is where syslog-ng keeps what survives it, and queue is our queue.
const (
	persistent = "/var/lib/syslog-ng"
	queue      = persistent + "/" + name
)

func (d *syslogNG) read(m *machine) (warning string) {
	included := false
	files, err := filepath.Glob(m.path(m.folder) + "/*.conf")
	if err != nil {
		files = nil // a Root with brackets in it, and no such machine
	}
	for i, path := range append([]string{m.path(m.mainFile)}, files...) {
		text, err := os.ReadFile(path)
		if err != nil || path == m.path(m.file()) {
			continue // what syslog-ng cannot read either has no say
		}
		words := ngWords(string(text))
		if i == 0 {
			d.version, included = ngHead(words, m.folder)
		}
		d.sources = append(d.sources, ngSources(words)...)
	}
	slices.Sort(d.sources)
	d.sources = slices.Compact(d.sources)
	switch {
	case !included:
		return "syslog-ng does not read " + m.folder + `: add the line @include "` + m.folder + `/*.conf" to ` + m.mainFile
	case len(d.sources) == 0:
		return "syslog-ng's configuration has no log statement with a source that has a name, so there is nothing to hand on"
	}
	return ""
}

// ngWords cuts a configuration of syslog-ng into words: names, texts without
// their quotes, and each of the characters that have a meaning. Comments are
// left out.
func ngWords(text string) []string {
	var words []string
	for len(text) > 0 {
		n := strings.IndexAny(text, "#\"'{}();,\n\t\r ")
		if n < 0 {
			n = len(text)
		}
		if n > 0 {
			words = append(words, text[:n])
			text = text[n:]
			continue
		}
		switch c := text[0]; c {
		case '#':
			_, text, _ = strings.Cut(text, "\n")
		case '"', '\'':
			inside, rest := ngText(text[1:], c)
			words = append(words, inside)
			text = rest
		case '{', '}', '(', ')', ';':
			words = append(words, text[:1])
			text = text[1:]
		default:
			text = text[1:]
		}
	}
	return words
}

// ngText reads a text up to its quote. In double quotes a backslash takes the
// meaning away from what follows it.
func ngText(text string, quote byte) (inside, rest string) {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] == quote:
			return b.String(), text[i+1:]
		case text[i] == '\\' && quote == '"' && i+1 < len(text):
			i++
		}
		b.WriteByte(text[i])
	}
	return b.String(), ""
}

// ngHead returns the version that a configuration says it is of, and whether it
// includes the folder.
func ngHead(words []string, folder string) (version string, included bool) {
	for i, word := range words[:max(len(words)-1, 0)] {
		switch next := words[i+1]; word {
		case "@version:":
			version = next
		case "@include":
			pattern := next
			if !filepath.IsAbs(pattern) {
				pattern = filepath.Join(filepath.Dir(folder), pattern)
			}
			matched, err := filepath.Match(pattern, folder+"/"+filename+".conf")
			included = included || err == nil && matched || filepath.Clean(pattern) == folder
		}
	}
	return version, included
}

// ngSources returns the sources that log statements name: log { source(NAME); … }.
// One that is defined and not used stays so.
func ngSources(words []string) []string {
	var names []string
	depth, log := 0, -1 // log is the depth of the statement that we are in
	for i, word := range words {
		switch word {
		case "{":
			if log < 0 && i > 0 && words[i-1] == "log" {
				log = depth
			}
			depth++
		case "}":
			depth--
			if depth <= log {
				log = -1
			}
		case "source":
			if log >= 0 && i+3 < len(words) && words[i+1] == "(" && words[i+3] == ")" {
				names = append(names, words[i+2])
			}
		}
	}
	return names
}

// prepare makes the folder of the queue, for the user that syslog-ng's own
// folder belongs to.
func (d *syslogNG) prepare(m *machine) (remade bool, warning string, err error) {
	if strings.ContainsAny(m.opts.Socket+m.opts.Root, "\"\\\n\r\x00") {
		return false, "", fmt.Errorf("the path of the socket, %q, has a character that syslog-ng cannot read", m.opts.Socket)
	}
	if m.program == "" {
		return false, "", nil
	}
	if !exists(m.path(persistent)) {
		return false, "syslog-ng has no folder " + persistent + ", so messages wait in memory alone while the agent is stopped", nil
	}
	if exists(m.path(queue)) {
		return false, "", nil
	}
	if err := os.Mkdir(m.path(queue), 0o700); err != nil {
		return false, "", err
	}
	return true, "", sameOwner(m.path(queue), m.path(persistent))
}

func (d *syslogNG) text(m *machine, name string, wanted syslog.Selection) string {
	disk := ""
	if exists(m.path(queue)) {
		disk = m.path(queue)
	}
	return ngDropin(name, m.opts.Socket, d.sources, wanted, disk)
}

// ngDropin returns the file for syslog-ng: what is selected goes to the socket.
//
// The template is RFC 5424, so that times keep their zone and fraction. A
// message is one line, a program's name one word. The queue is in memory at
// first and goes on on disk. What is beyond it is dropped, instead of holding up
// the machine's own logs.
func ngDropin(name, socket string, sources []string, wanted syslog.Selection, disk string) string {
	id := strings.ReplaceAll(name, "-", "_")
	var b strings.Builder
	fmt.Fprintf(&b, "filter f_%s {\n  %s;\n};\n", id, ngCondition(wanted))
	fmt.Fprintf(&b, "destination d_%s {\n  unix-stream(%q\n", id, socket)
	b.WriteString(`    template("<${PRI}>1 ${ISODATE} ${HOST:--} $(replace-delimiter ' \t\n' '_' '${PROGRAM:--}') ${PID:--} ${MSGID:--} ${SDATA:--} $(replace-delimiter '\r\n' ' ' '${MESSAGE}')\n")` + "\n")
	b.WriteString("    frac-digits(6) time-reopen(1) log-fifo-size(100000)")
	if disk != "" {
		fmt.Fprintf(&b, "\n    disk-buffer(reliable(no) mem-buf-length(10000) disk-buf-size(536870912) dir(%q))", disk)
	}
	b.WriteString("\n  );\n};\nlog {\n")
	for _, source := range sources {
		fmt.Fprintf(&b, "  source(%q);\n", source)
	}
	fmt.Fprintf(&b, "  filter(f_%[1]s);\n  destination(d_%[1]s);\n};\n", id)
	return b.String()
}

// ngCondition returns the filter expression that is true for what is selected,
// and for nothing else.
func ngCondition(s syslog.Selection) string {
	groups := map[uint8][]string{} // the facilities with the same severities
	var order []uint8
	for facility, wanted := range s {
		if wanted == 0 {
			continue
		}
		if groups[wanted] == nil {
			order = append(order, wanted)
		}
		word := syslog.FacilityName(uint8(facility))
		if facility >= firstNumbered && facility <= lastNumbered {
			word = fmt.Sprint(facility) // syslog-ng has other words for them
		}
		groups[wanted] = append(groups[wanted], "facility("+word+")")
	}
	terms := make([]string, 0, len(order))
	for _, wanted := range order {
		from := "(" + strings.Join(groups[wanted], " or ") + ")"
		if wanted == all {
			terms = append(terms, from)
			continue
		}
		var levels []string
		for severity := range severities {
			if wanted>>severity&1 == 1 {
				levels = append(levels, severityWord(severity))
			}
		}
		terms = append(terms, "("+from+" and level("+strings.Join(levels, ",")+"))")
	}
	return strings.Join(terms, "\n  or ")
}

func (d *syslogNG) whole(m *machine) string {
	whole := "@include \"" + m.path(m.mainFile) + "\"\n"
	if d.version != "" {
		whole = "@version: " + d.version + "\n" + whole
	}
	return whole
}

// alone returns nothing: without the machine's sources our file makes no sense.
func (d *syslogNG) alone(*machine, string) string { return "" }

func (d *syslogNG) remove(m *machine) error {
	err := os.RemoveAll(m.path(queue))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
