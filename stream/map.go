package stream

import (
	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/topology"
)

// MapValues replaces each value by f of it.
func (s *KStream[K, V]) MapValues[V2 any](f func(V) V2) *KStream[K, V2] {
	return &KStream[K, V2]{s.b, mapValues[K](s.b, s.n, f)}
}

func mapValues[K, V, V2 any](b *Builder, from *topology.Node, f func(V) V2) *topology.Node {
	b.given(f != nil)
	null, null2 := nullness[V](), nullness[V2]()
	return step(b, "mapValues", from, false, func(id int, down fn[K, V2]) fn[K, V] {
		return func(c *flow.Ctx, k K, v V) {
			var v2 V2
			was := c.Null
			c.Node = id
			if !null.hides(was) {
				v2 = f(v)
				c.Null = null2.of(v2)
			}
			down(c, k, v2)
			c.Null = was
		}
	})
}

// TryMapValues replaces each value, null or not, by f of its record.
func (s *KStream[K, V]) TryMapValues[V2 any](f func(Record[K, V]) (V2, error)) *KStream[K, V2] {
	return &KStream[K, V2]{s.b, tryMapValues(s.b, s.n, f)}
}

// FlatMapValues replaces each value by any number of values.
func (s *KStream[K, V]) FlatMapValues[V2 any](f func(V) []V2) *KStream[K, V2] {
	s.b.given(f != nil)
	null, null2 := nullness[V](), nullness[V2]()
	return &KStream[K, V2]{s.b, step(s.b, "flatMapValues", s.n, false, func(id int, down fn[K, V2]) fn[K, V] {
		return func(c *flow.Ctx, k K, v V) {
			was := c.Null
			if null.hides(was) {
				var none V2
				down(c, k, none)
				return
			}
			c.Node = id
			for _, v2 := range f(v) {
				c.Null = null2.of(v2)
				if down(c, k, v2); c.Err != nil {
					return
				}
			}
			c.Null = was
		}
	})}
}

// TryFlatMapValues replaces each value, null or not, by any number of values.
func (s *KStream[K, V]) TryFlatMapValues[V2 any](f func(Record[K, V]) ([]V2, error)) *KStream[K, V2] {
	s.b.given(f != nil)
	null2 := nullness[V2]()
	return &KStream[K, V2]{s.b, step(s.b, "flatMapValues", s.n, false, func(id int, down fn[K, V2]) fn[K, V] {
		return func(c *flow.Ctx, k K, v V) {
			was := c.Null
			c.Node = id
			all, err := f(record(c, k, v))
			if err != nil {
				c.Fail(id, err)
				return
			}
			for _, v2 := range all {
				c.Null = null2.of(v2)
				if down(c, k, v2); c.Err != nil {
					return
				}
			}
			c.Null = was
		}
	})}
}

// Map replaces key and value. Where a null value has no nil, f sees zero, its key counts and the value stays null.
func (s *KStream[K, V]) Map[K2, V2 any](f func(K, V) (K2, V2)) *KStream[K2, V2] {
	return &KStream[K2, V2]{s.b, mapBoth(s.b, s.n, f)}
}

func mapBoth[K, V, K2, V2 any](b *Builder, from *topology.Node, f func(K, V) (K2, V2)) *topology.Node {
	b.given(f != nil)
	null, nullK2, null2 := nullness[V](), nullness[K2](), nullness[V2]()
	return step(b, "map", from, true, func(id int, down fn[K2, V2]) fn[K, V] {
		return func(c *flow.Ctx, k K, v V) {
			wasKey, was := c.KeyNull, c.Null
			c.Node = id
			k2, v2 := f(k, v)
			c.KeyNull = nullK2.of(k2)
			if null.hides(was) {
				var none V2
				v2 = none
			} else {
				c.Null = null2.of(v2)
			}
			down(c, k2, v2)
			c.KeyNull, c.Null = wasKey, was
		}
	})
}

// TryMap replaces key and value by those of the record that f returns; its time and headers count as well.
func (s *KStream[K, V]) TryMap[K2, V2 any](f func(Record[K, V]) (Record[K2, V2], error)) *KStream[K2, V2] {
	s.b.given(f != nil)
	return &KStream[K2, V2]{s.b, step(s.b, "map", s.n, true, func(id int, down fn[K2, V2]) fn[K, V] {
		return func(c *flow.Ctx, k K, v V) {
			c.Node = id
			r, err := f(record(c, k, v))
			if err != nil {
				c.Fail(id, err)
				return
			}
			forward(c, down, r)
		}
	})}
}

// FlatMap emits any number of records through yield; it sees nulls.
func (s *KStream[K, V]) FlatMap[K2, V2 any](f func(r Record[K, V], yield func(K2, V2)) error) *KStream[K2, V2] {
	s.b.given(f != nil)
	nullK2, null2 := nullness[K2](), nullness[V2]()
	return &KStream[K2, V2]{s.b, step(s.b, "flatMap", s.n, true, func(id int, down fn[K2, V2]) fn[K, V] {
		var c *flow.Ctx
		yield := func(k2 K2, v2 V2) {
			if c.Err == nil {
				c.KeyNull, c.Null = nullK2.of(k2), null2.of(v2)
				down(c, k2, v2)
				c.Node = id
			}
		}
		return func(ctx *flow.Ctx, k K, v V) {
			wasKey, was := ctx.KeyNull, ctx.Null
			outer := c
			c, ctx.Node = ctx, id
			err := f(record(ctx, k, v), yield)
			c = outer
			if err != nil {
				ctx.Fail(id, err)
				return
			}
			ctx.KeyNull, ctx.Null = wasKey, was
		}
	})}
}

// SelectKey gives each record a new key. Where a null value has no nil, f sees zero.
func (s *KStream[K, V]) SelectKey[K2 any](f func(K, V) K2) *KStream[K2, V] {
	return &KStream[K2, V]{s.b, selectKey(s.b, s.n, f)}
}

func selectKey[K, V, K2 any](b *Builder, from *topology.Node, f func(K, V) K2) *topology.Node {
	b.given(f != nil)
	null := nullness[K2]()
	return step(b, "selectKey", from, true, func(id int, down fn[K2, V]) fn[K, V] {
		return func(c *flow.Ctx, k K, v V) {
			was := c.KeyNull
			c.Node = id
			k2 := f(k, v)
			c.KeyNull = null.of(k2)
			down(c, k2, v)
			c.KeyNull = was
		}
	})
}

// TrySelectKey gives each record a new key; ok=false makes it null.
func (s *KStream[K, V]) TrySelectKey[K2 any](f func(Record[K, V]) (k K2, ok bool, err error)) *KStream[K2, V] {
	s.b.given(f != nil)
	null := nullness[K2]()
	return &KStream[K2, V]{s.b, step(s.b, "selectKey", s.n, true, func(id int, down fn[K2, V]) fn[K, V] {
		return func(c *flow.Ctx, k K, v V) {
			was := c.KeyNull
			c.Node = id
			k2, ok, err := f(record(c, k, v))
			if err != nil {
				c.Fail(id, err)
				return
			}
			if c.KeyNull = !ok || null.of(k2); c.KeyNull {
				var none K2
				k2 = none
			}
			down(c, k2, v)
			c.KeyNull = was
		}
	})}
}

// forward sends a record on as it is, and puts the context back.
func forward[K, V any](c *flow.Ctx, down fn[K, V], r Record[K, V]) {
	time, headers, keyNull, null, node := c.Time, c.Headers, c.KeyNull, c.Null, c.Node
	c.Time, c.Headers = r.Time.UnixMilli(), r.Headers
	c.KeyNull, c.Null = r.KeyNull || nullness[K]().of(r.Key), r.Null || nullness[V]().of(r.Value)
	down(c, r.Key, r.Value)
	c.Time, c.Headers, c.KeyNull, c.Null, c.Node = time, headers, keyNull, null, node
}

// tryMapValues is TryMapValues for any kind of stream.
func tryMapValues[K, V, V2 any](b *Builder, from *topology.Node, f func(Record[K, V]) (V2, error)) *topology.Node {
	b.given(f != nil)
	null2 := nullness[V2]()
	return step(b, "mapValues", from, false, func(id int, down fn[K, V2]) fn[K, V] {
		return func(c *flow.Ctx, k K, v V) {
			was := c.Null
			c.Node = id
			v2, err := f(record(c, k, v))
			if err != nil {
				c.Fail(id, err)
				return
			}
			c.Null = null2.of(v2)
			down(c, k, v2)
			c.Null = was
		}
	})
}
