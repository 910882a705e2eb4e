// Package upload brings sealed batches from the spool to their destinations.
package upload

import (
	"context"
	"time"

	"github.com/openloganalytics/agent/agent/record"
)

// A Destination accepts batches: a workspace, an ingestion endpoint.
type Destination interface {
	// Name identifies the destination and its cursor: "workspace/<id>".
	Name() string
	// Send makes one attempt to deliver one batch and ends within two minutes.
	// It does not retry.
	Send(ctx context.Context, batch Batch) Result
}

// A Batch is one request: Body is the exact bytes to send.
type Batch struct {
	ID    uint64
	Table *record.Table
	Body  []byte // zlib (RFC 1950)
	Rows  int
	Raw   int // bytes before compression
	// Failures counts the consecutive failed attempts of this destination.
	Failures int
}

// An Answer is what became of one attempt.
type Answer int

const (
	// Retry says that the batch stays and the destination is paused with
	// back-off. It is the zero value: what nobody answered is tried again.
	Retry Answer = iota
	// Accepted says that the destination has it: its cursor moves.
	Accepted
	// Refused says that the destination will never take this batch as it is
	// (400); it is bisected to the record at fault, which is set aside.
	Refused
	// TooLarge says that the destination takes the rows, but not so many at
	// once (413).
	TooLarge
	// Hold says that the destination refuses us, not the batch (401, 403, 404):
	// nothing is dropped, the destination is probed every RetryAfter, a quarter
	// of an hour when that is 0.
	Hold
)

// A Result is the answer with what is known about it.
type Result struct {
	Answer Answer
	// RetryAfter is what the server asked for, 0 when it asked for nothing; with
	// Hold it is how often to probe.
	RetryAfter time.Duration
	// Why says in a sentence what was wrong and what to do, for status and
	// log; empty when accepted. It never holds a secret or a record's text.
	Why string
	// Code is the short stable cause behind Why (see workspace.Cause): what
	// enable maps to its exit code. Empty when accepted.
	Code string
	// RequestID is the id that the request was sent with.
	RequestID string
}
