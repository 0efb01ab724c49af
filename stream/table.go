package stream

import (
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

// getter reads a table, for one task.
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
	// What it takes to look up a key: stores to connect, and a getter made of them for one task. told: of rows as they were last given
	// on, without what is held back until the commit.
	stores []*topology.Store
	view   func(env flow.Env, told bool) getter[K, V]
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
	tells   bool     // n can tell stores of updates from nothing to nothing
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
		view: func(env flow.Env, told bool) getter[K, V] {
			kv := env.Store(s.Spec.Name).(*table.KV[K, V])
			get := kv.Get
			if told && !s.Spec.EveryUpdate {
				get = kv.Told
			}
			return func(c *flow.Ctx, k K) (v V, at int64, ok bool) {
				v, at, ok, err := get(k)
				if err != nil {
					c.Break(n.ID, err)
				}
				return v, at, ok
			}
		}}}
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
	if t.tells && (t.vague || s.Spec.Kind == flow.Versioned) { // which may have refused what came late
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
