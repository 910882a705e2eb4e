// Package heartbeat is the source of the row that says the machine lives.
package heartbeat

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/openloganalytics/agent/agent/record"
	"github.com/openloganalytics/agent/agent/source"
)

// TableName is where the rows land.
const TableName = "Heartbeat"

// Options are what the row says. What is empty is left out of it.
type Options struct {
	Interval       time.Duration // default a minute
	Computer       string        // short host name
	OSType         string        // Linux
	OSName         string        // Ubuntu
	OSMajorVersion string
	OSMinorVersion string
	// PrivateIPs is asked for each row; nil is none.
	PrivateIPs func() []string
	Version    string // of the agent, n.n.n or n.n.n-n
	Installed  time.Time
}

// Heartbeat is the source. It emits one row at its start and then one every
// interval.
type Heartbeat struct {
	o     Options
	table *record.Table
}

// New returns the source.
func New(o Options) *Heartbeat {
	if o.Interval <= 0 {
		o.Interval = time.Minute
	}
	if o.Version != "" && !strings.Contains(o.Version, "-") {
		o.Version += "-0"
	}
	return &Heartbeat{o, &record.Table{Name: TableName, DataType: "HEALTH_ASSESSMENT_BLOB", IPName: "LogManagement"}}
}

// Name implements source.Source.
func (h *Heartbeat) Name() string { return "heartbeat" }

// Run implements source.Source. A row that finds no room in the spool within
// the interval is given up: a late heartbeat says nothing.
func (h *Heartbeat) Run(ctx context.Context, out source.Emitter) error {
	ticker := time.NewTicker(h.o.Interval)
	defer ticker.Stop()
	for {
		now := time.Now()
		emitting, cancel := context.WithTimeout(ctx, h.o.Interval/2)
		err := out.Emit(emitting, h.table, func(b *record.Batch) { b.Add(h.row(now)) })
		late := emitting.Err() != nil
		cancel()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && late:
			out.Lost(source.Loss{Reason: "spool-full", Class: h.table.Name, Records: 1, First: now, Last: now})
		case err != nil:
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// row is the fields of the row, as the OMS agent for Linux sends them
// (HEALTH_ASSESSMENT_BLOB). Of an OS version without a minor part it sends
// neither part.
func (h *Heartbeat) row(now time.Time) []record.Field {
	fields := []record.Field{{Key: "Timestamp", Kind: record.JSON, Value: record.AppendTime(nil, now)}}
	add := func(key, value string) {
		if value != "" {
			fields = append(fields, record.Field{Key: key, Value: []byte(value)})
		}
	}
	add("Computer", h.o.Computer)
	add("OSType", h.o.OSType)
	add("OSName", h.o.OSName)
	if h.o.OSMinorVersion != "" {
		add("OSMajorVersion", h.o.OSMajorVersion)
		add("OSMinorVersion", h.o.OSMinorVersion)
	}
	add("Category", "Agent")
	add("SCAgentChannel", "Direct")
	add("ComputerPrivateIps", h.addresses())
	if !h.o.Installed.IsZero() {
		fields = append(fields, record.Field{Key: "InstalledDate", Kind: record.JSON, Value: record.AppendTime(nil, h.o.Installed)})
	}
	add("Version", h.o.Version)
	return fields
}

// addresses is a JSON array in a text, as the table wants it.
func (h *Heartbeat) addresses() string {
	if h.o.PrivateIPs == nil {
		return ""
	}
	data, err := json.Marshal(append([]string{}, h.o.PrivateIPs()...))
	if err != nil {
		panic("BUG: texts do not marshal: " + err.Error())
	}
	return string(data)
}
