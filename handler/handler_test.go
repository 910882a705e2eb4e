package handler

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/openloganalytics/agent/agent"
	"github.com/openloganalytics/agent/extension"
	"github.com/openloganalytics/agent/handler/service"
	"github.com/openloganalytics/agent/internal/logfile"
	"github.com/openloganalytics/agent/internal/paths"
	"github.com/openloganalytics/agent/internal/product"
)

// fakeManager writes down what it is asked for.
type fakeManager struct{ calls []string }

func (m *fakeManager) Kind() string { return "fake" }
func (m *fakeManager) Install(context.Context, service.Unit) (bool, error) {
	m.calls = append(m.calls, "install")
	return true, nil
}

func (m *fakeManager) do(what string) error                        { m.calls = append(m.calls, what); return nil }
func (m *fakeManager) Start(context.Context, service.Unit) error   { return m.do("start") }
func (m *fakeManager) Restart(context.Context, service.Unit) error { return m.do("restart") }
func (m *fakeManager) Stop(context.Context, service.Unit) error    { return m.do("stop") }
func (m *fakeManager) Remove(context.Context, service.Unit) error  { return m.do("remove") }
func (m *fakeManager) Status(context.Context, service.Unit) (service.State, error) {
	return service.State{}, nil
}

func newHandler(t *testing.T) (*Handler, *fakeManager) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	m := &fakeManager{}
	return &Handler{Layout: paths.New(t.TempDir()), Manager: m, Self: self}, m
}

// invocation is a command of the version that runs, in a handler's folder.
func invocation(t *testing.T, h *Handler) *extension.Invocation {
	t.Helper()
	dir := filepath.Join(h.Layout.Root(), "waagent", "P.T-"+product.Version)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return &extension.Invocation{Env: &extension.Environment{HandlerDir: dir, Name: "P.T"}, Log: logfile.Discard(), Now: time.Now}
}

func TestUninstallKnowsAnUpdate(t *testing.T) {
	const other = "9.9.9"
	for name, tt := range map[string]struct {
		target      string // of the update that ran, none when empty
		targetThere bool
		everything  bool
	}{
		"alone":                         {"", false, true},
		"after an update to another":    {other, true, false},
		"the other one is gone again":   {other, false, true},
		"after an update to this again": {product.Version, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			h, m := newHandler(t)
			x := invocation(t, h)
			if err := h.install(t.Context(), x); err != nil {
				t.Fatal(err)
			}
			if tt.target != "" {
				x.Guest.Version = tt.target
				if err := h.update(t.Context(), x); err != nil {
					t.Fatal(err)
				}
			}
			if tt.targetThere {
				if err := os.MkdirAll(h.siblingDir(x, tt.target), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 { // uninstall can be repeated
				if err := h.uninstall(t.Context(), x); err != nil {
					t.Fatal(err)
				}
			}
			_, err := os.Stat(h.Layout.StateDir())
			if gone := os.IsNotExist(err); gone != tt.everything {
				t.Errorf("state folder gone: %v, want %v", gone, tt.everything)
			}
			if removed := slices.Contains(m.calls, "remove"); removed != tt.everything {
				t.Errorf("service removed: %v, want %v", removed, tt.everything)
			}
			if _, err := os.Stat(h.Layout.VersionBinary(product.Version)); !os.IsNotExist(err) {
				t.Errorf("this version's binary is left: %v", err)
			}
		})
	}
}

// A machine that was made from an image starts clean, and keeps what was there.
func TestStateOfAnotherMachineIsSetAside(t *testing.T) {
	h, _ := newHandler(t)
	dmi := filepath.Join(h.Layout.Root(), "sys", "class", "dmi", "id")
	if err := os.MkdirAll(dmi, 0o755); err != nil {
		t.Fatal(err)
	}
	machine := func(id string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dmi, "product_uuid"), []byte(id+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	x := invocation(t, h)
	machine("AAAAAAAA-0000-0000-0000-000000000001")
	if err := h.install(t.Context(), x); err != nil {
		t.Fatal(err)
	}
	mine := filepath.Join(h.Layout.AgentDir(), "identity")
	if err := os.WriteFile(mine, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := h.install(t.Context(), x); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(mine); err != nil {
		t.Errorf("the same machine lost its state: %v", err)
	}
	machine("AAAAAAAA-0000-0000-0000-000000000002")
	if err := h.install(t.Context(), x); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(mine); !os.IsNotExist(err) {
		t.Errorf("another machine has the state: %v", err)
	}
	aside, err := filepath.Glob(filepath.Join(h.Layout.HandlerDir(), "from-another-machine-*", "agent", "identity"))
	if err != nil || len(aside) != 1 {
		t.Errorf("set aside: %q, %v", aside, err)
	}
}

// What is set aside from other machines counts against the disk quota.
func TestStateThatIsSetAsideSharesTheQuota(t *testing.T) {
	h, _ := newHandler(t)
	for _, tt := range []struct {
		adds  string // folder that is added
		size  int
		quota int // what is left of 100 MB
		note  string
	}{
		{quota: 100},
		{adds: "from-another-machine-1/agent/spool", size: 10<<20 + 1, quota: 89, note: "11 MB of diskQuotaInMB are taken"},
		{adds: "from-another-machine-2/agent", size: 1 << 20, quota: 88, note: "12 MB"},
		{adds: "something-else", size: 20 << 20, quota: 88, note: "from-another-machine-2; remove it"},
		{adds: "from-another-machine-2/more", size: 90 << 20, quota: leastDiskMB, note: "102 MB"},
	} {
		if tt.adds != "" {
			folder := filepath.Join(h.Layout.HandlerDir(), tt.adds)
			if err := os.MkdirAll(folder, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(os.WriteFile(filepath.Join(folder, "file"), nil, 0o600), os.Truncate(filepath.Join(folder, "file"), int64(tt.size))); err != nil {
				t.Fatal(err)
			}
		}
		s := &Settings{Config: agent.Config{Limits: agent.Limits{DiskMB: 100}}}
		h.shareQuota(s, logfile.Discard())
		if s.Config.Limits.DiskMB != tt.quota || (tt.note == "") != (len(s.Notes) == 0) || !strings.Contains(strings.Join(s.Notes, " "), tt.note) {
			t.Errorf("with %s: %d MB are left, %q; want %d and %q", tt.adds, s.Config.Limits.DiskMB, s.Notes, tt.quota, tt.note)
		}
	}
}

func TestOtherConnectionsStop(t *testing.T) {
	h, _ := newHandler(t)
	s := &Settings{Config: agent.Config{Workspaces: []agent.Workspace{{ID: testID}}}}
	folder := func(name string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(h.Layout.Root(), "etc/opt/microsoft/omsagent", name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.otherConnections(s); err != nil {
		t.Errorf("without the earlier agent: %v", err)
	}
	for _, harmless := range []string{testID, "conf", "certs"} {
		folder(harmless)
	}
	if err := h.otherConnections(s); err != nil {
		t.Errorf("with the same workspace: %v", err)
	}
	folder("99999999-2222-3333-4444-555555555555")
	if err := h.otherConnections(s); err == nil || !strings.Contains(err.Error(), "99999999-") || !strings.Contains(err.Error(), "LINUXOMSAGENTEXTENSION_ERROR_MULTIPLECONNECTIONS") {
		t.Errorf("with another workspace: %v", err)
	}
}

// A dying agent is found running, and is gone when somebody looks again. Once
// started it writes its health.
type dying struct {
	fakeManager
	looks   int
	started bool
	write   func()
}

func (m *dying) Status(context.Context, service.Unit) (service.State, error) {
	m.looks++
	return service.State{Running: m.started || m.looks < 3, PID: 7}, nil
}

func (m *dying) Start(context.Context, service.Unit) error {
	m.started = true
	m.write()
	return m.do("start")
}

// A disable that was killed has told the agent to stop; enable finds it still
// running, and starts it when it has ended.
func TestAgentThatWasJustStoppedIsStartedAgain(t *testing.T) {
	h, _ := newHandler(t)
	h.Patience = time.Minute
	if err := os.MkdirAll(h.Layout.AgentDir(), 0o755); err != nil {
		t.Fatal(err)
	}
	m := &dying{}
	m.write = func() {
		data, err := json.Marshal(agent.Health{Version: product.Version, Generation: "1", PID: 7, Workspaces: []agent.WorkspaceHealth{{ID: "a", State: agent.StateConnected}}})
		if err == nil {
			err = os.WriteFile(h.Layout.HealthFile(), data, 0o600)
		}
		if err != nil {
			t.Error(err)
		}
	}
	h.Manager = m
	x := invocation(t, h)
	synctest.Test(t, func(t *testing.T) {
		if v := h.await(t.Context(), &state{Generation: "1"}, x); v.err != nil {
			t.Errorf("the verdict is %v", v.err)
		}
	})
	if !slices.Equal(m.calls, []string{"start"}) {
		t.Errorf("the manager was asked for %q", m.calls)
	}
}

func TestVerdict(t *testing.T) {
	health := func(states ...string) *agent.Health {
		h := &agent.Health{}
		for i, s := range states {
			w := agent.WorkspaceHealth{ID: string(rune('a' + i)), State: s}
			if s != agent.StateConnected && s != agent.StateStarting {
				w.Message = "it is " + s
			}
			h.Workspaces = append(h.Workspaces, w)
		}
		return h
	}
	for _, tt := range []struct {
		states []string
		code   int
		say    string
	}{
		{[]string{agent.StateConnected}, extension.ExitOK, ""},
		{[]string{agent.StateConnected, agent.StateConnected}, extension.ExitOK, ""},
		{[]string{agent.StateRejected}, extension.ExitBadSettings, "workspace a: it is rejected."},
		{[]string{agent.StateConnected, agent.StateRejected}, extension.ExitBadSettings, "workspace b: it is rejected."},
		{[]string{agent.StateUnreachable, agent.StateRejected}, extension.ExitBadSettings, "workspace a: it is unreachable."},
		{[]string{agent.StateUnreachable}, extension.ExitUnreachable, "goes on trying."},
		{[]string{agent.StateStarting}, extension.ExitUnreachable, "no answer yet."},
	} {
		v := judge(health(tt.states...))
		if got := extension.CodeOf(v.err); got != tt.code {
			t.Errorf("%v: exit code %d, want %d", tt.states, got, tt.code)
		}
		if v.err != nil && !strings.Contains(v.err.Error(), tt.say) {
			t.Errorf("%v: %q does not say %q", tt.states, v.err, tt.say)
		}
	}
}

func TestPartsNameWhatIsWrong(t *testing.T) {
	updated := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	got := parts(&agent.Health{
		Workspaces: []agent.WorkspaceHealth{
			{ID: "a", State: agent.StateConnected, Delivered: 5, Waiting: 1},
			{ID: "b", State: agent.StateUnreachable, Message: "no route", Refused: 2, Waiting: 4, OldestWait: updated.Add(-40 * time.Hour)},
		},
		Updated: updated, Ledger: agent.LedgerHealth{Read: 9, Emitted: 6, Dropped: 3},
		Sources: []agent.SourceHealth{
			{Name: "syslog", State: agent.SourceRunning, Read: 6},
			{Name: "customlog:A_CL", State: agent.SourceRunning, Troubles: map[string]string{"/a": "is a folder", "/b": "is secret", "/c": "x", "/d": "y"}},
		},
		Spool: agent.SpoolHealth{Bytes: 3 << 20, Budget: 10 << 20, State: "full", Message: "no room"},
	})
	want := []extension.Substatus{
		{Name: "workspace a", Status: extension.StatusSuccess, Message: "5 records delivered, 1 waiting."},
		{Name: "workspace b", Status: extension.StatusError, Code: extension.ExitUnreachable, Message: "no route. 0 records delivered, 4 waiting. 2 records were refused and set aside. " +
			"records have waited since 2025-12-31T11:04:05Z: after two days, at 2026-01-02T11:04:05Z, the service files them under the time of their arrival, and their own time is in another column only; bring the workspace within reach before that."},
		{Name: "source syslog", Status: extension.StatusSuccess, Message: "6 records read, 0 dropped."},
		{Name: "source customlog:A_CL", Status: extension.StatusWarning, Message: "/a: is a folder. /b: is secret. /c: x. And 1 more. 0 records read, 0 dropped."},
		{Name: "spool", Status: extension.StatusWarning, Message: "no room. 3 of 10 MB used."},
		{Name: "ledger", Status: extension.StatusSuccess, Message: "9 records read, 3 of them dropped. Every record is accounted for."},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestPartsTellWhoHoldsTheCeilings(t *testing.T) {
	for name, tt := range map[string]struct {
		limits agent.LimitsHealth
		want   []extension.Substatus
	}{
		"the system":      {agent.LimitsHealth{State: "ok"}, nil},
		"the agent alone": {agent.LimitsHealth{State: "ok", Note: "nobody else"}, []extension.Substatus{{Name: "limits", Status: extension.StatusSuccess, Message: "nobody else."}}},
		"too low":         {agent.LimitsHealth{State: "short", Message: "memory is short", Note: "nobody else"}, []extension.Substatus{{Name: "limits", Status: extension.StatusWarning, Message: "memory is short."}}},
	} {
		all := parts(&agent.Health{Limits: tt.limits, Spool: agent.SpoolHealth{State: "ok", Note: "a newer one"}})
		if diff := cmp.Diff(tt.want, all[2:], cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if all[0].Message != "0 of 0 MB used. a newer one." {
			t.Errorf("the spool's part says %q", all[0].Message)
		}
	}
}

// What the workspace asks for and does not get is told, and is no fault of the
// machine.
func TestPartsTellWhoChose(t *testing.T) {
	h := &agent.Health{Configuration: agent.ConfigurationHealth{
		Origin: agent.OriginWorkspace, Asked: true, Workspace: "a", Problem: "status 404", Unobeyed: []string{"1: x", "2", "3", "4", "5", "6", "7"},
	}}
	want := extension.Substatus{Name: "configuration", Status: extension.StatusSuccess, Message: "What is collected comes from workspace a. " +
		"The configuration of the workspace is not brought up to date: status 404. No effect: 1: x. No effect: 2. No effect: 3. No effect: 4. No effect: 5. And 2 more."}
	if diff := cmp.Diff(want, parts(h)[0]); diff != "" {
		t.Error(diff)
	}
	if text := summary(h, []string{"A note."}); text != "Collecting from 0 sources to workspace . What is collected comes from workspace a. A note." {
		t.Errorf("summary is %q", text)
	}
}

func TestPartsTellARecordThatIsMissing(t *testing.T) {
	all := parts(&agent.Health{Workspaces: []agent.WorkspaceHealth{{ID: "a", Delivered: 5}}, Ledger: agent.LedgerHealth{Read: 6, Emitted: 6}})
	got := all[len(all)-1]
	if got.Name != "ledger" || got.Status != extension.StatusWarning || !strings.Contains(got.Message, "6 were emitted, but at workspace a there are 5") {
		t.Errorf("substatus is %+v", got)
	}
}

func TestRootMustBeAbsolute(t *testing.T) {
	if _, err := New(func(string) (string, bool) { return "relative", true }); err == nil {
		t.Error("a relative root was taken")
	}
}
