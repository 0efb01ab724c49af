package state

import (
	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/table"
	"github.com/moldau/moldau/serde"
)

// JoinBuffer names what a join of two streams keeps: the records of each side, in stores name-this-join-store and
// name-other-join-store, and those that have met none of the other side, in name-left-shared-join-store or
// name-outer-shared-join-store. As in Kafka Streams the side that may be missing is called outer: a left join has
// name-outer-other-join-store, an outer join name-outer-this-join-store as well. Each has a changelog of that name, in Kafka Streams'
// format (StreamJoined). How long records are kept comes from the join's windows: their size and their grace.
type JoinBuffer[K, V, V2 any] struct {
	spec  *flow.StoreSpec
	parts *JoinParts[K, V, V2]
	names [3]string // of the stores: this, other, shared; "": made of the buffer's name
}

// JoinParts are the stores of a JoinBuffer, and its serdes. It is for the project's own packages.
type JoinParts[K, V, V2 any] struct {
	this, other, shared flow.StoreSpec // the roots
	Keys                serde.Serde[K]
	Left                serde.Serde[V]
	Right               serde.Serde[V2]
}

// NewJoinBuffer declares the stores of one join: of its keys, of the values of the stream that is joined, and of those of the stream
// it is joined with.
func NewJoinBuffer[K, V, V2 any](name string, k serde.Serde[K], v serde.Serde[V], v2 serde.Serde[V2]) JoinBuffer[K, V, V2] {
	h := JoinBuffer[K, V, V2]{spec: newSpec(flow.Join, name), parts: &JoinParts[K, V, V2]{Keys: k, Left: v, Right: v2}}
	p := h.parts
	written(&p.this, k, v)
	written(&p.other, k, v2)
	p.shared.Key, p.shared.Value = p.this.Key, p.this.Value+" or "+p.other.Value
	p.this.New = func(env flow.StoreEnv) (flow.Store, error) { return table.NewRecords(env, k, v) }
	p.other.New = func(env flow.StoreEnv) (flow.Store, error) { return table.NewRecords(env, k, v2) }
	p.shared.New = func(env flow.StoreEnv) (flow.Store, error) { return table.NewUnmatched(env, k) }
	return h
}

// Spec is for the project's own packages.
func (h JoinBuffer[K, V, V2]) Spec() *flow.StoreSpec { return h.spec }

// Named gives the stores other names than those made of the buffer's: of the records of either side, and of those that have met none, ""
// for an inner join. It is for taking over from a Kafka Streams application that has not named them, such as
// KSTREAM-OUTERTHIS-0000000020-store.
func (h JoinBuffer[K, V, V2]) Named(this, other, shared string) JoinBuffer[K, V, V2] {
	h.names = [3]string{this, other, shared}
	return h
}

// SingleStore has a join of a stream with itself keep one store of records instead of two that are the same
// (topology.optimization, single.store.self.join). What comes out is the same, but that each record meets itself unless it came
// after the windows' size and grace, and that left and outer joins are inner ones: null keys are dropped.
func (h JoinBuffer[K, V, V2]) SingleStore() JoinBuffer[K, V, V2] {
	h.spec = with(h.spec, func(s *flow.StoreSpec) { s.SingleStore = true })
	return h
}

// ExpireBySegment has records expire as in Kafka Streams' RocksDB stores: see Window. It shows only in what is counted as dropped, and
// in null values not moving the time by which records expire.
func (h JoinBuffer[K, V, V2]) ExpireBySegment() JoinBuffer[K, V, V2] {
	h.spec = with(h.spec, func(s *flow.StoreSpec) { s.BySegment = true })
	return h
}

// Unlogged keeps no changelogs: the state is lost when the task moves or restarts (withLoggingDisabled).
func (h JoinBuffer[K, V, V2]) Unlogged() JoinBuffer[K, V, V2] {
	h.spec = with(h.spec, func(s *flow.StoreSpec) { s.Unlogged = true })
	return h
}

// Changelog adds topic settings for the changelogs (withLoggingEnabled).
func (h JoinBuffer[K, V, V2]) Changelog(settings map[string]string) JoinBuffer[K, V, V2] {
	h.spec = changelog(h.spec, settings)
	return h
}

// Stores are the parts as a join needs them: outerThis, outerOther say on which side a record may be missing. It is for the project's own
// packages; nil where the handle is the zero value.
func (h JoinBuffer[K, V, V2]) Stores(outerThis, outerOther bool) (this, other, shared *flow.StoreSpec) {
	if h.spec == nil {
		return nil, nil, nil
	}
	part := func(root *flow.StoreSpec, kind flow.StoreKind, name string, outer bool, suffix string) *flow.StoreSpec {
		s := *h.spec
		s.Root, s.New, s.Kind, s.Name = root, root.New, kind, name
		s.Key, s.Value, s.Mistake = root.Key, root.Value, root.Mistake
		if name == "" {
			if s.Name = h.spec.Name + "-"; outer {
				s.Name += "outer-"
			}
			s.Name += suffix
		}
		return &s
	}
	this = part(&h.parts.this, flow.Join, h.names[0], outerThis, "this-join-store")
	other = part(&h.parts.other, flow.Join, h.names[1], outerOther, "other-join-store")
	if outerThis {
		shared = part(&h.parts.shared, flow.Unmatched, h.names[2], true, "shared-join-store")
	} else {
		shared = part(&h.parts.shared, flow.Unmatched, h.names[2], false, "left-shared-join-store")
	}
	return this, other, shared
}

// Parts are for the project's own packages.
func (h JoinBuffer[K, V, V2]) Parts() *JoinParts[K, V, V2] { return h.parts }
