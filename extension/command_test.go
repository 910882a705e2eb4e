package extension

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/openloganalytics/agent/internal/logfile"
	"github.com/openloganalytics/agent/test/fakeguest"
)

func invocation(t testing.TB, seq int) (*Invocation, *strings.Builder) {
	t.Helper()
	var stderr strings.Builder
	return &Invocation{
		Env: newEnvironment(t), Seq: seq, HasSeq: true, Log: logfile.Discard(), LogPath: "/log/handler.log", Stderr: &stderr, Now: time.Now,
	}, &stderr
}

// Whatever way enable ends, a terminal status stands, with the log's path.
func TestEveryEndLeavesAStatus(t *testing.T) {
	for name, tt := range map[string]struct {
		run    func(ctx context.Context, x *Invocation) error
		code   int
		status string
		say    string
	}{
		"success":     {func(context.Context, *Invocation) error { return nil }, ExitOK, "success", "Enable succeeded."},
		"own success": {func(_ context.Context, x *Invocation) error { return x.Status.Success("Mine.") }, ExitOK, "success", "Mine."},
		"error":       {func(context.Context, *Invocation) error { return errors.New("broken") }, ExitFailed, "error", "Enable failed: broken"},
		"coded":       {func(context.Context, *Invocation) error { return WithCode(ExitBadSettings, errors.New("bad")) }, ExitBadSettings, "error", "bad"},
		"own error": {func(_ context.Context, x *Invocation) error {
			return errors.Join(errors.New("broken"), x.Status.Error(errors.New("told")))
		}, ExitFailed, "error", "told"},
		"runtime panic": {func(context.Context, *Invocation) error { var list []int; return fmt.Errorf("%d", list[len(os.Args)]) }, ExitFailed, "error", "internal error"},
		"panic":         {func(context.Context, *Invocation) error { panic("canaryOfThePanic") }, ExitFailed, "error", "internal error"},
		"deadline":      {func(ctx context.Context, _ *Invocation) error { <-ctx.Done(); return ctx.Err() }, ExitFailed, "error", "not done within"},
		"deaf":          {func(context.Context, *Invocation) error { time.Sleep(time.Hour); return nil }, ExitFailed, "error", "not done within"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x, stderr := invocation(t, 2)
				cmd := Command{Name: "enable", Reports: true, NeedsSequence: true, Run: func(ctx context.Context, x *Invocation) error {
					if got := checkStatus(t, filepath.Join(x.Env.StatusFolder, "2.status")); got.Status != "transitioning" {
						t.Errorf("while it runs the status is %+v", got)
					}
					return tt.run(ctx, x)
				}}
				code := Execute(t.Context(), cmd, x)
				got := checkStatus(t, filepath.Join(x.Env.StatusFolder, "2.status"))
				if code != tt.code || got.Status != tt.status || !strings.Contains(got.Message, tt.say) || !strings.HasSuffix(got.Message, "Log: /log/handler.log") {
					t.Errorf("exit code %d with %+v, want %d with %s and %q", code, got, tt.code, tt.status, tt.say)
				}
				if strings.Contains(got.Message+stderr.String(), "canary") {
					t.Errorf("the panic's value is shown: %q", got.Message)
				}
				if (tt.code != ExitOK) != strings.Contains(stderr.String(), "failed") {
					t.Errorf("exit code %d with %q on stderr", code, stderr)
				}
				time.Sleep(2 * time.Hour) // the deaf one ends
			})
		})
	}
}

func TestSignalIsTold(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	x, _ := invocation(t, 1)
	code := Execute(ctx, Command{Name: "enable", Reports: true, Run: func(ctx context.Context, _ *Invocation) error {
		cancel(errors.New("terminated by a signal"))
		<-ctx.Done()
		return ctx.Err()
	}}, x)
	got := checkStatus(t, filepath.Join(x.Env.StatusFolder, "1.status"))
	if code == ExitOK || got.Status != "error" || !strings.Contains(got.Message, "signal") {
		t.Errorf("exit code %d with %+v", code, got)
	}
}

// Commands that do not report leave enable's status alone unless they fail.
func TestOthersLeaveTheStatusAlone(t *testing.T) {
	for _, verb := range []string{"install", "disable", "update", "uninstall"} {
		x, _ := invocation(t, 3)
		path := filepath.Join(x.Env.StatusFolder, "3.status")
		if err := NewReporter(x.Env, "", 3, "Enable", "", time.Now).Success("From enable."); err != nil {
			t.Fatal(err)
		}
		before := string(readFile(t, path))
		if code := Execute(t.Context(), Command{Name: verb, Run: func(context.Context, *Invocation) error { return nil }}, x); code != ExitOK {
			t.Errorf("%s: exit code %d", verb, code)
		}
		if string(readFile(t, path)) != before {
			t.Errorf("%s changed the status", verb)
		}
		if code := Execute(t.Context(), Command{Name: verb, FailCode: ExitMissingDependency, Run: func(context.Context, *Invocation) error { return errors.New("x") }}, x); code != ExitMissingDependency {
			t.Errorf("%s: exit code %d", verb, code)
		}
		if got := checkStatus(t, path); got.Status != "error" || got.Code != ExitMissingDependency {
			t.Errorf("%s failed and the status is %+v", verb, got)
		}
	}
}

func TestNothingToDoRestoresTheStatus(t *testing.T) {
	for _, sentinel := range []error{ErrAlreadyApplied, ErrSuperseded} {
		x, _ := invocation(t, 3)
		path := filepath.Join(x.Env.StatusFolder, "3.status")
		if err := NewReporter(x.Env, "", 3, "Enable", "", time.Now).Warning("As it was."); err != nil {
			t.Fatal(err)
		}
		code := Execute(t.Context(), Command{Name: "enable", Reports: true, Run: func(context.Context, *Invocation) error { return sentinel }}, x)
		if got := checkStatus(t, path); code != ExitOK || got.Status != "warning" || got.Message != "As it was." {
			t.Errorf("%v: exit code %d with %+v", sentinel, code, got)
		}
	}
}

func TestCommandWithoutEnvironment(t *testing.T) {
	var stderr strings.Builder
	x := &Invocation{Log: logfile.Discard(), Stderr: &stderr, Now: time.Now}
	ran := false
	if code := Execute(t.Context(), Command{Name: "uninstall", Run: func(context.Context, *Invocation) error { ran = true; return nil }}, x); code != ExitOK || !ran {
		t.Errorf("uninstall ended with %d, ran: %v", code, ran)
	}
	if code := Execute(t.Context(), Command{Name: "enable", NeedsSequence: true, Run: func(context.Context, *Invocation) error { t.Error("it ran"); return nil }}, x); code != ExitBadSettings {
		t.Errorf("enable without a number ended with %d", code)
	}
}

// The guest agent kills at 300 s (enable, uninstall) and at 900 s.
func TestCommandsEndBeforeTheyAreKilled(t *testing.T) {
	for verb, limit := range map[string]time.Duration{"enable": 300, "uninstall": 300, "install": 900, "update": 900, "disable": 900} {
		if got := (Command{Name: verb}).timeout() + stopGrace; got >= limit*time.Second {
			t.Errorf("%s ends after %v, killed after %v", verb, got, limit*time.Second)
		}
	}
}

// With nothing to put back, a command that had nothing to do is a success.
func TestNothingToDoWithoutEarlierStatus(t *testing.T) {
	x, _ := invocation(t, 3)
	code := Execute(t.Context(), Command{Name: "enable", Reports: true, Run: func(context.Context, *Invocation) error { return ErrAlreadyApplied }}, x)
	if got := checkStatus(t, filepath.Join(x.Env.StatusFolder, "3.status")); code != ExitOK || got.Status != "success" || !strings.Contains(got.Message, "nothing to do") {
		t.Errorf("exit code %d with %+v", code, got)
	}
}

// A success that nobody can read is none. One that could not be begun for want
// of room still ends in a status when there is room again.
func TestStatusThatCannotBeWritten(t *testing.T) {
	for _, room := range []bool{false, true} {
		x, stderr := invocation(t, 3)
		if err := os.Remove(x.Env.StatusFolder); err != nil {
			t.Fatal(err)
		}
		code := Execute(t.Context(), Command{Name: "enable", Reports: true, FailCode: 9, Run: func(context.Context, *Invocation) error {
			if room {
				return os.Mkdir(x.Env.StatusFolder, 0o700)
			}
			return nil
		}}, x)
		if room {
			if got := checkStatus(t, filepath.Join(x.Env.StatusFolder, "3.status")); code != ExitOK || got.Status != "success" {
				t.Errorf("exit code %d with %+v", code, got)
			}
		} else if code != 9 || !strings.Contains(stderr.String(), "write status") {
			t.Errorf("exit code %d with %q", code, stderr)
		}
	}
}

// What a command ended with is an event too.
func TestCommandsLeaveEvents(t *testing.T) {
	x, _ := invocation(t, 3)
	guest := GuestAgent{ExtensionVersion: "1.0.0", SupportedFeatures: []string{FeatureEvents}}
	x.Events = NewEventWriter(x.Env, guest, "op", logfile.Discard(), time.Now)
	for _, err := range []error{nil, errors.New("broken")} {
		Execute(t.Context(), Command{Name: "enable", Reports: true, Run: func(context.Context, *Invocation) error { return err }}, x)
	}
	events, err := fakeguest.CollectEvents(x.Env.EventsFolder)
	if err != nil || len(events) != 2 {
		t.Fatalf("%d events, %v; want 2", len(events), err)
	}
	for i, want := range []string{"Informational: Enable succeeded.", "Error: Enable failed: broken"} {
		if got := events[i]["EventLevel"] + ": " + events[i]["Message"]; got != want {
			t.Errorf("event %d is %q, want %q", i, got, want)
		}
	}
}
