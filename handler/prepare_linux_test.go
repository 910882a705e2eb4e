package handler

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/openloganalytics/agent/agent"
	"github.com/openloganalytics/agent/extension"
	"github.com/openloganalytics/agent/internal/logfile"
	"github.com/openloganalytics/agent/internal/product"
)

const (
	thisMachine = "aaaaaaaa-1122-3344-0000-000000000001"
	turnedRound = "AAAAAAAA-2211-4433-0000-000000000001" // the same one, as SMBIOS 2.6 has it
	thatMachine = "AAAAAAAA-1122-3344-0000-000000000002"
)

// onMachine makes the machine one with that id.
func onMachine(t *testing.T, h *Handler, id string) {
	t.Helper()
	dmi := filepath.Join(h.Layout.Root(), "sys", "class", "dmi", "id")
	if err := errors.Join(os.MkdirAll(dmi, 0o755), os.WriteFile(filepath.Join(dmi, "product_uuid"), []byte(id+"\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
}

// configured returns a handler on thisMachine whose agent has settings.
func configured(t *testing.T) (*Handler, *fakeManager) {
	t.Helper()
	h, m := newHandler(t)
	onMachine(t, h, thisMachine)
	if err := h.install(t.Context(), invocation(t, h)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(h.Layout.ConfigFile(), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	return h, m
}

// The service manager starts the agent at boot, before anybody looked at which
// machine this is.
func TestPrepareKeepsAnImagesAgentFromStarting(t *testing.T) {
	h, _ := configured(t)
	onMachine(t, h, turnedRound)
	if err := h.Prepare(t.Context(), logfile.Discard()); err != nil {
		t.Fatalf("the same machine: %v", err)
	}
	onMachine(t, h, thatMachine)
	for range 2 {
		if err := h.Prepare(t.Context(), logfile.Discard()); err == nil || !strings.Contains(err.Error(), "enable") {
			t.Errorf("another machine: %v, want an error that names enable", err)
		}
	}
	aside, err := filepath.Glob(filepath.Join(h.Layout.HandlerDir(), "from-another-machine-*", "config", "config.json"))
	if err != nil || len(aside) != 1 {
		t.Errorf("settings set aside: %q, %v; want them once", aside, err)
	}
	if s, err := h.loadState(); err != nil || s.MachineID != strings.ToLower(thatMachine) {
		t.Errorf("state %+v, %v; want the machine's id in it", s, err)
	}
}

// A reboot empties /run and people empty /var/log, under whatever umask.
func TestPrepareMakesTheFolders(t *testing.T) {
	before := syscall.Umask(0o077)
	t.Cleanup(func() { syscall.Umask(before) })
	h, _ := configured(t)
	if err := errors.Join(os.RemoveAll(h.Layout.LogDir()), os.RemoveAll(h.Layout.RunDir())); err != nil {
		t.Fatal(err)
	}
	if err := h.Prepare(t.Context(), logfile.Discard()); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]os.FileMode{h.Layout.LogDir(): 0o755, h.Layout.AgentLogDir(): 0o750, h.Layout.RunDir(): 0o755} {
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want mode %o", dir, info, err, want)
		}
	}
}

// A command holds the lock while it waits for the start that calls Prepare.
func TestPrepareDoesNotWaitForTheCommandThatStarts(t *testing.T) {
	h, _ := configured(t)
	unlock, err := h.lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if err := h.Prepare(t.Context(), logfile.Discard()); err != nil {
		t.Error(err)
	}
}

// A command that is not as far as to know the machine comes first: what it
// makes afterwards is this machine's, and stays.
func TestPrepareWaitsForTheCommandThatLooks(t *testing.T) {
	h, _ := configured(t)
	onMachine(t, h, thatMachine)
	s, unlock, err := h.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	prepared := make(chan error, 1)
	go func() { prepared <- h.Prepare(t.Context(), logfile.Discard()) }()
	time.Sleep(100 * time.Millisecond) // one that does not wait is done by then
	err = h.knowMachine(s, logfile.Discard())
	for _, dir := range []string{h.Layout.AgentDir(), h.Layout.ConfigDir()} {
		err = errors.Join(err, os.Mkdir(dir, 0o700))
	}
	key := filepath.Join(h.Layout.AgentDir(), "key")
	err = errors.Join(err, os.WriteFile(key, nil, 0o600), os.WriteFile(h.Layout.ConfigFile(), []byte("{}"), 0o600), h.saveState(s))
	unlock()
	if err := errors.Join(err, <-prepared); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(key); err != nil {
		t.Errorf("what the command brought is gone: %v", err)
	}
}

// An agent that ends before it wrote anything is in the status all the same,
// and a clean stop is not.
func TestReportTellsOfAnEnd(t *testing.T) {
	for name, tt := range map[string]struct {
		health *agent.Health // what the agent wrote last
		how    string
		want   extension.Status
	}{
		"before any health":      {nil, "exit-code: exited 1", extension.StatusError},
		"after a clean stop":     {&agent.Health{Clean: true}, "signal: killed SEGV", extension.StatusError},
		"with other settings":    {&agent.Health{Generation: "older"}, "oom-kill: killed KILL", extension.StatusError},
		"a stop that was wanted": {&agent.Health{Clean: true}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			h, _ := configured(t)
			dir := invocation(t, h).Env.HandlerDir
			status := filepath.Join(dir, "status")
			environment := `[{"name":"P.T","version":1.0,"handlerEnvironment":{"logFolder":"` + dir + `","configFolder":"` + dir +
				`","statusFolder":"` + status + `","heartbeatFile":"` + dir + `/h"}}]`
			err := errors.Join(os.Mkdir(status, 0o700), os.WriteFile(filepath.Join(dir, "HandlerEnvironment.json"), []byte(environment), 0o600))
			s := &state{Generation: "now", Reporting: &reporting{HandlerDir: dir, Sequence: 3}}
			if err := errors.Join(err, h.saveState(s)); err != nil {
				t.Fatal(err)
			}
			if tt.health != nil {
				tt.health.Version, tt.health.Updated = product.Version, time.Now().Add(-time.Second)
				writeHealth(t, h, tt.health)
			}
			if err := errors.Join(h.Ended(tt.how), h.Report(t.Context())); err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(filepath.Join(status, "3.status"))
			if tt.want == "" {
				if !os.IsNotExist(err) {
					t.Errorf("a status was written: %s, %v", text, err)
				}
				return
			}
			if err != nil || !strings.Contains(string(text), `"status":"`+string(tt.want)+`"`) || !strings.Contains(string(text), tt.how) {
				t.Errorf("status is %s, %v; want %s with %q", text, err, tt.want, tt.how)
			}
		})
	}
}

func writeHealth(t *testing.T, h *Handler, health *agent.Health) {
	t.Helper()
	data, err := json.Marshal(health)
	if err := errors.Join(err, os.WriteFile(h.Layout.HealthFile(), data, 0o600)); err != nil {
		t.Fatal(err)
	}
}
