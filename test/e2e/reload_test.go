//go:build linux

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/openloganalytics/agent/agent"
	"github.com/openloganalytics/agent/test/emulator"
	"github.com/openloganalytics/agent/test/fakeguest"
)

// TestNewSourcesNeedNoNewAgent: settings with other sources are in force, in the
// same process, when enable is over; the status follows.
func TestNewSourcesNeedNoNewAgent(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.enable(oldVersion, m.settings(nil))
	pid, began := m.health().PID, m.health().Started
	for i := range 3 {
		m.appendLines(10*i+1, 10*i+10)
		m.enable(oldVersion, m.settings(func(pub, _ map[string]any) {
			sources := pub["dataSources"].(map[string]any)
			if i%2 == 0 {
				delete(sources, "syslog")
			}
			sources["logFiles"] = append(sources["logFiles"].([]any), map[string]any{
				"streams": []string{"Custom-More_CL"}, "filePatterns": []string{fmt.Sprintf("%s.%d", m.logFile(), i)}, "format": "text",
			})
		}))
		status := m.wantStatus("success")
		for _, want := range []string{"source customlog:App_CL", "source customlog:More_CL", "configuration"} {
			if !slices.ContainsFunc(status.Parts, func(p fakeguest.Part) bool { return p.Name == want }) {
				t.Errorf("no substatus %q in %+v", want, status.Parts)
			}
		}
	}
	m.wantLines(30)
	if h := m.health(); h.PID != pid || !h.Started.Equal(began) {
		t.Errorf("process %d of %v became %d of %v", pid, began, h.PID, h.Started)
	}
}

// TestWorkspaceChooses: with no data sources in the settings the workspace's are
// collected, and after a start without the service as well; data sources in the
// settings come before them.
func TestWorkspaceChooses(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	document := fmt.Sprintf(`
instance of MSFT_nxOMSCustomLogObject as $Log { LogName = "CUSTOM_LOG_BLOB.App_CL_%s"; FilePath = {"%s"}; };
instance of MSFT_nxOMSCustomLogResource { ResourceId = "[nxOMSCustomLog]Logs"; CustomLogObjects = {$Log}; };
instance of MSFT_nxOMSPluginResource { ResourceId = "[nxOMSPlugin]Plugins"; };
`, m.workspace.ID, m.logFile())
	if err := m.service.SetConfiguration(emulator.Configuration{Workspace: m.workspace.ID, Document: document}); err != nil {
		t.Fatal(err)
	}
	choosing := m.settings(func(pub, _ map[string]any) {
		delete(pub, "dataSources")
		pub["useWorkspaceConfiguration"] = true // the machine lies below a temporary folder
	})
	m.enable(oldVersion, choosing)
	from := func(want string) *agent.Health {
		t.Helper()
		m.eventually(func() error {
			if c := m.health().Configuration; c.Origin != want {
				return fmt.Errorf("sources come from %s, want %s: %+v", c.Origin, want, c)
			}
			return nil
		})
		return m.health()
	}
	h := from(agent.OriginWorkspace)
	if len(h.Configuration.Unobeyed) != 1 || !strings.Contains(h.Configuration.Unobeyed[0], "nxOMSPlugin") {
		t.Errorf("configuration is %+v", h.Configuration)
	}
	m.appendLines(1, 20)
	m.wantLines(20)
	kept, err := os.ReadFile(filepath.Join(m.layout.WorkspaceDir(m.workspace.ID), "configuration.mof"))
	if err != nil || string(kept) != document {
		t.Errorf("kept is %q, %v", kept, err)
	}
	if reports := m.service.Reports(); len(reports) != 1 || len(reports[0].Errors) > 0 {
		t.Errorf("reports are %+v", reports)
	}

	if _, err := m.guest.Disable(); err != nil {
		t.Fatal(err)
	}
	if _, err := m.service.AddFault(emulator.Fault{Kind: emulator.FaultStatus, Status: 404, Endpoint: "configuration"}); err != nil {
		t.Fatal(err)
	}
	m.enable(oldVersion, choosing)
	from(agent.OriginWorkspace)
	m.appendLines(21, 40)
	m.wantLines(40)

	m.enable(oldVersion, m.settings(func(pub, _ map[string]any) { pub["dataSources"] = map[string]any{} }))
	if h := from(agent.OriginSettings); len(h.Sources) != 2 {
		t.Errorf("with no sources there are %+v", h.Sources)
	}
}
