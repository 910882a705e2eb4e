package local

import (
	"net"
	"testing"
)

func TestAddress(t *testing.T) {
	for text, want := range map[string]string{
		"127.0.0.1:3306": "127.0.0.1:3306", "127.8.9.1:1": "127.8.9.1:1", "[::1]:5432": "[::1]:5432", "localhost:80": "127.0.0.1:80",
		"10.0.0.4:3306": "", "0.0.0.0:80": "", "[::]:80": "", "example.com:80": "", "localhost.example.com:80": "",
		"localhost": "", "127.0.0.1:": "", "127.0.0.1:0": "", "127.0.0.1:65536": "", "127.0.0.1:http": "", "": "",
	} {
		got, err := Address(text)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("Address(%q) = %q, %v, want %q", text, got, err, want)
		}
	}
}

func TestDialStaysHere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := Dial(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	// An address of this machine that others reach, too, is none of loopback.
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	everywhere, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer everywhere.Close()
	_, port, _ := net.SplitHostPort(everywhere.Addr().String())
	for _, a := range addresses {
		network := a.(*net.IPNet)
		if network.IP.IsLoopback() || network.IP.To4() == nil {
			continue
		}
		if conn, err := Dial(t.Context(), "tcp", net.JoinHostPort(network.IP.String(), port)); err == nil {
			t.Errorf("connected to %v", conn.RemoteAddr())
			conn.Close()
		}
	}
}
