package stream

import (
	"math"
	"time"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/table"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/topology"
	"github.com/moldau/moldau/window"
)

// TimeWindowedKStream is a grouped stream cut into time windows.
//
// Stream time is the greatest time of the records that came here, null keys left out; it outlives a restart. A window takes records
// until stream time reaches its end plus the grace; a record none of whose windows is open is late.
//
// Behind a repartition topic records come as the tasks before it get to them: on a backlog one of these may be far ahead of another, whose
// records are then late, as in Kafka Streams. The grace has to cover that.
type TimeWindowedKStream[K, V any] struct {
	b       *Builder
	n       *topology.Node // of windowedBy
	w       windowing
	onClose bool
	clock   *clock
}

// windowing is what time windows and sliding windows have in common; times are in ms.
type windowing struct {
	time    window.TimeWindows
	sliding window.SlidingWindows
	slides  bool
}

func (w windowing) validate() error {
	if w.slides {
		return w.sliding.Validate()
	}
	return w.time.Validate()
}

func (w windowing) retention() int64 {
	if w.slides {
		return w.sliding.RetentionMS()
	}
	return w.time.RetentionMS()
}

func (w windowing) grace() int64 {
	if w.slides {
		return w.sliding.GraceMS()
	}
	return w.time.GraceMS()
}

func (w windowing) end(start int64) int64 {
	if w.slides {
		return w.sliding.EndMS(start)
	}
	return w.time.EndMS(start)
}

func (w windowing) closing() *closing {
	c := &closing{grace: w.grace(), size: window.Forever}
	if size := w.end(0); size != math.MaxInt64 {
		c.size = time.Duration(size) * time.Millisecond
	}
	return c
}

// late says whether every window that holds a time has closed: the youngest starts last, and closes last.
func (w windowing) late(at, streamTime int64) bool {
	if w.slides {
		return w.sliding.Closed(at, streamTime)
	}
	return w.time.Closed(at-at%w.time.AdvanceMS(), streamTime)
}

// clock names the cells that keep a windowed stream's time: one per store, so that a name is never one of position.
type clock struct{ stores []string }

// ticker is the stream time of a windowed stream in one task.
type ticker struct {
	now   int64 // -1: none yet
	cells []*int64
}

func (k *clock) wire(env flow.Env) *ticker {
	t := &ticker{now: -1}
	for _, s := range k.stores {
		cell := env.Cell(s+"@time", true)
		t.cells = append(t.cells, cell)
		t.now = max(t.now, *cell)
	}
	return t
}

// nothingDue is for operators that go by stream time, and do nothing by themselves when it moves on.
func nothingDue() (int64, bool, error) { return 0, false, nil }

func (t *ticker) see(c *flow.Ctx) { t.reach(c, c.Time) }

// idle takes over a stream time that moves on without a record.
func (t *ticker) idle(c *flow.Ctx) { t.reach(c, c.StreamTime) }

func (t *ticker) reach(c *flow.Ctx, at int64) {
	if at <= t.now {
		return
	}
	c.Wrote = true // stream time is state: leaving the record out must take it back
	t.now = at
	for _, cell := range t.cells {
		*cell = t.now
	}
}

// late is the boxed function of a stream of late records, so that windowedBy tells it from aggregates.
type late[K, V any] struct{ f fn[K, V] }

// parted tells a windowed stream's aggregates from its streams of late records.
func parted[K, V, F any](children []any) (lates []fn[K, V], aggs []F) {
	for _, c := range children {
		if l, ok := c.(late[K, V]); ok {
			lates = append(lates, l.f)
		} else {
			aggs = append(aggs, c.(F))
		}
	}
	return lates, aggs
}

// wfn folds a record into the windows that are open at streamTime.
type wfn[K, V any] func(c *flow.Ctx, streamTime int64, k K, v V)

func windowedBy[K, V any](g *KGroupedStream[K, V], w windowing) *TimeWindowedKStream[K, V] {
	n := &topology.Node{Kind: "windowedBy", Parents: []*topology.Node{g.n}, At: where()}
	if err := w.validate(); err != nil {
		g.b.graph.Fail(topology.ErrConflict, n.At, "%v", err)
	}
	clock := &clock{}
	n.Wire = func(env flow.Env, children []any) (any, error) {
		lates, aggs := parted[K, V, wfn[K, V]](children)
		time := clock.wire(env)
		env.Idle(n.ID, nothingDue, time.idle)
		return fn[K, V](func(c *flow.Ctx, k K, v V) {
			if c.KeyNull {
				env.Dropped(n.ID, nullKey)
				return
			}
			if w.slides && c.Null {
				env.Dropped(n.ID, nullValue)
				return
			}
			time.see(c)
			if len(lates) > 0 && w.late(c.Time, time.now) {
				for _, f := range lates {
					if f(c, k, v); c.Err != nil {
						return
					}
				}
			}
			for _, f := range aggs {
				if f(c, time.now, k, v); c.Err != nil {
					return
				}
			}
		}), nil
	}
	g.b.graph.Add(n)
	return &TimeWindowedKStream[K, V]{b: g.b, n: n, w: w, clock: clock}
}

// OnClose has aggregates give on final results only: once for each window, when it closes, by window start and then by key
// bytes (EmitStrategy.onWindowClose). A result goes out as soon as a record moves stream time past the close, with the
// aggregate's time and that record's headers; Kafka Streams holds it back by up to a second of wall-clock time.
func (g *TimeWindowedKStream[K, V]) OnClose() *TimeWindowedKStream[K, V] {
	final := *g
	final.onClose = true
	if !g.w.slides && g.w.time.SizeMS() == math.MaxInt64 {
		g.b.graph.Fail(topology.ErrConflict, where(), "an unlimited window never closes, so OnClose would never give anything on")
	}
	return &final
}

// Late is a stream of its own: the records that came after their last window had closed, as they came. They are counted as
// dropped as well.
func (g *TimeWindowedKStream[K, V]) Late() *KStream[K, V] {
	return lateOf[K, V](g.b, g.n)
}

func lateOf[K, V any](b *Builder, from *topology.Node) *KStream[K, V] {
	n := &topology.Node{Kind: "late", Parents: []*topology.Node{from}, At: where()}
	n.Wire = func(_ flow.Env, children []any) (any, error) { return late[K, V]{fan[K, V](children)}, nil }
	b.graph.Add(n)
	return &KStream[K, V]{b, n}
}

// Count counts the records of each key and window, null values included.
func (g *TimeWindowedKStream[K, V]) Count(h state.Window[K, int64]) *WindowedKTable[K, int64] {
	return windowed(g, "count", h, counting[K, V]())
}

// Reduce combines the values of each key and window; the first one is taken as it is.
func (g *TimeWindowedKStream[K, V]) Reduce(h state.Window[K, V], f func(V, V) V) *WindowedKTable[K, V] {
	return windowed(g, "reduce", h, reducing[K](g.b, f))
}

// Aggregate folds the values of each key and window, from the zero value on.
func (g *TimeWindowedKStream[K, V]) Aggregate[A any](h state.Window[K, A], f func(A, V) A) *WindowedKTable[K, A] {
	return windowed(g, "aggregate", h, aggregating[K](g.b, f))
}

// Fold folds the records of each key and window, null values included.
func (g *TimeWindowedKStream[K, V]) Fold[A any](h state.Window[K, A], f Fold[K, V, A]) *WindowedKTable[K, A] {
	return windowed(g, "fold", h, folding(g.b, f))
}

// panes is a windowed aggregate at work in one task.
type panes[K, V, A any] struct {
	store *table.Windows[K, A]
	env   flow.Env
	node  int
	w     windowing
	add   adder[K, V, A]
	down  tfn[window.Key[K], A]
	every bool
	old   bool // somebody wants the old values
	exact bool // and each must be one that no aggregator has written through

	emitted *int64 // OnClose: the close time up to which results have gone out; -1: none. The last emit time of Kafka Streams
	due     int64  // the close time at which there can be a result again
	after   bool   // as Kafka Streams does: after the record has been folded in

	tumbling             bool
	size, advance, grace int64
	scratch              []pane[A] // of sliding windows
}

func windowed[K, V, A any](g *TimeWindowedKStream[K, V], kind string, h state.Window[K, A], add adder[K, V, A]) *WindowedKTable[K, A] {
	n := &topology.Node{Kind: kind, Parents: []*topology.Node{g.n}, Keyed: true, At: where()}
	s := g.b.graph.Own(spec(h), n.At, n)
	g.settle(s, s.Spec.Name)
	onClose := g.onClose
	n.Wire = func(env flow.Env, children []any) (any, error) {
		p := newPanes(env, n.ID, n, s, g.w, add, fan[window.Key[K], change[A]](children))
		switch {
		case onClose:
			p.every = false
			p.emitted, p.after = env.Cell(s.Spec.Name, true), s.Spec.ExpireFirst
			p.schedule()
			env.Idle(n.ID, p.next, p.idle)
		case len(children) == 0:
			p.every = false
		case !p.every:
			env.Flush(n.ID, p)
		}
		return wfn[K, V](p.process), nil
	}
	g.b.graph.Add(n)
	return storedWindows[K, A](g.b, n, s, g.w, onClose)
}

// settle gives a store what the windows need, and the clock a cell of that name.
func (g *TimeWindowedKStream[K, V]) settle(s *topology.Store, cell string) {
	s.Spec.Retention = max(s.Spec.Retention, g.w.retention())
	s.Spec.Grace = g.w.grace()
	g.clock.stores = append(g.clock.stores, cell)
}

// newPanes is a node's view of the store that the node owner keeps.
func newPanes[K, V, A any](env flow.Env, node int, owner *topology.Node, s *topology.Store, w windowing, add adder[K, V, A], down tfn[window.Key[K], A]) *panes[K, V, A] {
	p := &panes[K, V, A]{store: env.Store(s.Spec.Name).(*table.Windows[K, A]), env: env, node: node, w: w, add: add, down: down,
		every: s.Spec.EveryUpdate, old: owner.NeedOld, exact: owner.NeedOld && shares[A](), grace: w.grace()}
	if w.slides {
		p.size, p.advance = w.sliding.DiffMS()+1, 1
	} else {
		p.size, p.advance = w.time.SizeMS(), w.time.AdvanceMS()
		p.tumbling = p.size == p.advance && p.size != math.MaxInt64
	}
	p.store.NeedOld(p.old)
	return p
}

// process folds a record into the windows it falls into, oldest first.
func (p *panes[K, V, A]) process(c *flow.Ctx, streamTime int64, k K, v V) {
	closed := streamTime - p.grace // time windows that end here or before are closed
	if p.emitted != nil && !p.after && closed >= p.due {
		// First, since what the record brings may move the store's own time past windows that have not been given on. A
		// window that closes now takes nothing of this record.
		if p.emit(c, closed); c.Err != nil {
			return
		}
	}
	switch {
	case p.w.slides:
		if !p.slide(c, closed, k, v) {
			return
		}
	case c.Null && !p.add.nulls:
	case p.tumbling:
		p.fold(c, closed, k, v, c.Time-c.Time%p.size)
	default:
		for start := range p.w.time.For(c.Time) {
			if p.fold(c, closed, k, v, start); c.Err != nil {
				return
			}
		}
	}
	if p.emitted != nil && p.after && closed >= p.due && c.Err == nil {
		p.emit(c, closed)
	}
}

// fold takes a record into one time window.
func (p *panes[K, V, A]) fold(c *flow.Ctx, closed int64, k K, v V, start int64) {
	if p.w.end(start) <= closed {
		p.env.Dropped(p.node, expired)
		return
	}
	if ref, ok := p.touch(c, k, start); ok {
		p.update(c, ref, k, v, start)
	} else {
		var none A
		p.pass(c, k, v, start, none, false)
	}
}

// pass gives on what a record makes of a window that its stream has not closed and that the store has let go of, since other streams
// of the co-grouping are ahead. As in Kafka Streams it starts from nothing, or from what a new sliding window starts from.
func (p *panes[K, V, A]) pass(c *flow.Ctx, k K, v V, start int64, old A, live bool) {
	if !p.every || c.Err != nil {
		return
	}
	c.Node = p.node
	next, keep, err := p.add.f(c, old, live, k, v)
	if err != nil {
		c.Fail(p.node, err)
		return
	}
	p.down(c, p.key(k, start), p.add.first(change[A]{Old: old, New: next, WasLive: live, Live: keep}, p.old))
}

func (p *panes[K, V, A]) touch(c *flow.Ctx, k K, start int64) (table.Ref, bool) {
	c.Wrote = true
	ref, gone, err := p.store.Touch(k, start)
	if err != nil {
		c.Break(p.node, err)
		return ref, false
	}
	if gone {
		p.env.Dropped(p.node, expired)
	}
	return ref, !gone
}

// update folds a record into a touched window.
func (p *panes[K, V, A]) update(c *flow.Ctx, ref table.Ref, k K, v V, start int64) {
	old, at, live := p.store.At(ref)
	p.from(c, ref, k, v, start, old, at, live, live)
}

// from gives a touched window what comes of an aggregate and a record. own: old is the window's own, and the aggregator may have
// written through it.
func (p *panes[K, V, A]) from(c *flow.Ctx, ref table.Ref, k K, v V, start int64, old A, at int64, live, own bool) {
	c.Node = p.node
	next, keep, err := p.add.f(c, old, live, k, v)
	if err != nil {
		c.Fail(p.node, err)
		return
	}
	if !live || at < c.Time {
		at = c.Time
	}
	ch := p.add.first(change[A]{Old: old, New: next, WasLive: live, Live: keep}, p.every && p.old)
	p.set(c, ref, k, start, ch, at, own)
}

// set gives a touched window its value, or takes it away, and gives the update on if that is to be at once.
func (p *panes[K, V, A]) set(c *flow.Ctx, ref table.Ref, k K, start int64, ch change[A], at int64, own bool) {
	if ch.Live {
		p.store.Set(ref, ch.New, at, c.Headers)
	} else {
		if !p.every {
			at = c.Time // as in keeper.set
		}
		p.store.Unset(ref, at, c.Headers)
	}
	if !p.every {
		return
	}
	if p.exact {
		// Of a new window as well: the next time, the change is the one from this value.
		err := p.store.Changes(func(_ K, _ int64, exact table.Change[A]) error {
			if own {
				ch.Old = exact.Old
			}
			return nil
		})
		if err != nil {
			c.Break(p.node, err)
			return
		}
	}
	p.give(c, k, start, ch, at)
}

// give sends an update on with a time of its own.
func (p *panes[K, V, A]) give(c *flow.Ctx, k K, start int64, ch change[A], at int64) {
	time := c.Time
	c.Time = at
	p.down(c, p.key(k, start), ch)
	c.Time = time
}

func (p *panes[K, V, A]) key(k K, start int64) window.Key[K] {
	return window.Key[K]{Key: k, Span: window.Millis(start, p.w.end(start))}
}

// emit gives on the windows that have closed since the last time.
func (p *panes[K, V, A]) emit(c *flow.Ctx, closed int64) {
	time, input := c.Time, c.Input
	c.Input = 0
	c.Wrote = true
	err := p.store.Closing(p.since(), closed-p.size, func(k K, start int64, v A, at int64) bool {
		c.Time = at
		p.down(c, p.key(k, start), change[A]{New: v, Live: true})
		return c.Err == nil
	})
	c.Time, c.Input = time, input
	if err != nil {
		c.Break(p.node, err)
		return
	}
	*p.emitted = closed
	p.schedule()
}

// next is the stream time at which the first window closes that has not been given on.
func (p *panes[K, V, A]) next() (at int64, ok bool, err error) {
	err = p.store.Closing(p.since(), math.MaxInt64-1, func(_ K, start int64, _ A, _ int64) bool {
		at, ok = start+p.size+p.grace, true
		return false
	})
	return at, ok, err
}

// idle gives on what has closed without a record.
func (p *panes[K, V, A]) idle(c *flow.Ctx) {
	if closed := c.StreamTime - p.grace; closed >= p.due {
		p.emit(c, closed)
	}
}

// since is the earliest start of a window that has not been given on.
func (p *panes[K, V, A]) since() int64 {
	if *p.emitted < 0 {
		return 0
	}
	return max(0, *p.emitted-p.size+1)
}

// schedule finds the close time at which there can be a result again: starts are multiples of the advance.
func (p *panes[K, V, A]) schedule() {
	if *p.emitted < p.size {
		p.due = p.size // the first window
		return
	}
	p.due = (*p.emitted-p.size)/p.advance*p.advance + p.advance + p.size
}

// Flush gives on the last update of each key and window since the last commit.
func (p *panes[K, V, A]) Flush(c *flow.Ctx) {
	err := p.store.Changes(func(k K, start int64, ch table.Change[A]) error {
		c.Time, c.Headers, c.KeyNull = ch.Time, ch.Headers, false
		p.down(c, p.key(k, start), change[A]{Old: ch.Old, New: ch.New, WasLive: ch.WasLive, Live: ch.Live})
		return c.Err
	})
	if err != nil {
		c.Break(p.node, err)
	}
}
