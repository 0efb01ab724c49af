package stream

import (
	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/table"
	"github.com/moldau/moldau/topology"
)

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
		return c.Err
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
