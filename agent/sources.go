package agent

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/openloganalytics/agent/agent/source"
	"github.com/openloganalytics/agent/agent/source/customlog"
	"github.com/openloganalytics/agent/agent/source/heartbeat"
	"github.com/openloganalytics/agent/agent/source/perf"
	"github.com/openloganalytics/agent/agent/source/syslog"
	"github.com/openloganalytics/agent/internal/hostinfo"
	"github.com/openloganalytics/agent/internal/product"
)

// sources is the literal list: what the config asks for becomes sources. What
// only one system has is in sources_linux.go and sources_windows.go.
func sources(o Options, h *host) ([]source.Source, error) {
	cfg := o.Config.Sources
	list := []source.Source{heartbeat.New(heartbeat.Options{
		Interval: time.Duration(cfg.Heartbeat.Interval), Computer: h.name,
		OSType: osType, OSName: h.os.Name, OSMajorVersion: h.os.MajorVersion, OSMinorVersion: h.os.MinorVersion,
		PrivateIPs: hostinfo.PrivateIPs, Version: product.Version, Installed: o.Config.Installed,
	})}
	counters, err := counterSources(o, h)
	if err != nil {
		return nil, fmt.Errorf("set up performance counters: %w", err)
	}
	list = append(list, counters...)
	measured, err := measurements(o, h)
	if err != nil {
		return nil, err
	}
	list = append(list, measured...)
	for _, c := range cfg.CustomLogs {
		s, err := customLog(c, o, h)
		if err != nil {
			return nil, fmt.Errorf("set up custom log %s: %w", c.Table, err)
		}
		list = append(list, s)
	}
	for _, l := range cfg.SyslogListeners {
		s, err := listener(l, o, h)
		if err != nil {
			return nil, fmt.Errorf("set up syslog listener: %w", err)
		}
		list = append(list, s)
	}
	return systemSources(list, o, h)
}

// counterSources returns one source for the counters of each way.
func counterSources(o Options, h *host) ([]source.Source, error) {
	var list []source.Source
	var ways []Way
	sets := map[Way][]perf.Set{}
	for _, c := range o.Config.Sources.Counters {
		if sets[c.Way] == nil {
			ways = append(ways, c.Way)
		}
		sets[c.Way] = append(sets[c.Way], perf.Set{Interval: time.Duration(c.Interval), Specifiers: c.Specifiers})
	}
	for _, w := range ways {
		name := "perf"
		if w.Transform != "" {
			name = strings.TrimSuffix("perf:"+w.Transform+":"+w.Table, ":")
		}
		s, err := perf.New(perf.Options{Name: name, Sets: sets[w], Computer: h.name, OSCaption: h.os.FullName, IntegerCompatible: o.Config.Sources.IntegerCounters, Log: o.Log})
		if errors.Is(err, errors.ErrUnsupported) {
			o.Log.Warn("performance counters are not collected", "error", err)
			continue
		}
		if err != nil {
			return nil, err
		}
		route, err := o.Config.route(w)
		if err != nil {
			return nil, err
		}
		if s, err = o.Config.transformed(s, false, route); err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}

func customLog(c CustomLog, o Options, h *host) (source.Source, error) {
	table, err := customlog.Table(c.Table)
	if err != nil {
		return nil, err
	}
	start, err := recordStart(c)
	if err != nil {
		return nil, err
	}
	s, err := customlog.New(customlog.Options{
		Table: table, Patterns: c.Patterns, Exclude: c.Exclude, FromStart: c.FromStart, JSON: c.JSON, Start: start, Encoding: c.Encoding,
		Computer: h.name, Deny: []string{o.Layout.StateDir()}, Log: o.Log,
	})
	if err != nil {
		return nil, err
	}
	route, err := o.Config.route(Way{Transform: c.Transform})
	if err != nil {
		return nil, err
	}
	if route.Pipeline != nil {
		route.Table = table
	}
	return o.Config.transformed(s, true, route)
}

// recordStart returns where the records of a log begin, nil for every line.
func recordStart(c CustomLog) (*customlog.Start, error) {
	switch {
	case c.StartPattern != "":
		return customlog.NewStartPattern(c.StartPattern)
	case c.StartFormat == "":
		return nil, nil
	}
	zone := time.Local
	if c.TimeZone != "" {
		var err error
		if zone, err = time.LoadLocation(c.TimeZone); err != nil {
			return nil, fmt.Errorf("find time zone: %w", err)
		}
	}
	return customlog.NewStart(c.StartFormat, zone)
}

func listener(l SyslogListener, o Options, h *host) (source.Source, error) {
	var security []SyslogSelector
	if l.Security != nil {
		security = []SyslogSelector{*l.Security}
	}
	s, err := syslog.NewListener(syslog.Listener{
		Protocol: l.Protocol, Address: l.Address, Port: l.Port,
		CertificateFile: l.CertificateFile, KeyFile: l.KeyFile, ClientCAFile: l.ClientCAFile,
		MaxConnections: l.MaxConnections, Idle: time.Duration(l.IdleTimeout),
	}, syslog.Options{
		Selectors: selectors([]SyslogSelector{l.Selector}), Security: selectors(security),
		Hostname: h.name, Addresses: hostinfo.PrivateIPs, Log: o.Log,
	})
	if err != nil {
		return nil, err
	}
	route, err := o.Config.route(l.Selector.Way)
	if err != nil {
		return nil, err
	}
	return o.Config.transformed(s, true, route)
}

func selectors(list []SyslogSelector) []syslog.Selector {
	selectors := make([]syslog.Selector, 0, len(list))
	for _, s := range list {
		selectors = append(selectors, syslog.Selector{Facilities: s.Facilities, Severities: s.Severities})
	}
	return selectors
}
