package agent

import (
	"fmt"

	"github.com/openloganalytics/agent/agent/source"
	"github.com/openloganalytics/agent/agent/source/customlog"
	"github.com/openloganalytics/agent/agent/source/syslog"
	"github.com/openloganalytics/agent/agent/transform"
)

// route returns the route of a way. Each has a pipeline of its own.
func (c *Config) route(w Way) (r transform.Route, err error) {
	if w.Table != "" {
		if r.Table, err = customlog.Table(w.Table); err != nil {
			return r, err
		}
	}
	if w.Transform == "" {
		return r, nil
	}
	for _, spec := range c.Transformations {
		if spec.Name != w.Transform {
			continue
		}
		var problems []transform.Problem
		if r.Pipeline, problems = transform.New(spec); len(problems) > 0 {
			p := problems[0]
			return r, fmt.Errorf("read transformation %s: %s %s: %s", spec.Name, p.Field, p.Problem, p.Fix)
		}
		return r, nil
	}
	return r, fmt.Errorf("find transformation %s: there is none of that name", w.Transform)
}

// transformed returns s with its rows going the routes, or s itself when nothing
// is to be done with them. Only what people or programs write is redacted.
func (c *Config) transformed(s source.Source, redact bool, routes ...transform.Route) (source.Source, error) {
	o := transform.Options{Routes: routes}
	if redact && len(c.Redaction) > 0 {
		var err error
		if o.Redact, err = transform.NewRedactor(c.Redaction); err != nil {
			return nil, err
		}
	}
	if o.Redact == nil && len(routes) == 1 && routes[0].Pipeline == nil && routes[0].Table == nil {
		return s, nil
	}
	return transform.Wrap(s, o), nil
}

// syslogRoutes returns the routes of messages: one for all selectors that leave
// them as they are, and one for each other.
func (c *Config) syslogRoutes(list []SyslogSelector) ([]transform.Route, error) {
	var routes []transform.Route
	var plain []syslog.Selector
	for _, s := range list {
		selected := selectors([]SyslogSelector{s})
		if s.Way == (Way{}) {
			plain = append(plain, selected...)
			continue
		}
		r, err := c.route(s.Way)
		if err != nil {
			return nil, err
		}
		if r.Wanted, err = syslog.Wanted(selected); err != nil {
			return nil, err
		}
		routes = append(routes, r)
	}
	switch {
	case len(routes) == 0:
		return []transform.Route{{}}, nil
	case len(plain) == 0:
		return routes, nil
	}
	wanted, err := syslog.Wanted(plain)
	return append(routes, transform.Route{Wanted: wanted}), err
}

// messages returns a source of messages with its rows going the ways of the
// selectors.
func (c *Config) messages(s source.Source, selectors []SyslogSelector) (source.Source, error) {
	routes, err := c.syslogRoutes(selectors)
	if err != nil {
		return nil, err
	}
	return c.transformed(s, true, routes...)
}

// leftovers adds the source that emits the windows of sums whose source is gone.
func leftovers(list []source.Source, checkpoints func(string, func(string, []byte) bool)) []source.Source {
	names := make([]string, 0, len(list))
	for _, s := range list {
		names = append(names, s.Name())
	}
	if l := transform.Leftovers(checkpoints, names); l != nil {
		return append(list, l)
	}
	return list
}
