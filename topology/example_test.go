package topology_test

import (
	"fmt"

	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/stream"
	"github.com/moldau/moldau/topology"
)

// What a new version of a program does to the stores of the last one.
func ExampleDiff() {
	visits := stream.NewTopic("visits", serde.String, serde.Int64)
	describe := func(build func(b *stream.Builder)) topology.Description {
		b := stream.NewBuilder()
		build(b)
		t, err := b.Build()
		if err != nil {
			panic(err)
		}
		return t.Describe()
	}
	last := describe(func(b *stream.Builder) {
		b.Stream(visits).GroupByKey().Count(state.NewKeyValue("per-page", serde.String, serde.Int64))
	})
	next := describe(func(b *stream.Builder) {
		g := b.Stream(visits).GroupByKey()
		g.Reduce(state.NewKeyValue("per-page", serde.String, serde.Int64), func(a, b int64) int64 { return max(a, b) })
		g.Aggregate(state.NewKeyValue("all", serde.String, serde.JSON[[]int64]()), func(all []int64, n int64) []int64 { return append(all, n) })
	})
	fmt.Println(topology.Diff(last, next))
	// Output:
	// + store "all": key-value, string to json, changelog all-changelog; it begins empty: what was read before does not count
}
