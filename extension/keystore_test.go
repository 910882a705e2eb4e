package extension

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// pemText is blocks of PEM, each behind what OpenSSL prints before it.
func pemText(blocks ...*pem.Block) []byte {
	var text []byte
	for _, block := range blocks {
		text = append(text, "Bag Attributes\n    localKeyID: 01 00 00 00\nKey Attributes: <No Attributes>\n"...)
		text = append(text, pem.EncodeToMemory(block)...)
	}
	return text
}

func TestFolderKeysFind(t *testing.T) {
	t.Parallel()
	cert, key := throwaway(t)
	other := reissued(t, key)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	crt := &pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}
	otherCRT := &pem.Block{Type: "CERTIFICATE", Bytes: other.Raw}
	pkcs8Key := &pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}
	pkcs1Key := &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}
	thumb := thumbprintOf(cert)
	lower := strings.ToLower(thumb)

	for _, tt := range []struct {
		name  string
		files map[string][]byte
		want  string // in the error; empty for none
	}{
		{"PKCS #8", map[string][]byte{thumb + ".crt": pemText(crt), thumb + ".prv": pemText(pkcs8Key)}, ""},
		{"PKCS #1", map[string][]byte{thumb + ".crt": pemText(crt), thumb + ".prv": pemText(pkcs1Key)}, ""},
		{"several blocks", map[string][]byte{thumb + ".crt": pemText(otherCRT, crt), thumb + ".prv": pemText(otherCRT, &pem.Block{Type: "PRIVATE KEY", Bytes: []byte("no")}, pkcs8Key)}, ""},
		{"lines of Windows", map[string][]byte{thumb + ".crt": crlf(pemText(crt)), thumb + ".prv": crlf(pemText(pkcs8Key))}, ""},
		{"names in lower case", map[string][]byte{lower + ".crt": pemText(crt), lower + ".prv": pemText(pkcs8Key)}, ""},
		{"no certificate", map[string][]byte{thumb + ".prv": pemText(pkcs8Key)}, "there is no " + thumb + ".crt in "},
		{"no key", map[string][]byte{thumb + ".crt": pemText(crt)}, "there is no " + thumb + ".prv in "},
		{"another certificate under the name", map[string][]byte{thumb + ".crt": pemText(otherCRT), thumb + ".prv": pemText(pkcs8Key)}, "no certificate with this thumbprint"},
		{"certificate where the key should be", map[string][]byte{thumb + ".crt": pemText(crt), thumb + ".prv": pemText(crt)}, "no RSA key that belongs to the certificate"},
		{"no PEM", map[string][]byte{thumb + ".crt": []byte("hello"), thumb + ".prv": pemText(pkcs8Key)}, "no certificate with this thumbprint"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for name, data := range tt.files {
				if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			gotCert, gotKey, err := FolderKeys(dir).Find(thumb)
			switch {
			case tt.want == "":
				if err != nil || !gotCert.Equal(cert) || !key.PublicKey.Equal(gotKey.Public()) {
					t.Errorf("Find = %v", err)
				}
			case err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), thumb) || !strings.Contains(err.Error(), dir):
				t.Errorf("Find = %v; want an error with %q, the thumbprint and the folder", err, tt.want)
			}
		})
	}
}

func crlf(text []byte) []byte {
	return []byte(strings.ReplaceAll(string(text), "\n", "\r\n"))
}

// A key of somebody else under the right name is not used.
func TestFolderKeysWantTheKeyOfTheCertificate(t *testing.T) {
	t.Parallel()
	cert, _ := throwaway(t)
	thumb := thumbprintOf(cert)
	lib := t.TempDir()
	stranger := newKey(t)
	for name, block := range map[string]*pem.Block{
		thumb + ".crt": {Type: "CERTIFICATE", Bytes: cert.Raw},
		thumb + ".prv": {Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(stranger)},
	} {
		if err := os.WriteFile(filepath.Join(lib, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := FolderKeys(lib).Find(thumb); err == nil || !strings.Contains(err.Error(), "belongs to the certificate") {
		t.Errorf("Find = %v", err)
	}
}
