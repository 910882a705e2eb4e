// Package fakeguest lays out a VM in a folder as Azure's guest agent would, and
// runs a package's commands the way the guest agent runs them: the same files,
// the same environment, the same order. It is the guest agent for tests and
// for the demo; the real one has its own run (test/e2e/guest).
package fakeguest

import (
	"archive/zip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Settings is what the user deploys. Nil halves are null in the settings file.
type Settings struct {
	Public    json.RawMessage
	Protected []byte // plain text; sealed on the way
	// Raw replaces the whole settings file when it is not nil.
	Raw []byte
}

// Options say where the VM is and what runs on it.
type Options struct {
	// Root is the folder that stands for the VM's file system.
	Root string
	// Name is Publisher.Type of the handler.
	Name string
	// Env is added to the environment of every command.
	Env []string
	// Log gets a line for each command; nil drops them.
	Log func(line string)
}

// A Guest is the guest agent of one VM with at most one extension.
type Guest struct {
	o        Options
	tenant   *tenant
	packages map[string]string // version -> zip
	version  string            // installed; empty is none
	enabled  bool
	seq      int
	settings Settings
}

// New makes a VM without extensions.
func New(o Options) (*Guest, error) {
	if o.Log == nil {
		o.Log = func(string) {}
	}
	t, err := newTenant(time.Now())
	if err != nil {
		return nil, err
	}
	g := &Guest{o: o, tenant: t, packages: map[string]string{}}
	for _, dir := range []string{g.libDir(), filepath.Join(g.logDir(), "events")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make VM: %w", err)
		}
	}
	return g, t.install(g.libDir())
}

// Publish makes a package available as a version.
func (g *Guest) Publish(version, zipFile string) { g.packages[version] = zipFile }

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
	base := filepath.Join(g.libDir(), g.tenant.thumbprint())
	return errors.Join(os.Remove(base+".crt"), os.Remove(base+".prv"))
}

func (g *Guest) libDir() string { return filepath.Join(g.o.Root, "var", "lib", "waagent") }
func (g *Guest) logDir() string { return filepath.Join(g.o.Root, "var", "log", "azure", g.o.Name) }

// Version is the installed version, empty when there is none.
func (g *Guest) Version() string { return g.version }

// Sequence is the number of the current settings.
func (g *Guest) Sequence() int { return g.seq }

// HandlerDir is where a version lies.
func (g *Guest) HandlerDir(version string) string {
	return filepath.Join(g.libDir(), g.o.Name+"-"+version)
}

// HandlerLog is the file that the commands of all versions write to.
func (g *Guest) HandlerLog() string { return filepath.Join(g.logDir(), "handler.log") }

// Enable makes the VM run version with settings, as a goal state does: it
// installs, or updates what is installed, and enables. A new number is given
// to settings that differ from the last.
func (g *Guest) Enable(version string, s Settings) ([]Run, error) {
	if g.version != "" && !same(s, g.settings) {
		g.seq++
	}
	g.settings = s
	var runs []Run
	do := func(r Run, err error) error {
		runs = append(runs, r)
		if err == nil && r.ExitCode != 0 {
			err = r
		}
		return err
	}
	if g.version != version {
		if err := g.unpack(version); err != nil {
			return nil, err
		}
	}
	uninstalled := notRun
	if g.version != "" && g.version != version {
		code, err := g.update(version, do)
		if err != nil {
			return runs, err
		}
		uninstalled = code
	}
	if err := g.writeSettings(version); err != nil {
		return runs, err
	}
	if g.version != version {
		if err := do(g.run(version, "install", g.seq, "AZURE_GUEST_AGENT_UNINSTALL_CMD_EXIT_CODE="+uninstalled)); err != nil {
			return runs, err
		}
		g.version = version
	}
	if err := do(g.run(version, "enable", g.seq, "AZURE_GUEST_AGENT_UNINSTALL_CMD_EXIT_CODE="+uninstalled)); err != nil {
		return runs, err
	}
	g.enabled = true
	return runs, nil
}

// notRun is the guest agent's word for a command that was no part of it.
const notRun = "NOT_RUN"

// update goes from the installed version to another one, up or down, as far
// as the new version's install. It returns the exit code of the old uninstall.
func (g *Guest) update(version string, do func(Run, error) error) (string, error) {
	old := g.version
	disabled := notRun
	if g.enabled {
		if err := do(g.run(old, "disable", g.seq)); err != nil {
			return "", err
		}
		disabled = "0"
	}
	if err := g.carryOver(old, version); err != nil {
		return "", err
	}
	if err := g.writeSettings(version); err != nil {
		return "", err
	}
	// The package with the higher version runs update, whichever way it goes.
	runner := version
	if newer(old, version) {
		runner = old
	}
	env := []string{"AZURE_GUEST_AGENT_DISABLE_CMD_EXIT_CODE=" + disabled, "VERSION=" + version, "AZURE_GUEST_AGENT_UPDATING_FROM_VERSION=" + old}
	if runner == old {
		env[2] = "AZURE_GUEST_AGENT_UPDATING_FROM_VERSION=" + version
	}
	if err := do(g.run(runner, "update", g.seq, env...)); err != nil {
		return "", err
	}
	if err := do(g.run(old, "uninstall", g.seq)); err != nil {
		return "", err
	}
	return "0", os.RemoveAll(g.HandlerDir(old))
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
	copyFile := func(name string) error {
		data, err := os.ReadFile(filepath.Join(g.HandlerDir(from), name))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(g.HandlerDir(to), name), data, 0o600)
	}
	statuses, err := os.ReadDir(filepath.Join(g.HandlerDir(from), "status"))
	if err != nil {
		return err
	}
	errs := []error{copyFile("mrseq")}
	for _, s := range statuses {
		errs = append(errs, copyFile(filepath.Join("status", s.Name())))
	}
	return errors.Join(errs...)
}

// Restart is the guest agent's own start: enable once more.
func (g *Guest) Restart() ([]Run, error) { return g.Enable(g.version, g.settings) }

// Disable stops the extension and leaves it installed.
func (g *Guest) Disable() ([]Run, error) {
	r, err := g.run(g.version, "disable", g.seq)
	if err == nil && r.ExitCode != 0 {
		err = r
	}
	if err == nil {
		g.enabled = false
	}
	return []Run{r}, err
}

// Uninstall disables, uninstalls and deletes the handler's folder. The number
// is 0 whatever it was.
func (g *Guest) Uninstall() ([]Run, error) {
	var runs []Run
	for _, verb := range []string{"disable", "uninstall"} {
		if verb == "disable" && !g.enabled {
			continue
		}
		r, err := g.run(g.version, verb, 0)
		runs = append(runs, r)
		if err != nil {
			return runs, err
		}
		if r.ExitCode != 0 && verb == "disable" {
			return runs, r
		}
	}
	dir := g.HandlerDir(g.version)
	g.version, g.enabled, g.seq = "", false, 0
	return runs, os.RemoveAll(dir)
}

func same(a, b Settings) bool {
	return string(a.Public) == string(b.Public) && string(a.Protected) == string(b.Protected) && string(a.Raw) == string(b.Raw)
}

// unpack extracts a package as the guest agent does: links and modes are lost,
// then every file can be executed by its owner.
func (g *Guest) unpack(version string) error {
	file, ok := g.packages[version]
	if !ok {
		return fmt.Errorf("unpack: version %s was not published", version)
	}
	z, err := zip.OpenReader(file)
	if err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	defer func() { _ = z.Close() }() // only read
	dir := g.HandlerDir(version)
	for _, member := range z.File {
		if err := extract(member, dir); err != nil {
			return fmt.Errorf("unpack %s: %w", member.Name, err)
		}
	}
	for _, sub := range []string{"config", "status"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return fmt.Errorf("unpack: %w", err)
		}
	}
	return g.writeEnvironment(version)
}

func extract(member *zip.File, dir string) error {
	path := filepath.Join(dir, filepath.FromSlash(member.Name))
	if !filepath.IsLocal(filepath.FromSlash(member.Name)) {
		return errors.New("it leads out of the package")
	}
	if strings.HasSuffix(member.Name, "/") {
		return os.MkdirAll(path, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	in, err := member.Open()
	if err != nil {
		return err
	}
	data, err := io.ReadAll(in)
	if err := errors.Join(err, in.Close()); err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o744)
}

func (g *Guest) writeEnvironment(version string) error {
	dir := g.HandlerDir(version)
	events := filepath.Join(g.logDir(), "events")
	data, err := json.Marshal([]any{map[string]any{
		"name": g.o.Name, "version": 1.0,
		"handlerEnvironment": map[string]string{
			"logFolder": g.logDir(), "configFolder": filepath.Join(dir, "config"), "statusFolder": filepath.Join(dir, "status"),
			"heartbeatFile": filepath.Join(dir, "heartbeat.log"), "eventsFolder": events, "eventsFolder_preview": events,
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

func (g *Guest) settingsFile() ([]byte, error) {
	s := g.settings
	if s.Raw != nil {
		return s.Raw, nil
	}
	if s.Public == nil && s.Protected == nil {
		return nil, nil
	}
	half := map[string]any{"publicSettings": s.Public, "protectedSettings": nil, "protectedSettingsCertThumbprint": nil}
	if s.Protected != nil {
		sealed, err := g.tenant.seal(s.Protected)
		if err != nil {
			return nil, err
		}
		half["protectedSettings"], half["protectedSettingsCertThumbprint"] = sealed, g.tenant.thumbprint()
	}
	return json.Marshal(map[string]any{"runtimeSettings": []any{map[string]any{"handlerSettings": half}}})
}

// Thumbprint names the VM's present certificate.
func (g *Guest) Thumbprint() string { return g.tenant.thumbprint() }
