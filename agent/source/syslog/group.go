package syslog

import (
	"context"
	"net/netip"
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
	wanted Selection
	writer *writer
	table  *record.Table

	messages []received
	fill     func(*record.Batch) // adds messages
	size     int                 // of their values, at most, in bytes
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
	g := &Group{wanted: s.wanted, writer: newWriter(s.self, s.levels), table: s.table}
	g.fill = func(b *record.Batch) {
		for i := range g.messages {
			g.writer.add(b, &g.messages[i].Message, g.messages[i].peer)
		}
	}
	return g
}

// Begin says when the next messages are handled.
func (g *Group) Begin(now time.Time) { g.writer.begin(now) }

// Wants tells whether messages of that kind are wanted.
func (g *Group) Wants(facility, severity uint8) bool { return g.wanted.Has(facility, severity) }

// Full tells whether the group has no room for a message of so many bytes.
func (g *Group) Full(bytes int) bool {
	return len(g.messages) == maxGroup || g.size+bytes+rowValues > source.MaxEmit
}

// Len returns how many messages the group has.
func (g *Group) Len() int { return len(g.messages) }

// Add adds a message of this machine, whose bytes must stay as they are until
// Clear.
func (g *Group) Add(m *Message) {
	g.messages = append(g.messages, received{Message: *m})
	g.size += len(m.Host) + len(m.Ident) + len(m.PID) + len(m.Text) + rowValues
}

// add makes room for a message of a peer, to be filled in.
func (g *Group) add(peer netip.Addr) *Message {
	g.messages = append(g.messages, received{peer: peer})
	return &g.messages[len(g.messages)-1].Message
}

// drop takes the latest message out.
func (g *Group) drop() { g.messages = g.messages[:len(g.messages)-1] }

// Emit emits the messages, with the places behind them.
func (g *Group) Emit(ctx context.Context, out source.Emitter, at ...source.Checkpoint) error {
	return out.Emit(ctx, g.table, g.fill, at...)
}

// Clear empties the group.
func (g *Group) Clear() { g.messages, g.size = g.messages[:0], 0 }
