package workspace

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/openloganalytics/agent/internal/secret"
)

// DecodeKey returns the bytes of a workspace key, which is written in base64.
// Its error repeats nothing of the key.
func DecodeKey(key secret.Secret) ([]byte, error) {
	raw, err := base64.StdEncoding.DecodeString(key.Reveal())
	if err != nil || len(raw) == 0 {
		return nil, errors.New("decode workspace key: not base64 text")
	}
	return raw, nil
}

// OnboardingDate writes t as the x-ms-Date header of onboarding and topology
// requests: nine fractional digits and a numeric offset.
func OnboardingDate(t time.Time) string {
	return t.UTC().Format("2006-01-02T15:04:05.000000000-07:00")
}

// ContentHash returns the x-ms-SHA256_Content header of an onboarding request.
func ContentHash(body []byte) string {
	sum := sha256.Sum256(body)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// OnboardingAuthorization returns the Authorization header of an onboarding
// request. Signed are date and contentHash, the texts of their headers, each
// with a line feed after it (OMS agent for Linux, auth_key.rb).
func OnboardingAuthorization(workspaceID string, key []byte, date, contentHash string) string {
	return workspaceID + "; " + signature(key, date+"\n"+contentHash+"\n")
}

// CollectorAuthorization returns the Authorization header of a request to the
// HTTP Data Collector API with length bytes of body and date, an RFC 1123
// date, as its x-ms-date header (Azure Monitor, HTTP Data Collector API).
func CollectorAuthorization(workspaceID string, key []byte, date string, length int) string {
	return fmt.Sprintf("SharedKey %s:%s", workspaceID, signature(key, collectorString(date, length)))
}

// collectorString has no line feed at its end, unlike the onboarding one.
func collectorString(date string, length int) string {
	return "POST\n" + strconv.Itoa(length) + "\napplication/json\nx-ms-date:" + date + "\n/api/logs"
}

func signature(key []byte, text string) string {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}
