package emulator

import (
	"fmt"
	"sync"
	"time"
)

// An Exchange is one request and its answer. It holds no row's text.
type Exchange struct {
	Seq       int64     `json:"seq"`
	Time      time.Time `json:"time"`
	Workspace string    `json:"workspace,omitempty"`
	Endpoint  string    `json:"endpoint"`
	Method    string    `json:"method,omitempty"`
	Path      string    `json:"path,omitempty"`
	// Status is what was answered, 0 when nothing was.
	Status int `json:"status"`
	// Reason is the service's word for a refusal, Detail the sentence.
	Reason string `json:"reason,omitempty"`
	Detail string `json:"detail,omitempty"`
	// Notes are remarks that were no reason to refuse.
	Notes     []string `json:"notes,omitempty"`
	Agent     string   `json:"agent,omitempty"`
	RequestID string   `json:"requestId,omitempty"`
	Bytes     int      `json:"bytes"`
	Table     string   `json:"table,omitempty"`
	Rows      int      `json:"rows,omitempty"`
	// Fault is the kind of the fault that struck.
	Fault string `json:"fault,omitempty"`
}

// Totals counts exchanges since the emulator was opened.
type Totals struct {
	Accepted int64 `json:"accepted"` // taken by the service, whether or not the answer arrived
	Refused  int64 `json:"refused"`  // refused for a reason of the request's own
	Faulted  int64 `json:"faulted"`  // met a fault
}

// keptExchanges is how many exchanges, and how many refusals, are remembered.
const keptExchanges = 1000

// journal remembers the last exchanges, and the last refusals on their own so
// that traffic does not wash them away.
type journal struct {
	mu      sync.Mutex
	totals  Totals
	seq     int64
	all     []Exchange
	refused []Exchange
}

func (j *journal) add(x Exchange) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.seq++
	x.Seq = j.seq
	j.all = keep(j.all, x)
	if x.Fault != "" {
		j.totals.Faulted++
	}
	switch {
	case x.Status >= 200 && x.Status < 300:
		if x.Endpoint != endpointGateway {
			j.totals.Accepted++
		}
	case x.Reason != "" && x.Fault != FaultStatus:
		j.totals.Refused++
		j.refused = keep(j.refused, x)
	}
}

// keep appends x and forgets the oldest.
func keep(list []Exchange, x Exchange) []Exchange {
	if len(list) >= 2*keptExchanges {
		list = append(list[:0], list[len(list)-keptExchanges:]...)
	}
	return append(list, x)
}

func last(list []Exchange, n int) []Exchange {
	return append([]Exchange{}, list[max(0, len(list)-n):]...)
}

// Requests returns the last exchanges, oldest first, at most 1000.
func (e *Emulator) Requests() []Exchange {
	e.journal.mu.Lock()
	defer e.journal.mu.Unlock()
	return last(e.journal.all, keptExchanges)
}

// Rejections returns the last exchanges that were refused for a reason of
// their own, oldest first, at most 1000. What a fault refused is not here.
func (e *Emulator) Rejections() []Exchange {
	e.journal.mu.Lock()
	defer e.journal.mu.Unlock()
	return last(e.journal.refused, keptExchanges)
}

// Totals counts what has been answered.
func (e *Emulator) Totals() Totals {
	e.journal.mu.Lock()
	defer e.journal.mu.Unlock()
	return e.journal.totals
}

// record enters an exchange into the journal and tells the log unless it is
// plain traffic.
func (e *Emulator) record(x Exchange) {
	if x.Time.IsZero() {
		x.Time = e.now()
	}
	e.journal.add(x)
	e.changed.raise()
	what := x.Endpoint
	if x.RequestID != "" {
		what += " " + x.RequestID
	}
	switch {
	case x.Fault != "":
		e.logf("fault    %s: %s %d %s", what, x.Fault, x.Status, x.Reason)
	case x.Reason != "":
		e.logf("refused  %s: %d %s, %s", what, x.Status, x.Reason, x.Detail)
	case len(x.Notes) > 0:
		e.logf("noted    %s: %s", what, x.Notes[0])
	case x.Table == "" && x.Agent != "":
		e.logf("agent    %s: %s", what, x.Agent)
	}
}

// String is the exchange in one line, for a test that failed.
func (x Exchange) String() string {
	return fmt.Sprintf("%s %s %d %s %s %v", x.Endpoint, x.Path, x.Status, x.Reason, x.Detail, x.Notes)
}
