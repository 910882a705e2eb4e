package tail

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/windows"
)

// systemGuard refuses the secrets that every Windows machine has.
func systemGuard() guard {
	return guard{
		dirs: []string{
			`C:\Windows\System32\config`,
			`C:\ProgramData\Microsoft\Crypto`,
			`C:\ProgramData\ssh`,
			`C:\Packages\Plugins`,
		},
		names: []string{
			"*.prv", "*.key", "*.pfx", "*.p12",
			"ssh_host_*_key", "id_rsa", "id_dsa", "id_ecdsa", "id_ed25519",
		},
	}
}

// foldCase returns what is the same for all spellings of one path.
func foldCase(path string) string { return strings.ToLower(path) }

// finalPath returns the path of f without short names, which is the one to
// judge.
func finalPath(f *os.File, _ string) (string, error) {
	buf := make([]uint16, windows.MAX_LONG_PATH)
	n, err := windows.GetFinalPathNameByHandle(windows.Handle(f.Fd()), &buf[0], uint32(len(buf)), 0)
	if err != nil {
		return "", fmt.Errorf("find the path of an open file: %w", err)
	}
	path := windows.UTF16ToString(buf[:min(int(n), len(buf))])
	if share, ok := strings.CutPrefix(path, `\\?\UNC\`); ok {
		return `\\` + share, nil
	}
	return strings.TrimPrefix(path, `\\?\`), nil
}
