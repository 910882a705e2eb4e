package syslog

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/openloganalytics/agent/agent/source/sourcetest"
)

func socketPath(t *testing.T) string { return filepath.Join(t.TempDir(), "s") }

// TestSocketStopLosesNothing: every message that the kernel accepted before the
// stop, or while the source stopped, is durable when Run has returned.
func TestSocketStopLosesNothing(t *testing.T) {
	path := socketPath(t)
	out := emitter(path)
	stop := run(t, Options{Socket: path}, out)
	opened(t, out, path)
	conn := dial(t, "unixgram", path)
	sent := 0
	write := func() (err error) {
		if _, err = conn.Write([]byte(numbered(sent))); err == nil {
			sent++
		}
		return err
	}
	for sent < 500 {
		if err := write(); err != nil {
			t.Fatal(err)
		}
	}
	// While the spool takes nothing the socket's queue fills up.
	out.Block()
	for {
		if err := conn.SetWriteDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if err := write(); errors.Is(err, os.ErrDeadlineExceeded) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.SetWriteDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	refused := make(chan struct{})
	go func() {
		defer close(refused)
		for write() == nil { // until the source lets nobody send any more
		}
	}()
	time.AfterFunc(20*time.Millisecond, out.Unblock)
	stop()
	<-refused
	checkNumbered(t, out.Crash(), sent)
}

// TestSocketStarts: a socket that a crash has left is replaced, anything else
// at its path is left alone and the trouble says so.
func TestSocketStarts(t *testing.T) {
	left := socketPath(t)
	listener, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: left, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	if err := listener.Close(); err != nil { // which leaves the file
		t.Fatal(err)
	}
	out := emitter(left)
	run(t, Options{Socket: left}, out)
	opened(t, out, left)
	send(t, dial(t, "unixgram", left), numbered(0))
	if err := out.WaitRows(within(t), 1); err != nil {
		t.Fatal(err)
	}

	file := socketPath(t)
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{file: "left alone", left: "another process receives there"} {
		out := sourcetest.New()
		stop := run(t, Options{Socket: path}, out)
		if err := out.Wait(within(t), func() bool { return strings.Contains(out.Troubles()[path], want) }); err != nil {
			t.Error(err)
		}
		stop()
	}
	if data, err := os.ReadFile(file); err != nil || string(data) != "precious" {
		t.Errorf("the file at the socket's path is %q, %v; want it untouched", data, err)
	}
}

func TestSocketMode(t *testing.T) {
	for gid, want := range map[int]os.FileMode{0: 0o666, os.Getgid() + 12345: 0o660} {
		path := socketPath(t)
		conn, err := listenUnix(path, gid)
		if gid != 0 && os.Geteuid() != 0 {
			if err == nil {
				t.Error("a group of others was given without privilege")
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		var stat unix.Stat_t
		if err := errors.Join(unix.Stat(path, &stat), conn.Close()); err != nil {
			t.Fatal(err)
		}
		if mode := os.FileMode(stat.Mode).Perm(); mode != want || int(stat.Gid) != gid {
			t.Errorf("socket for group %d has mode %o and group %d, want %o", gid, mode, stat.Gid, want)
		}
	}
}

func TestSocketLongMessage(t *testing.T) {
	path := socketPath(t)
	out := emitter(path)
	run(t, Options{Socket: path}, out)
	opened(t, out, path)
	conn := dial(t, "unixgram", path)
	whole := "<30>app: " + strings.Repeat("x", maxMessage-len("<30>app: "))
	send(t, conn, whole)
	send(t, conn, whole+"12345")
	if err := out.WaitRows(within(t), 2); err != nil {
		t.Fatal(err)
	}
	if texts := messages(out); len(texts[0]) != len(whole)-9 || texts[1] != texts[0] {
		t.Errorf("messages of %d and %d bytes, want %d", len(texts[0]), len(texts[1]), len(whole)-9)
	}
	checkTruncated(t, out, "daemon", 1) // the kernel does not say how many
}

// TestUDPWhileTheSpoolIsFull: whatever does not fit, and wherever, sent =
// emitted + lost.
func TestUDPWhileTheSpoolIsFull(t *testing.T) {
	address := freePort(t, "udp")
	out := emitter("udp " + address)
	const queue = 4 << 20 // less than maxQueued, for the emitter of the test is slow
	stop := run(t, Options{UDP: address, queue: queue}, out)
	opened(t, out, "udp "+address)
	out.Block()
	conn := dial(t, "udp", address)
	padding := strings.Repeat(" ", 16000)
	const count = 2 * queue / 16000
	for i := range count {
		send(t, conn, numbered(i)+padding)
	}
	if err := out.Wait(within(t), func() bool { return len(out.Losses()) > 0 }); err != nil {
		t.Fatal(err)
	}
	out.Unblock()
	stop()
	got := int64(len(messages(out)))
	for _, loss := range out.Losses() {
		got += loss.Records
	}
	if got != count {
		t.Errorf("%d messages emitted or lost, want %d", got, count)
	}
}

// TestFullQueueLosesTheOldest: and counts them by facility.
func TestFullQueueLosesTheOldest(t *testing.T) {
	s, err := New(Options{UDP: "127.0.0.1:514", Selectors: everything()})
	if err != nil {
		t.Fatal(err)
	}
	out := sourcetest.New()
	r, q := s.receiver(t.Context(), out, "udp"), newBurstQueue(maxQueued)
	out.Block()
	padding := strings.Repeat(" ", 16000)
	const count = maxQueued/16000 + 100
	for i := range count {
		b := q.next()
		b.add([]byte(numbered(i)+padding), netip.Addr{})
		if err := r.enqueue(b, q); err != nil {
			t.Fatal(err)
		}
	}
	out.Unblock()
	q.close()
	for b := q.take(); b != nil; b = q.take() {
		if err := r.burst(b); err != nil {
			t.Fatal(err)
		}
	}
	lost := 0
	for _, loss := range out.Losses() {
		if loss.Reason != "spool-full" || loss.Class != "user" {
			t.Errorf("loss %+v, want spool-full of user", loss)
		}
		lost += int(loss.Records)
	}
	texts := messages(out)
	if lost < 100 || lost > 200 || len(texts)+lost != count {
		t.Fatalf("%d emitted and %d lost, want about 100 lost and %d together", len(texts), lost, count)
	}
	for i, text := range texts {
		if want := fmt.Sprintf("message %d", lost+i); strings.TrimSpace(text) != want {
			t.Fatalf("message %d is %q, want %q: the oldest are lost", i, strings.TrimSpace(text), want)
		}
	}
}

// TestQueueIsForMessages: however few datagrams come at a time, as many of them
// fit into the queue, and they come out in order with their senders.
func TestQueueIsForMessages(t *testing.T) {
	q := newBurstQueue(maxQueued)
	const count = 20000
	for i := range count {
		b := q.next()
		b.add(fmt.Appendf(nil, "%05d", i), netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}))
		if !q.put(b) {
			t.Fatalf("no room for datagram %d", i)
		}
	}
	q.close()
	n := 0
	for b := q.take(); b != nil; b = q.take() {
		start := 0
		for i, end := range b.ends {
			want := fmt.Sprintf("%05d 10.0.%d.%d", n, byte(n>>8), byte(n))
			if got := string(b.bytes[start:end]) + " " + b.peers[i].String(); got != want {
				t.Fatalf("datagram %d is %q, want %q", n, got, want)
			}
			start = end
			n++
		}
	}
	if n != count || q.used != 0 {
		t.Errorf("%d datagrams and %d bytes left, want %d and 0", n, q.used, count)
	}
}

// TestUDPKernelDrops: what the kernel drops is counted to the last one, also
// when nothing comes after it.
func TestUDPKernelDrops(t *testing.T) {
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	sender := dial(t, "udp", conn.LocalAddr().String())
	socket, err := newUDPSocket(conn)
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	if err := unix.SetsockoptInt(socket.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 16<<10); err != nil {
		t.Fatal(err)
	}
	for round := range 2 {
		const count = 500
		for range count {
			send(t, sender, "<13>app: "+strings.Repeat("x", 200))
		}
		var got int64
		for empty := false; !empty; {
			var b burst
			if empty, err = socket.read(&b); err != nil {
				t.Fatal(err)
			}
			got += int64(len(b.ends))
		}
		listed, ok := socket.listedDrops()
		drops := socket.drops()
		if got == 0 || drops == 0 || got+drops != count {
			t.Errorf("round %d: %d read and %d dropped, want both and %d together", round, got, drops, count)
		}
		if !ok || listed != socket.dropped {
			t.Errorf("round %d: /proc/net/udp has %d drops, %v; want %d", round, listed, ok, socket.dropped)
		}
	}
}

// TestUDPBatch: a read takes many datagrams, each with its sender, and leaves
// out empty ones.
func TestUDPBatch(t *testing.T) {
	conn, err := net.ListenUDP("udp", nil) // IPv6 and IPv4
	if err != nil {
		t.Fatal(err)
	}
	port := conn.LocalAddr().(*net.UDPAddr).Port
	socket, err := newUDPSocket(conn)
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	for i, host := range []string{"127.0.0.1", "::1"} {
		sender := dial(t, "udp", net.JoinHostPort(host, strconv.Itoa(port)))
		for range 100 {
			send(t, sender, strconv.Itoa(i))
			send(t, sender, "")
		}
	}
	var b burst
	for empty := false; !empty; {
		if empty, err = socket.read(&b); err != nil {
			t.Fatal(err)
		}
	}
	if len(b.ends) != 200 || string(b.bytes) != strings.Repeat("0", 100)+strings.Repeat("1", 100) {
		t.Fatalf("%d datagrams %q, want 200", len(b.ends), b.bytes)
	}
	if got, want := [2]string{b.peers[0].String(), b.peers[199].String()}, [2]string{"127.0.0.1", "::1"}; got != want {
		t.Errorf("senders %v, want %v", got, want)
	}
}

func TestDropsOf(t *testing.T) {
	const list = `   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  204: 0100007F:1388 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0000000000000000 0
  205: 0100007F:1389 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4712 2 0000000000000000 815
`
	if got, ok := dropsOf([]byte(list), []byte("4712")); got != 815 || !ok {
		t.Errorf("drops of 4712 = %d, %v; want 815", got, ok)
	}
	if got, ok := dropsOf([]byte(list), []byte("471")); ok {
		t.Errorf("drops of a socket that is not listed = %d", got)
	}
}

// A daemon writes into the pipe as rsyslog does: without waiting, and taking
// for written whatever the pipe took.
type daemon struct {
	t  *testing.T
	fd int
}

func openDaemon(t *testing.T, path string) *daemon {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Close(fd); err != nil {
			t.Error(err)
		}
	})
	return &daemon{t, fd}
}

// write returns false when the pipe is full.
func (d *daemon) write(msg string) bool {
	d.t.Helper()
	_, err := unix.Write(d.fd, []byte("\x02"+msg+"\n"))
	if err != nil && !errors.Is(err, unix.EAGAIN) {
		d.t.Fatal(err)
	}
	return err == nil
}

// TestPipeRestart: what was written before, during and after a stop arrives
// once and in order. While no agent reads the pipe is full, so that rsyslog
// keeps its messages; and nothing is lost when rsyslog then restarts.
func TestPipeRestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	out := emitter(path)
	stop := run(t, Options{Pipe: path}, out)
	opened(t, out, path)
	d := openDaemon(t, path)
	sent := 0
	for ; sent < 5000; sent++ {
		for !d.write(numbered(sent)) {
			time.Sleep(time.Millisecond) // the reader is behind
		}
	}
	stop()
	durable := out.Crash()
	checkNumbered(t, durable, sent)
	if d.write(numbered(sent)) || d.write("") {
		t.Error("the pipe takes messages while no agent reads it")
	}

	durable.Trouble(path, "not open yet")
	stop = run(t, Options{Pipe: path}, durable)
	opened(t, durable, path)
	for ; sent < 6000; sent++ {
		for !d.write(numbered(sent)) {
			time.Sleep(time.Millisecond)
		}
	}
	stop()
	checkNumbered(t, durable.Crash(), sent)
}

// TestPipeOutlivesCrash: what is in the pipe when the agent dies is read by
// the next one.
func TestPipeOutlivesCrash(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	d := openDaemon(t, path)
	dead, err := openPipe(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 500 {
		if !d.write(numbered(i)) {
			t.Fatal("the pipe is full")
		}
	}
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
	out := sourcetest.New()
	stop := run(t, Options{Pipe: path}, out)
	if err := out.WaitRows(within(t), 500); err != nil {
		t.Fatal(err)
	}
	stop()
	checkNumbered(t, out, 500)
}

// TestPipeCutMessage: of a long message the pipe can take a part. It is a
// record of its own, and told as cut.
func TestPipeCutMessage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	pipe, err := openPipe(path)
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	d := openDaemon(t, path)
	long := "<30>app: " + strings.Repeat("x", 9000)
	sent := 0
	for d.write(long) {
		sent++
	}
	out := emitter(path)
	stop := run(t, Options{Pipe: path}, out)
	// The cut one waits for what tells that it was cut.
	if err := out.WaitRows(within(t), sent-1); err != nil {
		t.Fatal(err)
	}
	if !d.write(numbered(0)) {
		t.Fatal("the pipe is full though it was read")
	}
	stop()
	texts := messages(out)
	if len(texts) != sent+1 || texts[sent] != "message 0" {
		t.Fatalf("%d messages, the last %q; want %d and message 0", len(texts), texts[len(texts)-1], sent+1)
	}
	if n := len(texts[sent-1]); n >= 9000 || n == 0 {
		t.Fatalf("the last long message has %d bytes: nothing was cut", n)
	}
	checkTruncated(t, out, "daemon", 1)
}

// TestPipeKeepsWhatTheSpoolCannotTake: when the spool has no room at the stop,
// what was read is told as lost and the rest stays in the pipe.
func TestPipeKeepsWhatTheSpoolCannotTake(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	s, err := New(Options{Pipe: path, Selectors: everything()})
	if err != nil {
		t.Fatal(err)
	}
	out := emitter(path)
	out.Block()
	ctx, cancel := context.WithCancel(t.Context())
	closing, end := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.receivePipe(ctx, s.receiver(closing, out, path)) }()
	opened(t, out, path)
	d := openDaemon(t, path)
	const count = 9000
	for i := range count {
		if !d.write(numbered(i)) {
			t.Fatal("the pipe is full")
		}
	}
	cancel()
	end()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	lost := 0
	for _, loss := range out.Losses() {
		if loss.Reason != "spool-full" {
			t.Errorf("loss %+v, want only what the spool did not take", loss)
		}
		lost += int(loss.Records)
	}
	next := emitter(path)
	stop := run(t, Options{Pipe: path}, next)
	opened(t, next, path)
	stop()
	got := messages(next)
	// One message may have been read in part: its head is lost, its tail is not.
	if sum := len(got) + lost; sum != count && sum != count+1 || len(got) == 0 {
		t.Errorf("%d messages lost and %d in the pipe, want %d together and some in the pipe", lost, len(got), count)
	}
}

func TestPipeIsNoPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	out := sourcetest.New()
	stop := run(t, Options{Pipe: path}, out)
	if err := out.Wait(within(t), func() bool { return strings.Contains(out.Troubles()[path], "left alone") }); err != nil {
		t.Error(err)
	}
	stop()
	if data, err := os.ReadFile(path); err != nil || string(data) != "precious" {
		t.Errorf("the file is %q, %v; want it untouched", data, err)
	}
}
