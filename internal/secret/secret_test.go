package secret

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

const canary = "qoTgVB0a1393p4FU"

func TestSecretPrintsNowhere(t *testing.T) {
	s := New(canary)
	held := struct {
		Key  Secret
		Keys map[string]Secret
		own  Secret
	}{s, map[string]Secret{"a": s}, s}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("m", "key", s, "held", held)
	slog.New(slog.NewTextHandler(&log, nil)).Info("m", "key", s, "held", held)
	asJSON, err := json.Marshal(held)
	if err != nil {
		t.Fatal(err)
	}
	for _, printed := range []string{
		fmt.Sprint(s, &s), fmt.Sprintf("%v %+v %#v %s %q %x %d", s, s, s, s, s, s, s),
		fmt.Sprintf("%v %+v %#v", held, held, held), fmt.Errorf("open %v: %w", s, fmt.Errorf("%s", s)).Error(),
		string(asJSON), log.String(),
	} {
		if strings.Contains(printed, canary) || strings.Contains(printed, fmt.Sprintf("%x", canary)) {
			t.Errorf("printed the secret: %s", printed)
		}
		if !strings.Contains(printed, mask) {
			t.Errorf("got %q, want it to show %s", printed, mask)
		}
	}
}

func TestSecretReadsJSON(t *testing.T) {
	var s Secret
	if err := json.Unmarshal([]byte(`"`+canary+`"`), &s); err != nil || s.Reveal() != canary {
		t.Fatalf("Unmarshal: %v, revealed %v", err, s.Reveal() == canary)
	}
	err := json.Unmarshal([]byte(`{"`+canary+`":1}`), &s)
	if err == nil || strings.Contains(err.Error(), canary) {
		t.Errorf("Unmarshal of an object: error %v, want one without the value", err)
	}
	if !(Secret{}).IsZero() || New("x").IsZero() {
		t.Error("IsZero is wrong")
	}
}
