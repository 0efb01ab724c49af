package table

import (
	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/serde"
)

// Windows is a store of values by key and window start.
type Windows[K, V any] struct{ windows[K, V] }

// windows is a Windows whichever way it keeps values. Times are in ms. A window is there as long as its start is greater than the store's stream
// time less the retention; the store's stream time is the greatest start ever set in it, as in Kafka Streams.
type windows[K, V any] interface {
	flow.Store
	// Get is the current value, committed or not, and its time. It must not be written through.
	Get(k K, start int64) (v V, at int64, ok bool, err error)
	// Touch finds or makes an entry and notes what undo needs, as KV's does. expired: the window is gone, or would be
	// at once; there is no entry.
	Touch(k K, start int64) (r Ref, expired bool, err error)
	At(r Ref) (v V, at int64, live bool)
	Set(r Ref, v V, at int64, headers []flow.Header)
	Unset(r Ref, at int64, headers []flow.Header)
	// Changes: see KV.
	Changes(f func(k K, start int64, c Change[V]) error) error
	NeedOld(bool)
	// Fetch calls f for the windows of k that start between from and to, both inclusive, by start, until it returns
	// false. f may change the store; windows it adds may or may not be seen.
	Fetch(k K, from, to int64, f func(start int64, v V, at int64) bool) error
	// FetchReverse is Fetch from the last to the first.
	FetchReverse(k K, from, to int64, f func(start int64, v V, at int64) bool) error
	// FetchAll is Fetch over all keys, by start, then by serialized key bytes.
	FetchAll(from, to int64, f func(k K, start int64, v V, at int64) bool) error
	// FetchAllReverse is FetchAll from the last to the first.
	FetchAllReverse(from, to int64, f func(k K, start int64, v V, at int64) bool) error
	// Closing is what an operator that emits when windows close asks for: the windows that start between from and to, as
	// FetchAll gives them. It costs little if there are none.
	Closing(from, to int64, f func(k K, start int64, v V, at int64) bool) error
	// Told: see KV.
	Told(k K, start int64) (v V, at int64, ok bool, err error)
	// Committed, CommittedFetch and CommittedFetchAll are the same as of the last Done, whatever epochs are open.
	Committed(k K, start int64) (v V, at int64, ok bool, err error)
	CommittedFetch(k K, from, to int64, f func(start int64, v V, at int64) bool) error
	CommittedFetchAll(from, to int64, f func(k K, start int64, v V, at int64) bool) error
}

// NewWindows makes the store of one task; env.Spec.Retention says how long windows are kept, 0: for ever.
func NewWindows[K, V any](env flow.StoreEnv, k serde.Serde[K], v serde.Serde[V]) (*Windows[K, V], error) {
	if byValue[V]() {
		return newWindows[K, V, V](env, k, newPlain(v))
	}
	return newWindows[K, V, cell](env, k, newCoded(v))
}

func newWindows[K, V, C any](env flow.StoreEnv, k serde.Serde[K], rep rep[V, C]) (*Windows[K, V], error) {
	s := &windowed[K, V, C]{}
	if err := s.begin(env, k, rep); err != nil {
		return nil, err
	}
	return &Windows[K, V]{s}, nil
}

type windowed[K, V, C any] struct{ panes[K, V, start, C] }

func (s *windowed[K, V, C]) Get(k K, at int64) (V, int64, bool, error) { return s.get(k, start(at)) }

func (s *windowed[K, V, C]) Touch(k K, at int64) (Ref, bool, error) { return s.touchAt(k, start(at)) }

func (s *windowed[K, V, C]) Changes(f func(k K, start int64, c Change[V]) error) error {
	return s.changed(func(k K, at start, c Change[V]) error { return f(k, int64(at), c) })
}

func (s *windowed[K, V, C]) Fetch(k K, from, to int64, f func(start int64, v V, at int64) bool) error {
	return s.one(k, query{from: from, to: to}, f)
}

func (s *windowed[K, V, C]) FetchReverse(k K, from, to int64, f func(start int64, v V, at int64) bool) error {
	return s.one(k, query{from: from, to: to, reverse: true}, f)
}

func (s *windowed[K, V, C]) CommittedFetch(k K, from, to int64, f func(start int64, v V, at int64) bool) error {
	return s.one(k, query{from: from, to: to, committed: true}, f)
}

func (s *windowed[K, V, C]) one(k K, q query, f func(start int64, v V, at int64) bool) error {
	return s.fetch(k, q, func(sub start, v V, at int64) bool { return f(int64(sub), v, at) })
}

func (s *windowed[K, V, C]) FetchAll(from, to int64, f func(k K, start int64, v V, at int64) bool) error {
	return s.many(query{from: from, to: to}, f)
}

func (s *windowed[K, V, C]) FetchAllReverse(from, to int64, f func(k K, start int64, v V, at int64) bool) error {
	return s.many(query{from: from, to: to, reverse: true}, f)
}

func (s *windowed[K, V, C]) Closing(from, to int64, f func(k K, start int64, v V, at int64) bool) error {
	return s.many(query{from: from, to: to}, f)
}

func (s *windowed[K, V, C]) CommittedFetchAll(from, to int64, f func(k K, start int64, v V, at int64) bool) error {
	return s.many(query{from: from, to: to, committed: true}, f)
}

func (s *windowed[K, V, C]) many(q query, f func(k K, start int64, v V, at int64) bool) error {
	return s.fetchAll(q, func(k K, sub start, v V, at int64) bool { return f(k, int64(sub), v, at) })
}

func (s *windowed[K, V, C]) Told(k K, at int64) (V, int64, bool, error) {
	return s.wasTold(k, start(at))
}

func (s *windowed[K, V, C]) Committed(k K, at int64) (V, int64, bool, error) {
	return s.wasCommitted(k, start(at))
}
