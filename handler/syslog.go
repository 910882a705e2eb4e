package handler

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/openloganalytics/agent/agent"
	"github.com/openloganalytics/agent/agent/source/syslog"
	"github.com/openloganalytics/agent/handler/syslogd"
	"github.com/openloganalytics/agent/internal/logfile"
)

// chooseRoad says in the config where syslog comes from: from the daemon that
// this machine has, or else from the journal. The note is for the user.
func (h *Handler) chooseRoad(ctx context.Context, s *state, cfg *agent.Syslog, now time.Time) (note string) {
	if !h.Root || cfg == nil || len(cfg.Selectors)+len(cfg.Security) == 0 {
		return ""
	}
	choice := syslogd.Choose(ctx, syslogd.Options{Root: h.Layout.Root()})
	cfg.Road, cfg.Since = choice.Daemon, ""
	if choice.Daemon == "" && h.hasJournal() {
		if s.JournalSince == "" {
			s.JournalSince = now.UTC().Format(time.RFC3339Nano)
		}
		cfg.Road, cfg.Since = agent.RoadJournal, s.JournalSince
		note = "Syslog is read from systemd's journal, because no syslog daemon runs here that could hand it on"
		if choice.Warning != "" {
			note += " (" + choice.Warning + ")"
		}
		return note + "."
	}
	s.JournalSince = ""
	if choice.Daemon == "" {
		cfg.Road = agent.RoadRSyslog // which the user is told to install
		return ""
	}
	return "Syslog comes from " + choice.Daemon + "."
}

// hasJournal reports whether journald runs here.
func (h *Handler) hasJournal() bool {
	_, err := os.Stat(filepath.Join("/", h.Layout.Root(), "run", "systemd", "journal", "socket"))
	return err == nil
}

// passedOn is what the syslog daemon hands to the agent. Where the workspace may
// choose, it is everything, and the agent picks: nothing that root obeys comes
// from the agent.
func passedOn(c *agent.Config) *agent.Syslog {
	if c.Sources.Syslog == nil || !c.FollowWorkspace {
		return c.Sources.Syslog
	}
	all := *c.Sources.Syslog
	all.Selectors = []agent.SyslogSelector{{Facilities: []string{"*"}, Severities: []string{"*"}}}
	return &all
}

// configureSyslog makes the syslog daemon pass on what the settings ask for,
// or stop passing on. What is wrong with it is a note to the user: everything
// else is collected all the same.
func (h *Handler) configureSyslog(ctx context.Context, cfg *agent.Syslog, uid int, log *logfile.Logger) string {
	if !h.Root {
		return ""
	}
	if cfg == nil || cfg.Road == agent.RoadJournal {
		if err := h.removeSyslog(ctx, log); err != nil {
			return "Syslog: " + err.Error() + "."
		}
		return ""
	}
	o := h.syslogDaemon()
	o.Daemon, o.UID = cfg.Road, uid
	for _, s := range slices.Concat(cfg.Selectors, cfg.Security) {
		o.Selectors = append(o.Selectors, syslog.Selector{Facilities: s.Facilities, Severities: s.Severities})
	}
	result, err := syslogd.Configure(ctx, o)
	if err != nil {
		log.Warn("syslog daemon not configured", "error", err)
		return fmt.Sprintf("Syslog is not collected: %v.", err)
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
	result, err := syslogd.Remove(ctx, h.syslogDaemon())
	if err == nil && result.Warning != "" {
		log.Warn("syslog daemon", "warning", result.Warning)
	}
	return err
}

func (h *Handler) syslogDaemon() syslogd.Options {
	return syslogd.Options{Root: h.Layout.Root(), Pipe: h.Layout.SyslogPipe(), Socket: h.Layout.SyslogStream()}
}
