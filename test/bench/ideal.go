//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"github.com/klauspost/compress/gzip"

	"github.com/openloganalytics/agent/agent/record"
)

// The ideal is what no agent for this job can do without, written as plainly
// as it goes: read the file, find the ends of lines, escape them into JSON,
// deflate, append to a file, sync once per batch, send over TLS. It follows
// nothing, survives nothing and knows no error, and it has no goroutine of its
// own. Its rows carry a time and the line only.

// prepareIdeal starts this very program.
func prepareIdeal(_ context.Context, s setup) (launch, error) {
	self, err := os.Executable()
	return launch{args: []string{self, "ideal", s.File, s.Sink, s.CA, filepath.Join(s.Dir, "batches")}}, err
}

const (
	idealBatch = 1 << 20 // bytes of lines
	idealRead  = 256 << 10
)

type idealRun struct {
	conn    *tls.Conn
	answers *bufio.Reader
	store   *os.File
	json    []byte
	body    bytes.Buffer
	gzip    *gzip.Writer
	lines   int // bytes of lines in body
}

// runIdeal takes the file, the port of the sink, its certificate, and where to
// store the batches.
func runIdeal(args []string) error {
	if len(args) != 4 {
		return errors.New("ideal takes FILE PORT CERTIFICATE STORE")
	}
	debug.SetGCPercent(-1) // every buffer is reused
	in, err := os.Open(args[0])
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // nothing was written
	text, err := os.ReadFile(args[2])
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	var r idealRun
	if r.conn, err = tls.Dial("tcp", "localhost:"+args[1], &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}); err != nil {
		return err
	}
	r.answers = bufio.NewReader(r.conn)
	if r.store, err = os.Create(args[3]); err != nil {
		return err
	}
	if r.gzip, err = gzip.NewWriterLevel(&r.body, gzip.BestSpeed); err != nil {
		return err
	}
	if err := r.file(in); err != nil {
		return err
	}
	return errors.Join(r.batch(), r.store.Close(), r.conn.Close())
}

func (r *idealRun) file(in *os.File) error {
	buf := make([]byte, idealRead)
	kept := 0
	for {
		n, err := in.Read(buf[kept:])
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		block := buf[:kept+n]
		whole := bytes.LastIndexByte(block, '\n') + 1
		if err := r.rows(block[:whole]); err != nil {
			return err
		}
		kept = copy(buf, block[whole:])
	}
}

func (r *idealRun) rows(block []byte) error {
	out := r.json[:0]
	if r.lines == 0 {
		r.body.Reset()
		r.gzip.Reset(&r.body)
		out = append(out, '[')
	}
	r.lines += len(block)
	for len(block) > 0 {
		end := bytes.IndexByte(block, '\n')
		out = append(out, `{"TimeGenerated":"2026-03-04T05:06:07.123Z","RawData":`...)
		out = record.AppendText(out, block[:end])
		out = append(out, '}', ',')
		block = block[end+1:]
		if len(out) >= 60<<10 { // stays in the cache
			if _, err := r.gzip.Write(out); err != nil {
				return err
			}
			out = out[:0]
		}
	}
	r.json = out
	if _, err := r.gzip.Write(out); err != nil {
		return err
	}
	if r.lines < idealBatch {
		return nil
	}
	return r.batch()
}

// batch ends a batch, stores it and sends it.
func (r *idealRun) batch() error {
	if r.lines == 0 {
		return nil
	}
	r.lines = 0
	if err := r.gzip.Close(); err != nil {
		return err
	}
	if _, err := r.store.Write(r.body.Bytes()); err != nil {
		return err
	}
	if err := unix.Fdatasync(int(r.store.Fd())); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(r.conn, "POST /rows HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n", r.body.Len()); err != nil {
		return err
	}
	if _, err := r.conn.Write(r.body.Bytes()); err != nil {
		return err
	}
	answer, err := http.ReadResponse(r.answers, nil)
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("the sink answers %s", answer.Status)
	}
	return errors.Join(err, answer.Body.Close())
}
