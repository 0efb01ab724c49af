package stream

import (
	"slices"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/topology"
)

// KStream is a stream of records: each stands for itself. Methods add operators and return what comes out of them; one
// stream may have any number of them, called in the order in which they were added.
type KStream[K, V any] struct {
	b *Builder
	n *topology.Node
}

// Named labels the last operator in metrics, errors and descriptions. Durable names never come from it.
func (s *KStream[K, V]) Named(label string) *KStream[K, V] {
	s.n.Name = label
	return s
}

// AssumePartitioned vouches that records of one key are in one partition although a step before has changed keys.
func (s *KStream[K, V]) AssumePartitioned() *KStream[K, V] {
	n := step(s.b, "assumePartitioned", s.n, false, func(_ int, down fn[K, V]) fn[K, V] { return down })
	n.Partitioned = true
	return &KStream[K, V]{s.b, n}
}

// Filter keeps the records for which f is true.
func (s *KStream[K, V]) Filter(f func(K, V) bool) *KStream[K, V] {
	return &KStream[K, V]{s.b, filter(s.b, s.n, "filter", true, f)}
}

// FilterNot keeps the records for which f is false.
func (s *KStream[K, V]) FilterNot(f func(K, V) bool) *KStream[K, V] {
	return &KStream[K, V]{s.b, filter(s.b, s.n, "filterNot", false, f)}
}

func filter[K, V any](b *Builder, from *topology.Node, kind string, want bool, f func(K, V) bool) *topology.Node {
	b.given(f != nil)
	null := nullness[V]()
	return step(b, kind, from, false, func(id int, down fn[K, V]) fn[K, V] {
		return func(c *flow.Ctx, k K, v V) {
			c.Node = id
			if null.hides(c.Null) || f(k, v) == want {
				down(c, k, v)
			}
		}
	})
}

// TryFilter keeps the records for which f is true; it sees nulls.
func (s *KStream[K, V]) TryFilter(f func(Record[K, V]) (bool, error)) *KStream[K, V] {
	return &KStream[K, V]{s.b, tryFilter(s.b, s.n, f)}
}

func tryFilter[K, V any](b *Builder, from *topology.Node, f func(Record[K, V]) (bool, error)) *topology.Node {
	b.given(f != nil)
	return step(b, "filter", from, false, func(id int, down fn[K, V]) fn[K, V] {
		return func(c *flow.Ctx, k K, v V) {
			c.Node = id
			keep, err := f(record(c, k, v))
			if err != nil {
				c.Fail(id, err)
			} else if keep {
				down(c, k, v)
			}
		}
	})
}

// Peek calls f for each record and passes it on.
func (s *KStream[K, V]) Peek(f func(K, V)) *KStream[K, V] {
	return &KStream[K, V]{s.b, peek(s.b, s.n, f)}
}

func peek[K, V any](b *Builder, from *topology.Node, f func(K, V)) *topology.Node {
	b.given(f != nil)
	null := nullness[V]()
	return step(b, "peek", from, false, func(id int, down fn[K, V]) fn[K, V] {
		return func(c *flow.Ctx, k K, v V) {
			c.Node = id
			if !null.hides(c.Null) {
				f(k, v)
			}
			down(c, k, v)
		}
	})
}

// TryPeek calls f for each record, nulls included, and passes it on.
func (s *KStream[K, V]) TryPeek(f func(Record[K, V]) error) *KStream[K, V] {
	s.b.given(f != nil)
	return &KStream[K, V]{s.b, step(s.b, "peek", s.n, false, func(id int, down fn[K, V]) fn[K, V] {
		return func(c *flow.Ctx, k K, v V) {
			c.Node = id
			if err := f(record(c, k, v)); err != nil {
				c.Fail(id, err)
				return
			}
			down(c, k, v)
		}
	})}
}

// Foreach calls f for each record, nulls included; the stream ends there. What f does outside of Kafka is done again
// when an epoch is run again.
func (s *KStream[K, V]) Foreach(f func(Record[K, V]) error) { foreach(s.b, s.n, f) }

func foreach[K, V any](b *Builder, from *topology.Node, f func(Record[K, V]) error) {
	b.given(f != nil)
	step(b, "foreach", from, false, func(id int, _ fn[K, V]) fn[K, V] {
		return func(c *flow.Ctx, k K, v V) {
			c.Node = id
			if err := f(record(c, k, v)); err != nil {
				c.Fail(id, err)
			}
		}
	})
}

// Merge is both streams in one, without any order between them. A stream merged with itself stays as it is, as in Kafka Streams.
func (s *KStream[K, V]) Merge(o *KStream[K, V]) *KStream[K, V] {
	if !s.b.mine(o != nil && o.b == s.b) {
		return s
	}
	return &KStream[K, V]{s.b, merge[K, V](s.b, s.n, o.n)}
}

func merge[K, V any](b *Builder, parents ...*topology.Node) *topology.Node {
	return add(b, &topology.Node{Kind: "merge", Parents: slices.Compact(parents)}, func(_ flow.Env, down fn[K, V]) (fn[K, V], error) { return down, nil })
}

// Repartition sends the stream through a topic of its own, so that records of one key meet in one task. Null keys are
// left out.
func (s *KStream[K, V]) Repartition(t Repartition[K, V]) *KStream[K, V] {
	return &KStream[K, V]{s.b, s.b.through(s.n, t)}
}

// GroupByKey groups records by the key they have.
func (s *KStream[K, V]) GroupByKey() *KGroupedStream[K, V] { return &KGroupedStream[K, V]{s.b, s.n} }

// GroupBy groups records by a new key; they go through the repartition topic t. Null keys are left out.
func (s *KStream[K, V]) GroupBy[K2 any](t Repartition[K2, V], f func(K, V) K2) *KGroupedStream[K2, V] {
	return &KGroupedStream[K2, V]{s.b, s.b.through(s.SelectKey(f).n, t)}
}

// Branches are the branches of a Split, in the order of the calls of When and TryWhen.
type Branches[K, V any] struct {
	s     *KStream[K, V]
	n     *topology.Node
	tests []test[K, V]
	rest  int // index of the child that takes the rest; -1: none
	kids  int
}

// test is a condition of one form or the other; the zero value is none.
type test[K, V any] struct {
	when func(K, V) bool
	try  func(Record[K, V]) (bool, error)
}

// Split divides the stream: each record goes to the first branch whose condition holds, else to Rest; where nobody asks for
// Rest, it is dropped. A null value of a type without nil meets no condition.
func (s *KStream[K, V]) Split() *Branches[K, V] {
	b := &Branches[K, V]{s: s, rest: -1}
	b.n = &topology.Node{Kind: "split", Parents: []*topology.Node{s.n}, At: where()}
	null := nullness[V]()
	b.n.Wire = func(_ flow.Env, children []any) (any, error) {
		fns := make([]fn[K, V], len(children))
		for i, c := range children {
			fns[i] = c.(fn[K, V])
		}
		var tests []test[K, V]
		var downs []fn[K, V]
		for i, f := range fns {
			if i != b.rest {
				tests, downs = append(tests, b.tests[i]), append(downs, f)
			}
		}
		return fn[K, V](func(c *flow.Ctx, k K, v V) {
			c.Node = b.n.ID
			hidden := null.hides(c.Null)
			for i, test := range tests {
				var holds bool
				if test.try != nil {
					var err error
					if holds, err = test.try(record(c, k, v)); err != nil {
						c.Fail(b.n.ID, err)
						return
					}
				} else {
					holds = !hidden && test.when(k, v)
				}
				if holds {
					downs[i](c, k, v)
					return
				}
			}
			if b.rest >= 0 {
				fns[b.rest](c, k, v)
			}
		}), nil
	}
	s.b.graph.Add(b.n)
	return b
}

// When is the branch of the records for which f is the first condition that holds.
func (b *Branches[K, V]) When(f func(K, V) bool) *KStream[K, V] {
	b.s.b.given(f != nil)
	return b.branch(test[K, V]{when: f})
}

// TryWhen is When for a condition that sees nulls. A record on which it fails goes to no branch.
func (b *Branches[K, V]) TryWhen(f func(Record[K, V]) (bool, error)) *KStream[K, V] {
	b.s.b.given(f != nil)
	return b.branch(test[K, V]{try: f})
}

// Rest is the branch of the records that met no condition. There is one, however often it is asked for.
func (b *Branches[K, V]) Rest() *KStream[K, V] {
	if b.rest >= 0 {
		b.s.b.graph.Fail(topology.ErrConflict, where(), "Rest was asked for before; a split has one")
	}
	b.rest = b.kids
	return b.branch(test[K, V]{})
}

func (b *Branches[K, V]) branch(f test[K, V]) *KStream[K, V] {
	b.tests = append(b.tests, f)
	b.kids++
	return &KStream[K, V]{b.s.b, step(b.s.b, "branch", b.n, false, func(_ int, down fn[K, V]) fn[K, V] { return down })}
}
