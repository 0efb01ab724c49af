package stream_test

import (
	"errors"
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
	"github.com/moldau/moldau/topology"
	"github.com/moldau/moldau/window"
)

var (
	latest = state.NewKeyValue("latest", serde.String, serde.String).EveryUpdate()
	calm   = state.NewSuppressBuffer("calm", serde.String, serde.String)
	calmed = stream.NewTopic("calmed", serde.String, serde.String)
)

// bruteSuppress is suppression of one partition, from the definition: a list of what is held back, looked through each time.
type bruteSuppress struct {
	wait    int64
	records int // 0: no bound
	held    []heldRow
	now     int64
	out     []string
}

type heldRow struct {
	key, value string
	first, at  int64
}

func (b *bruteSuppress) add(k, v string, ts int64) {
	b.now = max(b.now, ts)
	i := slices.IndexFunc(b.held, func(r heldRow) bool { return r.key == k })
	if i < 0 {
		i = len(b.held)
		b.held = append(b.held, heldRow{key: k, first: ts})
	}
	b.held[i].value, b.held[i].at = v, ts
	slices.SortFunc(b.held, func(a, b heldRow) int {
		if a.first != b.first {
			return int(a.first - b.first)
		}
		return strings.Compare(a.key, b.key)
	})
	for len(b.held) > 0 && (b.held[0].first <= b.now-b.wait || b.records > 0 && len(b.held) > b.records) {
		r := b.held[0]
		b.out = append(b.out, fmt.Sprintf("%s=%s@%d", r.key, r.value, r.at))
		b.held = b.held[1:]
	}
}

// Whatever comes, and however often the application is killed, what goes on is what the definition says, in its order.
func TestSuppressAgainstBruteForce(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	for round := range 60 {
		b := &bruteSuppress{wait: rnd.Int64N(40), now: -1}
		s := stream.UntilTime(time.Duration(b.wait) * ms)
		switch round % 3 {
		case 0:
			b.records = 1 + rnd.IntN(4)
			s = s.MaxRecords(b.records).EmitEarly()
		case 1:
			s = s.MaxBytes(100) // spills
		}
		options := []streamtest.Option{streamtest.CommitEvery(1 + rnd.IntN(5))}
		if round%2 == 0 {
			options = append(options, streamtest.WarmRestart())
		}
		d := streamtest.New(t, func(bl *stream.Builder) {
			bl.Table(text, latest).Suppress(calm, s).ToStream().To(calmed)
		}, options...)
		in := streamtest.In(d, text)
		now := int64(0)
		for i := range 120 {
			now += rnd.Int64N(6)
			k, v, ts := string(rune('a'+rnd.IntN(6))), fmt.Sprint(i), max(0, now-rnd.Int64N(20))
			b.add(k, v, ts)
			in.Send(k, v, at(ts))
			if rnd.IntN(20) == 0 {
				d.Restart()
			}
		}
		d.Commit()
		var got []string
		for _, r := range streamtest.Out(d, calmed).All() {
			got = append(got, fmt.Sprintf("%s=%s@%d", r.Key, r.Value, r.Time.UnixMilli()))
		}
		if !slices.Equal(got, b.out) {
			t.Fatalf("round %d, %+v:\ngot  %v\nwant %v", round, *b, got, b.out)
		}
	}
}

func TestSuppressUntilClosed(t *testing.T) {
	final := state.NewWindowBuffer("final", serde.String, serde.Int64)
	d := streamtest.New(t, func(b *stream.Builder) {
		b.Stream(text).GroupByKey().SessionsBy(window.Session(10 * ms).Grace(50 * ms)).
			Count(visits.EveryUpdate()).UntilClosed(final).ToStream().To(visited)
	})
	in := streamtest.In(d, text)
	in.Send("a", "x", at(1))
	in.Send("b", "x", at(2))
	in.Send("a", "x", at(11))
	d.Restart()
	in.Send("a", "x", at(62))
	in.Send("a", "x", at(100))
	if got, want := showW(streamtest.Out(d, visited).All()), "b[2,2)=1@2, a[1,11)=2@11"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestSuppressFull(t *testing.T) {
	d := streamtest.New(t, func(b *stream.Builder) {
		b.Table(text, latest).Suppress(calm, stream.UntilTime(time.Hour).MaxRecords(1).FailWhenFull()).ToStream().To(calmed)
	}, streamtest.KeepErrors())
	in := streamtest.In(d, text)
	in.Send("a", "x", at(1))
	in.Send("a", "y", at(2))
	if d.Err() != nil {
		t.Fatal(d.Err())
	}
	in.Send("b", "x", at(3))
	if !errors.Is(d.Err(), stream.ErrBufferFull) {
		t.Errorf("got %v, want ErrBufferFull", d.Err())
	}
}

func TestSuppressMistakes(t *testing.T) {
	b := stream.NewBuilder()
	t1 := b.Table(text, latest)
	t1.Suppress(calm, stream.UntilTime(-1))
	t1.Suppress(state.NewSuppressBuffer("c2", serde.String, serde.String), stream.UntilTime(0).MaxRecords(1))
	t1.Suppress(state.NewSuppressBuffer("c3", serde.String, serde.String), stream.UntilTime(0).EmitEarly())
	_, err := b.Build()
	for _, want := range []string{"held back for -1ns", "what to do then", "need MaxRecords or MaxBytes"} {
		if err == nil || !errors.Is(err, topology.ErrConflict) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
}
