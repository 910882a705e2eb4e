// Package hostinfo says what this machine is: its operating system, names,
// addresses and identity, and what Azure's instance metadata tells about it.
package hostinfo

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"net"
	"net/netip"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"unicode"
)

// An OS describes the operating system in the words of the Heartbeat table and
// of onboarding. What is not known is empty.
type OS struct {
	Name         string // Ubuntu
	Version      string // 22.04; always with a dot
	MajorVersion string // 22
	MinorVersion string // 04
	FullName     string // Ubuntu 22.04 (x86_64)
	Manufacturer string // Canonical Group Limited
}

// manufacturers are the vendors as the earlier agent names them, by the ID of
// os-release.
var manufacturers = map[string]string{
	"rhel":   "Red Hat, Inc.",
	"sles":   "SUSE GmbH",
	"debian": "Software in the Public Interest, Inc.",
	"centos": "Central Logistics GmbH",
	"ubuntu": "Canonical Group Limited",
	"ol":     "Oracle Corporation",
}

// ReadOS asks below fsys, the root of a file system, what the system is. No
// list of names says what it may be: os-release tells (os-release(5)), else what
// older and smaller systems have in its place, else the kernel.
func ReadOS(fsys fs.FS) (OS, error) {
	var errs []error
	for _, probe := range []struct {
		file string
		read func([]byte) release
	}{
		{"etc/os-release", osRelease},
		{"usr/lib/os-release", osRelease},
		{"etc/lsb-release", lsbRelease},
		{"etc/system-release", lineRelease},
		{"etc/redhat-release", lineRelease},
		{"etc/SuSE-release", lineRelease},
		{"proc/sys/kernel/osrelease", kernelRelease},
	} {
		data, err := fs.ReadFile(fsys, probe.file)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if r := probe.read(data); r.name != "" {
			return r.os(), nil
		}
	}
	return OS{}, fmt.Errorf("read operating system: %w", errors.Join(append(errs, errors.New("no file names one"))...))
}

// A release is what a file says of the system.
type release struct{ name, version, manufacturer string }

// os fills in what follows from that. A vendor that is not known is called like
// the system.
func (r release) os() OS {
	o := OS{Name: strings.TrimSuffix(r.name, " GNU/Linux"), Version: r.version, Manufacturer: r.manufacturer}
	if o.Version != "" && !strings.Contains(o.Version, ".") {
		o.Version += ".0"
	}
	o.MajorVersion, o.MinorVersion, _ = strings.Cut(o.Version, ".")
	o.FullName = fmt.Sprintf("%s (%s)", strings.TrimSpace(o.Name+" "+o.Version), machine())
	if o.Manufacturer == "" {
		o.Manufacturer = o.Name
	}
	return o
}

func osRelease(data []byte) release {
	v := assignments(data)
	manufacturer := manufacturers[v["ID"]]
	if manufacturer == "" {
		manufacturer = v["VENDOR_NAME"]
	}
	return release{v["NAME"], v["VERSION_ID"], manufacturer}
}

func lsbRelease(data []byte) release {
	v := assignments(data)
	return release{v["DISTRIB_ID"], v["DISTRIB_RELEASE"], manufacturers[strings.ToLower(v["DISTRIB_ID"])]}
}

// nameAndVersion is a line such as "CentOS release 6.10 (Final)" or "SUSE Linux
// Enterprise Server 11 (x86_64)".
var nameAndVersion = regexp.MustCompile(`^(.+?)(?: release)? ([0-9][0-9.]*)\b`)

func lineRelease(data []byte) release {
	line, _, _ := strings.Cut(string(data), "\n")
	m := nameAndVersion.FindStringSubmatch(printable(line))
	if m == nil {
		return release{}
	}
	return release{name: m[1], version: strings.TrimRight(m[2], ".")}
}

// kernelVersion is the part of the kernel's release that all of them have.
var kernelVersion = regexp.MustCompile(`^[0-9]+\.[0-9]+(\.[0-9]+)?`)

func kernelRelease(data []byte) release {
	return release{name: "Linux", version: kernelVersion.FindString(string(data))}
}

// assignments reads a file of NAME=value.
func assignments(data []byte) map[string]string {
	values := map[string]string{}
	for line := range strings.Lines(string(data)) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if ok && !strings.HasPrefix(key, "#") {
			values[key] = unquote(value)
		}
	}
	return values
}

// printable leaves out control characters.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return -1
		}
		return r
	}, text)
}

// unquote reads a value as a shell does, as far as os-release(5) allows:
// quotes around all of it, and a backslash before a special character. Control
// characters have no place in it.
func unquote(value string) string {
	value = printable(value)
	if n := len(value); n >= 2 && value[0] == '\'' && value[n-1] == '\'' {
		return value[1 : n-1]
	}
	value = strings.Trim(value, `"`)
	return strings.NewReplacer(`\"`, `"`, `\$`, `$`, `\\`, `\`, "\\`", "`").Replace(value)
}

// machine is the processor's name as uname gives it.
func machine() string {
	switch runtime.GOARCH {
	case "amd64":
		return "x86_64"
	case "arm64":
		return "aarch64"
	default:
		return runtime.GOARCH
	}
}

// ShortName is the host name up to its first dot.
func ShortName() string {
	name, err := os.Hostname()
	if err != nil || name == "" {
		return "localhost"
	}
	name, _, _ = strings.Cut(name, ".")
	return name
}

// FQDN is the host name with its domain, when the host name itself, /etc/hosts
// or the resolver's configuration below fsys knows one.
func FQDN(fsys fs.FS) string {
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	return fullName(name, fsys)
}

func fullName(name string, fsys fs.FS) string {
	if name == "" || strings.Contains(name, ".") {
		return name
	}
	for fields := range lines(fsys, "etc/hosts") {
		if !slices.Contains(fields[1:], name) {
			continue
		}
		for _, full := range fields[1:] {
			if strings.HasPrefix(full, name+".") && !strings.HasPrefix(full, name+".localdomain") {
				return full
			}
		}
	}
	for fields := range lines(fsys, "etc/resolv.conf") {
		if (fields[0] == "search" || fields[0] == "domain") && len(fields) > 1 && isDomain(fields[1]) {
			return name + "." + strings.TrimSuffix(fields[1], ".")
		}
	}
	return name
}

// isDomain reports whether a search domain is one that the machine is in.
// Azure gives reddog.microsoft.com to machines of which it does not know any.
func isDomain(name string) bool {
	return name != "." && name != "localdomain" && name != "reddog.microsoft.com"
}

// lines yields the fields of the lines of a file that has any, without
// comments.
func lines(fsys fs.FS, file string) iter.Seq[[]string] {
	return func(yield func([]string) bool) {
		data, err := fs.ReadFile(fsys, file)
		if err != nil {
			return // a machine need not have it
		}
		for line := range strings.Lines(string(data)) {
			text, _, _ := strings.Cut(line, "#")
			if fields := strings.Fields(text); len(fields) > 0 && !yield(fields) {
				return
			}
		}
	}
}

// PrivateIPs are the machine's addresses of RFC 1918 and RFC 4193, sorted.
func PrivateIPs() []string {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	return privateIPs(addresses)
}

func privateIPs(addresses []net.Addr) []string {
	var private []netip.Addr
	for _, a := range addresses {
		prefix, err := netip.ParsePrefix(a.String())
		if err == nil && prefix.Addr().IsPrivate() {
			private = append(private, prefix.Addr())
		}
	}
	slices.SortFunc(private, netip.Addr.Compare)
	texts := make([]string, 0, len(private))
	for _, a := range slices.Compact(private) {
		texts = append(texts, a.String())
	}
	return texts
}

var guidShape = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// ProductUUID is the machine's DMI UUID in lower case, which in Azure is the
// VM's id. It is empty when it cannot be read (it is root's to read) or is no
// UUID.
func ProductUUID(fsys fs.FS) string {
	id := strings.ToLower(dmi(fsys, "product_uuid"))
	if !guidShape.MatchString(id) {
		return ""
	}
	return id
}

// SameUUID reports whether two UUIDs, in lower case, are one machine's: SMBIOS
// before 2.6 did not say in which order the bytes of the first three fields
// are, so that a new kernel or a new generation of the VM can turn them round.
func SameUUID(a, b string) bool {
	return a == b || turned(a) == b
}

func turned(id string) string {
	raw, err := hex.DecodeString(strings.ReplaceAll(id, "-", ""))
	if err != nil || len(raw) != 16 {
		return id
	}
	slices.Reverse(raw[0:4])
	slices.Reverse(raw[4:6])
	slices.Reverse(raw[6:8])
	return fmt.Sprintf("%x-%x-%x-%x-%x", raw[0:4], raw[4:6], raw[6:8], raw[8:10], raw[10:])
}

// CloudID is the chassis asset tag when it is the one that marks Azure, which
// begins with 77; else empty.
func CloudID(fsys fs.FS) string {
	tag := dmi(fsys, "chassis_asset_tag")
	if !strings.HasPrefix(tag, "77") {
		return ""
	}
	return tag
}

func dmi(fsys fs.FS, name string) string {
	data, err := fs.ReadFile(fsys, "sys/class/dmi/id/"+name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}
