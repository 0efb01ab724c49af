package stream

import (
	"strconv"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/table"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/topology"
	"github.com/moldau/moldau/window"
)

// CogroupedKStream is several grouped streams, of whatever values, that are folded into one aggregate.
type CogroupedKStream[K, A any] struct {
	b      *Builder
	inputs []coinput[K, A]
}

// coinput is one of the streams: how it is folded into a store, by a node whose updates go on to the node all.
type coinput[K, A any] struct {
	plain    func(all *topology.Node, s *topology.Store) *topology.Node
	windowed func(all *topology.Node, s *topology.Store, w windowing, cell string) *topology.Node
	sessions func(all *topology.Node, s *topology.Store, w window.SessionWindows, cell string, merge func(A, A) A) *topology.Node
}

// Cogroup begins a co-grouping with this stream and how its values are folded in, from the zero value on.
func (g *KGroupedStream[K, V]) Cogroup[A any](f func(A, V) A) *CogroupedKStream[K, A] {
	return &CogroupedKStream[K, A]{g.b, []coinput[K, A]{coinputOf(g, aggregating[K](g.b, f))}}
}

// CogroupFold is Cogroup with a start other than zero, the key, errors, and results that delete.
func (g *KGroupedStream[K, V]) CogroupFold[A any](f Fold[K, V, A]) *CogroupedKStream[K, A] {
	return &CogroupedKStream[K, A]{g.b, []coinput[K, A]{coinputOf(g, folding(g.b, f))}}
}

// And adds a stream and how its values are folded in.
func (c *CogroupedKStream[K, A]) And[V any](g *KGroupedStream[K, V], f func(A, V) A) *CogroupedKStream[K, A] {
	return c.and(g, aggregating[K](c.b, f))
}

// AndFold is And with a start other than zero, the key, errors, and results that delete.
func (c *CogroupedKStream[K, A]) AndFold[V any](g *KGroupedStream[K, V], f Fold[K, V, A]) *CogroupedKStream[K, A] {
	return c.and(g, folding(c.b, f))
}

func (c *CogroupedKStream[K, A]) and[V any](g *KGroupedStream[K, V], add adder[K, V, A]) *CogroupedKStream[K, A] {
	if !c.b.mine(g != nil && g.b == c.b) {
		return c
	}
	return &CogroupedKStream[K, A]{c.b, append(c.inputs[:len(c.inputs):len(c.inputs)], coinputOf(g, add))}
}

func coinputOf[K, V, A any](g *KGroupedStream[K, V], add adder[K, V, A]) coinput[K, A] {
	return coinput[K, A]{
		plain: func(all *topology.Node, s *topology.Store) *topology.Node {
			n := &topology.Node{Kind: "cogroup", Parents: []*topology.Node{g.n}, Stores: []*topology.Store{s}, Keyed: true, At: all.At}
			n.Wire = func(env flow.Env, children []any) (any, error) {
				return aggregator(env, n, keeping(env, n.ID, all, s, fan[K, change[A]](children)), add), nil
			}
			return g.b.graph.Add(n)
		},
		windowed: func(all *topology.Node, s *topology.Store, w windowing, cell string) *topology.Node {
			by := windowedBy(g, w)
			by.n.At = all.At
			by.settle(s, cell)
			n := &topology.Node{Kind: "cogroup", Parents: []*topology.Node{by.n}, Stores: []*topology.Store{s}, Keyed: true, At: all.At}
			n.Wire = func(env flow.Env, children []any) (any, error) {
				return wfn[K, V](newPanes(env, n.ID, all, s, w, add, fan[window.Key[K], change[A]](children)).process), nil
			}
			return g.b.graph.Add(n)
		},
		sessions: func(all *topology.Node, s *topology.Store, w window.SessionWindows, cell string, merge func(A, A) A) *topology.Node {
			by := sessionsBy(g, w)
			by.n.At = all.At
			by.settle(s, cell)
			n := &topology.Node{Kind: "cogroup", Parents: []*topology.Node{by.n}, Stores: []*topology.Store{s}, Keyed: true, At: all.At}
			n.Wire = func(env flow.Env, children []any) (any, error) {
				p := newSessions(env, n.ID, all, s, w, merging[K, V, A]{add, plainly[K](merge)}, fan[window.Key[K], change[A]](children))
				return sfn[K, V](p.process), nil
			}
			return g.b.graph.Add(n)
		},
	}
}

// join makes the nodes of all inputs and the one where their updates meet, which keeps the store.
func (c *CogroupedKStream[K, A]) join(at string, h state.Handle, input func(i int, in coinput[K, A], all *topology.Node, s *topology.Store) *topology.Node) (*topology.Node, *topology.Store) {
	all := &topology.Node{Kind: "cogroupAll", Keyed: true, At: at}
	s := c.b.graph.Own(spec(h), at, all)
	for i, in := range c.inputs {
		all.Parents = append(all.Parents, input(i, in, all, s))
	}
	return all, s
}

// Aggregate folds the values of each key, of all streams, into one aggregate.
func (c *CogroupedKStream[K, A]) Aggregate(h state.Table[K, A]) *KTable[K, A] {
	all, s := c.join(where(), h, func(_ int, in coinput[K, A], all *topology.Node, s *topology.Store) *topology.Node {
		return in.plain(all, s)
	})
	addTable(c.b, all, func(env flow.Env, down tfn[K, A], alone bool) (tfn[K, A], error) {
		if !alone && !s.Spec.EveryUpdate {
			env.Flush(all.ID, keeping(env, all.ID, all, s, down))
		}
		return down, nil
	})
	return stored[K, A](c.b, all, s)
}

// WindowedBy groups by time windows as well. Each of the streams has its own stream time.
func (c *CogroupedKStream[K, A]) WindowedBy(w window.TimeWindows) *TimeWindowedCogroupedKStream[K, A] {
	return &TimeWindowedCogroupedKStream[K, A]{c, windowing{time: w}}
}

// SlidingBy groups by sliding windows as well. Each of the streams has its own stream time.
func (c *CogroupedKStream[K, A]) SlidingBy(w window.SlidingWindows) *TimeWindowedCogroupedKStream[K, A] {
	return &TimeWindowedCogroupedKStream[K, A]{c, windowing{sliding: w, slides: true}}
}

// TimeWindowedCogroupedKStream is a co-grouping cut into time or sliding windows.
type TimeWindowedCogroupedKStream[K, A any] struct {
	c *CogroupedKStream[K, A]
	w windowing
}

// Aggregate folds the values of each key and window, of all streams, into one aggregate.
func (g *TimeWindowedCogroupedKStream[K, A]) Aggregate(h state.Window[K, A]) *WindowedKTable[K, A] {
	all, s := g.c.join(where(), h, func(i int, in coinput[K, A], all *topology.Node, s *topology.Store) *topology.Node {
		return in.windowed(all, s, g.w, s.Spec.Name+"."+strconv.Itoa(i))
	})
	all.Wire = func(env flow.Env, children []any) (any, error) {
		down := fan[window.Key[K], change[A]](children)
		if len(children) > 0 && !s.Spec.EveryUpdate {
			env.Flush(all.ID, &panes[K, A, A]{store: env.Store(s.Spec.Name).(*table.Windows[K, A]), node: all.ID, w: g.w, down: down})
		}
		return down, nil
	}
	g.c.b.graph.Add(all)
	return storedWindows[K, A](g.c.b, all, s, g.w, false)
}

// SessionsBy groups by sessions as well. Each of the streams has its own stream time.
func (c *CogroupedKStream[K, A]) SessionsBy(w window.SessionWindows) *SessionWindowedCogroupedKStream[K, A] {
	return &SessionWindowedCogroupedKStream[K, A]{c, w}
}

// SessionWindowedCogroupedKStream is a co-grouping cut into sessions.
type SessionWindowedCogroupedKStream[K, A any] struct {
	c *CogroupedKStream[K, A]
	w window.SessionWindows
}

// Aggregate folds the values of each key and session, of all streams, into one aggregate. merge is as in
// SessionWindowedKStream.Aggregate; what it is called with first is what the stream of the record in hand starts from.
func (g *SessionWindowedCogroupedKStream[K, A]) Aggregate(h state.Session[K, A], merge func(A, A) A) *WindowedKTable[K, A] {
	g.c.b.given(merge != nil)
	all, s := g.c.join(where(), h, func(i int, in coinput[K, A], all *topology.Node, s *topology.Store) *topology.Node {
		return in.sessions(all, s, g.w, s.Spec.Name+"."+strconv.Itoa(i), merge)
	})
	all.Wire = func(env flow.Env, children []any) (any, error) {
		down := fan[window.Key[K], change[A]](children)
		if len(children) > 0 && !s.Spec.EveryUpdate {
			env.Flush(all.ID, &sessions[K, A, A]{store: env.Store(s.Spec.Name).(*table.Sessions[K, A]), node: all.ID, down: down})
		}
		return down, nil
	}
	g.c.b.graph.Add(all)
	return storedSessions[K, A](g.c.b, all, s, g.w, false)
}
