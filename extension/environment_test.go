package extension

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

const linuxEnvironment = `[{"name": "Contoso.Test", "version": 1.0, "handlerEnvironment": {
	"logFolder": "/var/log/azure/Contoso.Test", "configFolder": "/var/lib/waagent/Contoso.Test-1.0.0/config",
	"statusFolder": "/var/lib/waagent/Contoso.Test-1.0.0/status", "heartbeatFile": "/var/lib/waagent/Contoso.Test-1.0.0/heartbeat.log",
	"eventsFolder": "/var/log/azure/Contoso.Test/events", "eventsFolder_preview": "/var/log/azure/Contoso.Test/events"}}]`

func TestParseEnvironment(t *testing.T) {
	t.Parallel()
	linux := &Environment{
		Name: "Contoso.Test", LogFolder: "/var/log/azure/Contoso.Test",
		ConfigFolder: "/var/lib/waagent/Contoso.Test-1.0.0/config", StatusFolder: "/var/lib/waagent/Contoso.Test-1.0.0/status",
		HeartbeatFile: "/var/lib/waagent/Contoso.Test-1.0.0/heartbeat.log", EventsFolder: "/var/log/azure/Contoso.Test/events",
	}
	for _, tt := range []struct {
		name, text string
		want       *Environment // nil is an error
	}{
		{"Linux", linuxEnvironment, linux},
		{"object alone", strings.Trim(linuxEnvironment, "[]"), linux},
		{"only what is needed", `[{"handlerEnvironment":{"configFolder":"c","statusFolder":"s","eventsFolder":null}}]`, &Environment{ConfigFolder: "c", StatusFolder: "s"}},
		{"events of old", `[{"handlerEnvironment":{"configFolder":"c","statusFolder":"s","eventsFolder_preview":"e"}}]`, &Environment{ConfigFolder: "c", StatusFolder: "s", EventsFolder: "e"}},
		{
			"Windows", `[{"version":1.0,"handlerEnvironment":{"configFolder":"C:\\c","statusFolder":"C:\\s","logFolder":"C:\\l","deploymentid":"d","rolename":"r","instance":"i","hostResolverAddress":"h"}}]`,
			&Environment{ConfigFolder: `C:\c`, StatusFolder: `C:\s`, LogFolder: `C:\l`, DeploymentID: "d", RoleName: "r", RoleInstance: "i", HostResolverAddress: "h"},
		},
		{"empty", "", nil},
		{"cut", linuxEnvironment[:99], nil},
		{"empty array", "[]", nil},
		{"two entries", "[{},{}]", nil},
		{"null", "null", nil},
		{"no handlerEnvironment", "[{}]", nil},
		{"no status folder", `[{"handlerEnvironment":{"configFolder":"c"}}]`, nil},
		{"number for a folder", `[{"handlerEnvironment":{"configFolder":1,"statusFolder":"s"}}]`, nil},
	} {
		got, err := parseEnvironment([]byte(tt.text))
		if diff := cmp.Diff(tt.want, got); diff != "" || (err == nil) != (tt.want != nil) {
			t.Errorf("%s: parseEnvironment = %v (-want +got):\n%s", tt.name, err, diff)
		}
	}
}

// The guest agent rewrites the file in place each time it starts.
func TestReadEnvironmentWaitsForTheRest(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "HandlerEnvironment.json")
	for _, begin := range []string{"", linuxEnvironment[:50]} {
		synctest.Test(t, func(t *testing.T) {
			if err := os.WriteFile(path, []byte(begin), 0o600); err != nil {
				t.Fatal(err)
			}
			time.AfterFunc(600*time.Millisecond, func() {
				if err := os.WriteFile(path, []byte("\xef\xbb\xbf"+linuxEnvironment), 0o600); err != nil {
					t.Error(err)
				}
			})
			env, err := ReadEnvironment(t.Context(), dir)
			if err != nil {
				t.Fatal(err)
			}
			if env.HandlerDir != dir || env.Name != "Contoso.Test" || filepath.ToSlash(env.LibDir()) != "/var/lib/waagent" {
				t.Errorf("ReadEnvironment = %+v", env)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		if err := os.WriteFile(path, []byte(linuxEnvironment[:50]), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadEnvironment(t.Context(), dir); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("ReadEnvironment of a file that stays cut = %v", err)
		}
	})
	if _, err := ReadEnvironment(t.Context(), t.TempDir()); err == nil || !strings.Contains(err.Error(), "where the guest agent unpacked the handler") {
		t.Errorf("ReadEnvironment without a file = %v", err)
	}
}

func FuzzParseEnvironment(f *testing.F) {
	f.Add([]byte(linuxEnvironment))
	f.Add([]byte(`{"handlerEnvironment":{"configFolder":"c","statusFolder":"s"}}`))
	f.Add([]byte("[null]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		env, err := parseEnvironment(data)
		if err == nil && (env.ConfigFolder == "" || env.StatusFolder == "") {
			t.Errorf("parseEnvironment = %+v without the folders that are needed", env)
		}
	})
}
