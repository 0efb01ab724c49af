package stream

import (
	"fmt"
	"slices"
	"time"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/topology"
)

// Processor is an operator of the author's own. There is one value per task, made by the function given to Process; one
// goroutine at a time uses it. What it keeps in fields is lost at a restart, and starts afresh when an epoch is undone:
// state belongs in stores. If it is an io.Closer, Close is called when the task ends.
type Processor[K, V, K2, V2 any] interface {
	// Init opens stores and sets timers, once per task. Build calls it as well, on a value of its own, to learn which stores that
	// opens: they are empty there and take nothing, timers do not fire, the partition is 0, what Init itself returns or panics
	// with is passed over, and Close follows at once.
	Init(*Scope[K2, V2]) error
	Process(*Context[K2, V2], Record[K, V]) error
}

// scope is what both kinds of Scope are made of: a state.Opener.
type scope struct {
	env      flow.Env
	node     *topology.Node
	ctx      *flow.Ctx          // of the call in hand; in Init one of its own
	mistakes *topology.Mistakes // of Init; nil later
	b        *Builder
}

func (s *scope) base() *scope { return s }

// fail notes a mistake: in Init for Build and the start of the task, later as an error of the record in hand.
func (s *scope) fail(kind error, format string, args ...any) error {
	m := &topology.Mistake{At: s.node.At, Text: fmt.Sprintf(format, args...), Kind: kind}
	if s.mistakes != nil {
		*s.mistakes = append(*s.mistakes, m)
	}
	s.ctx.Fail(s.node.ID, m)
	return m
}

// timer checks one that is to be set.
func (s *scope) timer(d time.Duration, given bool) (ok bool) {
	if d < time.Millisecond {
		s.fail(topology.ErrProcessor, "a timer of %v is set; the least is 1ms", d)
	}
	if !given {
		s.fail(topology.ErrArgument, "a timer is set with a nil function")
	}
	return d >= time.Millisecond && given
}

// around calls a timer.
func (s *scope) around(c *flow.Ctx, next func() error) error {
	if s.b.around == nil {
		return next()
	}
	return s.b.call(s.node, c, true, next)
}

// Step is for views of stores.
func (s *scope) Step() (c *flow.Ctx, node int) { return s.ctx, s.node.ID }

// Expired is for views of stores: it counts a put that came too late.
func (s *scope) Expired() { s.env.Dropped(s.node.ID, expired) }

// OpenStore is for handles of stores: give the scope to their Open. Only stores named in the call of Process can be opened.
func (s *scope) OpenStore(spec *flow.StoreSpec) (flow.Store, error) {
	if spec == nil {
		return nil, s.fail(topology.ErrHandle, "a store is opened by the zero value of a handle; declare the handle and name it in this call")
	}
	if !s.connected(spec) {
		return nil, s.fail(topology.ErrStore, "store %q is not connected to this processor, which opens it; name its handle in this call", spec.Name)
	}
	if st := s.env.Store(spec.Name); st != nil {
		return st, nil
	}
	return nil, errTrial
}

func (s *scope) connected(spec *flow.StoreSpec) bool {
	root := spec.Root
	if root == nil {
		root = spec
	}
	return slices.ContainsFunc(s.node.Stores, func(have *topology.Store) bool { return have.Spec.Root == root }) ||
		slices.ContainsFunc(s.node.Globals, func(have *topology.Global) bool { return have.Store.Spec.Root == root })
}

// Scope is a processor's view of its task: stores to open, timers to set.
type Scope[K2, V2 any] struct {
	scope
	call *Context[K2, V2]
}

// Partition is the task's.
func (s *Scope[K2, V2]) Partition() int32 { return s.env.Partition() }

// Every calls f about every d of wall-clock time, first after d (PunctuationType.WALL_CLOCK_TIME). Missed calls are not
// made up for. stop may be called from within.
func (s *Scope[K2, V2]) Every(d time.Duration, f func(c *Context[K2, V2], now time.Time) error) (stop func()) {
	return s.every(d, false, f)
}

// EveryStreamTime calls f whenever the task's stream time has passed a multiple of d, first with the first record
// (PunctuationType.STREAM_TIME). Without records time stands still.
func (s *Scope[K2, V2]) EveryStreamTime(d time.Duration, f func(c *Context[K2, V2], at time.Time) error) (stop func()) {
	return s.every(d, true, f)
}

func (s *Scope[K2, V2]) every(d time.Duration, streamTime bool, f func(*Context[K2, V2], time.Time) error) (stop func()) {
	if !s.timer(d, f != nil) {
		return func() {}
	}
	return s.env.Every(s.node.ID, d.Milliseconds(), streamTime, func(c *flow.Ctx, at int64) {
		s.ctx, s.call.c = c, c
		if err := s.around(c, func() error { return f(s.call, utc(at)) }); err != nil {
			c.Fail(s.node.ID, err)
		}
	})
}

// Context is valid during one call.
type Context[K2, V2 any] struct {
	c        *flow.Ctx
	env      flow.Env
	down     fn[K2, V2]
	children func(label string) (fn[K2, V2], bool)
}

// Forward sends a record on.
func (x *Context[K2, V2]) Forward(r Record[K2, V2]) {
	if x.c.Err == nil {
		forward(x.c, x.down, r)
	}
}

// ForwardTo sends a record on to one of the operators that follow: to those whose label, given with Named, is label
// (ProcessorContext.forward with a child's name). That there is none is an error of the record.
func (x *Context[K2, V2]) ForwardTo(label string, r Record[K2, V2]) {
	if x.c.Err != nil {
		return
	}
	if to, ok := x.children(label); ok {
		forward(x.c, to, r)
		return
	}
	x.c.Fail(x.c.Node, fmt.Errorf("no operator that follows is Named(%q)", label))
}

// Emit sends a key and a value on, with the time and headers of the record in hand; in a timer, with the time of the call.
func (x *Context[K2, V2]) Emit(k K2, v V2) {
	if c := x.c; c.Err == nil {
		keyNull, null, node := c.KeyNull, c.Null, c.Node
		c.KeyNull, c.Null = nullness[K2]().of(k), nullness[V2]().of(v)
		x.down(c, k, v)
		c.KeyNull, c.Null, c.Node = keyNull, null, node
	}
}

// StreamTime is the greatest record time that the task has taken up; before the epoch if there was none.
func (x *Context[K2, V2]) StreamTime() time.Time { return utc(x.c.StreamTime) }

// Now is the wall clock as of this step of the task.
func (x *Context[K2, V2]) Now() time.Time { return utc(x.c.Now) }

// Source is where the record in hand came from; ok=false in a timer.
func (x *Context[K2, V2]) Source() (topic string, partition int32, offset int64, ok bool) {
	return x.c.Topic, x.c.Partition, x.c.Offset, x.c.Topic != ""
}

// RequestCommit asks for a commit soon; it does not wait for it.
func (x *Context[K2, V2]) RequestCommit() { x.env.RequestCommit() }

// Process hands each record, nulls included, to a processor, and gives on what that forwards. The stores it opens are named here.
// What comes out counts as rekeyed.
func (s *KStream[K, V]) Process[K2, V2 any](new func() Processor[K, V, K2, V2], stores ...state.Handle) *KStream[K2, V2] {
	n := &topology.Node{Kind: "process", Parents: []*topology.Node{s.n}, Rekeys: true, At: where()}
	s.b.connect(n, stores)
	start := starter(s.b, n, new, func(in scope) *Scope[K2, V2] { return &Scope[K2, V2]{scope: in} })
	n.Wire = func(env flow.Env, children []any) (any, error) {
		p, sc, err := start(env)
		if err != nil {
			return nil, err
		}
		x := newContext[K2, V2](s.b, env, n, children)
		sc.call = x
		return fn[K, V](func(c *flow.Ctx, k K, v V) {
			sc.ctx, x.c = c, c
			c.Node = n.ID
			c.Wrote = true // a processor's fields are state as well
			var err error
			if s.b.around == nil {
				err = p.Process(x, record(c, k, v))
			} else {
				err = s.b.call(n, c, false, func() error { return p.Process(x, record(c, k, v)) })
			}
			if err != nil {
				c.Fail(n.ID, err)
			}
		}), nil
	}
	s.b.graph.Add(n)
	return &KStream[K2, V2]{s.b, n}
}

// newContext knows the operators that follow by their labels.
func newContext[K2, V2 any](b *Builder, env flow.Env, n *topology.Node, children []any) *Context[K2, V2] {
	named := map[string]fn[K2, V2]{}
	for i, child := range b.graph.Children(n) {
		if child.Name != "" {
			named[child.Name] = children[i].(fn[K2, V2])
		}
	}
	return &Context[K2, V2]{env: env, down: fan[K2, V2](children), children: func(label string) (fn[K2, V2], bool) {
		to, ok := named[label]
		return to, ok
	}}
}

// ProcessFunc is Process without stores or timers.
func (s *KStream[K, V]) ProcessFunc[K2, V2 any](f func(*Context[K2, V2], Record[K, V]) error) *KStream[K2, V2] {
	s.b.given(f != nil)
	n := &topology.Node{Kind: "process", Parents: []*topology.Node{s.n}, Rekeys: true, At: where()}
	n.Wire = func(env flow.Env, children []any) (any, error) {
		x := newContext[K2, V2](s.b, env, n, children)
		return fn[K, V](func(c *flow.Ctx, k K, v V) {
			x.c, c.Node = c, n.ID
			var err error
			if s.b.around == nil {
				err = f(x, record(c, k, v))
			} else {
				err = s.b.call(n, c, false, func() error { return f(x, record(c, k, v)) })
			}
			if err != nil {
				c.Fail(n.ID, err)
			}
		}), nil
	}
	s.b.graph.Add(n)
	return &KStream[K2, V2]{s.b, n}
}

// ValueProcessor is a Processor that cannot change the key, so that no repartitioning need follow (FixedKeyProcessor).
type ValueProcessor[K, V, V2 any] interface {
	Init(*ValueScope) error
	Process(*ValueContext[V2], Record[K, V]) error
}

// ValueScope is Scope without a key to forward: its timers cannot emit.
type ValueScope struct{ scope }

// Partition is the task's.
func (s *ValueScope) Partition() int32 { return s.env.Partition() }

// Every calls f about every d of wall-clock time, first after d.
func (s *ValueScope) Every(d time.Duration, f func(now time.Time) error) (stop func()) {
	return s.every(d, false, f)
}

// EveryStreamTime calls f whenever the task's stream time has passed a multiple of d, first with the first record.
func (s *ValueScope) EveryStreamTime(d time.Duration, f func(at time.Time) error) (stop func()) {
	return s.every(d, true, f)
}

func (s *ValueScope) every(d time.Duration, streamTime bool, f func(time.Time) error) (stop func()) {
	if !s.timer(d, f != nil) {
		return func() {}
	}
	return s.env.Every(s.node.ID, d.Milliseconds(), streamTime, func(c *flow.Ctx, at int64) {
		s.ctx = c
		if err := s.around(c, func() error { return f(utc(at)) }); err != nil {
			c.Fail(s.node.ID, err)
		}
	})
}

// ValueContext can forward values only: the key is the record's.
type ValueContext[V2 any] struct {
	c       *flow.Ctx
	env     flow.Env
	emit    func(v V2)
	headers []Header
}

// Emit sends a value on, with key, time and headers of the record in hand.
func (x *ValueContext[V2]) Emit(v V2) {
	if c := x.c; c.Err == nil {
		null, headers, node := c.Null, c.Headers, c.Node
		c.Null, c.Headers = nullness[V2]().of(v), x.headers
		x.emit(v)
		c.Null, c.Headers, c.Node = null, headers, node
	}
}

// EmitNull sends on Kafka's null.
func (x *ValueContext[V2]) EmitNull() {
	if c := x.c; c.Err == nil {
		null, headers, node := c.Null, c.Headers, c.Node
		c.Null, c.Headers = true, x.headers
		var none V2
		x.emit(none)
		c.Null, c.Headers, c.Node = null, headers, node
	}
}

// EmitAt is Emit with another time.
func (x *ValueContext[V2]) EmitAt(v V2, t time.Time) {
	time := x.c.Time
	x.c.Time = t.UnixMilli()
	x.Emit(v)
	x.c.Time = time
}

// SetHeader adds a header to what is emitted from now on in this call.
func (x *ValueContext[V2]) SetHeader(key string, value []byte) {
	x.headers = append(x.headers[:len(x.headers):len(x.headers)], Header{Key: key, Value: value})
}

// StreamTime is the greatest record time that the task has taken up; before the epoch if there was none.
func (x *ValueContext[V2]) StreamTime() time.Time { return utc(x.c.StreamTime) }

// Source is where the record in hand came from.
func (x *ValueContext[V2]) Source() (topic string, partition int32, offset int64, ok bool) {
	return x.c.Topic, x.c.Partition, x.c.Offset, x.c.Topic != ""
}

// RequestCommit asks for a commit soon; it does not wait for it.
func (x *ValueContext[V2]) RequestCommit() { x.env.RequestCommit() }

// ProcessValues hands each record, nulls included, to a processor that cannot change its key. The stores it opens are
// named here.
func (s *KStream[K, V]) ProcessValues[V2 any](new func() ValueProcessor[K, V, V2], stores ...state.Handle) *KStream[K, V2] {
	n := &topology.Node{Kind: "processValues", Parents: []*topology.Node{s.n}, At: where()}
	s.b.connect(n, stores)
	start := starter(s.b, n, new, func(in scope) *ValueScope { return &ValueScope{in} })
	add(s.b, n, func(env flow.Env, down fn[K, V2]) (fn[K, V], error) {
		var key K
		x := &ValueContext[V2]{env: env}
		x.emit = func(v V2) { down(x.c, key, v) }
		p, sc, err := start(env)
		if err != nil {
			return nil, err
		}
		return func(c *flow.Ctx, k K, v V) {
			sc.ctx, x.c, x.headers, key = c, c, c.Headers, k
			c.Node, c.Wrote = n.ID, true
			var err error
			if s.b.around == nil {
				err = p.Process(x, record(c, k, v))
			} else {
				err = s.b.call(n, c, false, func() error { return p.Process(x, record(c, k, v)) })
			}
			if err != nil {
				c.Fail(n.ID, err)
			}
		}, nil
	})
	return &KStream[K, V2]{s.b, n}
}

// connect adds the stores that a processor names. A GlobalKTable is a handle as well.
func (b *Builder) connect(n *topology.Node, stores []state.Handle) {
	for _, h := range stores {
		if g, ok := h.(interface {
			global(*Builder) *topology.Global
		}); ok {
			if global := g.global(b); global != nil {
				n.Globals = append(n.Globals, global)
			}
			continue
		}
		s := b.graph.Store(spec(h), n.At)
		if s.Spec.Kind == flow.Buffer {
			b.graph.Fail(topology.ErrStore, n.At, "buffer %q belongs to an operator; a processor cannot open it", s.Spec.Name)
		}
		n.Stores = append(n.Stores, s)
	}
}

// spec of a handle that may be missing altogether.
func spec(h state.Handle) *flow.StoreSpec {
	if h == nil {
		return nil
	}
	return h.Spec()
}
