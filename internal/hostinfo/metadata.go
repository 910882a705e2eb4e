package hostinfo

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"time"
)

// Metadata is what Azure's instance metadata service says of the VM.
type Metadata struct {
	ResourceID  string `json:"resourceId"`
	Location    string `json:"location"`
	Environment string `json:"environment"` // AzurePublicCloud
	VMID        string `json:"vmId"`
}

// metadataURL is the service's address on every Azure VM.
const metadataURL = "http://169.254.169.254/metadata/instance?api-version=2018-10-01"

// ReadMetadata asks the instance metadata service. It is link-local and never
// asked through a proxy. Outside Azure it fails within seconds.
func ReadMetadata(ctx context.Context) (Metadata, error) {
	return readMetadata(ctx, directClient(), metadataURL)
}

// directClient asks no proxy, follows no redirect and soon gives up.
func directClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy:                 nil,
			DialContext:           (&net.Dialer{Timeout: 3 * time.Second}).DialContext,
			ResponseHeaderTimeout: 2 * time.Second,
			DisableKeepAlives:     true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       5 * time.Second,
	}
}

func readMetadata(ctx context.Context, client *http.Client, url string) (Metadata, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return Metadata{}, fmt.Errorf("ask for instance metadata: %w", err)
	}
	req.Header.Set("Metadata", "true")
	res, err := client.Do(req)
	if err != nil {
		return Metadata{}, fmt.Errorf("ask for instance metadata: %w", err)
	}
	defer func() { _ = res.Body.Close() }() // read to its end or given up
	if res.StatusCode != http.StatusOK {
		return Metadata{}, fmt.Errorf("ask for instance metadata: status %d", res.StatusCode)
	}
	data, err := io.ReadAll(io.LimitReader(res.Body, 256<<10))
	if err != nil {
		return Metadata{}, fmt.Errorf("read instance metadata: %w", err)
	}
	return parseMetadata(data)
}

// plain returns text that is safe in a header, and nothing instead of other.
func plain(text string) string {
	if !plainName.MatchString(text) {
		return ""
	}
	return text
}

// plainName is what a name in a resource id may consist of.
var plainName = regexp.MustCompile(`^[\w.()-]{1,90}$`)

func parseMetadata(data []byte) (Metadata, error) {
	var in struct {
		Compute struct {
			AzEnvironment     string
			Location          string
			Name              string
			ResourceGroupName string
			SubscriptionID    string `json:"subscriptionId"`
			VMID              string `json:"vmId"`
			VMScaleSetName    string `json:"vmScaleSetName"`
		}
	}
	if err := json.Unmarshal(data, &in); err != nil {
		return Metadata{}, fmt.Errorf("read instance metadata: %w", err)
	}
	c := in.Compute
	m := Metadata{Location: plain(c.Location), Environment: plain(c.AzEnvironment), VMID: plain(c.VMID)}
	for _, part := range []string{c.SubscriptionID, c.ResourceGroupName, c.Name} {
		if !plainName.MatchString(part) {
			return m, nil
		}
	}
	m.ResourceID = "/subscriptions/" + c.SubscriptionID + "/resourceGroups/" + c.ResourceGroupName + "/providers/Microsoft.Compute/"
	instance := c.Name[strings.LastIndexByte(c.Name, '_')+1:]
	// A VM of a scale set in flexible mode is a VM like others: its name ends
	// in letters and digits, where uniform mode counts.
	if !plainName.MatchString(c.VMScaleSetName) || strings.Trim(instance, "0123456789") != "" {
		m.ResourceID += "virtualMachines/" + c.Name
		return m, nil
	}
	m.ResourceID += "virtualMachineScaleSets/" + c.VMScaleSetName + "/virtualMachines/" + instance
	return m, nil
}

// DomainOf is where the workspaces of a cloud live, by the cloud's name in the
// instance metadata; the public cloud's when the name is not known.
func DomainOf(environment string) string {
	switch strings.ToLower(environment) {
	case "azureusgovernmentcloud":
		return "opinsights.azure.us"
	case "azurechinacloud":
		return "opinsights.azure.cn"
	case "usnat":
		return "opinsights.azure.eaglex.ic.gov"
	case "ussec":
		return "opinsights.azure.microsoft.scloud"
	default:
		return "opinsights.azure.com"
	}
}
