package transform

import (
	"slices"
)

// timeColumn is what rules call the time of a row; rows carry it as timeField,
// from which the service fills TimeGenerated.
const (
	timeColumn = "TimeGenerated"
	timeField  = "Timestamp"
)

// A columnType is one column that a processor hands on.
type columnType struct{ name, kind string }

// A header turns the rows that a source writes into rows with the columns that
// Azure documents for its header processor, and back into rows of a table.
type header struct {
	name    string
	columns []columnType
	open    bool // rows have other columns besides
	// fields are the names of columns in the source's rows, where they differ.
	fields map[string]string // by column
	// computed columns are not written into the standard table.
	computed []string
	stream   string // the standard stream; empty when there is none
	table    string // its table
	// read calls yield for each row that the members of one of the source's make.
	read func(members []column, r *row, yield func() error) error
}

// headers lists the header processors of sources on this system.
func headers() []*header {
	return []*header{
		{
			name: "header.Syslog", stream: "Microsoft-Syslog", table: "Syslog", read: readSyslog,
			columns: []columnType{
				{timeColumn, typeDatetime},
				{"Facility", typeString},
				{"SeverityNumber", typeInt},
				{"EventTime", typeDatetime},
				{"HostIP", typeString},
				{"Message", typeString},
				{"ProcessId", typeString},
				{"Severity", typeString},
				{"Host", typeString},
				{"Ident", typeString},
			},
			fields:   map[string]string{timeColumn: timeField, "Ident": "ident"},
			computed: []string{"SeverityNumber"},
		},
		{
			name: "header.LinuxPerformanceCounters", stream: "Microsoft-Perf", table: "Perf", read: readCounters,
			columns: []columnType{
				{timeColumn, typeDatetime},
				{"CounterName", typeString},
				{"ObjectName", typeString},
				{"InstanceName", typeString},
				{"Value", typeReal},
				{"Host", typeString},
			},
			fields: map[string]string{timeColumn: timeField},
		},
		{
			name: "header.TextLog", read: readFlat, open: true,
			columns: []columnType{{timeColumn, typeDatetime}, {"FilePath", typeString}, {"RawData", typeString}, {"Computer", typeString}},
			fields:  map[string]string{timeColumn: timeField},
		},
	}
}

// aliases are other names that Azure's page has for a column.
var aliases = map[string]string{timeField: timeColumn}

// known maps the names of fields to the columns that they are.
func (h *header) known() map[string]string {
	known := map[string]string{}
	for _, c := range h.columns {
		known[c.name] = c.name
	}
	for column, field := range h.fields {
		delete(known, column)
		known[field] = column
	}
	return known
}

func readFlat(members []column, r *row, yield func() error) error {
	r.clear()
	r.columns = append(r.columns, members...)
	return yield()
}

// severityNumbers are the numbers of the words that Severity has.
var severityNumbers = map[string]string{"emerg": "0", "alert": "1", "crit": "2", "err": "3", "warn": "4", "notice": "5", "info": "6", "debug": "7"}

func readSyslog(members []column, r *row, yield func() error) error {
	r.clear()
	r.columns = append(r.columns, members...)
	if n := severityNumbers[string(text(r.get("Severity")))]; n != "" {
		r.set("SeverityNumber", []byte(n))
	}
	return yield()
}

// readCounters makes a row of each counter: the source writes one row for each
// instance, with all of its counters in Collections.
func readCounters(members []column, r *row, yield func() error) error {
	var collections []byte
	for _, m := range members {
		if m.name == collectionsField {
			collections = m.value
		}
	}
	for rest := collections; len(rest) > 1; { // [{…},{…}]
		r.clear()
		for _, m := range members {
			if m.name != collectionsField {
				r.columns = append(r.columns, m)
			}
		}
		var err error
		if r.columns, rest, err = cutRow(r.columns, rest[1:]); err != nil {
			return err
		}
		if err := yield(); err != nil {
			return err
		}
	}
	return nil
}

const collectionsField = "Collections"

// appendRow appends a row, with a comma before it, as it is written into the
// standard table of the stream or into a custom one.
func (h *header) appendRow(dst []byte, r *row, standard bool) []byte {
	if standard && h.stream == "Microsoft-Perf" {
		return appendCounter(dst, r)
	}
	dst = append(dst, ',', '{')
	begin := len(dst)
	for _, c := range r.columns {
		if c.value == nil {
			continue
		}
		name := c.name
		switch {
		case name == timeColumn:
			name = timeField
		case standard && slices.Contains(h.computed, name):
			continue
		case standard && h.fields[name] != "":
			name = h.fields[name]
		}
		dst = appendMember(dst, begin, name, c.value)
	}
	return append(dst, '}')
}

func appendMember(dst []byte, begin int, name string, value []byte) []byte {
	if len(dst) > begin {
		dst = append(dst, ',')
	}
	dst = append(append(dst, '"'), name...)
	return append(append(dst, '"', ':'), value...)
}

// appendCounter appends a row of the table Perf with its one counter.
func appendCounter(dst []byte, r *row) []byte {
	dst = append(dst, ',', '{')
	begin := len(dst)
	for _, name := range []string{timeColumn, "Host", "ObjectName", "InstanceName"} {
		if value := r.get(name); value != nil {
			if name == timeColumn {
				name = timeField
			}
			dst = appendMember(dst, begin, name, value)
		}
	}
	dst = append(appendMember(dst, begin, collectionsField, []byte(`[{`)), `"CounterName":`...)
	dst = append(dst, orText(r.get("CounterName"))...)
	if value := r.get("Value"); value != nil {
		dst = append(append(dst, `,"Value":`...), value...)
	}
	return append(dst, `}]}`...)
}

func orText(value []byte) []byte {
	if value == nil {
		return []byte(`""`)
	}
	return value
}
