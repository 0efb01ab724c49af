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
