package collectd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openloganalytics/agent/agent/source/sampling"
	"github.com/openloganalytics/agent/agent/source/sourcetest"
	"github.com/openloganalytics/agent/internal/logfile"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// What collectd 5.12 posts, with the values of one plugin not known yet.
const posted = `[
{"values":[0.12,0.34,0.56],"dstypes":["gauge","gauge","gauge"],"dsnames":["shortterm","midterm","longterm"],"time":1772366399.250,"interval":10.000,"host":"VM1.example.com","plugin":"load","plugin_instance":"","type":"load","type_instance":""},
{"values":[null,17],"dstypes":["derive","derive"],"dsnames":["rx","tx"],"time":1772366399.500,"interval":10.000,"host":"vm1","plugin":"interface","plugin_instance":"eth0","type":"if_octets","type_instance":""},
{"values":[99.5],"dstypes":["gauge"],"dsnames":["value"],"time":1772366399.750,"interval":10.000,"host":"router.example.com","plugin":"cpu","plugin_instance":"0","type":"percent","type_instance":"idle"},
{"values":[null],"dstypes":["gauge"],"dsnames":["value"],"time":1772366399,"host":"vm1","type":"users"}
]`

func TestValueLists(t *testing.T) {
	got, err := parse([]byte(posted), noon, "vm1")
	if err != nil {
		t.Fatal(err)
	}
	at := func(ms int) time.Time { return noon.Add(time.Duration(ms-1000) * time.Millisecond) }
	want := []sampling.Counters{
		{Object: "load", Instance: "_Total", At: at(250), Values: []sampling.Value{{Name: "shortterm", Value: 0.12}, {Name: "midterm", Value: 0.34}, {Name: "longterm", Value: 0.56}}},
		{Object: "if_octets", Instance: "eth0", At: at(500), Values: []sampling.Value{{Name: "tx", Value: 17}}},
		{Object: "percent", Instance: "0", Host: "router.example.com", At: at(750), Values: []sampling.Value{{Name: "idle.value", Value: 99.5}}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("counters (-want +got):\n%s", diff)
	}
	if one, err := parse([]byte(` {"values":[1],"dsnames":["v"],"type":"t"} `), noon, "vm1"); err != nil || len(one) != 1 || !one[0].At.Equal(noon) {
		t.Errorf("one alone: %+v, %v", one, err)
	}
}

func TestTimesThatCannotBeAreNow(t *testing.T) {
	seconds := float64(noon.Unix())
	for value, want := range map[float64]time.Time{
		seconds - 47*3600: noon.Add(-47 * time.Hour), seconds + 59: noon.Add(59 * time.Second),
		0: noon, -1: noon, seconds - 49*3600: noon, seconds + 61: noon, 1e300: noon,
	} {
		if got := (valueList{Time: value}).at(noon); !got.Equal(want) {
			t.Errorf("%v is at %v, want %v", value, got, want)
		}
	}
}

func TestOddValueListsAreRefused(t *testing.T) {
	long := strings.Repeat("n", 300)
	for text, want := range map[string]string{
		``: "no JSON array", `[`: "no JSON array", `"x"`: "no JSON array", `[1]`: "no JSON array",
		`[{"values":["1"],"dsnames":["v"],"type":"t"}]`:                 "no JSON array",
		`[{"values":[1],"dsnames":["v"]}]`:                              "value list 0 has no type",
		`[{"values":[1],"dsnames":[],"type":"t"}]`:                      "1 values and 0 names",
		`[{"values":[1],"dsnames":["v"],"type":"` + long + `"}]`:        "name of 300 bytes",
		`PUTVAL "host/load/load" interval=10 1280959128:0.12:0.34:0.56`: "no JSON array", // Format "Command"
	} {
		if got, err := parse([]byte(text), noon, "vm1"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v, want %q", text, got, err, want)
		}
	}
}

// Whatever is posted, each row has a name and a time that the service takes.
func FuzzParse(f *testing.F) {
	f.Add([]byte(posted))
	f.Add([]byte(`{"values":[1e999],"dsnames":["v"],"type":"t","time":1e400}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		list, err := parse(body, noon, "vm1")
		for _, c := range list {
			if c.Object == "" || c.Instance == "" || len(c.Values) == 0 || err != nil || c.At.Before(noon.Add(-49*time.Hour)) || c.At.After(noon.Add(time.Hour)) {
				t.Errorf("%+v, %v", c, err)
			}
		}
		out := sourcetest.New()
		if err := sampling.Emit(t.Context(), out, sampling.Of(sampling.Table(), noon, "vm1", list), time.Minute); err != nil {
			t.Error(err)
		}
	})
}

// start runs the source until the test ends.
func start(t *testing.T, out *sourcetest.Emitter) (address string, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- New(Options{Port: port, Computer: "vm1", Log: logfile.Discard()}).Run(ctx, out) }()
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
	address = fmt.Sprintf("127.0.0.1:%d", port)
	for {
		conn, err := net.Dial("tcp4", address)
		if err == nil {
			conn.Close()
			return address, stop
		}
		select {
		case err := <-ended:
			t.Fatal(err)
		case <-time.After(time.Millisecond):
		}
	}
}

// post posts a body as collectd does; change spoils the request.
func post(t *testing.T, address string, body []byte, change func(*http.Request)) (int, string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, "http://"+address+"/oms.collectd", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if change != nil {
		change(req)
	}
	res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

func TestPostsBecomeRows(t *testing.T) {
	out := sourcetest.New()
	address, _ := start(t, out)
	lists := []map[string]any{{"values": []float64{1}, "dsnames": []string{"value"}, "type": "users", "time": time.Now().Unix()}}
	body, err := json.Marshal(lists)
	if err != nil {
		t.Fatal(err)
	}
	if status, text := post(t, address, body, nil); status != http.StatusOK {
		t.Fatalf("status %d: %s", status, text)
	}
	rows := out.Rows("Perf")
	if len(rows) != 1 || rows[0]["ObjectName"] != "users" || rows[0]["Host"] != "vm1" {
		t.Errorf("rows: %v", rows)
	}
}

func TestWhoMayPost(t *testing.T) {
	out := sourcetest.New()
	address, _ := start(t, out)
	for name, tt := range map[string]struct {
		body   string
		change func(*http.Request)
		want   int
	}{
		"GET":                     {`[]`, func(r *http.Request) { r.Method = http.MethodGet }, http.StatusMethodNotAllowed},
		"a web page's form":       {`[]`, func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }, http.StatusUnsupportedMediaType},
		"no type":                 {`[]`, func(r *http.Request) { r.Header.Del("Content-Type") }, http.StatusUnsupportedMediaType},
		"a name that is led here": {`[]`, func(r *http.Request) { r.Host = "evil.example.com" }, http.StatusForbidden},
		"localhost":               {`[]`, func(r *http.Request) { r.Host = "localhost:26000" }, http.StatusOK},
		"with charset":            {`[]`, func(r *http.Request) { r.Header.Set("Content-Type", "application/json; charset=utf-8") }, http.StatusOK},
		"too long":                {`[` + strings.Repeat(" ", maxBody) + `]`, nil, http.StatusRequestEntityTooLarge},
		"not JSON":                {`PUTVAL`, nil, http.StatusBadRequest},
	} {
		if status, text := post(t, address, []byte(tt.body), tt.change); status != tt.want {
			t.Errorf("%s: status %d (%s), want %d", name, status, text, tt.want)
		}
	}
	if rows := out.Rows("Perf"); len(rows) > 0 {
		t.Errorf("rows: %v", rows)
	}
	if status, _ := post(t, address, []byte(`PUTVAL`), nil); status != http.StatusBadRequest || !strings.Contains(out.Troubles()["collectd"], `Format "JSON"`) {
		t.Errorf("status %d, troubles %v", status, out.Troubles())
	}
	if status, _ := post(t, address, []byte(`[]`), nil); status != http.StatusOK || len(out.Troubles()) > 0 {
		t.Errorf("status %d, troubles stay: %v", status, out.Troubles())
	}
}

func TestSpoolThatFailsIsToldToTheSender(t *testing.T) {
	out := sourcetest.New()
	address, _ := start(t, out)
	out.Fail(errors.New("no disk"))
	if status, _ := post(t, address, []byte(`[{"values":[1],"dsnames":["v"],"type":"t"}]`), nil); status != http.StatusServiceUnavailable {
		t.Errorf("status %d", status)
	}
}

func TestTakenPortIsAnError(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	err = New(Options{Port: l.Addr().(*net.TCPAddr).Port, Computer: "vm1", Log: logfile.Discard()}).Run(t.Context(), sourcetest.New())
	if err == nil || !strings.Contains(err.Error(), "choose another port in the setting collectd") {
		t.Errorf("Run = %v", err)
	}
}

// Senders that say nothing take the room of others only so far, and do not keep
// the agent from stopping.
func TestSilentSendersDoNotKeepTheAgent(t *testing.T) {
	address, stop := start(t, sourcetest.New())
	for range maxSenders + 4 {
		conn, err := net.Dial("tcp4", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	stop()
}
