package handler

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openloganalytics/agent/agent"
	"github.com/openloganalytics/agent/agent/source/perf"
	"github.com/openloganalytics/agent/extension"
	"github.com/openloganalytics/agent/internal/secret"
)

const (
	testID  = "11111111-2222-3333-4444-555555555555"
	testKey = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+Pw=="
)

func parse(public, protected string) (*Settings, error) {
	return ParseSettings(json.RawMessage(public), secret.New(protected))
}

func TestMinimalSettingsGetDefaults(t *testing.T) {
	s, err := parse(`{"workspaceId":"`+strings.ToUpper(testID)+`"}`, `{"workspaceKey":"`+testKey+`"}`)
	if err != nil {
		t.Fatal(err)
	}
	c := s.Config
	if len(c.Workspaces) != 1 || c.Workspaces[0].ID != testID || s.Keys[testID].Reveal() != testKey {
		t.Errorf("workspaces are %+v", c.Workspaces)
	}
	if c.Limits != (agent.Limits{DiskMB: 1024, CPUPercent: 20, MemoryMB: 256}) {
		t.Errorf("limits are %+v", c.Limits)
	}
	if c.Sources.Syslog == nil || len(c.Sources.Counters) != 1 || len(c.Sources.Counters[0].Specifiers) == 0 || time.Duration(c.Sources.Heartbeat.Interval) != time.Minute {
		t.Errorf("default sources are %+v", c.Sources)
	}
}

func TestDataSourcesOfARule(t *testing.T) {
	s, err := parse(`{
		"workspaceId": "`+testID+`",
		"stopOnMultipleConnections": "true",
		"skipDockerProviderInstall": true,
		"diskQuotaInMB": "512",
		"dataSources": {
			"syslog": [{"name": "s", "streams": ["Microsoft-Syslog"], "facilityNames": ["auth", "LOCAL3"], "logLevels": ["Warning", "Error", "Critical"]}],
			"performanceCounters": [{"name": "p", "streams": ["Microsoft-Perf"], "samplingFrequencyInSeconds": 10,
				"counterSpecifiers": ["Processor(*)\\% Processor Time", "\\Memory(*)\\% Used Memory"]}],
			"logFiles": [{"name": "l", "streams": ["Custom-MyApp_CL"], "filePatterns": ["/var/log/myapp/*.log"], "format": "text"},
				{"streams": ["Custom-Lines_CL"], "filePatterns": ["/var/log/%Y/**/*.log"], "excludeFilePatterns": ["/var/log/%Y/**/debug.log"], "encoding": "Shift_JIS",
					"settings": {"text": {"recordStartTimestampFormat": "ISO 8601", "timeZone": "UTC"}}},
				{"streams": ["Custom-Objects_CL"], "filePatterns": ["/var/log/o.json"], "format": "json"}]
		}}`, `{"workspaceKey":"`+testKey+`","domain":"opinsights.azure.us"}`)
	if err != nil {
		t.Fatal(err)
	}
	src := s.Config.Sources
	if want := (agent.SyslogSelector{Facilities: []string{"auth", "local3"}, Severities: []string{"warning", "err", "crit"}}); len(src.Syslog.Selectors) != 1 ||
		!slices.Equal(src.Syslog.Selectors[0].Facilities, want.Facilities) || !slices.Equal(src.Syslog.Selectors[0].Severities, want.Severities) {
		t.Errorf("syslog is %+v, want %+v", src.Syslog.Selectors, want)
	}
	if len(src.Counters) != 1 || time.Duration(src.Counters[0].Interval) != 10*time.Second || len(src.Counters[0].Specifiers) != 2 {
		t.Errorf("counters are %+v", src.Counters)
	}
	if len(src.CustomLogs) != 3 || src.CustomLogs[0].Table != "MyApp_CL" || src.CustomLogs[0].Patterns[0] != "/var/log/myapp/*.log" {
		t.Errorf("custom logs are %+v", src.CustomLogs)
	}
	if l := src.CustomLogs[1]; l.StartFormat != "ISO 8601" || l.TimeZone != "UTC" || l.Encoding != "shift_jis" || len(l.Exclude) != 1 || !src.CustomLogs[2].JSON {
		t.Errorf("custom logs are %+v", src.CustomLogs)
	}
	if !s.StopOnMultipleConnections || s.Config.Limits.DiskMB != 512 || s.Config.Workspaces[0].Domain != "opinsights.azure.us" {
		t.Errorf("settings are %+v", s)
	}
	if len(s.Notes) != 1 || !strings.Contains(s.Notes[0], "skipDockerProviderInstall") {
		t.Errorf("notes are %q", s.Notes)
	}
}

// A rule as VM insights makes it, one with the counters of both streams, and
// one for Azure Monitor Metrics.
func TestCountersOfBothStreams(t *testing.T) {
	const processor = `Processor(*)\% Processor Time`
	for name, tt := range map[string]struct {
		sources  string
		insights int // seconds, 0 is none
		counters []string
		note     string
	}{
		"VM insights": {
			`{"name":"VMInsightsPerfCounters","streams":["Microsoft-InsightsMetrics"],"scheduledTransferPeriod":"PT1M","samplingFrequencyInSeconds":60,"counterSpecifiers":["\\VmInsights\\DetailedMetrics"]}`,
			60, nil, "",
		},
		"both streams": {
			`{"streams":["Microsoft-Perf","Microsoft-InsightsMetrics"],"samplingFrequencyInSeconds":15,"counterSpecifiers":["\\vminsights\\detailedmetrics","Processor(*)\\% Processor Time"]}`,
			15,
			[]string{processor},
			"",
		},
		"both streams, insights alone": {
			`{"name":"n","streams":["Microsoft-Perf","Microsoft-InsightsMetrics"],"samplingFrequencyInSeconds":15,"counterSpecifiers":["\\VmInsights\\DetailedMetrics"]}`,
			15, nil, "",
		},
		"the shorter interval counts": {
			`{"streams":["Microsoft-InsightsMetrics"],"samplingFrequencyInSeconds":30,"counterSpecifiers":["\\VmInsights\\DetailedMetrics"]},
			 {"streams":["Microsoft-InsightsMetrics"],"samplingFrequencyInSeconds":60,"counterSpecifiers":["\\VmInsights\\DetailedMetrics"]}`,
			30, nil, "",
		},
		"Azure Monitor Metrics": {
			`{"streams":["Microsoft-InsightsMetrics"],"counterSpecifiers":["Processor(*)\\% Processor Time"]}`,
			0, nil, "dataSources.performanceCounters[0]: the stream Microsoft-InsightsMetrics carries the metrics of VM insights",
		},
		"insights in the wrong stream": {
			`{"streams":["Microsoft-Perf"],"counterSpecifiers":["\\VmInsights\\DetailedMetrics"]}`,
			0,
			[]string{},
			"this Windows counter has no equal on Linux",
		},
	} {
		s, err := parse(`{"workspaceId":"`+testID+`","dataSources":{"performanceCounters":[`+tt.sources+`]}}`, `{"workspaceKey":"`+testKey+`"}`)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		src := s.Config.Sources
		if (src.Insights != nil) != (tt.insights > 0) || src.Insights != nil && src.Insights.Interval != seconds(tt.insights) {
			t.Errorf("%s: insights are %+v", name, src.Insights)
		}
		var counters []string
		for _, c := range src.Counters {
			counters = append(counters, c.Specifiers...)
		}
		if !slices.Equal(counters, tt.counters) || (tt.counters == nil) != (len(src.Counters) == 0) {
			t.Errorf("%s: counters are %+v", name, src.Counters)
		}
		if notes := strings.Join(s.Notes, " "); (tt.note == "") != (notes == "") || !strings.Contains(notes, tt.note) {
			t.Errorf("%s: notes are %q", name, notes)
		}
	}
}

func TestCounterValues(t *testing.T) {
	for text, integer := range map[string]bool{``: false, `"counterValues":"precise"`: false, `"counterValues":"integer"`: true} {
		s, err := parse(join(`"workspaceId":"`+testID+`"`, text), `{"workspaceKey":"`+testKey+`"}`)
		if err != nil || s.Config.Sources.IntegerCounters != integer {
			t.Errorf("%s: %+v, %v", text, s, err)
		}
	}
}

func TestSeveralWorkspaces(t *testing.T) {
	other := strings.Replace(testID, "1111", "9999", 1)
	s, err := parse(`{"workspaces":[{"id":"`+testID+`","name":"a"},{"id":"`+other+`"}]}`,
		`{"workspaceKeys":{"`+testID+`":"`+testKey+`","`+strings.ToUpper(other)+`":"`+testKey+`"}}`)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Config.Workspaces) != 2 || s.Config.Workspaces[0].Name != "a" || len(s.Keys) != 2 {
		t.Errorf("settings are %+v", s)
	}
}

func TestProxyHalves(t *testing.T) {
	for _, tt := range []struct{ public, protected, want string }{
		{``, `"proxy":"http://u:p@proxy:3128"`, "http://u:p@proxy:3128"},
		{`"proxy":{"mode":"application","host":"proxy","port":3128}`, ``, "proxy:3128"},
		{`"proxy":{"host":"proxy","port":"3128"}`, `"proxy":{"username":"u@x","password":"a:b/ü"}`, "u%40x:a%3Ab%2F%C3%BC@proxy:3128"},
		{`"proxy":{"host":"fd00::1","port":3128}`, ``, "[fd00::1]:3128"},
		{`"proxy":{"mode":"none"}`, ``, ""},
		{`"proxy":{"mode":"none","host":"proxy"}`, `"proxy":"http://other:1"`, "http://other:1"},
	} {
		s, err := parse(join(`"workspaceId":"`+testID+`"`, tt.public), join(`"workspaceKey":"`+testKey+`"`, tt.protected))
		if err != nil {
			t.Errorf("%s %s: %v", tt.public, tt.protected, err)
			continue
		}
		if s.Proxy.Reveal() != tt.want {
			t.Errorf("%s %s: proxy is %q, want %q", tt.public, tt.protected, s.Proxy.Reveal(), tt.want)
		}
	}
}

func join(members ...string) string {
	return "{" + strings.Join(slices.DeleteFunc(members, func(m string) bool { return m == "" }), ",") + "}"
}

// canary stands where a user could have put a secret; no message may show it.
const canary = "cGFzc3dvcmQtb2YtdGhlLXByb3h5LWFuZC1rZXktb2YtdGhlLXdvcmtzcGFjZQ"

func TestBadSettings(t *testing.T) {
	id, key := `"workspaceId":"`+testID+`"`, `"workspaceKey":"`+testKey+`"`
	sources := func(text string) string { return join(id, `"dataSources":{`+text+`}`) }
	for name, tt := range map[string]struct{ public, protected, field, fix string }{
		"no workspace id":          {`{}`, join(key), "workspaceId", "portal"},
		"workspace id no GUID":     {`{"workspaceId":"my-workspace"}`, join(key), "workspaceId", "hexadecimal"},
		"workspace id a number":    {`{"workspaceId":7}`, join(key), "workspaceId", "text in quotes"},
		"no key":                   {join(id), `{}`, "protected setting workspaceKey", "primary or secondary key"},
		"no protected settings":    {join(id), ``, "protected setting workspaceKey", "primary or secondary key"},
		"key not base64":           {join(id), `{"workspaceKey":"` + canary + `!"}`, "protected setting workspaceKey", "primary or secondary key"},
		"key too short":            {join(id), `{"workspaceKey":"c2hvcnQ="}`, "protected setting workspaceKey", "64"},
		"key a number":             {join(id), `{"workspaceKey":12345678}`, "protected setting workspaceKey", "text in quotes"},
		"key of unnamed workspace": {join(id), join(key, `"workspaceKeys":{"99999999-2222-3333-4444-555555555555":"`+testKey+`"}`), "workspaceKeys", "name the workspace"},
		"unknown field":            {join(id, `"workspaceID":"x"`), join(key), "workspaceID", "did you mean workspaceId?"},
		"unknown protected field":  {join(id), join(key, `"`+canary+canary+`":"x"`), "protected setting", "list of settings"},
		"misspelt key":             {join(id), `{"workspacekey":"` + canary + `"}`, "protected setting workspacekey", "did you mean workspaceKey?"},
		"wrong type":               {join(id, `"stopOnMultipleConnections":"yes"`), join(key), "stopOnMultipleConnections", "true or false"},
		"log of unknown format":    {sources(`"logFiles":[{"streams":["Custom-A_CL"],"filePatterns":["/a"],"format":"csv"}]`), join(key), "dataSources.logFiles[0].format", "json"},
		"unknown time format":      {sources(`"logFiles":[{"streams":["Custom-A_CL"],"filePatterns":["/a"],"settings":{"text":{"recordStartTimestampFormat":"HH:MM"}}}]`), join(key), "dataSources.logFiles[0].settings.text.recordStartTimestampFormat", "ISO 8601"},
		"bad start pattern":        {sources(`"logFiles":[{"streams":["Custom-A_CL"],"filePatterns":["/a"],"settings":{"text":{"recordStartPattern":"("}}}]`), join(key), "dataSources.logFiles[0].settings.text.recordStartPattern", "RE2"},
		"two starts":               {sources(`"logFiles":[{"streams":["Custom-A_CL"],"filePatterns":["/a"],"settings":{"text":{"recordStartTimestampFormat":"ISO 8601","recordStartPattern":"a"}}}]`), join(key), "dataSources.logFiles[0].settings.text.recordStartPattern", "one of the two"},
		"start of JSON":            {sources(`"logFiles":[{"streams":["Custom-A_CL"],"filePatterns":["/a"],"format":"json","settings":{"text":{"recordStartPattern":"a"}}}]`), join(key), "dataSources.logFiles[0].settings.text", "text"},
		"unknown zone":             {sources(`"logFiles":[{"streams":["Custom-A_CL"],"filePatterns":["/a"],"settings":{"text":{"timeZone":"Mars/Olympus"}}}]`), join(key), "dataSources.logFiles[0].settings.text.timeZone", "Europe/Berlin"},
		"unknown encoding":         {sources(`"logFiles":[{"streams":["Custom-A_CL"],"filePatterns":["/a"],"encoding":"ebcdic"}]`), join(key), "dataSources.logFiles[0].encoding", "shift_jis"},
		"unknown date code":        {sources(`"logFiles":[{"streams":["Custom-A_CL"],"filePatterns":["/a"],"excludeFilePatterns":["/a/%Q"]}]`), join(key), "dataSources.logFiles[0].excludeFilePatterns[0]", "%Y"},
		"protected not JSON":       {join(id), canary, "protected settings", "JSON object"},
		"public not an object":     {`[1]`, join(key), "public settings", "JSON object"},
		"two objects":              {join(id), join(key) + join(key), "protected settings", "JSON object"},
		"domain with a port":       {join(id), join(key, `"domain":"evil.example:8443"`), "domain", "opinsights.azure.com"},
		"domain an address":        {join(id), join(key, `"domain":"10.0.0.1"`), "domain", "opinsights.azure.com"},
		"domain with a path":       {join(id), join(key, `"domain":"evil.example/x"`), "domain", "opinsights.azure.com"},
		"proxy malformed":          {join(id), join(key, `"proxy":"ftp://u:`+canary+`@h"`), "protected setting proxy", "[scheme://]"},
		"resource id":              {join(id), join(key, `"vmResourceId":"vm1"`), "vmResourceId", "/subscriptions/"},
		"quota out of range":       {join(id, `"diskQuotaInMB":1`), join(key), "diskQuotaInMB", "from 32"},
		"rule not supported":       {join(id, `"dataCollectionRules":[{}]`), join(key), "dataCollectionRules", "dataSources"},
		"facility":                 {sources(`"syslog":[{"facilityNames":["auht"],"logLevels":["*"]}]`), join(key), "dataSources.syslog[0].facilityNames", "auth"},
		"level":                    {sources(`"syslog":[{"facilityNames":["auth"],"logLevels":["Warn!"]}]`), join(key), "dataSources.syslog[0].logLevels", "Warning"},
		"counter":                  {sources(`"performanceCounters":[{"counterSpecifiers":["Processor(*)\\% Procesor Time"]}]`), join(key), "counterSpecifiers[0]", "% Processor Time"},
		"counter stream":           {sources(`"performanceCounters":[{"streams":["Microsoft-Syslog"],"counterSpecifiers":["Memory(*)\\% Used Memory"]}]`), join(key), "performanceCounters[0].streams", "Microsoft-Perf"},
		"insights, no specifier":   {sources(`"performanceCounters":[{"streams":["Microsoft-InsightsMetrics"]}]`), join(key), "performanceCounters[0].counterSpecifiers", "1 to 100"},
		"insights, sampling":       {sources(`"performanceCounters":[{"streams":["Microsoft-Perf","Microsoft-InsightsMetrics"],"samplingFrequencyInSeconds":0,"counterSpecifiers":["Memory(*)\\% Used Memory","\\VmInsights\\DetailedMetrics"]}]`), join(key), "samplingFrequencyInSeconds", "from 1"},
		"insights, other member":   {sources(`"performanceCounters":[{"streams":["Microsoft-InsightsMetrics"],"counterSpecifiers":["\\VmInsights\\DetailedMetrics"],"frequency":1}]`), join(key), "performanceCounters[0].frequency", ""},
		"counter values":           {join(id, `"counterValues":"rounded"`), join(key), "counterValues", `"integer"`},
		"sampling":                 {sources(`"performanceCounters":[{"samplingFrequencyInSeconds":0,"counterSpecifiers":["Memory(*)\\% Used Memory"]}]`), join(key), "samplingFrequencyInSeconds", "from 1"},
		"table":                    {sources(`"logFiles":[{"streams":["Custom-My App_CL"],"filePatterns":["/a"]}]`), join(key), "logFiles[0].streams", "Custom-<Name>_CL"},
		"relative path":            {sources(`"logFiles":[{"streams":["Custom-A_CL"],"filePatterns":["app.log"]}]`), join(key), "filePatterns[0]", "absolute"},
		"path with dots":           {sources(`"logFiles":[{"streams":["Custom-A_CL"],"filePatterns":["/var/log/../../etc/shadow"]}]`), join(key), "filePatterns[0]", "absolute"},
		"windows source":           {sources(`"iisLogs":[{}]`), join(key), "dataSources.iisLogs", "Windows"},
		"certificates file":        {join(id, `"trustedCertificatesFile":"ca.pem"`), join(key), "trustedCertificatesFile", "whole path"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(tt.public, tt.protected)
			if err == nil {
				t.Fatal("the settings were taken")
			}
			if code := extension.CodeOf(err); code != extension.ExitBadSettings {
				t.Errorf("exit code is %d, want %d", code, extension.ExitBadSettings)
			}
			if _, ok := errors.AsType[*extension.SettingsError](err); !ok {
				t.Fatalf("error is a %T, want one that names the field", err)
			}
			text := err.Error()
			if !strings.Contains(text, tt.field) || !strings.Contains(text, tt.fix) {
				t.Errorf("got %q, want the field %q and the fix %q", text, tt.field, tt.fix)
			}
			for _, hidden := range []string{canary, testKey} {
				if strings.Contains(text, hidden) {
					t.Errorf("the message shows a protected value: %q", text)
				}
			}
		})
	}
}

func TestTrustedCertificatesAreRead(t *testing.T) {
	dir := t.TempDir()
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("secret")})
	good := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	for name, data := range map[string][]byte{"good.pem": append(key, good...), "bad.pem": []byte("no certificate"), "large.pem": bytes.Repeat([]byte("x"), 2<<20)} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, say := range map[string]string{"good.pem": "", "bad.pem": "no PEM", "large.pem": "cannot be read", "none.pem": "cannot be read"} {
		s, err := parse(join(`"workspaceId":"`+testID+`"`, `"trustedCertificatesFile":"`+filepath.Join(dir, name)+`"`), join(`"workspaceKey":"`+testKey+`"`))
		if err != nil {
			t.Fatal(err)
		}
		err = s.readTrusted()
		if say == "" {
			if err != nil || s.Config.TrustedCertificates != string(good) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), say) || extension.CodeOf(err) != extension.ExitBadSettings {
			t.Errorf("%s: got %v, want %q", name, err, say)
		}
	}
}

func TestEveryProblemIsToldAtOnce(t *testing.T) {
	_, err := parse(`{"workspaceId":"x","cpuQuotaPercentage":0}`, `{}`)
	var all SettingsErrors
	if !errors.As(err, &all) || len(all) < 2 {
		t.Fatalf("got %v, want every wrong field", err)
	}
}

func TestGenerationFollowsEverySetting(t *testing.T) {
	seen := map[string]string{}
	for _, tt := range [][2]string{
		{join(`"workspaceId":"` + testID + `"`), join(`"workspaceKey":"` + testKey + `"`)},
		{join(`"workspaceId":"`+testID+`"`, `"diskQuotaInMB":64`), join(`"workspaceKey":"` + testKey + `"`)},
		{join(`"workspaceId":"` + testID + `"`), join(`"workspaceKey":"B` + testKey[1:] + `"`)},
		{join(`"workspaceId":"` + testID + `"`), join(`"workspaceKey":"`+testKey+`"`, `"proxy":"p:1"`)},
		{join(`"workspaceId":"`+testID+`"`, `"applications":[{"kind":"mysql"}]`), join(`"workspaceKey":"` + testKey + `"`)},
		{join(`"workspaceId":"`+testID+`"`, `"applications":[{"kind":"mysql"}]`), join(`"workspaceKey":"`+testKey+`"`, `"applicationPasswords":{"mysql":"a"}`)},
		{join(`"workspaceId":"`+testID+`"`, `"applications":[{"kind":"mysql"}]`), join(`"workspaceKey":"`+testKey+`"`, `"applicationPasswords":{"mysql":"b"}`)},
	} {
		s, err := parse(tt[0], tt[1])
		if err != nil {
			t.Fatal(err)
		}
		g := s.Generation()
		if before, ok := seen[g]; ok {
			t.Errorf("settings %v and %v have the same generation", before, tt)
		}
		if again := s.Generation(); again != g {
			t.Errorf("generation of the same settings changed from %s to %s", g, again)
		}
		seen[g] = tt[0] + tt[1]
	}
}

// TestWhoMayChoose: the workspace may when the settings name no data sources and
// do not forbid it, and any file of the machine only when they say so.
func TestWhoMayChoose(t *testing.T) {
	for _, tt := range []struct {
		settings         string
		origin           string
		follows, anyFile bool
		note             bool
	}{
		{``, agent.OriginDefault, true, false, false},
		{`,"useWorkspaceConfiguration":true`, agent.OriginDefault, true, true, false},
		{`,"useWorkspaceConfiguration":"false"`, agent.OriginDefault, false, false, false},
		{`,"dataSources":{}`, agent.OriginSettings, false, false, false},
		{`,"dataSources":{},"useWorkspaceConfiguration":false`, agent.OriginSettings, false, false, false},
		{`,"dataSources":{},"useWorkspaceConfiguration":true`, agent.OriginSettings, false, false, true},
	} {
		s, err := parse(`{"workspaceId":"`+testID+`"`+tt.settings+`}`, `{"workspaceKey":"`+testKey+`"}`)
		if err != nil {
			t.Errorf("%s: %v", tt.settings, err)
			continue
		}
		c := s.Config
		if c.Origin != tt.origin || c.FollowWorkspace != tt.follows || c.AnyFile != tt.anyFile || tt.note != (len(s.Notes) == 1) {
			t.Errorf("%s: from %s, follows %v, any file %v, notes %q", tt.settings, c.Origin, c.FollowWorkspace, c.AnyFile, s.Notes)
		}
		// Where the workspace may choose, the syslog daemon passes on everything.
		passed := passedOn(&c)
		if all := passed != nil && slices.Equal(passed.Selectors[0].Facilities, []string{"*"}) && slices.Equal(passed.Selectors[0].Severities, []string{"*"}); all != tt.follows {
			t.Errorf("%s: passed on is %+v", tt.settings, passed)
		}
		st := &state{}
		(&Handler{}).adopt(st, &extension.Invocation{Env: &extension.Environment{}, Now: time.Now}, s)
		if st.ReadAll != tt.anyFile || st.ReadsTmp != tt.anyFile || st.ReadsHome != tt.anyFile {
			t.Errorf("%s: rights are %+v", tt.settings, st)
		}
	}
}

// TestLogsOfOneTable are one source: it has all their paths.
func TestLogsOfOneTable(t *testing.T) {
	const log = `{"streams":["Custom-App_CL"],"format":"text","fromStart":%s,"filePatterns":["/var/log/%s.log"]}`
	with := func(second string) string {
		return `{"workspaceId":"` + testID + `","dataSources":{"logFiles":[` + fmt.Sprintf(log, "true", "a") + "," + fmt.Sprintf(log, second, "b") + "," + fmt.Sprintf(log, "true", "a") + `]}}`
	}
	s, err := parse(with("true"), `{"workspaceKey":"`+testKey+`"}`)
	if err != nil {
		t.Fatal(err)
	}
	if logs := s.Config.Sources.CustomLogs; len(logs) != 1 || !slices.Equal(logs[0].Patterns, []string{"/var/log/a.log", "/var/log/b.log"}) {
		t.Errorf("logs are %+v", logs)
	}
	if _, err := parse(with("false"), `{"workspaceKey":"`+testKey+`"}`); err == nil || !strings.Contains(err.Error(), "dataSources.logFiles[1].streams") {
		t.Errorf("two beginnings of one table: %v", err)
	}
}

func FuzzParseSettings(f *testing.F) {
	f.Add(`{"workspaceId":"`+testID+`"}`, `{"workspaceKey":"`+testKey+`"}`)
	f.Add(`{"dataSources":{"syslog":[null,{}],"logFiles":[{"streams":null}]}}`, `{"proxy":{}}`)
	f.Add(`{"proxy":{"host":"a"}}`, `{"proxy":{"username":"u"},"workspaceKeys":{"a":1}}`)
	f.Fuzz(func(t *testing.T, public, protected string) {
		s, err := parse(public, protected)
		if (s == nil) == (err == nil) {
			t.Fatalf("got settings %v and error %v", s != nil, err)
		}
	})
}

// The documentation names every setting and every default counter.
func TestDocumentationIsWhole(t *testing.T) {
	text, err := os.ReadFile("../docs/settings.md")
	if err != nil {
		t.Fatal(err)
	}
	d := &decoder{}
	pub, prot := d.object("", json.RawMessage(`{"dataSources":{}}`), false), d.object("", nil, true)
	s := &Settings{Keys: map[string]secret.Secret{}}
	sources := pub.object("dataSources")
	s.public(d, pub)
	s.sources(d, sources, true)
	s.proxy(d, nil, prot)
	s.keys(d, prot)
	s.passwords(prot)
	names := append(append([]string{"domain", "vmResourceId"}, prot.known...), pub.known...)
	if len(names) < 15 {
		t.Fatalf("only %d settings are known: %q", len(names), names)
	}
	for _, name := range names {
		if _, out := later[name]; !out && !strings.Contains(string(text), "`"+name+"`") {
			t.Errorf("docs/settings.md does not name %s", name)
		}
	}
	for _, specifier := range perf.DefaultSpecifiers() {
		object, counter, _ := strings.Cut(specifier, `\`)
		if !strings.Contains(string(text), object) || !strings.Contains(string(text), counter) {
			t.Errorf("docs/settings.md does not name the default counter %s", specifier)
		}
	}
}

func TestPatternsThatNeedAnOpenerUnit(t *testing.T) {
	for _, tt := range []struct {
		pattern   string
		tmp, home bool
	}{
		{"/var/log/app/*.log", false, false},
		{"/tmp/app.log", true, false},
		{"/var/tmp/**", true, false},
		{"/home/*/app.log", false, true},
		{"/root/app.log", false, true},
		{"/**/app.log", true, true},
		{"/h*/app.log", false, true},
		{"/var/*/app.log", true, false},
	} {
		if got := below(tt.pattern, "/tmp", "/var/tmp"); got != tt.tmp {
			t.Errorf("%s below the temporary folders: %v", tt.pattern, got)
		}
		if got := below(tt.pattern, "/home", "/root"); got != tt.home {
			t.Errorf("%s below the homes: %v", tt.pattern, got)
		}
	}
}
