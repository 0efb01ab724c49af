package stream_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/stream"
	"github.com/moldau/moldau/streamtest"
)

var (
	reminders = state.NewTimers("reminders", serde.String)
	wallclock = state.NewTimers("wallclock", serde.String).WallClock()
	codes     = state.NewKeyValue("codes", serde.String, serde.String)
	short     = state.NewKeyValue("short", serde.String, serde.Int64).TTL(10 * time.Millisecond).EveryUpdate()
)

// reminder sets a timer of the record's key as many ms later as its value says; "cancel" takes it away.
type reminder struct {
	h      state.Timers[string]
	timers *state.TimerStore[string]
}

func (p *reminder) Init(s *stream.Scope[string, string]) error {
	p.timers = p.h.Open(s)
	s.OnTimer(p.timers, func(c *stream.Context[string, string], k string, at time.Time) error {
		if k == "bad" {
			return errors.New("no reminder")
		}
		c.Emit(k, "due")
		if k == "again" {
			p.timers.Set(k, at.Add(5*time.Millisecond))
		}
		return nil
	})
	return nil
}

func (p *reminder) Process(c *stream.Context[string, string], r stream.Record[string, string]) error {
	if r.Value == "cancel" {
		p.timers.Cancel(r.Key)
		return nil
	}
	var ms int64
	if n, _ := fmt.Sscan(r.Value, &ms); n == 1 {
		from := r.Time
		if p.timers.Wall() {
			from = c.Now()
		}
		p.timers.Set(r.Key, from.Add(time.Duration(ms)*time.Millisecond))
	}
	return nil
}

func reminding(h state.Timers[string]) func(*stream.Builder) {
	return func(b *stream.Builder) {
		b.Stream(text).Process(func() stream.Processor[string, string, string, string] { return &reminder{h: h} }, h).To(out)
	}
}

// TestDurableTimers: timers come once, in order, whether or not the task is restarted after each record, and however much an epoch holds.
func TestDurableTimers(t *testing.T) {
	for _, every := range []int{1, 3, 100} {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprintf("commit every %d, restart %v", every, restart), func(t *testing.T) {
				d := streamtest.New(t, reminding(reminders), streamtest.CommitEvery(every), streamtest.SkipErrors())
				in := streamtest.In(d, text)
				for _, r := range []struct {
					k, v string
					at   int64
				}{{"b", "20", 0}, {"a", "20", 0}, {"gone", "5", 1}, {"moved", "6", 1}, {"gone", "cancel", 2}, {"moved", "30", 3},
					{"bad", "4", 4}, {"again", "10", 4}, {"x", "-", 19}, {"x", "-", 40}, {"x", "-", 41}} {
					in.Send(r.k, r.v, at(r.at))
					if restart {
						d.Restart()
					}
				}
				d.Commit()
				d.Restart()
				in.Send("x", "-", at(42))
				d.Commit()
				want := "again=due@14, again=due@19, a=due@20, b=due@20, moved=due@33, again=due@24, again=due@29"
				got := show(streamtest.Out(d, out).All())
				if got != want {
					t.Errorf("got  %s\nwant %s", got, want)
				}
			})
		}
	}
	t.Run("wall clock", func(t *testing.T) {
		d := streamtest.New(t, reminding(wallclock), streamtest.Start(time.UnixMilli(1000)))
		streamtest.In(d, text).Send("a", "250", at(5))
		d.Advance(200 * time.Millisecond)
		d.Restart()
		if got := show(streamtest.Out(d, out).All()); got != "" {
			t.Errorf("too early: %s", got)
		}
		d.Advance(100 * time.Millisecond)
		if got := show(streamtest.Out(d, out).All()); got != "a=due@1250" {
			t.Errorf("got %s", got)
		}
	})
}

// TestTTL: whether a value is there depends on stream time alone.
func TestTTL(t *testing.T) {
	want := "a=1@0, a=2@5, b=1@14, a=3@14, b=1@24, a=1@24"
	for _, every := range []int{1, 2, 100} {
		for _, restart := range []bool{false, true} {
			d := streamtest.New(t, func(b *stream.Builder) {
				b.Stream(text).GroupByKey().Count(short).ToStream().To(numbers)
			}, streamtest.CommitEvery(every))
			in := streamtest.In(d, text)
			for _, r := range []struct {
				k  string
				at int64
			}{{"a", 0}, {"a", 5}, {"b", 14}, {"a", 14}, {"b", 24}, {"a", 24}} {
				in.Send(r.k, "x", at(r.at))
				if restart {
					d.Restart()
				}
			}
			d.Commit()
			if got := show(streamtest.Out(d, numbers).All()); got != want {
				t.Errorf("commit every %d, restart %v:\ngot  %s\nwant %s", every, restart, got, want)
			}
			in.Send("c", "x", at(40))
			d.Commit()
			if rows := show(streamtest.Rows(d, short)); rows != "c=1@40" {
				t.Errorf("rows %s", rows)
			}
			last := map[string]bool{}
			for _, r := range d.Raw("test-short-changelog") {
				last[string(r.Key)] = r.Value != nil
			}
			if last["a"] || last["b"] || !last["c"] {
				t.Errorf("changelog: %v", last)
			}
		}
	}
}

// That a value goes is no update: whoever follows the table at commits hears what who follows each update does.
func TestTTLIsNoUpdate(t *testing.T) {
	brief := state.NewKeyValue("brief", serde.String, serde.Int64).TTL(10 * time.Millisecond)
	for _, h := range []state.KeyValue[string, int64]{brief, brief.EveryUpdate()} {
		d := streamtest.New(t, func(b *stream.Builder) { b.Stream(text).GroupByKey().Count(h).ToStream().To(numbers) })
		in := streamtest.In(d, text)
		for i, k := range []string{"a", "b", "b", "b", "a"} {
			in.Send(k, "x", at(int64(6*i)))
			d.Commit()
		}
		if got, want := show(streamtest.Out(d, numbers).All()), "a=1@0, b=1@6, b=2@12, b=3@18, a=1@24"; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

func TestPartitionsBy(t *testing.T) {
	to := out.PartitionsBy(func(k, v string, n int32) []int32 {
		switch v {
		case "all":
			return []int32{0, 1, 2}
		case "none":
			return nil
		}
		return []int32{n - 1}
	})
	d := streamtest.New(t, func(b *stream.Builder) { b.Stream(text).To(to) }, streamtest.TopicPartitions("out", 3))
	in := streamtest.In(d, text)
	for _, v := range []string{"all", "none", "one"} {
		in.Send("k", v, at(1))
	}
	var got []string
	for _, r := range d.Raw("out") {
		got = append(got, fmt.Sprintf("%s:%d", r.Value, r.Partition))
	}
	if want := "all:0 all:1 all:2 one:2"; strings.Join(got, " ") != want || d.Dropped()["sink-1: partitioner"] != 1 {
		t.Errorf("got %v, dropped %v", got, d.Dropped())
	}
}

// A record of a repartition topic may go to several tasks.
func TestRepartitionToSeveral(t *testing.T) {
	to := byKey.Partitions(3).PartitionsBy(func(_, v string, n int32) []int32 {
		switch v {
		case "all":
			return []int32{0, 1, 2}
		case "none":
			return nil
		}
		return []int32{n - 1}
	})
	d := streamtest.New(t, func(b *stream.Builder) {
		b.Stream(text).Repartition(to).ProcessFunc(func(c *stream.Context[string, string], r rec) error {
			_, partition, _, _ := c.Source()
			c.Emit(fmt.Sprint("task ", partition), r.Value)
			return nil
		}).To(out)
	}, streamtest.TopicPartitions("out", 1))
	in := streamtest.In(d, text)
	for _, v := range []string{"all", "none", "one"} {
		in.Send("k", v, at(1))
	}
	if got, want := show(streamtest.Out(d, out).All()), "task 0=all@1, task 1=all@1, task 2=all@1, task 2=one@1"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if d.Dropped()["repartition-1: partitioner"] != 1 {
		t.Error(d.Dropped())
	}
}

// translate looks values up in a global store.
type translate struct {
	codes *stream.GlobalKTable[string, string]
	kv    *state.KV[string, string]
}

func (p *translate) Init(s *stream.Scope[string, string]) error {
	p.kv = p.codes.Open(s)
	return nil
}

func (p *translate) Process(c *stream.Context[string, string], r stream.Record[string, string]) error {
	v, _ := p.kv.Get(r.Value)
	c.Forward(r.With(v))
	return nil
}

func ExampleBuilder_GlobalStore() {
	example(func(tb testing.TB) {
		d := streamtest.New(tb, func(b *stream.Builder) {
			// Codes are looked up in upper case, whatever they are written in.
			g := b.GlobalStore(other, codes, func(r stream.Record[string, string]) (string, string, error) {
				return strings.ToUpper(r.Key), r.Value, nil
			})
			b.Stream(text).Process(func() stream.Processor[string, string, string, string] { return &translate{codes: g} }, g).To(out)
		})
		streamtest.In(d, other).Send("cz", "Bohemia")
		streamtest.In(d, text).Send("k", "CZ")
		d.Restart()
		streamtest.In(d, text).Send("k", "CZ")
		for _, r := range streamtest.Out(d, out).All() {
			fmt.Println(r.Value)
		}
	})
	// Output:
	// Bohemia
	// Bohemia
}

func ExampleScope_OnTimer() {
	example(func(tb testing.TB) {
		d := streamtest.New(tb, reminding(reminders)) // its Init says OnTimer
		in := streamtest.In(d, text)
		in.Send("bill", "30", at(0))
		d.Restart()
		in.Send("anything", "-", at(31))
		for _, r := range streamtest.Out(d, out).All() {
			fmt.Println(r.Key, r.Value, r.Time.UnixMilli())
		}
	})
	// Output:
	// bill due 30
}

func ExampleContext_ForwardTo() {
	example(func(tb testing.TB) {
		d := streamtest.New(tb, func(b *stream.Builder) {
			routed := b.Stream(text).ProcessFunc(func(c *stream.Context[string, string], r stream.Record[string, string]) error {
				c.ForwardTo(r.Key, r)
				return nil
			})
			routed.MapValues(strings.ToUpper).Named("loud").To(out)
			routed.MapValues(strings.ToLower).Named("quiet").To(out)
		})
		in := streamtest.In(d, text)
		in.Send("loud", "Ahoj")
		in.Send("quiet", "Ahoj")
		for _, r := range streamtest.Out(d, out).All() {
			fmt.Println(r.Value)
		}
	})
	// Output:
	// AHOJ
	// ahoj
}

func ExampleBuilder_Around() {
	example(func(tb testing.TB) {
		d := streamtest.New(tb, func(b *stream.Builder) {
			b.Around(func(call stream.Call, next func() error) error {
				err := next()
				fmt.Printf("%s %s[%d]@%d: %v\n", call.Operator, call.Topic, call.Partition, call.Offset, err)
				return err
			})
			b.Stream(text).ProcessFunc(func(c *stream.Context[string, string], r stream.Record[string, string]) error {
				c.Forward(r)
				return nil
			}).Named("pass").To(out)
		})
		streamtest.In(d, text).Send("k", "v")
	})
	// Output:
	// pass text[0]@0: <nil>
}
