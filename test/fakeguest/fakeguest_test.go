//go:build linux

package fakeguest

import (
	"archive/zip"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const handler = "Contoso.Test"

// script is a handler that writes what it was told into $CALLS and fails where
// a file of the verb's name in its folder says so.
const script = `#!/bin/sh
verb=$1
dir=$(dirname "$0")
{
	printf '%s %s seq=%s' "$verb" "$AZURE_GUEST_AGENT_EXTENSION_VERSION" "$ConfigSequenceNumber"
	[ -z "$AZURE_GUEST_AGENT_DISABLE_CMD_EXIT_CODE" ] || printf ' disabled=%s' "$AZURE_GUEST_AGENT_DISABLE_CMD_EXIT_CODE"
	[ -z "$AZURE_GUEST_AGENT_UNINSTALL_CMD_EXIT_CODE" ] || printf ' uninstalled=%s' "$AZURE_GUEST_AGENT_UNINSTALL_CMD_EXIT_CODE"
	[ -z "$VERSION" ] || printf ' from=%s to=%s' "$AZURE_GUEST_AGENT_UPDATING_FROM_VERSION" "$VERSION"
	[ "$PWD" = "$AZURE_GUEST_AGENT_EXTENSION_PATH" ] || printf ' in %s' "$PWD"
	echo
} >>"$CALLS"
[ ! -f "fail-$verb" ] || exit "$(cat "fail-$verb")"
`

// vm is a guest with the packages 1.0.0, 1.1.0 and 1.2.0.
type vm struct {
	*testing.T
	*Guest
	calls string
}

func newVM(t *testing.T, manifest string) *vm {
	t.Helper()
	dir := t.TempDir()
	v := &vm{T: t, calls: filepath.Join(dir, "calls")}
	var err error
	v.Guest, err = New(Options{Root: filepath.Join(dir, "vm"), Name: handler, Env: []string{"CALLS=" + v.calls}})
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range []string{"1.0.0", "1.1.0", "1.2.0"} {
		v.Publish(version, pack(t, map[string]string{"HandlerManifest.json": manifest, "bin/handler": script}))
	}
	return v
}

// manifestWith is a manifest with all commands and the given fields.
func manifestWith(fields string) string {
	var b strings.Builder
	for _, verb := range []string{"install", "enable", "disable", "update", "uninstall"} {
		fmt.Fprintf(&b, `"%sCommand": "bin/handler %s", `, verb, verb)
	}
	return "\xef\xbb\xbf" + `[{"handlerManifest": {` + b.String() + fields + `}}]`
}

const (
	goingOn  = `"updateMode": "UpdateWithInstall", "continueOnUpdateFailure": true`
	stopping = `"updateMode": "UpdateWithoutInstall", "continueOnUpdateFailure": false`
)

func pack(t *testing.T, files map[string]string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "package.zip")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	z := zip.NewWriter(file)
	for name, text := range files {
		w, err := z.Create(name)
		if err == nil {
			_, err = w.Write([]byte(text))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(z.Close(), file.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}

// want checks the commands since the last want.
func (v *vm) want(lines ...string) {
	v.Helper()
	data, err := os.ReadFile(v.calls)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		v.Fatal(err)
	}
	if err := os.RemoveAll(v.calls); err != nil {
		v.Fatal(err)
	}
	got := strings.Split(strings.TrimSpace(string(data)), "\n")
	if diff := cmp.Diff(lines, got); diff != "" {
		v.Errorf("commands (-want +got):\n%s", diff)
	}
}

func (v *vm) fails(version, verb, code string) {
	v.Helper()
	if err := os.WriteFile(filepath.Join(v.HandlerDir(version), "fail-"+verb), []byte(code), 0o600); err != nil {
		v.Fatal(err)
	}
}

// enable wants Enable to fail with the verb's Run, or to succeed for an empty verb.
func (v *vm) enable(version, verb string) {
	v.Helper()
	_, err := v.Enable(version, Settings{Public: []byte(`{"a": 1}`)})
	var failed Run
	if errors.As(err, &failed); failed.Command != verb || verb == "" && err != nil {
		v.Fatalf("Enable(%s) = %v, want failure of %q", version, err, verb)
	}
}

// The order of commands and what they are told is what the guest agent was
// observed to do.
func TestLifeCycle(t *testing.T) {
	t.Parallel()
	v := newVM(t, manifestWith(goingOn))
	v.enable("1.0.0", "")
	v.want("install 1.0.0 seq=0 uninstalled=NOT_RUN", "enable 1.0.0 seq=0 uninstalled=NOT_RUN")

	if _, err := v.Restart(); err != nil {
		t.Fatal(err)
	}
	v.want("enable 1.0.0 seq=0 uninstalled=NOT_RUN")

	for _, name := range []string{"mrseq", "status/0.status"} {
		if err := os.WriteFile(filepath.Join(v.HandlerDir("1.0.0"), name), []byte("kept"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// Settings and version change at once: the old version hears a number that
	// it has no file for.
	if _, err := v.Enable("1.1.0", Settings{Public: []byte(`{"a": 2}`)}); err != nil {
		t.Fatal(err)
	}
	v.want(
		"disable 1.0.0 seq=1",
		"update 1.1.0 seq=1 disabled=0 from=1.0.0 to=1.1.0",
		"uninstall 1.0.0 seq=1",
		"install 1.1.0 seq=1 uninstalled=0",
		"enable 1.1.0 seq=1 uninstalled=0",
	)
	for _, name := range []string{"mrseq", "status/0.status"} {
		if data, err := os.ReadFile(filepath.Join(v.HandlerDir("1.1.0"), name)); string(data) != "kept" {
			t.Errorf("%s was not carried over: %q, %v", name, data, err)
		}
	}
	if _, err := os.Stat(v.HandlerDir("1.0.0")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the old version is still there: %v", err)
	}

	// Downwards the newer package runs update, and hears the target twice.
	if _, err := v.Enable("1.0.0", Settings{Public: []byte(`{"a": 2}`)}); err != nil {
		t.Fatal(err)
	}
	v.want(
		"disable 1.1.0 seq=1",
		"update 1.1.0 seq=1 disabled=0 from=1.0.0 to=1.0.0",
		"uninstall 1.1.0 seq=1",
		"install 1.0.0 seq=1 uninstalled=0",
		"enable 1.0.0 seq=1 uninstalled=0",
	)

	if _, err := v.Disable(); err != nil {
		t.Fatal(err)
	}
	v.enable("1.0.0", "")
	v.want("disable 1.0.0 seq=1", "enable 1.0.0 seq=2 uninstalled=NOT_RUN")

	dir := v.HandlerDir("1.0.0")
	if _, err := v.Uninstall(); err != nil {
		t.Fatal(err)
	}
	v.want("disable 1.0.0 seq=0", "uninstall 1.0.0 seq=0")
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the handler's folder is left: %v", err)
	}
}

func TestFailuresInAnUpdate(t *testing.T) {
	t.Parallel()
	t.Run("old commands fail and the manifest says to go on", func(t *testing.T) {
		t.Parallel()
		v := newVM(t, manifestWith(goingOn))
		v.enable("1.0.0", "")
		v.fails("1.0.0", "disable", "7")
		v.fails("1.0.0", "uninstall", "8")
		v.want("install 1.0.0 seq=0 uninstalled=NOT_RUN", "enable 1.0.0 seq=0 uninstalled=NOT_RUN")
		v.enable("1.1.0", "")
		v.want(
			"disable 1.0.0 seq=0",
			"update 1.1.0 seq=0 disabled=7 from=1.0.0 to=1.1.0",
			"uninstall 1.0.0 seq=0",
			"install 1.1.0 seq=0 uninstalled=8",
			"enable 1.1.0 seq=0 uninstalled=8",
		)
	})
	t.Run("old disable fails and the manifest says to stop", func(t *testing.T) {
		t.Parallel()
		v := newVM(t, manifestWith(stopping))
		v.enable("1.0.0", "")
		v.fails("1.0.0", "disable", "7")
		v.enable("1.1.0", "disable")
		if v.Version() != "1.0.0" || !v.enabled {
			t.Errorf("version %s, enabled %v: want the old one to stay", v.Version(), v.enabled)
		}
	})
	t.Run("update fails and is tried again", func(t *testing.T) {
		t.Parallel()
		v := newVM(t, manifestWith(stopping))
		v.enable("1.0.0", "")
		v.Publish("1.1.0", pack(t, map[string]string{"HandlerManifest.json": manifestWith(stopping), "bin/handler": script, "fail-update": "9"}))
		v.enable("1.1.0", "update")
		v.Publish("1.1.0", pack(t, map[string]string{"HandlerManifest.json": manifestWith(stopping), "bin/handler": script, "fail-update": "0"}))
		v.enable("1.1.0", "")
		v.want(
			"install 1.0.0 seq=0 uninstalled=NOT_RUN", "enable 1.0.0 seq=0 uninstalled=NOT_RUN",
			"disable 1.0.0 seq=0",
			"update 1.1.0 seq=0 disabled=0 from=1.0.0 to=1.1.0",
			"update 1.1.0 seq=0 disabled=None from=1.0.0 to=1.1.0",
			"uninstall 1.0.0 seq=0",
			"enable 1.1.0 seq=0 uninstalled=0", // this mode installs nothing
		)
	})
	t.Run("install fails and is tried again", func(t *testing.T) {
		t.Parallel()
		v := newVM(t, manifestWith(goingOn))
		v.Publish("1.2.0", pack(t, map[string]string{"HandlerManifest.json": manifestWith(goingOn), "bin/handler": script, "fail-install": "5"}))
		v.enable("1.0.0", "")
		v.enable("1.2.0", "install")
		v.enable("1.1.0", "")
		v.want(
			"install 1.0.0 seq=0 uninstalled=NOT_RUN", "enable 1.0.0 seq=0 uninstalled=NOT_RUN",
			"disable 1.0.0 seq=0", "update 1.2.0 seq=0 disabled=0 from=1.0.0 to=1.2.0", "uninstall 1.0.0 seq=0",
			"install 1.2.0 seq=0 uninstalled=0",
			"install 1.1.0 seq=0 uninstalled=NOT_RUN", "enable 1.1.0 seq=0 uninstalled=NOT_RUN",
		)
	})
}

// Modes and links do not survive, and every file can be executed by its owner.
func TestPackageLosesModesAndLinks(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	if err := os.Mkdir(filepath.Join(folder, "bin"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"HandlerManifest.json": manifestWith(goingOn), "bin/handler": script, "read.me": "x"} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o4700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("handler", filepath.Join(folder, "bin", "link")); err != nil {
		t.Fatal(err)
	}
	v := newVM(t, "")
	v.Publish("1.0.0", folder)
	v.enable("1.0.0", "")
	for name, want := range map[string]string{"bin/handler": script, "read.me": "x", "bin/link": "handler"} {
		path := filepath.Join(v.HandlerDir("1.0.0"), name)
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != 0o744 {
			t.Errorf("%s has mode %v, want -rwxr--r--", name, info.Mode())
		}
		if data, err := os.ReadFile(path); string(data) != want {
			t.Errorf("%s holds %q, %v", name, data, err)
		}
	}
	v.Publish("1.1.0", pack(t, map[string]string{"../out": ""}))
	if _, err := v.Enable("1.1.0", Settings{}); err == nil || !strings.Contains(err.Error(), "leads out") {
		t.Errorf("a package that leads out gave %v", err)
	}
}

// A command that takes too long dies with its process group; what left the
// group lives on and keeps nobody waiting.
func TestTimeoutKillsTheGroup(t *testing.T) {
	t.Parallel()
	v := newVM(t, "")
	v.o.Limits = map[string]time.Duration{"install": 200 * time.Millisecond}
	v.Publish("1.0.0", pack(t, map[string]string{
		"HandlerManifest.json": manifestWith(goingOn),
		"bin/handler":          "#!/bin/sh\necho begun\necho complaint >&2\nsleep 60 &\necho $! >child\nsetsid sleep 60 &\necho $! >away\nsleep 60\n",
	}))
	runs, err := v.Enable("1.0.0", Settings{})
	var failed Run
	if !errors.As(err, &failed) || !failed.TimedOut || len(runs) != 1 {
		t.Fatalf("Enable = %+v, %v; want one run that timed out", runs, err)
	}
	if failed.Output != "begun\ncomplaint\n" {
		t.Errorf("output = %q", failed.Output)
	}
	away, child := process(t, v.HandlerDir("1.0.0"), "away"), process(t, v.HandlerDir("1.0.0"), "child")
	if !running(away) {
		t.Error("what left the group was killed")
	}
	if err := syscall.Kill(away, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	for deadline := time.Now().Add(5 * time.Second); running(child); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a child in the group was not killed")
		}
	}
}

// process returns the number that the handler left in a file.
func process(t *testing.T, dir, name string) int {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// running tells a live process from none and from one that nobody buried.
func running(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

// What the guest agent's own environment says hides what a command is told.
func TestGuestAgentsEnvironmentWins(t *testing.T) {
	t.Parallel()
	v := newVM(t, manifestWith(goingOn))
	v.o.Env = append(v.o.Env, "ConfigSequenceNumber=99")
	v.enable("1.0.0", "")
	v.want("install 1.0.0 seq=99 uninstalled=NOT_RUN", "enable 1.0.0 seq=99 uninstalled=NOT_RUN")
}

func TestSettingsFile(t *testing.T) {
	t.Parallel()
	v := newVM(t, manifestWith(goingOn))
	for _, tt := range []struct {
		name     string
		settings Settings
		want     string
	}{
		{"none", Settings{}, ""},
		{"public", Settings{Public: []byte(`{"a":1}`)}, `{"runtimeSettings":[{"handlerSettings":{"publicSettings":{"a":1},"protectedSettings":null,"protectedSettingsCertThumbprint":null}}]}`},
		{"raw", Settings{Raw: []byte("anything")}, "anything"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := v.Enable("1.0.0", tt.settings); err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile(filepath.Join(v.HandlerDir("1.0.0"), "config", fmt.Sprint(v.Sequence())+".settings"))
			if err != nil || string(data) != tt.want {
				t.Errorf("settings = %q, %v; want %q", data, err, tt.want)
			}
		})
	}
}

func TestParseStatusHoldsToTheRules(t *testing.T) {
	t.Parallel()
	const good = `[{"version":1.0,"timestampUTC":"2026-01-02T03:04:05Z","status":{"name":"n","operation":"Enable","status":"success","code":0,` +
		`"formattedMessage":{"lang":"en-US","message":"m"},"substatus":[{"name":"p","status":"warning","code":7,"formattedMessage":{"lang":"en-US","message":"q"}}]}}]`
	got, err := parseStatus([]byte(good))
	want := Status{Operation: "Enable", Status: "success", Message: "m", Parts: []Part{{"p", "warning", "q", 7}}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("parseStatus (-want +got):\n%s%v", diff, err)
	}
	for _, tt := range []struct{ name, old, new string }{
		{"null", good, "null"},
		{"empty array", good, "[]"},
		{"word for an unknown status", `"status":"success"`, `"status":"failed"`},
		{"unknown status of a part", `"status":"warning"`, `"status":"Warning"`},
		{"code as text", `"code":0`, `"code":"0"`},
		{"message without language", `"lang":"en-US","message":"m"`, `"message":"m"`},
		{"part without message", `"message":"q"`, `"text":"q"`},
		{"local time", "03:04:05Z", "03:04:05+01:00"},
		{"too large", `"message":"m"`, `"message":"` + strings.Repeat("x", 128<<10) + `"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bad := strings.Replace(good, tt.old, tt.new, 1)
			if bad == good {
				t.Fatal("nothing was replaced")
			}
			if s, err := parseStatus([]byte(bad)); err == nil {
				t.Errorf("parseStatus took it for %+v", s)
			}
		})
	}
}
