package stream_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/stream"
	"github.com/moldau/moldau/streamtest"
	"github.com/moldau/moldau/window"
)

var (
	exVisits  = state.NewSession("visits", serde.String, serde.JSON[[]string]())
	exVisited = stream.NewSessionTopic("visited", serde.String, serde.JSON[[]string]())
)

func ExampleKGroupedStream_SessionsBy() {
	visits := func(b *stream.Builder) {
		b.Stream(exClicks).
			GroupByKey().
			SessionsBy(window.Session(30*time.Minute).Grace(time.Minute)).
			OnClose().
			Aggregate(exVisits,
				func(pages []string, page string) []string { return append(pages, page) },
				func(a, b []string) []string { return append(a, b...) }).
			ToStream().
			To(exVisited)
	}
	example(func(tb testing.TB) {
		d := streamtest.New(tb, visits)
		clicks := streamtest.In(d, exClicks)
		noon := time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
		clicks.Send("ann", "/", noon)
		clicks.Send("ann", "/help", noon.Add(20*time.Minute))
		clicks.Send("bob", "/", noon.Add(time.Hour))
		for _, r := range streamtest.Out(d, exVisited).All() {
			fmt.Println(r.Key, r.Value)
		}
	})
	// Output:
	// ann@2030-01-01T12:00:00.000Z/2030-01-01T12:20:00.000Z [/ /help]
}

var (
	exHourly = state.NewWindow("hourly", serde.String, serde.Int64)
	exFinal  = state.NewWindowBuffer("hourly-final", serde.String, serde.Int64)
	exCalm   = state.NewSuppressBuffer("calm", serde.String, serde.Int64)
)

func ExampleWindowedKTable_UntilClosed() {
	final := func(b *stream.Builder) {
		b.Stream(exClicks).
			GroupByKey().
			WindowedBy(window.Tumbling(time.Hour).Grace(time.Minute)).
			Count(exHourly).
			UntilClosed(exFinal).
			ToStream().
			Foreach(func(r stream.Record[window.Key[string], int64]) error {
				fmt.Println(r.Key.Key, r.Key.Start.Format(time.Kitchen), r.Value)
				return nil
			})
	}
	example(func(tb testing.TB) {
		clicks := streamtest.In(streamtest.New(tb, final), exClicks)
		noon := time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
		clicks.Send("ann", "/", noon)
		clicks.Send("ann", "/help", noon.Add(20*time.Minute))
		clicks.Send("bob", "/", noon.Add(2*time.Hour))
	})
	// Output:
	// ann 12:00PM 2
}

func ExampleKTable_Suppress() {
	calm := func(b *stream.Builder) {
		b.Stream(exClicks).
			GroupByKey().
			Count(state.NewKeyValue("clicks-by-user", serde.String, serde.Int64)).
			Suppress(exCalm, stream.UntilTime(time.Minute).MaxRecords(1000).EmitEarly()).
			ToStream().
			Foreach(func(r stream.Record[string, int64]) error {
				fmt.Println(r.Key, r.Value)
				return nil
			})
	}
	example(func(tb testing.TB) {
		clicks := streamtest.In(streamtest.New(tb, calm), exClicks)
		noon := time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
		clicks.Send("ann", "/", noon)
		clicks.Send("ann", "/help", noon.Add(20*time.Second))
		clicks.Send("bob", "/", noon.Add(time.Hour))
	})
	// Output:
	// ann 2
}
