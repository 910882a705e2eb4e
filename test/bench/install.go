//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// Versions of the peers that are built here; rsyslog and syslog-ng are those
// of the distribution.
const (
	builder  = "go.opentelemetry.io/collector/cmd/builder@v0.160.0"
	telegraf = "github.com/influxdata/telegraf@v1.37.2"
	// telegrafTags leave out every plugin but those that are used.
	telegrafTags = "custom,inputs.tail,inputs.syslog,inputs.cpu,inputs.mem,inputs.disk,inputs.diskio,inputs.net,inputs.system," +
		"inputs.processes,outputs.http,parsers.value,serializers.json"
)

// debian lists the packages of each peer that is taken from Debian, with the
// libraries that a machine may lack. They are unpacked, not installed: no
// service of the machine changes.
var debian = map[string][]string{
	"rsyslog":   {"rsyslog", "rsyslog-elasticsearch", "libestr0", "libfastjson4", "liblognorm5", "libcurl4"},
	"syslog-ng": {"syslog-ng-core", "syslog-ng-mod-http", "libivykis0", "libnet1", "libjson-c5", "libwrap0", "libpcre3", "libcurl4"},
}

// An installer gets peers into a folder, once.
type installer struct {
	dir string
	mu  sync.Mutex // one at a time
}

// otelcol returns the OpenTelemetry Collector.
func (in *installer) otelcol(ctx context.Context) (string, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	binary := filepath.Join(in.dir, "otelcol", "otelcol")
	if exists(binary) {
		return binary, nil
	}
	say("building the OpenTelemetry Collector, which takes some minutes")
	if err := os.MkdirAll(in.dir, 0o755); err != nil {
		return "", err
	}
	recipe, err := expand("configs/otelcol-build.yaml", map[string]string{"Dir": filepath.Dir(binary)})
	if err != nil {
		return "", err
	}
	file := filepath.Join(in.dir, "otelcol-build.yaml")
	if err := os.WriteFile(file, recipe, 0o644); err != nil {
		return "", err
	}
	_, err = output(ctx, in.dir, "go", "run", builder, "--config="+file, "--skip-strict-versioning")
	return binary, err
}

// telegraf returns Telegraf.
func (in *installer) telegraf(ctx context.Context) (string, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	binary := filepath.Join(in.dir, "telegraf")
	if exists(binary) {
		return binary, nil
	}
	say("building Telegraf, which takes some minutes")
	if err := os.MkdirAll(in.dir, 0o755); err != nil {
		return "", err
	}
	described, err := output(ctx, in.dir, "go", "mod", "download", "-json", telegraf)
	if err != nil {
		return "", err
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(described, &module); err != nil {
		return "", fmt.Errorf("read where %s is: %w", telegraf, err)
	}
	_, err = output(ctx, module.Dir, "go", "build", "-trimpath", "-ldflags", "-s -w", "-tags", telegrafTags, "-o", binary, "./cmd/telegraf")
	return binary, err
}

// unpack returns the folder with a peer's Debian packages.
func (in *installer) unpack(ctx context.Context, peer string) (string, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	dir := filepath.Join(in.dir, peer)
	if exists(dir) {
		return dir, nil
	}
	say("fetching %s", peer)
	fresh := dir + ".new"
	if err := errors.Join(os.RemoveAll(fresh), os.MkdirAll(fresh, 0o755)); err != nil {
		return "", err
	}
	if _, err := output(ctx, fresh, "apt-get", append([]string{"download", "-q"}, debian[peer]...)...); err != nil {
		return "", err
	}
	packages, err := filepath.Glob(filepath.Join(fresh, "*.deb"))
	if err != nil {
		return "", err
	}
	for _, p := range packages {
		if _, err := output(ctx, fresh, "dpkg", "-x", p, fresh); err != nil {
			return "", err
		}
		if err := os.Remove(p); err != nil {
			return "", err
		}
	}
	return dir, os.Rename(fresh, dir)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// output runs a program to its end; what it complained of is in the error.
func output(ctx context.Context, dir, name string, args ...string) ([]byte, error) {
	c := exec.CommandContext(ctx, name, args...)
	c.Dir = dir
	out, err := c.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		lines := strings.Split(strings.TrimSpace(string(exit.Stderr)), "\n")
		return nil, fmt.Errorf("%s %s: %w: %s", name, args[0], err, lines[len(lines)-1])
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", name, args[0], err)
	}
	return out, nil
}
