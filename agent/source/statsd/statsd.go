// Package statsd takes StatsD's datagrams at a port of the loopback address and
// sums them up into rows of the table Perf, as the OMS agent for Linux did.
package statsd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/openloganalytics/agent/agent/record"
	"github.com/openloganalytics/agent/agent/source"
	"github.com/openloganalytics/agent/agent/source/sampling"
)

// Options says where clients find the agent, and how their values are summed
// up.
type Options struct {
	Port       int           // of 127.0.0.1
	Interval   time.Duration // over which is summed up
	Percentile int           // 1 to 100: the share of the fastest timers that is summed up besides all
	Computer   string        // short host name
}

// New returns the source. It listens while it runs.
func New(o Options) source.Source {
	return &input{o: o, table: sampling.Table(), sums: newSums()}
}

type input struct {
	o     Options
	table *record.Table

	mu      sync.Mutex
	sums    *sums
	since   time.Time // when the sums began
	odd     int       // lines that were not understood since then
	lastOdd string
}

// Name implements source.Source.
func (i *input) Name() string { return name }

// name is the source's, and the key of its checkpoint: the gauges.
const name = "statsd"

// receiveBuffer is what the kernel keeps while the agent is busy.
const receiveBuffer = 1 << 20

// Run implements source.Source. At the end it hands over what has come.
func (i *input) Run(ctx context.Context, out source.Emitter) error {
	if err := i.restore(out.Checkpoint(name)); err != nil {
		out.Trouble("gauges", err.Error())
	}
	socket, err := new(net.ListenConfig).ListenPacket(ctx, "udp4", fmt.Sprintf("127.0.0.1:%d", i.o.Port))
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("listen for StatsD: %w; choose another port in the setting statsd", err)
	}
	if conn, ok := socket.(*net.UDPConn); ok {
		_ = conn.SetReadBuffer(receiveBuffer) // the kernel's own is a little smaller
	}
	var receiving sync.WaitGroup
	failed := make(chan error, 1)
	receiving.Go(func() { failed <- i.receive(socket) })
	err = i.flushes(ctx, out, failed)
	closed := socket.Close()
	receiving.Wait()
	if ctx.Err() == nil {
		return errors.Join(err, closed)
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastPatience)
	defer cancel()
	return i.flush(last, out, time.Now())
}

// lastPatience is how long the last rows wait for room in the spool.
const lastPatience = 2 * time.Second

// flushes hands over sums until ctx ends or nothing can be received any more.
func (i *input) flushes(ctx context.Context, out source.Emitter, failed <-chan error) error {
	dropped := drops(i.o.Port)
	ticker := time.NewTicker(i.o.Interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case now := <-ticker.C:
			if err := i.flush(ctx, out, now); err != nil {
				return err
			}
			all := drops(i.o.Port)
			if all > dropped {
				out.Lost(source.Loss{Reason: "socket-buffer-full", Class: name, Records: all - dropped, First: now.Add(-i.o.Interval), Last: now})
			}
			dropped = all
		}
	}
}

// receive adds up what comes until the socket is closed.
func (i *input) receive(socket net.PacketConn) error {
	datagram := make([]byte, 64<<10)
	for {
		n, _, err := socket.ReadFrom(datagram)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("receive StatsD: %w", err)
		}
		i.mu.Lock()
		for line := range bytes.Lines(datagram[:n]) {
			line = bytes.TrimSpace(line)
			if len(line) > 0 && !parseLine(line, i.sums) {
				i.odd++
				i.lastOdd = string(line[:min(len(line), 80)])
			}
		}
		i.mu.Unlock()
	}
}

// flush hands over the sums and begins new ones.
func (i *input) flush(ctx context.Context, out source.Emitter, now time.Time) error {
	i.mu.Lock()
	counters := i.sums.rows(now.Sub(i.since), i.o.Percentile)
	refused, odd, lastOdd := i.sums.refused, i.odd, i.lastOdd
	place, err := i.place()
	i.sums.reset()
	i.since, i.odd = now, 0
	i.mu.Unlock()
	if err != nil {
		return err
	}
	trouble := ""
	if odd > 0 {
		trouble = fmt.Sprintf("%d lines that were sent to the StatsD port are not understood, the last of them %q; write name:value|type", odd, strings.ToValidUTF8(lastOdd, "?"))
	}
	out.Trouble("lines", trouble)
	if refused > 0 {
		out.Lost(source.Loss{Reason: "too-many-names", Class: name, Records: int64(refused), First: now.Add(-i.o.Interval), Last: now})
	}
	rows := sampling.Of(i.table, now, i.o.Computer, counters)
	rows.Place = place
	return sampling.Emit(ctx, out, rows, i.o.Interval/2)
}

// place is the checkpoint of gauges that have changed, which keep their value
// over a restart: clients say only how they change. mu is held.
func (i *input) place() (source.Checkpoint, error) {
	if !i.sums.changed {
		return source.Checkpoint{}, nil
	}
	data, err := json.Marshal(i.sums.gauges)
	if err != nil {
		return source.Checkpoint{}, fmt.Errorf("keep the gauges of StatsD: %w", err)
	}
	return source.Checkpoint{Key: name, Value: data}, nil
}

// restore begins the first sums, with the gauges of before.
func (i *input) restore(saved []byte) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.since = time.Now()
	if saved == nil {
		return nil
	}
	var gauges map[string]float64
	if err := json.Unmarshal(saved, &gauges); err != nil {
		return fmt.Errorf("the gauges of before are not readable, and begin anew: %w", err)
	}
	if gauges != nil {
		i.sums.gauges = gauges
	}
	return nil
}

// drops is how many datagrams the kernel had to drop at the port, as far as it
// tells: /proc/net/udp has the socket's address in the second column and the
// number in the last.
func drops(port int) (n int64) {
	data, err := os.ReadFile("/proc/net/udp")
	if err != nil {
		return 0 // not on this system
	}
	return parseDrops(data, fmt.Sprintf("0100007F:%04X", port))
}

func parseDrops(table []byte, address string) (n int64) {
	for line := range bytes.Lines(table) {
		columns := bytes.Fields(line)
		if len(columns) < 13 || string(columns[1]) != address {
			continue
		}
		for _, c := range columns[len(columns)-1] {
			if c < '0' || c > '9' {
				return 0
			}
			n = 10*n + int64(c-'0')
		}
		return n
	}
	return 0
}
