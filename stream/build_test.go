package stream_test

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/stream"
	"github.com/moldau/moldau/streamtest"
	"github.com/moldau/moldau/topology"
	"github.com/moldau/moldau/window"
)

// here is the file:line of its caller.
func here() string {
	_, file, line, _ := runtime.Caller(1)
	return fmt.Sprintf("%s:%d", file, line)
}

func TestMistakesNameTheAuthorsLine(t *testing.T) {
	counts := state.NewKeyValue("counts", serde.String, serde.Int64)
	again := state.NewKeyValue("counts", serde.String, serde.Int64)
	same := func(k, _ string) string { return k }
	tests := []struct {
		name  string
		build func(b *stream.Builder) (at string)
		kind  error
		text  string
	}{
		{"a new key without a repartition topic", func(b *stream.Builder) string {
			s := b.Stream(text).SelectKey(same).MapValues(strings.ToUpper)
			s.GroupByKey().Count(counts)
			return here()[:0]
		}, topology.ErrNotPartitioned, "count needs all records of a key in one task, but selectKey-1 at "},
		{"before a windowed aggregate", func(b *stream.Builder) string {
			g := b.Stream(text).Map(func(k, v string) (string, string) { return v, k }).GroupByKey()
			g.WindowedBy(window.Tumbling(ms)).Count(panes)
			return ""
		}, topology.ErrNotPartitioned, "changes the key"},
		{"before a join", func(b *stream.Builder) string {
			b.Stream(text).SelectKey(same).JoinTable(b.Table(rows, row), both).To(out)
			return ""
		}, topology.ErrNotPartitioned, "joinTable needs"},
		{"waiting for a table that has no versions", func(b *stream.Builder) string {
			b.Stream(text).JoinTable(b.Table(rows, row), both, waiting).To(out)
			return ""
		}, topology.ErrStore, "that is not versioned"},
		{"waiting longer than history goes back", func(b *stream.Builder) string {
			b.Stream(text).JoinTable(b.Table(rows, history), both, waiting.Grace(101*ms)).To(out)
			return ""
		}, topology.ErrStore, `records wait in "waiting" for 101ms, but the history of store "history" goes back by 100ms only`},
		{"a buffer for a processor", func(b *stream.Builder) string {
			b.Stream(text).Process(func() stream.Processor[string, string, string, string] { return &tally{} }, seen, waiting)
			return ""
		}, topology.ErrStore, `buffer "waiting" belongs to an operator`},
		{"a history of less than nothing", func(b *stream.Builder) string {
			b.Table(rows, state.NewVersioned("history", serde.String, serde.String, -ms))
			return ""
		}, topology.ErrStore, "must not be negative"},
		{"before toTable", func(b *stream.Builder) string {
			b.Stream(text).SelectKey(same).ToTable(row)
			return ""
		}, topology.ErrNotPartitioned, "toTable needs"},
		{"two handles of one store name", func(b *stream.Builder) string {
			b.Stream(text).GroupByKey().Count(counts)
			at := here()
			b.Stream(other).GroupByKey().Count(again)
			return next(at)
		}, topology.ErrClash, `store "counts" is declared twice`},
		{"one store, two operators", func(b *stream.Builder) string {
			b.Stream(text).GroupByKey().Count(counts)
			at := here()
			b.Stream(other).GroupByKey().Count(counts)
			return next(at)
		}, topology.ErrStore, `store "counts" is written by two operators`},
		{"two handles of one topic name", func(b *stream.Builder) string {
			at := here()
			b.Stream(text).To(stream.NewTopic("text", serde.String, serde.String))
			return next(at)
		}, topology.ErrClash, `topic "text" is declared twice`},
		{"a repartition topic for two", func(b *stream.Builder) string {
			b.Stream(text).Repartition(byKey).To(out)
			at := here()
			b.Stream(other).GroupBy(byKey, same).Count(counts)
			return next(at)
		}, topology.ErrClash, `repartition topic "by-key" is written by two operators`},
		{"zero handles", func(b *stream.Builder) string {
			at := here()
			b.Stream(stream.Topic[string, string]{})
			return next(at)
		}, topology.ErrHandle, "the topic is the zero value of its handle"},
		{"no store at all", func(b *stream.Builder) string {
			at := here()
			b.Stream(text).GroupByKey().Count(nil)
			return next(at)
		}, topology.ErrHandle, "a store is needed here"},
		{"no repartition topic at all", func(b *stream.Builder) string {
			at := here()
			b.Stream(text).Repartition(stream.Repartition[string, string]{})
			return next(at)
		}, topology.ErrHandle, "the repartition topic is the zero value"},
		{"no serde", func(b *stream.Builder) string {
			at := here()
			b.Stream(stream.NewTopic[string, string]("bare", serde.String, nil))
			return next(at)
		}, topology.ErrHandle, `topic "bare" has no serde for its values`},
		{"a store without a serde", func(b *stream.Builder) string {
			at := here()
			b.Stream(text).GroupByKey().Count(state.NewKeyValue[string, int64]("bare", nil, serde.Int64))
			return next(at)
		}, topology.ErrHandle, `store "bare", declared at `},
		{"inputs of a join that ask for different partitions", func(b *stream.Builder) string {
			left, right := stream.NewTopic("three", serde.String, serde.String).Partitions(3), stream.NewTopic("four", serde.String, serde.String).Partitions(4)
			table := b.Table(right, row)
			at := here()
			b.Stream(left).JoinTable(table, both).To(out)
			return next(at)
		}, topology.ErrNotCopart, `joinTable needs co-partitioned inputs, but topic "three" has 3 partitions and topic "four" has 4`},
		{"a bad window", func(b *stream.Builder) string {
			at := here()
			b.Stream(text).GroupByKey().WindowedBy(window.Hopping(time.Second, time.Minute)).Count(panes)
			return next(at)
		}, topology.ErrConflict, "advance"},
		{"final results of a window without end", func(b *stream.Builder) string {
			at := here()
			b.Stream(text).GroupByKey().WindowedBy(window.Unlimited(at0)).OnClose().Count(panes)
			return next(at)
		}, topology.ErrConflict, "an unlimited window never closes"},
		{"a processor's window store", func(b *stream.Builder) string {
			at := here()
			b.Stream(text).ProcessValues(func() stream.ValueProcessor[string, string, string] { return &enrich{} }, row, panes).To(out)
			return next(at)
		}, topology.ErrStore, `store "panes" is used by processors only and must say how long`},
		{"a join's window", func(b *stream.Builder) string {
			at := here()
			b.Stream(text).Join(b.Stream(other), window.Within(ms).Before(-time.Hour), near, both).To(out)
			return next(at)
		}, topology.ErrConflict, "the join window ends before it starts"},
		{"no join buffer", func(b *stream.Builder) string {
			at := here()
			b.Stream(text).LeftJoin(b.Stream(other), window.Within(ms), state.JoinBuffer[string, string, string]{}, left).To(out)
			return next(at)
		}, topology.ErrHandle, "a join buffer is needed here"},
		{"a join buffer for two", func(b *stream.Builder) string {
			b.Stream(text).Join(b.Stream(other), window.Within(ms), near, both).To(out)
			at := here()
			b.Stream(text).OuterJoin(b.Stream(other), window.Within(ms), near, outer).To(out2)
			return next(at)
		}, topology.ErrStore, `store "near-this-join-store" is written by two operators`},
		{"a single store for two streams", func(b *stream.Builder) string {
			at := here()
			b.Stream(text).Join(b.Stream(other), window.Within(ms), near.SingleStore(), both).To(out)
			return next(at)
		}, topology.ErrConflict, `join buffer "near" has a single store`},
		{"a new key before a join of streams", func(b *stream.Builder) string {
			at := here()
			b.Stream(text).Join(b.Stream(other).SelectKey(same), window.Within(ms), near, both).To(out)
			return next(at)
		}, topology.ErrNotPartitioned, "join needs all records of a key in one task, but selectKey-2 at "},
		{"rest twice", func(b *stream.Builder) string {
			split := b.Stream(text).Split()
			split.Rest().To(out)
			at := here()
			split.Rest().To(out2)
			return next(at)
		}, topology.ErrConflict, "Rest was asked for before"},
		{"one label twice", func(b *stream.Builder) string {
			b.Stream(text).Filter(func(string, string) bool { return true }).Named("x").Peek(func(string, string) {}).Named("x")
			return ""
		}, topology.ErrClash, `label "x"`},
		{"no foreign key", func(b *stream.Builder) string {
			l, r := b.Table(orders, orderKV), b.Table(goods, goodKV)
			at := here()
			l.JoinForeign(r, stream.ForeignKey[string, string, string, string]{}, goodOf, both)
			return next(at)
		}, topology.ErrHandle, "the foreign key is the zero value"},
		{"one foreign key, two joins", func(b *stream.Builder) string {
			l, r := b.Table(orders, orderKV), b.Table(goods, goodKV)
			l.JoinForeign(r, byGood, goodOf, both)
			at := here()
			l.JoinForeign(r, byGood, goodOf, both)
			return next(at)
		}, topology.ErrStore, `store "by-good-subscription-store" is written by two operators`},
		{"a foreign-key join is looked up", func(b *stream.Builder) string {
			t := b.Table(orders, orderKV).JoinForeign(b.Table(goods, goodKV), byGood, goodOf, both)
			at := here()
			b.Stream(text).JoinTable(t, both)
			return next(at)
		}, topology.ErrHandle, "nobody keeps it"},
		{"nothing", func(b *stream.Builder) string { return "" }, topology.ErrEmpty, "the topology is empty"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			b := stream.NewBuilder()
			at := test.build(b)
			_, err := b.Build()
			if !errors.Is(err, test.kind) || !strings.Contains(err.Error(), test.text) || !strings.Contains(err.Error(), at) {
				t.Errorf("got %v\nwant %s at %s", err, test.text, at)
			}
			var all topology.Mistakes
			if errors.As(err, &all) && len(all) != 1 {
				t.Errorf("%d mistakes: %v", len(all), err)
			}
		})
	}
}

var at0 = at(0)

// next is the line after.
func next(at string) string {
	i := strings.LastIndexByte(at, ':')
	var line int
	fmt.Sscan(at[i+1:], &line)
	return fmt.Sprintf("%s:%d", at[:i], line+1)
}

func TestEveryNodeKnowsItsLine(t *testing.T) {
	b := stream.NewBuilder()
	s := b.Stream(text).Filter(func(string, string) bool { return true })
	s.GroupBy(byKey, func(k, _ string) string { return k }).Count(seen).ToStream().To(numbers)
	g := s.GroupByKey().WindowedBy(window.Tumbling(ms))
	g.Late().To(out)
	g.OnClose().Count(panes).MapValues(func(n int64) int64 { return n }).ToStream().To(windows)
	branches := s.Split()
	branches.When(func(string, string) bool { return true }).JoinTable(b.Table(rows, row), both).Foreach(func(rec) error { return nil })
	top, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range top.Nodes {
		if !strings.Contains(n.At, "build_test.go:") {
			t.Errorf("%s is said to be at %s", n.Label(), n.At)
		}
	}
}

// visitor opens stores, reads one, sets timers and fails, as it is told.
type visitor struct {
	opens  []state.KeyValue[string, string]
	timer  time.Duration
	fails  bool
	seen   *[]string
	opened []*state.KV[string, string]
	scope  *stream.Scope[string, string]
}

func (p *visitor) Init(s *stream.Scope[string, string]) error {
	p.scope = s
	for _, h := range p.opens {
		p.opened = append(p.opened, h.Open(s))
	}
	for _, kv := range p.opened {
		kv.Put("a", "put")
		if v, ok := kv.Get("a"); ok {
			*p.seen = append(*p.seen, v)
		}
	}
	s.Every(p.timer, func(*stream.Context[string, string], time.Time) error { panic("a timer fired") })
	*p.seen = append(*p.seen, fmt.Sprint("Init in ", s.Partition()))
	if p.fails {
		panic("no database")
	}
	return nil
}

// Process sets a timer that cannot be if it is told to.
func (p *visitor) Process(_ *stream.Context[string, string], r rec) error {
	if r.Value == "timer" {
		p.scope.Every(0, nil)
	}
	return nil
}
func (p *visitor) Close() error { *p.seen = append(*p.seen, "Close"); return nil }

// What a processor cannot have is found by Build, all at once, and it is told on which line.
func TestBuildTriesProcessors(t *testing.T) {
	type processor = stream.Processor[string, string, string, string]
	other := state.NewKeyValue("other", serde.String, serde.String)
	var seen []string
	visits := func(p visitor) func() processor {
		p.seen = &seen
		return func() processor { return &p }
	}
	b := stream.NewBuilder()
	in := b.Stream(text)
	b.Table(rows, row)
	line := here()
	in.Process(visits(visitor{opens: []state.KeyValue[string, string]{row, other}, timer: time.Second}), row)
	in.Process(visits(visitor{timer: time.Microsecond, fails: true}))
	in.Process(visits(visitor{opens: []state.KeyValue[string, string]{{}}, timer: time.Second}))
	in.Process(func() processor { return nil })
	in.ProcessValues[string](nil)
	in.ProcessValues(func() stream.ValueProcessor[string, string, string] { return &enrich{} }, other)
	in.Process(visits(visitor{opens: []state.KeyValue[string, string]{row}, timer: time.Second, fails: true}), row) // as it may be
	in.Process(visits(visitor{opens: []state.KeyValue[string, string]{row}, timer: time.Second}), row)
	_, err := b.Build()
	var all topology.Mistakes
	if !errors.As(err, &all) {
		t.Fatal(err)
	}
	for i, want := range []struct {
		kind error
		text string
	}{
		{topology.ErrStore, `store "other" is not connected to this processor, which opens it; name its handle in this call`},
		{topology.ErrProcessor, "a timer of 1µs is set; the least is 1ms"},
		{topology.ErrHandle, "a store is opened by the zero value of a handle"},
		{topology.ErrProcessor, "there is no processor: the function that makes it is nil, or gives nil"},
		{topology.ErrProcessor, "there is no processor"},
		{topology.ErrStore, `store "row" is not connected`},
	} {
		if i >= len(all) || !errors.Is(all[i], want.kind) || !strings.HasPrefix(all[i].Text, want.text) || !strings.Contains(all[i].At, "build_test.go:") {
			t.Errorf("%d: not found: %s", i, want.text)
		}
	}
	if len(all) != 6 {
		t.Errorf("%d mistakes: %v", len(all), err)
	}
	if all[0].At != next(line) {
		t.Errorf("%s instead of %s", all[0].At, next(line))
	}
	if got, want := strings.Join(seen, ", "), "Init in 0, Init in 0, Init in 0, Init in 0, Init in 0, Close"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if _, again := b.Build(); again == nil || again.Error() != err.Error() {
		t.Errorf("Build again: %v", again)
	}
}

// What Init does only later, in a task, is told when the task starts.
func TestAStoreThatIsOpenedLater(t *testing.T) {
	made := 0
	d := streamtest.New(t, func(b *stream.Builder) {
		b.Table(rows, row)
		b.Stream(text).Process(func() stream.Processor[string, string, string, string] {
			p := &visitor{timer: time.Second, seen: new([]string)}
			if made++; made > 1 {
				p.opens = append(p.opens, row)
			}
			return p
		})
	}, streamtest.KeepErrors())
	if err := d.Err(); !errors.Is(err, topology.ErrStore) || !strings.Contains(err.Error(), `store "row" is not connected to this processor`) || !strings.Contains(err.Error(), "build_test.go:") {
		t.Error(err)
	}
}

// What a processor gets wrong once it runs is an error of the record in hand.
func TestATimerThatIsSetLater(t *testing.T) {
	d := streamtest.New(t, func(b *stream.Builder) {
		b.Stream(text).Process(func() stream.Processor[string, string, string, string] {
			return &visitor{timer: time.Second, seen: new([]string)}
		})
	}, streamtest.SkipErrors())
	in := streamtest.In(d, text)
	in.Send("a", "nothing")
	in.Send("a", "timer")
	if d.Skipped() != 1 {
		t.Errorf("%d records skipped", d.Skipped())
	}
}
