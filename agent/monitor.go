package agent

import (
	"context"
	"encoding/json"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/openloganalytics/agent/agent/spool"
	"github.com/openloganalytics/agent/agent/workspace"
	"github.com/openloganalytics/agent/internal/atomicfile"
	"github.com/openloganalytics/agent/internal/product"
)

// How often the health file is written: soon after something changed, and now
// and then for the counts in it.
const (
	healthSoon  = time.Second
	healthEvery = 5 * time.Minute
)

// A monitor writes the health file and tells the service manager that the
// agent makes progress.
type monitor struct {
	o       Options
	queue   *spool.Spool
	spools  *spools
	intake  *intake
	started time.Time
	clients []*workspace.Client
	sources *roster

	wake chan struct{}
	mu   sync.Mutex // one writer of the file at a time
}

func newMonitor(o Options, s *spools, in *intake) *monitor {
	return &monitor{o: o, queue: s.queue, spools: s, intake: in, started: time.Now(), wake: make(chan struct{}, 1)}
}

// watch says what there is to report on.
func (m *monitor) watch(clients []*workspace.Client, sources *roster) {
	m.clients, m.sources = clients, sources
}

// changed says that something in the health is not as it was.
func (m *monitor) changed() { signal(m.wake) }

// run writes the health file until ctx ends.
func (m *monitor) run(ctx context.Context) {
	m.write(false)
	regular := time.NewTicker(healthEvery)
	defer regular.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-regular.C:
		case <-m.wake:
			// Several changes in a row are one write, and a write a second is
			// the most: each wakes the reporter.
			m.write(false)
			select {
			case <-ctx.Done():
				return
			case <-time.After(healthSoon):
			}
		}
		m.write(false)
	}
}

// beat tells the service manager until ctx ends that the agent lives. Whoever
// holds the lock of the record path without end keeps it from being told; a
// slow disk does not.
func (m *monitor) beat(ctx context.Context) {
	if m.o.Watchdog <= 0 {
		return
	}
	ticker := time.NewTicker(m.o.Watchdog / 3)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		m.intake.mu.Lock()
		m.intake.mu.Unlock() //nolint:staticcheck // taking it is the proof of life
		m.notify("WATCHDOG=1")
	}
}

// last writes the last words of a clean stop.
func (m *monitor) last() { m.write(true) }

func (m *monitor) notify(state string) {
	if m.o.Notify == nil {
		return
	}
	if err := m.o.Notify(state); err != nil {
		m.o.Log.Warn("cannot notify the service manager", "state", state, "error", err)
	}
}

func (m *monitor) write(clean bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.health()
	h.Clean = clean
	data, err := json.MarshalIndent(h, "", " ")
	if err == nil {
		err = atomicfile.Write(m.o.Layout.HealthFile(), data, 0o600)
	}
	if err != nil {
		m.o.Log.Warn("cannot write the health file", "error", err)
	}
}

// health is how the agent is doing now.
func (m *monitor) health() *Health {
	generation, running := m.sources.inForce()
	h := &Health{
		Version: product.Version, Generation: generation, PID: os.Getpid(),
		Started: m.started.UTC(), Updated: time.Now().UTC(),
	}
	l, stats := account(m.queue)
	h.Spool = SpoolHealth{Bytes: stats.Bytes, Budget: stats.Budget, State: stats.State, Message: stats.Message}
	h.Spool.Beside, h.Spool.Note = m.spools.others()
	for n, c := range m.clients {
		w := WorkspaceHealth{ID: m.o.Config.Workspaces[n].ID}
		w.State, w.Cause, w.Message, w.LastAccepted = c.State()
		w.CertificateUntil, _ = c.CertificateExpiry() // the zero time while there is none
		if i := slices.IndexFunc(stats.Destinations, func(d spool.DestinationStats) bool { return d.Name == c.Name() }); i >= 0 {
			w.count(&stats.Destinations[i])
		}
		h.Workspaces = append(h.Workspaces, w)
	}
	h.Limits = m.intake.governor.health(m.o.Config.Limits)
	h.Configuration = m.sources.configuration(m.clients[0].Configuration())
	for _, r := range running {
		h.Sources = append(h.Sources, r.health(l))
	}
	told, err := toldLosses(m.queue.Checkpoint(operationsName))
	if err != nil {
		m.o.Log.Debug("times of losses are not known", "error", err)
	}
	h.Ledger = ledgerHealth(l, told, stats.Destinations)
	return h
}
