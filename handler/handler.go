// Package handler is the extension's life on a machine: it turns the guest
// agent's five commands into an agent that is installed, configured and kept
// running, or gone without a trace.
//
// Every command can be repeated and can be killed at any point: what it does
// is bring the machine from whatever state it finds to the one that the
// command names. disable and uninstall need no settings, no network and no
// disk space.
package handler

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/openloganalytics/agent/extension"
	"github.com/openloganalytics/agent/handler/service"
	"github.com/openloganalytics/agent/handler/syslogd"
	"github.com/openloganalytics/agent/internal/paths"
	"github.com/openloganalytics/agent/internal/product"
)

// A Handler acts on one machine.
type Handler struct {
	Layout  paths.Layout
	Manager service.Manager
	// Self is the path of the running binary, which install copies.
	Self string
	// Root says that the process is root on the machine itself: it changes
	// owners and creates the user. Below another root everything is the caller's.
	Root bool
	// Patience is how long enable waits for the agent's verdict.
	Patience time.Duration
}

// New returns the handler for this machine, or for the folder that the
// environment names with paths.EnvRoot.
func New(lookup func(string) (string, bool)) (*Handler, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find own binary: %w", err)
	}
	root, _ := lookup(paths.EnvRoot)
	if root != "" && !filepath.IsAbs(root) {
		return nil, fmt.Errorf("read %s: %q is not an absolute path", paths.EnvRoot, root)
	}
	layout := paths.New(root)
	return &Handler{
		Layout:   layout,
		Manager:  service.Detect(layout),
		Self:     self,
		Root:     os.Geteuid() == 0 && root == "",
		Patience: time.Minute,
	}, nil
}

// Commands lists the guest agent's verbs, in the order usage prints them.
func (h *Handler) Commands() []extension.Command {
	return []extension.Command{
		{Name: "install", Run: h.install, FailCode: extension.ExitMissingDependency, Timeout: 10 * time.Minute},
		{Name: "enable", Run: h.enable, Reports: true, NeedsSequence: true, FailCode: extension.ExitFailed, Timeout: 4 * time.Minute},
		{Name: "disable", Run: h.disable, FailCode: extension.ExitFailed, Timeout: 10 * time.Minute},
		{Name: "update", Run: h.update, FailCode: extension.ExitFailed, Timeout: 10 * time.Minute},
		{Name: "uninstall", Run: h.uninstall, FailCode: extension.ExitFailed, Timeout: 4 * time.Minute},
	}
}

// unit is the service as this machine needs it.
func (h *Handler) unit(s *state) service.Unit {
	u := service.Unit{
		Name:       product.Name,
		Binary:     h.Layout.Binary(),
		StateDir:   h.Layout.AgentDir(),
		RunDir:     h.Layout.RunDir(),
		LogDir:     h.Layout.AgentLogDir(),
		ReadDir:    h.Layout.ConfigDir(),
		HandlerDir: s.HandlerDir,
	}
	if h.Root {
		u.User, u.Group, u.Groups = user, user, service.LogGroups()
	}
	u.CPUPercent, u.MemoryMB = s.CPUPercent, s.MemoryMB
	u.ReadAll, u.PrivateTmp, u.ProtectHome = s.ReadAll, !s.ReadsTmp, !s.ReadsHome
	u.BindLow = s.BindsLow
	return u
}

// user is the account that the agent runs as.
const user = product.Name

// disable stops the agent. What it has read and not delivered stays in the
// spool, and the syslog daemon goes on queueing for it: in an update disable
// comes first, and nothing may get lost until enable.
func (h *Handler) disable(ctx context.Context, x *extension.Invocation) error {
	unlock, err := h.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	s, err := h.loadState()
	if err != nil {
		x.Log.Warn("state of the handler is unreadable and not needed", "error", err)
		s = &state{}
	}
	if err := h.Manager.Stop(ctx, h.unit(s)); err != nil {
		return fmt.Errorf("stop the agent: %w", err)
	}
	if err := syslogd.Detach(h.Layout.SyslogPipe()); err != nil { // an agent whose supervisor was killed has not done it
		return err
	}
	x.Log.Info("agent is stopped", "manager", h.Manager.Kind())
	return nil
}

// update passes the machine on to the version that the guest agent goes to:
// from now on an uninstall of any other version leaves alone what they share.
// On a downgrade it is the version to leave that runs update; the guest
// agent's VERSION names the target either way.
func (h *Handler) update(ctx context.Context, x *extension.Invocation) error {
	s, unlock, err := h.open(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	target := x.Guest.Version
	if target == "" {
		target = product.Version
	}
	s.Owner = target
	s.OwnerDir = h.siblingDir(x, target)
	s.Updating = x.Now().UTC()
	if err := h.saveState(s); err != nil {
		return err
	}
	x.Log.Info("update", "from", x.Guest.UpdatingFrom, "to", target, "old disable", string(x.Guest.DisableExitCode))
	return nil
}

// siblingDir is the folder in which the guest agent keeps another version of
// this handler: beside the own one, with the version at its end.
func (h *Handler) siblingDir(x *extension.Invocation, version string) string {
	if x.Env == nil {
		return ""
	}
	own := filepath.Clean(x.Env.HandlerDir)
	if version == product.Version {
		return own
	}
	return filepath.Join(filepath.Dir(own), x.Env.Name+"-"+version)
}

// uninstall removes what belongs to this version; when no other version owns
// the machine, that is everything.
func (h *Handler) uninstall(ctx context.Context, x *extension.Invocation) error {
	unlock, err := h.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	s, err := h.loadState()
	if err != nil {
		x.Log.Warn("state of the handler is unreadable; removing everything", "error", err)
		s = &state{}
	}
	if h.ownedByAnother(s, x.Now()) {
		x.Log.Info("another version owns this machine; only this version's binary goes", "owner", s.Owner)
		return h.removeVersion(product.Version)
	}
	return h.removeAll(ctx, x, s)
}

// updateTime is more than an update takes from its update command to the old
// version's uninstall: the guest agent gives each command a quarter of an hour.
const updateTime = time.Hour

// ownedByAnother reports whether update passed the machine on to a version
// that is really there.
func (h *Handler) ownedByAnother(s *state, now time.Time) bool {
	if s.Owner == "" || s.Owner == product.Version {
		return false
	}
	if !s.Updating.IsZero() && now.Sub(s.Updating).Abs() > updateTime {
		return false // that update failed long ago
	}
	_, err := os.Stat(s.OwnerDir)
	return err == nil
}

// removeAll leaves the machine as it was before the first install. It goes on
// when a step fails, and reports every failure at the end.
func (h *Handler) removeAll(ctx context.Context, x *extension.Invocation, s *state) error {
	u := h.unit(s)
	var errs []error
	step := func(what string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", what, err))
		}
	}
	step("stop the agent", h.Manager.Stop(ctx, u))
	step("remove the service", h.Manager.Remove(ctx, u))
	step("remove the syslog drop-in", h.removeSyslog(ctx, x.Log))
	for _, dir := range []string{h.Layout.VersionsDir(), h.Layout.RunDir(), h.Layout.LogDir(), h.Layout.StateDir()} {
		step("remove folder", os.RemoveAll(dir))
	}
	if h.Root {
		step("remove the user", service.RemoveUser(ctx, user))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	x.Log.Info("everything is removed")
	return nil
}

// removeVersion deletes one version's binary unless it is the one in use.
func (h *Handler) removeVersion(version string) error {
	dir := filepath.Dir(h.Layout.VersionBinary(version))
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove version %s: %w", version, err)
	}
	return nil
}
