package emulator

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// common is what every row of these tests carries.
func common(table string, more row) row {
	r := row{
		"TimeGenerated": "2024-01-02T03:04:05.123Z", "Type": table, "TenantId": testWorkspace, "_ReceivedTime": "2024-01-02T03:04:05.123Z",
		"_RequestId": "22222222-0000-4000-8000-000000000000", "_ResourceId": "/subscriptions/s/resourcegroups/g/providers/microsoft.compute/virtualmachines/vm",
	}
	maps.Copy(r, more)
	return r
}

// TestTables sends one request of every type and looks at the rows as users
// see them.
func TestTables(t *testing.T) {
	tests := []struct {
		table string
		query string
		body  string
		want  []row
	}{
		{
			table: "Heartbeat",
			body: `{"DataType":"HEALTH_ASSESSMENT_BLOB","IPName":"LogManagement","DataItems":[{"Timestamp":"2024-01-02T03:04:05.123Z","Computer":"host1",` +
				`"OSType":"Linux","OSName":"Ubuntu","OSMajorVersion":"20","OSMinorVersion":"04","Category":"Agent","SCAgentChannel":"Direct",` +
				`"ComputerPrivateIps":"[\"10.0.0.4\",\"fd00::1\"]","Version":"1.19.0-0"}]}`,
			want: []row{common("Heartbeat", row{
				"Computer": "host1", "OSType": "Linux", "OSName": "Ubuntu", "OSMajorVersion": "20", "OSMinorVersion": "04",
				"Category": "Direct Agent", "SCAgentChannel": "Direct", "ComputerPrivateIPs": []any{"10.0.0.4", "fd00::1"},
				"Version": "1.19.0-0", "SourceComputerId": testGUID,
			})},
		},
		{
			table: "Syslog",
			body:  syslogBody(syslogItem),
			want: []row{common("Syslog", row{
				"Computer": "host1", "HostName": "host1", "HostIP": "10.0.0.4", "EventTime": "2024-01-02T03:04:04.000Z", "ProcessName": "sshd",
				"ProcessID": 811.0, "Facility": "auth", "SeverityLevel": "info", "SyslogMessage": "Accepted <publickey> for root",
			})},
		},
		{
			table: "Perf",
			body: `{"DataType":"LINUX_PERF_BLOB","IPName":"LogManagement","DataItems":[{"Timestamp":"2024-01-02T03:04:05.123Z","Host":"host1","ObjectName":"Processor",` +
				`"InstanceName":"_Total","Collections":[{"CounterName":"% Processor Time","Value":"13"},{"CounterName":"% Idle Time","Value":86.5}]}]}`,
			want: []row{
				common("Perf", row{"Computer": "host1", "ObjectName": "Processor", "InstanceName": "_Total", "CounterName": "% Processor Time", "CounterValue": 13.0}),
				common("Perf", row{"Computer": "host1", "ObjectName": "Processor", "InstanceName": "_Total", "CounterName": "% Idle Time", "CounterValue": 86.5}),
			},
		},
		{
			table: "InsightsMetrics",
			body: `{"DataType":"INSIGHTS_METRICS_BLOB","IPName":"VMInsights","DataItems":[{"CollectionTime":"2024-01-02T03:04:05Z","Computer":"host1",` +
				`"Origin":"vm.azm.ms","Namespace":"Memory","Name":"AvailableMB","Value":1953.13,"Tags":"{\"vm.azm.ms/memorySizeMB\":4000}"}]}`,
			want: []row{common("InsightsMetrics", row{
				"TimeGenerated": "2024-01-02T03:04:05.000Z",
				"Computer":      "host1", "Origin": "vm.azm.ms", "Namespace": "Memory", "Name": "AvailableMB", "Val": 1953.13,
				"Tags": `{"vm.azm.ms/memorySizeMB":4000}`,
			})},
		},
		{
			table: "Operation",
			body: `{"DataType":"OPERATION_BLOB","IPName":"LogManagement","DataItems":[{"Timestamp":"2024-01-02T03:04:05.123Z","Computer":"host1",` +
				`"OperationStatus":"Warning","Detail":"12 records dropped","Category":"Buffer","Solution":"Log Management","HelpLink":""}]}`,
			want: []row{common("Operation", row{
				"Computer": "host1", "OperationStatus": "Warning", "Detail": "12 records dropped", "OperationCategory": "Buffer",
				"Solution": "Log Management", "HelpLink": "",
			})},
		},
		{
			table: "MyApp_CL",
			query: "?api-version=2016-04-01",
			body:  `[{"Computer":"host1","RawData":"a line","Code":7,"Fatal":false,"Nothing":null,"At":"2024-01-02T03:04:05Z","Id":"` + testGUID + `","Text":"t","Nested":{"a":[1]}}]`,
			want: []row{common("MyApp_CL", row{
				"Computer": "host1", "RawData": "a line", "Code_d": 7.0, "Fatal_b": false, "At_t": "2024-01-02T03:04:05Z", "Id_g": testGUID,
				"Text_s": "t", "Nested_s": `{"a":[1]}`,
			})},
		},
	}
	for _, tt := range tests {
		t.Run(tt.table, func(t *testing.T) {
			w := open(t)
			u := upload{query: tt.query, body: pack(tt.body), spoil: func(r *http.Request) {
				r.Header.Set("X-Request-ID", "22222222-0000-4000-8000-000000000000")
				r.Header.Set("x-ms-AzureResourceId", "/subscriptions/S/resourceGroups/G/providers/Microsoft.Compute/virtualMachines/VM")
			}}
			got := do(w.onboarded(), u.request(t))
			got.want(t, 200, "")
			rows, err := w.Rows(testWorkspace, tt.table)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, rows); diff != "" {
				t.Errorf("rows differ (-want +got):\n%s", diff)
			}
			requests := w.Requests()
			if x := requests[len(requests)-1]; x.Table != tt.table || x.Rows != len(tt.want) || x.Agent != testGUID || x.Bytes != len(u.body) {
				t.Errorf("the journal says %+v", x)
			}
		})
	}
}

// TestTimesOutOfRange: the service files rows that are too old, or from the
// future, under the time of their arrival.
func TestTimesOutOfRange(t *testing.T) {
	arrival := testTime.Format("2006-01-02T15:04:05.000Z")
	for _, tt := range []struct {
		age  time.Duration
		kept bool
	}{
		{0, true},
		{48 * time.Hour, true},
		{48*time.Hour + time.Second, false},
		{-24 * time.Hour, true},
		{-24*time.Hour - time.Second, false},
	} {
		w := open(t)
		c := w.onboarded()
		w.setTime(testTime.Truncate(time.Millisecond))
		item := strings.Replace(syslogItem, "2024-01-02T03:04:05.123Z", testTime.Add(-tt.age).Format("2006-01-02T15:04:05.000Z"), 1)
		do(c, upload{body: pack(syslogBody(item))}.request(t)).want(t, 200, "")
		rows, err := w.Rows(testWorkspace, "Syslog")
		if err != nil {
			t.Fatal(err)
		}
		r := rows[0]
		if kept := r["TimeGenerated"] != arrival || tt.age == 0; kept != tt.kept || r["EventTime"] != "2024-01-02T03:04:04.000Z" {
			t.Errorf("%v old: TimeGenerated %v, EventTime %v, want the row's own time: %v", tt.age, r["TimeGenerated"], r["EventTime"], tt.kept)
		}
	}
}

// TestCompressionVector is the published check of the zlib format: the text's
// Adler-32 ends the stream.
func TestCompressionVector(t *testing.T) {
	const text = `{"DataType":"HEALTH_ASSESSMENT_BLOB","IPName":"LogManagement","DataItems":[{"Timestamp":"2024-01-02T03:04:05.123Z","Computer":"host1"}]}`
	body := pack(text)
	if len(text) != 136 || body[0] != 0x78 || hex.EncodeToString(body[len(body)-4:]) != "1fab2906" {
		t.Fatalf("the test's own zlib is wrong: %x", body)
	}
	deflate := &http.Request{Header: http.Header{"Content-Encoding": {"deflate"}}}
	got, no := unpack(&call{Request: deflate, body: body}, 136)
	if no != nil || string(got) != text {
		t.Errorf("unpack() = %q, %+v", got, no)
	}
	if _, no := unpack(&call{Request: deflate, body: body}, 135); no == nil || no.status != 413 {
		t.Errorf("unpack() of one byte too many = %+v, want 413", no)
	}
	body[len(body)-1] ^= 1
	if _, no := unpack(&call{Request: deflate, body: body}, 136); no == nil || no.status != 400 {
		t.Error("unpack() takes a wrong checksum")
	}
}

func gzipped(text string) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write([]byte(text)) // a Buffer does not fail
	_ = z.Close()
	return b.Bytes()
}

func rawDeflate(text string) []byte {
	var b bytes.Buffer
	z, _ := flate.NewWriter(&b, flate.DefaultCompression)
	_, _ = z.Write([]byte(text)) // a Buffer does not fail
	_ = z.Close()
	return b.Bytes()
}

// TestUploadRefusals changes one thing of a good upload at a time. The detail
// has to name the culprit.
func TestUploadRefusals(t *testing.T) {
	w := open(t)
	agent := w.onboarded()
	header := func(name, value string) upload {
		u := syslogUpload(syslogItem)
		u.spoil = func(r *http.Request) {
			r.Header.Del(name)
			if value != "" {
				r.Header.Set(name, value)
			} else if name == "User-Agent" {
				r.Header["User-Agent"] = nil
			}
		}
		return u
	}
	item := func(from, to string) upload {
		changed := strings.Replace(syslogItem, from, to, 1)
		if changed == syslogItem {
			t.Fatalf("%q is not in the item", from)
		}
		return syslogUpload(syslogItem, changed)
	}
	standard := func(dataType, ipName, items string) upload {
		return upload{body: pack(`{"DataType":"` + dataType + `","IPName":"` + ipName + `","DataItems":` + items + `}`)}
	}
	heartbeat := func(from, to string) upload {
		const good = `{"Timestamp":"2024-01-02T03:04:05.123Z","Computer":"host1","OSType":"Linux","OSMajorVersion":"20","OSMinorVersion":"04",` +
			`"Category":"Agent","SCAgentChannel":"Direct","ComputerPrivateIps":"[\"10.0.0.4\"]","Version":"1.19.0-0"}`
		return standard("HEALTH_ASSESSMENT_BLOB", "LogManagement", "["+strings.Replace(good, from, to, 1)+"]")
	}
	perf := func(from, to string) upload {
		const good = `{"Timestamp":"2024-01-02T03:04:05.123Z","Host":"host1","ObjectName":"Memory","InstanceName":"Memory","Collections":[{"CounterName":"% Used","Value":"13"}]}`
		return standard("LINUX_PERF_BLOB", "LogManagement", "["+strings.Replace(good, from, to, 1)+"]")
	}
	insights := func(from, to string) upload {
		const good = `{"CollectionTime":"2024-01-02T03:04:05Z","Computer":"host1","Origin":"vm.azm.ms","Namespace":"Memory","Name":"AvailableMB","Value":7,"Tags":"{}"}`
		return standard("INSIGHTS_METRICS_BLOB", "VMInsights", "["+strings.Replace(good, from, to, 1)+"]")
	}
	custom := func(body string, headers ...string) upload {
		return upload{query: "?api-version=2016-04-01", body: pack(body), spoil: func(r *http.Request) {
			for i := 0; i+1 < len(headers); i += 2 {
				r.Header.Del(headers[i])
				if headers[i+1] != "" {
					r.Header.Set(headers[i], headers[i+1])
				}
			}
		}}
	}
	query := func(text string) upload {
		u := syslogUpload(syslogItem)
		u.spoil = func(r *http.Request) { r.URL.RawQuery, r.URL.ForceQuery = text, true }
		return u
	}
	tests := []struct {
		name   string
		upload upload
		status int
		reason string
		detail string // must be part of it
	}{
		{"PUT", upload{body: pack("{}"), spoil: func(r *http.Request) { r.Method = http.MethodPut }}, 405, "MethodNotAllowed", "POST"},
		{"no Content-Type", header("Content-Type", ""), 400, "MissingHeader", "Content-Type"},
		{"Content-Type with charset", header("Content-Type", "application/json; charset=utf-8"), 400, "InvalidHeader", "Content-Type"},
		{"no User-Agent", header("User-Agent", ""), 400, "MissingHeader", "User-Agent"},
		{"other User-Agent", header("User-Agent", "curl/8.0"), 400, "InvalidHeader", "User-Agent"},
		{"no x-ms-app", header("x-ms-app", ""), 400, "MissingHeader", "x-ms-app"},
		{"no client version", header("x-ms-client-version", ""), 400, "MissingHeader", "x-ms-client-version"},
		{"client version in three parts", header("x-ms-client-version", "1.19.0"), 400, "InvalidHeader", "x-ms-client-version"},
		{"no client platform", header("x-ms-client-platform", ""), 400, "MissingHeader", "x-ms-client-platform"},
		{"no retry count", header("x-ms-client-request-retry-count", ""), 400, "MissingHeader", "retry-count"},
		{"negative retry count", header("x-ms-client-request-retry-count", "-1"), 400, "InvalidHeader", "retry-count"},
		{"no request id", header("X-Request-ID", ""), 400, "MissingHeader", "X-Request-ID"},
		{"request id no GUID", header("X-Request-ID", "42"), 400, "InvalidHeader", "X-Request-ID"},
		{"resource id no ARM id", header("x-ms-AzureResourceId", "vm1"), 400, "InvalidHeader", "x-ms-AzureResourceId"},
		{"empty query", query(""), 400, "InvalidApiVersion", "query"},
		{"other api-version", query("api-version=2016-04-02"), 400, "InvalidApiVersion", "query"},

		{"gzip", header("Content-Encoding", "gzip"), 400, "InvalidDataFormat", "gzip"},
		{"gzip called deflate", upload{body: gzipped(syslogBody(syslogItem))}, 400, "InvalidDataFormat", "RFC 1950"},
		{"raw deflate", upload{body: rawDeflate(syslogBody(syslogItem))}, 400, "InvalidDataFormat", "RFC 1950"},
		{"no compression called deflate", upload{body: []byte(syslogBody(syslogItem))}, 400, "InvalidDataFormat", "RFC 1950"},
		{"zlib cut short", upload{body: pack(syslogBody(syslogItem))[:60]}, 400, "InvalidDataFormat", "RFC 1950"},
		{"bytes after the zlib stream", upload{body: append(pack(syslogBody(syslogItem)), 'x')}, 400, "InvalidDataFormat", "follow"},

		{"not JSON", upload{body: pack(`{"DataType":`)}, 400, "InvalidDataFormat", "not JSON"},
		{"not UTF-8", upload{body: pack("{\"DataType\":\"\xff\"}")}, 400, "InvalidDataFormat", "UTF-8"},
		{"two values", upload{body: pack(syslogBody(syslogItem) + "{}")}, 400, "InvalidDataFormat", "follows"},
		{"array instead of an envelope", upload{body: pack("[]")}, 400, "InvalidDataFormat", "envelope"},
		{"unknown member of the envelope", upload{body: pack(strings.Replace(syslogBody(syslogItem), "{", `{"Extra":1,`, 1))}, 400, "InvalidDataFormat", "Extra"},
		{"member in other case", upload{body: pack(strings.Replace(syslogBody(syslogItem), "DataType", "dataType", 1))}, 400, "InvalidDataFormat", "dataType"},
		{"unknown DataType", standard("LINUX_SYSLOG_BLOB", "LOGMANAGEMENT", "["+syslogItem+"]"), 400, "InvalidDataFormat", "DataType"},
		{"syslog with LogManagement", standard("LINUX_SYSLOGS_BLOB", "LogManagement", "["+syslogItem+"]"), 400, "InvalidDataFormat", "IPName"},
		{"insights under another IPName", standard("INSIGHTS_METRICS_BLOB", "LogManagement", "[{}]"), 400, "InvalidDataFormat", "IPName"},
		{"insights with milliseconds", insights("05Z", "05.123Z"), 400, "InvalidDataFormat", "CollectionTime"},
		{"insights with a text as value", insights(":7", `:"7"`), 400, "InvalidDataFormat", "Value is not a number"},
		{"insights with tags that are no text", insights(`"{}"`, "{}"), 400, "InvalidDataFormat", "Tags"},
		{"insights with foreign tags", insights("{}", `{\"memorySizeMB\":1}`), 400, "InvalidDataFormat", "Tags"},
		{"insights of another origin", insights("vm.azm.ms", "container.azm.ms"), 400, "InvalidDataFormat", "Origin"},
		{"perf with LOGMANAGEMENT", standard("LINUX_PERF_BLOB", "LOGMANAGEMENT", "[{}]"), 400, "InvalidDataFormat", "IPName"},
		{"no items", syslogUpload(), 400, "InvalidDataFormat", "DataItems"},
		{"items no array", standard("LINUX_SYSLOGS_BLOB", "LOGMANAGEMENT", syslogItem), 400, "InvalidDataFormat", "DataItems"},
		{"item no object", syslogUpload(syslogItem, `"x"`), 400, "InvalidDataFormat", "DataItems[1]"},

		{"member twice", item(`{"ident"`, `{"Host":"a","ident"`), 400, "InvalidDataFormat", `"Host" is there twice`},
		{"no Message", item(`"Message":"Accepted <publickey> for root",`, ""), 400, "InvalidDataFormat", "DataItems[1]: Message is missing"},
		{"Message null", item(`"Accepted <publickey> for root"`, "null"), 400, "InvalidDataFormat", "Message is not text"},
		{"Timestamp without milliseconds", item("05.123Z", "05Z"), 400, "InvalidDataFormat", "Timestamp is not a time"},
		{"Timestamp with offset", item("05.123Z", "05.123+00:00"), 400, "InvalidDataFormat", "Timestamp is not a time"},
		{"Timestamp that is none", item("01-02T03:04:05.123Z", "13-02T03:04:05.123Z"), 400, "InvalidDataFormat", "Timestamp is not a time"},
		{"EventTime in microseconds", item("04Z", "04.123456Z"), 400, "InvalidDataFormat", "EventTime"},
		{"Severity warning", item(`"info"`, `"warning"`), 400, "InvalidDataFormat", `spells "warn"`},
		{"Severity as a number", item(`"info"`, `6`), 400, "InvalidDataFormat", "Severity"},
		{"unknown Facility", item(`"auth"`, `"security"`), 400, "InvalidDataFormat", "Facility"},
		{"HostIP no address", item("10.0.0.4", "host1"), 400, "InvalidDataFormat", "HostIP"},
		{"ProcessId as a number", item(`"811"`, `811`), 400, "InvalidDataFormat", "ProcessId"},
		{"empty Host", item(`"host1"`, `""`), 400, "InvalidDataFormat", "Host is"},

		{"no Computer", heartbeat(`"Computer":"host1",`, ""), 400, "InvalidDataFormat", "Computer is missing"},
		{"private addresses as an array", heartbeat(`"[\"10.0.0.4\"]"`, `["10.0.0.4"]`), 400, "InvalidDataFormat", "ComputerPrivateIps"},
		{"a public address", heartbeat("10.0.0.4", "8.8.8.8"), 400, "InvalidDataFormat", "ComputerPrivateIps"},
		{"private addresses null", heartbeat(`"[\"10.0.0.4\"]"`, "null"), 400, "InvalidDataFormat", "ComputerPrivateIps"},
		{"version of three parts", heartbeat(`"1.19.0-0"`, `"1.19.0"`), 400, "InvalidDataFormat", "Version"},
		{"minor version alone", heartbeat(`"OSMajorVersion":"20",`, ""), 400, "InvalidDataFormat", "OSMajorVersion"},
		{"other category", heartbeat(`"Agent"`, `"Direct Agent"`), 400, "InvalidDataFormat", "Category"},

		{"no samples", perf(`{"CounterName":"% Used","Value":"13"}`, ""), 400, "InvalidDataFormat", "Collections"},
		{"Value no number", perf(`"13"`, `"many"`), 400, "InvalidDataFormat", "Value"},
		{"Value NaN", perf(`"13"`, `"NaN"`), 400, "InvalidDataFormat", "Value"},
		{"Value null", perf(`"13"`, "null"), 400, "InvalidDataFormat", "Value"},
		{"sample with more", perf(`"Value":"13"`, `"Value":"13","Unit":"%"`), 400, "InvalidDataFormat", "Collections"},
		{"no counter name", perf(`"% Used"`, `""`), 400, "InvalidDataFormat", "CounterName"},

		{"no Log-Type", custom(`[{"a":1}]`, "Log-Type", ""), 400, "MissingHeader", "Log-Type"},
		{"Log-Type of one letter", custom(`[{"a":1}]`, "Log-Type", "M"), 400, "InvalidLogType", "Log-Type"},
		{"Log-Type that starts with a digit", custom(`[{"a":1}]`, "Log-Type", "1App"), 400, "InvalidLogType", "Log-Type"},
		{"Log-Type with a path", custom(`[{"a":1}]`, "Log-Type", "../../MyApp"), 400, "InvalidLogType", "Log-Type"},
		{"Log-Type of 102", custom(`[{"a":1}]`, "Log-Type", strings.Repeat("M", 102)), 400, "InvalidLogType", "Log-Type"},
		{"no date", custom(`[{"a":1}]`, "x-ms-date", ""), 400, "MissingHeader", "x-ms-date"},
		{"date in ISO 8601", custom(`[{"a":1}]`, "x-ms-date", "2024-01-02T03:04:05Z"), 400, "InvalidHeader", "x-ms-date"},
		{"custom object", custom(`{"a":1}`), 400, "InvalidDataFormat", "array"},
		{"custom empty array", custom(`[]`), 400, "InvalidDataFormat", "array"},
		{"custom row no object", custom(`[{"a":1},2]`), 400, "InvalidDataFormat", "row 1"},
		{"column tenant", custom(`[{"Tenant":1}]`), 400, "InvalidDataFormat", "reserved"},
		{"column TimeGenerated", custom(`[{"TimeGenerated":"2024-01-02T03:04:05Z"}]`), 400, "InvalidDataFormat", "reserved"},
		{"column with a dash", custom(`[{"a-b":1}]`), 400, "InvalidDataFormat", "column"},
		{"column of 46", custom(`[{"` + strings.Repeat("a", 46) + `":1}]`), 400, "InvalidDataFormat", "column"},
		{"time field missing in a row", custom(`[{"At":"2024-01-02T03:04:05Z"},{"a":1}]`, "time-generated-field", "At"), 400, "InvalidDataFormat", "row 1"},
		{"time field no time", custom(`[{"At":"yesterday"}]`, "time-generated-field", "At"), 400, "InvalidDataFormat", "ISO 8601"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			do(agent, tt.upload.request(t)).want(t, tt.status, tt.reason)
			rejections := w.Rejections()
			last := rejections[len(rejections)-1]
			if last.Status != tt.status || last.Reason != tt.reason || !strings.Contains(last.Detail, tt.detail) {
				t.Errorf("the journal says %v, want a detail with %q", last, tt.detail)
			}
			if strings.Contains(last.Detail, "publickey") {
				t.Errorf("the journal quotes a row: %s", last.Detail)
			}
		})
	}
	if tables := w.Tables(); len(tables) != 0 {
		t.Errorf("Tables() = %+v, want none: every upload was refused", tables)
	}
}

// TestUploadNeedsCertificate tries every wrong identity, a probe with GET too.
func TestUploadNeedsCertificate(t *testing.T) {
	const otherWorkspace = "99999999-2222-3333-4444-555555555555"
	w := open(t, func(o *Options) {
		o.Workspaces = append(o.Workspaces, Workspace{ID: otherWorkspace, Keys: []string{testKey}})
	})
	agent := w.onboarded()
	u := syslogUpload(syslogItem)
	do(w.client(nil), u.request(t)).want(t, 403, "MissingClientCertificate")
	do(w.client(agentCertificate(t, rsaKey(t, 1), nil)), u.request(t)).want(t, 403, "UnknownCertificate")
	u.spoil = func(r *http.Request) { r.Host = otherWorkspace + ".ods." + testDomain }
	do(agent, u.request(t)).want(t, 403, "UnknownCertificate")
	u.spoil = func(r *http.Request) { r.Method = http.MethodGet }
	do(w.client(nil), u.request(t)).want(t, 403, "MissingClientCertificate")
}

// TestRequestIDs tells a client's retry from an id used twice.
func TestRequestIDs(t *testing.T) {
	w := open(t)
	agent := w.onboarded()
	again := func(r *http.Request) { r.Header.Set("X-Request-ID", "33333333-0000-4000-8000-000000000000") }
	u := syslogUpload(syslogItem)
	u.spoil = again
	for range 2 {
		do(agent, u.request(t)).want(t, 200, "")
	}
	requests := w.Requests()
	if first := requests[len(requests)-2]; len(first.Notes) != 0 {
		t.Errorf("first attempt has notes %q", first.Notes)
	}
	if second := requests[len(requests)-1]; len(second.Notes) != 1 || !strings.Contains(second.Notes[0], "client retry") {
		t.Errorf("second attempt has notes %q", second.Notes)
	}
	u = syslogUpload(syslogItem, syslogItem)
	u.spoil = again
	do(agent, u.request(t)).want(t, 400, "DuplicateRequestID")
}

// TestNotes lists what is taken with a remark.
func TestNotes(t *testing.T) {
	w := open(t)
	agent := w.onboarded()
	notes := func(u upload) string {
		t.Helper()
		do(agent, u.request(t)).want(t, 200, "")
		requests := w.Requests()
		return strings.Join(requests[len(requests)-1].Notes, "\n")
	}
	extra := strings.Replace(syslogItem, "{", `{"BatchId":"7",`, 1)
	if got := notes(syslogUpload(extra, extra)); got != `DataItems[0]: Syslog has no column for "BatchId", left out` {
		t.Errorf("notes = %q", got)
	}
	if got := notes(upload{query: "?api-version=2016-04-01", body: pack(`[{"a":{"b":1}}]`)}); got != `row 0: column "a" is nested and becomes text` {
		t.Errorf("notes = %q", got)
	}
	plain := syslogUpload(syslogItem)
	plain.body = []byte(syslogBody(syslogItem))
	plain.spoil = func(r *http.Request) { r.Header.Del("Content-Encoding") }
	if got := notes(plain); got != "" {
		t.Errorf("notes = %q for a body without compression", got)
	}
}

// TestTimeField fills TimeGenerated from the row, within the documented range.
func TestTimeField(t *testing.T) {
	w := open(t)
	agent := w.onboarded()
	for at, want := range map[string]string{
		"2024-01-01T03:04:05.5Z":    "2024-01-01T03:04:05.500Z",
		"2024-01-02T05:04:05+02:00": "2024-01-02T03:04:05.000Z",
		"2023-12-31T03:04:05Z":      "2024-01-02T03:04:05.123Z", // over two days old
		"2024-01-03T03:05:05Z":      "2024-01-02T03:04:05.123Z", // over a day ahead
	} {
		u := upload{query: "?api-version=2016-04-01", body: pack(`[{"At":"` + at + `"}]`), spoil: func(r *http.Request) { r.Header.Set("time-generated-field", "At") }}
		do(agent, u.request(t)).want(t, 200, "")
		rows, err := w.Rows(testWorkspace, "MyApp_CL")
		if err != nil {
			t.Fatal(err)
		}
		if got := rows[len(rows)-1]; got["TimeGenerated"] != want || got["At_t"] != at {
			t.Errorf("row of %s = %v, want TimeGenerated %s", at, got, want)
		}
	}
}

// TestBodyLimit posts too many bytes and goes on.
func TestBodyLimit(t *testing.T) {
	w := open(t)
	agent := w.onboarded()
	do(agent, upload{body: make([]byte, maxBody+1)}.request(t)).want(t, 413, "RequestTooLarge")
	do(agent, syslogUpload(syslogItem).request(t)).want(t, 200, "")
}

// TestBodyCut has the client go away in the middle of its body: nobody
// refused that.
func TestBodyCut(t *testing.T) {
	w := open(t)
	conn := w.dialTLS(testWorkspace + ".ods." + testDomain)
	fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: %s.ods.%s\r\nContent-Length: 100\r\n\r\nhalf of it", pathODS, testWorkspace, testDomain)
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	w.await(func() bool {
		requests := w.Requests()
		return len(requests) == 1 && requests[0].Endpoint == "ods" && requests[0].Status == 0 && requests[0].Detail != ""
	})
	if n := len(w.Rejections()); n != 0 {
		t.Errorf("%d rejections, want none", n)
	}
}

func FuzzStandardRows(f *testing.F) {
	f.Add([]byte(syslogBody(syslogItem)))
	f.Add([]byte(`{"DataType":"LINUX_PERF_BLOB","IPName":"LogManagement","DataItems":[{"Timestamp":"2024-01-02T03:04:05.123Z","Host":"h",` +
		`"ObjectName":"o","InstanceName":"","Collections":[{"CounterName":"c","Value":1e400}]}]}`))
	f.Add([]byte(`{"DataType":"HEALTH_ASSESSMENT_BLOB","IPName":"LogManagement","DataItems":[{}]}`))
	e := &Emulator{types: dataTypes()}
	f.Fuzz(func(t *testing.T, body []byte) {
		table, rows, no := e.standardRows(&call{}, body)
		if no != nil {
			return
		}
		if table == "" || len(rows) == 0 {
			t.Fatalf("standardRows(%q) took no rows for %q", body, table)
		}
		for _, r := range rows {
			if _, err := json.Marshal(r); err != nil || r["TimeGenerated"] == nil {
				t.Errorf("standardRows(%q) made %v (%v)", body, r, err)
			}
		}
	})
}

func FuzzDecodeJSON(f *testing.F) {
	for _, seed := range []string{`{"a":[1,null,"x",{}]}`, `{"a":1,"a":2}`, `[1 2]`, `{"a" 1}`, `1e999`, `"\ud800"`, strings.Repeat("[", 100), `{}}`, ` `} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		value, err := decodeJSON(data)
		if err != nil {
			return
		}
		if !json.Valid(data) {
			t.Errorf("decodeJSON(%q) = %v, but it is not JSON", data, value)
		}
		var want any
		d := json.NewDecoder(bytes.NewReader(data))
		d.UseNumber()
		if err := d.Decode(&want); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, value); diff != "" {
			t.Errorf("decodeJSON(%q) differs from encoding/json (-want +got):\n%s", data, diff)
		}
	})
}
