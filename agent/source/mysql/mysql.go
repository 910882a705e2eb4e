// Package mysql asks a MySQL or MariaDB server for its counters: objects, names
// and formulas are those of the OMS agent for Linux.
package mysql

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/openloganalytics/agent/agent/source"
	"github.com/openloganalytics/agent/agent/source/sampling"
	"github.com/openloganalytics/agent/internal/secret"
)

// DefaultAddress is where Debian and Ubuntu have the server's socket.
const DefaultAddress = "/run/mysqld/mysqld.sock"

// Options says which server is asked, and how.
type Options struct {
	Name     string // of the source: mysql, or what tells several apart
	Address  string // a socket's path, or host:port of a loopback address
	User     string // who may ask; needs SELECT on what is to be counted
	Password secret.Secret
	Interval time.Duration
	Computer string // short host name
	Rounding sampling.Rounding
}

// New returns the source. It connects when it runs.
func New(o Options) source.Source {
	s := &server{o: o}
	return sampling.Poll{SourceName: o.Name, Interval: o.Interval, Computer: o.Computer, Ask: s.ask, Close: s.close}.Source()
}

// sizesEvery is how often the sizes of tables are asked for: the server has to
// look at each of them.
const sizesEvery = 5 * time.Minute

// A server is one that is asked.
type server struct {
	o    Options
	conn *connection // nil when there is none

	sizes   []size
	sizesAt time.Time // zero before they were known
}

// A size is what one database holds.
type size struct {
	name          string
	tables, bytes float64
}

// close ends the connection.
func (s *server) close() error {
	if s.conn == nil {
		return nil
	}
	conn := s.conn.conn
	s.conn = nil
	return conn.Close()
}

func (s *server) ask(ctx context.Context, at time.Time) ([]sampling.Counters, error) {
	list, err := s.answer(ctx, at)
	if err == nil {
		return list, nil
	}
	if _, told := errors.AsType[*serverError](err); !told {
		err = errors.Join(err, s.close())
	}
	return list, s.explain(err)
}

func (s *server) answer(ctx context.Context, at time.Time) ([]sampling.Counters, error) {
	if s.conn == nil {
		conn, err := connect(ctx, s.o.Address, s.o.User, s.o.Password)
		if err != nil {
			return nil, err
		}
		s.conn = conn
	}
	status, err := s.pairs(ctx, "SHOW GLOBAL STATUS")
	if err != nil {
		return nil, err
	}
	variables, err := s.pairs(ctx, "SHOW GLOBAL VARIABLES")
	if err != nil {
		return nil, err
	}
	all := serverCounters(status, variables, s.o.Rounding)
	all.Instance = instance(s.o.Computer, variables)
	if s.sizesAt.IsZero() || at.Sub(s.sizesAt) >= sizesEvery {
		if err := s.askSizes(ctx); err != nil {
			return []sampling.Counters{all}, err
		}
		s.sizesAt = at
	}
	total := 0.0
	list := []sampling.Counters{all}
	for _, d := range s.sizes {
		total += d.bytes
		c := sampling.Counters{Object: "MySQL Database", Instance: d.name}
		c.Set("Tables", d.tables)
		c.Set("Disk Space in Bytes", d.bytes)
		list = append(list, c)
	}
	list[0].Set("Disk Space Use in Bytes", total)
	return list, nil
}

// instance names the server as the OMS agent for Linux does:
// host:bind-address:port.
func instance(computer string, variables pairs) string {
	return computer + ":" + cmp.Or(variables["bind_address"], "*") + ":" + cmp.Or(variables["port"], "3306")
}

// explain says what to do about an error.
func (s *server) explain(err error) error {
	const (
		noPrivilege        = 1044
		accessDenied       = 1045
		accessDeniedSocket = 1698
	)
	fix := "start it, or correct the address of the application"
	if told, ok := errors.AsType[*serverError](err); ok {
		fix = "see the server's log"
		switch told.number {
		case noPrivilege, accessDenied, accessDeniedSocket:
			fix = fmt.Sprintf("let the user %s in, with the password in applicationPasswords", s.o.User)
		}
	}
	return fmt.Errorf("cannot ask MySQL at %s for its counters: %w; %s", s.o.Address, err, fix)
}

// pairs are what the server answers to SHOW, by lower-case name.
type pairs map[string]string

func (s *server) pairs(ctx context.Context, query string) (pairs, error) {
	rows, err := s.conn.query(ctx, query)
	if err != nil {
		return nil, err
	}
	p := pairs{}
	for _, row := range rows {
		if len(row) != 2 {
			return nil, fmt.Errorf("%s: %d columns", query, len(row))
		}
		p[strings.ToLower(row[0])] = row[1]
	}
	return p, nil
}

// sizesQuery sums up what the user may see, for each database of people.
const sizesQuery = `SELECT table_schema, COUNT(*), COALESCE(SUM(data_length + index_length), 0)
FROM information_schema.tables
WHERE table_type = 'BASE TABLE' AND table_schema NOT IN ('information_schema', 'performance_schema')
GROUP BY table_schema ORDER BY table_schema`

func (s *server) askSizes(ctx context.Context) error {
	rows, err := s.conn.query(ctx, sizesQuery)
	if err != nil {
		return err
	}
	s.sizes = s.sizes[:0]
	for _, row := range rows {
		if len(row) != 3 {
			return fmt.Errorf("ask for the sizes of databases: %d columns", len(row))
		}
		tables, err := strconv.ParseFloat(row[1], 64)
		bytes, err2 := strconv.ParseFloat(row[2], 64)
		if err := errors.Join(err, err2); err != nil {
			return fmt.Errorf("ask for the sizes of databases: %w", err)
		}
		s.sizes = append(s.sizes, size{row[0], tables, bytes})
	}
	return nil
}
