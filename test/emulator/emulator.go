// Package emulator plays the Log Analytics service for demos and tests: it
// onboards agents, takes their rows and keeps them as files.
//
// It is an oracle, so it shares no code with the agent and takes nothing on
// trust: what Azure would refuse is refused with the same status, and the
// journal says in a sentence what was wrong. Faults can be ordered for any
// number of requests. README.md describes the control API and the files.
package emulator

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"
)

// Options says which service to play.
type Options struct {
	// Dir keeps the rows, the certificate authority and the registered agents.
	// A new emulator with the same folder goes on where the last one ended.
	Dir string
	// Workspaces are the workspaces of the service, at least one.
	Workspaces []Workspace
	// Domain stands in for opinsights.azure.com: the service answers to
	// <workspace>.oms.<Domain>, <workspace>.ods.<Domain> and
	// <workspace>.agentsvc.<Domain>.
	Domain string
	// CertHosts are further host names and addresses for the server certificate.
	CertHosts []string
	// GatewayUser and GatewayPassword, when set, are required by the gateway.
	GatewayUser     string
	GatewayPassword string
	// Clock is the service's time; nil is time.Now.
	Clock func() time.Time
	// Log gets a line for everything worth telling, from any goroutine; nil
	// drops them.
	Log func(line string)
}

// A Workspace is one Log Analytics workspace.
type Workspace struct {
	ID string // GUID
	// Keys are the primary and, if there is one, the secondary key, base64.
	Keys []string
}

// Listeners are the doors to serve at. A nil one stays shut.
type Listeners struct {
	Service net.Listener // the service itself; the emulator adds TLS
	Gateway net.Listener // HTTP CONNECT to the service, like the Log Analytics gateway
	API     net.Listener // control API and web page, plain HTTP; keep it on loopback
}

// An Emulator is one service with its workspaces.
type Emulator struct {
	dir        string
	domain     string
	workspaces map[string]*workspace
	hosts      map[string]role
	clock      func() time.Time
	sleep      func(context.Context, time.Duration)
	logLine    func(string)

	authority *authority
	agents    *registry
	store     *store
	types     map[string]dataType
	faults    faults
	pushed    configurations
	journal   journal
	requests  requestIDs
	changed   signal
	page      page

	mu       sync.Mutex
	settings Settings
}

// A workspace is a Workspace ready for checking.
type workspace struct {
	id   string
	keys [][]byte
}

// A role is what a host name of the service stands for.
type role struct {
	workspace *workspace
	oms       bool // onboarding and agent management; otherwise data
	agentsvc  bool // desired configurations
}

var (
	guidPattern   = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
	domainPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`)
)

// New opens an emulator in o.Dir, which is made when it is not there. Its
// errors name the option at fault, never a key.
func New(o Options) (*Emulator, error) {
	e := &Emulator{
		dir:        o.Dir,
		domain:     strings.ToLower(o.Domain),
		workspaces: map[string]*workspace{},
		hosts:      map[string]role{},
		clock:      o.Clock,
		sleep:      sleep,
		logLine:    o.Log,
		types:      dataTypes(),
		settings: Settings{
			QueryInterval:   defaultInterval,
			GatewayUser:     o.GatewayUser,
			GatewayPassword: o.GatewayPassword,
		},
	}
	if e.clock == nil {
		e.clock = time.Now
	}
	if e.logLine == nil {
		e.logLine = func(string) {}
	}
	if o.Dir == "" {
		return nil, errors.New("open emulator: no folder given")
	}
	if !domainPattern.MatchString(e.domain) {
		return nil, fmt.Errorf("open emulator: domain %q is not a DNS name", o.Domain)
	}
	if err := e.addWorkspaces(o.Workspaces); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Dir, 0o750); err != nil {
		return nil, fmt.Errorf("make emulator folder: %w", err)
	}
	var err error
	if e.authority, err = openAuthority(o.Dir, e.domain, e.certificateHosts(o.CertHosts)); err != nil {
		return nil, err
	}
	if e.agents, err = openRegistry(filepath.Join(o.Dir, "agents.json")); err != nil {
		return nil, err
	}
	if e.store, err = openStore(filepath.Join(o.Dir, "rows"), e.clock(), e.logf); err != nil {
		return nil, err
	}
	if e.page, err = readPage(); err != nil {
		return nil, err
	}
	return e, nil
}

func (e *Emulator) addWorkspaces(workspaces []Workspace) error {
	if len(workspaces) == 0 {
		return errors.New("open emulator: no workspace given")
	}
	for _, given := range workspaces {
		w := &workspace{id: strings.ToLower(given.ID)}
		if !guidPattern.MatchString(w.id) {
			return fmt.Errorf("open emulator: workspace id %q is not a GUID", given.ID)
		}
		if len(given.Keys) == 0 {
			return fmt.Errorf("open emulator: workspace %s has no key", w.id)
		}
		for i, text := range given.Keys {
			key, err := base64.StdEncoding.DecodeString(text)
			if err != nil || len(key) == 0 {
				return fmt.Errorf("open emulator: key %d of workspace %s is not base64", i+1, w.id)
			}
			w.keys = append(w.keys, key)
		}
		e.workspaces[w.id] = w
		e.hosts[w.id+".oms."+e.domain] = role{workspace: w, oms: true}
		e.hosts[w.id+".ods."+e.domain] = role{workspace: w}
		e.hosts[w.id+".agentsvc."+e.domain] = role{workspace: w, agentsvc: true}
	}
	return nil
}

// certificateHosts lists the names of the server certificate.
func (e *Emulator) certificateHosts(extra []string) []string {
	hosts := []string{"*.oms." + e.domain, "*.ods." + e.domain, "*.agentsvc." + e.domain, "localhost", "127.0.0.1", "::1"}
	for host := range e.hosts {
		hosts = append(hosts, host)
	}
	return append(hosts, extra...)
}

// CAFile is the PEM file of the authority that clients must trust.
func (e *Emulator) CAFile() string { return e.authority.file }

// Serve answers at the listeners until ctx ends or one of them fails, lets the
// requests under way finish and closes the listeners. It returns nil when ctx
// ended. An Emulator is served once at a time.
func (e *Emulator) Serve(ctx context.Context, l Listeners) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	tunnels := newHandover()
	service := e.server(ctx, http.HandlerFunc(e.serveService))
	gateway := e.server(ctx, e.gateway(tunnels))
	api := e.server(ctx, e.api())

	ended := make(chan error)
	started := 0
	start := func(s *http.Server, listener net.Listener) {
		if listener == nil {
			return
		}
		started++
		go func() { ended <- s.Serve(listener) }()
	}
	start(gateway, l.Gateway)
	start(api, l.API)
	start(service, tls.NewListener(tunnels, e.tlsConfig()))
	if l.Service != nil {
		start(service, tls.NewListener(l.Service, e.tlsConfig()))
	}

	var failure error
	select {
	case <-ctx.Done():
	case failure = <-ended:
		started--
	}
	cancel()
	for _, s := range []*http.Server{gateway, api, service} {
		failure = errors.Join(failure, stop(s))
	}
	for ; started > 0; started-- {
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			failure = errors.Join(failure, err)
		}
	}
	if failure != nil {
		return fmt.Errorf("serve emulator: %w", failure)
	}
	return nil
}

// stopGrace is how long requests under way may take once the emulator stops.
const stopGrace = 3 * time.Second

// stop ends a server within stopGrace.
func stop(s *http.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), stopGrace)
	defer cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return s.Close()
}

func (e *Emulator) server(ctx context.Context, h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: 30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          log.New(serverErrors{e}, "", 0),
	}
}

// serverErrors takes net/http's own complaints: what never became a request,
// such as a client that does not trust the certificate.
type serverErrors struct{ e *Emulator }

func (s serverErrors) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	if _, cause, ok := strings.Cut(text, "TLS handshake error from "); ok && !strings.HasSuffix(text, ": EOF") {
		s.e.record(Exchange{Endpoint: "tls", Reason: "TLSHandshake", Detail: "handshake with " + cause})
	}
	return len(line), nil
}

// now is the service's time, skewed when the settings say so.
func (e *Emulator) now() time.Time {
	return e.clock().Add(time.Duration(e.Settings().Skew))
}

func (e *Emulator) logf(format string, args ...any) {
	e.logLine(fmt.Sprintf(format, args...))
}

// sleep waits for d or the end of ctx.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// A signal tells waiting goroutines that something changed.
type signal struct {
	mu sync.Mutex
	ch chan struct{}
}

// wait returns a channel that closes at the next raise.
func (s *signal) wait() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

func (s *signal) raise() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
}
