package syslog

import (
	"context"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/openloganalytics/agent/agent/record"
	"github.com/openloganalytics/agent/agent/source"
)

// maxGroup is how many messages are emitted together: enough to share the
// cost of an Emit, and few enough to stay in the processor's cache.
const maxGroup = 128

// rowValues is the most that a row has in values besides the message, in bytes.
const rowValues = 320

// A Group gathers messages that are wanted, to emit them together. It is for
// one goroutine.
type Group struct {
	wanted   *atomic.Pointer[Selection] // the source's, which may change
	security Selection                  // of security messages; they go into their own table
	secures  bool                       // that has any
	writer   *writer

	lanes [laneCount]struct {
		table    *record.Table
		messages []received
		fill     func(*record.Batch) // adds messages
	}
	count int // of messages
	size  int // of their values, at most, in bytes
}

// A received message has its sender.
type received struct {
	Message
	peer netip.Addr
}

// NewGroup returns an empty group. Of the options it takes the selectors and
// what tells of this machine.
func NewGroup(o Options) (*Group, error) {
	s, err := newSource("", o)
	if err != nil {
		return nil, err
	}
	return s.group(), nil
}

func (s *Source) group() *Group {
	g := &Group{wanted: &s.wanted, security: s.security, secures: s.security != Selection{}, writer: newWriter(s.self, s.levels)}
	for n := range g.lanes {
		l := &g.lanes[n]
		l.table = s.tables[n]
		l.fill = func(b *record.Batch) {
			for i := range l.messages {
				if m := &l.messages[i]; lane(n) == lanePlain {
					g.writer.add(b, &m.Message, m.peer)
				} else {
					g.writer.addSecurity(b, m)
				}
			}
		}
	}
	return g
}

// Begin says when the next messages are handled.
func (g *Group) Begin(now time.Time) { g.writer.begin(now) }

// Wants tells whether messages of that kind can be wanted.
func (g *Group) Wants(facility, severity uint8) bool {
	return g.wanted.Load().Has(facility, severity) || g.secures && g.security.Has(facility, severity)
}

// Full tells whether the group has no room for a message of so many bytes.
func (g *Group) Full(bytes int) bool {
	return g.count == maxGroup || g.size+bytes+rowValues > source.MaxEmit
}

// Len returns how many messages the group has.
func (g *Group) Len() int { return g.count }

// Add adds a message of this machine if it is wanted. Its bytes must stay as
// they are until Clear.
func (g *Group) Add(m *Message) {
	*g.next(netip.Addr{}) = *m
	g.keep(len(m.Host) + len(m.Ident) + len(m.PID) + len(m.Text))
}

// next makes room for a message of a peer, to be filled in and kept, or not.
func (g *Group) next(peer netip.Addr) *Message {
	plain := &g.lanes[lanePlain].messages
	*plain = append(*plain, received{peer: peer})
	return &(*plain)[len(*plain)-1].Message
}

// drop takes the latest message out.
func (g *Group) drop() {
	plain := &g.lanes[lanePlain].messages
	*plain = (*plain)[:len(*plain)-1]
}

// keep keeps the latest message, of so many bytes, if it is wanted: in one lane,
// never in two.
func (g *Group) keep(bytes int) {
	plain := &g.lanes[lanePlain].messages
	m := &(*plain)[len(*plain)-1]
	if g.secures && g.security.Has(m.Facility, m.Severity) {
		if to := classify(&m.Message); to != lanePlain {
			l := &g.lanes[to].messages
			*l = append(*l, *m)
			g.drop()
			g.count++
			g.size += bytes + rowValues
			return
		}
	}
	if !g.wanted.Load().Has(m.Facility, m.Severity) {
		g.drop()
		return
	}
	g.count++
	g.size += bytes + rowValues
}

// Emit emits the messages, and at last the places behind them. What was taken
// is not in the group any more.
func (g *Group) Emit(ctx context.Context, out source.Emitter, at ...source.Checkpoint) error {
	for n := laneCount - 1; n > lanePlain; n-- {
		l := &g.lanes[n]
		if len(l.messages) == 0 {
			continue
		}
		if err := out.Emit(ctx, l.table, l.fill); err != nil {
			return err
		}
		l.messages = l.messages[:0]
	}
	l := &g.lanes[lanePlain]
	if len(l.messages) == 0 && len(at) == 0 {
		return nil
	}
	if err := out.Emit(ctx, l.table, l.fill, at...); err != nil {
		return err
	}
	l.messages = l.messages[:0]
	return nil
}

// Clear empties the group.
func (g *Group) Clear() {
	for n := range g.lanes {
		g.lanes[n].messages = g.lanes[n].messages[:0]
	}
	g.count, g.size = 0, 0
}
