package workspace

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/openloganalytics/agent/internal/atomicfile"
	"github.com/openloganalytics/agent/internal/secret"
)

const (
	// keyPoll is how often the key file is looked for, and rareKeyPoll how
	// often once it is not needed: who brings a new key then starts the agent
	// again as well.
	keyPoll     = 5 * time.Second
	rareKeyPoll = time.Minute
	maxKey      = 4 << 10 // bytes

	// The topology request is repeated every defaultBeat, or as often as the
	// service says when that is between the two bounds.
	defaultBeat = 20 * time.Minute
	minBeat     = time.Minute
	maxBeat     = 7 * 24 * time.Hour
)

// Run keeps this machine onboarded until ctx ends. A key file makes it onboard
// with that key, also when it is onboarded already: that proves the key, and
// repairs a registration. It never gives up, and needs the key no more once
// the workspace has accepted it. The error is always nil: what is wrong is in
// State and in the log.
func (c *Client) Run(ctx context.Context) error {
	defer c.transport.CloseIdleConnections()
	var following sync.WaitGroup
	defer following.Wait()
	if c.o.Configure != nil {
		following.Go(func() { c.follow(ctx) })
	}
	for ctx.Err() == nil {
		wait := c.step(ctx)
		c.sleep(ctx, wait)
	}
	return nil
}

// step does what is due and returns how long nothing will be, unless a key
// comes.
func (c *Client) step(ctx context.Context) time.Duration {
	if err := c.load(); err != nil {
		return c.failed(c.unusable(err), 0)
	}
	if c.key.arrived() {
		c.tries = 0
		clear(c.told)
	}
	key, err := c.key.read()
	switch {
	case err == nil:
		return c.onboard(ctx, key)
	case !errors.Is(err, fs.ErrNotExist):
		return c.failed(trouble{KeyMissing, fmt.Sprintf("the workspace key cannot be read (%v): apply the extension again with workspaceKey", err)}, 0)
	case c.registered():
		c.setTrouble(&c.onboardState, trouble{})
		return c.beat(ctx)
	case c.identity != nil:
		return c.adopt(ctx)
	}
	return c.failed(trouble{KeyMissing, noKey}, 0)
}

// Sentences of troubles that arise in more than one place.
const noKey = "the workspace does not know this machine, and there is no workspace key to make it known with: apply the extension with workspaceId and workspaceKey"

func (c *Client) unusable(err error) trouble {
	return trouble{StateUnusable, fmt.Sprintf("the folder %s cannot be used (%v): check its owner, its mode and the disk", c.o.Dir, err)}
}

// sleep returns after wait, when ctx ends, or when a new key has come.
func (c *Client) sleep(ctx context.Context, wait time.Duration) {
	end := time.NewTimer(wait)
	defer end.Stop()
	every := keyPoll
	if c.registered() {
		every = rareKeyPoll
	}
	poll := time.NewTicker(every)
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-end.C:
			return
		case <-poll.C:
			if c.key.arrived() {
				return
			}
		}
	}
}

// failed enters a failure of onboarding and returns how long to wait before
// the next try: two seconds, then twice as long each time up to a quarter of an
// hour, or what the server asked for when that is more. Each cause is logged
// once until there is success.
func (c *Client) failed(now trouble, asked time.Duration) time.Duration {
	c.setTrouble(&c.onboardState, now)
	if _, told := c.told[now.cause]; !told {
		c.told[now.cause] = struct{}{}
		c.o.Log.Warn("cannot onboard", "workspace", c.o.ID, "cause", now.cause, "why", now.text)
	}
	c.tries++
	return backOff(c.tries, asked, rand.Float64()) //nolint:gosec // spreads machines in time, guards nothing
}

// backOff is the wait after so many tries; chance is from 0 to 1.
func backOff(tries int, asked time.Duration, chance float64) time.Duration {
	const first, longest = 2 * time.Second, 15 * time.Minute
	wait := longest
	if doublings := tries - 1; doublings < 9 {
		wait = min(first<<doublings, longest)
	}
	wait -= time.Duration(chance / 2 * float64(wait))
	if asked > wait {
		wait = asked + time.Duration(chance*float64(asked))
	}
	return wait
}

// load reads what the identity folder holds, once. Corrupt files are set aside.
func (c *Client) load() error {
	if c.loaded {
		return nil
	}
	if err := os.MkdirAll(c.o.Dir, 0o700); err != nil {
		return err
	}
	id, err := loadIdentity(c.o.Dir, c.o.ID)
	if err := c.absent(err, identityFile); err != nil {
		return err
	}
	known, err := loadRegistration(c.o.Dir)
	if err := c.absent(err, registrationFile); err != nil {
		return err
	}
	if id == nil || known != nil && (known.Thumbprint != id.thumbprint() || known.Domain != c.o.Domain) {
		known = nil // of another certificate or another cloud
	}
	c.showIdentity(id)
	if known != nil {
		c.setRegistration(known)
	}
	c.loaded = true
	return nil
}

// absent turns the error of a load function that stands for nothing to load
// into nil, and sets a corrupt file aside on the way.
func (c *Client) absent(err error, name string) error {
	if !errors.Is(err, errCorrupt) {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	aside, renameErr := setAside(c.o.Dir, name, c.o.Clock())
	if renameErr != nil {
		return renameErr
	}
	c.o.Log.Warn("corrupt file set aside", "workspace", c.o.ID, "error", err, "now", aside)
	return nil
}

// setIdentity makes id this machine's identity.
func (c *Client) setIdentity(id *identity) error {
	if err := id.save(c.o.Dir); err != nil {
		return err
	}
	c.showIdentity(id)
	return nil
}

func (c *Client) showIdentity(id *identity) {
	c.mu.Lock()
	c.identity = id
	c.mu.Unlock()
	// A connection goes on with the certificate it was made with.
	c.transport.CloseIdleConnections()
}

func (c *Client) setRegistration(r *registration) {
	c.mu.Lock()
	first := c.registration == nil
	c.registration = r
	c.mu.Unlock()
	c.nextBeat = c.o.Clock().Add(r.beat())
	if first {
		close(c.ready)
	}
}

func (c *Client) registered() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.registration != nil
}

// beat returns the period of the topology request.
func (r *registration) beat() time.Duration {
	asked := time.Duration(r.QueryInterval) * time.Second
	if asked < minBeat || asked > maxBeat {
		return defaultBeat
	}
	return asked
}

// onboard registers this machine with the key.
func (c *Client) onboard(ctx context.Context, key secret.Secret) time.Duration {
	raw, err := DecodeKey(key)
	if err != nil {
		return c.failed(trouble{KeyMalformed, "the workspace key is not base64 text: copy the primary or secondary key of the workspace from the portal into the protected setting workspaceKey"}, 0)
	}
	id, err := c.candidate()
	if err != nil {
		return c.failed(c.unusable(err), 0)
	}
	t, problem, asked := c.requestTopology(ctx, id, raw)
	if ctx.Err() != nil {
		return 0
	}
	if problem.cause != "" {
		return c.failed(problem, asked)
	}
	if err := c.enter(id, t); err != nil {
		return c.failed(c.unusable(err), 0)
	}
	if err := c.key.remove(); err != nil {
		c.o.Log.Warn("the workspace accepted the key, but its file cannot be deleted", "workspace", c.o.ID, "error", err)
	}
	c.o.Log.Info("onboarded", "workspace", c.o.ID, "agent", id.guid, "certificate", id.thumbprint())
	return c.untilBeat()
}

// candidate returns the identity to onboard with: the present one while its
// certificate has time left, else one with the same GUID and a new certificate,
// which takes the place of the present one when the workspace has accepted it.
func (c *Client) candidate() (*identity, error) {
	now := c.now()
	for _, id := range []*identity{c.identity, c.next} {
		if id != nil && id.fits(now) {
			return id, nil
		}
	}
	guid := uuid.NewString()
	if c.identity != nil {
		guid = c.identity.guid
	}
	id, err := newIdentity(c.o.ID, guid, now)
	if err != nil {
		return nil, err
	}
	c.o.Log.Info("made a certificate", "workspace", c.o.ID, "agent", guid, "until", id.leaf().NotAfter)
	if c.identity != nil {
		c.next = id
		return id, nil
	}
	return id, c.setIdentity(id)
}

// adopt tries the certificate where it is not known whether the workspace has
// registered it: the registration was lost, or belonged to another cloud.
func (c *Client) adopt(ctx context.Context) time.Duration {
	t, problem, asked := c.requestTopology(ctx, c.identity, nil)
	if ctx.Err() != nil {
		return 0
	}
	if problem.cause == CertificateRejected {
		problem = trouble{KeyMissing, noKey}
	}
	if problem.cause != "" {
		return c.failed(problem, asked)
	}
	if err := c.enter(c.identity, t); err != nil {
		return c.failed(c.unusable(err), 0)
	}
	c.o.Log.Info("onboarded before", "workspace", c.o.ID, "agent", c.identity.guid)
	return c.untilBeat()
}

// beat repeats the topology request when it is due. Its failure is logged and
// no more: uploads tell whether the workspace takes this machine's data.
func (c *Client) beat(ctx context.Context) time.Duration {
	if !c.identity.fits(c.now()) {
		c.warnOnce(&c.expiryWarned, "this machine's certificate ends soon: "+keyAgain)
	}
	if wait := c.untilBeat(); wait > 0 {
		return wait
	}
	t, problem, _ := c.requestTopology(ctx, c.identity, nil)
	if ctx.Err() != nil {
		return 0
	}
	c.nextBeat = c.o.Clock().Add(c.registration.beat())
	if problem.cause != "" {
		c.o.Log.Warn("topology request failed", "workspace", c.o.ID, "cause", problem.cause, "why", problem.text)
	} else if err := c.keep(t, c.registration.OnboardedAt); err != nil {
		c.o.Log.Warn("cannot keep what the service answered", "workspace", c.o.ID, "error", err)
	}
	return c.untilBeat()
}

func (c *Client) untilBeat() time.Duration { return max(0, c.nextBeat.Sub(c.o.Clock())) }

// requestTopology introduces this machine as id, signed with key when that is
// not nil. It returns what the service answered, or the trouble and how long
// the server wants to be left alone.
//
// It has a connection of its own: a kept one would go on showing the
// certificate it was made with.
func (c *Client) requestTopology(ctx context.Context, id *identity, key []byte) (topology, trouble, time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	body, err := topologyBody(c.o.Host, id.guid, id.leaf().Raw)
	if err != nil {
		return topology{}, trouble{RequestRefused, err.Error()}, 0
	}
	header := http.Header{}
	signTopology(header, c.o.Host, c.o.ID, key, c.now(), body)
	transport := newTransport(c.o, id.show)
	defer transport.CloseIdleConnections()
	a, err := c.post(ctx, transport, "https://"+c.omsHost()+topologyPath, header, body)
	f := c.facts(c.omsHost(), a, key != nil)
	if err != nil || a.status != http.StatusOK {
		cause, text := Explain(err, f)
		return topology{}, trouble{cause, text}, a.retryAfter(c.now())
	}
	t, err := parseTopology(a.body)
	if err != nil || a.cut {
		f.Detail = "not a topology response"
		cause, text := Explain(nil, f)
		return topology{}, trouble{cause, text}, 0
	}
	return t, trouble{}, 0
}

// enter keeps what came of an onboarding as id, and ends all trouble.
func (c *Client) enter(id *identity, t topology) error {
	if id != c.identity {
		if err := c.setIdentity(id); err != nil {
			return err
		}
		c.next = nil
	}
	if err := c.keep(t, c.o.Clock().UTC()); err != nil {
		return err
	}
	c.tries = 0
	clear(c.told)
	c.mu.Lock()
	c.connected = true
	c.onboardState, c.sendTrouble = trouble{}, trouble{}
	c.mu.Unlock()
	c.o.OnChange()
	return nil
}

// keep makes the service's answer the registration.
func (c *Client) keep(t topology, onboardedAt time.Time) error {
	if len(t.missing)+len(t.malformed) > 0 {
		c.o.Log.Info("the service's answer is incomplete", "workspace", c.o.ID, "missing", t.missing, "malformed", t.malformed)
	}
	if t.UpdateCertificate {
		c.warnOnce(&c.renewalWarned, "the service asks for a new certificate")
	}
	r := &registration{
		Thumbprint: c.identity.thumbprint(), Domain: c.o.Domain, OnboardedAt: onboardedAt,
		QueryInterval:     int(t.QueryInterval / time.Second),
		CertificateUpdate: t.CertificateUpdate, DSC: t.DSC, NodeConfiguration: t.NodeConfiguration,
	}
	if err := r.save(c.o.Dir); err != nil {
		return err
	}
	c.setRegistration(r)
	return nil
}

func (c *Client) warnOnce(warned *bool, text string) {
	if !*warned {
		*warned = true
		c.o.Log.Warn(text, "workspace", c.o.ID, "until", c.identity.leaf().NotAfter)
	}
}

// A keyFile brings a workspace key, and remembers which one it brought last.
type keyFile struct {
	path string
	last fs.FileInfo // of the key read last; nil for none
}

// read returns the key; the cause of its error is fs.ErrNotExist when there
// is none.
func (k *keyFile) read() (secret.Secret, error) {
	info, err := os.Lstat(k.path)
	if err != nil {
		k.last = nil
		return secret.Secret{}, err
	}
	k.last = info
	text, err := atomicfile.ReadLimited(k.path, maxKey)
	if err != nil {
		return secret.Secret{}, err
	}
	return secret.New(string(bytes.TrimSpace(text))), nil
}

// arrived reports whether there is a key that read has not returned.
func (k *keyFile) arrived() bool {
	info, err := os.Lstat(k.path)
	if err != nil {
		return false
	}
	return k.last == nil || !os.SameFile(k.last, info) || info.ModTime() != k.last.ModTime() || info.Size() != k.last.Size()
}

// remove deletes the key that was read last, not one that came meanwhile.
func (k *keyFile) remove() error {
	if k.arrived() {
		return nil
	}
	return os.Remove(k.path)
}
