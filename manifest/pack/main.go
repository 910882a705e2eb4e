// Command pack puts the binaries of one operating system into the zip that is
// published as the extension. The same inputs give the same bytes.
package main

import (
	"archive/zip"
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/openloganalytics/agent/internal/product"
)

var (
	//go:embed start.sh
	startShell []byte
	//go:embed start.cmd
	startCommand []byte
)

// stamp is every member's time: the oldest that a zip can hold.
var stamp = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)

func main() {
	version := flag.String("version", "", "package version, major.minor.build or with a fourth number")
	system := flag.String("os", "linux", "linux or windows")
	bin := flag.String("bin", "build/bin", "folder of the binaries log-analytics-agent-<os>-<arch>")
	manifest := flag.String("manifest", "HandlerManifest.json", "the Linux handler manifest, from which the Windows one is made")
	out := flag.String("out", "build", "folder for the zip")
	flag.Parse()
	name, err := pack(*version, *system, *bin, *manifest, *out)
	if err != nil {
		fmt.Fprintln(os.Stderr, "pack:", err)
		os.Exit(1)
	}
	fmt.Println(name)
}

var versionShape = regexp.MustCompile(`^[0-9]+\.[0-9]+\.[0-9]+(\.[0-9]+)?$`)

// pack writes <out>/<Publisher>.<Type>-<version>.zip and returns its path.
func pack(version, system, bin, manifest, out string) (string, error) {
	if !versionShape.MatchString(version) {
		return "", fmt.Errorf("version %q is not three or four numbers with dots; give VERSION=1.2.3", version)
	}
	members, err := contents(version, system, bin, manifest)
	if err != nil {
		return "", err
	}
	data, err := archive(members)
	if err != nil {
		return "", err
	}
	path := filepath.Join(out, product.Publisher+"."+typeOf(system)+"-"+version+".zip")
	if err := os.WriteFile(path, data, 0o644); err != nil {
		return "", fmt.Errorf("write package: %w", err)
	}
	return path, nil
}

func typeOf(system string) string {
	if system == "windows" {
		return product.TypeWindows
	}
	return product.TypeLinux
}

// A member is one file of the package.
type member struct {
	name       string
	data       []byte
	executable bool
}

func contents(version, system, bin, manifest string) ([]member, error) {
	if system != "linux" && system != "windows" {
		return nil, fmt.Errorf("no package for %q; give linux or windows", system)
	}
	text, err := handlerManifest(version, system, manifest)
	if err != nil {
		return nil, err
	}
	members := []member{{name: "HandlerManifest.json", data: text}}
	suffix := ""
	if system == "windows" {
		suffix = ".exe"
		members = append(members, member{"bin/" + product.Name + ".cmd", startCommand, true})
	} else {
		members = append(members, member{"bin/" + product.Name, startShell, true})
	}
	for _, arch := range []string{"amd64", "arm64"} {
		name := product.Name + "-" + system + "-" + arch + suffix
		data, err := os.ReadFile(filepath.Join(bin, name))
		if err != nil {
			return nil, fmt.Errorf("read binary: %w", err)
		}
		members = append(members, member{"bin/" + name, data, true})
	}
	license, err := os.ReadFile(filepath.Join(filepath.Dir(manifest), "LICENSE"))
	if err != nil {
		return nil, fmt.Errorf("read licence: %w", err)
	}
	return append(members, member{name: "LICENSE", data: license}), nil
}

// handlerManifest returns the manifest for one version and system. Its source
// is the Linux one; only names, version and the spelling of paths differ.
func handlerManifest(version, system, path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	text := strings.ReplaceAll(string(data), `"0.0.0"`, `"`+version+`"`)
	if system == "windows" {
		text = strings.ReplaceAll(text, product.TypeLinux, product.TypeWindows)
		text = strings.ReplaceAll(text, `"bin/`+product.Name+` `, `"bin\\`+product.Name+`.cmd `)
	}
	if !json.Valid([]byte(text)) || !strings.Contains(text, version) {
		return nil, errors.New("read manifest: not JSON, or without a version to set")
	}
	return []byte(text), nil
}

func archive(members []member) ([]byte, error) {
	var buf bytes.Buffer
	w := zip.NewWriter(&buf)
	for _, m := range members {
		header := &zip.FileHeader{Name: m.name, Method: zip.Deflate, Modified: stamp}
		header.SetMode(0o644)
		if m.executable {
			header.SetMode(0o755)
		}
		f, err := w.CreateHeader(header)
		if err == nil {
			_, err = io.Copy(f, bytes.NewReader(m.data))
		}
		if err != nil {
			return nil, fmt.Errorf("add %s: %w", m.name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("close package: %w", err)
	}
	return buf.Bytes(), nil
}
