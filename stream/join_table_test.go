package stream_test

import (
	"testing"

	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/stream"
	"github.com/moldau/moldau/streamtest"
	"github.com/moldau/moldau/window"
)

var (
	rows = stream.NewTopic("rows", serde.String, serde.String)
	row  = state.NewKeyValue("row", serde.String, serde.String)
)

func both(v, r string) string { return v + "+" + r }

func left(v string, r *string) string {
	if r == nil {
		return v + "+nil"
	}
	return v + "+" + *r
}

// feedJoin sends records before, between and after the rows they meet.
func feedJoin(d *streamtest.Driver) {
	table, in := streamtest.In(d, rows), streamtest.In(d, text)
	in.Send("a", "early", at(1))
	table.Send("a", "A", at(50))
	in.SendRecord(rec{Key: "a", Value: "x", Time: at(2), Headers: []stream.Header{{Key: "h", Value: []byte("1")}}})
	table.Send("a", "B", at(3))
	in.Send("a", "y", at(4))
	in.SendNull("a", at(5))
	in.SendRecord(rec{KeyNull: true, Value: "z", Time: at(6)})
	table.SendNull("a", at(7))
	in.Send("a", "w", at(8))
	in.Send("b", "v", at(9))
}

func TestLookups(t *testing.T) {
	type (
		B = stream.Builder
		S = stream.KStream[string, string]
	)
	same := func(k, _ string) string { return k }
	tests := []struct {
		name    string
		build   func(b *B, s *S) *S
		want    string
		dropped int64
	}{
		{"joinTable", func(b *B, s *S) *S { return s.JoinTable(b.Table(rows, row), both) },
			"a=x+A@2 h:1, a=y+B@4", 2},
		{"leftJoinTable", func(b *B, s *S) *S { return s.LeftJoinTable(b.Table(rows, row), left) },
			"a=early+nil@1, a=x+A@2 h:1, a=y+B@4, ~=z+nil@6, a=w+nil@8, b=v+nil@9", 1},
		{"tryJoinTable", func(b *B, s *S) *S {
			return s.TryJoinTable(b.Table(rows, row), func(r rec, v string) (string, error) { return r.Key + both(r.Value, v), nil })
		}, "a=ax+A@2 h:1, a=ay+B@4", 2},
		{"of a derived table", func(b *B, s *S) *S {
			return s.JoinTable(b.Table(rows, row).MapValues(func(v string) string { return v + v }).Filter(func(_, v string) bool { return v == "BB" }), both)
		}, "a=y+BB@4", 2},
		{"joinGlobal", func(b *B, s *S) *S { return s.JoinGlobal(b.GlobalTable(rows, row), same, both) },
			"a=x+A@2 h:1, a=y+B@4", 1},
		{"leftJoinGlobal", func(b *B, s *S) *S { return s.LeftJoinGlobal(b.GlobalTable(rows, row), same, left) },
			"a=early+nil@1, a=x+A@2 h:1, a=y+B@4, ~=z+nil@6, a=w+nil@8, b=v+nil@9", 1},
		{"joinGlobal by another key", func(b *B, s *S) *S {
			return s.JoinGlobal(b.GlobalTable(rows, row), func(_, v string) string {
				if v == "z" {
					return "a"
				}
				return "?"
			}, both)
		}, "~=z+B@6", 1},
		{"after a repartition", func(b *B, s *S) *S {
			return s.SelectKey(func(_, v string) string {
				if v == "y" || v == "z" {
					return "a"
				}
				return "c"
			}).Repartition(byKey).JoinTable(b.Table(rows, row), both)
		}, "a=y+B@4, a=z+B@6", 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d := streamtest.New(t, func(b *B) { test.build(b, b.Stream(text)).To(out) }, streamtest.Partitions(3))
			feedJoin(d)
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

func TestGlobalTableHasAllPartitionsAndOutlivesARestart(t *testing.T) {
	d := streamtest.New(t, func(b *stream.Builder) {
		b.Stream(text).JoinGlobal(b.GlobalTable(rows, row), func(_, v string) string { return v }, both).To(out)
	}, streamtest.Partitions(5))
	table := streamtest.In(d, rows)
	for _, k := range []string{"a", "b", "c", "d", "e", "f"} {
		table.Send(k, k+k)
	}
	d.Restart()
	in := streamtest.In(d, text)
	for i, k := range []string{"f", "e", "d", "c", "b", "a"} {
		in.Send("same", k, at(int64(i)))
	}
	want := "same=f+ff@0, same=e+ee@1, same=d+dd@2, same=c+cc@3, same=b+bb@4, same=a+aa@5"
	if got := show(streamtest.Out(d, out).All()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if v, ok := streamtest.Get(d, row, "c"); !ok || v != "cc" {
		t.Error(v, ok)
	}
}

// A windowed result is joined by its inner key: it lies in the partition of that key.
func TestWindowedLookups(t *testing.T) {
	type W = stream.WindowedKStream[string, string]
	type B = stream.Builder
	pair := func(k window.Key[string], v, r string) string { return k.Key + ":" + v + "+" + r }
	lefty := func(k window.Key[string], v string, r *string) string { return k.Key + ":" + left(v, r) }
	tests := []struct {
		name string
		join func(b *B, s *W) *W
		want string
	}{
		{"joinTable", func(b *B, s *W) *W { return s.JoinTable(b.Table(rows, row), pair) }, "a[0,10)=a:xy+A@2"},
		{"leftJoinTable", func(b *B, s *W) *W { return s.LeftJoinTable(b.Table(rows, row), lefty) }, "a[0,10)=a:xy+A@2, b[0,10)=b:z+nil@3"},
		{"joinGlobal", func(b *B, s *W) *W { return s.JoinGlobal(b.GlobalTable(rows, row), pair) }, "a[0,10)=a:xy+A@2"},
		{"leftJoinGlobal", func(b *B, s *W) *W { return s.LeftJoinGlobal(b.GlobalTable(rows, row), lefty) }, "a[0,10)=a:xy+A@2, b[0,10)=b:z+nil@3"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d := streamtest.New(t, func(b *B) {
				final := b.Stream(text).GroupByKey().WindowedBy(window.Tumbling(10*ms)).OnClose().
					Reduce(joined, func(a, v string) string { return a + v }).ToStream()
				test.join(b, final).To(texts)
			})
			streamtest.In(d, rows).Send("a", "A", at(0))
			in := streamtest.In(d, text)
			in.Send("a", "x", at(1))
			in.Send("a", "y", at(2))
			in.Send("b", "z", at(3))
			in.Send("c", "w", at(10))
			if got := showW(streamtest.Out(d, texts).All()); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}
