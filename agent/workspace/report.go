package workspace

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/google/uuid"
)

// A report tells the server of configurations what came of one, in two parts
// with the same job id (MS-DSCPM, SendReport).
type report struct {
	job, name, host, addresses string
	started                    time.Time
}

const (
	reportVersion = "2.0"
	reportTime    = "2006-01-02T15:04:05.000000000-07:00"
	// maxAddresses is what the server takes of a machine's addresses, in bytes.
	maxAddresses = 254
)

func (c *Client) newReport(name string) report {
	r := report{job: uuid.NewString(), name: name, host: c.o.Host.FQDN, started: c.o.Clock()}
	if c.o.Addresses != nil {
		r.addresses = strings.Join(c.o.Addresses(), ";")
	}
	if len(r.addresses) > maxAddresses {
		r.addresses = r.addresses[:max(0, strings.LastIndexByte(r.addresses[:maxAddresses+1], ';'))]
	}
	return r
}

// start is the first part.
func (r report) start() []byte {
	return marshal(struct {
		JobId, OperationType, NodeName, IpAddress  string
		ReportFormatVersion, LCMVersion, StartTime string
		Errors, StatusData                         []string
	}{
		JobId: r.job, OperationType: "Consistency", NodeName: r.host, IpAddress: r.addresses,
		ReportFormatVersion: reportVersion, LCMVersion: reportVersion, StartTime: r.started.Format(reportTime),
		Errors: []string{}, StatusData: []string{string(marshal(map[string]string{"Locale": "en-US"}))},
	})
}

// unobeyed is a resource that is not in the desired state.
type unobeyed struct {
	SourceInfo, ModuleName, ModuleVersion, InstanceName, ResourceName string
	ResourceId, ConfigurationName, StartDate, DurationInSeconds       string
	RebootRequested, InDesiredState, Error                            string
}

// end is the second part.
func (r report) end(o Outcome, at time.Time) []byte {
	failures := []string{}
	if o.Err != nil {
		failures = append(failures, string(marshal(map[string]string{
			"Locale": "en-US", "ErrorCode": "1", "ErrorMessage": o.Err.Error(), "ResourceId": "", "ErrorSource": agentName,
		})))
	}
	took := at.Sub(r.started).Seconds()
	status := struct {
		Locale                     string
		ResourcesNotInDesiredState []unobeyed `json:",omitempty"`
	}{Locale: "en-US"}
	for _, resource := range o.Unobeyed {
		status.ResourcesNotInDesiredState = append(status.ResourcesNotInDesiredState, unobeyed{
			SourceInfo: resource.SourceInfo, ModuleName: resource.Module, ModuleVersion: resource.ModuleVersion,
			InstanceName: resource.ID, ResourceName: resource.Class, ResourceId: resource.ID, ConfigurationName: r.name,
			StartDate: r.started.Format(reportTime), DurationInSeconds: string(marshal(took)),
			RebootRequested: "False", InDesiredState: "False", Error: resource.Why,
		})
	}
	return marshal(struct {
		JobId, ConfigurationVersion, ReportFormatVersion, LCMVersion, EndTime string
		Errors, StatusData                                                    []string
	}{
		JobId: r.job, ConfigurationVersion: "2.0.0", ReportFormatVersion: reportVersion, LCMVersion: reportVersion,
		EndTime: at.Format(reportTime), Errors: failures, StatusData: []string{string(marshal(status))},
	})
}

func marshal(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic("BUG: a report does not marshal: " + err.Error())
	}
	return data
}
