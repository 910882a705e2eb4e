package handler

import (
	"reflect"
	"slices"

	"github.com/openloganalytics/agent/agent"
)

// addLog puts a log to those of its table: they are one source, which keeps one
// place for each file.
func (s *Settings) addLog(d *decoder, src *object, log agent.CustomLog) {
	logs := s.Config.Sources.CustomLogs
	n := slices.IndexFunc(logs, func(l agent.CustomLog) bool { return l.Table == log.Table })
	if n < 0 || log.Table == "" {
		s.Config.Sources.CustomLogs = append(logs, log)
		return
	}
	before, now := logs[n], log
	before.Patterns, now.Patterns = nil, nil
	if !reflect.DeepEqual(before, now) {
		d.wrong(src.path+".streams", "names the table of another log, from which this one differs in more than its paths", "give another table, or the same settings")
	}
	for _, pattern := range log.Patterns {
		if !slices.Contains(logs[n].Patterns, pattern) {
			logs[n].Patterns = append(logs[n].Patterns, pattern)
		}
	}
}
