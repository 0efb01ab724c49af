package stream

import (
	"bytes"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/topology"
	"github.com/moldau/moldau/window"
)

// KGroupedTable is a table whose rows are grouped by a new key, to be aggregated. As rows come, change and go, each aggregate
// takes the old value of a row out and puts the new one in. A row that moves from one group to another is two updates, in two tasks:
// until both have been worked off, it is in neither.
type KGroupedTable[K, V any] struct {
	b *Builder
	n *topology.Node
}

// GroupBy groups rows by a new key and value. Updates go through the repartition topic t; a row whose new key or value is
// nil, where nil is one, is in no group.
func (t *KTable[K, V]) GroupBy[K2, V2 any](to Repartition[K2, V2], f func(K, V) (K2, V2)) *KGroupedTable[K2, V2] {
	t.b.given(f != nil)
	return &KGroupedTable[K2, V2]{t.b, groupRows(t.rows, to, func(r Record[K, V]) (K2, V2, error) {
		k, v := f(r.Key, r.Value)
		return k, v, nil
	})}
}

// TryGroupBy is GroupBy with a function that may fail. The record has key and value only.
func (t *KTable[K, V]) TryGroupBy[K2, V2 any](to Repartition[K2, V2], f func(Record[K, V]) (K2, V2, error)) *KGroupedTable[K2, V2] {
	t.b.given(f != nil)
	return &KGroupedTable[K2, V2]{t.b, groupRows(t.rows, to, f)}
}

// GroupBy groups rows by a new key and value; see KTable.GroupBy.
func (t *WindowedKTable[K, V]) GroupBy[K2, V2 any](to Repartition[K2, V2], f func(window.Key[K], V) (K2, V2)) *KGroupedTable[K2, V2] {
	t.b.given(f != nil)
	return &KGroupedTable[K2, V2]{t.b, groupRows(t.rows, to, func(r Record[window.Key[K], V]) (K2, V2, error) {
		k, v := f(r.Key, r.Value)
		return k, v, nil
	})}
}

// groupRows is the node that writes updates by their new keys, and the one that reads them; it returns the latter.
func groupRows[K, V, K2, V2 any](t rows[K, V], to Repartition[K2, V2], f func(Record[K, V]) (K2, V2, error)) *topology.Node {
	b, at := t.b, where()
	if !t.wantOld() {
		b.graph.Fail(topology.ErrHandle, at, "the table made at %s is grouped here, for which its old values are needed, but nobody keeps it; use Table or Stored with a store", t.n.At)
	}
	x := b.cross(at, t.n, b.topic(at, "repartition topic", to.root, to.spec, to.key, to.value))
	x.topic.Value = changeSerde[V2]{to.value}.Format()
	sink := &topology.Node{Kind: "groupBy", Parents: []*topology.Node{t.n}, Sinks: []*topology.Topic{x.topic}, At: at}
	out := writer[K2, change[V2]]{key: to.key, value: changeSerde[V2]{to.value}}
	if to.by != nil {
		out.by = func(k K2, ch change[V2], n int32) int32 {
			if ch.Live {
				return to.by(k, ch.New, n)
			}
			return to.by(k, ch.Old, n)
		}
	}
	if to.multi != nil {
		out.multi = func(k K2, ch change[V2], n int32) []int32 {
			if ch.Live {
				return to.multi(k, ch.New, n)
			}
			return to.multi(k, ch.Old, n)
		}
	}
	nullK, nullV := nullness[K2](), nullness[V2]()
	add(b, sink, func(env flow.Env, _ fn[K2, V2]) (tfn[K, V], error) {
		w, topic := out.open(env, sink.ID), env.Topic(x.topic.Logical())
		var oldKey, newKey []byte
		return func(c *flow.Ctx, k K, ch change[V]) {
			if ch.Stale {
				return // aggregates are of the latest rows
			}
			var from, into K2
			var err error
			var to change[V2]
			c.Node = sink.ID
			if ch.Live {
				if into, to.New, err = f(Record[K, V]{Key: k, Value: ch.New}); err != nil {
					c.Fail(sink.ID, err)
					return
				}
				to.Live = !nullK.of(into) && !nullV.of(to.New)
			}
			if ch.WasLive {
				if from, to.Old, err = f(Record[K, V]{Key: k, Value: ch.Old}); err != nil {
					c.Fail(sink.ID, err)
					return
				}
				to.WasLive = !nullK.of(from) && !nullV.of(to.Old)
			}
			same := false
			if to.WasLive && to.Live {
				if oldKey, err = out.key.Encode(oldKey[:0], from); err == nil {
					newKey, err = out.key.Encode(newKey[:0], into)
				}
				if err != nil {
					c.Fail(sink.ID, err)
					return
				}
				same = bytes.Equal(oldKey, newKey)
			}
			keyNull, null := c.KeyNull, c.Null
			c.KeyNull, c.Null = false, false
			if same {
				w.write(c, topic, into, to)
			} else {
				if to.WasLive {
					w.write(c, topic, from, change[V2]{Old: to.Old, WasLive: true})
				}
				if to.Live && c.Err == nil {
					w.write(c, topic, into, change[V2]{New: to.New, Live: true})
				}
			}
			c.KeyNull, c.Null = keyNull, null
		}, nil
	})
	source := &topology.Node{Kind: "source", Source: x.topic, At: at}
	add(b, source, func(_ flow.Env, down tfn[K2, V2]) (tfn[K2, V2], error) { return down, nil })
	source.Feed = feed(source.ID, to.key, changeSerde[V2]{to.value})
	return source
}

// Count counts the rows of each group.
func (g *KGroupedTable[K, V]) Count(h state.Table[K, int64]) *KTable[K, int64] {
	return aggregateRows(g, "count", h, counting[K, V](),
		adder[K, V, int64]{f: func(_ *flow.Ctx, a int64, _ bool, _ K, _ V) (int64, bool, error) { return a - 1, true, nil }})
}

// Reduce combines the values of each group: add puts one in, sub takes one out. The first one is taken as it is.
func (g *KGroupedTable[K, V]) Reduce(h state.Table[K, V], add, sub func(V, V) V) *KTable[K, V] {
	return aggregateRows(g, "reduce", h, reducing[K](g.b, add), reducing[K](g.b, sub))
}

// Aggregate folds the values of each group, from the zero value on: add puts one in, sub takes one out.
func (g *KGroupedTable[K, V]) Aggregate[A any](h state.Table[K, A], add, sub func(A, V) A) *KTable[K, A] {
	return aggregateRows(g, "aggregate", h, aggregating[K](g.b, add), aggregating[K](g.b, sub))
}

// Fold is Aggregate with a start other than zero, the key, errors, and results that delete. Of sub only Add counts; its
// record has key and value only.
func (g *KGroupedTable[K, V]) Fold[A any](h state.Table[K, A], add, sub Fold[K, V, A]) *KTable[K, A] {
	return aggregateRows(g, "fold", h, folding(g.b, add), folding(g.b, sub))
}

func aggregateRows[K, V, A any](g *KGroupedTable[K, V], kind string, h state.Table[K, A], add, sub adder[K, V, A]) *KTable[K, A] {
	n := &topology.Node{Kind: kind, Parents: []*topology.Node{g.n}, Keyed: true, At: where()}
	s := g.b.graph.Own(spec(h), n.At, n)
	addTable(g.b, n, func(env flow.Env, down tfn[K, A], alone bool) (tfn[K, V], error) {
		keep := keeps(env, n, s, down, alone)
		return func(c *flow.Ctx, k K, ch change[V]) {
			old, at, was := keep.begin(c, k)
			if c.Err != nil {
				return
			}
			a, live, time := old, was, c.Time
			var err error
			c.Node = n.ID
			if ch.WasLive && was {
				if a, live, err = sub.f(c, a, true, k, ch.Old); err != nil {
					c.Fail(n.ID, err)
					return
				}
				time = max(c.Time, at)
			}
			if ch.Live {
				if !live {
					var none A
					a = none
				}
				if a, live, err = add.f(c, a, live, k, ch.New); err != nil {
					c.Fail(n.ID, err)
					return
				}
				if was {
					time = max(c.Time, at)
				}
			}
			keep.set(c, k, change[A]{Old: old, New: a, WasLive: was, Live: live}, time, keep.exact)
		}, nil
	})
	return stored[K, A](g.b, n, s)
}
