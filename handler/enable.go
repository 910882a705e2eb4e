package handler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/openloganalytics/agent/agent"
	"github.com/openloganalytics/agent/extension"
	"github.com/openloganalytics/agent/internal/atomicfile"
	"github.com/openloganalytics/agent/internal/product"
	"github.com/openloganalytics/agent/internal/secret"
)

// enable makes the machine obey the settings: it converges. The same settings
// on a healthy machine change nothing; whatever is missing is put right.
// Settings that are wrong change nothing either: the agent goes on with the
// ones it has.
func (h *Handler) enable(ctx context.Context, x *extension.Invocation) error {
	if x.Env == nil {
		return errors.New("HandlerEnvironment.json is not readable; the guest agent writes it when it starts")
	}
	started, err := h.apply(ctx, x)
	if err != nil && !started {
		h.carryOn(ctx, x)
	}
	return err
}

// carryOn makes sure that the agent runs with the settings it has when new
// ones cannot be applied: after a reboot, and in an update, nobody else starts
// it. What stands in the way is logged; the error that the user sees is the one
// about the settings.
func (h *Handler) carryOn(ctx context.Context, x *extension.Invocation) {
	s, unlock, err := h.open(ctx)
	if err != nil {
		x.Log.Warn("cannot go on with the old settings", "error", err)
		return
	}
	defer unlock()
	if _, err := os.Stat(h.Layout.ConfigFile()); err != nil || s.Generation == "" {
		return // there are none
	}
	if _, _, err := h.place(ctx, s, x.Log); err != nil {
		x.Log.Warn("not everything is in place", "error", err)
	}
	s.Owner, s.OwnerDir, s.HandlerDir = product.Version, x.Env.HandlerDir, x.Env.HandlerDir
	s.Updating, s.Missing = time.Time{}, time.Time{}
	if err := errors.Join(h.saveState(s), h.startAgent(ctx, s, false, x)); err != nil {
		x.Log.Warn("cannot go on with the old settings", "error", err)
	}
}

// apply brings the settings into force. started says that it came as far as
// starting the agent.
func (h *Handler) apply(ctx context.Context, x *extension.Invocation) (started bool, err error) {
	settings, err := h.readSettings(ctx, x)
	if err != nil {
		return false, err
	}
	s, unlock, err := h.open(ctx)
	if err != nil {
		return false, err
	}
	defer unlock()
	h.sweep(x)
	uid, gid, err := h.place(ctx, s, x.Log)
	if err != nil {
		return false, err
	}
	h.shareQuota(settings, x.Log)
	h.adopt(s, x, settings)
	settings.note(h.chooseRoad(ctx, s, settings.Config.Sources.Syslog, x.Now()))
	renewed, err := h.deliver(s, settings, uid, gid)
	if err != nil {
		return false, fmt.Errorf("hand the settings to the agent: %w", err)
	}
	if err := h.saveState(s); err != nil {
		return false, err
	}
	settings.note(h.configureSyslog(ctx, passedOn(&settings.Config), uid, x.Log))
	if err := h.startAgent(ctx, s, renewed, x); err != nil {
		return true, err
	}
	verdict := h.await(ctx, s, x)
	s.Reporting.Failed, s.Reporting.Notes = verdict.err != nil, settings.Notes
	if err := h.saveState(s); err != nil {
		return true, err
	}
	if verdict.err != nil {
		return true, verdict.report(x, nil)
	}
	if err := extension.SetLastApplied(x.Env.HandlerDir, x.Seq); err != nil {
		x.Log.Warn("number of the settings in force not kept", "error", err)
	}
	h.removeOldVersions(x)
	return true, verdict.report(x, settings.Notes)
}

// sweep deletes what commands that were killed have left half-written. It is a
// courtesy: a failure is logged.
func (h *Handler) sweep(x *extension.Invocation) {
	const longerThanAnyWrite = time.Hour
	for _, dir := range []string{
		h.Layout.HandlerDir(), h.Layout.ConfigDir(), filepath.Dir(h.Layout.VersionBinary(product.Version)),
		x.Env.HandlerDir, x.Env.StatusFolder,
	} {
		if err := atomicfile.Clean(dir, "", longerThanAnyWrite); err != nil {
			x.Log.Warn("what a killed command left stays", "error", err)
		}
	}
}

// readSettings returns the checked settings of the sequence number in force.
func (h *Handler) readSettings(ctx context.Context, x *extension.Invocation) (*Settings, error) {
	raw, err := extension.ReadSettings(ctx, x.Env, x.Guest.ExtensionName, x.Seq, extension.SystemKeys(x.Env))
	if err != nil {
		return nil, err
	}
	settings, err := ParseSettings(raw.Public, raw.Protected)
	if err != nil {
		return nil, err
	}
	if err := settings.readTrusted(); err != nil {
		return nil, err
	}
	if settings.StopOnMultipleConnections {
		if err := h.otherConnections(settings); err != nil {
			return nil, extension.WithCode(extension.ExitBadSettings, err)
		}
	}
	return settings, nil
}

// otherConnections refuses a machine on which the earlier Log Analytics agent
// reports to a workspace that is not among the settings'.
func (h *Handler) otherConnections(s *Settings) error {
	dir := filepath.Join("/", h.Layout.Root(), "etc", "opt", "microsoft", "omsagent")
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for the earlier agent: %w", err)
	}
	for _, e := range entries {
		name := strings.ToLower(e.Name())
		other := name == "scom" || guid.MatchString(name) &&
			!slices.ContainsFunc(s.Config.Workspaces, func(w agent.Workspace) bool { return w.ID == name })
		if other {
			return fmt.Errorf("LINUXOMSAGENTEXTENSION_ERROR_MULTIPLECONNECTIONS: stopOnMultipleConnections is set and the earlier agent reports to %s (%s); "+
				"remove that connection, or set stopOnMultipleConnections to false to be billed for both", name, filepath.Join(dir, e.Name()))
		}
	}
	return nil
}

// adopt takes over the machine for this version and these settings.
func (h *Handler) adopt(s *state, x *extension.Invocation, settings *Settings) {
	s.Owner, s.OwnerDir = product.Version, x.Env.HandlerDir
	s.HandlerDir = x.Env.HandlerDir
	s.Updating, s.Missing = time.Time{}, time.Time{}
	if s.Installed.IsZero() {
		s.Installed = x.Now().UTC()
	}
	limits := settings.Config.Limits
	s.CPUPercent, s.MemoryMB = limits.CPUPercent, limits.MemoryMB
	s.ReadAll, s.ReadsTmp, s.ReadsHome = settings.Config.AnyFile, settings.Config.AnyFile, settings.Config.AnyFile
	for _, log := range settings.Config.Sources.CustomLogs {
		s.ReadAll = true
		for _, p := range log.Patterns {
			s.ReadsTmp = s.ReadsTmp || below(p, "/tmp", "/var/tmp")
			s.ReadsHome = s.ReadsHome || below(p, "/home", "/root", "/run/user")
		}
	}
	for _, a := range settings.Config.Sources.Applications {
		s.ReadsTmp = s.ReadsTmp || below(a.Address, "/tmp", "/var/tmp")
		s.ReadsHome = s.ReadsHome || below(a.Address, "/home", "/root", "/run/user")
	}
	s.BindsLow = false
	for _, l := range settings.Config.Sources.SyslogListeners {
		s.BindsLow = s.BindsLow || l.Port < lowPorts
		for _, p := range []string{l.CertificateFile, l.KeyFile, l.ClientCAFile} {
			s.ReadsTmp = s.ReadsTmp || p != "" && below(p, "/tmp", "/var/tmp")
			s.ReadsHome = s.ReadsHome || p != "" && below(p, "/home", "/root", "/run/user")
		}
	}
	s.Reporting = &reporting{HandlerDir: x.Env.HandlerDir, Extension: x.Guest.ExtensionName, Sequence: x.Seq, LogPath: x.LogPath}
}

// lowPorts are those that need a privilege: all below this one.
const lowPorts = 1024

// below reports whether a pattern can match something below one of the
// folders: its fixed part lies there, or leads there.
func below(pattern string, dirs ...string) bool {
	fixed := pattern
	if i := strings.IndexAny(pattern, "*?[{"); i >= 0 {
		fixed = pattern[:i]
	}
	for _, dir := range dirs {
		if strings.HasPrefix(fixed, dir+"/") || strings.HasPrefix(dir+"/", fixed) {
			return true
		}
	}
	return false
}

// deliver writes what the agent obeys: the keys of the workspaces that it does
// not have yet, the proxy, and the config. It reports whether there is something
// new that the agent learns only when it is started again; a new config it
// finds as it runs.
func (h *Handler) deliver(s *state, settings *Settings, uid, gid int) (renewed bool, err error) {
	settings.Config.Installed, settings.Config.MachineID = s.Installed, s.MachineID
	settings.Config.Generation = settings.Generation()
	data, err := json.MarshalIndent(settings.Config, "", "  ")
	if err != nil {
		return false, err
	}
	newKeys, err := h.deliverKeys(s, settings, uid, gid)
	if err != nil {
		return false, err
	}
	newProxy, err := h.deliverProxy(settings.Proxy, uid, gid)
	if err != nil {
		return false, err
	}
	if err := h.deliverPasswords(settings, uid, gid); err != nil {
		return false, err
	}
	now, err := atomicfile.ReadLimited(h.Layout.ConfigFile(), 16<<20)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if string(now) != string(data) {
		if err := atomicfile.WriteOwned(h.Layout.ConfigFile(), data, 0o640, 0, gid); err != nil {
			return false, err
		}
	}
	s.Generation = settings.Config.Generation
	return newKeys || newProxy, nil
}

func (h *Handler) deliverProxy(setting secret.Secret, uid, gid int) (renewed bool, err error) {
	if setting.IsZero() {
		err := os.Remove(h.Layout.ProxyFile())
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		return true, err
	}
	now, err := atomicfile.ReadLimited(h.Layout.ProxyFile(), 64<<10)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	return string(now) != setting.Reveal(), atomicfile.WriteOwned(h.Layout.ProxyFile(), []byte(setting.Reveal()), 0o400, uid, gid)
}

// deliverKeys hands over each key that differs from the last one that was. The
// agent deletes a key once its workspace accepted it.
func (h *Handler) deliverKeys(s *state, settings *Settings, uid, gid int) (any bool, err error) {
	root, err := os.OpenRoot(h.Layout.AgentDir()) // the agent's own folder: no link in it may lead us out
	if err != nil {
		return false, err
	}
	defer func() { _ = root.Close() }() // only holds the folder
	keys, domains := map[string]string{}, map[string]string{}
	for _, w := range settings.Config.Workspaces {
		domains[w.ID] = w.Domain
	}
	health, err := agent.ReadHealth(h.Layout.HealthFile())
	if err != nil {
		health = &agent.Health{} // nothing is known yet
	}
	for _, id := range slices.Sorted(maps.Keys(settings.Keys)) {
		key := settings.Keys[id]
		keys[id] = keyDigest(id+"@"+domains[id], key)
		if s.Keys[id] == keys[id] && h.keyServed(root, id, health) {
			continue
		}
		any = true
		if err := h.deliverKey(root, id, key, uid, gid); err != nil {
			return false, fmt.Errorf("workspace %s: %w", id, err)
		}
	}
	s.Keys = keys
	return any, h.forgetKeys(root, settings)
}

// forgetKeys deletes keys of workspaces that the settings no longer name.
func (h *Handler) forgetKeys(root *os.Root, settings *Settings) error {
	entries, err := fs.ReadDir(root.FS(), "workspaces")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		name, err := filepath.Rel(h.Layout.AgentDir(), h.Layout.WorkspaceKeyFile(e.Name()))
		if err != nil {
			return err
		}
		unwanted := []string{name + beside} // of an enable that was killed
		if _, named := settings.Keys[e.Name()]; !named {
			unwanted = append(unwanted, name)
		}
		for _, name := range unwanted {
			if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// renewBefore is how long before its certificate ends the agent gets the key
// again, to make a new one with.
const renewBefore = 60 * 24 * time.Hour

// keyServed reports whether the same key need not be handed over again: it
// still lies there to be used, or it made an identity that the workspace takes
// and that does not end soon.
func (h *Handler) keyServed(root *os.Root, id string, health *agent.Health) bool {
	there := func(path string) bool {
		name, err := filepath.Rel(h.Layout.AgentDir(), path)
		if err != nil {
			return false
		}
		info, err := root.Lstat(name)
		return err == nil && info.Mode().IsRegular()
	}
	if there(h.Layout.WorkspaceKeyFile(id)) {
		return true
	}
	for _, w := range health.Workspaces {
		if w.ID == id && (w.State == agent.StateRejected || !w.CertificateUntil.IsZero() && time.Until(w.CertificateUntil) < renewBefore) {
			return false
		}
	}
	return there(filepath.Join(h.Layout.WorkspaceDir(id), "identity.pem")) && there(filepath.Join(h.Layout.WorkspaceDir(id), "state.json"))
}

// beside is added to the name of a key while it is written.
const beside = ".new"

func (h *Handler) deliverKey(root *os.Root, id string, key secret.Secret, uid, gid int) error {
	name, err := filepath.Rel(h.Layout.AgentDir(), h.Layout.WorkspaceKeyFile(id))
	if err != nil {
		return err
	}
	for _, dir := range []string{filepath.Dir(filepath.Dir(name)), filepath.Dir(name)} {
		err := root.Mkdir(dir, 0o700)
		if errors.Is(err, fs.ErrExist) {
			err = nil // its owner may be missing: a command can be killed in between
		}
		if err == nil && h.Root {
			err = root.Lchown(dir, uid, gid)
		}
		if err != nil {
			return err
		}
	}
	if err := root.Remove(name + beside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := root.OpenFile(name+beside, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(key.Reveal())
	if err == nil && h.Root {
		err = f.Chown(uid, gid)
	}
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return root.Rename(name+beside, name)
}

// startAgent makes sure that this version runs with these settings: it starts
// what does not run, and restarts what runs with something older. An agent of
// this version takes a new config over by itself.
func (h *Handler) startAgent(ctx context.Context, s *state, renewed bool, x *extension.Invocation) error {
	switched, err := h.use(product.Version)
	if err != nil {
		return err
	}
	u := h.unit(s)
	changed, err := h.Manager.Install(ctx, u)
	if err != nil {
		return fmt.Errorf("install the service: %w", err)
	}
	now, err := h.Manager.Status(ctx, u)
	if err != nil {
		return fmt.Errorf("ask for the service: %w", err)
	}
	stale := renewed || switched || changed || h.runsOtherVersion()
	if now.Running && stale {
		x.Log.Info("restart the agent", "new secrets", renewed, "new version", switched, "new unit", changed)
		err = h.Manager.Restart(ctx, u)
	} else {
		err = h.Manager.Start(ctx, u)
	}
	if err != nil {
		return fmt.Errorf("start the agent: %w", err)
	}
	return nil
}

// runsOtherVersion reports whether the agent that wrote the health file is of
// another version than it should be: an enable that was killed half-way leaves
// such an agent behind.
func (h *Handler) runsOtherVersion() bool {
	health, err := agent.ReadHealth(h.Layout.HealthFile())
	return err == nil && health.Version != product.Version
}

// removeOldVersions deletes binaries of versions that are neither in use nor
// installed as a handler. It is a courtesy: a failure is logged.
func (h *Handler) removeOldVersions(x *extension.Invocation) {
	entries, err := os.ReadDir(h.Layout.VersionsDir())
	if err != nil {
		x.Log.Warn("cannot look for old versions", "error", err)
		return
	}
	for _, e := range entries {
		if !e.IsDir() || e.Name() == product.Version {
			continue
		}
		if _, err := os.Stat(h.siblingDir(x, e.Name())); err == nil {
			continue
		}
		if err := h.removeVersion(e.Name()); err != nil {
			x.Log.Warn("cannot remove an old version", "error", err)
		}
	}
}
