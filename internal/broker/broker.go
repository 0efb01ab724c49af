package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/moldau/moldau/internal/broker/log"
	"github.com/moldau/moldau/internal/broker/pipe"
	"github.com/moldau/moldau/internal/broker/wire"
)

// ErrClosed is returned for what a broker that was closed is asked to do.
var ErrClosed = errors.New("the broker is closed")

// keyClusterID is the record of the cluster's id.
const keyClusterID = "cluster.id"

// Broker is a running broker.
type Broker struct {
	cfg       Config
	slog      *slog.Logger
	log       *log.Log
	catalog   *catalog
	groups    *groups
	txns      *transactions
	sessions  *sessions
	alarms    *alarms
	apis      map[int16]api
	buffers   buffers
	frames    wire.Buffers
	clusterID string
	listeners []*listener
	security  *security
	dynamic   dynamicConfigs
	budget    *budget
	answers   answers
	metrics   metrics

	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
	closed  sync.Once
	err     error
	// serving guards the start of connections against the end of the broker.
	serving sync.Mutex
	over    bool
	seats   seats
}

// Start starts a broker. It serves when Start returns, until ctx ends or Close is called.
func Start(ctx context.Context, c Config) (*Broker, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.withDefaults()
	if c.FS == nil {
		c.FS = vfs.Default
	}
	b := &Broker{cfg: c, slog: c.Logger, sessions: newSessions(), alarms: newAlarms(c.Now),
		budget: newBudget(c.MaxRequestBytes), answers: answers{most: maxAnswers}, seats: newSeats()}
	b.apis = b.serverAPIs()
	// The ports first: they are the likelier reason not to start, and take no recovery to find out.
	for _, l := range c.Listeners {
		open, err := listen(l, c.Logger)
		if err != nil {
			b.closeListeners()
			return nil, err
		}
		b.listeners = append(b.listeners, open)
	}
	if err := b.open(); err != nil {
		b.closeListeners()
		return nil, err
	}
	if c.planted != nil {
		c.planted(b)
	}
	b.ctx, b.cancel = context.WithCancel(ctx)
	b.running.Go(func() { b.alarms.run(b.ctx) })
	for _, l := range b.listeners {
		b.running.Go(func() { b.accept(l) })
	}
	context.AfterFunc(b.ctx, func() { b.Close() })
	return b, nil
}

// open opens the log and takes the coordinators' records back in.
func (b *Broker) open() (err error) {
	c := b.cfg
	if b.log, err = log.Open(log.Options{
		FS: c.FS, Dir: c.Dir, Durability: c.Durability, Interval: c.SyncInterval, CacheBytes: c.CacheBytes, WALBytes: c.walBytes,
		LargeBatch: c.largeBatch, BootID: c.BootID, AllowTruncate: c.AllowTruncate, Now: c.Now, Logger: c.Logger,
	}); err != nil {
		return fmt.Errorf("broker: %w", err)
	}
	if err := b.restore(); err != nil {
		return errors.Join(err, b.log.Close())
	}
	return nil
}

func (b *Broker) restore() error {
	now := b.cfg.Now()
	var err error
	if b.security, err = newSecurity(b.log, b.cfg); err != nil {
		return err
	}
	if err := b.restoreConfigs(); err != nil {
		return err
	}
	b.catalog = newCatalog(b.log, ofTopics(counting(*b.dynamic.sets.Load())))
	b.groups = newGroups(b)
	b.txns = newTransactions(b)
	for key, value := range b.log.Records(kindCluster) {
		switch key {
		case keyClusterID:
			b.clusterID = string(value)
		case keyProducerIDs:
			if err := b.txns.ids.restore(value); err != nil {
				return err
			}
		}
	}
	if b.clusterID == "" {
		b.clusterID = idText(newID())
		f := newFuture()
		b.log.Submit(log.Write{Puts: []log.Put{{Kind: kindCluster, Key: keyClusterID, Value: []byte(b.clusterID)}}}, log.WaitSync, f.set)
		if <-f.done; f.err != nil {
			return fmt.Errorf("broker: %w", f.err)
		}
	}
	for name, value := range b.log.Records(kindTopic) {
		// The log's memory is its own; a key is not.
		if err := b.catalog.restore(strings.Clone(name), value); err != nil {
			return err
		}
	}
	if err := b.catalog.clear(); err != nil {
		return fmt.Errorf("broker: %w", err)
	}
	if err := b.groups.restore(now); err != nil {
		return err
	}
	for id, value := range b.log.Records(kindTransact) {
		if err := b.txns.restore(strings.Clone(id), value); err != nil {
			return err
		}
	}
	if b.log.Recovery().MayHaveLost {
		b.txns.fenceAll(now)
	}
	b.every(offsetsCheck, b.groups.expireOffsets)
	b.every(time.Hour, b.txns.forgetUnused)
	return nil
}

// every does something again and again.
func (b *Broker) every(d time.Duration, do func(now time.Time)) {
	var a *alarm
	a = newAlarm(func(now time.Time) {
		do(now)
		b.alarms.set(a, now.Add(d))
	})
	b.alarms.set(a, b.cfg.Now().Add(d))
}

// start serves a connection, unless the broker is closed or its address has too many. l is nil within the process.
func (b *Broker) start(nc net.Conn, l *listener) bool {
	b.serving.Lock()
	defer b.serving.Unlock()
	if b.over {
		return false
	}
	if l == nil {
		b.running.Go(func() { b.serve(nc, nil) })
		return true
	}
	return b.seat(nc, l)
}

// Addr returns the address of the first listener, "" for none.
func (b *Broker) Addr() string {
	if len(b.listeners) == 0 {
		return ""
	}
	return b.listeners[0].listening.Addr().String()
}

// Addrs returns the addresses that the broker listens on, in the order of Config.Listeners.
func (b *Broker) Addrs() []string {
	var out []string
	for _, l := range b.listeners {
		out = append(out, l.listening.Addr().String())
	}
	return out
}

func (b *Broker) closeListeners() {
	for _, l := range b.listeners {
		l.listening.Close()
	}
}

// Dial connects to the broker within the process, whatever the address. It has the form of kgo.Dialer.
func (b *Broker) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	client, server := pipe.New()
	if !b.start(server, nil) {
		return nil, ErrClosed
	}
	return client, nil
}

// Close stops serving, waits for all that runs and closes the log. It may be called more than once.
func (b *Broker) Close() error {
	b.closed.Do(func() {
		b.serving.Lock()
		b.over = true
		b.serving.Unlock()
		b.cancel()
		b.closeListeners()
		b.running.Wait()
		b.err = b.log.Close()
	})
	return b.err
}

// Wait returns when the broker has been closed, with what Close returns.
func (b *Broker) Wait() error {
	<-b.ctx.Done()
	return b.Close()
}
