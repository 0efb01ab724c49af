package task_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/task"
	"github.com/moldau/moldau/topology"
)

// edge makes calls when the test says so.
type edge struct {
	t      *testing.T
	flying []*flight
	most   int
}

type flight struct {
	run       func(context.Context) error
	done      func(error)
	cancelled bool
}

func (e *edge) Call(_ time.Duration, run func(context.Context) error, done func(error)) {
	e.flying = append(e.flying, &flight{run: run, done: done})
	if e.most > 0 && len(e.flying) > e.most {
		e.t.Errorf("%d calls at once", len(e.flying))
	}
}

func (e *edge) Cancel() {
	for _, f := range e.flying {
		f.cancelled = true
	}
}

// answer makes one of the calls that are under way.
func (e *edge) answer(i int) {
	f := e.flying[i]
	e.flying = slices.Delete(e.flying, i, i+1)
	if f.cancelled {
		f.done(context.Canceled)
		return
	}
	f.done(f.run(context.Background()))
}

// caller is a topology of a source and an operator that calls, with the key as lane; a result is counted in a store and written to
// "out" as key, value and how often the key was seen. aside also writes each record to "side" before it is called.
type caller struct {
	edge  *edge
	limit int
	aside bool
	call  func(k, v string) error // the function
	land  func(c *flow.Ctx, v string)
	late  func(c *flow.Ctx, call func(k, v string))
}

func (a *caller) start(t *testing.T, change func(*task.Config)) *task.Task {
	var g topology.Graph
	src := &topology.Node{Kind: "source", At: "app.go:1", Source: g.Topic(topology.Topic{Root: "a", Name: "a", Kind: topology.External})}
	src.Wire = func(_ flow.Env, children []any) (any, error) { return children[0], nil }
	src.Feed = func(fn any) flow.Source {
		return func(c *flow.Ctx, key, value []byte) { fn.(fakeFn)(c, string(key), string(value)) }
	}
	g.Add(src)
	n := &topology.Node{Kind: "call", At: "app.go:7", Parents: []*topology.Node{src}}
	g.Own(&flow.StoreSpec{Name: "counts", Kind: flow.KeyValue}, "app.go:7", n)
	out, side := g.Topic(topology.Topic{Root: "out", Name: "out", Kind: topology.External}), g.Topic(topology.Topic{Root: "side", Name: "side", Kind: topology.External})
	n.Sinks = []*topology.Topic{out, side}
	n.Wire = func(env flow.Env, _ []any) (any, error) {
		store := env.Store("counts").(*counts)
		emit := func(c *flow.Ctx, to, k, v string) {
			slab := append(append(c.Out.Slab(), k...), v...)
			c.Out.Emit(slab, 0, len(k), false, false, flow.Out{Topic: env.Topic(to), Time: c.Time})
		}
		ask := env.Calls(n.ID, a.limit, time.Second)
		call := func(c *flow.Ctx, k, v string) {
			lane := uint64(0)
			for _, b := range []byte(k) {
				lane = lane<<8 | uint64(b)
			}
			ask(c, flow.Call{Lane: lane,
				Run: func(context.Context) error {
					if a.call != nil {
						return a.call(k, v)
					}
					return nil
				},
				Land: func(c *flow.Ctx) {
					if a.land != nil {
						if a.land(c, v); c.Err != nil {
							return
						}
					}
					c.Wrote = true
					store.add(k)
					emit(c, "out", k, fmt.Sprintf("=%s#%d", v, store.now[k]))
				}})
		}
		if a.late != nil {
			env.Flush(n.ID, flushFunc(func(c *flow.Ctx) { a.late(c, func(k, v string) { call(c, k, v) }) }))
		}
		return fakeFn(func(c *flow.Ctx, k, v string) {
			if a.aside {
				emit(c, "side", k, v)
			}
			call(c, k, v)
		}), nil
	}
	g.Add(n)
	top, err := g.Build()
	if err != nil {
		t.Fatal(err)
	}
	c := task.Config{App: "app", Sub: top.Subs[0], Stores: map[string]flow.Store{"counts": newCounts()}, Caller: a.edge,
		Topics: func(name string) (*flow.Topic, error) { return &flow.Topic{Name: name, Partitions: 1}, nil },
		Start:  map[string]int64{"a": 0}}
	if change != nil {
		change(&c)
	}
	k, err := task.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// keyed makes records out of "key value".
func keyed(first int64, words ...string) []flow.In {
	var in []flow.In
	for i, w := range words {
		k, v, _ := strings.Cut(w, " ")
		in = append(in, flow.In{Offset: first + int64(i), Time: 10 + first + int64(i), Key: []byte(k), Value: []byte(v)})
	}
	return in
}

// results leaves out changelogs.
func results(records []flow.Out) string {
	return outs(slices.DeleteFunc(slices.Clone(records), func(o flow.Out) bool { return strings.HasSuffix(o.Topic.Name, "changelog") }))
}

func TestCallsLandInOrderAndTheEpochWaits(t *testing.T) {
	a := &caller{edge: &edge{t: t}, limit: 8}
	k := a.start(t, nil)
	released := 0
	k.Add("a", keyed(0, "x 1", "y 2", "x 3"), 3, func() { released++ })
	if n, err := k.Step(0, 10); n != 3 || err != nil {
		t.Fatal(n, err)
	}
	if len(a.edge.flying) != 2 {
		t.Fatalf("%d calls: those for x are one after another", len(a.edge.flying))
	}
	if e := must(k.Seal(0)); e.Dirty || !k.Sealing() {
		t.Fatal("sealed although calls are under way")
	}
	k.Add("a", keyed(3, "z 4"), 4, nil)
	a.edge.answer(1) // y
	if n := must(k.Step(0, 10)); n != 0 || len(a.edge.flying) != 1 {
		t.Fatal("nothing lands before x 1, and nothing is taken up while the task is being sealed:", n)
	}
	a.edge.answer(0)
	if released != 0 {
		t.Error("the batch is gone while a call reads it")
	}
	a.edge.answer(0) // x 3
	if n := must(k.Step(0, 10)); n != 3 || !k.CommitRequested() || released != 1 {
		t.Fatal(n, k.CommitRequested(), released)
	}
	if k.Take() != nil {
		t.Error("effects go before the epoch is sealed")
	}
	e := must(k.Seal(0))
	if got := results(e.Records); got != "out x=1#1@10, out y=2#1@11, out x=3#2@12" {
		t.Error(got)
	}
	if p := e.Offsets["a"]; p.Next != 3 {
		t.Error(p)
	}
	if n := must(k.Step(0, 10)); n != 1 {
		t.Error(n)
	}
}

func TestCallsPushBack(t *testing.T) {
	a := &caller{edge: &edge{t: t, most: 2}, limit: 2}
	k := a.start(t, nil)
	k.Add("a", keyed(0, "a 1", "b 2", "c 3", "d 4", "e 5", "f 6"), 6, nil)
	if n := must(k.Step(0, 10)); n != 4 {
		t.Fatalf("%d taken up, with two calls at once and two that wait", n)
	}
	for range 10 {
		if len(a.edge.flying) > 0 {
			a.edge.answer(len(a.edge.flying) - 1)
		}
		must(k.Step(0, 10))
	}
	if got := results(must(k.Seal(0)).Records); strings.Count(got, "#1") != 6 {
		t.Error(got)
	}
}

func TestResultsOfAFlush(t *testing.T) {
	a := &caller{edge: &edge{t: t}, limit: 2, late: func(_ *flow.Ctx, call func(k, v string)) { call("t", "total") }}
	k := a.start(t, nil)
	k.Add("a", keyed(0, "x 1"), 1, nil)
	must(k.Step(0, 10))
	for i := range 2 {
		if must(k.Seal(0)).Dirty {
			t.Fatal("sealed with a call under way")
		}
		a.edge.answer(0)
		if n := must(k.Step(0, 10)); n != 1 || !k.CommitRequested() {
			t.Fatal(i, n)
		}
	}
	if got := results(must(k.Seal(0)).Records); got != "out x=1#1@10, out t=total#1@10" {
		t.Error(got)
	}
}

func TestUndoWaitsForLostCalls(t *testing.T) {
	a := &caller{edge: &edge{t: t}, limit: 8}
	k := a.start(t, nil)
	input := keyed(0, "x 1", "y 2")
	k.Add("a", input, 2, nil)
	must(k.Step(0, 10))
	a.edge.answer(0)
	if at := must(k.Undo(k.Current())); at["a"] != 0 || !a.edge.flying[0].cancelled {
		t.Fatal(at)
	}
	k.Add("a", input, 2, nil)
	must(k.Step(0, 10))
	if len(a.edge.flying) != 1 {
		t.Fatal("called again although a call of the epoch that was taken back is under way")
	}
	a.edge.answer(0)
	if len(a.edge.flying) != 2 {
		t.Fatal("not called again")
	}
	a.edge.answer(0)
	a.edge.answer(0)
	must(k.Step(0, 10))
	if got := results(must(k.Seal(0)).Records); got != "out x=1#1@10, out y=2#1@11" {
		t.Error(got)
	}
}

func TestCallsThatFail(t *testing.T) {
	bad := func(times int) func(k, v string) error {
		return func(_, v string) error {
			if v == "bad" && times > 0 {
				times--
				return errFake
			}
			return nil
		}
	}
	landing := func(times int) func(c *flow.Ctx, v string) {
		return func(c *flow.Ctx, v string) {
			if v == "bad" && times > 0 {
				times--
				c.Fail(1, errFake)
			}
		}
	}
	const good, all = "out x=1#1@10, out z=3#1@12", "out x=1#1@10, out y=bad#1@11, out z=3#1@12"
	for _, test := range []struct {
		name   string
		caller caller
		policy task.ErrorPolicy
		want   string // "": it stops
		undone int
		wall   int64
	}{
		{"fail", caller{call: bad(1)}, task.ErrorPolicy{}, "", 0, 0},
		{"skip", caller{call: bad(1)}, task.ErrorPolicy{Action: task.Skip}, good, 0, 0},
		{"skip with a dead letter", caller{call: bad(1)}, task.ErrorPolicy{Action: task.Skip, DeadLetter: "dead"}, "dead ybad@11, " + good, 0, 0},
		{"continue", caller{call: bad(1)}, task.ErrorPolicy{Action: task.Continue}, good, 0, 0},
		{"skip what was written aside", caller{call: bad(2), aside: true}, task.ErrorPolicy{Action: task.Skip}, "side x1@10, side z3@12, " + good, 1, 0},
		{"continue beside it", caller{call: bad(1), aside: true}, task.ErrorPolicy{Action: task.Continue}, "side x1@10, side ybad@11, side z3@12, " + good, 0, 0},
		{"retry", caller{call: bad(2), aside: true}, task.ErrorPolicy{Retries: 2, Backoff: time.Second}, "side x1@10, side ybad@11, side z3@12, " + all, 0, 3000},
		{"retry in vain", caller{call: bad(3)}, task.ErrorPolicy{Retries: 2, Backoff: time.Second}, "", 0, 3000},
		{"retry, then skip", caller{call: bad(3)}, task.ErrorPolicy{Action: task.Skip, Retries: 2, Backoff: time.Second}, good, 0, 3000},
		{"after the call", caller{land: landing(1)}, task.ErrorPolicy{Action: task.Skip}, good, 0, 0},
		{"after the call, again", caller{land: landing(1)}, task.ErrorPolicy{Retries: 1, Backoff: time.Second}, all, 0, 1000},
		{"after the call, with something aside", caller{land: landing(2), aside: true}, task.ErrorPolicy{Action: task.Skip}, "side x1@10, side z3@12, " + good, 1, 0},
		{"a panic after the call", caller{land: func(_ *flow.Ctx, v string) {
			if v == "bad" {
				panic("boom")
			}
		}}, task.ErrorPolicy{Action: task.Continue}, good, 1, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := &test.caller
			a.edge, a.limit = &edge{t: t}, 8
			k := a.start(t, func(c *task.Config) { c.Errors.Processing = test.policy })
			input := keyed(0, "x 1", "y bad", "z 3")
			k.Add("a", input, 3, nil)
			undone, now := 0, int64(0)
			for {
				for len(a.edge.flying) > 0 {
					a.edge.answer(0)
				}
				_, err := k.Step(now, 10)
				if e, ok := errors.AsType[*task.Error](err); ok && e.Undo {
					must(k.Undo(k.Current()))
					k.Add("a", input, 3, nil)
					undone++
					continue
				}
				if err != nil {
					if test.want != "" || !errors.Is(err, errFake) {
						t.Error(err)
					}
					if !strings.Contains(err.Error(), "calling a[0]@1 in call-1 (task 0_0, app.go:7): no good") {
						t.Error(err)
					}
					break
				}
				if len(a.edge.flying) > 0 {
					continue
				}
				if at := k.Wake(); at < 1<<40 {
					now = at
					continue
				}
				e := must(k.Seal(now))
				if !e.Dirty {
					continue
				}
				if got := results(e.Records); got != test.want {
					t.Errorf("got  %s\nwant %s", got, test.want)
				}
				break
			}
			if undone != test.undone || now != test.wall {
				t.Errorf("undone %d times, want %d; waited %d ms, want %d", undone, test.undone, now, test.wall)
			}
		})
	}
}

// Calls that are answered in any order, epochs that are committed and taken back at any time: every record comes out once, in
// order, with the state that belongs to it; no lane has two calls at once.
func TestCallsProperty(t *testing.T) {
	for seed := range uint64(300) {
		if wrong := playCalls(t, seed, false); wrong != "" {
			t.Fatalf("seed %d: %s", seed, wrong)
		}
	}
	caught := 0
	for seed := range uint64(50) {
		if playCalls(t, seed, true) != "" {
			caught++
		}
	}
	if caught < 40 {
		t.Errorf("shuffled results were found out %d times in 50", caught)
	}
}

// playCalls runs one history and says what was wrong with it. With seeded, results are shuffled.
func playCalls(t *testing.T, seed uint64, seeded bool) (wrong string) {
	r := rand.New(rand.NewPCG(seed, 1))
	busy := map[string]int{}
	a := &caller{edge: &edge{t: t, most: 4}, limit: 4}
	k := a.start(t, func(c *task.Config) { c.Errors.Processing = task.ErrorPolicy{Retries: 100, Backoff: time.Millisecond} })
	var words []string
	for i := range 60 {
		words = append(words, fmt.Sprintf("%c %d", 'a'+r.IntN(5), i))
	}
	input := keyed(0, words...)
	var order []string // of the calls that succeeded since the last commit
	a.call = func(key, v string) error {
		if r.IntN(10) == 0 {
			return errFake
		}
		order = append(order, key+" "+v)
		return nil
	}
	var committed []flow.Out
	k.Add("a", input, int64(len(input)), nil)
	now := int64(0)
	for at := int64(0); at < int64(len(input)); {
		switch n := len(a.edge.flying); {
		case n > 0 && r.IntN(3) > 0:
			a.edge.answer(r.IntN(n))
		case r.IntN(40) == 0:
			next := must(k.Undo(k.Current()))
			from := next["a"]
			k.Add("a", input[from:], int64(len(input)), nil)
			order = order[:0]
		case r.IntN(8) == 0:
			e := must(k.Seal(now))
			if e.Dirty {
				committed = append(committed, e.Records...)
				at = e.Offsets["a"].Next
				if err := k.Done(e.N, nil); err != nil {
					return err.Error()
				}
				if seeded {
					r.Shuffle(len(committed), func(i, j int) { committed[i], committed[j] = committed[j], committed[i] })
				}
				if wrong := inLanes(order); wrong != "" {
					return wrong
				}
				order = order[:0]
			}
		default:
			now += int64(r.IntN(3))
			must(k.Step(now, 1+r.IntN(10)))
		}
	}
	var want []string
	for _, w := range words {
		key, v, _ := strings.Cut(w, " ")
		busy[key]++
		want = append(want, fmt.Sprintf("out %s=%s#%d@%d", key, v, busy[key], 10+len(want)))
	}
	if got := results(committed); got != strings.Join(want, ", ") {
		return fmt.Sprintf("got  %s\nwant %s", got, strings.Join(want, ", "))
	}
	return ""
}

// inLanes says whether calls of one key were made in the order of their values.
func inLanes(order []string) string {
	last := map[string]int{}
	for _, o := range order {
		var key string
		var v int
		fmt.Sscan(o, &key, &v)
		if before, ok := last[key]; ok && before >= v {
			return fmt.Sprintf("%s is called with %d after %d", key, v, before)
		}
		last[key] = v
	}
	return ""
}
