package extension

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/openloganalytics/agent/internal/atomicfile"
	"github.com/openloganalytics/agent/internal/secret"
)

// SettingsLimit is the most that a settings file may hold, in bytes. Real ones
// have a few KiB.
const SettingsLimit = 256 << 10

// Settings are what the user deployed the extension with.
type Settings struct {
	// Public is the JSON object as the user wrote it, nil when there is none.
	Public json.RawMessage
	// Protected is the text of a JSON object, empty when there is none.
	Protected secret.Secret
	// Thumbprint names the certificate that Protected was sealed for, in upper
	// case; empty when there are no protected settings.
	Thumbprint string
}

// A SettingsError says which setting is wrong, in what way, and what would be
// right. It never holds a value.
type SettingsError struct {
	Field   string // as the user knows it: workspaceId, protectedSettings
	Problem string // "is not base64"
	Fix     string // "copy the key from …"
}

func (e *SettingsError) Error() string {
	return fmt.Sprintf("%s: %s; %s", e.Field, e.Problem, e.Fix)
}

// Names in a settings file, and what mends one that Azure garbled.
const (
	fieldFile       = "settings"
	fieldPublic     = "publicSettings"
	fieldProtected  = "protectedSettings"
	fieldThumbprint = "protectedSettingsCertThumbprint"

	deployAgain = "deploy the extension again with the same settings, so that Azure sends them anew"
)

// ReadSettings reads the settings of one number and opens their protected part
// with a key from keys. It gives back the number's settings as the user wrote
// them; what they must contain is the caller's business.
//
// The error is ErrNoSettings when there is no file or an empty one, and a
// *SettingsError when its content is at fault.
func ReadSettings(ctx context.Context, env *Environment, extensionName string, seq int, keys KeyStore) (*Settings, error) {
	path := filepath.Join(env.ConfigFolder, sequenceFile(extensionName, seq, ".settings"))
	data, err := readJSON(ctx, path, SettingsLimit)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("read settings %s: %w", path, ErrNoSettings)
	case errors.Is(err, atomicfile.ErrTooLarge):
		return nil, &SettingsError{fieldFile, fmt.Sprintf("hold more than %d KiB", SettingsLimit>>10), "leave out what the extension does not need"}
	case err != nil:
		return nil, fmt.Errorf("read settings: %w", err)
	}
	return parseSettings(data, keys)
}

// settingsFile is the file's shape. Each key can be absent or null.
type settingsFile struct {
	RuntimeSettings []struct {
		HandlerSettings *struct {
			Public     json.RawMessage `json:"publicSettings"`
			Protected  *string         `json:"protectedSettings"`
			Thumbprint *string         `json:"protectedSettingsCertThumbprint"`
		} `json:"handlerSettings"`
	} `json:"runtimeSettings"`
}

// parseSettings never passes on an error of encoding/json: those quote values.
func parseSettings(data []byte, keys KeyStore) (*Settings, error) {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, fmt.Errorf("read settings: %w", ErrNoSettings)
	}
	if !json.Valid(data) {
		return nil, &SettingsError{fieldFile, "are not JSON", deployAgain}
	}
	var file settingsFile
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, &SettingsError{fieldFile, "do not have the shape that Azure gives them", deployAgain}
	}
	if len(file.RuntimeSettings) != 1 || file.RuntimeSettings[0].HandlerSettings == nil {
		return nil, &SettingsError{fieldFile, "do not hold exactly one entry under runtimeSettings", deployAgain}
	}
	in := file.RuntimeSettings[0].HandlerSettings

	settings := &Settings{}
	switch {
	case isNull(in.Public):
	case isObject(in.Public):
		settings.Public = in.Public
	default:
		return nil, &SettingsError{fieldPublic, "are not a JSON object", `write them as {"name": value}`}
	}
	if in.Protected == nil || *in.Protected == "" {
		return settings, nil
	}
	var err error
	if settings.Thumbprint, err = parseThumbprint(in.Thumbprint); err != nil {
		return nil, err
	}
	settings.Protected, err = openProtected(*in.Protected, settings.Thumbprint, keys)
	if err != nil {
		return nil, err
	}
	return settings, nil
}

// parseThumbprint takes 40 hexadecimal digits, with spaces or colons between
// them as certificate tools print them.
func parseThumbprint(text *string) (string, error) {
	if text == nil || *text == "" {
		return "", &SettingsError{fieldThumbprint, "is missing although there are protected settings", deployAgain}
	}
	thumbprint := strings.ToUpper(strings.NewReplacer(" ", "", ":", "").Replace(*text))
	if len(thumbprint) != 40 || strings.Trim(thumbprint, "0123456789ABCDEF") != "" {
		return "", &SettingsError{fieldThumbprint, "is not a SHA-1 thumbprint of 40 hexadecimal digits", deployAgain}
	}
	return thumbprint, nil
}

// openProtected decodes base64, opens the envelope and looks that a JSON
// object is in it.
func openProtected(text, thumbprint string, keys KeyStore) (secret.Secret, error) {
	der, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return secret.Secret{}, &SettingsError{fieldProtected, "are not base64", deployAgain}
	}
	cert, key, err := keys.Find(thumbprint)
	if err != nil {
		return secret.Secret{}, &SettingsError{fieldProtected, "cannot be opened: " + err.Error(), deployAgain}
	}
	plain, err := DecryptCMS(der, cert, key)
	if err != nil {
		return secret.Secret{}, &SettingsError{fieldProtected, fmt.Sprintf("cannot be opened with certificate %s: %v", thumbprint, err), deployAgain}
	}
	plain = trimBOM(plain)
	if !utf8.Valid(plain) || !isObject(plain) {
		return secret.Secret{}, &SettingsError{fieldProtected, "are not a JSON object once decrypted", `write them as {"name": value}`}
	}
	return secret.New(string(plain)), nil
}

func isNull(value json.RawMessage) bool {
	return len(value) == 0 || bytes.Equal(bytes.TrimSpace(value), []byte("null"))
}

func isObject(value []byte) bool {
	return json.Valid(value) && bytes.HasPrefix(bytes.TrimSpace(value), []byte("{"))
}
