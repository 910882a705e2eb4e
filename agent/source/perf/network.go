package perf

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// netTotals is what passed through an interface since it came up.
type netTotals struct {
	receivedBytes, receivedPackets, receiveErrors  uint64
	sentBytes, sentPackets, sendErrors, collisions uint64
}

// parseNetDev calls yield for each interface in /proc/net/dev.
func parseNetDev(data []byte, yield func(name []byte, t netTotals)) {
	for len(data) > 0 {
		var line []byte
		line, data = cutLine(data)
		// The first number may follow the colon without a blank.
		colon := bytes.LastIndexByte(line, ':')
		if colon < 0 {
			continue
		}
		var n [16]uint64
		if cutUints(line[colon+1:], n[:]) < len(n) {
			continue
		}
		yield(bytes.TrimLeft(line[:colon], " "), netTotals{
			receivedBytes: n[0], receivedPackets: n[1], receiveErrors: n[2],
			sentBytes: n[8], sentPackets: n[9], sendErrors: n[10], collisions: n[13],
		})
	}
}

// network samples the object Network. Its counters are totals since boot, not
// rates. Loopback is left out, and so is an interface that has never been up.
type network struct {
	tree *tree
	up   map[string]bool // interfaces without traffic that have been seen up
}

func (n *network) read(_ context.Context, out *sample) error {
	data, err := n.tree.read("/proc/net/dev")
	if err != nil {
		return fmt.Errorf("read network interfaces: %w", err)
	}
	var quiet []string
	parseNetDev(data, func(name []byte, t netTotals) {
		switch {
		case string(name) == "lo":
		case t == netTotals{}:
			quiet = append(quiet, string(name))
		default:
			n.add(name, t, out)
		}
	})
	maps.DeleteFunc(n.up, func(name string, _ bool) bool { return !slices.Contains(quiet, name) })
	for _, name := range quiet {
		if n.hasBeenUp(name) {
			n.add([]byte(name), netTotals{}, out)
		}
	}
	return nil
}

func (n *network) add(name []byte, t netTotals, out *sample) {
	var v values
	v.set(netSentBytes, float64(t.sentBytes))
	v.set(netReceivedBytes, float64(t.receivedBytes))
	v.set(netBytes, float64(t.sentBytes)+float64(t.receivedBytes))
	v.set(netSentPackets, float64(t.sentPackets))
	v.set(netReceivedPackets, float64(t.receivedPackets))
	v.set(netReceiveErrors, float64(t.receiveErrors))
	v.set(netSendErrors, float64(t.sendErrors))
	v.set(netCollisions, float64(t.collisions))
	out.add(name, &v)
}

// hasBeenUp asks the kernel for the flags of an interface that has had no
// traffic. One whose flags cannot be read has not been up.
func (n *network) hasBeenUp(name string) bool {
	const up, loopback = 1, 8 // IFF_UP, IFF_LOOPBACK
	if n.up[name] {
		return true
	}
	data, err := n.tree.read("/sys/class/net/" + name + "/flags")
	if err != nil {
		return false
	}
	flags, err := strconv.ParseUint(strings.TrimSpace(string(data)), 0, 32)
	if err != nil || flags&up == 0 || flags&loopback != 0 {
		return false
	}
	n.up[name] = true
	return true
}
