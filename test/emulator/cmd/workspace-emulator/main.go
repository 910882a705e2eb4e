// Command workspace-emulator plays the Log Analytics service on this machine:
// point an agent at its gateway, trust its authority and watch the rows arrive.
package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/openloganalytics/agent/internal/product"
	"github.com/openloganalytics/agent/test/emulator"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "workspace-emulator:", err)
		os.Exit(1)
	}
}

// options is the command line.
type options struct {
	listen, gateway, api string
	dir, domain          string
	workspaces           []emulator.Workspace
	readyFile, passFile  string
	certHosts            []string
}

func parse(args []string, out io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("workspace-emulator", flag.ContinueOnError)
	flags.SetOutput(out)
	flags.StringVar(&o.listen, "listen", "127.0.0.1:0", "`address` of the service (TLS)")
	flags.StringVar(&o.gateway, "gateway", "127.0.0.1:0", "`address` of the gateway (HTTP CONNECT); empty: none")
	flags.StringVar(&o.api, "api", "127.0.0.1:0", "loopback `address` of the control API and web page; empty: none")
	flags.StringVar(&o.dir, "dir", "workspace-emulator", "`folder` for rows, authority and agents")
	flags.StringVar(&o.domain, "domain", "emulator.test", "DNS `name` in the place of opinsights.azure.com")
	flags.StringVar(&o.readyFile, "ready-file", "", "`file` to write addresses to, as JSON, once everything listens")
	flags.StringVar(&o.passFile, "gateway-password-file", "", "`file` with user:password that the gateway asks for")
	flags.Func("workspace", "`id:key[,key2]` of a workspace; repeatable; without one a workspace is made up and kept in the folder", func(text string) error {
		id, keys, ok := strings.Cut(text, ":")
		if !ok {
			return errors.New("not id:key[,key2]")
		}
		o.workspaces = append(o.workspaces, emulator.Workspace{ID: id, Keys: strings.Split(keys, ",")})
		return nil
	})
	flags.Func("cert-hosts", "`names` and addresses, separated by commas, to add to the server certificate", func(text string) error {
		o.certHosts = append(o.certHosts, strings.Split(text, ",")...)
		return nil
	})
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("read command line: %q is no flag", flags.Arg(0))
	}
	return o, nil
}

func run(ctx context.Context, args []string, out io.Writer) error {
	o, err := parse(args, out)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.dir, 0o750); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	ready := ready{Version: product.Version, Domain: o.domain}
	if len(o.workspaces) == 0 {
		made, err := madeUpWorkspace(filepath.Join(o.dir, "workspace.json"))
		if err != nil {
			return err
		}
		o.workspaces = []emulator.Workspace{made}
		ready.Key = made.Keys[0]
	}
	ready.Workspace = o.workspaces[0].ID
	user, password, err := gatewayPassword(o.passFile)
	if err != nil {
		return err
	}
	lines := &printer{out: out}
	e, err := emulator.New(emulator.Options{
		Dir: o.dir, Workspaces: o.workspaces, Domain: o.domain, CertHosts: o.certHosts,
		GatewayUser: user, GatewayPassword: password, Log: lines.print,
	})
	if err != nil {
		return err
	}
	ready.CAFile = e.CAFile()
	listeners, err := listen(ctx, o, &ready)
	if err != nil {
		return err
	}
	// The doors are open from here on: whoever is told can come.
	if err := ready.tell(o.readyFile, lines.print); err != nil {
		return errors.Join(err, shut(listeners))
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var counting sync.WaitGroup
	counting.Go(func() { printCounts(ctx, e, lines.print) })
	err = e.Serve(ctx, listeners)
	cancel()
	counting.Wait()
	lines.print("stopped")
	return err
}

// printer writes whole lines with the time in front, from any goroutine.
type printer struct {
	mu  sync.Mutex
	out io.Writer
}

func (p *printer) print(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintln(p.out, time.Now().Format(time.TimeOnly), line)
}

// printCounts tells every ten seconds which tables have grown.
func printCounts(ctx context.Context, e *emulator.Emulator, print func(string)) {
	type key struct{ workspace, table string }
	before := map[key]int64{}
	for _, t := range e.Tables() {
		before[key{t.Workspace, t.Table}] = t.Rows
	}
	ticker := time.NewTicker(10 * time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for _, t := range e.Tables() {
			k := key{t.Workspace, t.Table}
			if grown := t.Rows - before[k]; grown > 0 {
				print(fmt.Sprintf("rows     %s: +%d, %d in all", t.Table, grown, t.Rows))
			}
			before[k] = t.Rows
		}
	}
}

// ready is the content of the ready file.
type ready struct {
	Version   string `json:"version"`
	Domain    string `json:"domain"`
	Workspace string `json:"workspace"`
	// Key is there when the workspace was made up.
	Key     string `json:"key,omitempty"`
	CAFile  string `json:"caFile"`
	Service string `json:"service"`
	Gateway string `json:"gateway,omitempty"` // a URL, as the proxy setting takes it
	API     string `json:"api,omitempty"`     // a URL
}

// tell prints where everything is and writes the ready file, which only its
// owner can read.
func (r ready) tell(file string, print func(string)) error {
	print("service   https://" + r.Workspace + ".ods." + r.Domain + " at " + r.Service)
	print("trust     " + r.CAFile)
	if r.Gateway != "" {
		print("proxy     " + r.Gateway)
	}
	if r.API != "" {
		print("web page  " + r.API)
	}
	print("workspace " + r.Workspace)
	if r.Key != "" {
		print("key       " + r.Key)
	}
	if file == "" {
		return nil
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("write ready file: %w", err)
	}
	return writeOwn(file, append(text, '\n'))
}

// writeOwn replaces a file that only its owner can read.
func writeOwn(file string, data []byte) error {
	beside, err := os.CreateTemp(filepath.Dir(file), ".new-*") // mode 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	_, err = beside.Write(data)
	if err = errors.Join(err, beside.Sync(), beside.Close()); err == nil {
		err = os.Rename(beside.Name(), file)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", file, errors.Join(err, os.Remove(beside.Name())))
	}
	return nil
}

// listen opens the doors and notes their addresses.
func listen(ctx context.Context, o options, r *ready) (l emulator.Listeners, err error) {
	open := func(name, address string) net.Listener {
		if address == "" || err != nil {
			return nil
		}
		var opened net.Listener
		if opened, err = new(net.ListenConfig).Listen(ctx, "tcp", address); err != nil {
			err = fmt.Errorf("listen as %s: %w", name, err)
			return nil
		}
		return opened
	}
	if o.api != "" && !loopback(o.api) {
		return l, fmt.Errorf("listen as api: %q is not a loopback address, and the API shows every row to whoever reaches it", o.api)
	}
	l = emulator.Listeners{Service: open("service", o.listen), Gateway: open("gateway", o.gateway), API: open("api", o.api)}
	if err != nil {
		return l, errors.Join(err, shut(l))
	}
	if l.Service != nil {
		r.Service = l.Service.Addr().String()
	}
	if l.Gateway != nil {
		r.Gateway = "http://" + l.Gateway.Addr().String()
	}
	if l.API != nil {
		r.API = "http://" + l.API.Addr().String() + "/"
	}
	return l, nil
}

func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	ip := net.ParseIP(host)
	return err == nil && (host == "localhost" || ip != nil && ip.IsLoopback())
}

func shut(l emulator.Listeners) error {
	var err error
	for _, listener := range []net.Listener{l.Service, l.Gateway, l.API} {
		if listener != nil {
			err = errors.Join(err, listener.Close())
		}
	}
	return err
}

// madeUpWorkspace is the workspace of earlier runs in this folder, or a new one.
func madeUpWorkspace(file string) (emulator.Workspace, error) {
	var w emulator.Workspace
	text, err := os.ReadFile(file)
	if err == nil {
		if err := json.Unmarshal(text, &w); err != nil || len(w.Keys) == 0 {
			return w, fmt.Errorf("read %s: it holds no workspace; delete it to make up a new one", file)
		}
		return w, nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return w, fmt.Errorf("read workspace: %w", err)
	}
	var random [16 + 64]byte
	rand.Read(random[:])
	id := random[:16]
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	w.ID = fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
	w.Keys = []string{base64.StdEncoding.EncodeToString(random[16:])}
	if text, err = json.Marshal(w); err != nil {
		return w, fmt.Errorf("keep workspace: %w", err)
	}
	return w, writeOwn(file, text)
}

// gatewayPassword reads user:password.
func gatewayPassword(file string) (user, password string, err error) {
	if file == "" {
		return "", "", nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", "", fmt.Errorf("read gateway password: %w", err)
	}
	user, password, ok := strings.Cut(strings.TrimSpace(string(text)), ":")
	if !ok || user == "" {
		return "", "", fmt.Errorf("read gateway password: %s does not hold user:password", file)
	}
	return user, password, nil
}
