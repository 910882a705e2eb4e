package extension

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// seal returns the fixture's envelope as a settings file carries it.
func sealed(t testing.TB) string {
	t.Helper()
	return base64.StdEncoding.EncodeToString(readFile(t, "testdata/cms/des3.pkcs1.issuer.der"))
}

func handlerSettings(public, protected, thumbprint string) string {
	return fmt.Sprintf(`{"runtimeSettings":[{"handlerSettings":{"publicSettings":%s,"protectedSettings":%s,"protectedSettingsCertThumbprint":%s}}]}`, public, protected, thumbprint)
}

func quote(text string) string { return `"` + text + `"` }

func TestReadSettings(t *testing.T) {
	dir, thumbprint := fixtureFolder(t, "key.pem")
	plain := string(readFile(t, "testdata/plain.json"))
	for name, tt := range map[string]struct{ file, public, protected string }{
		"both halves":      {handlerSettings(`{"a":1}`, quote(sealed(t)), quote(thumbprint)), `{"a":1}`, plain},
		"public alone":     {handlerSettings(`{"a":1}`, "null", "null"), `{"a":1}`, ""},
		"nulls":            {handlerSettings("null", "null", "null"), "", ""},
		"protected alone":  {handlerSettings("null", quote(sealed(t)), quote(thumbprint)), "", plain},
		"byte-order mark":  {"\ufeff" + handlerSettings(`{"a":1}`, "null", "null"), `{"a":1}`, ""},
		"lower-case print": {handlerSettings(`{}`, quote(sealed(t)), quote(strings.ToLower(thumbprint))), `{}`, plain},
		"absent keys":      {`{"runtimeSettings":[{"handlerSettings":{}}]}`, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			env := newEnvironment(t)
			writeFile(t, filepath.Join(env.ConfigFolder, "3.settings"), []byte(tt.file))
			s, err := ReadSettings(t.Context(), env, "", 3, FolderKeys(dir))
			if err != nil {
				t.Fatal(err)
			}
			if string(s.Public) != tt.public || s.Protected.Reveal() != tt.protected {
				t.Errorf("got %s and %d bytes, want %s and %d", s.Public, len(s.Protected.Reveal()), tt.public, len(tt.protected))
			}
		})
	}
}

func TestBadSettingsFiles(t *testing.T) {
	dir, thumbprint := fixtureFolder(t, "key.pem")
	const canary = "canaryOfTheSettings"
	unsealed := base64.StdEncoding.EncodeToString([]byte(canary))
	for name, tt := range map[string]struct{ file, field, say string }{
		"not JSON":               {`{"runtimeSettings":[` + canary, "settings", "not JSON"},
		"another shape":          {`{"runtimeSettings":"` + canary + `"}`, "settings", "shape"},
		"no element":             {`{"runtimeSettings":[]}`, "settings", "exactly one"},
		"two elements":           {`{"runtimeSettings":[{"handlerSettings":{}},{"handlerSettings":{}}]}`, "settings", "exactly one"},
		"public not an object":   {handlerSettings(quote(canary), "null", "null"), "publicSettings", "JSON object"},
		"too large":              {handlerSettings(`{"a":"`+strings.Repeat("x", 1<<20)+`"}`, "null", "null"), "settings", "256 KiB"},
		"no thumbprint":          {handlerSettings("null", quote(sealed(t)), "null"), "protectedSettingsCertThumbprint", "missing"},
		"thumbprint no hex":      {handlerSettings("null", quote(sealed(t)), quote(canary)), "protectedSettingsCertThumbprint", "SHA-1"},
		"not base64":             {handlerSettings("null", quote(canary+"!"), quote(thumbprint)), "protectedSettings", "base64"},
		"undecryptable":          {handlerSettings("null", quote(unsealed), quote(thumbprint)), "protectedSettings", thumbprint},
		"certificate missing":    {handlerSettings("null", quote(sealed(t)), quote(strings.Repeat("AB", 20))), "protectedSettings", dir},
		"path as a thumbprint":   {handlerSettings("null", quote(sealed(t)), quote("../../../../etc/shadow")), "protectedSettingsCertThumbprint", "SHA-1"},
		"protected not a text":   {handlerSettings("null", `{"`+canary+`":1}`, quote(thumbprint)), "settings", "shape"},
		"handlerSettings absent": {`{"runtimeSettings":[{}]}`, "settings", "exactly one"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // a cut file is read again for a second
				env := newEnvironment(t)
				writeFile(t, filepath.Join(env.ConfigFolder, "0.settings"), []byte(tt.file))
				_, err := ReadSettings(t.Context(), env, "", 0, FolderKeys(dir))
				wrong, ok := errors.AsType[*SettingsError](err)
				if !ok || CodeOf(err) != ExitBadSettings {
					t.Fatalf("got %v with exit code %d, want a SettingsError with %d", err, CodeOf(err), ExitBadSettings)
				}
				if wrong.Field != tt.field || !strings.Contains(err.Error(), tt.say) || wrong.Fix == "" {
					t.Errorf("got %q (field %s), want field %s and %q", err, wrong.Field, tt.field, tt.say)
				}
				if strings.Contains(err.Error(), canary) {
					t.Errorf("the error shows the content: %q", err)
				}
			})
		})
	}
}

func TestDecryptedTextThatIsNotJSON(t *testing.T) {
	cert, key := fixtureKeys(t)
	_, thumbprint := fixtureFolder(t, "key.pem")
	for _, text := range []string{"workspaceKey=canaryKey", `["canaryKey"]`, `{"a":"canaryKey"`, "{\"a\":\"canaryKey\xff\"}", ""} {
		sealedText := base64.StdEncoding.EncodeToString(sealForTest(t, cert, []byte(text)))
		_, err := openProtected(sealedText, thumbprint, keyPair{cert, key})
		if _, ok := errors.AsType[*SettingsError](err); !ok || strings.Contains(err.Error(), "canary") {
			t.Errorf("%d bytes: got %v, want a SettingsError without the text", len(text), err)
		}
	}
}

func TestNoSettings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env := newEnvironment(t)
		if _, err := ReadSettings(t.Context(), env, "", 5, nil); !errors.Is(err, ErrNoSettings) {
			t.Errorf("no file: %v", err)
		}
		writeFile(t, filepath.Join(env.ConfigFolder, "0.settings"), nil)
		_, err := ReadSettings(t.Context(), env, "", 0, nil)
		if !errors.Is(err, ErrNoSettings) || CodeOf(err) != ExitBadSettings {
			t.Errorf("empty file: %v with exit code %d", err, CodeOf(err))
		}
	})
}

// The guest agent writes in place: what is read in the middle is read again.
func TestShortReadIsRepeated(t *testing.T) {
	env := newEnvironment(t)
	whole := handlerSettings(`{"a":1}`, "null", "null")
	path := filepath.Join(env.ConfigFolder, "1.settings")
	writeFile(t, path, []byte(whole[:20]))
	done := make(chan error, 1)
	go func() {
		time.Sleep(150 * time.Millisecond)
		done <- os.WriteFile(path, []byte(whole), 0o600)
	}()
	s, err := ReadSettings(t.Context(), env, "", 1, nil)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err != nil || string(s.Public) != `{"a":1}` {
		t.Errorf("got %+v, %v", s, err)
	}
}

func FuzzParseSettings(f *testing.F) {
	cert, key := fixtureKeys(f)
	_, thumbprint := fixtureFolder(f, "key.pem")
	f.Add([]byte(handlerSettings(`{"a":1}`, quote(sealed(f)), quote(thumbprint))))
	f.Add([]byte(`{"runtimeSettings":[{"handlerSettings":null}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := parseSettings(data, keyPair{cert, key})
		if (s == nil) == (err == nil) {
			t.Errorf("got %v and %v", s, err)
		}
	})
}

func TestEnvironment(t *testing.T) {
	const object = `{"name":"P.T","version":1.0,"handlerEnvironment":{"logFolder":"/l","configFolder":"/v/h/config","statusFolder":"/v/h/status","heartbeatFile":"/h","eventsFolder_preview":"/e"}}`
	for name, text := range map[string]string{"array": "[" + object + "]", "object": object, "mark": "\ufeff[" + object + "]"} {
		dir := t.TempDir()
		writeFile(t, filepath.Join(dir, "HandlerEnvironment.json"), []byte(text))
		env, err := ReadEnvironment(t.Context(), dir)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if env.Name != "P.T" || env.ConfigFolder != "/v/h/config" || env.EventsFolder != "/e" || env.HandlerDir != dir || env.LibDir() != "/v" {
			t.Errorf("%s: got %+v", name, env)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		for _, text := range []string{"[]", "[{}]", "[{},{}]", `[{"handlerEnvironment":{"configFolder":"/c"}}]`, "{", "null"} {
			dir := t.TempDir()
			writeFile(t, filepath.Join(dir, "HandlerEnvironment.json"), []byte(text))
			if env, err := ReadEnvironment(t.Context(), dir); err == nil {
				t.Errorf("%s gave %+v", text, env)
			}
		}
		if _, err := ReadEnvironment(t.Context(), t.TempDir()); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("no file: %v", err)
		}
	})
}

func TestEnvironmentReadIsRepeated(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "HandlerEnvironment.json")
	whole := []byte(`[{"handlerEnvironment":{"configFolder":"/c","statusFolder":"/s"}}]`)
	writeFile(t, path, whole[:30])
	done := make(chan error, 1)
	go func() {
		time.Sleep(150 * time.Millisecond)
		done <- os.WriteFile(path, whole, 0o600)
	}()
	_, err := ReadEnvironment(context.WithoutCancel(t.Context()), dir)
	if err := errors.Join(err, <-done); err != nil {
		t.Error(err)
	}
}

func FuzzParseEnvironment(f *testing.F) {
	f.Add([]byte(`[{"name":"P.T","handlerEnvironment":{"configFolder":"/c","statusFolder":"/s"}}]`))
	f.Add([]byte(`{"handlerEnvironment":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		env, err := parseEnvironment(data)
		if err == nil && (env.ConfigFolder == "" || env.StatusFolder == "") {
			t.Errorf("%s gave %+v", data, env)
		}
	})
}

// newEnvironment is a handler's folder as the guest agent makes it.
func newEnvironment(t testing.TB) *Environment {
	t.Helper()
	dir := t.TempDir()
	env := &Environment{
		HandlerDir: dir, Name: "P.T", ConfigFolder: filepath.Join(dir, "config"), StatusFolder: filepath.Join(dir, "status"),
		LogFolder: filepath.Join(dir, "log"), EventsFolder: filepath.Join(dir, "log", "events"),
	}
	for _, folder := range []string{env.ConfigFolder, env.StatusFolder, env.EventsFolder} {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return env
}

func TestCurrentSequence(t *testing.T) {
	guest := func(value string) GuestAgent {
		return ParseGuestAgent(func(name string) (string, bool) {
			if name == "ConfigSequenceNumber" && value != "" {
				return value, true
			}
			return "", false
		})
	}
	env := newEnvironment(t)
	if n, err := CurrentSequence(env, guest("")); !errors.Is(err, ErrNoSettings) {
		t.Errorf("no settings: %d, %v", n, err)
	}
	now := time.Now()
	for name, age := range map[string]time.Duration{"7.settings": time.Hour, "2.settings": 0, "1.settings": 0, "9.status": 0, "x.settings": 0, "other.11.settings": 0, "03.settings": 0} {
		path := filepath.Join(env.ConfigFolder, name)
		writeFile(t, path, nil)
		if err := os.Chtimes(path, now, now.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	for value, want := range map[string]int{"": 2, "0": 0, "41": 41, "-1": 2, "many": 2} {
		if n, err := CurrentSequence(env, guest(value)); err != nil || n != want {
			t.Errorf("ConfigSequenceNumber=%q: got %d, %v, want %d", value, n, err, want)
		}
	}
	named := guest("")
	named.ExtensionName = "other"
	if n, err := CurrentSequence(env, named); err != nil || n != 11 {
		t.Errorf("of the other extension: %d, %v", n, err)
	}
	if _, err := CurrentSequence(nil, guest("")); !errors.Is(err, ErrNoSettings) {
		t.Errorf("no environment: %v", err)
	}
}

func TestLastApplied(t *testing.T) {
	dir := t.TempDir()
	if _, ok, err := LastApplied(dir); ok || err != nil {
		t.Errorf("none yet: %v, %v", ok, err)
	}
	if err := SetLastApplied(dir, 12); err != nil {
		t.Fatal(err)
	}
	if n, ok, err := LastApplied(dir); n != 12 || !ok || err != nil {
		t.Errorf("got %d, %v, %v", n, ok, err)
	}
	if data := readFile(t, filepath.Join(dir, "mrseq")); !bytes.Equal(data, []byte("12")) {
		t.Errorf("mrseq holds %q, want plain decimal", data)
	}
	writeFile(t, filepath.Join(dir, "mrseq"), []byte("twelve"))
	if _, _, err := LastApplied(dir); err == nil {
		t.Error("a word was taken for a number")
	}
}

func TestGuestAgentVariables(t *testing.T) {
	values := map[string]string{
		"ConfigSequenceNumber":                    "3",
		"AZURE_GUEST_AGENT_EXTENSION_VERSION":     "1.1.0",
		"AZURE_GUEST_AGENT_UPDATING_FROM_VERSION": "1.0.0",
		"VERSION": "1.1.0",
		"AZURE_GUEST_AGENT_DISABLE_CMD_EXIT_CODE":        "None",
		"AZURE_GUEST_AGENT_UNINSTALL_CMD_EXIT_CODE":      "51",
		"AZURE_GUEST_AGENT_EXTENSION_SUPPORTED_FEATURES": `[{"Key":"ExtensionTelemetryPipeline","Value":"1.0"}]`,
	}
	g := ParseGuestAgent(func(name string) (string, bool) { v, ok := values[name]; return v, ok })
	if g.SequenceNumber != 3 || !g.HasSequence || g.Version != "1.1.0" || g.UpdatingFrom != "1.0.0" || g.DisableExitCode != NoneRun {
		t.Errorf("got %+v", g)
	}
	if code, ran := g.UninstallExitCode.Number(); code != 51 || !ran {
		t.Errorf("uninstall ended with %d, %v", code, ran)
	}
	for _, word := range []OptionalCode{NotRun, NoneRun, ""} {
		if _, ran := word.Number(); ran {
			t.Errorf("%q is a number", word)
		}
	}
	if len(g.SupportedFeatures) != 1 || g.SupportedFeatures[0] != FeatureEvents {
		t.Errorf("features are %q", g.SupportedFeatures)
	}
}
