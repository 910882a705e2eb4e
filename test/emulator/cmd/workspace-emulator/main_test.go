package main

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// output is what the program prints.
type output struct {
	mu   sync.Mutex
	text strings.Builder
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

// start runs the program until its ready file is there and hands back what it
// says, with a function that stops it and returns what it printed.
func start(t *testing.T, dir string, args ...string) (ready, func() string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ready.json")
	ctx, cancel := context.WithCancel(t.Context())
	out := &output{}
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, append([]string{"-dir", dir, "-ready-file", file}, args...), out)
	}()
	var r ready
	for {
		text, err := os.ReadFile(file)
		if err == nil {
			if err := json.Unmarshal(text, &r); err != nil {
				t.Fatal(err)
			}
			break
		}
		select {
		case err := <-ended:
			t.Fatalf("run() = %v before it was ready; it said %s", err, out.text.String())
		default:
		}
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the ready file has mode %v (%v), want 0600", info.Mode(), err)
	}
	return r, func() string {
		t.Helper()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run() = %v", err)
		}
		return out.text.String()
	}
}

// TestRun makes up a workspace, tells where it is, and keeps it.
func TestRun(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "emulator")
	first, stop := start(t, dir)
	if len(first.Key) != 88 || len(first.Workspace) != 36 || first.Domain != "emulator.test" {
		t.Errorf("ready = %+v", first)
	}
	if _, err := os.Stat(first.CAFile); err != nil {
		t.Error(err)
	}
	for _, url := range []string{first.API, first.API + "api/tables"} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := response.Body.Close(); err != nil || response.StatusCode != 200 {
			t.Errorf("%s: status %d, %v", url, response.StatusCode, err)
		}
	}
	for _, address := range []string{first.Service, strings.TrimPrefix(first.Gateway, "http://")} {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
	said := stop()
	for _, want := range []string{first.Workspace, first.Key, first.CAFile, first.Gateway, first.API, "stopped"} {
		if !strings.Contains(said, want) {
			t.Errorf("it said %q, want %q in it", said, want)
		}
	}
	second, stop := start(t, dir)
	stop()
	if second.Workspace != first.Workspace || second.Key != first.Key {
		t.Errorf("the second run has another workspace: %+v", second)
	}
}

// TestRunGiven takes workspaces from the command line and keeps their keys to
// itself.
func TestRunGiven(t *testing.T) {
	const id, key = "11111111-2222-3333-4444-555555555555", "AAECAwQFBgcICQoLDA0ODw=="
	r, stop := start(t, t.TempDir(), "-workspace", id+":"+key+",AAEC", "-domain", "opinsights.azure.com", "-gateway", "", "-cert-hosts", "ods,127.0.0.3")
	said := stop()
	if r.Workspace != id || r.Key != "" || r.Domain != "opinsights.azure.com" || r.Gateway != "" {
		t.Errorf("ready = %+v", r)
	}
	if strings.Contains(said, key) {
		t.Errorf("it said %q, the key in it", said)
	}
}

// TestRunRefuses refuses a command line that makes no sense.
func TestRunRefuses(t *testing.T) {
	dir := t.TempDir()
	noColon := filepath.Join(dir, "password")
	if err := os.WriteFile(noColon, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, args := range map[string][]string{
		"is no flag":              {"extra"},
		"not id:key":              {"-workspace", "contoso"},
		"not a GUID":              {"-workspace", "contoso:AAEC"},
		"is not a loopback":       {"-api", "0.0.0.0:0"},
		"listen as gateway":       {"-gateway", "nowhere.invalid:x"},
		"does not hold user:pass": {"-gateway-password-file", noColon},
	} {
		err := run(t.Context(), append([]string{"-dir", dir}, args...), &output{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("run(%q) = %v, want an error with %q", args, err, want)
		}
	}
}
