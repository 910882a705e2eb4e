package agent

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/openloganalytics/agent/agent/record"
	"github.com/openloganalytics/agent/agent/source"
	"github.com/openloganalytics/agent/agent/source/heartbeat"
	"github.com/openloganalytics/agent/agent/transform"
	"github.com/openloganalytics/agent/internal/hostinfo"
)

// A DryReport says what would arrive in the workspace.
type DryReport struct {
	Seconds float64     `json:"seconds"` // how long was looked
	Tables  []DryTable  `json:"tables"`  // the largest first
	Sources []DrySource `json:"sources"`
	// Notes are sentences on what the figures leave out.
	Notes []string `json:"notes,omitempty"`
}

// DryTable is what would arrive in one table.
type DryTable struct {
	Table string `json:"table"`
	Rows  int64  `json:"rows"`
	// Billed is the size of the rows as Azure bills them, in bytes: the columns
	// as UTF-8 text, without those that the service adds to every table (Azure
	// Monitor cost calculations, "Data size calculation"). 0 for free tables.
	Billed     int64       `json:"billed"`
	Free       bool        `json:"free,omitempty"`
	RowsPerDay int64       `json:"rowsPerDay"`
	BytesADay  int64       `json:"billedPerDay"`
	Top        []DryTalker `json:"top"` // who made most of it
}

// DryTalker is a program, file or object, with what it made.
type DryTalker struct {
	Name  string `json:"name"`
	Rows  int64  `json:"rows"`
	Bytes int64  `json:"bytes"`
}

// DrySource is one source during the dry run.
type DrySource struct {
	Name     string            `json:"name"`
	Rows     int64             `json:"rows"`
	Filtered int64             `json:"filtered,omitempty"`
	Redacted map[string]int64  `json:"redacted,omitempty"`
	Lost     int64             `json:"lost,omitempty"`
	Troubles map[string]string `json:"troubles,omitempty"`
}

const (
	dryTop     = 5    // talkers that are told of each table
	dryTalkers = 1000 // that are counted apart
	drySlack   = 2 * time.Second
)

// freeTables are those whose rows Azure does not bill.
var freeTables = []string{heartbeat.TableName, operationTable, "Usage", "AzureActivity"}

// DryRun runs the sources that the config asks for, sends and keeps nothing, and
// returns what would arrive. It looks for a duration, or until ctx ends. Files
// are read from their end, wherever an agent that runs has come to; nothing that
// another reader waits for is taken from it. told, which may be nil, is called
// with the number of rows so far.
func DryRun(ctx context.Context, o Options, lasting time.Duration, told func(rows int64)) (*DryReport, error) {
	config, notes := dryConfig(o, lasting)
	o.Config, o.dry = config, true
	fsys := os.DirFS("/")
	machine := &host{name: hostinfo.ShortName(), fqdn: hostinfo.FQDN(fsys)}
	machine.os, _ = hostinfo.ReadOS(fsys) // nothing depends on its name here
	list, err := sources(o, machine)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	looking, stop := context.WithTimeout(ctx, lasting+drySlack) // the last sample of a counter needs a moment
	defer stop()
	m := &meter{tables: map[string]*meteredTable{}, told: told}
	var running sync.WaitGroup
	emitters := make([]*dryEmitter, 0, len(list))
	for _, s := range list {
		e := &dryEmitter{meter: m, source: DrySource{Name: s.Name(), Troubles: map[string]string{}}, checkpoints: map[string][]byte{}}
		emitters = append(emitters, e)
		running.Go(func() { e.run(looking, s) })
	}
	running.Wait()
	r := &DryReport{Seconds: min(time.Since(began), lasting).Seconds(), Notes: notes}
	for i, e := range emitters {
		if t, is := list[i].(*transform.Source); is {
			e.source.Filtered, e.source.Redacted = t.Filtered(), t.Redacted()
		}
		r.Sources = append(r.Sources, e.source)
	}
	r.Tables = m.report(r.Seconds)
	return r, nil
}

// dryConfig is the config for a dry run, and what that leaves out.
func dryConfig(o Options, lasting time.Duration) (*Config, []string) {
	c := o.Config
	dry := *c
	dry.Sources.CustomLogs = slices.Clone(c.Sources.CustomLogs)
	var notes []string
	for i := range dry.Sources.CustomLogs {
		if l := &dry.Sources.CustomLogs[i]; l.FromStart {
			l.FromStart = false
			notes = append(notes, fmt.Sprintf("What the files of %s hold already would be sent once, too.", l.Table))
		}
	}
	for _, c := range c.Sources.Counters {
		if every := time.Duration(c.Interval); every > lasting {
			notes = append(notes, fmt.Sprintf("Counters sampled every %v are left out: look for that long at least.", every))
		}
	}
	if dry.Sources.Syslog != nil {
		notes = append(notes, dryLocalSyslog(&dry, o)...)
	}
	return &dry, notes
}

// A dryEmitter counts what one source emits.
type dryEmitter struct {
	meter *meter

	mu          sync.Mutex
	source      DrySource
	checkpoints map[string][]byte
	scratch     *record.Batch
}

// run runs the source until ctx ends.
func (e *dryEmitter) run(ctx context.Context, s source.Source) {
	defer func() {
		if p := recover(); p != nil {
			e.Trouble("source", fmt.Sprintf("panicked: %v", p))
		}
	}()
	if err := s.Run(ctx, e); err != nil && ctx.Err() == nil {
		e.Trouble("source", err.Error())
	}
}

// Emit implements source.Emitter.
func (e *dryEmitter) Emit(ctx context.Context, table *record.Table, fill func(*record.Batch), at ...source.Checkpoint) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range at {
		e.checkpoints[c.Key] = slices.Clone(c.Value)
	}
	if fill == nil {
		return nil
	}
	if e.scratch == nil || e.scratch.Table() != table {
		e.scratch = record.NewBatch(table, nil)
	}
	fill(e.scratch)
	n, err := e.meter.add(table, e.scratch.Drain())
	e.source.Rows += n
	return err
}

// Flush implements source.Emitter.
func (e *dryEmitter) Flush(context.Context) error { return nil }

// Checkpoint implements source.Emitter. A dry run begins without any.
func (e *dryEmitter) Checkpoint(key string) []byte {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.checkpoints[key]
}

// Checkpoints implements source.Emitter.
func (e *dryEmitter) Checkpoints(prefix string, yield func(string, []byte) bool) {
	e.mu.Lock()
	all := maps.Clone(e.checkpoints)
	e.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if strings.HasPrefix(key, prefix) && !yield(key, all[key]) {
			return
		}
	}
}

// Lost implements source.Emitter.
func (e *dryEmitter) Lost(l source.Loss) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.source.Lost += l.Records
}

// Trouble implements source.Emitter.
func (e *dryEmitter) Trouble(thing, text string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case text == "":
		delete(e.source.Troubles, thing)
	case len(e.source.Troubles) < maxTroubles:
		e.source.Troubles[thing] = shorten(text)
	}
}

// A meter weighs rows by table and by who made them.
type meter struct {
	told func(rows int64)

	mu     sync.Mutex
	rows   int64
	tables map[string]*meteredTable
}

type meteredTable struct {
	rows, bytes int64
	talkers     map[string]*DryTalker
}

// add counts rows, each with a comma before it.
func (m *meter) add(table *record.Table, rows []byte) (n int64, err error) {
	d := json.NewDecoder(bytes.NewReader(append([]byte("[0"), append(rows, ']')...)))
	var list []json.RawMessage
	if err := d.Decode(&list); err != nil {
		return 0, fmt.Errorf("weigh rows of %s: %w", table.Name, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.tables[table.Name]
	if t == nil {
		t = &meteredTable{talkers: map[string]*DryTalker{}}
		m.tables[table.Name] = t
	}
	for _, text := range list[1:] {
		var row map[string]json.RawMessage
		if err := json.Unmarshal(text, &row); err != nil {
			return n, fmt.Errorf("weigh a row of %s: %w", table.Name, err)
		}
		count, size := weigh(row)
		t.rows += count
		t.bytes += size
		n += count
		name := talker(row)
		who := t.talkers[name]
		if who == nil {
			if len(t.talkers) >= dryTalkers {
				name = "others"
			}
			who = cmp.Or(t.talkers[name], &DryTalker{Name: name})
			t.talkers[name] = who
		}
		who.Rows += count
		who.Bytes += size
	}
	m.rows += n
	if m.told != nil {
		m.told(m.rows)
	}
	return n, nil
}

// weigh returns how many rows a record becomes in the workspace, and their size
// as it is billed: every column as text.
func weigh(row map[string]json.RawMessage) (rows, bytes int64) {
	var counters []map[string]json.RawMessage
	if json.Unmarshal(row["Collections"], &counters) != nil || counters == nil {
		return 1, size(row)
	}
	delete(row, "Collections") // each counter is a row of its own
	common := size(row)
	for _, c := range counters {
		rows++
		bytes += common + size(c)
	}
	return rows, bytes
}

func size(row map[string]json.RawMessage) (n int64) {
	for _, value := range row {
		var text string
		if json.Unmarshal(value, &text) == nil {
			n += int64(len(text))
			continue
		}
		n += int64(len(value))
	}
	return n
}

// talker names who made a row: the program of a message, the file of a line, the
// object of a counter.
func talker(row map[string]json.RawMessage) string {
	text := func(name string) (s string) {
		if json.Unmarshal(row[name], &s) != nil {
			return ""
		}
		return s
	}
	switch {
	case row["Facility"] != nil:
		return strings.TrimPrefix(text("Host")+" "+cmp.Or(text("ident"), text("Ident"), text("Facility")), " ")
	case row["ObjectName"] != nil:
		return text("ObjectName")
	}
	return cmp.Or(text("FilePath"), text("Host"), text("Computer"), "-")
}

// report returns the tables, the largest first.
func (m *meter) report(seconds float64) []DryTable {
	m.mu.Lock()
	defer m.mu.Unlock()
	day := func(n int64) int64 { return int64(float64(n) * (24 * time.Hour).Seconds() / max(seconds, 1)) }
	var list []DryTable
	for name, t := range m.tables {
		d := DryTable{Table: name, Rows: t.rows, Billed: t.bytes, RowsPerDay: day(t.rows), Free: slices.Contains(freeTables, name)}
		if d.Free {
			d.Billed = 0
		}
		d.BytesADay = day(d.Billed)
		talkers := slices.SortedFunc(maps.Values(t.talkers), func(a, b *DryTalker) int {
			return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), strings.Compare(a.Name, b.Name))
		})
		for _, who := range talkers[:min(dryTop, len(talkers))] {
			if len(who.Name) > maxTrouble {
				who.Name = shorten(who.Name)
			}
			d.Top = append(d.Top, *who)
		}
		list = append(list, d)
	}
	slices.SortFunc(list, func(a, b DryTable) int {
		return cmp.Or(cmp.Compare(b.BytesADay, a.BytesADay), strings.Compare(a.Table, b.Table))
	})
	return list
}
