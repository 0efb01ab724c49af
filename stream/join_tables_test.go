package stream_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/stream"
	"github.com/moldau/moldau/streamtest"
)

// Whoever follows a join's updates has its rows in the end, and whoever groups them has each once, wherever commits fall and whatever
// both sides did between them.
func TestJoinedTablesAtAnyCommit(t *testing.T) {
	type T = stream.KTable[string, string]
	thirdRow := state.NewKeyValue("third", serde.String, serde.String)
	groups := state.NewKeyValue("groups", serde.String, serde.Int64)
	byValue := stream.NewRepartition("by-value", serde.String, serde.String)
	third := stream.NewTopic("third", serde.String, serde.String)
	good := func(_, v string) bool { return v != "bad" }
	joinOuter := func(l, r *string) string {
		if l == nil {
			return "nil+" + *r
		}
		return left(*l, r)
	}
	// model is a row of the three tables, "" for none.
	type model func(l, r, o string) string
	inner := func(l, r string) string {
		if l == "" || r == "" {
			return ""
		}
		return both(l, r)
	}
	leftly := func(l, r string) string {
		switch {
		case l == "":
			return ""
		case r == "":
			return left(l, nil)
		}
		return left(l, &r)
	}
	outerly := func(l, r string) string {
		switch {
		case l == "" && r == "":
			return ""
		case l == "":
			return joinOuter(nil, &r)
		}
		return leftly(l, r)
	}
	only := func(v string) string {
		if v == "bad" {
			return ""
		}
		return v
	}
	for _, test := range []struct {
		name  string
		build func(l, r, o *T) *T
		model model
	}{
		{"inner", func(l, r, _ *T) *T { return l.Join(r, both) }, func(l, r, _ string) string { return inner(l, r) }},
		{"left", func(l, r, _ *T) *T { return l.LeftJoin(r, left) }, func(l, r, _ string) string { return leftly(l, r) }},
		{"outer", func(l, r, _ *T) *T { return l.OuterJoin(r, joinOuter) }, func(l, r, _ string) string { return outerly(l, r) }},
		{"of filtered rows", func(l, r, _ *T) *T { return l.Filter(good).Join(r.Filter(good), both) },
			func(l, r, _ string) string { return inner(only(l), only(r)) }},
		{"of a join", func(l, r, o *T) *T { return l.Join(r, both).OuterJoin(o, joinOuter) },
			func(l, r, o string) string { return outerly(inner(l, r), o) }},
		{"with a join", func(l, r, o *T) *T { return o.LeftJoin(l.OuterJoin(r, joinOuter), left) },
			func(l, r, o string) string { return leftly(o, outerly(l, r)) }},
	} {
		for _, every := range []int{0, 1, 2} { // tables that give on each update at once
			t.Run(fmt.Sprintf("%s/%d", test.name, every), func(t *testing.T) {
				for seed := range uint64(30) {
					r := rand.New(rand.NewPCG(seed, 1))
					at2 := func(h state.KeyValue[string, string], i int) state.KeyValue[string, string] {
						if i < every {
							return h.EveryUpdate()
						}
						return h
					}
					d := streamtest.New(t, func(b *stream.Builder) {
						joined := test.build(b.Table(text, at2(leftRow, 0)), b.Table(rows, at2(rightRow, 1)), b.Table(third, at2(thirdRow, 2)))
						joined.ToStream().To(out)
						joined.GroupBy(byValue, func(k, v string) (string, string) { return v, k }).Count(groups)
					}, streamtest.CommitEvery(0))
					now := map[string][3]string{}
					for range 40 {
						k, i, v := string('a'+rune(r.IntN(2))), r.IntN(3), []string{"", "", "x", "y", "bad"}[r.IntN(5)]
						row := now[k]
						row[i] = v
						now[k] = row
						in := streamtest.In(d, []stream.Topic[string, string]{text, rows, third}[i])
						if v == "" {
							in.SendNull(k)
						} else {
							in.Send(k, v)
						}
						if r.IntN(4) == 0 {
							d.Commit()
						}
					}
					d.Commit()
					d.Commit() // of what has gone through the topic of groups
					want, counts := map[string]string{}, map[string]int64{}
					for k, row := range now {
						if v := test.model(row[0], row[1], row[2]); v != "" {
							want[k] = v
							counts[v]++
						}
					}
					got := map[string]string{}
					for _, r := range streamtest.Out(d, out).All() {
						if got[r.Key] = r.Value; r.Null {
							delete(got, r.Key)
						}
					}
					grouped := map[string]int64{}
					for _, r := range streamtest.Rows(d, groups) {
						if r.Value != 0 {
							grouped[r.Key] = r.Value
						}
					}
					if !maps.Equal(got, want) || !maps.Equal(grouped, counts) {
						t.Fatalf("seed %d: rows %v, want %v; groups %v, want %v", seed, got, want, grouped, counts)
					}
				}
			})
		}
	}
}
