package extension

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/openloganalytics/agent/test/fakeguest"
)

// sesame stands in every secret and may stand in no error.
const sesame = "open sesame"

func thumbprintOf(cert *x509.Certificate) string {
	sum := sha1.Sum(cert.Raw)
	return strings.ToUpper(hex.EncodeToString(sum[:]))
}

func newKey(t testing.TB) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// newEnvironment makes a handler's folder with the throwaway certificate in
// the guest agent's folder above it.
func newEnvironment(t testing.TB) *Environment {
	t.Helper()
	lib := t.TempDir()
	dir := filepath.Join(lib, "Contoso.Test-1.0.0")
	env := &Environment{
		HandlerDir:   dir,
		Name:         "Contoso.Test",
		ConfigFolder: filepath.Join(dir, "config"),
		StatusFolder: filepath.Join(dir, "status"),
		LogFolder:    filepath.Join(lib, "records"),
		EventsFolder: filepath.Join(lib, "records", "events"),
	}
	for _, folder := range []string{env.ConfigFolder, env.StatusFolder, env.EventsFolder} {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	cert, key := throwaway(t)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for suffix, block := range map[string]*pem.Block{".crt": {Type: "CERTIFICATE", Bytes: cert.Raw}, ".prv": {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(filepath.Join(lib, thumbprintOf(cert)+suffix), pemText(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return env
}

// settingsJSON is a settings file; the arguments are JSON.
func settingsJSON(public, protected, thumbprint string) string {
	return fmt.Sprintf(`{"runtimeSettings":[{"handlerSettings":{"publicSettings":%s,"protectedSettings":%s,"protectedSettingsCertThumbprint":%s}}]}`, public, protected, thumbprint)
}

func quoted(text string) string { return `"` + text + `"` }

// sealedJSON is text in an envelope for the throwaway certificate, in JSON.
func sealedJSON(t testing.TB, text string) string {
	t.Helper()
	cert, _ := throwaway(t)
	return quoted(base64.StdEncoding.EncodeToString(sealed(t, cert, text, fakeguest.Sealing{})))
}

func readTestSettings(t *testing.T, env *Environment, content string) (*Settings, error) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(env.ConfigFolder, "3.settings"), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	var settings *Settings
	var err error
	synctest.Test(t, func(t *testing.T) { // reading again takes no time
		settings, err = ReadSettings(t.Context(), env, "", 3, FolderKeys(env.LibDir()))
	})
	return settings, err
}

func TestReadSettings(t *testing.T) {
	t.Parallel()
	env := newEnvironment(t)
	cert, _ := throwaway(t)
	thumb := thumbprintOf(cert)
	secretJSON := `{"key": "` + sesame + `"}`
	for _, tt := range []struct {
		name, content             string
		public, protected, thumbp string
	}{
		{"both halves", settingsJSON(`{"a": 1}`, sealedJSON(t, secretJSON), quoted(thumb)), `{"a": 1}`, secretJSON, thumb},
		{"byte order marks", "\xef\xbb\xbf" + settingsJSON(`{}`, sealedJSON(t, "\xef\xbb\xbf"+secretJSON), quoted(thumb)), `{}`, secretJSON, thumb},
		{"all null", settingsJSON("null", "null", "null"), "", "", ""},
		{"no keys", `{"runtimeSettings":[{"handlerSettings":{}}]}`, "", "", ""},
		{"public alone", settingsJSON(`{"a": 12345678901234567890}`, "null", "null"), `{"a": 12345678901234567890}`, "", ""},
		{"protected alone", settingsJSON("null", sealedJSON(t, secretJSON), quoted(thumb)), "", secretJSON, thumb},
		{"protected empty", settingsJSON("{}", `""`, `""`), "{}", "", ""},
		{"protected empty object", settingsJSON("{}", sealedJSON(t, "{}"), quoted(thumb)), "{}", "{}", thumb},
		{"thumbprint as tools print it", settingsJSON("{}", sealedJSON(t, secretJSON), quoted(strings.ToLower(thumb[:2])+":"+thumb[2:4]+" "+thumb[4:])), "{}", secretJSON, thumb},
		{"keys nobody knows", `{"x":1,"runtimeSettings":[{"y":2,"handlerSettings":{"publicSettings":{},"z":3}}]}`, "{}", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := readTestSettings(t, env, tt.content)
			if err != nil {
				t.Fatal(err)
			}
			if string(got.Public) != tt.public || got.Protected.Reveal() != tt.protected || got.Thumbprint != tt.thumbp {
				t.Errorf("ReadSettings = %s, %s, %s", got.Public, got.Protected.Reveal(), got.Thumbprint)
			}
			printed, err := json.Marshal(got)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(fmt.Sprintf("%v %+v %#v %s", got, got, *got, printed), sesame) {
				t.Error("printed settings show what is protected")
			}
		})
	}
}

// Each fault is told with its field, the problem and what to do, and with
// nothing of what was in it.
func TestReadSettingsRefuses(t *testing.T) {
	t.Parallel()
	env := newEnvironment(t)
	cert, _ := throwaway(t)
	thumb := quoted(thumbprintOf(cert))
	elsewhere := base64.StdEncoding.EncodeToString(sealed(t, reissued(t, newKey(t)), sesame, fakeguest.Sealing{}))
	absent := strings.Repeat("AB", 20)
	for _, tt := range []struct{ name, content, field, problem string }{
		{"not JSON", sesame, "settings", "not JSON"},
		{"cut short", settingsJSON(quoted(sesame), "null", "null")[:90], "settings", "not JSON"},
		{"followed by something", settingsJSON("{}", "null", "null") + sesame, "settings", "not JSON"},
		{"another shape", `["` + sesame + `"]`, "settings", "shape"},
		{"number where text belongs", settingsJSON("{}", "424242", thumb), "settings", "shape"},
		{"no runtimeSettings", `{"` + sesame + `":1}`, "settings", "exactly one entry"},
		{"two runtimeSettings", `{"runtimeSettings":[{"handlerSettings":{}},{"handlerSettings":{}}]}`, "settings", "exactly one entry"},
		{"no handlerSettings", `{"runtimeSettings":[{}]}`, "settings", "exactly one entry"},
		{"1 MiB of settings", settingsJSON(quoted(strings.Repeat("x", 1<<20)), "null", "null"), "settings", "more than 256 KiB"},
		{"public is text", settingsJSON(quoted(sesame), "null", "null"), "publicSettings", "not a JSON object"},
		{"public is an array", settingsJSON(`["`+sesame+`"]`, "null", "null"), "publicSettings", "not a JSON object"},
		{"protected without thumbprint", settingsJSON("{}", sealedJSON(t, "{}"), "null"), "protectedSettingsCertThumbprint", "missing"},
		{"thumbprint is a path", settingsJSON("{}", sealedJSON(t, "{}"), quoted("../../../etc/"+strings.Repeat("A", 27))), "protectedSettingsCertThumbprint", "40 hexadecimal digits"},
		{"thumbprint of another length", settingsJSON("{}", sealedJSON(t, "{}"), quoted("ABCD")), "protectedSettingsCertThumbprint", "40 hexadecimal digits"},
		{"certificate missing", settingsJSON("{}", sealedJSON(t, "{}"), quoted(absent)), "protectedSettings", "find certificate " + absent + ": there is no " + absent + ".crt in " + env.LibDir()},
		{"not base64", settingsJSON("{}", quoted(sesame), thumb), "protectedSettings", "not base64"},
		{"no envelope", settingsJSON("{}", quoted("AAAA"), thumb), "protectedSettings", "cannot be opened"},
		{"sealed for another key", settingsJSON("{}", quoted(elsewhere), thumb), "protectedSettings", ""},
		{"decrypted text is not JSON", settingsJSON("{}", sealedJSON(t, sesame), thumb), "protectedSettings", "not a JSON object once decrypted"},
		{"decrypted text is an array", settingsJSON("{}", sealedJSON(t, `["`+sesame+`"]`), thumb), "protectedSettings", "not a JSON object once decrypted"},
		{"decrypted text goes on", settingsJSON("{}", sealedJSON(t, `{} `+sesame), thumb), "protectedSettings", "not a JSON object once decrypted"},
		{"decrypted text is nothing", settingsJSON("{}", sealedJSON(t, ""), thumb), "protectedSettings", "not a JSON object once decrypted"},
		{"decrypted text is no UTF-8", settingsJSON("{}", sealedJSON(t, "{\"a\":\"\xff\"}"), thumb), "protectedSettings", "not a JSON object once decrypted"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := readTestSettings(t, env, tt.content)
			var wrong *SettingsError
			if !errors.As(err, &wrong) {
				t.Fatalf("ReadSettings = %v, want a SettingsError", err)
			}
			if wrong.Field != tt.field || !strings.Contains(wrong.Problem, tt.problem) || wrong.Fix == "" {
				t.Errorf("ReadSettings = %+v, want field %s and a problem with %q", wrong, tt.field, tt.problem)
			}
			if strings.Contains(err.Error(), sesame) || strings.Contains(err.Error(), "424242") {
				t.Errorf("the error shows what was in the settings: %v", err)
			}
			if CodeOf(err) != ExitBadSettings {
				t.Errorf("CodeOf = %d, want %d", CodeOf(err), ExitBadSettings)
			}
		})
	}
}

func TestReadSettingsWithoutSettings(t *testing.T) {
	t.Parallel()
	env := newEnvironment(t)
	if _, err := readTestSettings(t, env, ""); !errors.Is(err, ErrNoSettings) {
		t.Errorf("empty file: ReadSettings = %v, want %v", err, ErrNoSettings)
	}
	_, err := ReadSettings(t.Context(), env, "", 4, FolderKeys(env.LibDir()))
	if !errors.Is(err, ErrNoSettings) || CodeOf(err) != ExitBadSettings {
		t.Errorf("no file: ReadSettings = %v with code %d", err, CodeOf(err))
	}
}

// The guest agent writes in place: a file that is cut when it is first read is
// whole a moment later.
func TestReadSettingsWaitsForTheRest(t *testing.T) {
	t.Parallel()
	env := newEnvironment(t)
	whole := settingsJSON(`{"a": 1}`, "null", "null")
	path := filepath.Join(env.ConfigFolder, "web.7.settings")
	for _, begin := range []string{"", whole[:20]} {
		synctest.Test(t, func(t *testing.T) {
			if err := os.WriteFile(path, []byte(begin), 0o600); err != nil {
				t.Fatal(err)
			}
			time.AfterFunc(700*time.Millisecond, func() {
				if err := os.WriteFile(path, []byte(whole), 0o600); err != nil {
					t.Error(err)
				}
			})
			settings, err := ReadSettings(t.Context(), env, "web", 7, FolderKeys(env.LibDir()))
			if err != nil || string(settings.Public) != `{"a": 1}` {
				t.Errorf("ReadSettings = %v, %v", settings, err)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		if err := os.WriteFile(path, []byte(whole[:20]), 0o600); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Millisecond, errors.New("told to stop"))
		defer cancel()
		if _, err := ReadSettings(ctx, env, "web", 7, FolderKeys(env.LibDir())); err == nil || !strings.Contains(err.Error(), "told to stop") {
			t.Errorf("ReadSettings with a context that ended = %v", err)
		}
	})
}

func FuzzParseSettings(f *testing.F) {
	cert, _ := throwaway(f)
	keys := FolderKeys(newEnvironment(f).LibDir())
	f.Add([]byte(settingsJSON(`{"a":1}`, sealedJSON(f, `{"key":"v"}`), quoted(thumbprintOf(cert)))))
	f.Add([]byte(settingsJSON("null", "null", "null")))
	f.Add([]byte("  "))
	f.Add([]byte(`{"runtimeSettings":[{"handlerSettings":{"protectedSettings":"AAAA"}}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		settings, err := parseSettings(data, keys)
		if err != nil {
			var wrong *SettingsError
			if !errors.As(err, &wrong) && !errors.Is(err, ErrNoSettings) {
				t.Errorf("parseSettings = %v, neither a SettingsError nor ErrNoSettings", err)
			}
			return
		}
		if settings.Public != nil && !isObject(settings.Public) {
			t.Errorf("public settings are %q", settings.Public)
		}
		if !settings.Protected.IsZero() && (settings.Thumbprint == "" || !isObject([]byte(settings.Protected.Reveal()))) {
			t.Error("protected settings are no object or of no certificate")
		}
	})
}
