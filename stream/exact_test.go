package stream_test

import (
	"strings"
	"testing"
	"time"

	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/stream"
	"github.com/moldau/moldau/streamtest"
	"github.com/moldau/moldau/window"
)

// Several updates of a row in one epoch, where each goes on at once and an aggregator writes through its value: each says what was
// before it, also the second update of a row that the epoch has made, and with other rows in between.
func TestEachUpdateKnowsTheOneBefore(t *testing.T) {
	groups := stream.NewRepartition("groups", serde.String, serde.String)
	seen := state.NewKeyValue("seen", serde.String, serde.String).EveryUpdate()
	write := func(a []byte, v string) []byte { // the last two letters
		if len(a) == 2 {
			a[0], a[1] = a[1], v[0]
			return a
		}
		return append(a, v...)
	}
	tests := []struct {
		name  string
		build func(g *stream.KGroupedStream[string, string]) *stream.KGroupedTable[string, string]
	}{
		{"rows", func(g *stream.KGroupedStream[string, string]) *stream.KGroupedTable[string, string] {
			h := state.NewKeyValue("rows", serde.String, serde.Bytes).EveryUpdate()
			return g.Aggregate(h, write).GroupBy(groups, func(k string, v []byte) (string, string) { return "all", k + string(v) })
		}},
		{"windows", func(g *stream.KGroupedStream[string, string]) *stream.KGroupedTable[string, string] {
			h := state.NewWindow("windows", serde.String, serde.Bytes).EveryUpdate()
			return g.WindowedBy(window.Tumbling(time.Minute)).Aggregate(h, write).
				GroupBy(groups, func(k window.Key[string], v []byte) (string, string) { return "all", k.Key + string(v) })
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d := streamtest.New(t, func(b *stream.Builder) {
				test.build(b.Stream(text).GroupByKey()).Aggregate(seen,
					func(a, v string) string { return a + " +" + v },
					func(a, v string) string { return a + " -" + v }).ToStream().To(out)
			}, streamtest.CommitEvery(0))
			in := streamtest.In(d, text)
			for _, r := range strings.Fields("a1 a2 b1 c1 a3 c2 b2 a4") {
				in.Send(r[:1], r[1:], at(10))
			}
			d.Commit()
			d.Commit()
			all := streamtest.Out(d, out).All()
			want := " +a1 -a1 +a12 +b1 +c1 -a12 +a23 -c1 +c12 -b1 +b12 -a23 +a34"
			if len(all) == 0 || all[len(all)-1].Value != want {
				t.Errorf("got  %v\nwant %s", all, want)
			}
		})
	}
}

// Behind a suppression an update does not say what was given on before it, but what was before it where it comes from. A filter that
// keeps its rows takes one away all the same.
func TestStoredFilterBehindSuppression(t *testing.T) {
	rows := state.NewKeyValue("rows", serde.String, serde.String).EveryUpdate()
	small := state.NewKeyValue("small", serde.String, serde.String).EveryUpdate()
	held := state.NewSuppressBuffer("held", serde.String, serde.String)
	d := streamtest.New(t, func(b *stream.Builder) {
		b.Table(text, rows).Suppress(held, stream.UntilTime(10*time.Millisecond)).
			Filter(func(_, v string) bool { return v < "5" }).Stored(small).ToStream().To(out)
	})
	in := streamtest.In(d, text)
	in.Send("k", "1", at(0))
	in.Send("clock", "9", at(20))
	in.Send("k", "7", at(30))
	in.Send("k", "7", at(35))
	in.Send("clock", "9", at(60))
	if got, want := show(streamtest.Out(d, out).All()), "k=1@0, k=~@35"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
