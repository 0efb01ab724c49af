package stream_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/stream"
	"github.com/moldau/moldau/streamtest"
	"github.com/moldau/moldau/window"
)

// One example for each family of operators that has none elsewhere. They share these handles.
var (
	exIn       = stream.NewTopic("in", serde.String, serde.String)
	exOther    = stream.NewTopic("other", serde.String, serde.String)
	exOut      = stream.NewTopic("out", serde.String, serde.String)
	exNumbers  = stream.NewTopic("numbers", serde.String, serde.Int64)
	exSlides   = stream.NewWindowedTopic("slides", serde.String, serde.Int64, 10*time.Second)
	exLeft     = state.NewKeyValue("left", serde.String, serde.String)
	exRight    = state.NewKeyValue("right", serde.String, serde.String)
	exCity     = state.NewKeyValue("city", serde.String, serde.String)
	exRegroup  = stream.NewRepartition("regroup", serde.String, serde.String)
	exPerCity  = state.NewKeyValue("per-city", serde.String, serde.Int64)
	exBasket   = state.NewKeyValue("basket", serde.String, serde.String)
	exLastTen  = state.NewWindow("last-ten-seconds", serde.String, serde.Int64)
	exLastSeen = state.NewKeyValue("last-seen", serde.String, serde.String)
)

// printed shows what a topic has got.
func printed[V any](d *streamtest.Driver, topic stream.Topic[string, V]) {
	for _, r := range streamtest.Out(d, topic).All() {
		if r.Null {
			fmt.Printf("%s: gone\n", r.Key)
		} else {
			fmt.Printf("%s: %v\n", r.Key, r.Value)
		}
	}
}

func ExampleKStream_Map() {
	example(func(tb testing.TB) {
		d := streamtest.New(tb, func(b *stream.Builder) {
			b.Stream(exIn).
				Filter(func(_, line string) bool { return line != "" }).
				FlatMapValues(strings.Fields).
				Map(func(k, word string) (string, string) { return word, k }).
				To(exOut)
		})
		streamtest.In(d, exIn).Send("line 1", "to be")
		printed(d, exOut)
	})
	// Output:
	// to: line 1
	// be: line 1
}

func ExampleKGroupedStream_Cogroup() {
	example(func(tb testing.TB) {
		add := func(all, item string) string { return strings.TrimSpace(all + " " + item) }
		d := streamtest.New(tb, func(b *stream.Builder) {
			b.Stream(exIn).GroupByKey().Cogroup(add).
				And(b.Stream(exOther).GroupByKey(), add).
				Aggregate(exBasket).ToStream().To(exOut)
		})
		streamtest.In(d, exIn).Send("ann", "apples")
		streamtest.In(d, exOther).Send("ann", "pears")
		printed(d, exOut)
	})
	// Output:
	// ann: apples
	// ann: apples pears
}

// A table that is grouped again takes away what it has added when a row changes.
func ExampleKTable_GroupBy() {
	example(func(tb testing.TB) {
		d := streamtest.New(tb, func(b *stream.Builder) {
			b.Table(exIn, exCity).
				GroupBy(exRegroup, func(person, city string) (string, string) { return city, person }).
				Count(exPerCity).ToStream().To(exNumbers)
		})
		in := streamtest.In(d, exIn)
		in.Send("ann", "Prague")
		in.Send("bob", "Prague")
		in.Send("ann", "Brno")
		printed(d, exNumbers)
	})
	// Output:
	// Prague: 1
	// Prague: 2
	// Prague: 1
	// Brno: 1
}

func ExampleKTable_OuterJoin() {
	example(func(tb testing.TB) {
		or := func(s *string) string {
			if s == nil {
				return "?"
			}
			return *s
		}
		d := streamtest.New(tb, func(b *stream.Builder) {
			b.Table(exIn, exLeft).
				OuterJoin(b.Table(exOther, exRight), func(l, r *string) string { return or(l) + "-" + or(r) }).
				ToStream().To(exOut)
		})
		streamtest.In(d, exIn).Send("k", "a")
		streamtest.In(d, exOther).Send("k", "b")
		streamtest.In(d, exIn).SendNull("k")
		streamtest.In(d, exOther).SendNull("k")
		printed(d, exOut)
	})
	// Output:
	// k: a-?
	// k: a-b
	// k: ?-b
	// k: gone
}

// A global table is joined by any key, without a repartition topic.
func ExampleKStream_JoinGlobal() {
	example(func(tb testing.TB) {
		d := streamtest.New(tb, func(b *stream.Builder) {
			airports := b.GlobalTable(exOther, exCity)
			b.Stream(exIn).
				JoinGlobal(airports, func(_, code string) string { return code }, func(code, city string) string { return code + " is " + city }).
				To(exOut)
		})
		streamtest.In(d, exOther).Send("PRG", "Prague")
		streamtest.In(d, exIn).Send("flight 1", "PRG")
		printed(d, exOut)
	})
	// Output:
	// flight 1: PRG is Prague
}

func ExampleKGroupedStream_SlidingBy() {
	example(func(tb testing.TB) {
		d := streamtest.New(tb, func(b *stream.Builder) {
			b.Stream(exIn).GroupByKey().SlidingBy(window.Sliding(10 * time.Second)).
				Count(exLastTen).ToStream().To(exSlides)
		})
		in := streamtest.In(d, exIn)
		in.Send("k", "x", time.Unix(100, 0))
		in.Send("k", "y", time.Unix(105, 0))
		for _, r := range streamtest.Out(d, exSlides).All() {
			fmt.Printf("from %d: %d\n", r.Key.Start.Unix(), r.Value)
		}
	})
	// Output:
	// from 90: 1
	// from 100: 1
	// from 95: 2
}

// changes gives on values that differ from the last one of their key.
type changes struct{ last *state.KV[string, string] }

func (p *changes) Init(s *stream.ValueScope) error {
	p.last = exLastSeen.Open(s)
	return nil
}

func (p *changes) Process(c *stream.ValueContext[string], r stream.Record[string, string]) error {
	if last, ok := p.last.Get(r.Key); ok && last == r.Value {
		return nil
	}
	p.last.Put(r.Key, r.Value)
	c.Emit(r.Value)
	return nil
}

func ExampleKStream_ProcessValues() {
	example(func(tb testing.TB) {
		d := streamtest.New(tb, func(b *stream.Builder) {
			b.Stream(exIn).
				ProcessValues(func() stream.ValueProcessor[string, string, string] { return &changes{} }, exLastSeen).
				To(exOut)
		})
		in := streamtest.In(d, exIn)
		in.Send("light", "red")
		in.Send("light", "red")
		in.Send("light", "green")
		printed(d, exOut)
	})
	// Output:
	// light: red
	// light: green
}

// Topics that come into being while the application runs are read as well.
func ExampleBuilder_StreamPattern() {
	example(func(tb testing.TB) {
		shops := stream.NewTopicPattern("shop-.+", serde.String, serde.Int64)
		prague := stream.NewTopic("shop-prague", serde.String, serde.Int64)
		brno := stream.NewTopic("shop-brno", serde.String, serde.Int64)
		d := streamtest.New(tb, func(b *stream.Builder) { b.StreamPattern(shops).To(exNumbers) })
		streamtest.In(d, prague).Send("bread", 3)
		streamtest.In(d, brno).Send("milk", 2)
		printed(d, exNumbers)
	})
	// Output:
	// bread: 3
	// milk: 2
}
