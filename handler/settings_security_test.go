package handler

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/openloganalytics/agent/agent"
)

// TestSecurityStream: the stream says where CEF and Cisco ASA go, for data
// sources and for listeners.
func TestSecurityStream(t *testing.T) {
	const source = `"facilityNames":["local4"],"logLevels":["*"]`
	selector := agent.SyslogSelector{Facilities: []string{"local4"}, Severities: []string{"*"}}
	tests := []struct {
		streams         string
		plain, security bool
	}{
		{``, true, false},
		{`"streams":["Microsoft-Syslog"],`, true, false},
		{`"streams":["Microsoft-CommonSecurityLog"],`, false, true},
		{`"streams":["Microsoft-Syslog","Microsoft-CommonSecurityLog"],`, true, true},
	}
	for _, tt := range tests {
		s, err := parse(`{"workspaceId":"`+testID+`","dataSources":{"syslog":[{`+tt.streams+source+`}]},`+
			`"syslogListeners":[{"protocol":"udp",`+tt.streams+source+`}]}`, `{"workspaceKey":"`+testKey+`"}`)
		if err != nil {
			t.Fatal(err)
		}
		var want agent.Syslog
		listener := s.Config.Sources.SyslogListeners[0]
		var wantPlain agent.SyslogSelector
		var wantSecurity *agent.SyslogSelector
		if tt.plain {
			want.Selectors, wantPlain = []agent.SyslogSelector{selector}, selector
		}
		if tt.security {
			want.Security, wantSecurity = []agent.SyslogSelector{selector}, &selector
		}
		if diff := cmp.Diff(&want, s.Config.Sources.Syslog); diff != "" {
			t.Errorf("%s: data source (-want +got):\n%s", tt.streams, diff)
		}
		if diff := cmp.Diff(wantPlain, listener.Selector); diff != "" {
			t.Errorf("%s: listener (-want +got):\n%s", tt.streams, diff)
		}
		if diff := cmp.Diff(wantSecurity, listener.Security); diff != "" {
			t.Errorf("%s: listener's security messages (-want +got):\n%s", tt.streams, diff)
		}
	}
	_, err := parse(`{"workspaceId":"`+testID+`","dataSources":{"syslog":[{"streams":["Microsoft-Event"],`+source+`}]}}`, `{"workspaceKey":"`+testKey+`"}`)
	if err == nil || !strings.Contains(err.Error(), `give "Microsoft-Syslog" or "Microsoft-CommonSecurityLog"`) {
		t.Errorf("a stream of Windows gives %v, want the two that can be fed", err)
	}
}
