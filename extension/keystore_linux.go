package extension

// SystemKeys is where the guest agent of this machine keeps the certificates.
func SystemKeys(env *Environment) KeyStore { return FolderKeys(env.LibDir()) }
