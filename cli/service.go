package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/openloganalytics/agent/agent"
	"github.com/openloganalytics/agent/extension"
	"github.com/openloganalytics/agent/handler"
	"github.com/openloganalytics/agent/internal/atomicfile"
	"github.com/openloganalytics/agent/internal/logfile"
	"github.com/openloganalytics/agent/internal/paths"
	"github.com/openloganalytics/agent/internal/proxy"
	"github.com/openloganalytics/agent/internal/secret"
)

// All logs of ours together take at most 20 MB on disk. These are their shares;
// the rest is for the agent's last words, which the supervisor keeps.
const (
	agentLogBytes      = 12 << 20
	handlerLogBytes    = 4 << 20
	supervisorLogBytes = 2 << 20 // or, with systemd, of prepare
)

// run is the agent itself, as the service starts it.
func run(ctx context.Context, _ []string, s Streams) error {
	signal.Ignore(syscall.SIGPIPE) // a supervisor that was killed reads no more, and the agent lives on
	layout := paths.New(os.Getenv(paths.EnvRoot))
	log, closer, err := logfile.Open(logfile.Options{Path: filepath.Join(layout.AgentLogDir(), "agent.log"), MaxBytes: agentLogBytes})
	defer func() { _ = closer.Close() }() // the last line is written
	if err != nil {
		// A log that cannot be written is no reason not to collect; it is tried
		// again with each line.
		fmt.Fprintln(s.Err, err)
	}
	config, err := readConfig(layout)
	if err != nil {
		return err
	}
	through, err := readProxy(layout, log)
	if err != nil {
		return err
	}
	watchdog, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return fmt.Errorf("read the watchdog's interval: %w", err)
	}
	err = agent.Run(ctx, agent.Options{
		Layout: layout, Config: config, Proxy: through, Log: log, Watchdog: watchdog, Effort: effort(),
		Reread: func() (*agent.Config, error) { return readConfig(layout) },
		Notify: func(state string) error {
			_, err := daemon.SdNotify(false, state)
			return err
		},
	})
	if err != nil {
		log.Error("agent ended", "error", err)
	}
	return err
}

const configLimit = 16 << 20

func readConfig(layout paths.Layout) (*agent.Config, error) {
	data, err := atomicfile.ReadLimited(layout.ConfigFile(), configLimit)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, extension.WithCode(extension.ExitBadSettings, fmt.Errorf("no configuration in %s; the extension's enable command writes it", layout.ConfigFile()))
	}
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	config := &agent.Config{}
	if err := json.Unmarshal(data, config); err != nil {
		return nil, fmt.Errorf("read configuration %s: %w", layout.ConfigFile(), err)
	}
	return config, nil
}

func readProxy(layout paths.Layout, log *logfile.Logger) (*proxy.Proxy, error) {
	data, err := atomicfile.ReadLimited(layout.ProxyFile(), 4096)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read proxy: %w", err)
	}
	setting := secret.New(string(data))
	if strings.Contains(setting.Reveal(), "@") {
		log.Scrub(setting)
	}
	p, err := proxy.Parse(setting)
	if err != nil {
		return nil, fmt.Errorf("read proxy: %w", err)
	}
	return p, nil
}

// prepare is what the service manager starts before each run.
func prepare(ctx context.Context, _ []string, s Streams) error {
	h, err := handler.New(os.LookupEnv)
	if err != nil {
		return err
	}
	log, closer, err := logfile.Open(logfile.Options{Path: h.LogPath(nil), MaxBytes: supervisorLogBytes})
	defer func() { _ = closer.Close() }() // the last line is written
	if err != nil {
		fmt.Fprintln(s.Err, err) // as above
	}
	if err := h.Prepare(ctx, log); err != nil {
		return errors.Join(err, h.Ended(err.Error()))
	}
	return nil
}

// ended is what systemd starts after each run. It tells in the environment how
// that ended, see systemd.exec(5); before version 232 it does not.
func ended(context.Context, []string, Streams) error {
	h, err := handler.New(os.LookupEnv)
	if err != nil {
		return err
	}
	result, told := os.LookupEnv("SERVICE_RESULT")
	how, ran := os.LookupEnv("EXIT_CODE")
	switch {
	case !told:
		return h.Ended("systemd does not tell why")
	case result == "success" || !ran: // what prepare could not do it has told
		return h.Ended("")
	}
	return h.Ended(fmt.Sprintf("ended: %s, %s %s", result, how, os.Getenv("EXIT_STATUS")))
}

// report is what the service manager starts when the agent's health changed.
func report(ctx context.Context, _ []string, _ Streams) error {
	h, err := handler.New(os.LookupEnv)
	if err != nil {
		return err
	}
	return h.Report(ctx)
}

// supervise keeps run alive where no service manager does.
func supervise(ctx context.Context, _ []string, s Streams) error {
	h, err := handler.New(os.LookupEnv)
	if err != nil {
		return err
	}
	signal.Ignore(syscall.SIGHUP) // whose terminal it was does not matter
	log, closer, err := logfile.Open(logfile.Options{Path: filepath.Join(h.Layout.HandlerDir(), "supervisor.log"), MaxBytes: supervisorLogBytes})
	defer func() { _ = closer.Close() }() // the last line is written
	if err != nil {
		fmt.Fprintln(s.Err, err) // as above
	}
	return h.Supervise(ctx, log)
}

// version prints the version and what it was built with.
func version(_ context.Context, _ []string, s Streams) error {
	_, err := fmt.Fprintln(s.Out, versionText())
	return err
}

// validate checks the public settings in a file.
func validate(_ context.Context, args []string, s Streams) error {
	if len(args) != 1 {
		return fmt.Errorf("%w: name one file", errUsage)
	}
	data, err := os.ReadFile(args[0])
	if err != nil {
		return fmt.Errorf("read settings: %w", err)
	}
	if err := handler.ValidatePublic(data); err != nil {
		return err
	}
	_, err = fmt.Fprintln(s.Out, "The public settings are valid.")
	return err
}

// status shows how the agent is doing.
func status(_ context.Context, args []string, s Streams) error {
	layout := paths.New(os.Getenv(paths.EnvRoot))
	health, err := agent.ReadHealth(layout.HealthFile())
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("the agent has not run on this machine")
	}
	if errors.Is(err, fs.ErrPermission) {
		return errors.New("the agent's health is root's to read; run it again with sudo")
	}
	if err != nil {
		return err
	}
	if len(args) > 1 || len(args) == 1 && args[0] != "--json" {
		return fmt.Errorf("%w: status takes --json only", errUsage)
	}
	now := time.Now()
	r := newSummary(health, now)
	if len(args) == 0 {
		r.print(s.Out, now)
		return nil
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(s.Out, string(data))
	return err
}
