package task_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/task"
	"github.com/moldau/moldau/topology"
)

// timers are operators in a row behind a source; each has punctuators at these intervals.
func timers(t *testing.T, streamTime bool, intervals ...[]int64) (k *task.Task, called func() string) {
	var g topology.Graph
	var calls []string
	from := &topology.Node{Kind: "source", Source: g.Topic(topology.Topic{Root: "a", Name: "a", Kind: topology.External})}
	from.Wire = func(flow.Env, []any) (any, error) { return fakeFn(func(*flow.Ctx, string, string) {}), nil }
	from.Feed = func(any) flow.Source { return func(*flow.Ctx, []byte, []byte) {} }
	g.Add(from)
	for _, own := range intervals {
		n := &topology.Node{Kind: "timers", Parents: []*topology.Node{from}}
		n.Wire = func(env flow.Env, _ []any) (any, error) {
			for i, interval := range own {
				env.Every(n.ID, interval, streamTime, func(c *flow.Ctx, at int64) {
					if c.Node != n.ID {
						t.Errorf("a timer of %d is called as one of %d", n.ID, c.Node)
					}
					calls = append(calls, fmt.Sprintf("%d.%d@%d", n.ID, i, at))
				})
			}
			return fakeFn(nil), nil
		}
		from = g.Add(n)
	}
	k = must(task.New(task.Config{App: "app", Sub: must(g.Build()).Subs[0], Start: map[string]int64{"a": 0}}))
	return k, func() string {
		defer func() { calls = nil }()
		return strings.Join(calls, " ")
	}
}

// Of those that are due, the earliest comes first; of those due at one time parents before children, as in Kafka Streams, and of one
// operator as they were asked for.
func TestOrderOfPunctuators(t *testing.T) {
	t.Run("stream time", func(t *testing.T) {
		k, called := timers(t, true, []int64{10}, []int64{20, 4}, []int64{10})
		k.Add("a", recs(0, "1@3", "2@7", "3@20"), 3, nil)
		for _, want := range []string{"1.0@3 2.0@3 2.1@3 3.0@3", "2.1@7", "2.1@20 1.0@20 3.0@20 2.0@20"} {
			if _, err := k.Step(0, 1); err != nil {
				t.Fatal(err)
			}
			if got := called(); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		}
	})
	t.Run("wall clock", func(t *testing.T) {
		k, called := timers(t, false, []int64{10}, []int64{20, 4}, []int64{10})
		for _, tick := range []struct {
			now  int64
			want string
		}{{3, ""}, {4, "2.1@4"}, {20, "2.1@20 1.0@20 3.0@20 2.0@20"}, {40, "2.1@40 1.0@40 3.0@40 2.0@40"}} {
			if err := k.Tick(tick.now); err != nil {
				t.Fatal(err)
			}
			if got := called(); got != tick.want {
				t.Errorf("got  %s\nwant %s", got, tick.want)
			}
		}
	})
	t.Run("after an undo", func(t *testing.T) {
		k, called := timers(t, false, []int64{10}, []int64{10}, []int64{10})
		must(k.Undo(k.Current()))
		if err := k.Tick(10); err != nil {
			t.Fatal(err)
		}
		if got, want := called(), "1.0@10 2.0@10 3.0@10"; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	})
}

// An operator may ask for a timer while it works: it is another one than those that it has, goes when it is stopped, and is gone after Undo.
func TestTimersThatAreAskedForAtWork(t *testing.T) {
	f := &fake{t: t, walls: 10}
	k := f.start(nil, "a")
	say := func(what string) func(c *flow.Ctx, at int64) {
		return func(c *flow.Ctx, at int64) {
			if c.Node != 1 {
				t.Errorf("called as a timer of %d", c.Node)
			}
			c.Out.Emit(append(c.Out.Slab(), what...), 0, len(what), false, true, flow.Out{Topic: &flow.Topic{Name: "out"}, Time: at})
		}
	}
	tick := func(now int64, want string) {
		t.Helper()
		if err := k.Tick(now); err != nil {
			t.Fatal(err)
		}
		if got := outs(k.Take()); got != want {
			t.Errorf("at %d got %q, want %q", now, got, want)
		}
	}
	tick(1, "")
	stop := f.env.Every(1, 4, false, say("first"))
	f.env.Every(1, 7, false, say("second"))
	tick(5, "out first@5")
	tick(10, "out second@10, out first@10, out wall10@10")
	stop()
	stop()
	tick(20, "out second@20, out wall20@20")
	must(k.Seal(20))
	must(k.Undo(k.Current()))
	f.env.Every(1, 100, false, say("third"))
	tick(30, "out wall30@30")
	f.env.Every(1, 10, true, func(c *flow.Ctx, at int64) {
		say("outer")(c, at)
		f.env.Every(1, 10, true, say("inner"))
	})
	k.Add("a", recs(0, "1@7"), 1, nil)
	must(k.Step(30, 10))
	if got, want := outs(k.Take()), "out k1@7, out outer@7, out inner@7"; got != want {
		t.Errorf("a timer that a timer has asked for: got %s, want %s", got, want)
	}
	tick(120, "out wall120@120, out third@120")
	// One that asks for its like each time is not called for ever.
	calls := 0
	stop = func() {}
	var again func(c *flow.Ctx, at int64)
	again = func(*flow.Ctx, int64) {
		calls++
		stop()
		stop = f.env.Every(1, 10, true, again)
	}
	stop = f.env.Every(1, 10, true, again)
	k.Add("a", recs(1, "2@8"), 2, nil)
	must(k.Step(120, 10))
	if calls < 2 || calls > 2000 {
		t.Errorf("called %d times", calls)
	}
}
