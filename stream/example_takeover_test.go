package stream_test

import (
	"fmt"
	"time"

	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/stream"
	"github.com/moldau/moldau/window"
)

// An application of Kafka Streams is taken over in which nobody has named a join: its stores have the names of its description.
func ExampleKStream_Join_takeover() {
	b := stream.NewBuilder()
	buffer := state.NewJoinBuffer("pairs", serde.String, serde.String, serde.String).
		Named("KSTREAM-JOINTHIS-0000000004-store", "KSTREAM-JOINOTHER-0000000005-store", "")
	b.Stream(exIn).
		Join(b.Stream(exOther), window.Within(time.Minute), buffer, func(l, r string) string { return l + r }).
		To(exOut)
	topo, err := b.Build()
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, sub := range topo.Describe().Subs {
		for _, s := range sub.Stores {
			fmt.Println(s.Name)
		}
	}
	// Output:
	// KSTREAM-JOINTHIS-0000000004-store
	// KSTREAM-JOINOTHER-0000000005-store
}

func ExampleForeignKey_Named() {
	b := stream.NewBuilder()
	orders, customers := b.Table(exIn, exLeft), b.Table(exOther, exRight)
	by := stream.NewForeignKey("customer", serde.String, serde.String, serde.String, serde.String).
		Named("KTABLE-FK-JOIN-SUBSCRIPTION-REGISTRATION-0000000005-topic", "KTABLE-FK-JOIN-SUBSCRIPTION-RESPONSE-0000000013-topic",
			"KTABLE-FK-JOIN-SUBSCRIPTION-STATE-STORE-0000000009")
	orders.JoinForeign(customers, by, func(_, order string) (string, bool) { return order, true }, func(o, c string) string { return o + c }).
		ToStream().To(exOut)
	topo, err := b.Build()
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, t := range topo.Topics {
		fmt.Println(t.Full("app"))
	}
	// Output:
	// in
	// other
	// app-KTABLE-FK-JOIN-SUBSCRIPTION-REGISTRATION-0000000005-topic
	// app-KTABLE-FK-JOIN-SUBSCRIPTION-RESPONSE-0000000013-topic
	// out
}
