package syslogd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/openloganalytics/agent/agent/source/syslog"
)

const (
	mainFile = "/etc/rsyslog.conf"
	folder   = "/etc/rsyslog.d"
)

// rsyslog writes into a named pipe, with its own ompipe: omuxsock, which sends
// to a Unix socket, throws away what it sends while the agent restarts, and
// omfwd would need a port. When nobody reads, the pipe is full and rsyslog keeps
// the messages in a queue on disk. In /var/log the pipe is where the AppArmor
// profile of Ubuntu and the SELinux policy of Red Hat let rsyslogd write.
type rsyslog struct {
	workDirectory string // where its queues are, "" when it has none
	group         int    // that it writes files as
}

// read reads both of rsyslog's languages.
func (d *rsyslog) read(m *machine) (warning string) {
	included := false
	var (
		work    = regexp.MustCompile(`(?i)(?:^\$WorkDirectory\s+|\bworkDirectory\s*=\s*")([^"\s]+)`)
		group   = regexp.MustCompile(`(?i)(?:^\$PrivDropToGroup\s+|\bprivdrop\.group\.name\s*=\s*")([^"\s]+)`)
		person  = regexp.MustCompile(`(?i)(?:^\$PrivDropToUser\s+|\bprivdrop\.user\.name\s*=\s*")([^"\s]+)`)
		include = regexp.MustCompile(`(?i)(?:^\$IncludeConfig\s+|\bfile\s*=\s*")` + folder + `/`)
	)
	files, err := filepath.Glob(m.path(folder) + "/*.conf")
	if err != nil {
		files = nil // a Root with brackets in it, and no such machine
	}
	var groupName, userName string
	for _, path := range append([]string{m.path(mainFile)}, files...) {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // what rsyslog cannot read either has no say
		}
		for line := range strings.Lines(string(text)) {
			line = strings.TrimSpace(line)
			if strings.HasPrefix(line, "#") {
				continue
			}
			for into, pattern := range map[*string]*regexp.Regexp{&d.workDirectory: work, &groupName: group, &userName: person} {
				if found := pattern.FindStringSubmatch(line); found != nil {
					*into = found[1]
				}
			}
			included = included || include.MatchString(line)
		}
	}
	d.group = groupID(groupName, userName)
	if !included {
		return "rsyslog does not read " + folder + ": add the line $IncludeConfig " + folder + "/*.conf to " + mainFile
	}
	return ""
}

// groupID returns the id of a group, or of a user's group; 0 when there is
// neither: rsyslogd then is root's.
func groupID(groupName, userName string) int {
	id := "0"
	if g, err := user.LookupGroup(groupName); err == nil {
		id = g.Gid
	} else if u, err := user.Lookup(userName); err == nil {
		id = u.Gid
	}
	gid, err := strconv.Atoi(id)
	if err != nil {
		return 0 // Windows, where there is no rsyslog
	}
	return gid
}

func (d *rsyslog) prepare(m *machine) (remade bool, warning string, err error) {
	if strings.ContainsAny(m.opts.Pipe, "\"\\\n\r\x00") {
		return false, "", fmt.Errorf("the path of the pipe, %q, has a character that rsyslog cannot read", m.opts.Pipe)
	}
	if d.workDirectory == "" {
		warning = "rsyslog has no work directory, so messages wait in memory alone while the agent is stopped; " +
			"set $WorkDirectory in " + mainFile
	}
	remade, err = makePipe(m.opts.Pipe, m.opts.UID, d.group)
	return remade, warning, err
}

func (d *rsyslog) text(m *machine, name string, wanted syslog.Selection) string {
	return dropin(name, m.opts.Pipe, wanted, d.workDirectory != "")
}

func (d *rsyslog) whole(m *machine) string {
	return "$IncludeConfig " + m.path(mainFile) + "\n" // older than include(), and read by all versions
}

func (d *rsyslog) alone(_ *machine, text string) string { return text }

func (d *rsyslog) remove(m *machine) error {
	return errors.Join(removePipe(m.opts.Pipe), d.removeQueue(m))
}

// removeQueue deletes the files of our queue: what nobody will read any more.
func (d *rsyslog) removeQueue(m *machine) error {
	var failed error
	for _, dir := range []string{d.workDirectory, "/var/spool/rsyslog", "/var/lib/rsyslog"} {
		if dir == "" {
			continue
		}
		entries, err := os.ReadDir(m.path(dir))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = errors.Join(failed, err)
		}
		for _, entry := range entries {
			rest, ours := strings.CutPrefix(entry.Name(), name+".")
			if _, err := strconv.ParseUint(rest, 10, 64); ours && (err == nil || rest == "qi") && entry.Type().IsRegular() {
				failed = errors.Join(failed, removeFile(filepath.Join(m.path(dir), entry.Name())))
			}
		}
	}
	return failed
}

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
