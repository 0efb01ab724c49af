package stream_test

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/stream"
	"github.com/moldau/moldau/streamtest"
)

var (
	orders   = stream.NewTopic("orders", serde.String, serde.String)
	goods    = stream.NewTopic("goods", serde.String, serde.String)
	orderKV  = state.NewKeyValue("order", serde.String, serde.String)
	goodKV   = state.NewKeyValue("good", serde.String, serde.String)
	byGood   = stream.NewForeignKey("by-good", serde.String, serde.String, serde.String, serde.String)
	withGood = state.NewKeyValue("with-good", serde.String, serde.String)
)

// goodOf is the foreign key of an order "good:number"; one without a colon has none.
func goodOf(_, order string) (string, bool) {
	good, _, ok := strings.Cut(order, ":")
	return good, ok
}

func TestForeignKeyJoins(t *testing.T) {
	type T = stream.KTable[string, string]
	tests := []struct {
		name string
		join func(orders, goods *T) *T
		want string
		last string // what is left in the subscription store
	}{
		{"joinForeign", func(l, r *T) *T { return l.JoinForeign(r, byGood, goodOf, both) },
			"a=tea:1+Tea@20, b=tea:2+Tea@30, a=tea:1+TEA@25, b=tea:2+TEA@25, a=~@40, a=pot:1+Pot@50, b=~@60, a=~@70, a=~@90", ""},
		{"leftJoinForeign", func(l, r *T) *T { return l.LeftJoinForeign(r, byGood, goodOf, left) },
			"a=tea:1+nil@10, a=tea:1+Tea@20, b=tea:2+Tea@30, a=tea:1+TEA@25, b=tea:2+TEA@25, a=pot:1+nil@40, a=pot:1+Pot@50, b=none+nil@60, a=pot:1+nil@70, c=none+nil@80, a=~@90, c=~@95", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d := streamtest.New(t, func(b *stream.Builder) {
				test.join(b.Table(orders, orderKV), b.Table(goods, goodKV)).ToStream().To(out)
			}, streamtest.TopicPartitions("orders", 4), streamtest.TopicPartitions("goods", 3))
			l, r := streamtest.In(d, orders), streamtest.In(d, goods)
			l.Send("a", "tea:1", at(10))
			r.Send("tea", "Tea", at(20))
			l.Send("b", "tea:2", at(30))
			r.Send("tea", "TEA", at(25)) // the time of the right row alone
			l.Send("a", "pot:1", at(40)) // another one, not there
			r.Send("pot", "Pot", at(50))
			l.Send("b", "none", at(60)) // no longer any
			r.SendNull("pot", at(70))
			l.Send("c", "none", at(80)) // never any
			l.SendNull("a", at(90))
			l.SendNull("c", at(95))
			l.SendNull("never", at(99))
			if got := show(streamtest.Out(d, out).All()); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
			for _, s := range []string{"registration", "response"} {
				if all := d.Raw("test-by-good-subscription-" + s + "-topic"); len(all) == 0 {
					t.Errorf("nothing in the %s topic", s)
				}
			}
			last := map[string]bool{}
			for _, r := range d.Raw("test-by-good-subscription-store-changelog") {
				last[hex.EncodeToString(r.Key)] = r.Value != nil
			}
			for k, live := range last {
				if live {
					t.Errorf("a subscription is left: %s", k)
				}
			}
		})
	}
}

// The two topics have the partitions of the table that reads them.
func TestPartitionsOfForeignKeyJoins(t *testing.T) {
	b := stream.NewBuilder()
	b.Table(orders, orderKV).JoinForeign(b.Table(goods, goodKV), byGood, goodOf, both).ToStream().To(out)
	top, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range [][2]int32{{4, 3}, {1, 8}, {2, 2}} {
		plans, err := top.Plan("app", map[string]int32{"orders": test[0], "goods": test[1]})
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]int32{}
		for _, p := range plans {
			got[p.Name] = p.Partitions
		}
		want := map[string]int32{"app-by-good-subscription-registration-topic": test[1], "app-by-good-subscription-response-topic": test[0],
			"app-by-good-subscription-store-changelog": test[1], "app-order-changelog": test[0], "app-good-changelog": test[1]}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%v:\ngot  %v\nwant %v", test, got, want)
		}
	}
}

// quiet has every message arrive.
func quiet(d *streamtest.Driver) {
	for range 5 {
		d.Run()
		d.Commit()
	}
}

// foreignTrial runs a random history of two tables and says how the join differs from one made of their last rows.
// settle: a left row changes only when all answers are there.
func foreignTrial(t *testing.T, seed uint64, join func(l, r *stream.KTable[string, string], by stream.ForeignKey[string, string, string, string]) *stream.KTable[string, string],
	row func(order string, good *string) *string, by stream.ForeignKey[string, string, string, string], settle bool) (differs string) {
	rnd := rand.New(rand.NewPCG(seed, 1))
	lefts, rights := orders, goods
	last := func(k string) int32 { return int32(k[len(k)-1]) }
	if rnd.IntN(2) == 0 {
		rights = rights.PartitionBy(func(k, _ string, n int32) int32 { return last(k) % n })
		by = by.PartitionForeignBy(func(k string, n int32) int32 { return last(k) % n })
	}
	switch rnd.IntN(3) {
	case 0:
		lefts = lefts.PartitionBy(func(k, _ string, n int32) int32 { return last(k) % n })
		by = by.PartitionBy(func(k string, n int32) int32 { return last(k) % n })
	case 1: // where an order came from is where the answer goes
		lefts = lefts.PartitionBy(func(k, _ string, n int32) int32 { return (last(k) + 1) % n })
	}
	options := []streamtest.Option{streamtest.TopicPartitions("orders", 4), streamtest.TopicPartitions("goods", 1+rnd.Int32N(4)),
		streamtest.CommitEvery([]int{0, 1, 2, 5}[rnd.IntN(4)])}
	if rnd.IntN(2) == 0 {
		options = append(options, streamtest.WarmRestart())
	}
	each := rnd.IntN(2) == 0
	d := streamtest.New(t, func(b *stream.Builder) {
		l, r, kept := orderKV, goodKV, withGood
		if each {
			l, r, kept = l.EveryUpdate(), r.EveryUpdate(), kept.EveryUpdate()
		}
		join(b.Table(lefts, l), b.Table(rights, r), by).Stored(kept).ToStream().To(out)
	}, options...)
	l, r := streamtest.In(d, lefts), streamtest.In(d, rights)
	left, right := map[string]string{}, map[string]string{}
	for i := range 60 {
		if k := fmt.Sprint("o", rnd.IntN(8)); rnd.IntN(3) > 0 {
			if settle {
				quiet(d)
			}
			v := []string{"g%d:1", "g%d:2", "none%d", ""}[rnd.IntN(4)]
			if v == "" {
				delete(left, k)
				l.Put(-1, rec{Key: k, Null: true, Time: at(int64(i))})
			} else {
				left[k] = fmt.Sprintf(v, rnd.IntN(4))
				l.Put(-1, rec{Key: k, Value: left[k], Time: at(int64(i))})
			}
		} else if k := fmt.Sprint("g", rnd.IntN(4)); rnd.IntN(3) == 0 {
			delete(right, k)
			r.Put(-1, rec{Key: k, Null: true, Time: at(int64(i))})
		} else {
			right[k] = fmt.Sprint("v", rnd.IntN(5))
			r.Put(-1, rec{Key: k, Value: right[k], Time: at(int64(i))})
		}
		switch rnd.IntN(20) {
		case 0, 1, 2:
			d.Run()
		case 3, 4:
			d.Commit()
		case 5:
			d.Restart()
		}
	}
	quiet(d)
	want := map[string]string{}
	for k, order := range left {
		var found *string
		if good, ok := goodOf(k, order); ok {
			if v, ok := right[good]; ok {
				found = &v
			}
		}
		if v := row(order, found); v != nil {
			want[k] = *v
		}
	}
	got := map[string]string{}
	for _, r := range streamtest.Rows(d, withGood) {
		got[r.Key] = r.Value
	}
	written := map[string]string{}
	for _, r := range streamtest.Out(d, out).All() {
		if delete(written, r.Key); !r.Null {
			written[r.Key] = r.Value
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) || fmt.Sprint(written) != fmt.Sprint(want) {
		return fmt.Sprintf("seed %d:\nstored  %v\nwritten %v\nwant    %v", seed, got, written, want)
	}
	return ""
}

type constant struct{ serde.Serde[string] }

func (constant) Encode(dst []byte, _ string) ([]byte, error) { return append(dst, 'x'), nil }

func TestForeignKeyJoinsAgainstBruteForce(t *testing.T) {
	type T = stream.KTable[string, string]
	type by = stream.ForeignKey[string, string, string, string]
	inner := func(l, r *T, by by) *T { return l.JoinForeign(r, by, goodOf, both) }
	leftJoin := func(l, r *T, by by) *T { return l.LeftJoinForeign(r, by, goodOf, left) }
	innerRow := func(order string, good *string) *string {
		if good == nil {
			return nil
		}
		v := both(order, *good)
		return &v
	}
	leftRow := func(order string, good *string) *string {
		v := left(order, good)
		return &v
	}
	for seed := range uint64(40) {
		if differs := foreignTrial(t, seed, inner, innerRow, byGood, true); differs != "" {
			t.Error("inner,", differs)
		}
		if differs := foreignTrial(t, seed, inner, innerRow, byGood.AlwaysAnswer(), false); differs != "" {
			t.Error("inner with all answers,", differs)
		}
		if differs := foreignTrial(t, seed, leftJoin, leftRow, byGood, false); differs != "" {
			t.Error("left,", differs)
		}
	}
	// The checker sees it when answers to rows that have changed are taken for good.
	blind := stream.NewForeignKey("by-good", serde.String, constant{serde.String}, serde.String, serde.String)
	seen := 0
	for seed := uint64(0); seed < 400 && seen == 0; seed++ {
		if foreignTrial(t, seed, leftJoin, leftRow, blind, false) != "" {
			seen++
		}
	}
	if seen == 0 {
		t.Error("a join that cannot tell stale answers passes")
	}
}

// A null foreign key, by either way of saying it, and results that are no rows.
func TestForeignKeysThatAreNull(t *testing.T) {
	ptr := serde.Null[string](serde.String)
	lefts, rights := stream.NewTopic("lefts", ptr, ptr), stream.NewTopic("rights", ptr, ptr)
	by := stream.NewForeignKey("by", ptr, ptr, ptr, ptr)
	d := streamtest.New(t, func(b *stream.Builder) {
		l := b.Table(lefts, state.NewKeyValue("lefts", ptr, ptr))
		r := b.Table(rights, state.NewKeyValue("rights", ptr, ptr))
		l.LeftJoinForeign(r, by, func(_, v *string) (*string, bool) {
			if *v == "no" {
				return v, false
			}
			if *v == "nil" {
				return nil, true
			}
			return v, true
		}, func(v *string, r **string) *string {
			if r == nil {
				return v
			}
			return nil
		}).ToStream().To(stream.NewTopic("out", ptr, ptr))
	}, streamtest.Partitions(2))
	s := func(v string) *string { return &v }
	in := streamtest.In(d, lefts)
	in.Send(s("a"), s("no"), at(1))
	in.Send(s("a"), s("nil"), at(2))
	in.Send(s("a"), s("x"), at(3))
	streamtest.In(d, rights).Send(s("x"), s("X"), at(4))
	if got, want := show(streamtest.Out(d, out).All()), "a=no@1, a=nil@2, a=x@3, a=~@4"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
