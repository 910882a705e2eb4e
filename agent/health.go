package agent

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/openloganalytics/agent/internal/atomicfile"
)

// Words of WorkspaceHealth.State.
const (
	StateStarting    = "starting"
	StateConnected   = "connected"
	StateRejected    = "rejected"    // the workspace refuses us: key or settings
	StateUnreachable = "unreachable" // network, DNS, TLS, proxy, or trouble at the server
)

// Words of SourceHealth.State.
const (
	SourceRunning    = "running"
	SourceRestarting = "restarting"
)

// healthLimit bounds what is read from a folder that the agent can write.
const healthLimit = 1 << 20

// ReadHealth reads the file that the agent writes.
func ReadHealth(path string) (*Health, error) {
	data, err := atomicfile.ReadLimited(path, healthLimit)
	if err != nil {
		return nil, fmt.Errorf("read health: %w", err)
	}
	h := &Health{}
	if err := json.Unmarshal(data, h); err != nil {
		return nil, fmt.Errorf("read health %s: %w", path, err)
	}
	return h, nil
}

// Health is how the agent is doing: written by `run` into its state folder,
// read by enable, the reporter and `status`. Words in State are fixed.
type Health struct {
	Version    string    `json:"version"`
	Generation string    `json:"generation"` // of the Config in force
	PID        int       `json:"pid"`
	Started    time.Time `json:"started"`
	Updated    time.Time `json:"updated"`
	Clean      bool      `json:"clean,omitempty"` // the last words of a clean stop

	Workspaces    []WorkspaceHealth   `json:"workspaces"`
	Configuration ConfigurationHealth `json:"configuration"`
	Sources       []SourceHealth      `json:"sources"`
	Spool         SpoolHealth         `json:"spool"`
	Ledger        LedgerHealth        `json:"ledger"`
	Limits        LimitsHealth        `json:"limits"`
}

// ConfigurationHealth says who chose what is collected.
type ConfigurationHealth struct {
	Origin string `json:"origin"` // OriginSettings, OriginWorkspace or OriginDefault
	// Asked says that a workspace is asked for a configuration of its own;
	// everything below is about that.
	Asked     bool   `json:"asked"`
	Workspace string `json:"workspace,omitempty"` // which
	// Checksum is the SHA-256, in hex, of the document that was taken over last.
	Checksum string    `json:"checksum,omitempty"`
	Answered time.Time `json:"answered,omitzero"` // when the workspace last said what is to be in force
	// Problem says why the workspace's configuration cannot be had or applied.
	// The agent goes on with what it has.
	Problem string `json:"problem,omitempty"`
	// Unobeyed are the parts of the document that have no effect here, with the
	// reason.
	Unobeyed []string `json:"unobeyed,omitempty"`
}

// Sentence says who chose what is collected; "" when that is not known, as of
// an older agent.
func (c *ConfigurationHealth) Sentence() string {
	switch {
	case c.Origin == "":
		return ""
	case c.Origin == OriginWorkspace:
		return fmt.Sprintf("What is collected comes from workspace %s.", c.Workspace)
	case c.Origin == OriginSettings:
		return "What is collected comes from the settings."
	case c.Checksum != "":
		return fmt.Sprintf("The default set is collected: the settings have no dataSources, and workspace %s names none.", c.Workspace)
	case c.Asked:
		return fmt.Sprintf("The default set is collected: the settings have no dataSources, and workspace %s has not pushed any.", c.Workspace)
	}
	return "The default set is collected: the settings have no dataSources."
}

// WorkspaceHealth is one destination.
type WorkspaceHealth struct {
	ID string `json:"id"`
	// State is one of the words above.
	State string `json:"state"`
	// Cause is the short stable word behind State, Message the sentence with
	// evidence and next step. Both empty when connected.
	Cause   string `json:"cause,omitempty"`
	Message string `json:"message,omitempty"`

	LastAccepted time.Time `json:"lastAccepted,omitzero"`
	// CertificateUntil is when the certificate ends that is the credential.
	CertificateUntil time.Time `json:"certificateUntil,omitzero"`
	// What became of the records, since the state folder began.
	Before    int64 `json:"before,omitempty"`  // read before this workspace was first named: not for it
	Delivered int64 `json:"delivered"`         // accepted
	Refused   int64 `json:"refused"`           // set aside
	Damaged   int64 `json:"damaged,omitempty"` // lost on the disk; see spool.DestinationStats for less than 0
	Waiting   int64 `json:"waiting"`           // in the spool

	WaitingBytes int64     `json:"waitingBytes"`
	OldestWait   time.Time `json:"oldestWait,omitzero"`
}

// SourceHealth is one source.
type SourceHealth struct {
	Name     string            `json:"name"`
	Origin   string            `json:"origin,omitempty"` // OriginSettings, OriginWorkspace or OriginDefault
	State    string            `json:"state"`            // one of the words above
	Message  string            `json:"message,omitempty"`
	Read     int64             `json:"read"` // records emitted
	Dropped  int64             `json:"dropped"`
	Filtered int64             `json:"filtered,omitempty"` // by transformations, since the start; not read
	Redacted map[string]int64  `json:"redacted,omitempty"` // secrets by kind, since the start
	Troubles map[string]string `json:"troubles,omitempty"` // thing -> sentence
}

// LimitsHealth is the ceilings and how near they are.
type LimitsHealth struct {
	MemoryMB   int    `json:"memoryMB,omitempty"`   // the ceiling
	UsedMB     int    `json:"usedMB"`               // as of the last garbage collection
	CPUPercent int    `json:"cpuPercent,omitempty"` // the ceiling, of one core
	State      string `json:"state"`                // "ok", or "short" while sources wait for memory
	// Message says what is wrong and what to do when State is not ok.
	Message string `json:"message,omitempty"`
	// Note says which ceilings the agent alone keeps to, and what to do to have
	// the system hold them; empty when the system does.
	Note string `json:"note,omitempty"`
}

// SpoolHealth is the durable queue.
type SpoolHealth struct {
	Bytes  int64  `json:"bytes"`
	Budget int64  `json:"budget"`
	State  string `json:"state"` // "ok", "full", "failing"
	// Message says what is wrong and what to do when State is not ok.
	Message string `json:"message,omitempty"`
	// Beside is what the spools of other versions take of the quota; Budget is
	// what they leave. Note says whose they are and what becomes of them.
	Beside int64  `json:"beside,omitempty"`
	Note   string `json:"note,omitempty"`
}

// LedgerHealth accounts for every record since the state folder began: what
// sources read was emitted into the spool or dropped. Together with what
// became of the emitted records at each workspace that is the whole story; see
// Health.Conserved. All counts of a Health are of one moment.
type LedgerHealth struct {
	Read    int64 `json:"read"`
	Emitted int64 `json:"emitted"`
	Dropped int64 `json:"dropped"`
	// Losses are what was dropped, refused or damaged, the latest first; of
	// more than a hundred kinds the latest hundred.
	Losses []LossHealth `json:"losses,omitempty"`
}

// LossHealth is records of one source, or at one workspace, that were lost for
// one reason.
type LossHealth struct {
	Source  string    `json:"source"` // or "workspace/<id>"
	Reason  string    `json:"reason"`
	Class   string    `json:"class,omitempty"`
	Records int64     `json:"records"` // 0 when it is not known how many
	Bytes   int64     `json:"bytes,omitempty"`
	First   time.Time `json:"first,omitzero"`
	Last    time.Time `json:"last,omitzero"`
}
