//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// sources lists what is measured, and what the agent tells of itself.
func sources() []source {
	return []source{
		{name: "heartbeat", table: "Heartbeat", start: heartbeat},
		{name: "performance counters", table: "Perf", start: performance},
		{name: "VM insights", table: "InsightsMetrics", start: insights},
		{name: "Apache", daemon: "apache2", table: "Perf", start: apache},
		{name: "MySQL by password", daemon: "mariadbd", table: "Perf", start: mysqlByPassword},
		{name: "MySQL by socket", daemon: "mariadbd", table: "Perf", start: mysqlBySocket},
		{name: "PostgreSQL by password", daemon: "postgres", table: "Perf", start: postgresqlByPassword},
		{name: "PostgreSQL by socket", daemon: "postgres", table: "Perf", start: postgresqlBySocket},
		{name: "collectd", daemon: "collectd", table: "Perf", start: collectd},
		{name: "StatsD", table: "Perf", start: statsd},
		{name: "Operation", table: "Operation", start: operation},
	}
}

// counter is the last value of a counter, and whether there is one.
func counter(rows []map[string]any, object, instance, name string) (float64, bool) {
	for _, r := range slices.Backward(rows) {
		if r["ObjectName"] == object && (instance == "*" || r["InstanceName"] == instance) && r["CounterName"] == name {
			v, ok := r["CounterValue"].(float64)
			return v, ok
		}
	}
	return 0, false
}

// A want is a counter and what is right for it.
type want struct {
	object, instance, name string
	low, high              float64
}

func wanted(wants ...want) func([]map[string]any) error {
	return func(rows []map[string]any) error {
		var missing []error
		for _, w := range wants {
			v, ok := counter(rows, w.object, w.instance, w.name)
			if !ok || v < w.low || v > w.high {
				missing = append(missing, fmt.Errorf(`%s(%s)\%s is %v (there: %v), want %v to %v`, w.object, w.instance, w.name, v, ok, w.low, w.high))
			}
		}
		return errors.Join(missing...)
	}
}

func heartbeat(context.Context, *lab) (scene, error) {
	name, err := os.Hostname()
	if err != nil {
		return scene{}, err
	}
	short, _, _ := strings.Cut(name, ".")
	return scene{check: func(rows []map[string]any) error {
		if len(rows) == 0 {
			return errors.New("no row")
		}
		for column, want := range map[string]any{"Computer": short, "OSType": "Linux", "Category": "Direct Agent", "SCAgentChannel": "Direct"} {
			if rows[0][column] != want {
				return fmt.Errorf("%s is %v, want %v", column, rows[0][column], want)
			}
		}
		for _, column := range []string{"OSName", "OSMajorVersion", "OSMinorVersion", "Version", "InstalledDate", "ComputerPrivateIPs", "SourceComputerId", "TimeGenerated"} {
			if rows[0][column] == nil {
				return fmt.Errorf("there is no %s", column)
			}
		}
		return nil
	}}, nil
}

// performance compares what stands still with what the kernel says.
func performance(context.Context, *lab) (scene, error) {
	info, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return scene{}, err
	}
	kB, err := strconv.ParseFloat(strings.Fields(string(info))[1], 64) // MemTotal comes first
	if err != nil {
		return scene{}, err
	}
	check := wanted(
		want{"Processor", "_Total", "% Processor Time", 0, 100},
		want{"Processor", "0", "% Idle Time", 0, 100},
		want{"Memory", "Memory", "Pages/sec", 0, 1e9},
		want{"System", "*", "CPUs", float64(runtime.NumCPU()), 4096},
		want{"System", "*", "Processes", 2, 1e6},
		want{"System", "*", "Uptime", 1, 1e12},
		want{"Process", "log-analytics-a", "Used Memory kBytes", 1000, 300_000}, // the kernel keeps 15 letters
	)
	return scene{
		public: map[string]any{"dataSources": map[string]any{"performanceCounters": []any{map[string]any{
			"name": "perf", "streams": []string{"Microsoft-Perf"}, "samplingFrequencyInSeconds": 1,
			"counterSpecifiers": []string{
				`\Processor Information(*)\% Processor Time`, `Processor(*)\% Idle Time`, `Memory(*)\*`, `System(*)\*`,
				`Process(log-analytics-a*)\Used Memory`, `Logical Disk(*)\*`, `Physical Disk(*)\*`, `Network(*)\*`,
				`\LogicalDisk(C:)\% Free Space`,
			},
		}}}},
		check: func(rows []map[string]any) error {
			available, _ := counter(rows, "Memory", "Memory", "Available MBytes Memory")
			used, _ := counter(rows, "Memory", "Memory", "Used Memory MBytes")
			if all := available + used; all < kB/1024-0.1 || all > kB/1024+0.1 {
				return fmt.Errorf("%v MB are available and %v used, of %v", available, used, kB/1024)
			}
			return check(rows)
		},
	}, nil
}

func insights(context.Context, *lab) (scene, error) {
	return scene{
		public: map[string]any{"dataSources": map[string]any{"performanceCounters": []any{map[string]any{
			"name": "VMInsightsPerfCounters", "streams": []string{"Microsoft-InsightsMetrics"}, "samplingFrequencyInSeconds": 1,
			"counterSpecifiers": []string{`\VmInsights\DetailedMetrics`},
		}}}},
		check: func(rows []map[string]any) error {
			for _, want := range []string{"Computer/Heartbeat", "Memory/AvailableMB", "Processor/UtilizationPercentage"} {
				if !slices.ContainsFunc(rows, func(r map[string]any) bool {
					return fmt.Sprintf("%v/%v", r["Namespace"], r["Name"]) == want && r["Origin"] == "vm.azm.ms"
				}) {
					return fmt.Errorf("there is no %s in %d rows", want, len(rows))
				}
			}
			return nil
		},
	}, nil
}

const apacheConfig = `
ServerRoot %[1]s
ServerName localhost
Listen 127.0.0.1:%[2]d
PidFile %[1]s/pid
ErrorLog %[1]s/error.log
DocumentRoot %[1]s
User www-data
Group www-data
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule authz_host_module /usr/lib/apache2/modules/mod_authz_host.so
LoadModule status_module /usr/lib/apache2/modules/mod_status.so
ServerLimit 2
ThreadsPerChild 25
MaxRequestWorkers 50
<Location /server-status>
	SetHandler server-status
	Require local
</Location>
`

func apache(ctx context.Context, l *lab) (scene, error) {
	dir, err := l.folder("apache", "")
	if err != nil {
		return scene{}, err
	}
	port, err := freePort(ctx, "tcp")
	if err != nil {
		return scene{}, err
	}
	config := fmt.Sprintf(apacheConfig, dir, port)
	page := []byte(strings.Repeat("0123456789abcdef", 1024)) // 16 KB
	err = errors.Join(os.WriteFile(filepath.Join(dir, "apache.conf"), []byte(config), 0o644), os.WriteFile(filepath.Join(dir, "page"), page, 0o644))
	if err != nil {
		return scene{}, err
	}
	if err := l.daemon(ctx, syscall.SIGTERM, "", "apache2", "-f", filepath.Join(dir, "apache.conf"), "-DFOREGROUND"); err != nil {
		return scene{}, err
	}
	base := fmt.Sprintf("http://127.0.0.1:%d", port)
	if err := eventually(ctx, func() error { return get(ctx, base+"/page") }); err != nil {
		return scene{}, err
	}
	instance := fmt.Sprintf("127.0.0.1:%d", port)
	check := wanted(
		want{"Apache HTTP Server", instance, "Idle Workers", 1, 50},
		want{"Apache HTTP Server", instance, "Busy Workers", 1, 50}, // who answers us
		want{"Apache HTTP Server", instance, "Pct Busy Workers", 0.1, 100},
		want{"Apache HTTP Server", instance, "Total Pct CPU", 0, 100},
		want{"Apache Virtual Host", "_Total", "Requests per Second", 0, 1e6},
		want{"Apache Virtual Host", "_Total", "KB per Request", 0, 17},
		want{"Apache Virtual Host", "_Total", "Requests KB per Second", 0, 1e6},
	)
	return scene{
		public: map[string]any{"applications": []any{map[string]any{"kind": "apache", "url": base + "/server-status?auto", "samplingFrequencyInSeconds": 1}}},
		act: func(ctx context.Context) error {
			for range 200 {
				if err := get(ctx, base+"/page"); err != nil {
					return err
				}
			}
			return nil
		},
		check: func(rows []map[string]any) error {
			// All that was fetched is in the rates, which are of one second each.
			sum := 0.0
			for _, r := range rows {
				if r["ObjectName"] == "Apache Virtual Host" && r["CounterName"] == "Requests per Second" {
					v, _ := r["CounterValue"].(float64)
					sum += v
				}
			}
			if sum < 190 {
				return fmt.Errorf("%v requests were counted, of 200", sum)
			}
			return check(rows)
		},
	}, nil
}

func get(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, res.Body)
	if err := errors.Join(err, res.Body.Close()); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: status %d", url, res.StatusCode)
	}
	return nil
}

// password holds what a URL, a connection string or a shell would trip over.
const password = `p@ss "w:rd' ü \ %s`

// mysql starts a server with a database that holds two tables.
func mysql(ctx context.Context, l *lab) (socket string, port int, err error) {
	dir, err := l.folder("mysql", "mysql")
	if err != nil {
		return "", 0, err
	}
	if port, err = freePort(ctx, "tcp"); err != nil {
		return "", 0, err
	}
	data, socket := filepath.Join(dir, "data"), filepath.Join(dir, "mysqld.sock")
	if err := l.program(ctx, "", "mariadb-install-db", "--no-defaults", "--datadir="+data, "--user=mysql", "--skip-test-db"); err != nil {
		return "", 0, err
	}
	err = l.daemon(ctx, syscall.SIGTERM, "", "mariadbd", "--no-defaults", "--datadir="+data, "--user=mysql", "--socket="+socket,
		"--bind-address=127.0.0.1", fmt.Sprintf("--port=%d", port), "--pid-file="+filepath.Join(dir, "pid"))
	if err != nil {
		return "", 0, err
	}
	const setup = `CREATE DATABASE shop; CREATE TABLE shop.orders (id INT PRIMARY KEY, what TEXT) ENGINE=InnoDB; CREATE TABLE shop.people (id INT) ENGINE=InnoDB;
INSERT INTO shop.orders VALUES (1, 'one'), (2, 'two');
CREATE USER monitor@'127.0.0.1' IDENTIFIED VIA mysql_native_password USING PASSWORD(%s); GRANT SELECT ON *.* TO monitor@'127.0.0.1';`
	quoted := "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(password) + "'"
	script := fmt.Sprintf(setup, quoted)
	return socket, port, eventually(ctx, func() error {
		return l.program(ctx, "", "mariadb", "--no-defaults", "--default-character-set=utf8mb4", "--socket="+socket, "--user=root", "-e", script)
	})
}

var mysqlCounters = wanted(
	want{"MySQL Server", "*", "Connection Use Pct", 0.01, 100},
	want{"MySQL Server", "*", "Aborted Connection Pct", 0, 100},
	want{"MySQL Server", "*", "Key Cache Hit Pct", 0, 100},
	want{"MySQL Server", "*", "Key Cache Write Pct", 0, 100},
	want{"MySQL Server", "*", "Key Cache Use Pct", 0, 100},
	want{"MySQL Server", "*", "Query Cache Hit Pct", 0, 100},
	want{"MySQL Server", "*", "Query Cache Prunes Pct", 0, 100},
	want{"MySQL Server", "*", "Query Cache Use Pct", 0, 100},
	want{"MySQL Server", "*", "Table Cache Hit Pct", 0, 100},
	want{"MySQL Server", "*", "Table Cache Use Pct", 0.01, 100},
	want{"MySQL Server", "*", "Table Lock Contention Pct", 0, 100},
	want{"MySQL Server", "*", "InnoDB Buffer Pool Hit Pct", 1, 100},
	want{"MySQL Server", "*", "InnoDB Buffer Pool Use Pct", 0.1, 100},
	want{"MySQL Server", "*", "Full Table Scan Pct", 0, 100},
	want{"MySQL Server", "*", "Disk Space Use in Bytes", 32768, 1e9},
	want{"MySQL Database", "shop", "Tables", 2, 2},
	want{"MySQL Database", "shop", "Disk Space in Bytes", 32768, 32768}, // two pages of 16 KB
)

func mysqlByPassword(ctx context.Context, l *lab) (scene, error) {
	_, port, err := mysql(ctx, l)
	return scene{
		public: map[string]any{"applications": []any{map[string]any{
			"kind": "mysql", "address": fmt.Sprintf("localhost:%d", port), "user": "monitor", "samplingFrequencyInSeconds": 1,
		}}},
		protected: map[string]any{"applicationPasswords": map[string]any{"mysql": password}},
		check:     mysqlCounters,
	}, err
}

func mysqlBySocket(ctx context.Context, l *lab) (scene, error) {
	socket, _, err := mysql(ctx, l)
	return scene{
		public: map[string]any{"applications": []any{map[string]any{
			"kind": "mysql", "name": "shop", "address": socket, "user": "root", "samplingFrequencyInSeconds": 1,
		}}},
		check: mysqlCounters,
	}, err
}

// A postgres is a server with a database that holds a table.
type postgres struct {
	dir  string // of its socket
	port int
	sql  func(database, text string) error
}

func startPostgres(ctx context.Context, l *lab) (*postgres, error) {
	dir, err := l.folder("postgresql", "postgres")
	if err != nil {
		return nil, err
	}
	port, err := freePort(ctx, "tcp")
	if err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "data")
	if err := l.program(ctx, "postgres", "initdb", "--pgdata="+data, "--auth-local=peer", "--auth-host=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"); err != nil {
		return nil, err
	}
	if err := l.daemon(ctx, syscall.SIGINT, "postgres", "postgres", "-D", data, "-k", dir, "-h", "127.0.0.1", "-p", strconv.Itoa(port)); err != nil {
		return nil, err
	}
	p := &postgres{dir: dir, port: port, sql: func(database, text string) error {
		return l.program(ctx, "postgres", "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", dir, "-p", strconv.Itoa(port), "-d", database, "-c", text)
	}}
	if err := eventually(ctx, func() error { return p.sql("postgres", "CREATE DATABASE shop") }); err != nil {
		return nil, err
	}
	return p, p.sql("shop", "CREATE TABLE orders (id int)")
}

// scene asks the server as an application, and counts what is inserted.
func (p *postgres) scene(application map[string]any) scene {
	application["kind"], application["samplingFrequencyInSeconds"] = "postgresql", 1
	check := wanted(
		want{"PostgreSQL Server", "*", "Connections", 1, 100},
		want{"PostgreSQL Server", "*", "Connection Use Pct", 1, 100},
		want{"PostgreSQL Server", "*", "Active Connections", 0, 100},
		want{"PostgreSQL Server", "*", "Waiting Locks", 0, 100},
		want{"PostgreSQL Server", "*", "Transactions/sec", 0.1, 1e6}, // our own
		want{"PostgreSQL Server", "*", "Rollback Pct", 0, 100},
		want{"PostgreSQL Server", "*", "Cache Hit Pct", 0, 100},
		want{"PostgreSQL Server", "*", "Deadlocks", 0, 0},
		want{"PostgreSQL Server", "*", "Disk Space Use in Bytes", 10e6, 1e9},
		want{"PostgreSQL Database", "shop", "Connections", 0, 100},
		want{"PostgreSQL Database", "shop", "Disk Space in Bytes", 5e6, 1e9},
		want{"PostgreSQL Database", "postgres", "Transactions/sec", 0.1, 1e6},
	)
	return scene{
		public: map[string]any{"applications": []any{application}},
		act: func(context.Context) error {
			return p.sql("shop", "INSERT INTO orders SELECT * FROM generate_series(1, 5000)")
		},
		check: func(rows []map[string]any) error {
			inserted := 0.0
			for _, r := range rows {
				if r["ObjectName"] == "PostgreSQL Database" && r["InstanceName"] == "shop" && r["CounterName"] == "Rows Inserted/sec" {
					v, _ := r["CounterValue"].(float64)
					inserted += v
				}
			}
			if inserted < 4500 || inserted > 5500 { // rates are of about a second each
				return fmt.Errorf("%v rows were counted as inserted, of 5000", inserted)
			}
			return check(rows)
		},
	}
}

func postgresqlByPassword(ctx context.Context, l *lab) (scene, error) {
	p, err := startPostgres(ctx, l)
	if err != nil {
		return scene{}, err
	}
	s := p.scene(map[string]any{"address": fmt.Sprintf("127.0.0.1:%d", p.port), "user": "monitor"})
	s.protected = map[string]any{"applicationPasswords": map[string]any{"postgresql": password}}
	return s, p.sql("postgres", "CREATE ROLE monitor LOGIN IN ROLE pg_monitor PASSWORD '"+strings.ReplaceAll(password, `'`, `''`)+"'")
}

func postgresqlBySocket(ctx context.Context, l *lab) (scene, error) {
	p, err := startPostgres(ctx, l)
	if err != nil {
		return scene{}, err
	}
	self, err := user.Current()
	if err != nil {
		return scene{}, err
	}
	s := p.scene(map[string]any{"name": "shop", "address": fmt.Sprintf("%s/.s.PGSQL.%d", p.dir, p.port), "user": self.Username})
	return s, p.sql("postgres", fmt.Sprintf("CREATE ROLE %q LOGIN IN ROLE pg_monitor", self.Username))
}

const collectdConfig = `
BaseDir "%[1]s"
PIDFile "%[1]s/pid"
TypesDB "/usr/share/collectd/types.db"
Interval 1
FQDNLookup false
LoadPlugin load
LoadPlugin memory
LoadPlugin write_http
<Plugin write_http>
  <Node "agent">
    URL "http://127.0.0.1:%[2]d"
    Format "JSON"
    StoreRates true
    BufferSize 4096
  </Node>
</Plugin>
`

// collectd starts the daemon first, as on a machine where it is already there.
func collectd(ctx context.Context, l *lab) (scene, error) {
	dir, err := l.folder("collectd", "")
	if err != nil {
		return scene{}, err
	}
	port, err := freePort(ctx, "tcp")
	if err != nil {
		return scene{}, err
	}
	config := filepath.Join(dir, "collectd.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, collectdConfig, dir, port), 0o644); err != nil {
		return scene{}, err
	}
	if err := l.daemon(ctx, syscall.SIGTERM, "", "collectd", "-f", "-C", config); err != nil {
		return scene{}, err
	}
	return scene{
		public: map[string]any{"collectd": map[string]any{"port": port}},
		check: wanted(
			want{"load", "_Total", "shortterm", 0, 1e6},
			want{"load", "_Total", "longterm", 0, 1e6},
			want{"memory", "_Total", "free.value", 1, 1e15},
			want{"memory", "_Total", "used.value", 1, 1e15},
		),
	}, nil
}

// statsd sends what clients send.
func statsd(ctx context.Context, _ *lab) (scene, error) {
	port, err := freePort(ctx, "udp")
	if err != nil {
		return scene{}, err
	}
	check := wanted(
		want{"StatsD Gauge", "queue.length", "gauge", 42, 42},
		want{"StatsD Timer", "request.time", "max", 320, 320},
		want{"StatsD Timer", "request.time", "mean", 200, 200},
		want{"StatsD Set", "users", "count", 2, 2},
	)
	return scene{
		public: map[string]any{"statsd": map[string]any{"port": port, "flushIntervalInSeconds": 1}},
		act: func(ctx context.Context) error {
			conn, err := new(net.Dialer).DialContext(ctx, "udp4", fmt.Sprintf("127.0.0.1:%d", port))
			if err != nil {
				return err
			}
			_, err = conn.Write([]byte("deploys:3|c\ndeploys:1|c|@0.1\nqueue.length:40|g\nqueue.length:+2|g\nrequest.time:320|ms\nrequest.time:80|ms\nusers:ann|s\nusers:bob|s\nusers:ann|s\n"))
			return errors.Join(err, conn.Close())
		},
		check: func(rows []map[string]any) error {
			sum := 0.0
			for _, r := range rows {
				if r["ObjectName"] == "StatsD Counter" && r["InstanceName"] == "deploys" {
					v, _ := r["CounterValue"].(float64)
					sum += v
				}
			}
			if sum < 12 || sum > 14 { // 3 and ten times 1, in about a second
				return fmt.Errorf("13 deploys are a rate of %v", sum)
			}
			return check(rows)
		},
	}, nil
}

// operation makes the agent lose measurements: more gauges than it keeps. What
// is lost is told after a minute.
func operation(ctx context.Context, _ *lab) (scene, error) {
	port, err := freePort(ctx, "udp")
	if err != nil {
		return scene{}, err
	}
	return scene{
		public: map[string]any{"statsd": map[string]any{"port": port, "flushIntervalInSeconds": 20}},
		loses:  true,
		act: func(ctx context.Context) error {
			conn, err := new(net.Dialer).DialContext(ctx, "udp4", fmt.Sprintf("127.0.0.1:%d", port))
			if err != nil {
				return err
			}
			for first := 0; first < 12_000; first += 1000 {
				var lines strings.Builder
				for n := range 1000 {
					fmt.Fprintf(&lines, "gauge.%d:%d|g\n", first+n, n+1)
				}
				if _, err := io.WriteString(conn, lines.String()); err != nil {
					return errors.Join(err, conn.Close())
				}
			}
			return conn.Close()
		},
		check: func(rows []map[string]any) error {
			for _, r := range rows {
				detail, _ := r["Detail"].(string)
				if r["OperationCategory"] == "Records lost" && r["OperationStatus"] == "Warning" && r["Solution"] == "Log Management" &&
					r["Computer"] != nil && strings.Contains(detail, "Source statsd lost 2000 records of statsd: too-many-names") {
					return nil
				}
			}
			return fmt.Errorf("the loss is not told in %v", rows)
		},
	}, nil
}
