package service

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"
)

// EnsureUser makes sure of a system account without a shell or a home, with a
// group of its own, and returns its numbers.
func EnsureUser(ctx context.Context, name, home string) (uid, gid int, err error) {
	if uid, gid, err = lookup(name); err == nil {
		return uid, gid, nil
	}
	shell := "/usr/sbin/nologin"
	if _, err := os.Stat(shell); err != nil {
		shell = "/bin/false"
	}
	_, err = runProgram(ctx, "useradd", "--system", "--user-group", "--no-create-home", "--home-dir", home, "--shell", shell, name)
	if errors.Is(err, os.ErrNotExist) { // busybox
		_, err = runProgram(ctx, "adduser", "-S", "-D", "-H", "-h", home, "-s", shell, name)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("add user %s: %w", name, err)
	}
	return lookup(name)
}

func lookup(name string) (uid, gid int, err error) {
	account, err := user.Lookup(name)
	if err != nil {
		return 0, 0, fmt.Errorf("look up user: %w", err)
	}
	uid, errUser := strconv.Atoi(account.Uid)
	gid, errGroup := strconv.Atoi(account.Gid)
	return uid, gid, errors.Join(errUser, errGroup)
}

// RemoveUser removes the account and its group.
func RemoveUser(ctx context.Context, name string) error {
	if named("/etc/passwd", name) {
		_, err := runProgram(ctx, "userdel", name)
		if errors.Is(err, os.ErrNotExist) {
			_, err = runProgram(ctx, "deluser", name)
		}
		if err != nil {
			return fmt.Errorf("remove user %s: %w", name, err)
		}
	}
	if named("/etc/group", name) {
		_, err := runProgram(ctx, "groupdel", name)
		if errors.Is(err, os.ErrNotExist) {
			_, err = runProgram(ctx, "delgroup", name)
		}
		if err != nil {
			return fmt.Errorf("remove group %s: %w", name, err)
		}
	}
	return nil
}

// named reports whether a colon-separated file has an entry of that name.
func named(file, name string) bool {
	data, err := os.ReadFile(file)
	return err == nil && (bytes.HasPrefix(data, []byte(name+":")) || strings.Contains(string(data), "\n"+name+":"))
}

// groups returns those of the names that this machine has as groups.
func groups(names ...string) []string {
	var there []string
	for _, name := range names {
		if named("/etc/group", name) {
			there = append(there, name)
		}
	}
	return there
}

// LogGroups are the groups of this machine that may read its logs.
func LogGroups() []string { return groups("adm", "systemd-journal") }
