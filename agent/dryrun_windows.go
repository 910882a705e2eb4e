package agent

// dryLocalSyslog leaves the config as it is: there is no local syslog.
func dryLocalSyslog(*Config, Options) []string { return nil }
