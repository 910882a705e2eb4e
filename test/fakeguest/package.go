package fakeguest

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// unpack extracts a package as the guest agent does, over what is there: modes
// are lost, links become files that hold their target, and then every file can
// be executed by its owner.
func (g *Guest) unpack(version string) error {
	path, ok := g.packages[version]
	if !ok {
		return fmt.Errorf("unpack: version %s was not published", version)
	}
	dir := g.HandlerDir(version)
	if err := extract(path, dir); err != nil {
		return fmt.Errorf("unpack %s: %w", path, err)
	}
	for _, sub := range []string{"config", "status"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return fmt.Errorf("unpack: %w", err)
		}
	}
	return errors.Join(g.writeEnvironment(version), g.keepState(version, "NotInstalled"))
}

func extract(path, dir string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.IsDir() {
		return extractFolder(path, dir)
	}
	z, err := zip.OpenReader(path)
	if err != nil {
		return err
	}
	defer func() { _ = z.Close() }() // only read
	for _, member := range z.File {
		if err := extractMember(member, dir); err != nil {
			return fmt.Errorf("%s: %w", member.Name, err)
		}
	}
	return nil
}

func extractMember(member *zip.File, dir string) error {
	name := filepath.FromSlash(member.Name)
	if !filepath.IsLocal(name) {
		return errors.New("it leads out of the package")
	}
	if strings.HasSuffix(member.Name, "/") {
		return os.MkdirAll(filepath.Join(dir, name), 0o755)
	}
	in, err := member.Open()
	if err != nil {
		return err
	}
	data, err := io.ReadAll(in)
	if err := errors.Join(err, in.Close()); err != nil {
		return err
	}
	return place(dir, name, data)
}

func extractFolder(from, dir string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if entry.Type()&fs.ModeSymlink != 0 {
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return place(dir, name, []byte(target))
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return place(dir, name, data)
	})
}

func place(dir, name string, data []byte) error {
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o744)
}

// A manifest is what the guest agent takes from HandlerManifest.json.
type manifest struct {
	Commands map[string]any `json:"handlerManifest"`
}

func readManifest(dir string) (*manifest, error) {
	data, err := os.ReadFile(filepath.Join(dir, "HandlerManifest.json"))
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	var entries []manifest
	if err := json.Unmarshal(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")), &entries); err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	if len(entries) == 0 || entries[0].Commands == nil {
		return nil, errors.New("read manifest: not an array with a handlerManifest")
	}
	return &entries[0], nil
}

// command is the shell command of a verb, relative to the handler's folder.
func (m *manifest) command(verb string) (string, error) {
	command, ok := m.Commands[verb+"Command"].(string)
	if !ok {
		return "", fmt.Errorf("read manifest: no %sCommand", verb)
	}
	return strings.TrimLeft(command, "/"), nil
}

// withInstall tells whether an update ends with install; any mode but one says no.
func (m *manifest) withInstall() bool {
	mode, ok := m.Commands["updateMode"]
	text, _ := mode.(string)
	return !ok || strings.EqualFold(text, "UpdateWithInstall")
}

// goesOn tells whether an update goes on when the old version's commands fail.
func (m *manifest) goesOn() bool {
	switch value := m.Commands["continueOnUpdateFailure"].(type) {
	case bool:
		return value
	case string:
		return strings.EqualFold(value, "true")
	default:
		return false
	}
}
