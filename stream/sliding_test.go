package stream_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/stream"
	"github.com/moldau/moldau/streamtest"
	"github.com/moldau/moldau/window"
)

func TestSlidingWindows(t *testing.T) {
	to := stream.NewWindowedTopic("windows", serde.String, serde.Int64, 10*ms)
	tests := []struct {
		name, input, want string
		onClose           bool
	}{
		{"in order", "a@20 a@25 a@40", "a[10,20)=1@20, a[21,31)=1@25, a[15,25)=2@25, a[30,40)=1@40", false},
		{"out of order", "a@20 a@15", "a[10,20)=1@20, a[10,20)=2@20, a[5,15)=1@15, a[16,26)=1@20", false},
		{"together", "a@20 a@20", "a[10,20)=1@20, a[10,20)=2@20", false},
		{"early records share one window", "a@3 a@7", "a[0,10)=1@3, a[4,14)=1@7, a[0,10)=2@7", false},
		{"null values do not count", "a@20 A@50 a@25", "a[10,20)=1@20, a[21,31)=1@25, a[15,25)=2@25", false},
		{"too late", "a@20 b@80 a@30", "a[10,20)=1@20, b[70,80)=1@80", false},
		{"on close", "a@20 a@25 b@60 b@70", "a[10,20)=1@20, a[15,25)=2@25, a[21,31)=1@25", true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d := streamtest.New(t, func(b *stream.Builder) {
				g := b.Stream(text).GroupByKey().SlidingBy(window.Sliding(10 * ms).Grace(25 * ms))
				h := panes.EveryUpdate()
				if test.onClose {
					g = g.OnClose()
				}
				g.Count(h).ToStream().To(to)
			})
			in := streamtest.In(d, text)
			for _, word := range strings.Fields(test.input) {
				var time int64
				k, after, _ := strings.Cut(word, "@")
				fmt.Sscan(after, &time)
				in.SendRecord(rec{Key: strings.ToLower(k), Null: k != strings.ToLower(k), Value: "x", Time: at(time)})
			}
			if got := showW(streamtest.Out(d, to).All()); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

// A stream of a co-grouping that is behind the others gives on what it makes of windows that the store has let go of, as in Kafka
// Streams: each record starts them anew.
func TestCogroupedSlidingWindowsBehindTheStore(t *testing.T) {
	to := stream.NewWindowedTopic("windows", serde.String, serde.Int64, 10*ms)
	d := streamtest.New(t, func(b *stream.Builder) {
		b.Stream(text).GroupByKey().Cogroup(func(a int64, _ string) int64 { return a + 1 }).
			And(b.Stream(numbers).GroupByKey(), func(a, v int64) int64 { return a + v }).
			SlidingBy(window.Sliding(10 * ms)).Aggregate(panes.EveryUpdate().ExpireFirst()).ToStream().To(to)
	})
	streamtest.In(d, text).Send("a", "x", at(100))
	behind := streamtest.In(d, numbers)
	behind.Send("a", 3, at(20))
	behind.Send("a", 4, at(25))
	if got, want := showW(streamtest.Out(d, to).All()), "a[90,100)=1@100, a[10,20)=3@20, a[15,25)=4@25"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// bruteSliding counts the records of every window there is by definition: one that ends with a record, and one that starts
// behind a record if another is in it. [0, diff] stands for all that would start before the epoch.
func bruteSliding(diff int64, times []int64) map[int64]int64 {
	count := func(start int64) (n int64) {
		for _, t := range times {
			if t >= start && t <= start+diff {
				n++
			}
		}
		return n
	}
	all := map[int64]int64{}
	for _, t := range times {
		all[max(0, t-diff)] = count(max(0, t-diff))
		if n := count(t + 1); n > 0 {
			all[t+1] = n
		}
	}
	return all
}

func TestSlidingAgainstBruteForce(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for round := range 80 {
		diff := 1 + rnd.Int64N(20)
		d := streamtest.New(t, func(b *stream.Builder) {
			b.Stream(text).GroupByKey().SlidingBy(window.Sliding(time.Duration(diff) * ms).Grace(time.Hour)).Count(panes)
		}, streamtest.CommitEvery(rnd.IntN(5)))
		in := streamtest.In(d, text)
		times := map[string][]int64{}
		for range 60 {
			k, ts := string(rune('a'+rnd.IntN(2))), rnd.Int64N(100)
			times[k] = append(times[k], ts)
			in.Send(k, "x", at(ts))
			if rnd.IntN(15) == 0 {
				d.Restart()
			}
		}
		got := map[string]map[int64]int64{"a": {}, "b": {}}
		for _, p := range streamtest.Panes(d, panes) {
			got[p.Key][p.Start.UnixMilli()] = p.Value
		}
		for k := range got {
			if g, w := fmt.Sprint(got[k]), fmt.Sprint(bruteSliding(diff, times[k])); g != w {
				t.Fatalf("round %d, difference %d, key %s, times %v:\ngot  %s\nwant %s", round, diff, k, times[k], g, w)
			}
		}
	}
}

// An aggregate that is written through must not reach the windows that were made from it.
func TestSlidingAggregatesDoNotShareMemory(t *testing.T) {
	type bag struct{ Values []string }
	bags := state.NewWindow("bags", serde.String, serde.JSON[bag]())
	d := streamtest.New(t, func(b *stream.Builder) {
		b.Stream(text).GroupByKey().SlidingBy(window.Sliding(10*ms).Grace(time.Hour)).Aggregate(bags, func(a bag, v string) bag {
			a.Values = append(a.Values, v)
			for i := range a.Values {
				a.Values[i] += "." // all of them are written through
			}
			return a
		})
	}, streamtest.CommitEvery(0))
	in := streamtest.In(d, text)
	in.Send("k", "a", at(20))
	in.Send("k", "b", at(25))
	in.Send("k", "c", at(22))
	var got []string
	for _, p := range streamtest.Panes(d, bags) {
		got = append(got, fmt.Sprintf("%d%v", p.Start.UnixMilli(), p.Value.Values))
	}
	want := "10[a.] 12[a.. c.] 15[a... b.. c.] 21[b.. c.] 23[b.]"
	if text := strings.Join(got, " "); text != want {
		t.Errorf("got  %s\nwant %s", text, want)
	}
}
