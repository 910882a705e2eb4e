package extension

import (
	"bytes"
	"context"
	"encoding/json"
	"time"

	"github.com/openloganalytics/agent/internal/atomicfile"
)

// The guest agent truncates and rewrites its files in place, so a reader can
// meet one that is empty or cut. Such a file is read again for about a second.
const (
	shortReads = 5
	shortPause = 250 * time.Millisecond
)

// readJSON returns the content of a file that the guest agent writes, without
// byte order mark. A file that stays incomplete is returned as it is.
func readJSON(ctx context.Context, path string, limit int64) ([]byte, error) {
	for reads := 1; ; reads++ {
		data, err := atomicfile.ReadLimited(path, limit)
		if err != nil {
			return nil, err
		}
		data = trimBOM(data)
		if json.Valid(data) || reads == shortReads {
			return data, nil
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(shortPause):
		}
	}
}

// trimBOM removes the byte order mark that Windows tools put before UTF-8.
func trimBOM(data []byte) []byte {
	return bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
}
