package emulator

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxSkew is how far a signed date may be from the service's clock.
const maxSkew = 15 * time.Minute

var (
	anyGUID          = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)
	datePattern      = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}[+-]\d\d:\d\d$`)
	userAgentPattern = regexp.MustCompile(`^LinuxMonitoringAgent/\d+\.\d+\.\d+-\d+$`)
	hostPattern      = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\.?$`)
)

// onboard registers an agent's certificate against a signature by a workspace
// key. Source of the format: OMS agent for Linux, omsadmin.sh, auth_key.rb and
// agent_topology_request_script.rb.
func (e *Emulator) onboard(c *call) (answer, *refusal) {
	for _, check := range []func(*call) *refusal{
		checkPost, checkVersion, checkUserAgent, checkLanguage, checkTopologyType, checkContentHash, checkDate, checkSkew, checkSignature,
	} {
		if no := check(c); no != nil {
			return answer{}, no
		}
	}
	topology, no := readTopology(c)
	if no != nil {
		return answer{}, no
	}
	if err := e.agents.register(topology.agent, topology.certificate); err != nil {
		return answer{}, refuse(503, "StorageError", "%v", err)
	}
	c.Agent = topology.agent.ID
	return e.topologyAnswer(c), nil
}

// heartbeat repeats the topology of an agent that is already registered: the
// certificate is the credential, and what onboarding signs does not belong.
func (e *Emulator) heartbeat(c *call) (answer, *refusal) {
	for _, name := range []string{"x-ms-version", "x-ms-SHA256_Content"} {
		if c.Header.Get(name) != "" {
			return answer{}, refuse(403, "MissingHeader",
				"Authorization is missing for an onboarding, or %s does not belong in a heartbeat", name)
		}
	}
	for _, check := range []func(*call) *refusal{checkPost, checkUserAgent, checkLanguage, checkTopologyType, checkDate, checkUTC} {
		if no := check(c); no != nil {
			return answer{}, no
		}
	}
	if _, no := e.registered(c); no != nil {
		return answer{}, no
	}
	// The certificate holds the GUID, so the body cannot speak for another agent.
	topology, no := readTopology(c)
	if no != nil {
		return answer{}, no
	}
	if err := e.agents.register(topology.agent, topology.certificate); err != nil {
		return answer{}, refuse(503, "StorageError", "%v", err)
	}
	return e.topologyAnswer(c), nil
}

// renew registers the certificate that follows the one presented.
func (e *Emulator) renew(c *call) (answer, *refusal) {
	if no := checkPost(c); no != nil {
		return answer{}, no
	}
	agent, no := e.registered(c)
	if no != nil {
		return answer{}, no
	}
	root, err := parseXML(c.body)
	if err != nil {
		return answer{}, refuse(400, "InvalidRequestBody", "%v", err)
	}
	if root.name != "CertificateUpdateRequest" {
		return answer{}, refuse(400, "InvalidRequestBody", "the root is %s, not CertificateUpdateRequest", root.name)
	}
	if err := root.inOrder([]string{"NewCertificate"}, ""); err != nil {
		return answer{}, refuse(400, "InvalidRequestBody", "%v", err)
	}
	cert, no := readCertificate(root.child("NewCertificate"), c.Workspace, agent.ID, c.now)
	if no != nil {
		return answer{}, no
	}
	if bytes.Equal(cert.RawSubjectPublicKeyInfo, c.peer().RawSubjectPublicKeyInfo) {
		return answer{}, refuse(403, "InvalidCertificate", "the new certificate has the key of the old one")
	}
	if err := e.agents.renewed(agent, cert); err != nil {
		return answer{}, refuse(503, "StorageError", "%v", err)
	}
	return answer{status: http.StatusOK}, nil
}

// telemetry takes an agent's report about itself and does not keep it.
func (e *Emulator) telemetry(c *call) (answer, *refusal) {
	for _, check := range []func(*call) *refusal{checkPost, checkUserAgent, checkLanguage, checkDate, checkUTC} {
		if no := check(c); no != nil {
			return answer{}, no
		}
	}
	if _, no := e.registered(c); no != nil {
		return answer{}, no
	}
	value, err := decodeJSON(c.body)
	if err != nil {
		return answer{}, refuse(400, "InvalidRequestBody", "%v", err)
	}
	if _, ok := value.(object); !ok {
		return answer{}, refuse(400, "InvalidRequestBody", "the body is not a JSON object")
	}
	return answer{status: http.StatusOK}, nil
}

func checkPost(c *call) *refusal {
	switch {
	case c.Exchange.Method != http.MethodPost:
		no := refuse(http.StatusMethodNotAllowed, "MethodNotAllowed", "this endpoint takes POST")
		no.header = http.Header{"Allow": {http.MethodPost}}
		return no
	case c.Proto != "HTTP/1.1":
		return refuse(http.StatusHTTPVersionNotSupported, "HTTPVersionNotSupported", "%s is not HTTP/1.1", c.Proto)
	case c.over:
		return refuse(http.StatusRequestEntityTooLarge, "RequestTooLarge", "the body has more than %d bytes", maxBody)
	}
	return nil
}

// literal wants a header to be exactly one of some texts.
func literal(name string, texts ...string) func(*call) *refusal {
	return func(c *call) *refusal {
		value, no := c.header(name)
		if no != nil {
			return no
		}
		if !slices.Contains(texts, value) {
			return refuse(400, "InvalidHeader", "%s is not %q", name, strings.Join(texts, `" or "`))
		}
		return nil
	}
}

// matching wants a header to have a pattern.
func matching(name string, pattern *regexp.Regexp) func(*call) *refusal {
	return func(c *call) *refusal {
		value, no := c.header(name)
		if no != nil {
			return no
		}
		if !pattern.MatchString(value) {
			return refuse(400, "InvalidHeader", "%s is not like %s", name, pattern)
		}
		return nil
	}
}

func checkVersion(c *call) *refusal   { return literal("x-ms-version", "August, 2014")(c) }
func checkLanguage(c *call) *refusal  { return literal("Accept-Language", "en-US")(c) }
func checkUserAgent(c *call) *refusal { return matching("User-Agent", userAgentPattern)(c) }
func checkDate(c *call) *refusal      { return matching("x-ms-Date", datePattern)(c) }

// checkTopologyType takes the type of the Linux agent, an accident of its
// HTTP client, and that of the Windows agent.
func checkTopologyType(c *call) *refusal {
	return literal("Content-Type", "application/x-www-form-urlencoded", "application/xml")(c)
}

func checkContentHash(c *call) *refusal {
	given, no := c.header("x-ms-SHA256_Content")
	if no != nil {
		return no
	}
	if given != contentHash(c.body) {
		return refuse(403, "InvalidContentHash", "x-ms-SHA256_Content is not the hash of the %d bytes received", len(c.body))
	}
	return nil
}

// sentAt reads x-ms-Date, whose shape was checked.
func sentAt(c *call) (time.Time, error) {
	return time.Parse("2006-01-02T15:04:05.000000000-07:00", c.Header.Get("x-ms-Date"))
}

func checkSkew(c *call) *refusal {
	at, err := sentAt(c)
	if err != nil {
		return refuse(400, "InvalidHeader", "x-ms-Date is not a time")
	}
	if ahead := at.Sub(c.now); ahead.Abs() > maxSkew {
		return refuse(403, "ClockSkew", "x-ms-Date is %s from the service's %s; at most %s is allowed",
			ahead.Round(time.Second), c.now.UTC().Format(time.RFC3339), maxSkew)
	}
	return nil
}

func checkUTC(c *call) *refusal {
	if _, err := sentAt(c); err != nil || !strings.HasSuffix(c.Header.Get("x-ms-Date"), "+00:00") {
		return refuse(400, "InvalidHeader", "x-ms-Date is not a time in UTC")
	}
	return nil
}

func checkSignature(c *call) *refusal {
	given, no := c.header("Authorization")
	if no != nil {
		return no
	}
	id, sig, ok := strings.Cut(given, "; ")
	if !ok || id != c.Workspace {
		return refuse(403, "InvalidWorkspaceKey", "Authorization is not the workspace id, a semicolon, one space and a signature")
	}
	if !c.role.workspace.signed(onboardingText(c.Header.Get("x-ms-Date"), c.Header.Get("x-ms-SHA256_Content")), sig) {
		return refuse(403, "InvalidWorkspaceKey", "the signature was made with neither key of workspace %s, or of another date or content hash", c.Workspace)
	}
	return nil
}

// A topology is what the body of an onboarding or a heartbeat says.
type topology struct {
	agent       Agent
	certificate *x509.Certificate
}

func readTopology(c *call) (topology, *refusal) {
	bad := func(format string, args ...any) (topology, *refusal) {
		return topology{}, refuse(400, "InvalidRequestBody", format, args...)
	}
	root, err := parseXML(c.body)
	if err != nil {
		return bad("%v", err)
	}
	if root.name != "AgentTopologyRequest" {
		return bad("the root is %s, not AgentTopologyRequest", root.name)
	}
	if root.child("FullyQualifiedDomainName") != nil {
		return bad("FullyQualifiedDomainName is spelled right, but the protocol spells it FullyQualfiedDomainName")
	}
	if err := root.inOrder([]string{"FullyQualfiedDomainName", "EntityTypeId", "AuthenticationCertificate", "OperatingSystem"}, ""); err != nil {
		return bad("%v", err)
	}
	name, guid := root.child("FullyQualfiedDomainName"), root.child("EntityTypeId")
	if name == nil || len(name.text) > 255 || !hostPattern.MatchString(name.text) {
		return bad("FullyQualfiedDomainName is not a host name")
	}
	if guid == nil || !guidPattern.MatchString(guid.text) {
		return bad("EntityTypeId is not a GUID in lower case without braces")
	}
	cert, no := readCertificate(root.child("AuthenticationCertificate"), c.Workspace, guid.text, c.now)
	if no != nil {
		return topology{}, no
	}
	if peer := c.peer(); peer == nil || !peer.Equal(cert) {
		return topology{}, refuse(403, "InvalidCertificate", "AuthenticationCertificate is not the certificate that the client presented")
	}
	system, no := readSystem(root.child("OperatingSystem"))
	if no != nil {
		return topology{}, no
	}
	return topology{
		agent: Agent{
			Workspace: c.Workspace, ID: guid.text, Computer: name.text, System: system,
			UserAgent: c.UserAgent(), LastSeen: c.now,
		},
		certificate: cert,
	}, nil
}

// readSystem wants OperatingSystem complete or not there at all: with missing
// values the service answers 403.
func readSystem(n *element) (string, *refusal) {
	if n == nil {
		return "", nil
	}
	if err := n.inOrder([]string{
		"InContainer", "InContainerVersion", "IsAKSEnvironment", "K8SVersion",
		"Telemetry", "ProcessorArchitecture", "Name", "Manufacturer", "Version",
	}, "Telemetry"); err != nil {
		return "", refuse(400, "InvalidRequestBody", "%v", err)
	}
	telemetry := n.child("Telemetry")
	if telemetry == nil {
		return "", refuse(403, "IncompleteOperatingSystem", "OperatingSystem has no Telemetry")
	}
	for name, value := range telemetry.attributes {
		known := slices.Contains([]string{"PercentUserTime", "PercentPrivilegedTime", "UsedMemory", "PercentUsedMemory"}, name)
		if _, err := strconv.ParseFloat(value, 64); !known || err != nil {
			return "", refuse(400, "InvalidRequestBody", "attribute %s of Telemetry is unknown or no number", name)
		}
	}
	values := map[string]string{}
	for _, name := range []string{"InContainer", "ProcessorArchitecture", "Name", "Manufacturer", "Version"} {
		child := n.child(name)
		if child == nil || child.text == "" {
			return "", refuse(403, "IncompleteOperatingSystem", "OperatingSystem has no %s; it has to be complete or left out", name)
		}
		values[name] = child.text
	}
	if v := values["InContainer"]; v != "True" && v != "False" {
		return "", refuse(400, "InvalidRequestBody", "InContainer is neither True nor False")
	}
	if !slices.Contains([]string{"x64", "x86", "ARM64"}, values["ProcessorArchitecture"]) {
		return "", refuse(400, "InvalidRequestBody", "ProcessorArchitecture is not x64, x86 or ARM64")
	}
	return values["Name"] + " " + values["Version"], nil
}

// readCertificate decodes an agent's certificate and checks that it is the
// one an agent of this workspace makes.
func readCertificate(n *element, workspace, guid string, now time.Time) (*x509.Certificate, *refusal) {
	bad := func(format string, args ...any) (*x509.Certificate, *refusal) {
		return nil, refuse(403, "InvalidCertificate", format, args...)
	}
	if n == nil {
		return nil, refuse(400, "InvalidRequestBody", "there is no certificate in the body")
	}
	der, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(n.text), ""))
	if err != nil {
		return nil, refuse(400, "InvalidRequestBody", "%s is not base64", n.name)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return bad("%s is not a certificate: %v", n.name, err)
	}
	if err := checkSubject(cert, workspace, guid); err != nil {
		return bad("%v", err)
	}
	if key, ok := cert.PublicKey.(*rsa.PublicKey); !ok || key.N.BitLen() != 2048 {
		return bad("the certificate's key is not RSA with 2048 bits")
	}
	if cert.SignatureAlgorithm != x509.SHA256WithRSA || !bytes.Equal(cert.RawIssuer, cert.RawSubject) ||
		cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature) != nil {
		return bad("the certificate is not signed by itself with SHA-256 and RSA")
	}
	if now.Add(maxSkew).Before(cert.NotBefore) || now.After(cert.NotAfter) || cert.NotAfter.Sub(cert.NotBefore) > 366*24*time.Hour {
		return bad("the certificate runs from %s to %s; it has to hold now and for a year at most",
			cert.NotBefore.Format(time.RFC3339), cert.NotAfter.Format(time.RFC3339))
	}
	return cert, nil
}

// checkSubject wants the four parts in the agent's order: two common names.
func checkSubject(cert *x509.Certificate, workspace, guid string) error {
	want := []struct{ oid, value string }{
		{"2.5.4.3", workspace}, {"2.5.4.3", guid}, {"2.5.4.11", "Linux Monitoring Agent"}, {"2.5.4.10", "Microsoft"},
	}
	wrong := fmt.Errorf("the certificate's subject is not CN=%s, CN=%s, OU=Linux Monitoring Agent, O=Microsoft", workspace, guid)
	if len(cert.Subject.Names) != len(want) {
		return wrong
	}
	for i, part := range cert.Subject.Names {
		if part.Type.String() != want[i].oid || part.Value != want[i].value {
			return wrong
		}
	}
	return nil
}

// topologyAnswer tells the agent where to renew its certificate and whether it
// should, and how often to ask again. It is one line, as agents that search it
// with patterns expect.
func (e *Emulator) topologyAnswer(c *call) answer {
	settings := e.Settings()
	renew := settings.UpdateCertificate && e.agents.renewalDue(c.Workspace, c.Agent)
	body := fmt.Appendf(nil, `<?xml version="1.0" encoding="utf-8"?>`+
		`<LinuxAgentTopologyResponse queryInterval="%s" telemetryReportInterval="PT10M" id="%s" xmlns="%s" `+
		`xmlns:xsd="http://www.w3.org/2001/XMLSchema" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">`+
		`<CertificateUpdateEndpoint updateCertificate="%t">https://%s%s</CertificateUpdateEndpoint>`+
		`<DscConfiguration><Endpoint>https://%[7]s.agentsvc.%[8]s/Accounts/%[7]s/Nodes(AgentId='%[9]s')</Endpoint>`+
		`<NodeConfigurationName>MicrosoftOperationsManagementLinuxConfiguration.common</NodeConfigurationName></DscConfiguration>`+
		`</LinuxAgentTopologyResponse>`,
		settings.QueryInterval, newGUID(), namespace, renew, c.Host, pathRenewal, c.Workspace, e.domain, c.Agent)
	return answer{
		status: http.StatusOK,
		header: http.Header{"Content-Type": {"application/xml; charset=utf-8"}},
		body:   body,
	}
}

// newGUID makes a random GUID (RFC 9562, version 4).
func newGUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
