package mysql

import (
	"strconv"

	"github.com/openloganalytics/agent/agent/source/sampling"
)

// number is the value of a name, 0 when the server does not have it.
func (p pairs) number(name string) float64 {
	v, err := strconv.ParseFloat(p[name], 64)
	if err != nil {
		return 0
	}
	return v
}

// has reports whether the server knows the name at all.
func (p pairs) has(name string) bool { _, ok := p[name]; return ok }

// serverCounters computes the object MySQL Server. Counters of what this server
// does not have, as MySQL 8 has no query cache, are left out.
func serverCounters(status, variables pairs, r sampling.Rounding) sampling.Counters {
	s, v := status.number, variables.number
	c := sampling.Counters{Object: "MySQL Server"}
	c.Set("Connection Use Pct", r.Percent(s("threads_connected"), v("max_connections")))
	c.Set("Aborted Connection Pct", r.Percent(s("aborted_connects"), s("connections")))
	if status.has("key_read_requests") {
		c.Set("Key Cache Hit Pct", 100-r.Percent(s("key_reads"), s("key_read_requests")))
		c.Set("Key Cache Write Pct", r.Percent(s("key_writes"), s("key_write_requests")))
		c.Set("Key Cache Use Pct", 100-r.Percent(s("key_blocks_unused")*v("key_cache_block_size"), v("key_buffer_size")))
	}
	if status.has("qcache_hits") {
		c.Set("Query Cache Hit Pct", r.Percent(s("qcache_hits"), s("qcache_hits")+s("com_select")))
		c.Set("Query Cache Prunes Pct", r.Percent(s("qcache_lowmem_prunes"), queries(status)))
		c.Set("Query Cache Use Pct", r.Percent(v("query_cache_size")-s("qcache_free_memory"), v("query_cache_size")))
	}
	tables := v("table_open_cache")
	if !variables.has("table_open_cache") {
		tables = v("table_cache")
	}
	c.Set("Table Cache Hit Pct", r.Percent(s("open_tables"), s("opened_tables")))
	c.Set("Table Cache Use Pct", r.Percent(s("open_tables"), tables))
	waited := s("table_locks_waited")
	c.Set("Table Lock Contention Pct", r.Percent(waited, waited+s("table_locks_immediate")))
	if status.has("innodb_buffer_pool_read_requests") {
		c.Set("InnoDB Buffer Pool Hit Pct", 100-r.Percent(s("innodb_buffer_pool_reads"), s("innodb_buffer_pool_read_requests")))
		c.Set("InnoDB Buffer Pool Use Pct", r.Percent(s("innodb_buffer_pool_pages_data"), s("innodb_buffer_pool_pages_total")))
	}
	scanned := s("handler_read_rnd") + s("handler_read_rnd_next")
	found := s("handler_read_first") + s("handler_read_key") + s("handler_read_next") + s("handler_read_prev")
	c.Set("Full Table Scan Pct", r.Percent(scanned, scanned+found))
	return c
}

// queries counts the statements, which old servers do not do in one number.
func queries(status pairs) float64 {
	if status.has("queries") {
		return status.number("queries")
	}
	n := status.number
	return n("questions") + n("com_stmt_close") + n("com_stmt_reset") + n("com_stmt_prepare")
}
