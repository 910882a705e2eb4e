package statsd

import (
	"context"
	"fmt"
	"math"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openloganalytics/agent/agent/source/sampling"
	"github.com/openloganalytics/agent/agent/source/sourcetest"
)

// told is rows as lines "object(instance) counter = value".
func told(list []sampling.Counters) []string {
	var lines []string
	for _, c := range list {
		for _, v := range c.Values {
			lines = append(lines, fmt.Sprintf("%s(%s) %s = %v", c.Object, c.Instance, v.Name, v.Value))
		}
	}
	return lines
}

// The sums of ten seconds, worked out by hand from the formulas of the OMS
// agent for Linux.
func TestSums(t *testing.T) {
	s := newSums()
	for _, line := range []string{
		"deploys:1|c", "deploys:2|c", "deploys:1|c|@0.1", "deploys:3|c:4|c", // 20
		"page views/all:5|c|#env:prod,a:b", // blanks and slashes; tags are passed over
		"queue:10|g", "queue:+5|g", "queue:-3|g",
		"users:ann|s", "users:7|s", "users:ann|s",
		"one:4.5|ms",
		"time:10|ms", "time:1:3:2|ms", "time:4|h", "time:5|d", "time:6|t", "time:7|ms", "time:8|ms", "time:9|ms|@0.5",
	} {
		if !parseLine([]byte(line), s) {
			t.Errorf("%s is not understood", line)
		}
	}
	want := []string{
		"StatsD Timer(one) min = 4.5", "StatsD Timer(one) max = 4.5", "StatsD Timer(one) sum = 4.5", "StatsD Timer(one) count = 1",
		"StatsD Timer(one) mean = 4.5", "StatsD Timer(one) median = 4.5",
		"StatsD Timer(time) min = 1", "StatsD Timer(time) max = 10", "StatsD Timer(time) sum = 55", "StatsD Timer(time) count = 10",
		"StatsD Timer(time) mean = 5.5", "StatsD Timer(time) median = 5.5",
		"StatsD Timer(time) max_at_threshold = 8", "StatsD Timer(time) sum_in_threshold = 36", "StatsD Timer(time) count_in_threshold = 8",
		"StatsD Timer(time) mean_in_threshold = 4.5", "StatsD Timer(time) median_in_threshold = 4.5",
		"StatsD Counter(deploys) rate = 2", "StatsD Counter(page_views-all) rate = 0.5",
		"StatsD Set(users) count = 2",
		"StatsD Gauge(queue) gauge = 12",
	}
	if diff := cmp.Diff(want, told(s.rows(10*time.Second, 80))); diff != "" {
		t.Errorf("sums (-want +got):\n%s", diff)
	}
	s.reset()
	if diff := cmp.Diff([]string{"StatsD Gauge(queue) gauge = 12"}, told(s.rows(10*time.Second, 80))); diff != "" {
		t.Errorf("of an interval without any (-want +got):\n%s", diff)
	}
}

func TestThreshold(t *testing.T) {
	for _, tt := range []struct {
		percentile, count, within int // 0 is no threshold
	}{{90, 10, 9}, {90, 4, 4}, {50, 5, 2}, {100, 10, 0}, {1, 2, 0}, {90, 1, 0}} {
		values := make([]float64, tt.count)
		c := timer("t", values, tt.percentile)
		got := 0
		for _, v := range c.Values {
			if v.Name == "count_in_threshold" {
				got = int(v.Value)
			}
		}
		if got != tt.within {
			t.Errorf("%d %% of %d are %d, want %d", tt.percentile, tt.count, got, tt.within)
		}
	}
}

func TestOddLines(t *testing.T) {
	s := newSums()
	for _, line := range []string{
		"", "a", "a:", ":1|c", "a:1", "a:1|", "a:1|x", "a:|c", "a:x|c", "a:1|c|0.1", "a:1|c|@0", "a:1|c|@2", "a:1|c|@x", "a:1|c:2",
		"a:NaN|g", "a:Inf|c", "a:|s", "///:", strings.Repeat("n", 300) + ":1|c", "a:" + strings.Repeat("v", 300) + "|s", "\xff\xfe:1|c",
	} {
		if parseLine([]byte(line), s) {
			t.Errorf("%.40q is taken", line)
		}
	}
}

func TestRoomIsBounded(t *testing.T) {
	s := newSums()
	for i := range maxNames + 10 {
		parseLine(fmt.Appendf(nil, "name%d:1|c", i), s)
	}
	parseLine([]byte("name1:1|c"), s) // is known
	if len(s.counters) != maxNames || s.refused != 10 || s.counters["name1"] != 2 {
		t.Errorf("%d names, %d refused", len(s.counters), s.refused)
	}
	s.reset()
	for i := range maxValues + 10 {
		parseLine(fmt.Appendf(nil, "t:%d|ms", i), s)
	}
	if len(s.timers["t"]) != maxValues || s.refused != 10 {
		t.Errorf("%d values, %d refused", len(s.timers["t"]), s.refused)
	}
}

func TestParseDrops(t *testing.T) {
	const table = `   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  120: 00000000:1FBD 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1 2 0 99
  121: 0100007F:1FBD 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 12345 2 0000000000000000 17
`
	if got := parseDrops([]byte(table), "0100007F:1FBD"); got != 17 {
		t.Errorf("%d drops, want 17", got)
	}
	for _, text := range []string{"", table[:150], "a 0100007F:1FBD", strings.Replace(table, " 17", " x7", 1)} {
		if got := parseDrops([]byte(text), "0100007F:1FBD"); got != 0 {
			t.Errorf("%d drops in %q", got, text)
		}
	}
}

// Whatever is sent, the sums are numbers, and no name needs more care than a
// file's.
func FuzzParseLine(f *testing.F) {
	for _, line := range []string{"a:1|c|@0.1", "a b:1|ms:2|ms", "a:+1|g", "a:x|s|#t:1", "a:1:2|h", "\xff:1|c", "a:1e308|c|@0.1"} {
		f.Add([]byte(line), 90)
	}
	f.Fuzz(func(t *testing.T, line []byte, percentile int) {
		s := newSums()
		parseLine(line, s)
		parseLine(line, s)
		for _, c := range s.rows(10*time.Second, min(max(percentile, 1), 100)) {
			if c.Instance == "" || strings.ContainsAny(c.Instance, " /|:\"\n") {
				t.Errorf("instance %q", c.Instance)
			}
			for _, v := range c.Values {
				if math.IsNaN(v.Value) {
					t.Errorf("%s of %s is no number", v.Name, c.Instance)
				}
			}
		}
	})
}

// start runs the source at a free port until the test ends.
func start(t *testing.T, out *sourcetest.Emitter, interval time.Duration) (conn net.Conn, stop func()) {
	t.Helper()
	socket, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := socket.LocalAddr().(*net.UDPAddr).Port
	socket.Close()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- New(Options{Port: port, Interval: interval, Percentile: 90, Computer: "vm1"}).Run(ctx, out)
	}()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run = %v", err)
		}
	}
	t.Cleanup(stop)
	conn, err = net.Dial("udp4", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn, stop
}

// send sends lines until the source has taken them, which the gauge tells.
func send(t *testing.T, conn net.Conn, out *sourcetest.Emitter, text string) {
	t.Helper()
	within, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for within.Err() == nil {
			_, _ = conn.Write([]byte(text)) // refused while nobody listens yet
			time.Sleep(5 * time.Millisecond)
		}
	}()
	err := out.Wait(within, func() bool { return len(out.Rows("Perf")) > 0 })
	cancel()
	<-done
	if err != nil {
		t.Fatalf("no rows: %v", err)
	}
}

func TestDatagramsBecomeRowsAndGaugesLast(t *testing.T) {
	out := sourcetest.New()
	conn, stop := start(t, out, 20*time.Millisecond)
	send(t, conn, out, "queue:42|g\nodd line\n")
	stop()
	if err := out.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	row := out.Rows("Perf")[0]
	delete(row, "Timestamp")
	want := sourcetest.Row{
		"Host": "vm1", "ObjectName": "StatsD Gauge", "InstanceName": "queue",
		"Collections": []any{map[string]any{"CounterName": "gauge", "Value": "42"}},
	}
	if diff := cmp.Diff(want, row); diff != "" {
		t.Errorf("row (-want +got):\n%s", diff)
	}
	if got := string(out.Checkpoint("statsd")); got != `{"queue":42}` {
		t.Errorf("checkpoint %s", got)
	}

	// After a restart a client that says only how it changes goes on from there.
	i := New(Options{}).(*input)
	if err := i.restore(out.Checkpoint("statsd")); err != nil {
		t.Fatal(err)
	}
	parseLine([]byte("queue:+1|g"), i.sums)
	if i.sums.gauges["queue"] != 43 {
		t.Errorf("gauges %v", i.sums.gauges)
	}
	for _, saved := range []string{"no JSON", `["a"]`} {
		if err := i.restore([]byte(saved)); err == nil || i.sums.gauges == nil {
			t.Errorf("restore(%s) = %v", saved, err)
		}
	}
	if err := i.restore([]byte("null")); err != nil || i.sums.gauges == nil {
		t.Errorf("restore(null) = %v", err)
	}
}

func TestOddLinesAreTold(t *testing.T) {
	out := sourcetest.New()
	i := New(Options{Interval: time.Minute, Percentile: 90, Computer: "vm1"}).(*input)
	i.odd, i.lastOdd = 3, "what\xff?"
	if err := i.flush(t.Context(), out, time.Now()); err != nil {
		t.Fatal(err)
	}
	if got := out.Troubles()["lines"]; !strings.Contains(got, `3 lines`) || !strings.Contains(got, "what") {
		t.Errorf("trouble %q", got)
	}
	i.sums.refused = 5
	if err := i.flush(t.Context(), out, time.Now()); err != nil {
		t.Fatal(err)
	}
	if losses := out.Losses(); len(out.Troubles()) > 0 || len(losses) != 1 || losses[0].Reason != "too-many-names" || losses[0].Records != 5 {
		t.Errorf("troubles %v, losses %+v", out.Troubles(), losses)
	}
}

// What came last is handed over when the agent stops.
func TestStopHandsOverWhatCame(t *testing.T) {
	out := sourcetest.New()
	i := New(Options{Interval: time.Hour, Percentile: 90, Computer: "vm1"}).(*input)
	socket, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	i.o.Port = socket.LocalAddr().(*net.UDPAddr).Port
	socket.Close()
	parseLine([]byte("deploys:5|c"), i.sums)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- i.Run(ctx, out) }()
	// It listens once its port is taken.
	for {
		probe, err := net.ListenPacket("udp4", fmt.Sprintf("127.0.0.1:%d", i.o.Port))
		if err != nil {
			break
		}
		probe.Close()
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if rows := out.Rows("Perf"); len(rows) != 1 || rows[0]["InstanceName"] != "deploys" {
		t.Errorf("rows %v", rows)
	}
}

func TestTakenPortIsAnError(t *testing.T) {
	socket, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	err = New(Options{Port: socket.LocalAddr().(*net.UDPAddr).Port, Interval: time.Second, Percentile: 90}).Run(t.Context(), sourcetest.New())
	if err == nil || !strings.Contains(err.Error(), "choose another port in the setting statsd") {
		t.Errorf("Run = %v", err)
	}
}
