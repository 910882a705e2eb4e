package workspace

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/openloganalytics/agent/internal/logfile"
	"github.com/openloganalytics/agent/internal/proxy"
)

// Options is what a Client is made of.
type Options struct {
	ID     string // workspace id, a GUID
	Domain string // opinsights.azure.com; a port may follow
	// Dir is the identity folder, this workspace's alone. It is made, and
	// everything in it is for its owner only.
	Dir string
	// KeyFile is where a workspace key is put for the client to onboard with.
	// It is deleted when the workspace has accepted the key.
	KeyFile string

	Host       Host
	ResourceID string // ARM id, fills _ResourceId; empty when unknown
	Region     string // of the machine; empty outside Azure
	CloudID    string // SMBIOS chassis asset tag of an Azure machine, else empty
	UUID       string // DMI product UUID, may be empty

	// Configure applies a configuration that the workspace pushes, and says what
	// came of it. It is called from one goroutine, within Run, while Follow is
	// on. nil never asks the workspace for one.
	Configure func(ctx context.Context, document []byte) Outcome
	// Configuration is the document that is in force from the start: what
	// LoadConfiguration returned. nil is none.
	Configuration []byte
	// Addresses are this machine's, for the report of a configuration; nil is none.
	Addresses func() []string

	Proxy   *proxy.Proxy   // nil is direct
	RootCAs *x509.CertPool // nil is the system's

	// Resolver and Dial take the place of the system's, in tests. With Dial
	// no address is checked.
	Resolver *net.Resolver
	Dial     func(ctx context.Context, network, address string) (net.Conn, error)
	Clock    func() time.Time // nil is time.Now

	// OnChange is called after State changed, from any goroutine and with no
	// lock held; nil calls nobody.
	OnChange func()
	Log      *logfile.Logger
}

// A Client is this machine's connection to one workspace. Run is its life;
// Send and State may be called at any time, from any goroutine.
type Client struct {
	o         Options
	transport *http.Transport
	ready     chan struct{} // closed when Send can have success
	following atomic.Bool   // the workspace's configuration is asked for
	followed  chan struct{} // following has changed

	// Of the goroutine in Run.
	key      keyFile
	loaded   bool
	next     *identity // to take the place of identity once it is accepted
	tries    int       // of onboarding that failed, one after the other
	nextBeat time.Time // when the next topology request is due

	told map[Cause]struct{} // why onboarding failed, as logged since it last had success

	expiryWarned, renewalWarned bool

	mu           sync.Mutex
	identity     *identity     // nil until there is one
	registration *registration // nil until onboarded
	offset       time.Duration // of the service's clock from ours
	skewWarned   bool
	connected    bool // something was accepted in this life
	lastAccepted time.Time
	onboardState trouble
	sendTrouble  trouble
	plainUntil   time.Time // bodies go uncompressed until then
	configured   ConfigurationState
}

// A trouble is what keeps the workspace from being connected; the zero
// trouble is none.
type trouble struct {
	cause Cause
	text  string
}

// hostPattern is a DNS name, with a port for servers that are not Azure's.
const hostPattern = `^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*(:[0-9]{1,5})?$`

// New returns a client. It fails when id or domain could lead anywhere else
// than to a workspace.
func New(o Options) (*Client, error) {
	o.ID, o.Domain = strings.ToLower(o.ID), strings.ToLower(o.Domain)
	if len(o.ID) != 36 || uuid.Validate(o.ID) != nil {
		return nil, fmt.Errorf("open workspace: workspace id %.60q is not a GUID such as 11111111-2222-3333-4444-555555555555", o.ID)
	}
	if len(o.Domain) > 200 || !regexp.MustCompile(hostPattern).MatchString(o.Domain) {
		return nil, fmt.Errorf("open workspace %s: domain %.60q is not a DNS name such as opinsights.azure.com", o.ID, o.Domain)
	}
	if o.Region == "" {
		o.Region = "OnPremise"
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.OnChange == nil {
		o.OnChange = func() {}
	}
	c := &Client{o: o, key: keyFile{path: o.KeyFile}, told: map[Cause]struct{}{}, ready: make(chan struct{}), followed: make(chan struct{}, 1)}
	if o.Configuration != nil {
		c.configured.Checksum = checksum(o.Configuration)
	}
	c.transport = newTransport(o, c.clientCertificate)
	return c, nil
}

// Name implements upload.Destination.
func (c *Client) Name() string { return "workspace/" + c.o.ID }

func (c *Client) omsHost() string { return c.o.ID + ".oms." + c.o.Domain }
func (c *Client) odsHost() string { return c.o.ID + ".ods." + c.o.Domain }

// clientCertificate shows the identity to the server, for tls.Config.
func (c *Client) clientCertificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.identity == nil {
		return new(tls.Certificate), nil
	}
	return c.identity.show(nil)
}

// now is the time by the service's clock, as well as it is known.
func (c *Client) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.o.Clock().Add(c.offset)
}

// learnClock takes the Date of an answer to a request that was sent and
// answered at those times of this machine's clock. Less than a minute is not
// worth a correction: a Date has whole seconds and has been on its way.
func (c *Client) learnClock(date, sent, answered time.Time) {
	offset := date.Sub(sent.Add(answered.Sub(sent) / 2))
	if offset.Abs() < time.Minute {
		offset = 0
	}
	c.mu.Lock()
	warn := beyondSkew(offset) && !c.skewWarned
	c.skewWarned = beyondSkew(offset)
	c.offset = offset
	c.mu.Unlock()
	if warn {
		c.o.Log.Warn("this machine's clock is wrong; requests are signed with the service's time", "workspace", c.o.ID, "clock", ahead(-offset))
	}
}

// facts returns what Explain needs to know.
func (c *Client) facts(host string, a answer, key bool) Facts {
	f := Facts{Host: host, Key: key, Now: c.o.Clock(), Status: a.status, Date: a.date, Detail: a.detail()}
	if c.o.Proxy != nil {
		f.Proxy = c.o.Proxy.String()
	}
	c.mu.Lock()
	f.Offset = c.offset
	c.mu.Unlock()
	return f
}

// State returns the word, cause and sentence that agent.WorkspaceHealth shows:
// "starting" until something is known, "connected" with neither cause nor
// message, "rejected" or "unreachable" with both. lastAccepted is when a batch
// was last accepted in this life, by this machine's clock.
func (c *Client) State() (state, cause, message string, lastAccepted time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	trouble := c.onboardState
	if trouble.cause == "" {
		trouble = c.sendTrouble
	}
	switch {
	case trouble.cause.Rejected():
		state = "rejected"
	case trouble.cause != "":
		state = "unreachable"
	case c.connected:
		state = "connected"
	default:
		state = "starting"
	}
	return state, string(trouble.cause), trouble.text, c.lastAccepted
}

// CertificateExpiry returns when the certificate ends; ok is false while there
// is none.
func (c *Client) CertificateExpiry() (at time.Time, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.identity == nil {
		return time.Time{}, false
	}
	return c.identity.leaf().NotAfter, true
}

// setTrouble sets one of the client's troubles and tells OnChange of a change.
func (c *Client) setTrouble(which *trouble, now trouble) {
	c.mu.Lock()
	before := *which
	*which = now
	c.mu.Unlock()
	if before != now {
		c.o.OnChange()
	}
}

// accepted enters that the data endpoint took a batch.
func (c *Client) accepted() {
	c.mu.Lock()
	news := !c.connected || c.sendTrouble.cause != ""
	c.connected, c.sendTrouble, c.lastAccepted = true, trouble{}, c.o.Clock()
	c.mu.Unlock()
	if news {
		c.o.OnChange()
	}
}
