package extension

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"testing"
)

// keyPair is a KeyStore with one certificate under any thumbprint.
type keyPair struct {
	cert *x509.Certificate
	key  crypto.Decrypter
}

func (k keyPair) Find(string) (*x509.Certificate, crypto.Decrypter, error) { return k.cert, k.key, nil }

// sealForTest seals text as CMS EnvelopedData: AES-256-CBC, RSA PKCS#1 v1.5,
// recipient by issuer and serial number.
func sealForTest(t testing.TB, cert *x509.Certificate, text []byte) []byte {
	t.Helper()
	key, iv := make([]byte, 32), make([]byte, aes.BlockSize)
	rand.Read(key)
	rand.Read(iv)
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	padding := aes.BlockSize - len(text)%aes.BlockSize
	content := append(bytes.Clone(text), bytes.Repeat([]byte{byte(padding)}, padding)...)
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(content, content)
	sealedKey, err := rsa.EncryptPKCS1v15(rand.Reader, cert.PublicKey.(*rsa.PublicKey), key) //nolint:staticcheck // what Azure seals with
	if err != nil {
		t.Fatal(err)
	}
	type recipientInfo struct {
		Version int
		ID      struct {
			Issuer asn1.RawValue
			Serial *big.Int
		}
		Algorithm pkix.AlgorithmIdentifier
		Key       []byte
	}
	type enveloped struct {
		Version    int
		Recipients []recipientInfo `asn1:"set"`
		Content    struct {
			Type      asn1.ObjectIdentifier
			Algorithm pkix.AlgorithmIdentifier
			Content   asn1.RawValue
		}
	}
	var message struct {
		Type    asn1.ObjectIdentifier
		Content enveloped `asn1:"explicit,tag:0"`
	}
	message.Type = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 3}
	info := recipientInfo{Algorithm: pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}, Parameters: asn1.NullRawValue}, Key: sealedKey}
	info.ID.Issuer, info.ID.Serial = asn1.RawValue{FullBytes: cert.RawIssuer}, cert.SerialNumber
	message.Content.Recipients = []recipientInfo{info}
	parameter, err := asn1.Marshal(iv)
	if err != nil {
		t.Fatal(err)
	}
	message.Content.Content.Type = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	message.Content.Content.Algorithm = pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42}, Parameters: asn1.RawValue{FullBytes: parameter}}
	message.Content.Content.Content = asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, Bytes: content}
	der, err := asn1.Marshal(message)
	if err != nil {
		t.Fatal(err)
	}
	return der
}
