package handler

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"github.com/openloganalytics/agent/agent"
)

const (
	maxListeners       = 10
	maxConnections     = 10000
	defaultConnections = 500
	// Ports that need no privilege, as forwarders in Azure use them, and the
	// registered one of syslog over TLS (RFC 5425).
	defaultListenPort = 5514
	defaultTLSPort    = 6514
	defaultIdle       = 900 // seconds
	maxIdle           = 86400
)

// listeners reads the ports to open for syslog of other machines. Without the
// setting there is none.
func (s *Settings) listeners(d *decoder, pub *object) {
	list := pub.objects("syslogListeners")
	if len(list) > maxListeners {
		d.wrong("syslogListeners", fmt.Sprintf("names %d listeners", len(list)), fmt.Sprintf("name at most %d", maxListeners))
		return
	}
	for _, o := range list {
		l := s.listener(d, o)
		o.done()
		for n, other := range s.Config.Sources.SyslogListeners {
			if samePort(l, other) {
				d.wrong(o.path+".port", fmt.Sprintf("%d is taken by syslogListeners[%d]", l.Port, n), "give each listener a port of its own")
			}
		}
		s.Config.Sources.SyslogListeners = append(s.Config.Sources.SyslogListeners, l)
	}
}

func (s *Settings) listener(d *decoder, o *object) agent.SyslogListener {
	way, feeds := s.way(d, o, "header.Syslog", streamSyslog, streamSecurity)
	l := agent.SyslogListener{Protocol: strings.ToLower(o.text("protocol")), Address: o.text("address")}
	port := defaultListenPort
	switch l.Protocol {
	case "udp", "tcp":
	case "tls":
		port = defaultTLSPort
	case "":
		d.wrong(o.path+".protocol", "is missing", "give udp, tcp or tls")
	default:
		d.wrong(o.path+".protocol", fmt.Sprintf("%q is not a protocol", l.Protocol), "give udp, tcp or tls")
	}
	l.Port = o.integer("port", port, 1, 65535)
	if l.Address != "" {
		if ip, err := netip.ParseAddr(l.Address); err != nil || ip.IsMulticast() {
			d.wrong(o.path+".address", fmt.Sprintf("%q is not an address of a machine", l.Address),
				"give an IP address of the VM, 0.0.0.0 for all of IPv4, or leave it out for all addresses")
		}
	}
	certificates(d, o, &l)
	if l.Protocol == "udp" {
		for _, name := range []string{"maxConnections", "idleTimeoutInSeconds"} {
			if o.take(name) != nil {
				d.wrong(o.path+"."+name, "does not go with udp, which has no connections", "take it out")
			}
		}
	} else {
		l.MaxConnections = o.integer("maxConnections", defaultConnections, 1, maxConnections)
		l.IdleTimeout = seconds(o.integer("idleTimeoutInSeconds", defaultIdle, 1, maxIdle))
	}
	sel := listenerSelector(d, o)
	if slices.Contains(feeds, streamSyslog) {
		l.Selector = sel
		l.Selector.Way = way
	}
	if slices.Contains(feeds, streamSecurity) {
		l.Security = &sel
	}
	return l
}

// listenerSelector reads what is wanted: everything, unless facilities or
// levels are named.
func listenerSelector(d *decoder, o *object) agent.SyslogSelector {
	facilities, levels := o.had("facilityNames"), o.had("logLevels")
	problems := len(d.problems)
	sel, _ := selector(d, o)
	if len(d.problems) > problems {
		return sel
	}
	if !facilities {
		sel.Facilities = []string{"*"}
	}
	if !levels {
		sel.Severities = []string{"*"}
	}
	if facilities && len(sel.Facilities) == 0 {
		d.wrong(o.path+".facilityNames", "names no facility", "name at least one, or leave it out for all")
	}
	if levels && len(sel.Severities) == 0 {
		d.wrong(o.path+".logLevels", "names no level", "name at least one, or leave it out for all")
	}
	return sel
}

// certificates reads the files of a TLS listener. The agent reads what is in
// them, again whenever they change.
func certificates(d *decoder, o *object, l *agent.SyslogListener) {
	for _, file := range []struct {
		name     string
		path     *string
		required bool
	}{
		{"certificateFile", &l.CertificateFile, true},
		{"keyFile", &l.KeyFile, true},
		{"clientCAFile", &l.ClientCAFile, false},
	} {
		field := o.path + "." + file.name
		*file.path = o.text(file.name)
		switch {
		case l.Protocol != "tls" && *file.path != "":
			d.wrong(field, "goes with protocol tls only", "give protocol tls, or take it out")
		case l.Protocol == "tls" && *file.path == "" && file.required:
			d.wrong(field, "is missing", "give the whole path of a PEM file on the VM that the agent's user can read")
		case *file.path != "" && !filepath.IsAbs(*file.path):
			d.wrong(field, "is not an absolute path", "give the whole path of a PEM file on the VM")
		}
	}
}

// samePort tells whether two listeners cannot be open at a time.
func samePort(a, b agent.SyslogListener) bool {
	if a.Port != b.Port || (a.Protocol == "udp") != (b.Protocol == "udp") {
		return false
	}
	return a.Address == b.Address || anyAddress(a.Address) || anyAddress(b.Address)
}

func anyAddress(address string) bool {
	ip, err := netip.ParseAddr(address)
	return address == "" || err == nil && ip.IsUnspecified()
}
