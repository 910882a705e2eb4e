// Package source says what a source of records is.
//
// A source reads one kind of telemetry from the machine: a syslog socket, a
// set of files, the performance counters. It hands over its records together
// with its checkpoint, the place where it would go on after them; both become
// durable in one atomic append. So a crash repeats records and loses none.
package source

import (
	"context"
	"time"

	"github.com/openloganalytics/agent/agent/record"
)

// A Source reads one kind of telemetry from the machine.
type Source interface {
	// Name identifies the source in status, logs and the ledger: "syslog",
	// "customlog:MyApp_CL". It is stable across restarts.
	Name() string
	// Run emits records until ctx ends, and returns nil only then. An error
	// means that the source cannot go on; it is started again with back-off.
	// Trouble with one of many files, sockets or counters is no reason to
	// return: the source reports it with Emitter.Trouble and carries on.
	Run(ctx context.Context, out Emitter) error
}

// A Checkpoint is a source's place after the records it is emitted with. Key
// is unique in the whole agent, so it begins with the source's name; Value is
// the source's own. A nil Value forgets the key.
type Checkpoint struct {
	Key   string
	Value []byte
}

// A Loss says that records could not be kept.
type Loss struct {
	Reason  string // why, a short fixed word: "overflow", "truncated-file"
	Class   string // what they were, e.g. a facility or file; may be empty
	Records int64  // 0 when it is not known how many
	Bytes   int64
	First   time.Time // time range of the lost records, as well as it is known
	Last    time.Time
}

// An Emitter takes what one source has read. Its methods are safe for
// concurrent use; the records of one goroutine keep their order.
type Emitter interface {
	// Emit adds rows to the open batch of the table: fill calls Batch.Add once
	// per record, at most MaxEmit bytes of values in one Emit. The rows and at
	// become durable together, soon after Emit returned, in the order of the
	// Emits; a crash before that makes the source start from its previous
	// checkpoint. fill must not block and must not keep the batch.
	//
	// Emit blocks while the spool has no room and returns ctx's error when
	// ctx ends first; then nothing of this Emit was taken. A source that
	// cannot pause (a datagram socket) gives ctx a deadline and tells Lost.
	Emit(ctx context.Context, table *record.Table, fill func(*record.Batch), at ...Checkpoint) error
	// Flush returns once everything emitted before is durable.
	Flush(ctx context.Context) error
	// Checkpoint returns the last durable value for key, nil when there is none.
	Checkpoint(key string) []byte
	// Checkpoints calls yield for each durable key that begins with prefix.
	Checkpoints(prefix string, yield func(key string, value []byte) bool)
	// Lost enters records into the ledger that were read, or that the source
	// knows to have missed, and that will not be emitted. Who has a place behind
	// them emits that right after: both become durable together, so that a crash
	// neither loses the loss nor counts it twice.
	Lost(loss Loss)
	// Trouble sets what is wrong with one thing of the source (a file, an
	// address) in a sentence that says what to do; an empty text clears it.
	Trouble(thing, text string)
}

// MaxEmit is the most that one Emit may add, in bytes of field values; a single
// record alone may have up to 1 MiB.
const MaxEmit = 256 << 10
