package agent

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/openloganalytics/agent/agent/record"
	"github.com/openloganalytics/agent/agent/source/heartbeat"
	"github.com/openloganalytics/agent/agent/upload"
	"github.com/openloganalytics/agent/agent/workspace"
	"github.com/openloganalytics/agent/internal/atomicfile"
	"github.com/openloganalytics/agent/internal/hostinfo"
	"github.com/openloganalytics/agent/internal/logfile"
	"github.com/openloganalytics/agent/internal/paths"
	"github.com/openloganalytics/agent/internal/product"
	"github.com/openloganalytics/agent/internal/proxy"
)

// Options is what Run is given by the command line.
type Options struct {
	Layout paths.Layout
	Config *Config
	Proxy  *proxy.Proxy // nil is direct
	Log    *logfile.Logger
	// Notify tells the service manager "READY=1", "WATCHDOG=1", "STOPPING=1";
	// nil when nobody listens.
	Notify func(state string) error
	// Watchdog is how often the service manager expects a sign of life; 0 is never.
	Watchdog time.Duration
	// Effort is told when a backlog begins and ends. The start is one: the first
	// call says that it is over. Nil when nobody wants to know.
	Effort func(backlog bool)
	// Metadata asks what Azure's instance metadata say of this machine; nil
	// asks the service on the machine.
	Metadata func(context.Context) (hostinfo.Metadata, error)
	// Reread reads the config anew. It is called when the config file has
	// changed; nil never looks at the file.
	Reread func() (*Config, error)

	dry bool // see DryRun
}

// uploadGrace is how long an attempt under way may take once the agent stops.
const uploadGrace = 5 * time.Second

// lingering lets an attempt under way come to its end when the agent stops:
// cut short, it would be made again, and its rows delivered twice.
type lingering struct{ upload.Destination }

func (l lingering) Send(ctx context.Context, batch upload.Batch) upload.Result {
	sending, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-sending.Done():
		case <-time.After(uploadGrace):
			cancel()
		}
	})
	defer stop()
	return l.Destination.Send(sending, batch)
}

// Run opens the spool, starts uploaders and sources, and works until ctx
// ends. Then it stops in reverse: the sources hand over what they have, that
// becomes durable, the attempts under way end. What was not delivered waits in
// the spool for the next Run.
//
// Other sources in the config file, or pushed by the workspace, are brought
// about while it runs. It begins anew when something else in the config changes,
// and when the instance metadata come that were missing: they say in which cloud
// the workspaces are.
func Run(ctx context.Context, o Options) error {
	if o.Metadata == nil {
		o.Metadata = hostinfo.ReadMetadata
	}
	for {
		living, stop := context.WithCancelCause(ctx)
		err := live(living, stop, o)
		stop(nil)
		var changed *configChangedError
		switch cause := context.Cause(living); {
		case errors.As(cause, &changed):
			o.Config = changed.config
		case !errors.Is(cause, errMetadataCame):
			return err
		}
		o.Log.Info("starting anew", "reason", context.Cause(living))
	}
}

// beginsAnew reports whether a life ends for another to begin.
func beginsAnew(living context.Context) bool {
	var changed *configChangedError
	return errors.Is(context.Cause(living), errMetadataCame) || errors.As(context.Cause(living), &changed)
}

// live is one life of the agent, until ctx ends or stop is called.
func live(ctx context.Context, stop context.CancelCauseFunc, o Options) error {
	if len(o.Config.Workspaces) == 0 {
		return errors.New("start the agent: the config names no workspace; apply the extension's settings again")
	}
	if err := tidy(o); err != nil {
		return err
	}
	machine := readHost(ctx, o)
	roots, err := trusted(o.Config.TrustedCertificates)
	if err != nil {
		return err
	}
	spools, err := openSpools(o)
	if err != nil {
		return err
	}
	defer spools.close()
	queue := spools.queue
	in := newIntake(queue, o.Log)
	m := newMonitor(o, spools, in)
	in.governor = newGovernor(o.Config.Limits, m.changed)
	defer in.governor.hold()()
	in.effort = newEffort(o.Effort)

	crew := newRoster(o, machine, in, m.changed)
	document, pushed := stored(o)
	clients := make([]*workspace.Client, 0, len(o.Config.Workspaces))
	uploaders := make([]*upload.Uploader, 0, len(o.Config.Workspaces))
	for i, w := range o.Config.Workspaces {
		mended := wakeOnce(func() bool {
			state, _, _, _ := clients[i].State()
			return state == StateConnected
		}, func() { uploaders[i].Wake() })
		options := workspaceOptions(o, w, machine, roots, func() { mended(); m.changed() })
		if i == 0 { // as with the earlier agent, the first one is who may choose
			options.Configuration, options.Addresses = document, hostinfo.PrivateIPs
			options.Configure = func(_ context.Context, document []byte) workspace.Outcome { return crew.push(ctx, document) }
		}
		c, err := workspace.New(options)
		if err != nil {
			return fmt.Errorf("open workspace %s: %w", w.ID, err)
		}
		clients = append(clients, c)
		uploaders = append(uploaders, upload.New(upload.Options{
			Destination: lingering{c}, Queue: queue, Log: o.Log.With("destination", c.Name()), OnLoss: in.lostBehind,
		}))
	}
	crew.follow = clients[0].Follow
	first, err := crew.plan(o.Config, pushed)
	if err != nil {
		return err
	}
	m.watch(clients, crew)

	// Three layers, each ended by a context of its own, innermost last.
	delivery, stopDelivery := context.WithCancel(context.WithoutCancel(ctx))
	defer stopDelivery()
	gathering, stopGathering := context.WithCancel(context.WithoutCancel(ctx))
	defer stopGathering()

	var delivering, gatheringDone, reporting sync.WaitGroup
	for i, c := range clients {
		delivering.Go(func() { background(delivery, o.Log, c) })
		delivering.Go(func() { uploaders[i].Run(delivery) })
	}
	for _, l := range spools.left {
		delivering.Go(func() { spools.empty(delivery, l, clients) })
	}
	gatheringDone.Go(func() { in.run(gathering) })
	if err := crew.apply(ctx, first); err != nil {
		o.Log.Debug("stopped before the sources began", "error", err)
	}
	reporting.Go(func() { crew.heed(ctx, stop) })
	reporting.Go(func() { m.run(delivery) })
	reporting.Go(func() { m.beat(delivery) })
	if machine.metadata == (hostinfo.Metadata{}) {
		reporting.Go(func() { awaitMetadata(ctx, o, func() bool { return placed(o.Config.Workspaces, clients) }, stop) })
	}
	o.Log.Info("started", "version", product.Version, "generation", o.Config.Generation, "workspaces", len(clients), "sources", len(first.sources))
	m.notify("READY=1")

	<-ctx.Done()
	in.governor.letGo()
	if !beginsAnew(ctx) {
		m.notify("STOPPING=1")
	}
	crew.wait()
	stopGathering()
	gatheringDone.Wait()
	stopDelivery()
	delivering.Wait()
	reporting.Wait()
	m.last()
	o.Log.Info("stopped")
	return nil
}

// tidy deletes what an agent that was killed has left half-written.
func tidy(o Options) error {
	dirs := []string{o.Layout.AgentDir()}
	for _, w := range o.Config.Workspaces {
		dirs = append(dirs, o.Layout.WorkspaceDir(w.ID))
	}
	for _, dir := range dirs {
		if err := atomicfile.Clean(dir, "", 0); err != nil {
			return fmt.Errorf("tidy up: %w", err)
		}
	}
	return nil
}

// wakeOnce returns a function that calls wake each time well has become true:
// what was mended need not wait for the next try.
func wakeOnce(well func() bool, wake func()) func() {
	var mu sync.Mutex
	var before bool
	return func() {
		mu.Lock()
		defer mu.Unlock()
		now := well()
		if now && !before {
			wake()
		}
		before = now
	}
}

// background runs the client's own life: onboarding, heartbeat, renewal.
func background(ctx context.Context, log *logfile.Logger, c *workspace.Client) {
	if err := c.Run(ctx); err != nil && ctx.Err() == nil {
		log.Error("workspace client ended", "destination", c.Name(), "error", err)
	}
}

// urgent reports whether rows go before all that waits: those that say that the
// machine lives, and what it has lost.
func urgent(label []byte) bool {
	t, err := record.ParseLabel(label)
	return err == nil && (t.Name == heartbeat.TableName || t.Name == operationTable)
}

// trusted returns the system's authorities with those in pem; nil stands for
// the system's alone.
func trusted(pem string) (*x509.CertPool, error) {
	if pem == "" {
		return nil, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM([]byte(pem)) {
		return nil, errors.New("read trusted certificates: they hold no PEM certificate")
	}
	return pool, nil
}
