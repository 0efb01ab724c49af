package moldau

import (
	"context"
	"iter"
	"time"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/table"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/window"
)

// SessionReader reads a session store as of the last commits.
type SessionReader[K, V any] struct {
	place[K]
	view func(flow.Store) *state.SessionView[K, V]
}

// Session reads the store of a handle. Keys are looked for where Kafka's default partitioner puts them.
func (a *App) Session[K, V any](h state.Session[K, V]) SessionReader[K, V] {
	return SessionReader[K, V]{placed[*table.Sessions[K, V]](a, h.Spec(), h.Keys()), h.View}
}

// By is a reader for sessions whose partition was chosen by another key than their own; see KeyValueReader.
func (r SessionReader[K, V]) By(key []byte) SessionReader[K, V] { r.by = key; return r }

// In is a reader for one partition.
func (r SessionReader[K, V]) In(partition int32) SessionReader[K, V] { r.only = partition; return r }

// Get finds the value of a session. If another process holds the key the error is a *NotHere.
func (r SessionReader[K, V]) Get(ctx context.Context, k window.Key[K]) (v V, ok bool, err error) {
	i, err := r.partition(k.Key)
	if err != nil {
		return v, false, err
	}
	err = r.visit(ctx, i, func(s flow.Store) (err error) {
		v, _, ok, err = r.view(s).Get(k)
		return err
	})
	return v, ok, err
}

// Find gives the sessions of a key that end at earliestEnd or later and start at latestStart or earlier, by end. If another
// process holds the key the error is a *NotHere.
func (r SessionReader[K, V]) Find(ctx context.Context, k K, earliestEnd, latestStart time.Time) iter.Seq2[Entry[window.Key[K], V], error] {
	i, err := r.partition(k)
	if err != nil {
		return func(yield func(Entry[window.Key[K], V], error) bool) { yield(Entry[window.Key[K], V]{}, err) }
	}
	r.only = i
	return r.gather(ctx, func(w *state.SessionView[K, V]) iter.Seq2[window.Key[K], V] {
		return w.Find(k, earliestEnd, latestStart)
	})
}

// FindAll gives the sessions of all keys that this process holds that end between from and to, both included: by partition,
// then by end, then by start, then in the order of the keys' serialized bytes.
func (r SessionReader[K, V]) FindAll(ctx context.Context, from, to time.Time) iter.Seq2[Entry[window.Key[K], V], error] {
	return r.gather(ctx, func(w *state.SessionView[K, V]) iter.Seq2[window.Key[K], V] { return w.FindAll(from, to) })
}

func (r SessionReader[K, V]) gather(ctx context.Context, find func(*state.SessionView[K, V]) iter.Seq2[window.Key[K], V]) iter.Seq2[Entry[window.Key[K], V], error] {
	return gather(ctx, r.place, func(s flow.Store) (iter.Seq2[window.Key[K], V], func() error) {
		view := r.view(s)
		return find(view), view.Err
	})
}
