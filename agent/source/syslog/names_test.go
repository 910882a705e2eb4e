package syslog

import (
	"strings"
	"testing"
)

func TestSelectors(t *testing.T) {
	wanted, err := Compile([]Selector{
		{Facilities: []string{"auth", "authpriv"}, Severities: []string{"*"}},
		{Facilities: []string{"*"}, Severities: []string{"emerg", "warning"}},
		{Facilities: []string{"clock"}, Severities: []string{"warn", "debug"}},
		{Facilities: []string{"mail"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for facility := range uint8(facilities) {
		for severity := range uint8(severities) {
			name := FacilityName(facility) + "." + SeverityName(severity)
			want := severity == 0 || severity == 4 || facility == 4 || facility == 10 || name == "at.debug"
			if got := wanted.Has(facility, severity); got != want {
				t.Errorf("%s wanted = %v, want %v", name, got, want)
			}
		}
	}
}

func TestSelectorsNameTheWrongWord(t *testing.T) {
	for _, selector := range []Selector{
		{Facilities: []string{"auth", "atuh"}, Severities: []string{"err"}},
		{Facilities: []string{"auth"}, Severities: []string{"err", "atuh"}},
	} {
		if _, err := Compile([]Selector{selector}); err == nil || !strings.Contains(err.Error(), `"atuh"`) {
			t.Errorf("Compile(%v) = %v, want an error that names atuh", selector, err)
		}
	}
}
