package extension

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des" //nolint:gosec // G502: Azure seals protected settings with Triple DES unless the VM asks for FIPS 140-3.
	"crypto/rand"
	"crypto/rsa"
	"crypto/subtle"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
)

// errNotOpened is the one answer for everything that goes wrong once the key
// is in use: wrong key, bad padding of either kind. What differs here would
// tell a stranger about the plain text (RFC 3218).
var errNotOpened = errors.New("the key does not open the envelope")

// DecryptCMS opens a CMS EnvelopedData (RFC 5652 §6), in DER or BER, with the
// private key of cert. It takes what Azure seals protected settings with:
//
//   - key transport by RSA, PKCS #1 v1.5 or OAEP with SHA-1 and SHA-2 (RFC
//     8017), to a recipient named by issuer and serial number or by key
//     identifier; when nobody is named like cert, the only recipient is tried;
//   - content in Triple DES or AES-128, -192 or -256, all CBC.
//
// The error says what is wrong with an envelope as far as anybody without the
// key could say it, and nothing more than that.
func DecryptCMS(data []byte, cert *x509.Certificate, key crypto.Decrypter) ([]byte, error) {
	env, err := parseEnvelope(data)
	if err != nil {
		return nil, fmt.Errorf("read envelope: %w", err)
	}
	to, err := env.recipientFor(cert)
	if err != nil {
		return nil, err
	}
	contentKey, err := key.Decrypt(rand.Reader, to.sealedKey, to.transport(env.content.keySize))
	if err != nil || len(contentKey) != env.content.keySize {
		return nil, errNotOpened
	}
	block, err := env.content.newCipher(contentKey)
	if err != nil {
		return nil, fmt.Errorf("open envelope: %w", err) // Not the key: the machine forbids the cipher.
	}
	plain := make([]byte, len(env.sealed))
	cipher.NewCBCDecrypter(block, env.content.iv).CryptBlocks(plain, env.sealed)
	return unpad(plain, block.BlockSize())
}

// unpad removes the padding of RFC 5652 §6.3. It takes as long for a bad
// padding as for a good one. plain is one or more whole blocks.
func unpad(plain []byte, blockSize int) ([]byte, error) {
	padding := int(plain[len(plain)-1])
	good := subtle.ConstantTimeLessOrEq(1, padding) & subtle.ConstantTimeLessOrEq(padding, blockSize)
	for i := 1; i <= blockSize; i++ {
		outside := subtle.ConstantTimeLessOrEq(padding+1, i)
		good &= outside | subtle.ConstantTimeByteEq(plain[len(plain)-i], byte(padding))
	}
	if good != 1 {
		return nil, errNotOpened
	}
	return plain[:len(plain)-padding], nil
}

// An envelope is an EnvelopedData, taken apart.
type envelope struct {
	recipients []recipient
	content    contentCipher
	sealed     []byte // whole blocks, at least one
}

// A recipient is a KeyTransRecipientInfo: for whom the content key is sealed,
// and how. Exactly one of issuer and keyID is set.
type recipient struct {
	issuer    []byte // DER of the name
	serial    []byte // content of the INTEGER
	keyID     []byte
	transport func(keySize int) crypto.DecrypterOpts
	sealedKey []byte
}

// A contentCipher is what the content is encrypted with.
type contentCipher struct {
	newCipher func(key []byte) (cipher.Block, error)
	keySize   int // bytes
	blockSize int // bytes
	iv        []byte
}

func parseEnvelope(data []byte) (*envelope, error) {
	info, err := readBER(data)
	if err != nil {
		return nil, err
	}
	kind, ok := info.oid()
	if !ok || info.tag != tagSequence {
		return nil, errors.New("it is not CMS")
	}
	if kind != "1.2.840.113549.1.7.3" {
		return nil, fmt.Errorf("it holds content type %s instead of enveloped data", kind)
	}
	wrap, ok := info.part(1, tagContext|tagConstructed)
	if !ok {
		return nil, errors.New("it is empty")
	}
	data0, ok := wrap.part(0, tagSequence)
	if !ok {
		return nil, errors.New("it is empty")
	}
	// version, [0] originatorInfo OPTIONAL, recipientInfos, encryptedContentInfo.
	// All versions are laid out alike.
	if _, ok := data0.part(0, tagInteger); !ok {
		return nil, errors.New("it has no version")
	}
	next := 1
	if _, ok := data0.part(next, tagContext|tagConstructed); ok {
		next++
	}
	infos, ok := data0.part(next, tagSet)
	if !ok {
		return nil, errors.New("it names no recipients")
	}
	content, ok := data0.part(next+1, tagSequence)
	if !ok {
		return nil, errors.New("it has no content")
	}
	env := &envelope{}
	if env.recipients, err = parseRecipients(infos); err != nil {
		return nil, err
	}
	return env, env.parseContent(content)
}

// parseRecipients skips recipients that get the key by other means than RSA
// key transport, and those whose means are unknown unless all are.
func parseRecipients(set element) ([]recipient, error) {
	var recipients []recipient
	err := errors.New("it has no recipient by key transport")
	for _, info := range set.parts {
		if info.tag != tagSequence {
			continue // Key agreement, password and the like.
		}
		one, unknown := parseRecipient(info)
		if unknown != nil {
			err = unknown
			continue
		}
		recipients = append(recipients, one)
	}
	if len(recipients) == 0 {
		return nil, err
	}
	return recipients, nil
}

func parseRecipient(info element) (to recipient, err error) {
	malformed := errors.New("it has a malformed recipient")
	if len(info.parts) != 4 || info.parts[0].tag != tagInteger {
		return to, malformed
	}
	if name, ok := info.part(1, tagSequence); ok {
		serial, ok := name.part(1, tagInteger)
		if !ok || len(name.parts) != 2 {
			return to, malformed
		}
		to.issuer, to.serial = name.parts[0].raw, serial.body
	} else if to.keyID, ok = info.parts[1].octets(tagContext); !ok {
		return to, malformed
	}
	algorithm, ok := info.part(2, tagSequence)
	if !ok {
		return to, malformed
	}
	if to.sealedKey, ok = info.parts[3].octets(tagOctetString); !ok {
		return to, malformed
	}
	to.transport, err = parseTransport(algorithm)
	return to, err
}

// recipientFor finds the recipient named like cert. When nobody is, the only
// recipient is taken: certificates are issued anew for the same key.
func (env *envelope) recipientFor(cert *x509.Certificate) (recipient, error) {
	for _, to := range env.recipients {
		if to.is(cert) {
			return to, nil
		}
	}
	if len(env.recipients) == 1 {
		return env.recipients[0], nil
	}
	return recipient{}, fmt.Errorf("read envelope: none of its %d recipients is this certificate", len(env.recipients))
}

func (to recipient) is(cert *x509.Certificate) bool {
	if to.issuer == nil {
		return len(to.keyID) > 0 && bytes.Equal(to.keyID, cert.SubjectKeyId)
	}
	positive := len(to.serial) > 0 && to.serial[0]&0x80 == 0
	return positive && bytes.Equal(to.issuer, cert.RawIssuer) &&
		new(big.Int).SetBytes(to.serial).Cmp(cert.SerialNumber) == 0
}

// parseTransport reads the algorithm that seals the content key.
func parseTransport(algorithm element) (func(keySize int) crypto.DecrypterOpts, error) {
	switch oid, _ := algorithm.oid(); oid {
	case "1.2.840.113549.1.1.1": // rsaEncryption, RFC 3370 §4.2.1
		return func(keySize int) crypto.DecrypterOpts {
			// With a session key length, a bad padding gives a random key in
			// the same time, so that nothing is learnt from it.
			return &rsa.PKCS1v15DecryptOptions{SessionKeyLen: keySize} //nolint:staticcheck // SA1019: Azure seals with it; see above for its danger.
		}, nil
	case "1.2.840.113549.1.1.7": // id-RSAES-OAEP, RFC 8017 A.2.1
		options, err := parseOAEP(algorithm)
		if err != nil {
			return nil, err
		}
		return func(int) crypto.DecrypterOpts { return options }, nil
	default:
		return nil, fmt.Errorf("its key is sealed with algorithm %q, which is not supported", oid)
	}
}

// parseOAEP reads RSAES-OAEP-params: [0] hash, [1] mask generation, [2] label,
// each with a default.
func parseOAEP(algorithm element) (*rsa.OAEPOptions, error) {
	options := &rsa.OAEPOptions{Hash: crypto.SHA1, MGFHash: crypto.SHA1}
	parameters, ok := algorithm.part(1, tagSequence)
	if !ok {
		return options, nil
	}
	for _, parameter := range parameters.parts {
		value, ok := parameter.part(0, tagSequence)
		oid, _ := value.oid()
		switch {
		case !ok:
		case parameter.tag == tagContext|tagConstructed:
			options.Hash, ok = value.hash()
		case parameter.tag == tagContext|tagConstructed|1 && oid == "1.2.840.113549.1.1.8": // MGF1
			var hash element
			hash, ok = value.part(1, tagSequence)
			options.MGFHash, _ = hash.hash()
			ok = ok && options.MGFHash != 0
		case parameter.tag == tagContext|tagConstructed|2 && oid == "1.2.840.113549.1.1.9": // pSpecified
			var label element
			label, ok = value.part(1, tagOctetString)
			options.Label = label.body
		default:
			ok = false
		}
		if !ok {
			return nil, errors.New("its key is sealed with OAEP parameters that are not supported")
		}
	}
	return options, nil
}

// hash reads the AlgorithmIdentifier of a hash function.
func (e element) hash() (crypto.Hash, bool) {
	switch oid, _ := e.oid(); oid {
	case "1.3.14.3.2.26":
		return crypto.SHA1, true
	case "2.16.840.1.101.3.4.2.1":
		return crypto.SHA256, true
	case "2.16.840.1.101.3.4.2.2":
		return crypto.SHA384, true
	case "2.16.840.1.101.3.4.2.3":
		return crypto.SHA512, true
	default:
		return 0, false
	}
}

// parseContent reads EncryptedContentInfo: content type, algorithm and [0]
// content.
func (env *envelope) parseContent(info element) error {
	algorithm, ok := info.part(1, tagSequence)
	if !ok || len(info.parts) < 3 {
		return errors.New("it has no content")
	}
	c := &env.content
	switch oid, _ := algorithm.oid(); oid {
	case "1.2.840.113549.3.7":
		*c = contentCipher{newCipher: des.NewTripleDESCipher, keySize: 24, blockSize: des.BlockSize}
	case "2.16.840.1.101.3.4.1.2":
		*c = contentCipher{newCipher: aes.NewCipher, keySize: 16, blockSize: aes.BlockSize}
	case "2.16.840.1.101.3.4.1.22":
		*c = contentCipher{newCipher: aes.NewCipher, keySize: 24, blockSize: aes.BlockSize}
	case "2.16.840.1.101.3.4.1.42":
		*c = contentCipher{newCipher: aes.NewCipher, keySize: 32, blockSize: aes.BlockSize}
	default:
		return fmt.Errorf("its content is encrypted with algorithm %q, which is not supported", oid)
	}
	iv, ok := algorithm.part(1, tagOctetString)
	if !ok || len(iv.body) != c.blockSize {
		return errors.New("its initialization vector has the wrong length")
	}
	c.iv = iv.body
	if env.sealed, ok = info.parts[2].octets(tagContext); !ok {
		return errors.New("it has no content")
	}
	if len(env.sealed) == 0 || len(env.sealed)%c.blockSize != 0 {
		return errors.New("its content is not whole blocks")
	}
	return nil
}

// oid returns the first part, an object identifier, in dotted notation.
func (e element) oid() (string, bool) {
	part, ok := e.part(0, tagOID)
	if !ok {
		return "", false
	}
	var oid asn1.ObjectIdentifier
	if _, err := asn1.Unmarshal(part.raw, &oid); err != nil {
		return "", false
	}
	return oid.String(), true
}
