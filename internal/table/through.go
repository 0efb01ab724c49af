package table

import (
	"fmt"

	"github.com/moldau/moldau/internal/flow"
)

// Through is the store with what is restored made of other records: f gives the record to take in, ok=false for none. It is
// for global stores, whose topic is not their changelog but what they are computed from.
func (s *KV[K, V]) Through(f func(flow.In) (in flow.In, ok bool, err error)) *KV[K, V] {
	return &KV[K, V]{through[K, V]{s.kv, f}}
}

type through[K, V any] struct {
	kv[K, V]
	f func(flow.In) (flow.In, bool, error)
}

// Restore: see flow.Store.
func (s through[K, V]) Restore(records []flow.In, next int64) error {
	made := make([]flow.In, 0, len(records))
	for _, r := range records {
		in, ok, err := s.f(r)
		if err != nil {
			return fmt.Errorf("the record at offset %d: %w", r.Offset, err)
		}
		if ok {
			made = append(made, in)
		}
	}
	return s.kv.Restore(made, next)
}
