package extension

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestCurrentSequence(t *testing.T) {
	t.Parallel()
	minute := func(n int) time.Time { return testNow().Add(time.Duration(n) * time.Minute) }
	for _, tt := range []struct {
		name  string
		files map[string]time.Time
		guest GuestAgent
		want  int // -1 is ErrNoSettings
	}{
		{"the guest agent's word", map[string]time.Time{"7.settings": minute(0)}, GuestAgent{SequenceNumber: 3, HasSequence: true}, 3},
		{"0 is a number", map[string]time.Time{"7.settings": minute(0)}, GuestAgent{HasSequence: true}, 0},
		{"newest, not highest", map[string]time.Time{"7.settings": minute(0), "2.settings": minute(1), "1.settings": minute(0)}, GuestAgent{}, 2},
		{"highest of the same time", map[string]time.Time{"9.settings": minute(1), "10.settings": minute(1), "11.settings": minute(1)}, GuestAgent{}, 11},
		{"other files", map[string]time.Time{
			"1.settings": minute(0), "x.settings": minute(1), "-2.settings": minute(1), "+3.settings": minute(1),
			"04.settings": minute(1), "5.status": minute(1), "web.6.settings": minute(1), "HandlerState": minute(1), ".settings": minute(1),
		}, GuestAgent{}, 1},
		{"one of several extensions", map[string]time.Time{"web.6.settings": minute(0), "web.x.settings": minute(1), "db.7.settings": minute(1), "8.settings": minute(1)}, GuestAgent{ExtensionName: "web"}, 6},
		{"none", map[string]time.Time{"HandlerState": minute(0)}, GuestAgent{}, -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			env := &Environment{ConfigFolder: t.TempDir()}
			for name, at := range tt.files {
				path := filepath.Join(env.ConfigFolder, name)
				if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chtimes(path, at, at)); err != nil {
					t.Fatal(err)
				}
			}
			got, err := CurrentSequence(env, tt.guest)
			if tt.want < 0 {
				if !errors.Is(err, ErrNoSettings) {
					t.Errorf("CurrentSequence = %d, %v; want %v", got, err, ErrNoSettings)
				}
			} else if err != nil || got != tt.want {
				t.Errorf("CurrentSequence = %d, %v; want %d", got, err, tt.want)
			}
		})
	}
	if _, err := CurrentSequence(nil, GuestAgent{}); !errors.Is(err, ErrNoSettings) {
		t.Errorf("without an environment: %v", err)
	}
	if _, err := CurrentSequence(&Environment{ConfigFolder: filepath.Join(t.TempDir(), "none")}, GuestAgent{}); err == nil || errors.Is(err, ErrNoSettings) {
		t.Errorf("a folder that cannot be read is taken for no settings: %v", err)
	}
}

func TestLastApplied(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, ok, err := LastApplied(dir); ok || err != nil {
		t.Errorf("before the first: %v, %v", ok, err)
	}
	for _, want := range []int{12, 0} {
		if err := SetLastApplied(dir, want); err != nil {
			t.Fatal(err)
		}
		if got, ok, err := LastApplied(dir); got != want || !ok || err != nil {
			t.Errorf("LastApplied = %d, %v, %v; want %d", got, ok, err, want)
		}
	}
	path := filepath.Join(dir, "mrseq")
	if data := readFile(t, path); string(data) != "0" {
		t.Errorf("mrseq holds %q, want plain decimal", data)
	}
	// Other handlers end the line.
	for content, good := range map[string]bool{"5\n": true, "": false, "five": false, "-1": false} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, ok, err := LastApplied(dir); ok != good || (err == nil) != good {
			t.Errorf("%q: %v, %v", content, ok, err)
		}
	}
}
