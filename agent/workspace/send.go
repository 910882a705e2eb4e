package workspace

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/openloganalytics/agent/agent/record"
	"github.com/openloganalytics/agent/agent/upload"
)

const (
	// agentName is by what the service knows this kind of agent.
	agentName = "LinuxMonitoringAgent"

	uploadPath = "/OperationalData.svc/PostJsonDataItems"
	// customQuery stands behind the path for custom tables, and nothing for
	// standard ones.
	customQuery = "?api-version=2016-04-01"

	// sendTimeout bounds a whole Send, as upload.Destination promises.
	sendTimeout = 2 * time.Minute
	// readyWait is how much of it may pass in waiting for the onboarding.
	readyWait = time.Minute
	// settleTime is how long a new registration may need to reach the part of
	// the service that takes data; until then it answers 404 and 500.
	settleTime = 15 * time.Minute
)

// Send implements upload.Destination. Before this machine is onboarded it
// waits a while for that, then answers Retry.
func (c *Client) Send(ctx context.Context, batch upload.Batch) upload.Result {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	if !c.awaitReady(ctx) {
		return upload.Result{Code: string(Onboarding), Why: "this machine is not onboarded to the workspace yet: see the workspace's own state"}
	}
	answer, id, err := c.postBatch(ctx, batch)
	var result upload.Result
	switch {
	case err == nil:
		result = answer.result(c.now())
	case errors.Is(err, errSlow) && batch.Rows > 1:
		result.Answer = upload.TooLarge // for this link: a part of it will pass
	}
	result.RequestID = id
	if result.Answer != upload.Accepted {
		cause, why := Explain(err, c.facts(c.odsHost(), answer, false))
		result.Code, result.Why = string(cause), why
	}
	if result.Answer == upload.TooLarge && err != nil {
		result.Why = fmt.Sprintf("%d bytes do not reach %s within %v: the link is slow, and gets less at once", len(batch.Body), c.odsHost(), sendTimeout)
	}
	if c.settling(answer.status) {
		result.Answer = upload.Retry
		return result
	}
	c.sent(ctx, result)
	return result
}

// plainFor is how long bodies go uncompressed once the server, or a proxy that
// looks into them, has refused the encoding.
const plainFor = time.Hour

// envelopeRoom is what a body may hold beyond its rows, in bytes.
const envelopeRoom = 4 << 10

// postBatch makes the exchange that delivers a batch, and a second one without
// compression when the first is refused for it (415).
func (c *Client) postBatch(ctx context.Context, batch upload.Batch) (a answer, requestID string, err error) {
	if !c.plain() {
		requestID = uuid.NewString()
		a, err = c.post(ctx, c.transport, c.uploadURL(batch.Table), c.uploadHeader(batch, requestID), batch.Body)
		if err != nil || a.status != http.StatusUnsupportedMediaType {
			return a, requestID, err
		}
		c.setPlain()
	}
	body, err := record.Inflate(batch.Body, batch.Raw+envelopeRoom)
	if err != nil {
		return a, requestID, err
	}
	requestID = uuid.NewString()
	header := c.uploadHeader(batch, requestID)
	header.Del("Content-Encoding")
	a, err = c.post(ctx, c.transport, c.uploadURL(batch.Table), header, body)
	return a, requestID, err
}

// plain reports whether bodies go uncompressed.
func (c *Client) plain() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Before(c.plainUntil)
}

func (c *Client) setPlain() {
	c.mu.Lock()
	c.plainUntil = time.Now().Add(plainFor)
	c.mu.Unlock()
	c.o.Log.Warn("compressed data is refused (415), it goes uncompressed for an hour; a proxy in between may look into it", "workspace", c.o.ID)
}

func (c *Client) awaitReady(ctx context.Context) bool {
	timer := time.NewTimer(readyWait)
	defer timer.Stop()
	select {
	case <-c.ready:
		return true
	case <-ctx.Done():
	case <-timer.C:
	}
	return false
}

func (c *Client) uploadURL(table *record.Table) string {
	target := "https://" + c.odsHost() + uploadPath
	if table.LogType != "" {
		target += customQuery
	}
	return target
}

func (c *Client) uploadHeader(batch upload.Batch, requestID string) http.Header {
	header := http.Header{}
	set := func(name, value string) {
		if value != "" {
			header.Set(name, value)
		}
	}
	set("Content-Type", "application/json")
	set("Content-Encoding", "deflate") // which means zlib (RFC 9110, 8.4.1.2)
	set("X-Request-ID", requestID)
	set("User-Agent", c.o.Host.userAgent())
	set("x-ms-app", agentName)
	set("x-ms-client-version", c.o.Host.version())
	set("x-ms-client-platform", "Linux")
	set("x-ms-client-request-retry-count", strconv.Itoa(batch.Failures))
	set("x-ms-AzureResourceId", c.o.ResourceID)
	set("x-ms-AzureRegion", c.o.Region)
	set("x-ms-OMSCloudId", c.o.CloudID)
	set("x-ms-UUID", c.o.UUID)
	if batch.Table.LogType != "" {
		set("Log-Type", batch.Table.LogType)
		set("x-ms-date", c.now().UTC().Format(http.TimeFormat))
		set("time-generated-field", batch.Table.TimeField)
	}
	return header
}

// settling reports whether status only says that a new registration has not
// reached the data endpoint yet.
func (c *Client) settling(status int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return (status == http.StatusNotFound || status == http.StatusInternalServerError) &&
		c.lastAccepted.IsZero() && c.registration != nil &&
		c.o.Clock().Sub(c.registration.OnboardedAt) < settleTime
}

// sent enters what a Send showed into the state. A refused batch shows nothing
// about the workspace, nor does an attempt that our own end cut short.
func (c *Client) sent(ctx context.Context, result upload.Result) {
	switch result.Answer {
	case upload.Accepted:
		c.accepted()
	case upload.Retry, upload.Hold:
		if !errors.Is(ctx.Err(), context.Canceled) {
			c.setTrouble(&c.sendTrouble, trouble{Cause(result.Code), result.Why})
		}
	case upload.Refused, upload.TooLarge:
	}
}
