package workspace

import (
	"bytes"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// topologyPath takes onboarding and topology requests.
const topologyPath = "/AgentService.svc/LinuxAgentTopologyRequest"

// Namespaces of the topology request.
const (
	nsProtocol = "http://schemas.microsoft.com/WorkloadMonitoring/HealthServiceProtocol/2014/09/"
	nsInstance = "http://www.w3.org/2001/XMLSchema-instance"
	nsSchema   = "http://www.w3.org/2001/XMLSchema"
)

// A Host is what the workspace is told of this machine.
type Host struct {
	FQDN string // host name, with its domain when that is known
	// OSName is the long name, e.g. "Ubuntu 20.04 (x86_64)". The service
	// refuses an operating system with a missing part: when any of the three
	// is empty it is told of none.
	OSName         string
	OSManufacturer string
	OSVersion      string
	Arch           string // as Go spells it: amd64, arm64, 386
	AgentVersion   string // n.n.n or n.n.n-n
}

// version returns the agent version in the service's form n.n.n-n.
func (h Host) version() string {
	switch {
	case h.AgentVersion == "":
		return "0.0.0-0"
	case strings.Contains(h.AgentVersion, "-"):
		return h.AgentVersion
	}
	return h.AgentVersion + "-0"
}

func (h Host) userAgent() string { return agentName + "/" + h.version() }

// The elements of a topology request, in the order in which they are sent.
type (
	topologyRequest struct {
		XMLName     xml.Name         `xml:"AgentTopologyRequest"`
		Namespace   string           `xml:"xmlns,attr"`
		Instance    string           `xml:"xmlns:xsi,attr"`
		Schema      string           `xml:"xmlns:xsd,attr"`
		FQDN        string           `xml:"FullyQualfiedDomainName"` // sic: the service knows no other spelling
		AgentGUID   string           `xml:"EntityTypeId"`
		Certificate string           `xml:"AuthenticationCertificate"`
		System      *operatingSystem `xml:"OperatingSystem"`
	}
	operatingSystem struct {
		InContainer  string
		Telemetry    struct{}
		Architecture string `xml:"ProcessorArchitecture"`
		Name         string
		Manufacturer string
		Version      string
	}
)

// topologyBody returns the body by which h introduces itself with its
// certificate in DER form.
func topologyBody(h Host, agentGUID string, certificate []byte) ([]byte, error) {
	request := topologyRequest{
		Namespace: nsProtocol, Instance: nsInstance, Schema: nsSchema,
		FQDN: h.FQDN, AgentGUID: agentGUID,
		Certificate: base64.StdEncoding.EncodeToString(certificate),
		System:      h.operatingSystem(),
	}
	body := bytes.NewBufferString("<?xml version=\"1.0\"?>\n")
	if err := xml.NewEncoder(body).Encode(request); err != nil {
		return nil, fmt.Errorf("write topology request: %w", err)
	}
	return body.Bytes(), nil
}

func (h Host) operatingSystem() *operatingSystem {
	if h.OSName == "" || h.OSManufacturer == "" || h.OSVersion == "" {
		return nil
	}
	version := h.OSVersion
	if !strings.Contains(version, ".") {
		version += ".0"
	}
	// The earlier agent says x64 on every 64-bit machine; what the service
	// makes of other words is not known.
	architecture := "x64"
	if h.Arch == "386" {
		architecture = "x86"
	}
	return &operatingSystem{
		InContainer: "False", Architecture: architecture,
		Name: h.OSName, Manufacturer: h.OSManufacturer, Version: version,
	}
}

// signTopology makes the headers of a topology request; with a key they are
// those of onboarding, without one the client certificate alone speaks.
func signTopology(header http.Header, h Host, workspaceID string, key []byte, now time.Time, body []byte) {
	date := OnboardingDate(now)
	header.Set("x-ms-Date", date)
	header.Set("User-Agent", h.userAgent())
	header.Set("Accept-Language", "en-US")
	header.Set("Content-Type", "application/x-www-form-urlencoded") // what the service has always been sent
	if key == nil {
		return
	}
	hash := ContentHash(body)
	header.Set("x-ms-version", "August, 2014")
	header.Set("x-ms-SHA256_Content", hash)
	header.Set("Authorization", OnboardingAuthorization(workspaceID, key, date, hash))
}

// A topology is what the service answers to a topology request. What it left
// out is empty.
type topology struct {
	QueryInterval      time.Duration
	CertificateUpdate  string // URL that takes a new certificate
	UpdateCertificate  bool   // the service wants one now
	DSC                string // URL of the desired configuration
	NodeConfiguration  string
	missing, malformed []string // names of the parts
}

// parseTopology reads the answer to a topology request. An error means that
// it is no such answer; missing parts are no error.
func parseTopology(body []byte) (topology, error) {
	var answer struct {
		XMLName       xml.Name
		QueryInterval string `xml:"queryInterval,attr"`
		Update        struct {
			Endpoint string `xml:",chardata"`
			Now      string `xml:"updateCertificate,attr"`
		} `xml:"CertificateUpdateEndpoint"`
		DSC struct {
			Endpoint string
			Name     string `xml:"NodeConfigurationName"`
		} `xml:"DscConfiguration"`
	}
	if err := xml.Unmarshal(bytes.TrimPrefix(body, []byte("\xef\xbb\xbf")), &answer); err != nil {
		return topology{}, fmt.Errorf("read topology response of %d bytes: not XML", len(body))
	}
	if !strings.HasSuffix(answer.XMLName.Local, "AgentTopologyResponse") {
		return topology{}, fmt.Errorf("read topology response of %d bytes: another document", len(body))
	}
	t := topology{
		UpdateCertificate: strings.EqualFold(strings.TrimSpace(answer.Update.Now), "true"),
		NodeConfiguration: strings.TrimSpace(answer.DSC.Name),
	}
	t.CertificateUpdate = t.endpoint("CertificateUpdateEndpoint", answer.Update.Endpoint)
	t.DSC = t.endpoint("DscConfiguration/Endpoint", answer.DSC.Endpoint)
	if answer.QueryInterval != "" {
		interval, ok := parseDuration(answer.QueryInterval)
		if !ok {
			t.malformed = append(t.malformed, "queryInterval")
		}
		t.QueryInterval = interval
	}
	return t, nil
}

// endpoint returns text when it is an https URL.
func (t *topology) endpoint(part, text string) string {
	text = strings.TrimSpace(text)
	if text == "" {
		t.missing = append(t.missing, part)
		return ""
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
		t.malformed = append(t.malformed, part)
		return ""
	}
	return text
}

// maxDuration keeps what parseDuration returns far from overflow.
const maxDuration = 366 * 24 * time.Hour

// parseDuration reads an ISO 8601 duration of days and smaller parts, such as
// P1DT2H or PT30M, up to a year.
func parseDuration(text string) (time.Duration, bool) {
	rest, ok := strings.CutPrefix(text, "P")
	if !ok {
		return 0, false
	}
	var total, number time.Duration
	digits, parts, timed := 0, 0, false
	units := "D" // that may still follow
	for _, c := range []byte(rest) {
		unit := strings.IndexByte(units, c)
		switch {
		case '0' <= c && c <= '9' && digits < 9:
			number = number*10 + time.Duration(c-'0')
			digits++
		case c == 'T' && digits == 0 && !timed:
			timed, units = true, "HMS"
		case digits > 0 && unit >= 0 && number <= maxDuration/unitOf(c):
			total += number * unitOf(c)
			units = units[unit+1:]
			number, digits = 0, 0
			parts++
		default:
			return 0, false
		}
	}
	return total, parts > 0 && digits == 0 && total <= maxDuration
}

func unitOf(c byte) time.Duration {
	switch c {
	case 'D':
		return 24 * time.Hour
	case 'H':
		return time.Hour
	case 'M':
		return time.Minute
	}
	return time.Second
}
