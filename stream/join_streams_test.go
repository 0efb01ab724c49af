package stream_test

import (
	"cmp"
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

var near = state.NewJoinBuffer("near", serde.String, serde.String, serde.String)

func outer(l, r *string) string {
	if l == nil {
		return left("nil", r)
	}
	return left(*l, r)
}

func TestJoinsOfStreams(t *testing.T) {
	type S = stream.KStream[string, string]
	within := window.Within(10 * ms).Grace(5 * ms)
	joins := map[string]func(l, r *S) *S{
		"inner": func(l, r *S) *S { return l.Join(r, within, near, both) },
		"left":  func(l, r *S) *S { return l.LeftJoin(r, within, near, left) },
		"outer": func(l, r *S) *S { return l.OuterJoin(r, within, near, outer) },
		"early": func(l, r *S) *S { return l.Join(r, window.Within(0).Before(10*ms), near, both) },
		"self":  func(l, _ *S) *S { return l.Join(l, within, near, both) },
		"one":   func(l, _ *S) *S { return l.Join(l, within, near.SingleStore(), both) },
		"rekeyed": func(l, _ *S) *S {
			l = l.Repartition(byKey)
			return l.LeftJoin(l, within, near.SingleStore(), left)
		},
	}
	tests := []struct {
		name, joins string
		events      string // side:key=value@ms, null is ~, a header h
		want        string
		dropped     int64
	}{
		{"a pair has the later time and the headers of the later record", "inner left outer", "l:a=x@5 h r:a=y@3", "a=x+y@5", 0},
		{"both ends of the window belong to it", "inner", "l:a=x@20 r:a=p@9 r:a=q@10 r:a=s@30 r:a=t@31", "a=x+q@20, a=x+s@30", 0},
		{"by time, then as they came", "inner left outer", "r:a=3@3 r:a=1@1 r:a=2@1 l:a=x@2", "a=x+1@2, a=x+2@2, a=x+3@3", 0},
		{"another key does not meet", "inner", "l:a=x@1 r:b=y@1", "", 0},
		{"nobody comes", "left", "l:a=x@1 l:b=y@2 l:c=z@16", "", 0},
		{"a window and its grace end", "left", "l:a=x@1 l:b=y@2 l:c=z@17 h", "a=x+nil@1 h:", 0},
		{"the other side's time counts", "left", "l:a=x@1 l:b=y@2 r:c=z@17", "a=x+nil@1", 0},
		{"the right side does not come out", "left", "r:a=x@1 l:b=y@90", "", 0},
		{"by time, the right side first, then by key", "outer", "l:b=3@2 r:d=2@2 l:a=1@2 r:z=0@1 l:c=9@90", "z=nil+0@1, d=nil+2@2, a=1+nil@2, b=3+nil@2", 0},
		{"several of one key and time", "outer", "l:a=1@2 l:a=2@2 l:c=9@90", "a=1+nil@2, a=2+nil@2", 0},
		{"who has met waits no longer", "outer", "l:a=1@2 l:a=2@2 r:a=3@3 l:c=9@90", "a=1+3@3, a=2+3@3", 0},
		{"too late for its own window: at once", "left outer", "l:c=9@90 l:a=1@50", "a=1+nil@50", 1},
		{"late, and within the window", "left", "l:c=9@15 l:a=1@5 r:a=2@14", "a=1+2@14", 0},
		{"null values", "inner", "l:a=~@1 r:a=y@1 r:a=~@1 l:a=x@2", "a=x+y@2", 2},
		{"null keys meet nobody", "inner", "l:~=x@1 r:~=y@1", "", 2},
		{"null keys reach a single store, and are dropped there", "rekeyed", "l:~=x@1 l:a=y@1", "a=y+y@1", 1},
		{"null keys of the left side", "left", "l:~=x@1 r:~=y@1", "~=x+nil@1", 1},
		{"null keys of both sides", "outer", "l:~=x@1 r:~=y@2", "~=x+nil@1, ~=nil+y@2", 0},
		{"a side keeps what its own time allows", "inner", "l:a=x@10 l:b=y@100 r:a=z@10 l:a=late@20 r:a=w@20", "a=late+z@20", 1},
		{"only earlier ones", "early", "r:a=1@5 l:a=2@10 r:a=3@10 r:a=4@11", "a=2+1@10, a=2+3@10", 0},
		{"with itself", "self one", "l:a=1@1 l:a=2@5 l:a=3@3",
			"a=1+1@1, a=2+1@5, a=1+2@5, a=2+2@5, a=3+1@3, a=3+2@5, a=1+3@3, a=3+3@3, a=2+3@5", 0},
	}
	for _, test := range tests {
		for kind := range strings.FieldsSeq(test.joins) {
			t.Run(test.name+"/"+kind, func(t *testing.T) {
				d := streamtest.New(t, func(b *stream.Builder) {
					joins[kind](b.Stream(text), b.Stream(other)).To(out)
				}, streamtest.Partitions(3))
				// One partition has all of it: time goes by task.
				for _, e := range events(test.events) {
					e.side(d).Put(1, e.rec)
					d.Run()
				}
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
}

type event struct {
	left bool
	rec  rec
}

func (e event) side(d *streamtest.Driver) *streamtest.Input[string, string] {
	if e.left {
		return streamtest.In(d, text)
	}
	return streamtest.In(d, other)
}

func events(line string) (all []event) {
	for word := range strings.FieldsSeq(line) {
		if word == "h" {
			all[len(all)-1].rec.Headers = []stream.Header{{Key: "h"}}
			continue
		}
		var e event
		side, rest, _ := strings.Cut(word, ":")
		kv, ts, _ := strings.Cut(rest, "@")
		e.left = side == "l"
		e.rec.Key, e.rec.Value, _ = strings.Cut(kv, "=")
		e.rec.KeyNull, e.rec.Null = e.rec.Key == "~", e.rec.Value == "~"
		var n int64
		if _, err := fmt.Sscan(ts, &n); err != nil {
			panic(err)
		}
		e.rec.Time = at(n)
		all = append(all, e)
	}
	return all
}

// spread is one random join: how far apart, how late, how disordered.
type spread struct{ before, after, grace, disorder int64 }

func randomSpread(rnd *rand.Rand) (s spread) {
	for {
		s = spread{before: rnd.Int64N(40) - 10, after: rnd.Int64N(40) - 10, grace: rnd.Int64N(30)}
		if s.before+s.after >= 0 {
			break
		}
	}
	// Nothing is late, and nobody is given up who may yet be met. A buffer keeps records for the size and the grace, whatever the reach.
	reach := min(s.before, s.after)
	s.grace += max(0, -reach) + 1
	s.disorder = rnd.Int64N(max(1, reach))
	return s
}

func (s spread) windows(off int64) window.JoinWindows {
	d := func(n int64) time.Duration { return time.Duration(n) * ms }
	return window.Within(0).Before(d(s.before)).After(d(s.after + off)).Grace(d(s.grace))
}

// TestJoinsAgainstBruteForce holds joins against all pairs of all records, as a database would join them, with restarts and commits
// anywhere. Where nothing is late the results are the same, in whatever order they come.
func TestJoinsAgainstBruteForce(t *testing.T) {
	for seed := range uint64(60) {
		if got, want := bruteForce(t, seed, 0); got != want {
			t.Fatalf("seed %d:\ngot  %s\nwant %s", seed, got, want)
		}
	}
	for seed := uint64(0); ; seed++ {
		if got, want := bruteForce(t, seed, 1); got != want {
			return // a window that is one millisecond too long is found
		}
		if seed == 60 {
			t.Fatal("a join of another window has the same results")
		}
	}
}

func bruteForce(t *testing.T, seed uint64, off int64) (got, want string) {
	rnd := rand.New(rand.NewPCG(seed, 7))
	s := randomSpread(rnd)
	kind, partitions := seed%3, int32(1+rnd.IntN(3))
	options := []streamtest.Option{streamtest.Partitions(partitions), streamtest.CommitEvery(1 + rnd.IntN(4))}
	if rnd.IntN(2) == 0 {
		options = append(options, streamtest.WarmRestart())
	}
	d := streamtest.New(t, func(b *stream.Builder) {
		l, r, w := b.Stream(text), b.Stream(other), s.windows(off)
		switch kind {
		case 0:
			l.Join(r, w, near, both).To(out)
		case 1:
			l.LeftJoin(r, w, near, left).To(out)
		default:
			l.OuterJoin(r, w, near, outer).To(out)
		}
	}, options...)
	var all []event
	now := int64(0)
	for i := range 60 {
		now += rnd.Int64N(6)
		e := event{left: rnd.IntN(2) == 0, rec: rec{Key: fmt.Sprint("k", rnd.IntN(3)), Value: fmt.Sprint(i), Time: at(max(0, now-rnd.Int64N(s.disorder+1)))}}
		all = append(all, e)
		e.side(d).SendRecord(e.rec)
		if rnd.IntN(15) == 0 {
			d.Restart()
		}
	}
	for p := range partitions { // the end of time
		in := streamtest.In(d, text)
		in.Put(p, rec{Key: "end", Value: "end", Time: at(now + 1000)})
		d.Run()
	}
	d.Commit()
	var results, pairs []string
	for _, r := range streamtest.Out(d, out).All() {
		if r.Key != "end" {
			results = append(results, show([]rec{r}))
		}
	}
	met := make([]bool, len(all))
	for i, l := range all {
		for j, r := range all {
			lt, rt := l.rec.Time.UnixMilli(), r.rec.Time.UnixMilli()
			if l.left && !r.left && l.rec.Key == r.rec.Key && lt-s.before <= rt && rt <= lt+s.after {
				met[i], met[j] = true, true
				pairs = append(pairs, fmt.Sprintf("%s=%s+%s@%d", l.rec.Key, l.rec.Value, r.rec.Value, max(lt, rt)))
			}
		}
	}
	for i, e := range all {
		switch {
		case met[i] || kind == 0 || kind == 1 && !e.left:
		case e.left:
			pairs = append(pairs, fmt.Sprintf("%s=%s+nil@%d", e.rec.Key, e.rec.Value, e.rec.Time.UnixMilli()))
		default:
			pairs = append(pairs, fmt.Sprintf("%s=nil+%s@%d", e.rec.Key, e.rec.Value, e.rec.Time.UnixMilli()))
		}
	}
	slices.SortFunc(results, cmp.Compare)
	slices.SortFunc(pairs, cmp.Compare)
	return strings.Join(results, ", "), strings.Join(pairs, ", ")
}

// TestRestartsOfJoins: whatever comes, however late, an application that is killed between any two records gives the same as one that
// is not, in the same order.
func TestRestartsOfJoins(t *testing.T) {
	for seed := range uint64(60) {
		var runs [3]string
		for i := range runs {
			rnd := rand.New(rand.NewPCG(seed, 9))
			s := randomSpread(rnd)
			var options []streamtest.Option
			if i == 2 {
				options = append(options, streamtest.WarmRestart())
			}
			d := streamtest.New(t, func(b *stream.Builder) {
				l, r, w := b.Stream(text), b.Stream(other), s.windows(0)
				switch seed % 4 {
				case 0:
					l.Join(r, w, near, both).To(out)
				case 1:
					l.LeftJoin(r, w, near, left).To(out)
				case 2:
					l.OuterJoin(r, w, near, outer).To(out)
				default:
					l.Join(l, w, near.SingleStore(), both).To(out)
				}
			}, options...)
			for n := range 80 {
				e := event{left: rnd.IntN(2) == 0, rec: rec{Key: fmt.Sprint("k", rnd.IntN(3)), Value: fmt.Sprint(n), Time: at(max(0, int64(n)-rnd.Int64N(2)*rnd.Int64N(60)))}}
				e.rec.KeyNull, e.rec.Null = rnd.IntN(20) == 0, rnd.IntN(12) == 0
				e.side(d).SendRecord(e.rec)
				if kill := rnd.IntN(6) == 0; kill && i > 0 {
					d.Restart()
				}
			}
			runs[i] = show(streamtest.Out(d, out).All())
		}
		for i, run := range runs {
			if run != runs[0] {
				t.Fatalf("seed %d, run %d:\ngot  %s\nwant %s", seed, i, run, runs[0])
			}
		}
	}
}

func TestJoinedStreamsAreCoPartitioned(t *testing.T) {
	b := stream.NewBuilder()
	at := here()
	b.Stream(text).Join(b.Stream(other), window.Within(ms), near, both).To(out)
	top, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	_, err = top.Plan("app", map[string]int32{"text": 3, "other": 4})
	if want := next(at) + `: join needs co-partitioned inputs, but topic "text" has 3 partitions and topic "other" has 4`; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v\nwant %s", err, want)
	}
	b = stream.NewBuilder()
	b.Stream(text).Join(b.Stream(other).Repartition(byKey), window.Within(ms).Grace(ms), near, both).To(out)
	if top, err = b.Build(); err != nil {
		t.Fatal(err)
	}
	plans, err := top.Plan("app", map[string]int32{"text": 3, "other": 4})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range plans {
		got = append(got, fmt.Sprintf("%s=%d %s %s", p.Name, p.Partitions, p.Config["cleanup.policy"], p.Config["retention.ms"]))
	}
	want := []string{"app-by-key-repartition=3 delete -1", "app-near-this-join-store-changelog=3 delete 86400003", "app-near-other-join-store-changelog=3 delete 86400003"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}
