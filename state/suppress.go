package state

import (
	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/table"
	"github.com/moldau/moldau/serde"
)

// SuppressBuffer names what KTable.Suppress holds back. Its changelog is that of Kafka Streams' suppression buffer, format 3: the key;
// the record's context, the value before, old and new value, and the time by which the buffer is ordered.
type SuppressBuffer[K, V any] struct {
	spec   *flow.StoreSpec
	keys   serde.Serde[K]
	values serde.Serde[V]
}

// NewSuppressBuffer declares a buffer.
func NewSuppressBuffer[K, V any](name string, k serde.Serde[K], v serde.Serde[V]) SuppressBuffer[K, V] {
	return SuppressBuffer[K, V]{heldBack(name, k, v), k, v}
}

func heldBack(name string, k, v any) *flow.StoreSpec {
	s := newSpec(flow.Buffer, name)
	written(s, k, v)
	s.LogHeaders = []flow.Header{{Key: "v", Value: []byte{3}}}
	s.New = func(env flow.StoreEnv) (flow.Store, error) { return table.NewHolding(env, table.HeldSize) }
	return s
}

// Spec is for the project's own packages.
func (h SuppressBuffer[K, V]) Spec() *flow.StoreSpec { return h.spec }

// Keys is how keys are written.
func (h SuppressBuffer[K, V]) Keys() serde.Serde[K] { return h.keys }

// Values is how values are written.
func (h SuppressBuffer[K, V]) Values() serde.Serde[V] { return h.values }

// Unlogged keeps no changelog: what is held back is lost when the task moves or restarts (withLoggingDisabled).
func (h SuppressBuffer[K, V]) Unlogged() SuppressBuffer[K, V] {
	h.spec = with(h.spec, func(s *flow.StoreSpec) { s.Unlogged = true })
	return h
}

// Changelog adds topic settings for the changelog (withLoggingEnabled).
func (h SuppressBuffer[K, V]) Changelog(settings map[string]string) SuppressBuffer[K, V] {
	h.spec = changelog(h.spec, settings)
	return h
}

// WindowBuffer is a SuppressBuffer for windowed tables, for WindowedKTable.UntilClosed. The serde is that of keys without their window, which
// follows them in the changelog.
type WindowBuffer[K, V any] struct{ buffer SuppressBuffer[K, V] }

// NewWindowBuffer declares a buffer.
func NewWindowBuffer[K, V any](name string, k serde.Serde[K], v serde.Serde[V]) WindowBuffer[K, V] {
	return WindowBuffer[K, V]{SuppressBuffer[K, V]{heldBack(name, k, v), k, v}}
}

// Spec is for the project's own packages.
func (h WindowBuffer[K, V]) Spec() *flow.StoreSpec { return h.buffer.spec }

// Keys is how keys are written, without the window.
func (h WindowBuffer[K, V]) Keys() serde.Serde[K] { return h.buffer.keys }

// Values is how values are written.
func (h WindowBuffer[K, V]) Values() serde.Serde[V] { return h.buffer.values }

// Unlogged: see SuppressBuffer.
func (h WindowBuffer[K, V]) Unlogged() WindowBuffer[K, V] {
	return WindowBuffer[K, V]{h.buffer.Unlogged()}
}

// Changelog: see SuppressBuffer.
func (h WindowBuffer[K, V]) Changelog(settings map[string]string) WindowBuffer[K, V] {
	return WindowBuffer[K, V]{h.buffer.Changelog(settings)}
}
