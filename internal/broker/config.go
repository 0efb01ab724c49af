package broker

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/moldau/moldau/internal/broker/log"
)

// Config configures a Broker. Only Dir is required. Names in parentheses are Kafka's broker settings.
type Config struct {
	// Dir holds everything the broker keeps; it is created if missing and locked while the broker runs.
	Dir string
	// FS holds Dir; nil is the operating system's file system.
	FS vfs.FS
	// Listen is the TCP address to listen on; "" listens on none, port 0 picks a free one.
	Listen string
	// Advertise is the host:port that TCP clients are told to connect to (advertised.listeners). Default: the address
	// listened on. It is required where that is not an address a client could use, such as 0.0.0.0.
	Advertise string
	// Durability says what an acknowledged write survives; default log.Sync, power loss.
	Durability log.Durability
	// SyncInterval is the time between syncs under log.Interval; default 1 s.
	SyncInterval time.Duration
	// DefaultPartitions is the number of partitions of topics created without saying (num.partitions); default 1.
	DefaultPartitions int32
	// NoAutoCreate refuses to create topics that a client merely names (auto.create.topics.enable=false).
	NoAutoCreate bool
	// InitialRebalanceDelay is how long a new group waits for more members (group.initial.rebalance.delay.ms); default 0:
	// Kafka waits three seconds.
	InitialRebalanceDelay time.Duration
	// MaxTransactionTimeout is the longest timeout a producer may ask for (transaction.max.timeout.ms); default 15 minutes.
	MaxTransactionTimeout time.Duration
	// MinSessionTimeout and MaxSessionTimeout bound the session timeout of group members (group.min.session.timeout.ms,
	// group.max.session.timeout.ms); default 6 s, as in Kafka, and 30 minutes.
	MinSessionTimeout, MaxSessionTimeout time.Duration
	// ConsumerSessionTimeout and ConsumerHeartbeatInterval are those of members of the consumer protocol, KIP-848
	// (group.consumer.session.timeout.ms, group.consumer.heartbeat.interval.ms); default 45 s and 5 s.
	ConsumerSessionTimeout, ConsumerHeartbeatInterval time.Duration
	// OffsetsRetention is how long the offsets of a group without members are kept (offsets.retention.minutes); default 7 days.
	OffsetsRetention time.Duration
	// CacheBytes bounds the recently written batches kept in memory; default 64 MiB.
	CacheBytes int64
	// AllowTruncate accepts the loss of what lies behind a corrupt place of the log instead of refusing to start.
	AllowTruncate bool
	// BootID names the running boot of the machine, by which a start tells kill -9 from a power loss. Default: the
	// kernel's, for the operating system's FS; unknown otherwise, which counts as a power loss.
	BootID string
	// Now is the wall clock; default time.Now.
	Now func() time.Time
	// Logger takes what operators should know; default slog.Default().
	Logger *slog.Logger

	walBytes int64 // size of a file of the write-ahead log; small ones make crash tests fast
}

// Validate reports every mistake at once.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("broker: "+format, args...)) }
	if c.Dir == "" {
		bad("Dir is empty; name a directory for the data")
	}
	if c.Listen != "" {
		if host, _, err := net.SplitHostPort(c.Listen); err != nil {
			bad("Listen %q is no host:port: %v", c.Listen, err)
		} else if ip := net.ParseIP(host); c.Advertise == "" && (host == "" || ip != nil && ip.IsUnspecified()) {
			bad("Listen %q accepts connections on every address, so clients cannot be told which one to use; set Advertise to the host:port they reach this machine at, or listen on one address", c.Listen)
		}
	}
	if c.Advertise != "" {
		if c.Listen == "" {
			bad("Advertise is %q but Listen is empty; set Listen too", c.Advertise)
		}
		if host, port, err := splitHostPort(c.Advertise); err != nil || host == "" || port == 0 {
			bad("Advertise %q is no host:port that a client could connect to", c.Advertise)
		}
	}
	if c.Durability < log.Sync || c.Durability > log.OS {
		bad("unknown durability %d; use log.Sync, log.Interval or log.OS", int(c.Durability))
	}
	for _, v := range []struct {
		name  string
		value int64
	}{
		{"SyncInterval", int64(c.SyncInterval)}, {"DefaultPartitions", int64(c.DefaultPartitions)},
		{"InitialRebalanceDelay", int64(c.InitialRebalanceDelay)}, {"MaxTransactionTimeout", int64(c.MaxTransactionTimeout)},
		{"MinSessionTimeout", int64(c.MinSessionTimeout)}, {"MaxSessionTimeout", int64(c.MaxSessionTimeout)},
		{"ConsumerSessionTimeout", int64(c.ConsumerSessionTimeout)}, {"ConsumerHeartbeatInterval", int64(c.ConsumerHeartbeatInterval)},
		{"OffsetsRetention", int64(c.OffsetsRetention)}, {"CacheBytes", c.CacheBytes},
	} {
		if v.value < 0 {
			bad("%s is negative (%d)", v.name, v.value)
		}
	}
	if c.DefaultPartitions > maxPartitions {
		bad("DefaultPartitions is %d, at most %d are possible", c.DefaultPartitions, maxPartitions)
	}
	if d := c.withDefaults(); d.MinSessionTimeout > d.MaxSessionTimeout {
		bad("MinSessionTimeout %v is above MaxSessionTimeout %v", d.MinSessionTimeout, d.MaxSessionTimeout)
	}
	if d := c.withDefaults(); d.ConsumerHeartbeatInterval >= d.ConsumerSessionTimeout {
		bad("ConsumerHeartbeatInterval %v is not below ConsumerSessionTimeout %v", d.ConsumerHeartbeatInterval, d.ConsumerSessionTimeout)
	}
	return errors.Join(errs...)
}

func (c Config) withDefaults() Config {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&c.MaxTransactionTimeout, 15*time.Minute)
	def(&c.MinSessionTimeout, 6*time.Second)
	def(&c.MaxSessionTimeout, 30*time.Minute)
	def(&c.ConsumerSessionTimeout, 45*time.Second)
	def(&c.ConsumerHeartbeatInterval, 5*time.Second)
	def(&c.OffsetsRetention, 7*24*time.Hour)
	if c.DefaultPartitions == 0 {
		c.DefaultPartitions = 1
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}
