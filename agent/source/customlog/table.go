package customlog

import (
	"fmt"
	"strings"

	"github.com/openloganalytics/agent/agent/record"
)

// suffix ends the name of every custom table.
const suffix = "_CL"

// maxName is the longest name of a custom table without its suffix.
const maxName = 100

// timeField is the column that fills TimeGenerated.
const timeField = "Timestamp"

// Table returns the custom table <Name>_CL. Name begins with a letter, goes on
// with letters, digits and underscores, and has 2 to 100 of them.
func Table(name string) (*record.Table, error) {
	logType, found := strings.CutSuffix(name, suffix)
	if !found {
		return nil, fmt.Errorf("check table name %.120q: it does not end in %s", name, suffix)
	}
	if len(logType) > maxName {
		return nil, fmt.Errorf("check table name %.120q: %d characters stand before %s, at most %d may", name, len(logType), suffix, maxName)
	}
	if len(logType) < 2 {
		return nil, fmt.Errorf("check table name %.120q: before %s at least two characters must stand", name, suffix)
	}
	if !plain(logType) {
		return nil, fmt.Errorf("check table name %.120q: before %s it must be a letter and then letters, digits and underscores", name, suffix)
	}
	return &record.Table{Name: name, LogType: logType, TimeField: timeField}, nil
}

// plain tells whether s is an ASCII letter and then letters, digits and
// underscores.
func plain(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := 'a' <= c|0x20 && c|0x20 <= 'z'
		if !letter && (i == 0 || c != '_' && (c < '0' || c > '9')) {
			return false
		}
	}
	return s != ""
}
