package nearest

import "testing"

func TestName(t *testing.T) {
	known := []string{"workspaceId", "workspaces", "proxy"}
	for _, tt := range []struct {
		name, want string
		differs    int
	}{
		{"workspaceID", "workspaceId", 0},
		{"workspacId", "workspaceId", 1},
		{"workspace", "workspaces", 1},
		{"porxy", "proxy", 2},
		{"", "proxy", 5},
	} {
		if got, n := Name(tt.name, known); got != tt.want || n != tt.differs {
			t.Errorf("%q: got %q, %d; want %q, %d", tt.name, got, n, tt.want, tt.differs)
		}
	}
	if got, n := Name("x", nil); got != "" || n != 0 {
		t.Errorf("without names: %q, %d", got, n)
	}
}
