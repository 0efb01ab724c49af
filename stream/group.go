package stream

import (
	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/topology"
	"github.com/moldau/moldau/window"
)

// KGroupedStream is a stream whose records of one key meet in one task, to be aggregated. Records with a null key or value
// are dropped, except that windowed aggregates let null values in: there Count counts them and Fold sees them.
//
// The time of an aggregate is the greatest time of the records in it.
type KGroupedStream[K, V any] struct {
	b *Builder
	n *topology.Node
}

// Fold is the long form of an aggregator: a start other than zero, the key, errors, and keep=false to delete.
type Fold[K, V, A any] struct {
	Init func() A                                                 // nil: the zero value
	Add  func(a A, r Record[K, V]) (next A, keep bool, err error) // must be there
}

// adder folds one record into an aggregate; live: there was one.
type adder[K, V, A any] struct {
	f     func(c *flow.Ctx, a A, live bool, k K, v V) (next A, keep bool, err error)
	nulls bool     // it wants to see null values
	start func() A // what an aggregate starts from; nil: from its first value
}

// first is the update that makes an aggregate. Where each one goes on at once, Kafka Streams says that the value before was the one
// it started from; at the commit that there was none.
func (a *adder[K, V, A]) first(ch change[A], every bool) change[A] {
	if every && !ch.WasLive && a.start != nil {
		ch.Old = a.start()
		ch.WasLive = !nullness[A]().of(ch.Old)
	}
	return ch
}

func zero[A any]() (a A) { return a }

func counting[K, V any]() adder[K, V, int64] {
	return adder[K, V, int64]{func(_ *flow.Ctx, a int64, _ bool, _ K, _ V) (int64, bool, error) { return a + 1, true, nil }, true, zero[int64]}
}

func reducing[K, V any](b *Builder, f func(V, V) V) adder[K, V, V] {
	b.given(f != nil)
	null := nullness[V]()
	return adder[K, V, V]{func(_ *flow.Ctx, a V, live bool, _ K, v V) (V, bool, error) {
		if live && !null.of(a) { // a merged session may be null
			v = f(a, v)
		}
		return v, !null.of(v), nil
	}, null.is, nil}
}

func aggregating[K, V, A any](b *Builder, f func(A, V) A) adder[K, V, A] {
	b.given(f != nil)
	null := nullness[A]()
	return adder[K, V, A]{func(_ *flow.Ctx, a A, _ bool, _ K, v V) (A, bool, error) {
		a = f(a, v)
		return a, !null.of(a), nil
	}, nullness[V]().is, zero[A]}
}

func folding[K, V, A any](b *Builder, f Fold[K, V, A]) adder[K, V, A] {
	b.given(f.Add != nil)
	if f.Init == nil {
		f.Init = zero[A]
	}
	return adder[K, V, A]{func(c *flow.Ctx, a A, live bool, k K, v V) (A, bool, error) {
		if !live {
			a = f.Init()
		}
		return f.Add(a, record(c, k, v))
	}, true, f.Init}
}

// Count counts the records of each key.
func (g *KGroupedStream[K, V]) Count(h state.Table[K, int64]) *KTable[K, int64] {
	return aggregate(g, "count", h, counting[K, V]())
}

// Reduce combines the values of each key; the first one is taken as it is.
func (g *KGroupedStream[K, V]) Reduce(h state.Table[K, V], f func(V, V) V) *KTable[K, V] {
	return aggregate(g, "reduce", h, reducing[K](g.b, f))
}

// Aggregate folds the values of each key, from the zero value on. f may write to the aggregate that it is given, such as a map, and return
// it. A nil aggregate, where nil is a value, deletes it.
func (g *KGroupedStream[K, V]) Aggregate[A any](h state.Table[K, A], f func(A, V) A) *KTable[K, A] {
	return aggregate(g, "aggregate", h, aggregating[K](g.b, f))
}

// Fold folds the records of each key.
func (g *KGroupedStream[K, V]) Fold[A any](h state.Table[K, A], f Fold[K, V, A]) *KTable[K, A] {
	return aggregate(g, "fold", h, folding(g.b, f))
}

// WindowedBy groups by time windows as well. The grace of the windows says how much later than their end records may come.
func (g *KGroupedStream[K, V]) WindowedBy(w window.TimeWindows) *TimeWindowedKStream[K, V] {
	return windowedBy(g, windowing{time: w})
}

// SlidingBy groups by sliding windows as well: there is one for each set of records of a key that lie within the windows'
// time difference of each other. Null values are dropped.
func (g *KGroupedStream[K, V]) SlidingBy(w window.SlidingWindows) *TimeWindowedKStream[K, V] {
	return windowedBy(g, windowing{sliding: w, slides: true})
}

func aggregate[K, V, A any](g *KGroupedStream[K, V], kind string, h state.Table[K, A], add adder[K, V, A]) *KTable[K, A] {
	n := &topology.Node{Kind: kind, Parents: []*topology.Node{g.n}, Keyed: true, At: where()}
	s := g.b.graph.Own(spec(h), n.At, n)
	addTable(g.b, n, func(env flow.Env, down tfn[K, A], alone bool) (fn[K, V], error) {
		return aggregator(env, n, keeps(env, n, s, down, alone), add), nil
	})
	return stored[K, A](g.b, n, s)
}

// aggregator folds records into a store.
func aggregator[K, V, A any](env flow.Env, n *topology.Node, keep *keeper[K, A], add adder[K, V, A]) fn[K, V] {
	first := keep.every && keep.old
	return func(c *flow.Ctx, k K, v V) {
		if c.KeyNull {
			env.Dropped(n.ID, nullKey)
			return
		}
		if c.Null {
			env.Dropped(n.ID, nullValue)
			return
		}
		old, at, live := keep.begin(c, k)
		if c.Err != nil {
			return
		}
		c.Node = n.ID
		next, ok, err := add.f(c, old, live, k, v)
		if err != nil {
			c.Fail(n.ID, err)
			return
		}
		if !live || at < c.Time {
			at = c.Time
		}
		keep.set(c, k, add.first(change[A]{Old: old, New: next, WasLive: live, Live: ok}, first), at, keep.exact)
	}
}
