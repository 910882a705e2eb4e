package emulator

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Configuration is what a workspace pushes to its agents.
type Configuration struct {
	Workspace string `json:"workspace"`
	// Name is what agents get it by; empty sets the name of the topology answer.
	Name string `json:"name"`
	// Document is MOF text. An empty one is none: agents are told that they
	// have what they should have.
	Document string `json:"document"`
	// Checksum, when set, is announced in the place of the right one.
	Checksum string `json:"checksum,omitempty"`
}

func (c Configuration) checksum() string {
	if c.Checksum != "" {
		return c.Checksum
	}
	sum := sha256.Sum256([]byte(c.Document))
	return strings.ToUpper(hex.EncodeToString(sum[:]))
}

// A Report is what an agent made of a configuration, as it told at the end.
type Report struct {
	Time      time.Time `json:"time"`
	Workspace string    `json:"workspace"`
	Agent     string    `json:"agent"`
	Job       string    `json:"job"`
	Node      string    `json:"node"` // the name that the agent began the job with
	// Errors and Status are as sent: JSON within texts.
	Errors []string `json:"errors"`
	Status string   `json:"status"`
}

const (
	defaultConfiguration = "MicrosoftOperationsManagementLinuxConfiguration.common"
	maxConfiguration     = 8 << 20 // bytes of a request to the control API
	keptReports          = 100
	keptJobs             = 1000
)

// configurations is what the workspaces push and what became of it.
type configurations struct {
	mu      sync.Mutex
	list    []Configuration
	jobs    map[string]string // begun: the node's name by agent and job
	reports []Report
}

// SetConfiguration makes a workspace push a configuration, in the place of the
// one before.
func (e *Emulator) SetConfiguration(c Configuration) error {
	c.Workspace = strings.ToLower(c.Workspace)
	if e.workspaces[c.Workspace] == nil {
		return fmt.Errorf("set configuration: there is no workspace %q", c.Workspace)
	}
	if c.Name == "" {
		c.Name = defaultConfiguration
	}
	if !configurationPattern.MatchString(c.Name) {
		return fmt.Errorf("set configuration: name %q has characters beside letters, digits, dots, dashes and underscores", c.Name)
	}
	e.pushed.mu.Lock()
	e.pushed.list = slices.DeleteFunc(e.pushed.list, func(old Configuration) bool { return old.Workspace == c.Workspace })
	e.pushed.list = append(e.pushed.list, c)
	e.pushed.mu.Unlock()
	e.changed.raise()
	return nil
}

// Configurations lists what the workspaces push.
func (e *Emulator) Configurations() []Configuration {
	e.pushed.mu.Lock()
	defer e.pushed.mu.Unlock()
	return append([]Configuration{}, e.pushed.list...)
}

// Reports lists the last reports, the oldest first.
func (e *Emulator) Reports() []Report {
	e.pushed.mu.Lock()
	defer e.pushed.mu.Unlock()
	return append([]Report{}, e.pushed.reports...)
}

// of returns what a workspace pushes; no document is none.
func (s *configurations) of(workspace string) Configuration {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.list {
		if c.Workspace == workspace {
			return c
		}
	}
	return Configuration{}
}

var (
	nodePath             = regexp.MustCompile(`^/Accounts/([0-9a-f-]{36})/Nodes\(AgentId='([0-9a-f-]{36})'\)/(GetDscAction|SendReport|Configurations\(ConfigurationName='([^']*)'\)/ConfigurationContent)$`)
	configurationPattern = regexp.MustCompile(`^[A-Za-z0-9._-]{1,200}$`)
	sha256Pattern        = regexp.MustCompile(`^([0-9a-fA-F]{64})?$`)
)

// configuration is the pull server of desired configurations (MS-DSCPM 2.0, as
// OMSConfig for Linux asks it).
func (e *Emulator) configuration(c *call) (answer, *refusal) {
	for name, want := range map[string]string{
		"ProtocolVersion": "2.0", "Accept": "application/json", "Content-Type": "application/json; charset=utf-8",
	} {
		if no := literal(name, want)(c); no != nil {
			return answer{}, no
		}
	}
	if c.Proto != "HTTP/1.1" {
		return answer{}, refuse(http.StatusHTTPVersionNotSupported, "HTTPVersionNotSupported", "%s is not HTTP/1.1", c.Proto)
	}
	agent, no := e.registered(c)
	if no != nil {
		return answer{}, no
	}
	parts := nodePath.FindStringSubmatch(c.URL.Path)
	if parts == nil {
		return answer{}, refuse(http.StatusNotFound, "UnknownPath", "%s does not serve %q", c.Host, clip(c.URL.Path, 200))
	}
	if parts[1] != c.Workspace || parts[2] != agent.ID {
		return answer{}, refuse(http.StatusForbidden, "OtherNode", "the certificate is of agent %s in workspace %s, and of no other node", agent.ID, c.Workspace)
	}
	method, handle := http.MethodPost, e.dscAction
	switch parts[3] {
	case "GetDscAction":
	case "SendReport":
		handle = e.report
	default:
		method, handle = http.MethodGet, func(c *call) (answer, *refusal) { return e.configurationContent(c, parts[4]) }
	}
	if c.Exchange.Method != method {
		no := refuse(http.StatusMethodNotAllowed, "MethodNotAllowed", "this endpoint takes %s", method)
		no.header = http.Header{"Allow": {method}}
		return answer{}, no
	}
	return handle(c)
}

func jsonAnswer(value any) answer {
	body, err := json.Marshal(value)
	if err != nil {
		panic(err) // texts always marshal
	}
	return answer{status: http.StatusOK, header: http.Header{"Content-Type": {"application/json; charset=utf-8"}}, body: body}
}

// strictly reads the body, which has no other members than value.
func (c *call) strictly(value any) *refusal {
	d := json.NewDecoder(bytes.NewReader(c.body))
	d.DisallowUnknownFields()
	if err := d.Decode(value); err != nil || d.More() {
		return refuse(400, "InvalidRequestBody", "the body is not as the protocol has it: %v", err)
	}
	return nil
}

// dscAction compares what the agent has with what it should have.
func (e *Emulator) dscAction(c *call) (answer, *refusal) {
	var asked struct {
		ClientStatus []struct{ Checksum, ChecksumAlgorithm string }
	}
	if no := c.strictly(&asked); no != nil {
		return answer{}, no
	}
	if len(asked.ClientStatus) != 1 || asked.ClientStatus[0].ChecksumAlgorithm != "SHA-256" || !sha256Pattern.MatchString(asked.ClientStatus[0].Checksum) {
		return answer{}, refuse(400, "InvalidRequestBody", "ClientStatus is not one SHA-256 checksum")
	}
	type detail struct{ ConfigurationName, Status string }
	told := struct {
		NodeStatus string
		Details    []detail
	}{"Ok", []detail{}}
	if now := e.pushed.of(c.Workspace); now.Document != "" {
		if !strings.EqualFold(now.checksum(), asked.ClientStatus[0].Checksum) {
			told.NodeStatus = "GetConfiguration"
		}
		told.Details = append(told.Details, detail{now.Name, told.NodeStatus})
	}
	return jsonAnswer(told), nil
}

// configurationContent gives the document.
func (e *Emulator) configurationContent(c *call, name string) (answer, *refusal) {
	now := e.pushed.of(c.Workspace)
	if now.Document == "" || now.Name != name {
		return answer{}, refuse(http.StatusNotFound, "ConfigurationNotFound", "workspace %s has no configuration %q", c.Workspace, clip(name, 100))
	}
	return answer{
		status: http.StatusOK,
		header: http.Header{"Content-Type": {"application/octet-stream"}, "Checksum": {now.checksum()}, "ChecksumAlgorithm": {"SHA-256"}},
		body:   []byte(now.Document),
	}, nil
}

// report takes the beginning or the end of a job.
func (e *Emulator) report(c *call) (answer, *refusal) {
	var r struct {
		JobId, OperationType, NodeName, IpAddress, ReportFormatVersion, LCMVersion, StartTime, EndTime, ConfigurationVersion string
		Errors, StatusData                                                                                                   []string
	}
	if no := c.strictly(&r); no != nil {
		return answer{}, no
	}
	begins := r.OperationType != ""
	at := r.EndTime
	if begins {
		at = r.StartTime
	}
	_, err := time.Parse(time.RFC3339Nano, at)
	var status map[string]any
	if len(r.StatusData) == 1 {
		err = errors.Join(err, json.Unmarshal([]byte(r.StatusData[0]), &status))
	}
	switch {
	case !guidPattern.MatchString(r.JobId) || r.ReportFormatVersion != "2.0" || r.LCMVersion != "2.0" || r.Errors == nil:
		err = errors.New("JobId, ReportFormatVersion, LCMVersion or Errors is missing or wrong")
	case status["Locale"] == nil:
		err = errors.New("StatusData is not one JSON object in a text, with its Locale")
	case begins && (r.OperationType != "Consistency" || r.NodeName == "" || len(r.IpAddress) > 254):
		err = errors.New("OperationType, NodeName or IpAddress is missing or wrong")
	case !begins && r.ConfigurationVersion != "2.0.0":
		err = errors.New("ConfigurationVersion is not 2.0.0")
	}
	if err != nil {
		return answer{}, refuse(400, "InvalidRequestBody", "%v", err)
	}
	e.pushed.mu.Lock()
	defer e.pushed.mu.Unlock()
	job := c.Agent + " " + r.JobId
	if begins {
		if e.pushed.jobs == nil || len(e.pushed.jobs) >= keptJobs {
			e.pushed.jobs = map[string]string{}
		}
		e.pushed.jobs[job] = r.NodeName
		return answer{status: http.StatusCreated}, nil
	}
	node, begun := e.pushed.jobs[job]
	if !begun {
		return answer{}, refuse(400, "InvalidRequestBody", "job %s ends and was not begun", r.JobId)
	}
	delete(e.pushed.jobs, job)
	e.pushed.reports = append(e.pushed.reports, Report{c.now, c.Workspace, c.Agent, r.JobId, node, r.Errors, r.StatusData[0]})
	if len(e.pushed.reports) > keptReports {
		e.pushed.reports = slices.Delete(e.pushed.reports, 0, 1)
	}
	e.changed.raise()
	return answer{status: http.StatusCreated}, nil
}
