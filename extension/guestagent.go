package extension

import (
	"encoding/json"
	"strconv"
)

// Environment variables that the guest agent sets for a command.
const (
	envSequenceNumber    = "ConfigSequenceNumber"
	envExtensionName     = "ConfigExtensionName"
	envExtensionPath     = "AZURE_GUEST_AGENT_EXTENSION_PATH"
	envExtensionVersion  = "AZURE_GUEST_AGENT_EXTENSION_VERSION"
	envSupportedFeatures = "AZURE_GUEST_AGENT_EXTENSION_SUPPORTED_FEATURES"
	envUpdatingFrom      = "AZURE_GUEST_AGENT_UPDATING_FROM_VERSION"
	envVersion           = "VERSION"
	envDisableExitCode   = "AZURE_GUEST_AGENT_DISABLE_CMD_EXIT_CODE"
	envUninstallExitCode = "AZURE_GUEST_AGENT_UNINSTALL_CMD_EXIT_CODE"
)

// FeatureEvents is the feature of a guest agent that collects events.
const FeatureEvents = "ExtensionTelemetryPipeline"

// A GuestAgent is what the guest agent tells a command in its environment.
// The zero value is a command that somebody else runs.
type GuestAgent struct {
	// SequenceNumber is the number of the settings, when HasSequence. At
	// uninstall the guest agent says 0 whatever the number is.
	SequenceNumber int
	HasSequence    bool
	// ExtensionName is empty unless the handler serves several extensions.
	ExtensionName string

	// ExtensionPath and ExtensionVersion belong to the version that runs the
	// command.
	ExtensionPath    string
	ExtensionVersion string

	// Version and UpdatingFrom are set for update: the version to go to and
	// the one to leave. On a downgrade the newer package runs update and both
	// name the target.
	Version      string
	UpdatingFrom string
	// DisableExitCode, for update, tells how the old version's disable ended;
	// UninstallExitCode, for install and enable, its uninstall.
	DisableExitCode   OptionalCode
	UninstallExitCode OptionalCode

	SupportedFeatures []string
}

// ParseGuestAgent reads the variables through lookup, an os.LookupEnv. It does
// not fail: a value that makes no sense counts as absent, because no command
// may stumble over a variable that it does not need.
func ParseGuestAgent(lookup func(string) (string, bool)) GuestAgent {
	get := func(name string) string {
		value, _ := lookup(name)
		return value
	}
	g := GuestAgent{
		ExtensionName:     get(envExtensionName),
		ExtensionPath:     get(envExtensionPath),
		ExtensionVersion:  get(envExtensionVersion),
		Version:           get(envVersion),
		UpdatingFrom:      get(envUpdatingFrom),
		DisableExitCode:   OptionalCode(get(envDisableExitCode)),
		UninstallExitCode: OptionalCode(get(envUninstallExitCode)),
		SupportedFeatures: parseFeatures(get(envSupportedFeatures)),
	}
	if n, err := strconv.Atoi(get(envSequenceNumber)); err == nil && n >= 0 {
		g.SequenceNumber, g.HasSequence = n, true
	}
	return g
}

// parseFeatures reads [{"Key":"…","Value":"1.0"}].
func parseFeatures(text string) []string {
	var features []struct{ Key string }
	if err := json.Unmarshal([]byte(text), &features); err != nil {
		return nil
	}
	keys := make([]string, 0, len(features))
	for _, feature := range features {
		keys = append(keys, feature.Key)
	}
	return keys
}

// An OptionalCode is the exit code of an earlier command in the guest agent's
// own words: a number, NotRun, NoneRun, or empty when nothing was said.
type OptionalCode string

const (
	// NotRun says that the command was no part of this operation.
	NotRun OptionalCode = "NOT_RUN"
	// NoneRun is what a retried update says instead.
	NoneRun OptionalCode = "None"
)

// Number returns the exit code, if the command ran.
func (c OptionalCode) Number() (code int, ran bool) {
	code, err := strconv.Atoi(string(c))
	return code, err == nil
}
