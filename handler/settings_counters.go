package handler

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/openloganalytics/agent/agent"
	"github.com/openloganalytics/agent/agent/source/perf"
)

// insightsStream carries the metrics of VM insights.
const insightsStream = "Microsoft-InsightsMetrics"

// insights takes the stream of VM insights, with the one specifier that stands
// for all of its metrics, out of a source of counters. It reports whether that
// was the only stream: then nothing is left of the source to be read.
func (s *Settings) insights(d *decoder, src *object) (whole bool) {
	src.text("scheduledTransferPeriod") // of older rules: rows are sent at once
	var names, specifiers []string
	if json.Unmarshal(src.peek("streams"), &names) != nil || !slices.Contains(names, insightsStream) {
		return false
	}
	names = slices.DeleteFunc(names, func(name string) bool { return name == insightsStream })
	if len(names) == 0 {
		s.wholeInsights(d, src)
		return true
	}
	if json.Unmarshal(src.peek("counterSpecifiers"), &specifiers) != nil {
		return false // as whoever reads on will find
	}
	interval, err := strconv.Atoi(strings.Trim(string(src.peek("samplingFrequencyInSeconds")), `"`))
	if err != nil {
		interval = defaultSampling
	}
	others := s.takeInsights(specifiers, interval)
	src.put("streams", names)
	if len(others) > 0 || len(specifiers) == 0 {
		src.put("counterSpecifiers", others)
		return false
	}
	for _, name := range names {
		if name != "Microsoft-Perf" {
			d.wrong(src.path+".streams", fmt.Sprintf("%q cannot be fed from here", name), fmt.Sprintf("give %q", insightsStream))
		}
	}
	src.put("streams", []string{insightsStream})
	src.put("counterSpecifiers", specifiers)
	s.wholeInsights(d, src)
	return true
}

// wholeInsights reads a source whose only stream is that of VM insights.
func (s *Settings) wholeInsights(d *decoder, src *object) {
	src.text("name")
	src.take("streams")
	interval := src.integer("samplingFrequencyInSeconds", defaultSampling, minSampling, maxSampling)
	specifiers := src.texts("counterSpecifiers")
	if len(specifiers) == 0 || len(specifiers) > maxSpecifiers {
		d.wrong(src.path+".counterSpecifiers", fmt.Sprintf("has %d entries", len(specifiers)), fmt.Sprintf("give 1 to %d", maxSpecifiers))
	}
	if others := s.takeInsights(specifiers, interval); len(others) > 0 {
		s.Notes = append(s.Notes, fmt.Sprintf("%s: the stream %s carries the metrics of VM insights, %s; its other counters would go to Azure Monitor Metrics, which this agent does not feed.",
			src.path, insightsStream, perf.InsightsSpecifier))
	}
}

// takeInsights takes the specifier of VM insights, and returns the others.
func (s *Settings) takeInsights(specifiers []string, interval int) []string {
	others := slices.DeleteFunc(slices.Clone(specifiers), func(spec string) bool {
		return strings.EqualFold(strings.TrimSpace(spec), perf.InsightsSpecifier)
	})
	if len(others) == len(specifiers) {
		return others
	}
	if now := s.Config.Sources.Insights; now == nil || seconds(interval) < now.Interval {
		s.Config.Sources.Insights = &agent.Insights{Interval: seconds(interval)}
	}
	return others
}

// counterValues reads how the values of counters are rounded.
func (s *Settings) counterValues(d *decoder, pub *object) {
	switch text := pub.text("counterValues"); text {
	case "", "precise":
	case "integer":
		s.Config.Sources.IntegerCounters = true
	default:
		d.wrong("counterValues", fmt.Sprintf("%q is not known", text), `give "precise", or "integer" for the whole numbers of the earlier Log Analytics agent`)
	}
}

// put gives a member another value.
func (o *object) put(name string, value []string) {
	data, err := json.Marshal(value)
	if err != nil {
		panic("BUG: texts do not marshal: " + err.Error())
	}
	o.members[name] = data
}

// defaultSampling is how often counters are sampled, in seconds, when a source
// does not say.
const defaultSampling = 60
