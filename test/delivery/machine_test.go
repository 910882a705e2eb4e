//go:build linux

package delivery

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/openloganalytics/agent/agent"
	"github.com/openloganalytics/agent/internal/atomicfile"
	"github.com/openloganalytics/agent/internal/logfile"
	"github.com/openloganalytics/agent/internal/paths"
	"github.com/openloganalytics/agent/internal/proxy"
	"github.com/openloganalytics/agent/internal/secret"
	"github.com/openloganalytics/agent/test/emulator"
)

// A machine is a folder with an agent in it that follows a file.
type machine struct {
	*testing.T
	layout  paths.Layout
	service *service
	ids     []string // of the workspaces that the agent delivers to
	written int      // lines
	config  *agent.Config
	// with changes the config before the agent starts.
	with func(*agent.Config)

	stop func()
}

// A service is an emulator that is being served, with as many workspaces as a
// test wants.
type service struct {
	*emulator.Emulator
	domain     string
	workspaces []emulator.Workspace
	gateway    string
}

func newWorkspaces(n int) []emulator.Workspace {
	var list []emulator.Workspace
	for range n {
		key := make([]byte, 64)
		rand.Read(key)
		list = append(list, emulator.Workspace{ID: uuid.NewString(), Keys: []string{base64.StdEncoding.EncodeToString(key)}})
	}
	return list
}

// serve serves the workspaces until the test ends.
func serve(t *testing.T, domain string, workspaces []emulator.Workspace) *service {
	t.Helper()
	e, err := emulator.New(emulator.Options{Dir: t.TempDir(), Workspaces: workspaces, Domain: domain})
	if err != nil {
		t.Fatal(err)
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- e.Serve(ctx, emulator.Listeners{Gateway: l}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("emulator: %v", err)
		}
	})
	return &service{e, domain, workspaces, l.Addr().String()}
}

// newMachine makes a machine beside a service with n workspaces, and starts its
// agent. The test ends with the account.
func newMachine(t *testing.T, n int) *machine {
	t.Helper()
	m := prepare(t, n)
	m.start(m.service, "")
	return m
}

// prepare is newMachine without starting the agent.
func prepare(t *testing.T, n int) *machine {
	t.Helper()
	m := &machine{T: t, layout: paths.New(t.TempDir()), service: serve(t, "emulator.test", newWorkspaces(n)), stop: func() {}}
	if err := os.MkdirAll(filepath.Dir(m.logFile()), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, w := range m.service.workspaces {
		m.ids = append(m.ids, w.ID)
	}
	t.Cleanup(func() {
		m.conserved()
		if t.Failed() {
			text, err := os.ReadFile(m.agentLog())
			t.Logf("%s (%v)\n%s", m.agentLog(), err, text)
		}
	})
	return m
}

func (m *machine) logFile() string  { return filepath.Join(m.layout.Root(), "app", "app.log") }
func (m *machine) agentLog() string { return filepath.Join(m.layout.LogDir(), "agent.log") }

// start runs the agent against a service; user goes before the proxy's address.
func (m *machine) start(s *service, user string) {
	m.Helper()
	m.service = s
	ca, err := os.ReadFile(s.CAFile())
	if err != nil {
		m.Fatal(err)
	}
	config := &agent.Config{
		Generation: "1", TrustedCertificates: string(ca),
		Sources: agent.Sources{Heartbeat: agent.Heartbeat{Interval: agent.Duration(2 * time.Second)}, CustomLogs: []agent.CustomLog{{Table: "App_CL", Patterns: []string{m.logFile()}, FromStart: true}}},
		Limits:  agent.Limits{DiskMB: 64},
	}
	for _, w := range s.workspaces {
		config.Workspaces = append(config.Workspaces, agent.Workspace{ID: w.ID, Domain: s.domain})
		if err := os.MkdirAll(m.layout.WorkspaceDir(w.ID), 0o700); err != nil {
			m.Fatal(err)
		}
		if err := os.WriteFile(m.layout.WorkspaceKeyFile(w.ID), []byte(w.Keys[0]), 0o600); err != nil {
			m.Fatal(err)
		}
	}
	if m.with != nil {
		m.with(config)
	}
	m.config = config
	m.save()
	through, err := proxy.Parse(secret.New(user + s.gateway))
	if err != nil {
		m.Fatal(err)
	}
	log, closer, err := logfile.Open(logfile.Options{Path: m.agentLog()})
	if err != nil {
		m.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- agent.Run(ctx, agent.Options{Layout: m.layout, Config: config, Proxy: through, Log: log, Reread: m.reread})
	}()
	m.stop = func() {
		m.Helper()
		m.stop = func() {}
		cancel()
		if err := errors.Join(<-ended, closer.Close()); err != nil {
			m.Error(err)
		}
	}
}

// save writes the config file.
func (m *machine) save() {
	m.Helper()
	data, err := json.Marshal(m.config)
	if err == nil {
		err = os.MkdirAll(m.layout.ConfigDir(), 0o700)
	}
	if err == nil {
		err = atomicfile.Write(m.layout.ConfigFile(), data, 0o600)
	}
	if err != nil {
		m.Fatal(err)
	}
}

// reread is agent.Options.Reread.
func (m *machine) reread() (*agent.Config, error) {
	data, err := os.ReadFile(m.layout.ConfigFile())
	if err != nil {
		return nil, err
	}
	config := &agent.Config{}
	return config, json.Unmarshal(data, config)
}

// configure changes the config as the agent runs, and waits until it is in
// force.
func (m *machine) configure(change func(*agent.Config)) {
	m.Helper()
	next := &agent.Config{}
	data, err := json.Marshal(m.config)
	if err == nil {
		err = json.Unmarshal(data, next)
	}
	if err != nil {
		m.Fatal(err)
	}
	n, err := strconv.Atoi(next.Generation)
	if err != nil {
		m.Fatal(err)
	}
	next.Generation = strconv.Itoa(n + 1)
	change(next)
	m.config = next
	m.save()
	m.eventually(func() error {
		h, err := agent.ReadHealth(m.layout.HealthFile())
		if err == nil && (h.Generation != next.Generation || h.Clean) {
			err = fmt.Errorf("generation is %s, want %s", h.Generation, next.Generation)
		}
		return err
	})
}

// write writes n more numbered lines; those in bad hold the word poison.
func (m *machine) write(n int, bad ...int) {
	m.Helper()
	f, err := os.OpenFile(m.logFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		m.Fatal(err)
	}
	var text strings.Builder
	for range n {
		m.written++
		fmt.Fprintf(&text, "line number=%d of the application", m.written)
		for _, one := range bad {
			if one == m.written {
				text.WriteString(" poison")
			}
		}
		text.WriteString("\n")
	}
	if _, err := f.WriteString(text.String()); err != nil {
		m.Fatal(err)
	}
	if err := f.Close(); err != nil {
		m.Fatal(err)
	}
}

// order orders a fault that is over when the test says so or after times.
func (m *machine) order(f emulator.Fault) emulator.Fault {
	m.Helper()
	f, err := m.service.AddFault(f)
	if err != nil {
		m.Fatal(err)
	}
	return f
}

// struck waits until a fault has struck so often.
func (m *machine) struck(f emulator.Fault, times int) {
	m.Helper()
	m.eventually(func() error {
		for _, now := range m.service.Faults() {
			if now.ID == f.ID && now.Struck >= times {
				return nil
			}
		}
		return fmt.Errorf("fault %s has not struck %d times", f.Kind, times)
	})
}

// patience bounds every wait; nothing is asserted about how long it took.
const patience = 2 * time.Minute

func (m *machine) eventually(check func() error) {
	m.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			m.Fatal(err)
		}
	}
}

// arrived returns how often each line has arrived at a workspace.
func (m *machine) arrived(workspace string) ([]int, error) {
	rows, err := m.service.Rows(workspace, "App_CL")
	if err != nil {
		return nil, err
	}
	times := make([]int, m.written+1)
	for _, row := range rows {
		var n int
		text, _ := row["RawData"].(string)
		if _, err := fmt.Sscanf(text, "line number=%d ", &n); err == nil && n <= m.written {
			times[n]++
		}
	}
	return times, nil
}

// wantLines waits until all lines but those in without have arrived at the
// workspace, and wants at most so many of them more than once.
func (m *machine) wantLines(workspace string, repeated int, without ...int) {
	m.Helper()
	refused := map[int]bool{}
	for _, n := range without {
		refused[n] = true
	}
	more := 0
	m.eventually(func() error {
		times, err := m.arrived(workspace)
		if err != nil {
			return err
		}
		more = 0
		for n := 1; n <= m.written; n++ {
			if times[n] == 0 && !refused[n] || times[n] > 0 && refused[n] {
				return fmt.Errorf("line %d of %d arrived %d times", n, m.written, times[n])
			}
			more += max(0, times[n]-1)
		}
		return nil
	})
	if more > repeated {
		m.Errorf("%d rows arrived more than once, want at most %d", more, repeated)
	}
}

// cause waits until the agent's health names that cause for the workspace.
func (m *machine) cause(workspace, want string) string {
	m.Helper()
	message := ""
	m.eventually(func() error {
		h, err := agent.ReadHealth(m.layout.HealthFile())
		if err != nil {
			return err
		}
		for _, w := range h.Workspaces {
			if w.ID == workspace && w.Cause == want {
				message = w.Message
				return nil
			}
		}
		return fmt.Errorf("no cause %q in %+v", want, h.Workspaces)
	})
	return message
}

// conserved stops the agent and wants every record accounted for.
func (m *machine) conserved() *agent.Health {
	m.Helper()
	m.stop()
	h, err := agent.ReadHealth(m.layout.HealthFile())
	if err != nil {
		m.Fatal(err)
	}
	if err := h.Conserved(); err != nil {
		m.Error(err)
	}
	if h.Ledger.Dropped != 0 {
		m.Errorf("lost: %+v", h.Ledger.Losses)
	}
	for _, w := range h.Workspaces {
		if w.Damaged != 0 {
			m.Errorf("%d records were damaged", w.Damaged)
		}
	}
	return h
}
