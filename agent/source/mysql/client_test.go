package mysql

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openloganalytics/agent/internal/secret"
)

// Proofs that another implementation (Python's hashlib, by the formulas of the
// manual) made of the password "secret" and the bytes 1 to 20.
func TestProofs(t *testing.T) {
	scramble := make([]byte, 20)
	for i := range scramble {
		scramble[i] = byte(i + 1)
	}
	c := newClient(nil, true)
	for plugin, want := range map[string]string{
		nativePassword: "b32bb3a583e1340c0a1108d58b1be49781ad8c2f",
		cachingSHA2:    "746ebe205d56a0707acb3e796e834e0dd7b1d61743b26bd5202c7a623230c7c9",
		unixSocket:     "",
		authSocket:     "",
	} {
		got, err := c.proof(plugin, scramble, secret.New("secret"))
		if err != nil || hex.EncodeToString(got) != want {
			t.Errorf("%s: %x, %v, want %s", plugin, got, err, want)
		}
		if got, err := c.proof(plugin, scramble, secret.Secret{}); err != nil || len(got) > 0 {
			t.Errorf("%s without a password: %x, %v", plugin, got, err)
		}
	}
	c.private = false
	for _, plugin := range []string{unixSocket, authSocket, "client_ed25519", "mysql_clear_password", ""} {
		if got, err := c.proof(plugin, scramble, secret.New("secret")); err == nil || bytes.Contains(got, []byte("secret")) {
			t.Errorf("%q over TCP: %x, %v", plugin, got, err)
		}
	}
}

// A fake is a server that plays its half of the handshake as MySQL 8 does, and
// then answers one query.
type fake struct {
	t        *testing.T
	conn     net.Conn
	sequence byte
	scramble []byte
}

func (f *fake) send(parts ...[]byte) {
	f.t.Helper()
	payload := bytes.Join(parts, nil)
	head := []byte{byte(len(payload)), byte(len(payload) >> 8), byte(len(payload) >> 16), f.sequence}
	f.sequence++
	if _, err := f.conn.Write(append(head, payload...)); err != nil {
		f.t.Errorf("send: %v", err)
	}
}

func (f *fake) receive() []byte {
	f.t.Helper()
	var head [4]byte
	if _, err := io.ReadFull(f.conn, head[:]); err != nil {
		f.t.Errorf("receive: %v", err)
		return nil
	}
	if head[3] != f.sequence {
		f.t.Errorf("packet %d, want %d", head[3], f.sequence)
	}
	f.sequence++
	payload := make([]byte, int(head[0])|int(head[1])<<8|int(head[2])<<16)
	if _, err := io.ReadFull(f.conn, payload); err != nil {
		f.t.Errorf("receive: %v", err)
	}
	return payload
}

// greet begins the handshake with a plugin and returns what the client answers:
// who it is and its proof.
func (f *fake) greet(plugin string) (user string, proof []byte) {
	const capabilities = longPassword | protocol41 | secureConnection | pluginAuth
	fixed := make([]byte, 0, 40)
	fixed = append(fixed, 1, 0, 0, 0)
	fixed = append(append(fixed, f.scramble[:8]...), 0)
	fixed = binary.LittleEndian.AppendUint16(fixed, uint16(capabilities&0xffff))
	fixed = append(fixed, utf8mb4, 2, 0)
	fixed = binary.LittleEndian.AppendUint16(fixed, uint16(capabilities>>16))
	fixed = append(append(fixed, 21), make([]byte, 10)...)
	f.send([]byte{10}, []byte("8.0.36\x00"), fixed, f.scramble[8:], []byte{0}, []byte(plugin), []byte{0})
	answer := f.receive()
	if len(answer) < 33 {
		f.t.Errorf("the answer to the greeting has %d bytes", len(answer))
		return "", nil
	}
	name, rest, _ := bytes.Cut(answer[32:], []byte{0})
	n := int(rest[0])
	if got := string(bytes.TrimRight(rest[1+n:], "\x00")); got != plugin {
		f.t.Errorf("the client answers by %q, want %q", got, plugin)
	}
	return string(name), rest[1 : 1+n]
}

var ok = []byte{packetOK, 0, 0, 2, 0, 0, 0}

// knows checks a proof as the server does: from what it keeps of the password,
// the hash of its hash.
func (f *fake) knows(proof []byte, password string) bool {
	once := sha256.Sum256([]byte(password))
	kept := sha256.Sum256(once[:])
	mask := sha256.Sum256(append(kept[:], f.scramble...))
	if len(proof) != len(mask) {
		return false
	}
	hashed := sha256.Sum256(xor(proof, mask[:]))
	return hashed == kept
}

// knowsNative is the same by mysql_native_password.
func (f *fake) knowsNative(proof []byte, password string) bool {
	once := sha1.Sum([]byte(password))
	kept := sha1.Sum(once[:])
	mask := sha1.Sum(append(bytes.Clone(f.scramble), kept[:]...))
	if len(proof) != len(mask) {
		return false
	}
	hashed := sha1.Sum(xor(proof, mask[:]))
	return hashed == kept
}

// play runs a server at an address for one client, and returns what it answers
// to the query "SELECT".
func play(t *testing.T, network string, script func(f *fake)) ([][]string, error) {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		dir, err := os.MkdirTemp("", "my-") //nolint:usetesting // a socket's path is short
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		address = filepath.Join(dir, "s")
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	played := make(chan struct{})
	go func() {
		defer close(played)
		conn, err := l.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		script(&fake{t: t, conn: conn, scramble: []byte("abcdefghijklmnopqrst")})
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c, err := connect(ctx, l.Addr().String(), "monitor", secret.New("pass\"word"))
	if err != nil {
		<-played
		return nil, err
	}
	rows, err := c.query(ctx, "SELECT")
	c.conn.Close()
	<-played
	return rows, err
}

// rows answers the query with three rows of two columns.
func (f *fake) rows() {
	f.t.Helper()
	f.sequence = 0
	if query := f.receive(); string(query) != "\x03SELECT" {
		f.t.Errorf("query %q", query)
	}
	f.send([]byte{2})
	f.send([]byte("column a"))
	f.send([]byte("column b"))
	f.send([]byte{packetEOF, 0, 0, 2, 0})
	f.send([]byte("\x01a\x03one"))
	f.send([]byte("\x01b\xfb"))
	long := strings.Repeat("x", 300)
	f.send([]byte("\x01c\xfc\x2c\x01"), []byte(long))
	f.send([]byte{packetEOF, 0, 0, 2, 0})
}

var threeRows = [][]string{{"a", "one"}, {"b", ""}, {"c", strings.Repeat("x", 300)}}

func TestEachWayIn(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	const password = "pass\"word"
	for name, tt := range map[string]struct {
		network string
		script  func(f *fake)
	}{
		"native": {"tcp", func(f *fake) {
			if user, proof := f.greet(nativePassword); user != "monitor" || !f.knowsNative(proof, password) {
				f.t.Errorf("%s with %x is refused", user, proof)
			}
			f.send(ok)
			f.rows()
		}},
		"sha2 from the cache": {"tcp", func(f *fake) {
			if user, proof := f.greet(cachingSHA2); user != "monitor" || !f.knows(proof, password) {
				f.t.Errorf("%s with %x is refused", user, proof)
			}
			f.send([]byte{packetMore, sha2Known})
			f.send(ok)
			f.rows()
		}},
		"sha2 under the server's key": {"tcp", func(f *fake) {
			f.greet(cachingSHA2)
			f.send([]byte{packetMore, sha2Unknown})
			if ask := f.receive(); !bytes.Equal(ask, []byte{sha2AskKey}) {
				f.t.Errorf("the client says %x, want it to ask for the key", ask)
			}
			f.send([]byte{packetMore}, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))
			plain, err := rsa.DecryptOAEP(sha1.New(), rand.Reader, key, f.receive(), nil)
			if err != nil {
				f.t.Error(err)
			}
			for i := range plain {
				plain[i] ^= f.scramble[i%len(f.scramble)]
			}
			if string(plain) != password+"\x00" {
				f.t.Errorf("the password is %q", plain)
			}
			f.send(ok)
			f.rows()
		}},
		"sha2 at a socket": {"unix", func(f *fake) {
			f.greet(cachingSHA2)
			f.send([]byte{packetMore, sha2Unknown})
			if shown := f.receive(); string(shown) != password+"\x00" {
				f.t.Errorf("the password is %q", shown)
			}
			f.send(ok)
			f.rows()
		}},
		"another way than the server's own": {"tcp", func(f *fake) {
			f.greet(cachingSHA2)
			f.scramble = []byte("ABCDEFGHIJKLMNOPQRST")
			f.send([]byte{packetEOF}, []byte(nativePassword), []byte{0}, f.scramble, []byte{0})
			if proof := f.receive(); !f.knowsNative(proof, password) {
				f.t.Errorf("%x is refused", proof)
			}
			f.send(ok)
			f.rows()
		}},
		"auth_socket": {"unix", func(f *fake) {
			f.greet(cachingSHA2)
			f.send([]byte{packetEOF}, []byte(authSocket), []byte{0})
			if proof := f.receive(); len(proof) > 0 {
				f.t.Errorf("the client says %q", proof)
			}
			f.send(ok)
			f.rows()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := play(t, tt.network, tt.script)
			if diff := cmp.Diff(threeRows, got); err != nil || diff != "" {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
		})
	}
}

// A row whose first value is longer than 16 MB begins as the end of rows does;
// so far as it is short, it is told from that by its length.
func TestEndOfRows(t *testing.T) {
	for text, want := range map[string]bool{"\xfe\x00\x00\x02\x00": true, "\xfe": true, "\xfe\x00\x00\x00\x01\x00\x00\x00\x00x": false, "\x01a": false} {
		if got := isEOF([]byte(text)); got != want {
			t.Errorf("isEOF(%q) = %v", text, got)
		}
	}
}

func TestServersThatAreRefused(t *testing.T) {
	greeted := func(more func(f *fake)) func(f *fake) {
		return func(f *fake) { f.greet(nativePassword); more(f) }
	}
	for name, tt := range map[string]struct {
		script func(f *fake)
		want   string
	}{
		"blocked":      {func(f *fake) { f.send([]byte("\xff\x69\x04Host is blocked")) }, "error 1129: Host is blocked"},
		"another port": {func(f *fake) { f.sequence = 'T'; f.send([]byte("SSH-2.0-OpenSSH")) }, "is not MySQL's protocol"},
		"too old":      {func(f *fake) { f.send([]byte{9}, []byte("3.21\x00")) }, "version 9 of the protocol"},
		"denied":       {greeted(func(f *fake) { f.send([]byte("\xff\x15\x04#28000Access denied")) }), "error 1045: Access denied"},
		"old password": {greeted(func(f *fake) { f.send([]byte{packetEOF}) }), "before MySQL 4.1"},
		"clear text":   {greeted(func(f *fake) { f.send([]byte{packetEOF}, []byte("mysql_clear_password\x00")) }), `wants "mysql_clear_password"`},
		"socket only":  {greeted(func(f *fake) { f.send([]byte{packetEOF}, []byte("auth_socket\x00")) }), "path of its socket"},
		"no key": {func(f *fake) {
			f.greet(cachingSHA2)
			f.send([]byte{packetMore, sha2Unknown})
			f.receive()
			f.send([]byte{packetMore}, []byte("-----no key"))
		}, "is not PEM"},
		"wants a file": {greeted(func(f *fake) {
			f.send(ok)
			f.sequence = 0
			f.receive()
			f.send([]byte("\xfb/etc/passwd"))
		}), "asks for a file"},
		"fails at once": {greeted(func(f *fake) {
			f.send(ok)
			f.sequence = 0
			f.receive()
			f.send([]byte("\xff\x9f\x04#42000SHOW denied"))
		}), "error 1183: SHOW denied"},
		"fails later": {greeted(func(f *fake) {
			f.send(ok)
			f.sequence = 0
			f.receive()
			f.send([]byte{1})
			f.send([]byte("column"))
			f.send([]byte{packetEOF, 0, 0, 2, 0})
			f.send([]byte("\xff\x9f\x04#42000killed"))
		}), "error 1183: killed"},
		"row cut short": {greeted(func(f *fake) {
			f.send(ok)
			f.sequence = 0
			f.receive()
			f.send([]byte{1})
			f.send([]byte("column"))
			f.send([]byte{packetEOF, 0, 0, 2, 0})
			f.send([]byte("\x05abc"))
		}), "cut short"},
		"gone": {greeted(func(*fake) {}), "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			rows, err := play(t, "tcp", tt.script)
			if err == nil || !strings.Contains(err.Error(), tt.want) || rows != nil {
				t.Errorf("%v, %v, want %q", rows, err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "pass\"word") {
				t.Errorf("the password is in %q", err)
			}
		})
	}
}

func TestServerThatDoesNotAnswer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // the kernel lets clients in
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := connect(ctx, l.Addr().String(), "u", secret.Secret{}); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "no answer in time") {
		t.Errorf("connect = %v", err)
	}
}

// Whatever a server sends, a client ends with an error or with rows that fit
// their columns, and never shows the password where it could be overheard.
func FuzzClient(f *testing.F) {
	f.Add([]byte("\x4a\x00\x00\x00\x0a8.0.36\x00\x01\x00\x00\x00abcdefgh\x00\xff\xff\x2d\x02\x00\xff\xff\x15\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00ijklmnopqrst\x00mysql_native_password\x00\x07\x00\x00\x02\x00\x00\x00\x02\x00\x00\x00\x01\x00\x00\x01\x01"), true)
	f.Add([]byte("\x05\x00\x00\x00\xff\x15\x04no"), false)
	f.Fuzz(func(t *testing.T, data []byte, private bool) {
		var sent bytes.Buffer
		c := newClient(struct {
			io.Reader
			io.Writer
		}{bytes.NewReader(data), &sent}, private)
		const password = "a password that is long"
		if err := c.login("user", secret.New(password)); err == nil {
			rows, err := c.ask("SELECT")
			for _, row := range rows {
				if err != nil || len(row) != len(rows[0]) {
					t.Errorf("rows %v, %v", rows, err)
				}
			}
		}
		if !private && bytes.Contains(sent.Bytes(), []byte(password)) {
			t.Error("the password was sent as it is")
		}
	})
}
