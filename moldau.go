// Package moldau runs stream-processing applications: topologies of package stream over topics of Kafka, with state in
// tables that survive, and every record's effects exactly once.
//
// An App is one process of an application. Processes of the same name on one cluster share the work: each gets some of
// the tasks, and takes over when another goes. Without a cluster the App brings a broker along, in the same process.
//
//	app, err := moldau.New("wordcount", topo, moldau.Config{})
//	err = app.Run(ctx)
//
// It refuses to hide what it does to the cluster: every topic and name that is created is logged, and whatever cannot be
// right is an error that says what to do.
package moldau

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/moldau/moldau/internal/broker"
	"github.com/moldau/moldau/internal/cluster/franz"
	"github.com/moldau/moldau/internal/worker"
	"github.com/moldau/moldau/topology"
)

// App is one process of an application.
type App struct {
	name     string
	cfg      Config
	topo     *topology.Topology
	identity *worker.Identity
	broker   *broker.Broker // nil: a cluster is used
	cluster  *franz.Cluster
	node     *worker.Node
	registry *prometheus.Registry
	state    *directory
	listener net.Listener // of HTTP; nil: none

	mu     sync.Mutex
	used   bool // Run was called
	closed bool
}

// New makes an App ready to run: it checks the configuration, locks the state directory, starts the bundled broker if there
// is no cluster, and takes the port of HTTP. Whoever does not call Run calls Close. name is the consumer group and begins
// the names of internal topics (application.id); it follows the rules for topic names.
func New(name string, topo *topology.Topology, cfg Config) (*App, error) {
	if err := validate(name, topo, cfg); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	if cfg.StateDir == "" {
		dir, err := stateDir(name)
		if err != nil {
			return nil, err
		}
		cfg.StateDir = dir
	}
	a := &App{name: name, cfg: cfg, topo: topo, registry: prometheus.NewRegistry()}
	if err := a.open(); err != nil {
		a.Close()
		return nil, fmt.Errorf("moldau: application %q: %w", name, err)
	}
	return a, nil
}

func validate(name string, topo *topology.Topology, cfg Config) error {
	var errs []error
	if err := topology.CheckName(name); err != nil {
		errs = append(errs, fmt.Errorf("the application's name %q: %w", name, err))
	} else if len(name) > maxName {
		errs = append(errs, fmt.Errorf("the application's name has %d bytes, %d are possible: it begins the names of topics", len(name), maxName))
	}
	if topo == nil {
		errs = append(errs, errors.New("there is no topology; make one with stream.NewBuilder and its Build"))
	}
	errs = append(errs, cfg.Validate())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("moldau: %w:\n%w", ErrConfig, err)
	}
	return nil
}

// maxName leaves room for the names of stores in the names of topics.
const maxName = 200

func (a *App) open() (err error) {
	cfg := a.cfg
	if a.identity, err = worker.OpenIdentity(cfg.fs, cfg.StateDir, a.name); err != nil {
		return err
	}
	if cfg.HTTP != "" {
		if a.listener, err = net.Listen("tcp", cfg.HTTP); err != nil {
			return fmt.Errorf("cannot serve HTTP at %s: %w; stop whatever listens there, or choose another address (port 0 takes a free one)", cfg.HTTP, err)
		}
	}
	if len(cfg.Brokers) == 0 {
		// The broker lives as long as the App, not as any call.
		if a.broker, err = broker.Start(context.Background(), cfg.brokerConfig(cfg.fs.PathJoin(cfg.StateDir, "broker"))); err != nil {
			return err
		}
	}
	brokers, opts := a.reach()
	if a.cluster, err = franz.New(franz.Config{Brokers: brokers, ClientID: a.name, Logger: cfg.Logger, Options: opts}); err != nil {
		return err
	}
	if err := a.registry.Register(collectors.NewGoCollector()); err != nil {
		return err
	}
	if err := a.registry.Register(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})); err != nil {
		return err
	}
	metrics, err := worker.NewMetrics(a.registry)
	if err != nil {
		return err
	}
	a.state = &directory{fs: cfg.fs, dir: cfg.fs.PathJoin(cfg.StateDir, "tasks"), memory: cfg.Memory, log: cfg.Logger}
	a.node = worker.New(worker.Config{
		App: a.name, Topology: a.topo, Cluster: a.cluster, Identity: a.identity, State: a.state,
		Bundled:            a.broker != nil,
		Transactional:      cfg.Guarantee == ExactlyOnce,
		CommitInterval:     cfg.CommitInterval,
		TransactionTimeout: cfg.TransactionTimeout,
		SessionTimeout:     cfg.SessionTimeout,
		Workers:            cfg.Workers,
		Memory:             cfg.Memory,
		MaxIdle:            cfg.MaxTaskIdle,
		Reset:              cfg.Reset,
		Errors:             cfg.Errors,
		Replication:        int16(cfg.ReplicationFactor),
		TopicConfig:        cfg.TopicConfig,
		AcceptTopology:     cfg.AcceptTopology,
		Uncaught:           cfg.Uncaught,
		Advertise:          cfg.Advertise,
		StopTimeout:        cfg.StopTimeout,
		PurgeInterval:      cfg.PurgeInterval,
		WatchInterval:      watchInterval,
		MetadataMaxAge:     cfg.MetadataMaxAge,
		Event:              cfg.Listener,
		Metrics:            metrics,
		Logger:             cfg.Logger.With("app", a.name),
		Now:                time.Now,
	})
	return nil
}

// watchInterval is the time between looks at whether source topics have changed.
const watchInterval = 10 * time.Second

// reach is how clients of this process reach the cluster or the bundled broker.
func (a *App) reach() ([]string, []kgo.Opt) {
	if a.broker != nil {
		return []string{"in-process:9092"}, []kgo.Opt{kgo.Dialer(a.broker.Dial)}
	}
	return a.cfg.Brokers, a.cfg.Kafka
}

// Client returns options for a franz-go client of your own that reaches what the App uses: the cluster, or the bundled
// broker through memory. It may be used from New to the end of Run; topics that the App creates are there once Ready is closed.
func (a *App) Client() []kgo.Opt {
	brokers, opts := a.reach()
	return append([]kgo.Opt{kgo.SeedBrokers(brokers...)}, opts...)
}

// Run works until ctx ends; then it commits what it has, leaves the group and returns nil. Or until something fails that
// does not pass by itself: then it stops in the same way and returns what failed. Run closes the App. It may be called once.
func (a *App) Run(ctx context.Context) error {
	a.mu.Lock()
	if a.used || a.closed {
		a.mu.Unlock()
		return ErrClosed
	}
	a.used = true
	a.mu.Unlock()

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var serving sync.WaitGroup
	if a.listener != nil {
		server := &http.Server{Handler: a.Handler(), ReadHeaderTimeout: 10 * time.Second}
		serving.Go(func() {
			if err := server.Serve(a.listener); !errors.Is(err, http.ErrServerClosed) {
				cancel(fmt.Errorf("serving HTTP at %s: %w", a.HTTPAddr(), err))
			}
		})
		defer serving.Wait()
		defer server.Close()
	}
	a.announce()
	err := a.node.Run(ctx)
	if err == nil {
		if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) && !errors.Is(cause, context.DeadlineExceeded) {
			err = cause
		}
	}
	if cerr := a.Close(); err == nil && cerr != nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("moldau: application %q: %w", a.name, err)
	}
	return nil
}

// announce logs what runs where.
func (a *App) announce() {
	where := "bundled broker"
	switch {
	case a.broker == nil:
		where = fmt.Sprint(a.cfg.Brokers)
	case a.BrokerAddr() != "":
		where += " at " + a.BrokerAddr()
	}
	a.cfg.Logger.Info("starting", "app", a.name, "cluster", where, "guarantee", a.cfg.Guarantee.String(), "commit_interval", a.cfg.CommitInterval,
		"workers", a.cfg.Workers, "memory", a.cfg.Memory, "state", a.cfg.StateDir, "http", a.HTTPAddr())
}

// Close lets go of everything that New has taken. It does not wait for Run, which calls it.
func (a *App) Close() error {
	a.mu.Lock()
	if a.closed {
		a.mu.Unlock()
		return nil
	}
	a.closed = true
	a.mu.Unlock()
	var errs []error
	if a.listener != nil {
		a.listener.Close()
	}
	if a.cluster != nil {
		a.cluster.Close()
	}
	if a.broker != nil {
		errs = append(errs, a.broker.Close())
	}
	if a.node != nil && a.node.Hangs() {
		// A function that has not come back may still hold state. Its goroutine lets go of the directory when it does.
		go func() {
			a.node.Wait()
			a.unlock()
		}()
		return errors.Join(errs...)
	}
	return errors.Join(append(errs, a.unlock())...)
}

// unlock lets go of the state directory.
func (a *App) unlock() error {
	if a.state != nil {
		a.state.Close()
	}
	if a.identity != nil {
		return a.identity.Close()
	}
	return nil
}

// Ready is closed once the group has been joined and tasks are being run or restored. It never is if Run ends before: wait for that as well.
func (a *App) Ready() <-chan struct{} { return a.node.Ready() }

// Pause holds all tasks of this process: no record is taken up and no timer called until Resume. What has been done is
// committed, the process stays in its group, state is restored and can be queried, and input is fetched until its queues are full.
func (a *App) Pause() { a.node.Pause() }

// Resume ends a Pause.
func (a *App) Resume() { a.node.Resume() }

// Paused says whether tasks are held.
func (a *App) Paused() bool { return a.node.Paused() }

// State is "created", "starting", "joining", "running", "stopping" or "stopped".
func (a *App) State() string { return a.node.State() }

// BrokerAddr is where the bundled broker listens for other clients; "" if it does not.
func (a *App) BrokerAddr() string {
	if a.broker == nil {
		return ""
	}
	return a.broker.Addr()
}

// HTTPAddr is where the App serves HTTP; "" if it does not.
func (a *App) HTTPAddr() string {
	if a.listener == nil {
		return ""
	}
	return a.listener.Addr().String()
}
