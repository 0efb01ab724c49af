package table

import (
	"math"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/serde"
)

// Sessions is a store of values by key and session: the times of its first and last record, ms, both inclusive.
type Sessions[K, V any] struct{ sessions[K, V] }

// sessions is a Sessions whichever way it keeps values. A session is there as long as its end is greater than the store's
// stream time less the retention; the store's stream time is the greatest end ever set in it, as in Kafka Streams.
type sessions[K, V any] interface {
	flow.Store
	// Get is the current value, committed or not, and its time. It must not be written through.
	Get(k K, start, end int64) (v V, at int64, ok bool, err error)
	// Touch finds or makes an entry and notes what undo needs, as KV's does. expired: the session is gone, or would be
	// at once; there is no entry.
	Touch(k K, start, end int64) (r Ref, expired bool, err error)
	At(r Ref) (v V, at int64, live bool)
	Set(r Ref, v V, at int64, headers []flow.Header)
	Unset(r Ref, at int64, headers []flow.Header)
	// Changes: see KV.
	Changes(f func(k K, start, end int64, c Change[V]) error) error
	NeedOld(bool)
	// Find calls f for the sessions of k that end at earliestEnd or later and start at latestStart or earlier, by end, then by
	// start, until it returns false (findSessions). f may change the store; sessions it adds may or may not be seen.
	Find(k K, earliestEnd, latestStart int64, f func(start, end int64, v V, at int64) bool) error
	// FindReverse is Find from the last to the first.
	FindReverse(k K, earliestEnd, latestStart int64, f func(start, end int64, v V, at int64) bool) error
	// FindAll calls f for the sessions of all keys that end between from and to, both inclusive, by end, then by start, then
	// by serialized key bytes. It costs little if there are none.
	FindAll(from, to int64, f func(k K, start, end int64, v V, at int64) bool) error
	// Closing is what an operator that emits when sessions close asks for: FindAll and, where expiry is by segment, those
	// that have expired but are not gone, as in Kafka Streams.
	Closing(from, to int64, f func(k K, start, end int64, v V, at int64) bool) error
	// FindAllReverse is FindAll from the last to the first.
	FindAllReverse(from, to int64, f func(k K, start, end int64, v V, at int64) bool) error
	// Told: see KV.
	Told(k K, start, end int64) (v V, at int64, ok bool, err error)
	// Committed, CommittedFind and CommittedFindAll are the same as of the last Done, whatever epochs are open.
	Committed(k K, start, end int64) (v V, at int64, ok bool, err error)
	CommittedFind(k K, earliestEnd, latestStart int64, f func(start, end int64, v V, at int64) bool) error
	CommittedFindAll(from, to int64, f func(k K, start, end int64, v V, at int64) bool) error
}

// NewSessions makes the store of one task; env.Spec.Retention says how long sessions are kept after their end, 0: for ever.
func NewSessions[K, V any](env flow.StoreEnv, k serde.Serde[K], v serde.Serde[V]) (*Sessions[K, V], error) {
	if byValue[V]() {
		return newSessions[K, V, V](env, k, newPlain(v))
	}
	return newSessions[K, V, cell](env, k, newCoded(v))
}

func newSessions[K, V, C any](env flow.StoreEnv, k serde.Serde[K], rep rep[V, C]) (*Sessions[K, V], error) {
	s := &sessioned[K, V, C]{}
	if err := s.begin(env, k, rep); err != nil {
		return nil, err
	}
	return &Sessions[K, V]{s}, nil
}

type sessioned[K, V, C any] struct{ panes[K, V, session, C] }

func (s *sessioned[K, V, C]) Get(k K, start, end int64) (V, int64, bool, error) {
	return s.get(k, session{end, start})
}

func (s *sessioned[K, V, C]) Touch(k K, start, end int64) (Ref, bool, error) {
	return s.touchAt(k, session{end, start})
}

func (s *sessioned[K, V, C]) Changes(f func(k K, start, end int64, c Change[V]) error) error {
	return s.changed(func(k K, at session, c Change[V]) error { return f(k, at.start, at.end, c) })
}

func (s *sessioned[K, V, C]) Find(k K, earliestEnd, latestStart int64, f func(start, end int64, v V, at int64) bool) error {
	return s.one(k, query{from: earliestEnd}, latestStart, f)
}

func (s *sessioned[K, V, C]) FindReverse(k K, earliestEnd, latestStart int64, f func(start, end int64, v V, at int64) bool) error {
	return s.one(k, query{from: earliestEnd, reverse: true}, latestStart, f)
}

func (s *sessioned[K, V, C]) CommittedFind(k K, earliestEnd, latestStart int64, f func(start, end int64, v V, at int64) bool) error {
	return s.one(k, query{from: earliestEnd, committed: true}, latestStart, f)
}

func (s *sessioned[K, V, C]) one(k K, q query, latestStart int64, f func(start, end int64, v V, at int64) bool) error {
	q.to = math.MaxInt64
	return s.fetch(k, q, func(sub session, v V, at int64) bool {
		return sub.start > latestStart || f(sub.start, sub.end, v, at)
	})
}

func (s *sessioned[K, V, C]) FindAll(from, to int64, f func(k K, start, end int64, v V, at int64) bool) error {
	return s.many(query{from: from, to: to}, f)
}

func (s *sessioned[K, V, C]) Closing(from, to int64, f func(k K, start, end int64, v V, at int64) bool) error {
	return s.many(query{from: from, to: to, hidden: true}, f)
}

func (s *sessioned[K, V, C]) FindAllReverse(from, to int64, f func(k K, start, end int64, v V, at int64) bool) error {
	return s.many(query{from: from, to: to, reverse: true}, f)
}

func (s *sessioned[K, V, C]) CommittedFindAll(from, to int64, f func(k K, start, end int64, v V, at int64) bool) error {
	return s.many(query{from: from, to: to, committed: true}, f)
}

func (s *sessioned[K, V, C]) many(q query, f func(k K, start, end int64, v V, at int64) bool) error {
	return s.fetchAll(q, func(k K, sub session, v V, at int64) bool { return f(k, sub.start, sub.end, v, at) })
}

func (s *sessioned[K, V, C]) Told(k K, start, end int64) (V, int64, bool, error) {
	return s.wasTold(k, session{end, start})
}

func (s *sessioned[K, V, C]) Committed(k K, start, end int64) (V, int64, bool, error) {
	return s.wasCommitted(k, session{end, start})
}
