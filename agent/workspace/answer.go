package workspace

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/openloganalytics/agent/agent/upload"
)

// Bounds of one exchange.
const (
	maxAnswer = 64 << 10 // bytes of an answer's body that are looked at, unless it brings a document
	// A request body advances by stallBytes every stallTime, 1 KiB/s, or the
	// exchange is given up.
	stallBytes = 32 << 10
	stallTime  = 32 * time.Second
)

var (
	errStalled = errors.New("the connection takes less than 1 KiB/s")
	// errSlow: time ran out while the body was still going out.
	errSlow = fmt.Errorf("the link is too slow for a body of this size: %w", context.DeadlineExceeded)
)

// An answer is what came back, whole or as much of it as matters.
type answer struct {
	status int
	header http.Header
	body   []byte
	cut    bool      // the body was longer than what was read of it
	date   time.Time // zero when the answer had none
}

// post makes one exchange that sends something.
func (c *Client) post(ctx context.Context, transport *http.Transport, target string, header http.Header, body []byte) (answer, error) {
	return c.exchange(ctx, transport, http.MethodPost, target, header, body, maxAnswer)
}

// exchange makes one exchange: one request, no redirect, no second attempt. It
// learns the service's clock from any answer, of which it reads so many bytes.
func (c *Client) exchange(ctx context.Context, transport *http.Transport, method, target string, header http.Header, body []byte, most int) (answer, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stall := time.AfterFunc(stallTime, func() { cancel(errStalled) })
	stall.Stop()
	defer stall.Stop()

	request, err := http.NewRequestWithContext(ctx, method, target, nil)
	if err != nil {
		return answer{}, fmt.Errorf("make request: %w", err)
	}
	request.Header = header
	left := new(atomic.Int64)
	if body != nil {
		request.ContentLength = int64(len(body))
		request.GetBody = func() (io.ReadCloser, error) { return newWatchedBody(body, stall, left), nil }
		request.Body = newWatchedBody(body, stall, left)
	}

	sent := c.o.Clock()
	response, err := transport.RoundTrip(request)
	stall.Stop()
	if err != nil {
		if cause := context.Cause(ctx); errors.Is(cause, errStalled) {
			err = cause
		} else if errors.Is(ctx.Err(), context.DeadlineExceeded) && 0 < left.Load() && left.Load() < int64(len(body)) {
			err = errSlow
		}
		return answer{}, err
	}
	a := answer{status: response.StatusCode, header: response.Header}
	if date, err := http.ParseTime(response.Header.Get("Date")); err == nil {
		a.date = date
		c.learnClock(date, sent, c.o.Clock())
	}
	a.body, err = io.ReadAll(io.LimitReader(response.Body, int64(most)+1))
	// The body was read as far as it matters; closing cannot lose anything.
	_ = response.Body.Close()
	if a.cut = len(a.body) > most; a.cut {
		a.body = a.body[:most]
	}
	if err != nil && a.status/100 == 2 {
		return answer{}, fmt.Errorf("read answer: %w", err)
	}
	return a, nil // a refusal needs no whole body
}

// A watchedBody is a request body that resets a timer as it advances, and says
// how many bytes are left.
type watchedBody struct {
	rest  *bytes.Reader
	stall *time.Timer
	left  *atomic.Int64
}

func newWatchedBody(body []byte, stall *time.Timer, left *atomic.Int64) *watchedBody {
	left.Store(int64(len(body)))
	return &watchedBody{bytes.NewReader(body), stall, left}
}

func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.rest.Read(p[:min(len(p), stallBytes)])
	b.left.Store(int64(b.rest.Len()))
	if err != nil {
		b.stall.Stop() // from here the wait is for the answer
	} else {
		b.stall.Reset(stallTime)
	}
	return n, err
}

func (b *watchedBody) Close() error {
	b.stall.Stop()
	return nil
}

// detail returns what the answer says about itself in a word: see Facts.
func (a answer) detail() string {
	switch a.status / 100 {
	case 2:
		if a.cut {
			return fmt.Sprintf("more than %d KiB", maxAnswer>>10)
		}
		media, _, _ := strings.Cut(a.header.Get("Content-Type"), ";")
		return printable(media)
	case 3:
		if target, err := url.Parse(a.header.Get("Location")); err == nil {
			return printable(target.Host)
		}
		return ""
	}
	return reason(a.body)
}

// genuine reports whether a 2xx answer can be the service's: an upload is
// answered with an empty or small body, never with a page for people.
func (a answer) genuine() bool {
	page := bytes.TrimLeft(a.body, "\xef\xbb\xbf \t\r\n")
	return a.status/100 == 2 && !a.cut &&
		!strings.Contains(strings.ToLower(a.header.Get("Content-Type")), "html") &&
		!hasPrefixFold(page, "<!doctype") && !hasPrefixFold(page, "<html")
}

func hasPrefixFold(s []byte, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(string(s[:len(prefix)]), prefix)
}

// reason returns the service's own word for a refusal, such as
// InvalidWorkspaceKey: the Reason or Code element of an XML body, the Error
// member of a JSON body, and "" when there is no such thing or it is more than
// a word. An answer can quote what was sent to it, so nothing else of it is used.
func reason(body []byte) string {
	for _, opening := range []string{"<Reason>", "<Code>", `"Error":"`, `"Error": "`} {
		_, rest, found := bytes.Cut(body, []byte(opening))
		if !found {
			continue
		}
		n := bytes.IndexFunc(rest, func(r rune) bool {
			return (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
		})
		if n > 0 && n <= 40 && (rest[n] == '<' || rest[n] == '"') {
			return string(rest[:n])
		}
	}
	return ""
}

// printable returns s when it is short and printable ASCII, "" otherwise.
func printable(s string) string {
	if len(s) > 100 || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return ""
	}
	return s
}

// result is what an answer to an upload means for the batch.
func (a answer) result(now time.Time) upload.Result {
	switch {
	case a.genuine():
		return upload.Result{Answer: upload.Accepted}
	case a.status/100 == 2, a.status == http.StatusRequestTimeout, a.status == http.StatusTooManyRequests, a.status >= 500:
		wait := a.retryAfter(now)
		if a.status == http.StatusTooManyRequests {
			wait = max(wait, minThrottle)
		}
		return upload.Result{Answer: upload.Retry, RetryAfter: wait}
	case a.status == http.StatusBadRequest && !inactive(a.detail()):
		return upload.Result{Answer: upload.Refused}
	case a.status == http.StatusRequestEntityTooLarge:
		return upload.Result{Answer: upload.TooLarge}
	case a.status == http.StatusNotFound, a.status == http.StatusBadRequest:
		return upload.Result{Answer: upload.Hold, RetryAfter: maxRetryAfter}
	}
	return upload.Result{Answer: upload.Hold}
}

// Bounds of what a server may ask for.
const (
	minRetryAfter = time.Second
	maxRetryAfter = time.Hour
	// minThrottle is what 429 asks for at least, also when it names no time.
	minThrottle = 5 * time.Second
)

// retryAfter returns how long the server wants to be left alone. A date is
// compared with the server's own clock, where that is known.
func (a answer) retryAfter(now time.Time) time.Duration {
	if !a.date.IsZero() {
		now = a.date
	}
	return parseRetryAfter(a.header.Get("Retry-After"), now)
}

// parseRetryAfter reads a Retry-After header, seconds or a date (RFC 9110, 10.2.3),
// and keeps it between a second and an hour. It returns 0 for no header and
// for one without sense.
func parseRetryAfter(text string, now time.Time) time.Duration {
	text = strings.TrimSpace(text)
	var wait time.Duration
	if seconds, err := strconv.ParseUint(text, 10, 64); err == nil || errors.Is(err, strconv.ErrRange) {
		wait = time.Duration(min(seconds, uint64(maxRetryAfter/time.Second))) * time.Second
	} else if date, err := http.ParseTime(text); err == nil {
		wait = date.Sub(now)
	} else {
		return 0
	}
	return min(max(wait, minRetryAfter), maxRetryAfter)
}
