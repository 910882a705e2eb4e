// Package collectd takes what collectd's plugin write_http posts as JSON to a
// port of the loopback address, and turns it into rows of the table Perf, as
// the OMS agent for Linux did: the object is collectd's type, the instance its
// plugin instance, the counter its type instance and data source.
package collectd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/openloganalytics/agent/agent/record"
	"github.com/openloganalytics/agent/agent/source"
	"github.com/openloganalytics/agent/agent/source/sampling"
	"github.com/openloganalytics/agent/internal/local"
	"github.com/openloganalytics/agent/internal/logfile"
)

// Options says where collectd finds the agent.
type Options struct {
	Port     int    // of 127.0.0.1
	Computer string // short host name
	Log      *logfile.Logger
}

// New returns the source. It listens while it runs.
func New(o Options) source.Source { return &input{o, sampling.Table()} }

type input struct {
	o     Options
	table *record.Table
}

// Name implements source.Source.
func (i *input) Name() string { return "collectd" }

// Limits on what a sender may do.
const (
	maxBody     = 4 << 20 // bytes; the plugin's buffer has 4 KiB by default
	maxSenders  = 16
	headerTime  = 5 * time.Second
	requestTime = 30 * time.Second
	stopTime    = time.Second // for a post that is under way when the agent stops
)

// Run implements source.Source.
func (i *input) Run(ctx context.Context, out source.Emitter) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp4", fmt.Sprintf("127.0.0.1:%d", i.o.Port))
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("listen for collectd: %w; choose another port in the setting collectd", err)
	}
	server := &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { i.serve(ctx, w, r, out) }),
		ReadHeaderTimeout: headerTime, ReadTimeout: requestTime, WriteTimeout: requestTime, IdleTimeout: 5 * time.Minute,
		MaxHeaderBytes: 16 << 10,
	}
	var ending sync.WaitGroup
	ended := make(chan struct{})
	ending.Go(func() {
		select {
		case <-ctx.Done():
		case <-ended:
		}
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
		defer cancel()
		if err := server.Shutdown(stopping); err != nil { // who still sends is cut off
			_ = server.Close()
		}
	})
	err = server.Serve(limit(listener, maxSenders))
	close(ended)
	ending.Wait()
	if ctx.Err() != nil || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("listen for collectd: %w", err)
}

// serve answers one post. Whoever gets 200 has handed its values over.
func (i *input) serve(ctx context.Context, w http.ResponseWriter, r *http.Request, out source.Emitter) {
	status, err := i.take(ctx, r, out)
	switch {
	case err == nil:
		out.Trouble("collectd", "")
		w.WriteHeader(status)
		return
	case status == http.StatusBadRequest:
		out.Trouble("collectd", fmt.Sprintf("collectd sends what is not understood: %v; give its plugin write_http the line Format \"JSON\"", err))
	}
	http.Error(w, err.Error(), status)
}

func (i *input) take(ctx context.Context, r *http.Request, out source.Emitter) (status int, err error) {
	// A web page can make a browser on this machine post here, but not with this
	// type, and not to a name that is not the page's own.
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		host = r.Host
	}
	mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case r.Method != http.MethodPost:
		return http.StatusMethodNotAllowed, errors.New("only POST is taken here")
	case !local.Is(host):
		return http.StatusForbidden, errors.New("only localhost is served")
	case err != nil || mediaType != "application/json":
		return http.StatusUnsupportedMediaType, errors.New("only application/json is taken here")
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	switch {
	case err != nil:
		return http.StatusBadRequest, fmt.Errorf("the body ends early: %w", err)
	case len(body) > maxBody:
		return http.StatusRequestEntityTooLarge, fmt.Errorf("the body is longer than %d bytes", maxBody)
	}
	now := time.Now()
	counters, err := parse(body, now, i.o.Computer)
	if err != nil {
		return http.StatusBadRequest, err
	}
	if err := sampling.Emit(ctx, out, sampling.Of(i.table, now, i.o.Computer, counters), sampling.Patience); err != nil {
		i.o.Log.Error("values of collectd are refused", "error", err)
		return http.StatusServiceUnavailable, err
	}
	if ctx.Err() != nil {
		return http.StatusServiceUnavailable, errors.New("the agent stops")
	}
	return http.StatusOK, nil
}

// limit lets so many senders in at a time; others wait.
func limit(l net.Listener, n int) net.Listener {
	return &limited{Listener: l, room: make(chan struct{}, n), closed: make(chan struct{})}
}

type limited struct {
	net.Listener
	room   chan struct{}
	closed chan struct{}
	once   sync.Once
}

// Accept waits for room, then for a sender.
func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.room <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.room
		return nil, err
	}
	return &limitedConn{Conn: conn, release: sync.OnceFunc(func() { <-l.room })}, nil
}

// Close ends the waiting, too.
func (l *limited) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type limitedConn struct {
	net.Conn
	release func()
}

// Close makes room.
func (c *limitedConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}
