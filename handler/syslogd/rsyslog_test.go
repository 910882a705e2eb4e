package syslogd

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/openloganalytics/agent/agent/source/syslog"
)

// TestDropin pins the file, and the shortest way to write each selection.
func TestDropin(t *testing.T) {
	wanted, err := syslog.Compile([]syslog.Selector{
		{Facilities: []string{"auth", "authpriv"}, Severities: []string{"*"}},
		{Facilities: []string{"kern", "local7", "audit"}, Severities: []string{"emerg", "alert", "crit", "err", "warn"}},
		{Facilities: []string{"cron"}, Severities: []string{"emerg", "notice", "debug"}},
		{Facilities: []string{"clock"}, Severities: []string{"*"}},
		{Facilities: []string{"mail"}, Severities: nil},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := `template(name="laa" type="string" string="\002<%PRI%>1 %TIMESTAMP:::date-rfc3339% %HOSTNAME% %syslogtag:::escape-cc% - %MSGID% %STRUCTURED-DATA:::escape-cc%%msg:::sp-if-no-1st-sp%%msg:::escape-cc%\n")
if prifilt("kern,local7.warning")
  or prifilt("auth,authpriv.*")
  or prifilt("cron.=emerg;cron.=notice;cron.=debug")
  or ($syslogfacility == 13 and ($syslogseverity == 0 or $syslogseverity == 1 or $syslogseverity == 2 or $syslogseverity == 3 or $syslogseverity == 4))
  or ($syslogfacility == 15) then {
  action(name="laa" type="ompipe" pipe="/var/log/log-analytics-agent/syslog.pipe" template="laa"
    action.resumeRetryCount="-1" action.resumeInterval="1" action.reportSuspension="off"
    queue.type="LinkedList" queue.size="100000" queue.timeoutEnqueue="1"
    queue.filename="laa" queue.highWatermark="10000" queue.lowWatermark="2000" queue.maxDiskSpace="512m"
    queue.saveOnShutdown="on" queue.timeoutActionCompletion="3000" queue.checkpointInterval="1000")
}
`
	got := dropin("laa", "/var/log/log-analytics-agent/syslog.pipe", wanted, true)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("file (-want +got):\n%s", diff)
	}
	memory := dropin("laa", "/p", wanted, false)
	for _, word := range []string{"filename", "Disk", "saveOnShutdown"} {
		if strings.Contains(memory, word) {
			t.Errorf("without a work directory the file has %s", word)
		}
	}
}
