// Package product names the product: the one place from which the handler's
// identity, the package names and the user agent are derived.
package product

// Identity of the extension, as Azure's guest agent and its users spell it.
const (
	// Publisher and the two types make the handler names that users deploy:
	// Publisher.TypeLinux and Publisher.TypeWindows.
	Publisher   = "OpenLogAnalytics"
	TypeLinux   = "LogAnalyticsAgentLinux"
	TypeWindows = "LogAnalyticsAgentWindows"

	// Name is the binary, the service and the folder name everywhere.
	Name = "log-analytics-agent"
)

// Version is the package version, major.minor.build. The linker sets it
// (-X); a build outside make says 0.0.0.
var Version = "0.0.0"
