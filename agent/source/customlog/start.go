package customlog

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// A Start tells at which lines a record begins. It is one of the formats of
// times that Azure knows, or a regular expression. It is for one goroutine.
type Start struct {
	layout string         // see read; empty with a pattern
	match  *regexp.Regexp // at the beginning of the line
	zone   *time.Location
	now    func() time.Time
}

// startFormats are the words of recordStartTimestampFormat (Microsoft Learn,
// "Collect data from a text file with Azure Monitor Agent") and those of custom
// logs of the earlier agent, in the letters of Start.read.
var startFormats = []struct{ name, layout string }{
	{"ISO 8601", "Y-M-DTH:m:sfz"},
	{"yyyy-MM-ddTHH:mm:ssK", "Y-M-DTH:m:sfz"},
	{"YYYY-MM-DD HH:MM:SS", "Y-M-D H:m:sfz"},
	{"M/D/YYYY HH:MM:SS AM/PM", "n/d/Y h:m:s P"},
	{"Mon DD, YYYY HH:MM:SS", "N d, Y h:m:sf"},
	{"yyMMdd HH:mm:ss", "yMD h:m:sf"},
	{"ddMMyy HH:mm:ss", "DMy h:m:sf"},
	{"MMM d hh:mm:ss", "N d h:m:sf"},
	{"dd/MMM/yyyy:HH:mm:ss zzz", "d/N/Y:H:m:s Z"},
}

// StartFormats returns the names of the formats of times.
func StartFormats() []string {
	names := make([]string, 0, len(startFormats))
	for _, f := range startFormats {
		names = append(names, f.name)
	}
	return names
}

// NewStart returns the start of records that begin with a time in the format of
// that name. A time that names no zone is taken to be in zone.
func NewStart(format string, zone *time.Location) (*Start, error) {
	for _, f := range startFormats {
		if strings.EqualFold(f.name, format) {
			return &Start{layout: f.layout, zone: zone, now: time.Now}, nil
		}
	}
	return nil, fmt.Errorf("find the format of times %q: use %s", format, strings.Join(StartFormats(), "; "))
}

// maxPattern bounds a pattern, in bytes.
const maxPattern = 1000

// NewStartPattern returns the start of records whose first line begins with what
// the pattern matches, in RE2's syntax.
func NewStartPattern(pattern string) (*Start, error) {
	if len(pattern) > maxPattern {
		return nil, fmt.Errorf("compile pattern: it has %d bytes, at most %d may be", len(pattern), maxPattern)
	}
	match, err := regexp.Compile(`^(?:` + pattern + `)`)
	if err != nil {
		return nil, fmt.Errorf("compile pattern: %w", err)
	}
	if match.MatchString("") {
		return nil, fmt.Errorf("compile pattern: it matches any line, also an empty one")
	}
	return &Start{match: match}, nil
}

// at reports whether a record begins at line, and the time that it names; zero
// when it names none.
func (s *Start) at(line []byte) (time.Time, bool) {
	if s.match != nil {
		return time.Time{}, s.match.Match(line)
	}
	return s.read(line)
}

var months = []string{"Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"}

// read reads a time at the beginning of a line. In a layout stand Y and y for
// four and two digits of a year, M, D, H, m and s for two digits, n, d and h for
// one or two, perhaps behind one more blank, N for the name of a month in three
// letters, P for AM or PM, f for a fraction of the second if there is one, Z for
// the distance from UTC, z for that or Z or neither; anything else for itself. A
// bracket may stand before it all.
func (s *Start) read(line []byte) (time.Time, bool) {
	year, month, day, hour, minute, second, nanos := 0, 0, 1, 0, 0, 0, 0
	zone := s.zone
	rest := line
	if len(rest) > 0 && rest[0] == '[' {
		rest = rest[1:]
	}
	ok := true
	number := func(least, most int) (n int) {
		i := 0
		for i < len(rest) && i < most && isDigit(rest[i]) {
			n = n*10 + int(rest[i]-'0')
			i++
		}
		rest, ok = rest[i:], ok && i >= least
		return n
	}
	short := func() int {
		if len(rest) > 0 && rest[0] == ' ' {
			rest = rest[1:]
		}
		return number(1, 2)
	}
	for i := 0; i < len(s.layout) && ok; i++ {
		switch c := s.layout[i]; c {
		case 'Y':
			year = number(4, 4)
		case 'y':
			year = 2000 + number(2, 2)
		case 'M':
			month = number(2, 2)
		case 'n':
			month = short()
		case 'N':
			ok = len(rest) >= 3
			if ok {
				month = 1 + slices.IndexFunc(months, func(m string) bool { return strings.EqualFold(m, string(rest[:3])) })
				rest = rest[3:]
			}
		case 'D':
			day = number(2, 2)
		case 'd':
			day = short()
		case 'H':
			hour = number(2, 2)
		case 'h':
			hour = short()
		case 'm':
			minute = number(2, 2)
		case 's':
			second = number(2, 2)
		case 'P':
			hour, rest, ok = afternoon(hour, rest)
		case 'f':
			nanos, rest = fraction(rest)
		case 'Z', 'z':
			var named *time.Location
			named, rest = offset(rest)
			if named != nil {
				zone = named
			}
			ok = named != nil || c == 'z'
		default:
			ok = len(rest) > 0 && rest[0] == c
			if ok {
				rest = rest[1:]
			}
		}
	}
	if !ok || month < 1 || month > 12 || day < 1 || day > 31 || hour > 23 || minute > 59 || second > 60 {
		return time.Time{}, false
	}
	if len(rest) > 0 && isDigit(rest[0]) { // it goes on: some other number
		return time.Time{}, false
	}
	if year == 0 {
		return s.latest(month, day, hour, minute, second, nanos), true
	}
	return time.Date(year, time.Month(month), day, hour, minute, second, nanos, zone), true
}

// latest is the last time of that kind that was not after tomorrow.
func (s *Start) latest(month, day, hour, minute, second, nanos int) time.Time {
	now := s.now()
	at := time.Date(now.Year(), time.Month(month), day, hour, minute, second, nanos, s.zone)
	if at.After(now.AddDate(0, 0, 1)) {
		at = at.AddDate(-1, 0, 0)
	}
	return at
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func afternoon(hour int, rest []byte) (int, []byte, bool) {
	if len(rest) < 2 || rest[1]|0x20 != 'm' || hour < 1 || hour > 12 {
		return 0, rest, false
	}
	switch rest[0] | 0x20 {
	case 'a':
		return hour % 12, rest[2:], true
	case 'p':
		return hour%12 + 12, rest[2:], true
	}
	return 0, rest, false
}

// fraction reads .123 or ,123.
func fraction(rest []byte) (nanos int, after []byte) {
	if len(rest) < 2 || rest[0] != '.' && rest[0] != ',' || !isDigit(rest[1]) {
		return 0, rest
	}
	rest = rest[1:]
	for unit := int(time.Second) / 10; len(rest) > 0 && isDigit(rest[0]); unit /= 10 {
		nanos += unit * int(rest[0]-'0')
		rest = rest[1:]
	}
	return nanos, rest
}

// offset reads Z, +01:00 or +0100, and returns nil when none of them is there.
func offset(rest []byte) (*time.Location, []byte) {
	switch {
	case len(rest) > 0 && rest[0] == 'Z':
		return time.UTC, rest[1:]
	case len(rest) < 5 || rest[0] != '+' && rest[0] != '-':
		return nil, rest
	}
	digits, n := rest[1:], 0
	var minutes [4]int
	for len(digits) > 0 && n < 4 {
		if digits[0] == ':' && n == 2 {
			digits = digits[1:]
			continue
		}
		if !isDigit(digits[0]) {
			return nil, rest
		}
		minutes[n] = int(digits[0] - '0')
		digits = digits[1:]
		n++
	}
	if n < 4 {
		return nil, rest
	}
	seconds := (minutes[0]*10+minutes[1])*3600 + (minutes[2]*10+minutes[3])*60
	if rest[0] == '-' {
		seconds = -seconds
	}
	return time.FixedZone("", seconds), digits
}

// dateCodes are the codes of strftime that may stand in a pattern of paths, as
// the pattern that matches them on any day.
var dateCodes = map[byte]string{
	'Y': "[0-9][0-9][0-9][0-9]", 'y': "[0-9][0-9]", 'm': "[0-1][0-9]", 'd': "[0-3][0-9]",
	'H': "[0-2][0-9]", 'M': "[0-5][0-9]", 'S': "[0-6][0-9]", 'j': "[0-3][0-9][0-9]", 'b': "[A-Z][a-z][a-z]", '%': "%",
}

// ExpandDates replaces the date codes of a pattern (%Y %y %m %d %H %M %S %j %b)
// by what matches them on any day: yesterday's file is read to its end as well.
func ExpandDates(pattern string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(pattern); i++ {
		if pattern[i] != '%' {
			b.WriteByte(pattern[i])
			continue
		}
		i++
		if i == len(pattern) || dateCodes[pattern[i]] == "" {
			return "", fmt.Errorf("read date codes of %q: %q is none; use %%Y %%y %%m %%d %%H %%M %%S %%j or %%b, and %%%% for a per cent sign", pattern, pattern[i-1:min(i+1, len(pattern))])
		}
		b.WriteString(dateCodes[pattern[i]])
	}
	return b.String(), nil
}
