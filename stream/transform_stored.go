package stream

import (
	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/topology"
)

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
	start := starter(t.b, n, new, func(in scope) *ValueScope { return &ValueScope{in} })
	addTable(t.b, n, func(env flow.Env, down tfn[K, V2], alone bool) (tfn[K, V], error) {
		p, sc, err := start(env)
		if err != nil {
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
