package stream

import (
	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/topology"
	"github.com/moldau/moldau/window"
)

// JoinTable gives each record of the stream the table's value of its key, as it is when the record comes; of a versioned table, as
// it is at the time of the record. Without one nothing comes out. Records with a null key or value are dropped. Updates of the table bring nothing out.
// The result has time and headers of the record. With a buffer, for which the table must be versioned, records wait for its grace,
// so that they find rows that come after them but are of their time or before it.
func (s *KStream[K, V]) JoinTable[V2, R any](t *KTable[K, V2], j func(V, V2) R, wait ...state.Buffer[K, V]) *KStream[K, R] {
	return &KStream[K, R]{s.b, joinTable(s.b, s.n, t, "joinTable", lookup[K, V, K, V2, R]{key: same[K, V], inner: plain[K](s.b, j)}, wait...)}
}

// LeftJoinTable is JoinTable that lets records pass without a value of the table: then it is nil, also for a null key.
func (s *KStream[K, V]) LeftJoinTable[V2, R any](t *KTable[K, V2], j func(V, *V2) R, wait ...state.Buffer[K, V]) *KStream[K, R] {
	return &KStream[K, R]{s.b, joinTable(s.b, s.n, t, "leftJoinTable", lookup[K, V, K, V2, R]{key: same[K, V], left: plain[K](s.b, j)}, wait...)}
}

// TryJoinTable is JoinTable with the record, and a function that may fail.
func (s *KStream[K, V]) TryJoinTable[V2, R any](t *KTable[K, V2], j func(Record[K, V], V2) (R, error), wait ...state.Buffer[K, V]) *KStream[K, R] {
	return &KStream[K, R]{s.b, joinTable(s.b, s.n, t, "joinTable", lookup[K, V, K, V2, R]{key: same[K, V], inner: full(s.b, j)}, wait...)}
}

// TryLeftJoinTable is LeftJoinTable with the record, and a function that may fail.
func (s *KStream[K, V]) TryLeftJoinTable[V2, R any](t *KTable[K, V2], j func(Record[K, V], *V2) (R, error), wait ...state.Buffer[K, V]) *KStream[K, R] {
	return &KStream[K, R]{s.b, joinTable(s.b, s.n, t, "leftJoinTable", lookup[K, V, K, V2, R]{key: same[K, V], left: full(s.b, j)}, wait...)}
}

// JoinGlobal gives each record the global table's value of a key computed from it; without one nothing comes out. Records
// with a null value, or for which that key is nil, are dropped.
func (s *KStream[K, V]) JoinGlobal[GK, GV, R any](g *GlobalKTable[GK, GV], key func(K, V) GK, j func(V, GV) R) *KStream[K, R] {
	return &KStream[K, R]{s.b, joinGlobal(s.b, s.n, g, "joinGlobal", lookup[K, V, GK, GV, R]{key: mapped(s.b, key), inner: plain[K](s.b, j)})}
}

// LeftJoinGlobal is JoinGlobal that lets records pass without a value of the table: then it is nil.
func (s *KStream[K, V]) LeftJoinGlobal[GK, GV, R any](g *GlobalKTable[GK, GV], key func(K, V) GK, j func(V, *GV) R) *KStream[K, R] {
	return &KStream[K, R]{s.b, joinGlobal(s.b, s.n, g, "leftJoinGlobal", lookup[K, V, GK, GV, R]{key: mapped(s.b, key), left: plain[K](s.b, j)})}
}

// TryJoinGlobal is JoinGlobal with the record, and a function that may fail.
func (s *KStream[K, V]) TryJoinGlobal[GK, GV, R any](g *GlobalKTable[GK, GV], key func(K, V) GK, j func(Record[K, V], GV) (R, error)) *KStream[K, R] {
	return &KStream[K, R]{s.b, joinGlobal(s.b, s.n, g, "joinGlobal", lookup[K, V, GK, GV, R]{key: mapped(s.b, key), inner: full(s.b, j)})}
}

// TryLeftJoinGlobal is LeftJoinGlobal with the record, and a function that may fail.
func (s *KStream[K, V]) TryLeftJoinGlobal[GK, GV, R any](g *GlobalKTable[GK, GV], key func(K, V) GK, j func(Record[K, V], *GV) (R, error)) *KStream[K, R] {
	return &KStream[K, R]{s.b, joinGlobal(s.b, s.n, g, "leftJoinGlobal", lookup[K, V, GK, GV, R]{key: mapped(s.b, key), left: full(s.b, j)})}
}

// JoinTable joins with a table by the inner key: no repartitioning, since windowed keys are partitioned by it.
func (s *WindowedKStream[K, V]) JoinTable[V2, R any](t *KTable[K, V2], j func(window.Key[K], V, V2) R) *WindowedKStream[K, R] {
	return &WindowedKStream[K, R]{s.b, joinTable(s.b, s.n, t, "joinTable", lookup[window.Key[K], V, K, V2, R]{key: inner[K, V], inner: keyed(s.b, j)})}
}

// LeftJoinTable is JoinTable that lets records pass without a value of the table: then it is nil.
func (s *WindowedKStream[K, V]) LeftJoinTable[V2, R any](t *KTable[K, V2], j func(window.Key[K], V, *V2) R) *WindowedKStream[K, R] {
	return &WindowedKStream[K, R]{s.b, joinTable(s.b, s.n, t, "leftJoinTable", lookup[window.Key[K], V, K, V2, R]{key: inner[K, V], left: keyed(s.b, j)})}
}

// JoinGlobal joins with a global table by the inner key.
func (s *WindowedKStream[K, V]) JoinGlobal[V2, R any](g *GlobalKTable[K, V2], j func(window.Key[K], V, V2) R) *WindowedKStream[K, R] {
	return &WindowedKStream[K, R]{s.b, joinGlobal(s.b, s.n, g, "joinGlobal", lookup[window.Key[K], V, K, V2, R]{key: inner[K, V], inner: keyed(s.b, j)})}
}

// LeftJoinGlobal is JoinGlobal that lets records pass without a value of the table: then it is nil.
func (s *WindowedKStream[K, V]) LeftJoinGlobal[V2, R any](g *GlobalKTable[K, V2], j func(window.Key[K], V, *V2) R) *WindowedKStream[K, R] {
	return &WindowedKStream[K, R]{s.b, joinGlobal(s.b, s.n, g, "leftJoinGlobal", lookup[window.Key[K], V, K, V2, R]{key: inner[K, V], left: keyed(s.b, j)})}
}

// lookup joins a record of [K, V] with a row of [GK, GV]. One of inner and left is set.
type lookup[K, V, GK, GV, R any] struct {
	key   func(c *flow.Ctx, k K, v V) (gk GK, ok bool) // ok=false: null
	inner func(c *flow.Ctx, k K, v V, gv GV) (R, error)
	left  func(c *flow.Ctx, k K, v V, gv *GV) (R, error)
}

func same[K, V any](c *flow.Ctx, k K, _ V) (K, bool)              { return k, !c.KeyNull }
func inner[K, V any](c *flow.Ctx, k window.Key[K], _ V) (K, bool) { return k.Key, !c.KeyNull }

func mapped[K, V, GK any](b *Builder, f func(K, V) GK) func(*flow.Ctx, K, V) (GK, bool) {
	b.given(f != nil)
	null := nullness[GK]()
	return func(_ *flow.Ctx, k K, v V) (GK, bool) {
		gk := f(k, v)
		return gk, !null.of(gk)
	}
}

func plain[K, V, S, R any](b *Builder, j func(V, S) R) func(*flow.Ctx, K, V, S) (R, error) {
	b.given(j != nil)
	return func(_ *flow.Ctx, _ K, v V, s S) (R, error) { return j(v, s), nil }
}

func keyed[K, V, S, R any](b *Builder, j func(K, V, S) R) func(*flow.Ctx, K, V, S) (R, error) {
	b.given(j != nil)
	return func(_ *flow.Ctx, k K, v V, s S) (R, error) { return j(k, v, s), nil }
}

func full[K, V, S, R any](b *Builder, j func(Record[K, V], S) (R, error)) func(*flow.Ctx, K, V, S) (R, error) {
	b.given(j != nil)
	return func(c *flow.Ctx, k K, v V, s S) (R, error) { return j(record(c, k, v), s) }
}

// wire makes the operator, over what reads the table.
func (l lookup[K, V, GK, GV, R]) wire(env flow.Env, node int, get getter[GK, GV], down fn[K, R]) fn[K, V] {
	null := nullness[R]()
	return func(c *flow.Ctx, k K, v V) {
		if c.Null {
			env.Dropped(node, nullValue)
			return
		}
		c.Node = node
		gk, ok := l.key(c, k, v)
		if !ok && l.left == nil {
			env.Dropped(node, nullKey)
			return
		}
		var gv GV
		if ok {
			if gv, _, ok = get(c, gk); c.Missed() {
				return
			}
		}
		var r R
		var err error
		c.Node = node
		switch {
		case l.left != nil && ok:
			found := gv // a copy of its own, since the pointer may be kept
			r, err = l.left(c, k, v, &found)
		case l.left != nil:
			r, err = l.left(c, k, v, nil)
		case ok:
			r, err = l.inner(c, k, v, gv)
		default:
			return
		}
		if err != nil {
			c.Fail(node, err)
			return
		}
		c.Null = null.of(r)
		down(c, k, r)
		c.Null = false
	}
}

func joinTable[K, V, TK, V2, R any](b *Builder, from *topology.Node, t *KTable[TK, V2], kind string, l lookup[K, V, TK, V2, R], wait ...state.Buffer[K, V]) *topology.Node {
	if !b.mine(t != nil && t.b == b) {
		return from
	}
	n := &topology.Node{Kind: kind, Parents: []*topology.Node{from}, With: []*topology.Node{t.n}, Stores: t.stores, ReadsOnly: true, Keyed: true, At: where()}
	t.mustView(n.At)
	if l.left != nil {
		b.keepNullKeys(from)
	}
	s := b.buffer(n, t.rows, wait)
	return add(b, n, func(env flow.Env, down fn[K, R]) (fn[K, V], error) {
		join := l.wire(env, n.ID, t.lookup(env), down)
		if s != nil {
			join = waiting(env, n.ID, s, join)
		}
		return join, nil
	})
}

func joinGlobal[K, V, GK, GV, R any](b *Builder, from *topology.Node, g *GlobalKTable[GK, GV], kind string, l lookup[K, V, GK, GV, R]) *topology.Node {
	global := g.global(b)
	if global == nil {
		return from
	}
	n := &topology.Node{Kind: kind, Parents: []*topology.Node{from}, Globals: []*topology.Global{global}, ReadsOnly: true, At: where()}
	if l.left != nil {
		b.keepNullKeys(from)
	}
	return add(b, n, func(env flow.Env, down fn[K, R]) (fn[K, V], error) {
		return l.wire(env, n.ID, g.view(env, n.ID), down), nil
	})
}

// lookup reads the table for records of a stream: a versioned one as of their own time.
func (t rows[K, V]) lookup(env flow.Env) getter[K, V] {
	if t.past == nil {
		return t.view(env, false)
	}
	get := t.past(env)
	return func(c *flow.Ctx, k K) (v V, at int64, ok bool) {
		v, ok = get(c, k, c.Time)
		return v, 0, ok
	}
}

// mustView notes a table that nobody keeps where one must be looked up.
func (t rows[K, V]) mustView(at string) {
	if t.view == nil {
		t.b.graph.Fail(topology.ErrHandle, at, "the table made at %s is looked up here, but nobody keeps it; use Table or Stored with a store", t.n.At)
	}
}
