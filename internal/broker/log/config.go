package log

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Durability says what an acknowledged write survives.
type Durability int

const (
	// Sync acknowledges after fdatasync: what was acknowledged survives power loss. The default.
	Sync Durability = iota
	// Interval acknowledges once the operating system has the write and syncs every Options.Interval: kill -9 loses
	// nothing, power loss the last interval.
	Interval
	// OS acknowledges once the operating system has the write and syncs when it checkpoints: kill -9 loses nothing,
	// power loss anything not checkpointed. What Apache Kafka does on one node.
	OS
)

func (d Durability) String() string {
	switch d {
	case Sync:
		return "sync"
	case Interval:
		return "interval"
	case OS:
		return "os"
	}
	return fmt.Sprintf("Durability(%d)", int(d))
}

// Options configures a Log. Only Dir is required.
type Options struct {
	// FS holds the files; nil is the operating system's.
	FS vfs.FS
	// Dir is the directory of the log; it is created if missing and locked while the log is open.
	Dir string
	// Durability is Sync unless said otherwise.
	Durability Durability
	// Interval is the time between syncs under Durability Interval; default 1 s.
	Interval time.Duration
	// SegmentBytes is the size of a segment where a partition's Config does not say; default 1 GiB (segment.bytes).
	SegmentBytes int64
	// WALBytes is the size of a file of the write-ahead log; default 64 MiB. After heavy writing the log keeps about ten of
	// them, to use them again.
	WALBytes int64
	// CacheBytes bounds the recently written batches kept in memory, so that readers at the tail touch no disk;
	// default 32 MiB.
	CacheBytes int64
	// LargeBatch is what a batch has that is written without a copy, and once under Durability OS; default 32 KiB.
	LargeBatch int
	// ProducerExpiry is how long the state of a producer that writes nothing is kept; default one day
	// (producer.id.expiration.ms).
	ProducerExpiry time.Duration
	// BootID names the running boot of the machine: where it is that of the last write, an unclean stop has lost
	// nothing that was written. Default: the kernel's, for the operating system's FS; unknown otherwise.
	BootID string
	// AllowTruncate accepts the loss of everything behind a corrupt frame of the write-ahead log, instead of refusing
	// to open. It is the last way out after a disk has failed.
	AllowTruncate bool
	// Now is the wall clock; default time.Now.
	Now func() time.Time
	// Logger takes what operators should know; default slog.Default().
	Logger *slog.Logger

	openSegments int // how many segments' files are open at most; few make crash tests meet closed ones
}

func (o Options) withDefaults() Options {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Interval == 0 {
		o.Interval = time.Second
	}
	if o.SegmentBytes == 0 {
		o.SegmentBytes = 1 << 30
	}
	if o.WALBytes == 0 {
		o.WALBytes = 64 << 20
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = 32 << 20
	}
	if o.ProducerExpiry == 0 {
		o.ProducerExpiry = 24 * time.Hour
	}
	if o.openSegments == 0 {
		o.openSegments = maxOpenSegments
	}
	if o.LargeBatch == 0 {
		o.LargeBatch = largeSize
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o
}

// Validate reports every mistake at once.
func (o Options) Validate() error {
	var errs []error
	if o.Dir == "" {
		errs = append(errs, errors.New("broker log: Dir is empty; name a directory"))
	}
	if o.Durability < Sync || o.Durability > OS {
		errs = append(errs, fmt.Errorf("broker log: unknown durability %d; use Sync, Interval or OS", int(o.Durability)))
	}
	for _, v := range []struct {
		name  string
		value int64
	}{
		{"Interval", int64(o.Interval)}, {"SegmentBytes", o.SegmentBytes}, {"WALBytes", o.WALBytes},
		{"CacheBytes", o.CacheBytes}, {"ProducerExpiry", int64(o.ProducerExpiry)},
	} {
		if v.value < 0 {
			errs = append(errs, fmt.Errorf("broker log: %s is negative (%d)", v.name, v.value))
		}
	}
	if o.WALBytes > math.MaxUint32 {
		errs = append(errs, fmt.Errorf("broker log: WALBytes is %d, more than 4 GiB", o.WALBytes))
	}
	return errors.Join(errs...)
}

// PartitionID names a partition for ever: topic ids are never used again.
type PartitionID struct {
	Topic     [16]byte
	Partition int32
}

// Config is what a topic says about its partitions. The zero value keeps everything for ever. Names in parentheses are
// Kafka's topic settings; times are milliseconds.
type Config struct {
	SegmentBytes int64 // segment.bytes; 0: Options.SegmentBytes
	SegmentMS    int64 // segment.ms, by the wall clock; 0: seven days

	Delete         bool  // cleanup.policy holds delete
	RetentionMS    int64 // retention.ms; -1: no limit. Counts only with Delete
	RetentionBytes int64 // retention.bytes; -1: no limit. Counts only with Delete

	Compact                bool    // cleanup.policy holds compact
	MinCompactionLagMS     int64   // min.compaction.lag.ms
	MaxCompactionLagMS     int64   // max.compaction.lag.ms; 0: no limit
	DeleteRetentionMS      int64   // delete.retention.ms
	MinCleanableDirtyRatio float64 // min.cleanable.dirty.ratio

	MaxMessageBytes int32 // max.message.bytes; 0: 1,048,588
	LogAppendTime   bool  // message.timestamp.type is LogAppendTime
	// Compression is what batches are compressed with (compression.type).
	Compression Compression
	// How far timestamps may be behind the broker's clock, and ahead of it; 0: no limit, negative: not at all.
	TimestampBeforeMaxMS int64 // message.timestamp.before.max.ms
	TimestampAfterMaxMS  int64 // message.timestamp.after.max.ms

	FileDeleteDelayMS int64 // file.delete.delay.ms: how long files nobody needs any more stay, at least
}

const (
	defaultMaxMessageBytes = 1048588
	defaultSegmentMS       = 7 * 24 * 60 * 60 * 1000
)

func (c Config) withDefaults(o *Options) *Config {
	if c.SegmentBytes <= 0 {
		c.SegmentBytes = o.SegmentBytes
	}
	if c.SegmentMS <= 0 {
		c.SegmentMS = defaultSegmentMS
	}
	if c.MaxMessageBytes <= 0 {
		c.MaxMessageBytes = defaultMaxMessageBytes
	}
	return &c
}

// Compression is how a topic's batches are compressed.
type Compression int8

// AsProduced leaves batches as their producer sent them.
const (
	AsProduced Compression = iota
	Uncompressed
	Gzip
	Snappy
	LZ4
	Zstd
)

func (c Compression) codec() int { return int(c) - 1 }
