package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/openloganalytics/agent/agent"
	"github.com/openloganalytics/agent/internal/paths"
	"github.com/openloganalytics/agent/internal/product"
	"github.com/openloganalytics/agent/test/emulator"
)

// patience is how long what was written before a check may take to arrive.
const patience = 40 * time.Second

// check runs inside the sandbox after every step. As long as the extension is
// there, everything that was written before the check arrives; nothing of ours
// listens; the key is nowhere to be seen. Afterwards nothing of it is left.
func check(ctx context.Context) error {
	ws, err := readWorkspace(inside)
	if err != nil {
		return err
	}
	if err := errors.Join(noListener(ctx), keyUnseen(ws)); err != nil {
		return err
	}
	if os.Getenv("WAH_STEP") == "uninstall" {
		return errors.Join(end(ctx), nothingLeft())
	}
	if os.Getenv("WAH_STEP") == brokenUpdate {
		return nil // what is written meanwhile arrives after the next step
	}
	if err := errors.Join(unprivileged(), conserved()); err != nil {
		return err
	}
	want, err := readWritten(inside)
	if err != nil {
		return err
	}
	logged, err := daemonLog()
	if err != nil {
		return err
	}
	reboot := strings.HasPrefix(os.Getenv("WAH_STEP"), "reboot")
	wait := patience
	if reboot {
		wait /= 4
	}
	for deadline := time.Now().Add(wait); ; time.Sleep(500 * time.Millisecond) {
		got, err := arrivals(inside, ws.ID)
		if err != nil {
			return err
		}
		err = errors.Join(got.lines.all("line", want.Lines), got.messages.each(logged, want.Messages))
		if err == nil {
			fmt.Printf("%d lines and %d messages written, all arrived (%d and %d rows more than once)\n", want.Lines, want.Messages, got.lines.twice, got.messages.twice)
			return nil
		}
		if !time.Now().After(deadline) {
			continue
		}
		if reboot {
			return errors.Join(got.lines.all("line", want.Lines), got.messages.takeAway(logged))
		}
		return err
	}
}

// taken holds the numbers of messages that a reboot took away.
const taken = "taken.json"

// takeAway notes which messages the syslog daemon has in its own file that did
// not arrive. The harness reboots by killing everything within some seconds, as
// a power cut does: what the daemon holds in memory while the agent is being
// started again is gone.
func (n *numbers) takeAway(logged map[int]bool) error {
	const most = int(8 * time.Second / writeEvery)
	before, err := takenAway()
	if err != nil {
		return err
	}
	var gone []int
	for seq := range logged {
		if seq >= n.first && !n.seen[seq] {
			gone = append(gone, seq)
		}
	}
	if len(gone) > most {
		return fmt.Errorf("%d messages are in the syslog daemon's own file and did not arrive", len(gone))
	}
	fmt.Printf("the reboot took %d messages away that were on their way\n", len(gone))
	data, err := json.Marshal(append(before, gone...))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(inside, taken), data, 0o644)
}

// conserved fails unless the agent can account for every record.
func conserved() error {
	h, err := agent.ReadHealth(paths.New("").HealthFile())
	if err != nil {
		return err
	}
	return h.Conserved()
}

// end stops the writer and the syslog daemon that it started.
func end(ctx context.Context) error {
	if err := os.WriteFile(filepath.Join(inside, endFile), nil, 0o600); err != nil {
		return err
	}
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return nil
	}
	time.Sleep(time.Second) // it may just be asking for the daemon
	return exec.CommandContext(ctx, "/usr/bin/systemctl", "stop", "syslog.socket", "rsyslog.service").Run()
}

// judge runs on the machine when the harness has ended: the numbers once more,
// for the record.
func judge(work string) error {
	ws, err := readWorkspace(work)
	if err != nil {
		return err
	}
	got, err := arrivals(work, ws.ID)
	if err != nil {
		return err
	}
	fmt.Printf("arrived: lines 1 to %d, messages %d to %d; more than once: %d and %d rows\n", got.lines.last, got.messages.first, got.messages.last, got.lines.twice, got.messages.twice)
	return got.lines.all("line", got.lines.last)
}

func readWorkspace(dir string) (w emulator.Workspace, err error) {
	data, err := os.ReadFile(filepath.Join(dir, "emulator", "workspace.json"))
	if err != nil {
		return w, err
	}
	return w, json.Unmarshal(data, &w)
}

// numbers is which of 1, 2, 3 … arrived.
type numbers struct {
	seen  map[int]bool
	first int // messages before enable go nowhere, so theirs is not 1
	last  int
	twice int
}

func (n *numbers) add(seq int) {
	if n.seen == nil {
		n.seen, n.first = map[int]bool{}, seq
	}
	if n.seen[seq] {
		n.twice++
	}
	n.seen[seq] = true
	n.first, n.last = min(n.first, seq), max(n.last, seq)
}

// all says which numbers up to last did not arrive.
func (n *numbers) all(what string, last int) error {
	missing, first := 0, 0
	for seq := 1; seq <= last; seq++ {
		if !n.seen[seq] {
			missing++
			if first == 0 {
				first = seq
			}
		}
	}
	if missing > 0 {
		return fmt.Errorf("%d of %d %ss did not arrive, the first is number %d", missing, last, what, first)
	}
	return nil
}

// each says which messages did not arrive of those that the syslog daemon has
// in its own file, or of all up to last where there is no daemon. Messages that
// a reboot takes from the daemon's hands are not ours to keep; those from before
// enable are not ours to have.
func (n *numbers) each(logged map[int]bool, last int) error {
	if logged == nil {
		return n.all("message", last)
	}
	for seq := range logged {
		if seq >= n.first && !n.seen[seq] {
			return fmt.Errorf("message %d is in the syslog daemon's own file and did not arrive", seq)
		}
	}
	if len(logged) == 0 || n.last == 0 {
		return errors.New("no message arrived")
	}
	return nil
}

// takenAway returns what takeAway has noted until now.
func takenAway() (gone []int, err error) {
	data, err := os.ReadFile(filepath.Join(inside, taken))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return gone, json.Unmarshal(data, &gone)
}

// daemonLog reads which messages the syslog daemon has written to its own
// file; nil where there is none.
func daemonLog() (map[int]bool, error) {
	data, err := os.ReadFile("/var/log/syslog")
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	logged := map[int]bool{}
	for _, m := range sequence.FindAllSubmatch(data, -1) {
		if len(m[2]) > 0 {
			logged[number(m[2])] = true
		}
	}
	gone, err := takenAway()
	for _, seq := range gone {
		delete(logged, seq)
	}
	return logged, err
}

type arrived struct{ lines, messages numbers }

var sequence = regexp.MustCompile(`e2e line seq=(\d+) |message seq=(\d+) `)

// arrivals reads the rows that the emulator answered for.
func arrivals(dir, workspace string) (a arrived, err error) {
	for _, table := range []string{table, "Syslog"} {
		file, err := os.Open(filepath.Join(dir, "emulator", "rows", workspace, table+".jsonl"))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return a, err
		}
		lines := bufio.NewScanner(file)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			m := sequence.FindSubmatch(lines.Bytes())
			switch {
			case m == nil:
			case len(m[1]) > 0:
				a.lines.add(number(m[1]))
			default:
				a.messages.add(number(m[2]))
			}
		}
		if err := errors.Join(lines.Err(), file.Close()); err != nil {
			return a, err
		}
	}
	return a, nil
}

func number(digits []byte) int {
	n, err := strconv.Atoi(string(digits))
	if err != nil {
		return 0
	}
	return n
}

// noListener fails when a process of ours waits for connections.
func noListener(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "/usr/bin/ss", "-lntupH").Output()
	if err != nil {
		return fmt.Errorf("ss: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, product.Name[:15]) { // the kernel cuts names
			return fmt.Errorf("the agent listens: %s", strings.TrimSpace(line))
		}
	}
	return nil
}

// mayReadAll is CAP_DAC_READ_SEARCH in a set of capabilities.
const mayReadAll = 1 << 2

// unprivileged fails unless the agent runs, as a user of its own, with no right
// but the one to read files.
func unprivileged() error {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	for _, e := range entries {
		// Most entries are no processes of ours, and any may have ended.
		command, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err != nil || !bytes.HasSuffix(command, []byte(product.Name+"\x00run\x00")) {
			continue
		}
		status, err := os.ReadFile(filepath.Join("/proc", e.Name(), "status"))
		if err != nil {
			return err
		}
		for _, bad := range []string{`(?m)^Uid:.*\b0\b`, `(?m)^Gid:.*\b0\b`} {
			if m := regexp.MustCompile(bad).Find(status); m != nil {
				return fmt.Errorf("the agent runs as root: %s", m)
			}
		}
		for _, m := range regexp.MustCompile(`(?m)^Cap(?:Prm|Eff):\s+([0-9a-f]+)$`).FindAllSubmatch(status, -1) {
			if rights, err := strconv.ParseUint(string(m[1]), 16, 64); err != nil || rights&^mayReadAll != 0 {
				return fmt.Errorf("the agent has more rights than to read files: %s", m[0])
			}
		}
		return nil
	}
	return errors.New("no agent runs")
}

// keyUnseen fails when a workspace key stands in a command line, in an
// environment, or in a file of ours that is not the agent's alone.
func keyUnseen(ws emulator.Workspace) error {
	holds := func(data []byte) bool {
		for _, key := range ws.Keys {
			if bytes.Contains(data, []byte(key)) {
				return true
			}
		}
		return false
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	for _, e := range entries {
		for _, name := range []string{"cmdline", "environ"} {
			// A process may have ended since.
			if data, err := os.ReadFile(filepath.Join("/proc", e.Name(), name)); err == nil && holds(data) {
				return fmt.Errorf("a workspace key stands in the %s of process %s", name, e.Name())
			}
		}
	}
	for _, dir := range ourFolders {
		err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return nil //nolint:nilerr // it may have gone since
			}
			info, err := d.Info()
			if err != nil || info.Mode().Perm()&0o077 == 0 {
				return nil //nolint:nilerr // it may have gone since
			}
			if data, err := os.ReadFile(path); err == nil && holds(data) {
				return fmt.Errorf("a workspace key stands in %s, mode %v", path, info.Mode())
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// ourFolders is everything that the product makes on a machine.
var ourFolders = []string{
	"/opt/" + product.Name, "/var/lib/" + product.Name, "/var/log/" + product.Name, "/run/" + product.Name,
	"/etc/rsyslog.d/95-" + product.Name + ".conf",
	"/etc/systemd/system/" + product.Name + ".service", "/etc/systemd/system/loganalyticsagent.slice",
	"/etc/systemd/system/" + product.Name + "-report.path", "/etc/systemd/system/" + product.Name + "-report.service",
}

func nothingLeft() error {
	for _, path := range ourFolders {
		if _, err := os.Lstat(path); err == nil {
			return fmt.Errorf("%s is left after uninstall", path)
		}
	}
	for _, file := range []string{"/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow"} {
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if bytes.Contains(data, []byte(product.Name)) {
			return fmt.Errorf("the agent's user or group is left in %s", file)
		}
	}
	return nil
}
