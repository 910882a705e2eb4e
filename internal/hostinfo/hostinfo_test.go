package hostinfo

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

func TestReadOS(t *testing.T) {
	for name, tt := range map[string]struct {
		path, text string
		want       OS
	}{
		"ubuntu":                      {"etc/os-release", "NAME=\"Ubuntu\"\nID=ubuntu\nVERSION_ID=\"22.04\"\n", OS{"Ubuntu", "22.04", "22", "04", "Ubuntu 22.04 (" + machine() + ")", "Canonical Group Limited"}},
		"debian, no dot, other place": {"usr/lib/os-release", "# c\nNAME=\"Debian GNU/Linux\"\nID=debian\nVERSION_ID=\"12\"\n", OS{"Debian", "12.0", "12", "0", "Debian 12.0 (" + machine() + ")", "Software in the Public Interest, Inc."}},
		"unknown vendor":              {"etc/os-release", "NAME='Flatcar Container Linux'\nID=flatcar\nVERSION_ID=3815.2.0\n", OS{"Flatcar Container Linux", "3815.2.0", "3815", "2.0", "Flatcar Container Linux 3815.2.0 (" + machine() + ")", ""}},
		"no version":                  {"etc/os-release", "NAME=Arch\nID=arch\n", OS{Name: "Arch", FullName: "Arch (" + machine() + ")"}},
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
		t.Error("no os-release is no error")
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

func TestMetadata(t *testing.T) {
	const vm = `{"compute":{"azEnvironment":"AzureUSGovernmentCloud","location":"usgovvirginia","name":"%NAME%","resourceGroupName":"rg-1","subscriptionId":"22222222-2222-2222-2222-222222222222","vmId":"v","vmScaleSetName":"%SET%"}}`
	for name, tt := range map[string]struct{ vmName, set, want string }{
		"vm":             {"web-1", "", "/subscriptions/22222222-2222-2222-2222-222222222222/resourceGroups/rg-1/providers/Microsoft.Compute/virtualMachines/web-1"},
		"scale set":      {"pool_17", "pool", "/subscriptions/22222222-2222-2222-2222-222222222222/resourceGroups/rg-1/providers/Microsoft.Compute/virtualMachineScaleSets/pool/virtualMachines/17"},
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
