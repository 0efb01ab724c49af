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
