package mysql

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/openloganalytics/agent/internal/local"
	"github.com/openloganalytics/agent/internal/secret"
)

// The part of MySQL's client protocol that asking needs: the handshake and the
// text form of queries (MySQL internals manual, "Client/Server Protocol").
// Nothing of it is encrypted: it is spoken within one machine only.

// Capabilities of a client, of which these are all that it needs.
const (
	longPassword     = 1 << 0
	protocol41       = 1 << 9
	secureConnection = 1 << 15
	pluginAuth       = 1 << 19
)

// First bytes of a packet.
const (
	packetOK     = 0x00
	packetMore   = 0x01 // more of the handshake
	packetInfile = 0xfb // the server wants a file; within a row: NULL
	packetEOF    = 0xfe // also: another way to show who one is
	packetError  = 0xff
)

// commandQuery begins a query.
const commandQuery = 3

const (
	// maxPacket is more than any row of what is asked for.
	maxPacket = 1 << 20
	// maxAnswer is more than all of its rows.
	maxAnswer = 32 << 20
	// utf8mb4 is the number of a collation of it.
	utf8mb4 = 45
)

// A serverError is what the server answers instead of rows.
type serverError struct {
	number uint16
	text   string
}

func (e *serverError) Error() string { return fmt.Sprintf("error %d: %s", e.number, e.text) }

// parseServerError reads a packet that begins with packetError.
func parseServerError(packet []byte) error {
	if len(packet) < 3 {
		return errCut
	}
	text := packet[3:]
	if len(text) >= 6 && text[0] == '#' { // the SQL state
		text = text[6:]
	}
	return &serverError{binary.LittleEndian.Uint16(packet[1:]), strings.ToValidUTF8(string(text), "?")}
}

var errCut = errors.New("the answer is cut short")

// A client is a connection to a server.
type client struct {
	stream   io.ReadWriter
	in       *bufio.Reader
	sequence byte
	private  bool // nobody else can listen: a Unix socket
}

// A connection is a client with what ends it.
type connection struct {
	client
	conn net.Conn
}

// connect opens a connection to a socket's path or a loopback address.
func connect(ctx context.Context, address, user string, password secret.Secret) (*connection, error) {
	dialer, network := local.Dial, "tcp"
	if strings.HasPrefix(address, "/") {
		dialer, network = (&net.Dialer{}).DialContext, "unix"
	}
	conn, err := dialer(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c := &connection{client: newClient(conn, network == "unix"), conn: conn}
	err = c.bounded(ctx, func() error { return c.login(user, password) })
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return c, nil
}

func newClient(stream io.ReadWriter, private bool) client {
	return client{stream: stream, in: bufio.NewReader(stream), private: private}
}

// bounded calls talk, which ends with ctx.
func (c *connection) bounded(ctx context.Context, talk func() error) error {
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Unix(1, 0)) }) // what reads then, fails
	defer stop()
	if err := talk(); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("no answer in time: %w", ctx.Err())
		}
		return err
	}
	return nil
}

// query returns the rows of a query. Anything that is NULL reads as empty. After
// an error that is no serverError the connection is of no more use.
func (c *connection) query(ctx context.Context, text string) (rows [][]string, err error) {
	err = c.bounded(ctx, func() error {
		rows, err = c.ask(text)
		return err
	})
	return rows, err
}

func (c *client) ask(text string) ([][]string, error) {
	c.sequence = 0
	if err := c.write(append([]byte{commandQuery}, text...)); err != nil {
		return nil, err
	}
	head, err := c.read()
	if err != nil {
		return nil, err
	}
	switch head[0] {
	case packetError:
		return nil, parseServerError(head)
	case packetOK:
		return nil, nil
	case packetInfile:
		return nil, errors.New("the server asks for a file of this machine, and gets none")
	}
	columns, _, ok := cutNumber(head)
	if !ok || columns == 0 || columns > 100 {
		return nil, errCut
	}
	if err := c.skipColumns(int(columns)); err != nil {
		return nil, err
	}
	var rows [][]string
	for size := 0; ; {
		packet, err := c.read()
		switch {
		case err != nil:
			return nil, err
		case packet[0] == packetError:
			return nil, parseServerError(packet)
		case isEOF(packet):
			return rows, nil
		}
		row, ok := parseRow(packet, int(columns))
		if size += len(packet); !ok || size > maxAnswer {
			return nil, errCut
		}
		rows = append(rows, row)
	}
}

// skipColumns passes over the descriptions of columns and what ends them.
func (c *client) skipColumns(n int) error {
	for i := range n + 1 {
		packet, err := c.read()
		if err != nil {
			return err
		}
		if isEOF(packet) != (i == n) {
			return errCut
		}
	}
	return nil
}

// isEOF tells the end of a list from a row that begins with a long value.
func isEOF(packet []byte) bool { return packet[0] == packetEOF && len(packet) < 9 }

// parseRow reads the values of one row.
func parseRow(packet []byte, columns int) ([]string, bool) {
	row := make([]string, columns)
	for i := range row {
		if len(packet) > 0 && packet[0] == packetInfile {
			packet = packet[1:]
			continue
		}
		n, rest, ok := cutNumber(packet)
		if !ok || n > uint64(len(rest)) {
			return nil, false
		}
		row[i], packet = string(rest[:n]), rest[n:]
	}
	return row, len(packet) == 0
}

// cutNumber reads a number of one to nine bytes.
func cutNumber(data []byte) (n uint64, rest []byte, ok bool) {
	if len(data) == 0 {
		return 0, nil, false
	}
	width := 0
	switch first := data[0]; {
	case first < packetInfile:
		return uint64(first), data[1:], true
	case first == 0xfc:
		width = 2
	case first == 0xfd:
		width = 3
	case first == 0xfe:
		width = 8
	default:
		return 0, nil, false
	}
	if len(data) < 1+width {
		return 0, nil, false
	}
	for i := width; i > 0; i-- {
		n = n<<8 | uint64(data[i])
	}
	return n, data[1+width:], true
}

// read returns the next packet, which has one byte at least.
func (c *client) read() ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(c.in, head[:]); err != nil {
		return nil, err
	}
	size := int(head[0]) | int(head[1])<<8 | int(head[2])<<16
	if size == 0 || size > maxPacket || head[3] != c.sequence {
		return nil, errors.New("the answer is not MySQL's protocol")
	}
	c.sequence++
	var packet bytes.Buffer // grows with what comes, whatever size says
	if _, err := io.CopyN(&packet, c.in, int64(size)); err != nil {
		return nil, errCut
	}
	return packet.Bytes(), nil
}

// write sends a packet.
func (c *client) write(payload []byte) error {
	packet := make([]byte, 4, 4+len(payload))
	packet[0], packet[1], packet[2], packet[3] = byte(len(payload)), byte(len(payload)>>8), byte(len(payload)>>16), c.sequence
	c.sequence++
	_, err := c.stream.Write(append(packet, payload...))
	return err
}
