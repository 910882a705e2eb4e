package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/openloganalytics/agent/agent/source"
	"github.com/openloganalytics/agent/agent/source/apache"
	"github.com/openloganalytics/agent/agent/source/collectd"
	"github.com/openloganalytics/agent/agent/source/mysql"
	"github.com/openloganalytics/agent/agent/source/perf"
	"github.com/openloganalytics/agent/agent/source/postgresql"
	"github.com/openloganalytics/agent/agent/source/sampling"
	"github.com/openloganalytics/agent/agent/source/statsd"
	"github.com/openloganalytics/agent/internal/atomicfile"
	"github.com/openloganalytics/agent/internal/secret"
)

// measurements lists the sources of what is measured besides the counters of the
// machine: by VM insights, and by other programs.
func measurements(o Options, h *host) ([]source.Source, error) {
	cfg := o.Config.Sources
	var list []source.Source
	if cfg.Insights != nil {
		s, err := perf.NewInsights(perf.InsightsOptions{Interval: time.Duration(cfg.Insights.Interval), Computer: h.name})
		switch {
		case errors.Is(err, errors.ErrUnsupported):
			o.Log.Warn("metrics of VM insights are not collected", "error", err)
		case err != nil:
			return nil, fmt.Errorf("set up the metrics of VM insights: %w", err)
		default:
			list = append(list, s)
		}
	}
	passwords, err := readPasswords(o)
	if err != nil {
		return nil, err
	}
	rounding := sampling.Rounding(cfg.IntegerCounters)
	for _, a := range cfg.Applications {
		s, err := application(a, passwords[a.Name], h.name, rounding)
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	if c := cfg.Collectd; c != nil {
		list = append(list, collectd.New(collectd.Options{Port: c.Port, Computer: h.name, Log: o.Log}))
	}
	if s := cfg.Statsd; s != nil {
		list = append(list, statsd.New(statsd.Options{
			Port: s.Port, Interval: time.Duration(s.Interval), Percentile: s.Percentile, Computer: h.name,
		}))
	}
	return list, nil
}

func application(a Application, password secret.Secret, computer string, rounding sampling.Rounding) (source.Source, error) {
	interval := time.Duration(a.Interval)
	name := a.Kind
	if a.Name != a.Kind {
		name += ":" + a.Name
	}
	switch a.Kind {
	case "apache":
		return apache.New(apache.Options{Name: name, URL: a.URL, Interval: interval, Computer: computer, Rounding: rounding})
	case "mysql":
		return mysql.New(mysql.Options{
			Name: name, Address: a.Address, User: a.User, Password: password,
			Interval: interval, Computer: computer, Rounding: rounding,
		}), nil
	case "postgresql":
		return postgresql.New(postgresql.Options{
			Name: name, Address: a.Address, Database: a.Database, User: a.User, Password: password,
			Interval: interval, Computer: computer, Rounding: rounding,
		})
	}
	return nil, fmt.Errorf("set up application %s: there is no kind %q", a.Name, a.Kind)
}

// readPasswords reads the passwords of applications, by name, and keeps them out
// of the log.
func readPasswords(o Options) (map[string]secret.Secret, error) {
	data, err := atomicfile.ReadLimited(o.Layout.PasswordsFile(), 1<<20)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read passwords of applications: %w", err)
	}
	var passwords map[string]secret.Secret
	if err := json.Unmarshal(data, &passwords); err != nil {
		return nil, errors.New("read passwords of applications: the file is not a JSON object of texts")
	}
	for _, p := range passwords {
		o.Log.Scrub(p)
	}
	return passwords, nil
}
