package extension

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
)

// environmentFile lies in the handler's folder; environmentLimit is far above
// its usual 1 KiB.
const (
	environmentFile  = "HandlerEnvironment.json"
	environmentLimit = 64 << 10
)

// An Environment is what HandlerEnvironment.json says: the folders in which
// the guest agent and the handler meet.
type Environment struct {
	// HandlerDir is the folder the guest agent unpacked the handler into. It
	// belongs to one version.
	HandlerDir string
	// Name is Publisher.Type.
	Name string

	ConfigFolder string // N.settings
	StatusFolder string // N.status
	// LogFolder is shared by all versions and readable by every user of the
	// machine. Empty when the guest agent names none.
	LogFolder string
	// EventsFolder takes telemetry events; empty when there is none.
	EventsFolder  string
	HeartbeatFile string

	// Only Windows has these four.
	DeploymentID, RoleName, RoleInstance, HostResolverAddress string
}

// ReadEnvironment reads HandlerEnvironment.json in the handler's folder. The
// guest agent rewrites that file in place, so a cut one is read again for about
// a second.
func ReadEnvironment(ctx context.Context, handlerDir string) (*Environment, error) {
	path := filepath.Join(handlerDir, environmentFile)
	data, err := readJSON(ctx, path, environmentLimit)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read handler environment: %w; run the command where the guest agent unpacked the handler", err)
	}
	if err != nil {
		return nil, fmt.Errorf("read handler environment: %w", err)
	}
	env, err := parseEnvironment(data)
	if err != nil {
		return nil, fmt.Errorf("read handler environment %s: %w", path, err)
	}
	env.HandlerDir = handlerDir
	return env, nil
}

// environmentEntry is the file's object. Windows spells the last four in lower
// case; encoding/json does not mind the case.
type environmentEntry struct {
	Name               string `json:"name"`
	HandlerEnvironment *struct {
		ConfigFolder        string `json:"configFolder"`
		StatusFolder        string `json:"statusFolder"`
		LogFolder           string `json:"logFolder"`
		HeartbeatFile       string `json:"heartbeatFile"`
		EventsFolder        string `json:"eventsFolder"`
		EventsFolderPreview string `json:"eventsFolder_preview"`
		DeploymentID        string `json:"deploymentid"`
		RoleName            string `json:"rolename"`
		RoleInstance        string `json:"instance"`
		HostResolverAddress string `json:"hostResolverAddress"`
	} `json:"handlerEnvironment"`
}

// parseEnvironment takes an array with one object, or the object alone.
func parseEnvironment(data []byte) (*Environment, error) {
	var entries []environmentEntry
	if err := json.Unmarshal(data, &entries); err != nil {
		entries = make([]environmentEntry, 1)
		if err := json.Unmarshal(data, &entries[0]); err != nil {
			return nil, fmt.Errorf("not the JSON expected: %w", err)
		}
	}
	if len(entries) != 1 {
		return nil, fmt.Errorf("it holds %d entries instead of one", len(entries))
	}
	in := entries[0].HandlerEnvironment
	if in == nil {
		return nil, errors.New("it holds no handlerEnvironment")
	}
	if in.ConfigFolder == "" || in.StatusFolder == "" {
		return nil, errors.New("it names no configFolder or no statusFolder")
	}
	env := &Environment{
		Name:                entries[0].Name,
		ConfigFolder:        in.ConfigFolder,
		StatusFolder:        in.StatusFolder,
		LogFolder:           in.LogFolder,
		HeartbeatFile:       in.HeartbeatFile,
		EventsFolder:        in.EventsFolder,
		DeploymentID:        in.DeploymentID,
		RoleName:            in.RoleName,
		RoleInstance:        in.RoleInstance,
		HostResolverAddress: in.HostResolverAddress,
	}
	if env.EventsFolder == "" {
		env.EventsFolder = in.EventsFolderPreview
	}
	return env, nil
}

// LibDir is the guest agent's own folder, two above the settings. On Linux the
// certificates and keys lie there. It can be moved by the guest agent's
// configuration, so nothing may assume its path.
func (e *Environment) LibDir() string {
	return filepath.Dir(filepath.Dir(filepath.Clean(e.ConfigFolder)))
}
