package emulator

import (
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// A collectorPost is a post to the HTTP Data Collector API that the service
// takes, until a test spoils it.
type collectorPost struct {
	body  string
	spoil func(*http.Request)
}

func (p collectorPost) request(t *testing.T) *http.Request {
	t.Helper()
	const date = "Mon, 04 Apr 2016 08:00:00 GMT"
	r := post(t, "https://"+testWorkspace+".ods."+testDomain+"/api/logs?api-version=2016-04-01", p.body, map[string]string{
		"Content-Type": "application/json",
		"Log-Type":     "MyApp",
		"x-ms-date":    date,
		"Authorization": "SharedKey " + testWorkspace + ":" +
			hmacBase64(t, testKey, fmt.Sprintf("POST\n%d\napplication/json\nx-ms-date:%s\n/api/logs", len(p.body), date)),
	})
	if p.spoil != nil {
		p.spoil(r)
	}
	return r
}

// openInApril is a world at the time of the vectors.
func openInApril(t *testing.T) *world {
	w := open(t)
	w.setTime(time.Date(2016, 4, 4, 8, 0, 0, 0, time.UTC))
	return w
}

// TestCollectorVectorA sends the vector's literal signature.
func TestCollectorVectorA(t *testing.T) {
	const text = "504f53540a33330a6170706c69636174696f6e2f6a736f6e0a782d6d732d646174653a4d6f6e2c2030342041707220323031362030383a30303a303020474d540a2f6170692f6c6f6773"
	if got := hex.EncodeToString([]byte(collectorText(33, "Mon, 04 Apr 2016 08:00:00 GMT"))); got != text {
		t.Errorf("collectorText() = %s, want %s", got, text)
	}
	w := openInApril(t)
	p := collectorPost{`[{"Computer":"host1","Value":42}]`, func(r *http.Request) {
		r.Header.Set("Authorization", "SharedKey 11111111-2222-3333-4444-555555555555:Rl4MuGhONEgrCHIsSyucV1B1O5sM+xZ6/+66WDY8xz8=")
	}}
	do(w.client(nil), p.request(t)).want(t, 200, "")
	rows, err := w.Rows(testWorkspace, "MyApp_CL")
	if err != nil || len(rows) != 1 || rows[0]["Computer"] != "host1" || rows[0]["Value_d"] != 42.0 {
		t.Errorf("rows = %v, %v", rows, err)
	}
}

// TestCollectorVectorB has 26 characters in 27 bytes: the length is in bytes.
func TestCollectorVectorB(t *testing.T) {
	w := openInApril(t)
	p := collectorPost{`[{"Name":"Zoë","Ok":true}]`, func(r *http.Request) {
		r.Header.Set("Authorization", "SharedKey 11111111-2222-3333-4444-555555555555:H2t1x5WEaEsnMMolDcN90rSQ0oAbR8yuXEkiG6RaZwI=")
	}}
	do(w.client(nil), p.request(t)).want(t, 200, "")
	rows, err := w.Rows(testWorkspace, "MyApp_CL")
	if err != nil || len(rows) != 1 || rows[0]["Name_s"] != "Zoë" || rows[0]["Ok_b"] != true {
		t.Errorf("rows = %v, %v", rows, err)
	}
}

// TestCollectorRefusals changes one thing at a time and wants the documented
// status and code.
func TestCollectorRefusals(t *testing.T) {
	w := openInApril(t)
	c := w.client(nil)
	header := func(name, value string) collectorPost {
		return collectorPost{`[{"a":1}]`, func(r *http.Request) {
			r.Header.Del(name)
			if value != "" {
				r.Header.Set(name, value)
			}
		}}
	}
	query := func(text string) collectorPost {
		return collectorPost{`[{"a":1}]`, func(r *http.Request) { r.URL.RawQuery = text }}
	}
	sign := func(text string) collectorPost {
		return header("Authorization", "SharedKey "+testWorkspace+":"+hmacBase64(t, testKey, text))
	}
	tests := []struct {
		name   string
		post   collectorPost
		status int
		code   string
	}{
		{"GET", collectorPost{`[{"a":1}]`, func(r *http.Request) { r.Method = http.MethodGet }}, 405, "MethodNotAllowed"},
		{"no api-version", query(""), 400, "MissingApiVersion"},
		{"other api-version", query("api-version=2016-04-02"), 400, "InvalidApiVersion"},
		{"more in the query", query("api-version=2016-04-01&a=b"), 400, "InvalidApiVersion"},
		{"no Content-Type", header("Content-Type", ""), 400, "MissingContentType"},
		{"Content-Type with charset", header("Content-Type", "application/json; charset=utf-8"), 400, "UnsupportedContentType"},
		{"no Log-Type", header("Log-Type", ""), 400, "MissingLogType"},
		{"Log-Type with a dash", header("Log-Type", "My-App"), 400, "InvalidLogType"},
		{"Log-Type of 101", header("Log-Type", strings.Repeat("M", 101)), 400, "InvalidLogType"},
		{"no date", header("x-ms-date", ""), 403, "InvalidAuthorization"},
		{"date 16 minutes off", header("x-ms-date", "Mon, 04 Apr 2016 08:16:00 GMT"), 403, "InvalidAuthorization"},
		{"date another second", header("x-ms-date", "Mon, 04 Apr 2016 08:00:01 GMT"), 403, "InvalidAuthorization"},
		{"no Authorization", header("Authorization", ""), 403, "InvalidAuthorization"},
		{"no scheme", header("Authorization", testWorkspace+":abc"), 403, "InvalidAuthorization"},
		{"workspace id no GUID", header("Authorization", "SharedKey contoso:abc"), 400, "InvalidCustomerId"},
		{"another workspace", header("Authorization", "SharedKey 21111111-2222-3333-4444-555555555555:abc"), 403, "InvalidAuthorization"},
		{"signature with a space", sign("POST\n9\napplication/json\nx-ms-date: Mon, 04 Apr 2016 08:00:00 GMT\n/api/logs"), 403, "InvalidAuthorization"},
		{"signature with a last line end", sign("POST\n9\napplication/json\nx-ms-date:Mon, 04 Apr 2016 08:00:00 GMT\n/api/logs\n"), 403, "InvalidAuthorization"},
		{"signature with the query", sign("POST\n9\napplication/json\nx-ms-date:Mon, 04 Apr 2016 08:00:00 GMT\n/api/logs?api-version=2016-04-01"), 403, "InvalidAuthorization"},
		{"signature of another length", sign("POST\n8\napplication/json\nx-ms-date:Mon, 04 Apr 2016 08:00:00 GMT\n/api/logs"), 403, "InvalidAuthorization"},
		{"not JSON", collectorPost{body: `[{"a":1}`}, 400, "InvalidDataFormat"},
		{"empty array", collectorPost{body: `[]`}, 400, "InvalidDataFormat"},
		{"column RawData", collectorPost{body: `[{"RawData":"x"}]`}, 400, "InvalidDataFormat"},
		{"column tenant", collectorPost{body: `[{"tenant":"x"}]`}, 400, "InvalidDataFormat"},
		{"column TimeGenerated", collectorPost{body: `[{"TimeGenerated":"x"}]`}, 400, "InvalidDataFormat"},
		{"501 columns", collectorPost{body: wideRow(501)}, 400, "InvalidDataFormat"},
		{"too large", collectorPost{body: strings.Repeat(" ", maxBody+1)}, 404, "RequestTooLarge"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			do(c, tt.post.request(t)).want(t, tt.status, tt.code)
		})
	}
	if tables := w.Tables(); len(tables) != 0 {
		t.Errorf("Tables() = %+v, want none: every post was refused", tables)
	}
}

func wideRow(columns int) string {
	var b strings.Builder
	for i := range columns {
		fmt.Fprintf(&b, `,"c%d":1`, i)
	}
	return `[{` + b.String()[1:] + `}]`
}

// TestCollectorTakes covers the edges that are good: a single object, a long
// value cut at 32 KB without splitting a character, the most columns.
func TestCollectorTakes(t *testing.T) {
	w := openInApril(t)
	c := w.client(nil)
	do(c, collectorPost{body: `{"a":1}`}.request(t)).want(t, 200, "")
	do(c, collectorPost{body: wideRow(500)}.request(t)).want(t, 200, "")
	do(c, collectorPost{body: `[{"a":"x` + strings.Repeat("ë", 20_000) + `"}]`}.request(t)).want(t, 200, "")
	rows, err := w.Rows(testWorkspace, "MyApp_CL")
	if err != nil {
		t.Fatal(err)
	}
	long, _ := rows[2]["a_s"].(string)
	if want := "x" + strings.Repeat("ë", (32<<10-1)/2); len(rows) != 3 || long != want {
		t.Errorf("%d rows, the long value has %d bytes, want 3 and %d", len(rows), len(long), len(want))
	}
}
