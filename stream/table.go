package stream

import (
	"slices"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/table"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/topology"
)

// change is an update of a table. Old and New are zero where WasLive and Live are false: Kafka's null.
type change[V any] struct {
	Old, New      V
	WasLive, Live bool
	Stale         bool // a later version of the key is there already: only versioned tables give such updates
}

// tfn is an operator on updates of a table.
type tfn[K, V any] = fn[K, change[V]]

// getter reads a table as it is now, for one task.
type getter[K, V any] func(c *flow.Ctx, k K) (v V, at int64, ok bool)

// KTable is a table: the last value of each key. Every root of tables is stored (Table, ToTable and aggregates take a
// handle), and derived tables are computed from it; Stored gives a derived one a store of its own.
//
// A root gives on its updates at the commit, the last one of each key, in the order of these; EveryUpdate on the handle makes
// it each one at once.
type KTable[K, V any] struct{ rows[K, V] }

// rows is a table's place in the graph. Unlike KTable it leads to no type of the DSL, so windowed tables can be made of it.
type rows[K, V any] struct {
	b *Builder
	n *topology.Node
	// What it takes to look up a key: stores to connect, and a getter made of them for one task.
	stores []*topology.Store
	view   func(env flow.Env) getter[K, V]
	// past reads a versioned table as it was; nil: the table is not versioned.
	past func(env flow.Env) past[K, V]
	// wantOld asks for change.Old to be filled in, and says whether it will be. Without it a derived table cannot tell
	// that nothing has changed.
	wantOld func() bool
	// sparse: no updates from nothing to nothing; a table of filtered rows says nothing of rows it never had.
	sparse bool
	// vague: change.Old need not be what was given on before: behind a suppression, or a join of two tables that one record changes
	// both. A store of a sparse table knows better itself what was before, so its node tells it all.
	vague   bool
	tells   bool     // n tells stores of updates from nothing to nothing
	closing *closing // of windowed tables: when their windows close
	joined  bool     // its updates bring their old values along
}

// Named labels the operator in metrics, errors and descriptions.
func (t *KTable[K, V]) Named(label string) *KTable[K, V] {
	t.n.Name = label
	return t
}

// stored is the table that a node keeps in its own store.
func stored[K, V any](b *Builder, n *topology.Node, s *topology.Store) *KTable[K, V] {
	if s.Spec.Kind == flow.Versioned {
		return storedVersions[K, V](b, n, s)
	}
	return &KTable[K, V]{rows[K, V]{b: b, n: n, stores: []*topology.Store{s}, wantOld: func() bool { n.NeedOld = true; return true },
		view: func(env flow.Env) getter[K, V] {
			kv := env.Store(s.Spec.Name).(*table.KV[K, V])
			return func(c *flow.Ctx, k K) (v V, at int64, ok bool) {
				v, at, ok, err := kv.Get(k)
				if err != nil {
					c.Break(n.ID, err)
				}
				return v, at, ok
			}
		}}}
}

// keeper is the store of a node, and how its updates go on.
type keeper[K, V any] struct {
	kv    *table.KV[K, V]
	ref   table.Ref      // of the key in hand
	past  *history[K, V] // instead of kv, for a versioned store
	node  int
	down  tfn[K, V]
	every bool // each update is given on at once
	old   bool // somebody wants the old values
	exact bool // and its old value must be one that no aggregator has written through
	// sparse: an update from nothing to nothing is none
	sparse bool
}

// keeps opens a node's store in a task.
func keeps[K, V any](env flow.Env, n *topology.Node, s *topology.Store, down tfn[K, V], alone bool) *keeper[K, V] {
	k := keeping(env, n.ID, n, s, down)
	if alone {
		k.every, k.exact = false, false
	} else if !k.every {
		env.Flush(n.ID, k)
	}
	return k
}

// keeping is a node's view of the store that the node owner keeps.
func keeping[K, V any](env flow.Env, node int, owner *topology.Node, s *topology.Store, down tfn[K, V]) *keeper[K, V] {
	k := &keeper[K, V]{node: node, down: down, every: s.Spec.EveryUpdate, old: owner.NeedOld}
	k.exact = k.every && k.old && shares[V]()
	switch kept := env.Store(s.Spec.Name).(type) {
	case *table.Versions[K, V]:
		k.past = &history[K, V]{env: env, store: kept}
	default:
		k.kv = kept.(*table.KV[K, V])
		k.kv.NeedOld(k.old)
	}
	return k
}

// Flush gives on the last update of each key since the last commit.
func (s *keeper[K, V]) Flush(c *flow.Ctx) {
	err := s.kv.Changes(func(k K, ch table.Change[V]) error {
		c.Time, c.Headers, c.KeyNull = ch.Time, ch.Headers, false
		s.down(c, k, change[V]{Old: ch.Old, New: ch.New, WasLive: ch.WasLive, Live: ch.Live})
		if c.Err != nil && !c.Ask() {
			return c.Err
		}
		return nil
	})
	if err != nil {
		c.Break(s.node, err)
	}
}

// begin is the value of a key that is about to be set, which an aggregator may write through, and its time. It comes before set.
func (s *keeper[K, V]) begin(c *flow.Ctx, k K) (old V, at int64, live bool) {
	c.Wrote = true
	if s.past != nil {
		return s.past.begin(c, s, k)
	}
	ref, err := s.kv.Touch(k)
	if err != nil {
		c.Break(s.node, err)
		return old, 0, false
	}
	s.ref = ref
	return s.kv.At(ref)
}

// set gives the key in hand its value, or takes it away, and gives the update on if that is to be at once. inexact: the old value
// is the entry's own, and an aggregator may have written through it.
func (s *keeper[K, V]) set(c *flow.Ctx, k K, ch change[V], at int64, inexact bool) {
	if s.sparse && !ch.WasLive && !ch.Live {
		return
	}
	if s.past != nil {
		s.past.set(c, s, k, ch, at, inexact)
		return
	}
	if ch.Live {
		s.kv.Set(s.ref, ch.New, at, c.Headers)
	} else {
		if !s.every {
			at = c.Time // at the commit, a row that has gone has the time of the record that took it away
		}
		s.kv.Unset(s.ref, at, c.Headers)
	}
	if !s.every {
		return
	}
	if inexact {
		// Of a new row as well: the next time, the change is the one from this value.
		err := s.kv.Changes(func(_ K, exact table.Change[V]) error {
			if exact.WasLive {
				ch.Old = exact.Old
			}
			return nil
		})
		if err != nil {
			c.Break(s.node, err)
			return
		}
	}
	s.give(c, k, ch, at)
}

// give sends an update on with a time of its own.
func (s *keeper[K, V]) give(c *flow.Ctx, k K, ch change[V], at int64) {
	time := c.Time
	c.Time = at
	s.down(c, k, ch)
	c.Time = time
}

// put sets or deletes a key, by offset order.
func (s *keeper[K, V]) put(c *flow.Ctx, k K, v V, live bool) {
	if old, _, was := s.begin(c, k); c.Err == nil {
		s.set(c, k, change[V]{Old: old, New: v, WasLive: was, Live: live}, c.Time, false)
	}
}

// Table reads a topic as a table: the last record of a key is its value, a null one deletes it. Null keys are dropped.
func (b *Builder) Table[K, V any](t Topic[K, V], h state.Table[K, V]) *KTable[K, V] {
	from := b.source(t)
	table := toTable(b, "table", from, h)
	if spec := spec(h); spec != nil && spec.FromSource {
		s := table.stores[0]
		s.Topic, s.Replay = from.Source, replay(t, h.(serdes[K, V]))
	}
	return table
}

// ToTable takes a stream's records as updates of a table: a null value deletes, null keys are dropped.
func (s *KStream[K, V]) ToTable(h state.Table[K, V]) *KTable[K, V] {
	return toTable(s.b, "toTable", s.n, h)
}

// UnstoredTable reads a topic as a table that nobody keeps: its updates can be filtered, mapped and turned into a stream, but it
// cannot be looked up or joined, and its filters tell of deletions of rows they never had (a KTable without Materialized).
func (b *Builder) UnstoredTable[K, V any](t Topic[K, V]) *KTable[K, V] {
	return unstored[K, V](b, "table", b.source(t))
}

// ToUnstoredTable is ToTable for a table that nobody keeps; see Builder.UnstoredTable.
func (s *KStream[K, V]) ToUnstoredTable() *KTable[K, V] { return unstored[K, V](s.b, "toTable", s.n) }

func unstored[K, V any](b *Builder, kind string, from *topology.Node) *KTable[K, V] {
	n := &topology.Node{Kind: kind, Parents: []*topology.Node{from}, Keyed: true, At: where()}
	add(b, n, func(env flow.Env, down tfn[K, V]) (fn[K, V], error) {
		return func(c *flow.Ctx, k K, v V) {
			if c.KeyNull {
				env.Dropped(n.ID, nullKey)
				return
			}
			down(c, k, change[V]{New: v, Live: !c.Null})
		}, nil
	})
	return &KTable[K, V]{rows[K, V]{b: b, n: n, wantOld: func() bool { return false }}}
}

func toTable[K, V any](b *Builder, kind string, from *topology.Node, h state.Table[K, V]) *KTable[K, V] {
	n := &topology.Node{Kind: kind, Parents: []*topology.Node{from}, Keyed: true, At: where()}
	s := b.graph.Own(spec(h), n.At, n)
	addTable(b, n, func(env flow.Env, down tfn[K, V], alone bool) (fn[K, V], error) {
		k := keeps(env, n, s, down, alone)
		return func(c *flow.Ctx, key K, v V) {
			if c.KeyNull {
				env.Dropped(n.ID, nullKey)
				return
			}
			k.put(c, key, v, !c.Null)
		}, nil
	})
	return stored[K, V](b, n, s)
}

// Reasons for dropping a record, as metrics name them.
const (
	nullKey   = "null-key"
	nullValue = "null-value"
	expired   = "expired-window"
)

// addTable is add for an operator that gives on updates of a table; alone: nobody listens.
func addTable[K, V, K2, V2 any](b *Builder, n *topology.Node, wire func(env flow.Env, down tfn[K2, V2], alone bool) (fn[K, V], error)) {
	n.Wire = func(env flow.Env, children []any) (any, error) {
		return wire(env, fan[K2, change[V2]](children), len(children) == 0)
	}
	b.graph.Add(n)
}

// ToStream is the table's updates as a stream; deletions are nulls.
func (t *KTable[K, V]) ToStream() *KStream[K, V] { return &KStream[K, V]{t.b, toStream(t.rows)} }

func toStream[K, V any](t rows[K, V]) *topology.Node {
	return step(t.b, "toStream", t.n, false, func(_ int, down fn[K, V]) tfn[K, V] {
		return func(c *flow.Ctx, k K, ch change[V]) {
			was := c.Null
			c.Null = !ch.Live
			down(c, k, ch.New)
			c.Null = was
		}
	})
}

// rowFunc computes a row from one that may not be there; ok=false: there is none.
type rowFunc[K, V, V2 any] func(k K, v V, live bool) (v2 V2, ok bool, err error)

// derive is a table computed row by row.
func derive[K, V, V2 any](t rows[K, V], kind string, sparse bool, f rowFunc[K, V, V2]) rows[K, V2] {
	old := false
	sparse = sparse && t.past == nil // of a versioned table each update counts
	d := rows[K, V2]{b: t.b, stores: t.stores, sparse: sparse, vague: t.vague, tells: sparse && t.vague, closing: t.closing}
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
			c.Fail(n.ID, err)
			ok = false
		}
		return v2, ok
	}
	d.view = func(env flow.Env) getter[K, V2] {
		get := t.view(env)
		return func(c *flow.Ctx, k K) (v2 V2, at int64, ok bool) {
			v, at, ok := get(c, k)
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
	null := nullness[V2]()
	return &KTable[K, V2]{derive(t.rows, "transformValues", false, func(k K, v V, live bool) (V2, bool, error) {
		v2, err := f(Record[K, V]{Key: k, Value: v, Null: !live})
		return v2, !null.of(v2), err
	})}
}

// ValueTransformer computes the rows of a table from those of another one, with stores and timers (ValueTransformerWithKey). There is
// one value per task; see Processor for its life.
type ValueTransformer[K, V, V2 any] interface {
	Init(*ValueScope) error
	// Transform gives the row's new value; a nil one, where nil is a value, is no row. It sees deletions as null.
	Transform(Record[K, V]) (V2, error)
}

// TransformStored is TransformValues with stores, which are named here. Its rows are kept in h: what comes from stores of its own cannot
// be computed again whenever a row is looked at.
func (t *KTable[K, V]) TransformStored[V2 any](new func() ValueTransformer[K, V, V2], h state.Table[K, V2], stores ...state.Handle) *KTable[K, V2] {
	n := &topology.Node{Kind: "transformStored", Parents: []*topology.Node{t.n}, At: where()}
	s := t.b.graph.Own(spec(h), n.At, n)
	t.b.connect(n, stores)
	null := nullness[V2]()
	addTable(t.b, n, func(env flow.Env, down tfn[K, V2], alone bool) (tfn[K, V], error) {
		p := new()
		sc := &ValueScope{scope{env: env, node: n, b: t.b}}
		if err := start(env, p, &sc.scope, func() error { return p.Init(sc) }); err != nil {
			return nil, err
		}
		kept := keeps(env, n, s, down, alone)
		return func(c *flow.Ctx, k K, ch change[V]) {
			sc.ctx = c
			c.Node, c.Wrote = n.ID, true
			r := record(c, k, ch.New)
			r.Null = !ch.Live
			var v2 V2
			var err error
			if t.b.around == nil {
				v2, err = p.Transform(r)
			} else {
				err = t.b.call(n, c, false, func() (err error) { v2, err = p.Transform(r); return err })
			}
			if err == nil {
				err = c.Err // of a view
			}
			if err != nil {
				c.Fail(n.ID, err)
				return
			}
			kept.put(c, k, v2, !null.of(v2))
		}, nil
	})
	return stored[K, V2](t.b, n, s)
}

// Stored gives a derived table a store of its own, to be queried or to save computing it again.
func (t *KTable[K, V]) Stored(h state.Table[K, V]) *KTable[K, V] {
	n := &topology.Node{Kind: "stored", Parents: []*topology.Node{t.n}, At: where()}
	sparse := t.sparse && t.wantOld()
	s := t.b.graph.Own(spec(h), n.At, n)
	addTable(t.b, n, func(env flow.Env, down tfn[K, V], alone bool) (tfn[K, V], error) {
		k := keeps(env, n, s, down, alone)
		k.sparse = sparse || t.sparse && n.NeedOld
		if !t.joined || !k.every {
			return func(c *flow.Ctx, key K, ch change[V]) { k.put(c, key, ch.New, ch.Live) }, nil
		}
		return func(c *flow.Ctx, key K, ch change[V]) {
			if k.begin(c, key); c.Err == nil {
				k.set(c, key, ch, c.Time, false)
			}
		}, nil
	})
	if t.tells {
		wire := n.Wire
		n.Wire = func(env flow.Env, children []any) (any, error) {
			f, err := wire(env, children)
			if err != nil {
				return nil, err
			}
			return told[K, V]{f.(tfn[K, V])}, nil
		}
	}
	kept := stored[K, V](t.b, n, s)
	kept.closing, kept.vague = t.closing, t.joined
	if t.joined {
		kept.wantOld = func() bool {
			n.NeedOld = true
			return t.wantOld()
		}
	}
	return kept
}

// GlobalKTable is a table of which every process has all partitions, so that any stream can be joined with it by any key. Its
// topic is read to the end before the application starts, and from then on as it comes: there is no order in time
// between it and streams.
type GlobalKTable[K, V any] struct {
	b *Builder
	g *topology.Global
}

// GlobalTable reads a topic as a global table.
func (b *Builder) GlobalTable[K, V any](t Topic[K, V], h state.KeyValue[K, V]) *GlobalKTable[K, V] {
	at := where()
	return &GlobalKTable[K, V]{b, b.graph.Global(b.topic(at, "topic", t.root, t.spec, t.key, t.value), spec(h), at)}
}

// GlobalStore is GlobalTable for a store whose contents are computed: f gives the key and value that a record puts; a nil value
// deletes, and a nil key puts nothing. It runs again whenever the store is restored, so it must depend on nothing but the record
// (StreamsBuilder.addGlobalStore). Null keys are left out before f.
func (b *Builder) GlobalStore[K, V, SK, SV any](t Topic[K, V], h state.KeyValue[SK, SV], f func(Record[K, V]) (SK, SV, error)) *GlobalKTable[SK, SV] {
	at := where()
	g := b.graph.Global(b.topic(at, "topic", t.root, t.spec, t.key, t.value), spec(h), at)
	keys, values := h.Keys(), h.Values()
	nullK, nullV := nullness[SK](), nullness[SV]()
	through := func(in flow.In) (out flow.In, ok bool, err error) {
		if in.Key == nil {
			return in, false, nil
		}
		k, v, err := decode(t.key.Decode, t.value.Decode, in.Key, in.Value)
		if err != nil {
			return in, false, err
		}
		var sk SK
		var sv SV
		err = flow.Safely(func() (err error) {
			sk, sv, err = f(Record[K, V]{Key: k, Value: v, Null: in.Value == nil, Time: utc(in.Time), Headers: in.Headers})
			return err
		})
		if err != nil || nullK.of(sk) {
			return in, false, err
		}
		if out.Key, err = keys.Encode([]byte{}, sk); err == nil && !nullV.of(sv) {
			out.Value, err = values.Encode([]byte{}, sv)
		}
		out.Offset, out.Time, out.Headers = in.Offset, in.Time, in.Headers
		return out, err == nil, err
	}
	g.Computed = true
	open := g.Store.Spec.New
	g.Store.Spec.New = func(env flow.StoreEnv) (flow.Store, error) {
		s, err := open(env)
		if err != nil {
			return nil, err
		}
		return s.(*table.KV[SK, SV]).Through(through), nil
	}
	return &GlobalKTable[SK, SV]{b, g}
}

// Open is called by a processor that reads the table, in Init; it must name the table in its call. Writing is not possible.
func (g *GlobalKTable[K, V]) Open(o state.Opener) *state.KV[K, V] {
	return state.OpenKeyValue[K, V](o, g.Spec())
}

// Spec is the handle of the table's store, for a processor that reads it.
func (g *GlobalKTable[K, V]) Spec() *flow.StoreSpec { return g.g.Store.Spec }

func (g *GlobalKTable[K, V]) global() *topology.Global { return g.g }

func (g *GlobalKTable[K, V]) view(env flow.Env, node int) getter[K, V] {
	kv := env.Store(g.g.Store.Spec.Name).(*table.KV[K, V])
	return func(c *flow.Ctx, k K) (v V, at int64, ok bool) {
		v, at, ok, err := kv.Get(k)
		if err != nil {
			c.Break(node, err)
		}
		return v, at, ok
	}
}
