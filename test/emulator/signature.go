package emulator

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
)

// contentHash is what x-ms-SHA256_Content carries.
func contentHash(body []byte) string {
	sum := sha256.Sum256(body)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// onboardingText is the string that onboarding signs: two lines, both ended
// (OMS agent for Linux, auth_key.rb).
func onboardingText(date, hash string) string { return date + "\n" + hash + "\n" }

// collectorText is the string that a post to the HTTP Data Collector API
// signs: five lines, the last one not ended, the length in bytes.
func collectorText(length int, date string) string {
	return fmt.Sprintf("POST\n%d\napplication/json\nx-ms-date:%s\n%s", length, date, pathCollector)
}

// signature is the base64 HMAC-SHA256 of text.
func signature(key []byte, text string) string {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text)) // a hash does not fail
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// signed reports whether one of the workspace's keys made this signature.
func (w *workspace) signed(text, given string) bool {
	found := 0
	for _, key := range w.keys {
		found |= subtle.ConstantTimeCompare([]byte(signature(key, text)), []byte(given))
	}
	return found == 1
}
