package service

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

// bareID is the user and group where no program can add an account: a number
// without a name, from the range that systemd's table of numbers (UIDS-GIDS)
// leaves unused.
const bareID = 1879050219

// accounts are the users and groups of a machine.
type accounts struct {
	passwd, group string // files, passwd(5) and group(5)
	run           runner
	has           func(program string) bool
}

func system() accounts {
	return accounts{"/etc/passwd", "/etc/group", runProgram, func(program string) bool {
		_, err := findProgram(program)
		return err == nil
	}}
}

// EnsureUser makes sure of a system account without a shell or a home, with a
// group of its own, and returns its numbers. Where nothing can add an account
// they are numbers that no account has.
func EnsureUser(ctx context.Context, name, home string) (uid, gid int, err error) {
	return system().ensure(ctx, name, home)
}

// RemoveUser removes the account and its group.
func RemoveUser(ctx context.Context, name string) error { return system().remove(ctx, name) }

// LogGroups are the groups of this machine that may read its logs.
func LogGroups() []string { return system().groups("adm", "systemd-journal") }

func (a accounts) ensure(ctx context.Context, name, home string) (uid, gid int, err error) {
	if uid, gid, err := a.find(name); err == nil {
		return uid, gid, nil
	}
	const comment = "Log Analytics agent"
	shell := "/usr/sbin/nologin"
	if _, err := os.Stat(shell); err != nil {
		shell = "/bin/false"
	}
	switch {
	case a.has("useradd"):
		_, err = a.run(ctx, "useradd", "--system", "--user-group", "--no-create-home", "--home-dir", home, "--shell", shell, "--comment", comment, name)
	case a.has("adduser"): // busybox
		if !a.named(a.group, name) {
			_, err = a.run(ctx, "addgroup", "-S", name)
		}
		if err == nil {
			_, err = a.run(ctx, "adduser", "-S", "-D", "-H", "-h", home, "-s", shell, "-g", comment, "-G", name, name)
		}
	}
	if err != nil {
		return 0, 0, fmt.Errorf("add user %s: %w", name, err)
	}
	return a.find(name)
}

// find returns the numbers of a user.
func (a accounts) find(name string) (uid, gid int, err error) {
	entry := a.entry(a.passwd, name)
	if entry == nil && !a.has("useradd") && !a.has("adduser") {
		return bareID, bareID, nil
	}
	if len(entry) < 4 {
		return 0, 0, fmt.Errorf("look up user %s in %s: %w", name, a.passwd, fs.ErrNotExist)
	}
	uid, errUser := strconv.Atoi(entry[2])
	gid, errGroup := strconv.Atoi(entry[3])
	if err := errors.Join(errUser, errGroup); err != nil {
		return 0, 0, fmt.Errorf("look up user %s in %s: %w", name, a.passwd, err)
	}
	if uid == 0 {
		return 0, 0, fmt.Errorf("look up user %s in %s: it is root under another name; rename it", name, a.passwd)
	}
	return uid, gid, nil
}

func (a accounts) remove(ctx context.Context, name string) error {
	for _, one := range []struct{ what, file, program, busybox string }{
		{"user", a.passwd, "userdel", "deluser"},
		{"group", a.group, "groupdel", "delgroup"}, // when the first did not take it along
	} {
		if !a.named(one.file, name) {
			continue
		}
		program := one.program
		if !a.has(program) {
			program = one.busybox
		}
		if _, err := a.run(ctx, program, name); err != nil {
			return fmt.Errorf("remove %s %s: %w", one.what, name, err)
		}
	}
	return nil
}

// groups returns those of the names that this machine has as groups.
func (a accounts) groups(names ...string) []string {
	var there []string
	for _, name := range names {
		if a.named(a.group, name) {
			there = append(there, name)
		}
	}
	return there
}

// groupNumbers returns the numbers of those of the groups that there are.
func (a accounts) groupNumbers(names []string) []uint32 {
	var numbers []uint32
	for _, name := range names {
		entry := a.entry(a.group, name)
		if len(entry) < 3 {
			continue
		}
		if number, err := strconv.ParseUint(entry[2], 10, 32); err == nil {
			numbers = append(numbers, uint32(number))
		}
	}
	return numbers
}

func (a accounts) named(file, name string) bool { return a.entry(file, name) != nil }

// entry returns the fields of the line for name, nil when there is none.
func (a accounts) entry(file, name string) []string {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil // a machine without the file has no accounts
	}
	for line := range strings.Lines(string(data)) {
		if fields := strings.Split(strings.TrimSpace(line), ":"); fields[0] == name {
			return fields
		}
	}
	return nil
}

// unitName is how a unit file names a user: by number when it has no name.
func (a accounts) unitName(name string) string {
	if uid, _, err := a.find(name); err == nil && uid == bareID {
		return strconv.Itoa(bareID)
	}
	return name
}
