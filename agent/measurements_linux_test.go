package agent

import (
	"os"
	"strings"
	"testing"

	"github.com/openloganalytics/agent/internal/logfile"
	"github.com/openloganalytics/agent/internal/paths"
)

func TestSourcesOfApplications(t *testing.T) {
	layout := paths.New(t.TempDir())
	if err := os.MkdirAll(layout.ConfigDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	o := Options{Layout: layout, Log: logfile.Discard(), Config: &Config{Sources: Sources{
		Applications: []Application{
			{Name: "apache", Kind: "apache", URL: "http://127.0.0.1/server-status?auto", Interval: Duration(1e9)},
			{Name: "mysql", Kind: "mysql", Address: "127.0.0.1:3306", Interval: Duration(1e9)},
			{Name: "shop", Kind: "postgresql", Address: "/run/postgresql", Interval: Duration(1e9)},
		},
		Insights: &Insights{Interval: Duration(1e9)}, Collectd: &Collectd{Port: 26000}, Statsd: &Statsd{Port: 8125},
	}}}
	for name, text := range map[string]string{"no passwords": "", "a password": `{"mysql":"a long password"}`} {
		if text != "" {
			if err := os.WriteFile(layout.PasswordsFile(), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		list, err := measurements(o, &host{name: "vm"})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var names []string
		for _, s := range list {
			names = append(names, s.Name())
		}
		if got := strings.Join(names, " "); got != "insights apache mysql postgresql:shop collectd statsd" {
			t.Errorf("%s: sources are %s", name, got)
		}
	}
	passwords, err := readPasswords(o)
	if err != nil || passwords["mysql"].Reveal() != "a long password" {
		t.Errorf("passwords: %v", err)
	}
	if err := os.WriteFile(layout.PasswordsFile(), []byte(`{"mysql":["secret"]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := measurements(o, &host{name: "vm"}); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("passwords that are not readable: %v", err)
	}
	o.Config.Sources.Applications = []Application{{Name: "x", Kind: "oracle"}}
	if err := os.Remove(layout.PasswordsFile()); err != nil {
		t.Fatal(err)
	}
	if _, err := measurements(o, &host{name: "vm"}); err == nil || !strings.Contains(err.Error(), "oracle") {
		t.Errorf("a kind that is not known: %v", err)
	}
}
