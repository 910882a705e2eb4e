// Package record says what a record is and turns records into request bodies.
//
// A record is one row bound for a table. Sources write rows straight into the
// open Batch of the table; the batch is compressed piece by piece, once, and
// the pieces put one after the other are the exact body of the request that
// delivers them. Nothing is decoded or encoded again later.
package record

import (
	"encoding/json"
	"fmt"
	"time"
)

// A Table is where records land, and how a request for it is dressed. Tables
// are compared by pointer within a process and by Label across restarts.
type Table struct {
	// Name is what a person sees in the workspace: Syslog, MyApp_CL.
	Name string `json:"name"`
	// DataType and IPName head the envelope of a standard table
	// ({"DataType":…,"IPName":…,"DataItems":[…]}). Empty for a custom table,
	// whose body is a bare JSON array.
	DataType string `json:"dataType,omitempty"`
	IPName   string `json:"ipName,omitempty"`
	// LogType is the Log-Type header of a custom table: Name without _CL.
	LogType string `json:"logType,omitempty"`
	// TimeField names the column that fills TimeGenerated, for custom tables.
	TimeField string `json:"timeField,omitempty"`
	// EventTime names a column of a standard table, besides the one that fills
	// TimeGenerated, that says when a row was: see KeepsTime.
	EventTime string `json:"eventTime,omitempty"`
}

// Label returns the table as JSON: what the spool keeps with each batch, so
// that after a restart ParseLabel knows where the batch is bound.
func (t *Table) Label() []byte {
	label, err := json.Marshal(t)
	if err != nil {
		panic("BUG: a table is strings only: " + err.Error())
	}
	return label
}

// ParseLabel returns the table that a label was made of. Fields that this
// version does not know are ignored.
func ParseLabel(label []byte) (*Table, error) {
	t := new(Table)
	if err := json.Unmarshal(label, t); err != nil {
		return nil, fmt.Errorf("parse table label of %d bytes: %w", len(label), err)
	}
	if t.Name == "" {
		return nil, fmt.Errorf("parse table label of %d bytes: no table name", len(label))
	}
	return t, nil
}

// KeepsTime reports whether rows keep their own time when the service replaces
// TimeGenerated: a custom table has a column of its own for every field, a
// standard one only those that it knows.
func (t *Table) KeepsTime() bool { return t.LogType != "" || t.EventTime != "" }

// Late returns the table for rows of a standard table whose time the service
// would replace and t has no other column for: PerfLate_CL for Perf. Its rows
// are the same, and all of their fields become columns.
func (t *Table) Late() *Table {
	return &Table{Name: t.Name + "Late_CL", LogType: t.Name + "Late"}
}

// TimeOf returns the time of a row: that in its field Timestamp, which all
// tables have but InsightsMetrics, where it is CollectionTime.
func TimeOf(row []byte) (at time.Time, ok bool) {
	var r struct{ Timestamp, CollectionTime time.Time }
	if err := json.Unmarshal(row, &r); err != nil {
		return time.Time{}, false
	}
	at = r.Timestamp
	if at.IsZero() {
		at = r.CollectionTime
	}
	return at, !at.IsZero()
}

// head is what stands before the rows in a body for the table.
func (t *Table) head() []byte {
	if t.DataType == "" {
		return []byte("[")
	}
	head := AppendText([]byte(`{"DataType":`), []byte(t.DataType))
	head = AppendText(append(head, `,"IPName":`...), []byte(t.IPName))
	return append(head, `,"DataItems":[`...)
}

// foot is what stands after them.
func (t *Table) foot() []byte {
	if t.DataType == "" {
		return []byte("]")
	}
	return []byte("]}")
}

// Kind says how a field's value is written.
type Kind uint8

const (
	// Text is escaped into a JSON string. Invalid UTF-8 becomes U+FFFD.
	Text Kind = iota
	// JSON is a ready JSON value, written as it is.
	JSON
	// Members is one or more ready members ("A":"b","C":1), written as they
	// are; Key is not used. For what is the same in every row of a source.
	Members
)

// A Field is one column of a row, or several with Kind Members. Key is a
// column name of ASCII letters, digits and underscores.
type Field struct {
	Key   string
	Kind  Kind
	Value []byte
}
