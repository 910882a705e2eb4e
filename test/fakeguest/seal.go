package fakeguest

import (
	"bytes"
	"crypto/cipher"
	"crypto/des"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
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

func (t *tenant) thumbprint() string {
	sum := sha1.Sum(t.cert.Raw)
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
		path := filepath.Join(libDir, t.thumbprint()+suffix)
		if err := os.WriteFile(path, append([]byte(attributes), pem.EncodeToMemory(block)...), 0o600); err != nil {
			return fmt.Errorf("write tenant certificate: %w", err)
		}
	}
	return nil
}

// seal returns text in the envelope that Azure uses: CMS EnvelopedData version
// 0 (RFC 5652), 3DES-CBC, RSA PKCS#1 v1.5, recipient by issuer and serial
// number, in base64.
func (t *tenant) seal(text []byte) (string, error) {
	key, iv := make([]byte, 24), make([]byte, des.BlockSize)
	rand.Read(key)
	rand.Read(iv)
	block, err := des.NewTripleDESCipher(key)
	if err != nil {
		return "", fmt.Errorf("seal settings: %w", err)
	}
	padding := des.BlockSize - len(text)%des.BlockSize
	content := append(bytes.Clone(text), bytes.Repeat([]byte{byte(padding)}, padding)...)
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(content, content)
	sealedKey, err := rsa.EncryptPKCS1v15(rand.Reader, &t.key.PublicKey, key) //nolint:staticcheck // what Azure seals with
	if err != nil {
		return "", fmt.Errorf("seal settings: %w", err)
	}
	der, err := marshalEnvelope(t.cert, sealedKey, iv, content)
	if err != nil {
		return "", fmt.Errorf("seal settings: %w", err)
	}
	return base64.StdEncoding.EncodeToString(der), nil
}

// The ASN.1 of RFC 5652, as far as Azure uses it.
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
		ID        issuerAndSerial
		Algorithm pkix.AlgorithmIdentifier
		Key       []byte
	}
	issuerAndSerial struct {
		Issuer asn1.RawValue
		Serial *big.Int
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
	oidTripleDES     = asn1.ObjectIdentifier{1, 2, 840, 113549, 3, 7}
)

func marshalEnvelope(cert *x509.Certificate, key, iv, content []byte) ([]byte, error) {
	parameter, err := asn1.Marshal(iv)
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(contentInfo{oidEnvelopedData, envelopedData{
		Recipients: []recipient{{
			ID:        issuerAndSerial{asn1.RawValue{FullBytes: cert.RawIssuer}, cert.SerialNumber},
			Algorithm: pkix.AlgorithmIdentifier{Algorithm: oidRSA, Parameters: asn1.NullRawValue},
			Key:       key,
		}},
		Content: encryptedContent{
			Type:      oidData,
			Algorithm: pkix.AlgorithmIdentifier{Algorithm: oidTripleDES, Parameters: asn1.RawValue{FullBytes: parameter}},
			Content:   asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, Bytes: content},
		},
	}})
}
