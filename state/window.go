package state

import (
	"iter"
	"time"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/table"
	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/window"
)

// Window names a store of values by key and window start. Its changelog is a Kafka Streams timestamped window store's: key,
// start and a sequence number of 0; raw value; the value's time as the record's time.
type Window[K, V any] struct {
	spec *flow.StoreSpec
	size int64
	keys serde.Serde[K]
}

// NewWindow declares a store. Its retention comes from the operator that uses it; a processor that opens one says
// Retention, else Build names it.
func NewWindow[K, V any](name string, k serde.Serde[K], v serde.Serde[V]) Window[K, V] {
	h := Window[K, V]{spec: newSpec(flow.Window, name), keys: k}
	h.spec.New = func(env flow.StoreEnv) (flow.Store, error) { return table.NewWindows(env, k, v) }
	written(h.spec, k, v)
	return h
}

// Spec is for the project's own packages.
func (h Window[K, V]) Spec() *flow.StoreSpec { return h.spec }

// Keys is how keys are written, without the window.
func (h Window[K, V]) Keys() serde.Serde[K] { return h.keys }

func (h Window[K, V]) with(f func(*flow.StoreSpec)) Window[K, V] {
	h.spec = with(h.spec, f)
	return h
}

// Retention is how long a window is kept: until the greatest start in the store is d later than its own. An operator
// needs at least the size of its windows and their grace and takes what is longer (Materialized.withRetention).
func (h Window[K, V]) Retention(d time.Duration) Window[K, V] {
	return h.with(func(s *flow.StoreSpec) { s.Retention = d.Milliseconds() })
}

// Size is how long the windows are that a view gives; it is not stored. The default is 0, which makes their end their
// start.
func (h Window[K, V]) Size(d time.Duration) Window[K, V] {
	h.size = d.Milliseconds()
	return h
}

// Ordered keeps an index by start and key in memory, for windows whose starts are anywhere, such as sliding ones, that are
// often fetched for all keys. Without it such a fetch sorts what it covers.
func (h Window[K, V]) Ordered() Window[K, V] {
	return h.with(func(s *flow.StoreSpec) { s.Ordered = true })
}

// ExpireFirst has OnClose look for the windows that a record closes after the record has been taken up, as Kafka Streams does:
// where time jumps past a window's retention, its final result is lost. The default is to look before, and to lose none.
func (h Window[K, V]) ExpireFirst() Window[K, V] {
	return h.with(func(s *flow.StoreSpec) { s.ExpireFirst = true })
}

// ExpireBySegment has windows expire as in Kafka Streams' RocksDB stores: what has expired is not seen any more, but can be
// written again, from nothing, until its segment goes. A segment is half the retention, at least a minute. The
// default is to expire exactly, as its in-memory stores do.
func (h Window[K, V]) ExpireBySegment() Window[K, V] {
	return h.with(func(s *flow.StoreSpec) { s.BySegment = true })
}

// EveryUpdate: see KeyValue.
func (h Window[K, V]) EveryUpdate() Window[K, V] {
	return h.with(func(s *flow.StoreSpec) { s.EveryUpdate = true })
}

// Unlogged keeps no changelog: the state is lost when the task moves or restarts (withLoggingDisabled).
func (h Window[K, V]) Unlogged() Window[K, V] {
	return h.with(func(s *flow.StoreSpec) { s.Unlogged = true })
}

// Changelog adds topic settings for the changelog (withLoggingEnabled).
func (h Window[K, V]) Changelog(settings map[string]string) Window[K, V] {
	h.spec = changelog(h.spec, settings)
	return h
}

// Open is called by a processor in Init, once per task.
func (h Window[K, V]) Open(o Opener) *WindowStore[K, V] {
	v := &WindowStore[K, V]{view: view{opener: o}, null: nilness[V](), size: h.size}
	s, err := o.OpenStore(h.spec)
	if err != nil {
		v.broken = true
		return v
	}
	v.windows = s.(*table.Windows[K, V])
	return v
}

// WindowStore is a task's store as its processors see it: their own writes at once, committed or not. It is not for use
// outside of the task.
type WindowStore[K, V any] struct {
	view
	windows *table.Windows[K, V]
	null    func(V) bool
	size    int64
}

// Get finds the value of the window that starts at start.
func (s *WindowStore[K, V]) Get(k K, start time.Time) (v V, ok bool) {
	c, node := s.step()
	if c == nil {
		return v, false
	}
	v, _, ok, err := s.windows.Get(k, start.UnixMilli())
	return v, !fail(c, node, err) && ok
}

// Put sets the value of the window that starts at start, with the time of the record in hand. A nil V, where V can be nil,
// is Delete. kept is false if the window has expired: then nothing is set,
// and it is counted as dropped.
func (s *WindowStore[K, V]) Put(k K, v V, start time.Time) (kept bool) {
	return s.put(k, v, start, s.null(v))
}

// Delete removes a window.
func (s *WindowStore[K, V]) Delete(k K, start time.Time) {
	var none V
	s.put(k, none, start, true)
}

func (s *WindowStore[K, V]) put(k K, v V, start time.Time, null bool) (kept bool) {
	c, node := s.step()
	if c == nil {
		return false
	}
	c.Wrote = true
	r, expired, err := s.windows.Touch(k, start.UnixMilli())
	switch {
	case fail(c, node, err):
		return false
	case expired:
		s.opener.Expired()
		return false
	case null:
		s.windows.Unset(r, c.Time, nil)
	default:
		s.windows.Set(r, v, c.Time, nil)
	}
	return true
}

// Fetch gives the windows of k that start between from and to, both included, by start. The store may be changed
// meanwhile; windows added may or may not be seen.
func (s *WindowStore[K, V]) Fetch(k K, from, to time.Time) iter.Seq2[window.Key[K], V] {
	return s.each(func(yield func(window.Key[K], V) bool) error {
		return s.windows.Fetch(k, from.UnixMilli(), to.UnixMilli(), func(start int64, v V, _ int64) bool {
			return yield(key(k, start, s.size), v)
		})
	})
}

// FetchReverse is Fetch from the last to the first.
func (s *WindowStore[K, V]) FetchReverse(k K, from, to time.Time) iter.Seq2[window.Key[K], V] {
	return s.each(func(yield func(window.Key[K], V) bool) error {
		return s.windows.FetchReverse(k, from.UnixMilli(), to.UnixMilli(), func(start int64, v V, _ int64) bool {
			return yield(key(k, start, s.size), v)
		})
	})
}

// FetchAll gives the windows of all keys that start between from and to, both included, by start, then in the order of the keys'
// serialized bytes.
func (s *WindowStore[K, V]) FetchAll(from, to time.Time) iter.Seq2[window.Key[K], V] {
	return s.each(func(yield func(window.Key[K], V) bool) error {
		return s.windows.FetchAll(from.UnixMilli(), to.UnixMilli(), func(k K, start int64, v V, _ int64) bool {
			return yield(key(k, start, s.size), v)
		})
	})
}

// FetchAllReverse is FetchAll from the last to the first.
func (s *WindowStore[K, V]) FetchAllReverse(from, to time.Time) iter.Seq2[window.Key[K], V] {
	return s.each(func(yield func(window.Key[K], V) bool) error {
		return s.windows.FetchAllReverse(from.UnixMilli(), to.UnixMilli(), func(k K, start int64, v V, _ int64) bool {
			return yield(key(k, start, s.size), v)
		})
	})
}

func (s *WindowStore[K, V]) each(scan func(yield func(window.Key[K], V) bool) error) iter.Seq2[window.Key[K], V] {
	return func(yield func(window.Key[K], V) bool) {
		if c, node := s.step(); c != nil {
			fail(c, node, scan(yield))
		}
	}
}

func key[K any](k K, start, size int64) window.Key[K] {
	return window.Key[K]{Key: k, Span: window.Millis(start, start+size)}
}

// View reads what is committed in a store of the handle; it is what queries are made of.
func (h Window[K, V]) View(s flow.Store) *WindowView[K, V] {
	return &WindowView[K, V]{windows: s.(*table.Windows[K, V]), size: h.size}
}

// WindowView reads the committed windows of one task, whatever it is working on. Values are the caller's.
type WindowView[K, V any] struct {
	windows *table.Windows[K, V]
	size    int64
	err     error
}

// Get finds the value of the window that starts at start, and the time of the last record in it.
func (s *WindowView[K, V]) Get(k K, start time.Time) (v V, at time.Time, ok bool, err error) {
	v, ms, ok, err := s.windows.Committed(k, start.UnixMilli())
	return v, utc(ms), ok, err
}

// Fetch gives the windows of k that start between from and to, both included, by start. See Err.
func (s *WindowView[K, V]) Fetch(k K, from, to time.Time) iter.Seq2[window.Key[K], V] {
	return func(yield func(window.Key[K], V) bool) {
		s.keep(s.windows.CommittedFetch(k, from.UnixMilli(), to.UnixMilli(), func(start int64, v V, _ int64) bool {
			return yield(key(k, start, s.size), v)
		}))
	}
}

// FetchAll gives the windows of all keys that start between from and to, both included, by start, then in the order of the
// keys' serialized bytes. See Err.
func (s *WindowView[K, V]) FetchAll(from, to time.Time) iter.Seq2[window.Key[K], V] {
	return func(yield func(window.Key[K], V) bool) {
		s.keep(s.windows.CommittedFetchAll(from.UnixMilli(), to.UnixMilli(), func(k K, start int64, v V, _ int64) bool {
			return yield(key(k, start, s.size), v)
		}))
	}
}

// Err is why a fetch ended early; nil: it did not.
func (s *WindowView[K, V]) Err() error { return s.err }

func (s *WindowView[K, V]) keep(err error) {
	if err != nil {
		s.err = err
	}
}
