package handler

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/openloganalytics/agent/agent"
	"github.com/openloganalytics/agent/agent/source/perf"
)

// severities are the log levels of a data collection rule, most urgent first,
// with the words that syslog itself uses.
var severities = []struct{ level, word string }{
	{"emergency", "emerg"},
	{"alert", "alert"},
	{"critical", "crit"},
	{"error", "err"},
	{"warning", "warning"},
	{"notice", "notice"},
	{"info", "info"},
	{"debug", "debug"},
}

var facilities = []string{
	"kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "ntp", "audit",
	"alert", "clock", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
}

// sources reads the dataSources object of a data collection rule. Without one
// the default set applies.
func (s *Settings) sources(d *decoder, o *object, given bool) {
	s.Config.Sources.Heartbeat.Interval = seconds(60)
	s.Config.Origin = agent.OriginSettings
	if !given {
		s.Config.Origin = agent.OriginDefault
		s.defaultSources()
		return
	}
	if o == nil {
		return
	}
	defer o.done()
	for _, src := range limited(d, o, "syslog") {
		s.syslog(d, src)
	}
	for _, src := range limited(d, o, "performanceCounters") {
		s.counters(d, src)
	}
	for _, src := range limited(d, o, "logFiles") {
		s.logFiles(d, src)
	}
	for _, name := range []string{"windowsEventLogs", "iisLogs"} {
		if o.take(name) != nil {
			d.wrong("dataSources."+name, "is collected on Windows only", "take it out for this VM, or deploy the Windows extension")
		}
	}
	for _, name := range []string{"windowsFirewallLogs", "extensions", "prometheusForwarder", "performanceCountersOTel"} {
		if o.take(name) != nil {
			d.wrong("dataSources."+name, "is not supported by this agent", "take it out")
		}
	}
}

func limited(d *decoder, o *object, kind string) []*object {
	list := o.objects(kind)
	if len(list) > maxDataSources {
		d.wrong("dataSources."+kind, fmt.Sprintf("has %d data sources", len(list)), fmt.Sprintf("a rule holds at most %d", maxDataSources))
		return nil
	}
	return list
}

// defaultSources is what runs at once on a machine whose settings name no
// data sources: warnings and worse of every facility with all of auth and
// authpriv, and the counters that the portal proposes.
func (s *Settings) defaultSources() {
	s.Config.Sources.Syslog = &agent.Syslog{Selectors: []agent.SyslogSelector{
		{Facilities: []string{"*"}, Severities: []string{"emerg", "alert", "crit", "err", "warning"}},
		{Facilities: []string{"auth", "authpriv"}, Severities: []string{"*"}},
	}}
	s.Config.Sources.Counters = []agent.Counters{{Interval: seconds(60), Specifiers: perf.DefaultSpecifiers()}}
}

// Streams of syslog. What is CEF or Cisco ASA goes into the second when it is
// asked for, and then never into the first.
const (
	streamSyslog   = "Microsoft-Syslog"
	streamSecurity = "Microsoft-CommonSecurityLog"
)

func (s *Settings) syslog(d *decoder, src *object) {
	defer src.done()
	way, feeds := s.way(d, src, "header.Syslog", streamSyslog, streamSecurity)
	sel, names := selector(d, src)
	sel.Way = way
	if names == 0 {
		d.wrong(src.path+".facilityNames", "is empty", "name at least one facility, or \"*\"")
	}
	if s.Config.Sources.Syslog == nil {
		s.Config.Sources.Syslog = &agent.Syslog{}
	}
	if len(sel.Facilities) > 0 && len(sel.Severities) > 0 { // no level means: nothing of these
		if slices.Contains(feeds, streamSyslog) {
			s.Config.Sources.Syslog.Selectors = append(s.Config.Sources.Syslog.Selectors, sel)
		}
		if slices.Contains(feeds, streamSecurity) {
			s.Config.Sources.Syslog.Security = append(s.Config.Sources.Syslog.Security, sel)
		}
	}
	if listen := src.object("listen"); listen != nil {
		s.Config.Sources.Syslog.UDP = loopback(d, listen, "udp")
		s.Config.Sources.Syslog.TCP = loopback(d, listen, "tcp")
		listen.done()
	}
}

// selector reads facilityNames and logLevels. It also returns how many
// facilities were named, some of which are none of a message.
func selector(d *decoder, src *object) (sel agent.SyslogSelector, named int) {
	names := src.texts("facilityNames")
	if len(names) > maxFacilities {
		d.wrong(src.path+".facilityNames", fmt.Sprintf("has %d names", len(names)), fmt.Sprintf("a rule holds at most %d; \"*\" means all", maxFacilities))
	}
	for _, name := range names {
		name = strings.ToLower(name)
		switch {
		case name == "mark" || name == "nopri": // not facilities of a message
		case name == "*" || slices.Contains(facilities, name):
			sel.Facilities = append(sel.Facilities, name)
		default:
			d.wrong(src.path+".facilityNames", fmt.Sprintf("%q is not a facility", name), "use "+strings.Join(facilities, " ")+" or *")
		}
	}
	for _, level := range src.texts("logLevels") {
		if word := severityWord(level); word != "" {
			sel.Severities = append(sel.Severities, word)
			continue
		}
		d.wrong(src.path+".logLevels", fmt.Sprintf("%q is not a level", level), "use Emergency, Alert, Critical, Error, Warning, Notice, Info, Debug or *")
	}
	return sel, len(names)
}

// loopback reads a port to listen on at the loopback address.
func loopback(_ *decoder, o *object, protocol string) string {
	port := o.integer(protocol, 0, 1025, 65535)
	if port == 0 {
		return ""
	}
	return fmt.Sprintf("127.0.0.1:%d", port)
}

func severityWord(level string) string {
	level = strings.ToLower(level)
	if level == "*" {
		return level
	}
	for _, s := range severities {
		if s.level == level || s.word == level {
			return s.word
		}
	}
	return ""
}

func (s *Settings) counters(d *decoder, src *object) {
	defer src.done()
	if s.insights(d, src) {
		return
	}
	c := agent.Counters{Interval: seconds(src.integer("samplingFrequencyInSeconds", 60, minSampling, maxSampling))}
	c.Way, _ = s.way(d, src, "header.LinuxPerformanceCounters", "Microsoft-Perf")
	specifiers := src.texts("counterSpecifiers")
	if len(specifiers) == 0 || len(specifiers) > maxSpecifiers {
		d.wrong(src.path+".counterSpecifiers", fmt.Sprintf("has %d entries", len(specifiers)), fmt.Sprintf("give 1 to %d", maxSpecifiers))
	}
	for i, spec := range specifiers {
		err := perf.Check(spec)
		if errors.Is(err, perf.ErrWindowsOnly) { // rules mix the counters of both systems
			s.Notes = append(s.Notes, err.Error()+".")
			continue
		}
		if errors.Is(err, perf.ErrApplication) {
			if !s.asks(spec) {
				s.Notes = append(s.Notes, err.Error()+".")
			}
			continue
		}
		if err != nil {
			d.wrong(fmt.Sprintf("%s.counterSpecifiers[%d]", src.path, i), err.Error(), `write Object(Instance)\Counter as the Perf table spells them`)
			continue
		}
		c.Specifiers = append(c.Specifiers, spec)
	}
	s.Config.Sources.Counters = append(s.Config.Sources.Counters, c)
}
