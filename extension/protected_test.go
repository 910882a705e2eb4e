package extension

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openloganalytics/agent/test/fakeguest"
)

// plainText is what all envelopes in testdata hold.
const plainText = `{"token":"open sesame","list":[1,2,3],"text":"grüße"}`

// throwaway returns the certificate that the envelopes are sealed for.
func throwaway(t testing.TB) (*x509.Certificate, *rsa.PrivateKey) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "throwaway.pem"))
	if err != nil {
		t.Fatal(err)
	}
	var cert *x509.Certificate
	var key *rsa.PrivateKey
	for block := range pemBlocks(data) {
		if block.Type == "CERTIFICATE" {
			cert, err = x509.ParseCertificate(block.Bytes)
		} else {
			key, err = parseKey(block)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// envelopes returns testdata/envelopes.txt by name.
func envelopes(t testing.TB) map[string][]byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "envelopes.txt"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]byte{}
	for line := range strings.Lines(string(data)) {
		name, text, ok := strings.Cut(strings.TrimSpace(line), " ")
		if name == "#" || !ok {
			continue
		}
		if all[name], err = base64.StdEncoding.DecodeString(text); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func TestDecryptCMSOpensWhatOthersSealed(t *testing.T) {
	t.Parallel()
	cert, key := throwaway(t)
	all := envelopes(t)
	if len(all) != 59 {
		t.Fatalf("%d envelopes, want 59", len(all))
	}
	for name, der := range all {
		if got, err := DecryptCMS(der, cert, key); err != nil || string(got) != plainText {
			t.Errorf("%s: DecryptCMS = %q, %v", name, got, err)
		}
	}
}

// sealings are the ways of the encryptor in fakeguest.
func sealings() map[string]fakeguest.Sealing {
	all := map[string]fakeguest.Sealing{}
	for _, aes := range []int{0, 16, 24, 32} {
		for _, oaep := range []crypto.Hash{0, crypto.SHA1, crypto.SHA256, crypto.SHA384, crypto.SHA512} {
			for _, keyID := range []bool{false, true} {
				all[fmt.Sprintf("AES %d, OAEP %v, by key id %v", aes, oaep, keyID)] = fakeguest.Sealing{AES: aes, OAEP: oaep, KeyID: keyID}
			}
		}
	}
	return all
}

func sealed(t testing.TB, cert *x509.Certificate, text string, how fakeguest.Sealing) []byte {
	t.Helper()
	der, err := fakeguest.Seal(cert, []byte(text), how)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestDecryptCMSOpensEverySealingInDERAndBER(t *testing.T) {
	t.Parallel()
	cert, key := throwaway(t)
	texts := []string{"", "{}", strings.Repeat("x", 7), strings.Repeat("x", 8), strings.Repeat("x", 16), strings.Repeat("long ", 999)}
	for name, how := range sealings() {
		text := texts[how.AES/8]
		der := sealed(t, cert, text, how)
		for form, data := range map[string][]byte{"DER": der, "BER": toBER(t, der)} {
			if got, err := DecryptCMS(data, cert, key); err != nil || string(got) != text {
				t.Errorf("%s, %s: DecryptCMS = %q, %v; want %q", name, form, got, err, text)
			}
		}
	}
	for i := range 3 * 16 { // every length of padding
		text := strings.Repeat("y", i)
		for _, aes := range []int{0, 16} {
			if got, err := DecryptCMS(sealed(t, cert, text, fakeguest.Sealing{AES: aes}), cert, key); err != nil || string(got) != text {
				t.Errorf("%d bytes: DecryptCMS = %q, %v", i, got, err)
			}
		}
	}
}

// toBER writes DER anew with indefinite lengths and with octet strings in
// pieces, the way of encoders that do not know the length beforehand.
func toBER(t testing.TB, der []byte) []byte {
	t.Helper()
	e, err := readBER(der)
	if err != nil {
		t.Fatal(err)
	}
	// The names of recipients are compared as they are and stay DER.
	return appendBER(nil, e, 0)
}

func appendBER(out []byte, e element, depth int) []byte {
	switch {
	case e.tag&tagConstructed != 0 && depth < 5:
		out = append(out, e.tag, 0x80)
		for _, part := range e.parts {
			out = appendBER(out, part, depth+1)
		}
		return append(out, 0, 0)
	case e.tag == tagContext || e.tag == tagOctetString && len(e.body) > 16:
		out = append(out, e.tag|tagConstructed, 0x80)
		for piece := range slicesOf(e.body, 100) {
			out = append(out, tagOctetString, byte(len(piece)))
			out = append(out, piece...)
		}
		return append(out, 0, 0)
	default:
		return append(out, e.raw...)
	}
}

func slicesOf(data []byte, size int) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(data) > 0 {
			n := min(size, len(data))
			if !yield(data[:n]) {
				return
			}
			data = data[n:]
		}
	}
}

// reissued is another certificate for the same key.
func reissued(t testing.TB, key *rsa.PrivateKey) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "reissued"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestDecryptCMSTriesTheOnlyRecipient(t *testing.T) {
	t.Parallel()
	cert, key := throwaway(t)
	other := reissued(t, key)
	for _, keyID := range []bool{false, true} {
		der := sealed(t, cert, plainText, fakeguest.Sealing{KeyID: keyID})
		if got, err := DecryptCMS(der, other, key); err != nil || string(got) != plainText {
			t.Errorf("DecryptCMS = %q, %v", got, err)
		}
	}
	if _, err := DecryptCMS(envelopes(t)["des3-v15-second-of-two-der"], other, key); err == nil || !strings.Contains(err.Error(), "none of its 2 recipients") {
		t.Errorf("DecryptCMS of an envelope for two others = %v", err)
	}
}

// An envelope may say who sealed it; nobody here wants to know.
func TestDecryptCMSSkipsTheOriginator(t *testing.T) {
	t.Parallel()
	cert, key := throwaway(t)
	version := []byte{tagInteger, 1, 0}
	data := bytes.Replace(toBER(t, sealed(t, cert, plainText, fakeguest.Sealing{})), version, append(version, 0xa0, 0), 1)
	if got, err := DecryptCMS(data, cert, key); err != nil || string(got) != plainText {
		t.Errorf("DecryptCMS = %q, %v", got, err)
	}
}

// With a wrong key or a spoilt envelope there is one answer, whatever was
// wrong. Very rarely a random key leaves what looks like padding; then what
// comes out is not the text.
func TestDecryptCMSHasOneAnswerForEveryWrongKey(t *testing.T) {
	t.Parallel()
	cert, key := throwaway(t)
	stranger := newKey(t)
	for _, how := range []fakeguest.Sealing{{}, {AES: 32}, {OAEP: crypto.SHA1}, {AES: 16, OAEP: crypto.SHA512}} {
		der := sealed(t, cert, plainText, how)
		env, err := parseEnvelope(der)
		if err != nil {
			t.Fatal(err)
		}
		spoil := func(part []byte, i int) []byte {
			bad := bytes.Clone(der)
			bad[bytes.Index(der, part)+i] ^= 1
			return bad
		}
		sealedKey := env.recipients[0].sealedKey
		for what, try := range map[string]struct {
			der []byte
			key *rsa.PrivateKey
		}{
			"stranger's key":     {der, stranger},
			"spoilt sealed key":  {spoil(sealedKey, len(sealedKey)-1), key},
			"sealed key too big": {bytes.Replace(der, sealedKey, bytes.Repeat([]byte{0xff}, len(sealedKey)), 1), key},
			"spoilt last block":  {spoil(env.sealed, len(env.sealed)-1), key},
		} {
			got, err := DecryptCMS(try.der, cert, try.key)
			if err == nil && string(got) == plainText || err != nil && !errors.Is(err, errNotOpened) {
				t.Errorf("%+v, %s: DecryptCMS = %q, %v; want %v", how, what, got, err, errNotOpened)
			}
		}
	}
	// A content key of another length than the cipher's.
	three, sixteen := sealed(t, cert, plainText, fakeguest.Sealing{OAEP: crypto.SHA1}), sealed(t, cert, plainText, fakeguest.Sealing{OAEP: crypto.SHA1, AES: 16})
	a, errA := parseEnvelope(three)
	b, errB := parseEnvelope(sixteen)
	if err := errors.Join(errA, errB); err != nil {
		t.Fatal(err)
	}
	mixed := bytes.Replace(three, a.recipients[0].sealedKey, b.recipients[0].sealedKey, 1)
	if got, err := DecryptCMS(mixed, cert, key); !errors.Is(err, errNotOpened) {
		t.Errorf("DecryptCMS with a key of 16 bytes for Triple DES = %q, %v", got, err)
	}
}

func TestDecryptCMSSaysWhatIsWrongWithAnEnvelope(t *testing.T) {
	t.Parallel()
	cert, key := throwaway(t)
	good := sealed(t, cert, plainText, fakeguest.Sealing{})
	oaep := sealed(t, cert, plainText, fakeguest.Sealing{OAEP: crypto.SHA256})
	replaced := func(der []byte, old, with string) []byte {
		bad := bytes.Replace(der, []byte(old), []byte(with), 1)
		if bytes.Equal(bad, der) {
			t.Fatalf("%x is not in the envelope", old)
		}
		return bad
	}
	const (
		tripleDES = "\x06\x08\x2a\x86\x48\x86\xf7\x0d\x03\x07"
		rc2       = "\x06\x08\x2a\x86\x48\x86\xf7\x0d\x03\x02"
		rsaOID    = "\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01"
		pssOID    = "\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a"
		envOID    = "\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x03"
		signedOID = "\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02"
		sha256OID = "\x60\x86\x48\x01\x65\x03\x04\x02\x01"
		sha224OID = "\x60\x86\x48\x01\x65\x03\x04\x02\x04"
		mgf1OID   = "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x08"
		otherOID  = "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c"
	)
	for _, tt := range []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "cut short"},
		{"cut", good[:len(good)-1], "cut short"},
		{"followed by something", append(bytes.Clone(good), 0, 0), "2 bytes follow"},
		{"text", []byte("hello, world"), "cut short"},
		{"other structure", []byte{0x30, 0x03, 0x02, 0x01, 0x00}, "not CMS"},
		{"signed", replaced(good, envOID, signedOID), "instead of enveloped data"},
		{"other cipher", replaced(good, tripleDES, rc2), `"1.2.840.113549.3.2", which is not supported`},
		{"other key transport", replaced(good, rsaOID, pssOID), `"1.2.840.113549.1.1.10", which is not supported`},
		{"other hash", replaced(oaep, sha256OID, sha224OID), "OAEP parameters that are not supported"},
		{"other mask", replaced(oaep, mgf1OID, otherOID), "OAEP parameters that are not supported"},
		{"nesting without end", bytes.Repeat([]byte{0x30, 0x80}, 1<<16), "more parts than any real one"},
		{"parts without end", append([]byte{0x30, 0x80}, bytes.Repeat([]byte{0x05, 0x00}, 1<<16)...), "more parts than any real one"},
		{"length of four GiB", []byte{0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 0, 0}, "cut short"},
		{"length of five bytes", []byte{0x30, 0x85, 1, 1, 1, 1, 1, 0}, "longer than any real one"},
		{"primitive without length", []byte{0x04, 0x80, 0, 0}, "primitive element of indefinite length"},
		{"high tag", []byte{0x1f, 0x81, 0x01, 0x00}, "tag 0x1f"},
	} {
		got, err := DecryptCMS(tt.data, cert, key)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: DecryptCMS = %q, %v; want an error with %q", tt.name, got, err, tt.want)
		}
	}
}

// A part that is missing or of another kind is an error wherever it is.
func TestDecryptCMSRefusesEveryMissingPart(t *testing.T) {
	t.Parallel()
	cert, key := throwaway(t)
	for _, how := range []fakeguest.Sealing{{}, {AES: 32, OAEP: crypto.SHA256, KeyID: true}} {
		der := sealed(t, cert, plainText, how)
		for i := range der {
			if got, err := DecryptCMS(der[:i], cert, key); err == nil {
				t.Fatalf("cut to %d bytes: DecryptCMS = %q", i, got)
			}
		}
		e, err := readBER(der)
		if err != nil {
			t.Fatal(err)
		}
		damaged := 0
		for _, spoil := range spoiledTrees(e) {
			damaged++
			if got, err := DecryptCMS(spoil, cert, key); err == nil && string(got) != plainText {
				t.Errorf("a damaged envelope gave %q", got)
			}
		}
		if damaged < 40 {
			t.Errorf("only %d damaged envelopes were tried", damaged)
		}
	}
}

// spoiledTrees returns e once for each of its descendants without that
// descendant, and once with an INTEGER in its place.
func spoiledTrees(e element) (all [][]byte) {
	for i, part := range e.parts {
		before, after := rawOf(e.parts[:i]), rawOf(e.parts[i+1:])
		for _, spoiled := range append([][]byte{nil, {tagInteger, 1, 0}}, spoiledTrees(part)...) {
			body := append(append(bytes.Clone(before), spoiled...), after...)
			all = append(all, append(append([]byte{e.tag, 0x82, byte(len(body) >> 8), byte(len(body))}, body...), []byte{}...))
		}
	}
	return all
}

func rawOf(parts []element) (raw []byte) {
	for _, part := range parts {
		raw = append(raw, part.raw...)
	}
	return raw
}

func TestUnpad(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		plain string
		size  int // of what is left; -1 is an error
	}{
		{"\x08\x08\x08\x08\x08\x08\x08\x08", 0},
		{"abcdefg\x01", 7},
		{"abcde\x03\x03\x03", 5},
		{"12345678abcde\x03\x03\x03", 13},
		{"abcdefg\x00", -1},
		{"abcdefg\x09", -1},
		{"\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09", -1},
		{"abcde\x02\x03\x03", -1},
		{"abcdefg\xff", -1},
	} {
		got, err := unpad([]byte(tt.plain), 8)
		if tt.size < 0 && err == nil || tt.size >= 0 && (err != nil || string(got) != tt.plain[:tt.size]) {
			t.Errorf("unpad(%q) = %q, %v; want %d bytes", tt.plain, got, err, tt.size)
		}
	}
}

func FuzzDecryptCMS(f *testing.F) {
	cert, key := throwaway(f)
	for _, der := range envelopes(f) {
		f.Add(der)
	}
	f.Add(toBER(f, sealed(f, cert, plainText, fakeguest.Sealing{})))
	f.Fuzz(func(t *testing.T, data []byte) {
		plain, err := DecryptCMS(data, cert, key)
		if err == nil && len(plain) >= len(data) {
			t.Errorf("%d bytes came out of %d", len(plain), len(data))
		}
	})
}
