package handler

import (
	"context"

	"github.com/openloganalytics/agent/agent"
	"github.com/openloganalytics/agent/agent/source/syslog"
	"github.com/openloganalytics/agent/handler/rsyslog"
	"github.com/openloganalytics/agent/internal/logfile"
)

// configureSyslog makes the syslog daemon pass on what the settings ask for,
// or stop passing on. What is wrong with it is a note to the user: everything
// else is collected all the same.
func (h *Handler) configureSyslog(ctx context.Context, cfg *agent.Syslog, uid int, log *logfile.Logger) string {
	if !h.Root {
		return ""
	}
	if cfg == nil {
		if err := h.removeSyslog(ctx, log); err != nil {
			return "Syslog: " + err.Error() + "."
		}
		return ""
	}
	selectors := make([]syslog.Selector, 0, len(cfg.Selectors))
	for _, s := range cfg.Selectors {
		selectors = append(selectors, syslog.Selector{Facilities: s.Facilities, Severities: s.Severities})
	}
	result, err := rsyslog.Configure(ctx, rsyslog.Options{Root: h.Layout.Root(), Pipe: h.Layout.SyslogPipe(), UID: uid, Selectors: selectors})
	if err != nil {
		log.Warn("syslog daemon not configured", "error", err)
		return "Syslog is not collected: " + err.Error() + "."
	}
	if result.Warning != "" {
		log.Warn("syslog daemon", "warning", result.Warning)
	}
	return result.Warning
}

func (h *Handler) removeSyslog(ctx context.Context, log *logfile.Logger) error {
	if !h.Root {
		return nil
	}
	result, err := rsyslog.Remove(ctx, rsyslog.Options{Root: h.Layout.Root(), Pipe: h.Layout.SyslogPipe()})
	if err == nil && result.Warning != "" {
		log.Warn("syslog daemon", "warning", result.Warning)
	}
	return err
}
