package syslog

import (
	"fmt"
	"slices"
	"strings"
)

const (
	facilities = 24
	severities = 8

	// defaultPriority is user.notice, what a message without PRI has (RFC 3164 §4.3.3).
	defaultPriority = 1*severities + 5
)

// FacilityName returns the word for a facility as the Syslog table spells it.
func FacilityName(facility uint8) string {
	return [facilities]string{
		"kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news",
		"uucp", "cron", "authpriv", "ftp", "ntp", "audit", "alert", "at",
		"local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
	}[facility]
}

// SeverityName returns the word for a severity as the Syslog table spells it:
// "warn", although settings say "warning".
func SeverityName(severity uint8) string {
	return [severities]string{"emerg", "alert", "crit", "err", "warn", "notice", "info", "debug"}[severity]
}

// A Selector names facilities and severities whose messages are wanted. "*"
// stands for all of them, and an empty list for none.
type Selector struct {
	Facilities []string // kern to local7; "clock" is another word for "at"
	Severities []string // emerg to debug; "warning" and "warn" are one
}

// A Selection is the wanted severities of each facility, one bit for each.
type Selection [facilities]uint8

// Has reports whether messages of the facility and severity are wanted.
func (s *Selection) Has(facility, severity uint8) bool { return s[facility]>>severity&1 == 1 }

// Compile turns selectors into a selection, or into an error that names the
// word that is neither facility nor severity.
func Compile(selectors []Selector) (Selection, error) {
	var s Selection
	for _, selector := range selectors {
		wanted, err := numbers("severity", selector.Severities, severities, SeverityName, "warning", "warn")
		if err != nil {
			return Selection{}, err
		}
		from, err := numbers("facility", selector.Facilities, facilities, FacilityName, "clock", "at")
		if err != nil {
			return Selection{}, err
		}
		for _, facility := range from {
			for _, severity := range wanted {
				s[facility] |= 1 << severity
			}
		}
	}
	return s, nil
}

// Wanted returns a function that tells whether a row of the Syslog table is
// selected, by what its columns Facility and Severity say.
func Wanted(selectors []Selector) (func(column func(name string) []byte) bool, error) {
	selection, err := Compile(selectors)
	if err != nil {
		return nil, err
	}
	words := map[string]bool{}
	for facility := range uint8(facilities) {
		for severity := range uint8(severities) {
			if selection.Has(facility, severity) {
				words[FacilityName(facility)+"."+SeverityName(severity)] = true
			}
		}
	}
	var key []byte
	return func(column func(string) []byte) bool {
		key = append(append(append(key[:0], column("Facility")...), '.'), column("Severity")...)
		return words[string(key)]
	}, nil
}

// numbers returns what the words stand for: the n values that name names, of
// which one, known, has the other word alias too.
func numbers(kind string, words []string, n uint8, name func(uint8) string, alias, known string) ([]uint8, error) {
	var found []uint8
	for _, word := range words {
		if word == alias {
			word = known
		}
		before := len(found)
		for value := range n {
			if word == "*" || word == name(value) {
				found = append(found, value)
			}
		}
		if len(found) == before {
			return nil, fmt.Errorf("read selectors: %q is no %s; use %s or *", word, kind, strings.Join(allNames(n, name), " "))
		}
	}
	return found, nil
}

func allNames(n uint8, name func(uint8) string) []string {
	names := make([]string, 0, n)
	for value := range n {
		names = append(names, name(value))
	}
	return slices.Clip(names)
}
