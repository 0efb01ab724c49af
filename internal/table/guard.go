package table

import (
	"sync"

	"github.com/moldau/moldau/internal/flow"
)

// guarded is a KV that several tasks read at a time, as they do with a global table: nobody writes to it but Restore, and the
// worker keeps readers out of that. Reading moves things about inside, hence the lock; it is never held while somebody
// else's function runs.
type guarded[K, V any] struct {
	kv[K, V]
	mu *sync.Mutex
}

// ofTasks is whether a store belongs to one task, which seals its changes. A store without a changelog of its own, that is not
// meant to be without, is filled from a topic by Restore alone.
func ofTasks(env flow.StoreEnv) bool {
	return env.Changelog != nil || env.Spec.Unlogged || env.Spec.FromSource
}

func (g guarded[K, V]) Get(k K) (v V, at int64, ok bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.kv.Get(k)
}

func (g guarded[K, V]) Committed(k K) (v V, at int64, ok bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.kv.Committed(k)
}

type found[K, V any] struct {
	k  K
	v  V
	at int64
}

// all collects what scan finds before f sees any of it.
func (g guarded[K, V]) all(scan func(func(K, V, int64) bool) error, f func(K, V, int64) bool) error {
	var rows []found[K, V]
	g.mu.Lock()
	err := scan(func(k K, v V, at int64) bool {
		rows = append(rows, found[K, V]{k, v, at})
		return true
	})
	g.mu.Unlock()
	for _, r := range rows {
		if !f(r.k, r.v, r.at) {
			return nil
		}
	}
	return err
}

func (g guarded[K, V]) Range(from, to *K, f func(K, V, int64) bool) error {
	return g.all(func(f func(K, V, int64) bool) error { return g.kv.Range(from, to, f) }, f)
}

func (g guarded[K, V]) RangeReverse(from, to *K, f func(K, V, int64) bool) error {
	return g.all(func(f func(K, V, int64) bool) error { return g.kv.RangeReverse(from, to, f) }, f)
}

func (g guarded[K, V]) Prefix(p []byte, f func(K, V, int64) bool) error {
	return g.all(func(f func(K, V, int64) bool) error { return g.kv.Prefix(p, f) }, f)
}

func (g guarded[K, V]) CommittedRange(from, to *K, f func(K, V, int64) bool) error {
	return g.all(func(f func(K, V, int64) bool) error { return g.kv.CommittedRange(from, to, f) }, f)
}

func (g guarded[K, V]) Memory() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.kv.Memory()
}

func (g guarded[K, V]) Shrink(want int64) int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.kv.Shrink(want)
}
