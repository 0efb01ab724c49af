package moldau

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/table"
	"github.com/moldau/moldau/internal/worker"
	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/stream"
	"github.com/moldau/moldau/window"
)

// Entry is a key with its committed value. Time is that of the record that the value comes from; windows have none.
type Entry[K, V any] struct {
	Key   K
	Value V
	Time  time.Time
}

// place says where to look: which store, and which of its partitions. Queries run on the goroutine of the task, between two
// steps, and see what is committed.
type place[K any] struct {
	app   *App
	store string
	keys  serde.Serde[K]
	by    []byte                // the key that chose the partition; nil: the store's own
	only  int32                 // the partition; -1: by key
	fits  func(flow.Store) bool // whether a store is of the kind and types of the handle
}

// placed is where the store of a handle lies. S is what a store of its kind and types is.
func placed[S flow.Store, K any](a *App, spec *flow.StoreSpec, keys serde.Serde[K]) place[K] {
	p := place[K]{app: a, keys: keys, only: -1, fits: func(s flow.Store) bool { _, ok := s.(S); return ok }}
	if spec != nil { // else it is the zero handle, and there is no store without a name
		p.store = spec.Name
	}
	return p
}

// partition is where a key lies.
func (p place[K]) partition(k K) (int32, error) {
	n, err := p.app.node.Partitions(p.store)
	if err != nil || n == 0 || p.only >= 0 {
		return max(p.only, 0), err
	}
	by := p.by
	if by == nil {
		if by, err = p.keys.Encode(nil, k); err != nil {
			return 0, fmt.Errorf("store %q: encoding the key: %w", p.store, err)
		}
	}
	return stream.Partition(by, n), nil
}

// visit calls f with the store of a partition.
func (p place[K]) visit(ctx context.Context, partition int32, f func(flow.Store) error) error {
	var err error
	qerr := p.app.node.Query(ctx, p.store, partition, func(s flow.Store) {
		if !p.fits(s) {
			err = fmt.Errorf("%w of this kind and of these types; query it by the handle that the topology has", ErrNoStore)
			return
		}
		err = f(s)
	})
	if qerr != nil {
		if state := p.app.State(); state != worker.Running {
			return fmt.Errorf("store %q, in a process that is %s: %w", p.store, state, qerr)
		}
		return fmt.Errorf("store %q: %w", p.store, qerr)
	}
	if err != nil {
		return fmt.Errorf("store %q, partition %d: %w", p.store, partition, err)
	}
	return nil
}

// partitions are those to be looked at by a query for many keys, as far as they are here.
func (p place[K]) partitions() ([]int32, error) {
	n, err := p.app.node.Partitions(p.store)
	switch {
	case err != nil:
		return nil, err
	case p.only >= 0 || n == 0:
		return []int32{max(p.only, 0)}, nil
	case p.by != nil:
		return []int32{stream.Partition(p.by, n)}, nil
	}
	var here []int32
	for i := range n {
		if p.app.node.Here(p.store, i) == nil {
			here = append(here, i)
		}
	}
	return here, nil
}

// Owner says where a key lies: nil if in this process, else a *NotHere with the address of the process that has it.
func (p place[K]) Owner(k K) error {
	i, err := p.partition(k)
	if err != nil {
		return err
	}
	return p.app.node.Here(p.store, i)
}

// KeyValueReader reads a key-value store, or a global table, as of the last commits.
type KeyValueReader[K, V any] struct {
	place[K]
	slice int // how many entries a task is held up for; 0: all
}

// KeyValue reads the store of a handle. Keys are looked for where Kafka's default partitioner puts them.
func (a *App) KeyValue[K, V any](h state.KeyValue[K, V]) KeyValueReader[K, V] {
	r := KeyValueReader[K, V]{place: placed[*table.KV[K, V]](a, h.Spec(), h.Keys())}
	if h.Spec() != nil && h.Spec().Ordered {
		r.slice = sliceSize
	}
	return r
}

// sliceSize is how many entries of an ordered store are read between two steps of its task. Without an order every slice
// would have to sort the whole store, so there is only one.
const sliceSize = 1000

// By is a reader for entries whose partition was chosen by another key than their own, given by its bytes: that of the
// records that a processor made them from.
func (r KeyValueReader[K, V]) By(key []byte) KeyValueReader[K, V] { r.by = key; return r }

// In is a reader for one partition, for topics that are partitioned in a way of their own.
func (r KeyValueReader[K, V]) In(partition int32) KeyValueReader[K, V] { r.only = partition; return r }

// Get finds a value; ok is false if there is none. If another process holds the key the error is a *NotHere.
func (r KeyValueReader[K, V]) Get(ctx context.Context, k K) (v V, ok bool, err error) {
	i, err := r.partition(k)
	if err != nil {
		return v, false, err
	}
	err = r.visit(ctx, i, func(s flow.Store) (err error) {
		v, _, ok, err = s.(*table.KV[K, V]).Committed(k)
		return err
	})
	return v, ok, err
}

// Range gives the entries from from to to, both included, that this process holds: by partition, then in the order of the keys'
// serialized bytes. An error ends it. A task stands still while its entries are gathered: all at once, or, of a store that is
// Ordered, slice by slice.
func (r KeyValueReader[K, V]) Range(ctx context.Context, from, to K) iter.Seq2[Entry[K, V], error] {
	return r.each(ctx, &from, &to)
}

// All is Range over all keys.
func (r KeyValueReader[K, V]) All(ctx context.Context) iter.Seq2[Entry[K, V], error] {
	return r.each(ctx, nil, nil)
}

func (r KeyValueReader[K, V]) each(ctx context.Context, from, to *K) iter.Seq2[Entry[K, V], error] {
	return func(yield func(Entry[K, V], error) bool) {
		partitions, err := r.partitions()
		if err != nil {
			yield(Entry[K, V]{}, err)
			return
		}
		for _, i := range partitions {
			for at, after := from, false; ; after = true {
				entries, more, err := r.read(ctx, i, at, to, after)
				if err != nil {
					yield(Entry[K, V]{}, err)
					return
				}
				for _, e := range entries {
					if !yield(e, nil) {
						return
					}
				}
				if !more {
					break
				}
				at = &entries[len(entries)-1].Key
			}
		}
	}
}

// read gives a slice of a partition that begins at from, or after it; more says whether there are others behind.
func (r KeyValueReader[K, V]) read(ctx context.Context, partition int32, from, to *K, after bool) (entries []Entry[K, V], more bool, err error) {
	var last []byte
	if after {
		if last, err = r.keys.Encode(nil, *from); err != nil {
			return nil, false, err
		}
	}
	err = r.visit(ctx, partition, func(s flow.Store) error {
		var encoding error
		err := s.(*table.KV[K, V]).CommittedRange(from, to, func(k K, v V, at int64) bool {
			if after && len(entries) == 0 {
				var key []byte
				if key, encoding = r.keys.Encode(nil, k); encoding != nil || bytes.Equal(key, last) {
					return encoding == nil
				}
			}
			if more = r.slice > 0 && len(entries) == r.slice; more {
				return false
			}
			entries = append(entries, Entry[K, V]{k, v, time.UnixMilli(at).UTC()})
			return ctx.Err() == nil
		})
		return cmp.Or(err, encoding, ctx.Err())
	})
	return entries, more, err
}

// WindowReader reads a window store as of the last commits.
type WindowReader[K, V any] struct {
	place[K]
	view func(flow.Store) *state.WindowView[K, V]
}

// Window reads the store of a handle. Its Size gives the windows their ends. Keys are looked for where Kafka's default partitioner puts them.
func (a *App) Window[K, V any](h state.Window[K, V]) WindowReader[K, V] {
	return WindowReader[K, V]{placed[*table.Windows[K, V]](a, h.Spec(), h.Keys()), h.View}
}

// By is a reader for windows whose partition was chosen by another key than their own; see KeyValueReader.
func (r WindowReader[K, V]) By(key []byte) WindowReader[K, V] { r.by = key; return r }

// In is a reader for one partition.
func (r WindowReader[K, V]) In(partition int32) WindowReader[K, V] { r.only = partition; return r }

// Get finds the value of the window that starts at start. If another process holds the key the error is a *NotHere.
func (r WindowReader[K, V]) Get(ctx context.Context, k K, start time.Time) (v V, ok bool, err error) {
	i, err := r.partition(k)
	if err != nil {
		return v, false, err
	}
	err = r.visit(ctx, i, func(s flow.Store) (err error) {
		v, _, ok, err = r.view(s).Get(k, start)
		return err
	})
	return v, ok, err
}

// Fetch gives the windows of a key that start between from and to, both included, by start. If another process holds the key
// the error is a *NotHere.
func (r WindowReader[K, V]) Fetch(ctx context.Context, k K, from, to time.Time) iter.Seq2[Entry[window.Key[K], V], error] {
	i, err := r.partition(k)
	if err != nil {
		return func(yield func(Entry[window.Key[K], V], error) bool) { yield(Entry[window.Key[K], V]{}, err) }
	}
	r.only = i
	return r.gather(ctx, func(w *state.WindowView[K, V]) iter.Seq2[window.Key[K], V] { return w.Fetch(k, from, to) })
}

// FetchAll gives the windows of all keys that this process holds that start between from and to, both included: by partition,
// then by start, then in the order of the keys' serialized bytes.
func (r WindowReader[K, V]) FetchAll(ctx context.Context, from, to time.Time) iter.Seq2[Entry[window.Key[K], V], error] {
	return r.gather(ctx, func(w *state.WindowView[K, V]) iter.Seq2[window.Key[K], V] { return w.FetchAll(from, to) })
}

func (r WindowReader[K, V]) gather(ctx context.Context, fetch func(*state.WindowView[K, V]) iter.Seq2[window.Key[K], V]) iter.Seq2[Entry[window.Key[K], V], error] {
	return gather(ctx, r.place, func(s flow.Store) (iter.Seq2[window.Key[K], V], func() error) {
		view := r.view(s)
		return fetch(view), view.Err
	})
}

// gather visits partitions one after another and gives what fetch finds in each. A task is held up while it is visited, not
// while what was found is looked at.
func gather[K, V any](ctx context.Context, p place[K], fetch func(flow.Store) (found iter.Seq2[window.Key[K], V], failed func() error)) iter.Seq2[Entry[window.Key[K], V], error] {
	return func(yield func(Entry[window.Key[K], V], error) bool) {
		partitions, err := p.partitions()
		if err != nil {
			yield(Entry[window.Key[K], V]{}, err)
			return
		}
		for _, i := range partitions {
			var all []Entry[window.Key[K], V]
			err := p.visit(ctx, i, func(s flow.Store) error {
				found, failed := fetch(s)
				for k, v := range found {
					if all = append(all, Entry[window.Key[K], V]{Key: k, Value: v}); ctx.Err() != nil {
						break
					}
				}
				return cmp.Or(failed(), ctx.Err())
			})
			if err != nil {
				yield(Entry[window.Key[K], V]{}, err)
				return
			}
			for _, e := range all {
				if !yield(e, nil) {
					return
				}
			}
		}
	}
}
