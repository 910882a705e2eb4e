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

// origin returns Host and HostIP of a message that names host and came from
// peer. What names no host was written by the peer, or here.
func (s *self) origin(host string, peer netip.Addr) (name, ip string) {
	if peer.IsLoopback() {
		peer = netip.Addr{}
	}
	if host == "" && peer.IsValid() {
		host = peer.String()
	}
	if host == "" {
		host = s.name
	}
	if peer.IsValid() && !isAddress(unbracket(host)) {
		return host, peer.String()
	}
	return host, s.ip(host)
}

func unbracket(host string) string {
	return strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
}

func isAddress(text string) bool {
	_, err := netip.ParseAddr(text)
	return err == nil
}

// ip returns the address for a host: the own one, or the one that host is.
// Other names are not looked up: a resolver would be asked for whatever name
// somebody writes into a message.
func (s *self) ip(host string) string {
	if host = unbracket(host); isAddress(host) {
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

// levels has Facility and Severity in their JSON form, by PRI.
type levels [facilities * severities][]byte

func newLevels() *levels {
	l := &levels{}
	for priority := range l {
		l[priority] = []byte(`"Facility":"` + FacilityName(uint8(priority/severities)) + `","Severity":"` + SeverityName(uint8(priority%severities)) + `"`)
	}
	return l
}

// A writer turns messages into rows of the Syslog table. What is the same for
// many messages is kept in its JSON form. It is for one goroutine.
type writer struct {
	self   *self
	levels *levels

	now    []byte // Timestamp
	second int64  // of eventTime
	event  []byte // EventTime

	key     []byte            // of the latest origin: host and peer
	origin  []byte            // Host and HostIP
	origins map[string][]byte // by key
	until   time.Time         // when origins are made anew

	text   []byte // of a message that has an id or data
	fields []record.Field
}

func newWriter(s *self, l *levels) *writer { return &writer{self: s, levels: l} }

// begin says when the next messages are handled.
func (w *writer) begin(now time.Time) {
	w.now = record.AppendTime(append(w.now[:0], `"Timestamp":`...), now)
	if now.After(w.until) {
		w.forget()
		w.until = now.Add(addressFor)
	}
}

func (w *writer) forget() {
	clear(w.origins)
	w.origin = nil
}

// add writes m, which peer has sent, as one row. A process id that the message
// does not have is left out, and an ident is empty, as the OMS agent does.
func (w *writer) add(b *record.Batch, m *Message, peer netip.Addr) {
	w.when(m.Time)
	w.find(m.Host, peer)
	w.fields = append(
		w.fields[:0],
		record.Field{Key: "ident", Value: m.Ident},
		record.Field{Kind: record.Members, Value: w.now},
		record.Field{Kind: record.Members, Value: w.event},
		record.Field{Kind: record.Members, Value: w.origin},
		record.Field{Key: "Message", Value: w.message(m)},
	)
	if len(m.PID) > 0 {
		w.fields = append(w.fields, record.Field{Key: "ProcessId", Value: m.PID})
	}
	w.fields = append(w.fields, record.Field{Kind: record.Members, Value: w.levels[int(m.Facility)*severities+int(m.Severity)]})
	b.Add(w.fields)
}

// when sets event to a time.
func (w *writer) when(at time.Time) {
	if second := at.Unix(); len(w.event) == 0 || second != w.second {
		w.second = second
		w.event = record.AppendTime(append(w.event[:0], `"EventTime":`...), at.Truncate(time.Second))
	}
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

// maxOrigins bounds how many pairs of host and peer are remembered: whoever
// sends can make up names.
const maxOrigins = 1024

// find sets origin to that of a host, as a message has it, and a peer.
func (w *writer) find(host []byte, peer netip.Addr) {
	n := len(host)
	if w.origin != nil && len(w.key) == n+len(netip.Addr{}.As16()) && bytes.Equal(w.key[:n], host) && [16]byte(w.key[n:]) == address(peer) {
		return
	}
	from := address(peer)
	w.key = append(append(w.key[:0], host...), from[:]...)
	if known := w.origins[string(w.key)]; known != nil {
		w.origin = known
		return
	}
	if len(w.origins) >= maxOrigins || w.origins == nil {
		w.origins = make(map[string][]byte)
	}
	name, ip := w.self.origin(string(host), peer)
	w.origin = record.AppendText([]byte(`"Host":`), []byte(name))
	w.origin = record.AppendText(append(w.origin, `,"HostIP":`...), []byte(ip))
	w.origins[string(w.key)] = w.origin
}

// address is peer in a form of fixed length; all zeros on this machine.
func address(peer netip.Addr) [16]byte {
	if !peer.IsValid() {
		return [16]byte{}
	}
	return peer.As16()
}
