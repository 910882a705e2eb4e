package agent

import (
	"os"
	"path/filepath"
)

// dryLocalSyslog has the journal read in the place of what the syslog daemon
// hands over, which has one reader: a second one would take messages from it.
func dryLocalSyslog(c *Config, o Options) []string {
	for _, folder := range []string{"var/log/journal", "run/log/journal"} {
		if _, err := os.Stat(filepath.Join("/", o.Layout.Root(), folder)); err == nil {
			read := *c.Sources.Syslog
			read.Road = RoadJournal
			c.Sources.Syslog = &read
			return []string{"Messages of this machine are read from systemd's journal, which has what the syslog daemon gets, too."}
		}
	}
	c.Sources.Syslog = nil
	return []string{"Messages of the local syslog daemon are left out: there is no journal, and the daemon has one reader, the agent itself. Its status tells how many it has read."}
}
