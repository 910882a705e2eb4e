package transform

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"regexp"
	"slices"
	"strings"

	"github.com/openloganalytics/agent/internal/nearest"
)

// A Spec is one entry of a rule's transformations.
type Spec struct {
	Name       string      `json:"name"`
	Header     Processor   `json:"headerProcessor"`
	Processors []Processor `json:"processors,omitempty"`
}

// A Processor is one step.
type Processor struct {
	Processor     string          `json:"processor"`
	Configuration json.RawMessage `json:"configuration,omitempty"`
}

// A Problem says what is wrong with a field of a Spec, and what would be right.
type Problem struct{ Field, Problem, Fix string }

// A Pipeline is a transformation ready for work. It is for one source.
type Pipeline struct {
	header    *header
	first     []stage    // before the sums, if there are any
	aggregate *aggregate // nil when nothing is summed up
	last      []stage    // after them
	schema    []columnType
	open      bool
}

// A stage changes one row, and reports whether the row is kept.
type stage interface {
	apply(ctx context.Context, r *row) bool
}

// maxProcessors bounds the steps of one transformation.
const maxProcessors = 50

// New returns the pipeline that a spec describes, or everything that is wrong
// with it.
func New(spec Spec) (*Pipeline, []Problem) {
	b := &builder{p: &Pipeline{}}
	b.head(spec.Header)
	if len(b.problems) > 0 {
		return nil, b.problems
	}
	if len(spec.Processors) > maxProcessors {
		b.wrong("processors", fmt.Sprintf("has %d entries", len(spec.Processors)), fmt.Sprintf("give at most %d", maxProcessors))
	}
	for i, step := range spec.Processors {
		b.field = fmt.Sprintf("processors[%d]", i)
		b.step(step)
	}
	if len(b.problems) > 0 {
		return nil, b.problems
	}
	return b.p, nil
}

// Header returns the name of the header processor.
func (p *Pipeline) Header() string { return p.header.name }

// Fits returns an error when the rows that come out have columns which the
// standard table of the pipeline's stream has not.
func (p *Pipeline) Fits() error {
	for _, c := range p.schema {
		if !slices.ContainsFunc(p.header.columns, func(have columnType) bool { return have.name == c.name }) {
			return fmt.Errorf("the column %q that comes out is none of the table of %s", c.name, p.header.stream)
		}
	}
	for _, need := range p.header.columns {
		if !slices.ContainsFunc(p.schema, func(have columnType) bool { return have.name == need.name }) && p.header.stream == "Microsoft-Perf" {
			return fmt.Errorf("the column %q is missing that the table of %s needs", need.name, p.header.stream)
		}
	}
	return nil
}

// builder makes a pipeline and follows which columns there are.
type builder struct {
	p        *Pipeline
	field    string
	problems []Problem
}

func (b *builder) wrong(field, problem, fix string) {
	if b.field != "" {
		field = strings.TrimSuffix(b.field+"."+field, ".")
	}
	b.problems = append(b.problems, Problem{field, problem, fix})
}

func (b *builder) head(given Processor) {
	all := headers()
	names := make([]string, 0, len(all))
	for _, h := range all {
		names = append(names, h.name)
		if h.name == given.Processor {
			b.p.header, b.p.schema, b.p.open = h, slices.Clone(h.columns), h.open
		}
	}
	if b.p.header == nil {
		b.wrong("headerProcessor.processor", fmt.Sprintf("%q is no header for the data sources of this system", given.Processor), "give "+strings.Join(names, ", "))
		return
	}
	if c := bytes.TrimSpace(given.Configuration); len(c) > 0 && !bytes.Equal(bytes.Join(bytes.Fields(c), nil), []byte("{}")) {
		b.wrong("headerProcessor.configuration", "is not empty", given.Processor+" takes none: take it out")
	}
}

func (b *builder) step(given Processor) {
	makers := map[string]func(json.RawMessage){
		"filter.Basic": b.filter, "map.Rename": b.rename, "map.Drop": b.drop,
		"parse.JsonPath": b.jsonPath, "parse.XmlPath": b.xmlPath,
		"aggregate.Basic": b.aggregate, "enrich.DNSLookup": b.dnsLookup,
	}
	if given.Processor == "transform.KQL" {
		b.wrong("processor", "transform.KQL runs in the service only", "use the processors "+strings.Join(slices.Sorted(maps.Keys(makers)), ", ")+" here, or put the query into the rule's data flow")
		return
	}
	maker := makers[given.Processor]
	if maker == nil {
		fix := "give one of " + strings.Join(slices.Sorted(maps.Keys(makers)), ", ")
		if near, differs := nearest.Name(given.Processor, slices.Collect(maps.Keys(makers))); near != "" && differs <= 4 {
			fix = "did you mean " + near + "?"
		}
		b.wrong("processor", fmt.Sprintf("%q is no processor", given.Processor), fix)
		return
	}
	maker(given.Configuration)
}

// decode reads a configuration strictly.
func (b *builder) decode(raw json.RawMessage, into any) bool {
	if len(raw) == 0 {
		b.wrong("configuration", "is missing", "give the processor's configuration, an object")
		return false
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	d.UseNumber()
	if err := d.Decode(into); err != nil {
		b.wrong("configuration", "cannot be read: "+strings.TrimPrefix(err.Error(), "json: "), "write it as Azure documents it for this processor")
		return false
	}
	return true
}

func (b *builder) add(s stage) {
	if b.p.aggregate != nil {
		b.p.last = append(b.p.last, s)
		return
	}
	b.p.first = append(b.p.first, s)
}

// column resolves the name of a column that has to be there.
func (b *builder) column(field, name string) (columnType, bool) {
	if real, is := aliases[name]; is && !b.has(name) {
		name = real
	}
	for _, c := range b.p.schema {
		if c.name == name {
			return c, true
		}
	}
	if name == "" {
		b.wrong(field, "is missing", "name a column")
		return columnType{}, false
	}
	if b.p.open {
		return columnType{name, typeDynamic}, true
	}
	names := make([]string, 0, len(b.p.schema))
	for _, c := range b.p.schema {
		names = append(names, c.name)
	}
	fix := "the columns here are " + strings.Join(names, ", ")
	if near, differs := nearest.Name(name, names); near != "" && differs <= len(name)/3 {
		fix = "did you mean " + near + "?"
	}
	b.wrong(field, fmt.Sprintf("%q is no column here", name), fix)
	return columnType{}, false
}

func (b *builder) has(name string) bool {
	return slices.ContainsFunc(b.p.schema, func(c columnType) bool { return c.name == name })
}

// columnName is how a column of a custom table may be called.
var columnName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]{0,44}$`)

// fresh checks the name of a column that is to come.
func (b *builder) fresh(field, name string) bool {
	switch {
	case !columnName.MatchString(name):
		b.wrong(field, fmt.Sprintf("%.60q is no name for a column", name), "begin with a letter and use letters, digits and underscores, 45 at most")
	case b.has(name) || aliases[name] != "":
		b.wrong(field, fmt.Sprintf("%q is a column already", name), "give another name")
	default:
		return true
	}
	return false
}

func (b *builder) kind(field, kind string) bool {
	if kind == "" || slices.Contains(castable, kind) {
		return true
	}
	b.wrong(field, fmt.Sprintf("%q is no type", kind), "give "+strings.Join(castable, ", "))
	return false
}

// run carries a row of the source through the stages before the sums.
func (p *Pipeline) run(ctx context.Context, stages []stage, r *row) bool {
	for _, s := range stages {
		if !s.apply(ctx, r) {
			return false
		}
	}
	return true
}

// Resolver looks up the names of addresses: the system's, unless a test has its
// own.
type Resolver interface {
	LookupAddr(ctx context.Context, addr string) ([]string, error)
}

var _ Resolver = (*net.Resolver)(nil)
