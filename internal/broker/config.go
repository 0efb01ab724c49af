package broker

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/moldau/moldau/internal/broker/log"
	"github.com/moldau/moldau/internal/broker/wire"
)

// Config configures a Broker. Only Dir is required. Names in parentheses are Kafka's broker settings.
type Config struct {
	// Dir holds everything the broker keeps; it is created if missing and locked while the broker runs.
	Dir string
	// FS holds Dir; nil is the operating system's file system.
	FS vfs.FS
	// Listeners are the addresses that TCP clients connect to (listeners); none: only Dial leads to the broker.
	Listeners []Listener
	// OpenToNetwork allows listeners that other machines reach without TLS or without authentication.
	OpenToNetwork bool
	// Users are names and passwords for SASL PLAIN, and for SCRAM where the admin API has set none.
	Users map[string]string
	// OAuth says whose tokens SASL OAUTHBEARER believes; nil: nobody's.
	OAuth *OAuth
	// MaxReauth is how long a client may go on before it authenticates again (connections.max.reauth.ms); 0: for ever.
	MaxReauth time.Duration
	// ACLs enforces access control lists (authorizer.class.name); without, every client may do everything. Clients within the
	// process always may.
	ACLs bool
	// SuperUsers may do everything, written as User:NAME (super.users).
	SuperUsers []string
	// AllowIfNoACL allows what no rule is about (allow.everyone.if.no.acl.found).
	AllowIfNoACL bool
	// MaxConnections and MaxConnectionsPerIP bound the connections of listeners (max.connections,
	// max.connections.per.ip); default 10,000, and no bound per address. More of all wait, more of an address are refused. With
	// MaxConnectionsPerIP -1 only addresses with a bound of their own may connect.
	MaxConnections, MaxConnectionsPerIP int
	// MaxConnectionsPerIPOverrides are bounds of single addresses, as HOST:COUNT, with commas between
	// (max.connections.per.ip.overrides). A name stands for the address that it has when the broker starts.
	MaxConnectionsPerIPOverrides string
	// MaxConnectionCreationRate is how many connections listeners take in a second, on average over eleven
	// (max.connection.creation.rate); more wait. Default: no bound. That of an address is a quota, connection_creation_rate.
	MaxConnectionCreationRate int
	// MaxRequestBytes bounds the requests in memory that are not answered yet (queued.max.request.bytes); default 256 MiB, at
	// least one request of 100 MiB. One that is half read when it is spent may be read to its end.
	MaxRequestBytes int64
	// Durability says what an acknowledged write survives; default log.Sync, power loss.
	Durability log.Durability
	// SyncInterval is the time between syncs under log.Interval; default 1 s.
	SyncInterval time.Duration
	// DefaultPartitions is the number of partitions of topics created without saying (num.partitions); default 1.
	DefaultPartitions int32
	// NoAutoCreate refuses to create topics that a client merely names (auto.create.topics.enable=false).
	NoAutoCreate bool
	// InitialRebalanceDelay is how long a new group waits for more members (group.initial.rebalance.delay.ms,
	// group.streams.initial.rebalance.delay.ms); default 0: Kafka waits three seconds.
	InitialRebalanceDelay time.Duration
	// MaxTransactionTimeout is the longest timeout a producer may ask for (transaction.max.timeout.ms); default 15 minutes.
	MaxTransactionTimeout time.Duration
	// MinSessionTimeout and MaxSessionTimeout bound the session timeout of group members (group.min.session.timeout.ms,
	// group.max.session.timeout.ms); default 6 s, as in Kafka, and 30 minutes.
	MinSessionTimeout, MaxSessionTimeout time.Duration
	// ConsumerSessionTimeout and ConsumerHeartbeatInterval are those of members of the consumer protocol, KIP-848
	// (group.consumer.session.timeout.ms, group.consumer.heartbeat.interval.ms); default 45 s and 5 s.
	ConsumerSessionTimeout, ConsumerHeartbeatInterval time.Duration
	// StreamsSessionTimeout and StreamsHeartbeatInterval are those of members of the streams protocol, KIP-1071
	// (group.streams.session.timeout.ms, group.streams.heartbeat.interval.ms); default 45 s and 5 s.
	StreamsSessionTimeout, StreamsHeartbeatInterval time.Duration
	// OffsetsRetention is how long the offsets of a group without members are kept (offsets.retention.minutes); default 7 days.
	OffsetsRetention time.Duration
	// CacheBytes bounds the recently written batches kept in memory; default 32 MiB.
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

	walBytes   int64         // size of a file of the write-ahead log; small ones make crash tests fast
	largeBatch int           // what a batch has that is written without a copy; little makes crash tests meet them
	planted    func(*Broker) // breaks the broker before it serves: a bug that a checker must find
}

// Validate reports every mistake at once.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("broker: "+format, args...)) }
	if c.Dir == "" {
		bad("Dir is empty; name a directory for the data")
	}
	for _, l := range c.Listeners {
		l.check(c, bad)
	}
	if c.OAuth != nil && c.OAuth.Keys == "" {
		bad("OAuth has no Keys to check tokens with; name the URL or the file of the issuer's JSON Web Key Set")
	}
	for user, password := range c.Users {
		if user == "" || password == "" {
			bad("Users: %q has no name or no password", user)
		}
	}
	for _, u := range c.SuperUsers {
		if name, ok := strings.CutPrefix(u, "User:"); !ok || name == "" {
			bad("SuperUsers: %q is no principal; write it as User:NAME", u)
		}
	}
	if !c.ACLs && (len(c.SuperUsers) > 0 || c.AllowIfNoACL) {
		bad("SuperUsers and AllowIfNoACL mean nothing without ACLs; set ACLs too")
	}
	if c.MaxRequestBytes > 0 && c.MaxRequestBytes < wire.MaxProduceFrame {
		bad("MaxRequestBytes is %d; at least %d, the largest request, are needed", c.MaxRequestBytes, wire.MaxProduceFrame)
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
		{"StreamsSessionTimeout", int64(c.StreamsSessionTimeout)}, {"StreamsHeartbeatInterval", int64(c.StreamsHeartbeatInterval)},
		{"OffsetsRetention", int64(c.OffsetsRetention)}, {"CacheBytes", c.CacheBytes}, {"MaxReauth", int64(c.MaxReauth)},
		{"MaxConnections", int64(c.MaxConnections)},
		{"MaxConnectionCreationRate", int64(c.MaxConnectionCreationRate)}, {"MaxRequestBytes", c.MaxRequestBytes},
	} {
		if v.value < 0 {
			bad("%s is negative (%d)", v.name, v.value)
		}
	}
	overrides, err := parseOverrides(c.MaxConnectionsPerIPOverrides)
	if err != nil {
		bad("MaxConnectionsPerIPOverrides: %v", err)
	} else if c.MaxConnectionsPerIP < -1 || c.MaxConnectionsPerIP < 0 && len(overrides) == 0 {
		bad("MaxConnectionsPerIP is %d, and -1 at least if there are MaxConnectionsPerIPOverrides, else 0, which is no bound", c.MaxConnectionsPerIP)
	}
	if c.DefaultPartitions > maxPartitions {
		bad("DefaultPartitions is %d, at most %d are possible", c.DefaultPartitions, maxPartitions)
	}
	if d := c.withDefaults(); d.MinSessionTimeout > d.MaxSessionTimeout {
		bad("MinSessionTimeout %v is above MaxSessionTimeout %v", d.MinSessionTimeout, d.MaxSessionTimeout)
	}
	if d := c.withDefaults(); d.StreamsHeartbeatInterval >= d.StreamsSessionTimeout {
		bad("StreamsHeartbeatInterval %v is not below StreamsSessionTimeout %v", d.StreamsHeartbeatInterval, d.StreamsSessionTimeout)
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
	def(&c.StreamsSessionTimeout, 45*time.Second)
	def(&c.StreamsHeartbeatInterval, 5*time.Second)
	def(&c.OffsetsRetention, 7*24*time.Hour)
	if c.DefaultPartitions == 0 {
		c.DefaultPartitions = 1
	}
	if c.MaxConnections == 0 {
		c.MaxConnections = 10_000
	}
	if c.MaxRequestBytes == 0 {
		c.MaxRequestBytes = 256 << 20
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}
