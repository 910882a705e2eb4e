//go:build linux

package e2e

import (
	"fmt"
	"net"
	"testing"
)

// Security messages arrive in CommonSecurityLog with the columns of their keys,
// and in no other table.
func TestSecurityMessagesArriveOnce(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.enable(oldVersion, m.settings(func(public, _ map[string]any) {
		public["dataSources"].(map[string]any)["syslog"] = []any{
			map[string]any{"streams": []string{"Microsoft-CommonSecurityLog"}, "facilityNames": []string{"local4"}, "logLevels": []string{"*"}},
			map[string]any{"streams": []string{"Microsoft-Syslog"}, "facilityNames": []string{"*"}, "logLevels": []string{"*"}},
		}
	}))
	conn, err := net.Dial("unixgram", m.layout.SyslogSocket())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, msg := range []string{
		`<164>Nov 24 10:00:00 fw1 CEF:0|Acme|Wall|1.0|100|a \| b|10|src=10.0.0.1 dpt=443 msg=with spaces and \= in it cs1Label=rule cs1=deny`,
		`<166>Nov 24 10:00:00 asa1 : %ASA-6-302013: Built inbound TCP connection 7`,
		`<166>Nov 24 10:00:00 fw1 app: neither`,
	} {
		if _, err := fmt.Fprint(conn, msg); err != nil {
			t.Fatal(err)
		}
	}
	m.eventually(func() error {
		rows, err := m.service.Rows(m.workspace.ID, "CommonSecurityLog")
		if err == nil && len(rows) != 2 {
			err = fmt.Errorf("%d security messages arrived, want 2", len(rows))
		}
		return err
	})
	rows, err := m.service.Rows(m.workspace.ID, "CommonSecurityLog")
	if err != nil {
		t.Fatal(err)
	}
	wants := map[string]map[string]any{
		"Acme": {
			"Computer": "fw1", "DeviceProduct": "Wall", "DeviceEventClassID": "100", "Activity": "a | b", "LogSeverity": "10",
			"SourceIP": "10.0.0.1", "DestinationPort": 443.0, "Message": "with spaces and = in it", "DeviceCustomString1": "deny",
		},
		"Cisco": {"Computer": "asa1", "DeviceProduct": "ASA", "DeviceEventClassID": "302013", "LogSeverity": "6", "Message": "Built inbound TCP connection 7"},
	}
	for _, row := range rows {
		want, ok := wants[fmt.Sprint(row["DeviceVendor"])]
		if !ok {
			t.Errorf("row %v is of no vendor that sent something", row)
		}
		for column, value := range want {
			if row[column] != value {
				t.Errorf("%v: %s is %v, want %v", row["DeviceVendor"], column, row[column], value)
			}
		}
	}
	m.eventually(func() error {
		rows, err := m.service.Rows(m.workspace.ID, "Syslog")
		if err == nil && (len(rows) != 1 || rows[0]["SyslogMessage"] != "neither") {
			err = fmt.Errorf("Syslog has %v, want the one message that is not of security", rows)
		}
		return err
	})
}
