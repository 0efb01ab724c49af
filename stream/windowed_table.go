package stream

import (
	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/table"
	"github.com/moldau/moldau/topology"
	"github.com/moldau/moldau/window"
)

// WindowedKTable is a table whose key carries a window. FlattenTable makes it a KTable of window.Key, which a method could
// not: the type graph would not end.
type WindowedKTable[K, V any] struct{ rows[window.Key[K], V] }

// storedWindows is the table that a node keeps in its own window store.
func storedWindows[K, V any](b *Builder, n *topology.Node, s *topology.Store, w windowing, onClose bool) *WindowedKTable[K, V] {
	return &WindowedKTable[K, V]{rows[window.Key[K], V]{b: b, n: n, stores: []*topology.Store{s}, closing: w.closing(), wantOld: func() bool { n.NeedOld = true; return true },
		view: func(env flow.Env, told bool) getter[window.Key[K], V] {
			store := env.Store(s.Spec.Name).(*table.Windows[K, V])
			get := store.Get
			if told && !s.Spec.EveryUpdate && !onClose {
				get = store.Told
			}
			return func(c *flow.Ctx, k window.Key[K]) (v V, at int64, ok bool) {
				v, at, ok, err := get(k.Key, k.Start.UnixMilli())
				if err != nil {
					c.Break(n.ID, err)
				}
				return v, at, ok
			}
		}}}
}

// Named labels the operator in metrics, errors and descriptions.
func (t *WindowedKTable[K, V]) Named(label string) *WindowedKTable[K, V] {
	t.n.Name = label
	return t
}

// Filter is the rows for which f is true.
func (t *WindowedKTable[K, V]) Filter(f func(window.Key[K], V) bool) *WindowedKTable[K, V] {
	return &WindowedKTable[K, V]{t.filter("filter", true, f)}
}

// FilterNot is the rows for which f is false.
func (t *WindowedKTable[K, V]) FilterNot(f func(window.Key[K], V) bool) *WindowedKTable[K, V] {
	return &WindowedKTable[K, V]{t.filter("filterNot", false, f)}
}

// MapValues is the table with f of each value; a nil result, where nil is a value, is no row.
func (t *WindowedKTable[K, V]) MapValues[V2 any](f func(V) V2) *WindowedKTable[K, V2] {
	return &WindowedKTable[K, V2]{mapRows(t.rows, f)}
}

// TryMapValues is the table with f of each row; the record has key and value only.
func (t *WindowedKTable[K, V]) TryMapValues[V2 any](f func(Record[window.Key[K], V]) (V2, error)) *WindowedKTable[K, V2] {
	return &WindowedKTable[K, V2]{tryMapRows(t.rows, f)}
}

// ToStream is the table's updates as a stream; deletions are nulls.
func (t *WindowedKTable[K, V]) ToStream() *WindowedKStream[K, V] {
	return &WindowedKStream[K, V]{t.b, toStream(t.rows)}
}

// FlattenTable opens all of KTable to a windowed table.
func FlattenTable[K, V any](t *WindowedKTable[K, V]) *KTable[window.Key[K], V] {
	return &KTable[window.Key[K], V]{t.rows}
}

// WindowedKStream is a stream whose key carries a window. It lies in partitions by its inner key.
type WindowedKStream[K, V any] struct {
	b *Builder
	n *topology.Node
}

// Flatten opens all of KStream to a windowed stream.
func Flatten[K, V any](s *WindowedKStream[K, V]) *KStream[window.Key[K], V] {
	return &KStream[window.Key[K], V]{s.b, s.n}
}

// Named labels the last operator in metrics, errors and descriptions.
func (s *WindowedKStream[K, V]) Named(label string) *WindowedKStream[K, V] {
	s.n.Name = label
	return s
}

// To writes the stream to a topic of windowed keys (NewWindowedTopic, NewSessionTopic).
func (s *WindowedKStream[K, V]) To(t Topic[window.Key[K], V]) { sink(s.b, s.n, t) }

// Filter keeps the records for which f is true.
func (s *WindowedKStream[K, V]) Filter(f func(window.Key[K], V) bool) *WindowedKStream[K, V] {
	return &WindowedKStream[K, V]{s.b, filter(s.b, s.n, "filter", true, f)}
}

// FilterNot keeps the records for which f is false.
func (s *WindowedKStream[K, V]) FilterNot(f func(window.Key[K], V) bool) *WindowedKStream[K, V] {
	return &WindowedKStream[K, V]{s.b, filter(s.b, s.n, "filterNot", false, f)}
}

// TryFilter keeps the records for which f is true; it sees nulls.
func (s *WindowedKStream[K, V]) TryFilter(f func(Record[window.Key[K], V]) (bool, error)) *WindowedKStream[K, V] {
	return &WindowedKStream[K, V]{s.b, tryFilter(s.b, s.n, f)}
}

// Peek calls f for each record and passes it on.
func (s *WindowedKStream[K, V]) Peek(f func(window.Key[K], V)) *WindowedKStream[K, V] {
	return &WindowedKStream[K, V]{s.b, peek(s.b, s.n, f)}
}

// Foreach calls f for each record, nulls included; the stream ends there.
func (s *WindowedKStream[K, V]) Foreach(f func(Record[window.Key[K], V]) error) {
	foreach(s.b, s.n, f)
}

// Merge is both streams in one, without any order between them.
func (s *WindowedKStream[K, V]) Merge(o *WindowedKStream[K, V]) *WindowedKStream[K, V] {
	if !s.b.mine(o != nil && o.b == s.b) {
		return s
	}
	return &WindowedKStream[K, V]{s.b, merge[window.Key[K], V](s.b, s.n, o.n)}
}

// MapValues replaces each value by f of it.
func (s *WindowedKStream[K, V]) MapValues[V2 any](f func(V) V2) *WindowedKStream[K, V2] {
	return &WindowedKStream[K, V2]{s.b, mapValues[window.Key[K]](s.b, s.n, f)}
}

// TryMapValues replaces each value, null or not, by f of its record.
func (s *WindowedKStream[K, V]) TryMapValues[V2 any](f func(Record[window.Key[K], V]) (V2, error)) *WindowedKStream[K, V2] {
	return &WindowedKStream[K, V2]{s.b, tryMapValues(s.b, s.n, f)}
}

// Map replaces key and value.
func (s *WindowedKStream[K, V]) Map[K2, V2 any](f func(window.Key[K], V) (K2, V2)) *KStream[K2, V2] {
	return &KStream[K2, V2]{s.b, mapBoth(s.b, s.n, f)}
}

// SelectKey gives each record a new key.
func (s *WindowedKStream[K, V]) SelectKey[K2 any](f func(window.Key[K], V) K2) *KStream[K2, V] {
	return &KStream[K2, V]{s.b, selectKey(s.b, s.n, f)}
}
