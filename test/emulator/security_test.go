package emulator

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func securityBody(dataType, ident, message string) string {
	quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(message)
	return `{"DataType":"` + dataType + `","IPName":"Security","DataItems":[{"ident":"` + ident + `","Timestamp":"2024-01-02T03:04:05.123Z",` +
		`"EventTime":"2024-01-02T03:04:04Z","Host":"fw","Message":"` + quoted + `","Facility":"local4","Severity":"info"}]}`
}

// TestSecurity: the service takes CEF and Cisco ASA apart, with all that a
// backslash can do.
func TestSecurity(t *testing.T) {
	tests := []struct {
		dataType, ident, message string
		want                     row
	}{
		{
			"SECURITY_CEF_BLOB", "CEF",
			`CEF: 0|Acme \| Sons|Fire\\wall|1.0|100|worm = stopped|10|src=10.0.0.1 dpt=443 in=9 msg=a\=b c d\nnext line\\ cs1Label=rule cs1=a b  cn1=7 cn1Label=n odd.key=x y other=z`,
			row{
				"Computer": "fw", "DeviceVendor": "Acme | Sons", "DeviceProduct": `Fire\wall`, "DeviceVersion": "1.0", "DeviceEventClassID": "100",
				"Activity": "worm = stopped", "LogSeverity": "10", "SourceIP": "10.0.0.1", "DestinationPort": 443.0, "ReceivedBytes": 9.0,
				"Message": "a=b c d\nnext line\\", "DeviceCustomString1Label": "rule", "DeviceCustomString1": "a b", "FieldDeviceCustomNumber1": 7.0,
				"DeviceCustomNumber1Label": "n", "AdditionalExtensions": "odd.key=x y;other=z",
			},
		},
		{
			"SECURITY_CISCO_ASA_BLOB", "%ASA-6-302013", "%ASA-6-302013: Built inbound TCP connection",
			row{"Computer": "fw", "DeviceVendor": "Cisco", "DeviceProduct": "ASA", "LogSeverity": "6", "DeviceEventClassID": "302013", "Message": "Built inbound TCP connection"},
		},
	}
	for _, tt := range tests {
		w := open(t)
		got := do(w.onboarded(), upload{body: pack(securityBody(tt.dataType, tt.ident, tt.message))}.request(t))
		got.want(t, 200, "")
		rows, err := w.Rows(testWorkspace, "CommonSecurityLog")
		if err != nil || len(rows) != 1 {
			t.Fatalf("rows %v, %v", rows, err)
		}
		for name := range rows[0] {
			if _, wanted := tt.want[name]; !wanted && (strings.HasPrefix(name, "_") || name == "TimeGenerated" || name == "Type" || name == "TenantId" ||
				name == "SourceSystem" || name == "MG" || name == "ManagementGroupName") {
				delete(rows[0], name)
			}
		}
		if diff := cmp.Diff(tt.want, rows[0]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.dataType, diff)
		}
	}
	for _, message := range []string{"0|a|b|c|d|e|5|", "CEF: 0|a|b", "CEF: no header"} {
		w := open(t)
		do(w.onboarded(), upload{body: pack(securityBody("SECURITY_CEF_BLOB", "CEF", message))}.request(t)).want(t, 400, "InvalidDataFormat")
	}
}

// FuzzCEF: what a writer escapes is read as it was.
func FuzzCEF(f *testing.F) {
	f.Add("Acme", "a | b \\ c", "value with = and \n and \\")
	f.Fuzz(func(t *testing.T, vendor, name, value string) {
		bars := strings.NewReplacer(`\`, `\\`, `|`, `\|`)
		equals := strings.NewReplacer(`\`, `\\`, `=`, `\=`, "\n", `\n`, "\r", `\r`)
		header, extension := cefHeader("0|" + bars.Replace(vendor) + "|p|1|2|" + bars.Replace(name) + "|5|src=10.0.0.1 msg=" + equals.Replace(value) + " dpt=1")
		if len(header) != 7 || header[1] != vendor || header[5] != name {
			t.Fatalf("header %q of %q and %q", header, vendor, name)
		}
		want := [][2]string{{"src", "10.0.0.1"}, {"msg", equals.Replace(value)}, {"dpt", "1"}}
		pairs := cefExtension(extension)
		if len(pairs) != 3 || pairs[0] != want[0] || pairs[2] != want[2] || pairs[1][1] != strings.TrimRight(value, " ") {
			t.Errorf("pairs %q of %q", pairs, extension)
		}
	})
}
