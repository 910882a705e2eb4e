package extension

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // G505: a thumbprint is SHA-1 by definition; it names the certificate and protects nothing.
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/openloganalytics/agent/internal/atomicfile"
)

// A KeyStore holds the certificates that Azure sealed protected settings for.
type KeyStore interface {
	// Find returns the certificate with the thumbprint, 40 upper-case
	// hexadecimal digits, and its private key. The error says where it looked.
	Find(thumbprint string) (*x509.Certificate, crypto.Decrypter, error)
}

// pemLimit is far above what a certificate or a key needs, in bytes.
const pemLimit = 256 << 10

// FolderKeys is the folder in which the guest agent keeps <THUMBPRINT>.crt and
// <THUMBPRINT>.prv: PEM after whatever text OpenSSL printed before it.
type FolderKeys string

// Find implements KeyStore.
func (dir FolderKeys) Find(thumbprint string) (*x509.Certificate, crypto.Decrypter, error) {
	cert, err := dir.certificate(thumbprint)
	if err != nil {
		return nil, nil, fmt.Errorf("find certificate %s: %w", thumbprint, err)
	}
	key, err := dir.key(thumbprint, cert)
	if err != nil {
		return nil, nil, fmt.Errorf("find private key of certificate %s: %w", thumbprint, err)
	}
	return cert, key, nil
}

func (dir FolderKeys) certificate(thumbprint string) (*x509.Certificate, error) {
	data, err := dir.read(thumbprint + ".crt")
	if err != nil {
		return nil, err
	}
	for block := range pemBlocks(data) {
		sum := sha1.Sum(block.Bytes) //nolint:gosec // G401: see the import.
		if block.Type == "CERTIFICATE" && strings.EqualFold(hex.EncodeToString(sum[:]), thumbprint) {
			return x509.ParseCertificate(block.Bytes)
		}
	}
	return nil, fmt.Errorf("%s.crt in %s holds no certificate with this thumbprint", thumbprint, string(dir))
}

func (dir FolderKeys) key(thumbprint string, cert *x509.Certificate) (crypto.Decrypter, error) {
	data, err := dir.read(thumbprint + ".prv")
	if err != nil {
		return nil, err
	}
	for block := range pemBlocks(data) {
		key, err := parseKey(block)
		if err == nil && key.PublicKey.Equal(cert.PublicKey) {
			return key, nil
		}
	}
	return nil, fmt.Errorf("%s.prv in %s holds no RSA key that belongs to the certificate", thumbprint, string(dir))
}

// read returns the file of this name in either case.
func (dir FolderKeys) read(name string) ([]byte, error) {
	data, err := atomicfile.ReadLimited(filepath.Join(string(dir), name), pemLimit)
	if !errors.Is(err, fs.ErrNotExist) {
		return data, err
	}
	entries, err := os.ReadDir(string(dir))
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		if strings.EqualFold(entry.Name(), name) {
			return atomicfile.ReadLimited(filepath.Join(string(dir), entry.Name()), pemLimit)
		}
	}
	return nil, fmt.Errorf("there is no %s in %s", name, string(dir))
}

// pemBlocks yields the PEM blocks of data, whatever stands between them.
func pemBlocks(data []byte) func(yield func(*pem.Block) bool) {
	return func(yield func(*pem.Block) bool) {
		for {
			var block *pem.Block
			if block, data = pem.Decode(data); block == nil || !yield(block) {
				return
			}
		}
	}
}

// parseKey reads an RSA key as OpenSSL writes it now (PKCS #8) and as it did
// (PKCS #1).
func parseKey(block *pem.Block) (*rsa.PrivateKey, error) {
	switch block.Type {
	case "PRIVATE KEY":
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return nil, err
		}
		if key, ok := key.(*rsa.PrivateKey); ok {
			return key, nil
		}
		return nil, errors.New("not an RSA key")
	case "RSA PRIVATE KEY":
		return x509.ParsePKCS1PrivateKey(block.Bytes)
	default:
		return nil, fmt.Errorf("not a private key but %s", block.Type)
	}
}
