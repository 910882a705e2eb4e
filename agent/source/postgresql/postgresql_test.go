package postgresql

import (
	"errors"
	"maps"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/lib/pq"

	"github.com/openloganalytics/agent/agent/source/sampling"
)

func TestPlace(t *testing.T) {
	for address, want := range map[string]struct {
		host string
		port int
	}{
		"/run/postgresql":               {"/run/postgresql", 5432},
		"/run/postgresql/.s.PGSQL.5433": {"/run/postgresql", 5433},
		"127.0.0.1:6000":                {"127.0.0.1", 6000},
		"[::1]:6000":                    {"::1", 6000},
		"/run/.s.PGSQL.x":               {},
		"127.0.0.1":                     {},
		"127.0.0.1:x":                   {},
	} {
		host, port, err := place(address)
		if host != want.host || port != want.port || (err == nil) != (want.host != "") {
			t.Errorf("%s is %s, %d, %v, want %+v", address, host, port, err, want)
		}
		if s, err := New(Options{Name: "p", Address: address, User: "u", Database: "d", Interval: time.Second}); (err == nil) != (want.host != "") || err == nil && s.Name() != "p" {
			t.Errorf("New(%s) = %v", address, err)
		}
	}
}

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func values(list []sampling.Counters) map[string]float64 {
	m := map[string]float64{}
	for _, c := range list {
		for _, v := range c.Values {
			if !math.IsNaN(v.Value) { // as sampling leaves it out
				m[c.Object+"("+c.Instance+") "+v.Name] = v.Value
			}
		}
	}
	return m
}

// Worked out by hand.
func TestCounters(t *testing.T) {
	s := &server{computer: "vm1", port: 5432, sizes: map[string]float64{"shop": 8e6, "postgres": 7e6}}
	shop := database{"shop", 3, activity{
		commits: 100, rollbacks: 10, blocksRead: 50, blocksHit: 950, returned: 1000, fetched: 500, inserted: 30, updated: 20, deleted: 10, temporary: 4096,
	}}
	quiet := database{name: "postgres", connections: 1, activity: activity{commits: 7}}
	first := values(s.counters(answer{[]database{quiet, shop}, 100, 2, 1}, noon))
	if len(first) != 9 || first["PostgreSQL Server(vm1:5432) Connections"] != 4 {
		t.Errorf("first answer: %v", first)
	}
	shop.commits, shop.rollbacks, shop.blocksRead, shop.blocksHit = 190, 20, 60, 1040
	shop.returned, shop.fetched, shop.inserted, shop.updated, shop.deleted = 2000, 515, 35, 21, 10
	shop.temporary, shop.deadlocks = 8192, 2
	got := values(s.counters(answer{[]database{quiet, shop}, 100, 2, 1}, noon.Add(10*time.Second)))
	want := map[string]float64{}
	for name, value := range map[string]float64{
		"Transactions/sec": 10, "Rows Returned/sec": 100, "Rows Fetched/sec": 1.5, "Rows Inserted/sec": 0.5, "Rows Updated/sec": 0.1, "Rows Deleted/sec": 0,
		"Temporary Bytes/sec": 409.6, "Deadlocks": 2, "Rollback Pct": 10, "Cache Hit Pct": 90,
	} {
		want["PostgreSQL Database(shop) "+name], want["PostgreSQL Server(vm1:5432) "+name] = value, value
	}
	for _, name := range []string{
		"Transactions/sec", "Rows Returned/sec", "Rows Fetched/sec", "Rows Inserted/sec", "Rows Updated/sec", "Rows Deleted/sec", "Temporary Bytes/sec", "Deadlocks",
	} {
		want["PostgreSQL Database(postgres) "+name] = 0 // a share of nothing is not known
	}
	maps.Copy(want, map[string]float64{
		"PostgreSQL Server(vm1:5432) Connections": 4, "PostgreSQL Server(vm1:5432) Connection Use Pct": 4,
		"PostgreSQL Server(vm1:5432) Active Connections": 2, "PostgreSQL Server(vm1:5432) Waiting Locks": 1,
		"PostgreSQL Server(vm1:5432) Disk Space Use in Bytes": 15e6,
		"PostgreSQL Database(shop) Connections":               3, "PostgreSQL Database(shop) Disk Space in Bytes": 8e6,
		"PostgreSQL Database(postgres) Connections": 1, "PostgreSQL Database(postgres) Disk Space in Bytes": 7e6,
	})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("second answer (-want +got):\n%s", diff)
	}

	// Counts that went back were reset, and a database that is new has no rates.
	shop.commits = 0
	again := values(s.counters(answer{[]database{shop, {name: "new", activity: activity{commits: 1e6}}}, 100, 0, 0}, noon.Add(20*time.Second)))
	for name := range again {
		if strings.HasSuffix(name, "/sec") {
			t.Errorf("there is %s", name)
		}
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	s := &server{address: DefaultAddress, user: "monitor"}
	for _, tt := range []struct {
		err  error
		want string
	}{
		{&pq.Error{Code: "28P01", Message: "password authentication failed"}, "let the user monitor in, with the password in applicationPasswords"},
		{&pq.Error{Code: "57P03", Message: "starting up"}, "see the server's log"},
		{errors.New("connection refused"), "start it, or correct the address"},
	} {
		if got := s.explain(tt.err).Error(); !strings.Contains(got, tt.want) {
			t.Errorf("%q, want %q in it", got, tt.want)
		}
	}
}
