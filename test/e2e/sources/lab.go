//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"

	"github.com/openloganalytics/agent/agent"
	"github.com/openloganalytics/agent/internal/paths"
	"github.com/openloganalytics/agent/internal/product"
	"github.com/openloganalytics/agent/test/emulator"
	"github.com/openloganalytics/agent/test/fakeguest"
)

const domain = "emulator.test"

// A lab is a folder with a VM, a workspace and the daemon of one source.
type lab struct {
	dir       string
	layout    paths.Layout
	guest     *fakeguest.Guest
	service   *emulator.Emulator
	workspace emulator.Workspace
	gateway   string

	closers []func() error // called in reverse
}

func newLab(ctx context.Context, s source) (_ *lab, err error) {
	if s.daemon != "" {
		if _, err := find(s.daemon); err != nil {
			return nil, err
		}
	}
	dir, err := os.MkdirTemp("", "src-")
	if err != nil {
		return nil, err
	}
	l := &lab{dir: dir, layout: paths.New(filepath.Join(dir, "vm"))}
	l.defers(func() error { return os.RemoveAll(dir) })
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	if err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(l.layout.Root(), 0o755)); err != nil { // daemons have users of their own
		return nil, err
	}
	if err := l.serve(ctx); err != nil {
		return nil, err
	}
	l.guest, err = fakeguest.New(fakeguest.Options{
		Root: l.layout.Root(), Name: product.Publisher + "." + product.TypeLinux, Env: []string{paths.EnvRoot + "=" + l.layout.Root()},
	})
	return l, err
}

func (l *lab) defers(closer func() error) { l.closers = append(l.closers, closer) }

// close ends everything, the last first.
func (l *lab) close() error {
	var failed []error
	for _, closer := range slices.Backward(l.closers) {
		failed = append(failed, closer())
	}
	return errors.Join(failed...)
}

// serve serves a workspace of its own.
func (l *lab) serve(ctx context.Context) error {
	key := make([]byte, 64)
	rand.Read(key)
	l.workspace = emulator.Workspace{ID: uuid.NewString(), Keys: []string{base64.StdEncoding.EncodeToString(key)}}
	e, err := emulator.New(emulator.Options{Dir: filepath.Join(l.dir, "service"), Workspaces: []emulator.Workspace{l.workspace}, Domain: domain})
	if err != nil {
		return err
	}
	l.service = e
	var listeners emulator.Listeners
	for _, to := range []*net.Listener{&listeners.Service, &listeners.Gateway} {
		if *to, err = (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0"); err != nil {
			return err
		}
	}
	l.gateway = "http://" + listeners.Gateway.Addr().String()
	serving, cancel := context.WithCancel(context.WithoutCancel(ctx))
	served := make(chan error, 1)
	go func() { served <- e.Serve(serving, listeners) }()
	l.defers(func() error { cancel(); return <-served })
	return nil
}

// enable installs the package with settings, and wants it to succeed.
func (l *lab) enable(version, zip string, s scene) error {
	public := map[string]any{"workspaceId": l.workspace.ID, "trustedCertificatesFile": l.service.CAFile(), "dataSources": map[string]any{}}
	protected := map[string]any{"workspaceKey": l.workspace.Keys[0], "proxy": l.gateway, "domain": domain}
	maps.Copy(public, s.public)
	maps.Copy(protected, s.protected)
	var settings fakeguest.Settings
	var err, err2 error
	settings.Public, err = json.Marshal(public)
	settings.Protected, err2 = json.Marshal(protected)
	if err := errors.Join(err, err2); err != nil {
		return err
	}
	l.guest.Publish(version, zip)
	l.defers(func() error { _, err := l.guest.Uninstall(); return err })
	if _, err := l.guest.Enable(version, settings); err != nil {
		return err
	}
	status, err := l.guest.Status()
	if err != nil {
		return err
	}
	if status.Status != "success" {
		return fmt.Errorf("the extension's status is %s: %s", status.Status, status.Message)
	}
	return nil
}

// complaints is what the agent has to say.
func (l *lab) complaints() error {
	log, err := os.ReadFile(filepath.Join(l.layout.AgentLogDir(), "agent.log"))
	if err != nil {
		return err
	}
	return fmt.Errorf("the agent's log:\n%s", log)
}

// conserved stops the agent and wants every record accounted for, and none lost
// unless that is what the scene is about.
func (l *lab) conserved(loses bool) error {
	if _, err := l.guest.Disable(); err != nil {
		return err
	}
	h, err := agent.ReadHealth(l.layout.HealthFile())
	if err != nil {
		return err
	}
	if (h.Ledger.Dropped != 0) != loses {
		return fmt.Errorf("%d records are lost: %+v", h.Ledger.Dropped, h.Ledger.Losses)
	}
	return h.Conserved()
}

// find looks for a program where Debian has programs, too, that are not in
// everybody's path.
func find(name string) (string, error) {
	for _, dir := range []string{"/usr/sbin", "/usr/bin", "/usr/local/bin"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err == nil && info.Mode()&0o111 != 0 {
			return filepath.Join(dir, name), nil
		}
	}
	newest, err := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if err != nil || len(newest) == 0 {
		return "", fmt.Errorf("there is no program %s; install its package", name)
	}
	return newest[len(newest)-1], nil
}

// as returns a user to start a daemon as.
func as(name string) (*syscall.Credential, int, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, 0, err
	}
	uid, err := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, uid, errors.Join(err, err2)
}

// folder makes a folder that belongs to a user; "" is the present one.
func (l *lab) folder(name, owner string) (string, error) {
	dir := filepath.Join(l.dir, name)
	if err := os.Mkdir(dir, 0o755); err != nil || owner == "" {
		return dir, err
	}
	_, uid, err := as(owner)
	if err != nil {
		return "", err
	}
	return dir, os.Chown(dir, uid, -1)
}

// command is a program as a user; "" is the present one.
func (l *lab) command(ctx context.Context, owner, name string, args ...string) (*exec.Cmd, error) {
	path, err := find(name)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = l.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if owner != "" {
		if cmd.SysProcAttr.Credential, _, err = as(owner); err != nil {
			return nil, err
		}
	}
	return cmd, nil
}

// program runs a program to its end.
func (l *lab) program(ctx context.Context, owner, name string, args ...string) error {
	cmd, err := l.command(ctx, owner, name, args...)
	if err != nil {
		return err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

// daemon starts a daemon in the foreground, and ends it with the lab; stop is
// the signal that it takes for a request to end.
func (l *lab) daemon(ctx context.Context, stop syscall.Signal, owner, name string, args ...string) error {
	cmd, err := l.command(context.WithoutCancel(ctx), owner, name, args...)
	if err != nil {
		return err
	}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ends, is its own affair
		close(ended)
	}()
	l.defers(func() error {
		if err := cmd.Process.Signal(stop); err != nil {
			return fmt.Errorf("%s ended by itself: %w: %s", name, err, said.String())
		}
		select {
		case <-ended:
			return nil
		case <-time.After(20 * time.Second):
			return errors.Join(fmt.Errorf("%s does not end", name), cmd.Process.Kill())
		}
	})
	return nil
}

// freePort is one that nobody listens at; network is tcp or udp.
func freePort(ctx context.Context, network string) (int, error) {
	if network == "udp" {
		conn, err := new(net.ListenConfig).ListenPacket(ctx, "udp4", "127.0.0.1:0")
		if err != nil {
			return 0, err
		}
		return conn.LocalAddr().(*net.UDPAddr).Port, conn.Close()
	}
	conn, err := new(net.ListenConfig).Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return conn.Addr().(*net.TCPAddr).Port, conn.Close()
}
