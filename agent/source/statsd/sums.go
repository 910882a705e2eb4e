package statsd

import (
	"bytes"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/openloganalytics/agent/agent/source/sampling"
)

// Limits on what is kept of one interval.
const (
	maxNames  = 10_000
	maxValues = 500_000 // of timers and sets together
	maxLength = 255     // of a name or of a value of a set, in bytes
)

// sums is what came in one interval.
type sums struct {
	timers   map[string][]float64
	counters map[string]float64
	sets     map[string]map[string]struct{}
	gauges   map[string]float64 // kept from one interval to the next

	changed bool // a gauge did
	values  int  // of timers and sets
	refused int  // for which there was no room
}

func newSums() *sums {
	s := &sums{gauges: map[string]float64{}}
	s.reset()
	return s
}

// reset begins a new interval.
func (s *sums) reset() {
	s.timers, s.counters, s.sets = map[string][]float64{}, map[string]float64{}, map[string]map[string]struct{}{}
	s.changed, s.values, s.refused = false, 0, 0
}

// room reports whether one more name, unless it is known, and so many values
// can be kept.
func (s *sums) room(known bool, values int) bool {
	names := len(s.timers) + len(s.counters) + len(s.sets) + len(s.gauges)
	if !known && names >= maxNames || s.values+values > maxValues {
		s.refused++
		return false
	}
	s.values += values
	return true
}

// parseLine adds a line name:value|type[|@rate][|#tags] to the sums, false when
// it is none. Tags of other dialects are passed over. Several values may follow
// one name: name:1|c:2|c and name:1:2|ms.
func parseLine(line []byte, s *sums) bool {
	line, _, _ = bytes.Cut(line, []byte("|#"))
	key, rest, ok := bytes.Cut(line, []byte(":"))
	name := cleanName(key)
	if !ok || name == "" || len(name) > maxLength {
		return false
	}
	var waiting [][]byte
	for part := range bytes.SplitSeq(rest, []byte(":")) {
		value, kind, typed := bytes.Cut(part, []byte("|"))
		waiting = append(waiting, bytes.TrimSpace(value))
		if !typed {
			continue
		}
		kind, more, _ := bytes.Cut(kind, []byte("|"))
		rate, ok := parseRate(more)
		if !ok {
			return false
		}
		for _, value := range waiting {
			if !s.add(name, string(bytes.TrimSpace(kind)), value, rate) {
				return false
			}
		}
		waiting = waiting[:0]
	}
	return len(waiting) == 0
}

// cleanName spells a name as StatsD does: blanks become _, slashes -, and what
// is no letter, digit, point, _ or - is left out.
func cleanName(key []byte) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ' || r == '\t':
			return '_'
		case r == '/':
			return '-'
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '_', r == '-', r == '.':
			return r
		}
		return -1
	}, string(key))
}

// parseRate reads @0.1, the share of events that a client sends; without it all
// are sent.
func parseRate(text []byte) (float64, bool) {
	text = bytes.TrimSpace(text)
	if len(text) == 0 {
		return 1, true
	}
	number, ok := bytes.CutPrefix(text, []byte("@"))
	rate, known := parseNumber(number)
	return rate, ok && known && rate > 0 && rate <= 1
}

func parseNumber(text []byte) (float64, bool) {
	v, err := strconv.ParseFloat(string(text), 64)
	return v, err == nil && !math.IsInf(v, 0) && !math.IsNaN(v)
}

// add adds one value of a type.
func (s *sums) add(name, kind string, text []byte, rate float64) bool {
	if kind == "s" {
		return s.addMember(name, text)
	}
	v, ok := parseNumber(text)
	if !ok {
		return false
	}
	switch kind {
	case "ms", "t", "h", "d": // timer, histogram, distribution
		_, known := s.timers[name]
		if s.room(known, 1) {
			s.timers[name] = append(s.timers[name], v)
		}
	case "c":
		_, known := s.counters[name]
		if s.room(known, 0) {
			s.counters[name] += v / rate
		}
	case "g":
		s.setGauge(name, v, text[0] == '+' || text[0] == '-')
	default:
		return false
	}
	return true
}

// setGauge sets a gauge, or changes it by a value that has a sign.
func (s *sums) setGauge(name string, v float64, relative bool) {
	was, known := s.gauges[name]
	if relative {
		v += was
	}
	if known && v == was || math.IsInf(v, 0) || !s.room(known, 0) {
		return
	}
	s.gauges[name] = v
	s.changed = true
}

func (s *sums) addMember(name string, text []byte) bool {
	if len(text) == 0 || len(text) > maxLength {
		return false
	}
	set, known := s.sets[name]
	if _, in := set[string(text)]; in || !s.room(known, 1) {
		return true
	}
	if !known {
		set = map[string]struct{}{}
		s.sets[name] = set
	}
	set[string(text)] = struct{}{}
	return true
}

// rows returns the sums of an interval as counters: names and formulas are
// those of the OMS agent for Linux.
func (s *sums) rows(elapsed time.Duration, percentile int) []sampling.Counters {
	var list []sampling.Counters
	one := func(object, instance, counter string, value float64) {
		c := sampling.Counters{Object: object, Instance: instance}
		c.Set(counter, value)
		list = append(list, c)
	}
	for _, name := range slices.Sorted(maps.Keys(s.timers)) {
		list = append(list, timer(name, s.timers[name], percentile))
	}
	for _, name := range slices.Sorted(maps.Keys(s.counters)) {
		if elapsed > 0 {
			one("StatsD Counter", name, "rate", s.counters[name]/elapsed.Seconds())
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.sets)) {
		one("StatsD Set", name, "count", float64(len(s.sets[name])))
	}
	for _, name := range slices.Sorted(maps.Keys(s.gauges)) {
		one("StatsD Gauge", name, "gauge", s.gauges[name])
	}
	return list
}

// timer sums up the values of a timer, of which there is one at least; and
// besides those in the threshold: the smallest, a share of percentile of all.
func timer(name string, values []float64, percentile int) sampling.Counters {
	slices.Sort(values)
	c := sampling.Counters{Object: "StatsD Timer", Instance: name}
	n := len(values)
	sum := total(values)
	c.Set("min", values[0])
	c.Set("max", values[n-1])
	c.Set("sum", sum)
	c.Set("count", float64(n))
	c.Set("mean", sum/float64(n))
	c.Set("median", median(values))
	within := n - int(math.Round(float64(100-percentile)/100*float64(n)))
	if n < 2 || percentile == 100 || within < 1 {
		return c
	}
	values = values[:within]
	sum = total(values)
	c.Set("max_at_threshold", values[within-1])
	c.Set("sum_in_threshold", sum)
	c.Set("count_in_threshold", float64(within))
	c.Set("mean_in_threshold", sum/float64(within))
	c.Set("median_in_threshold", median(values))
	return c
}

func total(values []float64) (sum float64) {
	for _, v := range values {
		sum += v
	}
	return sum
}

// median returns the middle of sorted values.
func median(values []float64) float64 {
	n := len(values)
	if n%2 == 1 {
		return values[n/2]
	}
	return (values[n/2-1] + values[n/2]) / 2
}
