package agent

import (
	"errors"
	"fmt"
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
	if len(cfg.Counters) > 0 {
		sets := make([]perf.Set, 0, len(cfg.Counters))
		for _, c := range cfg.Counters {
			sets = append(sets, perf.Set{Interval: time.Duration(c.Interval), Specifiers: c.Specifiers})
		}
		s, err := perf.New(perf.Options{Sets: sets, Computer: h.name, OSCaption: h.os.FullName, Log: o.Log})
		switch {
		case errors.Is(err, errors.ErrUnsupported):
			o.Log.Warn("performance counters are not collected", "error", err)
		case err != nil:
			return nil, fmt.Errorf("set up performance counters: %w", err)
		default:
			list = append(list, s)
		}
	}
	for _, c := range cfg.CustomLogs {
		table, err := customlog.Table(c.Table)
		if err != nil {
			return nil, fmt.Errorf("set up custom log: %w", err)
		}
		s, err := customlog.New(customlog.Options{Table: table, Patterns: c.Patterns, FromStart: c.FromStart, Computer: h.name, Deny: []string{o.Layout.StateDir()}, Log: o.Log})
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

func listener(l SyslogListener, o Options, h *host) (*syslog.Source, error) {
	return syslog.NewListener(syslog.Listener{
		Protocol: l.Protocol, Address: l.Address, Port: l.Port,
		CertificateFile: l.CertificateFile, KeyFile: l.KeyFile, ClientCAFile: l.ClientCAFile,
		MaxConnections: l.MaxConnections, Idle: time.Duration(l.IdleTimeout),
	}, syslog.Options{
		Selectors: []syslog.Selector{{Facilities: l.Selector.Facilities, Severities: l.Selector.Severities}},
		Hostname:  h.name, Addresses: hostinfo.PrivateIPs, Log: o.Log,
	})
}
