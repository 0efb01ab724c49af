package stream

import (
	"slices"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/topology"
)

// rowFunc computes a row from one that may not be there; ok=false: there is none.
type rowFunc[K, V, V2 any] func(k K, v V, live bool) (v2 V2, ok bool, err error)

// derive is a table computed row by row.
func derive[K, V, V2 any](t rows[K, V], kind string, sparse bool, f rowFunc[K, V, V2]) rows[K, V2] {
	old := false
	sparse = sparse && t.past == nil // of a versioned table each update counts
	d := rows[K, V2]{b: t.b, stores: t.stores, sparse: sparse, vague: t.vague, tells: sparse, closing: t.closing}
	d.wantOld = func() bool {
		old = old || t.wantOld()
		return old
	}
	if sparse {
		d.wantOld()
	}
	n := &topology.Node{Kind: kind, Parents: []*topology.Node{t.n}, At: where()}
	n.Wire = func(_ flow.Env, children []any) (any, error) {
		down, stores := listeners[K, V2](children)
		return deriver(n.ID, &old, sparse, f, down, stores), nil
	}
	d.n = t.b.graph.Add(n)
	if t.view == nil {
		return d
	}
	row := func(c *flow.Ctx, k K, v V, ok bool) (V2, bool) {
		v2, ok, err := f(k, v, ok)
		if err != nil {
			c.Miss(n.ID, err)
			ok = false
		}
		return v2, ok
	}
	d.view = func(env flow.Env, told bool) getter[K, V2] {
		get := t.view(env, told)
		return func(c *flow.Ctx, k K) (v2 V2, at int64, ok bool) {
			v, at, ok := get(c, k)
			if c.Err != nil {
				return v2, 0, false
			}
			c.Node = n.ID
			v2, ok = row(c, k, v, ok)
			return v2, at, ok
		}
	}
	if t.past != nil {
		d.past = func(env flow.Env) past[K, V2] {
			get := t.past(env)
			return func(c *flow.Ctx, k K, asOf int64) (V2, bool) {
				v, ok := get(c, k, asOf)
				if c.Err != nil {
					var none V2
					return none, false
				}
				c.Node = n.ID
				return row(c, k, v, ok)
			}
		}
	}
	return d
}

// told is the boxed function of a store that is told of updates from nothing to nothing as well.
type told[K, V any] struct{ f tfn[K, V] }

// listeners are all that hear of a table's updates, and the stores among them that are told of those from nothing to nothing.
func listeners[K, V any](children []any) (all, stores tfn[K, V]) {
	fns := slices.Clone(children)
	var kept []any
	for i, c := range fns {
		if s, ok := c.(told[K, V]); ok {
			fns[i], kept = s.f, append(kept, s.f)
		}
	}
	return fan[K, change[V]](fns), fan[K, change[V]](kept)
}

func deriver[K, V, V2 any](id int, old *bool, sparse bool, f rowFunc[K, V, V2], down, stores tfn[K, V2]) tfn[K, V] {
	return func(c *flow.Ctx, k K, ch change[V]) {
		to := change[V2]{Stale: ch.Stale}
		var err error
		c.Node = id
		if to.New, to.Live, err = f(k, ch.New, ch.Live); err == nil && *old {
			to.Old, to.WasLive, err = f(k, ch.Old, ch.WasLive)
		}
		if err != nil {
			c.Fail(id, err)
			return
		}
		if sparse && *old && !to.WasLive && !to.Live {
			stores(c, k, to)
			return
		}
		down(c, k, to)
	}
}

// Filter is the rows for which f is true. A row that is so no longer is a deletion to those who read the updates.
func (t *KTable[K, V]) Filter(f func(K, V) bool) *KTable[K, V] {
	return &KTable[K, V]{t.filter("filter", true, f)}
}

// FilterNot is the rows for which f is false.
func (t *KTable[K, V]) FilterNot(f func(K, V) bool) *KTable[K, V] {
	return &KTable[K, V]{t.filter("filterNot", false, f)}
}

func (t rows[K, V]) filter(kind string, want bool, f func(K, V) bool) rows[K, V] {
	t.b.given(f != nil)
	return derive(t, kind, true, func(k K, v V, live bool) (V, bool, error) {
		if !live || f(k, v) != want {
			var none V
			return none, false, nil
		}
		return v, true, nil
	})
}

// MapValues is the table with f of each value; a nil result, where nil is a value, is no row.
func (t *KTable[K, V]) MapValues[V2 any](f func(V) V2) *KTable[K, V2] {
	return &KTable[K, V2]{mapRows(t.rows, f)}
}

func mapRows[K, V, V2 any](t rows[K, V], f func(V) V2) rows[K, V2] {
	t.b.given(f != nil)
	null := nullness[V2]()
	return derive(t, "mapValues", false, func(_ K, v V, live bool) (v2 V2, ok bool, err error) {
		if live {
			v2 = f(v)
		}
		return v2, live && !null.of(v2), nil
	})
}

// TryMapValues is the table with f of each row. The record has key and value only: a row is computed whenever it is looked at.
func (t *KTable[K, V]) TryMapValues[V2 any](f func(Record[K, V]) (V2, error)) *KTable[K, V2] {
	return &KTable[K, V2]{tryMapRows(t.rows, f)}
}

func tryMapRows[K, V, V2 any](t rows[K, V], f func(Record[K, V]) (V2, error)) rows[K, V2] {
	t.b.given(f != nil)
	null := nullness[V2]()
	return derive(t, "mapValues", false, func(k K, v V, live bool) (v2 V2, ok bool, err error) {
		if live {
			v2, err = f(Record[K, V]{Key: k, Value: v})
		}
		return v2, live && !null.of(v2), err
	})
}

// TransformValues is TryMapValues for a function that sees rows which are not there as well, as null: it can make rows of
// nothing.
func (t *KTable[K, V]) TransformValues[V2 any](f func(Record[K, V]) (V2, error)) *KTable[K, V2] {
	t.b.given(f != nil)
	null := nullness[V2]()
	return &KTable[K, V2]{derive(t.rows, "transformValues", false, func(k K, v V, live bool) (V2, bool, error) {
		v2, err := f(Record[K, V]{Key: k, Value: v, Null: !live})
		return v2, !null.of(v2), err
	})}
}
