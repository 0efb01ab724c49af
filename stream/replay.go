package stream

import (
	"fmt"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/state"
)

// serdes is a handle that says how its store writes.
type serdes[K, V any] interface {
	state.Handle
	Keys() serde.Serde[K]
	Values() serde.Serde[V]
}

// replay makes records of a table's topic into those that the changelog of its store would have. Left out is what the table has left
// out: null keys, times before the epoch, and what the error policy had skipped, since the serdes or Timestamps refused it.
// Bytes are written anew: topic and store may have serdes of their own.
func replay[K, V any](t Topic[K, V], h serdes[K, V]) func() flow.Replay {
	return func() flow.Replay {
		decodeKey, decodeValue, extract, last := decoder(t.key), decoder(t.value), t.extract(), int64(-1)
		keys, values := h.Keys(), h.Values()
		var k K
		var v V
		read := func(r *flow.In) (err error) {
			if k, v, err = decode(decodeKey, decodeValue, r.Key, r.Value); err != nil || extract == nil {
				return err
			}
			c := flow.Ctx{Time: r.Time, Headers: r.Headers}
			r.Time, err = extract(&c, r.Key, r.Value, last)
			return err
		}
		return func(slab []byte, r *flow.In) ([]byte, bool, error) {
			if err := flow.Safely(func() error { return read(r) }); err != nil || r.Time < 0 {
				return slab, false, nil
			}
			last = max(last, r.Time)
			if r.Key == nil {
				return slab, false, nil
			}
			from := len(slab)
			slab, err := keys.Encode(slab, k)
			if err != nil {
				return slab, false, fmt.Errorf("encoding key %v for store %q: %w", k, h.Spec().Name, err)
			}
			r.Key = slab[from:len(slab):len(slab)]
			if r.Value == nil {
				return slab, true, nil
			}
			from = len(slab)
			if slab, err = values.Encode(slab, v); err != nil {
				return slab, false, fmt.Errorf("encoding the value of key %v for store %q: %w", k, h.Spec().Name, err)
			}
			r.Value = slab[from:len(slab):len(slab)]
			return slab, true, nil
		}
	}
}
