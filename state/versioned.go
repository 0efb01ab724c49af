package state

import (
	"iter"
	"time"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/table"
	"github.com/moldau/moldau/serde"
)

// Versioned names a store of the versions of each key: what its value was at which time (KIP-889). A table in it gives its
// values as of the time of whoever asks, and knows an update that is out of order from one that is the latest. It gives
// on each update at once. Its changelog is a Kafka Streams versioned store's: raw key, raw value, and the time from which the
// version is valid as the record's time.
type Versioned[K, V any] struct {
	spec *flow.StoreSpec
	keys serde.Serde[K]
	vals serde.Serde[V]
}

// NewVersioned declares a store. Its history goes as far back from the greatest time put as history says, at least 0; that is
// also how late a version may come. The latest version of a key is kept for ever.
func NewVersioned[K, V any](name string, k serde.Serde[K], v serde.Serde[V], history time.Duration) Versioned[K, V] {
	h := Versioned[K, V]{newSpec(flow.Versioned, name), k, v}
	written(h.spec, k, v)
	h.spec.Retention, h.spec.EveryUpdate = history.Milliseconds(), true
	h.spec.New = func(env flow.StoreEnv) (flow.Store, error) { return table.NewVersions(env, k, v) }
	return h
}

// Spec is for the project's own packages.
func (h Versioned[K, V]) Spec() *flow.StoreSpec { return h.spec }

// Keys is how keys are written.
func (h Versioned[K, V]) Keys() serde.Serde[K] { return h.keys }

// Values is how values are written.
func (h Versioned[K, V]) Values() serde.Serde[V] { return h.vals }

func (Versioned[K, V]) table(K, V) {}

func (h Versioned[K, V]) with(f func(*flow.StoreSpec)) Versioned[K, V] {
	h.spec = with(h.spec, f)
	return h
}

// Unlogged keeps no changelog: the state is lost when the task moves or restarts (withLoggingDisabled).
func (h Versioned[K, V]) Unlogged() Versioned[K, V] {
	return h.with(func(s *flow.StoreSpec) { s.Unlogged = true })
}

// ReuseSourceTopic is that of KeyValue, for a topic that keeps every record: compaction would keep the last version of a key that came,
// and not the latest. So its cleanup.policy must be delete, and its retention without end.
func (h Versioned[K, V]) ReuseSourceTopic() Versioned[K, V] {
	return h.with(func(s *flow.StoreSpec) { s.FromSource = true })
}

// Changelog adds topic settings for the changelog (withLoggingEnabled).
func (h Versioned[K, V]) Changelog(settings map[string]string) Versioned[K, V] {
	h.spec = changelog(h.spec, settings)
	return h
}

// Open is called by a processor in Init, once per task.
func (h Versioned[K, V]) Open(o Opener) *VersionedStore[K, V] {
	v := &VersionedStore[K, V]{view: view{opener: o}, null: nilness[V](), sourced: h.spec != nil && h.spec.FromSource}
	s, err := o.OpenStore(h.spec)
	if err != nil {
		v.broken = true
		return v
	}
	v.versions = s.(*table.Versions[K, V])
	return v
}

// VersionedStore is a task's store as its processors see it: their own writes at once, committed or not. It is not for use
// outside of the task. Values must not be written through.
type VersionedStore[K, V any] struct {
	view
	versions *table.Versions[K, V]
	null     func(V) bool
	sourced  bool // only its table writes to it
}

// Get finds the latest version and the time from which it is valid.
func (s *VersionedStore[K, V]) Get(k K) (v V, from time.Time, ok bool) {
	return s.get(k, table.Latest)
}

// GetAsOf finds the version that is valid at a time. Before the store's history there is none, unless it is the latest.
func (s *VersionedStore[K, V]) GetAsOf(k K, at time.Time) (v V, from time.Time, ok bool) {
	return s.get(k, at.UnixMilli())
}

func (s *VersionedStore[K, V]) get(k K, at int64) (v V, from time.Time, ok bool) {
	c, node := s.step()
	if c == nil {
		return v, from, false
	}
	v, ms, ok, err := s.versions.AsOf(k, at)
	if fail(c, node, err) || !ok {
		return v, from, false
	}
	return v, utc(ms), true
}

// Put adds the version that is valid from a time on, or replaces it; a nil V, where V can be nil, is Delete. to is when the next
// version begins, the zero time if it is the latest. kept is false if the time is before the store's history: then nothing is
// put, and it is counted as dropped.
func (s *VersionedStore[K, V]) Put(k K, v V, from time.Time) (to time.Time, kept bool) {
	return s.put(k, v, from, s.null(v))
}

// Delete says that from a time on there is no value, and gives the version that was valid then, if there is one.
func (s *VersionedStore[K, V]) Delete(k K, at time.Time) (v V, from time.Time, ok bool) {
	v, from, ok = s.GetAsOf(k, at)
	var none V
	if _, kept := s.put(k, none, at, true); !kept {
		return none, time.Time{}, false
	}
	return v, from, ok
}

func (s *VersionedStore[K, V]) put(k K, v V, from time.Time, null bool) (to time.Time, kept bool) {
	c, node := s.step()
	if c == nil {
		return to, false
	}
	if s.sourced {
		fail(c, node, errSourced)
		return to, false
	}
	c.Wrote = true
	var p table.Placement
	var err error
	if null {
		p, err = s.versions.Delete(k, from.UnixMilli())
	} else {
		p, err = s.versions.Put(k, v, from.UnixMilli())
	}
	switch {
	case fail(c, node, err):
		return to, false
	case !p.Kept:
		s.opener.Expired()
	case p.To != table.Latest:
		to = utc(p.To)
	}
	return to, p.Kept
}

// View reads what is committed in a store of the handle; it is what queries are made of.
func (h Versioned[K, V]) View(s flow.Store) *VersionedView[K, V] {
	return &VersionedView[K, V]{versions: s.(*table.Versions[K, V])}
}

// VersionedView reads the committed versions of one task, whatever it is working on. Values are the caller's.
type VersionedView[K, V any] struct {
	versions *table.Versions[K, V]
	err      error
}

// Version is a value and the time for which it is valid: from From up to, but not at, To. The latest has no To.
type Version[V any] struct {
	Value    V
	From, To time.Time
}

// Get finds the latest version and the time from which it is valid.
func (s *VersionedView[K, V]) Get(k K) (v V, from time.Time, ok bool, err error) {
	v, ms, ok, err := s.versions.Committed(k)
	return v, utc(ms), ok, err
}

// GetAsOf finds the version that is valid at a time, as VersionedStore does.
func (s *VersionedView[K, V]) GetAsOf(k K, at time.Time) (v V, from time.Time, ok bool, err error) {
	v, ms, ok, err := s.versions.CommittedAsOf(k, at.UnixMilli())
	return v, utc(ms), ok, err
}

// History gives the versions that are valid at any time between from and to, both included, the latest first. See Err.
func (s *VersionedView[K, V]) History(k K, from, to time.Time) iter.Seq[Version[V]] {
	return func(yield func(Version[V]) bool) {
		err := s.versions.CommittedHistory(k, from.UnixMilli(), to.UnixMilli(), func(v V, from, end int64) bool {
			version := Version[V]{Value: v, From: utc(from)}
			if end != table.Latest {
				version.To = utc(end)
			}
			return yield(version)
		})
		if err != nil {
			s.err = err
		}
	}
}

// Err is why a history ended early; nil: it did not.
func (s *VersionedView[K, V]) Err() error { return s.err }
