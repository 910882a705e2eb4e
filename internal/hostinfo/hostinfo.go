// Package hostinfo says what this machine is: its operating system, names,
// addresses and identity, and what Azure's instance metadata tells about it.
package hostinfo

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
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

// ReadOS reads os-release below fsys, the root of a file system.
func ReadOS(fsys fs.FS) (OS, error) {
	var errs []error
	for _, name := range []string{"etc/os-release", "usr/lib/os-release"} {
		data, err := fs.ReadFile(fsys, name)
		if err == nil {
			return parseOS(data), nil
		}
		errs = append(errs, err)
	}
	return OS{}, fmt.Errorf("read operating system: %w", errors.Join(errs...))
}

func parseOS(data []byte) OS {
	values := map[string]string{}
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		key, value, ok := strings.Cut(strings.TrimSpace(lines.Text()), "=")
		if !ok || strings.HasPrefix(key, "#") {
			continue
		}
		if unquoted, err := strconv.Unquote(value); err == nil {
			value = unquoted
		}
		values[key] = strings.Trim(value, `'"`)
	}
	os := OS{
		Name:         strings.TrimSuffix(values["NAME"], " GNU/Linux"),
		Version:      values["VERSION_ID"],
		Manufacturer: manufacturers[values["ID"]],
	}
	if os.Version != "" && !strings.Contains(os.Version, ".") {
		os.Version += ".0"
	}
	os.MajorVersion, os.MinorVersion, _ = strings.Cut(os.Version, ".")
	if os.Name != "" {
		os.FullName = fmt.Sprintf("%s (%s)", strings.TrimSpace(os.Name+" "+os.Version), machine())
	}
	return os
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

// FQDN is the host name with its domain, when the host name or /etc/hosts
// knows one.
func FQDN(fsys fs.FS) string {
	name, err := os.Hostname()
	if err != nil || strings.Contains(name, ".") {
		return name
	}
	hosts, err := fs.ReadFile(fsys, "etc/hosts")
	if err != nil {
		return name
	}
	for lines := bufio.NewScanner(bytes.NewReader(hosts)); lines.Scan(); {
		text, _, _ := strings.Cut(lines.Text(), "#")
		fields := strings.Fields(text)
		if len(fields) < 2 || !slices.Contains(fields[1:], name) {
			continue
		}
		for _, full := range fields[1:] {
			if strings.HasPrefix(full, name+".") && !strings.HasPrefix(full, name+".localdomain") {
				return full
			}
		}
	}
	return name
}

// PrivateIPs are the machine's addresses of RFC 1918 and RFC 4193, sorted.
func PrivateIPs() []string {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
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
