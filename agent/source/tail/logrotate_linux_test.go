package tail

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// killSoon lets the follower read for a moment, then ends it with what is not
// durable.
func (r *rig) killSoon(durable bool) {
	r.Helper()
	time.Sleep(2 * time.Second)
	if durable {
		r.out.Durable()
	}
	r.crash()
	time.Sleep(2 * hotPause)
}

// TestF35RealLogrotate rotates with the real program, each time with lines
// that were not read yet. Nothing may be lost or repeated, also if the agent is
// killed before and after.
func TestF35RealLogrotate(t *testing.T) {
	program, err := exec.LookPath("logrotate")
	if err != nil {
		program = "/usr/sbin/logrotate" // not in every user's path
	}
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("this test needs the logrotate package: %v", err)
	}
	for mode, rotations := range map[string]int{
		"create":                                3,
		"create\ndelaycompress\ncompress":       3,
		"create\ncompress":                      3,
		"nocreate":                              3,
		"create\ndateext":                       1, // once a day
		"copytruncate":                          3,
		"copytruncate\ndelaycompress\ncompress": 3,
		"copytruncate\ndateext\nextension .log": 1,
	} {
		for _, pattern := range []string{"app.log", "app*", "app* with kills"} {
			t.Run(strings.ReplaceAll(mode, "\n", " ")+" of "+pattern, func(t *testing.T) {
				pattern, kills := strings.CutSuffix(pattern, " with kills")
				bubble(t, func(r *rig) {
					config := fmt.Sprintf("%s {\n rotate 9\n su %d %d\n %s\n}\n", r.path("app.log"), os.Geteuid(), os.Getegid(), mode)
					r.check(os.WriteFile(r.path("rotate.conf"), []byte(config), 0o600))
					rotate := func() {
						cmd := exec.CommandContext(r.Context(), program, "--force", "--state", r.path("rotate.state"), r.path("rotate.conf"))
						if out, err := cmd.CombinedOutput(); err != nil {
							t.Fatalf("logrotate: %v\n%s", err, out)
						}
					}
					r.start()
					var want []string
					write := func(what string) {
						lines := number(what, 200)
						want = append(want, lines...)
						r.add("app.log", text(lines))
					}
					write("first")
					r.settle(len(want))
					for i := range rotations {
						write(fmt.Sprint("unread ", i))
						if kills {
							r.killSoon(mode == "create\ncompress") // else they would be out of reach, see F04
						}
						rotate()
						if kills {
							r.killSoon(false)
						}
						write(fmt.Sprint("after ", i))
						r.settle(len(want))
						r.out.Durable()
					}
					r.wantAny(slices.Clone(want)...)
					for _, l := range r.out.Losses() {
						if !kills || l.Bytes > 0 || l.Reason != lostRotated { // that old files went is told to be safe
							t.Errorf("loss %+v, want none", l)
						}
					}
				}, pattern)
			})
		}
	}
}
