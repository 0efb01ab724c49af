package stream_test

import (
	"fmt"
	"testing"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/task"
	"github.com/moldau/moldau/internal/tier"
	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/stream"
)

// rig is one task of a topology, driven without any log.
type rig struct {
	task  *task.Task
	topic string
	next  int64
	recs  []flow.In
	each  func(recs []flow.In, next int64) // readies a batch; may be nil
}

func newRig(b *testing.B, topic string, recs []flow.In, build func(*stream.Builder)) *rig {
	b.Helper()
	sb := stream.NewBuilder()
	build(sb)
	top, err := sb.Build()
	if err != nil {
		b.Fatal(err)
	}
	topics := map[string]*flow.Topic{}
	c := task.Config{App: "bench", Sub: top.Subs[0], Stores: map[string]flow.Store{}, Start: map[string]int64{topic: 0},
		Topics: func(name string) (*flow.Topic, error) {
			if topics[name] == nil {
				topics[name] = &flow.Topic{Name: name, Partitions: 4}
			}
			return topics[name], nil
		}}
	db := tier.NewMem()
	for _, s := range top.Subs[0].Stores {
		t, err := db.Store(s.Spec.Name, tier.Expect{})
		if err != nil {
			b.Fatal(err)
		}
		changelog, _ := c.Topics(s.Topic.Full("bench"))
		c.Stores[s.Spec.Name], err = s.Spec.New(flow.StoreEnv{Spec: s.Spec, Changelog: changelog, Tier: t})
		if err != nil {
			b.Fatal(err)
		}
	}
	k, err := task.New(c)
	if err != nil {
		b.Fatal(err)
	}
	return &rig{task: k, topic: topic, recs: recs}
}

// run works off n records in steps of 1000, and commits every 10,000.
func (r *rig) run(b *testing.B, n int) {
	b.Helper()
	since := 0
	for n > 0 {
		batch := min(n, 1000)
		for i := range batch {
			r.recs[i].Offset = r.next + int64(i)
		}
		if r.each != nil {
			r.each(r.recs[:batch], r.next)
		}
		r.next += int64(batch)
		r.task.Add(r.topic, r.recs[:batch], r.next, nil)
		if _, err := r.task.Step(1, batch); err != nil {
			b.Fatal(err)
		}
		r.task.Recycle(r.task.Take())
		n -= batch
		if since += batch; since >= 10_000 {
			since = 0
			e, err := r.task.Seal(1)
			if err != nil {
				b.Fatal(err)
			}
			r.task.Recycle(e.Records)
			if err := r.task.Done(e.N, nil); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func input(keys int) []flow.In {
	recs := make([]flow.In, 1000)
	for i := range recs {
		recs[i] = flow.In{Time: int64(i), Key: fmt.Appendf(nil, "key-%d", i*7919%keys), Value: []byte{0, 0, 0, 0, 0, 0, byte(i >> 8), byte(i)}}
	}
	return recs
}

var longs = stream.NewTopic("longs", serde.Bytes, serde.Int64)

// Four fused operators, and what surrounds them: the queue, the choice, decoding a number.
func BenchmarkChain(b *testing.B) {
	for _, ops := range []int{0, 4, 8} {
		b.Run(fmt.Sprint(ops), func(b *testing.B) {
			r := newRig(b, "longs", input(1000), func(sb *stream.Builder) {
				s := sb.Stream(stream.NewTopic("longs", none{}, serde.Int64))
				for range ops / 4 {
					s = s.Filter(func(_ struct{}, v int64) bool { return v >= 0 }).
						MapValues(func(v int64) int64 { return v + 1 }).
						Map(func(k struct{}, v int64) (struct{}, int64) { return k, v * 2 }).
						Peek(func(struct{}, int64) {})
				}
				s.Filter(func(_ struct{}, v int64) bool { return v < 0 }).To(stream.NewTopic("out", none{}, serde.Int64))
			})
			b.ReportAllocs()
			b.ResetTimer()
			r.run(b, b.N)
		})
	}
}

// none is a key that costs nothing.
type none struct{}

func (none) Encode(dst []byte, _ struct{}) ([]byte, error) { return dst, nil }
func (none) Decode([]byte) (struct{}, error)               { return struct{}{}, nil }

func BenchmarkSink(b *testing.B) {
	r := newRig(b, "longs", input(1000), func(sb *stream.Builder) {
		sb.Stream(longs).To(stream.NewTopic("out", serde.Bytes, serde.Int64))
	})
	b.ReportAllocs()
	b.ResetTimer()
	r.run(b, b.N)
}

func BenchmarkKeyedCount(b *testing.B) {
	for _, keys := range []int{1000} {
		b.Run(fmt.Sprint(keys), func(b *testing.B) {
			r := newRig(b, "text", input(keys), func(sb *stream.Builder) {
				sb.Stream(stream.NewTopic("text", serde.String, serde.Int64)).GroupByKey().
					Count(state.NewKeyValue("counts", serde.String, serde.Int64)).
					ToStream().To(stream.NewTopic("out", serde.String, serde.Int64))
			})
			b.ReportAllocs()
			b.ResetTimer()
			r.run(b, b.N)
		})
	}
}

// Two tables that each record changes, joined: of the rows that lie as they are, and of those that lie as bytes.
func BenchmarkJoinTables(b *testing.B) {
	b.Run("numbers", func(b *testing.B) { benchJoinTables(b, serde.Int64) })
	b.Run("bytes", func(b *testing.B) { benchJoinTables(b, serde.Bytes) })
	b.Run("json", func(b *testing.B) { benchJoinTables(b, serde.JSON[[]int64]()) })
}

func benchJoinTables[V any](b *testing.B, values serde.Serde[V]) {
	recs := input(1000)
	if _, ok := any(*new(V)).([]int64); ok {
		for i := range recs {
			recs[i].Value = fmt.Appendf(nil, "[%d,2,3,4,5,6,7]", i)
		}
	}
	r := newRig(b, "rows", recs, func(sb *stream.Builder) {
		s := sb.Stream(stream.NewTopic("rows", serde.String, values))
		left := s.Filter(func(k string, _ V) bool { return k[len(k)-1]%2 == 0 }).ToTable(state.NewKeyValue("left", serde.String, values))
		s.ToTable(state.NewKeyValue("right", serde.String, values)).Join(left, func(v, _ V) V { return v }).
			ToStream().To(stream.NewTopic("out", serde.String, values))
	})
	b.ReportAllocs()
	b.ResetTimer()
	r.run(b, b.N)
}
