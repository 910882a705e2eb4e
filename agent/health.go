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

	Workspaces []WorkspaceHealth `json:"workspaces"`
	Sources    []SourceHealth    `json:"sources"`
	Spool      SpoolHealth       `json:"spool"`
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
	Delivered        int64     `json:"delivered"` // records accepted since the state folder began
	Refused          int64     `json:"refused"`   // records set aside
	Waiting          int64     `json:"waiting"`   // records in the spool
	WaitingBytes     int64     `json:"waitingBytes"`
	OldestWait       time.Time `json:"oldestWait,omitzero"`
}

// SourceHealth is one source.
type SourceHealth struct {
	Name     string            `json:"name"`
	State    string            `json:"state"` // one of the words above
	Message  string            `json:"message,omitempty"`
	Read     int64             `json:"read"` // records emitted
	Dropped  int64             `json:"dropped"`
	Troubles map[string]string `json:"troubles,omitempty"` // thing -> sentence
}

// SpoolHealth is the durable queue.
type SpoolHealth struct {
	Bytes  int64  `json:"bytes"`
	Budget int64  `json:"budget"`
	State  string `json:"state"` // "ok", "full", "failing"
	// Message says what is wrong and what to do when State is not ok.
	Message string `json:"message,omitempty"`
}
