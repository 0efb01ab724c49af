package stream_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/stream"
	"github.com/moldau/moldau/streamtest"
)

var (
	history = state.NewVersioned("history", serde.String, serde.String, 100*ms)
	waiting = state.NewBuffer("waiting", serde.String, serde.String).Grace(10 * ms)
	byValue = stream.NewRepartition("by-value", serde.String, serde.String)
	perRow  = state.NewKeyValue("per-row", serde.String, serde.Int64).EveryUpdate()
)

// feedVersions sends rows out of order, and one that is too late for the history.
func feedVersions(d *streamtest.Driver) {
	table := streamtest.In(d, rows)
	table.Send("a", "A", at(100))
	table.Send("a", "C", at(300))
	table.Send("a", "B", at(250))
	d.Restart()
	table.Send("a", "old", at(150))
	table.SendNull("a", at(270))
	table.Send("b", "X", at(310))
	in := streamtest.In(d, text)
	for _, ms := range []int64{320, 300, 299, 269, 250, 249, 100} {
		in.Send("a", fmt.Sprint("s", ms), at(ms))
	}
	table.SendNull("a", at(330))
	in.Send("a", "end", at(331))
}

func TestVersionedTables(t *testing.T) {
	type B = stream.Builder
	tests := []struct {
		name    string
		build   func(b *B)
		want    string
		dropped int64
	}{
		{"a stream finds the rows of its time", func(b *B) { b.Stream(text).LeftJoinTable(b.Table(rows, history), left).To(out) },
			"a=s320+C@320, a=s300+C@300, a=s299+nil@299, a=s269+B@269, a=s250+B@250, a=s249+A@249, a=s100+nil@100, a=end+nil@331", 1},
		{"of a derived table", func(b *B) {
			b.Stream(text).JoinTable(b.Table(rows, history).MapValues(func(v string) string { return v + v }).Filter(func(_, v string) bool { return v != "BB" }), both).To(out)
		}, "a=s320+CC@320, a=s300+CC@300, a=s249+AA@249", 1},
		{"of a table stored without versions", func(b *B) {
			b.Stream(text).JoinTable(b.Table(rows, history).Stored(row.EveryUpdate()), both).To(out)
		}, "", 1},
		{"every update goes on", func(b *B) { b.Table(rows, history).ToStream().To(out) },
			"a=A@100, a=C@300, a=B@250, a=~@270, b=X@310, a=~@330", 1},
		{"filters tell of every deletion", func(b *B) {
			b.Table(rows, history).Filter(func(_, v string) bool { return v == "A" }).ToStream().To(out)
		}, "a=A@100, a=~@300, a=~@250, a=~@270, b=~@310, a=~@330", 1},
		{"joins of tables take the latest", func(b *B) {
			t := b.Table(rows, history)
			t.LeftJoin(b.Table(other, row), left).ToStream().To(out)
		}, "a=A+nil@100, a=C+nil@300, b=X+nil@310, a=~@330", 2},
		{"so do aggregates", func(b *B) {
			b.Table(rows, history).GroupBy(byValue, func(_, v string) (string, string) { return "all", v }).Count(perRow).
				MapValues(func(n int64) string { return fmt.Sprint(n) }).ToStream().To(out)
		}, "all=1@100, all=1@300, all=2@310, all=1@330", 1},
		{"an aggregate with a history", func(b *B) {
			joined := state.NewVersioned("joined", serde.String, serde.String, 1000*ms)
			b.Stream(text).LeftJoinTable(b.Stream(rows).GroupByKey().Reduce(joined, func(a, v string) string { return a + v }), left).To(out)
		}, "a=s320+ACBold@320, a=s300+ACBold@300, a=s299+A@299, a=s269+A@269, a=s250+A@250, a=s249+A@249, a=s100+A@100, a=end+ACBold@331", 2},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d := streamtest.New(t, test.build, streamtest.Partitions(3))
			feedVersions(d)
			if got := show(streamtest.Out(d, out).All()); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
			var dropped int64
			for _, n := range d.Dropped() {
				dropped += n
			}
			if dropped != test.dropped {
				t.Errorf("dropped %d, want %d: %v", dropped, test.dropped, d.Dropped())
			}
		})
	}
}

// TestWaitingAgainstModel joins a stream with a versioned table, some records of which come late, with restarts in between, and does
// the same with lists.
func TestWaitingAgainstModel(t *testing.T) {
	const grace, past = 10, 100
	type waiter struct {
		at   int64
		k, v string
	}
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		d := streamtest.New(t, func(b *stream.Builder) { b.Stream(text).LeftJoinTable(b.Table(rows, history), left, waiting).To(out) })
		table, in := streamtest.In(d, rows), streamtest.In(d, text)
		versions := map[string]map[int64]string{}
		var seen, newest, now int64 = -1, -1, 200
		var wait []waiter
		var want []stream.Record[string, string]
		lookup := func(w waiter) {
			from, value := int64(-1), ""
			for at, v := range versions[w.k] {
				if at <= w.at && at > from {
					from, value = at, v
				}
			}
			latest := true
			for at := range versions[w.k] {
				latest = latest && at <= from
			}
			found := &value
			if from < 0 || value == "" || !latest && w.at < newest-past {
				found = nil
			}
			want = append(want, stream.Record[string, string]{Key: w.k, Value: left(w.v, found), Time: at(w.at)})
		}
		for i := range 400 {
			k, ms := fmt.Sprint("k", rnd.IntN(3)), now-rnd.Int64N(25)
			now += rnd.Int64N(5)
			switch n := rnd.IntN(20); {
			case n == 0:
				d.Restart()
			case n < 10:
				v := fmt.Sprint(i)
				if n < 2 {
					v = ""
					table.SendNull(k, at(ms))
				} else {
					table.Send(k, v, at(ms))
				}
				if versions[k] == nil {
					versions[k] = map[int64]string{}
				}
				versions[k][ms], newest = v, max(newest, ms)
			default:
				w := waiter{ms, k, fmt.Sprint("s", i)}
				in.Send(k, w.v, at(ms))
				if ms < seen-grace {
					lookup(w)
					break
				}
				wait, seen = append(wait, w), max(seen, ms)
				slices.SortStableFunc(wait, func(a, b waiter) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.k, b.k)) })
				for len(wait) > 0 && wait[0].at <= seen-grace {
					lookup(wait[0])
					wait = wait[1:]
				}
			}
		}
		if got := show(streamtest.Out(d, out).All()); got != show(want) || len(want) < 100 {
			t.Fatalf("seed %d:\ngot  %s\nwant %s", seed, got, show(want))
		}
	}
}

// What waits has its own headers, and its place in the source.
func TestWaitingRecordsKeepTheirContext(t *testing.T) {
	d := streamtest.New(t, func(b *stream.Builder) {
		b.Stream(text).TryJoinTable(b.Table(rows, history), func(r rec, v string) (string, error) {
			return fmt.Sprint(both(r.Value, v), len(r.Headers)), nil
		}, waiting).To(out)
	})
	streamtest.In(d, rows).Send("a", "A", at(0))
	in := streamtest.In(d, text)
	in.SendRecord(rec{Key: "a", Value: "x", Time: at(1), Headers: []stream.Header{{Key: "h", Value: []byte("1")}, {Key: "n"}}})
	d.Restart()
	in.Send("a", "y", at(11))
	if got, want := show(streamtest.Out(d, out).All()), "a=x+A2@1 h:1 n:"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// A filter asks its own versioned store what was before: that may have refused what came late, and has a row that is gone above.
func TestFilterIntoHistory(t *testing.T) {
	kept := state.NewVersioned("kept", serde.String, serde.String, 10*ms)
	d := streamtest.New(t, func(b *stream.Builder) {
		b.Table(text, leftRow).Filter(func(_, v string) bool { return v == "good" }).Stored(kept).ToStream().To(out)
	})
	in := streamtest.In(d, text)
	in.Send("a", "good", at(100))
	in.SendNull("a", at(10))
	in.Send("a", "bad", at(120))
	in.Send("a", "bad", at(130))
	if got, want := show(streamtest.Out(d, out).All()), "a=good@100, a=~@120"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// Between a filter and its store there may be a suppression.
func TestSuppressedFilterIntoHistory(t *testing.T) {
	d := streamtest.New(t, func(b *stream.Builder) {
		b.Table(text, leftRow).Filter(func(_, v string) bool { return v == "good" }).
			Suppress(state.NewSuppressBuffer("held", serde.String, serde.String), stream.UntilTime(10*ms)).Stored(history).ToStream().To(out)
	})
	in := streamtest.In(d, text)
	in.Send("a", "good", at(0))
	in.Send("b", "good", at(20))
	in.Send("a", "bad", at(40))
	in.Send("b", "good", at(60))
	if got, want := show(streamtest.Out(d, out).All()), "a=good@0, b=good@20, a=~@40"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
