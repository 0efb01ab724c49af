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
	exBaskets  = stream.NewTopic("baskets", serde.String, serde.String)
	exPayments = stream.NewTopic("payments", serde.String, serde.Int64)
	exPaid     = state.NewJoinBuffer("basket-payment", serde.String, serde.String, serde.Int64)
	exPairs    = state.NewJoinBuffer("click-pairs", serde.String, serde.String, serde.String).SingleStore()
)

func ExampleKStream_LeftJoin() {
	orders := func(b *stream.Builder) {
		b.Stream(exBaskets).
			LeftJoin(b.Stream(exPayments), window.Within(time.Hour).Grace(time.Minute), exPaid, func(order string, cents *int64) string {
				if cents == nil {
					return order + " was not paid"
				}
				return fmt.Sprintf("%s was paid: %d", order, *cents)
			}).
			To(exGreeting)
	}
	example(func(tb testing.TB) {
		d := streamtest.New(tb, orders)
		order, payment := streamtest.In(d, exBaskets), streamtest.In(d, exPayments)
		noon := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
		order.Send("o1", "tea", noon)
		order.Send("o2", "cake", noon)
		d.Restart() // the buffer survives
		payment.Send("o1", 250, noon.Add(time.Minute))
		order.Send("o3", "coffee", noon.Add(2*time.Hour)) // the hour of o2, and its grace, are over
		for _, r := range streamtest.Out(d, exGreeting).All() {
			fmt.Println(r.Key, r.Value)
		}
	})
	// Output:
	// o1 tea was paid: 250
	// o2 cake was not paid
}

func ExampleKStream_TryOuterJoin() {
	matched := func(b *stream.Builder) {
		b.Stream(exBaskets).
			TryOuterJoin(b.Stream(exPayments), window.Within(time.Hour), exPaid, func(id string, order *string, cents *int64) (string, error) {
				switch {
				case order == nil:
					return fmt.Sprintf("%d cents for an order that is unknown, %s", *cents, id), nil
				case cents == nil:
					return *order + " was not paid", nil
				}
				return *order + " was paid", nil
			}).
			To(exGreeting)
	}
	example(func(tb testing.TB) {
		d := streamtest.New(tb, matched)
		order, payment := streamtest.In(d, exBaskets), streamtest.In(d, exPayments)
		noon := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
		payment.Send("o1", 250, noon)
		order.Send("o2", "cake", noon.Add(2*time.Hour))
		for _, r := range streamtest.Out(d, exGreeting).All() {
			fmt.Println(r.Value)
		}
	})
	// Output: 250 cents for an order that is unknown, o1
}

// What the same visitor looks at within a second, in pairs: a stream joined with itself.
func ExampleKStream_Join() {
	pairs := func(b *stream.Builder) {
		clicks := b.Stream(exClicks)
		clicks.Join(clicks, window.Within(0).After(time.Second), exPairs, func(a, b string) string { return a + " then " + b }).
			To(exGreeting)
	}
	example(func(tb testing.TB) {
		d := streamtest.New(tb, pairs)
		clicks := streamtest.In(d, exClicks)
		noon := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
		clicks.Send("ann", "/", noon)
		clicks.Send("bob", "/", noon)
		clicks.Send("ann", "/help", noon.Add(time.Second))
		for _, r := range streamtest.Out(d, exGreeting).All() {
			fmt.Println(r.Key, r.Value)
		}
	})
	// Output:
	// ann / then /
	// bob / then /
	// ann / then /help
	// ann /help then /help
}
