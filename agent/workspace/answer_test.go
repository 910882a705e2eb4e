package workspace

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/openloganalytics/agent/agent/upload"
)

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	tests := []struct {
		text string
		want time.Duration
	}{
		{"", 0},
		{"120", 2 * time.Minute},
		{" 7 ", 7 * time.Second},
		{"0", time.Second},
		{"3601", time.Hour},
		{"315360000", time.Hour},
		{"99999999999999999999999", time.Hour},
		{"-5", 0},
		{"1.5", 0},
		{"soon", 0},
		{"Fri, 02 Jan 2026 03:05:05 GMT", time.Minute},
		{"Friday, 02-Jan-26 03:05:05 GMT", time.Minute},
		{"Fri, 02 Jan 2026 03:00:00 GMT", time.Second},
		{"Tue, 02 Jan 2036 03:05:05 GMT", time.Hour},
		{"2026-01-02T03:05:05Z", 0},
	}
	for _, tt := range tests {
		if got := parseRetryAfter(tt.text, now); got != tt.want {
			t.Errorf("parseRetryAfter(%q) = %v, want %v", tt.text, got, tt.want)
		}
	}
}

// TestRetryAfterGoesByTheServersClock has a machine whose clock is an hour late.
func TestRetryAfterGoesByTheServersClock(t *testing.T) {
	server := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	a := answer{date: server, header: http.Header{"Retry-After": {"Fri, 02 Jan 2026 03:05:05 GMT"}}}
	if got := a.retryAfter(server.Add(-time.Hour)); got != time.Minute {
		t.Errorf("retryAfter = %v, want 1m", got)
	}
}

func FuzzRetryAfter(f *testing.F) {
	for _, seed := range []string{"120", "-1", "Fri, 02 Jan 2026 03:05:05 GMT", "18446744073709551616"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got := parseRetryAfter(text, time.Unix(1767323045, 0))
		if got != 0 && (got < minRetryAfter || got > maxRetryAfter) {
			t.Errorf("parseRetryAfter(%q) = %v", text, got)
		}
	})
}

// TestAnswers holds what each answer to an upload means for the batch.
func TestAnswers(t *testing.T) {
	html := http.Header{"Content-Type": {"text/html; charset=utf-8"}}
	tests := []struct {
		name       string
		answer     answer
		want       upload.Answer
		retryAfter time.Duration
	}{
		{"200 without a body", answer{status: 200}, upload.Accepted, 0},
		{"200 with a small JSON body", answer{status: 200, body: []byte(`{"ok":true}`), header: http.Header{"Content-Type": {"application/json"}}}, upload.Accepted, 0},
		{"204", answer{status: 204}, upload.Accepted, 0},
		{"200 with a page by its type", answer{status: 200, header: html}, upload.Retry, 0},
		{"200 with a page by its body", answer{status: 200, body: []byte("\r\n <!DOCTYPE html><html>log in")}, upload.Retry, 0},
		{"200 with a page without doctype", answer{status: 200, body: []byte("<HTML>")}, upload.Retry, 0},
		{"200 without end", answer{status: 200, cut: true}, upload.Retry, 0},
		{"302", answer{status: 302, header: http.Header{"Location": {"https://evil.example/"}}}, upload.Hold, 0},
		{"400", answer{status: 400}, upload.Refused, 0},
		{"400 for bad JSON", answer{status: 400, body: []byte(`{"Error":"InvalidDataFormat","Message":"line 1"}`)}, upload.Refused, 0},
		{"400 for a closed workspace", answer{status: 400, body: []byte(`{"Error":"InactiveCustomer","Message":"x"}`)}, upload.Hold, time.Hour},
		{"401", answer{status: 401}, upload.Hold, 0},
		{"403", answer{status: 403}, upload.Hold, 0},
		{"404", answer{status: 404}, upload.Hold, time.Hour},
		{"405", answer{status: 405}, upload.Hold, 0},
		{"408", answer{status: 408}, upload.Retry, 0},
		{"413", answer{status: 413}, upload.TooLarge, 0},
		{"415", answer{status: 415}, upload.Hold, 0},
		{"429", answer{status: 429, header: http.Header{"Retry-After": {"30"}}}, upload.Retry, 30 * time.Second},
		{"429 that names no time", answer{status: 429}, upload.Retry, minThrottle},
		{"500", answer{status: 500}, upload.Retry, 0},
		{"503", answer{status: 503, header: http.Header{"Retry-After": {"7200"}}}, upload.Retry, time.Hour},
		{"599", answer{status: 599}, upload.Retry, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := tt.answer.result(time.Now())
			if got.Answer != tt.want || got.RetryAfter != tt.retryAfter {
				t.Errorf("answer %v after %v, want %v after %v", got.Answer, got.RetryAfter, tt.want, tt.retryAfter)
			}
		})
	}
}

func TestReasonIsAWordAndNothingElse(t *testing.T) {
	tests := []struct{ body, want string }{
		{"<Error><Code>403</Code><Reason>InvalidWorkspaceKey</Reason></Error>", "InvalidWorkspaceKey"},
		{`{"Error":"InactiveCustomer","Message":"canary"}`, "InactiveCustomer"},
		{`{"Error": "InactiveCustomer"}`, "InactiveCustomer"},
		{"<Code>MissingHeader</Code>", "MissingHeader"},
		{"<Reason>a record's text</Reason>", ""},
		{"<Reason>" + strings.Repeat("x", 41) + "</Reason>", ""},
		{"<Reason>unfinished", ""},
		{"<Reason></Reason>", ""},
		{"canary", ""},
		{"", ""},
	}
	for _, tt := range tests {
		if got := reason([]byte(tt.body)); got != tt.want {
			t.Errorf("reason(%q) = %q, want %q", tt.body, got, tt.want)
		}
	}
}

func FuzzReason(f *testing.F) {
	f.Add([]byte("<Reason>InvalidWorkspaceKey</Reason>"))
	f.Add([]byte(`{"Error":"x"`))
	f.Fuzz(func(t *testing.T, body []byte) {
		got := reason(body)
		if len(got) > 40 || strings.ContainsFunc(got, func(r rune) bool { return r < 'A' || r > 'z' }) {
			t.Errorf("reason(%q) = %q", body, got)
		}
	})
}
