package handler

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/openloganalytics/agent/agent"
	"github.com/openloganalytics/agent/extension"
	"github.com/openloganalytics/agent/handler/service"
	"github.com/openloganalytics/agent/internal/logfile"
	"github.com/openloganalytics/agent/internal/product"
)

// Report brings the status file of the settings in force up to date with the
// agent's health. The guest agent reads that file for as long as the extension
// is there, so what a person sees stays true long after enable. While a command
// is at work Report does nothing: the command writes the status itself.
func (h *Handler) Report(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	unlock, err := h.lock(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unlock()
	s, err := h.loadState()
	if err != nil {
		return err
	}
	if s.Reporting == nil {
		return nil
	}
	env, err := extension.ReadEnvironment(ctx, s.Reporting.HandlerDir)
	if errors.Is(err, fs.ErrNotExist) {
		return h.missing(ctx, s)
	}
	if err != nil {
		return err
	}
	health, err := agent.ReadHealth(h.Layout.HealthFile())
	if errors.Is(err, fs.ErrNotExist) {
		health, err = &agent.Health{}, nil // the agent did not come so far
	}
	if err != nil {
		return fmt.Errorf("read the agent's health: %w", err)
	}
	status := extension.NewReporter(env, s.Reporting.Extension, s.Reporting.Sequence, "Enable", s.Reporting.LogPath, time.Now)
	wrote, last := h.wrote(ctx, s, health), h.lastEnd()
	if !wrote && last.At.After(health.Updated) {
		return status.Error(fmt.Errorf("the agent does not run (%s); it is started again, and its log is %s", last.How, h.agentLog()))
	}
	if health.Clean || health.Generation != s.Generation || health.Version != product.Version {
		return nil // about to start, or to be replaced
	}
	v := judge(health)
	if !wrote {
		v.err = fmt.Errorf("the agent does not run; it is started again, and its log is %s", h.agentLog())
	}
	switch {
	case v.err != nil && extension.CodeOf(v.err) == extension.ExitFailed:
		err = status.Error(v.err)
	case v.err == nil:
		err = status.Success(summary(health, s.Reporting.Notes), parts(health)...)
		if err == nil && s.Reporting.Failed {
			s.Reporting.Failed = false
			err = errors.Join(extension.SetLastApplied(env.HandlerDir, s.Reporting.Sequence), h.saveState(s))
		}
	case s.Reporting.Failed || extension.CodeOf(v.err) == extension.ExitBadSettings:
		err = status.Error(v.err, parts(health)...)
	default:
		// It worked before, nothing is lost, and it is being tried again.
		err = status.Warning(v.err.Error(), parts(health)...)
	}
	return err
}

// missing is what Report does when the guest agent deleted the handler without
// uninstalling it: at the second look, minutes after the first, it stops the
// agent. The data stays; an uninstall is not what was asked for.
func (h *Handler) missing(ctx context.Context, s *state) error {
	if !service.Vanished(h.unit(s)) {
		s.Missing = time.Time{}
		return h.saveState(s)
	}
	if s.Missing.IsZero() {
		s.Missing = time.Now().UTC()
		return h.saveState(s)
	}
	if time.Since(s.Missing) < vanishedFor {
		return nil
	}
	if err := h.Manager.Stop(ctx, h.unit(s)); err != nil {
		return fmt.Errorf("stop the agent of a handler that is gone: %w", err)
	}
	return nil
}

// vanishedFor is longer than any update keeps the handler's folder away.
const vanishedFor = 2 * time.Minute

// Supervise keeps the agent running where there is no service manager.
func (h *Handler) Supervise(ctx context.Context, log *logfile.Logger) error {
	return service.Supervise(ctx, service.SuperviseOptions{
		Layout:  h.Layout,
		Prepare: func(ctx context.Context) error { return h.Prepare(ctx, log) },
		Ended:   h.Ended, Report: h.Report, Log: log,
	})
}

// agentLog is where the agent itself writes.
func (h *Handler) agentLog() string { return filepath.Join(h.Layout.AgentLogDir(), "agent.log") }

// LogPath is where a command writes: the folder that the guest agent names, or
// the product's own.
func (h *Handler) LogPath(env *extension.Environment) string {
	if env != nil && env.LogFolder != "" {
		return filepath.Join(env.LogFolder, "handler.log")
	}
	return filepath.Join(h.Layout.LogDir(), "handler.log")
}

// HandlerDir is the folder that the guest agent unpacked this handler into: it
// says so, it makes it the working folder, and the binary lies in it.
func (h *Handler) HandlerDir(guest extension.GuestAgent) string {
	candidates := []string{guest.ExtensionPath, ".", filepath.Dir(filepath.Dir(h.Self))}
	for _, dir := range candidates {
		if dir == "" {
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, "HandlerEnvironment.json")); err != nil {
			continue
		}
		if abs, err := filepath.Abs(dir); err == nil {
			return abs
		}
	}
	return guest.ExtensionPath
}

func troubles(all map[string]string) string {
	text := ""
	for i, thing := range slices.Sorted(maps.Keys(all)) {
		if i == 3 {
			return text + fmt.Sprintf("And %d more.", len(all)-i)
		}
		text += thing + ": " + sentence(all[thing]) + " "
	}
	return text
}
