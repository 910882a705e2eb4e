package workspace

import (
	"encoding/xml"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const testAgent = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"

func testHost() Host {
	return Host{
		FQDN: "host1.example.test", OSName: "Ubuntu 20.04 (x86_64)", OSManufacturer: "Canonical Group Limited",
		OSVersion: "20.04", Arch: "amd64", AgentVersion: "1.2.3",
	}
}

func TestTopologyBodyGolden(t *testing.T) {
	const head = "<?xml version=\"1.0\"?>\n" +
		`<AgentTopologyRequest xmlns="http://schemas.microsoft.com/WorkloadMonitoring/HealthServiceProtocol/2014/09/"` +
		` xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns:xsd="http://www.w3.org/2001/XMLSchema">`
	const who = `<EntityTypeId>aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee</EntityTypeId>` +
		`<AuthenticationCertificate>QUJD</AuthenticationCertificate>`
	const plain = head + `<FullyQualfiedDomainName>host1.example.test</FullyQualfiedDomainName>` + who
	system := func(architecture, name, version string) string {
		return `<OperatingSystem><InContainer>False</InContainer><Telemetry></Telemetry>` +
			`<ProcessorArchitecture>` + architecture + `</ProcessorArchitecture><Name>` + name + `</Name>` +
			`<Manufacturer>Canonical Group Limited</Manufacturer><Version>` + version + `</Version></OperatingSystem>`
	}
	const end = `</AgentTopologyRequest>`
	tests := []struct {
		name   string
		change func(*Host)
		want   string
	}{
		{"complete", func(*Host) {}, plain + system("x64", "Ubuntu 20.04 (x86_64)", "20.04") + end},
		{"32 bits", func(h *Host) { h.Arch = "386" }, plain + system("x86", "Ubuntu 20.04 (x86_64)", "20.04") + end},
		{"arm", func(h *Host) { h.Arch = "arm64" }, plain + system("x64", "Ubuntu 20.04 (x86_64)", "20.04") + end},
		{"version without a dot", func(h *Host) { h.OSVersion = "12" }, plain + system("x64", "Ubuntu 20.04 (x86_64)", "12.0") + end},
		{"no name", func(h *Host) { h.OSName = "" }, plain + end},
		{"no manufacturer", func(h *Host) { h.OSManufacturer = "" }, plain + end},
		{"no version", func(h *Host) { h.OSVersion = "" }, plain + end},
		{"markup in a name", func(h *Host) { h.FQDN, h.OSName = "a<&>", `"B"` }, head +
			`<FullyQualfiedDomainName>a&lt;&amp;&gt;</FullyQualfiedDomainName>` + who + system("x64", "&#34;B&#34;", "20.04") + end},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			host := testHost()
			tt.change(&host)
			got, err := topologyBody(host, testAgent, []byte("ABC"))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, string(got)); diff != "" {
				t.Errorf("body (-want +got):\n%s", diff)
			}
		})
	}
}

func TestVersionForm(t *testing.T) {
	for version, want := range map[string]string{"": "0.0.0-0", "1.2.3": "1.2.3-0", "1.2.3-4": "1.2.3-4"} {
		if got := (Host{AgentVersion: version}).version(); got != want {
			t.Errorf("version of %q is %q, want %q", version, got, want)
		}
	}
}

const (
	updateURL = "https://" + testWorkspace + ".oms.opinsights.azure.com/ConfigurationService.Svc/RenewCertificate"
	dscURL    = "https://" + testWorkspace + ".agentsvc.azure-automation.net/Accounts/" + testWorkspace + "/Nodes(AgentId='" + testAgent + "')"

	topologyAnswer = `<?xml version="1.0" encoding="utf-8"?>` +
		`<LinuxAgentTopologyResponse queryInterval="PT1H" telemetryReportInterval="PT10M" id="ccccbcbc-0000-4000-8000-000000000001"` +
		` xmlns="http://schemas.microsoft.com/WorkloadMonitoring/HealthServiceProtocol/2014/09/">` +
		`<CertificateUpdateEndpoint updateCertificate="false">` + updateURL + `</CertificateUpdateEndpoint>` +
		`<DscConfiguration><Endpoint>` + dscURL + `</Endpoint>` +
		`<NodeConfigurationName>MicrosoftOperationsManagementLinuxConfiguration.common</NodeConfigurationName></DscConfiguration>` +
		`</LinuxAgentTopologyResponse>`
)

func TestParseTopology(t *testing.T) {
	complete := topology{
		QueryInterval: time.Hour, CertificateUpdate: updateURL, DSC: dscURL,
		NodeConfiguration: "MicrosoftOperationsManagementLinuxConfiguration.common",
	}
	with := func(change func(*topology)) topology {
		t := complete
		change(&t)
		return t
	}
	tests := []struct {
		name    string
		body    string
		want    topology
		wantErr bool
	}{
		{name: "complete", body: topologyAnswer, want: complete},
		{name: "byte-order mark", body: "\ufeff" + topologyAnswer, want: complete},
		{
			name: "renewal wanted", body: strings.Replace(topologyAnswer, `"false"`, `"True"`, 1),
			want: with(func(t *topology) { t.UpdateCertificate = true }),
		},
		{
			name: "no interval", body: strings.Replace(topologyAnswer, ` queryInterval="PT1H"`, "", 1),
			want: with(func(t *topology) { t.QueryInterval = 0 }),
		},
		{
			name: "interval without sense", body: strings.Replace(topologyAnswer, "PT1H", "soon", 1),
			want: with(func(t *topology) { t.QueryInterval, t.malformed = 0, []string{"queryInterval"} }),
		},
		{
			name: "endpoint not https", body: strings.Replace(topologyAnswer, updateURL, "http://evil.example", 1),
			want: with(func(t *topology) {
				t.CertificateUpdate, t.malformed = "", []string{"CertificateUpdateEndpoint"}
			}),
		},
		{
			name: "nothing in it", body: "<LinuxAgentTopologyResponse/>",
			want: topology{missing: []string{"CertificateUpdateEndpoint", "DscConfiguration/Endpoint"}},
		},
		{name: "another document", body: "<html><body/></html>", wantErr: true},
		{name: "cut short", body: topologyAnswer[:200], wantErr: true},
		{name: "empty", body: "", wantErr: true},
		{name: "not XML", body: `{"ok":true}`, wantErr: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseTopology([]byte(tt.body))
			if (err != nil) != tt.wantErr {
				t.Fatalf("error = %v, want error: %v", err, tt.wantErr)
			}
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(topology{}), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("topology (-want +got):\n%s", diff)
			}
		})
	}
}

func FuzzParseTopology(f *testing.F) {
	f.Add([]byte(topologyAnswer))
	f.Add([]byte("<LinuxAgentTopologyResponse queryInterval='P1DT1H1M1S'/>"))
	f.Add([]byte("<a><b></a>"))
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := parseTopology(body)
		if err != nil {
			return
		}
		var any struct{ XMLName xml.Name }
		if xml.Unmarshal(body, &any) != nil && body[0] != 0xef {
			t.Error("accepted what is not XML")
		}
		for _, endpoint := range []string{got.CertificateUpdate, got.DSC} {
			if endpoint != "" && !strings.HasPrefix(strings.ToLower(endpoint), "https://") {
				t.Errorf("endpoint %q is not https", endpoint)
			}
		}
		if got.QueryInterval < 0 || got.QueryInterval > maxDuration {
			t.Errorf("interval %v", got.QueryInterval)
		}
	})
}

func TestParseDuration(t *testing.T) {
	const day = 24 * time.Hour
	tests := []struct {
		text string
		want time.Duration
		ok   bool
	}{
		{"PT1H", time.Hour, true},
		{"PT10M", 10 * time.Minute, true},
		{"PT1H2M3S", time.Hour + 2*time.Minute + 3*time.Second, true},
		{"P7D", 7 * day, true},
		{"P1DT2H", day + 2*time.Hour, true},
		{"PT0S", 0, true},
		{"P", 0, false},
		{"PT", 0, false},
		{"1H", 0, false},
		{"PT1", 0, false},
		{"PTH", 0, false},
		{"P1H", 0, false},
		{"PT1S1H", 0, false},
		{"PT1HT1M", 0, false},
		{"P1M", 0, false},
		{"PT-1H", 0, false},
		{"P400D", 0, false},
		{"P366DT1S", 0, false},
		{"PT999999999H", 0, false},
		{"PT9999999999S", 0, false},
	}
	for _, tt := range tests {
		got, ok := parseDuration(tt.text)
		if ok != tt.ok || ok && got != tt.want {
			t.Errorf("parseDuration(%q) = %v, %v, want %v, %v", tt.text, got, ok, tt.want, tt.ok)
		}
	}
}
