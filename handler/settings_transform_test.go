package handler

import (
	"slices"
	"strings"
	"testing"

	"github.com/openloganalytics/agent/agent"
	"github.com/openloganalytics/agent/agent/transform"
)

const (
	loud = `{"name":"loud","headerProcessor":{"processor":"header.Syslog"},"processors":[{"processor":"filter.Basic",
		"configuration":{"any":[{"all":[{"columnName":"SeverityNumber","operator":"<=","value":4}]}]}}]}`
	hourly = `{"name":"hourly","headerProcessor":{"processor":"header.LinuxPerformanceCounters"},"processors":[{"processor":"aggregate.Basic",
		"configuration":{"batchingSettings":{"timeWindow":"1h","maxBatchRows":1000},"aggregates":[{"columnName":"Value","operator":"avg","nameAs":"Average"}],"dimensionColumns":["CounterName"]}}]}`
)

func withSources(t *testing.T, members ...string) (*Settings, error) {
	t.Helper()
	return parse(join(append(members, `"workspaceId":"`+testID+`"`)...), join(`"workspaceKey":"`+testKey+`"`))
}

func TestTransformationsOfARule(t *testing.T) {
	s, err := withSources(t, `"transformations":[`+loud+`,`+hourly+`]`, `"redaction":["*"]`,
		`"syslogListeners":[{"protocol":"udp","transform":"loud","streams":["Custom-Loud_CL"]}]`,
		`"dataSources":{
			"syslog":[{"streams":["Microsoft-Syslog"],"transform":"loud","facilityNames":["*"],"logLevels":["*"]},
				{"streams":["Microsoft-Syslog"],"facilityNames":["auth"],"logLevels":["*"]}],
			"performanceCounters":[{"streams":["Custom-Hours_CL"],"transform":"hourly","counterSpecifiers":["Memory(*)\\% Used Memory"]}]}`)
	if err != nil {
		t.Fatal(err)
	}
	c := s.Config
	if got := []agent.Way{c.Sources.Syslog.Selectors[0].Way, c.Sources.Syslog.Selectors[1].Way, c.Sources.Counters[0].Way, c.Sources.SyslogListeners[0].Selector.Way}; !slices.Equal(got,
		[]agent.Way{{Transform: "loud"}, {}, {Transform: "hourly", Table: "Hours_CL"}, {Transform: "loud", Table: "Loud_CL"}}) {
		t.Errorf("the ways are %+v", got)
	}
	if len(c.Transformations) != 2 || !slices.Equal(c.Redaction, transform.RedactKinds()) {
		t.Errorf("transformations %v, redaction %v", c.Transformations, c.Redaction)
	}
}

func TestBadTransformations(t *testing.T) {
	source := func(text string) string {
		return `"dataSources":{"syslog":[{"facilityNames":["*"],"logLevels":["*"],` + text + `}]}`
	}
	for _, c := range []struct{ transformations, source, field, fix string }{
		{strings.Replace(loud, "SeverityNumber", "SeverityNumbr", 1), source(`"transform":"loud"`), "transformations[0].processors[0].configuration.any[0].all[0].columnName", "SeverityNumber?"},
		{strings.Replace(loud, `"name":"loud",`, "", 1), source(`"streams":[]`), "transformations[0].name", "data sources refer"},
		{loud + "," + loud, source(`"transform":"loud"`), "transformations[1].name", "of its own"},
		{loud, source(`"transform":"lout"`), "dataSources.syslog[0].transform", "loud?"},
		{hourly, source(`"transform":"hourly"`), "dataSources.syslog[0].transform", "header.Syslog"},
		{loud, source(`"streams":["Custom-Loud_CL"]`), "dataSources.syslog[0].streams", "Microsoft-Syslog"},
		{loud, source(`"transform":"loud","streams":["Custom-Loud"]`), "dataSources.syslog[0].streams", "_CL"},
		{loud, source(`"transform":"loud","streams":["Custom-Loud_CL","Microsoft-Syslog"]`), "dataSources.syslog[0].streams", "second data source"},
		{strings.Replace(loud, `"processors":[`, `"processors":[{"processor":"map.Rename","configuration":{"all":[{"columnName":"Host","nameAs":"Server"}]}},`, 1), source(`"transform":"loud"`), "dataSources.syslog[0].transform", "Custom-<Name>_CL"},
	} {
		_, err := withSources(t, `"transformations":[`+c.transformations+`]`, c.source)
		if err == nil || !strings.Contains(err.Error(), c.field) || !strings.Contains(err.Error(), c.fix) {
			t.Errorf("%s %s\n  = %v\n  want %s with %q", c.transformations, c.source, err, c.field, c.fix)
		}
	}
	if _, err := withSources(t, `"redaction":["names"]`); err == nil || !strings.Contains(err.Error(), "redaction") || !strings.Contains(err.Error(), "cards") {
		t.Errorf("redaction of names = %v", err)
	}
}
