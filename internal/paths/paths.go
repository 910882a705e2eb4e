// Package paths says where the product keeps things on this machine.
package paths

import "path/filepath"

// A Layout is the set of folders, all below one root.
type Layout struct{ root string }

// New returns the layout below root; "" is the machine itself.
func New(root string) Layout { return Layout{root} }

// EnvRoot is the environment variable that moves everything below another
// folder, for trials without root.
const EnvRoot = "LOG_ANALYTICS_AGENT_ROOT"

func (l Layout) join(elem ...string) string {
	return filepath.Join(append([]string{l.root}, elem...)...)
}

// Root is the folder everything lies below; "" is the machine itself.
func (l Layout) Root() string { return l.root }

// Binary is the path that the service starts, a link to the version in use.
func (l Layout) Binary() string { return filepath.Join(l.CurrentDir(), binaryName) }

// VersionBinary is the binary of one version.
func (l Layout) VersionBinary(version string) string {
	return filepath.Join(l.VersionsDir(), version, binaryName)
}

// CurrentDir is the link to the folder of the version in use.
func (l Layout) CurrentDir() string { return filepath.Join(l.VersionsDir(), "current") }

// VersionsDir holds a folder per version.
func (l Layout) VersionsDir() string { return l.join(versionsDir...) }

// StateDir is the top of what outlives an update: root's, readable by the agent.
func (l Layout) StateDir() string { return l.join(stateDir...) }

// HandlerDir is the handler's part of the state, root's alone.
func (l Layout) HandlerDir() string { return filepath.Join(l.StateDir(), "handler") }

// ConfigDir holds what the handler tells the agent.
func (l Layout) ConfigDir() string { return filepath.Join(l.StateDir(), "config") }

// ConfigFile is the agent's Config.
func (l Layout) ConfigFile() string { return filepath.Join(l.ConfigDir(), "config.json") }

// ProxyFile is the proxy setting, a secret: it may hold a password.
func (l Layout) ProxyFile() string { return filepath.Join(l.ConfigDir(), "proxy") }

// PasswordsFile holds the passwords of applications, secrets, as a JSON object
// by the application's name.
func (l Layout) PasswordsFile() string { return filepath.Join(l.ConfigDir(), "passwords") }

// AgentDir is the agent's part of the state, the agent user's alone.
func (l Layout) AgentDir() string { return filepath.Join(l.StateDir(), "agent") }

// SpoolDir is the durable queue.
func (l Layout) SpoolDir() string { return filepath.Join(l.AgentDir(), "spool") }

// WorkspaceDir holds the identity in one workspace.
func (l Layout) WorkspaceDir(id string) string {
	return filepath.Join(l.AgentDir(), "workspaces", id)
}

// WorkspaceKeyFile brings a workspace key to the agent, which deletes it once
// the workspace accepted it.
func (l Layout) WorkspaceKeyFile(id string) string {
	return filepath.Join(l.WorkspaceDir(id), "workspace.key")
}

// HealthFile is the agent's Health.
func (l Layout) HealthFile() string { return filepath.Join(l.AgentDir(), "health.json") }

// RunDir holds sockets; it is gone after a reboot.
func (l Layout) RunDir() string { return l.join(runDir...) }

// SyslogPipe takes messages from the syslog daemon. It outlives the agent, and
// lies where the confinement of syslog daemons lets them write, in a folder that
// is root's: the daemon is root, and would follow a link that lay there.
func (l Layout) SyslogPipe() string { return filepath.Join(l.LogDir(), "syslog.pipe") }

// SyslogSocket takes messages from other senders.
func (l Layout) SyslogSocket() string { return filepath.Join(l.RunDir(), "syslog.sock") }

// SyslogStream takes messages from syslog-ng.
func (l Layout) SyslogStream() string { return filepath.Join(l.RunDir(), "syslog-ng.sock") }

// LogDir is root's: it holds what commands log and the pipe for the syslog
// daemon, and AgentLogDir.
func (l Layout) LogDir() string { return l.join(logDir...) }

// AgentLogDir holds the agent's own log, the agent user's alone.
func (l Layout) AgentLogDir() string { return filepath.Join(l.LogDir(), "agent") }
