package handler

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/openloganalytics/agent/agent"
	"github.com/openloganalytics/agent/agent/source/apache"
	"github.com/openloganalytics/agent/agent/source/mysql"
	"github.com/openloganalytics/agent/agent/source/postgresql"
	"github.com/openloganalytics/agent/internal/atomicfile"
	"github.com/openloganalytics/agent/internal/local"
	"github.com/openloganalytics/agent/internal/product"
	"github.com/openloganalytics/agent/internal/secret"
)

const (
	maxApplications = 20
	// Ports that collectd and StatsD clients sent to with the earlier agent.
	defaultCollectdPort = 26000
	defaultStatsdPort   = 8125
)

// applications reads the servers on the machine that are asked for counters,
// and the ports at which others hand over theirs. Without the settings there
// are none.
func (s *Settings) applications(d *decoder, pub *object) {
	list := pub.objects("applications")
	if len(list) > maxApplications {
		d.wrong("applications", fmt.Sprintf("names %d applications", len(list)), fmt.Sprintf("name at most %d", maxApplications))
		return
	}
	for _, o := range list {
		a := application(d, o)
		o.done()
		if slices.ContainsFunc(s.Config.Sources.Applications, func(other agent.Application) bool { return other.Name == a.Name }) {
			d.wrong(o.path+".name", fmt.Sprintf("%q is the name of another application", a.Name), "give each application a name of its own")
		}
		s.Config.Sources.Applications = append(s.Config.Sources.Applications, a)
	}
	if o := pub.object("collectd"); o != nil {
		s.Config.Sources.Collectd = &agent.Collectd{Port: o.integer("port", defaultCollectdPort, 1024, 65535)}
		o.done()
	}
	if o := pub.object("statsd"); o != nil {
		s.Config.Sources.Statsd = &agent.Statsd{
			Port:       o.integer("port", defaultStatsdPort, 1024, 65535),
			Interval:   seconds(o.integer("flushIntervalInSeconds", 10, minSampling, maxSampling)),
			Percentile: o.integer("thresholdPercentile", 90, 1, 100),
		}
		o.done()
	}
}

// applicationName is what may stand in a status and a log.
var applicationName = regexp.MustCompile(`^[\w.-]{1,64}$`)

func application(d *decoder, o *object) agent.Application {
	a := agent.Application{Kind: strings.ToLower(o.text("kind")), Name: o.text("name")}
	switch {
	case a.Name == "":
		a.Name = a.Kind
	case !applicationName.MatchString(a.Name):
		d.wrong(o.path+".name", fmt.Sprintf("%.100q is not a name", a.Name), "give 1 to 64 letters, digits, points, _ or -")
	}
	a.Interval = seconds(o.integer("samplingFrequencyInSeconds", 60, minSampling, maxSampling))
	switch a.Kind {
	case "apache":
		a.URL = o.text("url")
		if a.URL == "" {
			a.URL = apache.DefaultURL
		}
		if err := apache.CheckURL(a.URL); err != nil {
			d.wrong(o.path+".url", err.Error(), "give the URL of mod_status on this machine, as in "+apache.DefaultURL)
		}
	case "mysql":
		a.Address, a.User = server(d, o, mysql.DefaultAddress)
	case "postgresql":
		a.Address, a.User = server(d, o, postgresql.DefaultAddress)
		if a.Database = o.text("database"); a.Database == "" {
			a.Database = "postgres"
		}
	case "":
		d.wrong(o.path+".kind", "is missing", "give apache, mysql or postgresql")
	default:
		d.wrong(o.path+".kind", fmt.Sprintf("%q is not known", a.Kind), "give apache, mysql or postgresql")
	}
	return a
}

// server reads where a database server is and who asks it. By default it is the
// agent's own user, which the server may know from the socket.
func server(d *decoder, o *object, socket string) (address, user string) {
	address, user = o.text("address"), o.text("user")
	if user == "" {
		user = product.Name
	}
	switch {
	case address == "":
		return socket, user
	case strings.HasPrefix(address, "/"):
		if path.Clean(address) != address || strings.ContainsRune(address, 0) {
			d.wrong(o.path+".address", fmt.Sprintf("%.100q is not a plain path", address), "give the path of the server's socket, as in "+socket)
		}
		return address, user
	}
	plain, err := local.Address(address)
	if err != nil {
		d.wrong(o.path+".address", fmt.Sprintf("%.100q %v", address, err), "give the path of the server's socket, as in "+socket+", or a loopback address with port: its protocol is not encrypted")
	}
	return plain, user
}

// asks reports whether an application is asked for the counter of a specifier:
// its objects begin with the kind.
func (s *Settings) asks(specifier string) bool {
	object := strings.ToLower(strings.TrimLeft(specifier, ` \`))
	return slices.ContainsFunc(s.Config.Sources.Applications, func(a agent.Application) bool { return strings.HasPrefix(object, a.Kind+" ") })
}

// passwords reads the protected setting of that name, by the names of
// applications.
func (s *Settings) passwords(prot *object) {
	all := prot.object("applicationPasswords")
	if all == nil {
		return
	}
	s.Passwords = map[string]secret.Secret{}
	for _, a := range s.Config.Sources.Applications {
		if a.Kind == "apache" { // asks for none
			continue
		}
		if password := all.text(a.Name); all.had(a.Name) {
			s.Passwords[a.Name] = secret.New(password)
		}
	}
	all.done()
}

// passwordsFile is what is handed to the agent; nil is no file.
func (s *Settings) passwordsFile() ([]byte, error) {
	if len(s.Passwords) == 0 {
		return nil, nil
	}
	plain := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(s.Passwords)) {
		plain[name] = s.Passwords[name].Reveal()
	}
	return json.Marshal(plain)
}

// deliverPasswords hands the passwords of applications to the agent.
func (h *Handler) deliverPasswords(s *Settings, uid, gid int) error {
	data, err := s.passwordsFile()
	if err != nil {
		return err
	}
	if data == nil {
		if err := os.Remove(h.Layout.PasswordsFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	return atomicfile.WriteOwned(h.Layout.PasswordsFile(), data, 0o400, uid, gid)
}
