package tail

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
