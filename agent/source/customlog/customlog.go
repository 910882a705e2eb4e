// Package customlog follows text files line by line into a custom table: one
// row per line, with the line as it is in RawData.
package customlog

import (
	"context"
	"time"

	"github.com/openloganalytics/agent/agent/record"
	"github.com/openloganalytics/agent/agent/source"
	"github.com/openloganalytics/agent/agent/source/tail"
	"github.com/openloganalytics/agent/internal/logfile"
)

// Options say what to collect.
type Options struct {
	Table *record.Table // see Table
	// Patterns are absolute paths with * ? [] {} **.
	Patterns []string
	// FromStart reads files that are there when a pattern is first used from
	// their beginning, not from their end.
	FromStart bool
	Computer  string   // the Computer column
	Deny      []string // folders that are never read: the agent's state
	Log       *logfile.Logger
}

// A Source is one custom log.
type Source struct {
	follow  tail.Options
	members []byte // of every row: Timestamp, then Computer and FilePath
	fixed   []byte // the Computer member
	fields  [2]record.Field
}

// New returns the source of one custom log.
func New(o Options) (*Source, error) {
	if err := tail.CheckPatterns(o.Patterns); err != nil {
		return nil, err
	}
	s := &Source{fixed: record.AppendText([]byte(`,"Computer":`), []byte(o.Computer))}
	s.follow = tail.Options{
		Name: "customlog:" + o.Table.Name, Table: o.Table, Patterns: o.Patterns, FromStart: o.FromStart,
		RowBytes: len(`"Timestamp":"2006-01-02T15:04:05.000Z"`) + len(s.fixed) + len(`,"FilePath":""`),
		Deny:     o.Deny, Log: o.Log,
	}
	return s, nil
}

// Name implements source.Source: "customlog:MyApp_CL".
func (s *Source) Name() string { return s.follow.Name }

// Run implements source.Source.
func (s *Source) Run(ctx context.Context, out source.Emitter) error {
	return tail.Follow(ctx, s.follow, out, s.rows)
}

// rows adds a row per line that is not empty. The time is when the block was
// read.
func (s *Source) rows(b *record.Batch, path string, block []byte) {
	m := append(s.members[:0], `"`+timeField+`":`...)
	m = append(record.AppendTime(m, time.Now()), s.fixed...)
	m = append(m, `,"FilePath":`...)
	s.members = record.AppendText(m, []byte(path))
	s.fields[0] = record.Field{Kind: record.Members, Value: s.members}
	s.fields[1] = record.Field{Key: "RawData", Kind: record.Text}
	for len(block) > 0 {
		s.fields[1].Value, block = tail.CutLine(block)
		if len(s.fields[1].Value) > 0 {
			b.Add(s.fields[:])
		}
	}
	s.fields[1].Value = nil // the block is not ours to keep
}
