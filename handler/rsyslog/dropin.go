package rsyslog

import (
	"fmt"
	"slices"
	"strings"
)

// A Selector names facilities and severities whose messages are wanted. "*"
// stands for all of them, and an empty list for none.
type Selector struct {
	Facilities []string // kern to local7; "clock" is another word for "at"
	Severities []string // emerg to debug; "warning" and "warn" are one
}

const (
	facilities = 24
	severities = 8
	all        = 1<<severities - 1
)

// facilityWord returns the word of a facility in the settings.
func facilityWord(facility int) string {
	return [facilities]string{
		"kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news",
		"uucp", "cron", "authpriv", "ftp", "ntp", "audit", "alert", "at",
		"local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
	}[facility]
}

// rsyslog has no words of its own for these, or not in every version.
const firstNumbered, lastNumbered = 12, 15

func severityWord(severity int) string {
	return [severities]string{"emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"}[severity]
}

// A selection is the wanted severities of each facility, one bit for each.
type selection [facilities]uint8

func compile(selectors []Selector) (selection, error) {
	var s selection
	for _, selector := range selectors {
		var wanted uint8
		for _, word := range selector.Severities {
			if word == "warn" {
				word = "warning"
			}
			found := uint8(0)
			for severity := range severities {
				if word == "*" || word == severityWord(severity) {
					found |= 1 << severity
				}
			}
			if found == 0 {
				return selection{}, fmt.Errorf("read selectors: %q is no severity", word)
			}
			wanted |= found
		}
		for _, word := range selector.Facilities {
			if word == "clock" {
				word = "at"
			}
			found := false
			for facility := range facilities {
				if word == "*" || word == facilityWord(facility) {
					s[facility] |= wanted
					found = true
				}
			}
			if !found {
				return selection{}, fmt.Errorf("read selectors: %q is no facility", word)
			}
		}
	}
	return s, nil
}

// marker begins every file that this package writes, and no other.
const marker = "# Written by log-analytics-agent, which overwrites changes. Rules of your own go into another file.\n"

// name is what the template, the action and the queue's files are called.
const name = "log-analytics-agent"

// dropin returns the file for rsyslog: what is selected goes to the pipe,
// through a queue of its own.
//
// The template is RFC 5424 with the tag whole in the place of the program's
// name, so that nothing of a message of RFC 3164 is lost, and with control
// characters escaped, so that a message is one line. The mark before it lets
// the reader tell a message that the pipe took a part of.
//
// The queue is in memory, goes on on disk when the agent does not read, and
// drops what is beyond that instead of holding up the machine's own logs.
// Without a work directory of rsyslog it is in memory alone.
func dropin(name, pipe string, s selection, disk bool) string {
	var b strings.Builder
	b.WriteString(marker)
	fmt.Fprintf(&b, `template(name="%s" type="string" string="\002<%%PRI%%>1 %%TIMESTAMP:::date-rfc3339%% %%HOSTNAME%% %%syslogtag:::escape-cc%% - %%MSGID%% %%STRUCTURED-DATA:::escape-cc%%%%msg:::sp-if-no-1st-sp%%%%msg:::escape-cc%%\n")`+"\n", name)
	fmt.Fprintf(&b, "if %s then {\n", s.condition())
	fmt.Fprintf(&b, "  action(name=%q type=\"ompipe\" pipe=%q template=%q\n", name, pipe, name)
	b.WriteString("    action.resumeRetryCount=\"-1\" action.resumeInterval=\"1\" action.reportSuspension=\"off\"\n")
	b.WriteString("    queue.type=\"LinkedList\" queue.size=\"100000\" queue.timeoutEnqueue=\"1\"")
	if disk {
		fmt.Fprintf(&b, "\n    queue.filename=%q queue.highWatermark=\"10000\" queue.lowWatermark=\"2000\" queue.maxDiskSpace=\"512m\"\n", name)
		b.WriteString("    queue.saveOnShutdown=\"on\" queue.timeoutActionCompletion=\"3000\" queue.checkpointInterval=\"1000\"")
	}
	b.WriteString(")\n}\n")
	return b.String()
}

// condition returns the RainerScript expression that is true for what is
// selected, and for nothing else.
func (s *selection) condition() string {
	groups := map[uint8][]string{} // the facilities with the same severities
	var order []uint8
	var terms []string
	for facility, wanted := range s {
		switch {
		case wanted == 0:
		case facility >= firstNumbered && facility <= lastNumbered:
			terms = append(terms, numbered(facility, wanted))
		default:
			if groups[wanted] == nil {
				order = append(order, wanted)
			}
			groups[wanted] = append(groups[wanted], facilityWord(facility))
		}
	}
	for i, wanted := range order {
		terms = slices.Insert(terms, i, priorities(strings.Join(groups[wanted], ","), wanted))
	}
	return strings.Join(terms, "\n  or ")
}

// priorities returns the filter for the severities of facilities that rsyslog
// has words for: ".err" is err and all above it, ".=err" is err alone.
func priorities(facilities string, wanted uint8) string {
	if wanted == all {
		return fmt.Sprintf(`prifilt("%s.*")`, facilities)
	}
	var parts []string
	for severity := range severities {
		switch upTo := uint8(1)<<(severity+1) - 1; {
		case wanted == upTo:
			return fmt.Sprintf(`prifilt("%s.%s")`, facilities, severityWord(severity))
		case wanted>>severity&1 == 1:
			parts = append(parts, facilities+".="+severityWord(severity))
		}
	}
	return fmt.Sprintf(`prifilt("%s")`, strings.Join(parts, ";"))
}

// numbered returns the filter for a facility by its number.
func numbered(facility int, wanted uint8) string {
	var is []string
	for severity := range severities {
		if wanted>>severity&1 == 1 {
			is = append(is, fmt.Sprintf("$syslogseverity == %d", severity))
		}
	}
	term := fmt.Sprintf("$syslogfacility == %d", facility)
	if wanted == all {
		return "(" + term + ")"
	}
	return "(" + term + " and (" + strings.Join(is, " or ") + "))"
}
