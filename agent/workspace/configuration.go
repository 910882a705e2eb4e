package workspace

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/openloganalytics/agent/internal/atomicfile"
	"github.com/openloganalytics/agent/internal/mof"
)

// configurationFile is the last document that was applied, in the identity
// folder.
const configurationFile = "configuration.mof"

const (
	// followEvery lies between two questions for a new configuration; a tenth
	// more or less spreads machines in time.
	followEvery = 5 * time.Minute
	// followLongest lies between two while the service does not answer as it
	// should.
	followLongest = time.Hour
)

// ConfigurationState is how the client gets on with the configuration that the
// workspace pushes.
type ConfigurationState struct {
	// Checksum is the SHA-256, in hex, of the document in force; "" is none.
	Checksum string
	// Answered is when the service last said which document is to be in force.
	Answered time.Time
	// Problem says why the workspace's configuration cannot be had or applied,
	// "" when it can.
	Problem string
}

// An Outcome is what came of a document.
type Outcome struct {
	Err error // why it is not in force; nil when it is
	// Unobeyed are its resources that have no effect here, or not all they
	// ask for.
	Unobeyed []Resource
}

// A Resource is a part of a document, as the report of it names it.
type Resource struct {
	ID, Class, Module, ModuleVersion, SourceInfo string
	Why                                          string
}

// LoadConfiguration returns the document that was applied last in the identity
// folder dir, nil when there is none.
func LoadConfiguration(dir string) ([]byte, error) {
	document, err := atomicfile.ReadLimited(filepath.Join(dir, configurationFile), mof.MaxDocument)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("load configuration: %w", err)
	}
	return document, nil
}

// SetAsideConfiguration renames the document that LoadConfiguration returns,
// for somebody to look at, and returns its new name.
func SetAsideConfiguration(dir string, now time.Time) (string, error) {
	return setAside(dir, configurationFile, now)
}

// Configuration returns the state of the pushed configuration.
func (c *Client) Configuration() ConfigurationState {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.configured
}

func checksum(document []byte) string {
	sum := sha256.Sum256(document)
	return hex.EncodeToString(sum[:])
}

// Follow says whether to ask for the configuration that the workspace pushes;
// at first nobody asks.
func (c *Client) Follow(on bool) {
	if c.following.Swap(on) == on {
		return
	}
	select {
	case c.followed <- struct{}{}:
	default: // it will be looked at anyway
	}
}

// follow asks for the configuration that the workspace pushes, once this
// machine is onboarded and while Follow is on, until ctx ends. That it cannot
// be had keeps nothing else from working: the agent goes on with what it has.
func (c *Client) follow(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-c.ready:
	}
	for tries := 0; ctx.Err() == nil; {
		select {
		case <-c.followed: // whatever it says is looked at now
		default:
		}
		wait := time.Duration(math.MaxInt64)
		if c.following.Load() {
			asked, err := c.pull(ctx)
			if ctx.Err() != nil {
				return
			}
			if tries++; err == nil {
				tries = 0
			}
			wait = followWait(tries, asked, rand.Float64()) //nolint:gosec // spreads machines in time, guards nothing
			c.pulled(err)
		}
		select {
		case <-ctx.Done():
		case <-c.followed:
		case <-time.After(wait):
		}
	}
}

// followWait is the wait after so many tries that failed; chance is from 0 to 1.
func followWait(tries int, asked time.Duration, chance float64) time.Duration {
	wait := min(followEvery<<min(max(tries-1, 0), 5), followLongest)
	return max(wait+time.Duration((chance-0.5)/5*float64(wait)), asked)
}

// pulled enters how asking went. A problem is logged once until it changes.
func (c *Client) pulled(err error) {
	problem := ""
	if err != nil {
		problem = err.Error()
	}
	c.mu.Lock()
	news := problem != c.configured.Problem
	c.configured.Problem = problem
	if err == nil {
		c.configured.Answered = c.o.Clock()
	}
	c.mu.Unlock()
	if !news {
		return
	}
	if problem != "" {
		c.o.Log.Warn("the workspace's configuration is not brought up to date", "workspace", c.o.ID, "why", problem)
	}
	c.o.OnChange()
}

// A node is this machine as the server of configurations knows it.
type node struct{ host, account, path string }

// Where the server of configurations may be. The certificate is shown to no
// other host, whatever the service answers.
var (
	nodePattern    = regexp.MustCompile(`(?i)^(/accounts/[0-9a-f-]{36})(/nodes\(agentid='([0-9a-f-]{36})'\))$`)
	dscHostPattern = regexp.MustCompile(`^[a-z0-9.-]+\.azure-automation\.(net|us|cn|eaglex\.ic\.gov|microsoft\.scloud)$`)
	namePattern    = regexp.MustCompile(`^[A-Za-z0-9._-]{1,200}$`)
)

// node checks the address that the service named in the topology response.
func (c *Client) node() (node, error) {
	c.mu.Lock()
	address, guid := c.registration.DSC, c.identity.guid
	c.mu.Unlock()
	if address == "" {
		return node{}, errors.New("the service names no address for it")
	}
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return node{}, errors.New("the service names an address for it that makes no sense")
	}
	host := strings.ToLower(u.Host)
	if !regexp.MustCompile(hostPattern).MatchString(host) || !dscHostPattern.MatchString(host) && !strings.HasSuffix(host, "."+c.o.Domain) {
		return node{}, fmt.Errorf("the service names %q for it, which is no host of Azure Automation or of %s", printable(host), c.o.Domain)
	}
	parts := nodePattern.FindStringSubmatch(u.Path)
	if parts == nil || !strings.EqualFold(parts[3], guid) {
		return node{}, errors.New("the service names an address for it that is not this machine's")
	}
	return node{host, "https://" + host + parts[1], parts[2]}, nil
}

// pull asks whether another configuration is to be in force, and applies it.
// On an error it also returns how long the server wants to be left alone.
func (c *Client) pull(ctx context.Context) (asked time.Duration, err error) {
	n, err := c.node()
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	name, asked, err := c.action(ctx, n)
	if err != nil || name == "" {
		return asked, err
	}
	document, asked, err := c.download(ctx, n, name)
	if err != nil {
		return asked, err
	}
	return 0, c.configure(ctx, n, name, document)
}

// ask makes one exchange with the server of configurations.
func (c *Client) ask(ctx context.Context, n node, method, target string, body []byte, most int) (answer, error) {
	header := http.Header{}
	header.Set("ProtocolVersion", "2.0")
	header.Set("Accept", "application/json")
	header.Set("Content-Type", "application/json; charset=utf-8")
	header.Set("User-Agent", c.o.Host.userAgent())
	a, err := c.exchange(ctx, c.transport, method, target, header, body, most)
	if err != nil {
		_, text := Explain(err, c.facts(n.host, a, false))
		return a, errors.New(text)
	}
	if a.status/100 != 2 {
		return a, fmt.Errorf("%s answers with status %d", n.host, a.status)
	}
	return a, nil
}

// action asks what to do. It returns the name of the configuration to get, ""
// when the one in force is the right one.
func (c *Client) action(ctx context.Context, n node) (name string, asked time.Duration, err error) {
	type status struct{ Checksum, ChecksumAlgorithm string }
	body, err := json.Marshal(struct{ ClientStatus []status }{[]status{{c.Configuration().Checksum, "SHA-256"}}})
	if err != nil {
		panic("BUG: texts do not marshal: " + err.Error())
	}
	a, err := c.ask(ctx, n, http.MethodPost, n.account+n.path+"/GetDscAction", body, maxAnswer)
	if err != nil {
		return "", a.retryAfter(c.now()), err
	}
	var told struct {
		NodeStatus string
		Details    []struct{ ConfigurationName, Status string }
	}
	if a.cut || json.Unmarshal(trimMark(a.body), &told) != nil {
		return "", 0, fmt.Errorf("%s does not say what to do", n.host)
	}
	switch strings.ToUpper(told.NodeStatus) {
	case "OK":
		return "", 0, nil
	case "GETCONFIGURATION":
	default:
		return "", 0, fmt.Errorf("%s asks for %q, which this agent does not do", n.host, printable(told.NodeStatus))
	}
	for _, d := range told.Details {
		if name == "" || strings.EqualFold(d.Status, "GetConfiguration") {
			name = d.ConfigurationName
		}
	}
	if name == "" {
		c.mu.Lock()
		name = c.registration.NodeConfiguration
		c.mu.Unlock()
	}
	if !namePattern.MatchString(name) {
		return "", 0, fmt.Errorf("%s names a configuration that has no proper name", n.host)
	}
	return name, 0, nil
}

func trimMark(body []byte) []byte { return []byte(strings.TrimPrefix(string(body), "\xef\xbb\xbf")) }

// download gets a document and compares it with its checksum.
func (c *Client) download(ctx context.Context, n node, name string) (document []byte, asked time.Duration, err error) {
	a, err := c.ask(ctx, n, http.MethodGet, n.account+n.path+"/Configurations(ConfigurationName='"+name+"')/ConfigurationContent", nil, mof.MaxDocument)
	switch {
	case err != nil:
		return nil, a.retryAfter(c.now()), err
	case a.cut:
		return nil, 0, fmt.Errorf("the configuration has more than %d MiB", mof.MaxDocument>>20)
	case !strings.EqualFold(a.header.Get("ChecksumAlgorithm"), "SHA-256"):
		return nil, 0, fmt.Errorf("%s gives a configuration without a SHA-256 checksum", n.host)
	case !strings.EqualFold(a.header.Get("Checksum"), checksum(a.body)):
		return nil, 0, errors.New("the configuration that arrived does not have the checksum that was announced; it is not used")
	}
	return a.body, 0, nil
}

// configure applies a document, keeps it for the next start, and reports.
func (c *Client) configure(ctx context.Context, n node, name string, document []byte) error {
	r := c.newReport(name)
	c.send(ctx, n, r.start())
	outcome := c.o.Configure(ctx, document)
	if ctx.Err() != nil && outcome.Err != nil {
		return outcome.Err
	}
	c.send(ctx, n, r.end(outcome, c.o.Clock()))
	if outcome.Err != nil {
		return outcome.Err
	}
	c.mu.Lock()
	c.configured.Checksum = checksum(document)
	c.mu.Unlock()
	if err := atomicfile.Write(filepath.Join(c.o.Dir, configurationFile), document, 0o600); err != nil {
		c.o.Log.Warn("the workspace's configuration is in force, but cannot be kept for the next start", "workspace", c.o.ID, "error", err)
	}
	c.o.Log.Info("the workspace's configuration is in force", "workspace", c.o.ID, "checksum", checksum(document), "not obeyed", len(outcome.Unobeyed))
	return nil
}

// send sends a report. Nothing depends on its arrival.
func (c *Client) send(ctx context.Context, n node, body []byte) {
	if _, err := c.ask(ctx, n, http.MethodPost, n.account+n.path+"/SendReport", body, maxAnswer); err != nil {
		c.o.Log.Debug("report of the configuration not sent", "workspace", c.o.ID, "error", err)
	}
}
