package main

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openloganalytics/agent/internal/product"
)

func folder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"linux-amd64", "linux-arm64", "windows-amd64.exe", "windows-arm64.exe"} {
		if err := os.WriteFile(filepath.Join(dir, product.Name+"-"+name), []byte("binary "+name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const manifestPath = "../../HandlerManifest.json"

func TestPackageIsTheSameEachTime(t *testing.T) {
	bin := folder(t)
	for _, system := range []string{"linux", "windows"} {
		var packages [2][]byte
		for i := range packages {
			path, err := pack("1.2.3", system, bin, manifestPath, t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			if packages[i], err = os.ReadFile(path); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(packages[0], packages[1]) {
			t.Errorf("%s: two packages of the same inputs differ", system)
		}
	}
}

func TestManifestFitsThePackage(t *testing.T) {
	bin := folder(t)
	for system, handlerType := range map[string]string{"linux": product.TypeLinux, "windows": product.TypeWindows} {
		path, err := pack("1.2.3", system, bin, manifestPath, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		if want := product.Publisher + "." + handlerType + "-1.2.3.zip"; filepath.Base(path) != want {
			t.Errorf("package is %s, want %s", filepath.Base(path), want)
		}
		z, err := zip.OpenReader(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = z.Close() })
		if z.File[0].Name != "HandlerManifest.json" {
			t.Errorf("%s: first member is %s, want HandlerManifest.json at the root", system, z.File[0].Name)
		}
		data, err := z.Open("HandlerManifest.json")
		if err != nil {
			t.Fatal(err)
		}
		var manifest []struct {
			SigningInfo struct{ Publisher, Type, Version string }
			Handler     struct {
				InstallCommand, EnableCommand, DisableCommand, UpdateCommand, UninstallCommand string
				RebootAfterInstall, ReportHeartbeat, ContinueOnUpdateFailure                   *bool
				UpdateMode                                                                     string
			} `json:"handlerManifest"`
		}
		if err := json.NewDecoder(data).Decode(&manifest); err != nil {
			t.Fatalf("%s: %v", system, err)
		}
		m := manifest[0]
		if m.SigningInfo.Publisher != product.Publisher || m.SigningInfo.Type != handlerType || m.SigningInfo.Version != "1.2.3" {
			t.Errorf("%s: signingInfo is %+v", system, m.SigningInfo)
		}
		h := m.Handler
		if h.RebootAfterInstall == nil || *h.RebootAfterInstall || h.ReportHeartbeat == nil || *h.ReportHeartbeat ||
			h.ContinueOnUpdateFailure == nil || !*h.ContinueOnUpdateFailure || h.UpdateMode != "UpdateWithInstall" {
			t.Errorf("%s: manifest flags are %+v", system, h)
		}
		for _, command := range []string{h.InstallCommand, h.EnableCommand, h.DisableCommand, h.UpdateCommand, h.UninstallCommand} {
			file := strings.ReplaceAll(strings.Fields(command)[0], `\`, "/")
			if _, err := z.Open(file); err != nil {
				t.Errorf("%s: command %q names no file of the package", system, command)
			}
		}
	}
}

func TestVersionIsChecked(t *testing.T) {
	for _, version := range []string{"", "1.2", "v1.2.3", "1.2.3-rc1", "1.2.3.4.5"} {
		if _, err := pack(version, "linux", folder(t), manifestPath, t.TempDir()); err == nil {
			t.Errorf("version %q was taken", version)
		}
	}
}
