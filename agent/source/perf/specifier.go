package perf

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/openloganalytics/agent/internal/nearest"
)

// ErrWindowsOnly is behind the error of a specifier in the Windows spelling,
// with a leading backslash, that has no equal on Linux and is no misspelling
// of one that has. Rules made in the Azure portal list the counters of both
// systems, so such a specifier is passed over, not refused.
var ErrWindowsOnly = errors.New("this Windows counter has no equal on Linux")

// ErrApplication is behind the error of a specifier that names an object of an
// application: other sources ask that for its counters, all of them.
var ErrApplication = errors.New("this is a counter of an application, which is asked for all of its counters when the setting applications names it")

// applications are the objects of the OMS agent for Linux that are not of the
// machine.
var applications = []string{"Apache HTTP Server", "Apache Virtual Host", "MySQL Server", "MySQL Database", "PostgreSQL Server", "PostgreSQL Database"}

// howTo ends the error of a specifier that has the wrong shape.
const howTo = `write Object(Instance)\Counter, for example Processor(*)\% Processor Time`

// Check reports whether a counter specifier can be collected: nil, or an error
// that names the specifier, what is wrong and the nearest known name.
// errors.Is(err, ErrWindowsOnly) tells one that a rule for both systems may
// hold, ErrApplication one that other sources see to.
//
// A specifier is Object(Instance)\Counter or \Object(Instance)\Counter, in the
// names of the Perf table or their Windows equals, in any case:
//
//	Windows object                      here
//	LogicalDisk                         Logical Disk
//	PhysicalDisk                        Physical Disk
//	Network Interface, Network Adapter  Network
//	Processor Information               Processor
//
//	Windows counter                            here
//	Memory: Available MBytes                   Available MBytes Memory
//	LogicalDisk: Disk Bytes/sec                Logical Disk Bytes/sec
//	PhysicalDisk: Disk Bytes/sec               Physical Disk Bytes/sec
//	Network Interface: Packets Received Errors Total Rx Errors
//	Network Interface: Packets Outbound Errors Total Tx Errors
//	Process: % User Time, % Privileged Time    Pct User Time, Pct Privileged Time
//	System: System Up Time                     Uptime
//
// Rows carry the names on the right. Process knows Used Memory as a short name
// of Used Memory kBytes. A * stands for any counter, and within an instance
// for any characters; without an instance any is meant.
func Check(specifier string) error {
	_, err := parseSpecifier(specifier)
	return err
}

// DefaultSpecifiers returns what is collected when nobody chose, once a
// minute: what the portal proposes for Linux, and the load.
func DefaultSpecifiers() []string {
	return []string{
		`Processor(*)\% Processor Time`,
		`Processor(*)\% Privileged Time`,
		`Memory(*)\Available MBytes Memory`,
		`Memory(*)\% Used Memory`,
		`Memory(*)\% Used Swap Space`,
		`Logical Disk(*)\% Used Inodes`,
		`Logical Disk(*)\% Used Space`,
		`Logical Disk(*)\Free Megabytes`,
		`Logical Disk(*)\Disk Reads/sec`,
		`Logical Disk(*)\Disk Writes/sec`,
		`Logical Disk(*)\Disk Transfers/sec`,
		`Network(*)\Total Bytes Transmitted`,
		`Network(*)\Total Bytes Received`,
		`System(*)\Uptime`,
		`System(*)\Processes`,
		`System(*)\Load1`,
		`System(*)\Load5`,
		`System(*)\Load15`,
	}
}

// A specifier is what a counter specifier selects.
type specifier struct {
	object   objectID
	instance string
	counters counterSet
}

func parseSpecifier(text string) (specifier, error) {
	objectName, instance, counterName, windows, err := splitSpecifier(text)
	if err != nil {
		return specifier{}, err
	}
	id, ok := findObject(objectName)
	if slices.ContainsFunc(applications, func(name string) bool { return strings.EqualFold(name, objectName) }) {
		return specifier{}, fmt.Errorf("read counter specifier %q: %w", text, ErrApplication)
	}
	if !ok {
		return specifier{}, unknown(text, "object", objectName, windows, objectNames())
	}
	if windows && drive.MatchString(instance) {
		return specifier{}, fmt.Errorf("read counter specifier %q: %w: it names a drive by its letter", text, ErrWindowsOnly)
	}
	o := &objects[id]
	if counterName == "*" {
		return specifier{id, instance, o.all()}, nil
	}
	if n, ok := o.find(counterName); ok {
		return specifier{id, instance, 1 << n}, nil
	}
	for i := range objects {
		if _, ok := objects[i].find(counterName); ok && !windows {
			return specifier{}, fmt.Errorf("read counter specifier %q: %s is a counter of %s, not of %s",
				text, counterName, objects[i].name, o.name)
		}
	}
	return specifier{}, unknown(text, "counter of "+o.name, counterName, windows, o.counterNames())
}

// splitSpecifier takes a specifier apart. The instance may hold anything,
// parentheses and slashes too: it ends at the last `)\`.
func splitSpecifier(text string) (object, instance, counter string, windows bool, err error) {
	rest, windows := strings.CutPrefix(strings.TrimSpace(text), `\`)
	instance = "*"
	switch i := strings.IndexAny(rest, `(\`); {
	case i < 0:
		err = fmt.Errorf(`read counter specifier %q: no \ stands before a counter; %s`, text, howTo)
	case rest[i] == '\\':
		object, counter = rest[:i], rest[i+1:]
	default:
		end := strings.LastIndex(rest, `)\`)
		if end < i {
			return "", "", "", false, fmt.Errorf(`read counter specifier %q: the instance does not end with )\; %s`, text, howTo)
		}
		object, counter = rest[:i], rest[end+2:]
		if name := rest[i+1 : end]; name != "" {
			instance = name
		}
	}
	object, counter = strings.TrimSpace(object), strings.TrimSpace(counter)
	if err == nil && (object == "" || counter == "") {
		err = fmt.Errorf("read counter specifier %q: it names no object or no counter; %s", text, howTo)
	}
	return object, instance, counter, windows, err
}

// drive is how Windows names disks: C:, or the number and the letters of a
// physical one.
var drive = regexp.MustCompile(`^([0-9]+ )?[A-Za-z]:( [A-Za-z]:)*$`)

// maxTypos is how many wrong characters make a misspelling; a name that is
// further from all that is known means something else.
const maxTypos = 2

// unknown is the error of a name that is not in the list.
func unknown(text, what, name string, windows bool, known []string) error {
	near, typos := nearest.Name(name, known)
	if windows && typos > maxTypos {
		return fmt.Errorf("read counter specifier %q: %w; the nearest %s is %q", text, ErrWindowsOnly, what, near)
	}
	return fmt.Errorf("read counter specifier %q: there is no %s named %q; did you mean %q?", text, what, name, near)
}

func findObject(name string) (objectID, bool) {
	for i := range objects {
		if strings.EqualFold(name, objects[i].name) {
			return objectID(i), true
		}
		for _, alias := range objects[i].aliases {
			if strings.EqualFold(name, alias) {
				return objectID(i), true
			}
		}
	}
	return 0, false
}

func (o *object) find(name string) (int, bool) {
	for n, c := range o.counters {
		if strings.EqualFold(name, c.name) || strings.EqualFold(name, c.alias) {
			return n, true
		}
	}
	return 0, false
}

func objectNames() []string {
	names := make([]string, len(objects))
	for i := range objects {
		names[i] = objects[i].name
	}
	return names
}

func (o *object) counterNames() []string {
	names := make([]string, len(o.counters))
	for n, c := range o.counters {
		names[n] = c.name
	}
	return names
}

// A selection says which counters of which instances of one object are wanted.
type selection struct {
	always counterSet // of every instance
	named  []named
}

// A named is the part of a selection that names instances.
type named struct {
	pattern  string
	counters counterSet
	seen     bool // an instance matched in the present sample
}

// add merges a specifier into the selection.
func (s *selection) add(instance string, counters counterSet) {
	if instance == "*" {
		s.always |= counters
		return
	}
	for i := range s.named {
		if s.named[i].pattern == instance {
			s.named[i].counters |= counters
			return
		}
	}
	s.named = append(s.named, named{pattern: instance, counters: counters})
}

// wanted is the set of counters wanted of any instance.
func (s *selection) wanted() counterSet {
	set := s.always
	for i := range s.named {
		set |= s.named[i].counters
	}
	return set
}

// of returns the counters wanted of one instance, and remembers that it is
// there.
func (s *selection) of(instance []byte) counterSet {
	set := s.always
	for i := range s.named {
		if matches(s.named[i].pattern, string(instance)) {
			set |= s.named[i].counters
			s.named[i].seen = true
		}
	}
	return set
}

// matches reports whether name is what pattern says, with * for any bytes.
func matches(pattern, name string) bool {
	begin, rest, wild := strings.Cut(pattern, "*")
	if !wild {
		return name == pattern
	}
	name, ok := strings.CutPrefix(name, begin)
	for ok {
		part, next, more := strings.Cut(rest, "*")
		if !more {
			return strings.HasSuffix(name, part)
		}
		_, name, ok = strings.Cut(name, part)
		rest = next
	}
	return false
}
