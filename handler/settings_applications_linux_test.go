package handler

import (
	"os"
	"testing"

	"github.com/openloganalytics/agent/internal/paths"
)

func TestPasswordsAreHandedOverInAFileOfTheirOwn(t *testing.T) {
	h := &Handler{Layout: paths.New(t.TempDir())}
	if err := os.MkdirAll(h.Layout.ConfigDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	public := `{"workspaceId":"` + testID + `","applications":[{"kind":"mysql"},{"kind":"postgresql"}]}`
	with, err := parse(public, `{"workspaceKey":"`+testKey+`","applicationPasswords":{"mysql":"one","postgresql":"two \"2\""}}`)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := h.deliverPasswords(with, -1, -1); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(h.Layout.PasswordsFile())
	if err != nil || info.Mode().Perm() != 0o400 {
		t.Errorf("the file is %v, %v", info, err)
	}
	data, err := os.ReadFile(h.Layout.PasswordsFile())
	if want := `{"mysql":"one","postgresql":"two \"2\""}`; err != nil || string(data) != want {
		t.Errorf("the file holds %s, %v, want %s", data, err, want)
	}
	without, err := parse(public, `{"workspaceKey":"`+testKey+`"}`)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := h.deliverPasswords(without, -1, -1); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(h.Layout.PasswordsFile()); !os.IsNotExist(err) {
		t.Errorf("the file stays: %v", err)
	}
}
