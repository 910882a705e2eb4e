package agent

// dryLocalSyslog takes the way to the syslog daemon out of the config: its pipe
// has one reader, and a second one would take messages from it.
func dryLocalSyslog(c *Config) []string {
	c.Sources.Syslog = nil
	return []string{"Messages of the local syslog daemon are left out: they have one reader, the agent itself. Its status tells how many it has read."}
}
