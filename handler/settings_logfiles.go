package handler

import (
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/openloganalytics/agent/agent"
	"github.com/openloganalytics/agent/agent/record"
	"github.com/openloganalytics/agent/agent/source/customlog"
)

// logFiles reads a custom log.
func (s *Settings) logFiles(d *decoder, src *object) {
	defer src.done()
	src.text("name")
	var log agent.CustomLog
	log.Transform, _ = s.pipeline(d, src, "header.TextLog")
	names := src.texts("streams")
	if len(names) != 1 {
		d.wrong(src.path+".streams", fmt.Sprintf("has %d streams", len(names)), `give one stream, "Custom-<Name>_CL"`)
	} else {
		log.Table = strings.TrimPrefix(names[0], "Custom-")
		if !strings.HasPrefix(names[0], "Custom-") {
			d.wrong(src.path+".streams", fmt.Sprintf("%q is not a custom stream", names[0]), `give "Custom-<Name>_CL"`)
		} else if _, err := customlog.Table(log.Table); err != nil {
			d.wrong(src.path+".streams", err.Error(), `give "Custom-<Name>_CL"; the rows land in the table <Name>_CL`)
		}
	}
	switch format := src.text("format"); format {
	case "", "text":
	case "json":
		log.JSON = true
	default:
		d.wrong(src.path+".format", fmt.Sprintf("%q is no format", format), `give "text" or "json"`)
	}
	if settings := src.object("settings"); settings != nil {
		recordStart(d, settings, &log)
	}
	log.Encoding = strings.ToLower(src.text("encoding"))
	if _, err := customlog.New(customlog.Options{Table: &record.Table{}, Patterns: []string{"/"}, Encoding: log.Encoding}); err != nil {
		d.wrong(src.path+".encoding", fmt.Sprintf("%q is no encoding that can be read", log.Encoding), "give "+strings.Join(customlog.Encodings(), ", ")+"; UTF-16 is recognised")
	}
	log.FromStart = src.boolean("fromStart")
	log.Patterns = filePatterns(d, src, "filePatterns", 1)
	log.Exclude = filePatterns(d, src, "excludeFilePatterns", 0)
	s.addLog(d, src, log)
}

// recordStart reads where records of several lines begin.
func recordStart(d *decoder, settings *object, log *agent.CustomLog) {
	defer settings.done()
	text := settings.object("text")
	if text == nil {
		return
	}
	defer text.done()
	log.StartFormat = text.text("recordStartTimestampFormat")
	log.StartPattern = text.text("recordStartPattern")
	log.TimeZone = text.text("timeZone")
	if log.StartFormat != "" {
		if _, err := customlog.NewStart(log.StartFormat, time.UTC); err != nil {
			d.wrong(text.path+".recordStartTimestampFormat", fmt.Sprintf("%q is no format that is known", log.StartFormat),
				"give one of "+strings.Join(customlog.StartFormats(), "; ")+", or a pattern in recordStartPattern")
		}
	}
	if log.StartPattern != "" {
		if _, err := customlog.NewStartPattern(log.StartPattern); err != nil {
			d.wrong(text.path+".recordStartPattern", err.Error(), "give a regular expression (RE2) for the beginning of a record's first line")
		}
	}
	switch {
	case log.StartFormat != "" && log.StartPattern != "":
		d.wrong(text.path+".recordStartPattern", "goes not with recordStartTimestampFormat", "give one of the two")
	case log.JSON && (log.StartFormat != "" || log.StartPattern != ""):
		d.wrong(text.path, "says where records begin, and in the format json each line is one", "take it out, or set format to \"text\"")
	}
	if _, err := time.LoadLocation(log.TimeZone); err != nil || log.TimeZone == "Local" {
		d.wrong(text.path+".timeZone", fmt.Sprintf("%q is no time zone that this machine knows", log.TimeZone), `give a name such as "Europe/Berlin" or "UTC", or leave it out for the machine's own`)
	}
}

// filePatterns reads patterns of paths, at least so many.
func filePatterns(d *decoder, src *object, name string, least int) []string {
	patterns := src.texts(name)
	if len(patterns) < least || len(patterns) > maxFilePatterns {
		d.wrong(src.path+"."+name, fmt.Sprintf("has %d entries", len(patterns)), fmt.Sprintf("give %d to %d", least, maxFilePatterns))
	}
	for i, pattern := range patterns {
		field := fmt.Sprintf("%s.%s[%d]", src.path, name, i)
		if problem := checkPattern(pattern); problem != "" {
			d.wrong(field, problem, "give an absolute path, as in /var/log/myapp/*.log")
		} else if _, err := customlog.ExpandDates(pattern); err != nil {
			d.wrong(field, "has an unknown date code", err.Error())
		}
	}
	return patterns
}

func checkPattern(pattern string) string {
	if !path.IsAbs(pattern) {
		return fmt.Sprintf("%q is not an absolute path", pattern)
	}
	if strings.ContainsRune(pattern, 0) || len(pattern) > 1024 || path.Clean(pattern) != pattern {
		return fmt.Sprintf("%.100q is not a plain path", pattern)
	}
	return ""
}
