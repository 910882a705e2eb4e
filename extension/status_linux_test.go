package extension

import (
	"os"
	"testing"
)

// The guest agent is root; nobody else needs to read a status.
func TestStatusIsForRootAlone(t *testing.T) {
	r, path := reporter(t)
	if err := r.Begin("Enable began."); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != 0o600 {
		t.Errorf("mode is %v, want -rw-------", info.Mode())
	}
}
