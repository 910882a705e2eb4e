package rsyslog

import (
	"fmt"
	"slices"
	"strings"

	"github.com/openloganalytics/agent/agent/source/syslog"
)

const (
	severities = 8
	all        = 1<<severities - 1

	// rsyslog has no words of its own for these facilities, or not in every version.
	firstNumbered, lastNumbered = 12, 15
)

// severityWord returns rsyslog's word for a severity.
func severityWord(severity int) string {
	if word := syslog.SeverityName(uint8(severity)); word != "warn" { // deprecated there
		return word
	}
	return "warning"
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
func dropin(name, pipe string, wanted syslog.Selection, disk bool) string {
	var b strings.Builder
	b.WriteString(marker)
	fmt.Fprintf(&b, `template(name="%s" type="string" string="\002<%%PRI%%>1 %%TIMESTAMP:::date-rfc3339%% %%HOSTNAME%% %%syslogtag:::escape-cc%% - %%MSGID%% %%STRUCTURED-DATA:::escape-cc%%%%msg:::sp-if-no-1st-sp%%%%msg:::escape-cc%%\n")`+"\n", name)
	fmt.Fprintf(&b, "if %s then {\n", condition(wanted))
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
func condition(s syslog.Selection) string {
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
			groups[wanted] = append(groups[wanted], syslog.FacilityName(uint8(facility)))
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
