package stream_test

import (
	"fmt"
	"maps"
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

var (
	visits  = state.NewSession("visits", serde.String, serde.Int64)
	trips   = state.NewSession("trips", serde.String, serde.String)
	visited = stream.NewSessionTopic("visited", serde.String, serde.Int64)
	tripped = stream.NewSessionTopic("tripped", serde.String, serde.String)
)

func TestSessionCount(t *testing.T) {
	tests := []struct {
		name    string
		grace   time.Duration
		h       state.Session[string, int64]
		onClose bool
		input   string // key@time; a capital letter is a null value
		want    string
		late    string
	}{
		{"a gap is a gap, to the millisecond", 50 * ms, visits.EveryUpdate(), false,
			"a@1 a@11 a@22 b@22",
			"a[1,1)=1@1, a[1,1)=~@1, a[1,11)=2@11, a[22,22)=1@22, b[22,22)=1@22", ""},
		{"two become one", 50 * ms, visits.EveryUpdate(), false,
			"a@1 a@21 a@11",
			"a[1,1)=1@1, a[21,21)=1@21, a[1,1)=~@1, a[21,21)=~@21, a[1,21)=3@21", ""},
		{"the same instant", 0, visits.EveryUpdate(), false,
			"a@1 a@1 A@1", "a[1,1)=1@1, a[1,1)=2@1, a[1,1)=3@1", ""},
		{"within a session", 0, visits.EveryUpdate(), false,
			"a@1 a@11 a@5", "a[1,1)=1@1, a[1,1)=~@1, a[1,11)=2@11, a[1,11)=~@11, a[1,11)=3@11", ""},
		{"late, unless it meets an open session", 5 * ms, visits.EveryUpdate(), false,
			"a@100 a@86 b@84 a@80", "a[100,100)=1@100, a[86,86)=1@86, a[86,86)=~@86, a[80,86)=2@86", "b@84"},
		{"the store forgets a session when it can still take records", 5 * ms, visits.EveryUpdate(), false,
			"a@100 a@85 a@86", "a[100,100)=1@100, a[85,85)=1@85, a[86,86)=1@86", ""},
		{"null keys do not move time", 0, visits.EveryUpdate(), false,
			"a@1 ?@99 a@2", "a[1,1)=1@1, a[1,1)=~@1, a[1,2)=2@2", ""},
		{"at the commit, what nobody has heard of is not taken back", 50 * ms, visits, false,
			"a@1 a@21 a@11", "a[1,21)=3@21 t:11", ""},
		{"on close", 5 * ms, visits, true,
			"a@1 b@3 a@5 a@20 a@21 b@40",
			"b[3,3)=1@3 t:20, a[1,5)=2@5 t:21, a[20,21)=2@21 t:40", ""},
		{"on close, in the order of ends, of starts, of keys", 0, visits, true,
			"b@9 a@9 c@5 c@9 d@20 d@40", "c[5,9)=2@9 t:20, a[9,9)=1@9 t:20, b[9,9)=1@9 t:20, d[20,20)=1@20 t:40", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var options []streamtest.Option
			w := window.Session(10 * ms).Grace(test.grace)
			if !test.onClose {
				options = append(options, streamtest.CommitEvery(100))
			}
			d := streamtest.New(t, func(b *stream.Builder) {
				g := b.Stream(text).GroupByKey().SessionsBy(w)
				g.Late().To(lateText)
				if test.onClose {
					g = g.OnClose()
				}
				g.Count(test.h).ToStream().To(visited)
			}, options...)
			in := streamtest.In(d, text)
			for _, word := range strings.Fields(test.input) {
				var time int64
				k, after, _ := strings.Cut(word, "@")
				fmt.Sscan(after, &time)
				in.SendRecord(rec{Key: strings.ToLower(k), Null: k != strings.ToLower(k), KeyNull: k == "?", Value: "x", Time: at(time),
					Headers: []stream.Header{{Key: "t", Value: []byte(after)}}})
			}
			d.Commit()
			got := showW(streamtest.Out(d, visited).All())
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

func TestSessionAggregates(t *testing.T) {
	type G = stream.SessionWindowedKStream[string, string]
	each := trips.EveryUpdate()
	tests := []struct {
		name  string
		build func(g *G) *stream.WindowedKTable[string, string]
		want  string
	}{
		{"reduce passes nulls by", func(g *G) *stream.WindowedKTable[string, string] {
			return g.Reduce(each, func(a, b string) string { return a + b })
		}, "a[1,1)=x@1, a[21,21)=y@21, a[1,1)=~@1, a[21,21)=~@21, a[1,21)=xyz@21"},
		{"aggregate merges from zero", func(g *G) *stream.WindowedKTable[string, string] {
			return g.Aggregate(each, func(a, v string) string { return a + v }, func(a, b string) string { return "(" + a + "|" + b + ")" })
		}, "a[1,1)=x@1, a[21,21)=y@21, a[1,1)=~@1, a[21,21)=~@21, a[1,21)=((|x)|y)z@21"},
		{"fold sees nulls and may delete", func(g *G) *stream.WindowedKTable[string, string] {
			return g.Fold(each, stream.Fold[string, string, string]{
				Init: func() string { return "i" },
				Add:  func(a string, r rec) (string, bool, error) { return a + r.Value, !r.Null, nil },
			}, func(k, a, b string) (string, error) { return k + "(" + a + "|" + b + ")", nil })
		}, "a[1,1)=ix@1, a[1,1)=~@1, a[1,5)=~@5, a[21,21)=iy@21, a[21,21)=~@21, a[11,21)=a(i|iy)z@21"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d := streamtest.New(t, func(b *stream.Builder) {
				test.build(b.Stream(text).GroupByKey().SessionsBy(window.Session(10 * ms).Grace(50 * ms))).ToStream().To(tripped)
			})
			in := streamtest.In(d, text)
			in.Send("a", "x", at(1))
			in.SendNull("a", at(5))
			in.Send("a", "y", at(21))
			in.Send("a", "z", at(11))
			if got := showW(streamtest.Out(d, tripped).All()); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

// A merger may write into its first argument, and an aggregator into its aggregate: old values, undo and restarts do not see it.
func TestSessionsShareNothing(t *testing.T) {
	lists := state.NewSession("lists", serde.String, serde.JSON[[]string]()).EveryUpdate()
	d := streamtest.New(t, func(b *stream.Builder) {
		t := b.Stream(text).GroupByKey().SessionsBy(window.Session(10*ms).Grace(50*ms)).Aggregate(lists,
			func(a []string, v string) []string { return append(a, v) },
			func(a, b []string) []string {
				if a == nil {
					return b
				}
				for i := range a {
					a[i] = strings.ToUpper(a[i])
				}
				return append(a, b...)
			})
		out := stream.NewSessionTopic("out", serde.String, serde.String)
		stream.FlattenTable(t).Filter(func(window.Key[string], []string) bool { return true }). // wants old values
													ToStream().MapValues(func(v []string) string { return strings.Join(v, "") }).To(out)
	})
	in := streamtest.In(d, text)
	in.Send("a", "x", at(1))
	in.Send("a", "y", at(21))
	d.Commit()
	in.Send("a", "z", at(11))
	d.Restart()
	got := streamtest.Sessions(d, lists)
	if len(got) != 1 || strings.Join(got[0].Value, "") != "Xyz" {
		t.Errorf("after a restart: %v, want one session Xyz", got)
	}
}

// bruteSessions are the sessions of all records that were taken, from the definition: a record is taken if the session it ends up
// in is open. forgets: what has closed is met no more.
type bruteSessions struct {
	gap, grace int64
	forgets    bool
	final      map[string]int64
	taken      map[string][]int64 // times by key, ascending
	streamTime int64
	late       []string
}

// session is the run of times around the one at place i.
func (b *bruteSessions) session(times []int64, i int) (from, to int) {
	for from = i; from > 0 && times[from]-times[from-1] <= b.gap; from-- {
	}
	for to = i; to < len(times)-1 && times[to+1]-times[to] <= b.gap; to++ {
	}
	return from, to
}

func (b *bruteSessions) closed() int64 { return b.streamTime - b.grace - b.gap }

func (b *bruteSessions) forget() {
	for k, times := range b.taken {
		for len(times) > 0 {
			_, to := b.session(times, 0)
			if times[to] >= b.closed() {
				break
			}
			b.final[fmt.Sprintf("%s[%d,%d]", k, times[0], times[to])] = int64(to + 1)
			times = times[to+1:]
		}
		b.taken[k] = times
	}
}

func (b *bruteSessions) add(k string, ts int64) {
	b.streamTime = max(b.streamTime, ts)
	if b.forgets {
		b.forget()
	}
	i, _ := slices.BinarySearch(b.taken[k], ts)
	times := slices.Insert(slices.Clone(b.taken[k]), i, ts)
	if _, to := b.session(times, i); times[to] < b.closed() {
		b.late = append(b.late, fmt.Sprintf("%s@%d", k, ts))
		return
	}
	b.taken[k] = times
}

func (b *bruteSessions) counts() map[string]int64 {
	all := map[string]int64{}
	for k, times := range b.taken {
		for i := 0; i < len(times); {
			_, to := b.session(times, i)
			all[fmt.Sprintf("%s[%d,%d]", k, times[i], times[to])] = int64(to - i + 1)
			i = to + 1
		}
	}
	return all
}

// Whatever comes in whichever order, however often the application is killed: the updates lead to the sessions of the
// definition, and with OnClose each of them comes out once, when it has closed.
func TestSessionsAgainstBruteForce(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for round := range 80 {
		onClose := round%2 == 1
		b := &bruteSessions{gap: 1 + rnd.Int64N(12), grace: rnd.Int64N(15), forgets: onClose, taken: map[string][]int64{}, final: map[string]int64{}}
		w := window.Session(time.Duration(b.gap) * ms).Grace(time.Duration(b.grace) * ms)
		h := visits
		if !onClose {
			h = visits.Retention(time.Hour)
		}
		if round%4 < 2 {
			h = h.EveryUpdate()
		}
		d := streamtest.New(t, func(bl *stream.Builder) {
			g := bl.Stream(text).GroupByKey().SessionsBy(w)
			g.Late().To(lateText)
			if onClose {
				g = g.OnClose()
			}
			g.Count(h).ToStream().To(visited)
		}, streamtest.CommitEvery(rnd.IntN(5)))
		in := streamtest.In(d, text)
		now := int64(0)
		for range 150 {
			now += rnd.Int64N(6)
			r := rec{Key: string(rune('a' + rnd.IntN(3))), Value: "x", Time: at(max(0, now-rnd.Int64N(1+rnd.Int64N(40))))}
			b.add(r.Key, r.Time.UnixMilli())
			in.SendRecord(r)
			if rnd.IntN(20) == 0 {
				d.Restart()
			}
			if rnd.IntN(20) == 0 {
				d.Commit()
			}
		}
		d.Commit()
		got := map[string]int64{}
		for _, r := range streamtest.Out(d, visited).All() {
			name := fmt.Sprintf("%s[%d,%d]", r.Key.Key, r.Key.Start.UnixMilli(), r.Key.End.UnixMilli())
			if _, twice := got[name]; twice && onClose {
				t.Fatalf("round %d: %s came out twice", round, name)
			}
			if got[name] = r.Value; r.Null {
				delete(got, name)
			}
		}
		want := b.final
		if !onClose {
			want = b.counts()
		}
		if !maps.Equal(got, want) {
			t.Fatalf("round %d: %+v, on close %v:\ngot  %v\nwant %v", round, w, onClose, got, want)
		}
		var lates []string
		for _, r := range streamtest.Out(d, lateText).All() {
			lates = append(lates, fmt.Sprintf("%s@%d", r.Key, r.Time.UnixMilli()))
		}
		if !slices.Equal(lates, b.late) {
			t.Fatalf("round %d: late: got %v, want %v", round, lates, b.late)
		}
	}
}
