package stream

import (
	"math"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/table"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/topology"
	"github.com/moldau/moldau/window"
)

// SessionWindowedKStream is a grouped stream cut into sessions: runs of records of a key without a gap longer than the
// windows' own. A record makes a session of its own, which merges with all that it reaches: those are deleted, each a null in
// the results, and the merged one takes their place.
//
// Stream time is as for time windows. A session takes records until stream time is later than its end by more than the gap and
// the grace; a record is late if the session that it would end up in is closed.
type SessionWindowedKStream[K, V any] struct {
	b       *Builder
	n       *topology.Node // of sessionsBy
	w       window.SessionWindows
	onClose bool
	clock   *clock
}

// SessionsBy groups by sessions as well.
func (g *KGroupedStream[K, V]) SessionsBy(w window.SessionWindows) *SessionWindowedKStream[K, V] {
	return sessionsBy(g, w)
}

// sfn folds a record into the sessions that are open at streamTime, and says whether it came too late for all.
type sfn[K, V any] func(c *flow.Ctx, streamTime int64, k K, v V) (late bool)

func sessionsBy[K, V any](g *KGroupedStream[K, V], w window.SessionWindows) *SessionWindowedKStream[K, V] {
	n := &topology.Node{Kind: "sessionsBy", Parents: []*topology.Node{g.n}, At: where()}
	if err := w.Validate(); err != nil {
		g.b.graph.Fail(topology.ErrConflict, n.At, "%v", err)
	}
	clock := &clock{}
	n.Wire = func(env flow.Env, children []any) (any, error) {
		lates, aggs := parted[K, V, sfn[K, V]](children)
		time := clock.wire(env)
		env.Idle(n.ID, nothingDue, time.idle)
		return fn[K, V](func(c *flow.Ctx, k K, v V) {
			if c.KeyNull {
				env.Dropped(n.ID, nullKey)
				return
			}
			time.see(c)
			late := len(aggs) == 0 && w.Closed(c.Time, time.now)
			for i, f := range aggs { // they all keep the same sessions
				missed := f(c, time.now, k, v)
				if late = late || i == 0 && missed; c.Err != nil {
					return
				}
			}
			if !late {
				return
			}
			for _, f := range lates {
				if f(c, k, v); c.Err != nil {
					return
				}
			}
		}), nil
	}
	g.b.graph.Add(n)
	return &SessionWindowedKStream[K, V]{b: g.b, n: n, w: w, clock: clock}
}

// OnClose has aggregates give on final results only: once for each session, when it closes, by end, then by start and then by
// key bytes. See TimeWindowedKStream.OnClose; the time of a result is the end of its session.
func (g *SessionWindowedKStream[K, V]) OnClose() *SessionWindowedKStream[K, V] {
	final := *g
	final.onClose = true
	return &final
}

// Late is a stream of its own: the records that came too late, as they came. They are counted as dropped as well.
func (g *SessionWindowedKStream[K, V]) Late() *KStream[K, V] { return lateOf[K, V](g.b, g.n) }

// merging is an adder and how two aggregates become one: a is what an aggregate starts from, or one that others have been
// merged into.
type merging[K, V, A any] struct {
	adder[K, V, A]
	merge func(k K, a, b A) (A, error)
}

// Count counts the records of each key and session, null values included.
func (g *SessionWindowedKStream[K, V]) Count(h state.Session[K, int64]) *WindowedKTable[K, int64] {
	return sessioned(g, "count", h, merging[K, V, int64]{counting[K, V](), func(_ K, a, b int64) (int64, error) { return a + b, nil }})
}

// Reduce combines the values of each key and session; the first one is taken as it is. f merges sessions as well.
func (g *SessionWindowedKStream[K, V]) Reduce(h state.Session[K, V], f func(V, V) V) *WindowedKTable[K, V] {
	null := nullness[V]()
	return sessioned(g, "reduce", h, merging[K, V, V]{reducing[K](g.b, f), func(_ K, a, b V) (V, error) {
		if null.of(a) {
			return b, nil
		}
		return f(a, b), nil
	}})
}

// Aggregate folds the values of each key and session, from the zero value on. merge makes one aggregate of two, the first of
// which it may write to; it is called for each session that a record meets, the zero value first.
func (g *SessionWindowedKStream[K, V]) Aggregate[A any](h state.Session[K, A], f func(A, V) A, merge func(A, A) A) *WindowedKTable[K, A] {
	g.b.given(merge != nil)
	return sessioned(g, "aggregate", h, merging[K, V, A]{aggregating[K](g.b, f), plainly[K](merge)})
}

// Fold folds the records of each key and session, null values included.
func (g *SessionWindowedKStream[K, V]) Fold[A any](h state.Session[K, A], f Fold[K, V, A], merge func(k K, a, b A) (A, error)) *WindowedKTable[K, A] {
	g.b.given(merge != nil)
	return sessioned(g, "fold", h, merging[K, V, A]{folding(g.b, f), merge})
}

func plainly[K, A any](merge func(A, A) A) func(K, A, A) (A, error) {
	return func(_ K, a, b A) (A, error) { return merge(a, b), nil }
}

// sessions is a session aggregate at work in one task.
type sessions[K, V, A any] struct {
	store *table.Sessions[K, A]
	env   flow.Env
	node  int
	w     window.SessionWindows
	add   merging[K, V, A]
	down  tfn[window.Key[K], A]
	every bool
	exact bool // old values are given on at once, and must be such as no merger has written through

	emitted *int64 // OnClose: the close time up to which results have gone out, see panes
	after   bool

	met []met[A] // scratch
}

// met is a session that a record meets.
type met[A any] struct {
	start, end int64
	ref        table.Ref
	v          A
}

func sessioned[K, V, A any](g *SessionWindowedKStream[K, V], kind string, h state.Session[K, A], add merging[K, V, A]) *WindowedKTable[K, A] {
	n := &topology.Node{Kind: kind, Parents: []*topology.Node{g.n}, Keyed: true, At: where()}
	s := g.b.graph.Own(spec(h), n.At, n)
	g.settle(s, s.Spec.Name)
	onClose := g.onClose
	n.Wire = func(env flow.Env, children []any) (any, error) {
		p := newSessions(env, n.ID, n, s, g.w, add, fan[window.Key[K], change[A]](children))
		switch {
		case onClose:
			p.every = false
			p.emitted, p.after = env.Cell(s.Spec.Name, true), s.Spec.ExpireFirst
			env.Idle(n.ID, p.next, func(c *flow.Ctx) { p.emit(c, c.StreamTime-p.w.RetentionMS()) })
		case len(children) == 0:
			p.every = false
		case !p.every:
			env.Flush(n.ID, p)
		}
		return sfn[K, V](p.process), nil
	}
	g.b.graph.Add(n)
	return storedSessions[K, A](g.b, n, s, g.w, onClose)
}

// settle gives a store what the sessions need, and the clock a cell of that name.
func (g *SessionWindowedKStream[K, V]) settle(s *topology.Store, cell string) {
	need := g.w.RetentionMS()
	if g.onClose && !s.Spec.ExpireFirst {
		need++ // it would expire one millisecond before it closes
	}
	s.Spec.Retention = max(s.Spec.Retention, need)
	s.Spec.Grace = g.w.RetentionMS()
	g.clock.stores = append(g.clock.stores, cell)
}

// newSessions is a node's view of the store that the node owner keeps.
func newSessions[K, V, A any](env flow.Env, node int, owner *topology.Node, s *topology.Store, w window.SessionWindows, add merging[K, V, A], down tfn[window.Key[K], A]) *sessions[K, V, A] {
	p := &sessions[K, V, A]{store: env.Store(s.Spec.Name).(*table.Sessions[K, A]), env: env, node: node, w: w, add: add, down: down,
		every: s.Spec.EveryUpdate, exact: s.Spec.EveryUpdate && owner.NeedOld && shares[A]()}
	p.store.NeedOld(owner.NeedOld)
	return p
}

func (p *sessions[K, V, A]) process(c *flow.Ctx, streamTime int64, k K, v V) (late bool) {
	closed := streamTime - p.w.RetentionMS() // sessions that end before are closed
	if p.emitted != nil && !p.after {
		if p.emit(c, closed); c.Err != nil { // first, as in panes
			return false
		}
	}
	if !c.Null || p.add.nulls {
		late = p.fold(c, closed, k, v)
	}
	if p.emitted != nil && p.after && c.Err == nil {
		p.emit(c, closed)
	}
	return late
}

// fold takes a record into the session that it makes together with all those it meets.
func (p *sessions[K, V, A]) fold(c *flow.Ctx, closed int64, k K, v V) (late bool) {
	p.met = p.met[:0]
	own := met[A]{start: c.Time, end: c.Time}
	all := own
	from, to := p.w.Reach(c.Time)
	err := p.store.Find(k, from, to, func(start, end int64, _ A, _ int64) bool {
		p.met = append(p.met, met[A]{start: start, end: end})
		all.start, all.end = min(all.start, start), max(all.end, end)
		return true
	})
	if err != nil {
		c.Break(p.node, err)
		return false
	}
	if all.end < closed {
		p.env.Dropped(p.node, expired)
		return true
	}
	c.Node = p.node
	a, live, ok := p.merge(c, k)
	if !ok {
		return false
	}
	if all.start != own.start || all.end != own.end {
		for i := range p.met {
			if p.retract(c, k, &p.met[i]); c.Err != nil {
				return false
			}
		}
	}
	c.Node = p.node
	a, keep, err := p.add.f(c, a, live, k, v)
	if err != nil {
		c.Fail(p.node, err)
		return false
	}
	c.Wrote = true
	ref, gone, err := p.store.Touch(k, all.start, all.end)
	switch {
	case err != nil:
		c.Break(p.node, err)
		return false
	case gone: // the result goes on nevertheless, as in Kafka Streams
		p.env.Dropped(p.node, expired)
	case keep:
		p.store.Set(ref, a, c.Time, c.Headers)
	default:
		p.store.Unset(ref, c.Time, c.Headers)
	}
	p.give(c, k, all.start, all.end, change[A]{New: a, Live: keep})
	return false
}

// merge makes one aggregate of those of the sessions that were met; live: there are some.
func (p *sessions[K, V, A]) merge(c *flow.Ctx, k K) (a A, live, ok bool) {
	for i := range p.met {
		m := &p.met[i]
		var err error
		c.Wrote = true
		if m.ref, _, err = p.store.Touch(k, m.start, m.end); err != nil {
			c.Break(p.node, err)
			return a, false, false
		}
		m.v, _, _ = p.store.At(m.ref)
		b := m.v
		if p.exact {
			if b, err = p.store.Clone(b); err != nil {
				c.Break(p.node, err)
				return a, false, false
			}
		}
		switch {
		case live:
		case p.add.start == nil:
			a, live = b, true
			continue
		default:
			a, live = p.add.start(), true
		}
		if a, err = p.add.merge(k, a, b); err != nil {
			c.Fail(p.node, err)
			return a, false, false
		}
	}
	return a, live, true
}

// retract takes away a session that has become part of another one.
func (p *sessions[K, V, A]) retract(c *flow.Ctx, k K, m *met[A]) {
	p.store.Unset(m.ref, c.Time, c.Headers)
	p.give(c, k, m.start, m.end, change[A]{Old: m.v, WasLive: true})
}

// give gives an update on, if that is to be at once. Its time is the end of the session; it has no headers, since it is not of
// one record.
func (p *sessions[K, V, A]) give(c *flow.Ctx, k K, start, end int64, ch change[A]) {
	if !p.every {
		return
	}
	time, headers := c.Time, c.Headers
	c.Time, c.Headers = end, nil
	p.down(c, sessionKey(k, start, end), ch)
	c.Time, c.Headers = time, headers
}

func sessionKey[K any](k K, start, end int64) window.Key[K] {
	return window.Key[K]{Key: k, Span: window.Millis(start, end)}
}

// next is the stream time at which the first session closes that has not been given on.
func (p *sessions[K, V, A]) next() (at int64, ok bool, err error) {
	err = p.store.Closing(max(0, *p.emitted), math.MaxInt64-1, func(_ K, _, end int64, _ A, _ int64) bool {
		at, ok = end+p.w.RetentionMS()+1, true
		return false
	})
	return at, ok, err
}

// emit gives on the sessions that have closed since the last time.
func (p *sessions[K, V, A]) emit(c *flow.Ctx, closed int64) {
	from := max(0, *p.emitted)
	if closed <= from {
		return
	}
	time, input := c.Time, c.Input
	c.Input = 0
	c.Wrote = true
	err := p.store.Closing(from, closed-1, func(k K, start, end int64, v A, _ int64) bool {
		c.Time = end
		p.down(c, sessionKey(k, start, end), change[A]{New: v, Live: true})
		return c.Err == nil
	})
	c.Time, c.Input = time, input
	if err != nil {
		c.Break(p.node, err)
		return
	}
	*p.emitted = closed
}

// Flush gives on the last update of each key and session since the last commit.
func (p *sessions[K, V, A]) Flush(c *flow.Ctx) {
	err := p.store.Changes(func(k K, start, end int64, ch table.Change[A]) error {
		c.Time, c.Headers, c.KeyNull = end, ch.Headers, false
		p.down(c, sessionKey(k, start, end), change[A]{Old: ch.Old, New: ch.New, WasLive: ch.WasLive, Live: ch.Live})
		return c.Err
	})
	if err != nil {
		c.Break(p.node, err)
	}
}

// storedSessions is the table that a node keeps in its own session store. The time of a row is the end of its session.
func storedSessions[K, V any](b *Builder, n *topology.Node, s *topology.Store, w window.SessionWindows, onClose bool) *WindowedKTable[K, V] {
	return &WindowedKTable[K, V]{rows[window.Key[K], V]{b: b, n: n, stores: []*topology.Store{s}, closing: &closing{sessions: true, grace: w.RetentionMS()}, wantOld: func() bool { n.NeedOld = true; return true },
		view: func(env flow.Env, told bool) getter[window.Key[K], V] {
			store := env.Store(s.Spec.Name).(*table.Sessions[K, V])
			get := store.Get
			if told && !s.Spec.EveryUpdate && !onClose {
				get = store.Told
			}
			return func(c *flow.Ctx, k window.Key[K]) (v V, at int64, ok bool) {
				v, _, ok, err := get(k.Key, k.Start.UnixMilli(), k.End.UnixMilli())
				if err != nil {
					c.Break(n.ID, err)
				}
				return v, k.End.UnixMilli(), ok
			}
		}}}
}
