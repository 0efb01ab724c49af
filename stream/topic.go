package stream

import (
	"fmt"
	"maps"
	"time"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/topology"
	"github.com/moldau/moldau/window"
)

// topicRoot is a handle's identity: copies of a handle share it. The functions that make one are not inlined: the compiler
// would copy them into the initialisation of a package variable and forget the author's line.
type topicRoot struct{ at string }

// Topic is a handle of a topic that the application reads or writes and that belongs to the outside: a name, and how keys
// and values are written. It is read-only; its settings return copies.
type Topic[K, V any] struct {
	root       *topicRoot
	name       string
	key        serde.Serde[K]
	value      serde.Serde[V]
	partitions int32
	reset      topology.Reset
	idle       int64
	config     map[string]string
	tail       int // bytes at the end of an encoded key that take no part in partitioning
	by         func(k K, v V, n int32) int32
	multi      func(k K, v V, n int32) []int32
	timestamps func(r Record[K, V], last time.Time) time.Time
	pattern    bool // the name is one: it belongs to a TopicPattern
}

// NewTopic declares a topic. A record is written to the partition that Kafka's default partitioner gives its key.
//
//go:noinline
func NewTopic[K, V any](name string, key serde.Serde[K], value serde.Serde[V]) Topic[K, V] {
	return Topic[K, V]{root: &topicRoot{where()}, name: name, key: key, value: value}
}

// NewWindowedTopic declares a topic whose keys are those of time windows of the given size, in Kafka Streams'
// TimeWindowed format: the inner key, then the start. It is partitioned by the inner key.
//
//go:noinline
func NewWindowedTopic[K, V any](name string, key serde.Serde[K], value serde.Serde[V], size time.Duration) Topic[window.Key[K], V] {
	return Topic[window.Key[K], V]{root: &topicRoot{where()}, name: name, key: window.TimeKey(key, size), value: value, tail: 8}
}

// NewSessionTopic is NewWindowedTopic for keys of session windows: the inner key, then end and start.
//
//go:noinline
func NewSessionTopic[K, V any](name string, key serde.Serde[K], value serde.Serde[V]) Topic[window.Key[K], V] {
	return Topic[window.Key[K], V]{root: &topicRoot{where()}, name: name, key: window.SessionKey(key), value: value, tail: 16}
}

// Name is the topic's name.
func (t Topic[K, V]) Name() string { return t.name }

// Serdes are how keys and values are written.
func (t Topic[K, V]) Serdes() (serde.Serde[K], serde.Serde[V]) { return t.key, t.value }

// Partitions is how many the topic is created with where the application creates it: on the bundled broker.
// Default 0: as the broker is configured.
func (t Topic[K, V]) Partitions(n int32) Topic[K, V] { t.partitions = n; return t }

// Config sets one topic-level setting (such as "retention.ms") for where the application creates the topic.
func (t Topic[K, V]) Config(name, value string) Topic[K, V] {
	t.config = maps.Clone(t.config)
	if t.config == nil {
		t.config = map[string]string{}
	}
	t.config[name] = value
	return t
}

// FromEarliest, FromLatest and FromCommitted say where reading starts while the application has no committed offset for
// the topic; the default is the application's setting. FromCommitted refuses to start (auto.offset.reset).
func (t Topic[K, V]) FromEarliest() Topic[K, V]  { t.reset = topology.ResetEarliest; return t }
func (t Topic[K, V]) FromLatest() Topic[K, V]    { t.reset = topology.ResetLatest; return t }
func (t Topic[K, V]) FromCommitted() Topic[K, V] { t.reset = topology.ResetNone; return t }

// IdleAfter has stream time go on while nothing comes: once a task that reads this topic has had no record for d from any of its inputs, and
// the cluster has no more, its stream time follows the wall clock, d behind it, as far as something waits for that: windows and
// sessions with OnClose, suppression, joins whose partner may still come, records that wait for a table, timers of stream time. Without
// it, as in Kafka Streams, they wait for the next record. Of several inputs of a task the longest d counts.
//
// It is a decision about late records: one whose time is more than d behind the wall clock when it comes may find its window closed.
// How far stream time has come is committed along with the results, so a restart takes nothing back. Behind a repartition topic say a
// longer d on its handle: what the tasks before it give on at last is that late. 0: never.
func (t Topic[K, V]) IdleAfter(d time.Duration) Topic[K, V] { t.idle = d.Milliseconds(); return t }

// PartitionBy chooses the partition, 0 to n-1, of records written through this handle. A negative result drops the record.
// Null keys and values are zero. Nil: Kafka's default partitioner.
func (t Topic[K, V]) PartitionBy(f func(k K, v V, n int32) int32) Topic[K, V] { t.by = f; return t }

// PartitionsBy chooses any number of the partitions 0 to n-1 for records written through this handle; a record goes to each of
// them, and to none where there are none (StreamPartitioner.partitions, KIP-837). Nil: to one.
func (t Topic[K, V]) PartitionsBy(f func(k K, v V, n int32) []int32) Topic[K, V] {
	t.multi = f
	return t
}

// Timestamps takes the time of records read from elsewhere than Kafka's timestamp, which r.Time is. last is the greatest
// time so far of that partition, before the epoch if there is none. A result before the epoch drops the record (TimestampExtractor). Nil: Kafka's.
func (t Topic[K, V]) Timestamps(f func(r Record[K, V], last time.Time) time.Time) Topic[K, V] {
	t.timestamps = f
	return t
}

// Named is the same topic under another name, for sinks that choose per record.
func (t Topic[K, V]) Named(name string) Topic[K, V] { t.name = name; return t }

// spec is the handle as the graph sees it.
func (t Topic[K, V]) spec() topology.Topic {
	kind := topology.External
	if t.pattern {
		kind = topology.Pattern
	}
	return topology.Topic{Root: t.root, Name: t.name, Kind: kind, Partitions: t.partitions, Config: t.config, Reset: t.reset, IdleAfter: t.idle, At: t.root.at}
}

// Repartition is a handle of an internal topic, <app>-<name>-repartition, through which records get to the task of their
// new key. It is a type of its own: a KTable's GroupBy writes old and new values into it, so nobody but the operator
// that it is given to may read it. It is read-only; its settings return copies.
type Repartition[K, V any] struct {
	root       *topicRoot
	name       string
	key        serde.Serde[K]
	value      serde.Serde[V]
	partitions int32
	idle       int64
	by         func(k K, v V, n int32) int32
	multi      func(k K, v V, n int32) []int32
}

// NewRepartition declares a repartition topic.
//
//go:noinline
func NewRepartition[K, V any](name string, key serde.Serde[K], value serde.Serde[V]) Repartition[K, V] {
	return Repartition[K, V]{root: &topicRoot{where()}, name: name, key: key, value: value}
}

// Partitions fixes their number. Default 0: as many as the largest topic of whoever writes it, or as co-partitioning demands.
func (t Repartition[K, V]) Partitions(n int32) Repartition[K, V] { t.partitions = n; return t }

// PartitionBy chooses the partition, 0 to n-1. A negative result drops the record. Nil: Kafka's default partitioner.
func (t Repartition[K, V]) PartitionBy(f func(k K, v V, n int32) int32) Repartition[K, V] {
	t.by = f
	return t
}

// PartitionsBy chooses any number of the partitions 0 to n-1: a record goes to the tasks of all of them, and to none where there are
// none (Repartitioned.withStreamPartitioner, KIP-837). Nil: to one.
func (t Repartition[K, V]) PartitionsBy(f func(k K, v V, n int32) []int32) Repartition[K, V] {
	t.multi = f
	return t
}

// IdleAfter is Topic.IdleAfter.
func (t Repartition[K, V]) IdleAfter(d time.Duration) Repartition[K, V] {
	t.idle = d.Milliseconds()
	return t
}

func (t Repartition[K, V]) spec() topology.Topic {
	return topology.Topic{Root: t.root, Name: t.name, Kind: topology.Repartition, Partitions: t.partitions, IdleAfter: t.idle, At: t.root.at}
}

// feed makes the function that decodes a topic's records.
func feed[K, V any](node int, key serde.Serde[K], value serde.Serde[V]) func(any) flow.Source {
	return func(f any) flow.Source {
		down := f.(fn[K, V])
		key, value := decoder(key), decoder(value)
		return func(c *flow.Ctx, kb, vb []byte) {
			c.KeyNull, c.Null = kb == nil, vb == nil
			k, v, err := decode(key, value, kb, vb)
			if err != nil {
				c.Fail(node, err)
				return
			}
			down(c, k, v)
		}
	}
}

// decode leaves zero what is null.
func decode[K, V any](key func([]byte) (K, error), value func([]byte) (V, error), kb, vb []byte) (k K, v V, err error) {
	if kb != nil {
		if k, err = key(kb); err != nil {
			return k, v, &flow.DecodeError{Part: "key", Err: err}
		}
	}
	if vb != nil {
		if v, err = value(vb); err != nil {
			return k, v, &flow.DecodeError{Part: "value", Err: err}
		}
	}
	return k, v, nil
}

// extract makes the function that reads a record's time.
func (t Topic[K, V]) extract() func(*flow.Ctx, []byte, []byte, int64) (int64, error) {
	if t.timestamps == nil {
		return nil
	}
	return func(c *flow.Ctx, kb, vb []byte, last int64) (int64, error) {
		k, v, err := decode(t.key.Decode, t.value.Decode, kb, vb)
		if err != nil {
			return 0, err
		}
		r := Record[K, V]{Key: k, Value: v, KeyNull: kb == nil, Null: vb == nil, Time: utc(c.Time), Headers: c.Headers}
		return t.timestamps(r, utc(last)).UnixMilli(), nil
	}
}

// Encode gives a record's bytes as a sink would write them, and its partition out of n; -1: the null key has none.
// For tests and loaders; topologies use To.
func Encode[K, V any](t Topic[K, V], r Record[K, V], n int32) (to int32, key, value []byte, err error) {
	to = -1
	if !r.KeyNull && !nullness[K]().of(r.Key) {
		if key, err = t.key.Encode([]byte{}, r.Key); err != nil {
			return 0, nil, nil, fmt.Errorf("encoding the key for topic %s: %w", t.name, err)
		}
		to = flow.Partition(key[:len(key)-t.tail], n)
	}
	if !r.Null && !nullness[V]().of(r.Value) {
		if value, err = t.value.Encode([]byte{}, r.Value); err != nil {
			return 0, nil, nil, fmt.Errorf("encoding the value for topic %s: %w", t.name, err)
		}
	}
	if t.by != nil {
		to = t.by(r.Key, r.Value, n)
	}
	return to, key, value, nil
}

// Decode reads a record of the topic. Time and headers are up to the caller.
func Decode[K, V any](t Topic[K, V], key, value []byte) (Record[K, V], error) {
	k, v, err := decode(t.key.Decode, t.value.Decode, key, value)
	return Record[K, V]{Key: k, Value: v, KeyNull: key == nil, Null: value == nil}, err
}
