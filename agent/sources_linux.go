package agent

import (
	"fmt"

	"github.com/openloganalytics/agent/agent/source"
	"github.com/openloganalytics/agent/agent/source/syslog"
	"github.com/openloganalytics/agent/internal/hostinfo"
)

const osType = "Linux"

func systemSources(list []source.Source, o Options, h *host) ([]source.Source, error) {
	cfg := o.Config.Sources.Syslog
	if cfg == nil {
		return list, nil
	}
	selectors := make([]syslog.Selector, 0, len(cfg.Selectors))
	for _, s := range cfg.Selectors {
		selectors = append(selectors, syslog.Selector{Facilities: s.Facilities, Severities: s.Severities})
	}
	s, err := syslog.New(syslog.Options{
		Pipe: o.Layout.SyslogPipe(), Socket: o.Layout.SyslogSocket(), UDP: cfg.UDP, TCP: cfg.TCP,
		Selectors: selectors, Hostname: h.name, Addresses: hostinfo.PrivateIPs, Log: o.Log,
	})
	if err != nil {
		return nil, fmt.Errorf("set up syslog: %w", err)
	}
	routes, err := o.Config.syslogRoutes(cfg.Selectors)
	if err != nil {
		return nil, fmt.Errorf("set up syslog: %w", err)
	}
	t, err := o.Config.transformed(s, true, routes...)
	if err != nil {
		return nil, fmt.Errorf("set up syslog: %w", err)
	}
	return append(list, t), nil
}
