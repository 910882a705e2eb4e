package transform

import (
	"context"
	"encoding/json"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/openloganalytics/agent/agent/record"
)

// Bounds of looking up names: rows must not wait long for them.
const (
	dnsTimeout  = time.Second
	dnsKept     = 10 * time.Minute
	dnsEntries  = 4096
	dnsPatience = 3 // timeouts in a row; then nothing is asked for dnsPause
	dnsPause    = time.Minute
)

// dnsLookup gives rows the name of an address.
type dnsLookup struct {
	from, to string
	resolver Resolver
	now      func() time.Time

	kept     map[netip.Addr]keptName
	timeouts int
	silent   time.Time // until then nothing is asked
}

type keptName struct {
	name  string // empty when there is none
	until time.Time
}

func (b *builder) dnsLookup(raw json.RawMessage) {
	var c struct {
		ColumnName string `json:"columnName"`
		NameAs     string `json:"nameAs"`
	}
	if !b.decode(raw, &c) {
		return
	}
	from, found := b.column("configuration.columnName", c.ColumnName)
	if !found || !b.fresh("configuration.nameAs", c.NameAs) {
		return
	}
	b.p.schema = append(b.p.schema, columnType{c.NameAs, typeString})
	b.add(&dnsLookup{from: from.name, to: c.NameAs, resolver: net.DefaultResolver, now: time.Now})
}

func (s *dnsLookup) apply(ctx context.Context, r *row) bool {
	address, err := netip.ParseAddr(string(text(r.get(s.from))))
	if err != nil {
		return true
	}
	if name := s.name(ctx, address.Unmap().WithZone("")); name != "" {
		r.set(s.to, r.make(func(b []byte) []byte { return record.AppendText(b, []byte(name)) }))
	}
	return true
}

func (s *dnsLookup) name(ctx context.Context, address netip.Addr) string {
	now := s.now()
	if k, known := s.kept[address]; known && now.Before(k.until) {
		return k.name
	}
	if now.Before(s.silent) {
		return ""
	}
	asking, cancel := context.WithTimeout(ctx, dnsTimeout)
	names, err := s.resolver.LookupAddr(asking, address.String())
	late := asking.Err() != nil
	cancel()
	if late {
		if s.timeouts++; s.timeouts >= dnsPatience {
			s.timeouts, s.silent = 0, now.Add(dnsPause)
		}
		return ""
	}
	s.timeouts = 0
	var name string
	if err == nil && len(names) > 0 {
		name = strings.TrimSuffix(names[0], ".")
	}
	if len(s.kept) >= dnsEntries || s.kept == nil {
		s.kept = map[netip.Addr]keptName{}
	}
	s.kept[address] = keptName{name, now.Add(dnsKept)}
	return name
}
