package fakeguest

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// A tenant is the certificate that protected settings are sealed for.
type tenant struct {
	cert *x509.Certificate
	key  *rsa.PrivateKey
}

func newTenant(now time.Time) (*tenant, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fmt.Errorf("make tenant key: %w", err)
	}
	domain := pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 25}, Value: "Windows Azure CRP Certificate Generator"}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()),
		Subject:      pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{domain}},
		NotBefore:    now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0),
		KeyUsage: x509.KeyUsageKeyEncipherment,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make tenant certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("make tenant certificate: %w", err)
	}
	return &tenant{cert, key}, nil
}

func thumbprint(cert *x509.Certificate) string {
	sum := sha1.Sum(cert.Raw)
	return strings.ToUpper(hex.EncodeToString(sum[:]))
}

// install writes certificate and key as the guest agent does: PEM behind the
// attributes that OpenSSL prints.
func (t *tenant) install(libDir string) error {
	const attributes = "Bag Attributes\n    localKeyID: 01 00 00 00\nsubject=\n\nissuer=DC = Windows Azure CRP Certificate Generator\n\n"
	key, err := x509.MarshalPKCS8PrivateKey(t.key)
	if err != nil {
		return fmt.Errorf("write tenant key: %w", err)
	}
	for suffix, block := range map[string]*pem.Block{
		".crt": {Type: "CERTIFICATE", Bytes: t.cert.Raw},
		".prv": {Type: "PRIVATE KEY", Bytes: key},
	} {
		path := filepath.Join(libDir, thumbprint(t.cert)+suffix)
		if err := os.WriteFile(path, append([]byte(attributes), pem.EncodeToMemory(block)...), 0o600); err != nil {
			return fmt.Errorf("write tenant certificate: %w", err)
		}
	}
	return nil
}

// A Sealing says how protected settings are sealed. The zero value is Azure's
// way: Triple DES, RSA PKCS #1 v1.5, recipient by issuer and serial number. VMs
// that ask for FIPS 140-3 get AES and may get OAEP.
type Sealing struct {
	// AES is the size of an AES key in bytes, 16, 24 or 32; 0 is Triple DES.
	AES int
	// OAEP is the hash of RSA-OAEP; 0 is PKCS #1 v1.5.
	OAEP crypto.Hash
	// KeyID names the recipient by the certificate's key identifier.
	KeyID bool
}

// Seal puts text into an envelope for the holder of cert: the DER of a CMS
// EnvelopedData (RFC 5652 §6).
func Seal(cert *x509.Certificate, text []byte, how Sealing) ([]byte, error) {
	der, err := seal(cert, text, how)
	if err != nil {
		return nil, fmt.Errorf("seal settings: %w", err)
	}
	return der, nil
}

func seal(cert *x509.Certificate, text []byte, how Sealing) ([]byte, error) {
	keySize, newCipher := 24, des.NewTripleDESCipher
	if how.AES != 0 {
		keySize, newCipher = how.AES, aes.NewCipher
	}
	key := random(keySize)
	block, err := newCipher(key)
	if err != nil {
		return nil, err
	}
	iv := random(block.BlockSize())
	padding := block.BlockSize() - len(text)%block.BlockSize()
	content := append(bytes.Clone(text), bytes.Repeat([]byte{byte(padding)}, padding)...)
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(content, content)

	to, err := how.recipient(cert, key)
	if err != nil {
		return nil, err
	}
	parameter, err := asn1.Marshal(iv)
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(contentInfo{oidEnvelopedData, envelopedData{
		Version:    to.Version,
		Recipients: []recipient{to},
		Content: encryptedContent{
			Type:      oidData,
			Algorithm: pkix.AlgorithmIdentifier{Algorithm: oidCipher[how.AES], Parameters: asn1.RawValue{FullBytes: parameter}},
			Content:   asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, Bytes: content},
		},
	}})
}

// recipient seals the content key. By key identifier, recipient and envelope
// are of version 2, otherwise of version 0.
func (how Sealing) recipient(cert *x509.Certificate, key []byte) (to recipient, err error) {
	public, ok := cert.PublicKey.(*rsa.PublicKey)
	if !ok {
		return to, fmt.Errorf("certificate %s has no RSA key", thumbprint(cert))
	}
	if how.KeyID {
		to.Version = 2
		to.ID = asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, Bytes: cert.SubjectKeyId}
	} else {
		name, err := asn1.Marshal(issuerAndSerial{asn1.RawValue{FullBytes: cert.RawIssuer}, cert.SerialNumber})
		if err != nil {
			return to, err
		}
		to.ID.FullBytes = name
	}
	if how.OAEP == 0 {
		to.Algorithm = pkix.AlgorithmIdentifier{Algorithm: oidRSA, Parameters: asn1.NullRawValue}
		to.Key, err = rsa.EncryptPKCS1v15(rand.Reader, public, key) //nolint:staticcheck // what Azure seals with
		return to, err
	}
	hash := pkix.AlgorithmIdentifier{Algorithm: oidHash[how.OAEP], Parameters: asn1.NullRawValue}
	hashDER, err := asn1.Marshal(hash)
	if err != nil {
		return to, err
	}
	parameters, err := asn1.Marshal(oaepParameters{
		Hash: hash,
		Mask: pkix.AlgorithmIdentifier{Algorithm: oidMGF1, Parameters: asn1.RawValue{FullBytes: hashDER}},
	})
	if err != nil {
		return to, err
	}
	to.Algorithm = pkix.AlgorithmIdentifier{Algorithm: oidOAEP, Parameters: asn1.RawValue{FullBytes: parameters}}
	to.Key, err = rsa.EncryptOAEP(how.OAEP.New(), rand.Reader, public, key, nil)
	return to, err
}

func random(n int) []byte {
	data := make([]byte, n)
	rand.Read(data)
	return data
}

// The ASN.1 of RFC 5652 and RFC 8017, as far as Azure uses it.
type (
	contentInfo struct {
		Type    asn1.ObjectIdentifier
		Content envelopedData `asn1:"explicit,tag:0"`
	}
	envelopedData struct {
		Version    int
		Recipients []recipient `asn1:"set"`
		Content    encryptedContent
	}
	recipient struct {
		Version   int
		ID        asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Key       []byte
	}
	issuerAndSerial struct {
		Issuer asn1.RawValue
		Serial *big.Int
	}
	oaepParameters struct {
		Hash pkix.AlgorithmIdentifier `asn1:"explicit,tag:0"`
		Mask pkix.AlgorithmIdentifier `asn1:"explicit,tag:1"`
	}
	encryptedContent struct {
		Type      asn1.ObjectIdentifier
		Algorithm pkix.AlgorithmIdentifier
		Content   asn1.RawValue
	}
)

var (
	oidData          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	oidEnvelopedData = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 3}
	oidRSA           = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
	oidOAEP          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 7}
	oidMGF1          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 8}

	// oidCipher is by the size of the AES key; 0 is Triple DES.
	oidCipher = map[int]asn1.ObjectIdentifier{
		0:  {1, 2, 840, 113549, 3, 7},
		16: {2, 16, 840, 1, 101, 3, 4, 1, 2},
		24: {2, 16, 840, 1, 101, 3, 4, 1, 22},
		32: {2, 16, 840, 1, 101, 3, 4, 1, 42},
	}
	oidHash = map[crypto.Hash]asn1.ObjectIdentifier{
		crypto.SHA1:   {1, 3, 14, 3, 2, 26},
		crypto.SHA256: {2, 16, 840, 1, 101, 3, 4, 2, 1},
		crypto.SHA384: {2, 16, 840, 1, 101, 3, 4, 2, 2},
		crypto.SHA512: {2, 16, 840, 1, 101, 3, 4, 2, 3},
	}
)
