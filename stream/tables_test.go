package stream_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/stream"
	"github.com/moldau/moldau/streamtest"
)

var (
	leftRow  = state.NewKeyValue("left", serde.String, serde.String)
	rightRow = state.NewKeyValue("right", serde.String, serde.String)
	joinRow  = state.NewKeyValue("joined", serde.String, serde.String)
)

func maybe(v *string) string {
	if v == nil {
		return "nil"
	}
	return *v
}

func TestTableJoins(t *testing.T) {
	type T = stream.KTable[string, string]
	tests := []struct {
		name string
		join func(l, r *T) *T
		want string
	}{
		{"join", func(l, r *T) *T { return l.Join(r, both) },
			"a=1+A@20, a=2+A@30, a=2+B@30, a=~@40"},
		{"leftJoin", func(l, r *T) *T { return l.LeftJoin(r, left) },
			"a=1+nil@10, a=1+A@20, a=2+A@30, a=2+B@30, a=2+nil@40, b=3+nil@60, b=3+C@60, a=~@70"},
		{"outerJoin", func(l, r *T) *T {
			return l.OuterJoin(r, func(l, r *string) string { return maybe(l) + "+" + maybe(r) })
		}, "a=1+nil@10, a=1+A@20, a=2+A@30, a=2+B@30, a=2+nil@40, b=nil+C@50, b=3+C@60, a=~@70"},
		{"stored, then filtered", func(l, r *T) *T {
			return l.LeftJoin(r, left).Stored(joinRow).Filter(func(_, v string) bool { return strings.HasSuffix(v, "nil") })
		}, "a=1+nil@10, a=~@20, a=2+nil@40, b=3+nil@60, b=~@60, a=~@70"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d := streamtest.New(t, func(b *stream.Builder) {
				test.join(b.Table(text, leftRow), b.Table(rows, rightRow)).ToStream().To(out)
			}, streamtest.Partitions(2))
			l, r := streamtest.In(d, text), streamtest.In(d, rows)
			l.Send("a", "1", at(10))
			r.Send("a", "A", at(20))
			l.Send("a", "2", at(30))
			r.Send("a", "B", at(25))
			r.SendNull("a", at(40))
			if strings.HasPrefix(test.name, "outer") {
				r.Send("b", "C", at(50))
				l.Send("b", "3", at(60))
			} else {
				l.Send("b", "3", at(60))
				if test.name != "join" {
					r.Send("b", "C", at(50))
				}
			}
			l.SendNull("a", at(70))
			if got := show(streamtest.Out(d, out).All()); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

// Rows move between groups, change in place and go; the sums follow, over partitions and restarts.
func TestGroupedTables(t *testing.T) {
	byTeam := stream.NewRepartition("by-team", serde.String, serde.Int64).Partitions(3)
	points := state.NewKeyValue("points", serde.String, serde.Int64)
	players := state.NewKeyValue("players", serde.String, serde.Int64)
	names := state.NewKeyValue("names", serde.String, serde.String)
	byName := stream.NewRepartition("by-name", serde.String, serde.String)
	team := func(_, v string) (string, int64) {
		name, n, _ := strings.Cut(v, ":")
		return name, int64(len(n))
	}
	d := streamtest.New(t, func(b *stream.Builder) {
		table := b.Table(text, row)
		g := table.GroupBy(byTeam, team)
		g.Aggregate(points, func(a, v int64) int64 { return a + v }, func(a, v int64) int64 { return a - v })
		g.Count(players)
		table.GroupBy(byName, func(k, v string) (string, string) { name, _, _ := strings.Cut(v, ":"); return name, k }).
			Reduce(names, func(a, b string) string { return a + b }, func(a, b string) string { return strings.Replace(a, b, "", 1) }).
			ToStream().To(out)
	}, streamtest.Partitions(2))
	in := streamtest.In(d, text)
	in.Send("ann", "red:xx", at(1))
	in.Send("bob", "red:xxx", at(2))
	in.Send("ann", "blue:xxxx", at(3)) // changes sides
	d.Restart()
	in.Send("bob", "red:x", at(4))
	in.Send("cat", "blue:x", at(5))
	in.SendNull("ann", at(6))
	for team, want := range map[string][2]int64{"red": {1, 1}, "blue": {1, 1}} {
		p, _ := streamtest.Get(d, points, team)
		n, _ := streamtest.Get(d, players, team)
		if p != want[0] || n != want[1] {
			t.Errorf("%s: %d points, %d players", team, p, n)
		}
	}
	want := "red=ann@1, red=annbob@2, red=bob@3, blue=ann@3, red=bob@4, blue=anncat@5, blue=cat@6"
	if got := show(streamtest.Out(d, out).All()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestTransformValuesSeesWhatIsNotThere(t *testing.T) {
	d := streamtest.New(t, func(b *stream.Builder) {
		known := b.Table(rows, row).TransformValues(func(r rec) (string, error) {
			if r.Null {
				return "unknown " + r.Key, nil
			}
			return r.Value, nil
		})
		b.Stream(text).JoinTable(known, both).To(out)
	})
	streamtest.In(d, rows).Send("a", "A")
	in := streamtest.In(d, text)
	in.Send("a", "1", at(1))
	in.Send("b", "2", at(2))
	if got, want := show(streamtest.Out(d, out).All()), "a=1+A@1, b=2+unknown b@2"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// A stored filter over a table that nobody keeps knows what it has itself: once somebody below wants old values, it says nothing of
// rows it never had.
func TestStoredFilterOfAnUnstoredTable(t *testing.T) {
	even := func(_, v string) bool { return len(v)%2 == 0 }
	for _, test := range []struct {
		name  string
		below func(t *stream.KTable[string, string]) *stream.KTable[string, string]
		want  string
	}{
		{"alone", func(t *stream.KTable[string, string]) *stream.KTable[string, string] { return t }, "a=~@1, a=xx@2, a=~@3"},
		{"under a filter", func(t *stream.KTable[string, string]) *stream.KTable[string, string] { return t.Filter(even) }, "a=xx@2, a=~@3"},
	} {
		d := streamtest.New(t, func(b *stream.Builder) {
			test.below(b.UnstoredTable(rows).Filter(even).Stored(row.EveryUpdate())).ToStream().To(out)
		})
		in := streamtest.In(d, rows)
		for i, v := range []string{"x", "xx", "xxx"} {
			in.Send("a", v, at(int64(i+1)))
		}
		if got := show(streamtest.Out(d, out).All()); got != test.want {
			t.Errorf("%s: got %s, want %s", test.name, got, test.want)
		}
	}
}

// One record changes both sides of a table joined with itself, so what the join says was there before was never given on. A stored filter
// of it goes by what it has; one that is only heard says nothing of rows it never had.
func TestFilterOfATableJoinedWithItself(t *testing.T) {
	heard := stream.NewTopic("heard", serde.String, serde.String)
	for name, test := range map[string]struct {
		h    state.KeyValue[string, string]
		want string
	}{
		"every update": {joinRow.EveryUpdate(), "a=x+x@1, a=x+x@1, a=~@2, a=y+y@4, a=y+y@4"},
		"per commit":   {joinRow, "a=x+x@1, a=~@2, a=y+y@4"},
	} {
		t.Run(name, func(t *testing.T) {
			d := streamtest.New(t, func(b *stream.Builder) {
				table := b.Table(rows, row.EveryUpdate())
				short := table.OuterJoin(table, func(l, r *string) string { return maybe(l) + "+" + maybe(r) }).
					Filter(func(_, v string) bool { return len(v) == 3 })
				short.Stored(test.h).ToStream().To(out)
				short.ToStream().To(heard)
			})
			in := streamtest.In(d, rows)
			for i, v := range []string{"x", "xx", "xxx", "y"} {
				in.Send("a", v, at(int64(i+1)))
			}
			if got := show(streamtest.Out(d, out).All()); got != test.want {
				t.Errorf("stored: got %s, want %s", got, test.want)
			}
			if got, want := show(streamtest.Out(d, heard).All()), "a=x+x@1, a=x+x@1, a=y+y@4, a=y+y@4"; got != want {
				t.Errorf("heard: got %s, want %s", got, want)
			}
		})
	}
}

func TestCogroup(t *testing.T) {
	sums := state.NewKeyValue("sums", serde.String, serde.Int64)
	longer := func(a int64, v string) int64 { return a + int64(len(v)) }
	plus := func(a, v int64) int64 { return a + v }
	d := streamtest.New(t, func(b *stream.Builder) {
		b.Stream(text).GroupByKey().Cogroup(longer).
			And(b.Stream(numbers).GroupByKey(), plus).
			Aggregate(sums).ToStream().MapValues(func(n int64) string { return strings.Repeat("I", int(n)) }).To(out)
	}, streamtest.Partitions(3))
	streamtest.In(d, text).Send("a", "xx", at(1))
	streamtest.In(d, numbers).Send("a", 3, at(2))
	streamtest.In(d, text).Send("b", "x", at(3))
	d.Restart()
	streamtest.In(d, numbers).Send("a", 1, at(4))
	if got, want := show(streamtest.Out(d, out).All()), "a=II@1, a=IIIII@2, b=I@3, a=IIIIII@4"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// An aggregator may write into what it is given; those who ask for the old value get what it was.
func TestOldValuesOfAggregatesThatAreWrittenThrough(t *testing.T) {
	type bag struct{ Words []string }
	bags := state.NewKeyValue("bags", serde.String, serde.JSON[bag]())
	sizes := state.NewKeyValue("sizes", serde.String, serde.Int64)
	bySize := stream.NewRepartition("by-size", serde.String, serde.Int64)
	for name, h := range map[string]state.KeyValue[string, bag]{"per commit": bags, "every update": bags.EveryUpdate()} {
		t.Run(name, func(t *testing.T) {
			d := streamtest.New(t, func(b *stream.Builder) {
				b.Stream(text).GroupByKey().Aggregate(h, func(a bag, v string) bag {
					for i := range a.Words {
						a.Words[i] += v
					}
					a.Words = append(a.Words, v)
					return a
				}).GroupBy(bySize, func(_ string, a bag) (string, int64) { return "all", int64(len(strings.Join(a.Words, ""))) }).
					Aggregate(sizes, func(a, v int64) int64 { return a + v }, func(a, v int64) int64 { return a - v })
			})
			in := streamtest.In(d, text)
			for _, v := range []string{"a", "b", "c"} {
				in.Send("k", v)
			}
			// abc bc c: after each record the bag is one larger, and each of its words longer by one.
			if n, _ := streamtest.Get(d, sizes, "all"); n != 6 {
				t.Errorf("the sum of sizes is %d, want 6", n)
			}
		})
	}
}

// A join whose lookup fails leaves out what it had in hand, as LogAndContinue does; it does not take the row for missing.
func TestLookupsThatFail(t *testing.T) {
	boom := errors.New("boom")
	d := streamtest.New(t, func(b *stream.Builder) {
		l := b.Table(text, leftRow).TryMapValues(func(r stream.Record[string, string]) (string, error) {
			if r.Value == "bad" {
				return "", boom
			}
			return r.Value, nil
		}).Filter(func(_, v string) bool { return v != "" })
		r := b.Table(rows, rightRow)
		l.OuterJoin(r, outer).LeftJoin(r, left).ToStream().To(out)
		b.Stream(other).LeftJoinTable(l.LeftJoin(r, left), left).To(out)
		r.ToStream().MapValues(func(v string) string { return v + "!" }).To(out)
	}, streamtest.ContinueErrors())
	l, r, s := streamtest.In(d, text), streamtest.In(d, rows), streamtest.In(d, other)
	l.Send("a", "bad", at(10))
	r.Send("a", "A", at(20))
	s.Send("a", "x", at(30))
	r.Send("b", "B", at(40))
	s.Send("b", "y", at(50))
	l.Send("a", "good", at(60))
	s.Send("a", "z", at(70))
	// What a row was before it was mended cannot be said either.
	want := "a=A!@20, b=nil+B+B@40, b=nil+B+B@40, b=B!@40, b=y+nil@50, a=z+good+A@70"
	if got := show(streamtest.Out(d, out).All()); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
