package agent

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/openloganalytics/agent/agent/source/customlog"
	"github.com/openloganalytics/agent/agent/source/perf"
	"github.com/openloganalytics/agent/agent/source/syslog"
	"github.com/openloganalytics/agent/agent/source/tail"
	"github.com/openloganalytics/agent/agent/workspace"
	"github.com/openloganalytics/agent/internal/mof"
)

// Words of Config.Origin, SourceHealth.Origin and ConfigurationHealth.Origin.
const (
	OriginSettings  = "settings"  // the dataSources of the settings
	OriginWorkspace = "workspace" // the configuration that the workspace pushes
	OriginDefault   = "default"   // nobody chose
)

// Classes of resources that are obeyed (PowerShell-DSC-for-Linux, nxOMS*).
const (
	classSyslog     = "MSFT_nxOMSSyslogResource"
	classCounters   = "MSFT_nxOMSPerfCounterResource"
	classCustomLogs = "MSFT_nxOMSCustomLogResource"
	classSudoLogs   = "MSFT_nxOMSSudoCustomLogResource" // the same with later agents
)

// unsupported says why other classes of resources have no effect.
var unsupported = map[string]string{
	"msft_nxomspluginresource":               "solutions' plugins are code that the service sends; this agent runs none",
	"msft_nxomsautomationworkerresource":     "runbooks are code that the service sends; this agent runs none",
	"msft_nxomsauditdpluginresource":         "the audit log is not collected",
	"msft_nxomsgenerateinventorymofresource": "the inventory is not collected",
	"msft_nxomsagentnpmconfigresource":       "network performance is not monitored",
	"msft_nxomskeymgmtresource":              "there is no code to check with keys",
}

// Bounds of what a workspace can ask for.
const (
	maxPushedLogs     = 500 // as many as a workspace has
	maxPushedPatterns = 100 // of one log
	maxPushedCounters = 1000
	maxUnobeyed       = 100
	minPushedInterval = time.Second
	maxPushedInterval = 30 * time.Minute
	minHeartbeat      = 10 * time.Second
	maxHeartbeat      = time.Hour
)

// A pushed is a workspace's own configuration, as far as it is obeyed.
type pushed struct {
	// speaks says that it says anything about sources. What it then does not
	// name is not collected.
	speaks    bool
	heartbeat time.Duration // 0 when it says nothing about it
	selectors []SyslogSelector
	counters  []Counters
	logs      []CustomLog
	unobeyed  []workspace.Resource
}

// readPushed reads the document that the workspace of that id pushes. anyFile
// says that the agent has the right to read every file. What cannot be
// obeyed is in unobeyed, with the reason; an error is about the whole document.
func readPushed(document []byte, id string, anyFile bool) (*pushed, error) {
	instances, err := mof.Parse(document)
	if err != nil {
		return nil, err
	}
	p := &pushed{}
	for _, i := range instances {
		resource, err := identify(i)
		if err != nil {
			return nil, fmt.Errorf("read configuration: %w", err)
		}
		if resource.ID == "" {
			continue // no resource, but part of one
		}
		if err := p.obey(i, resource, id, anyFile); err != nil {
			return nil, fmt.Errorf("read configuration: %w", err)
		}
	}
	return p, nil
}

func identify(i *mof.Instance) (workspace.Resource, error) {
	r := workspace.Resource{Class: i.Class}
	for name, field := range map[string]*string{
		"ResourceId": &r.ID, "ModuleName": &r.Module, "ModuleVersion": &r.ModuleVersion, "SourceInfo": &r.SourceInfo,
	} {
		text, err := i.Text(name)
		if err != nil {
			return r, err
		}
		*field = shorten(text)
	}
	return r, nil
}

// obey takes one resource in.
func (p *pushed) obey(i *mof.Instance, r workspace.Resource, id string, anyFile bool) error {
	whose, err := i.Text("WorkspaceID")
	if err != nil {
		return err
	}
	if whose != "" && !strings.EqualFold(whose, id) {
		p.skip(r, "it is for another workspace")
		return nil
	}
	switch {
	case i.Is(classSyslog):
		p.speaks = true
		return p.syslog(i, r)
	case i.Is(classCounters):
		p.speaks = true
		return p.perf(i, r)
	case i.Is(classCustomLogs), i.Is(classSudoLogs):
		p.speaks = true
		return p.customLogs(i, r, id, anyFile)
	}
	why, known := unsupported[strings.ToLower(i.Class)]
	if !known {
		why = "this agent does not know resources of this class"
	}
	p.skip(r, "%s", why)
	return nil
}

// skip notes that a resource has no effect, or not all of it.
func (p *pushed) skip(r workspace.Resource, format string, args ...any) {
	if len(p.unobeyed) < maxUnobeyed {
		r.Why = shorten(fmt.Sprintf(format, args...))
		p.unobeyed = append(p.unobeyed, r)
	}
}

// syslog reads SyslogSource: facilities, each with its severities.
func (p *pushed) syslog(i *mof.Instance, r workspace.Resource) error {
	list, _, err := i.Instances("SyslogSource")
	if err != nil {
		return err
	}
	for _, one := range list {
		facility, err := one.Text("Facility")
		if err != nil {
			return err
		}
		severities, _, err := one.Texts("Severities")
		if err != nil {
			return err
		}
		s := SyslogSelector{Facilities: []string{strings.ToLower(facility)}}
		for _, severity := range severities {
			s.Severities = append(s.Severities, strings.ToLower(severity))
		}
		if slices.Equal(s.Severities, []string{"none"}) || len(s.Severities) == 0 {
			continue // of this facility nothing
		}
		if _, err := syslog.Compile([]syslog.Selector{{Facilities: s.Facilities, Severities: s.Severities}}); err != nil {
			p.skip(r, "%v", err)
			continue
		}
		p.selectors = append(p.selectors, s)
	}
	return nil
}

// perf reads PerfCounterObject and the interval of the heartbeat.
func (p *pushed) perf(i *mof.Instance, r workspace.Resource) error {
	beat, err := i.Integer("HeartbeatIntervalSeconds", 0)
	if err != nil {
		return err
	}
	switch wanted, ok := seconds(beat, minHeartbeat, maxHeartbeat); {
	case ok:
		p.heartbeat = wanted
	case beat != 0:
		p.skip(r, "a heartbeat every %d seconds is out of range: %v to %v", beat, minHeartbeat, maxHeartbeat)
	}
	list, _, err := i.Instances("PerfCounterObject")
	if err != nil {
		return err
	}
	for _, one := range list {
		if err := p.counterObject(one, r); err != nil {
			return err
		}
	}
	return nil
}

// seconds returns n seconds when they are within bounds.
func seconds(n int64, least, most time.Duration) (time.Duration, bool) {
	if n < int64(least/time.Second) || n > int64(most/time.Second) {
		return 0, false
	}
	return time.Duration(n) * time.Second, true
}

func (p *pushed) counterObject(i *mof.Instance, r workspace.Resource) error {
	object, err := i.Text("ObjectName")
	if err != nil {
		return err
	}
	instance, err := i.Text("InstanceName")
	if err != nil {
		return err
	}
	all, err := i.Boolean("AllInstances", false)
	if err != nil {
		return err
	}
	every, err := i.Integer("IntervalSeconds", 60)
	if err != nil {
		return err
	}
	names, _, err := i.Texts("PerformanceCounter")
	if err != nil {
		return err
	}
	if all || instance == "" {
		instance = "*"
	}
	interval, ok := seconds(every, minPushedInterval, maxPushedInterval)
	if !ok {
		p.skip(r, "%.100q every %d seconds is out of range: %v to %v", object, every, minPushedInterval, maxPushedInterval)
		return nil
	}
	for _, name := range names {
		specifier := object + "(" + instance + `)\` + name
		if err := perf.Check(specifier); err != nil {
			p.skip(r, "%v", err)
			continue
		}
		if !p.addCounter(Duration(interval), specifier) {
			p.skip(r, "there are more than %d counters", maxPushedCounters)
			return nil
		}
	}
	return nil
}

// addCounter puts a specifier to those of its interval; false when there are
// too many.
func (p *pushed) addCounter(interval Duration, specifier string) bool {
	total := 0
	for _, c := range p.counters {
		total += len(c.Specifiers)
	}
	if total >= maxPushedCounters {
		return false
	}
	n := slices.IndexFunc(p.counters, func(c Counters) bool { return c.Interval == interval })
	if n < 0 {
		p.counters = append(p.counters, Counters{Interval: interval})
		n = len(p.counters) - 1
	}
	if !slices.Contains(p.counters[n].Specifiers, specifier) {
		p.counters[n].Specifiers = append(p.counters[n].Specifiers, specifier)
	}
	return true
}

// customLogs reads CustomLogObjects: tables, each with its paths.
func (p *pushed) customLogs(i *mof.Instance, r workspace.Resource, id string, anyFile bool) error {
	on, err := i.Boolean("EnableCustomLogConfiguration", true)
	if err != nil {
		return err
	}
	ensure, err := i.Text("Ensure")
	if err != nil {
		return err
	}
	if !on || strings.EqualFold(ensure, "Absent") {
		return nil
	}
	list, _, err := i.Instances("CustomLogObjects")
	if err != nil {
		return err
	}
	for _, one := range list {
		name, err := one.Text("LogName")
		if err != nil {
			return err
		}
		paths, _, err := one.Texts("FilePath")
		if err != nil {
			return err
		}
		p.customLog(r, tableName(name, id), paths, anyFile)
	}
	return nil
}

// tableName is the table of a log by its name, which in documents is like
// CUSTOM_LOG_BLOB.MyApp_CL_<workspace id>.
func tableName(name, id string) string {
	name = strings.TrimPrefix(name, "CUSTOM_LOG_BLOB.")
	if cut := len(name) - len(id) - 1; cut > 0 && strings.EqualFold(name[cut:], "_"+id) {
		name = name[:cut]
	}
	return name
}

func (p *pushed) customLog(r workspace.Resource, table string, paths []string, anyFile bool) {
	if _, err := customlog.Table(table); err != nil {
		p.skip(r, "%v", err)
		return
	}
	var patterns []string
	for _, text := range paths {
		pattern := dateCode.ReplaceAllString(text, "*")
		if why := checkPushedPath(pattern, anyFile); why != "" {
			p.skip(r, "%s: %.200q %s", table, text, why)
			continue
		}
		patterns = append(patterns, pattern)
	}
	if len(patterns) == 0 {
		return
	}
	n := slices.IndexFunc(p.logs, func(l CustomLog) bool { return l.Table == table })
	if n < 0 && len(p.logs) >= maxPushedLogs {
		p.skip(r, "%s: there are more than %d custom logs", table, maxPushedLogs)
		return
	}
	if n < 0 {
		p.logs = append(p.logs, CustomLog{Table: table})
		n = len(p.logs) - 1
	}
	for _, pattern := range patterns {
		if slices.Contains(p.logs[n].Patterns, pattern) {
			continue
		}
		if len(p.logs[n].Patterns) >= maxPushedPatterns {
			p.skip(r, "%s: there are more than %d paths", table, maxPushedPatterns)
			return
		}
		p.logs[n].Patterns = append(p.logs[n].Patterns, pattern)
	}
}

// dateCode is a part of a path that stands for today (strftime). Any day's
// file is followed: yesterday's may not be read to its end yet.
var dateCode = regexp.MustCompile(`%[aAbBdHIjmMpSUwWyY]`)

// unseen are the folders that the service does not show to the agent unless a
// log of the settings lies there.
var unseen = []string{"/home/", "/root/", "/run/user/", "/tmp/", "/var/tmp/"}

// checkPushedPath says why a path cannot be followed. The files of the
// machine's secrets are refused when they are found, as for all logs.
func checkPushedPath(pattern string, anyFile bool) string {
	switch {
	case !path.IsAbs(pattern) || path.Clean(pattern) != pattern || len(pattern) > 1024 || strings.ContainsRune(pattern, 0):
		return "is not a plain absolute path"
	case tail.CheckPatterns([]string{pattern}) != nil:
		return "is malformed; see that each [ and { is closed"
	case !anyFile && slices.ContainsFunc(unseen, func(dir string) bool { return strings.HasPrefix(pattern, dir) }):
		return "lies where the agent does not look unless the setting useWorkspaceConfiguration is true"
	}
	return ""
}

// over returns what is collected: what the settings name; or else what the
// workspace pushes, if it says anything about sources; or else the default set.
func (p *pushed) over(c *Config) (Sources, string) {
	s := c.Sources
	if !c.FollowWorkspace || p == nil || !p.speaks {
		return s, c.origin()
	}
	s.Counters, s.CustomLogs = p.counters, p.logs
	if s.Syslog != nil {
		// The syslog daemon passes on what c says: it is read whatever is
		// wanted, or it would pile up.
		local := *s.Syslog
		local.Selectors = p.selectors
		s.Syslog = &local
	}
	if p.heartbeat > 0 {
		s.Heartbeat.Interval = Duration(p.heartbeat)
	}
	return s, OriginWorkspace
}

// origin is the word for Sources.
func (c *Config) origin() string {
	if c.Origin == "" {
		return OriginSettings
	}
	return c.Origin
}
