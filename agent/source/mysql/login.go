package mysql

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // the protocol's own
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/openloganalytics/agent/internal/secret"
)

// Ways to show who one is. The first two are the defaults of MariaDB and of
// MySQL; the others trust the kernel's word of who is at the socket.
const (
	nativePassword = "mysql_native_password" //nolint:gosec // a name
	cachingSHA2    = "caching_sha2_password"
	unixSocket     = "unix_socket"
	authSocket     = "auth_socket"
)

// What comes after packetMore with caching_sha2_password.
const (
	sha2AskKey  = 2 // by the client
	sha2Known   = 3 // the server knows the password: all is well
	sha2Unknown = 4 // it wants to see it
)

// login shows the server who we are.
func (c *client) login(user string, password secret.Secret) error {
	greeting, err := c.read()
	if err != nil {
		return err
	}
	if greeting[0] == packetError {
		return parseServerError(greeting)
	}
	plugin, scramble, err := parseGreeting(greeting)
	if err != nil {
		return err
	}
	proof, err := c.proof(plugin, scramble, password)
	if err != nil { // the server's default need not be the user's way
		plugin, proof = nativePassword, nil
	}
	if err := c.write(response(user, plugin, proof)); err != nil {
		return err
	}
	for {
		packet, err := c.read()
		if err != nil {
			return err
		}
		switch packet[0] {
		case packetOK:
			return nil
		case packetError:
			return parseServerError(packet)
		case packetEOF:
			if plugin, scramble, err = c.other(packet[1:], password); err != nil {
				return err
			}
		case packetMore:
			if err := c.more(packet[1:], plugin, scramble, password); err != nil {
				return err
			}
		default:
			return errCut
		}
	}
}

// parseGreeting returns the server's way to show who one is, and the random
// bytes to do it with.
func parseGreeting(packet []byte) (plugin string, scramble []byte, err error) {
	const version10 = 10
	if packet[0] != version10 {
		return "", nil, fmt.Errorf("the server speaks version %d of the protocol, not 10", packet[0])
	}
	_, rest, ok := bytes.Cut(packet[1:], []byte{0}) // the server's version
	// thread 4, scramble 8, 0, capabilities 2, collation 1, status 2,
	// capabilities 2, length of scramble 1, reserved 10
	const fixed = 4 + 8 + 1 + 2 + 1 + 2 + 2 + 1 + 10
	if !ok || len(rest) < fixed {
		return "", nil, errCut
	}
	capabilities := uint32(binary.LittleEndian.Uint16(rest[13:])) | uint32(binary.LittleEndian.Uint16(rest[18:]))<<16
	if capabilities&(protocol41|secureConnection|pluginAuth) != protocol41|secureConnection|pluginAuth {
		return "", nil, errors.New("the server is older than MySQL 5.5")
	}
	scramble = append(scramble, rest[4:12]...)
	second := max(13, int(rest[20])-8)
	if len(rest) < fixed+second {
		return "", nil, errCut
	}
	scramble = append(scramble, bytes.TrimRight(rest[fixed:fixed+second], "\x00")...)
	name, _, _ := bytes.Cut(rest[fixed+second:], []byte{0})
	return string(name), scramble, nil
}

// response is the client's half of the handshake.
func response(user, plugin string, proof []byte) []byte {
	packet := binary.LittleEndian.AppendUint32(nil, longPassword|protocol41|secureConnection|pluginAuth)
	packet = binary.LittleEndian.AppendUint32(packet, maxPacket)
	packet = append(packet, utf8mb4)
	packet = append(packet, make([]byte, 23)...)
	packet = append(append(packet, user...), 0)
	packet = append(append(packet, byte(len(proof))), proof...)
	return append(append(packet, plugin...), 0)
}

// other answers a server that wants another way to show who one is.
func (c *client) other(packet []byte, password secret.Secret) (plugin string, scramble []byte, err error) {
	name, scramble, ok := bytes.Cut(packet, []byte{0})
	if !ok {
		return "", nil, errors.New("the server wants a password of before MySQL 4.1, which nobody should send")
	}
	plugin, scramble = string(name), bytes.TrimRight(scramble, "\x00")
	proof, err := c.proof(plugin, scramble, password)
	if err != nil {
		return "", nil, err
	}
	return plugin, scramble, c.write(proof)
}

// proof shows that we know the password, without showing it.
func (c *client) proof(plugin string, scramble []byte, password secret.Secret) ([]byte, error) {
	text := []byte(password.Reveal())
	switch plugin {
	case nativePassword:
		if len(text) == 0 {
			return nil, nil
		}
		once := sha1.Sum(text)                                       //nolint:gosec // as above
		twice := sha1.Sum(once[:])                                   //nolint:gosec // as above
		mask := sha1.Sum(append(bytes.Clone(scramble), twice[:]...)) //nolint:gosec // as above
		return xor(once[:], mask[:]), nil
	case cachingSHA2:
		if len(text) == 0 {
			return nil, nil
		}
		once := sha256.Sum256(text)
		twice := sha256.Sum256(once[:])
		mask := sha256.Sum256(append(twice[:], scramble...))
		return xor(once[:], mask[:]), nil
	case unixSocket, authSocket:
		if c.private {
			return nil, nil
		}
		return nil, fmt.Errorf("the server knows this user by %s only; give the path of its socket as the application's address", plugin)
	}
	return nil, fmt.Errorf("the server wants %q to show who we are, which is not known here; let the user in by %s, %s or %s",
		plugin, nativePassword, cachingSHA2, unixSocket)
}

func xor(a, b []byte) []byte {
	out := make([]byte, len(a))
	subtle.XORBytes(out, a, b)
	return out
}

// more goes on with caching_sha2_password. A server that does not have the
// password in its cache wants to see it: at a socket as it is, else under the
// server's own key.
func (c *client) more(packet []byte, plugin string, scramble []byte, password secret.Secret) error {
	if plugin != cachingSHA2 || len(packet) == 0 {
		return errCut
	}
	shown := append([]byte(password.Reveal()), 0)
	switch packet[0] {
	case sha2Known:
		return nil
	case sha2Unknown:
		if c.private {
			return c.write(shown)
		}
		return c.write([]byte{sha2AskKey})
	case '-': // the key, in PEM
		hidden, err := seal(packet, shown, scramble)
		if err != nil {
			return err
		}
		return c.write(hidden)
	}
	return errCut
}

// seal encrypts the password for the server.
func seal(key, password, scramble []byte) ([]byte, error) {
	block, _ := pem.Decode(key)
	if block == nil || len(scramble) == 0 {
		return nil, errors.New("the server's key is not PEM")
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	public, ok := parsed.(*rsa.PublicKey)
	if err != nil || !ok {
		return nil, errors.New("the server's key is no RSA key")
	}
	masked := make([]byte, len(password))
	for i := range password {
		masked[i] = password[i] ^ scramble[i%len(scramble)]
	}
	return rsa.EncryptOAEP(sha1.New(), rand.Reader, public, masked, nil) //nolint:gosec // as above
}
