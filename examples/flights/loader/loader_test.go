package loader

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/moldau/moldau/examples/flights/input"
	"github.com/moldau/moldau/examples/flights/topics"
	"github.com/moldau/moldau/internal/broker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// kafka is a broker in this process, with the topics.
func kafka(t *testing.T) []kgo.Opt {
	t.Helper()
	b, err := broker.Start(t.Context(), broker.Config{Dir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	opts := []kgo.Opt{kgo.SeedBrokers("in-process:0"), kgo.Dialer(b.Dial)}
	if err := topics.Create(t.Context(), opts); err != nil {
		t.Fatal(err)
	}
	if err := topics.Create(t.Context(), opts); err != nil {
		t.Fatalf("creating them again: %v", err)
	}
	return opts
}

func month(t *testing.T, name string, rows int) *input.Month {
	t.Helper()
	var b strings.Builder
	b.WriteString("scheduled,delay_min,distance_mi,origin,destination\n")
	codes := []string{"ORD", "LAX", "JFK", "SEA", "ATL", "DEN", name}
	for i := range rows {
		at := time.Date(2001, 1, 1, 0, i/8, 0, 0, time.UTC) // some rows are identical
		fmt.Fprintf(&b, "%s,%d,100,%s,%s\n", at.Format(input.TimeLayout), i%16/8*7-3, codes[i/2%7], codes[i/2%5])
	}
	m, err := input.Read(name, strings.NewReader(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func given(m *input.Month) func(context.Context) (*input.Month, error) {
	return func(context.Context) (*input.Month, error) { return m, nil }
}

// published reads what is there: the values of each partition in order.
func published(t *testing.T, kafka []kgo.Opt) (byPartition map[int32][]string) {
	t.Helper()
	byPartition = map[int32][]string{}
	err := topics.Read(t.Context(), kafka, topics.Flights, func(r *kgo.Record) {
		var f input.Flight
		if err := json.Unmarshal(r.Value, &f); err != nil {
			t.Errorf("%s: %v", r.Value, err)
		}
		at, err := f.Departure()
		if err != nil || !r.Timestamp.Equal(at) || string(r.Key) != f.Origin {
			t.Errorf("%s has key %s and time %v", r.Value, r.Key, r.Timestamp)
		}
		byPartition[r.Partition] = append(byPartition[r.Partition], string(r.Value))
	})
	if err != nil {
		t.Fatal(err)
	}
	return byPartition
}

// exact checks that each month is there once, each partition in the order of the news.
func exact(t *testing.T, kafka []kgo.Opt, months ...*input.Month) {
	t.Helper()
	want := map[int32][]string{}
	place := kgo.StickyKeyPartitioner(nil).ForTopic(topics.Flights)
	for _, m := range months {
		for _, f := range m.Flights {
			r, err := flightRecord(f)
			if err != nil {
				t.Fatal(err)
			}
			p := int32(place.Partition(r, topics.Partitions))
			want[p] = append(want[p], string(r.Value))
		}
	}
	got := published(t, kafka)
	for p := range int32(topics.Partitions) {
		if !slices.Equal(got[p], want[p]) {
			t.Errorf("partition %d holds %d rows, want %d, or another order", p, len(got[p]), len(want[p]))
		}
	}
}

func TestEachRowOnceUnderInterruptions(t *testing.T) {
	opts := kafka(t)
	first, second := month(t, "ONE", 3000), month(t, "TWO", 500)
	airports := []input.Airport{{IATA: "ORD", Name: "O'Hare"}, {IATA: "LAX"}}
	rng := rand.New(rand.NewPCG(1, 2))
	last := 0
	for life := 0; ; life++ {
		ctx, cancel := context.WithCancel(t.Context())
		commits := rng.IntN(5)
		err := Run(ctx, Config{Kafka: opts, Month: given(first), Airports: airports, Rate: 40_000, Progress: func(p Position) {
			if p.Published < last {
				t.Errorf("life %d begins at %d and the one before came to %d", life, p.Published, last)
			}
			last = p.Published
			if commits--; commits < 0 {
				cancel()
			}
		}})
		cancel()
		if err == nil {
			break
		}
		if life > 200 {
			t.Fatal(err)
		}
	}
	exact(t, opts, first)
	// Nothing is published twice, and another input comes after the first.
	for _, m := range []*input.Month{first, second, second} {
		if err := Run(t.Context(), Config{Kafka: opts, Month: given(m), Airports: airports}); err != nil {
			t.Fatal(err)
		}
	}
	exact(t, opts, first, second)

	var codes []string
	if err := topics.Read(t.Context(), opts, topics.Airports, func(r *kgo.Record) { codes = append(codes, string(r.Key)) }); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(codes, " "); got != "ORD LAX ORD LAX" { // once for each input
		t.Errorf("airports %s", got)
	}
	p, found, err := ReadPosition(t.Context(), opts, second.Hash)
	if err != nil || !found || p != (Position{"TWO", 500, 500}) {
		t.Errorf("position %+v, %v, %v", p, found, err)
	}
}

func TestAnInputThatCannotBeRead(t *testing.T) {
	unreadable := errors.New("unreadable")
	err := Run(t.Context(), Config{Kafka: kafka(t), Month: func(context.Context) (*input.Month, error) { return nil, unreadable }})
	if !errors.Is(err, unreadable) {
		t.Errorf("error %v", err)
	}
}

func TestTheLaterLoaderTakesOver(t *testing.T) {
	opts := kafka(t)
	m := month(t, "ONE", 4000)
	var group sync.WaitGroup
	errs := make([]error, 2)
	begun := make(chan struct{})
	begin := sync.OnceFunc(func() { close(begun) })
	group.Go(func() {
		errs[0] = Run(t.Context(), Config{Kafka: opts, Month: given(m), Rate: 2000, Progress: func(Position) { begin() }})
	})
	<-begun
	group.Go(func() { errs[1] = Run(t.Context(), Config{Kafka: opts, Month: given(m), Rate: 100_000}) })
	group.Wait()
	if errs[0] != nil || errs[1] != nil {
		t.Fatal(errs)
	}
	exact(t, opts, m)
}
