//go:build linux

package e2e

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/openloganalytics/agent/agent"
	"github.com/openloganalytics/agent/internal/paths"
	"github.com/openloganalytics/agent/internal/product"
	"github.com/openloganalytics/agent/test/emulator"
	"github.com/openloganalytics/agent/test/fakeguest"
)

const (
	oldVersion  = "1.0.0"
	newVersion  = "1.1.0"
	domain      = "emulator.test"
	handlerName = product.Publisher + "." + product.TypeLinux
)

// packages builds both versions of the package once for all tests.
var packages = sync.OnceValues(func() (map[string]string, error) {
	dir, err := os.MkdirTemp("", "e2e-packages-")
	if err != nil {
		return nil, err
	}
	zips := map[string]string{}
	for _, version := range []string{oldVersion, newVersion} {
		bin := filepath.Join(dir, version)
		binary := filepath.Join(bin, product.Name+"-linux-"+runtime.GOARCH)
		flags := "-s -w -X github.com/openloganalytics/agent/internal/product.Version=" + version
		if err := program("go", "build", "-trimpath", "-ldflags", flags, "-o", binary, "../.."); err != nil {
			return nil, err
		}
		for _, arch := range []string{"amd64", "arm64"} {
			other := filepath.Join(bin, product.Name+"-linux-"+arch)
			if err := os.Link(binary, other); err != nil && !os.IsExist(err) {
				return nil, err
			}
		}
		if err := program("go", "run", "../../manifest/pack", "-version", version, "-bin", bin, "-manifest", "../../HandlerManifest.json", "-out", dir); err != nil {
			return nil, err
		}
		zips[version] = filepath.Join(dir, handlerName+"-"+version+".zip")
	}
	return zips, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if zips, err := packages(); err == nil {
		_ = os.RemoveAll(filepath.Dir(zips[oldVersion])) // a folder for temporary files
	}
	os.Exit(code)
}

func program(name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

// A machine is a VM in a folder, with the guest agent's stand-in on it and the
// workspace emulator within reach.
type machine struct {
	*testing.T
	root      string
	layout    paths.Layout
	guest     *fakeguest.Guest
	service   *emulator.Emulator
	workspace emulator.Workspace
	gateway   string
}

// newMachine makes a machine whose emulator and agent end with the test.
func newMachine(t *testing.T) *machine {
	t.Helper()
	zips, err := packages()
	if err != nil {
		t.Fatal(err)
	}
	// Sockets have short paths, which t.TempDir is not.
	root, err := os.MkdirTemp("", "vm-") //nolint:usetesting // as said
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{T: t, root: root, layout: paths.New(root)}
	t.Cleanup(m.clean)
	key := make([]byte, 64)
	rand.Read(key)
	m.workspace = emulator.Workspace{ID: uuid.NewString(), Keys: []string{base64.StdEncoding.EncodeToString(key)}}
	m.serve()
	m.guest, err = fakeguest.New(fakeguest.Options{
		Root: root, Name: handlerName, Env: []string{paths.EnvRoot + "=" + root},
		Log: func(line string) { t.Log(line) },
	})
	if err != nil {
		t.Fatal(err)
	}
	for version, zip := range zips {
		m.guest.Publish(version, zip)
	}
	if err := os.MkdirAll(filepath.Dir(m.logFile()), 0o755); err != nil {
		t.Fatal(err)
	}
	return m
}

// clean removes the extension, and shows the logs of a test that failed.
func (m *machine) clean() {
	if m.Failed() {
		for _, pattern := range []string{"var/log/azure/*/handler.log", "var/log/" + product.Name + "/agent/agent.log", "var/lib/" + product.Name + "/handler/*.log"} {
			files, _ := filepath.Glob(filepath.Join(m.root, pattern)) // the pattern is right
			for _, file := range files {
				data, err := os.ReadFile(file)
				m.Logf("%s (%v):\n%s", file, err, data)
			}
		}
	}
	if m.guest != nil && m.guest.Version() != "" {
		m.conserved()
		if _, err := m.guest.Uninstall(); err != nil {
			m.Errorf("uninstall: %v", err)
		}
	}
	if err := os.RemoveAll(m.root); err != nil {
		m.Errorf("remove the machine: %v", err)
	}
}

func (m *machine) serve() {
	m.Helper()
	e, err := emulator.New(emulator.Options{Dir: filepath.Join(m.root, "service"), Workspaces: []emulator.Workspace{m.workspace}, Domain: domain})
	if err != nil {
		m.Fatal(err)
	}
	m.service = e
	var l emulator.Listeners
	for _, to := range []*net.Listener{&l.Service, &l.Gateway} {
		if *to, err = (&net.ListenConfig{}).Listen(m.Context(), "tcp", "127.0.0.1:0"); err != nil {
			m.Fatal(err)
		}
	}
	m.gateway = "http://" + l.Gateway.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- e.Serve(ctx, l) }()
	m.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			m.Errorf("emulator: %v", err)
		}
	})
}

func (m *machine) logFile() string { return filepath.Join(m.root, "var", "log", "app", "app.log") }

// settings are valid ones; change, when not nil, spoils them.
func (m *machine) settings(change func(public, protected map[string]any)) fakeguest.Settings {
	m.Helper()
	public := map[string]any{
		"workspaceId":             m.workspace.ID,
		"trustedCertificatesFile": m.service.CAFile(),
		"dataSources": map[string]any{
			"syslog":   []any{map[string]any{"streams": []string{"Microsoft-Syslog"}, "facilityNames": []string{"*"}, "logLevels": []string{"*"}}},
			"logFiles": []any{map[string]any{"streams": []string{"Custom-App_CL"}, "filePatterns": []string{m.logFile()}, "format": "text"}},
		},
	}
	protected := map[string]any{"workspaceKey": m.workspace.Keys[0], "proxy": m.gateway, "domain": domain}
	if change != nil {
		change(public, protected)
	}
	var s fakeguest.Settings
	var err error
	if s.Public, err = json.Marshal(public); err != nil {
		m.Fatal(err)
	}
	if s.Protected, err = json.Marshal(protected); err != nil {
		m.Fatal(err)
	}
	return s
}

// enable runs enable and wants it to succeed.
func (m *machine) enable(version string, s fakeguest.Settings) {
	m.Helper()
	if _, err := m.guest.Enable(version, s); err != nil {
		m.Fatal(err)
	}
	m.wantStatus("success")
}

func (m *machine) wantStatus(want string) fakeguest.Status {
	m.Helper()
	status, err := m.guest.Status()
	if err != nil {
		m.Fatal(err)
	}
	if status.Status != want {
		m.Fatalf("status is %s (%s), want %s", status.Status, status.Message, want)
	}
	if !strings.Contains(status.Message, m.guest.HandlerLog()) {
		m.Errorf("the status does not name the log: %s", status.Message)
	}
	return status
}

// appendLines writes numbered lines to the application's log.
func (m *machine) appendLines(from, to int) {
	m.Helper()
	f, err := os.OpenFile(m.logFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		m.Fatal(err)
	}
	for n := from; n <= to; n++ {
		if _, err := fmt.Fprintf(f, "line number=%d of the application\n", n); err != nil {
			m.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		m.Fatal(err)
	}
}

// patience bounds every wait; nothing is asserted about how long it took.
const patience = time.Minute

// eventually waits until check returns nil.
func (m *machine) eventually(check func() error) {
	m.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			m.Fatal(err)
		}
	}
}

// wantLines waits until each line up to last has arrived exactly once.
func (m *machine) wantLines(last int) {
	m.Helper()
	m.eventually(func() error { return m.lines(last) })
}

func (m *machine) lines(last int) error {
	rows, err := m.service.Rows(m.workspace.ID, "App_CL")
	if err != nil {
		return err
	}
	seen := make([]int, last+1)
	for _, row := range rows {
		var n int
		text, _ := row["RawData"].(string)
		if _, err := fmt.Sscanf(text, "line number=%d ", &n); err == nil && n <= last {
			seen[n]++
		}
	}
	for n := 1; n <= last; n++ {
		if seen[n] != 1 {
			return fmt.Errorf("line %d of %d arrived %d times", n, last, seen[n])
		}
	}
	return nil
}

// health is what the agent says of itself.
func (m *machine) health() *agent.Health {
	m.Helper()
	h, err := agent.ReadHealth(m.layout.HealthFile())
	if err != nil {
		m.Fatal(err)
	}
	return h
}

// conserved stops the agent and wants every record accounted for: by its own
// books, and by the rows that arrived. Each test ends with it.
func (m *machine) conserved() {
	m.Helper()
	if _, err := m.guest.Disable(); err != nil {
		m.Error(err)
	}
	h, err := agent.ReadHealth(m.layout.HealthFile())
	if errors.Is(err, fs.ErrNotExist) {
		return // the agent never ran
	}
	if err != nil {
		m.Error(err)
		return
	}
	if err := h.Conserved(); err != nil {
		m.Error(err)
	}
	arrived := int64(0)
	for _, t := range m.service.Tables() {
		arrived += t.Rows
	}
	if w := h.Workspaces[0]; w.Delivered > arrived || w.Damaged != 0 || w.Refused != 0 || h.Ledger.Dropped != 0 {
		m.Errorf("of %d records %d are delivered, %d refused, %d damaged and %d dropped; %d arrived", h.Ledger.Read, w.Delivered, w.Refused, w.Damaged, h.Ledger.Dropped, arrived)
	}
	// A person sees the same.
	cmd := exec.Command(m.layout.Binary(), "status")
	cmd.Env = []string{paths.EnvRoot + "=" + m.root}
	out, err := cmd.CombinedOutput()
	account := fmt.Sprintf("%d read = %d delivered", h.Ledger.Read, h.Workspaces[0].Delivered)
	if err != nil || !strings.Contains(string(out), account) || strings.Contains(string(out), "does not add up") {
		m.Errorf("status (%v) does not say %q:\n%s", err, account, out)
	}
}
