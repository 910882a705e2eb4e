package mof

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"
)

const sample = `/*
@TargetNode='x'
*/
#pragma namespace("root")
instance of MSFT_nxOMSSyslogObject as $Source1ref
{
 Facility = "auth";
 Severities = {
    "err",
    "warning" // a remark; "not a value"
 };
};

instance of MSFT_nxOMSSyslogResource as $Resource1ref
{
 ResourceId = "[nxOMSSyslog]Syslog";
 SyslogSource = { $source1REF };
 Empty = {};
 Enabled = True;
 IntervalSeconds = 60;
 Mask = 0x1F;
 Below = -5;
 Part = 0.5;
 Nothing = NULL;
 Windows = "C:\\temp\t\"x\" \x41\d" " and more";
};

instance of OMI_ConfigurationDocument
{
 Version="2.0.0";
};
`

func TestDocumentIsRead(t *testing.T) {
	list, err := Parse([]byte(sample))
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 3 || !list[1].Is("msft_NXOMSSyslogResource") || list[1].Line != 14 || list[2].Class != "OMI_ConfigurationDocument" {
		t.Fatalf("instances are %+v", list)
	}
	r := list[1]
	sources, given, err := r.Instances("SYSLOGSource")
	if err != nil || !given || len(sources) != 1 || sources[0] != list[0] {
		t.Fatalf("SyslogSource is %v, %v, %v", sources, given, err)
	}
	severities, given, err := sources[0].Texts("Severities")
	if diff := cmp.Diff([]string{"err", "warning"}, severities); diff != "" || !given || err != nil {
		t.Errorf("Severities: %s %v %v", diff, given, err)
	}
	if one, given, err := sources[0].Texts("Facility"); err != nil || !given || len(one) != 1 || one[0] != "auth" {
		t.Errorf("a text as an array is %q, %v, %v", one, given, err)
	}
	if empty, given, err := r.Texts("Empty"); len(empty) != 0 || !given || err != nil {
		t.Errorf("an empty array is %q, %v, %v", empty, given, err)
	}
	for _, absent := range []string{"Missing", "Nothing"} {
		if list, given, err := r.Texts(absent); list != nil || given || err != nil {
			t.Errorf("%s is %q, %v, %v", absent, list, given, err)
		}
	}
	if text, err := r.Text("Windows"); err != nil || text != "C:\\temp\t\"x\" A\\d and more" {
		t.Errorf("Windows is %q, %v", text, err)
	}
	for name, want := range map[string]int64{"IntervalSeconds": 60, "Mask": 31, "Below": -5, "Missing": 7} {
		if got, err := r.Integer(name, 7); got != want || err != nil {
			t.Errorf("%s is %d, %v, want %d", name, got, err, want)
		}
	}
	if on, err := r.Boolean("enabled", false); !on || err != nil {
		t.Errorf("Enabled is %v, %v", on, err)
	}
	if part, ok := r.get("Part").(float64); !ok || part != 0.5 {
		t.Errorf("Part is %v", r.get("Part"))
	}
	if on, err := r.Boolean("Missing", true); !on || err != nil {
		t.Errorf("a missing boolean is %v, %v", on, err)
	}
}

func TestWrongTypesAreNamed(t *testing.T) {
	list, err := Parse([]byte(sample))
	if err != nil {
		t.Fatal(err)
	}
	_, text := list[1].Text("IntervalSeconds")
	_, number := list[1].Integer("ResourceId", 0)
	_, _, texts := list[1].Texts("SyslogSource")
	_, _, instances := list[0].Instances("Severities")
	for want, got := range map[string]error{
		"IntervalSeconds of the MSFT_nxOMSSyslogResource in line 14 is not a text":         text,
		"ResourceId of the MSFT_nxOMSSyslogResource in line 14 is not a whole number":      number,
		"SyslogSource of the MSFT_nxOMSSyslogResource in line 14 is not an array of texts": texts,
		"Severities of the MSFT_nxOMSSyslogObject in line 5 is not an array of instances":  instances,
	} {
		if got == nil || got.Error() != want {
			t.Errorf("got %v, want %s", got, want)
		}
	}
}

func TestEncodings(t *testing.T) {
	units := utf16.Encode([]rune("instance of A { B = \"Zoë\"; };"))
	little, big := []byte{0xff, 0xfe}, []byte{0xfe, 0xff}
	for _, u := range units {
		little = binary.LittleEndian.AppendUint16(little, u)
		big = binary.BigEndian.AppendUint16(big, u)
	}
	for _, document := range [][]byte{little, big, []byte("\xef\xbb\xbfinstance of A { B = \"Zoë\"; };")} {
		list, err := Parse(document)
		if err != nil {
			t.Errorf("% x: %v", document[:4], err)
			continue
		}
		if text, _ := list[0].Text("b"); text != "Zoë" {
			t.Errorf("% x: B is %q", document[:4], text)
		}
	}
	if _, err := Parse(little[:len(little)-1]); err == nil {
		t.Error("half a character is no error")
	}
}

func TestBrokenDocuments(t *testing.T) {
	for document, want := range map[string]string{
		"instance of A { B = 1; }":                                             "line 1: the document ends too early",
		"instance of A {\n B = 1 };":                                           "line 2: there is no \";\" where one belongs",
		"instance A { };":                                                      "line 1: there is no \"of\" where it belongs",
		"instance of A { B = \"x; };":                                          "line 1: a text has no end",
		"\n\n/* ":                                                              "line 3: a comment has no end",
		"instance of A { B = {1, 2; };":                                        "line 1: there is no \",\" where one belongs",
		"instance of A { B = 1; b = 2; };":                                     "line 1: an instance has a property twice",
		"instance of A { B = secret; };":                                       "line 1: a value is no text, number, True, False, NULL or $alias",
		"instance of A { B = 0x; };":                                           "line 1: a value is no text, number, True, False, NULL or $alias",
		"instance of A { B = 1-2; };":                                          "line 1: a value is no text, number, True, False, NULL or $alias",
		"instance of A { B = $C; };":                                           `the "A" in line 1 refers to an alias that no instance has`,
		"instance of A as $x { };\ninstance of B as $X { };":                   "the instances in lines 1 and 2 have the same alias",
		"instance of " + strings.Repeat("a", maxName+1) + " { };":              "line 1: there is no name where one belongs",
		"instance of A { B = {" + strings.Repeat("1,", maxElements) + "1}; };": fmt.Sprintf("line 1: there are more than %d values", maxElements),
		strings.Repeat("instance of A { };", maxInstances+1):                   fmt.Sprintf("line 1: there are more than %d instances", maxInstances),
		strings.Repeat(" ", MaxDocument+1):                                     fmt.Sprintf("it has %d bytes, %d are allowed", MaxDocument+1, MaxDocument),
	} {
		if _, err := Parse([]byte(document)); err == nil || err.Error() != "read MOF document: "+want {
			t.Errorf("%.40q: %v, want %s", document, err, want)
		}
	}
}

// FuzzParse: no document brings the reader down, and what it reads can be
// asked for by every type.
func FuzzParse(f *testing.F) {
	f.Add([]byte(sample))
	f.Add([]byte("instance of A as $B { C = {$B, \"x\" \"y\", 1}; };"))
	f.Add([]byte("\xff\xfei\x00n\x00"))
	f.Add([]byte(`instance of A { B = "\x4"; C = "\xFFFFF"; D = "\`))
	f.Fuzz(func(t *testing.T, document []byte) {
		list, err := Parse(document)
		if err != nil {
			if list != nil {
				t.Error("an error comes with instances")
			}
			return
		}
		for _, i := range list {
			for name := range i.properties {
				_, textErr := i.Text(name)
				_, numberErr := i.Integer(name, 0)
				_, booleanErr := i.Boolean(name, false)
				if v := i.get(name); v != nil && textErr == nil && (numberErr == nil || booleanErr == nil) {
					t.Errorf("%v has two types", v)
				}
				list, given, err := i.Instances(name)
				if !given && list != nil || err == nil && given != (i.get(name) != nil) {
					t.Errorf("%v as instances: %v, %v, %v", i.get(name), list, given, err)
				}
			}
		}
	})
}
