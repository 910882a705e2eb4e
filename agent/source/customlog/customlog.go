// Package customlog follows text files into a custom table. A record is a line,
// or several that begin with one which shows a start, or a JSON object on a line
// of its own.
package customlog

import (
	"context"
	"fmt"
	"strings"
	"time"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/japanese"

	"github.com/openloganalytics/agent/agent/record"
	"github.com/openloganalytics/agent/agent/source"
	"github.com/openloganalytics/agent/agent/source/tail"
	"github.com/openloganalytics/agent/internal/logfile"
)

// Options say what to collect.
type Options struct {
	Table *record.Table // see Table
	// Patterns are absolute paths with * ? [] {} ** and date codes: see
	// ExpandDates.
	Patterns []string
	// Exclude are patterns of paths that are not read though Patterns match.
	Exclude []string
	// FromStart reads files that are there when a pattern is first used from
	// their beginning, not from their end.
	FromStart bool
	// JSON reads each line as an object whose members are columns. What is none
	// becomes RawData as it is.
	JSON bool
	// Start tells where records begin; nil is every line. Not with JSON.
	Start *Start
	// Encoding is how the files are encoded: see Encodings; "" is UTF-8, or
	// UTF-16 where a file shows it.
	Encoding string
	Computer string   // the Computer column
	Deny     []string // folders that are never read: the agent's state
	Log      *logfile.Logger
}

// encodings are those that a file can be in besides UTF-8 and UTF-16.
func encodings() map[string]encoding.Encoding {
	return map[string]encoding.Encoding{
		"utf-8": nil, "iso-8859-1": charmap.ISO8859_1, "windows-1252": charmap.Windows1252, "shift_jis": japanese.ShiftJIS,
	}
}

// Encodings returns the words for encodings.
func Encodings() []string { return []string{"utf-8", "iso-8859-1", "windows-1252", "shift_jis"} }

// A Source is one custom log.
type Source struct {
	follow  tail.Options
	start   *Start
	json    bool
	decoder *encoding.Decoder // nil leaves the bytes as they are

	names   columnNames
	members []byte // of every row: Timestamp, then Computer and FilePath
	fixed   []byte // the Computer member
	fields  []record.Field
}

// New returns the source of one custom log.
func New(o Options) (*Source, error) {
	patterns, err := expand(o.Patterns)
	if err != nil {
		return nil, err
	}
	if err := tail.CheckPatterns(patterns); err != nil {
		return nil, err
	}
	exclude, err := expand(o.Exclude)
	if err != nil {
		return nil, err
	}
	if len(exclude) > 0 {
		if err := tail.CheckPatterns(exclude); err != nil {
			return nil, fmt.Errorf("exclude: %w", err)
		}
	}
	s := &Source{fixed: record.AppendText([]byte(`,"Computer":`), []byte(o.Computer)), start: o.Start, json: o.JSON, names: columnNames{}}
	used, known := encodings()[strings.ToLower(o.Encoding)]
	switch {
	case o.Encoding != "" && !known:
		return nil, fmt.Errorf("find encoding %q: use %s", o.Encoding, strings.Join(Encodings(), ", "))
	case used != nil:
		s.decoder = used.NewDecoder()
	}
	s.follow = tail.Options{
		Name: "customlog:" + o.Table.Name, Table: o.Table, Patterns: patterns, Exclude: exclude, FromStart: o.FromStart,
		RowBytes: len(`"Timestamp":"2006-01-02T15:04:05.000Z"`) + len(s.fixed) + len(`,"FilePath":""`),
		Deny:     o.Deny, Log: o.Log,
	}
	return s, nil
}

func expand(patterns []string) ([]string, error) {
	expanded := make([]string, 0, len(patterns))
	for _, p := range patterns {
		p, err := ExpandDates(p)
		if err != nil {
			return nil, err
		}
		expanded = append(expanded, p)
	}
	return expanded, nil
}

// Name implements source.Source: "customlog:MyApp_CL".
func (s *Source) Name() string { return s.follow.Name }

// Run implements source.Source.
func (s *Source) Run(ctx context.Context, out source.Emitter) error {
	if s.start == nil && !s.json && s.decoder == nil {
		return tail.Follow(ctx, s.follow, out, s.rows)
	}
	f := newFramer(s, out)
	return f.run(ctx, func(ctx context.Context) error { return tail.Follow(ctx, s.follow, f, f.lines) })
}

// rows adds a row per line that is not empty. The time is when the block was
// read.
func (s *Source) rows(b *record.Batch, path string, block []byte) {
	s.begin(path, time.Now())
	for len(block) > 0 {
		var line []byte
		line, block = tail.CutLine(block)
		if len(line) > 0 {
			s.add(b, line)
		}
	}
}

// begin says where the next rows come from and what their time is.
func (s *Source) begin(path string, at time.Time) {
	m := append(s.members[:0], `"`+timeField+`":`...)
	m = append(record.AppendTime(m, at), s.fixed...)
	m = append(m, `,"FilePath":`...)
	s.members = record.AppendText(m, []byte(path))
}

// add adds one row with text in RawData.
func (s *Source) add(b *record.Batch, text []byte) {
	s.fields = append(s.fields[:0], record.Field{Kind: record.Members, Value: s.members}, record.Field{Key: "RawData", Value: text})
	b.Add(s.fields)
}

// addJSON adds one row with the members of the object that line is. It reports
// false when line is none; then it is added as text.
func (s *Source) addJSON(b *record.Batch, path string, line []byte, read time.Time) bool {
	fields, at, ok := s.names.jsonFields(s.fields[:0], line)
	s.fields = fields[:0]
	if !ok {
		s.begin(path, read)
		s.add(b, line)
		return false
	}
	if at.IsZero() {
		at = read
	}
	s.begin(path, at)
	common := s.members
	own := func(name string) bool {
		for i := range fields {
			if fields[i].Key == name {
				return true
			}
		}
		return false
	}
	if own("Computer") || own("FilePath") { // the object's own columns go before ours
		common = record.AppendTime(append(s.members[:0], `"`+timeField+`":`...), at)
		if !own("Computer") {
			common = append(common, s.fixed...)
		}
		if !own("FilePath") {
			common = record.AppendText(append(common, `,"FilePath":`...), []byte(path))
		}
		s.members = common
	}
	fields = append(fields, record.Field{Kind: record.Members, Value: common})
	b.Add(fields)
	s.fields = fields[:0]
	return true
}
