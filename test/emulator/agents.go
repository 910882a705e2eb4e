package emulator

import (
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"
)

// An Agent is a machine registered in a workspace.
type Agent struct {
	Workspace string `json:"workspace"`
	ID        string `json:"id"` // agent GUID
	Computer  string `json:"computer"`
	System    string `json:"system,omitempty"`
	UserAgent string `json:"userAgent"`
	// Thumbprints are the SHA-256 sums of its certificates, the newest last.
	// An old one stays good after a renewal: the agent may have to go back.
	Thumbprints []string  `json:"thumbprints"`
	Renewals    int       `json:"renewals"`
	Registered  time.Time `json:"registered"`
	LastSeen    time.Time `json:"lastSeen"`
	// RenewalDone is set once the agent has followed the present order to renew.
	RenewalDone bool `json:"renewalDone,omitempty"`
}

// A registry keeps the agents, in a file that outlives the emulator.
type registry struct {
	file   string
	mu     sync.Mutex
	agents []*Agent
}

func openRegistry(file string) (*registry, error) {
	r := &registry{file: file}
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read agents: %w", err)
	}
	if err := json.Unmarshal(text, &r.agents); err != nil {
		return nil, fmt.Errorf("read agents from %s: %w", file, err)
	}
	return r, nil
}

// save writes the file; r.mu is held.
func (r *registry) save() error {
	text, err := json.MarshalIndent(r.agents, "", "  ")
	if err != nil {
		return fmt.Errorf("save agents: %w", err)
	}
	if err := writeFile(r.file, text, 0o600); err != nil {
		return fmt.Errorf("save agents: %w", err)
	}
	return nil
}

// register enters an agent, or what changed about a known one.
func (r *registry) register(a Agent, cert *x509.Certificate) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.IndexFunc(r.agents, func(b *Agent) bool { return b.Workspace == a.Workspace && b.ID == a.ID })
	if i < 0 {
		a.Registered = a.LastSeen
		r.agents = append(r.agents, &a)
		i = len(r.agents) - 1
	}
	known := r.agents[i]
	known.Computer, known.System, known.UserAgent, known.LastSeen = a.Computer, a.System, a.UserAgent, a.LastSeen
	known.add(cert)
	return r.save()
}

// renewed enters the certificate that follows the agent's old one.
func (r *registry) renewed(a *Agent, cert *x509.Certificate) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	a.add(cert)
	a.Renewals++
	a.RenewalDone = true
	return r.save()
}

func (a *Agent) add(cert *x509.Certificate) {
	sum := thumbprint(cert)
	a.Thumbprints = slices.DeleteFunc(a.Thumbprints, func(t string) bool { return t == sum })
	a.Thumbprints = append(a.Thumbprints, sum)
}

// find returns the agent that cert belongs to, nil when there is none.
func (r *registry) find(workspace string, cert *x509.Certificate, at time.Time) *Agent {
	r.mu.Lock()
	defer r.mu.Unlock()
	sum := thumbprint(cert)
	for _, a := range r.agents {
		if a.Workspace == workspace && slices.Contains(a.Thumbprints, sum) {
			a.LastSeen = at
			return a
		}
	}
	return nil
}

// renewalDue reports whether the agent has still to follow the order to renew.
func (r *registry) renewalDue(workspace, id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.agents, func(a *Agent) bool { return a.Workspace == workspace && a.ID == id && !a.RenewalDone })
}

// orderRenewal makes a new order to renew stand for every agent.
func (r *registry) orderRenewal() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.agents {
		a.RenewalDone = false
	}
}

// Agents lists the registered agents by workspace and GUID.
func (e *Emulator) Agents() []Agent {
	e.agents.mu.Lock()
	defer e.agents.mu.Unlock()
	list := []Agent{}
	for _, a := range e.agents.agents {
		b := *a
		b.Thumbprints = slices.Clone(a.Thumbprints)
		list = append(list, b)
	}
	slices.SortFunc(list, func(a, b Agent) int {
		return cmp.Or(cmp.Compare(a.Workspace, b.Workspace), cmp.Compare(a.ID, b.ID))
	})
	return list
}

// thumbprint names a certificate.
func thumbprint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return hex.EncodeToString(sum[:])
}

// registered wants the client certificate of an agent of this workspace.
func (e *Emulator) registered(c *call) (*Agent, *refusal) {
	cert := c.peer()
	if cert == nil {
		return nil, refuse(403, "MissingClientCertificate", "the client presented no certificate")
	}
	if c.now.After(cert.NotAfter) {
		return nil, refuse(403, "CertificateExpired", "the client's certificate ended at %s", cert.NotAfter.Format(time.RFC3339))
	}
	agent := e.agents.find(c.Workspace, cert, c.now)
	if agent == nil {
		return nil, refuse(403, "UnknownCertificate", "no agent of workspace %s is registered with certificate %s", c.Workspace, thumbprint(cert))
	}
	c.Agent = agent.ID
	return agent, nil
}
