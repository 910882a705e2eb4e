package workspace

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openloganalytics/agent/internal/mof"
)

const (
	configurationName = "MicrosoftOperationsManagementLinuxConfiguration.common"
	nodeBase          = testWorkspace + ".agentsvc.azure-automation.net/Accounts/" + testWorkspace + "/Nodes(AgentId='" + testAgent + "')"
)

// A pusher answers as a server of configurations does.
type pusher struct {
	action, document, checksum, algorithm string
	status                                int // of every answer; 0 is 200
}

func pushing(document string) *pusher {
	return &pusher{
		action:   `{"odata.metadata":"x","NodeStatus":"GetConfiguration","Details":[{"ConfigurationName":"` + configurationName + `","Status":"GetConfiguration"}]}`,
		document: document, checksum: strings.ToUpper(checksum([]byte(document))), algorithm: "SHA-256",
	}
}

func (p *pusher) answer(w http.ResponseWriter, r *http.Request) {
	if p.status != 0 {
		w.Header().Set("Retry-After", "1800")
		w.WriteHeader(p.status)
		return
	}
	switch {
	case strings.HasSuffix(r.URL.Path, "/GetDscAction"):
		_, _ = io.WriteString(w, p.action)
	case strings.HasSuffix(r.URL.Path, "/ConfigurationContent"):
		w.Header().Set("Checksum", p.checksum)
		w.Header().Set("ChecksumAlgorithm", p.algorithm)
		_, _ = io.WriteString(w, p.document)
	case strings.HasSuffix(r.URL.Path, "/SendReport"):
		w.WriteHeader(http.StatusCreated)
	default:
		healthy(w, r)
	}
}

// saveConfigured makes the client one that knows where configurations are.
func (s *service) saveConfigured() *identity {
	s.t.Helper()
	id := s.saveIdentity()
	r := &registration{
		Thumbprint: id.thumbprint(), Domain: testDomain, OnboardedAt: time.Now().AddDate(0, 0, -7),
		DSC: "https://" + nodeBase, NodeConfiguration: configurationName,
	}
	if err := r.save(s.dir); err != nil {
		s.t.Fatal(err)
	}
	return id
}

// configuring is a client that applies what it is pushed, as apply says.
func (s *service) configuring(apply func(document string) Outcome) *Client {
	c := s.client(func(o *Options) {
		o.Configure = func(_ context.Context, document []byte) Outcome { return apply(string(document)) }
		o.Addresses = func() []string { return []string{"10.0.0.4", "fd00::4"} }
	})
	c.Follow(true)
	return c
}

func TestConfigurationIsPulled(t *testing.T) {
	bubble(t, func(s *service) {
		t := s.t
		id := s.saveConfigured()
		const document = "instance of A { B = 1; };"
		s.answer(pushing(document).answer)
		var applied []string
		c := s.configuring(func(document string) Outcome {
			applied = append(applied, document)
			return Outcome{Unobeyed: []Resource{{ID: "[X]y", Class: "X", Module: "m", ModuleVersion: "1.0", SourceInfo: "::1", Why: "is not known"}}}
		})
		s.run(c)
		if diff := cmp.Diff([]string{document}, applied); diff != "" {
			t.Fatal(diff)
		}
		requests := s.seen(".agentsvc.")
		want := []string{
			"POST " + nodeBase + "/GetDscAction",
			"GET " + nodeBase + "/Configurations(ConfigurationName='" + configurationName + "')/ConfigurationContent",
			"POST " + nodeBase + "/SendReport",
			"POST " + nodeBase + "/SendReport",
		}
		var got []string
		for _, r := range requests {
			got = append(got, r.method+" "+r.url)
			for name, value := range map[string]string{"Protocolversion": "2.0", "Accept": "application/json", "Content-Type": "application/json; charset=utf-8"} {
				if r.header.Get(name) != value {
					t.Errorf("%s: %s is %q", r.url, name, r.header.Get(name))
				}
			}
			if r.proto != "HTTP/1.1" || r.thumbprint != id.thumbprint() {
				t.Errorf("%s: %s with certificate %s", r.url, r.proto, r.thumbprint)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
		if body := string(requests[0].body); body != `{"ClientStatus":[{"Checksum":"","ChecksumAlgorithm":"SHA-256"}]}` {
			t.Errorf("first question is %s", body)
		}
		reportsSay(t, requests[2].body, requests[3].body, "", "is not known")

		// It is kept for the next start, and asked for no more.
		if kept, err := LoadConfiguration(s.dir); string(kept) != document || err != nil {
			t.Errorf("kept %q, %v", kept, err)
		}
		if now := c.Configuration(); now.Checksum != checksum([]byte(document)) || now.Problem != "" || !now.Answered.Equal(time.Now()) {
			t.Errorf("state is %+v", now)
		}
		content := pushing(document)
		content.action = `{"NodeStatus":"OK","Details":[]}`
		s.answer(content.answer)
		time.Sleep(2 * followEvery)
		requests = s.seen(".agentsvc.")[4:]
		if len(requests) == 0 || len(applied) != 1 {
			t.Fatalf("%d more requests, applied %q", len(requests), applied)
		}
		for _, r := range requests {
			if want := `{"ClientStatus":[{"Checksum":"` + checksum([]byte(document)) + `","ChecksumAlgorithm":"SHA-256"}]}`; string(r.body) != want {
				t.Errorf("later question is %s", r.body)
			}
		}
	})
}

// reportsSay looks into the two reports of one configuration.
func reportsSay(t *testing.T, first, second []byte, failure, unobeyed string) {
	t.Helper()
	var start, end struct {
		JobId, OperationType, NodeName, IpAddress, ReportFormatVersion, LCMVersion, StartTime, EndTime, ConfigurationVersion string
		Errors, StatusData                                                                                                   []string
	}
	if err := errors.Join(json.Unmarshal(first, &start), json.Unmarshal(second, &end)); err != nil {
		t.Fatal(err)
	}
	if start.OperationType != "Consistency" || start.NodeName != testHost().FQDN || start.IpAddress != "10.0.0.4;fd00::4" ||
		start.ReportFormatVersion != "2.0" || start.LCMVersion != "2.0" || start.StartTime == "" || len(start.Errors) != 0 {
		t.Errorf("first report is %s", first)
	}
	if end.JobId != start.JobId || len(end.JobId) != 36 || end.ConfigurationVersion != "2.0.0" || end.EndTime == "" || len(end.StatusData) != 1 {
		t.Errorf("second report is %s", second)
	}
	var status struct {
		Locale                     string
		ResourcesNotInDesiredState []struct{ ResourceId, Error string }
	}
	if err := json.Unmarshal([]byte(end.StatusData[0]), &status); err != nil || status.Locale != "en-US" {
		t.Errorf("StatusData is %s: %v", end.StatusData[0], err)
	}
	if unobeyed != "" && (len(status.ResourcesNotInDesiredState) != 1 || status.ResourcesNotInDesiredState[0].Error != unobeyed) {
		t.Errorf("StatusData is %s, want %q in it", end.StatusData[0], unobeyed)
	}
	if failure == "" && len(end.Errors) > 0 || failure != "" && (len(end.Errors) != 1 || !strings.Contains(end.Errors[0], failure)) {
		t.Errorf("Errors are %q, want %q", end.Errors, failure)
	}
}

// A document that cannot be applied is reported and not kept, and the one in
// force stays the one that the server is told of.
func TestConfigurationThatIsNotApplied(t *testing.T) {
	bubble(t, func(s *service) {
		t := s.t
		s.saveConfigured()
		s.answer(pushing("nonsense").answer)
		c := s.client(func(o *Options) {
			o.Configuration = []byte("before")
			o.Configure = func(context.Context, []byte) Outcome { return Outcome{Err: errors.New("makes no sense")} }
			o.Addresses = func() []string { return []string{"10.0.0.4", "fd00::4"} }
		})
		c.Follow(true)
		s.run(c)
		requests := s.seen(".agentsvc.")
		if len(requests) != 4 {
			t.Fatalf("%d requests", len(requests))
		}
		reportsSay(t, requests[2].body, requests[3].body, "makes no sense", "")
		if kept, err := LoadConfiguration(s.dir); kept != nil || err != nil {
			t.Errorf("kept %q, %v", kept, err)
		}
		if now := c.Configuration(); now.Checksum != checksum([]byte("before")) || now.Problem != "makes no sense" {
			t.Errorf("state is %+v", now)
		}
		if !strings.Contains(string(requests[0].body), checksum([]byte("before"))) {
			t.Errorf("question is %s", requests[0].body)
		}
		wantState(t, c, "starting", "") // what is pushed has nothing to do with deliveries
	})
}

func TestConfigurationThatCannotBeHad(t *testing.T) {
	const most = mof.MaxDocument
	for name, tt := range map[string]struct {
		spoil func(p *pusher)
		want  string
	}{
		"gone":         {func(p *pusher) { p.status = 404 }, "answers with status 404"},
		"busy":         {func(p *pusher) { p.status = 503 }, "answers with status 503"},
		"page":         {func(p *pusher) { p.action = "<html>" }, "does not say what to do"},
		"other action": {func(p *pusher) { p.action = `{"NodeStatus":"UpdateMetaConfiguration"}` }, `asks for "UpdateMetaConfiguration"`},
		"hostile name": {func(p *pusher) {
			p.action = `{"NodeStatus":"GetConfiguration","Details":[{"ConfigurationName":"x')/../y"}]}`
		}, "no proper name"},
		"changed":       {func(p *pusher) { p.document += " " }, "does not have the checksum"},
		"no checksum":   {func(p *pusher) { p.checksum = "" }, "does not have the checksum"},
		"other digest":  {func(p *pusher) { p.algorithm = "MD5" }, "without a SHA-256 checksum"},
		"huge":          {func(p *pusher) { p.document = strings.Repeat(" ", most+1) }, "more than 4 MiB"},
		"huge question": {func(p *pusher) { p.action = strings.Repeat(" ", maxAnswer+1) }, "does not say what to do"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(s *service) {
				t := s.t
				s.saveConfigured()
				p := pushing("instance of A { };")
				tt.spoil(p)
				s.answer(p.answer)
				c := s.configuring(func(string) Outcome { t.Error("it was applied"); return Outcome{} })
				s.run(c)
				time.Sleep(time.Minute) // for what is large
				synctest.Wait()
				if now := c.Configuration(); !strings.Contains(now.Problem, tt.want) || now.Checksum != "" || !now.Answered.IsZero() {
					t.Errorf("state is %+v, want %q", now, tt.want)
				}
				wantState(t, c, "starting", "")
				if _, err := os.Stat(filepath.Join(s.dir, configurationFile)); err == nil {
					t.Error("something was kept")
				}
				if n := strings.Count(s.log.String(), "not brought up to date"); n != 1 {
					t.Errorf("logged %d times", n)
				}
			})
		})
	}
}

// A server that is not there is asked less and less, and one that says how long
// to leave it alone is.
func TestConfigurationServerIsLeftAlone(t *testing.T) {
	bubble(t, func(s *service) {
		s.saveConfigured()
		p := pushing("instance of A { };")
		p.status = 503
		s.answer(p.answer)
		s.run(s.configuring(func(string) Outcome { return Outcome{} }))
		time.Sleep(29 * time.Minute)
		if n := len(s.seen(".agentsvc.")); n != 1 {
			t.Errorf("%d requests within the time asked for", n)
		}
		gone := &pusher{status: 404}
		s.answer(gone.answer)
		time.Sleep(24 * time.Hour)
		if n := len(s.seen(".agentsvc.")); n > 40 || n < 20 {
			t.Errorf("%d requests in a day without an answer", n)
		}
	})
}

// Nobody is asked who is not wanted to be, and at once who is.
func TestConfigurationIsAskedForWhileFollowed(t *testing.T) {
	bubble(t, func(s *service) {
		s.saveConfigured()
		s.answer(pushing("instance of A { };").answer)
		applied := 0
		c := s.configuring(func(string) Outcome { applied++; return Outcome{} })
		c.Follow(false)
		s.run(c)
		time.Sleep(time.Hour)
		if n := len(s.seen(".agentsvc.")); n > 0 {
			t.Errorf("%d requests that nobody wanted", n)
		}
		c.Follow(true)
		synctest.Wait()
		if applied != 1 {
			t.Errorf("applied %d times: %s", applied, c.Configuration().Problem)
		}
		c.Follow(false)
		before := len(s.seen(".agentsvc."))
		time.Sleep(time.Hour)
		if n := len(s.seen(".agentsvc.")); n != before {
			t.Errorf("%d requests after the end", n-before)
		}
	})
}

// The certificate is shown to servers of Azure's and of the workspace's domain
// only, and for this machine only.
func TestWhereConfigurationsAre(t *testing.T) {
	path := "/Accounts/" + testWorkspace + "/Nodes(AgentId='" + testAgent + "')"
	for address, want := range map[string]bool{
		"https://" + nodeBase: true,
		"https://" + testWorkspace + ".agentsvc." + testDomain + path: true,
		"https://eus-agentservice-prod-1.azure-automation.us" + path:  true,
		"https://x.azure-automation.net" + strings.ToLower(path):      true,
		"":                                     false,
		"http://x.azure-automation.net" + path: false,
		"https://x.azure-automation.net.evil.example" + path:                                  false,
		"https://evil.example" + path:                                                         false,
		"https://evil" + testDomain + path:                                                    false,
		"https://azure-automation.net" + path:                                                 false,
		"https://169.254.169.254" + path:                                                      false,
		"https://u:p@x.azure-automation.net" + path:                                           false,
		"https://x.azure-automation.net" + path + "?a=b":                                      false,
		"https://x.azure-automation.net/other" + path:                                         false,
		"https://x.azure-automation.net" + strings.Replace(path, testAgent, testWorkspace, 1): false,
		"https://x.azure-automation.net/Accounts/../Nodes(AgentId='" + testAgent + "')":       false,
	} {
		c := &Client{
			o: Options{Domain: testDomain}, registration: &registration{DSC: address},
			identity: &identity{guid: testAgent},
		}
		n, err := c.node()
		if (err == nil) != want {
			t.Errorf("%s: %+v, %v", address, n, err)
		}
		if err == nil && (!strings.HasPrefix(address, n.account+n.path) || n.host == "") {
			t.Errorf("%s became %+v", address, n)
		}
	}
}

func TestAddressesAreCut(t *testing.T) {
	c := &Client{o: Options{Clock: time.Now, Addresses: func() []string {
		var all []string
		for i := range 100 {
			all = append(all, fmt.Sprintf("10.0.0.%d", i))
		}
		return all
	}}}
	if got := c.newReport("x").addresses; len(got) > maxAddresses || len(got) < maxAddresses-10 || strings.HasSuffix(got, ";") {
		t.Errorf("%d bytes: %s", len(got), got)
	}
}
