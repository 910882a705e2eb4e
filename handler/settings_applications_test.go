package handler

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openloganalytics/agent/agent"
)

func TestApplications(t *testing.T) {
	s, err := parse(`{"workspaceId":"`+testID+`","applications":[
		{"kind":"Apache"},
		{"kind":"mysql","address":"localhost:3307","user":"monitor","samplingFrequencyInSeconds":5},
		{"kind":"mysql","name":"shop"},
		{"kind":"postgresql","address":"/run/postgresql/.s.PGSQL.5433","database":"shop"}
	],"collectd":{},"statsd":{"port":9125,"flushIntervalInSeconds":30}}`,
		`{"workspaceKey":"`+testKey+`","applicationPasswords":{"mysql":"`+canary+`"}}`)
	if err != nil {
		t.Fatal(err)
	}
	want := []agent.Application{
		{Name: "apache", Kind: "apache", URL: "http://127.0.0.1/server-status?auto", Interval: seconds(60)},
		{Name: "mysql", Kind: "mysql", Address: "127.0.0.1:3307", User: "monitor", Interval: seconds(5)},
		{Name: "shop", Kind: "mysql", Address: "/run/mysqld/mysqld.sock", User: "log-analytics-agent", Interval: seconds(60)},
		{Name: "postgresql", Kind: "postgresql", Address: "/run/postgresql/.s.PGSQL.5433", User: "log-analytics-agent", Database: "shop", Interval: seconds(60)},
	}
	src := s.Config.Sources
	if diff := cmp.Diff(want, src.Applications); diff != "" {
		t.Errorf("applications (-want +got):\n%s", diff)
	}
	if src.Collectd == nil || src.Collectd.Port != 26000 {
		t.Errorf("collectd is %+v", src.Collectd)
	}
	if src.Statsd == nil || *src.Statsd != (agent.Statsd{Port: 9125, Interval: agent.Duration(30 * time.Second), Percentile: 90}) {
		t.Errorf("statsd is %+v", src.Statsd)
	}
	if len(s.Passwords) != 1 || s.Passwords["mysql"].Reveal() != canary {
		t.Errorf("passwords are of %d applications", len(s.Passwords))
	}
	if data, err := json.Marshal(s.Config); err != nil || strings.Contains(string(data), canary) {
		t.Errorf("the config holds the password: %v", err)
	}
	if s, err := parse(`{"workspaceId":"`+testID+`"}`, `{"workspaceKey":"`+testKey+`"}`); err != nil || s.Config.Sources.Applications != nil ||
		s.Config.Sources.Collectd != nil || s.Config.Sources.Statsd != nil {
		t.Errorf("without the settings: %+v, %v", s.Config.Sources, err)
	}
}

// A rule may name counters of applications; whether those are asked is said
// elsewhere.
func TestCountersOfApplicationsInARule(t *testing.T) {
	const rule = `"dataSources":{"performanceCounters":[{"counterSpecifiers":["MySQL Server(*)\\Key Cache Hit Pct","Memory(*)\\% Used Memory"]}]}`
	for applications, notes := range map[string]int{``: 1, `"applications":[{"kind":"mysql"}]`: 0, `"applications":[{"kind":"apache"}]`: 1} {
		s, err := parse(join(`"workspaceId":"`+testID+`"`, rule, applications), `{"workspaceKey":"`+testKey+`"}`)
		if err != nil {
			t.Errorf("%s: %v", applications, err)
			continue
		}
		if got := s.Config.Sources.Counters[0].Specifiers; len(got) != 1 || len(s.Notes) != notes {
			t.Errorf("%s: counters %q, notes %q", applications, got, s.Notes)
		}
	}
}

func TestBadApplications(t *testing.T) {
	for name, tt := range map[string]struct{ public, protected, field, fix string }{
		"no kind":              {`"applications":[{}]`, ``, "applications[0].kind", "postgresql"},
		"unknown kind":         {`"applications":[{"kind":"oracle"}]`, ``, "applications[0].kind", "mysql"},
		"odd name":             {`"applications":[{"kind":"mysql","name":"a b"}]`, ``, "applications[0].name", "letters"},
		"one name twice":       {`"applications":[{"kind":"mysql"},{"kind":"mysql"}]`, ``, "applications[1].name", "name of its own"},
		"URL elsewhere":        {`"applications":[{"kind":"apache","url":"http://10.0.0.4/server-status?auto"}]`, ``, "applications[0].url", "127.0.0.1"},
		"address elsewhere":    {`"applications":[{"kind":"mysql","address":"db.example.com:3306"}]`, ``, "applications[0].address", "not encrypted"},
		"address without port": {`"applications":[{"kind":"postgresql","address":"127.0.0.1"}]`, ``, "applications[0].address", "/run/postgresql"},
		"path that climbs":     {`"applications":[{"kind":"mysql","address":"/run/../etc/x"}]`, ``, "applications[0].address", "socket"},
		"URL of a database":    {`"applications":[{"kind":"mysql","url":"x"}]`, ``, "applications[0].url", ""},
		"database of MySQL":    {`"applications":[{"kind":"mysql","database":"x"}]`, ``, "applications[0].database", ""},
		"sampling":             {`"applications":[{"kind":"mysql","samplingFrequencyInSeconds":0}]`, ``, "samplingFrequencyInSeconds", "from 1"},
		"too many":             {`"applications":[` + strings.Repeat(`{"kind":"mysql"},`, 20) + `{"kind":"mysql"}]`, ``, "applications", "at most 20"},
		"low port":             {`"collectd":{"port":80}`, ``, "collectd.port", "from 1024"},
		"percentile":           {`"statsd":{"thresholdPercentile":0}`, ``, "statsd.thresholdPercentile", "from 1"},
		"password of nobody":   {`"applications":[{"kind":"mysql"}]`, `"applicationPasswords":{"mysqll":"` + canary + `"}`, "protected setting applicationPasswords.mysqll", "mysql?"},
		"password of Apache":   {`"applications":[{"kind":"apache"}]`, `"applicationPasswords":{"apache":"` + canary + `"}`, "protected setting applicationPasswords.apache", ""},
		"password no text":     {`"applications":[{"kind":"mysql"}]`, `"applicationPasswords":{"mysql":7}`, "protected setting applicationPasswords.mysql", "text"},
		"password in public":   {`"applications":[{"kind":"mysql","password":"x"}]`, ``, "applications[0].password", ""},
	} {
		_, err := parse(join(`"workspaceId":"`+testID+`"`, tt.public), join(`"workspaceKey":"`+testKey+`"`, tt.protected))
		if err == nil || !strings.Contains(err.Error(), tt.field) || !strings.Contains(err.Error(), tt.fix) || strings.Contains(err.Error(), canary) {
			t.Errorf("%s: %v, want %s and %q in it", name, err, tt.field, tt.fix)
		}
	}
}

// TestComplaint50ApplicationsAreSimpleToSetUp: counters of MySQL and Apache were
// hard to set up. What the docs show as a sample is taken as it is.
func TestComplaint50ApplicationsAreSimpleToSetUp(t *testing.T) {
	docs, err := os.ReadFile("../docs/settings.md")
	if err != nil {
		t.Fatal(err)
	}
	samples := 0
	for block := range strings.SplitSeq(string(docs), "\n\n") {
		sample := strings.TrimSpace(block)
		if !strings.HasPrefix(block, "    ") || !strings.HasPrefix(sample, `"applications"`) && !strings.HasPrefix(sample, `"collectd"`) {
			continue
		}
		samples++
		s, err := parse(join(`"workspaceId":"`+testID+`"`, sample), join(`"workspaceKey":"`+testKey+`"`, `"applicationPasswords":{}`))
		if err != nil {
			t.Errorf("%s\n%v", sample, err)
			continue
		}
		if n := len(s.Config.Sources.Applications); n != 3 && s.Config.Sources.Collectd == nil {
			t.Errorf("%s\n%d applications", sample, n)
		}
	}
	if samples != 2 {
		t.Errorf("%d samples in the docs, want 2", samples)
	}
}
