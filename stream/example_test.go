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

// The data dictionary of the examples: every durable name, once.
var (
	exLines  = stream.NewTopic("lines", serde.Bytes, serde.String)
	exByWord = stream.NewRepartition("by-word", serde.String, serde.String)
	exCounts = state.NewKeyValue("counts", serde.String, serde.Int64)
	exTotals = stream.NewTopic("totals", serde.String, serde.Int64)

	exClicks   = stream.NewTopic("clicks", serde.String, serde.String)
	exMinutes  = state.NewWindow("clicks-per-minute", serde.String, serde.Int64)
	exPerMin   = stream.NewWindowedTopic("clicks-per-minute", serde.String, serde.Int64, time.Minute)
	exTooLate  = stream.NewTopic("late-clicks", serde.String, serde.String)
	exUsers    = stream.NewTopic("users", serde.String, serde.String)
	exUserKV   = state.NewKeyValue("user", serde.String, serde.String)
	exOrders   = stream.NewTopic("orders", serde.String, serde.JSON[exOrder]())
	exOrderKV  = state.NewKeyValue("order", serde.String, serde.JSON[exOrder]())
	exByUser   = stream.NewForeignKey("orders-by-user", serde.String, serde.JSON[exOrder](), serde.String, serde.String)
	exShipping = stream.NewTopic("shipping", serde.String, serde.String)
	exPrices   = stream.NewTopic("prices", serde.String, serde.Int64)
	exPriceLog = state.NewVersioned("price", serde.String, serde.Int64, 24*time.Hour)
	exUnpriced = state.NewBuffer("unpriced", serde.String, serde.String).Grace(5 * time.Minute)
	exGreeting = stream.NewTopic("greetings", serde.String, serde.String)
)

type exOrder struct{ User, Item string }

// example runs a function outside of any test.
func example(f func(tb testing.TB)) {
	var b testing.B
	f(&b)
}

func ExampleKGroupedStream_Count() {
	wordCount := func(b *stream.Builder) {
		b.Stream(exLines).
			FlatMapValues(strings.Fields).
			GroupBy(exByWord, func(_ []byte, word string) string { return word }).
			Count(exCounts).
			ToStream().
			To(exTotals)
	}
	example(func(tb testing.TB) {
		d := streamtest.New(tb, wordCount)
		lines := streamtest.In(d, exLines)
		lines.Send(nil, "to be or")
		d.Restart()
		lines.Send(nil, "not to be")
		for _, r := range streamtest.Out(d, exTotals).All() {
			fmt.Println(r.Key, r.Value)
		}
	})
	// Output:
	// to 1
	// be 1
	// or 1
	// not 1
	// to 2
	// be 2
}

func ExampleTimeWindowedKStream_OnClose() {
	perMinute := func(b *stream.Builder) {
		minutes := b.Stream(exClicks).GroupByKey().WindowedBy(window.Tumbling(time.Minute).Grace(10 * time.Second))
		minutes.Late().To(exTooLate)
		minutes.OnClose().Count(exMinutes).ToStream().To(exPerMin)
	}
	example(func(tb testing.TB) {
		d := streamtest.New(tb, perMinute)
		clicks := streamtest.In(d, exClicks)
		noon := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
		clicks.Send("ann", "/", noon)
		clicks.Send("ann", "/help", noon.Add(59*time.Second))
		clicks.Send("bob", "/", noon.Add(65*time.Second))
		clicks.Send("ann", "/late", noon.Add(58*time.Second)) // within the grace
		clicks.Send("bob", "/", noon.Add(70*time.Second))     // closes the first minute
		clicks.Send("ann", "/too-late", noon.Add(30*time.Second))
		for _, r := range streamtest.Out(d, exPerMin).All() {
			fmt.Println(r.Key.Key, r.Key.Start.Format("15:04"), r.Value)
		}
		for _, r := range streamtest.Out(d, exTooLate).All() {
			fmt.Println("late:", r.Key, r.Value)
		}
	})
	// Output:
	// ann 12:00 3
	// late: ann /too-late
}

func ExampleKStream_LeftJoinTable() {
	greet := func(b *stream.Builder) {
		users := b.Table(exUsers, exUserKV)
		b.Stream(exClicks).
			LeftJoinTable(users, func(page string, name *string) string {
				if name == nil {
					return "a stranger looks at " + page
				}
				return *name + " looks at " + page
			}).
			To(exGreeting)
	}
	example(func(tb testing.TB) {
		d := streamtest.New(tb, greet, streamtest.Partitions(4))
		clicks := streamtest.In(d, exClicks)
		clicks.Send("u1", "/")
		streamtest.In(d, exUsers).Send("u1", "Ann")
		clicks.Send("u1", "/help")
		for _, r := range streamtest.Out(d, exGreeting).All() {
			fmt.Println(r.Value)
		}
	})
	// Output:
	// a stranger looks at /
	// Ann looks at /help
}

// A price may come a little later than a sale that it is for. The sale waits for it, and finds the price of its time, not
// the one that came since.
func ExampleKStream_JoinTable_versioned() {
	charge := func(b *stream.Builder) {
		prices := b.Table(exPrices, exPriceLog)
		b.Stream(exClicks).
			JoinTable(prices, func(who string, cents int64) string { return fmt.Sprintf("%s pays %d", who, cents) }, exUnpriced).
			To(exGreeting)
	}
	example(func(tb testing.TB) {
		d := streamtest.New(tb, charge)
		prices, sales := streamtest.In(d, exPrices), streamtest.In(d, exClicks)
		noon := time.Date(2026, 1, 15, 12, 0, 0, 0, time.UTC)
		prices.Send("tea", 300, noon.Add(-time.Hour))
		sales.Send("tea", "Ann", noon.Add(time.Minute))
		prices.Send("tea", 400, noon.Add(2*time.Minute))
		prices.Send("tea", 350, noon) // late
		sales.Send("tea", "Bob", noon.Add(10*time.Minute))
		sales.Send("tea", "Eve", noon.Add(20*time.Minute))
		for _, r := range streamtest.Out(d, exGreeting).All() {
			fmt.Println(r.Value, r.Time.Format("15:04"))
		}
	})
	// Output:
	// Ann pays 350 12:01
	// Bob pays 400 12:10
}

func ExampleKTable_LeftJoinForeign() {
	ship := func(b *stream.Builder) {
		orders, users := b.Table(exOrders, exOrderKV), b.Table(exUsers, exUserKV)
		orders.
			LeftJoinForeign(users, exByUser,
				func(_ string, o exOrder) (string, bool) { return o.User, o.User != "" },
				func(o exOrder, name *string) string {
					if name == nil {
						return o.Item + " for somebody"
					}
					return o.Item + " for " + *name
				}).
			ToStream().
			To(exShipping)
	}
	example(func(tb testing.TB) {
		d := streamtest.New(tb, ship, streamtest.TopicPartitions("orders", 4), streamtest.TopicPartitions("users", 3))
		orders, users := streamtest.In(d, exOrders), streamtest.In(d, exUsers)
		orders.Send("o1", exOrder{"u1", "tea"})
		orders.Send("o2", exOrder{"u1", "pot"})
		users.Send("u1", "Ann") // both orders follow
		orders.Send("o2", exOrder{"", "pot"})
		for _, r := range streamtest.Out(d, exShipping).All() {
			fmt.Println(r.Key, r.Value)
		}
	})
	// Output:
	// o1 tea for somebody
	// o2 pot for somebody
	// o2 pot for Ann
	// o1 tea for Ann
	// o2 pot for somebody
}

func ExampleKStream_Split() {
	route := func(b *stream.Builder) {
		all := b.Stream(exClicks).Split()
		all.When(func(_, page string) bool { return strings.HasPrefix(page, "/admin") }).Foreach(func(r stream.Record[string, string]) error {
			fmt.Println("admin:", r.Key)
			return nil
		})
		all.Rest().Foreach(func(r stream.Record[string, string]) error {
			fmt.Println("other:", r.Key)
			return nil
		})
	}
	example(func(tb testing.TB) {
		clicks := streamtest.In(streamtest.New(tb, route), exClicks)
		clicks.Send("ann", "/admin/users")
		clicks.Send("bob", "/")
	})
	// Output:
	// admin: ann
	// other: bob
}

func ExampleBuilder_Build() {
	b := stream.NewBuilder()
	b.Stream(exLines).
		FlatMapValues(strings.Fields).
		GroupBy(exByWord, func(_ []byte, word string) string { return word }).
		Count(exCounts).
		ToStream().
		To(exTotals)
	t, err := b.Build()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Print(t.Describe())
	// Output:
	// Topologies:
	//    Sub-topology: 0
	//     Source: source-0 (topics: [lines])
	//       --> flatMapValues-1
	//     Processor: flatMapValues-1 (stores: [])
	//       --> selectKey-2
	//       <-- source-0
	//     Processor: selectKey-2 (stores: [])
	//       --> repartition-3
	//       <-- flatMapValues-1
	//     Sink: repartition-3 (topic: by-word-repartition)
	//       <-- selectKey-2
	//
	//    Sub-topology: 1
	//     Source: source-4 (topics: [by-word-repartition])
	//       --> count-5
	//     Processor: count-5 (stores: [counts])
	//       --> toStream-6
	//       <-- source-4
	//     Processor: toStream-6 (stores: [])
	//       --> sink-7
	//       <-- count-5
	//     Sink: sink-7 (topic: totals)
	//       <-- toStream-6
	//     Store: counts (key-value, string to int64, changelog counts-changelog)
}
