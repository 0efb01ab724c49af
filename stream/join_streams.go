package stream

import (
	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/table"
	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/topology"
	"github.com/moldau/moldau/window"
)

// Join pairs each record of s with each of o that has the same key and lies within its window. A pair comes out when its second record
// comes, with the later time of both and the headers of that second one. Null keys and values are dropped.
//
// Each side keeps its records for the windows' size and grace, counted from its own greatest time. A record that comes later is dropped,
// after it has met what it can. buf names what is kept.
func (s *KStream[K, V]) Join[V2, R any](o *KStream[K, V2], w window.JoinWindows, buf state.JoinBuffer[K, V, V2], j func(V, V2) R) *KStream[K, R] {
	s.b.given(j != nil)
	return &KStream[K, R]{s.b, joinStreams("join", s, o, w, buf, pairing[K, V, V2, R]{
		both: func(_ K, v V, v2 V2) (R, error) { return j(v, v2), nil }})}
}

// LeftJoin is Join that gives on records of s that have met none as well, with nil, once their windows have closed: when a record of either
// side moves the greatest time of both beyond the window and its grace. They come out by time and key bytes, before what that record
// itself meets, with their own times and the headers of that record. A record of s comes out at once, with nil, if its key is null, or
// if it meets none and its window, without grace, ends before the greatest time of both.
func (s *KStream[K, V]) LeftJoin[V2, R any](o *KStream[K, V2], w window.JoinWindows, buf state.JoinBuffer[K, V, V2], j func(V, *V2) R) *KStream[K, R] {
	s.b.given(j != nil)
	return &KStream[K, R]{s.b, joinStreams("leftJoin", s, o, w, buf, pairing[K, V, V2, R]{
		both: func(_ K, v V, v2 V2) (R, error) { return j(v, &v2), nil },
		left: func(_ K, v V) (R, error) { return j(v, nil), nil }})}
}

// OuterJoin is LeftJoin for both sides: no record of either is left out. Of two of one time, that of o comes first.
func (s *KStream[K, V]) OuterJoin[V2, R any](o *KStream[K, V2], w window.JoinWindows, buf state.JoinBuffer[K, V, V2], j func(*V, *V2) R) *KStream[K, R] {
	s.b.given(j != nil)
	return &KStream[K, R]{s.b, joinStreams("outerJoin", s, o, w, buf, pairing[K, V, V2, R]{
		both:  func(_ K, v V, v2 V2) (R, error) { return j(&v, &v2), nil },
		left:  func(_ K, v V) (R, error) { return j(&v, nil), nil },
		right: func(_ K, v2 V2) (R, error) { return j(nil, &v2), nil }})}
}

// TryJoin is Join with the key, and a function that may fail.
func (s *KStream[K, V]) TryJoin[V2, R any](o *KStream[K, V2], w window.JoinWindows, buf state.JoinBuffer[K, V, V2], j func(K, V, V2) (R, error)) *KStream[K, R] {
	s.b.given(j != nil)
	return &KStream[K, R]{s.b, joinStreams("join", s, o, w, buf, pairing[K, V, V2, R]{both: j})}
}

// TryLeftJoin is LeftJoin with the key, and a function that may fail.
func (s *KStream[K, V]) TryLeftJoin[V2, R any](o *KStream[K, V2], w window.JoinWindows, buf state.JoinBuffer[K, V, V2], j func(K, V, *V2) (R, error)) *KStream[K, R] {
	s.b.given(j != nil)
	return &KStream[K, R]{s.b, joinStreams("leftJoin", s, o, w, buf, pairing[K, V, V2, R]{
		both: func(k K, v V, v2 V2) (R, error) { return j(k, v, &v2) },
		left: func(k K, v V) (R, error) { return j(k, v, nil) }})}
}

// TryOuterJoin is OuterJoin with the key, and a function that may fail.
func (s *KStream[K, V]) TryOuterJoin[V2, R any](o *KStream[K, V2], w window.JoinWindows, buf state.JoinBuffer[K, V, V2], j func(K, *V, *V2) (R, error)) *KStream[K, R] {
	s.b.given(j != nil)
	return &KStream[K, R]{s.b, joinStreams("outerJoin", s, o, w, buf, pairing[K, V, V2, R]{
		both:  func(k K, v V, v2 V2) (R, error) { return j(k, &v, &v2) },
		left:  func(k K, v V) (R, error) { return j(k, &v, nil) },
		right: func(k K, v2 V2) (R, error) { return j(k, nil, &v2) }})}
}

// pairing is the author's function in pieces. left and right are for records that have met none; nil: they do not come out.
type pairing[K, V, V2, R any] struct {
	both  func(K, V, V2) (R, error)
	left  func(K, V) (R, error)
	right func(K, V2) (R, error)
}

// joinStreams has a node for the records of each side, and one where their results meet.
func joinStreams[K, V, V2, R any](kind string, left *KStream[K, V], right *KStream[K, V2], w window.JoinWindows, buf state.JoinBuffer[K, V, V2], j pairing[K, V, V2, R]) *topology.Node {
	at, b := where(), left.b
	if err := w.Validate(); err != nil {
		b.graph.Fail(topology.ErrConflict, at, "%v", err)
	}
	thisSpec, otherSpec, sharedSpec := buf.Stores(j.right != nil, j.left != nil)
	if thisSpec == nil {
		b.graph.Fail(topology.ErrHandle, at, "a join buffer is needed here, but the handle is the zero value; make one with package state")
	}
	if !b.mine(right != nil && right.b == b) || thisSpec == nil {
		return left.n
	}
	s, o := left.n, right.n
	// own is for all stores but the first, which says for all of them if the buffer is another join's.
	own := func(spec *flow.StoreSpec, n *topology.Node) *topology.Store {
		st := b.graph.Store(spec, at)
		if st.Owner == nil {
			st.Owner = n
		}
		st.Spec.Retention = w.RetentionMS()
		n.Stores = append(n.Stores, st)
		return st
	}
	first := func(n *topology.Node) *topology.Store {
		st := b.graph.Own(thisSpec, at, n)
		st.Spec.Retention = w.RetentionMS()
		return st
	}
	if j.left != nil {
		b.keepNullKeys(s)
		b.keepNullKeys(o)
	}
	if thisSpec.SingleStore {
		if s != o {
			b.graph.Fail(topology.ErrConflict, at, "join buffer %q has a single store, which is for a stream joined with itself; the streams joined here are two", buf.Spec().Name)
		}
		n := &topology.Node{Kind: kind, Parents: []*topology.Node{s}, Keyed: true, At: at}
		st := first(n)
		return add(b, n, func(env flow.Env, down fn[K, R]) (fn[K, V], error) {
			return newSelfJoin(env, n.ID, st.Spec.Name, w, any(j.both).(func(K, V, V) (R, error)), down), nil
		})
	}
	this := &topology.Node{Kind: kind, Parents: []*topology.Node{s}, With: []*topology.Node{o}, Keyed: true, At: at}
	other := &topology.Node{Kind: kind, Parents: []*topology.Node{o}, At: at} // what must be co-partitioned is said once
	thisStore, otherStore := first(this), own(otherSpec, other)
	this.Stores, other.Stores = append(this.Stores, otherStore), append(other.Stores, thisStore)
	var shared *topology.Store
	if j.left != nil {
		shared = own(sharedSpec, this)
		other.Stores = append(other.Stores, shared)
	}
	parts := buf.Parts()
	add(b, this, func(env flow.Env, down fn[K, R]) (fn[K, V], error) {
		p := newStreamSide[K, V, V2](env, this.ID, true, w, thisStore, otherStore, shared, parts.Left, parts.Right, down)
		p.both, p.alone, p.otherAlone = j.both, j.left, j.right
		return p.process, nil
	})
	add(b, other, func(env flow.Env, down fn[K, R]) (fn[K, V2], error) {
		p := newStreamSide[K, V2, V](env, other.ID, false, w.Reverse(), otherStore, thisStore, shared, parts.Right, parts.Left, down)
		p.both, p.alone, p.otherAlone = func(k K, v2 V2, v V) (R, error) { return j.both(k, v, v2) }, j.right, j.left
		return p.process, nil
	})
	return merge[K, R](b, this, other)
}

// results gives on what comes of records that have met, or never will.
type results[K, R any] struct {
	env  flow.Env
	node int
	null null[R]
	down fn[K, R]
}

func (p *results[K, R]) give(c *flow.Ctx, k K, at int64, r R, err error) {
	if err != nil {
		c.Fail(p.node, err)
		return
	}
	time := c.Time
	c.Time, c.Null = at, p.null.of(r)
	p.down(c, k, r)
	c.Time, c.Null = time, false
}

// put is how a record was taken into a store.
func (p *results[K, R]) put(c *flow.Ctx, late bool, err error) {
	if err != nil {
		c.Break(p.node, err)
	} else if late {
		p.env.Dropped(p.node, expired)
	}
}

// streamSide takes up the records of one side, whose values are of A, in one task. The other's are of B.
type streamSide[K, A, B, R any] struct {
	results[K, R]
	left  bool
	w     window.JoinWindows // as this side sees them
	own   *table.Records[K, A]
	other *table.Records[K, B]

	both       func(K, A, B) (R, error)
	alone      func(K, A) (R, error) // nil: what has met none does not come out
	otherAlone func(K, B) (R, error)

	// Of left and outer joins; both sides share them.
	unmatched *table.Unmatched[K]
	time      *int64 // the greatest time of both sides; -1: none
	oldest    *int64 // none that waits is older, but for what emit says; -1: none waits
	looked    bool   // oldest is known to be right
	ownSerde  serde.Serde[A]
	serde     serde.Serde[B]

	// Of the record in hand. The functions are made once, and not for each record.
	c      *flow.Ctx
	k      K
	v      A
	met    bool
	meet   func(at int64, v B) bool
	encode func(dst []byte) ([]byte, error)
}

func newStreamSide[K, A, B, R any](env flow.Env, node int, left bool, w window.JoinWindows, own, other, shared *topology.Store,
	ownSerde serde.Serde[A], otherSerde serde.Serde[B], down fn[K, R]) *streamSide[K, A, B, R] {
	p := &streamSide[K, A, B, R]{results: results[K, R]{env, node, nullness[R](), down}, left: left, w: w,
		own: env.Store(own.Spec.Name).(*table.Records[K, A]), other: env.Store(other.Spec.Name).(*table.Records[K, B]),
		ownSerde: ownSerde, serde: otherSerde}
	if shared != nil {
		p.unmatched = env.Store(shared.Spec.Name).(*table.Unmatched[K])
		p.time, p.oldest = env.Cell(shared.Spec.Name+"@time", true), env.Cell(shared.Spec.Name+"@oldest", true)
		env.Idle(node, p.next, func(c *flow.Ctx) {
			c.Wrote = true
			*p.time = max(*p.time, c.StreamTime)
			p.emit(c)
		})
	}
	p.meet = p.pair
	p.encode = func(dst []byte) ([]byte, error) { return p.ownSerde.Encode(dst, p.v) }
	return p
}

// process first lets the record meet the other side, then keeps it for what comes from there.
func (p *streamSide[K, A, B, R]) process(c *flow.Ctx, k K, v A) {
	if p.unmatched != nil && c.Time > *p.time {
		c.Wrote = true // this time is state: leaving the record out must take it back
		*p.time = c.Time
	}
	switch {
	case c.Null:
		p.env.Dropped(p.node, nullValue)
		if !c.KeyNull {
			c.Wrote = true
			late, err := p.own.Skip(k, c.Time)
			p.put(c, late, err)
		}
		return
	case c.KeyNull && p.alone != nil:
		c.Node = p.node
		r, err := p.alone(k, v)
		p.give(c, k, c.Time, r, err)
		return
	case c.KeyNull:
		p.env.Dropped(p.node, nullKey)
		return
	}
	c.Wrote = true
	p.join(c, k, v)
	if c.Err != nil {
		return
	}
	late, err := p.own.Put(k, c.Time, v)
	p.put(c, late, err)
}

func (p *streamSide[K, A, B, R]) join(c *flow.Ctx, k K, v A) {
	if p.unmatched != nil {
		if !p.looked {
			p.look(c)
		}
		if c.Time == *p.time && c.Err == nil {
			p.emit(c)
		}
		if c.Err != nil {
			return
		}
	}
	p.c, p.k, p.v, p.met = c, k, v, false
	from, to := p.w.Reach(c.Time)
	if err := p.other.Fetch(k, from, to, p.meet); err != nil {
		c.Break(p.node, err)
	}
	switch {
	case c.Err != nil || p.met || p.alone == nil:
	case to < *p.time:
		c.Node = p.node
		r, err := p.alone(k, v)
		p.give(c, k, c.Time, r, err)
	default:
		if *p.oldest < 0 || c.Time < *p.oldest {
			*p.oldest = c.Time
		}
		if err := p.unmatched.Add(k, c.Time, p.left, p.encode); err != nil {
			c.Break(p.node, err)
		}
	}
}

// look finds out what is the oldest that waits where nobody has told: Kafka Streams, whose state this may be, does not keep it.
func (p *streamSide[K, A, B, R]) look(c *flow.Ctx) {
	p.looked = true
	if *p.oldest >= 0 {
		return
	}
	err := p.unmatched.Each(func(_ K, at int64, _ bool, _ []byte) bool {
		*p.oldest = at
		return false
	})
	if err != nil {
		c.Break(p.node, err)
	}
}

// pair gives on the record in hand with one of the other side.
func (p *streamSide[K, A, B, R]) pair(at int64, v B) bool {
	p.met = true
	c := p.c
	if p.unmatched != nil {
		if _, err := p.unmatched.Drop(p.k, at, !p.left); err != nil {
			c.Break(p.node, err)
			return false
		}
	}
	c.Node = p.node
	r, err := p.both(p.k, p.v, v)
	p.give(c, p.k, max(at, c.Time), r, err)
	return c.Err == nil
}

// next is the stream time at which the oldest record that waits has met none, if it is one of this side's.
func (p *streamSide[K, A, B, R]) next() (at int64, ok bool, err error) {
	return *p.oldest + p.w.AfterMS() + p.w.GraceMS() + 1, *p.oldest >= 0, nil
}

// emit gives on the records of both sides whose windows have closed. Which it looks at, and so when some of them come out where the sides
// reach differently far, is as in Kafka Streams: none if those no older than oldest are open to this side; then from the first to the
// one after an open one of each side; and oldest becomes the last it has looked at.
func (p *streamSide[K, A, B, R]) emit(c *flow.Ctx) {
	if *p.oldest < 0 || !p.w.Closed(*p.oldest, *p.time) {
		return
	}
	c.Wrote = true
	*p.oldest = -1
	input := c.Input
	c.Input = 0
	own, other := p.w, p.w.Reverse()
	var ownOpen, otherOpen bool
	err := p.unmatched.Each(func(k K, at int64, left bool, value []byte) bool {
		*p.oldest = at
		if ownOpen && otherOpen {
			return false
		}
		mine := left == p.left
		switch {
		case mine && !own.Closed(at, *p.time):
			ownOpen = true
			return true
		case !mine && !other.Closed(at, *p.time):
			otherOpen = true
			return true
		}
		if _, err := p.unmatched.Drop(k, at, left); err != nil {
			c.Break(p.node, err)
			return false
		}
		if mine {
			give(c, &p.results, p.ownSerde, p.alone, k, at, value)
		} else {
			give(c, &p.results, p.serde, p.otherAlone, k, at, value)
		}
		return c.Err == nil
	})
	c.Input = input
	if err != nil {
		c.Break(p.node, err)
	}
}

// give gives on a record that has met none.
func give[K, V, R any](c *flow.Ctx, to *results[K, R], serde serde.Serde[V], alone func(K, V) (R, error), k K, at int64, value []byte) {
	v, err := serde.Decode(value)
	if err != nil {
		c.Break(to.node, err)
		return
	}
	c.Node = to.node
	r, err := alone(k, v)
	to.give(c, k, at, r, err)
}
