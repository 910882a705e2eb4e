package mysql

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/openloganalytics/agent/agent/source/sampling"
)

func values(c sampling.Counters) map[string]float64 {
	m := map[string]float64{}
	for _, v := range c.Values {
		m[v.Name] = v.Value
	}
	return m
}

// Worked out by hand from the formulas of the OMS agent for Linux.
func TestCounters(t *testing.T) {
	status := pairs{
		"threads_connected": "3", "connections": "800", "aborted_connects": "1",
		"key_reads": "1", "key_read_requests": "40", "key_writes": "1", "key_write_requests": "3", "key_blocks_unused": "6000",
		"qcache_hits": "25", "com_select": "75", "qcache_lowmem_prunes": "2", "queries": "1000", "qcache_free_memory": "750000",
		"open_tables": "50", "opened_tables": "200", "table_locks_waited": "1", "table_locks_immediate": "199",
		"innodb_buffer_pool_reads": "5", "innodb_buffer_pool_read_requests": "1000",
		"innodb_buffer_pool_pages_data": "500", "innodb_buffer_pool_pages_total": "8000",
		"handler_read_rnd": "10", "handler_read_rnd_next": "20", "handler_read_first": "30", "handler_read_key": "40",
		"handler_read_next": "50", "handler_read_prev": "50",
	}
	variables := pairs{
		"max_connections": "151", "key_cache_block_size": "1024", "key_buffer_size": "8192000", "query_cache_size": "1000000", "table_open_cache": "2000",
		"bind_address": "127.0.0.1", "port": "3307",
	}
	precise := map[string]float64{
		"Connection Use Pct": 1.99, "Aborted Connection Pct": 0.13,
		"Key Cache Hit Pct": 97.5, "Key Cache Write Pct": 33.33, "Key Cache Use Pct": 25,
		"Query Cache Hit Pct": 25, "Query Cache Prunes Pct": 0.2, "Query Cache Use Pct": 25,
		"Table Cache Hit Pct": 25, "Table Cache Use Pct": 2.5, "Table Lock Contention Pct": 0.5,
		"InnoDB Buffer Pool Hit Pct": 99.5, "InnoDB Buffer Pool Use Pct": 6.25, "Full Table Scan Pct": 15,
	}
	if diff := cmp.Diff(precise, values(serverCounters(status, variables, sampling.Precise))); diff != "" {
		t.Errorf("precise (-want +got):\n%s", diff)
	}
	integer := map[string]float64{
		"Connection Use Pct": 2, "Aborted Connection Pct": 0,
		"Key Cache Hit Pct": 97, "Key Cache Write Pct": 33, "Key Cache Use Pct": 25,
		"Query Cache Hit Pct": 25, "Query Cache Prunes Pct": 0, "Query Cache Use Pct": 25,
		"Table Cache Hit Pct": 25, "Table Cache Use Pct": 3, "Table Lock Contention Pct": 1,
		"InnoDB Buffer Pool Hit Pct": 99, "InnoDB Buffer Pool Use Pct": 6, "Full Table Scan Pct": 15,
	}
	if diff := cmp.Diff(integer, values(serverCounters(status, variables, sampling.Integer))); diff != "" {
		t.Errorf("integer (-want +got):\n%s", diff)
	}
	if got := instance("vm1", variables); got != "vm1:127.0.0.1:3307" {
		t.Errorf("instance is %s", got)
	}

	// An old server counts neither queries nor table_open_cache.
	delete(status, "queries")
	delete(variables, "table_open_cache")
	status["questions"], status["com_stmt_close"], status["com_stmt_prepare"] = "90", "5", "5"
	variables["table_cache"] = "64"
	old := values(serverCounters(status, variables, sampling.Precise))
	if old["Query Cache Prunes Pct"] != 2 || old["Table Cache Use Pct"] != 78.13 {
		t.Errorf("of an old server: %v", old)
	}
	// MySQL 8 has no query cache; nothing is known of a server that says nothing.
	for _, name := range []string{"qcache_hits", "key_read_requests", "innodb_buffer_pool_read_requests"} {
		delete(status, name)
	}
	for name := range values(serverCounters(status, variables, sampling.Precise)) {
		if strings.HasPrefix(name, "Query Cache") || strings.HasPrefix(name, "Key Cache") || strings.HasPrefix(name, "InnoDB") {
			t.Errorf("there is %s", name)
		}
	}
	if got := instance("vm1", pairs{}); got != "vm1:*:3306" {
		t.Errorf("instance is %s", got)
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	s := &server{o: Options{Address: "/run/mysqld/mysqld.sock", User: "monitor"}}
	for _, tt := range []struct {
		err  error
		want string
	}{
		{&serverError{1045, "Access denied"}, "let the user monitor in, with the password in applicationPasswords"},
		{&serverError{1317, "interrupted"}, "see the server's log"},
		{errors.New("connection refused"), "start it, or correct the address"},
	} {
		if got := s.explain(tt.err).Error(); !strings.Contains(got, tt.want) || !strings.Contains(got, tt.err.Error()) {
			t.Errorf("%q, want %q in it", got, tt.want)
		}
	}
}
