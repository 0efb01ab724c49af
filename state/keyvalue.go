package state

import (
	"errors"
	"iter"
	"time"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/table"
	"github.com/moldau/moldau/serde"
)

// KeyValue names a store of the last value of each key. Its changelog is a Kafka Streams timestamped key-value store's: raw
// key, raw value, the value's time as the record's time.
type KeyValue[K, V any] struct {
	spec *flow.StoreSpec
	keys serde.Serde[K]
	vals serde.Serde[V]
}

// NewKeyValue declares a store.
func NewKeyValue[K, V any](name string, k serde.Serde[K], v serde.Serde[V]) KeyValue[K, V] {
	h := KeyValue[K, V]{newSpec(flow.KeyValue, name), k, v}
	h.spec.New = func(env flow.StoreEnv) (flow.Store, error) { return table.NewKV(env, k, v) }
	written(h.spec, k, v)
	return h
}

// Spec is for the project's own packages.
func (h KeyValue[K, V]) Spec() *flow.StoreSpec { return h.spec }

// Keys is how keys are written.
func (h KeyValue[K, V]) Keys() serde.Serde[K] { return h.keys }

// Values is how values are written.
func (h KeyValue[K, V]) Values() serde.Serde[V] { return h.vals }

func (KeyValue[K, V]) table(K, V) {}

func (h KeyValue[K, V]) with(f func(*flow.StoreSpec)) KeyValue[K, V] {
	h.spec = with(h.spec, f)
	return h
}

// Ordered keeps an ordered index in memory, for a processor that ranges over keys often. Without it every range sorts the
// keys it covers.
func (h KeyValue[K, V]) Ordered() KeyValue[K, V] {
	return h.with(func(s *flow.StoreSpec) { s.Ordered = true })
}

// TTL lets values go by event time: one is found as long as the task's stream time is less than the value's time plus d, to the
// record, whatever the size of a commit, and the same after a restart. Then reads, ranges and queries do not find it, and an
// aggregate begins anew. That it goes is no update of the table that is kept here. It is removed, from memory and, as a
// deletion, from the changelog, some thousand values a commit; what lies on disk alone, once it is touched.
// The default is to keep values.
func (h KeyValue[K, V]) TTL(d time.Duration) KeyValue[K, V] {
	return h.with(func(s *flow.StoreSpec) { s.TTL = d.Milliseconds() })
}

// EveryUpdate has the table that is kept here give on every update at once, instead of the last one of each key at the
// commit. It is what Kafka Streams does without its record cache (statestore.cache.max.bytes = 0).
func (h KeyValue[K, V]) EveryUpdate() KeyValue[K, V] {
	return h.with(func(s *flow.StoreSpec) { s.EveryUpdate = true })
}

// Unlogged keeps no changelog: the state is lost when the task moves or restarts (withLoggingDisabled).
func (h KeyValue[K, V]) Unlogged() KeyValue[K, V] {
	return h.with(func(s *flow.StoreSpec) { s.Unlogged = true })
}

// ReuseSourceTopic has the table that Builder.Table keeps here be restored from the topic that it is read from: there is no
// changelog topic, and nothing is written (topology.optimization, reuse.ktable.source.topics). By default a table has a changelog
// of its own, as in Kafka Streams.
//
// The topic must keep the last record of every key, so its cleanup.policy must be compact, or its retention without end; the application
// refuses to start with another. A restore goes up to the committed position, through the serdes of topic and store: what the table
// left out, such as records that could not be decoded, is left out again; but a record that Skip left out, since a function behind the table
// had failed, is in the topic, and so in the table once it is restored. Functions of Topic.Timestamps are called again, with the
// greatest time since the restore began as the last one. Where reading began at the topic's end (FromLatest), a restore adds the
// rows from before. Processors may read the store, and not write to it.
func (h KeyValue[K, V]) ReuseSourceTopic() KeyValue[K, V] {
	return h.with(func(s *flow.StoreSpec) { s.FromSource = true })
}

// Changelog adds topic settings for the changelog (withLoggingEnabled).
func (h KeyValue[K, V]) Changelog(settings map[string]string) KeyValue[K, V] {
	h.spec = changelog(h.spec, settings)
	return h
}

// Open is called by a processor in Init, once per task.
func (h KeyValue[K, V]) Open(o Opener) *KV[K, V] { return OpenKeyValue[K, V](o, h.spec) }

// OpenKeyValue is for the project's own packages: processors use the Open of their handle.
func OpenKeyValue[K, V any](o Opener, spec *flow.StoreSpec) *KV[K, V] {
	v := &KV[K, V]{view: view{opener: o}, null: nilness[V](), sourced: spec != nil && spec.FromSource}
	s, err := o.OpenStore(spec)
	if err != nil {
		v.broken = true
		return v
	}
	v.kv = s.(*table.KV[K, V])
	return v
}

// KV is a task's store as its processors see it: their own writes at once, committed or not. It is not for use outside of the
// task.
type KV[K, V any] struct {
	view
	kv      *table.KV[K, V]
	null    func(V) bool
	sourced bool // only its table writes to it
}

// errSourced is a write that a restore would not know of.
var errSourced = errors.New("the store holds a source topic (ReuseSourceTopic), and only what is written to that topic changes it")

// Get finds a value. One that holds pointers may be changed and given to Put; changing it without Put is a mistake.
func (s *KV[K, V]) Get(k K) (v V, ok bool) {
	v, _, ok = s.GetTimed(k)
	return v, ok
}

// GetTimed is Get with the time of the record that the value comes from.
func (s *KV[K, V]) GetTimed(k K) (v V, at time.Time, ok bool) {
	c, node := s.step()
	if c == nil {
		return v, at, false
	}
	v, ms, ok, err := s.kv.Get(k)
	if fail(c, node, err) || !ok {
		return v, at, false
	}
	return v, utc(ms), true
}

// Put sets a value, with the time of the record in hand. A nil V, where V can be nil, is Delete.
func (s *KV[K, V]) Put(k K, v V) { s.put(k, v, s.null(v)) }

// Delete removes a value.
func (s *KV[K, V]) Delete(k K) {
	var none V
	s.put(k, none, true)
}

func (s *KV[K, V]) put(k K, v V, null bool) {
	c, node := s.step()
	if c == nil {
		return
	}
	if s.sourced {
		fail(c, node, errSourced)
		return
	}
	c.Wrote = true
	r, err := s.kv.Touch(k)
	if fail(c, node, err) {
		return
	}
	if null {
		s.kv.Unset(r, c.Time, nil)
	} else {
		s.kv.Set(r, v, c.Time, nil)
	}
}

// Range gives the keys from from to to, both included, in the order of their serialized bytes. The store may be changed
// meanwhile; keys added may or may not be seen.
func (s *KV[K, V]) Range(from, to K) iter.Seq2[K, V] {
	return s.each(func(f func(K, V, int64) bool) error { return s.kv.Range(&from, &to, f) })
}

// RangeReverse is Range from the last to the first.
func (s *KV[K, V]) RangeReverse(from, to K) iter.Seq2[K, V] {
	return s.each(func(f func(K, V, int64) bool) error { return s.kv.RangeReverse(&from, &to, f) })
}

// From gives the keys from from on, UpTo those up to to, included, in the order of their serialized bytes.
func (s *KV[K, V]) From(from K) iter.Seq2[K, V] {
	return s.each(func(f func(K, V, int64) bool) error { return s.kv.Range(&from, nil, f) })
}

// UpTo: see From.
func (s *KV[K, V]) UpTo(to K) iter.Seq2[K, V] {
	return s.each(func(f func(K, V, int64) bool) error { return s.kv.Range(nil, &to, f) })
}

// FromReverse is From from the last to the first.
func (s *KV[K, V]) FromReverse(from K) iter.Seq2[K, V] {
	return s.each(func(f func(K, V, int64) bool) error { return s.kv.RangeReverse(&from, nil, f) })
}

// UpToReverse is UpTo from the last to the first.
func (s *KV[K, V]) UpToReverse(to K) iter.Seq2[K, V] {
	return s.each(func(f func(K, V, int64) bool) error { return s.kv.RangeReverse(nil, &to, f) })
}

// Prefix gives the keys whose serialized bytes begin with p.
func (s *KV[K, V]) Prefix(p []byte) iter.Seq2[K, V] {
	return s.each(func(f func(K, V, int64) bool) error { return s.kv.Prefix(p, f) })
}

// All gives every key.
func (s *KV[K, V]) All() iter.Seq2[K, V] {
	return s.each(func(f func(K, V, int64) bool) error { return s.kv.Range(nil, nil, f) })
}

// AllReverse is All from the last to the first.
func (s *KV[K, V]) AllReverse() iter.Seq2[K, V] {
	return s.each(func(f func(K, V, int64) bool) error { return s.kv.RangeReverse(nil, nil, f) })
}

func (s *KV[K, V]) each(scan func(func(K, V, int64) bool) error) iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		if c, node := s.step(); c != nil {
			fail(c, node, scan(func(k K, v V, _ int64) bool { return yield(k, v) }))
		}
	}
}

// View reads what is committed in a store of the handle; it is what queries are made of.
func (h KeyValue[K, V]) View(s flow.Store) *KVView[K, V] {
	return &KVView[K, V]{kv: s.(*table.KV[K, V])}
}

// KVView reads the committed values of one task, whatever it is working on. Values are the caller's.
type KVView[K, V any] struct {
	kv  *table.KV[K, V]
	err error
}

// Get finds a value and the time of the record that it comes from.
func (s *KVView[K, V]) Get(k K) (v V, at time.Time, ok bool, err error) {
	v, ms, ok, err := s.kv.Committed(k)
	return v, utc(ms), ok, err
}

// Range gives the keys from from to to, both included, in the order of their serialized bytes. See Err.
func (s *KVView[K, V]) Range(from, to K) iter.Seq2[K, V] { return s.each(&from, &to) }

// All gives every key. See Err.
func (s *KVView[K, V]) All() iter.Seq2[K, V] { return s.each(nil, nil) }

// Err is why a range ended early; nil: it did not.
func (s *KVView[K, V]) Err() error { return s.err }

func (s *KVView[K, V]) each(from, to *K) iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		if err := s.kv.CommittedRange(from, to, func(k K, v V, _ int64) bool { return yield(k, v) }); err != nil {
			s.err = err
		}
	}
}
