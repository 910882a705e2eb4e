package extension

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseGuestAgent(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		env  map[string]string
		want GuestAgent
	}{
		{"nothing", nil, GuestAgent{}},
		{"enable after an update", map[string]string{
			"ConfigSequenceNumber":                           "12",
			"ConfigExtensionName":                            "web",
			"AZURE_GUEST_AGENT_EXTENSION_PATH":               "/var/lib/waagent/Contoso.Test-1.1.0",
			"AZURE_GUEST_AGENT_EXTENSION_VERSION":            "1.1.0",
			"AZURE_GUEST_AGENT_EXTENSION_SUPPORTED_FEATURES": `[{"Key":"ExtensionTelemetryPipeline","Value":"1.0"}]`,
			"AZURE_GUEST_AGENT_UNINSTALL_CMD_EXIT_CODE":      "0",
		}, GuestAgent{
			SequenceNumber: 12, HasSequence: true, ExtensionName: "web",
			ExtensionPath: "/var/lib/waagent/Contoso.Test-1.1.0", ExtensionVersion: "1.1.0",
			UninstallExitCode: "0", SupportedFeatures: []string{FeatureEvents},
		}},
		{"update", map[string]string{
			"ConfigSequenceNumber":                    "0",
			"AZURE_GUEST_AGENT_DISABLE_CMD_EXIT_CODE": "None",
			"AZURE_GUEST_AGENT_UPDATING_FROM_VERSION": "1.0.0",
			"VERSION": "1.1.0",
		}, GuestAgent{HasSequence: true, DisableExitCode: NoneRun, UpdatingFrom: "1.0.0", Version: "1.1.0"}},
		{"values that make no sense", map[string]string{
			"ConfigSequenceNumber":                           "-1",
			"AZURE_GUEST_AGENT_EXTENSION_SUPPORTED_FEATURES": "[{",
		}, GuestAgent{}},
		{"number in words", map[string]string{"ConfigSequenceNumber": "one"}, GuestAgent{}},
	} {
		got := ParseGuestAgent(func(name string) (string, bool) { value, ok := tt.env[name]; return value, ok })
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestOptionalCode(t *testing.T) {
	t.Parallel()
	for code, want := range map[OptionalCode]int{"0": 0, "52": 52, "-9": -9} {
		if got, ran := code.Number(); !ran || got != want {
			t.Errorf("%q: got %d, %v", code, got, ran)
		}
	}
	for _, code := range []OptionalCode{"", NotRun, NoneRun, "soon"} {
		if got, ran := code.Number(); ran || got != 0 {
			t.Errorf("%q: got %d, %v", code, got, ran)
		}
	}
}
