package stream

import (
	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/table"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/topology"
)

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
	b.given(f != nil)
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

// global is the graph's value for a table given to an operator; nil: b cannot use it.
func (g *GlobalKTable[K, V]) global(b *Builder) *topology.Global {
	if !b.mine(g != nil && g.b == b) {
		return nil
	}
	return g.g
}

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
