package extension

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// fixtureKeys returns the certificate and key that the fixtures are sealed for.
func fixtureKeys(t testing.TB) (*x509.Certificate, crypto.Decrypter) {
	t.Helper()
	dir, thumbprint := fixtureFolder(t, "key.pem")
	cert, key, err := FolderKeys(dir).Find(thumbprint)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// fixtureFolder is a guest agent's folder with the fixtures' certificate and a
// key in the form of the file named.
func fixtureFolder(t testing.TB, keyFile string) (dir, thumbprint string) {
	t.Helper()
	dir = t.TempDir()
	certificate := readFile(t, "testdata/certificate.pem")
	for block := range pemBlocks(certificate) {
		sum := sha1.Sum(block.Bytes)
		thumbprint = strings.ToUpper(hex.EncodeToString(sum[:]))
	}
	writeFile(t, filepath.Join(dir, thumbprint+".crt"), certificate)
	writeFile(t, filepath.Join(dir, thumbprint+".prv"), readFile(t, filepath.Join("testdata", keyFile)))
	return dir, thumbprint
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func writeFile(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestOpensWhatOpenSSLSeals(t *testing.T) {
	cert, key := fixtureKeys(t)
	plain := readFile(t, "testdata/plain.json")
	files, err := filepath.Glob("testdata/cms/*")
	if err != nil || len(files) != 4*3*2*2 {
		t.Fatalf("%d fixtures (%v), want every combination of 4 ciphers, 3 paddings, 2 recipients, 2 encodings", len(files), err)
	}
	for _, file := range files {
		got, err := DecryptCMS(readFile(t, file), cert, key)
		if err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%s: got %q, %v", filepath.Base(file), got, err)
		}
	}
}

func TestBothKeyFormats(t *testing.T) {
	for _, file := range []string{"key.pem", "key-pkcs1.pem"} {
		dir, thumbprint := fixtureFolder(t, file)
		if _, _, err := FolderKeys(dir).Find(thumbprint); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

func TestMissingCertificateIsNamed(t *testing.T) {
	dir, thumbprint := fixtureFolder(t, "key.pem")
	other := strings.Repeat("AB", 20)
	if _, _, err := FolderKeys(dir).Find(other); err == nil || !strings.Contains(err.Error(), other) || !strings.Contains(err.Error(), dir) {
		t.Errorf("error is %v, want the thumbprint and the folder", err)
	}
	// A file under the name of another certificate is not that certificate.
	writeFile(t, filepath.Join(dir, other+".crt"), readFile(t, "testdata/certificate.pem"))
	if _, _, err := FolderKeys(dir).Find(other); err == nil {
		t.Error("a certificate with another thumbprint was taken")
	}
	writeFile(t, filepath.Join(dir, thumbprint+".prv"), []byte("Bag Attributes\nno key\n"))
	if _, _, err := FolderKeys(dir).Find(thumbprint); err == nil || !strings.Contains(err.Error(), thumbprint) {
		t.Errorf("error without a key is %v", err)
	}
	// Names in lower case, as some tools write them.
	for _, suffix := range []string{".crt", ".prv"} {
		if err := os.Remove(filepath.Join(dir, thumbprint+suffix)); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, filepath.Join(dir, strings.ToLower(thumbprint)+".crt"), readFile(t, "testdata/certificate.pem"))
	writeFile(t, filepath.Join(dir, strings.ToLower(thumbprint)+".prv"), readFile(t, "testdata/key.pem"))
	if _, _, err := FolderKeys(dir).Find(thumbprint); err != nil {
		t.Errorf("lower-case file names: %v", err)
	}
}

// Whatever is wrong with the sealed key or the padding, the answer is the same.
func TestOneErrorForEveryPadding(t *testing.T) {
	cert, key := fixtureKeys(t)
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"des3.pkcs1.issuer.der", "aes-256-cbc.pkcs1.keyid.der", "aes-128-cbc.oaep-sha256.issuer.der"} {
		good := readFile(t, "testdata/cms/"+file)
		if _, err := DecryptCMS(good, cert, other); !errors.Is(err, errNotOpened) {
			t.Errorf("%s with another key: %v", file, err)
		}
		env, err := parseEnvelope(good)
		if err != nil {
			t.Fatal(err)
		}
		sealedKey := bytes.Index(good, env.recipients[0].sealedKey)
		for name, at := range map[string]int{"last block": len(good) - 1, "block before the last": len(good) - 17, "sealed key": sealedKey + 100} {
			bad := bytes.Clone(good)
			bad[at] ^= 0x55
			if _, err := DecryptCMS(bad, cert, key); err != nil && !errors.Is(err, errNotOpened) {
				t.Errorf("%s with a changed %s: %v, want the one error or another text", file, name, err)
			}
		}
	}
}

func TestCutEnvelopesAreRefused(t *testing.T) {
	cert, key := fixtureKeys(t)
	for _, file := range []string{"des3.pkcs1.issuer.der", "des3.pkcs1.issuer.ber"} {
		good := readFile(t, "testdata/cms/"+file)
		for n := range good {
			if got, err := DecryptCMS(good[:n], cert, key); err == nil {
				t.Fatalf("%s: the first %d of %d bytes gave %q", file, n, len(good), got)
			}
		}
	}
}

// A recipient that names another certificate is tried all the same when it is
// the only one: certificates are re-issued for the same key.
func TestOnlyRecipientIsTried(t *testing.T) {
	cert, key := fixtureKeys(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(7), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, cert.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	again, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := DecryptCMS(readFile(t, "testdata/cms/des3.pkcs1.issuer.der"), again, key); err != nil || len(got) == 0 {
		t.Errorf("got %q, %v", got, err)
	}
}

func FuzzDecryptCMS(f *testing.F) {
	cert, key := fixtureKeys(f)
	for _, file := range []string{"des3.pkcs1.issuer.der", "aes-192-cbc.oaep-sha1.keyid.ber"} {
		f.Add(readFile(f, "testdata/cms/"+file))
	}
	f.Add([]byte{0x30, 0x80, 0x30, 0x80, 0x30, 0x80})
	f.Fuzz(func(t *testing.T, data []byte) {
		plain, err := DecryptCMS(data, cert, key)
		if err == nil && len(plain) > len(data) {
			t.Errorf("%d bytes came out of %d", len(plain), len(data))
		}
	})
}
