package state_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/state"
)

// The data dictionary of an application: every store, once.
var (
	Balances = state.NewKeyValue("balances", serde.String, serde.Int64).
			Changelog(map[string]string{"min.cleanable.dirty.ratio": "0.1"})
	Sessions = state.NewKeyValue("sessions", serde.String, serde.String).TTL(24 * time.Hour)
	Prices   = state.NewVersioned("prices", serde.String, serde.Int64, 7*24*time.Hour)
	Hours    = state.NewWindow("hours", serde.String, serde.Int64).Retention(400 * 24 * time.Hour).Size(time.Hour)
)

func ExampleNewKeyValue() {
	ordered := Balances.Ordered() // a copy: Balances stays as it is
	fmt.Println(ordered.Spec().Name, ordered.Spec().Ordered, Balances.Spec().Ordered)
	// Output: balances true false
}

// transfers is a processor's use of a store; the views carry time, undo and commit.
type transfers struct{ balances *state.KV[string, int64] }

func (t *transfers) Init(o state.Opener) { t.balances = Balances.Open(o) }

func (t *transfers) move(from, to string, amount int64) bool {
	have, _ := t.balances.Get(from)
	if have < amount {
		return false
	}
	t.balances.Put(from, have-amount)
	got, _ := t.balances.Get(to)
	t.balances.Put(to, got+amount)
	return true
}

func ExampleKV() {
	o := state.NewTask()
	t := &transfers{}
	t.Init(o)
	t.balances.Put("anna", 100)
	fmt.Println(t.move("anna", "boris", 30), t.move("boris", "anna", 50))
	for who, balance := range t.balances.All() {
		fmt.Println(who, balance)
	}
	// Output:
	// true false
	// anna 70
	// boris 30
}

func ExampleWindowStore() {
	hours := Hours.Open(state.NewTask())
	day := time.Date(2026, 1, 15, 0, 0, 0, 0, time.UTC)
	hours.Put("ORD", 12, day.Add(9*time.Hour))
	hours.Put("ORD", 7, day.Add(10*time.Hour))
	for k, v := range hours.Fetch("ORD", day, day.Add(24*time.Hour)) {
		fmt.Println(k.Start.Format("15:04"), k.End.Format("15:04"), v)
	}
	// Output:
	// 09:00 10:00 12
	// 10:00 11:00 7
}

func ExampleVersionedStore() {
	prices := Prices.Open(state.NewTask())
	day := time.Date(2026, 1, 15, 0, 0, 0, 0, time.UTC)
	prices.Put("tea", 300, day)
	prices.Put("tea", 400, day.Add(12*time.Hour))
	to, kept := prices.Put("tea", 350, day.Add(6*time.Hour)) // comes late
	fmt.Println("until", to.Format("15:04"), kept)
	for _, hour := range []time.Duration{1, 7, 13} {
		cents, from, _ := prices.GetAsOf("tea", day.Add(hour*time.Hour))
		fmt.Println(cents, "since", from.Format("15:04"))
	}
	// Output:
	// until 12:00 true
	// 300 since 00:00
	// 350 since 06:00
	// 400 since 12:00
}

func TestHandlesKnowWhereTheyWereMade(t *testing.T) {
	for _, h := range []state.Handle{Balances, Hours, Hours.Ordered()} {
		if !strings.Contains(h.Spec().At, "example_test.go:") {
			t.Errorf("%s was made at %s", h.Spec().Name, h.Spec().At)
		}
	}
}
