package stream_test

import (
	"testing"
	"time"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/stream"
	"github.com/moldau/moldau/window"
)

// The join loop: a record looks for others, is kept, and what it meets goes to a topic. Time moves by 1 ms a record.
func BenchmarkJoin(b *testing.B) {
	var (
		in     = stream.NewTopic("longs", serde.String, serde.Int64)
		buffer = state.NewJoinBuffer("pairs", serde.String, serde.Int64, serde.Int64)
		sums   = stream.NewTopic("out", serde.String, serde.Int64)
		within = window.Within(time.Second)
		even   = func(_ string, v int64) bool { return v%2 == 0 }
		odd    = func(_ string, v int64) bool { return v%2 != 0 }
		one    = func(v int64, _ *int64) int64 { return v }
	)
	for _, bench := range []struct {
		name string
		keys int // of 1000 records of 1 ms each, half of a side
		join func(l, r *stream.KStream[string, int64]) *stream.KStream[string, int64]
	}{
		{"inner/nobody", 1000, func(l, r *stream.KStream[string, int64]) *stream.KStream[string, int64] {
			return l.Join(r, within, buffer, func(a, b int64) int64 { return a + b })
		}},
		{"inner/2", 333, func(l, r *stream.KStream[string, int64]) *stream.KStream[string, int64] {
			return l.Join(r, within, buffer, func(a, b int64) int64 { return a + b })
		}},
		{"left/2", 333, func(l, r *stream.KStream[string, int64]) *stream.KStream[string, int64] {
			return l.LeftJoin(r, within, buffer, one)
		}},
		{"left/nobody", 1000, func(l, r *stream.KStream[string, int64]) *stream.KStream[string, int64] {
			return l.LeftJoin(r, within, buffer, one)
		}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			r := newRig(b, "longs", input(bench.keys), func(sb *stream.Builder) {
				s := sb.Stream(in)
				bench.join(s.Filter(even), s.Filter(odd)).To(sums)
			})
			r.each = func(recs []flow.In, from int64) {
				for i := range recs {
					recs[i].Time = from + int64(i)
				}
			}
			b.ReportAllocs()
			r.run(b, 20_000)
			b.ResetTimer()
			r.run(b, b.N)
		})
	}
}
