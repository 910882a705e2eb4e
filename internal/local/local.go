// Package local keeps connections on this machine.
package local

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
)

// Is reports whether a host, without a port, names this machine by a loopback
// address or as localhost.
func Is(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// Address checks host:port and returns it with an address in the place of
// localhost, so that no resolver can lead it elsewhere.
func Address(text string) (string, error) {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return "", errors.New("is not host:port")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("has no port from 1 to 65535, but %q", port)
	}
	if !Is(host) {
		return "", fmt.Errorf("does not name a loopback address, but %q", host)
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port), nil
}

// Dial connects to this machine and to no other, whatever a name is resolved
// to.
func Dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if to, ok := conn.RemoteAddr().(*net.TCPAddr); !ok || !to.IP.IsLoopback() {
		return nil, errors.Join(fmt.Errorf("%s is not this machine but %v", address, conn.RemoteAddr()), conn.Close())
	}
	return conn, nil
}
