package stream

import (
	"time"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/topology"
)

// OnTimer calls f for each timer of t when its time has come: in stream time with the record that brings it, after the
// processor has seen that record; by the wall clock within 100 ms. The timer is gone when f is called; f may set it again. What f
// emits has the timer's time. Timers that are due together come in the order of their times, and of the bytes of their keys.
func (s *Scope[K2, V2]) OnTimer[K any](t *state.TimerStore[K], f func(c *Context[K2, V2], k K, at time.Time) error) {
	if t == nil || f == nil {
		s.fail(topology.ErrArgument, "OnTimer is given a nil store or function")
		return
	}
	interval := int64(1)
	if t.Wall() {
		interval = 100
	}
	if !t.Wall() { // whoever is moved on calls what is due, as with a record
		s.env.Idle(s.node.ID, func() (int64, bool, error) { at, ok := t.Next(); return at, ok, nil }, func(*flow.Ctx) {})
	}
	s.env.Every(s.node.ID, interval, !t.Wall(), func(c *flow.Ctx, now int64) {
		s.ctx, s.call.c = c, c
		t.Due(now, func(k K, at int64) bool {
			c.Time, c.Node = at, s.node.ID
			if err := s.around(c, func() error { return f(s.call, k, utc(at)) }); err != nil {
				c.Fail(s.node.ID, err)
			}
			return c.Err == nil
		})
	})
}
