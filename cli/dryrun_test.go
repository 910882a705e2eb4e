package cli

import (
	"strings"
	"testing"
	"time"
)

// Signs of life do not come for every row.
func TestProgress(t *testing.T) {
	var out strings.Builder
	now := time.Unix(0, 0)
	told := progress(&out, func() time.Time { return now })
	for rows := range int64(30) {
		told(rows)
		now = now.Add(time.Second)
	}
	if got, want := out.String(), "10 rows so far\n20 rows so far\n"; got != want {
		t.Errorf("told %q, want %q", got, want)
	}
}
