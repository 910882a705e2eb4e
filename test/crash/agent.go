//go:build linux

package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/openloganalytics/agent/agent"
	"github.com/openloganalytics/agent/internal/paths"
	"github.com/openloganalytics/agent/test/emulator"
)

const (
	domain = "emulator.test"
	table  = "Crash_CL"
)

// A machine is the real agent with its state below root, a program that writes
// lines, and a workspace that takes them; or two. Lines and workspaces are on a
// disk that nothing happens to.
type machine struct {
	binary     string
	layout     paths.Layout
	logs       string   // folder of the files with lines
	workspaces []string // their IDs
	service    *emulator.Emulator
	stop       func() error
	shape

	process *exec.Cmd
	ended   chan error

	written atomic.Int64 // lines
	arrived arrivals     // at the first workspace
	second  arrivals     // at the second
}

// A shape is what a machine is like.
type shape struct {
	destinations int
	files        int           // with lines
	backlog      int           // lines that are written at once, first
	rate         int           // lines in ten milliseconds
	patience     time.Duration // bounds every wait
	limits       agent.Limits
}

// machine makes a common one whose state lies below root.
func (l *lab) machine(ctx context.Context, root string) (*machine, error) {
	return l.shaped(ctx, root, shape{destinations: 1, files: 1, rate: 5, patience: patience, limits: agent.Limits{DiskMB: 16}})
}

// shaped makes a machine whose state lies below root.
func (l *lab) shaped(ctx context.Context, root string, s shape) (*machine, error) {
	stable, err := l.folder("stable")
	if err != nil {
		return nil, err
	}
	m := &machine{binary: l.agent, layout: paths.New(root), logs: filepath.Join(stable, "logs"), shape: s}
	if err := os.Mkdir(m.logs, 0o755); err != nil {
		return nil, err
	}
	var workspaces []emulator.Workspace
	for range s.destinations {
		key := make([]byte, 64)
		rand.Read(key)
		w := emulator.Workspace{ID: uuid.NewString(), Keys: []string{base64.StdEncoding.EncodeToString(key)}}
		workspaces, m.workspaces = append(workspaces, w), append(m.workspaces, w.ID)
	}
	e, err := emulator.New(emulator.Options{Dir: filepath.Join(stable, "service"), Workspaces: workspaces, Domain: domain})
	if err != nil {
		return nil, err
	}
	m.service = e
	serving, cancel := context.WithCancel(ctx)
	var listeners emulator.Listeners
	for _, to := range []*net.Listener{&listeners.Service, &listeners.Gateway} {
		if *to, err = (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0"); err != nil {
			cancel()
			return nil, err
		}
	}
	served, written := make(chan error, 1), make(chan error, 1)
	go func() { served <- e.Serve(serving, listeners) }()
	go func() { written <- m.write(serving) }()
	m.stop = func() error {
		m.kill()
		cancel()
		return errors.Join(<-written, <-served)
	}
	if err := m.configure(workspaces, "http://"+listeners.Gateway.Addr().String()); err != nil {
		return nil, errors.Join(err, m.stop())
	}
	return m, nil
}

// configure writes what enable would.
func (m *machine) configure(workspaces []emulator.Workspace, gateway string) error {
	authority, err := os.ReadFile(m.service.CAFile())
	if err != nil {
		return err
	}
	config := agent.Config{
		Generation: "1",
		Sources: agent.Sources{
			Heartbeat:  agent.Heartbeat{Interval: agent.Duration(time.Minute)},
			CustomLogs: []agent.CustomLog{{Table: table, Patterns: []string{filepath.Join(m.logs, "*.log")}, FromStart: true}},
		},
		Limits: m.limits, TrustedCertificates: string(authority),
	}
	files := map[string]string{m.layout.ProxyFile(): gateway}
	for _, w := range workspaces {
		config.Workspaces = append(config.Workspaces, agent.Workspace{ID: w.ID, Domain: domain})
		files[m.layout.WorkspaceKeyFile(w.ID)] = w.Keys[0]
	}
	text, err := json.Marshal(config)
	if err != nil {
		return err
	}
	files[m.layout.ConfigFile()] = string(text)
	for path, data := range files {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// write writes numbered lines, which hardly compress, to one file after the
// other.
func (m *machine) write(ctx context.Context) error {
	noise := make([]byte, 150)
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		for range max(m.rate, m.backlog-int(m.written.Load())) {
			rand.Read(noise)
			n := m.written.Load() + 1
			if err := appendTo(filepath.Join(m.logs, fmt.Sprintf("app-%d.log", n%int64(m.files))), fmt.Sprintf("line=%d %s\n", n, base64.StdEncoding.EncodeToString(noise))); err != nil {
				return err
			}
			m.written.Store(n)
		}
	}
}

func appendTo(path, text string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// start starts the agent; through, when there is any, is the program that runs
// it.
func (m *machine) start(through ...string) error {
	args := append(through, m.binary, "run")
	m.process = exec.Command(args[0], args[1:]...)
	m.process.Env = append(os.Environ(), paths.EnvRoot+"="+m.layout.Root())
	m.process.SysProcAttr = ownGroup()
	if err := m.process.Start(); err != nil {
		return err
	}
	process, ended := m.process, make(chan error, 1)
	go func() { ended <- process.Wait() }()
	m.ended = ended
	return nil
}

// kill ends the agent at once.
func (m *machine) kill() {
	if m.process == nil {
		return
	}
	killGroup(m.process.Process.Pid)
	if err := <-m.ended; err == nil {
		fmt.Println("  the agent ended by itself before it was killed")
	}
	m.process = nil
}

// running reports whether the agent has not ended.
func (m *machine) running() bool {
	select {
	case err := <-m.ended:
		m.ended <- err
		return false
	default:
		return true
	}
}

// arrivals count how often each line has come to the workspace.
type arrivals struct {
	mu       sync.Mutex
	off      int64 // read so far of the rows
	count    map[int]int
	requests map[string]bool // with lines that were there before
	repeated int
	most     int // the highest line
}

// look reads what has arrived since the last look.
func (m *machine) look() error {
	err := m.arrived.read(m.service.RowsFile(m.workspaces[0], table))
	if len(m.workspaces) > 1 {
		err = errors.Join(err, m.second.read(m.service.RowsFile(m.workspaces[1], table)))
	}
	return err
}

func (a *arrivals) read(path string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.count == nil {
		a.count, a.requests = map[int]int{}, map[string]bool{}
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read
	if _, err := f.Seek(a.off, io.SeekStart); err != nil {
		return err
	}
	for lines := bufio.NewReaderSize(f, 1<<16); ; {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		a.off += int64(len(line))
		var row struct {
			RawData, RequestID string
			ID                 string `json:"_RequestId"`
		}
		if err := json.Unmarshal(line, &row); err != nil {
			return err
		}
		a.add(row.RawData, row.ID)
	}
}

func (a *arrivals) add(text, request string) {
	var n int
	if _, err := fmt.Sscanf(text, "line=%d ", &n); err != nil {
		return
	}
	a.count[n]++
	a.most = max(a.most, n)
	if a.count[n] > 1 {
		a.repeated++
		a.requests[request] = true
	}
}

// lost are the lines up to last that have not arrived.
func (a *arrivals) lost(last int) (n int) {
	for i := 1; i <= last; i++ {
		if a.count[i] == 0 {
			n++
		}
	}
	return n
}

// patience bounds every wait for a common machine.
const patience = 60 * time.Second

// until waits for what is to become true.
func (m *machine) until(ctx context.Context, what string, is func() bool) error {
	for deadline := time.Now().Add(m.patience); ; time.Sleep(50 * time.Millisecond) {
		if err := errors.Join(m.look(), ctx.Err()); err != nil {
			return err
		}
		if is() {
			return nil
		}
		if time.Now().After(deadline) {
			health, err := os.ReadFile(m.layout.HealthFile())
			log, logErr := os.ReadFile(filepath.Join(m.layout.AgentLogDir(), "agent.log"))
			return fmt.Errorf("%s: not within %v; the agent's health is %s (%w)\nits log: %s (%w)", what, m.patience, health, err, tail(log), logErr)
		}
	}
}

func tail(log []byte) string {
	lines := strings.Split(strings.TrimSpace(string(log)), "\n")
	return strings.Join(lines[max(len(lines)-15, 0):], "\n")
}

// follows waits until a line that is written from now on has arrived, and tells
// how long that took.
func (m *machine) follows(ctx context.Context) (time.Duration, error) {
	begun, from := time.Now(), int(m.written.Load())
	err := m.until(ctx, fmt.Sprintf("line %d arrives", from+1), func() bool { return m.arrived.most > from })
	return time.Since(begun), err
}

// all waits until every line written so far has arrived and returns how many
// have not.
func (m *machine) all(ctx context.Context) (lost, last int, err error) {
	last = int(m.written.Load())
	if _, err := m.follows(ctx); err != nil {
		return 0, 0, err
	}
	// Order holds within the file, but two requests may be under way at once.
	for range 40 {
		if err := m.look(); err != nil {
			return 0, 0, err
		}
		if lost = m.arrived.lost(last); lost == 0 {
			break
		}
		time.Sleep(250 * time.Millisecond)
	}
	return lost, last, nil
}
