package stream

import (
	"slices"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/topology"
)

// Join is the table of the keys that both tables have. It follows updates of either; its rows have the later time of both.
func (t *KTable[K, V]) Join[V2, R any](o *KTable[K, V2], j func(V, V2) R) *KTable[K, R] {
	t.b.given(j != nil)
	return &KTable[K, R]{joinRows(t.rows, o, "join", matching[V, V2, R]{
		join: func(v *V, v2 *V2) R { return j(*v, *v2) }})}
}

// LeftJoin is the table of the keys of t; what o does not have is nil.
func (t *KTable[K, V]) LeftJoin[V2, R any](o *KTable[K, V2], j func(V, *V2) R) *KTable[K, R] {
	t.b.given(j != nil)
	return &KTable[K, R]{joinRows(t.rows, o, "leftJoin", matching[V, V2, R]{left: true,
		join: func(v *V, v2 *V2) R { return j(*v, v2) }})}
}

// OuterJoin is the table of the keys that either table has; what the other does not have is nil.
func (t *KTable[K, V]) OuterJoin[V2, R any](o *KTable[K, V2], j func(*V, *V2) R) *KTable[K, R] {
	t.b.given(j != nil)
	return &KTable[K, R]{joinRows(t.rows, o, "outerJoin", matching[V, V2, R]{left: true, right: true, join: j})}
}

// matching says which rows two tables have together, and how they are joined.
type matching[V, V2, R any] struct {
	left, right bool // a row of the left, of the right one alone is enough
	join        func(*V, *V2) R
}

func (m *matching[V, V2, R]) row(v V, live bool, v2 V2, live2 bool, null null[R]) (r R, ok bool) {
	if !live && !live2 || !live && !m.right || !live2 && !m.left {
		return r, false
	}
	var p *V
	var p2 *V2
	if live {
		p = &v
	}
	if live2 {
		p2 = &v2
	}
	r = m.join(p, p2)
	return r, !null.of(r)
}

// joinRows has a node for the updates of each side, and one where they meet.
func joinRows[K, V, V2, R any](t rows[K, V], with *KTable[K, V2], kind string, m matching[V, V2, R]) rows[K, R] {
	at, b, old, null := where(), t.b, false, nullness[R]()
	if !b.mine(with != nil && with.b == b) { // it stands for a table that there cannot be
		return rows[K, R]{b: b, n: t.n, wantOld: func() bool { return true }, view: func(flow.Env, bool) getter[K, R] { return nil }}
	}
	o := with.rows
	t.mustView(at)
	o.mustView(at)
	if m.left {
		t.wantOld()
	}
	if m.right {
		o.wantOld()
	}
	this := &topology.Node{Kind: kind, Parents: []*topology.Node{t.n}, With: []*topology.Node{o.n}, Stores: o.stores, ReadsOnly: true, Keyed: true, At: at}
	add(b, this, joinSide(this, &old, o.view, !m.left, func(v V, live bool, v2 V2, live2 bool) (R, bool) {
		return m.row(v, live, v2, live2, null)
	}))
	other := &topology.Node{Kind: kind, Parents: []*topology.Node{o.n}, With: []*topology.Node{t.n}, Stores: t.stores, ReadsOnly: true, Keyed: true, At: at}
	add(b, other, joinSide(other, &old, t.view, !m.right, func(v2 V2, live2 bool, v V, live bool) (R, bool) {
		return m.row(v, live, v2, live2, null)
	}))
	both := &topology.Node{Kind: "merge", Parents: []*topology.Node{this, other}, At: at}
	add(b, both, func(_ flow.Env, down tfn[K, R]) (tfn[K, R], error) { return down, nil })
	d := rows[K, R]{b: b, n: both, joined: true, vague: true, closing: t.closing.or(o.closing), wantOld: func() bool {
		old = true
		return t.wantOld() && o.wantOld()
	}}
	d.stores = append(d.stores, t.stores...)
	for _, s := range o.stores {
		if !slices.Contains(d.stores, s) {
			d.stores = append(d.stores, s)
		}
	}
	if t.view == nil || o.view == nil {
		return d
	}
	d.view = func(env flow.Env, told bool) getter[K, R] {
		get, get2 := t.view(env, told), o.view(env, told)
		return func(c *flow.Ctx, k K) (r R, at int64, ok bool) {
			v, at, live := get(c, k)
			v2, at2, live2 := get2(c, k)
			if c.Err != nil {
				return r, 0, false
			}
			r, ok = m.row(v, live, v2, live2, null)
			switch {
			case !live:
				at = at2
			case live2:
				at = max(at, at2)
			}
			return r, at, ok
		}
	}
	return d
}

// joinSide follows the updates of one side. both: without the other there is no row. Of two sides that are both given on at the commit,
// the first to be meets the other as it was given on before, so that each update is the step from what the last one left: a row
// that loses both its sides is told of as gone, and who takes old values away finds them.
func joinSide[K, A, B, R any](n *topology.Node, old *bool, view func(flow.Env, bool) getter[K, B], both bool,
	row func(a A, live bool, b B, live2 bool) (R, bool)) func(flow.Env, tfn[K, R]) (tfn[K, A], error) {
	return func(env flow.Env, down tfn[K, R]) (tfn[K, A], error) {
		get := view(env, true)
		return func(c *flow.Ctx, k K, ch change[A]) {
			if ch.Stale {
				env.Dropped(n.ID, outOfOrder)
				return
			}
			v, at, ok := get(c, k)
			if c.Missed() {
				return
			}
			if !ok && (both || !ch.Live && !ch.WasLive) {
				return
			}
			c.Node = n.ID
			var to change[R]
			to.New, to.Live = row(ch.New, ch.Live, v, ok)
			if *old {
				to.Old, to.WasLive = row(ch.Old, ch.WasLive, v, ok)
			}
			was := c.Time
			if ok {
				c.Time = max(c.Time, at)
			}
			down(c, k, to)
			c.Time = was
		}, nil
	}
}
