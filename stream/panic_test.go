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

var (
	bangTable   = state.NewKeyValue("bang-table", serde.String, serde.String).EveryUpdate()
	bangOther   = state.NewKeyValue("bang-other", serde.String, serde.String).EveryUpdate()
	bangWindow  = state.NewWindow("bang-window", serde.String, serde.String).EveryUpdate()
	bangSession = state.NewSession("bang-session", serde.String, serde.String).EveryUpdate()
	bangSelf    = state.NewJoinBuffer("bang-self", serde.String, serde.String, serde.String).SingleStore()
	bangSum     = state.NewKeyValue("bang-sum", serde.String, serde.String).EveryUpdate()
)

// bang panics at "bang", wherever it meets it.
func bang(v string) string {
	if v == "bang" {
		panic("bang")
	}
	return v
}

type bangs struct{ then bool }

func (*bangs) Init(*stream.Scope[string, string]) error { return nil }
func (p *bangs) Process(c *stream.Context[string, string], r stream.Record[string, string]) error {
	if p.then { // back from its children, whose functions were called last
		defer bang(r.Value)
	} else {
		bang(r.Value)
	}
	c.Forward(r)
	return nil
}

// TestPanics: a panic is the record's error, named after the operator whose function it was, and leaving the record out leaves
// no trace of it.
func TestPanics(t *testing.T) {
	type (
		S = stream.KStream[string, string]
		R = stream.Record[string, string]
	)
	id := func(v string) string { return v }
	tests := []struct {
		node  string
		build func(b *stream.Builder, s *S) *S
	}{
		{"split", func(_ *stream.Builder, s *S) *S {
			return s.Split().TryWhen(func(r R) (bool, error) { return bang(r.Value) != "", nil })
		}},
		{"filter", func(_ *stream.Builder, s *S) *S { return s.Filter(func(_, v string) bool { return bang(v) != "" }) }},
		{"mapValues", func(_ *stream.Builder, s *S) *S { return s.Peek(func(_, _ string) {}).MapValues(bang) }},
		{"mapValues", func(_ *stream.Builder, s *S) *S {
			return s.TryMapValues(func(r R) (string, error) { return bang(r.Value), nil })
		}},
		{"map", func(_ *stream.Builder, s *S) *S {
			return s.Map(func(k, v string) (string, string) { return k, bang(v) })
		}},
		{"selectKey", func(_ *stream.Builder, s *S) *S { return s.SelectKey(func(_, v string) string { return bang(v) }) }},
		{"flatMapValues", func(_ *stream.Builder, s *S) *S {
			return s.FlatMapValues(func(v string) []string { return []string{bang(v)} })
		}},
		{"flatMap", func(_ *stream.Builder, s *S) *S {
			return s.FlatMap(func(r R, yield func(string, string)) error {
				yield(r.Key, r.Value)
				yield(r.Key, bang(r.Value))
				return nil
			}).Filter(func(_, v string) bool { return true })
		}},
		{"peek", func(_ *stream.Builder, s *S) *S { return s.Peek(func(_, v string) { bang(v) }) }},
		{"split", func(_ *stream.Builder, s *S) *S {
			return s.Split().When(func(_, v string) bool { return bang(v) != "" })
		}},
		{"process", func(_ *stream.Builder, s *S) *S {
			return s.Process(func() stream.Processor[string, string, string, string] { return &bangs{} })
		}},
		{"process", func(_ *stream.Builder, s *S) *S {
			return s.Process(func() stream.Processor[string, string, string, string] { return &bangs{true} }).MapValues(id)
		}},
		{"reduce", func(_ *stream.Builder, s *S) *S {
			return s.GroupByKey().Reduce(bangSum, func(_, v string) string { return bang(v) }).ToStream()
		}},
		{"aggregate", func(_ *stream.Builder, s *S) *S {
			return stream.Flatten(s.GroupByKey().WindowedBy(window.Tumbling(time.Second)).Aggregate(bangWindow, func(_, v string) string { return bang(v) }).ToStream()).
				SelectKey(func(k window.Key[string], _ string) string { return k.Key })
		}},
		{"mapValues", func(_ *stream.Builder, s *S) *S { return s.ToTable(bangTable).MapValues(bang).ToStream() }},
		{"filter", func(_ *stream.Builder, s *S) *S {
			return s.ToTable(bangTable).Filter(func(_, v string) bool { return bang(v) != "" }).ToStream()
		}},
		{"leftJoin", func(b *stream.Builder, s *S) *S {
			return s.ToTable(bangTable).LeftJoin(b.Table(other, bangOther), func(v string, _ *string) string { return bang(v) }).ToStream()
		}},
		{"leftJoinTable", func(b *stream.Builder, s *S) *S {
			return s.LeftJoinTable(b.Table(other, bangOther), func(v string, _ *string) string { return bang(v) })
		}},
		{"aggregate", func(_ *stream.Builder, s *S) *S {
			return stream.Flatten(s.Peek(func(_, _ string) {}).GroupByKey().SessionsBy(window.Session(time.Second)).
				Aggregate(bangSession, func(_, v string) string { return bang(v) }, func(a, _ string) string { return a }).ToStream()).
				SelectKey(func(k window.Key[string], _ string) string { return k.Key })
		}},
		{"join", func(_ *stream.Builder, s *S) *S { // with itself, over one store
			s = s.Peek(func(_, _ string) {})
			return s.Join(s, window.Within(time.Second), bangSelf, func(_, v string) string { return bang(v) })
		}},
		{"sink", func(_ *stream.Builder, s *S) *S {
			s.To(out2.PartitionBy(func(_, v string, _ int32) int32 { bang(v); return 0 }))
			return s
		}},
	}
	for _, test := range tests {
		t.Run(test.node, func(t *testing.T) {
			build := func(b *stream.Builder) { test.build(b, b.Stream(text)).To(out) }
			d := streamtest.New(t, build, streamtest.KeepErrors())
			streamtest.In(d, text).Send("a", "fine", at(1))
			streamtest.In(d, text).Send("a", "bang", at(2))
			if err := d.Err(); err == nil || !strings.Contains(err.Error(), " in "+test.node+"-") ||
				!strings.Contains(err.Error(), "text[0]@1") || !strings.Contains(err.Error(), "stream/panic_test.go") {
				t.Errorf("got %v", err)
			}
			d = streamtest.New(t, build, streamtest.SkipErrors(), streamtest.CommitEvery(0))
			in := streamtest.In(d, text)
			in.Send("a", "fine", at(1))
			in.Send("a", "bang", at(2))
			in.Send("b", "fine", at(3))
			d.Commit()
			got := streamtest.Out(d, out).All()
			if len(got) < 2 || got[len(got)-1].Time != at(3) || strings.Contains(show(got), "bang") || d.Skipped() == 0 {
				t.Errorf("got %s; skipped %d", show(got), d.Skipped())
			}
		})
	}
}

type wounded struct{}

func (*wounded) Init(*stream.Scope[string, string]) error { panic("bang") }
func (*wounded) Process(*stream.Context[string, string], stream.Record[string, string]) error {
	return nil
}

func TestPanicInInit(t *testing.T) {
	d := streamtest.New(t, func(b *stream.Builder) {
		b.Stream(text).Process(func() stream.Processor[string, string, string, string] { return &wounded{} }).To(out)
	}, streamtest.KeepErrors())
	if err := d.Err(); err == nil || !strings.HasPrefix(err.Error(), "starting in process-1") || !strings.Contains(err.Error(), "panic: bang") {
		t.Errorf("got %v", err)
	}
}
