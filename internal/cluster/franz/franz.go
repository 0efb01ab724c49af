// Package franz implements package cluster with franz-go, for Apache Kafka and everything that speaks its protocol.
//
// One process has one group client (membership only), one fetching client and one client per transactional id. They are
// apart because kgo's group consumer fetches committed offsets and starts to read on its own, while a task must first
// restore its state; and because fetching so goes on undisturbed while the group rebalances.
//
// It maps errors and hides versions of the protocol. It decides nothing: what to retry, undo or give up is commit's and
// worker's business.
package franz

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/moldau/moldau/internal/cluster"
)

// Config says where the cluster is.
type Config struct {
	// Brokers are addresses to start from, host:port (Kafka's bootstrap.servers).
	Brokers []string
	// ClientID appears in the brokers' logs and quotas; empty: moldau.
	ClientID string
	// Logger takes what the client has to say; nil: nothing is logged.
	Logger *slog.Logger
	// Options come after ours and win: TLS, SASL, dialers, limits.
	Options []kgo.Opt
}

// Cluster is a connection to a cluster; it implements cluster.Cluster.
type Cluster struct {
	cfg Config
	cl  *kgo.Client // for everything that is neither fetching nor producing
	log *logger     // of all clients; nil: nothing is logged

	limits sync.Map // how large batches of a topic may be, as far as it has been described: name to int32
}

var _ cluster.Cluster = (*Cluster)(nil)

// New prepares a cluster. Nothing is sent before it is used.
func New(cfg Config) (*Cluster, error) {
	if len(cfg.Brokers) == 0 {
		return nil, errors.New("kafka: no brokers given")
	}
	if cfg.ClientID == "" {
		cfg.ClientID = "moldau"
	}
	c := &Cluster{cfg: cfg}
	if cfg.Logger != nil {
		c.log = newLogger(cfg.Logger)
	}
	var err error
	if c.cl, err = c.client(); err != nil {
		return nil, err
	}
	return c, nil
}

// client makes a kgo client with what all of ours share.
func (c *Cluster) client(opts ...kgo.Opt) (*kgo.Client, error) {
	all := []kgo.Opt{
		kgo.SeedBrokers(c.cfg.Brokers...),
		kgo.ClientID(c.cfg.ClientID),
		kgo.DisableClientMetrics(),
		// How fast moved leaders, missing and recreated topics are noticed.
		kgo.MetadataMinAge(500 * time.Millisecond),
		// As many tries as fit into kgo's limit in time (45 s), in steps that do not sleep through a broker's return.
		kgo.RetryBackoffFn(backoff),
		kgo.RequestRetries(100),
	}
	if c.log != nil {
		all = append(all, kgo.WithLogger(c.log))
	}
	cl, err := kgo.NewClient(append(append(all, opts...), c.cfg.Options...)...)
	if err != nil {
		return nil, fmt.Errorf("kafka client: %w", err)
	}
	return cl, nil
}

// backoff doubles from 50 ms to 1 s, and spreads out clients that failed together.
func backoff(fails int) time.Duration {
	d := min(50*time.Millisecond<<min(max(fails-1, 0), 10), time.Second)
	return d*3/4 + rand.N(d/2)
}

// Admin returns the cluster's own client as cluster.Admin.
func (c *Cluster) Admin() cluster.Admin { return admin{c} }

// Ping returns nil once a broker answers.
func (c *Cluster) Ping(ctx context.Context) error {
	return wrap(c.cl.Ping(ctx), "kafka at %v", c.cfg.Brokers)
}

// Close lets go of the connections; what was opened from the cluster is closed by its owner.
func (c *Cluster) Close() { c.cl.Close() }
