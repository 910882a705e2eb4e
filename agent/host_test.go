package agent

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/openloganalytics/agent/internal/hostinfo"
	"github.com/openloganalytics/agent/internal/logfile"
	"github.com/openloganalytics/agent/internal/paths"
	"github.com/openloganalytics/agent/internal/proxy"
	"github.com/openloganalytics/agent/internal/secret"
)

// A machine that is up before its instance metadata looks for its workspace in
// the right cloud once they come, and asks no more then.
func TestLateMetadata(t *testing.T) {
	layout := paths.New(t.TempDir())
	const id = "11111111-2222-3333-4444-555555555555"
	if err := os.MkdirAll(layout.WorkspaceDir(id), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(layout.WorkspaceKeyFile(id), []byte("a2V5"), 0o600); err != nil {
		t.Fatal(err)
	}
	hosts := make(chan string, 100)
	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hosts <- r.Host
		w.WriteHeader(http.StatusBadGateway)
	}))
	defer gateway.Close()
	through, err := proxy.Parse(secret.New(gateway.URL))
	if err != nil {
		t.Fatal(err)
	}
	asked := atomic.Int32{}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- Run(ctx, Options{
			Layout: layout, Log: logfile.Discard(), Proxy: through, Config: &Config{Generation: "g", Workspaces: []Workspace{{ID: id}}, Limits: Limits{DiskMB: 100}},
			Metadata: func(context.Context) (hostinfo.Metadata, error) {
				if asked.Add(1) == 1 {
					return hostinfo.Metadata{}, errors.New("not there yet")
				}
				return hostinfo.Metadata{Environment: "AzureUSGovernmentCloud"}, nil
			},
		})
	}()
	for host := range hosts {
		if host == id+".oms.opinsights.azure.us:443" {
			break
		}
		if host != id+".oms.opinsights.azure.com:443" {
			t.Errorf("the workspace is looked for at %s", host)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if n := asked.Load(); n != 3 {
		t.Errorf("asked %d times, want at start, when they came, and at the next start", n)
	}
}

func TestMetadataAreNotAskedForWhenTheyAreNotNeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked, begin := 0, time.Now()
		o := Options{Layout: paths.New(t.TempDir()), Metadata: func(context.Context) (hostinfo.Metadata, error) {
			asked++
			return hostinfo.Metadata{}, errors.New("none outside Azure")
		}}
		awaitMetadata(t.Context(), o, func() bool { return time.Since(begin) > time.Hour }, func(error) { t.Error("it stopped the agent") })
		if asked < 60 || asked > 70 {
			t.Errorf("asked %d times in an hour, want about once a minute", asked)
		}
	})
}
