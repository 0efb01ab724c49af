package task_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/task"
	"github.com/moldau/moldau/topology"
)

// fake is a topology with one operator over two source topics, "a" and "b": it counts values in a store and writes key and
// count to "out". A value "fail" fails before the store is written, "late-fail" after it, "panic" panics after it,
// "commit" asks for a commit.
type fake struct {
	t       *testing.T
	store   *counts
	env     flow.Env
	wired   int
	seen    []string
	stop    func()
	closed  int
	streams int64 // interval of a stream-time punctuator; 0: none
	walls   int64
	flush   func(c *flow.Ctx)
	timer   func(c *flow.Ctx, at int64) // every 10 ms of wall-clock time
	held    func(c *flow.Ctx)           // gives on what had been held back, with each record
	flaky   int                         // how often "flaky" and "flaky-late" fail before they do not; the latter after a write
}

var errFake = errors.New("no good")

type fakeFn func(c *flow.Ctx, k, v string)

func (f *fake) build(sources ...string) *topology.Topology {
	var g topology.Graph
	n := &topology.Node{Kind: "count", At: "app.go:7"}
	for _, name := range sources {
		src := &topology.Node{Kind: "source", At: "app.go:1", Source: g.Topic(topology.Topic{Root: name, Name: name, Kind: topology.External})}
		src.Wire = func(_ flow.Env, children []any) (any, error) { return children[0], nil }
		src.Feed = func(fn any) flow.Source {
			return func(c *flow.Ctx, key, value []byte) { fn.(fakeFn)(c, string(key), string(value)) }
		}
		n.Parents = append(n.Parents, g.Add(src))
	}
	g.Own(&flow.StoreSpec{Name: "counts", Kind: flow.KeyValue}, "app.go:7", n)
	n.Sinks = []*topology.Topic{g.Topic(topology.Topic{Root: "out", Name: "out", Kind: topology.External})}
	n.Wire = func(env flow.Env, _ []any) (any, error) {
		f.env = env
		f.wired++
		store := env.Store("counts").(*counts)
		out := env.Topic("out")
		emit := func(c *flow.Ctx, k, v string) {
			slab := append(c.Out.Slab(), k+v...)
			c.Out.Emit(slab, 0, len(k), false, false, flow.Out{Topic: out, Time: c.Time})
		}
		latest := env.Cell("counts@time", true)
		env.Close(func() error { f.closed++; return nil })
		if f.streams > 0 {
			f.stop = env.Every(n.ID, f.streams, true, func(c *flow.Ctx, at int64) { emit(c, "stream", fmt.Sprint(at)) })
		}
		if f.walls > 0 {
			f.stop = env.Every(n.ID, f.walls, false, func(c *flow.Ctx, at int64) { emit(c, "wall", fmt.Sprint(at)) })
		}
		if f.timer != nil {
			env.Every(n.ID, 10, false, f.timer)
		}
		if f.flush != nil {
			env.Flush(n.ID, flushFunc(f.flush))
		}
		return fakeFn(func(c *flow.Ctx, k, v string) {
			f.seen = append(f.seen, fmt.Sprintf("%s:%s@%d", c.Topic, v, c.Time))
			if c.Node = n.ID; f.held != nil {
				input, offset := c.Input, c.Offset
				c.Input, c.Offset = 0, 77
				f.held(c)
				c.Input, c.Offset = input, offset
				if c.Err != nil {
					return
				}
			}
			emit(c, k, v)
			c.Node = n.ID
			if strings.HasPrefix(v, "flaky") && f.flaky > 0 {
				f.flaky--
				c.Wrote = v == "flaky-late"
				c.Fail(n.ID, errFake)
				return
			}
			if v == "fail" {
				c.Fail(n.ID, errFake)
				return
			}
			c.Wrote = true
			*latest = max(*latest, c.Time)
			store.add(k)
			if v == "late-fail" {
				c.Fail(n.ID, errFake)
			}
			if v == "panic" {
				panic(errFake)
			}
			if v == "commit" {
				env.RequestCommit()
			}
		}), nil
	}
	g.Add(n)
	top, err := g.Build()
	if err != nil {
		f.t.Fatal(err)
	}
	return top
}

type flushFunc func(c *flow.Ctx)

func (f flushFunc) Flush(c *flow.Ctx) { f(c) }

// start makes the task of partition 0.
func (f *fake) start(change func(*task.Config), sources ...string) *task.Task {
	f.t.Helper()
	if f.store == nil {
		f.store = newCounts()
	}
	c := task.Config{App: "app", Sub: f.build(sources...).Subs[0], Stores: map[string]flow.Store{"counts": f.store},
		Topics: func(name string) (*flow.Topic, error) { return &flow.Topic{Name: name, Partitions: 1}, nil },
		Start:  map[string]int64{"a": 0, "b": 0}}
	if change != nil {
		change(&c)
	}
	t, err := task.New(c)
	if err != nil {
		f.t.Fatal(err)
	}
	return t
}

// recs makes records of one key out of "value@time", with offsets from first on.
func recs(first int64, words ...string) []flow.In {
	var in []flow.In
	for _, w := range words {
		var time int64
		v, at, _ := strings.Cut(w, "@")
		fmt.Sscan(at, &time)
		in = append(in, flow.In{Offset: first, Time: time, Key: []byte("k"), Value: []byte(v)})
		first++
	}
	return in
}

func outs(records []flow.Out) string {
	var s []string
	for _, o := range records {
		s = append(s, fmt.Sprintf("%s %s%s@%d", o.Topic.Name, o.Key, o.Value, o.Time))
	}
	return strings.Join(s, ", ")
}

// counts is a store of numbers with epochs kept as copies.
type counts struct {
	now    map[string]int64
	starts map[uint32]map[string]int64
	epoch  uint32
	done   map[uint32]int64
	fail   bool
	told   []int64 // offsets
}

func newCounts() *counts {
	return &counts{now: map[string]int64{}, starts: map[uint32]map[string]int64{1: {}}, epoch: 1, done: map[uint32]int64{}}
}

func (s *counts) add(k string) { s.now[k]++ }
func (s *counts) Prefetch(next []flow.In) {
	for i := range next {
		s.told = append(s.told, next[i].Offset)
	}
}
func (s *counts) Seal(epoch uint32, out *flow.Effects) error {
	if s.fail {
		return errFake
	}
	for _, k := range slices.Sorted(maps.Keys(s.now)) {
		if s.now[k] != s.starts[epoch][k] {
			slab := append(out.Slab(), fmt.Sprint(k, s.now[k])...)
			out.Emit(slab, 0, len(k), false, false, flow.Out{Topic: &flow.Topic{Name: "app-counts-changelog"}})
		}
	}
	s.epoch = epoch + 1
	s.starts[s.epoch] = maps.Clone(s.now)
	return nil
}
func (s *counts) Undo(epoch uint32) error {
	s.now, s.epoch = maps.Clone(s.starts[epoch]), epoch
	return nil
}
func (s *counts) Done(epoch uint32, next int64) error {
	delete(s.starts, epoch)
	s.done[epoch] = next
	return nil
}
func (s *counts) Restore([]flow.In, int64) error { return nil }
func (s *counts) Position() int64                { return -1 }
func (s *counts) Advance(int64)                  {}
func (s *counts) Memory() int64                  { return 0 }
func (s *counts) Shrink(int64) int64             { return 0 }
func (s *counts) Close() error                   { return nil }
