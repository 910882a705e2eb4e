// Package fakeguest lays out a VM in a folder as Azure's guest agent would, and
// runs a package's commands the way the guest agent runs them: the same files,
// the same environment, the same order. It is the guest agent for tests and
// for the demo; the real one has its own run (test/e2e/guest). It shares no
// code with what it judges.
package fakeguest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Settings is what the user deploys. Nil halves are null in the settings file;
// without both the extension is deployed without settings.
type Settings struct {
	Public    json.RawMessage
	Protected []byte // plain text; sealed on the way
	Sealing   Sealing
	// Raw replaces the whole settings file when it is not nil.
	Raw []byte
}

// Options say where the VM is and what runs on it.
type Options struct {
	// Root is the folder that stands for the VM's file system.
	Root string
	// Name is Publisher.Type of the handler.
	Name string
	// Env is the guest agent's own environment. Every command gets it, and it
	// hides what the guest agent sets under the same names.
	Env []string
	// Limits are the times after which commands are killed, by verb. What is
	// not in it has the guest agent's: 300 s for enable and uninstall, 900 s
	// for the others.
	Limits map[string]time.Duration
	// Log gets a line for each command; nil drops them.
	Log func(line string)
}

// A Guest is the guest agent of one VM with at most one extension.
type Guest struct {
	o        Options
	tenant   *tenant
	packages map[string]string // version -> zip or folder
	version  string            // installed; empty is none
	enabled  bool
	deployed bool // settings has been deployed as number seq
	seq      int
	settings Settings
}

// New makes a VM without extensions.
func New(o Options) (*Guest, error) {
	if o.Log == nil {
		o.Log = func(string) {}
	}
	g := &Guest{o: o, packages: map[string]string{}}
	for _, dir := range []string{g.libDir(), g.eventsDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make VM: %w", err)
		}
	}
	// Every user can read the logs.
	if err := os.Chmod(g.logDir(), 0o755); err != nil {
		return nil, fmt.Errorf("make VM: %w", err)
	}
	return g, g.Rotate()
}

// Publish makes a package, a zip file or a folder, available as a version.
func (g *Guest) Publish(version, path string) { g.packages[version] = path }

// Rotate gives the VM a new tenant certificate; settings are sealed for it
// from now on.
func (g *Guest) Rotate() error {
	t, err := newTenant(time.Now())
	if err != nil {
		return err
	}
	g.tenant = t
	return t.install(g.libDir())
}

// Forget takes the tenant certificate away, as a VM that was moved lacks it.
func (g *Guest) Forget() error {
	base := filepath.Join(g.libDir(), g.Thumbprint())
	return errors.Join(os.Remove(base+".crt"), os.Remove(base+".prv"))
}

func (g *Guest) libDir() string    { return filepath.Join(g.o.Root, "var", "lib", "waagent") }
func (g *Guest) logDir() string    { return filepath.Join(g.o.Root, "var", "log", "azure", g.o.Name) }
func (g *Guest) eventsDir() string { return filepath.Join(g.logDir(), "events") }

// Version is the installed version, empty when there is none.
func (g *Guest) Version() string { return g.version }

// Sequence is the number of the current settings.
func (g *Guest) Sequence() int { return g.seq }

// Thumbprint names the VM's present certificate.
func (g *Guest) Thumbprint() string { return thumbprint(g.tenant.cert) }

// HandlerDir is where a version lies.
func (g *Guest) HandlerDir(version string) string {
	return filepath.Join(g.libDir(), g.o.Name+"-"+version)
}

// HandlerLog is the file that the commands of all versions write to.
func (g *Guest) HandlerLog() string { return filepath.Join(g.logDir(), "handler.log") }

// A goal is one goal state at work: the commands it has led to.
type goal struct {
	*Guest
	runs []Run
}

// do runs a command and keeps what became of it. A command that failed is the
// error, a Run.
func (g *goal) do(version, verb string, seq int, env ...string) error {
	r, err := g.run(version, verb, seq, env...)
	if err != nil {
		return err
	}
	g.runs = append(g.runs, r)
	if r.ExitCode != 0 {
		return r
	}
	return nil
}

// Enable makes the VM run version with settings, as a goal state does: it
// installs, or updates what is installed, and enables. A new number is given
// to settings that differ from the last. When a command fails, the error is its
// Run and the VM is left as the guest agent leaves it: the next Enable goes on
// from there.
func (g *Guest) Enable(version string, s Settings) ([]Run, error) {
	g.take(s)
	goal := &goal{Guest: g}
	uninstalled, err := goal.install(version)
	if err != nil {
		return goal.runs, err
	}
	if err := g.writeSettings(version); err != nil {
		return goal.runs, err
	}
	if !g.hasSettings() {
		uninstalled = notRun // The guest agent does not tell a handler without settings.
	}
	if err := goal.do(version, "enable", g.seq, envUninstalled+uninstalled); err != nil {
		return goal.runs, err
	}
	g.enabled = true
	return goal.runs, g.keepState(version, "Enabled")
}

// take makes s the settings in force.
func (g *Guest) take(s Settings) {
	if g.deployed && !same(s, g.settings) {
		g.seq++
	}
	g.settings, g.deployed = s, true
}

// Offer writes new settings for the installed version and runs nothing, as when
// the guest agent is stopped in between. The next Enable with the same settings
// goes on from there.
func (g *Guest) Offer(s Settings) error {
	g.take(s)
	return g.writeSettings(g.version)
}

// What the guest agent says of a command that was no part of the operation,
// and of the disable that a repeated update leaves out.
const (
	notRun  = "NOT_RUN"
	noneRun = "None"

	envUninstalled = "AZURE_GUEST_AGENT_UNINSTALL_CMD_EXIT_CODE="
	envDisabled    = "AZURE_GUEST_AGENT_DISABLE_CMD_EXIT_CODE="
)

// install makes version the installed one. It returns the exit code of the old
// version's uninstall.
func (g *goal) install(version string) (uninstalled string, err error) {
	if g.version == version {
		// The guest agent writes it anew whenever it starts.
		return notRun, g.writeEnvironment(version)
	}
	if err := g.unpack(version); err != nil {
		return "", err
	}
	if err := g.writeSettings(version); err != nil {
		return "", err
	}
	manifest, err := readManifest(g.HandlerDir(version))
	if err != nil {
		return "", err
	}
	uninstalled = notRun
	if g.version != "" {
		if uninstalled, err = g.update(version, manifest); err != nil {
			return "", err
		}
	}
	if g.version == "" && (uninstalled == notRun || manifest.withInstall()) {
		if err := g.do(version, "install", g.seq, envUninstalled+uninstalled); err != nil {
			return "", err
		}
	}
	g.version = version
	return uninstalled, g.keepState(version, "Installed")
}

// update goes from the installed version to another one, up or down, as far
// as the deletion of the old one. The old version's commands get the number of
// settings that only the new one has. A failure of theirs ends the update
// unless the new manifest says to go on.
func (g *goal) update(version string, manifest *manifest) (uninstalled string, err error) {
	old := g.version
	disabled := noneRun
	if g.enabled {
		if disabled, err = g.doOld(manifest, "disable"); err != nil {
			return "", err
		}
		g.enabled = false
		if err := g.keepState(old, "Installed"); err != nil {
			return "", err
		}
	}
	if err := g.carryOver(old, version); err != nil {
		return "", err
	}
	// The package with the higher version runs update, whichever way it goes.
	runner, from := version, old
	if newer(old, version) {
		runner, from = old, version
	}
	err = g.do(runner, "update", g.seq, envDisabled+disabled, "VERSION="+version, "AZURE_GUEST_AGENT_UPDATING_FROM_VERSION="+from)
	if err != nil {
		return "", errors.Join(err, g.keepState(version, "FailedUpgrade"))
	}
	if uninstalled, err = g.doOld(manifest, "uninstall"); err != nil {
		return "", err
	}
	g.version = ""
	return uninstalled, os.RemoveAll(g.HandlerDir(old))
}

// doOld runs a command of the version to be left and returns its exit code.
func (g *goal) doOld(manifest *manifest, verb string) (code string, err error) {
	err = g.do(g.version, verb, g.seq)
	var failed Run
	if errors.As(err, &failed) && manifest.goesOn() {
		return strconv.Itoa(failed.ExitCode), nil
	}
	return "0", err
}

// newer reports whether version a is higher than b.
func newer(a, b string) bool {
	as, bs := strings.Split(a, "."), strings.Split(b, ".")
	for i := range min(len(as), len(bs)) {
		x, _ := strconv.Atoi(as[i]) // packages have numbers only
		y, _ := strconv.Atoi(bs[i])
		if x != y {
			return x > y
		}
	}
	return len(as) > len(bs)
}

// carryOver copies what the guest agent copies in an update.
func (g *Guest) carryOver(from, to string) error {
	statuses, err := os.ReadDir(filepath.Join(g.HandlerDir(from), "status"))
	if err != nil {
		return fmt.Errorf("carry over: %w", err)
	}
	names := []string{"mrseq"}
	for _, s := range statuses {
		names = append(names, filepath.Join("status", s.Name()))
	}
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join(g.HandlerDir(from), name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(g.HandlerDir(to), name), data, 0o600)
		}
		if err != nil {
			return fmt.Errorf("carry over: %w", err)
		}
	}
	return nil
}

// Restart is the guest agent's own start: enable once more.
func (g *Guest) Restart() ([]Run, error) { return g.Enable(g.version, g.settings) }

// Disable stops the extension and leaves it installed.
func (g *Guest) Disable() ([]Run, error) {
	goal := &goal{Guest: g}
	if err := goal.do(g.version, "disable", g.seq); err != nil {
		return goal.runs, err
	}
	g.enabled = false
	return goal.runs, g.keepState(g.version, "Installed")
}

// Uninstall disables, uninstalls and deletes the handler's folder. The number
// is 0 whatever it was. A disable that fails ends it; an uninstall that fails
// does not keep the folder from being deleted.
func (g *Guest) Uninstall() ([]Run, error) {
	goal := &goal{Guest: g}
	if g.enabled {
		if err := goal.do(g.version, "disable", 0); err != nil {
			return goal.runs, err
		}
	}
	err := goal.do(g.version, "uninstall", 0)
	return goal.runs, errors.Join(err, g.Vanish())
}

// Vanish deletes the handler without a word to it, as the guest agent does with
// an extension that the goal state no longer names. Its processes go on.
func (g *Guest) Vanish() error {
	dir := g.HandlerDir(g.version)
	g.version, g.enabled, g.deployed, g.seq = "", false, false, 0
	return os.RemoveAll(dir)
}

func same(a, b Settings) bool {
	return string(a.Public) == string(b.Public) && string(a.Protected) == string(b.Protected) && string(a.Raw) == string(b.Raw)
}

// keepState writes the file in which the guest agent keeps how far a version is.
func (g *Guest) keepState(version, state string) error {
	return os.WriteFile(filepath.Join(g.HandlerDir(version), "config", "HandlerState"), []byte(state), 0o600)
}

// writeEnvironment writes HandlerEnvironment.json in place, as the guest agent
// does.
func (g *Guest) writeEnvironment(version string) error {
	dir := g.HandlerDir(version)
	data, err := json.Marshal([]any{map[string]any{
		"name": g.o.Name, "version": 1.0,
		"handlerEnvironment": map[string]string{
			"logFolder":     g.logDir(),
			"configFolder":  filepath.Join(dir, "config"),
			"statusFolder":  filepath.Join(dir, "status"),
			"heartbeatFile": filepath.Join(dir, "heartbeat.log"),
			"eventsFolder":  g.eventsDir(), "eventsFolder_preview": g.eventsDir(),
		},
	}})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "HandlerEnvironment.json"), data, 0o644)
}

// writeSettings writes config/N.settings in place, as the guest agent does.
func (g *Guest) writeSettings(version string) error {
	data, err := g.settingsFile()
	if err != nil {
		return err
	}
	path := filepath.Join(g.HandlerDir(version), "config", strconv.Itoa(g.seq)+".settings")
	return os.WriteFile(path, data, 0o644)
}

func (g *Guest) hasSettings() bool {
	return g.settings.Raw != nil || g.settings.Public != nil || g.settings.Protected != nil
}

// settingsFile has all three keys, null or not; without settings it is empty.
func (g *Guest) settingsFile() ([]byte, error) {
	s := g.settings
	if s.Raw != nil || !g.hasSettings() {
		return s.Raw, nil
	}
	var half struct {
		Public     json.RawMessage `json:"publicSettings"`
		Protected  []byte          `json:"protectedSettings"` // base64
		Thumbprint *string         `json:"protectedSettingsCertThumbprint"`
	}
	half.Public = s.Public
	if s.Protected != nil {
		var err error
		if half.Protected, err = Seal(g.tenant.cert, s.Protected, s.Sealing); err != nil {
			return nil, err
		}
		half.Thumbprint = new(g.Thumbprint())
	}
	return json.Marshal(map[string]any{"runtimeSettings": []any{map[string]any{"handlerSettings": half}}})
}
