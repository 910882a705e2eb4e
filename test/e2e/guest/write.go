package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// logDir holds the numbered lines inside the sandbox.
const logDir = "/var/log/e2e"

// How the writer goes about it.
const (
	writeEvery  = 20 * time.Millisecond
	rotateEvery = 400 // lines
)

// written is how far the writer has got: the numbers of the last line and the
// last message.
type written struct {
	Lines    int `json:"lines"`
	Messages int `json:"messages"`
}

// write appends numbered lines to a file that it rotates, and sends numbered
// messages to the syslog daemon, or in its absence to the agent's socket as the
// daemon would. It ends with the sandbox.
func write(ctx context.Context) error {
	if err := os.MkdirAll(logDir, 0o755); err != nil {
		return err
	}
	var w written
	var file *os.File
	defer func() { _ = file.Close() }()
	for ctx.Err() == nil && !ended() {
		if w.Lines%rotateEvery == 0 {
			next, err := rotate(file)
			if err != nil {
				return err
			}
			file = next
		}
		if _, err := fmt.Fprintf(file, "%s e2e line seq=%d of the application\n", time.Now().UTC().Format(time.RFC3339Nano), w.Lines+1); err != nil {
			return err
		}
		w.Lines++
		if sendMessage(w.Messages+1) == nil {
			w.Messages++
		}
		if w.Lines%50 == 1 {
			startDaemon(ctx)
		}
		if w.Lines%10 == 0 {
			if err := w.save(); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(writeEvery):
		}
	}
	return nil
}

// ended reports whether the last step is over.
func ended() bool {
	_, err := os.Stat(filepath.Join(inside, endFile))
	return err == nil
}

// endFile is made by the check of the last step.
const endFile = "end"

// rotate renames the file away, as logrotate's create mode does, and begins a
// new one. Two generations are kept.
func rotate(file *os.File) (*os.File, error) {
	name := filepath.Join(logDir, "app.log")
	if file != nil {
		for _, move := range [][2]string{{name + ".1", name + ".2"}, {name, name + ".1"}} {
			if err := os.Rename(move[0], move[1]); err != nil && !errors.Is(err, os.ErrNotExist) {
				return nil, err
			}
		}
		if err := file.Close(); err != nil {
			return nil, err
		}
	}
	return os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
}

// startDaemon makes sure that the syslog daemon of a machine with systemd runs,
// as it does on a VM: the sandbox starts with few services, and reboots.
func startDaemon(ctx context.Context) {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return
	}
	// A machine that is just going down or coming up refuses; it is asked again.
	_ = exec.CommandContext(ctx, "/usr/bin/systemctl", "start", "rsyslog.service").Run()
}

// sendMessage hands one message to whoever takes syslog messages here. An
// error means that nobody did, and the same number is tried again.
func sendMessage(seq int) error {
	for _, socket := range []string{"/dev/log", "/run/log-analytics-agent/syslog.sock"} {
		conn, err := net.Dial("unixgram", socket)
		if err != nil {
			continue
		}
		_, err = fmt.Fprintf(conn, "<13>%s e2e: message seq=%d of the application", time.Now().Format(time.Stamp), seq)
		return errors.Join(err, conn.Close())
	}
	return errors.New("nobody takes syslog messages")
}

func (w written) save() error {
	data, err := json.Marshal(w)
	if err != nil {
		return err
	}
	beside := filepath.Join(inside, "written.json.new")
	if err := os.WriteFile(beside, data, 0o644); err != nil {
		return err
	}
	return os.Rename(beside, filepath.Join(inside, "written.json"))
}

func readWritten(dir string) (w written, err error) {
	data, err := os.ReadFile(filepath.Join(dir, "written.json"))
	if err != nil {
		return w, err
	}
	return w, json.Unmarshal(data, &w)
}
