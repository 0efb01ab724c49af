package moldau

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/moldau/moldau/internal/broker"
	"github.com/moldau/moldau/internal/broker/log"
	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/task"
	"github.com/moldau/moldau/internal/worker"
	"github.com/moldau/moldau/topology"
)

// Guarantee is what becomes of a record's effects when something fails.
type Guarantee int

const (
	// ExactlyOnce: the effects of a record on stores, changelogs, outputs and committed positions become visible together
	// and once, to readers that read committed records only.
	ExactlyOnce Guarantee = iota
	// AtLeastOnce does without transactions: after a crash a record's outputs may appear again, and its effects on state
	// may be counted again.
	AtLeastOnce
)

func (g Guarantee) String() string {
	if g == AtLeastOnce {
		return "at-least-once"
	}
	return "exactly-once"
}

// Reset says where reading a source topic starts while there is no committed position for it and its handle does not say.
type Reset = topology.Reset

// Values of Config.Reset (auto.offset.reset). The zero value is Earliest.
const (
	Earliest = topology.ResetEarliest
	Latest   = topology.ResetLatest
	// Committed refuses to start without a committed position.
	Committed = topology.ResetNone
)

// RecordError is a record, a punctuation or a flush that failed, and where; errors.As finds it in what Run returns.
//
//	type RecordError struct {
//		Task      struct { Sub int; Partition int32 } // prints as in "0_3"
//		Kind      ErrorKind // which policy it is up to
//		Doing     string    // "processing", "calling", "punctuating", "advancing", "flushing", "writing" or "starting"
//		Topic     string    // that the record came from; "" where there is none
//		Partition int32     // of the task
//		Offset    int64     // -1 where there is no record
//		Time      int64     // of the record or timer, ms
//		Node      string    // the operator, as Topology.Describe names it
//		At        string    // its file:line
//		Undo      bool      // the epoch is computed again, without the record or with it once more
//		Err       error     // the cause; Unwrap gives it
//	}
type RecordError = task.Error

// ErrorKind says which policy a RecordError is up to: Errors.Decoding, Processing or Production.
type ErrorKind = task.ErrorKind

// Values of RecordError.Kind.
const (
	Decoding   = task.Decoding
	Processing = task.Processing
	Production = task.Production
)

// Errors says what becomes of records that fail. The zero value stops the application at the first. Validate reports every mistake at
// once; Topics lists the dead-letter topics.
//
//	type Errors struct {
//		// Decoding is for records that a serde cannot read (deserialization.exception.handler).
//		Decoding ErrorPolicy
//		// Processing is for records on which a function fails or panics, and for timers (processing.exception.handler).
//		Processing ErrorPolicy
//		// Production is for records that cannot be written to a topic of a sink or to a repartition topic
//		// (production.exception.handler): they cannot be encoded, are too large, have no topic; or the broker refuses them, for
//		// their size, their time, a missing key, or a rule of the cluster's (MESSAGE_TOO_LARGE, RECORD_LIST_TOO_LARGE,
//		// INVALID_TIMESTAMP, INVALID_RECORD, POLICY_VIOLATION). Of a batch that is refused the records at fault are found, and the
//		// others written. A changelog or dead-letter topic that refuses a record, a topic that is deleted, and one that may not be
//		// written stop the application.
//		Production ErrorPolicy
//		// Except, if not nil, may choose another policy for one error, by its source topic, operator, sink or cause; p is the
//		// one of its kind. It is called on the task's goroutine and must not block.
//		Except func(e *RecordError, p ErrorPolicy) ErrorPolicy
//		// DeadLetters are the dead-letter topics that nothing but Except names: like the others they must exist when the
//		// application starts, or are created on the bundled broker.
//		DeadLetters []string
//	}
type Errors = task.Errors

// ErrorPolicy is what becomes of one kind of error: it is tried again, then Action follows.
//
//	type ErrorPolicy struct {
//		// Action is Fail, Skip or Continue.
//		Action Action
//		// DeadLetter is a topic to which the record is written as it was read, key, value and headers, and with further headers
//		// __streams.errors.exception, .message, .stacktrace, .topic, .partition and .offset
//		// (errors.dead.letter.queue.topic.name, KIP-1034); in the transaction that leaves it out. For what is no record's alone
//		// key and value are null. The topic must exist on a cluster. Not with Fail. "": none.
//		DeadLetter string
//		// Retries is how often a record is tried again before Action; its task waits with it. Timers and results emitted at the
//		// commit are not. A call of MapAsync is made again alone, whatever it comes from, and its task goes on meanwhile.
//		Retries int
//		// Backoff is the time before the first retry; it doubles with each, up to MaxBackoff. 0: 100 ms, and 10 s.
//		Backoff, MaxBackoff time.Duration
//	}
type ErrorPolicy = task.ErrorPolicy

// Action is what an error policy does in the end.
type Action = task.Action

// Values of ErrorPolicy.Action.
const (
	// Fail stops the application. What came before the record's epoch is committed, the rest is done again by the next run.
	Fail = task.Fail
	// Skip leaves the record out: nothing that it did remains. If it has written to a store, or the broker has refused a result of it,
	// its epoch is undone and computed again without it; without transactions, what it had written to topics stays. Of a timer or
	// of results emitted at the commit, which are no record's alone, what was done before the failure remains; so it does where the broker
	// refuses what a window, a join or a suppression had held back.
	Skip = task.Skip
	// Continue leaves out what the operator that failed would have given on, or, of a sink, the one record that cannot be
	// written. What the record did elsewhere stands: results of other branches, and writes to stores. It is what Kafka Streams'
	// LogAndContinue handlers do. A function that panics is skipped.
	Continue = task.Continue
)

// PanicError is what a RecordError wraps if a user function panicked.
//
//	type PanicError struct {
//		Value any    // that it panicked with; Unwrap gives it if it is an error
//		Stack []byte // of the goroutine where it did
//	}
type PanicError = flow.Panic

// Response is what to do about an error that no policy has dealt with.
type Response = worker.Response

const (
	// StopClient stops this process: Run returns the error (SHUTDOWN_CLIENT).
	StopClient = worker.StopClient
	// ReplaceWorker undoes what is not committed and opens the worker's tasks anew, up to five times in ten minutes. It
	// helps against what passes by itself; a record that always fails needs an error policy. An error that is no worker's stops
	// the process (REPLACE_THREAD).
	ReplaceWorker = worker.ReplaceWorker
	// StopApplication stops this process and, within a few seconds, all others of the application; their Run returns
	// ErrStopApplication (SHUTDOWN_APPLICATION).
	StopApplication = worker.StopApplication
)

// Event is something that happened to the application; see Config.Listener. Which fields are set depends on its kind.
//
//	type Event struct {
//		Kind      EventKind
//		State     string // as App.State says it
//		Task      string // as in "0_3"
//		Store     string
//		Topic     string // the store's changelog, as are the next three
//		Partition int32
//		From, To  int64 // offsets that the restore begins at and goes up to
//		At        int64 // where it is
//		Records   int64 // how many it has read
//		Worker    int   // counted from 0
//		Reason    string
//	}
type Event = worker.Event

// EventKind says what an Event is about, and which of its fields are set.
type EventKind = worker.EventKind

// Values of Event.Kind, and the fields that are set.
const (
	StateChanged    = worker.StateChanged    // State
	TaskAssigned    = worker.TaskAssigned    // Task
	TaskRunning     = worker.TaskRunning     // Task
	TaskReleased    = worker.TaskReleased    // Task
	RestoreStarted  = worker.RestoreStarted  // Task, Store, Topic, Partition, From, To
	RestoreProgress = worker.RestoreProgress // the same, At, Records
	RestoreEnded    = worker.RestoreEnded    // the same
	StoreRebuilt    = worker.StoreRebuilt    // Task, Store, Reason: what was on disk is not used any more
	EpochUndone     = worker.EpochUndone     // Worker, Reason
)

// Durability says what an acknowledged write to the bundled broker survives.
type Durability = log.Durability

// Values of BrokerConfig.Durability.
const (
	// SyncEach, the default: every write is on disk before it is acknowledged. It survives power loss.
	SyncEach = log.Sync
	// SyncInterval syncs once a second. A crash of the process loses nothing, one of the machine up to a second.
	SyncInterval = log.Interval
	// SyncNever leaves it to the operating system.
	SyncNever = log.OS
)

// Config configures an App. The zero value is good: the bundled broker, exactly once. Kafka Streams' names are in parentheses.
type Config struct {
	// Brokers are addresses of a Kafka cluster to start from, host:port (bootstrap.servers). None: the bundled broker,
	// in process, with its data under StateDir.
	Brokers []string
	// Kafka are further options of the client: TLS (kgo.DialTLSConfig), SASL (kgo.SASL), limits.
	Kafka []kgo.Opt

	// Listen is the address at which the bundled broker is reached by other clients, such as "127.0.0.1:9092". Port 0
	// takes a free one, see App.BrokerAddr. "": by nobody but this process.
	Listen string
	// Broker holds more settings of the bundled broker.
	Broker BrokerConfig

	// ReplicationFactor is that of changelog and repartition topics (replication.factor); 0: the cluster's default.
	ReplicationFactor int
	// TopicConfig holds extra settings of changelog and repartition topics (topic.*), for when they are created.
	TopicConfig map[string]string

	// AcceptTopology starts an application whose stores and internal topics have changed in a way that is not safe: what the
	// last version wrote may not be readable, or not be read. Without it such a start is refused with ErrTopology.
	AcceptTopology bool

	// Guarantee is ExactlyOnce unless set otherwise (processing.guarantee).
	Guarantee Guarantee
	// CommitInterval is the time between commits (commit.interval.ms); 0: 100 ms.
	CommitInterval time.Duration
	// TransactionTimeout is after how long the cluster gives up on the transaction of a process that it does not hear of
	// (transaction.timeout.ms); 0: 10 s.
	TransactionTimeout time.Duration
	// SessionTimeout is after how long without a heartbeat the group gives a process's partitions away
	// (session.timeout.ms); 0: 10 s.
	SessionTimeout time.Duration

	// Workers is how many goroutines step tasks (num.stream.threads); 0: GOMAXPROCS.
	Workers int
	// Memory is the budget, in bytes, for all that tasks hold: tables, input that waits, output on its way. State that
	// is larger lies on disk. 0: half of GOMEMLIMIT if that is set, else 1 GiB.
	Memory int64
	// StateDir holds the process's identity, its state and the bundled broker's data (state.dir); it must be on a local
	// disk and outlive the process. "": moldau/<application> under the user's cache directory.
	StateDir string

	// Reset is where reading starts without a committed position (auto.offset.reset); a topic's handle may say otherwise.
	Reset Reset
	// MaxTaskIdle is how long a task with several inputs waits for one that is empty, so that records come in the order of
	// time (max.task.idle.ms). 0: only for what the broker has; negative: not at all.
	MaxTaskIdle time.Duration
	// Errors says what becomes of records that cannot be read, processed or written (*.exception.handler). The zero value
	// stops the application.
	Errors Errors

	// Uncaught decides about errors that stop a worker or the process: what Errors said Fail to, and what is wrong with the cluster or
	// the disk. It is called where that happens and must not block. nil: StopClient (StreamsUncaughtExceptionHandler).
	Uncaught func(error) Response

	// Listener is told what happens: states, tasks, restores. It is called where it happens and must not block.
	Listener func(Event)
	// HTTP is an address at which the App serves Handler, such as "127.0.0.1:8080"; "": nowhere.
	HTTP string
	// Advertise is where other processes of the application reach this one. It is told them through the group, and
	// NotHere errors carry it. "": nothing is told (application.server).
	Advertise string
	// StopTimeout bounds a clean stop; what is not committed by then is done again by the next run. Run then returns
	// ErrStopTimeout, soon and in any case: a function of yours that does not come back is named in the error and left
	// behind with its goroutine, and the state directory stays locked until it returns. 0: 3 s.
	StopTimeout time.Duration
	// PurgeInterval is the time between deletions of what has been read of repartition topics
	// (repartition.purge.interval.ms); 0: 30 s.
	PurgeInterval time.Duration
	// MetadataMaxAge is how long a topic that a TopicPattern matches may go unnoticed (metadata.max.age.ms); 0: 5 min.
	MetadataMaxAge time.Duration
	// Logger takes what operators should know; nil: slog.Default().
	Logger *slog.Logger

	fs vfs.FS // of everything under StateDir; nil: the operating system's
}

// BrokerConfig holds settings of the bundled broker.
type BrokerConfig struct {
	// Advertise is the host:port that clients are told to connect to (advertised.listeners); "": Listen.
	Advertise string
	// OpenToNetwork allows Listen to be an address that other machines reach. There is no authentication: whoever reaches it
	// may read and delete everything.
	OpenToNetwork bool
	// Durability is what an acknowledged write survives; the zero value is SyncEach.
	Durability Durability
	// DefaultPartitions is the number of partitions of topics whose handle does not say (num.partitions); 0: 1.
	DefaultPartitions int32
	// AllowTruncate accepts the loss of what lies behind a corrupt place of the log instead of refusing to start.
	AllowTruncate bool
}

// Validate reports every mistake at once.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for _, b := range c.Brokers {
		if host, port, err := net.SplitHostPort(b); err != nil || host == "" || port == "" {
			bad("Brokers: %q is no host:port", b)
		}
	}
	if len(c.Brokers) > 0 {
		if c.Listen != "" {
			bad("Listen is %q, but Brokers names a cluster: then the bundled broker does not run; leave one of them empty", c.Listen)
		}
		if c.Broker != (BrokerConfig{}) {
			bad("Broker has settings, but Brokers names a cluster: then the bundled broker does not run")
		}
	} else {
		if c.Listen == "" && c.Broker.Advertise != "" {
			bad("Broker.Advertise is %q but Listen is empty; set Listen too", c.Broker.Advertise)
		}
		if len(c.Kafka) > 0 {
			bad("Kafka has options, but Brokers is empty: they are for the connection to a cluster")
		}
		if c.ReplicationFactor > 1 {
			bad("ReplicationFactor is %d, but the bundled broker is a single node; name a cluster in Brokers", c.ReplicationFactor)
		}
		b := c.brokerConfig("x")
		if err := b.Validate(); err != nil {
			ours := strings.NewReplacer("broker: ", "", "Listeners: Advertise", "Broker.Advertise:", "Listeners: ", "Listen: ", "set Advertise", "set Broker.Advertise",
				"give it both, listen on 127.0.0.1, or set OpenToNetwork (-insecure-open-to-network)", "listen on 127.0.0.1, have a server with both (moldau broker), or set Broker.OpenToNetwork")
			for line := range strings.SplitSeq(err.Error(), "\n") {
				bad("%s", ours.Replace(line))
			}
		}
	}
	if c.ReplicationFactor < 0 || c.ReplicationFactor > 1<<15-1 {
		bad("ReplicationFactor is %d; it must be between 1 and the number of brokers, or 0 for the cluster's default", c.ReplicationFactor)
	}
	if c.Guarantee != ExactlyOnce && c.Guarantee != AtLeastOnce {
		bad("unknown Guarantee %d; use ExactlyOnce or AtLeastOnce", int(c.Guarantee))
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"CommitInterval", c.CommitInterval}, {"TransactionTimeout", c.TransactionTimeout}, {"SessionTimeout", c.SessionTimeout},
		{"StopTimeout", c.StopTimeout}, {"PurgeInterval", c.PurgeInterval}, {"MetadataMaxAge", c.MetadataMaxAge},
	} {
		if d.value < 0 {
			bad("%s is negative (%v)", d.name, d.value)
		}
		if d.value > 0 && d.value < time.Millisecond {
			bad("%s is %v; less than a millisecond is not possible", d.name, d.value)
		}
	}
	if d := c.withDefaults(); c.Guarantee == ExactlyOnce && d.CommitInterval*2 > d.TransactionTimeout {
		bad("CommitInterval %v is more than half of TransactionTimeout %v: transactions would be given up before they are committed; shorten the one or lengthen the other", d.CommitInterval, d.TransactionTimeout)
	}
	if c.Workers < 0 {
		bad("Workers is negative (%d)", c.Workers)
	}
	if c.Memory < 0 || c.Memory > 0 && c.Memory < minMemory {
		bad("Memory is %d bytes; at least %d (1 MiB) are needed, 0 takes the default", c.Memory, minMemory)
	}
	if !slices.Contains([]Reset{topology.ResetDefault, Earliest, Latest, Committed}, c.Reset) {
		bad("unknown Reset %q; use Earliest, Latest or Committed", c.Reset)
	}
	if err := c.Errors.Validate(); err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			bad("Errors.%s", line)
		}
	}
	if c.HTTP != "" {
		if _, _, err := net.SplitHostPort(c.HTTP); err != nil {
			bad("HTTP: %q is no host:port", c.HTTP)
		}
	}
	return errors.Join(errs...)
}

const minMemory = 1 << 20

func (c Config) withDefaults() Config {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&c.CommitInterval, 100*time.Millisecond)
	def(&c.TransactionTimeout, 10*time.Second)
	def(&c.StopTimeout, 3*time.Second)
	def(&c.PurgeInterval, 30*time.Second)
	def(&c.MetadataMaxAge, 5*time.Minute)
	if c.Workers == 0 {
		c.Workers = runtime.GOMAXPROCS(0)
	}
	if c.Memory == 0 {
		c.Memory = 1 << 30
		if limit := debug.SetMemoryLimit(-1); limit < 1<<62 {
			c.Memory = max(limit/2, minMemory)
		}
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.fs == nil {
		c.fs = vfs.Default
	}
	return c
}

// brokerConfig is the bundled broker's.
func (c Config) brokerConfig(dir string) broker.Config {
	b := broker.Config{Dir: dir, FS: c.fs, OpenToNetwork: c.Broker.OpenToNetwork, Durability: c.Broker.Durability,
		DefaultPartitions: c.Broker.DefaultPartitions, AllowTruncate: c.Broker.AllowTruncate, Logger: c.Logger}
	if c.Listen != "" {
		b.Listeners = []broker.Listener{{Address: c.Listen, Advertise: c.Broker.Advertise}}
	}
	return b
}

// stateDir is where an application's state lies unless it is said.
func stateDir(app string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("there is no cache directory for the state (%w); set Config.StateDir", err)
	}
	return filepath.Join(cache, "moldau", app), nil
}
