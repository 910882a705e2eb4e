package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const otherAccounts = "root:x:0:0:root:/root:/bin/bash\nlog:x:7:7::/:/bin/false\n"

// machine is a folder with accounts, and programs that change them as the real
// ones do. It keeps what was called.
type machine struct {
	accounts
	calls    []string
	programs []string
	fail     bool
}

func newMachine(t *testing.T, programs ...string) *machine {
	t.Helper()
	dir := t.TempDir()
	m := &machine{programs: programs}
	m.accounts = accounts{filepath.Join(dir, "passwd"), filepath.Join(dir, "group"), m.program, func(program string) bool {
		return slices.Contains(programs, program)
	}}
	for _, file := range []string{m.passwd, m.group} {
		if err := os.WriteFile(file, []byte(otherAccounts), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func (m *machine) program(_ context.Context, program string, args ...string) (string, error) {
	m.calls = append(m.calls, program+" "+strings.Join(args, " "))
	if m.fail {
		return "", errors.New("it fails")
	}
	name := args[len(args)-1]
	switch program {
	case "useradd":
		return "", errors.Join(add(m.passwd, name, "x:990:991::/:/bin/false"), add(m.group, name, "x:991:"))
	case "adduser":
		return "", add(m.passwd, name, "x:990:991::/:/bin/false")
	case "addgroup":
		return "", add(m.group, name, "x:991:")
	case "userdel", "deluser":
		return "", drop(m.passwd, name)
	case "groupdel", "delgroup":
		return "", drop(m.group, name)
	}
	return "", fmt.Errorf("no program %s", program)
}

func add(file, name, rest string) error {
	f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%s:%s\n", name, rest)
	return errors.Join(err, f.Close())
}

func drop(file, name string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	lines := slices.DeleteFunc(strings.SplitAfter(string(data), "\n"), func(line string) bool {
		return strings.HasPrefix(line, name+":")
	})
	return os.WriteFile(file, []byte(strings.Join(lines, "")), 0o600)
}

// An account is made once, found again, and gone in the end with its group.
func TestUserLife(t *testing.T) {
	const name = "log-analytics-agent"
	for system, tt := range map[string]struct {
		programs []string
		calls    []string // with the shell of this machine taken out
	}{
		"shadow": {[]string{"useradd", "userdel", "groupdel", "adduser", "deluser"}, []string{
			"useradd --system --user-group --no-create-home --home-dir /h --shell S --comment Log Analytics agent " + name,
			"userdel " + name,
			"groupdel " + name,
		}},
		"busybox": {[]string{"adduser", "addgroup", "deluser", "delgroup"}, []string{
			"addgroup -S " + name,
			"adduser -S -D -H -h /h -s S -g Log Analytics agent -G " + name + " " + name,
			"deluser " + name,
			"delgroup " + name,
		}},
	} {
		t.Run(system, func(t *testing.T) {
			m := newMachine(t, tt.programs...)
			for range 2 {
				uid, gid, err := m.ensure(t.Context(), name, "/h")
				if uid != 990 || gid != 991 || err != nil {
					t.Fatalf("ensure = %d, %d, %v; want 990, 991", uid, gid, err)
				}
			}
			for range 2 {
				if err := m.remove(t.Context(), name); err != nil {
					t.Fatal(err)
				}
			}
			var calls []string
			for _, call := range m.calls {
				calls = append(calls, strings.NewReplacer("/usr/sbin/nologin", "S", "/bin/false", "S").Replace(call))
			}
			if diff := cmp.Diff(tt.calls, calls); diff != "" {
				t.Errorf("calls (-want +got):\n%s", diff)
			}
			for _, file := range []string{m.passwd, m.group} {
				if data, err := os.ReadFile(file); err != nil || string(data) != otherAccounts {
					t.Errorf("%s holds %q, %v; want what it was", file, data, err)
				}
			}
		})
	}
}

// Where nothing can add an account the agent is a number.
func TestUserWithoutPrograms(t *testing.T) {
	m := newMachine(t)
	uid, gid, err := m.ensure(t.Context(), "log-analytics-agent", "/h")
	if uid != bareID || gid != bareID || err != nil {
		t.Errorf("ensure = %d, %d, %v; want %d twice", uid, gid, err, bareID)
	}
	if got := m.unitName("log-analytics-agent"); got != "1879050219" {
		t.Errorf("name in units = %q, want the number", got)
	}
	if got := m.unitName("log"); got != "log" {
		t.Errorf("name in units = %q, want log", got)
	}
	if err := m.remove(t.Context(), "log-analytics-agent"); err != nil || len(m.calls) > 0 {
		t.Errorf("remove = %v after %q, want nothing to do", err, m.calls)
	}
}

func TestUserErrors(t *testing.T) {
	m := newMachine(t, "useradd")
	if err := add(m.passwd, "toor", "x:0:0::/:/bin/sh"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := m.find("toor"); err == nil || !strings.Contains(err.Error(), "root under another name") {
		t.Errorf("another name of root is taken: %v", err)
	}
	if _, _, err := m.find("log-analytics"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a user that is not there: %v", err)
	}
	m.fail = true
	if _, _, err := m.ensure(t.Context(), "log-analytics-agent", "/h"); err == nil || !strings.Contains(err.Error(), "it fails") {
		t.Errorf("a program that fails: %v", err)
	}
	if _, _, err := m.ensure(t.Context(), "toor", "/h"); err == nil {
		t.Error("another name of root is taken after a program failed")
	}
}

func TestGroupsThatExist(t *testing.T) {
	m := newMachine(t)
	if got := m.groups("adm", "log", "lo"); !slices.Equal(got, []string{"log"}) {
		t.Errorf("groups = %q, want log alone", got)
	}
	if got := m.groupNumbers([]string{"adm", "log"}); !slices.Equal(got, []uint32{7}) {
		t.Errorf("numbers = %v, want 7 alone", got)
	}
}
