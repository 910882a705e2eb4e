//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// logs lists the sources of messages and of lines in files.
func logs() []source {
	return []source{
		{name: "syslog socket", table: "Syslog", start: syslogSocket},
		{name: "syslog listener", table: "Syslog", start: syslogListener},
		{name: "CEF by a listener", table: "CommonSecurityLog", start: cefListener},
		{name: "custom log", table: "Lines_CL", start: customLines},
		{name: "custom log, many lines", table: "Lines_CL", start: customRecords},
		{name: "custom log, JSON", table: "Lines_CL", start: customJSON},
		{name: "custom log, Shift-JIS", table: "Lines_CL", start: customShiftJIS},
		{name: "custom log, sums", table: "Sums_CL", start: customSums},
		{name: "redaction", table: "Lines_CL", start: redacted},
	}
}

// columns wants the values of a column, in any order and no others.
func columns(name string, values ...string) func([]map[string]any) error {
	return func(rows []map[string]any) error {
		var got []string
		for _, r := range rows {
			got = append(got, fmt.Sprint(r[name]))
		}
		slices.Sort(got)
		want := slices.Sorted(slices.Values(values))
		if !slices.Equal(got, want) {
			return fmt.Errorf("column %s is %q, want %q", name, got, want)
		}
		return nil
	}
}

// follow is the scene of one custom log with settings of its own, into which
// text is written once the agent follows it.
func follow(l *lab, log, more map[string]any, text string, check func([]map[string]any) error) (scene, error) {
	dir := filepath.Join(l.dir, "logs")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return scene{}, err
	}
	source := map[string]any{
		"streams": []string{"Custom-Lines_CL"}, "filePatterns": []string{filepath.Join(dir, "**", "%Y", "*.log")},
		"excludeFilePatterns": []string{filepath.Join(dir, "**", "debug.log")},
	}
	maps.Copy(source, log)
	public := map[string]any{"dataSources": map[string]any{"logFiles": []any{source}}}
	maps.Copy(public, more)
	act := func(context.Context) error {
		deep := filepath.Join(dir, "app", "2026")
		if err := os.MkdirAll(deep, 0o755); err != nil {
			return err
		}
		return errors.Join(
			os.WriteFile(filepath.Join(deep, "debug.log"), []byte("not this\n"), 0o644),
			os.WriteFile(filepath.Join(deep, "app.log"), []byte(text), 0o644),
		)
	}
	return scene{public: public, act: act, check: check}, nil
}

func customLines(_ context.Context, l *lab) (scene, error) {
	return follow(l, nil, nil, "\xef\xbb\xbfone\n\ntwo\n", columns("RawData", "one", "two"))
}

func customRecords(_ context.Context, l *lab) (scene, error) {
	settings := map[string]any{"text": map[string]any{"recordStartTimestampFormat": "YYYY-MM-DD HH:MM:SS", "timeZone": "UTC"}}
	check := columns("RawData", "2026-11-20 05:06:07 failed\n  at a\n  at b", "2026-11-20 05:06:08 well")
	return follow(l, map[string]any{"settings": settings}, nil, "2026-11-20 05:06:07 failed\n  at a\n  at b\n2026-11-20 05:06:08 well\n", check)
}

func customJSON(_ context.Context, l *lab) (scene, error) {
	check := func(rows []map[string]any) error {
		if len(rows) != 2 {
			return fmt.Errorf("%d rows, want 2", len(rows))
		}
		for _, r := range rows {
			if r["level_s"] == "warn" && fmt.Sprint(r["took_d"]) == "12.5" {
				return columns("RawData", "no JSON", "<nil>")(rows)
			}
		}
		return fmt.Errorf("no row has the columns of the object: %v", rows)
	}
	return follow(l, map[string]any{"format": "json"}, nil, `{"level":"warn","took":12.5}`+"\nno JSON\n", check)
}

func customShiftJIS(_ context.Context, l *lab) (scene, error) {
	return follow(l, map[string]any{"encoding": "shift_jis"}, nil, "\x83\x86\x81[\x83U\x81[\n", columns("RawData", "ユーザー"))
}

// customSums takes numbers out of lines and sums them up, in one window.
func customSums(_ context.Context, l *lab) (scene, error) {
	transformation := map[string]any{
		"name": "took", "headerProcessor": map[string]any{"processor": "header.TextLog"},
		"processors": []any{
			map[string]any{"processor": "filter.Basic", "configuration": map[string]any{"any": []any{map[string]any{"all": []any{
				map[string]any{"columnName": "RawData", "operator": "!contains", "value": "health"},
			}}}}},
			map[string]any{"processor": "parse.JsonPath", "configuration": map[string]any{"columnName": "RawData", "all": []any{
				map[string]any{"path": "$.page", "nameAs": "Page", "typeAs": "string"}, map[string]any{"path": "$.took", "nameAs": "Took", "typeAs": "real"},
			}}},
			map[string]any{"processor": "aggregate.Basic", "configuration": map[string]any{
				"batchingSettings": map[string]any{"timeWindow": "1d", "maxBatchRows": 3},
				"aggregates": []any{
					map[string]any{"columnName": "Took", "operator": "sum", "nameAs": "Sum"}, map[string]any{"operator": "count", "nameAs": "N"},
				},
				"dimensionColumns": []string{"Page"},
			}},
		},
	}
	text := `{"page":"a","took":1.5}` + "\n" + `{"page":"health","took":9}` + "\n" + `{"page":"a","took":2}` + "\n" + `{"page":"b","took":4}` + "\n" + `{"page":"c","took":0}` + "\n"
	check := func(rows []map[string]any) error {
		return errors.Join(columns("Page_s", "a", "b")(rows), columns("Sum_d", "3.5", "4")(rows), columns("N_d", "2", "1")(rows))
	}
	return follow(l, map[string]any{"streams": []string{"Custom-Sums_CL"}, "transform": "took"}, map[string]any{"transformations": []any{transformation}}, text, check)
}

func redacted(_ context.Context, l *lab) (scene, error) {
	return follow(l, nil, map[string]any{"redaction": []string{"*"}}, "login password=hunter2 card 4111 1111 1111 1111\n",
		columns("RawData", "login password=[redacted password] card [redacted card]"))
}

func syslogSocket(_ context.Context, l *lab) (scene, error) {
	return scene{
		public: map[string]any{"dataSources": map[string]any{"syslog": []any{map[string]any{
			"streams": []string{"Microsoft-Syslog"}, "facilityNames": []string{"auth"}, "logLevels": []string{"Warning", "Error"},
		}}}},
		act: func(ctx context.Context) error {
			return dialAndSend(ctx, "unixgram", l.layout.SyslogSocket(), "<36>app[7]: taken", "<38>app: of another level", "<28>app: of another facility")
		},
		check: func(rows []map[string]any) error {
			return errors.Join(columns("SyslogMessage", "taken")(rows), columns("SeverityLevel", "warn")(rows), columns("ProcessID", "7")(rows))
		},
	}, nil
}

// listen is the scene of a listener that gets messages by TCP.
func listen(ctx context.Context, stream string, check func([]map[string]any) error, messages ...string) (scene, error) {
	free, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return scene{}, err
	}
	port := free.Addr().(*net.TCPAddr).Port
	if err := free.Close(); err != nil {
		return scene{}, err
	}
	return scene{
		public: map[string]any{"syslogListeners": []any{map[string]any{"protocol": "tcp", "address": "127.0.0.1", "port": port, "streams": []string{stream}}}},
		act: func(ctx context.Context) error {
			return dialAndSend(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port), messages...)
		},
		check: check,
	}, nil
}

func syslogListener(ctx context.Context, _ *lab) (scene, error) {
	return listen(ctx, "Microsoft-Syslog", columns("SyslogMessage", "first", "second"),
		"<134>Nov 20 05:06:07 fw app: first", `<165>1 2026-11-20T05:06:07Z fw app - - - second`)
}

func cefListener(ctx context.Context, _ *lab) (scene, error) {
	check := func(rows []map[string]any) error {
		return errors.Join(columns("DeviceVendor", "Acme")(rows), columns("SourceIP", "10.0.0.9")(rows))
	}
	return listen(ctx, "Microsoft-CommonSecurityLog", check, "<134>Nov 20 05:06:07 fw CEF:0|Acme|Wall|1.0|100|blocked|5|src=10.0.0.9 act=deny")
}

// dialAndSend sends messages, each in a datagram or on a line of its own.
func dialAndSend(ctx context.Context, network, address string, messages ...string) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return err
	}
	for _, m := range messages {
		if network == "tcp" {
			m = strings.TrimSuffix(m, "\n") + "\n"
		}
		if _, err := conn.Write([]byte(m)); err != nil {
			return errors.Join(err, conn.Close())
		}
	}
	return conn.Close()
}
