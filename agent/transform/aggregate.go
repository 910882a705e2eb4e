package transform

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/openloganalytics/agent/agent/record"
)

// Bounds of sums. What is summed up and not yet emitted travels with each
// checkpoint of the source, so there may not be too much of it.
const (
	maxWindow = 24 * time.Hour
	maxGroups = 1000
	maxTexts  = 512 << 10 // bytes of the groups' dimensions
)

// aggregate sums rows up over a window of time. A window ends with the clock
// (five minutes: at :00, :05, …), when maxRows rows are in it, or when it has
// more groups than can be kept; the rows then come out, and the next begins.
type aggregate struct {
	window  time.Duration
	maxRows int
	sums    []sum
	by      []string
	version string // of the configuration: sums of another one are not continued

	state aggregateState
	index map[string]int // of groups, by key
	texts int
}

type sum struct {
	From     string `json:"from,omitempty"`
	Operator string `json:"operator"`
	As       string `json:"as"`
}

// aggregateState is a window that has not ended, as a checkpoint holds it.
type aggregateState struct {
	Version string          `json:"version"`
	Start   time.Time       `json:"start"`
	Rows    int             `json:"rows"`
	Sums    []sum           `json:"sums"`
	By      []string        `json:"by"`
	Table   json.RawMessage `json:"table"` // label of where its rows go
	Groups  []group         `json:"groups"`
}

type group struct {
	By     []json.RawMessage `json:"by"`
	Values []aggregated      `json:"values"`
}

type aggregated struct {
	N   int64   `json:"n"`
	Sum float64 `json:"sum,omitempty"`
	Min float64 `json:"min,omitempty"`
	Max float64 `json:"max,omitempty"`
}

func (b *builder) aggregate(raw json.RawMessage) {
	var c struct {
		BatchingSettings struct {
			TimeWindow   string `json:"timeWindow"`
			MaxBatchRows int    `json:"maxBatchRows"`
		} `json:"batchingSettings"`
		Aggregates []struct {
			ColumnName string `json:"columnName"`
			Operator   string `json:"operator"`
			NameAs     string `json:"nameAs"`
		} `json:"aggregates"`
		DimensionColumns []string `json:"dimensionColumns"`
	}
	if !b.decode(raw, &c) {
		return
	}
	if b.p.aggregate != nil {
		b.wrong("processor", "is the second aggregate.Basic", "a transformation has at most one: take one out")
		return
	}
	a := &aggregate{}
	var err error
	if a.window, err = parseWindow(c.BatchingSettings.TimeWindow); err != nil {
		b.wrong("configuration.batchingSettings.timeWindow", fmt.Sprintf("%.40q %v", c.BatchingSettings.TimeWindow, err), `write a span of time such as "30s", "5m" or "1h"`)
	}
	if a.maxRows = c.BatchingSettings.MaxBatchRows; a.maxRows < 1 {
		b.wrong("configuration.batchingSettings.maxBatchRows", "is not above 0", "give the most rows that one window may take")
	}
	schema := []columnType{{timeColumn, typeDatetime}}
	for i, name := range c.DimensionColumns {
		field := fmt.Sprintf("configuration.dimensionColumns[%d]", i)
		column, found := b.column(field, name)
		switch {
		case !found:
		case column.kind != typeString && column.kind != typeDynamic:
			b.wrong(field, fmt.Sprintf("%s is of type %s", name, column.kind), "group by columns of type string only; map.Rename with typeAs makes one")
		case slices.Contains(a.by, column.name):
			b.wrong(field, "is there twice", "name each column once")
		default:
			a.by = append(a.by, column.name)
			schema = append(schema, columnType{column.name, typeString})
		}
	}
	if len(c.Aggregates) == 0 {
		b.wrong("configuration.aggregates", "is empty", "name at least one")
	}
	kept := b.p.schema
	for i, given := range c.Aggregates {
		field := fmt.Sprintf("configuration.aggregates[%d]", i)
		if !slices.Contains([]string{"sum", "avg", "min", "max", "count"}, given.Operator) {
			b.wrong(field+".operator", fmt.Sprintf("%q is no aggregation", given.Operator), "give sum, avg, min, max or count")
			continue
		}
		s := sum{Operator: given.Operator, As: given.NameAs}
		if given.Operator != "count" || given.ColumnName != "" {
			column, found := b.column(field+".columnName", given.ColumnName)
			if found && given.Operator != "count" && !numeric(column.kind) {
				b.wrong(field+".columnName", fmt.Sprintf("%s is of type %s", given.ColumnName, column.kind), "sum up columns of numbers; map.Rename with typeAs makes one")
			}
			s.From = column.name
		}
		b.p.schema = schema
		if b.fresh(field+".nameAs", given.NameAs) {
			schema = append(schema, columnType{given.NameAs, typeReal})
			a.sums = append(a.sums, s)
		}
		b.p.schema = kept
	}
	hash := sha256.Sum256(raw)
	a.version = hex.EncodeToString(hash[:8])
	b.p.schema, b.p.open, b.p.aggregate = schema, false, a
}

// parseWindow reads 30s, 5m, 1h or 1d.
func parseWindow(s string) (time.Duration, error) {
	if days, is := strings.CutSuffix(s, "d"); is {
		if n, err := strconv.Atoi(days); err == nil && n == 1 {
			return 24 * time.Hour, nil
		}
	}
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		return 0, fmt.Errorf("is no span of time")
	case d < time.Second || d > maxWindow:
		return 0, fmt.Errorf("is not within a second and a day")
	}
	return d, nil
}

// ends returns when the open window ends; the zero time when none is open.
func (a *aggregate) ends() time.Time {
	if a.state.Rows == 0 {
		return time.Time{}
	}
	return a.state.Start.Add(a.window)
}

// add sums a row up. It returns false when the window has to end first.
func (a *aggregate) add(r *row, now time.Time) bool {
	if a.state.Rows == 0 {
		a.state = aggregateState{Version: a.version, Start: now.UTC().Truncate(a.window), Sums: a.sums, By: a.by}
		a.index, a.texts = map[string]int{}, 0
	}
	if a.state.Rows >= a.maxRows || !now.Before(a.state.Start.Add(a.window)) {
		return false
	}
	var key []byte
	for _, name := range a.by {
		key = append(append(key, text(r.get(name))...), 0)
	}
	i, known := a.index[string(key)]
	if !known {
		if len(a.state.Groups) >= maxGroups || a.texts+len(key) > maxTexts && len(a.state.Groups) > 0 {
			return false
		}
		i = len(a.state.Groups)
		g := group{Values: make([]aggregated, len(a.sums))}
		for _, name := range a.by {
			value := r.get(name)
			if value != nil && !isText(value) {
				value = record.AppendText(nil, value)
			}
			g.By = append(g.By, slices.Clone(value))
		}
		a.state.Groups = append(a.state.Groups, g)
		a.index[string(key)] = i
		a.texts += len(key)
	}
	a.state.Rows++
	for j, s := range a.sums {
		a.state.Groups[i].Values[j].add(s, r)
	}
	return true
}

func (v *aggregated) add(s sum, r *row) {
	if s.Operator == "count" {
		if s.From == "" || r.get(s.From) != nil {
			v.N++
		}
		return
	}
	n, ok := number(r.get(s.From))
	if !ok {
		return
	}
	if v.N == 0 {
		v.Min, v.Max = n, n
	}
	v.N++
	v.Sum += n
	v.Min, v.Max = min(v.Min, n), max(v.Max, n)
}

// value is what comes out, nil for the sum of nothing.
func (v *aggregated) value(operator string) []byte {
	switch {
	case operator == "count":
		return strconv.AppendInt(nil, v.N, 10)
	case v.N == 0:
		return nil
	}
	n := v.Sum
	switch operator {
	case "avg":
		n /= float64(v.N)
	case "min":
		n = v.Min
	case "max":
		n = v.Max
	}
	if n-n != 0 { // a sum may run over
		return nil
	}
	return appendReal(nil, n)
}

// rows calls yield with each row of the window.
func (s *aggregateState) rows(r *row, yield func()) {
	for _, g := range s.Groups {
		r.clear()
		r.columns = append(r.columns, column{timeColumn, r.make(func(b []byte) []byte { return record.AppendTime(b, s.Start) })})
		for i, name := range s.By {
			r.columns = append(r.columns, column{name, orNil(g.By[i])})
		}
		for i, sum := range s.Sums {
			r.columns = append(r.columns, column{sum.As, g.Values[i].value(sum.Operator)})
		}
		yield()
	}
}

// reset begins without a window.
func (a *aggregate) reset() { a.state, a.index, a.texts = aggregateState{}, nil, 0 }

// save returns the open window, nil when there is none.
func (a *aggregate) save(table *record.Table) []byte {
	if a.state.Rows == 0 {
		return nil
	}
	a.state.Table = table.Label()
	data, err := json.Marshal(&a.state)
	if err != nil {
		panic("BUG: sums are texts and finite numbers: " + err.Error())
	}
	return data
}

// load continues a window that save returned. It returns what cannot be
// continued, because the configuration is another one now.
func (a *aggregate) load(data []byte) (*aggregateState, error) {
	a.reset()
	if len(data) == 0 {
		return nil, nil
	}
	s, err := loadState(data)
	if err != nil {
		return nil, err
	}
	if s.Version != a.version {
		return s, nil
	}
	a.state, a.index = *s, map[string]int{}
	for i, g := range s.Groups {
		var key []byte
		for _, value := range g.By {
			key = append(append(key, text(orNil(value))...), 0)
		}
		a.index[string(key)] = i
		a.texts += len(key)
	}
	return nil, nil
}

func loadState(data []byte) (*aggregateState, error) {
	s := &aggregateState{}
	d := json.NewDecoder(bytes.NewReader(data))
	if err := d.Decode(s); err != nil {
		return nil, fmt.Errorf("read sums: %w", err)
	}
	for _, g := range s.Groups {
		if len(g.By) != len(s.By) || len(g.Values) != len(s.Sums) {
			return nil, fmt.Errorf("read sums: %d dimensions and %d values in a group, want %d and %d", len(g.By), len(g.Values), len(s.By), len(s.Sums))
		}
	}
	return s, nil
}
