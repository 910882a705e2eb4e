// Command demo runs the real package through a whole life on this machine,
// without root and without Azure: a folder stands for the VM, the workspace
// emulator for Log Analytics. It writes log lines and syslog messages, shows
// the rows arriving, and fails when one is missing or something is left behind.
package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"

	"github.com/openloganalytics/agent/agent"
	"github.com/openloganalytics/agent/internal/paths"
	"github.com/openloganalytics/agent/internal/product"
	"github.com/openloganalytics/agent/test/emulator"
	"github.com/openloganalytics/agent/test/fakeguest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "\ndemo:", err)
		os.Exit(1)
	}
}

const (
	domain      = "emulator.test"
	table       = "DemoApp_CL"
	handlerName = product.Publisher + "." + product.TypeLinux
)

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	packages := flags.String("package", "build", "`folder` with the package")
	version := flags.String("version", "1.0.0", "its version")
	api := flags.String("page", "127.0.0.1:0", "`address` of the web page")
	if err := flags.Parse(args); err != nil {
		return err
	}
	length, err := demoLength()
	if err != nil {
		return err
	}
	// Sockets have short paths, so the VM lies in the system's own folder.
	root, err := os.MkdirTemp("", "demo-vm-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(root) }() // what is left in it was shown before
	d := &demo{root: root, version: *version, zip: filepath.Join(*packages, handlerName+"-"+*version+".zip")}
	return d.life(ctx, *api, length)
}

// demoLength is how long rows are written: until Ctrl-C, or for
// DEMO_SECONDS, or shortly when CI says that nobody watches.
func demoLength() (time.Duration, error) {
	text := os.Getenv("DEMO_SECONDS")
	if text == "" && os.Getenv("CI") != "" {
		text = "10"
	}
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("DEMO_SECONDS is %q; give a number of seconds", text)
	}
	return time.Duration(n) * time.Second, nil
}

type demo struct {
	root, version, zip string
	workspace          emulator.Workspace
	service            *emulator.Emulator
	guest              *fakeguest.Guest
	gateway, page      string
	lines, messages    int
}

func say(format string, args ...any) { fmt.Printf(format+"\n", args...) }

// life is the whole story.
func (d *demo) life(ctx context.Context, api string, length time.Duration) (err error) {
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	ended, err := d.serve(serving, api)
	if err != nil {
		stopServing()
		return err
	}
	defer func() {
		stopServing()
		err = errors.Join(err, <-ended)
	}()
	say("\nThe workspace emulator stands in for Log Analytics.\n  web page   %s\n  workspace  %s\n", d.page, d.workspace.ID)

	say("The guest agent unpacks the package and runs its commands in %s:", d.root)
	if err := d.deploy(); err != nil {
		return err
	}
	status, err := d.guest.Status()
	if err != nil {
		return err
	}
	say("  status     %s: %s\n", status.Status, status.Message)
	if status.Status != "success" {
		return errors.New("enable did not succeed")
	}
	writeErr := d.write(ctx, length)
	arriveErr := d.arrive()
	d.show()
	accountErr := d.account()
	removeErr := d.remove()
	return errors.Join(writeErr, arriveErr, accountErr, removeErr)
}

// serve starts the emulator; the channel tells how it ended.
func (d *demo) serve(ctx context.Context, api string) (<-chan error, error) {
	key := make([]byte, 64)
	rand.Read(key)
	d.workspace = emulator.Workspace{ID: uuid.NewString(), Keys: []string{base64.StdEncoding.EncodeToString(key)}}
	e, err := emulator.New(emulator.Options{Dir: filepath.Join(d.root, "service"), Workspaces: []emulator.Workspace{d.workspace}, Domain: domain})
	if err != nil {
		return nil, err
	}
	d.service = e
	var l emulator.Listeners
	for _, one := range []struct {
		address string
		to      *net.Listener
	}{{"127.0.0.1:0", &l.Service}, {"127.0.0.1:0", &l.Gateway}, {api, &l.API}} {
		if *one.to, err = (&net.ListenConfig{}).Listen(ctx, "tcp", one.address); err != nil {
			return nil, err
		}
	}
	d.gateway, d.page = "http://"+l.Gateway.Addr().String(), "http://"+l.API.Addr().String()+"/"
	ended := make(chan error, 1)
	go func() { ended <- e.Serve(ctx, l) }()
	return ended, nil
}

func (d *demo) logFile() string { return filepath.Join(d.root, "var", "log", "demo", "app.log") }

// deploy installs and enables the package with settings as a user writes them.
func (d *demo) deploy() error {
	g, err := fakeguest.New(fakeguest.Options{
		Root: d.root, Name: handlerName, Env: []string{paths.EnvRoot + "=" + d.root},
		Log: func(line string) { say("  %s", line) },
	})
	if err != nil {
		return err
	}
	d.guest = g
	g.Publish(d.version, d.zip)
	if err := os.MkdirAll(filepath.Dir(d.logFile()), 0o755); err != nil {
		return err
	}
	public, err := json.Marshal(map[string]any{
		"workspaceId":             d.workspace.ID,
		"trustedCertificatesFile": d.service.CAFile(),
		"dataSources": map[string]any{
			"syslog": []any{map[string]any{"streams": []string{"Microsoft-Syslog"}, "facilityNames": []string{"*"}, "logLevels": []string{"*"}}},
			"performanceCounters": []any{map[string]any{
				"streams": []string{"Microsoft-Perf"}, "samplingFrequencyInSeconds": 2,
				"counterSpecifiers": []string{`Processor(_Total)\% Processor Time`, `Memory(*)\% Used Memory`, `Logical Disk(_Total)\% Used Space`},
			}},
			"logFiles": []any{map[string]any{"streams": []string{"Custom-" + table}, "filePatterns": []string{d.logFile()}, "format": "text"}},
		},
	})
	if err != nil {
		return err
	}
	protected, err := json.Marshal(map[string]any{"workspaceKey": d.workspace.Keys[0], "proxy": d.gateway, "domain": domain})
	if err != nil {
		return err
	}
	runs, err := g.Enable(d.version, fakeguest.Settings{Public: public, Protected: protected})
	if err != nil {
		for _, r := range runs {
			say("%s", r.Output)
		}
		log, readErr := os.ReadFile(g.HandlerLog())
		if readErr == nil {
			say("%s", log)
		}
	}
	return err
}

// write writes numbered lines and messages until ctx ends or length is over,
// with a look at the counts every second.
func (d *demo) write(ctx context.Context, length time.Duration) error {
	if length > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, length)
		defer cancel()
		say("Log lines and syslog messages are written for %v:", length)
	} else {
		say("Log lines and syslog messages are written until you press Ctrl-C:")
	}
	file, err := os.OpenFile(d.logFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // each write was checked
	daemon, err := net.Dial("unixgram", paths.New(d.root).SyslogSocket())
	if err != nil {
		return err
	}
	defer func() { _ = daemon.Close() }() // each write was checked
	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Go(func() { d.watch(ctx) })
	for ticker := time.NewTicker(10 * time.Millisecond); ; {
		select {
		case <-ctx.Done():
			ticker.Stop()
			return nil
		case <-ticker.C:
		}
		if _, err := fmt.Fprintf(file, "%s INFO order=%d took=%dms\n", time.Now().UTC().Format(time.RFC3339Nano), d.lines+1, d.lines%97); err != nil {
			return err
		}
		d.lines++
		if d.lines%2 == 0 {
			if _, err := fmt.Fprintf(daemon, "<13>%s demo-vm shop[4711]: payment=%d accepted", time.Now().Format(time.Stamp), d.messages+1); err != nil {
				return err
			}
			d.messages++
		}
	}
}

// watch prints how many rows have arrived, once a second.
func (d *demo) watch(ctx context.Context) {
	for ticker := time.NewTicker(time.Second); ; {
		d.counts()
		select {
		case <-ctx.Done():
			ticker.Stop()
			return
		case <-ticker.C:
		}
	}
}

func (d *demo) counts() {
	var text strings.Builder
	for _, t := range d.service.Tables() {
		fmt.Fprintf(&text, "  %s %d", t.Table, t.Rows)
	}
	say("  rows arrived:%s", &text)
}

// patience is how long the last rows may take.
const patience = 30 * time.Second

// arrive waits until every line and message is there, once.
func (d *demo) arrive() error {
	say("\nWritten: %d lines, %d messages. Waiting for the last of them …", d.lines, d.messages)
	for deadline := time.Now().Add(patience); ; time.Sleep(200 * time.Millisecond) {
		err := errors.Join(
			d.all(table, "RawData", "order=%d ", d.lines),
			d.all("Syslog", "SyslogMessage", "payment=%d ", d.messages),
			d.some("Heartbeat"), d.some("Perf"),
		)
		if err == nil {
			d.counts()
			say("Every line and every message arrived exactly once.")
			return nil
		}
		if time.Now().After(deadline) {
			return err
		}
	}
}

// all says which of the numbers 1 to last are not in the column of exactly one
// row of the table.
func (d *demo) all(table, column, pattern string, last int) error {
	rows, err := d.service.Rows(d.workspace.ID, table)
	if err != nil {
		return err
	}
	seen := make([]int, last+1)
	for _, row := range rows {
		text, _ := row[column].(string)
		if n, ok := numberIn(text, pattern); ok && n <= last {
			seen[n]++
		}
	}
	for n := 1; n <= last; n++ {
		if seen[n] != 1 {
			return fmt.Errorf("table %s: number %d of %d arrived %d times", table, n, last, seen[n])
		}
	}
	return nil
}

// numberIn finds the number that pattern marks anywhere in text.
func numberIn(text, pattern string) (n int, ok bool) {
	mark := pattern[:len(pattern)-len("%d ")]
	for i := 0; i+len(mark) < len(text); i++ {
		if text[i:i+len(mark)] == mark {
			_, err := fmt.Sscanf(text[i+len(mark):], "%d", &n)
			return n, err == nil
		}
	}
	return 0, false
}

func (d *demo) some(table string) error {
	rows, err := d.service.Rows(d.workspace.ID, table)
	if err == nil && len(rows) == 0 {
		err = fmt.Errorf("table %s: no row arrived", table)
	}
	return err
}

// show prints the newest row of each table.
func (d *demo) show() {
	say("\nOne row of each table:")
	for _, t := range d.service.Tables() {
		rows, err := d.service.Rows(t.Workspace, t.Table)
		if err != nil || len(rows) == 0 {
			continue
		}
		text, err := json.Marshal(rows[len(rows)-1])
		if err != nil {
			continue
		}
		say("  %-11s %s", t.Table, text)
	}
}

// account stops the agent and shows what became of every record.
func (d *demo) account() error {
	if _, err := d.guest.Disable(); err != nil {
		return err
	}
	h, err := agent.ReadHealth(paths.New(d.root).HealthFile())
	if err != nil {
		return err
	}
	w := h.Workspaces[0]
	say("\nThe agent's own account: %d records read = %d delivered + %d waiting + %d refused + %d dropped.",
		h.Ledger.Read, w.Delivered, w.Waiting, w.Refused, h.Ledger.Dropped)
	if w.Damaged != 0 {
		return fmt.Errorf("%d records were damaged on the disk", w.Damaged)
	}
	return h.Conserved()
}

// remove disables and uninstalls, and looks for what is left.
func (d *demo) remove() error {
	say("\nThe guest agent removes the extension:")
	if _, err := d.guest.Uninstall(); err != nil {
		return err
	}
	var left []string
	layout := paths.New(d.root)
	for _, dir := range []string{layout.VersionsDir(), layout.StateDir(), layout.RunDir(), layout.LogDir(), d.guest.HandlerDir(d.version)} {
		if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
			left = append(left, dir)
		}
	}
	running, err := processesBelow(d.root)
	if err != nil {
		return err
	}
	left = append(left, running...)
	if len(left) > 0 {
		return fmt.Errorf("left after uninstall: %q", left)
	}
	say("Nothing is left: no folder, no process.")
	return nil
}
