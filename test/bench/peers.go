//go:build linux

package main

import (
	"bytes"
	"context"
	"embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"text/template"

	"github.com/openloganalytics/agent/agent/source/perf"
	"github.com/openloganalytics/agent/handler"
	"github.com/openloganalytics/agent/internal/paths"
	"github.com/openloganalytics/agent/internal/secret"
)

// A peer is one agent in one mode.
type peer struct {
	name string // in tables and results
	// mode says what of it matters for a comparison.
	mode    string
	durable bool
	// copies is how often a syslog message is in an upload.
	copies int64
	// prepare writes what the agent needs into s.Dir and says how to start it.
	prepare func(ctx context.Context, s setup) (launch, error)
}

// A setup is what an agent is configured for.
type setup struct {
	Dir       string // its own folder
	Input     string // file, udp, tcp, metrics or nothing
	File      string // followed from its beginning
	Form      string // of syslog messages: 3164 or 5424
	Listen    string // port of syslog messages
	Processes bool   // counters of every process as well
	Sink      string // port of HTTPS on localhost
	Gateway   string // URL of the sink's CONNECT proxy
	CA        string // PEM file
	Durable   bool
	Count     int // records that will come; for ideal, which ends after them
}

// A launch is how to start an agent.
type launch struct {
	args  []string
	env   []string
	store string // folder with what waits for upload
}

//go:embed configs
var configs embed.FS

func expand(name string, values any) ([]byte, error) {
	t, err := template.ParseFS(configs, name)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = t.Execute(&out, values)
	return out.Bytes(), err
}

// Names of peers, as works ask for them.
const (
	ours           = "this agent"
	ideal          = "ideal"
	otelDisk       = "otelcol, disk"
	otelMemory     = "otelcol, memory"
	rsyslogMemory  = "rsyslog, memory"
	rsyslogDisk    = "rsyslog, disk"
	syslogNGDisk   = "syslog-ng, disk"
	telegrafMemory = "telegraf, memory"
)

// peers returns all of them. binary is our agent's, identity a folder with an
// identity that the workspace knows.
func peers(in *installer, binary, identity string) []*peer {
	configured := func(config string, start func(ctx context.Context, s setup, file string) (launch, error)) func(context.Context, setup) (launch, error) {
		return func(ctx context.Context, s setup) (launch, error) {
			text, err := expand("configs/"+config, s)
			if err != nil {
				return launch{}, err
			}
			file := filepath.Join(s.Dir, config)
			if err := os.WriteFile(file, text, 0o644); err != nil {
				return launch{}, err
			}
			return start(ctx, s, file)
		}
	}
	otel := configured("otelcol.yaml", func(ctx context.Context, s setup, file string) (launch, error) {
		program, err := in.otelcol(ctx)
		return launch{args: []string{program, "--config", file}, store: filepath.Join(s.Dir, "store")}, err
	})
	syslogd := configured("rsyslog.conf", func(ctx context.Context, s setup, file string) (launch, error) {
		dir, err := in.unpack(ctx, "rsyslog")
		modules, libraries := filepath.Join(dir, "usr/lib", triplet, "rsyslog"), librariesOf(dir)
		return launch{
			args: []string{filepath.Join(dir, "usr/sbin/rsyslogd"), "-n", "-C", "-M", modules, "-f", file, "-i", filepath.Join(s.Dir, "pid")},
			env:  []string{libraries}, store: s.Dir,
		}, err
	})
	syslogNG := configured("syslog-ng.conf", func(ctx context.Context, s setup, file string) (launch, error) {
		dir, err := in.unpack(ctx, "syslog-ng")
		modules := filepath.Join(dir, "usr/lib/syslog-ng/3.38")
		return launch{
			args: []string{
				filepath.Join(dir, "usr/sbin/syslog-ng"), "-F", "--no-caps", "--module-path=" + modules, "-f", file,
				"--persist-file=" + filepath.Join(s.Dir, "persist"), "--pidfile=" + filepath.Join(s.Dir, "pid"), "--control=" + filepath.Join(s.Dir, "ctl"),
			},
			env: []string{librariesOf(dir)}, store: filepath.Join(s.Dir, "store"),
		}, errors.Join(err, os.MkdirAll(filepath.Join(s.Dir, "store"), 0o755))
	})
	graf := configured("telegraf.conf", func(ctx context.Context, _ setup, file string) (launch, error) {
		program, err := in.telegraf(ctx)
		return launch{args: []string{program, "--config", file}}, err
	})
	return []*peer{
		{name: ours, mode: "disk, synced; deflate 1", durable: true, copies: 1, prepare: agentOf(binary, identity)},
		{name: ideal, mode: "disk, synced; gzip 1", durable: true, copies: 1, prepare: prepareIdeal},
		{name: otelDisk, mode: "disk, not synced; gzip 6", durable: true, copies: 2, prepare: otel},
		{name: otelMemory, mode: "memory; gzip 1", copies: 2, prepare: otel},
		{name: rsyslogMemory, mode: "memory; not compressed", copies: 1, prepare: syslogd},
		{name: rsyslogDisk, mode: "disk-assisted, not synced; not compressed", durable: true, copies: 1, prepare: syslogd},
		{name: syslogNGDisk, mode: "disk, not synced; not compressed", durable: true, copies: 1, prepare: syslogNG},
		{name: telegrafMemory, mode: "memory; gzip 6", copies: 1, prepare: graf},
	}
}

// triplet is Debian's name for this machine's folder of libraries.
var triplet = map[string]string{"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}[runtime.GOARCH]

func librariesOf(dir string) string {
	return "LD_LIBRARY_PATH=" + filepath.Join(dir, "usr/lib", triplet) + ":" + filepath.Join(dir, "lib", triplet) + ":" +
		filepath.Join(dir, "usr/lib/syslog-ng") + ":" + filepath.Join(dir, "usr/lib/syslog-ng/3.38")
}

// workspaceID is the workspace that our agent reports to.
const workspaceID = "11111111-2222-3333-4444-555555555555"

// agentOf prepares our agent as the extension's handler does: the settings that
// a user writes become the agent's config. Nothing is switched off; what the
// agent does besides (heartbeat, health, ledger) is part of its cost.
func agentOf(binary, identity string) func(context.Context, setup) (launch, error) {
	return func(_ context.Context, s setup) (launch, error) {
		root := filepath.Join(s.Dir, "vm")
		layout := paths.New(root)
		sources := map[string]any{}
		switch s.Input {
		case "file":
			sources["logFiles"] = []any{map[string]any{
				"streams": []string{"Custom-Bench_CL"}, "filePatterns": []string{s.File}, "format": "text", "fromStart": true,
			}}
		case "udp", "tcp":
			port, err := strconv.Atoi(s.Listen)
			if err != nil {
				return launch{}, err
			}
			sources["syslog"] = []any{map[string]any{
				"streams": []string{"Microsoft-Syslog"}, "facilityNames": []string{"*"}, "logLevels": []string{"*"}, "listen": map[string]any{s.Input: port},
			}}
		case "metrics":
			specifiers := perf.DefaultSpecifiers()
			if s.Processes {
				specifiers = append(slices.Clone(specifiers), `Process(*)\*`)
			}
			sources["performanceCounters"] = []any{map[string]any{
				"streams": []string{"Microsoft-Perf"}, "samplingFrequencyInSeconds": 10, "counterSpecifiers": specifiers,
			}}
		}
		public, err := json.Marshal(map[string]any{
			"workspaceId": workspaceID, "dataSources": sources,
			"cpuQuotaPercentage": 1000, // as the peers, which have no ceiling
		})
		if err != nil {
			return launch{}, err
		}
		key := base64.StdEncoding.EncodeToString(make([]byte, 64)) // the sink takes any
		protected, err := json.Marshal(map[string]any{"workspaceKey": key, "domain": domain})
		if err != nil {
			return launch{}, err
		}
		settings, err := handler.ParseSettings(public, secret.New(string(protected)))
		if err != nil {
			return launch{}, err
		}
		config := settings.Config
		config.Generation = settings.Generation()
		authorities, err := os.ReadFile(s.CA)
		if err != nil {
			return launch{}, err
		}
		config.TrustedCertificates = string(authorities)
		text, err := json.Marshal(config)
		if err != nil {
			return launch{}, err
		}
		for _, dir := range []string{layout.ConfigDir(), layout.AgentDir(), layout.LogDir(), layout.RunDir(), layout.WorkspaceDir(workspaceID)} {
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return launch{}, err
			}
		}
		if exists(identity) {
			err = os.CopyFS(layout.WorkspaceDir(workspaceID), os.DirFS(identity))
		} else {
			err = os.WriteFile(layout.WorkspaceKeyFile(workspaceID), []byte(key), 0o600)
		}
		if err != nil {
			return launch{}, err
		}
		err = errors.Join(
			os.WriteFile(layout.ConfigFile(), text, 0o600),
			os.WriteFile(layout.ProxyFile(), []byte(s.Gateway), 0o600),
		)
		return launch{
			args: []string{binary, "run"}, store: layout.SpoolDir(),
			// The second is what the unit of the service sets for the default ceiling.
			env: []string{paths.EnvRoot + "=" + root, fmt.Sprintf("GOMEMLIMIT=%dMiB", config.Limits.MemoryMB*85/100)},
		}, err
	}
}
