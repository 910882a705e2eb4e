package syslog

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/openloganalytics/agent/agent/record"
	"github.com/openloganalytics/agent/agent/source"
	"github.com/openloganalytics/agent/agent/source/sourcetest"
)

// everything selects all messages.
func everything() []Selector {
	return []Selector{{Facilities: []string{"*"}, Severities: []string{"*"}}}
}

// within is a context for what is expected soon.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// run starts a source and returns what stops it and waits for its end.
func run(t *testing.T, o Options, out source.Emitter) (stop func()) {
	t.Helper()
	if o.Selectors == nil {
		o.Selectors = everything()
	}
	o.Hostname = "vm"
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return runSource(t, s, out)
}

func runSource(t *testing.T, s *Source, out source.Emitter) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, out) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run() = %v, want nil after its context ended", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

// opened waits until the source has opened all its inputs: it clears a trouble
// that the test had set.
func opened(t *testing.T, out *sourcetest.Emitter, things ...string) {
	t.Helper()
	err := out.Wait(within(t), func() bool {
		for _, thing := range things {
			if out.Troubles()[thing] == "" {
				continue
			}
			return false
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
}

// emitter returns an emitter with a trouble for each thing, for opened.
func emitter(things ...string) *sourcetest.Emitter {
	out := sourcetest.New()
	for _, thing := range things {
		out.Trouble(thing, "not open yet")
	}
	return out
}

func messages(out *sourcetest.Emitter) []string {
	rows := out.Rows("Syslog")
	texts := make([]string, 0, len(rows))
	for _, row := range rows {
		texts = append(texts, fmt.Sprint(row["Message"]))
	}
	return texts
}

// numbered returns message n, and checkNumbered holds that those from 0 to
// count arrived once and in order.
func numbered(n int) string { return fmt.Sprintf("<13>app[7]: message %d", n) }

func checkNumbered(t *testing.T, out *sourcetest.Emitter, count int) {
	t.Helper()
	got := messages(out)
	for i, text := range got {
		if want := fmt.Sprintf("message %d", i); text != want {
			t.Fatalf("message %d of %d is %q, want %q", i, len(got), text, want)
		}
	}
	if len(got) != count {
		t.Fatalf("%d messages, want %d", len(got), count)
	}
}

// freePort returns a loopback address that nobody listens on.
func freePort(t *testing.T, network string) string {
	t.Helper()
	if network == "udp" {
		conn, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.LocalAddr().String()
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

func dial(t *testing.T, network, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func send(t *testing.T, to io.Writer, text string) {
	t.Helper()
	if _, err := io.WriteString(to, text); err != nil {
		t.Fatal(err)
	}
}

func TestNewRefuses(t *testing.T) {
	tests := []struct {
		name string
		o    Options
		want string // in the error
	}{
		{"an address that others reach", Options{UDP: "10.0.0.4:514"}, "only a port of a loopback address"},
		{"all addresses", Options{TCP: "0.0.0.0:514"}, "only a port of a loopback address"},
		{"all IPv6 addresses", Options{TCP: "[::]:514"}, "only a port of a loopback address"},
		{"no host", Options{TCP: ":514"}, "127.0.0.1:PORT"},
		{"a name", Options{UDP: "localhost:514"}, "127.0.0.1:PORT"},
		{"no port", Options{UDP: "127.0.0.1:0"}, "only a port of a loopback address"},
		{"nothing", Options{}, "nothing to receive from"},
		{"an unknown facility", Options{UDP: "127.0.0.1:514", Selectors: []Selector{{Facilities: []string{"x"}}}}, `"x" is no facility`},
	}
	for _, tt := range tests {
		if _, err := New(tt.o); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("New with %s = %v, want an error with %q", tt.name, err, tt.want)
		}
	}
}

func TestTCP(t *testing.T) {
	address := freePort(t, "tcp")
	out := emitter("tcp " + address)
	stop := run(t, Options{TCP: address}, out)
	opened(t, out, "tcp "+address)

	conn := dial(t, "tcp", address)
	for i := range 1000 {
		msg := numbered(i)
		if i%3 == 0 {
			msg = fmt.Sprintf("%d %s", len(msg), msg)
		} else {
			msg += "\n"
		}
		send(t, conn, msg)
	}
	send(t, conn, numbered(1000)) // and no LF
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	if err := out.WaitRows(within(t), 1001); err != nil {
		t.Fatal(err)
	}
	stop()
	checkNumbered(t, out, 1001)
}

// TestTCPStopReadsWhatWasSent: what a sender has written before the stop is
// emitted and durable, and a sender that looks sees that the other side is shut.
func TestTCPStopReadsWhatWasSent(t *testing.T) {
	address := freePort(t, "tcp")
	out := emitter("tcp " + address)
	stop := run(t, Options{TCP: address}, out)
	opened(t, out, "tcp "+address)
	conn := dial(t, "tcp", address)
	send(t, conn, numbered(0)+"\n")
	if err := out.WaitRows(within(t), 1); err != nil {
		t.Fatal(err)
	}
	const count = 5000
	for i := 1; i < count; i++ {
		send(t, conn, numbered(i)+"\n")
	}
	stop()
	if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("the sender reads %d bytes, %v; want the end", n, err)
	}
	checkNumbered(t, out.Crash(), count)
}

func TestTCPLongMessage(t *testing.T) {
	address := freePort(t, "tcp")
	out := emitter("tcp " + address)
	run(t, Options{TCP: address}, out)
	opened(t, out, "tcp "+address)
	conn := dial(t, "tcp", address)
	whole := "<30>app: " + strings.Repeat("x", maxMessage-len("<30>app: "))
	send(t, conn, whole+"\n"+whole+"12345\n"+"<30>app: next\n")
	if err := out.WaitRows(within(t), 3); err != nil {
		t.Fatal(err)
	}
	texts := messages(out)
	if len(texts[0]) != maxMessage-len("<30>app: ") || texts[1] != texts[0] || texts[2] != "next" {
		t.Errorf("messages of %d, %d bytes and %q, want %d, %d and next", len(texts[0]), len(texts[1]), texts[2], len(whole)-9, len(whole)-9)
	}
	checkTruncated(t, out, "daemon", 5)
}

// checkTruncated holds that the losses are bytes of messages of one facility,
// and of no record.
func checkTruncated(t *testing.T, out *sourcetest.Emitter, facility string, bytes int64) {
	t.Helper()
	got := int64(0)
	for _, loss := range out.Losses() {
		if loss.Reason != "truncated" || loss.Class != facility || loss.Records != 0 {
			t.Errorf("loss %+v, want only truncated messages of %s", loss, facility)
		}
		got += loss.Bytes
	}
	if got != bytes {
		t.Errorf("%d bytes truncated, want %d", got, bytes)
	}
}

func TestTCPConnectionsAreBounded(t *testing.T) {
	address := freePort(t, "tcp")
	out := emitter("tcp " + address)
	run(t, Options{TCP: address}, out)
	opened(t, out, "tcp "+address)
	var first net.Conn
	for i := range maxLocal {
		conn := dial(t, "tcp", address)
		send(t, conn, numbered(i)+"\n")
		if i == 0 {
			first = conn
		}
	}
	if err := out.WaitRows(within(t), maxLocal); err != nil {
		t.Fatal(err)
	}
	if n, err := dial(t, "tcp", address).Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("one connection too many reads %d bytes, %v; want the end", n, err)
	}
	if err := out.Wait(within(t), func() bool { return strings.Contains(out.Troubles()["tcp "+address], "64 senders") }); err != nil {
		t.Error(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	opened(t, out, "tcp "+address) // the trouble is over
	send(t, dial(t, "tcp", address), numbered(maxLocal)+"\n")
	if err := out.WaitRows(within(t), maxLocal+1); err != nil {
		t.Error(err)
	}
}

func TestUDP(t *testing.T) {
	address := freePort(t, "udp")
	out := emitter("udp " + address)
	stop := run(t, Options{UDP: address}, out)
	opened(t, out, "udp "+address)
	conn := dial(t, "udp", address)
	for i := range 100 {
		send(t, conn, numbered(i))
		if i%10 == 0 {
			send(t, conn, "") // an empty datagram ends nothing
		}
	}
	stop() // and what is in the socket is read
	checkNumbered(t, out, 100)
}

func TestUnwantedMessagesAreLeftOut(t *testing.T) {
	address := freePort(t, "udp")
	out := emitter("udp " + address)
	stop := run(t, Options{UDP: address, Selectors: []Selector{{Facilities: []string{"auth"}, Severities: []string{"err"}}}}, out)
	opened(t, out, "udp "+address)
	conn := dial(t, "udp", address)
	for priority := range facilities * severities {
		send(t, conn, fmt.Sprintf("<%d>app: %d", priority, priority))
	}
	stop()
	if got := messages(out); len(got) != 1 || got[0] != "35" {
		t.Errorf("messages %q, want that of auth.err alone", got)
	}
}

// TestSelectionChanges: from then on other messages are wanted, on the
// connection that was open before.
func TestSelectionChanges(t *testing.T) {
	address := freePort(t, "tcp")
	out := emitter("tcp " + address)
	s, err := New(Options{TCP: address, Hostname: "vm", Selectors: everything()})
	if err != nil {
		t.Fatal(err)
	}
	runSource(t, s, out)
	opened(t, out, "tcp "+address)
	conn := dial(t, "tcp", address)
	for _, step := range []struct {
		severities []string
		want       string
	}{{[]string{"err"}, "<3>app: 3"}, {[]string{"info"}, "<6>app: 6"}, {[]string{}, ""}, {[]string{"*"}, "<3>app: 3<6>app: 6"}} {
		mark := Selector{Facilities: []string{"user"}, Severities: []string{"emerg"}}
		other, err := New(Options{TCP: address, Selectors: []Selector{mark, {Facilities: []string{"kern"}, Severities: step.severities}}})
		if err != nil {
			t.Fatal(err)
		}
		s.SelectAs(other)
		before := len(messages(out))
		send(t, conn, "<3>app: 3\n<6>app: 6\n<8>app: end\n")
		if err := out.Wait(within(t), func() bool { m := messages(out); return len(m) > before && m[len(m)-1] == "end" }); err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, m := range messages(out)[before : len(messages(out))-1] {
			got += "<" + m + ">app: " + m
		}
		if got != step.want {
			t.Errorf("with %q: %q, want %q", step.severities, got, step.want)
		}
	}
}

// TestPortInUse: the trouble names the port while it is taken, and the source
// goes on without being started again once it is free.
func TestPortInUse(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	out := sourcetest.New()
	run(t, Options{TCP: address}, out)
	if err := out.Wait(within(t), func() bool { return strings.Contains(out.Troubles()["tcp "+address], address) }); err != nil {
		t.Fatal(err)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	opened(t, out, "tcp "+address)
	send(t, dial(t, "tcp", address), numbered(0)+"\n")
	if err := out.WaitRows(within(t), 1); err != nil {
		t.Fatal(err)
	}
}

// TestGroupsKeepTheLimit: however small the messages, no Emit has more than
// MaxEmit bytes of values.
func TestGroupsKeepTheLimit(t *testing.T) {
	s, err := New(Options{UDP: "127.0.0.1:514", Selectors: everything()})
	if err != nil {
		t.Fatal(err)
	}
	out := &sizes{Emitter: sourcetest.New()}
	r := s.receiver(t.Context(), out, "udp")
	r.begin()
	const count = 5000
	for range count {
		if err := r.take([]byte("<13>x")); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.finish(); err != nil {
		t.Fatal(err)
	}
	if got := len(out.Rows("Syslog")); got != count {
		t.Errorf("%d rows, want %d", got, count)
	}
	if out.most > source.MaxEmit {
		t.Errorf("an Emit of %d bytes, want at most %d", out.most, source.MaxEmit)
	}
}

// sizes notes the largest Emit, in bytes of rows with their keys.
type sizes struct {
	*sourcetest.Emitter
	most int
}

func (s *sizes) Emit(ctx context.Context, table *record.Table, fill func(*record.Batch), at ...source.Checkpoint) error {
	return s.Emitter.Emit(ctx, table, func(b *record.Batch) {
		fill(b)
		s.most = max(s.most, b.Pending())
	}, at...)
}

// TestFullSpool: what the spool does not take by the end is told as lost, by
// facility.
func TestFullSpool(t *testing.T) {
	s, err := New(Options{UDP: "127.0.0.1:514", Selectors: everything(), Now: func() time.Time { return testNow }})
	if err != nil {
		t.Fatal(err)
	}
	out := sourcetest.New()
	closing, cancel := context.WithCancel(t.Context())
	r := s.receiver(closing, out, "udp")
	r.begin()
	out.Block()
	cancel()
	for _, msg := range []string{"<30>2026-11-24T10:00:01Z vm a: 1", "<84>2026-11-24T10:00:02Z vm a: 2", "<30>2026-11-24T09:00:03Z vm a: 3"} {
		if err := r.take([]byte(msg)); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.finish(); err != nil {
		t.Fatal(err)
	}
	at := func(h, s int) time.Time { return time.Date(2026, 11, 24, h, 0, s, 0, time.UTC) }
	want := []source.Loss{
		{Reason: "spool-full", Class: "daemon", Records: 2, Bytes: 2, First: at(9, 3), Last: at(10, 1)},
		{Reason: "spool-full", Class: "authpriv", Records: 1, Bytes: 1, First: at(10, 2), Last: at(10, 2)},
	}
	got := out.Losses()
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("losses %+v, want %+v", got, want)
	}
}
