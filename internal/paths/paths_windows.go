package paths

const binaryName = "log-analytics-agent.exe"

var (
	versionsDir = []string{`C:\Program Files\Log Analytics Agent`}
	stateDir    = []string{`C:\ProgramData\Log Analytics Agent`}
	runDir      = []string{`C:\ProgramData\Log Analytics Agent`, "run"}
	logDir      = []string{`C:\ProgramData\Log Analytics Agent`, "log"}
)
