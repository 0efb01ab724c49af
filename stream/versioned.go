package stream

import (
	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/table"
	"github.com/moldau/moldau/topology"
)

// past reads a versioned table as of a time, for one task.
type past[K, V any] func(c *flow.Ctx, k K, asOf int64) (v V, ok bool)

// outOfOrder is why a join leaves out an update of a versioned table that is not its key's latest.
const outOfOrder = "out-of-order"

// storedVersions is the table that a node keeps in its own versioned store. It and what is derived from it row by row are
// versioned (KIP-914): a stream that is joined with it finds the rows of its own time, and joins of tables and aggregates take
// up only what is the latest of a key. Every update goes on at once, those that are out of order as well.
func storedVersions[K, V any](b *Builder, n *topology.Node, s *topology.Store) *KTable[K, V] {
	open := func(env flow.Env) *table.Versions[K, V] { return env.Store(s.Spec.Name).(*table.Versions[K, V]) }
	return &KTable[K, V]{rows[K, V]{b: b, n: n, stores: []*topology.Store{s}, wantOld: func() bool { n.NeedOld = true; return true },
		view: func(env flow.Env, _ bool) getter[K, V] {
			store := open(env)
			return func(c *flow.Ctx, k K) (v V, at int64, ok bool) {
				v, at, ok, err := store.Get(k)
				if err != nil {
					c.Break(n.ID, err)
				}
				return v, at, ok
			}
		},
		past: func(env flow.Env) past[K, V] {
			store := open(env)
			return func(c *flow.Ctx, k K, asOf int64) (v V, ok bool) {
				v, _, ok, err := store.AsOf(k, asOf)
				if err != nil {
					c.Break(n.ID, err)
				}
				return v, ok
			}
		}}}
}

// history is a versioned store as a keeper uses it.
type history[K, V any] struct {
	env   flow.Env
	store *table.Versions[K, V]
	was   V // the value of the key in hand, if an aggregator may write through what begin gave
	live  bool
}

func (h *history[K, V]) begin(c *flow.Ctx, s *keeper[K, V], k K) (old V, at int64, live bool) {
	old, at, live, err := h.store.Own(k)
	if err == nil && s.exact {
		h.was, _, h.live, err = h.store.Get(k)
	}
	if err != nil {
		c.Break(s.node, err)
	}
	return old, at, live
}

func (h *history[K, V]) set(c *flow.Ctx, s *keeper[K, V], k K, ch change[V], at int64, inexact bool) {
	var p table.Placement
	var err error
	if ch.Live {
		p, err = h.store.Put(k, ch.New, at)
	} else {
		p, err = h.store.Delete(k, at)
	}
	switch {
	case err != nil:
		c.Break(s.node, err)
	case !p.Kept:
		h.env.Dropped(s.node, expired)
	case s.every:
		if inexact && h.live {
			ch.Old = h.was
		}
		ch.Stale = p.To != table.Latest
		s.give(c, k, ch, at)
	}
}
