// Package agent is the collection core: it reads records from the machine,
// keeps them in the spool and delivers them to workspaces. It knows nothing of
// Azure's guest agent.
package agent

import (
	"time"

	"github.com/openloganalytics/agent/agent/transform"
)

// Config is what the agent obeys: written by the handler from what the user
// wrote, read by `run`. It holds no secret; those come in files of their own.
type Config struct {
	// Generation changes whenever anything in the config or its secrets does.
	// Health carries it back, so that a verdict is known to be about this one.
	Generation string `json:"generation"`

	Workspaces []Workspace `json:"workspaces"`
	Sources    Sources     `json:"sources"`

	// Transformations are what data sources name in Transform.
	Transformations []transform.Spec `json:"transformations,omitempty"`
	// Redaction names the kinds of secrets that are taken out of messages and
	// lines: see transform.RedactKinds.
	Redaction []string `json:"redaction,omitempty"`
	Limits    Limits   `json:"limits"`

	// Origin says who chose Sources: OriginSettings or OriginDefault.
	Origin string `json:"origin,omitempty"`
	// FollowWorkspace lets the configuration that the first workspace pushes
	// take the place of Sources, except for SyslogListeners. Then the syslog
	// daemon passes on every message, and the agent picks.
	FollowWorkspace bool `json:"followWorkspace,omitempty"`
	// AnyFile says that the agent has the right to read every file of the
	// machine, in every folder, whatever Sources name.
	AnyFile bool `json:"anyFile,omitempty"`

	// Installed is when the extension was first installed on this machine.
	Installed time.Time `json:"installed,omitzero"`
	// MachineID is the machine's DMI UUID, which only root can read.
	MachineID string `json:"machineId,omitempty"`
	// VMResourceID is the ARM id that fills _ResourceId; empty when unknown.
	VMResourceID string `json:"vmResourceId,omitempty"`
	// TrustedCertificates are authorities to trust besides the system's, PEM.
	TrustedCertificates string `json:"trustedCertificates,omitempty"`
}

// A Workspace is one Log Analytics workspace to deliver to.
type Workspace struct {
	ID     string `json:"id"`     // GUID, lower case
	Domain string `json:"domain"` // opinsights.azure.com
	Name   string `json:"name,omitempty"`
}

// Sources lists what is collected.
type Sources struct {
	Heartbeat Heartbeat  `json:"heartbeat"`
	Syslog    *Syslog    `json:"syslog,omitempty"`
	Counters  []Counters `json:"counters,omitempty"`
	// IntegerCounters gives the values of Counters as the whole numbers of the
	// OMS agent for Linux.
	IntegerCounters bool `json:"integerCounters,omitempty"`
	// Insights are the metrics of VM insights; nil is none.
	Insights   *Insights   `json:"insights,omitempty"`
	CustomLogs []CustomLog `json:"customLogs,omitempty"`
	// Applications are servers on this machine that are asked for counters.
	Applications []Application `json:"applications,omitempty"`
	// Collectd and Statsd take measurements at a loopback port; nil is closed.
	Collectd *Collectd `json:"collectd,omitempty"`
	Statsd   *Statsd   `json:"statsd,omitempty"`
	// SyslogListeners are open ports; none by default.
	SyslogListeners []SyslogListener `json:"syslogListeners,omitempty"`
}

// Heartbeat is the row that says the machine lives.
type Heartbeat struct {
	Interval Duration `json:"interval"` // default 60 s
}

// Syslog is what arrives from the syslog daemon.
type Syslog struct {
	// Selectors say which messages are wanted; a message is kept when any
	// selector has its facility and severity.
	Selectors []SyslogSelector `json:"selectors"`
	// Security are the same for security messages (CEF and Cisco ASA), which
	// then go into CommonSecurityLog instead of Syslog.
	Security []SyslogSelector `json:"security,omitempty"`
	// Road is where messages come from: one of the words below.
	Road string `json:"road,omitempty"`
	// Since changes whenever the journal is chosen anew: what came by another
	// road meanwhile is not read again.
	Since string `json:"since,omitempty"`
	// UDP and TCP are loopback addresses to listen on besides the Unix socket,
	// host:port; empty by default.
	UDP string `json:"udp,omitempty"`
	TCP string `json:"tcp,omitempty"`
}

// Words of Syslog.Road. Without one it is RoadRSyslog.
const (
	RoadRSyslog  = "rsyslog"   // by a named pipe
	RoadSyslogNG = "syslog-ng" // by a Unix socket
	RoadJournal  = "journal"   // the agent reads systemd's journal itself
)

// A SyslogSelector names facilities and severities by the words of
// oms-protocol d.4 (kern … local7; emerg … debug); "*" is all.
type SyslogSelector struct {
	Facilities []string `json:"facilities"`
	Severities []string `json:"severities"`
	Way
}

// A Way says what becomes of the records of a data source before they are
// emitted. The zero Way leaves them as they are.
type Way struct {
	Transform string `json:"transform,omitempty"` // name of a transformation
	Table     string `json:"table,omitempty"`     // custom table; empty is the standard one
}

// SyslogListener is a port on which other machines and appliances send syslog.
type SyslogListener struct {
	Protocol string `json:"protocol"`          // udp, tcp, tls
	Address  string `json:"address,omitempty"` // of this machine; empty is all
	Port     int    `json:"port"`
	// PEM files of a TLS listener; ClientCAFile is empty when any sender may connect.
	CertificateFile string   `json:"certificateFile,omitempty"`
	KeyFile         string   `json:"keyFile,omitempty"`
	ClientCAFile    string   `json:"clientCAFile,omitempty"`
	MaxConnections  int      `json:"maxConnections,omitempty"`
	IdleTimeout     Duration `json:"idleTimeout,omitempty"`
	// Selector says which messages are wanted, and Security which of them go into
	// CommonSecurityLog when they are CEF or Cisco ASA; nil is none.
	Selector SyslogSelector  `json:"selector"`
	Security *SyslogSelector `json:"security,omitempty"`
}

// Counters is one set of performance counters with its sampling interval.
type Counters struct {
	Interval Duration `json:"interval"`
	// Specifiers are \Object(Instance)\Counter or Object(Instance)\Counter,
	// in the names of the Perf table; * is any instance or any counter.
	Specifiers []string `json:"specifiers"`
	Way
}

// Insights is the metrics of VM insights, table InsightsMetrics.
type Insights struct {
	Interval Duration `json:"interval"`
}

// An Application is a server on this machine that is asked for its counters,
// table Perf. Its password is in a file of its own, by its name.
type Application struct {
	Name     string   `json:"name"`               // unique; of the source
	Kind     string   `json:"kind"`               // apache, mysql, postgresql
	URL      string   `json:"url,omitempty"`      // apache
	Address  string   `json:"address,omitempty"`  // the others: a socket's path, or host:port
	User     string   `json:"user,omitempty"`     // the others
	Database string   `json:"database,omitempty"` // postgresql
	Interval Duration `json:"interval"`
}

// Collectd is the port for collectd's plugin write_http.
type Collectd struct {
	Port int `json:"port"` // of 127.0.0.1
}

// Statsd is the port for StatsD's datagrams.
type Statsd struct {
	Port     int      `json:"port"`     // of 127.0.0.1
	Interval Duration `json:"interval"` // over which is summed up
	// Percentile is what share of the fastest timers is summed up besides all.
	Percentile int `json:"percentile"`
}

// CustomLog is a set of text files followed into one table.
type CustomLog struct {
	Table    string   `json:"table"`             // MyApp_CL
	Patterns []string `json:"patterns"`          // absolute paths with * ? [] {} ** and date codes
	Exclude  []string `json:"exclude,omitempty"` // of those, paths that are not read
	// JSON reads each line as an object.
	JSON bool `json:"json,omitempty"`
	// StartFormat or StartPattern tell where records of several lines begin: the
	// name of a format of times, or a regular expression.
	StartFormat  string `json:"startFormat,omitempty"`
	StartPattern string `json:"startPattern,omitempty"`
	// TimeZone is that of times without one, as in "Europe/Berlin"; empty is the
	// machine's own.
	TimeZone string `json:"timeZone,omitempty"`
	Encoding string `json:"encoding,omitempty"` // see customlog.Encodings
	// FromStart reads files that exist at the very first start from their
	// beginning; otherwise from their end. Files that appear later are always
	// read from the beginning.
	FromStart bool `json:"fromStart,omitempty"`
	// Transform names a transformation; empty leaves the lines as they are.
	Transform string `json:"transform,omitempty"`
}

// Limits are ceilings on what the agent may use.
type Limits struct {
	DiskMB     int `json:"diskMB"`     // spool, all of it
	CPUPercent int `json:"cpuPercent"` // of one core
	MemoryMB   int `json:"memoryMB"`
}

// Duration is a time.Duration that JSON spells as Go does: "10s".
type Duration time.Duration
