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

type rec = stream.Record[string, string]

// feedText sends what the aggregates are tested with: two keys, times out of order, nulls, headers.
func feedText(d *streamtest.Driver) {
	in := streamtest.In(d, text)
	in.SendRecord(rec{Key: "a", Value: "x", Time: at(10), Headers: []stream.Header{{Key: "h", Value: []byte("1")}}})
	in.Send("b", "y", at(30))
	in.SendRecord(rec{Key: "a", Value: "z", Time: at(5), Headers: []stream.Header{{Key: "h", Value: []byte("2")}}})
	in.SendNull("a", at(40))
	in.SendRecord(rec{KeyNull: true, Value: "q", Time: at(41)})
	in.Send("a", "w", at(42))
}

func TestAggregates(t *testing.T) {
	counts := state.NewKeyValue("counts", serde.String, serde.Int64)
	texts := state.NewKeyValue("texts", serde.String, serde.String)
	join := func(a, b string) string { return a + b }
	tests := []struct {
		name  string
		build func(g *stream.KGroupedStream[string, string]) *stream.KStream[string, string]
		want  string
	}{
		{"count", func(g *stream.KGroupedStream[string, string]) *stream.KStream[string, string] {
			return g.Count(counts).ToStream().MapValues(func(n int64) string { return strings.Repeat("I", int(n)) })
		}, "a=I@10 h:1, b=I@30, a=II@10 h:2, a=III@42"},
		{"reduce", func(g *stream.KGroupedStream[string, string]) *stream.KStream[string, string] {
			return g.Reduce(texts, join).ToStream()
		}, "a=x@10 h:1, b=y@30, a=xz@10 h:2, a=xzw@42"},
		{"aggregate", func(g *stream.KGroupedStream[string, string]) *stream.KStream[string, string] {
			return g.Aggregate(texts, func(a, v string) string { return v + a }).ToStream()
		}, "a=x@10 h:1, b=y@30, a=zx@10 h:2, a=wzx@42"},
		{"fold", func(g *stream.KGroupedStream[string, string]) *stream.KStream[string, string] {
			return g.Fold(texts, stream.Fold[string, string, string]{
				Init: func() string { return "-" },
				Add: func(a string, r rec) (string, bool, error) {
					return a + r.Key + r.Value, r.Value != "z", nil
				}}).ToStream()
		}, "a=-ax@10 h:1, b=-by@30, a=~@5 h:2, a=-aw@42"},
		{"aggregate that becomes nil", func(g *stream.KGroupedStream[string, string]) *stream.KStream[string, string] {
			h := state.NewKeyValue("nil", serde.String, serde.Bytes)
			return g.Aggregate(h, func(a []byte, v string) []byte {
				if v == "z" {
					return nil
				}
				return append(a, v...)
			}).ToStream().MapValues(func(b []byte) string {
				if b == nil {
					return "nil"
				}
				return string(b)
			})
		}, "a=x@10 h:1, b=y@30, a=nil@5 h:2, a=w@42"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d := streamtest.New(t, func(b *stream.Builder) { test.build(b.Stream(text).GroupByKey()).To(out) })
			feedText(d)
			if got := show(streamtest.Out(d, out).All()); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
			dropped := d.Dropped()
			sum := int64(0)
			for _, n := range dropped {
				sum += n
			}
			if sum != 2 || len(dropped) != 2 {
				t.Errorf("dropped: %v", dropped)
			}
		})
	}
}

// Per commit the last update of a key goes on, in the order of these; each at once if the handle says so.
func TestEmission(t *testing.T) {
	run := func(h state.KeyValue[string, int64]) string {
		d := streamtest.New(t, func(b *stream.Builder) {
			b.Stream(text).GroupByKey().Count(h).ToStream().To(numbers)
		}, streamtest.CommitEvery(0))
		feedText(d)
		d.Commit()
		return show(streamtest.Out(d, numbers).All())
	}
	h := state.NewKeyValue("counts", serde.String, serde.Int64)
	if got, want := run(h), "b=1@30, a=3@42"; got != want {
		t.Errorf("per commit: got %s, want %s", got, want)
	}
	if got, want := run(h.EveryUpdate()), "a=1@10 h:1, b=1@30, a=2@10 h:2, a=3@42"; got != want {
		t.Errorf("every update: got %s, want %s", got, want)
	}
}

func TestWordCountOverPartitionsAndRestarts(t *testing.T) {
	words := stream.NewRepartition("words", serde.String, serde.String).Partitions(3)
	counts := state.NewKeyValue("counts", serde.String, serde.Int64)
	for _, every := range []int{1, 3, 0} {
		d := streamtest.New(t, func(b *stream.Builder) {
			b.Stream(text).FlatMapValues(strings.Fields).GroupBy(words, func(_, w string) string { return w }).Count(counts).ToStream().To(numbers)
		}, streamtest.Partitions(4), streamtest.CommitEvery(every))
		in := streamtest.In(d, text)
		lines := []string{"to be or not to be", "that is the question", "whether tis nobler", "to suffer", "or to take arms", "to die to sleep"}
		want := map[string]int64{}
		for i, line := range lines {
			in.Send(line, line)
			if i%2 == 1 {
				d.Restart()
			}
			for _, w := range strings.Fields(line) {
				want[w]++
			}
		}
		d.Commit()
		d.Commit()
		got := map[string]int64{}
		for _, r := range streamtest.Out(d, numbers).All() {
			got[r.Key] = r.Value
		}
		for w, n := range want {
			if got[w] != n {
				t.Errorf("commit every %d: %s: got %d, want %d", every, w, got[w], n)
			}
			if v, ok := streamtest.Get(d, counts, w); !ok || v != n {
				t.Errorf("commit every %d: store has %d of %s, want %d", every, v, w, n)
			}
		}
	}
}

func TestTables(t *testing.T) {
	type T = stream.KTable[string, string]
	rows := state.NewKeyValue("rows", serde.String, serde.String)
	tests := []struct {
		name  string
		build func(t *T) *T
		want  string
	}{
		{"as it is", func(t *T) *T { return t }, "a=x@10 h:1, b=y@30, a=z@5 h:2, a=~@40, a=w@42"},
		{"filter does not tell of what was not there", func(t *T) *T {
			return t.Filter(func(_, v string) bool { return v < "y" })
		}, "a=x@10 h:1, a=~@5 h:2, a=w@42"},
		{"filterNot", func(t *T) *T {
			return t.FilterNot(func(_, v string) bool { return v < "y" })
		}, "b=y@30, a=z@5 h:2, a=~@40"},
		{"mapValues", func(t *T) *T {
			return t.MapValues(func(v string) string { return v + v })
		}, "a=xx@10 h:1, b=yy@30, a=zz@5 h:2, a=~@40, a=ww@42"},
		{"tryMapValues", func(t *T) *T {
			return t.TryMapValues(func(r rec) (string, error) { return r.Key + r.Value, nil })
		}, "a=ax@10 h:1, b=by@30, a=az@5 h:2, a=~@40, a=aw@42"},
		{"stored", func(t *T) *T {
			return t.MapValues(strings.ToUpper).Stored(state.NewKeyValue("upper", serde.String, serde.String))
		}, "a=X@10 h:1, b=Y@30, a=Z@5 h:2, a=~@40, a=W@42"},
		{"stored filter does not tell of what was not there", func(t *T) *T {
			return t.Filter(func(_, v string) bool { return v < "y" }).Stored(state.NewKeyValue("few", serde.String, serde.String))
		}, "a=x@10 h:1, a=~@5 h:2, a=w@42"},
	}
	t.Run("unstored", func(t *testing.T) {
		d := streamtest.New(t, func(b *stream.Builder) {
			few := func(_, v string) bool { return v < "y" }
			b.UnstoredTable(text).Filter(few).ToStream().To(out)
			b.Stream(text).ToUnstoredTable().MapValues(strings.ToUpper).ToStream().To(out2)
		})
		feedText(d)
		if got, want := show(streamtest.Out(d, out).All()), "a=x@10 h:1, b=~@30, a=~@5 h:2, a=~@40, a=w@42"; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		if got, want := show(streamtest.Out(d, out2).All()), "a=X@10 h:1, b=Y@30, a=Z@5 h:2, a=~@40, a=W@42"; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	})
	for _, source := range []string{"table", "toTable"} {
		for _, test := range tests {
			t.Run(source+"/"+test.name, func(t *testing.T) {
				d := streamtest.New(t, func(b *stream.Builder) {
					if source == "table" {
						test.build(b.Table(text, rows)).ToStream().To(out)
					} else {
						test.build(b.Stream(text).ToTable(rows)).ToStream().To(out)
					}
				})
				feedText(d)
				if got := show(streamtest.Out(d, out).All()); got != test.want {
					t.Errorf("got  %s\nwant %s", got, test.want)
				}
			})
		}
	}
}

func TestErrorInAnAggregateTakesTheRecordBack(t *testing.T) {
	sums := state.NewKeyValue("sums", serde.String, serde.String)
	d := streamtest.New(t, func(b *stream.Builder) {
		b.Stream(text).GroupByKey().Aggregate(sums, func(a, v string) string { return a + v }).ToStream().To(out)
		b.Stream(text).TryMapValues(func(r rec) (string, error) {
			if r.Value == "bad" {
				return "", errors.New("bad")
			}
			return r.Value, nil
		}).To(out2)
	}, streamtest.SkipErrors(), streamtest.CommitEvery(3))
	in := streamtest.In(d, text)
	for i, v := range []string{"1", "2", "bad", "3", "bad", "4", "5"} {
		in.Send("k", v, at(int64(i)))
	}
	d.Commit()
	if v, _ := streamtest.Get(d, sums, "k"); v != "12345" {
		t.Errorf("the aggregate is %s", v)
	}
	if got, want := show(streamtest.Out(d, out2).All()), "k=1@0, k=2@1, k=3@3, k=4@5, k=5@6"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
