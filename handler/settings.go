package handler

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/openloganalytics/agent/agent"
	"github.com/openloganalytics/agent/agent/transform"
	"github.com/openloganalytics/agent/extension"
	"github.com/openloganalytics/agent/internal/atomicfile"
	"github.com/openloganalytics/agent/internal/proxy"
	"github.com/openloganalytics/agent/internal/secret"
)

// Settings is what the user wrote, checked and turned into what the agent
// obeys. Config has no Generation yet.
type Settings struct {
	Config agent.Config
	Keys   map[string]secret.Secret // by workspace id; one for each workspace
	// Passwords are those of applications, by name.
	Passwords map[string]secret.Secret
	Proxy     secret.Secret // [scheme://][user:password@]host[:port]; empty is direct
	// StopOnMultipleConnections refuses a machine whose earlier Log Analytics
	// agent reports to another workspace.
	StopOnMultipleConnections bool
	// trustedFile holds authorities to trust; readTrusted reads it.
	trustedFile string
	// pipelines are the transformations by name, nil where one is wrong.
	pipelines map[string]*transform.Pipeline
	// Notes are sentences about settings that were taken but have no effect.
	Notes []string
}

// Limits of a data collection rule, as Azure documents them.
const (
	maxDataSources  = 10 // of one kind
	maxSpecifiers   = 100
	maxFacilities   = 20
	maxWorkspaces   = 10
	minSampling     = 1    // seconds
	maxSampling     = 1800 // seconds
	maxFilePatterns = 100  // of one log
)

// Defaults of the ceilings.
const (
	defaultDiskMB     = 1024
	defaultCPUPercent = 20
	defaultMemoryMB   = 256
)

// ignored are settings of the earlier extension that this agent has no use
// for. Templates that carry them keep working.
var ignored = map[string]string{
	"skipDockerProviderInstall": "this agent installs no container provider",
	"noDigest":                  "this agent installs no packages",
	"azureResourceId":           "the VM's resource id comes from vmResourceId or from the instance metadata",
}

// later are settings that the product knows and this version does not have.
var later = map[string]string{
	"dataCollectionRules":       "put the rule's dataSources object into the setting dataSources",
	"authentication":            "give workspaceId, and workspaceKey in the protected settings",
	"enableAutomaticManagement": "give workspaceId, and workspaceKey in the protected settings",
}

// ParseSettings reads the two halves of a settings file. Its error is a
// SettingsErrors that names every field that is wrong; no value of a
// protected setting is ever part of it.
func ParseSettings(public json.RawMessage, protected secret.Secret) (*Settings, error) {
	d := &decoder{}
	s := &Settings{Keys: map[string]secret.Secret{}}
	pub := d.object("", public, false)
	prot := d.object("", json.RawMessage(protected.Reveal()), true)
	publicHalf := pub.object("proxy")
	s.public(d, pub)
	s.proxy(d, publicHalf, prot)
	s.keys(d, prot)
	s.passwords(prot)
	s.domain(d, prot.text("domain"))
	s.Config.VMResourceID = prot.text("vmResourceId")
	if id := s.Config.VMResourceID; id != "" && !strings.HasPrefix(id, "/subscriptions/") {
		d.secretWrong("vmResourceId", "is not an Azure resource id", "give the whole id, beginning with /subscriptions/")
	}
	prot.done()
	if err := d.err(); err != nil {
		return nil, err
	}
	return s, nil
}

// public reads everything of the public settings but the proxy.
func (s *Settings) public(d *decoder, pub *object) {
	s.workspaces(d, pub)
	s.transformations(d, pub)
	s.redaction(d, pub)
	s.applications(d, pub)
	s.sources(d, pub.object("dataSources"), pub.had("dataSources"))
	s.workspaceConfiguration(pub)
	s.listeners(d, pub)
	s.counterValues(d, pub)
	s.limits(pub)
	s.trustedFile = pub.text("trustedCertificatesFile")
	if file := s.trustedFile; file != "" && !filepath.IsAbs(file) {
		d.wrong("trustedCertificatesFile", "is not an absolute path", "give the whole path of a PEM file on the VM")
	}
	s.StopOnMultipleConnections = pub.boolean("stopOnMultipleConnections")
	for _, name := range slices.Sorted(maps.Keys(ignored)) {
		if pub.take(name) != nil {
			s.Notes = append(s.Notes, fmt.Sprintf("%s has no effect: %s.", name, ignored[name]))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(later)) {
		if pub.take(name) != nil {
			d.wrong(name, "is not supported by this version", later[name])
		}
	}
	pub.take("proxy")
	pub.done()
}

// workspaceConfiguration reads who may choose what is collected when the
// settings do not: the first workspace, unless they forbid it. A person who says
// so in as many words lets it name files anywhere on the machine.
func (s *Settings) workspaceConfiguration(pub *object) {
	const name = "useWorkspaceConfiguration"
	given := pub.had(name)
	wanted := pub.boolean(name)
	if s.Config.Origin == agent.OriginSettings {
		if wanted {
			s.Notes = append(s.Notes, name+" has no effect: the settings have dataSources, which come first.")
		}
		return
	}
	s.Config.FollowWorkspace = wanted || !given
	s.Config.AnyFile = wanted
}

var guid = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

func (s *Settings) workspaces(d *decoder, pub *object) {
	add := func(field, id, name string) {
		id = strings.ToLower(strings.TrimSpace(id))
		switch {
		case id == "":
			d.wrong(field, "is missing", "give the workspace's id, a GUID (Azure portal: the workspace's Overview, \"Workspace ID\")")
		case !guid.MatchString(id):
			d.wrong(field, fmt.Sprintf("%q is not a GUID", id), "give the workspace's id as the portal shows it: 8-4-4-4-12 hexadecimal digits")
		case slices.ContainsFunc(s.Config.Workspaces, func(w agent.Workspace) bool { return w.ID == id }):
			d.wrong(field, "names the same workspace twice", "name each workspace once")
		default:
			s.Config.Workspaces = append(s.Config.Workspaces, agent.Workspace{ID: id, Name: name})
		}
	}
	list := pub.objects("workspaces")
	id := pub.text("workspaceId")
	if id != "" || list == nil {
		add("workspaceId", id, "")
	}
	for _, w := range list {
		add(w.path+".id", w.text("id"), w.text("name"))
		w.done()
	}
	if len(s.Config.Workspaces) > maxWorkspaces {
		d.wrong("workspaces", fmt.Sprintf("names %d workspaces", len(s.Config.Workspaces)), fmt.Sprintf("name at most %d", maxWorkspaces))
	}
}

func (s *Settings) domain(d *decoder, domain string) {
	if err := checkDomain(domain); err != nil {
		d.secretWrong("domain", err.Error(), "give the part after <workspace id>.ods. alone, as in opinsights.azure.com; leave it out for the cloud that the VM is in")
	}
	for i := range s.Config.Workspaces {
		s.Config.Workspaces[i].Domain = domain
	}
}

func (s *Settings) keys(d *decoder, prot *object) {
	keys := map[string]secret.Secret{}
	if all := prot.object("workspaceKeys"); all != nil {
		for _, id := range all.names() {
			keys[strings.ToLower(id)] = secret.New(all.text(id))
		}
	}
	single := secret.New(prot.text("workspaceKey"))
	for i, w := range s.Config.Workspaces {
		field, key := "workspaceKeys."+w.ID, keys[w.ID]
		if i == 0 && key.IsZero() {
			field, key = "workspaceKey", single
		}
		delete(keys, w.ID)
		if problem := checkKey(key); problem != "" {
			d.secretWrong(field, problem, "give the workspace's primary or secondary key (Azure portal: the workspace's Agents page) in the protected settings")
			continue
		}
		s.Keys[w.ID] = key
	}
	for range keys {
		d.secretWrong("workspaceKeys", "holds a key for a workspace that no setting names", "name the workspace in workspaces, or take the key out")
	}
}

// checkKey says what is wrong with a workspace key, without a byte of it.
func checkKey(key secret.Secret) string {
	text := key.Reveal()
	raw, err := base64.StdEncoding.Strict().DecodeString(text)
	switch {
	case text == "":
		return "is missing"
	case strings.TrimSpace(text) != text:
		return "has white space at an end"
	case err != nil:
		return fmt.Sprintf("is not base64 (%d characters)", len(text))
	case len(raw) < 32:
		return fmt.Sprintf("is too short: it holds %d bytes, a workspace key holds 64", len(raw))
	}
	return ""
}

var label = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// checkDomain accepts a DNS name of at least two labels: no scheme, port,
// user, path or address can hide in it.
func checkDomain(domain string) error {
	if domain == "" {
		return nil
	}
	labels := strings.Split(strings.ToLower(domain), ".")
	for _, l := range labels {
		if !label.MatchString(l) {
			return fmt.Errorf("%q is not a domain name", domain)
		}
	}
	if len(domain) > 200 || len(labels) < 2 || regexp.MustCompile(`^[0-9]+$`).MatchString(labels[len(labels)-1]) {
		return fmt.Errorf("%q is not a domain name", domain)
	}
	return nil
}

// proxy joins the two halves of the proxy setting: the protected one is the
// whole address, or the user of the proxy that the public one names.
func (s *Settings) proxy(d *decoder, pub, prot *object) {
	text := ""
	if raw := prot.peek("proxy"); raw == nil || strings.HasPrefix(strings.TrimSpace(string(raw)), "{") {
		text = publicProxy(d, pub, prot.object("proxy"))
	} else {
		text = prot.text("proxy")
	}
	if text == "" {
		return
	}
	if _, err := proxy.Parse(secret.New(text)); err != nil {
		d.secretWrong("proxy", err.Error(), "give [scheme://][user:password@]host[:port], with % escapes for special characters")
		return
	}
	s.Proxy = secret.New(text)
}

// publicProxy joins the public half of the proxy setting (mode, host, port)
// with the protected one (username, password).
func publicProxy(d *decoder, pub, prot *object) string {
	if pub == nil {
		if prot != nil {
			d.wrong("proxy", "has a user and no host", "give host and port in the public setting proxy")
			prot.members = nil
		}
		return ""
	}
	mode := strings.ToLower(pub.text("mode"))
	host, port := pub.text("host"), pub.integer("port", 0, 1, 65535)
	pub.done()
	switch mode {
	case "", "application":
	case "none":
		return ""
	default:
		d.wrong("proxy.mode", fmt.Sprintf("%q is not a mode", mode), `give "application", or "none" for no proxy`)
	}
	if host == "" {
		d.wrong("proxy.host", "is missing", "give the proxy's name or address")
		return ""
	}
	if strings.Contains(host, ":") && !strings.HasPrefix(host, "[") && strings.Count(host, ":") > 1 {
		host = "[" + host + "]"
	}
	if port != 0 {
		host = fmt.Sprintf("%s:%d", host, port)
	}
	if prot == nil {
		return host
	}
	user, password := prot.text("username"), prot.text("password")
	prot.done()
	if user == "" {
		return host
	}
	return percentEncode(user) + ":" + percentEncode(password) + "@" + host
}

// percentEncode escapes everything but letters and digits, so that no
// character of a password can be taken for a separator.
func percentEncode(text string) string {
	var b strings.Builder
	for _, c := range []byte(text) {
		if c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' {
			b.WriteByte(c)
			continue
		}
		fmt.Fprintf(&b, "%%%02X", c)
	}
	return b.String()
}

func (s *Settings) limits(pub *object) {
	s.Config.Limits = agent.Limits{
		DiskMB:     pub.integer("diskQuotaInMB", defaultDiskMB, 32, 1<<20),
		CPUPercent: pub.integer("cpuQuotaPercentage", defaultCPUPercent, 1, 1000),
		MemoryMB:   pub.integer("memoryQuotaInMB", defaultMemoryMB, 64, 1<<20),
	}
}

// Generation names a config together with its secrets: a digest that changes
// when anything in them does and that gives nothing of them away.
func (s *Settings) Generation() string {
	h := sha256.New()
	config := s.Config
	config.Generation = ""
	data, err := json.Marshal(config)
	if err != nil {
		panic("BUG: config does not marshal: " + err.Error())
	}
	h.Write(data)
	for _, id := range slices.Sorted(maps.Keys(s.Keys)) {
		fmt.Fprintf(h, "\x00%s=%s", id, s.Keys[id].Reveal())
	}
	fmt.Fprintf(h, "\x00%s", s.Proxy.Reveal())
	for _, name := range slices.Sorted(maps.Keys(s.Passwords)) {
		fmt.Fprintf(h, "\x00%q=%q", name, s.Passwords[name].Reveal())
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

func seconds(n int) agent.Duration { return agent.Duration(time.Duration(n) * time.Second) }

// trustedLimit is more than all public authorities together take.
const trustedLimit = 1 << 20

// readTrusted puts what is in trustedFile into the config: the agent may not
// be allowed to read where a person has put it.
func (s *Settings) readTrusted() error {
	if s.trustedFile == "" {
		return nil
	}
	wrong := &extension.SettingsError{Field: "trustedCertificatesFile", Fix: "put a PEM file with the certificates of the authorities there"}
	data, err := atomicfile.ReadLimited(s.trustedFile, trustedLimit)
	certificates := onlyCertificates(data)
	switch {
	case err != nil:
		wrong.Problem = "cannot be read: " + err.Error()
	case !x509.NewCertPool().AppendCertsFromPEM(certificates):
		wrong.Problem = s.trustedFile + " holds no PEM certificate"
	default:
		s.Config.TrustedCertificates = string(certificates)
		return nil
	}
	return wrong
}

// onlyCertificates leaves out everything else that a PEM file can hold, private
// keys above all: root read it, and the agent gets it.
func onlyCertificates(data []byte) []byte {
	var certificates []byte
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			certificates = append(certificates, pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes})...)
		}
	}
	return certificates
}

// ValidatePublic checks public settings alone, as a person writes them into a
// file before they are deployed.
func ValidatePublic(public json.RawMessage) error {
	_, err := PublicConfig(public)
	return err
}

// PublicConfig returns what public settings alone make of a Config: its sources
// and limits.
func PublicConfig(public json.RawMessage) (*agent.Config, error) {
	d := &decoder{}
	s := &Settings{Keys: map[string]secret.Secret{}}
	s.public(d, d.object("", public, false))
	return &s.Config, d.err()
}

// note adds a sentence for the user, if there is one.
func (s *Settings) note(text string) {
	if text != "" {
		s.Notes = append(s.Notes, text)
	}
}
