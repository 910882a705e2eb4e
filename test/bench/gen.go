//go:build linux

package main

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"time"
)

// A writer makes log lines of about 200 bytes, the same ones for the same
// seed: two thirds are lines of a service, one third is an access log. Every
// line carries n= with its number, by which the sink knows what was lost and
// what came twice, and on request at= with the time of writing in nanoseconds,
// by which it knows the latency.
type writer struct {
	random *rand.Rand
	clock  time.Time
}

func newWriter(seed uint64) *writer {
	return &writer{random: rand.New(rand.NewPCG(seed, 77)), clock: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)}
}

var (
	services = []string{"orders-api", "cart", "stock-sync", "login", "invoices", "search", "mailer", "gateway"}
	levels   = []string{"INFO", "INFO", "INFO", "INFO", "DEBUG", "WARN", "ERROR"}
	texts    = []string{
		"request done", "not in cache, asking the primary store", "upstream took too long, trying again",
		`session "renewed" for principal`, "queue is longer than its soft limit", "peer closed the connection; connecting again",
		"stored 3 rows in table orders_v2", "configuration read again from /etc/shop/conf.d/50-local.json",
	}
	resources = []string{"/api/v2/orders", "/api/v2/items", "/static/js/main.77ab01.js", "/login", "/health", "/img/front.webp", "/api/v1/search", "/admin.php"}
	browsers  = []string{"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/126.0", "Mozilla/5.0 (Windows NT 10.0; Win64; x64) Firefox/127.0", "curl/8.5.0", "probe/1.29"}
	statuses  = []string{"200", "200", "200", "200", "304", "404", "500", "302"}
)

func (w *writer) pick(list []string) string { return list[w.random.IntN(len(list))] }

func (w *writer) number(b []byte, below int) []byte {
	return strconv.AppendInt(b, int64(w.random.IntN(below)), 10)
}

func mark(b []byte, n int, at int64, between byte) []byte {
	b = strconv.AppendInt(append(b, "n="...), int64(n), 10)
	if at != 0 {
		b = append(b, between)
		b = strconv.AppendInt(append(b, "at="...), at, 10)
	}
	return b
}

// line appends line n, without its end; at is its time of writing, 0 for none.
func (w *writer) line(b []byte, n int, at int64) []byte {
	w.clock = w.clock.Add(time.Duration(w.random.IntN(2000)) * time.Microsecond)
	if n%3 == 2 {
		return w.access(b, n, at)
	}
	b = w.clock.AppendFormat(b, "2006-01-02T15:04:05.000000Z")
	b = w.number(append(b, " web-"...), 40)
	b = append(append(b, ' '), w.pick(services)...)
	b = w.number(append(b, '['), 32768)
	b = append(append(b, "]: "...), w.pick(levels)...)
	b = fmt.Appendf(b, " trace=%016x%016x ", w.random.Uint64(), w.random.Uint64())
	b = mark(b, n, at, ' ')
	b = w.number(append(b, " tenant=contoso-"...), 500)
	b = append(append(append(b, ` text="`...), w.pick(texts)...), '"')
	b = w.number(append(b, " ms="...), 4000)
	return append(append(b, " path="...), w.pick(resources)...)
}

// access appends a line of a web server's access log.
func (w *writer) access(b []byte, n int, at int64) []byte {
	b = append(b, "10"...)
	for range 3 {
		b = w.number(append(b, '.'), 256)
	}
	b = w.number(append(b, " - user"...), 5000)
	b = append(w.clock.AppendFormat(append(b, " ["...), "02/Jan/2006:15:04:05 -0700"), `] "GET `...)
	b = w.number(append(append(b, w.pick(resources)...), "?id="...), 1000000)
	b = mark(append(b, ';'), n, at, ';')
	b = append(append(b, ` HTTP/1.1" `...), w.pick(statuses)...)
	b = w.number(append(b, ' '), 90000)
	b = append(append(b, ` "https://shop.contoso.example/" "`...), w.pick(browsers)...)
	return w.number(append(b, `" 0.`...), 1000)
}

// message appends syslog message n in the form of RFC 3164 or 5424.
func (w *writer) message(b []byte, form string, n int, at int64) []byte {
	w.clock = w.clock.Add(time.Duration(w.random.IntN(2000)) * time.Microsecond)
	b = strconv.AppendInt(append(b, '<'), int64(8*(n%24)+n%8), 10)
	if form == "5424" {
		b = w.clock.AppendFormat(append(b, ">1 "...), "2006-01-02T15:04:05.000000Z")
		b = append(append(b, " web-01 "...), w.pick(services)...)
		b = w.number(append(b, ' '), 32768)
		b = append(b, ` M47 [origin@32473 ip="10.1.2.3"] `...)
	} else {
		b = w.clock.AppendFormat(append(b, '>'), time.Stamp)
		b = append(append(b, " web-01 "...), w.pick(services)...)
		b = append(w.number(append(b, '['), 32768), "]: "...)
	}
	b = mark(append(b, "order "...), n, at, ' ')
	b = fmt.Appendf(b, " trace=%016x%016x tenant=contoso-", w.random.Uint64(), w.random.Uint64())
	b = append(append(w.number(b, 500), " text="...), w.pick(texts)...)
	return w.number(append(b, " ms="...), 4000)
}

// makeLog writes a file of n lines, unless it is there, and returns its size.
func makeLog(path string, n int) (int64, error) {
	if st, err := os.Stat(path); err == nil {
		return st.Size(), nil
	}
	f, err := os.Create(path + ".new")
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }() // closed below; again changes nothing
	out := bufio.NewWriterSize(f, 1<<20)
	w := newWriter(1)
	var b []byte
	for i := range n {
		b = append(w.line(b[:0], i, 0), '\n')
		if _, err := out.Write(b); err != nil {
			return 0, err
		}
	}
	if err := out.Flush(); err != nil {
		return 0, err
	}
	if err := f.Sync(); err != nil {
		return 0, err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return 0, err
	}
	st, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// pace calls emit for 0 to n-1, rate a second; 0 is as fast as it goes. It
// sleeps a millisecond at a time and makes good what it overslept.
func pace(n, rate int, emit func(i int) error) error {
	start := time.Now()
	for i := 0; i < n; {
		due := n
		if rate > 0 {
			due = min(n, int(float64(rate)*time.Since(start).Seconds()))
		}
		if due <= i {
			time.Sleep(time.Millisecond)
			continue
		}
		for ; i < due; i++ {
			if err := emit(i); err != nil {
				return err
			}
		}
	}
	return nil
}

// appendLines appends n lines to the file at path, rate a second, each in a
// write of its own as programs do; wrote is told how many are there.
func appendLines(path string, n, rate int, wrote func(int)) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // each write was checked
	w := newWriter(3)
	var b []byte
	return pace(n, rate, func(i int) error {
		b = append(w.line(b[:0], i, time.Now().UnixNano()), '\n')
		_, err := f.Write(b)
		wrote(i + 1)
		return err
	})
}

// sendMessages sends n syslog messages, rate a second: datagrams, or lines of
// one TCP connection.
func sendMessages(network, address, form string, n, rate int) error {
	conn, err := net.Dial(network, address)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // each write was checked
	w := newWriter(7)
	var b []byte
	if network == "udp" {
		return pace(n, rate, func(i int) error {
			b = w.message(b[:0], form, i, 0)
			_, err := conn.Write(b)
			return err
		})
	}
	out := bufio.NewWriterSize(conn, 64<<10)
	err = pace(n, rate, func(i int) error {
		b = append(w.message(b[:0], form, i, 0), '\n')
		_, err := out.Write(b)
		return err
	})
	if err != nil {
		return err
	}
	return out.Flush()
}
