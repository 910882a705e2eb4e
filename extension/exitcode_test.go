package extension

import (
	"errors"
	"fmt"
	"testing"
)

func TestExitCodes(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("x"), ExitFailed},
		{ErrNoSettings, ExitBadSettings},
		{fmt.Errorf("a: %w", &SettingsError{"f", "p", "x"}), ExitBadSettings},
		{fmt.Errorf("a: %w", WithCode(ExitUnsupportedOS, errors.New("x"))), ExitUnsupportedOS},
		{WithCode(ExitUnreachable, WithCode(ExitBadSettings, errors.New("x"))), ExitUnreachable},
	} {
		if got := CodeOf(tt.err); got != tt.want {
			t.Errorf("%v: got %d, want %d", tt.err, got, tt.want)
		}
	}
	if WithCode(ExitFailed, nil) != nil {
		t.Error("no error has a code")
	}
	seen := map[string]int{}
	for _, code := range []int{ExitOK, ExitUsage, ExitFailed, ExitUnsupportedOS, ExitMissingDependency, ExitBadSettings, ExitUnreachable, 200} {
		if other, ok := seen[Meaning(code)]; ok {
			t.Errorf("%d and %d mean the same", code, other)
		}
		seen[Meaning(code)] = code
	}
}
