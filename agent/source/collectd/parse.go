package collectd

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/openloganalytics/agent/agent/source/sampling"
)

// A valueList is one measurement, as collectd's plugin write_http writes it.
// What is no number, as before the second value of a rate, is null.
type valueList struct {
	Values         []*float64 `json:"values"`
	DSNames        []string   `json:"dsnames"`
	Time           float64    `json:"time"` // seconds
	Host           string     `json:"host"`
	PluginInstance string     `json:"plugin_instance"`
	Type           string     `json:"type"`
	TypeInstance   string     `json:"type_instance"`
}

// maxName bounds each name; collectd's own have at most 63 or 127 bytes.
const maxName = 255

// parse reads an array of value lists, or one alone.
func parse(body []byte, now time.Time, computer string) ([]sampling.Counters, error) {
	body = bytes.TrimSpace(body)
	if len(body) > 0 && body[0] == '{' {
		body = append(append([]byte{'['}, body...), ']')
	}
	var lists []valueList
	if err := json.Unmarshal(body, &lists); err != nil {
		return nil, fmt.Errorf("it is no JSON array of value lists: %w", err)
	}
	counters := make([]sampling.Counters, 0, len(lists))
	for n, l := range lists {
		c, err := l.counters(now, computer)
		if err != nil {
			return nil, fmt.Errorf("value list %d %w", n, err)
		}
		if len(c.Values) > 0 {
			counters = append(counters, c)
		}
	}
	return counters, nil
}

// counters turns a value list into the counters of one instance.
func (l valueList) counters(now time.Time, computer string) (sampling.Counters, error) {
	if l.Type == "" {
		return sampling.Counters{}, errors.New("has no type")
	}
	if len(l.Values) != len(l.DSNames) {
		return sampling.Counters{}, fmt.Errorf("has %d values and %d names of data sources", len(l.Values), len(l.DSNames))
	}
	for _, name := range append([]string{l.Type, l.TypeInstance, l.PluginInstance, l.Host}, l.DSNames...) {
		if len(name) > maxName {
			return sampling.Counters{}, fmt.Errorf("has a name of %d bytes", len(name))
		}
	}
	c := sampling.Counters{Object: l.Type, Instance: l.PluginInstance, Host: l.host(computer), At: l.at(now)}
	if c.Instance == "" {
		c.Instance = "_Total"
	}
	for i, value := range l.Values {
		name := l.DSNames[i]
		if l.TypeInstance != "" {
			name = l.TypeInstance + "." + name
		}
		if value != nil && name != "" {
			c.Set(name, *value)
		}
	}
	return c, nil
}

// host names the computer as all other rows do, and another computer, whose
// values collectd passes on, as collectd does.
func (l valueList) host(computer string) string {
	short, _, _ := strings.Cut(l.Host, ".")
	if l.Host == "" || strings.EqualFold(short, computer) || strings.EqualFold(l.Host, "localhost") {
		return ""
	}
	return l.Host
}

// at is when collectd measured. What cannot be is told as now.
func (l valueList) at(now time.Time) time.Time {
	const oldest, newest = 48 * time.Hour, time.Minute
	age := float64(now.UnixMilli())/1000 - l.Time
	if l.Time <= 0 || age > oldest.Seconds() || age < -newest.Seconds() {
		return now
	}
	return time.UnixMilli(int64(math.Round(1000 * l.Time)))
}
