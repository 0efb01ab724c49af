package stream_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/stream"
	"github.com/moldau/moldau/streamtest"
	"github.com/moldau/moldau/window"
)

const ms = time.Millisecond

var (
	panes    = state.NewWindow("panes", serde.String, serde.Int64)
	joined   = state.NewWindow("joined", serde.String, serde.String)
	windows  = stream.NewWindowedTopic("windows", serde.String, serde.Int64, 10*ms)
	texts    = stream.NewWindowedTopic("texts", serde.String, serde.String, 10*ms)
	lateText = stream.NewTopic("late", serde.String, serde.String)
)

// showW writes windowed records as key[start,end)=value@ms.
func showW[V any](records []stream.Record[window.Key[string], V]) string {
	var lines []string
	for _, r := range records {
		v := fmt.Sprint(r.Value)
		if r.Null {
			v = "~"
		}
		line := fmt.Sprintf("%s[%d,%d)=%s@%d", r.Key.Key, r.Key.Start.UnixMilli(), r.Key.End.UnixMilli(), v, r.Time.UnixMilli())
		for _, h := range r.Headers {
			line += fmt.Sprintf(" %s:%s", h.Key, h.Value)
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, ", ")
}

func TestWindowedCount(t *testing.T) {
	tests := []struct {
		name    string
		w       window.TimeWindows
		onClose bool
		input   string // key@time; a capital letter is a null value
		want    string
		late    string
	}{
		{"tumbling", window.Tumbling(10 * ms), false,
			"a@1 a@9 b@10 a@10 A@12",
			"a[0,10)=1@1, a[0,10)=2@9, b[10,20)=1@10, a[10,20)=1@10, a[10,20)=2@12", ""},
		{"late without grace", window.Tumbling(10 * ms), false,
			"a@9 a@20 a@19 a@8 a@20",
			"a[0,10)=1@9, a[20,30)=1@20, a[20,30)=2@20", "a@19, a@8"},
		{"late by a hair", window.Tumbling(10 * ms).Grace(5 * ms), false,
			"a@1 a@14 a@2 a@15 a@3",
			"a[0,10)=1@1, a[10,20)=1@14, a[0,10)=2@2, a[10,20)=2@15", "a@3"},
		{"hopping", window.Hopping(10*ms, 5*ms), false,
			"a@7 a@12",
			"a[0,10)=1@7, a[5,15)=1@7, a[5,15)=2@12, a[10,20)=1@12", ""},
		{"hopping, late for the older window only", window.Hopping(10*ms, 5*ms), false,
			"a@11 a@7 a@21 a@12",
			"a[5,15)=1@11, a[10,20)=1@11, a[5,15)=2@11, a[15,25)=1@21, a[20,30)=1@21", "a@12"},
		{"time of the aggregate is the greatest", window.Tumbling(10 * ms), false,
			"a@9 a@1", "a[0,10)=1@9, a[0,10)=2@9", ""},
		{"null keys do not move time", window.Tumbling(10 * ms), false,
			"a@1 ?@99 a@2", "a[0,10)=1@1, a[0,10)=2@2", ""},
		{"on close", window.Tumbling(10 * ms).Grace(5 * ms), true,
			"b@1 a@9 a@2 a@14 b@15 a@3 a@40",
			"a[0,10)=2@9 t:15, b[0,10)=1@1 t:15, a[10,20)=1@14 t:40, b[10,20)=1@15 t:40", "a@3"},
		{"on close, hopping", window.Hopping(10*ms, 5*ms), true,
			"a@7 a@12 a@15 a@40",
			"a[0,10)=1@7 t:12, a[5,15)=2@12 t:15, a[10,20)=2@15 t:40, a[15,25)=1@15 t:40", ""},
		{"on close, in the order of windows, then of keys", window.Tumbling(10 * ms).Grace(100 * ms), true,
			"c@31 b@1 a@31 a@12 c@2 c@500",
			"b[0,10)=1@1 t:500, c[0,10)=1@2 t:500, a[10,20)=1@12 t:500, a[30,40)=1@31 t:500, c[30,40)=1@31 t:500", ""},
		{"unlimited", window.Unlimited(at(5)), false,
			"a@4 a@5 a@500 a@6", "a[5,0)=1@5, a[5,0)=2@500, a[5,0)=3@500", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			to := windows
			if test.w.SizeMS() > 1e9 {
				to = stream.NewWindowedTopic("windows", serde.String, serde.Int64, window.Forever)
			}
			d := streamtest.New(t, func(b *stream.Builder) {
				g := b.Stream(text).GroupByKey().WindowedBy(test.w)
				g.Late().To(lateText)
				if test.onClose {
					g = g.OnClose()
				}
				g.Count(panes).ToStream().To(to)
			})
			in := streamtest.In(d, text)
			for _, word := range strings.Fields(test.input) {
				var time int64
				k, after, _ := strings.Cut(word, "@")
				fmt.Sscan(after, &time)
				r := rec{Key: strings.ToLower(k), Null: k != strings.ToLower(k), KeyNull: k == "?", Value: "x", Time: at(time)}
				if test.onClose {
					r.Headers = []stream.Header{{Key: "t", Value: []byte(after)}}
				}
				in.SendRecord(r)
			}
			got := showW(streamtest.Out(d, to).All())
			if test.w.SizeMS() > 1e9 {
				got = strings.ReplaceAll(got, fmt.Sprint(int64(1<<63-1)), "0")
			}
			if got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
			var lates []string
			for _, r := range streamtest.Out(d, lateText).All() {
				lates = append(lates, fmt.Sprintf("%s@%d", r.Key, r.Time.UnixMilli()))
			}
			if late := strings.Join(lates, ", "); late != test.late {
				t.Errorf("late: got  %s\n      want %s", late, test.late)
			}
		})
	}
}

func TestWindowedAggregatesAndNulls(t *testing.T) {
	type G = stream.TimeWindowedKStream[string, string]
	tests := []struct {
		name  string
		build func(g *G) *stream.WindowedKTable[string, string]
		want  string
	}{
		{"reduce passes nulls by", func(g *G) *stream.WindowedKTable[string, string] {
			return g.Reduce(joined, func(a, b string) string { return a + b })
		}, "a[0,10)=x@1, a[0,10)=xz@3"},
		{"aggregate passes nulls by", func(g *G) *stream.WindowedKTable[string, string] {
			return g.Aggregate(joined, func(a, v string) string { return a + v })
		}, "a[0,10)=x@1, a[0,10)=xz@3"},
		{"fold sees nulls", func(g *G) *stream.WindowedKTable[string, string] {
			return g.Fold(joined, stream.Fold[string, string, string]{Add: func(a string, r rec) (string, bool, error) {
				if r.Null {
					return a, false, nil
				}
				return a + r.Value, true, nil
			}})
		}, "a[0,10)=x@1, a[0,10)=~@2, a[0,10)=z@3"},
		{"filter and mapValues", func(g *G) *stream.WindowedKTable[string, string] {
			return g.Reduce(joined, func(a, b string) string { return a + b }).
				Filter(func(k window.Key[string], v string) bool { return k.Key == "a" && v != "x" }).MapValues(strings.ToUpper)
		}, "a[0,10)=XZ@3"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d := streamtest.New(t, func(b *stream.Builder) {
				test.build(b.Stream(text).GroupByKey().WindowedBy(window.Tumbling(10 * ms))).ToStream().To(texts)
			})
			in := streamtest.In(d, text)
			in.Send("a", "x", at(1))
			in.SendNull("a", at(2))
			in.Send("a", "z", at(3))
			if got := showW(streamtest.Out(d, texts).All()); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

// bruteClose computes final results and late records of one partition from the definition.
func bruteClose(w window.TimeWindows, input []rec) (final map[string]int64, late []string) {
	final = map[string]int64{}
	counts := map[string]int64{}
	ends := map[string]int64{}
	streamTime := int64(-1)
	for _, r := range input {
		ts := r.Time.UnixMilli()
		streamTime = max(streamTime, ts)
		open := false
		for start := int64(0); start <= ts; start += w.AdvanceMS() {
			end := start + w.SizeMS()
			if ts >= end || end+w.GraceMS() <= streamTime {
				continue
			}
			open = true
			name := fmt.Sprintf("%s[%d,%d)", r.Key, start, end)
			counts[name]++
			ends[name] = end
		}
		if !open {
			late = append(late, fmt.Sprintf("%s@%d", r.Key, ts))
		}
	}
	for name, n := range counts {
		if ends[name]+w.GraceMS() <= streamTime {
			final[name] = n
		}
	}
	return final, late
}

// Whatever comes in whichever order, however often the application is killed: each closed window comes out exactly once with
// its final count, and exactly the late records come out as late.
func TestOnCloseAgainstBruteForce(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for round := range 60 {
		size := 1 + rnd.Int64N(20)
		w := window.Hopping(time.Duration(size)*ms, time.Duration(1+rnd.Int64N(size))*ms).Grace(time.Duration(rnd.Int64N(15)) * ms)
		if round%2 == 0 {
			w = window.Tumbling(time.Duration(size) * ms).Grace(time.Duration(rnd.Int64N(15)) * ms)
		}
		to := stream.NewWindowedTopic("windows", serde.String, serde.Int64, time.Duration(size)*ms)
		d := streamtest.New(t, func(b *stream.Builder) {
			g := b.Stream(text).GroupByKey().WindowedBy(w)
			g.Late().To(lateText)
			g.OnClose().Count(panes).ToStream().To(to)
		}, streamtest.CommitEvery(rnd.IntN(5)))
		in := streamtest.In(d, text)
		var input []rec
		now := int64(0)
		for range 150 {
			now += rnd.Int64N(5)
			r := rec{Key: string(rune('a' + rnd.IntN(3))), Value: "x", Time: at(max(0, now-rnd.Int64N(1+rnd.Int64N(40))))}
			input = append(input, r)
			in.SendRecord(r)
			if rnd.IntN(20) == 0 {
				d.Restart()
			}
			if rnd.IntN(20) == 0 {
				d.Commit()
			}
		}
		d.Commit()
		final, late := bruteClose(w, input)
		got := map[string]int64{}
		for _, r := range streamtest.Out(d, to).All() {
			name := fmt.Sprintf("%s[%d,%d)", r.Key.Key, r.Key.Start.UnixMilli(), r.Key.End.UnixMilli())
			if got[name] != 0 {
				t.Fatalf("round %d: %s came out twice", round, name)
			}
			got[name] = r.Value
		}
		for name, n := range final {
			if got[name] != n {
				t.Fatalf("round %d: %+v: %s: got %d, want %d", round, w, name, got[name], n)
			}
		}
		if len(got) != len(final) {
			t.Fatalf("round %d: %d windows came out, want %d", round, len(got), len(final))
		}
		var lates []string
		for _, r := range streamtest.Out(d, lateText).All() {
			lates = append(lates, fmt.Sprintf("%s@%d", r.Key, r.Time.UnixMilli()))
		}
		if !slices.Equal(lates, late) {
			t.Fatalf("round %d: late: got %v, want %v", round, lates, late)
		}
	}
}
