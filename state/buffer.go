package state

import (
	"time"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/serde"
)

// Buffer names a store in which the records of a stream wait for the rows of a versioned table that they are to be joined with
// (KIP-923). Its changelog is that of Kafka Streams' time-ordered buffer.
type Buffer[K, V any] struct {
	spec   *flow.StoreSpec
	keys   serde.Serde[K]
	values serde.Serde[V]
}

// NewBuffer declares a store for records with these keys and values.
func NewBuffer[K, V any](name string, k serde.Serde[K], v serde.Serde[V]) Buffer[K, V] {
	h := Buffer[K, V]{newSpec(flow.Buffer, name), k, v}
	written(h.spec, k, v)
	return h // the operator says how it is kept
}

// Spec is for the project's own packages.
func (h Buffer[K, V]) Spec() *flow.StoreSpec { return h.spec }

// Keys is how keys are written.
func (h Buffer[K, V]) Keys() serde.Serde[K] { return h.keys }

// Values is how values are written.
func (h Buffer[K, V]) Values() serde.Serde[V] { return h.values }

// Grace is how long a record waits: until stream time is d past its own. The default is 0. It must not be longer than the
// history of the table (Joined.withGracePeriod).
func (h Buffer[K, V]) Grace(d time.Duration) Buffer[K, V] {
	h.spec = with(h.spec, func(s *flow.StoreSpec) { s.Grace = d.Milliseconds() })
	return h
}

// Unlogged keeps no changelog: what waits is lost when the task moves or restarts.
func (h Buffer[K, V]) Unlogged() Buffer[K, V] {
	h.spec = with(h.spec, func(s *flow.StoreSpec) { s.Unlogged = true })
	return h
}

// Changelog adds topic settings for the changelog.
func (h Buffer[K, V]) Changelog(settings map[string]string) Buffer[K, V] {
	h.spec = changelog(h.spec, settings)
	return h
}
