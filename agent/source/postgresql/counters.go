package postgresql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/lib/pq"

	"github.com/openloganalytics/agent/agent/source/sampling"
)

// sizesEvery is how often the sizes of databases are asked for: the server has
// to look at each of their files.
const sizesEvery = 5 * time.Minute

// A server is one that is asked.
type server struct {
	db                      *sql.DB
	computer, user, address string
	port                    int
	rounding                sampling.Rounding

	was     map[string]activity // by database
	wasAt   time.Time           // zero before the first answer
	sizes   map[string]float64  // bytes, by database
	sizesAt time.Time
}

// An activity is what a database has done since its counts were last reset.
type activity struct {
	commits, rollbacks                            float64
	blocksRead, blocksHit                         float64
	returned, fetched, inserted, updated, deleted float64 // rows
	temporary                                     float64 // bytes
	deadlocks                                     float64
}

// counts lists the fields in one order.
func (a *activity) counts() []*float64 {
	return []*float64{
		&a.commits, &a.rollbacks, &a.blocksRead, &a.blocksHit, &a.returned, &a.fetched, &a.inserted, &a.updated, &a.deleted,
		&a.temporary, &a.deadlocks,
	}
}

// since returns what was done after was, false when a count went back.
func (a activity) since(was activity) (activity, bool) {
	for i, count := range a.counts() {
		if *count < *was.counts()[i] {
			return activity{}, false
		}
		*count -= *was.counts()[i]
	}
	return a, true
}

func (a *activity) add(d activity) {
	for i, count := range a.counts() {
		*count += *d.counts()[i]
	}
}

// A database is what the server says of one.
type database struct {
	name        string
	connections float64
	activity
}

const databasesQuery = `SELECT datname, numbackends, xact_commit, xact_rollback, blks_read, blks_hit,
	tup_returned, tup_fetched, tup_inserted, tup_updated, tup_deleted, temp_bytes, deadlocks
FROM pg_stat_database JOIN pg_database USING (datname)
WHERE NOT datistemplate AND datallowconn ORDER BY datname`

const serverQuery = `SELECT current_setting('max_connections')::float8,
	(SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid()),
	(SELECT count(*) FROM pg_locks WHERE NOT granted)`

const sizesQuery = `SELECT datname, pg_database_size(oid) FROM pg_database
WHERE NOT datistemplate AND datallowconn AND has_database_privilege(datname, 'CONNECT')`

func (s *server) ask(ctx context.Context, at time.Time) ([]sampling.Counters, error) {
	list, err := s.answer(ctx, at)
	if err != nil {
		return list, s.explain(err)
	}
	return list, nil
}

func (s *server) answer(ctx context.Context, at time.Time) ([]sampling.Counters, error) {
	var now answer
	var err error
	if now.databases, err = s.databases(ctx); err != nil {
		return nil, err
	}
	if err := s.db.QueryRowContext(ctx, serverQuery).Scan(&now.limit, &now.active, &now.waiting); err != nil {
		return nil, err
	}
	if s.sizesAt.IsZero() || at.Sub(s.sizesAt) >= sizesEvery {
		sizes, err := s.askSizes(ctx)
		if err != nil {
			return s.counters(now, at), err
		}
		s.sizes, s.sizesAt = sizes, at
	}
	return s.counters(now, at), nil
}

// An answer is what the server says at a moment.
type answer struct {
	databases       []database
	limit           float64 // connections that it takes
	active, waiting float64 // connections at work, and locks that are waited for
}

// counters tells of the server as a whole, then of each database.
func (s *server) counters(now answer, at time.Time) []sampling.Counters {
	was, elapsed := s.was, at.Sub(s.wasAt).Seconds()
	s.was, s.wasAt = map[string]activity{}, at

	whole := sampling.Counters{Object: "PostgreSQL Server", Instance: fmt.Sprintf("%s:%d", s.computer, s.port)}
	list := []sampling.Counters{whole}
	var done activity
	var connections, bytes float64
	known := false
	for _, d := range now.databases {
		s.was[d.name] = d.activity
		connections += d.connections
		own := sampling.Counters{Object: "PostgreSQL Database", Instance: d.name}
		own.Set("Connections", d.connections)
		before, there := was[d.name]
		if delta, ok := d.since(before); there && ok && elapsed > 0 {
			s.rates(&own, delta, elapsed)
			done.add(delta)
			known = true
		}
		if size, there := s.sizes[d.name]; there {
			own.Set("Disk Space in Bytes", size)
			bytes += size
		}
		list = append(list, own)
	}
	whole.Set("Connections", connections)
	whole.Set("Connection Use Pct", s.rounding.Percent(connections, now.limit))
	whole.Set("Active Connections", now.active)
	whole.Set("Waiting Locks", now.waiting)
	if known {
		s.rates(&whole, done, elapsed)
	}
	if s.sizes != nil {
		whole.Set("Disk Space Use in Bytes", bytes)
	}
	list[0] = whole
	return list
}

// rates tells what was done in the seconds. What is a share of nothing is not
// known.
func (s *server) rates(c *sampling.Counters, d activity, seconds float64) {
	for _, one := range []struct {
		name  string
		count float64
	}{
		{"Transactions/sec", d.commits + d.rollbacks},
		{"Rows Returned/sec", d.returned},
		{"Rows Fetched/sec", d.fetched},
		{"Rows Inserted/sec", d.inserted},
		{"Rows Updated/sec", d.updated},
		{"Rows Deleted/sec", d.deleted},
		{"Temporary Bytes/sec", d.temporary},
	} {
		c.Set(one.name, s.rounding.Rate(one.count/seconds))
	}
	c.Set("Deadlocks", d.deadlocks)
	c.Set("Rollback Pct", s.share(d.rollbacks, d.commits+d.rollbacks))
	c.Set("Cache Hit Pct", s.share(d.blocksHit, d.blocksHit+d.blocksRead))
}

func (s *server) share(part, whole float64) float64 {
	if whole == 0 {
		return math.NaN()
	}
	return s.rounding.Percent(part, whole)
}

func (s *server) databases(ctx context.Context) ([]database, error) {
	rows, err := s.db.QueryContext(ctx, databasesQuery)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // read to its end, or Err tells
	var list []database
	for rows.Next() {
		var d database
		into := []any{&d.name, &d.connections}
		for _, count := range d.counts() {
			into = append(into, count)
		}
		if err := rows.Scan(into...); err != nil {
			return nil, err
		}
		list = append(list, d)
	}
	return list, rows.Err()
}

func (s *server) askSizes(ctx context.Context) (map[string]float64, error) {
	rows, err := s.db.QueryContext(ctx, sizesQuery)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // read to its end, or Err tells
	sizes := map[string]float64{}
	for rows.Next() {
		var name string
		var bytes float64
		if err := rows.Scan(&name, &bytes); err != nil {
			return nil, err
		}
		sizes[name] = bytes
	}
	return sizes, rows.Err()
}

// explain says what to do about an error of the server.
func (s *server) explain(err error) error {
	fix := "start it, or correct the address of the application"
	if told, ok := errors.AsType[*pq.Error](err); ok {
		fix = "see the server's log"
		if told.Code.Class() == "28" { // invalid authorization
			fix = fmt.Sprintf("let the user %s in, with the password in applicationPasswords", s.user)
		}
	}
	return fmt.Errorf("cannot ask PostgreSQL at %s for its counters: %w; %s", s.address, err, fix)
}
