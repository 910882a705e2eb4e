// Package postgresql asks a PostgreSQL server for its counters, which are
// named and counted after those of MySQL.
package postgresql

import (
	"database/sql"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/lib/pq"

	"github.com/openloganalytics/agent/agent/source"
	"github.com/openloganalytics/agent/agent/source/sampling"
	"github.com/openloganalytics/agent/internal/secret"
)

// DefaultAddress is the folder in which Debian, Ubuntu and RHEL have the
// server's socket.
const DefaultAddress = "/run/postgresql"

// DefaultPort is the server's port, which is in the socket's name, too.
const DefaultPort = 5432

// Options says which server is asked, and how.
type Options struct {
	Name     string // of the source: postgresql, or what tells several apart
	Address  string // the folder of a socket, a socket (/run/postgresql/.s.PGSQL.5433), or host:port of a loopback address
	Database string // to connect to
	User     string // who may ask; pg_monitor lets it see everything
	Password secret.Secret
	Interval time.Duration
	Computer string // short host name
	Rounding sampling.Rounding
}

// socketPrefix begins the name of a socket, before the port.
const socketPrefix = ".s.PGSQL."

// place takes an address apart.
func place(address string) (host string, port int, err error) {
	if !strings.HasPrefix(address, "/") {
		host, text, err := net.SplitHostPort(address)
		if err != nil {
			return "", 0, fmt.Errorf("the address is neither a socket's folder nor host:port: %w", err)
		}
		port, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return "", 0, fmt.Errorf("the address has no port: %w", err)
		}
		return host, int(port), nil
	}
	folder, name, ok := strings.Cut(address, "/"+socketPrefix)
	if !ok {
		return address, DefaultPort, nil
	}
	n, err := strconv.ParseUint(name, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("the socket's name has no port: %w", err)
	}
	return folder, int(n), nil
}

// New returns the source. It connects when it runs.
func New(o Options) (source.Source, error) {
	host, port, err := place(o.Address)
	if err != nil {
		return nil, fmt.Errorf("set up %s: %w", o.Name, err)
	}
	config := pq.Config{
		Host: host, Port: uint16(port), User: o.User, Password: o.Password.Reveal(), Database: o.Database,
		SSLMode: pq.SSLModeDisable, ConnectTimeout: 5 * time.Second, ApplicationName: "log-analytics-agent",
	}
	connector, err := pq.NewConnectorConfig(config)
	if err != nil {
		return nil, fmt.Errorf("set up %s: %w", o.Name, err)
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(1)
	s := &server{db: db, computer: o.Computer, user: o.User, address: o.Address, port: port, rounding: o.Rounding}
	return sampling.Poll{SourceName: o.Name, Interval: o.Interval, Computer: o.Computer, Ask: s.ask, Close: db.Close}.Source(), nil
}
