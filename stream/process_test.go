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

var seen = state.NewKeyValue("seen", serde.String, serde.Int64)

// tally counts keys in a store, and tells of all of them in timers.
type tally struct {
	seen   *state.KV[string, int64]
	wall   time.Duration
	stream time.Duration
	times  int // calls of a timer before it stops itself; 0: it does not
	fresh  int // a field: lost at a restart
	closed *int
	fail   error
}

func (p *tally) Init(s *stream.Scope[string, string]) error {
	p.seen = seen.Open(s)
	var stop func()
	tell := func(c *stream.Context[string, string], now time.Time) error {
		for k, n := range p.seen.All() {
			c.Emit(k, fmt.Sprint("all ", n))
		}
		if p.times--; p.times == 0 {
			stop()
		}
		return p.fail
	}
	if p.wall > 0 {
		stop = s.Every(p.wall, tell)
	}
	if p.stream > 0 {
		stop = s.EveryStreamTime(p.stream, tell)
	}
	return nil
}

func (p *tally) Process(c *stream.Context[string, string], r rec) error {
	n, _ := p.seen.Get(r.Key)
	p.seen.Put(r.Key, n+1)
	p.fresh++
	if r.Value == "bad" {
		return errors.New("bad")
	}
	c.Forward(r.With(fmt.Sprint(n+1, "/", p.fresh)))
	return nil
}

func (p *tally) Close() error {
	if p.closed != nil {
		*p.closed++
	}
	return nil
}

func withTally(p tally) func(b *stream.Builder) {
	return func(b *stream.Builder) {
		b.Stream(text).Process(func() stream.Processor[string, string, string, string] { one := p; return &one }, seen).To(out)
	}
}

func TestProcessorWithAStore(t *testing.T) {
	closed := 0
	d := streamtest.New(t, withTally(tally{closed: &closed}))
	in := streamtest.In(d, text)
	in.Send("a", "", at(1))
	in.Send("b", "", at(2))
	in.Send("a", "", at(3))
	d.Restart()
	in.Send("a", "", at(4))
	if got, want := show(streamtest.Out(d, out).All()), "a=1/1@1, b=1/2@2, a=2/3@3, a=3/1@4"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if closed != 2 { // by Build, and by the restart
		t.Errorf("closed %d times", closed)
	}
}

func TestProcessorThatFailsIsTakenBack(t *testing.T) {
	d := streamtest.New(t, withTally(tally{}), streamtest.SkipErrors(), streamtest.CommitEvery(2))
	in := streamtest.In(d, text)
	for i, v := range []string{"", "bad", "", "bad", ""} {
		in.Send("a", v, at(int64(i)))
	}
	d.Commit()
	if n, _ := streamtest.Get(d, seen, "a"); n != 3 {
		t.Errorf("the store has %d", n)
	}
	if got := show(streamtest.Out(d, out).All()); !strings.HasPrefix(got, "a=1/") || !strings.Contains(got, "a=2/") || !strings.Contains(got, "a=3/") {
		t.Error(got)
	}
}

func TestTimers(t *testing.T) {
	t.Run("wall clock", func(t *testing.T) {
		d := streamtest.New(t, withTally(tally{wall: 10 * ms, times: 3}), streamtest.Start(at(1000)))
		in := streamtest.In(d, text)
		in.Send("b", "", at(1))
		in.Send("a", "", at(2))
		d.Advance(9 * ms)
		d.Advance(1 * ms)
		d.Advance(27 * ms)
		d.Advance(3 * ms)
		d.Advance(50 * ms) // it has stopped
		want := "b=1/1@1, a=1/2@2, a=all 1@1010, b=all 1@1010, a=all 1@1037, b=all 1@1037, a=all 1@1040, b=all 1@1040"
		if got := show(streamtest.Out(d, out).All()); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	})
	t.Run("stream time", func(t *testing.T) {
		d := streamtest.New(t, withTally(tally{stream: 10 * ms}))
		in := streamtest.In(d, text)
		for _, ms := range []int64{3, 4, 10, 9, 35, 39, 40} {
			in.Send("a", "", at(ms))
		}
		want := "a=1/1@3, a=all 1@3, a=2/2@4, a=3/3@10, a=all 3@10, a=4/4@9, a=5/5@35, a=all 5@35, a=6/6@39, a=7/7@40, a=all 7@40"
		if got := show(streamtest.Out(d, out).All()); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	})
	t.Run("an error", func(t *testing.T) {
		boom := errors.New("boom")
		d := streamtest.New(t, withTally(tally{wall: 10 * ms, fail: boom}), streamtest.KeepErrors())
		d.Advance(time.Second)
		if err := d.Err(); !errors.Is(err, boom) || !strings.HasPrefix(err.Error(), "punctuating in process-1 (task 0_0") || !strings.Contains(err.Error(), "process_test.go:") {
			t.Error(err)
		}
	})
}

// enrich adds the rows of a table that another operator keeps, and headers.
type enrich struct {
	rows *state.KV[string, string]
}

func (p *enrich) Init(s *stream.ValueScope) error { p.rows = row.Open(s); return nil }
func (p *enrich) Process(c *stream.ValueContext[string], r rec) error {
	v, ok := p.rows.Get(r.Key)
	if !ok {
		c.EmitNull()
		return nil
	}
	c.Emit(r.Value + v)
	c.SetHeader("n", []byte("1"))
	c.EmitAt(v, r.Time.Add(time.Second))
	return nil
}

func TestValueProcessor(t *testing.T) {
	newEnrich := func() stream.ValueProcessor[string, string, string] { return &enrich{} }
	for name, build := range map[string]func(b *stream.Builder){
		"table": func(b *stream.Builder) {
			b.Table(rows, row)
			b.Stream(text).ProcessValues(newEnrich, row).To(out)
		},
		"global table by store": func(b *stream.Builder) {
			g := b.GlobalTable(rows, row)
			b.Stream(text).ProcessValues(newEnrich, g).To(out)
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := streamtest.New(t, build)
			streamtest.In(d, rows).Send("a", "A")
			in := streamtest.In(d, text)
			in.SendRecord(rec{Key: "a", Value: "x", Time: at(1), Headers: []stream.Header{{Key: "h", Value: []byte("1")}}})
			in.Send("b", "y", at(2))
			if got, want := show(streamtest.Out(d, out).All()), "a=xA@1 h:1, a=A@1001 h:1 n:1, b=~@2"; got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

func TestRequestCommit(t *testing.T) {
	d := streamtest.New(t, func(b *stream.Builder) {
		b.Stream(text).ProcessFunc(func(c *stream.Context[string, string], r rec) error {
			c.Forward(r)
			if r.Value == "now" {
				c.RequestCommit()
			}
			return nil
		}).To(out)
	}, streamtest.CommitEvery(0))
	in := streamtest.In(d, text)
	in.Send("a", "1", at(1))
	o := streamtest.Out(d, out)
	if got := show(o.All()); got != "" {
		t.Error("visible before the commit:", got)
	}
	in.Send("a", "now", at(2))
	if got := show(o.All()); got != "a=1@1, a=now@2" {
		t.Error(got)
	}
}
