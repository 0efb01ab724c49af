package stream_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/stream"
	"github.com/moldau/moldau/streamtest"
	"github.com/moldau/moldau/window"
)

var (
	sensor    = stream.NewTopic("sensor", serde.String, serde.Int64).IdleAfter(10 * time.Second)
	slow      = stream.NewTopic("slow", serde.String, serde.Int64)
	resulting = stream.NewTopic("resulting", serde.String, serde.Int64)
	tardy     = stream.NewTopic("tardy", serde.String, serde.Int64)
	perMinute = state.NewWindow("per-minute", serde.String, serde.Int64)
	sittings  = state.NewSession("sittings", serde.String, serde.Int64)
	readings  = state.NewKeyValue("readings", serde.String, serde.Int64)
	alarms    = state.NewTimers("alarms", serde.String)
	minute    = window.Tumbling(time.Minute)
)

func inner(k window.Key[string], v int64) (string, int64) { return k.Key, v }

// Stream time follows the wall clock, ten seconds behind it, once nothing has come for that long. The first record comes 20 s before the end of
// its minute.
func TestStreamTimeGoesOnInSilence(t *testing.T) {
	for _, test := range []struct {
		name  string
		after time.Duration // so long after the record something comes of it
		build func(b *stream.Builder)
	}{
		{"a window closes", 30 * time.Second, func(b *stream.Builder) {
			b.Stream(sensor).GroupByKey().WindowedBy(minute).OnClose().Count(perMinute).ToStream().Map(inner).To(resulting)
		}},
		{"after its grace", 37 * time.Second, func(b *stream.Builder) {
			b.Stream(sensor).GroupByKey().WindowedBy(minute.Grace(7 * time.Second)).OnClose().Count(perMinute).ToStream().Map(inner).To(resulting)
		}},
		{"a sliding window closes", 10*time.Second + time.Millisecond, func(b *stream.Builder) {
			b.Stream(sensor).GroupByKey().SlidingBy(window.Sliding(4 * time.Second)).OnClose().Count(perMinute).ToStream().Map(inner).Filter(func(_ string, n int64) bool { return n > 0 }).To(resulting)
		}},
		{"a session closes", 25*time.Second + time.Millisecond, func(b *stream.Builder) {
			b.Stream(sensor).GroupByKey().SessionsBy(window.Session(15 * time.Second)).OnClose().Count(sittings).ToStream().Map(inner).To(resulting)
		}},
		{"suppression until a window closes", 30 * time.Second, func(b *stream.Builder) {
			b.Stream(sensor).GroupByKey().WindowedBy(minute).Count(perMinute).UntilClosed(state.NewWindowBuffer("final", serde.String, serde.Int64)).ToStream().Map(inner).To(resulting)
		}},
		{"suppression for a time", 17 * time.Second, func(b *stream.Builder) {
			b.Stream(sensor).GroupByKey().Count(readings).Suppress(state.NewSuppressBuffer("held", serde.String, serde.Int64), stream.UntilTime(7*time.Second)).ToStream().To(resulting)
		}},
		{"the partner of a join does not come", 15*time.Second + time.Millisecond, func(b *stream.Builder) {
			b.Stream(sensor).LeftJoin(b.Stream(slow), window.Within(5*time.Second),
				state.NewJoinBuffer("both", serde.String, serde.Int64, serde.Int64), func(v int64, other *int64) int64 { return v }).To(resulting)
		}},
		{"the partner of its other side does not come", 15*time.Second + time.Millisecond, func(b *stream.Builder) {
			b.Stream(slow).OuterJoin(b.Stream(sensor), window.Within(5*time.Second),
				state.NewJoinBuffer("both", serde.String, serde.Int64, serde.Int64), func(v, other *int64) int64 { return *other }).To(resulting)
		}},
		{"a record has waited for its table", 16 * time.Second, func(b *stream.Builder) {
			rows := b.Table(slow, state.NewVersioned("rows", serde.String, serde.Int64, time.Hour))
			b.Stream(sensor).LeftJoinTable(rows, func(v int64, row *int64) int64 { return v }, state.NewBuffer("patience", serde.String, serde.Int64).Grace(6*time.Second)).To(resulting)
		}},
		{"a timer", 18 * time.Second, func(b *stream.Builder) {
			b.Stream(sensor).Process(func() stream.Processor[string, int64, string, int64] { return &alarm{} }, alarms).To(resulting)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := streamtest.New(t, test.build)
			out := streamtest.Out(d, resulting)
			streamtest.In(d, sensor).Send("a", 1)
			d.Advance(test.after - time.Millisecond)
			if got := out.All(); len(got) != 0 {
				t.Errorf("too early: %v", got)
			}
			d.Advance(time.Millisecond)
			if got := out.All(); len(got) != 1 || got[0].Key != "a" || got[0].Value != 1 {
				t.Errorf("got %v", got)
			}
			d.Advance(time.Hour)
			d.Restart()
			d.Advance(time.Hour)
			if got := out.All(); len(got) != 0 {
				t.Errorf("once more: %v", got)
			}
		})
	}
}

// What fails of what silence brings is left out alone: all else that is due comes out.
func TestWhatFailsInSilence(t *testing.T) {
	type S = stream.KStream[string, int64]
	each := func(s *S) *S { // alone a key's result fails
		return s.TryMapValues(func(r stream.Record[string, int64]) (int64, error) {
			if r.Key == "a" {
				return 0, errors.New("not this one")
			}
			return r.Value, nil
		})
	}
	for name, build := range map[string]func(b *stream.Builder, s *S) *S{
		"windows": func(_ *stream.Builder, s *S) *S {
			return s.GroupByKey().WindowedBy(minute).OnClose().Count(perMinute).ToStream().Map(inner)
		},
		"sessions": func(_ *stream.Builder, s *S) *S {
			return s.GroupByKey().SessionsBy(window.Session(15 * time.Second)).OnClose().Count(sittings).ToStream().Map(inner)
		},
		"suppression": func(_ *stream.Builder, s *S) *S {
			return s.GroupByKey().Count(readings).Suppress(state.NewSuppressBuffer("held", serde.String, serde.Int64), stream.UntilTime(time.Second)).ToStream()
		},
		"joins": func(b *stream.Builder, s *S) *S {
			return s.LeftJoin(b.Stream(slow), window.Within(time.Second), state.NewJoinBuffer("both", serde.String, serde.Int64, serde.Int64), func(v int64, _ *int64) int64 { return v })
		},
		"records that wait": func(b *stream.Builder, s *S) *S {
			rows := b.Table(slow, state.NewVersioned("rows", serde.String, serde.Int64, time.Hour))
			return s.LeftJoinTable(rows, func(v int64, _ *int64) int64 { return v }, state.NewBuffer("patience", serde.String, serde.Int64).Grace(time.Second))
		},
	} {
		for _, how := range []streamtest.Option{streamtest.SkipErrors(), streamtest.ContinueErrors()} {
			d := streamtest.New(t, func(b *stream.Builder) { each(build(b, b.Stream(sensor))).To(resulting) }, how)
			for _, k := range []string{"a", "b", "c"} {
				streamtest.In(d, sensor).Send(k, 1)
			}
			d.Advance(time.Hour)
			if got := streamtest.Out(d, resulting).All(); len(got) != 2 || got[0].Key != "b" || got[1].Key != "c" || d.Skipped() != 1 {
				t.Errorf("%s: %v, %d skipped", name, got, d.Skipped())
			}
		}
	}
}

// alarm rings 8 s after a record.
type alarm struct{ timers *state.TimerStore[string] }

func (a *alarm) Init(s *stream.Scope[string, int64]) error {
	a.timers = alarms.Open(s)
	s.OnTimer(a.timers, func(c *stream.Context[string, int64], k string, _ time.Time) error {
		c.Emit(k, 1)
		return nil
	})
	return nil
}

func (a *alarm) Process(c *stream.Context[string, int64], r stream.Record[string, int64]) error {
	a.timers.Set(r.Key, r.Time.Add(8*time.Second))
	return nil
}

func closing(b *stream.Builder) {
	g := b.Stream(sensor).GroupByKey().WindowedBy(minute).OnClose()
	g.Count(perMinute).ToStream().Map(inner).To(resulting)
	g.Late().To(tardy)
}

// What silence has closed stays closed, after a crash as well.
func TestSilenceMakesRecordsLate(t *testing.T) {
	for _, crash := range []bool{false, true} {
		d := streamtest.New(t, closing)
		in, start := streamtest.In(d, sensor), d.Now()
		in.Send("a", 1)
		d.Advance(40 * time.Second)
		if got := streamtest.Out(d, resulting).All(); len(got) != 1 {
			t.Fatal(got)
		}
		if crash {
			d.Restart()
		}
		in.Send("a", 2, start.Add(time.Second))
		if got := streamtest.Out(d, tardy).All(); len(got) != 1 || got[0].Value != 2 {
			t.Errorf("crash %v: late are %v", crash, got)
		}
		in.Send("a", 3, start.Add(20*time.Second)) // the next minute
		d.Advance(time.Hour)
		if got := streamtest.Out(d, resulting).All(); len(got) != 2 || got[1].Value != 1 {
			t.Errorf("crash %v: %v", crash, got)
		}
	}
}

// Any input keeps the task awake, and what has not been committed is done again.
func TestSilenceIsThatOfAllInputs(t *testing.T) {
	d := streamtest.New(t, func(b *stream.Builder) {
		b.Stream(sensor, slow).GroupByKey().WindowedBy(minute).OnClose().Count(perMinute).ToStream().Map(inner).To(resulting)
	}, streamtest.CommitEvery(0))
	start := d.Now()
	streamtest.In(d, sensor).Send("a", 1)
	for range 10 {
		d.Advance(9 * time.Second)
		streamtest.In(d, slow).Send("b", 1, start)
	}
	d.Commit()
	if got := streamtest.Out(d, resulting).All(); len(got) != 0 {
		t.Errorf("while records come: %v", got)
	}
	d.Advance(10 * time.Second)
	d.Restart() // before the commit
	if got := streamtest.Out(d, resulting).All(); len(got) != 0 {
		t.Errorf("not committed, but there: %v", got)
	}
	d.Advance(10 * time.Second)
	d.Commit()
	if got := streamtest.Out(d, resulting).All(); len(got) != 2 {
		t.Errorf("got %v", got)
	}
}

func TestWithoutIdleAfterNothingMoves(t *testing.T) {
	d := streamtest.New(t, func(b *stream.Builder) {
		b.Stream(slow).GroupByKey().WindowedBy(minute).OnClose().Count(perMinute).ToStream().Map(inner).To(resulting)
	})
	streamtest.In(d, slow).Send("a", 1)
	d.Advance(24 * time.Hour)
	if got := streamtest.Out(d, resulting).All(); len(got) != 0 {
		t.Error(got)
	}
}

// A window closes though no further record comes.
func ExampleTopic_IdleAfter() {
	example(func(tb testing.TB) {
		clicks := stream.NewTopic("clicks", serde.String, serde.String).IdleAfter(5 * time.Second)
		perMinute := state.NewWindow("per-minute", serde.String, serde.Int64)
		d := streamtest.New(tb, func(b *stream.Builder) {
			b.Stream(clicks).GroupByKey().WindowedBy(window.Tumbling(time.Minute)).OnClose().Count(perMinute).
				ToStream().Map(func(k window.Key[string], n int64) (string, int64) { return k.Key, n }).To(exNumbers)
		})
		streamtest.In(d, clicks).Send("ann", "home")
		d.Advance(time.Minute)
		fmt.Println("a minute later:")
		d.Advance(5 * time.Second)
		printed(d, exNumbers)
	})
	// Output:
	// a minute later:
	// ann: 1
}
