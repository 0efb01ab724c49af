package stream

import (
	"slices"
	"time"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/table"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/topology"
)

// buffer is the store in which the records of a join wait; nil: they do not.
func (b *Builder) buffer[K, V, TK, TV any](n *topology.Node, t rows[TK, TV], wait []state.Buffer[K, V]) *topology.Store {
	if len(wait) == 0 {
		return nil
	}
	if len(wait) > 1 {
		b.graph.Fail(topology.ErrHandle, n.At, "a join has at most one buffer, not %d", len(wait))
	}
	n.ReadsOnly, n.Stores = false, slices.Clip(n.Stores)
	s := b.graph.Own(wait[0].Spec(), n.At, n)
	s.Spec.New = func(env flow.StoreEnv) (flow.Store, error) {
		return table.NewWaiting(env, wait[0].Keys(), wait[0].Values())
	}
	if t.past == nil {
		b.graph.Fail(topology.ErrStore, n.At, "records wait in %q to be joined with the table made at %s as it was at their time, but that is not versioned; keep it in a state.Versioned, or leave out the buffer",
			s.Spec.Name, t.n.At)
	}
	if s.Spec.Grace < 0 {
		b.graph.Fail(topology.ErrStore, n.At, "buffer %q has a negative grace, %v", s.Spec.Name, time.Duration(s.Spec.Grace)*time.Millisecond)
	}
	for _, kept := range t.stores {
		if kept.Spec.Kind == flow.Versioned && kept.Spec.Retention < s.Spec.Grace {
			b.graph.Fail(topology.ErrStore, n.At, "records wait in %q for %v, but the history of store %q goes back by %v only",
				s.Spec.Name, time.Duration(s.Spec.Grace)*time.Millisecond, kept.Spec.Name, time.Duration(kept.Spec.Retention)*time.Millisecond)
		}
	}
	return s
}

// waiting has records wait until stream time, which is the greatest time of a record that came here, is the grace past their own,
// and then joins them in the order of their times. A record that is later than that is joined at once.
func waiting[K, V any](env flow.Env, node int, s *topology.Store, join fn[K, V]) fn[K, V] {
	store, grace := env.Store(s.Spec.Name).(*table.Waiting[K, V]), s.Spec.Grace
	seen, n := env.Cell(s.Spec.Name, true), env.Cell(s.Spec.Name+".records", true)
	released := int64(0) // up to here nobody waits
	release := func(c *flow.Ctx) {
		due := *seen - grace
		if due < 0 {
			return
		}
		time, headers, topic, partition, offset, input := c.Time, c.Headers, c.Topic, c.Partition, c.Offset, c.Input
		c.Input = 0
		err := store.Release(released, due, func(k K, r table.Waiter[V]) bool {
			c.Time, c.Headers, c.Topic, c.Partition, c.Offset = r.Time, r.Headers, r.Topic, r.Partition, r.Offset
			join(c, k, r.Value)
			return c.Err == nil
		})
		c.Time, c.Headers, c.Topic, c.Partition, c.Offset, c.Input = time, headers, topic, partition, offset, input
		if err != nil {
			c.Break(node, err)
		}
		if c.Err == nil {
			released = due
		}
	}
	env.Idle(node, func() (int64, bool, error) {
		at, ok, err := store.First(released)
		return at + grace, ok, err
	}, func(c *flow.Ctx) {
		c.Wrote = true
		*seen = max(*seen, c.StreamTime)
		release(c)
	})
	return func(c *flow.Ctx, k K, v V) {
		if c.Null || c.KeyNull || c.Time < *seen-grace {
			join(c, k, v)
			return
		}
		c.Wrote = true
		if err := store.Put(c, k, v, n); err != nil {
			c.Break(node, err)
			return
		}
		*seen = max(*seen, c.Time)
		release(c)
	}
}
