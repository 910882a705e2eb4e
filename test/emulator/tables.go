package emulator

import (
	"encoding/json"
	"maps"
	"math"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A row is one record as users see it: column to value.
type row = map[string]any

// A dataType is a standard type of the wire and the table it lands in. Fields
// that are not in the list are left out of the row, as the service does.
type dataType struct {
	ipName string // exact, in the type's own spelling
	table  string
	fields []field
	// finish checks what concerns several fields and returns the rows that
	// the item makes; nil is the one row as it is.
	finish func(row) ([]row, string)
}

// A field is one member of an item on the wire.
type field struct {
	wire, column string
	optional     bool
	read         reader
}

// A reader turns a wire value into the column's value, or says what is wrong
// with it, in words that follow the field's name.
type reader func(value any) (column any, problem string)

// dataTypes lists the standard types (OMS agent for Linux, filter plugins and
// oms_common.rb; columns by the Azure Monitor table reference).
func dataTypes() map[string]dataType {
	return map[string]dataType{
		"HEALTH_ASSESSMENT_BLOB": {ipName: "LogManagement", table: "Heartbeat", finish: wholeVersion, fields: []field{
			{wire: "Timestamp", column: "TimeGenerated", read: timestamp},
			{wire: "Computer", column: "Computer", read: text},
			{wire: "OSType", column: "OSType", read: oneOf("Linux", "Windows")},
			{wire: "OSName", column: "OSName", optional: true, read: text},
			{wire: "OSMajorVersion", column: "OSMajorVersion", optional: true, read: text},
			{wire: "OSMinorVersion", column: "OSMinorVersion", optional: true, read: text},
			{wire: "Category", column: "Category", read: agentCategory},
			{wire: "SCAgentChannel", column: "SCAgentChannel", read: oneOf("Direct")},
			{wire: "ComputerPrivateIps", column: "ComputerPrivateIPs", optional: true, read: privateIPs},
			{wire: "InstalledDate", column: "InstalledDate", optional: true, read: text},
			{wire: "Version", column: "Version", read: agentVersion},
		}},
		"LINUX_SYSLOGS_BLOB": {ipName: "LOGMANAGEMENT", table: "Syslog", finish: sameComputer, fields: []field{
			{wire: "Timestamp", column: "TimeGenerated", read: timestamp},
			{wire: "EventTime", column: "EventTime", read: eventTime},
			{wire: "Host", column: "HostName", read: text},
			{wire: "HostIP", column: "HostIP", read: hostIP},
			{wire: "ident", column: "ProcessName", read: anyText},
			{wire: "ProcessId", column: "ProcessID", optional: true, read: processID},
			{wire: "Facility", column: "Facility", read: oneOf("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron",
				"authpriv", "ftp", "ntp", "audit", "alert", "at", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7")},
			{wire: "Severity", column: "SeverityLevel", read: severity},
			{wire: "Message", column: "SyslogMessage", read: anyText},
		}},
		"SECURITY_CEF_BLOB":       securityType(cefColumns),
		"SECURITY_CISCO_ASA_BLOB": securityType(asaColumns),
		"LINUX_PERF_BLOB": {ipName: "LogManagement", table: "Perf", finish: perCounter, fields: []field{
			{wire: "Timestamp", column: "TimeGenerated", read: timestamp},
			{wire: "Host", column: "Computer", read: text},
			{wire: "ObjectName", column: "ObjectName", read: text},
			{wire: "InstanceName", column: "InstanceName", read: anyText},
			{wire: "Collections", column: collections, read: counters},
		}},
		"INSIGHTS_METRICS_BLOB": {ipName: "VMInsights", table: "InsightsMetrics", fields: []field{
			{wire: "CollectionTime", column: "TimeGenerated", read: wholeSecond},
			{wire: "Computer", column: "Computer", read: text},
			{wire: "Origin", column: "Origin", read: oneOf("vm.azm.ms")},
			{wire: "Namespace", column: "Namespace", read: text},
			{wire: "Name", column: "Name", read: text},
			{wire: "Value", column: "Val", read: realNumber},
			{wire: "Tags", column: "Tags", read: insightsTags},
		}},
		"OPERATION_BLOB": {ipName: "LogManagement", table: "Operation", fields: []field{
			{wire: "Timestamp", column: "TimeGenerated", read: timestamp},
			{wire: "Computer", column: "Computer", read: text},
			{wire: "OperationStatus", column: "OperationStatus", read: text},
			{wire: "Detail", column: "Detail", read: text},
			{wire: "Category", column: "OperationCategory", read: text},
			{wire: "Solution", column: "Solution", read: text},
			{wire: "HelpLink", column: "HelpLink", optional: true, read: anyText},
			{wire: "CorrelationId", column: "CorrelationId", optional: true, read: anyText},
			{wire: "ErrorId", column: "ErrorId", optional: true, read: anyText},
		}},
	}
}

// rows reads one item. unknown are the members that no table has; a problem
// names the field first.
func (t dataType) rows(item object) (rows []row, unknown []string, problem string) {
	out := row{}
	used := 0
	for _, f := range t.fields {
		value, ok := item[f.wire]
		if !ok && f.optional {
			continue
		}
		if !ok {
			return nil, nil, f.wire + " is missing"
		}
		used++
		column, problem := f.read(value)
		if problem != "" {
			return nil, nil, f.wire + " " + problem
		}
		out[f.column] = column
	}
	if used < len(item) {
		unknown = t.unknown(item)
	}
	if t.finish == nil {
		return []row{out}, unknown, ""
	}
	rows, problem = t.finish(out)
	return rows, unknown, problem
}

func (t dataType) unknown(item object) []string {
	var names []string
	for name := range item {
		if !slices.ContainsFunc(t.fields, func(f field) bool { return f.wire == name }) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

var (
	timestampPattern = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`)
	secondPattern    = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$`)
	eventTimePattern = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z$`)
	versionPattern   = regexp.MustCompile(`^\d+\.\d+\.\d+-\d+$`)
)

func anyText(value any) (any, string) {
	if _, ok := value.(string); !ok {
		return nil, "is not text"
	}
	return value, ""
}

func text(value any) (any, string) {
	if s, ok := value.(string); !ok || s == "" {
		return nil, "is not text, or empty"
	}
	return value, ""
}

func oneOf(words ...string) reader {
	return func(value any) (any, string) {
		if s, ok := value.(string); !ok || !slices.Contains(words, s) {
			return nil, "is not one of " + strings.Join(words, ", ")
		}
		return value, ""
	}
}

// severity knows the wire's own word for a warning.
func severity(value any) (any, string) {
	if value == "warning" {
		return nil, `is "warning", which the wire spells "warn"`
	}
	return oneOf("emerg", "alert", "crit", "err", "warn", "notice", "info", "debug")(value)
}

func timestamp(value any) (any, string) {
	return when(value, timestampPattern, "is not a time in UTC with three decimals, like 2024-01-02T03:04:05.123Z")
}

func wholeSecond(value any) (any, string) {
	return when(value, secondPattern, "is not a time in UTC of whole seconds, like 2024-01-02T03:04:05Z")
}

func realNumber(value any) (any, string) {
	n, ok := value.(json.Number)
	v, err := strconv.ParseFloat(n.String(), 64)
	if !ok || err != nil || math.IsInf(v, 0) {
		return nil, "is not a number"
	}
	return v, ""
}

// insightsTags reads the JSON object inside a JSON string.
func insightsTags(value any) (any, string) {
	const problem = "is not text that holds a JSON object with names that begin with vm.azm.ms/"
	s, ok := value.(string)
	if !ok {
		return nil, problem
	}
	inner, err := decodeJSON([]byte(s))
	tags, ok := inner.(object)
	if err != nil || !ok {
		return nil, problem
	}
	for name := range tags {
		if !strings.HasPrefix(name, "vm.azm.ms/") {
			return nil, problem
		}
	}
	return s, ""
}

func eventTime(value any) (any, string) {
	return when(value, eventTimePattern, "is not a time in UTC with no or three decimals, like 2024-01-02T03:04:05Z")
}

func when(value any, pattern *regexp.Regexp, problem string) (any, string) {
	s, ok := value.(string)
	if !ok || !pattern.MatchString(s) {
		return nil, problem
	}
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return nil, problem
	}
	return showTime(at), ""
}

// showTime spells a time as the tables do.
func showTime(at time.Time) string { return at.UTC().Format("2006-01-02T15:04:05.000Z") }

func agentVersion(value any) (any, string) {
	if s, ok := value.(string); !ok || !versionPattern.MatchString(s) {
		return nil, "is not a version like 1.19.0-0"
	}
	return value, ""
}

// agentCategory shows the wire's "Agent" as the table does.
func agentCategory(value any) (any, string) {
	if value != "Agent" {
		return nil, "is not Agent"
	}
	return "Direct Agent", ""
}

func hostIP(value any) (any, string) {
	s, ok := value.(string)
	if _, err := netip.ParseAddr(s); !ok || err != nil && s != "Unknown IP" {
		return nil, `is neither an address nor "Unknown IP"`
	}
	return s, ""
}

// processID shows a number where the text is one.
func processID(value any) (any, string) {
	s, ok := value.(string)
	if !ok {
		return nil, "is not text"
	}
	if n, err := strconv.ParseUint(s, 10, 32); err == nil {
		return n, ""
	}
	return s, ""
}

// privateIPs reads a JSON array inside a JSON string.
func privateIPs(value any) (any, string) {
	const problem = "is not text that holds a JSON array of private addresses"
	s, ok := value.(string)
	if !ok {
		return nil, problem
	}
	inner, err := decodeJSON([]byte(s))
	list, ok := inner.([]any)
	if err != nil || !ok {
		return nil, problem
	}
	for _, item := range list {
		s, ok := item.(string)
		if ip, err := netip.ParseAddr(s); !ok || err != nil || !ip.IsPrivate() {
			return nil, problem
		}
	}
	return list, ""
}

// collections holds the samples of a perf row until it is split.
const collections = " collections"

// counters reads the samples of one instance. A value is a number or the text
// of one; agents send both.
func counters(value any) (any, string) {
	list, ok := value.([]any)
	if !ok || len(list) == 0 {
		return nil, "is not an array with samples"
	}
	var samples []row
	for _, item := range list {
		sample, ok := item.(object)
		if !ok || len(sample) != 2 {
			return nil, "holds something that is not {CounterName, Value}"
		}
		name, problem := text(sample["CounterName"])
		if problem != "" {
			return nil, "has a CounterName that " + problem
		}
		var digits string
		switch v := sample["Value"].(type) {
		case string:
			digits = v
		case json.Number:
			digits = v.String()
		}
		number, err := strconv.ParseFloat(digits, 64)
		if err != nil || math.IsNaN(number) || math.IsInf(number, 0) {
			return nil, "has a Value that is not a number"
		}
		samples = append(samples, row{"CounterName": name, "CounterValue": number})
	}
	return samples, ""
}

// perCounter makes one row of each sample.
func perCounter(whole row) ([]row, string) {
	samples, _ := whole[collections].([]row)
	delete(whole, collections)
	for _, sample := range samples {
		maps.Copy(sample, whole)
	}
	return samples, ""
}

// sameComputer fills Computer, which Syslog has besides HostName.
func sameComputer(r row) ([]row, string) {
	r["Computer"] = r["HostName"]
	return []row{r}, ""
}

// wholeVersion wants both parts of the version of the system, or none.
func wholeVersion(r row) ([]row, string) {
	_, major := r["OSMajorVersion"]
	_, minor := r["OSMinorVersion"]
	if major != minor {
		return nil, "OSMajorVersion and OSMinorVersion do not come without each other"
	}
	return []row{r}, ""
}
