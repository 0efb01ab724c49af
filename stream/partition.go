package stream

import "github.com/moldau/moldau/internal/flow"

// Partition is where Kafka's default partitioner puts a key, by its bytes, in a topic of n partitions.
func Partition(key []byte, n int32) int32 { return flow.Partition(key, n) }
