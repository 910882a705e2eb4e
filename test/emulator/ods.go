package emulator

import (
	"bytes"
	"compress/zlib"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// maxUnpacked is the most that a body may grow to when it is decompressed.
const maxUnpacked = 64 << 20

var (
	clientVersionPattern = versionPattern
	retryCountPattern    = regexp.MustCompile(`^\d{1,9}$`)
	resourceIDPattern    = regexp.MustCompile(`(?i)^/subscriptions/[^/]+/resourceGroups/[^/]+/providers/.+`)
	logTypePattern       = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]{1,100}$`)
)

// apiVersion is the query of a post of custom rows.
const apiVersion = "api-version=2016-04-01"

// postData takes rows from a registered agent: an envelope of a standard type,
// or with apiVersion an array of custom rows (OMS agent for Linux, out_oms.rb
// and out_oms_api.rb).
func (e *Emulator) postData(c *call) (answer, *refusal) {
	agent, no := e.registered(c)
	if no != nil {
		return answer{}, no
	}
	for _, check := range []func(*call) *refusal{
		checkPost,
		literal("Content-Type", "application/json"),
		checkUserAgent,
		literal("x-ms-app", "LinuxMonitoringAgent"),
		matching("x-ms-client-version", clientVersionPattern),
		literal("x-ms-client-platform", "Linux", "Windows"),
		matching("x-ms-client-request-retry-count", retryCountPattern),
		checkResourceID,
		e.checkRequestID,
	} {
		if no := check(c); no != nil {
			return answer{}, no
		}
	}
	body, no := unpack(c, maxUnpacked)
	if no != nil {
		return answer{}, no
	}
	switch {
	case c.URL.RawQuery == apiVersion:
		return e.postCustom(c, body)
	case c.URL.RawQuery != "" || c.URL.ForceQuery:
		return answer{}, refuse(400, "InvalidApiVersion", "the query is neither empty nor %s", apiVersion)
	}
	table, rows, no := e.standardRows(c, body)
	if no != nil {
		return answer{}, no
	}
	trustTimes(c, rows)
	if table == "Heartbeat" {
		for _, r := range rows {
			r["SourceComputerId"] = agent.ID
		}
	}
	return e.keepRows(c, table, body, rows)
}

// trustTimes replaces what is no time of generation that the service takes for
// granted by the time of arrival.
func trustTimes(c *call, rows []row) {
	for i, r := range rows {
		text, _ := r["TimeGenerated"].(string)
		if at, err := time.Parse(time.RFC3339, text); err == nil && outOfRange(at, c.now) {
			c.note("DataItems[%d]: Timestamp is out of range, TimeGenerated is the arrival", i)
			r["TimeGenerated"] = showTime(c.now)
		}
	}
}

// outOfRange reports whether a time is more than two days old or one ahead.
func outOfRange(at, now time.Time) bool {
	age := now.Sub(at)
	return age > 48*time.Hour || age < -24*time.Hour
}

// checkResourceID looks at the optional ARM id that fills _ResourceId.
func checkResourceID(c *call) *refusal {
	if len(c.Header.Values("x-ms-AzureResourceId")) == 0 {
		return nil
	}
	return matching("x-ms-AzureResourceId", resourceIDPattern)(c)
}

// unpack returns the JSON text, of at most that many bytes: the body as it is,
// or inflated when it claims to be deflate, which HTTP defines as the zlib
// format (RFC 1950).
func unpack(c *call, most int64) ([]byte, *refusal) {
	bad := func(format string, args ...any) ([]byte, *refusal) {
		return nil, refuse(400, "InvalidDataFormat", format, args...)
	}
	switch encoding := c.Header.Get("Content-Encoding"); encoding {
	case "":
		return c.body, nil
	case "deflate":
	default:
		return bad("Content-Encoding is %q; the service knows deflate", clip(encoding, 40))
	}
	packed := bytes.NewReader(c.body)
	z, err := zlib.NewReader(packed)
	if err != nil {
		return bad("the body is not in zlib format (RFC 1950): %v", err)
	}
	body, err := io.ReadAll(io.LimitReader(z, most+1))
	switch {
	case err != nil:
		return bad("the body is not in zlib format (RFC 1950): %v", err)
	case int64(len(body)) > most:
		return nil, refuse(http.StatusRequestEntityTooLarge, "RequestTooLarge", "the body inflates to more than %d bytes", most)
	case packed.Len() > 0:
		return bad("%d bytes follow the zlib stream", packed.Len())
	}
	return body, nil
}

// standardRows decodes an envelope.
func (e *Emulator) standardRows(c *call, body []byte) (table string, rows []row, no *refusal) {
	bad := func(format string, args ...any) (string, []row, *refusal) {
		return "", nil, refuse(400, "InvalidDataFormat", format, args...)
	}
	value, err := decodeJSON(body)
	if err != nil {
		return bad("%v", err)
	}
	envelope, ok := value.(object)
	if !ok {
		return bad("the body is not an envelope {DataType, IPName, DataItems}")
	}
	for name := range envelope {
		if !slices.Contains([]string{"DataType", "IPName", "DataItems"}, name) {
			return bad("the envelope has a member %q", clip(name, 64))
		}
	}
	dataTypeName, _ := envelope["DataType"].(string)
	t, ok := e.types[dataTypeName]
	if !ok {
		return bad("DataType %q is not known", clip(dataTypeName, 64))
	}
	if envelope["IPName"] != t.ipName {
		return bad("IPName of %s is not %q", dataTypeName, t.ipName)
	}
	items, ok := envelope["DataItems"].([]any)
	if !ok || len(items) == 0 {
		return bad("DataItems is not an array with items")
	}
	noted := map[string]bool{}
	for i, item := range items {
		members, ok := item.(object)
		if !ok {
			return bad("DataItems[%d] is not an object", i)
		}
		made, unknown, problem := t.rows(members)
		if problem != "" {
			return bad("DataItems[%d]: %s", i, problem)
		}
		for _, name := range unknown {
			if !noted[name] {
				noted[name] = true
				c.note("DataItems[%d]: %s has no column for %q, left out", i, t.table, clip(name, 64))
			}
		}
		rows = append(rows, made...)
	}
	return t.table, rows, nil
}

// postCustom takes an array of flat objects for a table of the agent's own.
func (e *Emulator) postCustom(c *call, body []byte) (answer, *refusal) {
	logType, no := c.header("Log-Type")
	if no != nil {
		return answer{}, no
	}
	if !logTypePattern.MatchString(logType) {
		return answer{}, refuse(400, "InvalidLogType", "Log-Type is not a letter and 1 to 100 letters, digits or underscores")
	}
	date, no := c.header("x-ms-date")
	if no != nil {
		return answer{}, no
	}
	if _, err := http.ParseTime(date); err != nil || !strings.HasSuffix(date, " GMT") {
		return answer{}, refuse(400, "InvalidHeader", "x-ms-date is not a date like Mon, 04 Apr 2016 08:00:00 GMT")
	}
	value, err := decodeJSON(body)
	if err != nil {
		return answer{}, refuse(400, "InvalidDataFormat", "%v", err)
	}
	items, ok := value.([]any)
	if !ok || len(items) == 0 {
		return answer{}, refuse(400, "InvalidDataFormat", "the body is not an array with rows")
	}
	rows, no := customRows(c, items, "tenant", "TimeGenerated")
	if no != nil {
		return answer{}, no
	}
	return e.keepRows(c, logType+"_CL", body, rows)
}

// keepRows writes the rows and answers 200 once they are in the file.
func (e *Emulator) keepRows(c *call, table string, body []byte, rows []row) (answer, *refusal) {
	c.Table, c.Rows = table, len(rows)
	if f, ok := e.faults.strike(c.place(), func(f Fault) bool { return f.dislikes(body, len(rows)) }); ok {
		c.Fault = f.Kind
		return answer{}, f.refusal()
	}
	for _, r := range rows {
		r["Type"] = table
		r["TenantId"] = c.Workspace
		r["_ReceivedTime"] = showTime(c.now)
		if c.RequestID != "" {
			r["_RequestId"] = c.RequestID
		}
		if id := c.Header.Get("x-ms-AzureResourceId"); id != "" {
			r["_ResourceId"] = strings.ToLower(id)
		}
	}
	if err := e.store.add(c.Workspace, table, rows, c.now); err != nil {
		return answer{}, refuse(503, "StorageError", "%v", err)
	}
	return answer{status: http.StatusOK}, nil
}

// dislikes reports whether a fault wants to refuse these rows.
func (f Fault) dislikes(body []byte, rows int) bool {
	return f.Kind == FaultStatus &&
		(f.Marker != "" && bytes.Contains(body, []byte(f.Marker)) || f.OverRows > 0 && rows > f.OverRows)
}

// A requestIDs remembers the last X-Request-IDs with what they carried.
type requestIDs struct {
	mu    sync.Mutex
	seen  map[string]string
	order []string
}

// keptRequestIDs bounds the memory; an id older than that counts as fresh.
const keptRequestIDs = 4096

// look reports whether id was seen before, and whether with the same content.
func (r *requestIDs) look(id, content string) (seen, same bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if before, ok := r.seen[id]; ok {
		return true, before == content
	}
	if r.seen == nil {
		r.seen = map[string]string{}
	}
	if len(r.order) >= keptRequestIDs {
		delete(r.seen, r.order[0])
		r.order = r.order[1:]
	}
	r.seen[id] = content
	r.order = append(r.order, id)
	return false, false
}

// checkRequestID wants a fresh GUID. The same id with the same body is a
// client that sends one attempt twice, which is noted; with another body it
// would make the id worthless.
func (e *Emulator) checkRequestID(c *call) *refusal {
	id, no := c.header("X-Request-ID")
	if no != nil {
		return no
	}
	if !anyGUID.MatchString(id) {
		return refuse(400, "InvalidHeader", "X-Request-ID is not a GUID")
	}
	seen, same := e.requests.look(id, contentHash(c.body))
	if seen && !same {
		return refuse(400, "DuplicateRequestID", "X-Request-ID was used before for another body; every attempt needs its own")
	}
	if seen {
		c.note("client retry: X-Request-ID and body were seen before")
	}
	return nil
}
