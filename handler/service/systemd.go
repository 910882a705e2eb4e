package service

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/openloganalytics/agent/internal/cgroup"
)

// marker is the first line of every unit file of ours. A file without it is
// somebody else's and is never replaced.
const marker = "# Written by log-analytics-agent; changes are overwritten."

// Versions of systemd from which on a line means what is written here. Of
// other lines that an older systemd does not know it ignores with a warning.
const (
	// knowsSystemService is when the group of system calls @system-service came
	// (2018). Before, the list of what is allowed would be almost empty.
	knowsSystemService = 239
	// knowsStartLimit is when the limit of starts moved to the section [Unit].
	knowsStartLimit = 230
	// knowsFullPrivileges is when a + before a command came, which then has all
	// of root's rights (2016). Before, one line did that for all commands but the
	// service itself.
	knowsFullPrivileges = 231
	// knowsRestartSteps is when pauses between restarts could grow (2023).
	knowsRestartSteps = 254
)

// unitFiles returns the unit files for u by name, in the words of a version of
// systemd.
func unitFiles(u Unit, version int) map[string]string {
	return map[string]string{
		u.Name + ".service":        agentService(u, version),
		sliceOf(u):                 agentSlice(u),
		u.Name + "-report.path":    reportPath(u),
		u.Name + "-report.service": reportService(u, version),
	}
}

// systemCalls lists the system calls to do without, by groups of systemd's.
func systemCalls(version int, denied string) []string {
	if version < knowsSystemService {
		return []string{"SystemCallFilter=~@clock @cpu-emulation @debug @module @mount @obsolete @raw-io @reboot @swap " + denied}
	}
	return []string{"SystemCallFilter=@system-service", "SystemCallFilter=~" + denied}
}

// sliceOf names the slice of everything of ours. A dash would put it below a
// slice for each part of the name.
func sliceOf(u Unit) string { return strings.ReplaceAll(u.Name, "-", "") + ".slice" }

// A section is a heading with its lines.
type section struct {
	name  string
	lines []string
}

func unitText(sections ...section) string {
	var b strings.Builder
	b.WriteString(marker + "\n")
	for _, s := range sections {
		fmt.Fprintf(&b, "\n[%s]\n", s.name)
		for _, line := range s.lines {
			b.WriteString(line + "\n")
		}
	}
	return b.String()
}

// confined is what every process of ours goes without.
func confined() []string {
	return []string{
		"NoNewPrivileges=yes",
		"ProtectSystem=strict",
		"PrivateDevices=yes",
		"PrivateMounts=yes",
		"ProtectKernelTunables=yes",
		"ProtectKernelModules=yes",
		"ProtectKernelLogs=yes",
		"ProtectControlGroups=yes",
		"ProtectClock=yes",
		"ProtectHostname=yes",
		"LockPersonality=yes",
		"MemoryDenyWriteExecute=yes",
		"RestrictRealtime=yes",
		"RestrictSUIDSGID=yes",
		"RestrictNamespaces=yes",
		"SystemCallArchitectures=native",
		"SystemCallErrorNumber=EPERM",
		"KeyringMode=private",
		"RemoveIPC=yes",
		"UMask=0077",
		"LimitCORE=0",
	}
}

// restarts is when the agent is started again: at once, and if that does not
// help at growing intervals where systemd can do that.
func restarts(version int) []string {
	switch {
	case version < knowsStartLimit:
		return []string{"Restart=always", "RestartSec=2", "StartLimitInterval=0"}
	case version < knowsRestartSteps:
		return []string{"Restart=always", "RestartSec=2"}
	}
	return []string{"Restart=always", "RestartSec=1", "RestartSteps=8", "RestartMaxDelaySec=300"}
}

func agentService(u Unit, version int) string {
	lines := append([]string{
		"Type=notify",
		"NotifyAccess=main",
		"ExecStart=" + u.Binary + " run",
		"WatchdogSec=60",
		"TimeoutStartSec=60",
		"TimeoutStopSec=20",
		"KillMode=mixed",
		"Slice=" + sliceOf(u),
		"User=" + u.User,
		"Group=" + u.Group,
	}, restarts(version)...)
	lines = append(lines, aroundTheAgent(u, version)...)
	if len(u.Groups) > 0 {
		lines = append(lines, "SupplementaryGroups="+strings.Join(u.Groups, " "))
	}
	capabilities := strings.Join(capabilitiesOf(u), " ")
	if capabilities != "" {
		lines = append(lines, "AmbientCapabilities="+capabilities)
	}
	lines = append(lines, "CapabilityBoundingSet="+capabilities)
	lines = append(lines, confined()...)
	lines = append(lines, systemCalls(version, "@privileged @resources")...)
	lines = append(lines,
		"ProtectHome="+choose(u.ProtectHome, "yes", "read-only"),
		"PrivateTmp="+choose(u.PrivateTmp, "yes", "no"),
		// Counters need all of /proc: no ProcSubset, no ProtectProc.
		"RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
		"InaccessiblePaths=-/var/lib/waagent -/etc/shadow -/etc/gshadow -/root/.ssh",
		// The instance metadata is the one link-local address to talk to.
		// 168.63.129.16 is left open: it is Azure's DNS server as well as the
		// guest agent's wire server, and many machines ask it directly.
		"IPAddressAllow=169.254.169.254",
		"IPAddressDeny=link-local multicast",
		// A folder that somebody deleted does not keep the agent from starting.
		"ReadWritePaths=-"+u.StateDir+" -"+u.LogDir,
		"RuntimeDirectory="+filepath.Base(u.RunDir),
		"RuntimeDirectoryMode=0755",
		"RuntimeDirectoryPreserve=restart",
		"LimitNOFILE=16384",
		"OOMScoreAdjust=500",
		"Nice=5",
	)
	if u.MemoryMB > 0 {
		lines = append(lines, fmt.Sprintf("Environment=GOMEMLIMIT=%dMiB", softMemory(u.MemoryMB)))
	}
	return unitText(
		section{"Unit", []string{
			"Description=Log Analytics agent: collects logs and metrics",
			"After=network.target",
			"StartLimitIntervalSec=0",
		}},
		section{"Service", lines},
		section{"Install", []string{"WantedBy=multi-user.target"}},
	)
}

// aroundTheAgent lists what root does before each start and after each end.
func aroundTheAgent(u Unit, version int) []string {
	if version < knowsFullPrivileges {
		return []string{"PermissionsStartOnly=yes", "ExecStartPre=" + u.Binary + " prepare", "ExecStopPost=" + u.Binary + " ended"}
	}
	return []string{"ExecStartPre=+" + u.Binary + " prepare", "ExecStopPost=+" + u.Binary + " ended"}
}

// capabilitiesOf lists the agent's, each of which is there only when something
// that is configured may need it. The first reads every file of the machine and
// writes none; the second opens ports below 1024.
func capabilitiesOf(u Unit) []string {
	var names []string
	if u.ReadAll {
		names = append(names, "CAP_DAC_READ_SEARCH")
	}
	if u.BindLow {
		names = append(names, "CAP_NET_BIND_SERVICE")
	}
	return names
}

// softMemory is where Go begins to collect harder: well below the ceiling.
func softMemory(mb int) int { return mb * 85 / 100 }

// agentSlice holds the ceilings: they count for everything of ours.
func agentSlice(u Unit) string {
	lines := []string{"CPUAccounting=yes", "MemoryAccounting=yes", "TasksMax=128", "CPUWeight=20", "IOWeight=20"}
	if u.CPUPercent > 0 {
		lines = append(lines, fmt.Sprintf("CPUQuota=%d%%", u.CPUPercent))
	}
	if u.MemoryMB > 0 {
		lines = append(lines, fmt.Sprintf("MemoryHigh=%dM", cgroup.High(u.MemoryMB)), fmt.Sprintf("MemoryMax=%dM", u.MemoryMB))
	}
	return unitText(
		section{"Unit", []string{"Description=Log Analytics agent and what belongs to it"}},
		section{"Slice", lines},
	)
}

func reportPath(u Unit) string {
	return unitText(
		section{"Unit", []string{"Description=Watches the health of the Log Analytics agent"}},
		section{"Path", []string{
			"PathChanged=" + filepath.Join(u.StateDir, "health.json"),
			"PathChanged=" + filepath.Join(handlerDir(u), EndFile),
			"Unit=" + u.Name + "-report.service",
		}},
		section{"Install", []string{"WantedBy=multi-user.target"}},
	)
}

// reportService is root's, because it writes into the guest agent's folder. It
// has no network, and reads the agent's folder with root's right to.
func reportService(u Unit, version int) string {
	lines := append([]string{
		"Type=oneshot",
		"ExecStart=" + u.Binary + " report",
		"Slice=" + sliceOf(u),
		"TimeoutStartSec=30",
		"CapabilityBoundingSet=CAP_DAC_READ_SEARCH CAP_DAC_OVERRIDE CAP_FOWNER",
		"RestrictAddressFamilies=AF_UNIX",
		"PrivateNetwork=yes",
		"PrivateTmp=yes",
		"ProtectHome=yes",
		"IPAddressDeny=any",
		"ReadWritePaths=" + strings.Join(reportWrites(u), " "),
	}, systemCalls(version, "@resources")...)
	return unitText(
		section{"Unit", []string{"Description=Reports the health of the Log Analytics agent", "StartLimitIntervalSec=0"}},
		section{"Service", append(lines, confined()...)},
	)
}

// reportWrites are the folders that the report changes: the handler's state,
// and the guest agent's folder of this handler, which can be gone.
func reportWrites(u Unit) []string {
	dirs := []string{handlerDir(u)}
	if u.HandlerDir != "" {
		dirs = append(dirs, "-"+u.HandlerDir)
	}
	return dirs
}

// handlerDir is the handler's part of the state.
func handlerDir(u Unit) string { return filepath.Join(filepath.Dir(u.StateDir), "handler") }

func choose(condition bool, yes, no string) string {
	if condition {
		return yes
	}
	return no
}
