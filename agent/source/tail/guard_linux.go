package tail

import "os"

// systemGuard refuses the secrets that every Linux machine has.
func systemGuard() guard {
	return guard{
		dirs: []string{
			"/proc", "/sys", "/dev", "/var/lib/waagent",
			"/etc/ssl/private", "/etc/pki/tls/private", "/etc/sudoers.d",
		},
		files: []string{
			"/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-",
			"/etc/security/opasswd", "/etc/krb5.keytab", "/etc/sudoers",
		},
		names: []string{
			"*.prv", "*.key", "*.pfx", "*.p12", "*.keytab",
			"ssh_host_*_key", "id_rsa", "id_dsa", "id_ecdsa", "id_ed25519",
		},
		mounts: []string{"/proc", "/sys"},
	}
}

// foldCase returns what is the same for all spellings of one path.
func foldCase(path string) string { return path }

// finalPath returns the path of f without short names: path itself.
func finalPath(_ *os.File, path string) (string, error) { return path, nil }
