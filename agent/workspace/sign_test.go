package workspace

import (
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/openloganalytics/agent/internal/secret"
)

const (
	testWorkspace = "11111111-2222-3333-4444-555555555555"
	// testKey is the bytes 00 to 3f.
	testKey = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+Pw=="
)

func decodeKey(t *testing.T, text string) []byte {
	t.Helper()
	key, err := DecodeKey(secret.New(text))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// TestOnboardingVectorPublished is the vector in the OMS agent's unit tests.
func TestOnboardingVectorPublished(t *testing.T) {
	key := decodeKey(t, "qoTgVB0a1393p4FUncrY0nc/U1/CkOYlXz3ok3Oe79gSB6NLa853hiQzcwcyBb10Rjj7iswRvoJGtLJUD/o/yw==")
	got := OnboardingAuthorization(testWorkspace, key, "2015-10-09T22:51:19.259645500-07:00", "5PWvuBVXOgrizTvwU/n9IVA7wgKDj4ihFVWUhb9j9s0=")
	if want := testWorkspace + "; K6h/Cxyr4lYZPX4WiKwgbwUnumOSAFa71AQIz6VnDpw="; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestOnboardingVectorBody signs a whole body of 347 bytes.
func TestOnboardingVectorBody(t *testing.T) {
	body := `<?xml version="1.0"?>
<AgentTopologyRequest xmlns="http://schemas.microsoft.com/WorkloadMonitoring/HealthServiceProtocol/2014/09/"><FullyQualfiedDomainName>host1.example.test</FullyQualfiedDomainName><EntityTypeId>aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee</EntityTypeId><AuthenticationCertificate>QUJD</AuthenticationCertificate></AgentTopologyRequest>`
	if len(body) != 347 {
		t.Fatalf("body has %d bytes", len(body))
	}
	hash := ContentHash([]byte(body))
	if want := "5d/nN2eevVipaxtzN6o83Tql/IqRDxsKUNFrzMEMB9w="; hash != want {
		t.Errorf("ContentHash = %s, want %s", hash, want)
	}
	date := OnboardingDate(time.Date(2024, 1, 2, 3, 4, 5, 123456789, time.UTC))
	if want := "2024-01-02T03:04:05.123456789+00:00"; date != want {
		t.Errorf("OnboardingDate = %s, want %s", date, want)
	}
	got := OnboardingAuthorization(testWorkspace, decodeKey(t, testKey), date, hash)
	if want := testWorkspace + "; +4Br9ZCIG7kEeRUF5dKSjBk+c2X3IYsSCjSPbqVWnNA="; got != want {
		t.Errorf("OnboardingAuthorization = %s, want %s", got, want)
	}
}

const collectorDate = "Mon, 04 Apr 2016 08:00:00 GMT"

func TestCollectorVectorA(t *testing.T) {
	body := `[{"Computer":"host1","Value":42}]`
	const signed = "504f53540a33330a6170706c69636174696f6e2f6a736f6e0a782d6d732d646174653a4d6f6e2c2030342041707220323031362030383a30303a303020474d540a2f6170692f6c6f6773"
	if got := hex.EncodeToString([]byte(collectorString(collectorDate, len(body)))); got != signed {
		t.Errorf("string to sign %s, want %s", got, signed)
	}
	got := CollectorAuthorization(testWorkspace, decodeKey(t, testKey), collectorDate, len(body))
	if want := "SharedKey " + testWorkspace + ":Rl4MuGhONEgrCHIsSyucV1B1O5sM+xZ6/+66WDY8xz8="; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestCollectorVectorB has more bytes than characters: bytes count.
func TestCollectorVectorB(t *testing.T) {
	body := `[{"Name":"Zoë","Ok":true}]`
	got := CollectorAuthorization(testWorkspace, decodeKey(t, testKey), collectorDate, len(body))
	if want := "SharedKey " + testWorkspace + ":H2t1x5WEaEsnMMolDcN90rSQ0oAbR8yuXEkiG6RaZwI="; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestDecodeKeyRepeatsNothing(t *testing.T) {
	for _, text := range []string{"", "canary!", "canarycanary=", "Y2FuYXJ5 canary"} {
		_, err := DecodeKey(secret.New(text))
		if err == nil {
			t.Errorf("DecodeKey(%q) succeeded", text)
		} else if strings.Contains(err.Error(), "canary") {
			t.Errorf("error %q repeats the key", err)
		}
	}
}

func FuzzDecodeKey(f *testing.F) {
	f.Add(testKey)
	f.Add("not base64")
	f.Fuzz(func(t *testing.T, text string) {
		key, err := DecodeKey(secret.New(text))
		if err == nil && len(key) == 0 {
			t.Error("an empty key was accepted")
		}
	})
}
