package emulator

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// securityType is the wire's type of CEF or Cisco ASA messages: the service takes
// them apart itself (OMS agent for Linux, filter_syslog_security.rb; columns by
// "CEF and CommonSecurityLog field mapping").
func securityType(finish func(row) ([]row, string)) dataType {
	return dataType{ipName: "Security", table: "CommonSecurityLog", finish: finish, fields: []field{
		{wire: "Timestamp", column: "TimeGenerated", read: timestamp},
		{wire: "EventTime", column: "EventTime", read: eventTime},
		{wire: "Host", column: "Computer", read: anyText},
		{wire: "HostIP", column: "CollectorHostName", optional: true, read: anyText},
		{wire: "ident", column: "ident", read: text},
		{wire: "Facility", column: "Facility", read: text},
		{wire: "Severity", column: "Severity", read: severity},
		{wire: "Message", column: "Message", read: text},
	}}
}

// strip takes the wire's own fields off a row and returns its message, which has
// to begin with the ident.
func strip(r row) (ident, message, problem string) {
	ident, message = r["ident"].(string), r["Message"].(string)
	for _, name := range []string{"ident", "EventTime", "Facility", "Severity", "Message", "CollectorHostName"} {
		delete(r, name)
	}
	message, ok := strings.CutPrefix(message, ident+": ")
	if !ok {
		return "", "", "Message does not begin with ident"
	}
	return ident, message, ""
}

// cefColumns takes a message of CEF apart.
func cefColumns(r row) ([]row, string) {
	ident, message, problem := strip(r)
	if problem == "" && ident != "CEF" {
		problem = "ident is not CEF"
	}
	if problem != "" {
		return nil, problem
	}
	header, extension := cefHeader(message)
	if len(header) < 7 {
		return nil, fmt.Sprintf("Message is not CEF: its header has %d fields", len(header))
	}
	for i, column := range []string{"", "DeviceVendor", "DeviceProduct", "DeviceVersion", "DeviceEventClassID", "Activity", "LogSeverity"} {
		if i > 0 {
			r[column] = header[i]
		}
	}
	columns := securityColumns()
	var rest []string
	for _, pair := range cefExtension(extension) {
		column, known := columns[pair[0]]
		if !known {
			rest = append(rest, pair[0]+"="+pair[1])
			continue
		}
		r[column] = whole(column, pair[1])
	}
	if rest != nil {
		r["AdditionalExtensions"] = strings.Join(rest, ";")
	}
	return []row{r}, ""
}

// whole shows a number where the column has numbers.
func whole(column, value string) any {
	numbers := []string{
		"DestinationPort", "SourcePort", "ReceivedBytes", "SentBytes", "EventCount", "FileSize", "ProcessID", "DestinationProcessId",
		"SourceProcessId", "EventType", "SourceTranslatedPort", "DestinationTranslatedPort",
	}
	if slices.Contains(numbers, column) || strings.HasPrefix(column, "FieldDeviceCustomNumber") && !strings.HasSuffix(column, "Label") {
		if n, err := strconv.ParseInt(value, 10, 64); err == nil {
			return n
		}
	}
	return value
}

// cefHeader cuts a message at its bars, of which a backslash takes away what
// they mean. What follows the seventh field is the extension.
func cefHeader(message string) (fields []string, extension string) {
	var b strings.Builder
	for i := 0; i < len(message); i++ {
		switch c := message[i]; {
		case c == '\\' && i+1 < len(message):
			i++
			b.WriteByte(message[i])
		case c == '|':
			fields = append(fields, b.String())
			b.Reset()
			if len(fields) == 7 {
				return fields, message[i+1:]
			}
		default:
			b.WriteByte(c)
		}
	}
	return append(fields, b.String()), ""
}

var cefKey = regexp.MustCompile(`(?:^|\s)([A-Za-z0-9_.\[\]-]+)=`)

// cefExtension reads key=value pairs. A value goes on, spaces and all, up to the
// next key; a backslash makes of = a character like any other, and of n a line
// end.
func cefExtension(text string) (pairs [][2]string) {
	unescape := strings.NewReplacer(`\\`, `\`, `\=`, `=`, `\n`, "\n", `\r`, "\r")
	keys := cefKey.FindAllStringSubmatchIndex(text, -1)
	for i, at := range keys {
		end := len(text)
		if i+1 < len(keys) {
			end = keys[i+1][0]
		}
		pairs = append(pairs, [2]string{text[at[2]:at[3]], unescape.Replace(strings.TrimRight(text[at[1]:end], " "))})
	}
	return pairs
}

// asaColumns takes a message of Cisco ASA apart: %ASA-LEVEL-NUMBER.
func asaColumns(r row) ([]row, string) {
	ident, message, problem := strip(r)
	parts := strings.Split(ident, "-")
	if problem == "" && (parts[0] != "%ASA" || len(parts) < 3) {
		problem = "ident is not %ASA with a level and a number"
	}
	if problem != "" {
		return nil, problem
	}
	r["DeviceVendor"], r["DeviceProduct"] = "Cisco", "ASA"
	r["LogSeverity"], r["DeviceEventClassID"] = parts[len(parts)-2], parts[len(parts)-1]
	r["Message"] = message
	return []row{r}, ""
}

// securityColumns maps the keys of CEF to columns.
func securityColumns() map[string]string {
	columns := map[string]string{
		"act": "DeviceAction", "app": "ApplicationProtocol", "cat": "DeviceEventCategory", "cnt": "EventCount",
		"destinationDnsDomain": "DestinationDnsDomain", "destinationServiceName": "DestinationServiceName",
		"destinationTranslatedAddress": "DestinationTranslatedAddress", "destinationTranslatedPort": "DestinationTranslatedPort",
		"deviceDirection": "CommunicationDirection", "deviceDnsDomain": "DeviceDnsDomain", "deviceExternalId": "DeviceExternalID",
		"deviceFacility": "DeviceFacility", "deviceInboundInterface": "DeviceInboundInterface", "deviceNtDomain": "DeviceNtDomain",
		"deviceOutboundInterface": "DeviceOutboundInterface", "devicePayloadId": "DevicePayloadId", "deviceProcessName": "ProcessName",
		"deviceTranslatedAddress": "DeviceTranslatedAddress", "dhost": "DestinationHostName", "dmac": "DestinationMacAddress",
		"dntdom": "DestinationNTDomain", "dpid": "DestinationProcessId", "dpriv": "DestinationUserPrivileges", "dproc": "DestinationProcessName",
		"dpt": "DestinationPort", "dst": "DestinationIP", "dtz": "DeviceTimeZone", "duid": "DestinationUserID", "duser": "DestinationUserName",
		"dvc": "DeviceAddress", "dvchost": "DeviceName", "dvcmac": "DeviceMacAddress", "dvcpid": "ProcessID", "end": "EndTime", "externalId": "ExtID",
		"fileCreateTime": "FileCreateTime", "fileHash": "FileHash", "fileId": "FileID", "fileModificationTime": "FileModificationTime",
		"filePath": "FilePath", "filePermission": "FilePermission", "fileType": "FileType", "fname": "FileName", "fsize": "FileSize",
		"in": "ReceivedBytes", "msg": "Message", "oldFileCreateTime": "OldFileCreateTime", "oldFileHash": "OldFileHash", "oldFileId": "OldFileID",
		"oldFileModificationTime": "OldFileModificationTime", "oldFileName": "OldFileName", "oldFilePath": "OldFilePath",
		"oldFilePermission": "OldFilePermission", "oldFileSize": "OldFileSize", "oldFileType": "OldFileType", "out": "SentBytes",
		"outcome": "EventOutcome", "proto": "Protocol", "reason": "Reason", "request": "RequestURL",
		"requestClientApplication": "RequestClientApplication", "requestContext": "RequestContext", "requestCookies": "RequestCookies",
		"requestMethod": "RequestMethod", "rt": "ReceiptTime", "shost": "SourceHostName", "smac": "SourceMACAddress", "sntdom": "SourceNTDomain",
		"sourceDnsDomain": "SourceDnsDomain", "sourceServiceName": "SourceServiceName", "sourceTranslatedAddress": "SourceTranslatedAddress",
		"sourceTranslatedPort": "SourceTranslatedPort", "spid": "SourceProcessId", "spriv": "SourceUserPrivileges", "sproc": "SourceProcessName",
		"spt": "SourcePort", "src": "SourceIP", "start": "StartTime", "suid": "SourceUserID", "suser": "SourceUserName", "type": "EventType",
	}
	custom := func(short, long string, n int) {
		for i := 1; i <= n; i++ {
			columns[fmt.Sprint(short, i)] = fmt.Sprint(long, i)
			columns[fmt.Sprint(short, i, "Label")] = fmt.Sprint(strings.TrimPrefix(long, "Field"), i, "Label")
		}
	}
	custom("c6a", "DeviceCustomIPv6Address", 4)
	custom("cfp", "DeviceCustomFloatingPoint", 4)
	custom("cn", "FieldDeviceCustomNumber", 3)
	custom("cs", "DeviceCustomString", 6)
	custom("deviceCustomDate", "DeviceCustomDate", 2)
	custom("flexDate", "FlexDate", 1)
	custom("flexNumber", "FlexNumber", 2)
	custom("flexString", "FlexString", 2)
	return columns
}
