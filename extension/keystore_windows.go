package extension

import (
	"crypto"
	"crypto/x509"
	"errors"
)

// SystemKeys is where the guest agent of this machine keeps the certificates:
// on Windows the certificate store LocalMachine\My.
func SystemKeys(*Environment) KeyStore { return machineKeys{} }

type machineKeys struct{}

// Find implements KeyStore.
func (machineKeys) Find(thumbprint string) (*x509.Certificate, crypto.Decrypter, error) {
	return nil, nil, errors.New("find certificate " + thumbprint + ": protected settings are not supported yet on Windows")
}
