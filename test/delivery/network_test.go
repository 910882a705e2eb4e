//go:build linux

package delivery

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// inNamespace runs the test once more in a network of its own, which it may
// spoil, and returns true there.
func inNamespace(t *testing.T) bool {
	t.Helper()
	const inside = "DELIVERY_TEST_INSIDE"
	if os.Getenv(inside) != "" {
		return true
	}
	t.Parallel()
	flags := "-n"
	if os.Geteuid() != 0 {
		flags = "-rn"
	}
	cmd := exec.CommandContext(t.Context(), "/usr/bin/unshare", flags, os.Args[0], "-test.v", "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), inside+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("in a network of its own: %v\n%s", err, out)
	}
	return false
}

// network changes the loopback device of the namespace.
func network(t *testing.T, program string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v: %s (install the package iproute2)", program, args, err, out)
	}
	return string(out)
}

const (
	ip = "/sbin/ip"
	tc = "/sbin/tc"
)

// writeNoise writes lines that hardly compress, n bytes in all.
func (m *machine) writeNoise(n int) {
	m.Helper()
	noise := make([]byte, 600)
	var text strings.Builder
	for text.Len() < n {
		rand.Read(noise)
		m.written++
		fmt.Fprintf(&text, "line number=%d of the application %s\n", m.written, base64.StdEncoding.EncodeToString(noise))
	}
	f, err := os.OpenFile(m.logFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		m.Fatal(err)
	}
	if _, err := f.WriteString(text.String()); err != nil {
		m.Fatal(err)
	}
	if err := f.Close(); err != nil {
		m.Fatal(err)
	}
}

// U08: the network dies in the middle of a request, and comes back.
func TestU08LinkDiesInTheMiddle(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	network(t, ip, "link", "set", "lo", "mtu", "1500", "up")
	network(t, tc, "qdisc", "add", "dev", "lo", "root", "tbf", "rate", "56kbit", "burst", "4kb", "latency", "400ms")
	m := newMachine(t, 1)
	m.write(1)
	m.wantLines(m.ids[0], 0)
	begun := sentBytes(t)
	m.writeNoise(60 << 10)
	m.eventually(func() error {
		if n := sentBytes(t) - begun; n < 20<<10 {
			return fmt.Errorf("%d bytes have left", n)
		}
		return nil
	})
	network(t, ip, "link", "set", "lo", "down")
	m.write(10)
	network(t, ip, "link", "set", "lo", "up")
	m.wantLines(m.ids[0], m.written)
}

var bytesSent = regexp.MustCompile(`Sent (\d+) bytes`)

// sentBytes is what the device has sent.
func sentBytes(t *testing.T) int {
	t.Helper()
	found := bytesSent.FindStringSubmatch(network(t, tc, "-s", "qdisc", "show", "dev", "lo"))
	if found == nil {
		t.Fatal("tc does not count bytes")
	}
	n, err := strconv.Atoi(found[1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// U17: there is no network at first. The agent runs, reads, says so once, and
// delivers when there is one.
func TestU17NoNetworkAtBoot(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	network(t, ip, "link", "set", "lo", "up")
	m := prepare(t, 1)
	network(t, ip, "link", "set", "lo", "down")
	m.start(m.service, "")
	m.write(100)
	if message := m.cause(m.ids[0], "proxy-unreachable"); !strings.Contains(message, m.service.gateway) {
		t.Errorf("message %q", message)
	}
	network(t, ip, "link", "set", "lo", "up")
	m.wantLines(m.ids[0], 0)
	text, err := os.ReadFile(m.agentLog())
	if n := strings.Count(string(text), "cannot onboard"); err != nil || n != 1 {
		t.Errorf("%d lines tell the same (%v)", n, err)
	}
}

// U18: 56 kbit/s.
func TestU18SlowLink(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	network(t, ip, "link", "set", "lo", "mtu", "1500", "up")
	network(t, tc, "qdisc", "add", "dev", "lo", "root", "tbf", "rate", "56kbit", "burst", "4kb", "latency", "400ms")
	m := newMachine(t, 1)
	m.writeNoise(100 << 10)
	m.wantLines(m.ids[0], 0)
}

var packets = regexp.MustCompile(`Sent \d+ bytes (\d+) pkt \(dropped (\d+),`)

// U19: a queue that is too short drops more than one packet in ten.
func TestU19LossyLink(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	network(t, ip, "link", "set", "lo", "mtu", "1500", "up")
	network(t, tc, "qdisc", "add", "dev", "lo", "root", "tbf", "rate", "400kbit", "burst", "3kb", "limit", "4kb")
	m := newMachine(t, 1)
	for range 10 {
		m.writeNoise(30 << 10)
		m.wantLines(m.ids[0], 0)
	}
	found := packets.FindStringSubmatch(network(t, tc, "-s", "qdisc", "show", "dev", "lo"))
	if found == nil {
		t.Fatal("tc does not count packets")
	}
	sent, err := strconv.Atoi(found[1])
	dropped, dropErr := strconv.Atoi(found[2])
	if errors.Join(err, dropErr) != nil || dropped*10 < sent+dropped {
		t.Errorf("of %d packets %d were dropped: too few to prove anything", sent+dropped, dropped)
	}
	t.Logf("%d of %d packets were dropped", dropped, sent+dropped)
}
