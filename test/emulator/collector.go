package emulator

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Documented limits of custom rows.
const (
	maxColumns     = 500
	maxColumnName  = 45
	maxColumnBytes = 32 << 10 // longer values are cut
)

var (
	collectorTypePattern = regexp.MustCompile(`^[A-Za-z0-9_]{1,100}$`)
	columnPattern        = regexp.MustCompile(`^[A-Za-z0-9_]+$`)
	isoTimePattern       = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$`)
)

// collect is the HTTP Data Collector API: rows signed with a workspace key, no
// certificate (Azure Monitor documentation, "HTTP Data Collector API").
func (e *Emulator) collect(c *call) (answer, *refusal) {
	if c.over {
		return answer{}, refuse(http.StatusNotFound, "RequestTooLarge", "the post has more than %d bytes", maxBody)
	}
	for _, check := range []func(*call) *refusal{
		checkPost, checkAPIVersion, checkJSONType, checkLogType, checkSharedKey, checkResourceID,
	} {
		if no := check(c); no != nil {
			return answer{}, no
		}
	}
	items, err := rowsOf(c.body)
	if err != nil {
		return answer{}, refuse(400, "InvalidDataFormat", "%v", err)
	}
	rows, no := customRows(c, items, "tenant", "TimeGenerated", "RawData")
	if no != nil {
		return answer{}, no
	}
	return e.keepRows(c, c.Header.Get("Log-Type")+"_CL", c.body, rows)
}

func checkAPIVersion(c *call) *refusal {
	query, err := url.ParseQuery(c.URL.RawQuery)
	switch {
	case err == nil && query.Get("api-version") == "":
		return refuse(400, "MissingApiVersion", "the query has no api-version")
	case c.URL.RawQuery != apiVersion:
		return refuse(400, "InvalidApiVersion", "the query is not %s", apiVersion)
	}
	return nil
}

func checkJSONType(c *call) *refusal {
	switch c.Header.Get("Content-Type") {
	case "application/json":
		return nil
	case "":
		return refuse(400, "MissingContentType", "Content-Type is missing")
	}
	return refuse(400, "UnsupportedContentType", "Content-Type is not exactly application/json, which the signature covers")
}

func checkLogType(c *call) *refusal {
	logType := c.Header.Get("Log-Type")
	if logType == "" {
		return refuse(400, "MissingLogType", "Log-Type is missing")
	}
	if !collectorTypePattern.MatchString(logType) {
		return refuse(400, "InvalidLogType", "Log-Type is not 1 to 100 letters, digits or underscores")
	}
	return nil
}

func checkSharedKey(c *call) *refusal {
	bad := func(format string, args ...any) *refusal {
		return refuse(403, "InvalidAuthorization", format, args...)
	}
	date := c.Header.Get("x-ms-date")
	at, err := http.ParseTime(date)
	if err != nil || !strings.HasSuffix(date, " GMT") {
		return bad("x-ms-date is not a date like Mon, 04 Apr 2016 08:00:00 GMT")
	}
	if ahead := at.Sub(c.now); ahead.Abs() > maxSkew {
		return bad("x-ms-date is %s from the service's %s; at most %s is allowed", ahead.Round(time.Second), c.now.UTC().Format(time.RFC3339), maxSkew)
	}
	credential, ok := strings.CutPrefix(c.Header.Get("Authorization"), "SharedKey ")
	id, sig, found := strings.Cut(credential, ":")
	switch {
	case !ok || !found:
		return bad("Authorization is not SharedKey, one space, the workspace id, a colon and a signature")
	case !anyGUID.MatchString(id):
		return refuse(400, "InvalidCustomerId", "the workspace id in Authorization is not a GUID")
	case id != c.Workspace:
		return bad("Authorization names another workspace")
	case !c.role.workspace.signed(collectorText(len(c.body), date), sig):
		return bad("the signature was made with neither key of workspace %s, or of another length (%d bytes were received) or date", id, len(c.body))
	}
	return nil
}

// rowsOf takes an array of rows or a single one.
func rowsOf(body []byte) ([]any, error) {
	value, err := decodeJSON(body)
	if err != nil {
		return nil, err
	}
	switch v := value.(type) {
	case []any:
		if len(v) > 0 {
			return v, nil
		}
	case object:
		return []any{v}, nil
	}
	return nil, errors.New("the body is not an array with rows")
}

// customRows turns flat objects into rows: columns get the suffix of their
// type, nulls are left out, nested values become text, and the field that
// time-generated-field names fills TimeGenerated.
func customRows(c *call, items []any, reserved ...string) ([]row, *refusal) {
	timeField := c.Header.Get("time-generated-field")
	rows := make([]row, 0, len(items))
	for i, item := range items {
		bad := func(format string, args ...any) ([]row, *refusal) {
			return nil, refuse(400, "InvalidDataFormat", "row %d: %s", i, fmt.Sprintf(format, args...))
		}
		members, ok := item.(object)
		if !ok {
			return bad("is not an object")
		}
		if len(members) > maxColumns {
			return bad("has more than %d columns", maxColumns)
		}
		out := row{}
		for name, value := range members {
			if len(name) > maxColumnName || !columnPattern.MatchString(name) {
				return bad("column %q is not 1 to %d letters, digits or underscores", clip(name, 64), maxColumnName)
			}
			if slices.ContainsFunc(reserved, func(word string) bool { return strings.EqualFold(word, name) }) {
				return bad("column name %q is reserved", name)
			}
			if value == nil {
				continue
			}
			column, shown := customColumn(c, i, name, value)
			out[column] = shown
		}
		at, problem := generated(c, i, members, timeField)
		if problem != "" {
			return bad("%s", problem)
		}
		out["TimeGenerated"] = showTime(at)
		rows = append(rows, out)
	}
	return rows, nil
}

// customColumn names and shows one value as the service does. Computer and
// RawData are columns of every custom table and keep their names.
func customColumn(c *call, i int, name string, value any) (string, any) {
	suffix := "_s"
	switch v := value.(type) {
	case bool:
		suffix = "_b"
	case json.Number:
		suffix = "_d"
	case string:
		switch {
		case isoTimePattern.MatchString(v):
			suffix = "_t"
		case anyGUID.MatchString(v):
			suffix = "_g"
		}
	default:
		c.note("row %d: column %q is nested and becomes text", i, name)
		text, err := json.Marshal(v)
		if err != nil {
			panic(err) // it was JSON a moment ago
		}
		value = string(text)
	}
	if long, ok := value.(string); ok && len(long) > maxColumnBytes {
		c.note("row %d: column %q has %d bytes, cut at %d", i, name, len(long), maxColumnBytes)
		value = strings.ToValidUTF8(long[:maxColumnBytes], "")
	}
	if name == "Computer" || name == "RawData" {
		return name, value
	}
	return name + suffix, value
}

// generated is the row's TimeGenerated: the named field, or the arrival when
// none is named or the time is more than two days old or one ahead.
func generated(c *call, i int, members object, timeField string) (time.Time, string) {
	if timeField == "" {
		return c.now, ""
	}
	s, ok := members[timeField].(string)
	if !ok {
		return time.Time{}, fmt.Sprintf("has no text in %q, which time-generated-field names", clip(timeField, 64))
	}
	at, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{}, fmt.Sprintf("%q is not an ISO 8601 time", timeField)
	}
	if outOfRange(at, c.now) {
		c.note("row %d: %q is out of range, TimeGenerated is the arrival", i, timeField)
		return c.now, ""
	}
	return at, ""
}
