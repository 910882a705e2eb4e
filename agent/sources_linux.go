package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/openloganalytics/agent/agent/source"
	"github.com/openloganalytics/agent/agent/source/journal"
	"github.com/openloganalytics/agent/agent/source/syslog"
	"github.com/openloganalytics/agent/internal/hostinfo"
)

const osType = "Linux"

func systemSources(list []source.Source, o Options, h *host) ([]source.Source, error) {
	cfg := o.Config.Sources.Syslog
	if cfg == nil {
		return list, nil
	}
	received := syslog.Options{
		Socket: o.Layout.SyslogSocket(), UDP: cfg.UDP, TCP: cfg.TCP,
		Selectors: selectors(cfg.Selectors), Security: selectors(cfg.Security), Hostname: h.name, Addresses: hostinfo.PrivateIPs, Log: o.Log,
	}
	switch cfg.Road {
	case RoadJournal:
		s, err := journalSource(cfg, received, o)
		if err != nil {
			return nil, fmt.Errorf("set up journal: %w", err)
		}
		if s, err = o.Config.messages(s, cfg.Selectors); err != nil {
			return nil, fmt.Errorf("set up journal: %w", err)
		}
		list = append(list, s)
		if o.dry { // the socket is the agent's own
			return list, nil
		}
	case RoadSyslogNG:
		received.Stream = o.Layout.SyslogStream()
	case RoadRSyslog, "":
		received.Pipe = o.Layout.SyslogPipe()
	default:
		return nil, fmt.Errorf("set up syslog: %q is no road; use %s, %s or %s", cfg.Road, RoadRSyslog, RoadSyslogNG, RoadJournal)
	}
	s, err := syslog.New(received)
	if err != nil {
		return nil, fmt.Errorf("set up syslog: %w", err)
	}
	t, err := o.Config.messages(s, cfg.Selectors)
	if err != nil {
		return nil, fmt.Errorf("set up syslog: %w", err)
	}
	return append(list, t), nil
}

// journalSource returns the source that reads this machine's journal.
func journalSource(cfg *Syslog, received syslog.Options, o Options) (source.Source, error) {
	under := func(path ...string) string { return filepath.Join(append([]string{"/", o.Layout.Root()}, path...)...) }
	machine, err := os.ReadFile(under("etc", "machine-id"))
	if err != nil {
		return nil, fmt.Errorf("find the journal: %w", err)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fmt.Errorf("find the journal: %w", err)
	}
	folder := strings.TrimSpace(string(machine))
	return journal.New(journal.Options{
		Volatile:   under("run", "log", "journal", folder),
		Persistent: under("var", "log", "journal", folder),
		Since:      cfg.Since, BootID: string(boot), Uptime: uptime,
		Selectors: received.Selectors, Security: received.Security, Hostname: received.Hostname, Addresses: received.Addresses, Log: received.Log,
	})
}

// uptime is how long the machine has run, as journald counts it.
func uptime() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return 0 // all of this boot, then
	}
	return time.Duration(now.Nano())
}
