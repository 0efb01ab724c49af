package stream

import (
	"time"

	"github.com/moldau/moldau/serde"
)

// TopicPattern is a handle of all topics whose names match a regular expression, whenever they come into being. It is read-only;
// its settings return copies.
//
// The topics must be there for others to write: the application creates none of them, and its own internal topics match nothing. A
// topic may have one source: that a topic is read by its name and matched as well, or matched by two patterns, is an error. Topics that
// are to be joined or grouped by key must have the same number of partitions, as for sources that are named.
type TopicPattern[K, V any] struct{ topic Topic[K, V] }

// NewTopicPattern declares a pattern, in the syntax of package regexp. It must match the whole name of a topic.
//
//go:noinline
func NewTopicPattern[K, V any](pattern string, key serde.Serde[K], value serde.Serde[V]) TopicPattern[K, V] {
	return TopicPattern[K, V]{Topic[K, V]{root: &topicRoot{where()}, name: pattern, key: key, value: value, pattern: true}}
}

// FromEarliest, FromLatest and FromCommitted are those of Topic. They hold for a topic that is found while the application runs,
// too: read from the latest, it begins where it ends when it is found.
func (p TopicPattern[K, V]) FromEarliest() TopicPattern[K, V] {
	return TopicPattern[K, V]{p.topic.FromEarliest()}
}
func (p TopicPattern[K, V]) FromLatest() TopicPattern[K, V] {
	return TopicPattern[K, V]{p.topic.FromLatest()}
}
func (p TopicPattern[K, V]) FromCommitted() TopicPattern[K, V] {
	return TopicPattern[K, V]{p.topic.FromCommitted()}
}

// Timestamps is Topic.Timestamps.
func (p TopicPattern[K, V]) Timestamps(f func(r Record[K, V], last time.Time) time.Time) TopicPattern[K, V] {
	return TopicPattern[K, V]{p.topic.Timestamps(f)}
}

// IdleAfter is Topic.IdleAfter.
func (p TopicPattern[K, V]) IdleAfter(d time.Duration) TopicPattern[K, V] {
	return TopicPattern[K, V]{p.topic.IdleAfter(d)}
}

// StreamPattern reads all topics that match. Those that come into being while the application runs are found within
// Config.MetadataMaxAge; one that is deleted is no longer read. Context.Source tells where a record came from.
func (b *Builder) StreamPattern[K, V any](p TopicPattern[K, V]) *KStream[K, V] {
	return &KStream[K, V]{b, b.source(p.topic)}
}
