package syslogd

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/openloganalytics/agent/agent/source/syslog"
)

// TestNGDropin pins the file.
func TestNGDropin(t *testing.T) {
	wanted, err := syslog.Compile([]syslog.Selector{
		{Facilities: []string{"auth", "authpriv"}, Severities: []string{"*"}},
		{Facilities: []string{"kern", "audit"}, Severities: []string{"emerg", "warn"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := `filter f_log_analytics_agent {
  ((facility(kern) or facility(13)) and level(emerg,warning))
  or (facility(auth) or facility(authpriv));
};
destination d_log_analytics_agent {
  unix-stream("/run/s.sock"
    template("<${PRI}>1 ${ISODATE} ${HOST:--} $(replace-delimiter ' \t\n' '_' '${PROGRAM:--}') ${PID:--} ${MSGID:--} ${SDATA:--} $(replace-delimiter '\r\n' ' ' '${MESSAGE}')\n")
    frac-digits(6) time-reopen(1) log-fifo-size(100000)
    disk-buffer(reliable(no) mem-buf-length(10000) disk-buf-size(536870912) dir("/var/q"))
  );
};
log {
  source("s_src");
  source("s_net");
  filter(f_log_analytics_agent);
  destination(d_log_analytics_agent);
};
`
	if diff := cmp.Diff(want, ngDropin("log-analytics-agent", "/run/s.sock", []string{"s_src", "s_net"}, wanted, "/var/q")); diff != "" {
		t.Errorf("file (-want +got):\n%s", diff)
	}
}

// TestNGConfiguration: the sources are those that the machine's own log
// statements use, whatever they are called and however it is written.
func TestNGConfiguration(t *testing.T) {
	const config = `@version: 3.38 # of the package
@include "scl.conf"
# log { source(commented); };
source s_src { system(); internal(); };
source "s_net" { network(port(514)); };
source s_unused { network(port(515)); };
destination d { file("/x" template("log { source(quoted); } \" ${MSG}")); };
filter f { facility(auth) };
log{source(s_src);filter(f);destination(d);};
log {
  source ( "s_net" );
  junction { channel { filter(f); }; channel { source(s_inner); }; };
  destination(d);
};
log { source { internal(); }; destination(d); };
@include "/etc/syslog-ng/conf.d/*.conf"
`
	words := ngWords(config)
	if diff := cmp.Diff([]string{"s_src", "s_net", "s_inner"}, ngSources(words)); diff != "" {
		t.Errorf("sources (-want +got):\n%s", diff)
	}
	for include, want := range map[string]bool{
		`@include "/etc/syslog-ng/conf.d/*.conf"`: true,
		`@include "/etc/syslog-ng/conf.d"`:        true,
		`@include "/etc/syslog-ng/conf.d/"`:       true,
		`@include "conf.d/*.conf"`:                true,
		`@include 'conf.d/*'`:                     true,
		`# @include "conf.d/*.conf"`:              false,
		`@include "other.d/*.conf"`:               false,
		`@include`:                                false,
	} {
		version, included := ngHead(ngWords("@version: 4.2\n"+include), "/etc/syslog-ng/conf.d")
		if version != "4.2" || included != want {
			t.Errorf("%s: version %q, included %t; want 4.2, %t", include, version, included, want)
		}
	}
}

// FuzzNGWords: whatever is in the configuration, reading it ends.
func FuzzNGWords(f *testing.F) {
	f.Add("source s { system(); }; log { source(s); };")
	f.Add(`"\`)
	f.Fuzz(func(_ *testing.T, text string) {
		words := ngWords(text)
		ngSources(words)
		ngHead(words, "/etc/syslog-ng/conf.d")
	})
}
