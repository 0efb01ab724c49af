package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/moldau/moldau/internal/broker"
	"github.com/moldau/moldau/internal/broker/log"
)

// streams are where a command writes: what it was asked for, and what it has to say.
type streams struct{ out, err io.Writer }

var brokerCommand = command{"broker", "run the bundled single-node Kafka broker", runBroker}

// stopWithin is how long a signal may take to end the broker.
const stopWithin = 3 * time.Second

func runBroker(ctx context.Context, args []string, std streams) error {
	c, logLevel, err := brokerFlags(args, std.err)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return usageError{err}
	}
	c.Logger = slog.New(slog.NewTextHandler(std.err, &slog.HandlerOptions{Level: logLevel}))
	b, err := broker.Start(context.WithoutCancel(ctx), c)
	switch {
	case errors.Is(err, log.ErrLocked):
		return fmt.Errorf("%w; stop the process that uses %s, or name another directory with -data", err, c.Dir)
	case errors.Is(err, log.ErrFormat):
		return fmt.Errorf("%w; use the version of Moldau that wrote %s, or name another directory with -data", err, c.Dir)
	case errors.Is(err, log.ErrCorrupt):
		return fmt.Errorf("%w; restore %s from a copy, or start once with -allow-truncate to lose what lies behind", err, c.Dir)
	case err != nil:
		return err
	}
	fmt.Fprintf(std.out, "broker listens on %s, data in %s\n", b.Addr(), c.Dir)
	<-ctx.Done()
	stopped := make(chan error, 1)
	go func() { stopped <- b.Close() }()
	select {
	case err := <-stopped:
		return err
	case <-time.After(stopWithin):
		return fmt.Errorf("the broker did not stop within %v; what it acknowledged is safe", stopWithin)
	}
}

func brokerFlags(args []string, out io.Writer) (broker.Config, slog.Level, error) {
	c := broker.Config{}
	var durability, level string
	var partitions int
	dir, err := os.UserCacheDir()
	if err == nil {
		dir = filepath.Join(dir, "moldau", "broker")
	}
	f := flag.NewFlagSet("moldau broker", flag.ContinueOnError)
	f.SetOutput(out)
	f.StringVar(&c.Dir, "data", dir, "`directory` for topics, offsets and transactions")
	f.StringVar(&c.Listen, "listen", "127.0.0.1:9092", "`address` to listen on; port 0 takes a free one")
	f.StringVar(&c.Advertise, "advertise", "", "`address` that clients are told to connect to (default: the one listened on)")
	f.StringVar(&durability, "durability", "sync", "what an acknowledged write survives: sync (power loss), interval (power loss but for the last -sync-interval), os (kill -9 only)")
	f.DurationVar(&c.SyncInterval, "sync-interval", time.Second, "time between syncs with -durability interval")
	f.IntVar(&partitions, "partitions", 1, "`number` of partitions of topics created without saying")
	noAuto := f.Bool("no-auto-create", false, "refuse topics that a client merely names")
	f.DurationVar(&c.InitialRebalanceDelay, "initial-rebalance-delay", 0, "how long a new group waits for more members")
	f.DurationVar(&c.ConsumerHeartbeatInterval, "consumer-heartbeat-interval", 5*time.Second, "time between heartbeats of members of the new consumer protocol")
	f.BoolVar(&c.AllowTruncate, "allow-truncate", false, "accept the loss of what lies behind a corrupt place of the log")
	f.StringVar(&level, "log", "info", "what to log: debug, info, warn or error")
	if err := f.Parse(args); err != nil {
		return c, 0, err
	}
	if f.NArg() > 0 {
		return c, 0, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	c.NoAutoCreate = *noAuto
	c.DefaultPartitions = int32(min(partitions, 1<<30))
	var errs []error
	switch durability {
	case "sync":
		c.Durability = log.Sync
	case "interval":
		c.Durability = log.Interval
	case "os":
		c.Durability = log.OS
	default:
		errs = append(errs, fmt.Errorf("-durability %q is none of sync, interval, os", durability))
	}
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		errs = append(errs, fmt.Errorf("-log %q is none of debug, info, warn, error", level))
	}
	if partitions < 1 {
		errs = append(errs, fmt.Errorf("-partitions %d: at least 1", partitions))
		c.DefaultPartitions = 1
	}
	if c.Dir == "" {
		errs = append(errs, errors.New("-data is missing: name a directory"))
	}
	errs = append(errs, c.Validate())
	return c, l, errors.Join(errs...)
}
