package agent

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/openloganalytics/agent/agent/workspace"
	"github.com/openloganalytics/agent/internal/atomicfile"
	"github.com/openloganalytics/agent/internal/hostinfo"
	"github.com/openloganalytics/agent/internal/product"
)

// A host is what this machine is, read once at start.
type host struct {
	os       hostinfo.OS
	name     string // short
	fqdn     string
	metadata hostinfo.Metadata
	uuid     string
	cloudID  string
}

// metadataPatience is how long the start waits for the instance metadata,
// which answers at once where there is any.
const metadataPatience = 5 * time.Second

// readHost learns what this machine is. What cannot be learned stays empty:
// nothing essential depends on it.
func readHost(ctx context.Context, o Options) *host {
	fsys := os.DirFS("/")
	h := &host{name: hostinfo.ShortName(), fqdn: hostinfo.FQDN(fsys), uuid: o.Config.MachineID, cloudID: hostinfo.CloudID(fsys)}
	var err error
	if h.os, err = hostinfo.ReadOS(fsys); err != nil {
		o.Log.Warn("operating system not recognised", "error", err)
	}
	if h.metadata, err = readMetadata(ctx, o); err != nil {
		o.Log.Info("no instance metadata, as outside Azure", "error", err)
	}
	return h
}

// readMetadata asks the instance metadata service, and falls back to what it
// said last: which cloud a VM is in does not change.
func readMetadata(ctx context.Context, o Options) (hostinfo.Metadata, error) {
	cache := filepath.Join(o.Layout.AgentDir(), "metadata.json")
	ctx, cancel := context.WithTimeout(ctx, metadataPatience)
	defer cancel()
	m, err := o.Metadata(ctx)
	if err == nil {
		data, err := json.Marshal(m)
		if err != nil {
			return m, fmt.Errorf("keep instance metadata: %w", err)
		}
		return m, atomicfile.Write(cache, data, 0o600)
	}
	data, readErr := atomicfile.ReadLimited(cache, 64<<10)
	if errors.Is(readErr, fs.ErrNotExist) {
		return m, err
	}
	return m, errors.Join(err, readErr, json.Unmarshal(data, &m))
}

// errMetadataCame is why the agent begins anew.
var errMetadataCame = errors.New("instance metadata came")

// awaitMetadata asks for the instance metadata until there are some, and then
// calls stop with errMetadataCame; it ends with ctx, and when they are not
// needed any more. At boot a machine can be up before they are.
func awaitMetadata(ctx context.Context, o Options, enough func() bool, stop context.CancelCauseFunc) {
	const first, longest = 2 * time.Second, time.Minute
	for wait := first; ; wait = min(2*wait, longest) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		if enough() {
			return
		}
		if m, err := readMetadata(ctx, o); err == nil && m != (hostinfo.Metadata{}) {
			stop(errMetadataCame)
			return
		}
	}
}

// placed reports whether every workspace has been found in the cloud that it
// is looked for in.
func placed(workspaces []Workspace, clients []*workspace.Client) bool {
	for i, c := range clients {
		if state, _, _, _ := c.State(); workspaces[i].Domain == "" && state != StateConnected {
			return false
		}
	}
	return true
}

// workspaceOptions is what the client of one workspace is made of.
func workspaceOptions(o Options, w Workspace, h *host, roots *x509.CertPool, changed func()) workspace.Options {
	domain := w.Domain
	if domain == "" {
		domain = hostinfo.DomainOf(h.metadata.Environment)
	}
	resource := o.Config.VMResourceID
	if resource == "" {
		resource = h.metadata.ResourceID
	}
	return workspace.Options{
		ID: w.ID, Domain: domain,
		Dir: o.Layout.WorkspaceDir(w.ID), KeyFile: o.Layout.WorkspaceKeyFile(w.ID),
		Host: workspace.Host{
			FQDN: h.fqdn, OSName: h.os.FullName, OSManufacturer: h.os.Manufacturer, OSVersion: h.os.Version, AgentVersion: product.Version,
		},
		ResourceID: resource, Region: h.metadata.Location, CloudID: h.cloudID, UUID: h.uuid,
		Proxy: o.Proxy, RootCAs: roots, OnChange: changed, Log: o.Log,
	}
}
