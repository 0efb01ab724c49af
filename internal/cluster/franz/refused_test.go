package franz

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/moldau/moldau/internal/cluster"
	"github.com/moldau/moldau/internal/flow"
)

// Of what the broker refuses batch by batch, the records at fault are named; all others are written in order, in one transaction.
func TestRefused(t *testing.T) {
	open := bundle(t)
	refusals(t, func(t testing.TB) *Cluster { c, _ := open(t); return c }, "refused")
}

func TestRefusedByKafka(t *testing.T) {
	brokers(t)
	refusals(t, func(t testing.TB) *Cluster { return connect(t) }, fmt.Sprintf("refused%d", time.Now().UnixMilli()))
}

func refusals(t *testing.T, open func(testing.TB) *Cluster, unique string) {
	for _, id := range []string{"", unique} {
		for _, every := range []int{1, 97, 194, 1 << 30, -97} { // of how many records one has no key; negative: the rule is not known
			t.Run(fmt.Sprintf("%t/%d", id != "", every), func(t *testing.T) {
				c := open(t)
				p, err := c.Producer(cluster.ProducerConfig{TransactionalID: id})
				must(t, err)
				defer p.Close()
				must(t, p.Init(t.Context()))
				if every < 0 {
					every = -every
					p.(*producer).rulesOf = func(context.Context, ...string) (map[string]rules, error) { return nil, errors.New("forbidden") }
				}
				for attempt := 1; !refuses(t, c, p, every, fmt.Sprintf("%s%s-%d", unique, strings.ReplaceAll(t.Name(), "/", "-"), attempt)); attempt++ {
					if attempt == 6 {
						t.Fatal("records overtake refused ones though they are sent with care")
					}
				}
			})
		}
	}
}

// refuses is one attempt; false: a record had overtaken one that was refused, and the transaction is undone.
func refuses(t *testing.T, c *Cluster, p cluster.Producer, every int, name string) bool {
	must(t, c.Admin().Create(t.Context(), cluster.TopicSpec{Name: name, Partitions: 2, Replication: 1, Config: map[string]string{"cleanup.policy": "compact"}}))
	must(t, p.Begin())
	topic := &flow.Topic{Name: name, Partitions: 2}
	const calls, records = 40, 50
	type answer struct {
		call int
		err  error
	}
	answers := make(chan answer, calls)
	var bad []int64
	var good [2][]string
	for n := range calls {
		var outs []flow.Out
		for i := range records {
			at := n*records + i
			o := flow.Out{Topic: topic, Partition: int32(at % 3 % 2), Key: []byte("k"), Value: fmt.Append(nil, at), Time: time.Now().UnixMilli(),
				Sink: 7, Input: 2, InHand: int64(at)}
			if at%every == every/2 {
				o.Key = nil
				bad = append(bad, o.InHand)
			} else {
				good[o.Partition] = append(good[o.Partition], string(o.Value))
			}
			outs = append(outs, o)
		}
		p.Produce(outs, func(_ map[cluster.TP]int64, err error) { answers <- answer{n, err} })
	}
	p.Flush()
	var refused []int64
	overtaken := false
	for range calls {
		a := <-answers
		r, ok := errors.AsType[*cluster.Refused](a.err)
		switch {
		case ok:
			for _, r := range r.Records {
				if r.Topic != name || r.Sink != 7 || r.Input != 2 || int(r.InHand)/records != a.call || !strings.Contains(r.Err.Error(), "INVALID_RECORD") {
					t.Errorf("call %d: %+v", a.call, r)
				}
				refused = append(refused, r.InHand)
			}
		case errors.Is(a.err, cluster.ErrAborted):
			overtaken = true
		case a.err != nil:
			t.Errorf("call %d: %v", a.call, a.err)
		}
	}
	if overtaken {
		must(t, p.Abandon(t.Context()))
		must(t, p.End(t.Context(), false))
		return false
	}
	if slices.Sort(refused); !slices.Equal(refused, bad) {
		t.Errorf("refused\n got  %v\n want %v", refused, bad)
	}
	must(t, p.End(t.Context(), true))
	for n := range good {
		if got := values(t, c, cluster.TP{Topic: name, Partition: int32(n)}, len(good[n])); !slices.Equal(got, good[n]) {
			t.Errorf("partition %d\n got  %v\n want %v", n, got, good[n])
		}
	}
	return true
}

// values are the first values of a partition, as far as they are committed.
func values(t *testing.T, c *Cluster, tp cluster.TP, most int) (got []string) {
	t.Helper()
	r, err := c.Reader()
	must(t, err)
	defer r.Close()
	r.Assign(map[cluster.TP]int64{tp: 0})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for len(got) < most && ctx.Err() == nil {
		batches, err := r.Poll(ctx)
		must(t, err)
		for _, b := range batches {
			for _, rec := range b.Records {
				got = append(got, string(rec.Value))
			}
		}
	}
	return got
}

func TestRules(t *testing.T) {
	now := time.UnixMilli(1_000_000_000_000)
	config := map[string]string{"max.message.bytes": "10", "message.timestamp.before.max.ms": "3600000", "message.timestamp.after.max.ms": "9223372036854775807",
		"cleanup.policy": "compact,delete"}
	for _, test := range []struct {
		r    kgo.Record
		err  error
		want bool
	}{
		{kgo.Record{Value: make([]byte, 11)}, fmt.Errorf("with words: %w", kerr.MessageTooLarge), true},
		{kgo.Record{Value: make([]byte, 10)}, kerr.MessageTooLarge, false}, // perhaps, with what else is in a batch
		{kgo.Record{Value: make([]byte, 11), Key: []byte{}}, kerr.InvalidRecord, false},
		{kgo.Record{}, kerr.InvalidRecord, true},
		{kgo.Record{Timestamp: now.Add(-61*time.Minute - 1)}, kerr.InvalidTimestamp, true},
		{kgo.Record{Timestamp: now.Add(-61 * time.Minute)}, kerr.InvalidTimestamp, false}, // clocks differ
		{kgo.Record{Timestamp: now.AddDate(50, 0, 0)}, kerr.InvalidTimestamp, false},
		{kgo.Record{}, kerr.PolicyViolation, false},
		{kgo.Record{}, errors.New("no error of a broker"), false},
	} {
		if got := rulesIn(config).broken(&test.r, test.err, now); got != test.want {
			t.Errorf("%+v, %v: %t", test.r, test.err, got)
		}
	}
	if got := rulesIn(nil); got != (rules{}) {
		t.Errorf("%+v", got)
	}
}
