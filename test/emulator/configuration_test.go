package emulator

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
)

const (
	nodeURL = "https://" + testWorkspace + ".agentsvc." + testDomain + "/Accounts/" + testWorkspace + "/Nodes(AgentId='" + testGUID + "')"
	content = nodeURL + "/Configurations(ConfigurationName='" + defaultConfiguration + "')/ConfigurationContent"
	hasNone = `{"ClientStatus":[{"Checksum":"","ChecksumAlgorithm":"SHA-256"}]}`
	begun   = `{"JobId":"99999999-2222-4333-8444-555555555555","OperationType":"Consistency","NodeName":"host1","IpAddress":"10.0.0.4",` +
		`"ReportFormatVersion":"2.0","LCMVersion":"2.0","StartTime":"2024-01-02T03:04:05.123456789+00:00","Errors":[],"StatusData":["{\"Locale\":\"en-US\"}"]}`
	over = `{"JobId":"99999999-2222-4333-8444-555555555555","ConfigurationVersion":"2.0.0",` +
		`"ReportFormatVersion":"2.0","LCMVersion":"2.0","EndTime":"2024-01-02T03:04:06.123456789+00:00","Errors":["x"],"StatusData":["{\"Locale\":\"en-US\"}"]}`
)

// puller is a request as the agents' configuration client makes it.
func puller(t *testing.T, method, url, body string) *http.Request {
	t.Helper()
	r := post(t, url, body, map[string]string{"ProtocolVersion": "2.0", "Accept": "application/json", "Content-Type": "application/json; charset=utf-8"})
	r.Method = method
	return r
}

func TestConfigurationIsPushed(t *testing.T) {
	w := open(t)
	c := w.onboarded()
	action := func(status string, want string) {
		t.Helper()
		got := do(c, puller(t, "POST", nodeURL+"/GetDscAction", status))
		got.want(t, 200, "")
		if got.body != want {
			t.Errorf("GetDscAction answers %s, want %s", got.body, want)
		}
	}
	action(hasNone, `{"NodeStatus":"Ok","Details":[]}`)
	do(c, puller(t, "GET", content, "")).want(t, 404, "ConfigurationNotFound")

	const document = "instance of A { };"
	if err := w.SetConfiguration(Configuration{Workspace: strings.ToUpper(testWorkspace), Document: document}); err != nil {
		t.Fatal(err)
	}
	action(hasNone, `{"NodeStatus":"GetConfiguration","Details":[{"ConfigurationName":"`+defaultConfiguration+`","Status":"GetConfiguration"}]}`)
	got := do(c, puller(t, "GET", content, ""))
	got.want(t, 200, "")
	if got.body != document || got.header.Get("ChecksumAlgorithm") != "SHA-256" || got.header.Get("Checksum") != "265984605FBACAFEFBE99165BEC801384AE905310FC1A7DD5B22853B6DDABE48" {
		t.Errorf("content is %q with %v", got.body, got.header)
	}
	has := strings.Replace(hasNone, `"Checksum":""`, `"Checksum":"`+strings.ToLower(got.header.Get("Checksum"))+`"`, 1)
	action(has, `{"NodeStatus":"Ok","Details":[{"ConfigurationName":"`+defaultConfiguration+`","Status":"Ok"}]}`)

	do(c, puller(t, "POST", nodeURL+"/SendReport", over)).want(t, 400, "InvalidRequestBody")
	do(c, puller(t, "POST", nodeURL+"/SendReport", begun)).want(t, 201, "")
	do(c, puller(t, "POST", nodeURL+"/SendReport", over)).want(t, 201, "")
	reports := w.Reports()
	if len(reports) != 1 || reports[0].Node != "host1" || reports[0].Agent != testGUID || len(reports[0].Errors) != 1 || reports[0].Status != `{"Locale":"en-US"}` {
		t.Errorf("reports are %+v", reports)
	}
}

func TestConfigurationRefusals(t *testing.T) {
	w := open(t)
	c := w.onboarded()
	if err := w.SetConfiguration(Configuration{Workspace: testWorkspace, Document: "x"}); err != nil {
		t.Fatal(err)
	}
	action := nodeURL + "/GetDscAction"
	for name, tt := range map[string]struct {
		method, url, body string
		header, value     string
		status            int
		reason            string
	}{
		"protocol version": {"POST", action, hasNone, "ProtocolVersion", "1.0", 400, "InvalidHeader"},
		"no version":       {"POST", action, hasNone, "ProtocolVersion", "", 400, "MissingHeader"},
		"content type":     {"POST", action, hasNone, "Content-Type", "application/json", 400, "InvalidHeader"},
		"accept":           {"POST", action, hasNone, "Accept", "*/*", 400, "InvalidHeader"},
		"method":           {"GET", action, "", "", "", 405, "MethodNotAllowed"},
		"method of get":    {"POST", content, "", "", "", 405, "MethodNotAllowed"},
		"another node":     {"POST", strings.Replace(action, testGUID, testWorkspace, 1), hasNone, "", "", 403, "OtherNode"},
		"module":           {"GET", strings.Split(nodeURL, "/Nodes")[0] + "/Modules(ModuleName='x',ModuleVersion='1')/ModuleContent", "", "", "", 404, "UnknownPath"},
		"other name":       {"GET", strings.Replace(content, defaultConfiguration, "other", 1), "", "", "", 404, "ConfigurationNotFound"},
		"no checksum":      {"POST", action, `{"ClientStatus":[]}`, "", "", 400, "InvalidRequestBody"},
		"other digest":     {"POST", action, strings.Replace(hasNone, "SHA-256", "MD5", 1), "", "", 400, "InvalidRequestBody"},
		"half a digest":    {"POST", action, strings.Replace(hasNone, `:""`, `:"abc"`, 1), "", "", 400, "InvalidRequestBody"},
		"unknown member":   {"POST", action, `{"ClientState":[]}`, "", "", 400, "InvalidRequestBody"},
		"no job":           {"POST", nodeURL + "/SendReport", strings.Replace(begun, "99999999-", "", 1), "", "", 400, "InvalidRequestBody"},
		"no locale":        {"POST", nodeURL + "/SendReport", strings.Replace(begun, "Locale", "Local", 1), "", "", 400, "InvalidRequestBody"},
		"no time":          {"POST", nodeURL + "/SendReport", strings.Replace(begun, "2024-", "", 1), "", "", 400, "InvalidRequestBody"},
		"no node":          {"POST", nodeURL + "/SendReport", strings.Replace(begun, "host1", "", 1), "", "", 400, "InvalidRequestBody"},
		"other version":    {"POST", nodeURL + "/SendReport", strings.Replace(over, "2.0.0", "3.0.0", 1), "", "", 400, "InvalidRequestBody"},
	} {
		t.Run(name, func(t *testing.T) {
			r := puller(t, tt.method, tt.url, tt.body)
			if tt.header != "" {
				r.Header.Set(tt.header, tt.value)
			}
			do(c, r).want(t, tt.status, tt.reason)
		})
	}
	do(w.client(nil), puller(t, "POST", action, hasNone)).want(t, 403, "MissingClientCertificate")
}

func TestConfigurationAPI(t *testing.T) {
	w := open(t)
	send := func(body string) (int, string) {
		t.Helper()
		r := post(t, "http://"+w.apiAt+"/api/configurations", body, map[string]string{"Content-Type": "application/json"})
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, string(text)
	}
	for body, want := range map[string]string{
		`{"workspace":"99999999-2222-4333-8444-555555555555","document":"x"}`: "there is no workspace",
		`{"workspace":"` + testWorkspace + `","name":"a'b"}`:                  "has characters beside",
		`{"workspace":"` + testWorkspace + `","documents":"x"}`:               "unknown field",
	} {
		if status, text := send(body); status != 400 || !strings.Contains(text, want) {
			t.Errorf("%s: %d %s", body, status, text)
		}
	}
	large := strings.Repeat("x", maxAPIBody)
	for range 2 {
		status, text := send(`{"workspace":"` + testWorkspace + `","document":"` + large + `"}`)
		var list []Configuration
		if err := json.Unmarshal([]byte(text), &list); err != nil || status != 200 || len(list) != 1 || list[0].Document != large || list[0].Name != defaultConfiguration {
			t.Errorf("%d %.100s: %v", status, text, err)
		}
	}
}
