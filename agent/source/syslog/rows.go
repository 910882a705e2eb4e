package syslog

import (
	"bytes"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/openloganalytics/agent/agent/record"
)

// newTable returns the table of the rows, named and dressed as the OMS agent
// for Linux does (LINUX_SYSLOGS_BLOB of filter_syslog.rb).
func newTable() *record.Table {
	return &record.Table{Name: "Syslog", DataType: "LINUX_SYSLOGS_BLOB", IPName: "LOGMANAGEMENT", EventTime: "EventTime"}
}

// unknownIP is the HostIP of a host whose address is not known.
const unknownIP = "Unknown IP"

// A self is this machine as messages name it.
type self struct {
	name      string // short
	addresses func() []string
	now       func() time.Time

	mu      sync.Mutex
	address string
	until   time.Time // when address is asked for again
}

// addressFor is how long the own address is taken to be the same.
const addressFor = 5 * time.Minute

// is tells whether host, as a message has it, is this machine.
func (s *self) is(host string) bool {
	short, _, _ := strings.Cut(host, ".")
	return strings.EqualFold(short, s.name) || strings.EqualFold(short, "localhost")
}

// ip returns the address for a host: the own one, or the one that host is.
// Other names are not looked up: a resolver would be asked for whatever name
// somebody writes into a message.
func (s *self) ip(host string) string {
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if _, err := netip.ParseAddr(host); err == nil {
		return host
	}
	if !s.is(host) {
		return unknownIP
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := s.now(); s.address == "" || now.After(s.until) {
		s.address, s.until = unknownIP, now.Add(addressFor)
		if s.addresses != nil {
			if all := s.addresses(); len(all) > 0 {
				s.address = all[0]
			}
		}
	}
	return s.address
}

// A writer turns messages into rows of the Syslog table. What is the same for
// many messages is kept in its JSON form. It is for one goroutine.
type writer struct {
	self *self

	now    []byte // Timestamp
	second int64  // of eventTime
	event  []byte // EventTime
	host   []byte // as messages have it
	origin []byte // Host and HostIP
	until  time.Time
	levels [facilities * severities][]byte // Facility and Severity

	text   []byte // of a message that has an id or data
	fields []record.Field
}

func newWriter(s *self) *writer { return &writer{self: s} }

// begin says when the next messages are handled.
func (w *writer) begin(now time.Time) {
	w.now = record.AppendTime(append(w.now[:0], `"Timestamp":`...), now)
	if now.After(w.until) {
		w.origin, w.until = w.origin[:0], now.Add(addressFor)
	}
}

// add writes m as one row. Fields that the message does not have are left out,
// as the OMS agent does.
func (w *writer) add(b *record.Batch, m *Message) {
	if second := m.Time.Unix(); len(w.event) == 0 || second != w.second {
		w.second = second
		w.event = record.AppendTime(append(w.event[:0], `"EventTime":`...), m.Time.Truncate(time.Second))
	}
	if len(w.origin) == 0 || !bytes.Equal(m.Host, w.host) {
		w.host = append(w.host[:0], m.Host...)
		host := string(m.Host)
		if host == "" {
			host = w.self.name // what names no host was written here
		}
		w.origin = record.AppendText(append(w.origin[:0], `"Host":`...), []byte(host))
		w.origin = record.AppendText(append(w.origin, `,"HostIP":`...), []byte(w.self.ip(host)))
	}
	w.fields = w.fields[:0]
	if len(m.Ident) > 0 {
		w.fields = append(w.fields, record.Field{Key: "ident", Value: m.Ident})
	}
	w.fields = append(
		w.fields,
		record.Field{Kind: record.Members, Value: w.now},
		record.Field{Kind: record.Members, Value: w.event},
		record.Field{Kind: record.Members, Value: w.origin},
		record.Field{Key: "Message", Value: w.message(m)},
	)
	if len(m.PID) > 0 {
		w.fields = append(w.fields, record.Field{Key: "ProcessId", Value: m.PID})
	}
	w.fields = append(w.fields, record.Field{Kind: record.Members, Value: w.level(m.Facility, m.Severity)})
	b.Add(w.fields)
}

// message returns the text, after the id and the structured data if there are
// any: the table has no columns for them.
func (w *writer) message(m *Message) []byte {
	if len(m.ID) == 0 && len(m.Data) == 0 {
		return m.Text
	}
	w.text = w.text[:0]
	for _, part := range [][]byte{m.ID, m.Data, m.Text} {
		if len(part) > 0 && len(w.text) > 0 {
			w.text = append(w.text, ' ')
		}
		w.text = append(w.text, part...)
	}
	return w.text
}

func (w *writer) level(facility, severity uint8) []byte {
	level := &w.levels[int(facility)*severities+int(severity)]
	if *level == nil {
		*level = []byte(`"Facility":"` + FacilityName(facility) + `","Severity":"` + SeverityName(severity) + `"`)
	}
	return *level
}
