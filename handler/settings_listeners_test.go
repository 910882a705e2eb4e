package handler

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openloganalytics/agent/agent"
	"github.com/openloganalytics/agent/extension"
	"github.com/openloganalytics/agent/handler/service"
)

func parseListeners(list string) (*Settings, error) {
	return parse(`{"workspaceId":"`+testID+`","syslogListeners":`+list+`}`, `{"workspaceKey":"`+testKey+`"}`)
}

func TestNoListenerByDefault(t *testing.T) {
	s, err := parse(`{"workspaceId":"`+testID+`"}`, `{"workspaceKey":"`+testKey+`"}`)
	if err != nil {
		t.Fatal(err)
	}
	if l := s.Config.Sources.SyslogListeners; l != nil {
		t.Errorf("listeners %+v, want none", l)
	}
}

func TestListeners(t *testing.T) {
	all := agent.SyslogSelector{Facilities: []string{"*"}, Severities: []string{"*"}}
	idle := agent.Duration(15 * time.Minute)
	tests := []struct {
		name, list string
		want       []agent.SyslogListener
	}{
		{"defaults", `[{"protocol":"UDP"},{"protocol":"tcp"},{"protocol":"tls","certificateFile":"/c","keyFile":"/k"}]`, []agent.SyslogListener{
			{Protocol: "udp", Port: 5514, Selector: all},
			{Protocol: "tcp", Port: 5514, MaxConnections: 500, IdleTimeout: idle, Selector: all},
			{Protocol: "tls", Port: 6514, CertificateFile: "/c", KeyFile: "/k", MaxConnections: 500, IdleTimeout: idle, Selector: all},
		}},
		{"everything", `[{"name":"n","streams":["Microsoft-Syslog"],"protocol":"tls","address":"10.0.0.4","port":"1514","certificateFile":"/c","keyFile":"/k",
			"clientCAFile":"/a","maxConnections":2000,"idleTimeoutInSeconds":60,"facilityNames":["LOCAL4"],"logLevels":["Warning"]}]`, []agent.SyslogListener{
			{
				Protocol: "tls", Address: "10.0.0.4", Port: 1514, CertificateFile: "/c", KeyFile: "/k", ClientCAFile: "/a", MaxConnections: 2000,
				IdleTimeout: agent.Duration(time.Minute), Selector: agent.SyslogSelector{Facilities: []string{"local4"}, Severities: []string{"warning"}},
			},
		}},
		{"one port of two addresses", `[{"protocol":"udp","address":"10.0.0.4"},{"protocol":"udp","address":"10.0.0.5"}]`, []agent.SyslogListener{
			{Protocol: "udp", Address: "10.0.0.4", Port: 5514, Selector: all},
			{Protocol: "udp", Address: "10.0.0.5", Port: 5514, Selector: all},
		}},
		{"none", `[]`, nil},
	}
	for _, tt := range tests {
		s, err := parseListeners(tt.list)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if diff := cmp.Diff(tt.want, s.Config.Sources.SyslogListeners); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestListenersNameTheWrongField(t *testing.T) {
	tests := []struct{ list, field, problem string }{
		{`[{}]`, "syslogListeners[0].protocol", "is missing"},
		{`[null]`, "syslogListeners[0].protocol", "is missing"},
		{`[{"protocol":"relp"}]`, "syslogListeners[0].protocol", `"relp" is not a protocol`},
		{`[{"protocol":"udp","address":"web-01"}]`, "syslogListeners[0].address", `"web-01" is not an address`},
		{`[{"protocol":"udp","address":"224.0.0.1"}]`, "syslogListeners[0].address", "is not an address of a machine"},
		{`[{"protocol":"udp","port":0}]`, "syslogListeners[0].port", "out of range"},
		{`[{"protocol":"udp","port":65536}]`, "syslogListeners[0].port", "out of range"},
		{`[{"protocol":"udp","maxConnections":5}]`, "syslogListeners[0].maxConnections", "udp, which has no connections"},
		{`[{"protocol":"tcp","maxConnections":10001}]`, "syslogListeners[0].maxConnections", "out of range"},
		{`[{"protocol":"tcp","idleTimeoutInSeconds":0}]`, "syslogListeners[0].idleTimeoutInSeconds", "out of range"},
		{`[{"protocol":"tls","keyFile":"/k"}]`, "syslogListeners[0].certificateFile", "is missing"},
		{`[{"protocol":"tls","certificateFile":"/c"}]`, "syslogListeners[0].keyFile", "is missing"},
		{`[{"protocol":"tls","certificateFile":"c.pem","keyFile":"/k"}]`, "syslogListeners[0].certificateFile", "not an absolute path"},
		{`[{"protocol":"tcp","clientCAFile":"/a"}]`, "syslogListeners[0].clientCAFile", "protocol tls only"},
		{`[{"protocol":"tcp","facilityNames":["mark"]}]`, "syslogListeners[0].facilityNames", "names no facility"},
		{`[{"protocol":"tcp","facilityNames":["web"]}]`, "syslogListeners[0].facilityNames", `"web" is not a facility`},
		{`[{"protocol":"tcp","logLevels":[]}]`, "syslogListeners[0].logLevels", "names no level"},
		{`[{"protocol":"tcp","streams":["Microsoft-Perf"]}]`, "syslogListeners[0].streams", "cannot be fed"},
		{`[{"protocol":"tcp","prot":1}]`, "syslogListeners[0].prot", "is not a setting"},
		{`[{"protocol":"tcp"},{"protocol":"tls","port":5514,"certificateFile":"/c","keyFile":"/k","address":"10.0.0.4"}]`, "syslogListeners[1].port", "taken by syslogListeners[0]"},
		{`[` + strings.Repeat(`{"protocol":"tcp"},`, maxListeners) + `{}]`, "syslogListeners", "names 11 listeners"},
	}
	for _, tt := range tests {
		_, err := parseListeners(tt.list)
		if err == nil {
			t.Errorf("%s is taken", tt.list)
			continue
		}
		if text := err.Error(); !strings.Contains(text, tt.field+": ") || !strings.Contains(text, tt.problem) {
			t.Errorf("%s: %s; want %s with %q", tt.list, text, tt.field, tt.problem)
		}
	}
}

// TestListenersOpenTheUnitNoFurtherThanNeeded: only a port below 1024 brings
// the capability, and certificates of a home bring the home.
func TestListenersOpenTheUnitNoFurtherThanNeeded(t *testing.T) {
	for _, tt := range []struct {
		list      string
		low, home bool
	}{
		{`[]`, false, false},
		{`[{"protocol":"udp","port":1024}]`, false, false},
		{`[{"protocol":"udp"},{"protocol":"udp","port":514}]`, true, false},
		{`[{"protocol":"tls","certificateFile":"/home/x/c.pem","keyFile":"/etc/ssl/k.pem"}]`, false, true},
	} {
		settings, err := parseListeners(tt.list)
		if err != nil {
			t.Fatal(err)
		}
		s := &state{ReadsHome: true, BindsLow: true} // of the settings before
		(&Handler{}).adopt(s, &extension.Invocation{Env: &extension.Environment{}, Now: time.Now}, settings)
		u := (&Handler{}).unit(s)
		if want := (service.Unit{BindLow: tt.low, ProtectHome: !tt.home}); u.BindLow != want.BindLow || u.ProtectHome != want.ProtectHome {
			t.Errorf("%s: the unit has BindLow %v, ProtectHome %v, want %v, %v", tt.list, u.BindLow, u.ProtectHome, want.BindLow, want.ProtectHome)
		}
	}
}
