package moldau

import (
	"cmp"
	"context"
	"iter"
	"time"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/table"
	"github.com/moldau/moldau/state"
)

// VersionedReader reads a versioned store as of the last commits. There is no reading of all keys.
type VersionedReader[K, V any] struct {
	place[K]
	view func(flow.Store) *state.VersionedView[K, V]
}

// Versioned reads the store of a handle. Keys are looked for where Kafka's default partitioner puts them.
func (a *App) Versioned[K, V any](h state.Versioned[K, V]) VersionedReader[K, V] {
	return VersionedReader[K, V]{placed[*table.Versions[K, V]](a, h.Spec(), h.Keys()), h.View}
}

// By is a reader for entries whose partition was chosen by another key than their own; see KeyValueReader.
func (r VersionedReader[K, V]) By(key []byte) VersionedReader[K, V] { r.by = key; return r }

// In is a reader for one partition.
func (r VersionedReader[K, V]) In(partition int32) VersionedReader[K, V] {
	r.only = partition
	return r
}

// Get finds the latest version; ok is false if there is none, or it is a deletion. If another process holds the key the error
// is a *NotHere.
func (r VersionedReader[K, V]) Get(ctx context.Context, k K) (v V, ok bool, err error) {
	err = r.look(ctx, k, func(s *state.VersionedView[K, V]) error {
		v, _, ok, err = s.Get(k)
		return err
	})
	return v, ok, err
}

// GetAsOf finds the version that is valid at a time. Before the store's history there is none, unless it is the latest.
func (r VersionedReader[K, V]) GetAsOf(ctx context.Context, k K, at time.Time) (v V, ok bool, err error) {
	err = r.look(ctx, k, func(s *state.VersionedView[K, V]) error {
		v, _, ok, err = s.GetAsOf(k, at)
		return err
	})
	return v, ok, err
}

// History gives the versions of a key that are valid at any time between from and to, both included, the latest first
// (MultiVersionedKeyQuery). An error ends it.
func (r VersionedReader[K, V]) History(ctx context.Context, k K, from, to time.Time) iter.Seq2[state.Version[V], error] {
	return func(yield func(state.Version[V], error) bool) {
		var all []state.Version[V]
		err := r.look(ctx, k, func(s *state.VersionedView[K, V]) error {
			for v := range s.History(k, from, to) {
				if all = append(all, v); ctx.Err() != nil {
					break
				}
			}
			return cmp.Or(s.Err(), ctx.Err())
		})
		if err != nil {
			yield(state.Version[V]{}, err)
			return
		}
		for _, v := range all {
			if !yield(v, nil) {
				return
			}
		}
	}
}

// look visits the task that has a key.
func (r VersionedReader[K, V]) look(ctx context.Context, k K, f func(*state.VersionedView[K, V]) error) error {
	i, err := r.partition(k)
	if err != nil {
		return err
	}
	return r.visit(ctx, i, func(s flow.Store) error { return f(r.view(s)) })
}
