package state

import (
	"iter"
	"time"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/table"
	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/window"
)

// Session names a store of values by key and session: a span from its first record to its last, both included. Its changelog
// is a Kafka Streams session store's: key, end, start; raw value.
type Session[K, V any] struct {
	spec *flow.StoreSpec
	keys serde.Serde[K]
}

// NewSession declares a store. Its retention comes from the operator that uses it; a processor that opens one says
// Retention, else Build names it.
func NewSession[K, V any](name string, k serde.Serde[K], v serde.Serde[V]) Session[K, V] {
	h := Session[K, V]{newSpec(flow.Session, name), k}
	h.spec.New = func(env flow.StoreEnv) (flow.Store, error) { return table.NewSessions(env, k, v) }
	written(h.spec, k, v)
	return h
}

// Spec is for the project's own packages.
func (h Session[K, V]) Spec() *flow.StoreSpec { return h.spec }

// Keys is how keys are written, without the session.
func (h Session[K, V]) Keys() serde.Serde[K] { return h.keys }

func (h Session[K, V]) with(f func(*flow.StoreSpec)) Session[K, V] {
	h.spec = with(h.spec, f)
	return h
}

// Retention is how long a session is kept: until the greatest end in the store is d later than its own. An operator needs
// at least the gap of its windows and their grace and takes what is longer (Materialized.withRetention).
func (h Session[K, V]) Retention(d time.Duration) Session[K, V] {
	return h.with(func(s *flow.StoreSpec) { s.Retention = d.Milliseconds() })
}

// ExpireFirst: see Window.
func (h Session[K, V]) ExpireFirst() Session[K, V] {
	return h.with(func(s *flow.StoreSpec) { s.ExpireFirst = true })
}

// ExpireBySegment: see Window.
func (h Session[K, V]) ExpireBySegment() Session[K, V] {
	return h.with(func(s *flow.StoreSpec) { s.BySegment = true })
}

// EveryUpdate: see KeyValue.
func (h Session[K, V]) EveryUpdate() Session[K, V] {
	return h.with(func(s *flow.StoreSpec) { s.EveryUpdate = true })
}

// Unlogged keeps no changelog: the state is lost when the task moves or restarts (withLoggingDisabled).
func (h Session[K, V]) Unlogged() Session[K, V] {
	return h.with(func(s *flow.StoreSpec) { s.Unlogged = true })
}

// Changelog adds topic settings for the changelog (withLoggingEnabled).
func (h Session[K, V]) Changelog(settings map[string]string) Session[K, V] {
	h.spec = changelog(h.spec, settings)
	return h
}

// Open is called by a processor in Init, once per task.
func (h Session[K, V]) Open(o Opener) *SessionStore[K, V] {
	v := &SessionStore[K, V]{view: view{opener: o}, null: nilness[V]()}
	s, err := o.OpenStore(h.spec)
	if err != nil {
		v.broken = true
		return v
	}
	v.sessions = s.(*table.Sessions[K, V])
	return v
}

// SessionStore is a task's store as its processors see it: their own writes at once, committed or not. It is not for use
// outside of the task.
type SessionStore[K, V any] struct {
	view
	sessions *table.Sessions[K, V]
	null     func(V) bool
}

// Get finds the value of a session (fetchSession).
func (s *SessionStore[K, V]) Get(k window.Key[K]) (v V, ok bool) {
	c, node := s.step()
	if c == nil {
		return v, false
	}
	v, _, ok, err := s.sessions.Get(k.Key, k.Start.UnixMilli(), k.End.UnixMilli())
	return v, !fail(c, node, err) && ok
}

// Put sets the value of a session, with the time of the record in hand. A nil V, where V can be nil, is Delete. kept is
// false if the session has expired: then nothing is set, and it is counted as dropped.
func (s *SessionStore[K, V]) Put(k window.Key[K], v V) (kept bool) { return s.put(k, v, s.null(v)) }

// Delete removes a session.
func (s *SessionStore[K, V]) Delete(k window.Key[K]) {
	var none V
	s.put(k, none, true)
}

func (s *SessionStore[K, V]) put(k window.Key[K], v V, null bool) (kept bool) {
	c, node := s.step()
	if c == nil {
		return false
	}
	c.Wrote = true
	r, expired, err := s.sessions.Touch(k.Key, k.Start.UnixMilli(), k.End.UnixMilli())
	switch {
	case fail(c, node, err):
		return false
	case expired:
		s.opener.Expired()
		return false
	case null:
		s.sessions.Unset(r, c.Time, nil)
	default:
		s.sessions.Set(r, v, c.Time, nil)
	}
	return true
}

// Find gives the sessions of k that end at earliestEnd or later and start at latestStart or earlier, by end (findSessions).
// The store may be changed meanwhile; sessions added may or may not be seen.
func (s *SessionStore[K, V]) Find(k K, earliestEnd, latestStart time.Time) iter.Seq2[window.Key[K], V] {
	return func(yield func(window.Key[K], V) bool) {
		if c, node := s.step(); c != nil {
			fail(c, node, s.sessions.Find(k, earliestEnd.UnixMilli(), latestStart.UnixMilli(), each(k, yield)))
		}
	}
}

// FindAll gives the sessions of all keys that end between from and to, both included, by end, then by start, then in the order of
// the keys' serialized bytes.
func (s *SessionStore[K, V]) FindAll(from, to time.Time) iter.Seq2[window.Key[K], V] {
	return func(yield func(window.Key[K], V) bool) {
		if c, node := s.step(); c != nil {
			fail(c, node, s.sessions.FindAll(from.UnixMilli(), to.UnixMilli(), eachKey(yield)))
		}
	}
}

func each[K, V any](k K, yield func(window.Key[K], V) bool) func(start, end int64, v V, _ int64) bool {
	return func(start, end int64, v V, _ int64) bool { return yield(span(k, start, end), v) }
}

func eachKey[K, V any](yield func(window.Key[K], V) bool) func(k K, start, end int64, v V, _ int64) bool {
	return func(k K, start, end int64, v V, _ int64) bool { return yield(span(k, start, end), v) }
}

func span[K any](k K, start, end int64) window.Key[K] {
	return window.Key[K]{Key: k, Span: window.Millis(start, end)}
}

// View reads what is committed in a store of the handle; it is what queries are made of.
func (h Session[K, V]) View(s flow.Store) *SessionView[K, V] {
	return &SessionView[K, V]{sessions: s.(*table.Sessions[K, V])}
}

// SessionView reads the committed sessions of one task, whatever it is working on. Values are the caller's.
type SessionView[K, V any] struct {
	sessions *table.Sessions[K, V]
	err      error
}

// Get finds the value of a session, and the time of the record that last changed it.
func (s *SessionView[K, V]) Get(k window.Key[K]) (v V, at time.Time, ok bool, err error) {
	v, ms, ok, err := s.sessions.Committed(k.Key, k.Start.UnixMilli(), k.End.UnixMilli())
	return v, utc(ms), ok, err
}

// Find gives the sessions of k that end at earliestEnd or later and start at latestStart or earlier, by end. See Err.
func (s *SessionView[K, V]) Find(k K, earliestEnd, latestStart time.Time) iter.Seq2[window.Key[K], V] {
	return func(yield func(window.Key[K], V) bool) {
		s.keep(s.sessions.CommittedFind(k, earliestEnd.UnixMilli(), latestStart.UnixMilli(), each(k, yield)))
	}
}

// FindAll gives the sessions of all keys that end between from and to, both included, by end, then by start, then in the order of
// the keys' serialized bytes. See Err.
func (s *SessionView[K, V]) FindAll(from, to time.Time) iter.Seq2[window.Key[K], V] {
	return func(yield func(window.Key[K], V) bool) {
		s.keep(s.sessions.CommittedFindAll(from.UnixMilli(), to.UnixMilli(), eachKey(yield)))
	}
}

// Err is why a search ended early; nil: it did not.
func (s *SessionView[K, V]) Err() error { return s.err }

func (s *SessionView[K, V]) keep(err error) {
	if err != nil {
		s.err = err
	}
}
