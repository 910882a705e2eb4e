package emulator

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// Kinds of fault.
const (
	// FaultStatus answers with Status instead of taking the request. With
	// Marker or OverRows it does so only for a body that holds the marker, or
	// more rows than that.
	FaultStatus = "status"
	// FaultSlow waits Delay and then takes the request.
	FaultSlow = "slow"
	// FaultStall never answers; the client has to give up.
	FaultStall = "stall"
	// FaultReset resets the connection; nothing is kept.
	FaultReset = "reset"
	// FaultLostAnswer takes the request, rows and all, and resets the
	// connection without an answer: whoever sends it again makes duplicates.
	FaultLostAnswer = "lost-answer"
	// FaultCut takes the request and closes the connection after the first
	// Bytes bytes of the answer (0: half of it).
	FaultCut = "cut"
	// FaultCertificate spoils the TLS handshake of new connections with the
	// certificate that Certificate names.
	FaultCertificate = "certificate"
)

// A Fault is something that goes wrong on request.
type Fault struct {
	ID   int    `json:"id"`
	Kind string `json:"kind"`
	// Workspace limits the fault to one workspace.
	Workspace string `json:"workspace,omitempty"`
	// Endpoint limits the fault to one of onboarding, heartbeat, renewal,
	// telemetry, ods, collector, configuration. Empty is all of these. The fault of the
	// gateway has to name it.
	Endpoint string `json:"endpoint,omitempty"`
	// Times is how many requests it strikes; 0 goes on until it is cleared.
	Times int `json:"times,omitempty"`
	// Status, Reason and RetryAfter make the answer of FaultStatus. RetryAfter
	// is sent as it is, so that it can be nonsense.
	Status     int    `json:"status,omitempty"`
	Reason     string `json:"reason,omitempty"`
	RetryAfter string `json:"retryAfter,omitempty"`
	Marker     string `json:"marker,omitempty"`
	OverRows   int    `json:"overRows,omitempty"`

	Delay Duration `json:"delay,omitzero"`
	Bytes int      `json:"bytes,omitempty"`
	// Certificate is expired, wrong-host, untrusted or none (no handshake).
	Certificate string `json:"certificate,omitempty"`
	// Struck counts the requests it has struck.
	Struck int `json:"struck"`
}

// Active reports whether the fault will strike again.
func (f Fault) Active() bool { return f.Times == 0 || f.Struck < f.Times }

// check says what is wrong with a fault that somebody orders.
func (f Fault) check() error {
	switch {
	case !slices.Contains([]string{
		FaultStatus, FaultSlow, FaultStall, FaultReset, FaultLostAnswer, FaultCut, FaultCertificate,
	}, f.Kind):
		return fmt.Errorf("add fault: kind %q is not known", f.Kind)
	case f.Endpoint != "" && !slices.Contains([]string{
		endpointOnboarding, endpointHeartbeat, endpointRenewal, endpointTelemetry, endpointODS, endpointCollector, endpointGateway,
		endpointConfiguration,
	}, f.Endpoint):
		return fmt.Errorf("add fault: endpoint %q is not known", f.Endpoint)
	case f.Kind == FaultStatus && (f.Status < 300 || f.Status > 599):
		return fmt.Errorf("add fault: status %d is not one of 300 to 599", f.Status)
	case f.Kind == FaultSlow && f.Delay <= 0:
		return fmt.Errorf("add fault: a slow fault needs a delay")
	case f.Kind == FaultCertificate && !slices.Contains([]string{"expired", "wrong-host", "untrusted", "none"}, f.Certificate):
		return fmt.Errorf("add fault: certificate %q is not one of expired, wrong-host, untrusted, none", f.Certificate)
	case f.Kind == FaultCertificate && f.Endpoint != "":
		return fmt.Errorf("add fault: a certificate fault comes before the request and has no endpoint")
	case f.Endpoint == endpointGateway && f.afterwards():
		return fmt.Errorf("add fault: the gateway knows status, slow, stall and reset")
	case f.Times < 0 || f.Bytes < 0 || f.OverRows < 0:
		return fmt.Errorf("add fault: times, bytes and overRows are not negative")
	}
	return nil
}

// The moments at which faults strike.

func (f Fault) delays() bool      { return f.Kind == FaultSlow }
func (f Fault) atHandshake() bool { return f.Kind == FaultCertificate }
func (f Fault) afterwards() bool  { return f.Kind == FaultLostAnswer || f.Kind == FaultCut }

func (f Fault) beforehand() bool {
	return f.Kind == FaultStall || f.Kind == FaultReset || f.Kind == FaultStatus && f.Marker == "" && f.OverRows == 0
}

// A place is where a request arrived.
type place struct{ workspace, endpoint string }

func (f Fault) covers(p place) bool {
	if f.Workspace != "" && f.Workspace != p.workspace {
		return false
	}
	if f.Endpoint == "" {
		return p.endpoint != endpointGateway
	}
	return f.Endpoint == p.endpoint
}

// keptFaults bounds the list; spent faults go first.
const keptFaults = 100

// faults is the list of all faults ordered.
type faults struct {
	mu   sync.Mutex
	list []Fault
	last int
}

func (s *faults) add(f Fault) Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	f.ID, f.Struck = s.last, 0
	if len(s.list) >= keptFaults {
		s.list = slices.DeleteFunc(s.list, func(f Fault) bool { return !f.Active() })
	}
	s.list = append(s.list, f)
	return f
}

// strike lets the first active fault act that covers p and wants to.
func (s *faults) strike(p place, wants func(Fault) bool) (Fault, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.list {
		if f := &s.list[i]; f.Active() && f.covers(p) && wants(*f) {
			f.Struck++
			return *f, true
		}
	}
	return Fault{}, false
}

// waiting reports whether an active fault wants to act, without striking.
func (s *faults) waiting(wants func(Fault) bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.list, func(f Fault) bool { return f.Active() && wants(f) })
}

func (s *faults) all() []Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Fault{}, s.list...)
}

// clear drops one fault, or all with id 0.
func (s *faults) clear(id int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = slices.DeleteFunc(s.list, func(f Fault) bool { return id == 0 || f.ID == id })
}

// AddFault orders a fault and returns it with its ID.
func (e *Emulator) AddFault(f Fault) (Fault, error) {
	if err := f.check(); err != nil {
		return Fault{}, err
	}
	if f.Workspace != "" && e.workspaces[f.Workspace] == nil {
		return Fault{}, fmt.Errorf("add fault: there is no workspace %q here", f.Workspace)
	}
	f = e.faults.add(f)
	e.changed.raise()
	return f, nil
}

// ClearFaults ends the fault with that ID, or all of them with ID 0.
func (e *Emulator) ClearFaults(id int) {
	e.faults.clear(id)
	e.changed.raise()
}

// Faults lists the faults ordered, the spent ones too, with their counts.
func (e *Emulator) Faults() []Fault { return e.faults.all() }

// Duration is a time.Duration that JSON spells as Go does: "250ms".
type Duration time.Duration

// MarshalText spells the duration.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads a duration as time.ParseDuration does.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("read duration: %w", err)
	}
	*d = Duration(parsed)
	return nil
}
