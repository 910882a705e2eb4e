package hostinfo

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"
	"unicode"

	"github.com/google/go-cmp/cmp"
)

func TestReadOS(t *testing.T) {
	for name, tt := range map[string]struct {
		path, text string
		want       OS
	}{
		"ubuntu":                      {"etc/os-release", "NAME=\"Ubuntu\"\nID=ubuntu\nVERSION_ID=\"22.04\"\n", OS{"Ubuntu", "22.04", "22", "04", "Ubuntu 22.04 (" + machine() + ")", "Canonical Group Limited"}},
		"debian, no dot, other place": {"usr/lib/os-release", "# c\nNAME=\"Debian GNU/Linux\"\nID=debian\nVERSION_ID=\"12\"\n", OS{"Debian", "12.0", "12", "0", "Debian 12.0 (" + machine() + ")", "Software in the Public Interest, Inc."}},
		"unknown vendor":              {"etc/os-release", "NAME='Flatcar Container Linux'\nID=flatcar\nVERSION_ID=3815.2.0\n", OS{"Flatcar Container Linux", "3815.2.0", "3815", "2.0", "Flatcar Container Linux 3815.2.0 (" + machine() + ")", "Flatcar Container Linux"}},
		"vendor that names itself":    {"etc/os-release", "NAME=Bottlerocket\nID=bottlerocket\nVERSION_ID=1.20.0\nVENDOR_NAME=\"The Vendor\"\n", OS{"Bottlerocket", "1.20.0", "1", "20.0", "Bottlerocket 1.20.0 (" + machine() + ")", "The Vendor"}},
		"lsb-release":                 {"etc/lsb-release", "DISTRIB_ID=Ubuntu\nDISTRIB_RELEASE=12.04\n", OS{"Ubuntu", "12.04", "12", "04", "Ubuntu 12.04 (" + machine() + ")", "Canonical Group Limited"}},
		"old Red Hat":                 {"etc/redhat-release", "CentOS release 6.10 (Final)\n", OS{"CentOS", "6.10", "6", "10", "CentOS 6.10 (" + machine() + ")", "CentOS"}},
		"old Amazon":                  {"etc/system-release", "Amazon Linux AMI release 2018.03\n", OS{"Amazon Linux AMI", "2018.03", "2018", "03", "Amazon Linux AMI 2018.03 (" + machine() + ")", "Amazon Linux AMI"}},
		"old SUSE":                    {"etc/SuSE-release", "SUSE Linux Enterprise Server 11 (x86_64)\nVERSION = 11\n", OS{"SUSE Linux Enterprise Server", "11.0", "11", "0", "SUSE Linux Enterprise Server 11.0 (" + machine() + ")", "SUSE Linux Enterprise Server"}},
		"kernel alone":                {"proc/sys/kernel/osrelease", "6.6.51-talos\n", OS{"Linux", "6.6.51", "6", "6.51", "Linux 6.6.51 (" + machine() + ")", "Linux"}},
		"shell quotes":                {"etc/os-release", "NAME=\"A \\\"B\\\" \\$5\"\nVERSION_ID='1.2'\n", OS{"A \"B\" $5", "1.2", "1", "2", "A \"B\" $5 1.2 (" + machine() + ")", "A \"B\" $5"}},
		"no version":                  {"etc/os-release", "NAME=Arch\nID=arch\n", OS{Name: "Arch", FullName: "Arch (" + machine() + ")", Manufacturer: "Arch"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ReadOS(fstest.MapFS{tt.path: {Data: []byte(tt.text)}})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	if _, err := ReadOS(fstest.MapFS{}); err == nil {
		t.Error("nothing that names a system is no error")
	}
	// What names no system does not hide what does.
	got, err := ReadOS(fstest.MapFS{"etc/os-release": {Data: []byte("# empty\n")}, "etc/system-release": {Data: []byte("no version\n")}, "proc/sys/kernel/osrelease": {Data: []byte("5.10\n")}})
	if err != nil || got.Name != "Linux" || got.Version != "5.10" {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestIdentity(t *testing.T) {
	fsys := fstest.MapFS{
		"sys/class/dmi/id/product_uuid":      {Data: []byte("ABCDEF01-2345-6789-ABCD-EF0123456789\n")},
		"sys/class/dmi/id/chassis_asset_tag": {Data: []byte("7783-7084-3265-9085-8269-3286-77\n")},
	}
	if got := ProductUUID(fsys); got != "abcdef01-2345-6789-abcd-ef0123456789" {
		t.Errorf("product uuid is %q", got)
	}
	if got := CloudID(fsys); got != "7783-7084-3265-9085-8269-3286-77" {
		t.Errorf("cloud id is %q", got)
	}
	other := fstest.MapFS{
		"sys/class/dmi/id/product_uuid":      {Data: []byte("Not Specified\n")},
		"sys/class/dmi/id/chassis_asset_tag": {Data: []byte("Chassis 77\n")},
	}
	if ProductUUID(other) != "" || CloudID(other) != "" {
		t.Error("a machine that is not in Azure has an Azure identity")
	}
}

func TestSameUUID(t *testing.T) {
	const id = "abcdef01-2345-6789-abcd-ef0123456789"
	for other, same := range map[string]bool{
		id:                                     true,
		"01efcdab-4523-8967-abcd-ef0123456789": true, // the first three fields turned round
		"01efcdab-4523-8967-cdab-ef0123456789": false,
		"01efcdab-2345-6789-abcd-ef0123456789": false,
		"":                                     false,
		"no":                                   false,
	} {
		if SameUUID(id, other) != same || SameUUID(other, id) != same {
			t.Errorf("%q and %q: want %v", id, other, same)
		}
	}
}

func TestMetadata(t *testing.T) {
	const vm = `{"compute":{"azEnvironment":"AzureUSGovernmentCloud","location":"usgovvirginia","name":"%NAME%","resourceGroupName":"rg-1","subscriptionId":"22222222-2222-2222-2222-222222222222","vmId":"v","vmScaleSetName":"%SET%"}}`
	for name, tt := range map[string]struct{ vmName, set, want string }{
		"vm":             {"web-1", "", "/subscriptions/22222222-2222-2222-2222-222222222222/resourceGroups/rg-1/providers/Microsoft.Compute/virtualMachines/web-1"},
		"scale set":      {"pool_17", "pool", "/subscriptions/22222222-2222-2222-2222-222222222222/resourceGroups/rg-1/providers/Microsoft.Compute/virtualMachineScaleSets/pool/virtualMachines/17"},
		"flexible set":   {"pool_1a2b3c4d", "pool", "/subscriptions/22222222-2222-2222-2222-222222222222/resourceGroups/rg-1/providers/Microsoft.Compute/virtualMachines/pool_1a2b3c4d"},
		"hostile":        {"a/../b\\nX: y", "", ""},
		"hostile header": {"a\\r\\nX: y", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			body := strings.NewReplacer("%NAME%", tt.vmName, "%SET%", tt.set).Replace(vm)
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Metadata") != "true" {
					w.WriteHeader(http.StatusBadRequest)
				}
				_, _ = w.Write([]byte(body))
			}))
			defer server.Close()
			m, err := readMetadata(t.Context(), server.Client(), server.URL)
			if err != nil {
				t.Fatal(err)
			}
			if m.ResourceID != tt.want || DomainOf(m.Environment) != "opinsights.azure.us" || m.Location != "usgovvirginia" {
				t.Errorf("got %+v, want resource id %q", m, tt.want)
			}
		})
	}
	if DomainOf("") != "opinsights.azure.com" || DomainOf("azurechinacloud") != "opinsights.azure.cn" {
		t.Error("domains are wrong")
	}
}

func TestMetadataIsAskedDirectly(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"compute":{"location":"elsewhere"}}`))
	}))
	defer elsewhere.Close()
	server := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusFound))
	defer server.Close()
	if m, err := readMetadata(t.Context(), directClient(), server.URL); err == nil {
		t.Errorf("a redirect was followed: %+v", m)
	}
	if m, err := readMetadata(t.Context(), directClient(), elsewhere.URL); err != nil || m.Location != "elsewhere" {
		t.Errorf("got %+v, %v", m, err)
	}
	if directClient().Transport.(*http.Transport).Proxy != nil {
		t.Error("the client asks a proxy")
	}
}

func TestFullName(t *testing.T) {
	for name, tt := range map[string]struct{ host, hosts, resolv, want string }{
		"complete already":        {"web.example.com", "10.0.0.4 web.other.net web\n", "search third.org\n", "web.example.com"},
		"hosts":                   {"web", "# web.comment.net web\n127.0.0.1 localhost\n10.0.0.4 web.example.com web # c\n", "search third.org\n", "web.example.com"},
		"search domain":           {"web", "127.0.0.1 localhost\n", "nameserver 168.63.129.16\nsearch abc.ax.internal.cloudapp.net other.org\n", "web.abc.ax.internal.cloudapp.net"},
		"domain with a dot":       {"web", "", "domain example.com.\n", "web.example.com"},
		"localdomain is none":     {"web", "127.0.0.1 web.localdomain web\n", "search localdomain\n", "web"},
		"Azure's empty domain":    {"web", "", "search reddog.microsoft.com\n", "web"},
		"root domain":             {"web", "", "search .\n", "web"},
		"another host's name":     {"web", "10.0.0.5 webshop.example.com webshop\n", "", "web"},
		"nothing known":           {"web", "", "", "web"},
		"no name is not a domain": {"", "10.0.0.5 a.b\n", "search x.org\n", ""},
	} {
		fsys := fstest.MapFS{"etc/hosts": {Data: []byte(tt.hosts)}, "etc/resolv.conf": {Data: []byte(tt.resolv)}}
		if got := fullName(tt.host, fsys); got != tt.want {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
	if got := fullName("web", fstest.MapFS{}); got != "web" {
		t.Errorf("without files: %q", got)
	}
}

func TestPrivateIPs(t *testing.T) {
	var addresses []net.Addr
	for _, a := range []string{"192.168.1.9/24", "fd00::2/64", "10.0.0.10/8", "10.0.0.9/8", "172.32.0.1/12", "172.31.0.1/12", "127.0.0.1/8", "fe80::1/64", "2001:db8::1/64", "8.8.8.8/8", "10.0.0.9/16"} {
		ip, network, err := net.ParseCIDR(a)
		if err != nil {
			t.Fatal(err)
		}
		addresses = append(addresses, &net.IPNet{IP: ip, Mask: network.Mask})
	}
	want := []string{"10.0.0.9", "10.0.0.10", "172.31.0.1", "192.168.1.9", "fd00::2"}
	if diff := cmp.Diff(want, privateIPs(addresses)); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
}

// Whatever os-release says, the words of OS are printable in one line, and a
// version has a dot.
func FuzzParseOS(f *testing.F) {
	f.Add("NAME=\"Ubuntu\"\nID=ubuntu\nVERSION_ID=\"22.04\"\n")
	f.Add("NAME='a\x1bb'\nVERSION_ID=\"\\\"\n\x00=\n")
	f.Add("VERSION_ID=7")
	f.Add("CentOS release 6.10 (Final)\n")
	f.Add("6.6.51-talos\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, read := range []func([]byte) release{osRelease, lsbRelease, lineRelease, kernelRelease} {
			got := read([]byte(text)).os()
			for _, word := range []string{got.Name, got.Version, got.FullName, got.Manufacturer} {
				if strings.ContainsFunc(word, unicode.IsControl) {
					t.Errorf("%q holds a control character", word)
				}
			}
			if got.Version != "" && got.Version != got.MajorVersion+"."+got.MinorVersion {
				t.Errorf("version %q is not %q and %q", got.Version, got.MajorVersion, got.MinorVersion)
			}
		}
	})
}

// Whatever the metadata service answers fits into a header.
func FuzzParseMetadata(f *testing.F) {
	f.Add([]byte(`{"compute":{"azEnvironment":"AzurePublicCloud","location":"westeurope","name":"p_1","resourceGroupName":"rg","subscriptionId":"s","vmId":"v","vmScaleSetName":"p"}}`))
	f.Add([]byte(`{"compute":{"location":"a\r\nX: y"}}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := parseMetadata(data)
		if err != nil {
			return
		}
		for _, word := range []string{got.ResourceID, got.Location, got.Environment, got.VMID} {
			if strings.ContainsFunc(word, func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Errorf("%q does not fit into a header", word)
			}
		}
	})
}
