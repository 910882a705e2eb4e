package workspace

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// testRSA makes one key for all tests: a new one takes long.
var testRSA = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

func testIdentity(t *testing.T, now time.Time) *identity {
	t.Helper()
	id, err := selfSigned(testWorkspace, testAgent, testRSA(), now)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// TestCertificate compares with what the OMS agent's certificates look like.
func TestCertificate(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	c := testIdentity(t, now).leaf()

	var subject []string
	for _, name := range c.Subject.Names {
		subject = append(subject, name.Type.String()+"="+name.Value.(string))
	}
	want := []string{
		"2.5.4.3=" + testWorkspace, "2.5.4.3=" + testAgent,
		"2.5.4.11=Linux Monitoring Agent", "2.5.4.10=Microsoft",
	}
	if diff := cmp.Diff(want, subject); diff != "" {
		t.Errorf("subject (-want +got):\n%s", diff)
	}
	if string(c.RawSubject) != string(c.RawIssuer) {
		t.Error("issuer is not the subject")
	}
	if c.Version != 3 || c.SignatureAlgorithm != x509.SHA256WithRSA || c.PublicKey.(*rsa.PublicKey).N.BitLen() != 2048 {
		t.Errorf("version %d, %v, %d bits", c.Version, c.SignatureAlgorithm, c.PublicKey.(*rsa.PublicKey).N.BitLen())
	}
	if serial := c.SerialNumber.Int64(); serial < 1 || serial > 65534 {
		t.Errorf("serial number %d", serial)
	}
	if c.NotAfter.Sub(c.NotBefore) != 365*24*time.Hour || c.NotBefore.After(now) {
		t.Errorf("valid from %v to %v at %v", c.NotBefore, c.NotAfter, now)
	}
	if !c.IsCA || len(c.SubjectKeyId) != 20 || string(c.SubjectKeyId) != string(c.AuthorityKeyId) {
		t.Errorf("CA %v, key ids %x and %x", c.IsCA, c.SubjectKeyId, c.AuthorityKeyId)
	}
	extensions := map[string]bool{}
	for _, e := range c.Extensions {
		extensions[e.Id.String()] = e.Critical
	}
	if diff := cmp.Diff(map[string]bool{"2.5.29.14": false, "2.5.29.35": false, "2.5.29.19": false}, extensions); diff != "" {
		t.Errorf("extensions and whether they are critical (-want +got):\n%s", diff)
	}
	if err := c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature); err != nil {
		t.Error(err)
	}
	rest, err := asn1.Unmarshal(c.RawSubject, new(asn1.RawValue))
	if err != nil || len(rest) > 0 {
		t.Errorf("subject is not one DER value: %v", err)
	}
}

func TestNewIdentityHasItsOwnKey(t *testing.T) {
	id, err := newIdentity(testWorkspace, testAgent, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if id.leaf().PublicKey.(*rsa.PublicKey).Equal(testRSA().Public()) {
		t.Error("two identities with one key")
	}
}

func TestIdentitySurvives(t *testing.T) {
	dir := t.TempDir()
	id := testIdentity(t, time.Now())
	if err := id.save(dir); err != nil {
		t.Fatal(err)
	}
	again, err := loadIdentity(dir, testWorkspace)
	if err != nil {
		t.Fatal(err)
	}
	if again.guid != testAgent || again.thumbprint() != id.thumbprint() {
		t.Errorf("loaded %s with %s, saved %s with %s", again.guid, again.thumbprint(), id.guid, id.thumbprint())
	}
}

func TestCorruptIdentity(t *testing.T) {
	id := testIdentity(t, time.Now())
	scratch := t.TempDir()
	if err := id.save(scratch); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(filepath.Join(scratch, identityFile))
	if err != nil {
		t.Fatal(err)
	}
	other, err := newIdentity(testWorkspace, testAgent, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := other.save(scratch); err != nil {
		t.Fatal(err)
	}
	foreign, err := os.ReadFile(filepath.Join(scratch, identityFile))
	if err != nil {
		t.Fatal(err)
	}
	certificateEnd := strings.Index(string(good), "-----BEGIN PRIVATE KEY")
	foreignEnd := strings.Index(string(foreign), "-----BEGIN PRIVATE KEY")
	tests := []struct {
		name, text, workspace string
	}{
		{"empty", "", testWorkspace},
		{"garbage", "\x00\x00\x00\x00", testWorkspace},
		{"cut short", string(good[:len(good)/2]), testWorkspace},
		{"no key", string(good[:certificateEnd]), testWorkspace},
		{"another's key", string(good[:certificateEnd]) + string(foreign[foreignEnd:]), testWorkspace},
		{"too large", strings.Repeat("\n", maxStateFile) + string(good), testWorkspace},
		{"another workspace", string(good), "99999999-2222-3333-4444-555555555555"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, identityFile), []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := loadIdentity(dir, tt.workspace); !errors.Is(err, errCorrupt) {
				t.Errorf("error %v, want %v", err, errCorrupt)
			}
		})
	}
	if _, err := loadIdentity(t.TempDir(), testWorkspace); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error without a file is %v", err)
	}
}

func FuzzLoadRegistration(f *testing.F) {
	f.Add([]byte(`{"certificateThumbprint":"ab","domain":"opinsights.azure.com","onboardedAt":"2026-01-02T03:04:05Z","queryIntervalSeconds":3600}`))
	f.Add([]byte(`{"certificateThumbprint":"ab","queryIntervalSeconds":-9}`))
	f.Add([]byte("{"))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(filepath.Join(dir, registrationFile), data, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := loadRegistration(dir)
		if err != nil {
			if !errors.Is(err, errCorrupt) {
				t.Errorf("error %v, want %v", err, errCorrupt)
			}
			return
		}
		if beat := r.beat(); beat < minBeat || beat > maxBeat {
			t.Errorf("period %v of %+v", beat, r)
		}
	})
}
