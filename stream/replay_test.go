package stream_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/stream"
	"github.com/moldau/moldau/streamtest"
	"github.com/moldau/moldau/topology"
)

var (
	priceTopic = stream.NewTopic("prices", serde.String, serde.JSON[int64]())
	prices     = state.NewKeyValue("prices", serde.String, serde.Int64).EveryUpdate().ReuseSourceTopic()
	asked      = stream.NewTopic("asked", serde.String, serde.String)
	answered   = stream.NewTopic("answered", serde.String, serde.String)
)

// priced joins with a table that is restored from its topic.
func priced(t stream.Topic[string, int64], h state.KeyValue[string, int64]) func(*stream.Builder) {
	return func(b *stream.Builder) {
		table := b.Table(t, h)
		b.Stream(asked).LeftJoinTable(table, func(v string, price *int64) string {
			if price == nil {
				return v + " ?"
			}
			return fmt.Sprint(v, " ", *price)
		}).To(answered)
	}
}

func rowsOf(d *streamtest.Driver, h state.KeyValue[string, int64]) string {
	var rows []string
	for _, r := range streamtest.Rows(d, h) {
		rows = append(rows, fmt.Sprintf("%s=%d@%d", r.Key, r.Value, r.Time.UnixMilli()))
	}
	return strings.Join(rows, " ")
}

// TestATableIsRestoredFromItsTopic: after a restart, whatever is on disk, the rows are those from before: of what could be read, up to
// what was committed, in the store's own format.
func TestATableIsRestoredFromItsTopic(t *testing.T) {
	later := priceTopic.Timestamps(func(r stream.Record[string, int64], _ time.Time) time.Time { return r.Time.Add(time.Second) })
	for _, test := range []struct {
		name  string
		topic stream.Topic[string, int64]
		want  string
	}{
		{"times of the records", priceTopic, "apple=3@10 pear=8@60"},
		{"times from elsewhere", later, "apple=3@1010 pear=8@1060"},
	} {
		for name, options := range map[string][]streamtest.Option{"cold": nil, "warm": {streamtest.WarmRestart()}} {
			for _, every := range []int{1, 100} {
				t.Run(fmt.Sprintf("%s, %s, commit every %d", test.name, name, every), func(t *testing.T) {
					d := streamtest.New(t, priced(test.topic, prices), append(options, streamtest.SkipErrors(), streamtest.CommitEvery(every))...)
					in, at := streamtest.In(d, priceTopic), time.UnixMilli
					in.Send("apple", 3, at(10))
					in.Send("plum", 5, at(20))
					in.SendBytes(0, []byte("fig"), []byte("no number"), at(30))
					in.SendBytes(0, nil, []byte("7"), at(40))
					in.SendNull("plum", at(50))
					in.Send("pear", 8, at(60))
					d.Commit()
					before := rowsOf(d, prices)
					in.Send("apple", 4, at(70)) // not committed, unless each record is
					d.Restart()
					if every == 1 {
						before = strings.Replace(test.want, "apple=3@10", "apple=4@70", 1)
						before = strings.Replace(before, "apple=4@7010", "apple=4@1070", 1)
					} else if before != test.want {
						t.Errorf("rows %s, want %s", before, test.want)
					}
					d.Commit() // what came again
					if got := rowsOf(d, prices); every == 1 && got != before || every > 1 && !strings.HasPrefix(got, "apple=4@") {
						t.Errorf("after a restart %s, want %s", got, before)
					}
					streamtest.In(d, asked).Send("pear", "how much?", at(80))
					d.Commit()
					if all := streamtest.Out(d, answered).All(); len(all) != 1 || all[0].Value != "how much? 8" {
						t.Errorf("answered %v", all)
					}
					if slices.Contains(d.Topics(), "test-prices-changelog") {
						t.Error("there is a changelog")
					}
					if n := len(d.Raw("prices")); n != 7 {
						t.Errorf("the topic has %d records", n)
					}
				})
			}
		}
	}
}

// TestAVersionedTableIsRestoredFromItsTopic: with all that came out of order.
func TestAVersionedTableIsRestoredFromItsTopic(t *testing.T) {
	h := state.NewVersioned("prices", serde.String, serde.Int64, time.Second).ReuseSourceTopic()
	for name, options := range map[string][]streamtest.Option{"cold": nil, "warm": {streamtest.WarmRestart()}} {
		t.Run(name, func(t *testing.T) {
			d := streamtest.New(t, func(b *stream.Builder) { b.Table(priceTopic, h) }, options...)
			in, at := streamtest.In(d, priceTopic), time.UnixMilli
			in.Send("apple", 3, at(100))
			in.Send("apple", 2, at(50)) // out of order
			in.SendNull("apple", at(70))
			in.Send("apple", 4, at(2000))
			in.Send("apple", 1, at(60)) // too late
			for range 2 {
				for _, want := range []struct{ at, price int64 }{{2500, 4}, {1500, 3}} {
					if got, ok := streamtest.GetAsOf(d, h, "apple", at(want.at)); !ok || got != want.price {
						t.Errorf("at %d the price is %d, %v, want %d", want.at, got, ok, want.price)
					}
				}
				d.Restart()
			}
			if slices.Contains(d.Topics(), "test-prices-changelog") {
				t.Error("there is a changelog")
			}
		})
	}
}

// TestTTLOfATableRestoredFromItsTopic: a row that has outlived its time does not come back.
func TestTTLOfATableRestoredFromItsTopic(t *testing.T) {
	h := prices.TTL(20 * time.Millisecond)
	d := streamtest.New(t, priced(priceTopic, h))
	in := streamtest.In(d, priceTopic)
	in.Send("apple", 3, time.UnixMilli(10))
	in.Send("pear", 8, time.UnixMilli(30))
	for range 2 {
		if got := rowsOf(d, h); got != "pear=8@30" {
			t.Errorf("rows %s", got)
		}
		d.Restart()
	}
}

// priceWriter is a processor that reads a price and puts another into the store.
type priceWriter struct{ kv *state.KV[string, int64] }

func (p *priceWriter) Init(s *stream.Scope[string, string]) error {
	p.kv = prices.Open(s)
	return nil
}

func (p *priceWriter) Process(c *stream.Context[string, string], r stream.Record[string, string]) error {
	if n, ok := p.kv.Get(r.Key); ok {
		c.Emit(r.Key, fmt.Sprint(n))
	}
	p.kv.Put(r.Key, 1)
	return nil
}

func TestProcessorsOnlyReadATableRestoredFromItsTopic(t *testing.T) {
	d := streamtest.New(t, func(b *stream.Builder) {
		b.Table(priceTopic, prices)
		b.Stream(asked).Process(func() stream.Processor[string, string, string, string] { return &priceWriter{} }, prices).To(answered)
	}, streamtest.KeepErrors())
	streamtest.In(d, priceTopic).Send("apple", 3)
	streamtest.In(d, asked).Send("apple", "how much?")
	if err := d.Err(); err == nil || !strings.Contains(err.Error(), "only what is written to that topic changes it") {
		t.Errorf("error %v", err)
	}
	if got := rowsOf(d, prices); !strings.HasPrefix(got, "apple=3@") {
		t.Errorf("rows %s", got)
	}
}

func TestMistakesOfTablesRestoredFromTheirTopics(t *testing.T) {
	for _, test := range []struct {
		name  string
		build func(*stream.Builder)
		want  string
	}{
		{"no table", func(b *stream.Builder) { b.Stream(asked).GroupByKey().Count(prices) }, "holds no table that Builder.Table reads"},
		{"a table of a stream", func(b *stream.Builder) { b.Stream(priceTopic).ToTable(prices) }, "holds no table that Builder.Table reads"},
		{"not logged", func(b *stream.Builder) { b.Table(priceTopic, prices.Unlogged()) }, "not to be restored at all"},
		{"settings", func(b *stream.Builder) { b.Table(priceTopic, prices.Changelog(map[string]string{"a": "b"})) }, "settings for a changelog of its own"},
		{"two of one topic", func(b *stream.Builder) {
			b.Table(priceTopic, prices)
			b.Table(priceTopic, state.NewKeyValue("again", serde.String, serde.Int64).ReuseSourceTopic())
		}, `topic "prices" is that of store "prices" already`},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := stream.NewBuilder()
			test.build(b)
			if _, err := b.Build(); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}

// A table without a changelog: it is restored from the topic that it is read from.
func ExampleBuilder_Table_reuseSourceTopic() {
	b := stream.NewBuilder()
	b.Table(priceTopic, prices).ToStream().Named("changes").Filter(func(_ string, n int64) bool { return n > 10 })
	t, err := b.Build()
	if err != nil {
		panic(err)
	}
	plans, _ := t.Plan("shop", map[string]int32{"prices": 4})
	fmt.Println(len(plans), "internal topics")
	var store *topology.Store
	store, _ = t.Store("prices")
	fmt.Println("restored from", store.Topic.Name)
	// Output:
	// 0 internal topics
	// restored from prices
}
