package agent

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openloganalytics/agent/agent/source/sourcetest"
	"github.com/openloganalytics/agent/agent/source/syslog"
	"github.com/openloganalytics/agent/internal/logfile"
	"github.com/openloganalytics/agent/internal/paths"
)

// openPorts lists this process's sockets that listen, as /proc/net knows them:
// TCP in the state LISTEN (0A), UDP without a peer (07).
func openPorts(t *testing.T) []string {
	t.Helper()
	mine := map[string]bool{}
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		// The folder's own descriptor is gone by now.
		target, err := os.Readlink("/proc/self/fd/" + f.Name())
		if inode, ok := strings.CutPrefix(target, "socket:["); err == nil && ok {
			mine[strings.TrimSuffix(inode, "]")] = true
		}
	}
	var ports []string
	for protocol, state := range map[string]string{"tcp": "0A", "tcp6": "0A", "udp": "07", "udp6": "07"} {
		list, err := os.ReadFile("/proc/net/" + protocol)
		if err != nil {
			continue // no IPv6 on this machine
		}
		for line := range strings.Lines(string(list)) {
			columns := strings.Fields(line)
			if len(columns) > 9 && columns[3] == state && mine[columns[9]] {
				ports = append(ports, protocol+" "+columns[1])
			}
		}
	}
	slices.Sort(ports)
	return ports
}

// collect runs the sources of the config until the test ends.
func collect(t *testing.T, cfg Sources) *sourcetest.Emitter {
	t.Helper()
	layout := paths.New(t.TempDir())
	for _, dir := range []string{layout.RunDir(), layout.AgentDir(), layout.LogDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	list, err := sources(Options{Layout: layout, Config: &Config{Sources: cfg}, Log: logfile.Discard()}, &host{name: "vm"})
	if err != nil {
		t.Fatal(err)
	}
	out := sourcetest.New()
	for _, s := range list {
		out.Trouble(s.Name(), "runs not yet")
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, s := range list {
		running.Go(func() {
			out.Trouble(s.Name(), "")
			if err := s.Run(ctx, out); err != nil {
				t.Errorf("%s: %v", s.Name(), err)
			}
		})
	}
	t.Cleanup(func() { cancel(); running.Wait() })
	return out
}

func freePort(t *testing.T) int {
	t.Helper()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).Port
}

// TestNoPortIsOpenUnlessAskedFor: every source that the default settings have
// opens no port, and a listener opens the one it names and no other.
func TestNoPortIsOpenUnlessAskedFor(t *testing.T) {
	all := SyslogSelector{Facilities: []string{"*"}, Severities: []string{"*"}}
	cfg := Sources{
		Heartbeat: Heartbeat{Interval: Duration(10 * time.Millisecond)},
		Syslog:    &Syslog{Selectors: []SyslogSelector{all}},
	}
	if before := openPorts(t); len(before) > 0 {
		t.Fatalf("the test itself listens: %q", before)
	}
	within, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	// The heartbeat and an open pipe tell that the sources run.
	ran := func(out *sourcetest.Emitter) {
		t.Helper()
		if err := out.Wait(within, func() bool { return len(out.Rows("Heartbeat")) > 1 && len(out.Troubles()) == 0 }); err != nil {
			t.Fatal(err)
		}
	}
	ran(collect(t, cfg))
	if ports := openPorts(t); len(ports) > 0 {
		t.Fatalf("ports are open: %q", ports)
	}

	numbers := []int{freePort(t), freePort(t)}
	cfg.Collectd, cfg.Statsd = &Collectd{Port: numbers[0]}, &Statsd{Port: numbers[1], Interval: Duration(time.Minute), Percentile: 90}
	wanted := []string{fmt.Sprintf("tcp 0100007F:%04X", numbers[0]), fmt.Sprintf("udp 0100007F:%04X", numbers[1])}
	t.Run("collectd and StatsD", func(t *testing.T) {
		out := collect(t, cfg)
		if err := out.Wait(within, func() bool { return slices.Equal(openPorts(t), wanted) }); err != nil {
			t.Fatalf("open ports are %q, want %q: %v", openPorts(t), wanted, err)
		}
	})
	cfg.Collectd, cfg.Statsd = nil, nil

	port := freePort(t)
	cfg.SyslogListeners = []SyslogListener{{Protocol: "udp", Address: "127.0.0.1", Port: port, Selector: all}}
	out := collect(t, cfg)
	want := fmt.Sprintf("udp 0100007F:%04X", port)
	if err := out.Wait(within, func() bool { return slices.Equal(openPorts(t), []string{want}) }); err != nil {
		t.Fatalf("open ports are %q, want %q alone: %v", openPorts(t), want, err)
	}
	conn, err := net.Dial("udp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("<13>app: hello")); err != nil {
		t.Fatal(err)
	}
	if err := out.Wait(within, func() bool { return len(out.Rows("Syslog")) == 1 }); err != nil {
		t.Fatal(err)
	}
}

// TestRoads: syslog comes by the road that the config names, and by no other.
func TestRoads(t *testing.T) {
	layout := paths.New(t.TempDir())
	if err := os.MkdirAll(filepath.Join(layout.Root(), "etc"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(layout.Root(), "etc", "machine-id"), []byte("0123456789abcdef0123456789abcdef\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	all := []SyslogSelector{{Facilities: []string{"*"}, Severities: []string{"*"}}}
	for road, want := range map[string]struct{ names, inputs []string }{
		"":             {[]string{"syslog"}, []string{layout.SyslogPipe(), layout.SyslogSocket()}},
		RoadRSyslog:    {[]string{"syslog"}, []string{layout.SyslogPipe(), layout.SyslogSocket()}},
		RoadSyslogNG:   {[]string{"syslog"}, []string{layout.SyslogSocket(), layout.SyslogStream()}},
		RoadJournal:    {[]string{"journal", "syslog"}, []string{layout.SyslogSocket()}},
		"carrier dove": {},
	} {
		list, err := systemSources(nil, Options{Layout: layout, Config: &Config{Sources: Sources{Syslog: &Syslog{Selectors: all, Road: road}}}, Log: logfile.Discard()}, &host{name: "vm"})
		if want.names == nil {
			if err == nil || !strings.Contains(err.Error(), "use rsyslog, syslog-ng or journal") {
				t.Errorf("road %q: %v, want an error with what is right", road, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("road %q: %v", road, err)
			continue
		}
		var names []string
		for _, s := range list {
			names = append(names, s.Name())
		}
		if !slices.Equal(names, want.names) {
			t.Errorf("road %q has the sources %q, want %q", road, names, want.names)
		}
		if inputs := list[len(list)-1].(*syslog.Source).Inputs(); !slices.Equal(inputs, want.inputs) {
			t.Errorf("road %q receives from %q, want %q", road, inputs, want.inputs)
		}
	}
}
