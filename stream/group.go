package stream

import "github.com/moldau/moldau/topology"

type KGroupedStream[K, V any] struct {
	b *Builder
	n *topology.Node
}
