// Command log-analytics-agent is an Azure VM extension handler and the log and
// metrics agent that it keeps running, in one binary.
package main

import (
	"context"
	"os"

	"github.com/openloganalytics/agent/cli"
)

func main() {
	os.Exit(cli.Run(context.Background(), os.Args[1:], cli.Streams{Out: os.Stdout, Err: os.Stderr}))
}
