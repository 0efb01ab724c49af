package moldau_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/moldau/moldau"
	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/stream"
)

// The topics of TestRefused. What comes in may have any time; what goes out may not be far in the future, or must have a key.
var (
	orders     = stream.NewTopic("orders", serde.String, serde.Int64).Config("message.timestamp.after.max.ms", "9223372036854775807")
	ordersOut  = stream.NewTopic("orders-out", serde.String, serde.Int64).Partitions(3)
	keyed      = stream.NewTopic("keyed", serde.Null(serde.String), serde.Int64).Partitions(3).Config("cleanup.policy", "compact")
	orderSums  = stream.NewTopic("order-sums", serde.String, serde.Int64)
	sums       = state.NewKeyValue("sums", serde.String, serde.Int64)
	orderCount = 3000
)

func inFuture(i int64) bool { return i%89 == 5 || i%89 == 6 }
func keyless(i int64) bool  { return i%97 == 13 && !inFuture(i) }

// TestRefused: what only the broker refuses is up to the policy, record by record: those that were refused in one batch with it are
// written, in order, and what else the record did stands or is gone, as the policy says.
func TestRefused(t *testing.T) {
	topo := build(t, func(b *stream.Builder) {
		in := b.Stream(orders)
		in.To(ordersOut)
		in.SelectKey(func(k string, i int64) *string {
			if keyless(i) {
				return nil
			}
			return &k
		}).Filter(func(_ *string, i int64) bool { return !inFuture(i) }).To(keyed)
		in.Filter(func(_ string, i int64) bool { return !inFuture(i) }).
			GroupByKey().Reduce(sums.EveryUpdate(), func(a, i int64) int64 { return a + i }).ToStream().To(orderSums)
	})
	for _, guarantee := range []moldau.Guarantee{moldau.ExactlyOnce, moldau.AtLeastOnce} {
		for name, policy := range map[string]moldau.ErrorPolicy{
			"continue":    {Action: moldau.Continue},
			"skip":        {Action: moldau.Skip},
			"skip, retry": {Action: moldau.Skip, Retries: 1, Backoff: time.Millisecond},
			"put away":    {Action: moldau.Skip, DeadLetter: "rejects"},
			"put aside":   {Action: moldau.Continue, DeadLetter: "rejects"},
		} {
			t.Run(guarantee.String()+"/"+name, func(t *testing.T) {
				app := start(t, "refused", topo, moldau.Config{StateDir: t.TempDir(), Guarantee: guarantee, Errors: moldau.Errors{Production: policy,
					DeadLetters: []string{"rejects"}}})
				var input []*kgo.Record
				for i := range int64(orderCount) {
					at := time.Now()
					if inFuture(i) {
						at = at.Add(48 * time.Hour)
					}
					value, _ := serde.Int64.Encode(nil, i)
					input = append(input, &kgo.Record{Topic: "orders", Key: []byte{'a' + byte(i%7)}, Value: value, Timestamp: at,
						Headers: []kgo.RecordHeader{{Key: "n", Value: strconv.AppendInt(nil, i, 10)}}})
				}
				cl := client(t, app.App)
				defer cl.Close()
				setTopic(t, cl, "rejects", "message.timestamp.after.max.ms", "9223372036854775807")
				if err := cl.ProduceSync(t.Context(), input...).FirstErr(); err != nil {
					t.Fatal(err)
				}
				processed(t, cl, "refused", "orders", int64(orderCount))
				got := written(t, cl, "orders-out", "keyed", "order-sums", "rejects")
				exact := guarantee == moldau.ExactlyOnce

				skips := policy.Action == moldau.Skip
				var out, key, sum, away []string
				total := map[byte]int64{}
				for i := range int64(orderCount) {
					k := 'a' + byte(i%7)
					if inFuture(i) || keyless(i) {
						away = append(away, fmt.Sprintf("%c=%d", k, i))
					}
					if !inFuture(i) && (!skips || !keyless(i)) {
						out = append(out, fmt.Sprintf("%c=%d", k, i))
						total[k] += i
						sum = append(sum, fmt.Sprintf("%c=%d", k, total[k]))
					}
					if !inFuture(i) && !keyless(i) {
						key = append(key, fmt.Sprintf("%c=%d", k, i))
					}
				}
				if policy.DeadLetter == "" {
					away = nil
				}
				holds(t, exact, "orders-out", got, out)
				holds(t, exact, "keyed", got, key)
				holds(t, exact, "order-sums", got, sum)
				if !skips { // letters come as the broker's refusals do
					slices.SortFunc(got["rejects"], func(a, b *kgo.Record) int { return bytes.Compare(a.Value, b.Value) })
				}
				holds(t, exact, "rejects", got, away)
				for _, r := range got["rejects"] {
					h := map[string]string{}
					for _, header := range r.Headers {
						h[header.Key] = string(header.Value)
					}
					i, _ := serde.Int64.Decode(r.Value)
					topic, cause := "orders-out", "INVALID_TIMESTAMP"
					if keyless(i) {
						topic, cause = "keyed", "INVALID_RECORD"
					}
					if h["n"] != fmt.Sprint(i) || h["__streams.errors.topic"] != "orders" || h["__streams.errors.partition"] != "0" || h["__streams.errors.offset"] != fmt.Sprint(i) ||
						!strings.Contains(h["__streams.errors.message"], "topic "+topic+": the broker refuses it") || !strings.Contains(h["__streams.errors.message"], cause) {
						t.Fatalf("dead letter of %d: %v", i, h)
					}
				}
				if err := app.end(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// setTopic changes a setting of a topic.
func setTopic(t *testing.T, cl *kgo.Client, topic, name, value string) {
	t.Helper()
	done, err := kadm.NewClient(cl).AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Name: name, Value: &value}}, topic)
	if err == nil {
		_, err = done.On(topic, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// processed waits until an application has committed its input, of one partition.
func processed(t *testing.T, cl *kgo.Client, app, topic string, end int64) {
	t.Helper()
	eventually(t, "everything is committed", func() bool {
		offsets, err := kadm.NewClient(cl).FetchOffsets(t.Context(), app)
		if err != nil {
			return false
		}
		o, _ := offsets.Lookup(topic, 0)
		return o.At >= end
	})
}

// written reads what is committed in topics, as of now.
func written(t *testing.T, cl *kgo.Client, topics ...string) map[string][]*kgo.Record {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	ends, err := kadm.NewClient(cl).ListEndOffsets(ctx, topics...)
	if err != nil {
		t.Fatal(err)
	}
	left := 0
	from := map[string]map[int32]kgo.Offset{}
	ends.Each(func(o kadm.ListedOffset) {
		if from[o.Topic] == nil {
			from[o.Topic] = map[int32]kgo.Offset{}
		}
		if o.Offset > 0 {
			from[o.Topic][o.Partition] = kgo.NewOffset().At(0)
			left++
		}
	})
	r, err := kgo.NewClient(append(cl.Opts(), kgo.ConsumePartitions(from), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())...)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got := map[string][]*kgo.Record{}
	done := map[string]bool{}
	for len(done) < left {
		fs := r.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("not read in time: %d of %d partitions", len(done), left)
		}
		fs.EachPartition(func(p kgo.FetchTopicPartition) {
			for _, r := range p.Records {
				if !r.Attrs.IsControl() {
					got[p.Topic] = append(got[p.Topic], r)
				}
				if end, _ := ends.Lookup(p.Topic, p.Partition); r.Offset+1 >= end.Offset {
					done[fmt.Sprint(p.Topic, p.Partition)] = true
				}
			}
		})
	}
	return got
}

// holds compares what a topic holds, key by key in order. At least once it may hold more: what was written twice, and what a record that is
// left out had written before that was known.
func holds(t *testing.T, exact bool, topic string, all map[string][]*kgo.Record, want []string) {
	t.Helper()
	keyOf := func(s string) string { key, _, _ := strings.Cut(s, "="); return key }
	var got []string
	for _, r := range all[topic] {
		v, _ := serde.Int64.Decode(r.Value)
		got = append(got, fmt.Sprintf("%s=%d", r.Key, v))
	}
	byKey := func(a, b string) int { return strings.Compare(keyOf(a), keyOf(b)) }
	if exact {
		slices.SortStableFunc(got, byKey)
		want = slices.Clone(want)
		slices.SortStableFunc(want, byKey)
	} else {
		wanted, seen := map[string]bool{}, map[string]bool{}
		for _, w := range want {
			wanted[w] = true
		}
		got = slices.DeleteFunc(got, func(g string) bool { twice := seen[g]; seen[g] = true; return twice || !wanted[g] })
		slices.Sort(got)
		want = slices.Sorted(slices.Values(want))
	}
	if !slices.Equal(got, want) {
		for i := range max(len(got), len(want)) {
			if i >= len(got) || i >= len(want) || got[i] != want[i] {
				t.Fatalf("%s holds %d records, want %d; the first that differs is %d: %v, want %v", topic, len(got), len(want), i, got[i:min(i+3, len(got))], want[i:min(i+3, len(want))])
			}
		}
	}
}

var (
	texts   = stream.NewTopic("texts", serde.String, serde.String)
	texts2  = stream.NewTopic("texts-out", serde.String, serde.String)
	longest = state.NewKeyValue("longest", serde.String, serde.String)
)

func longer(a, b string) string {
	if len(a) > len(b) {
		return a
	}
	return b
}

// wrote writes texts, each under its first letter.
func wrote(t *testing.T, cl *kgo.Client, all ...string) {
	t.Helper()
	for _, text := range all {
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "texts", Key: []byte(text[:1]), Value: []byte(text)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRefusedAtCommit: of results that are given on once per key and commit the one that is too large is left out, by a limit that was lowered
// while the application runs; what the table holds stands.
func TestRefusedAtCommit(t *testing.T) {
	topo := build(t, func(b *stream.Builder) {
		b.Stream(texts).GroupByKey().Reduce(longest, longer).ToStream().To(texts2)
	})
	for _, guarantee := range []moldau.Guarantee{moldau.ExactlyOnce, moldau.AtLeastOnce} {
		for _, action := range []moldau.Action{moldau.Skip, moldau.Continue} {
			t.Run(fmt.Sprint(guarantee, action), func(t *testing.T) {
				app := start(t, "refused", topo, moldau.Config{StateDir: t.TempDir(), Guarantee: guarantee,
					Errors: moldau.Errors{Production: moldau.ErrorPolicy{Action: action, DeadLetter: "rejects"}}})
				cl := client(t, app.App)
				defer cl.Close()
				wrote(t, cl, "a", "b")
				processed(t, cl, "refused", "texts", 2)
				setTopic(t, cl, "texts-out", "max.message.bytes", "500")
				wrote(t, cl, "aa", "b"+strings.Repeat("b", 1000), "cc")
				processed(t, cl, "refused", "texts", 5)
				setTopic(t, cl, "texts-out", "max.message.bytes", "1000000")
				wrote(t, cl, "bb", "ccc")
				processed(t, cl, "refused", "texts", 7)
				got := map[string]int{}
				all := written(t, cl, "texts-out", "rejects")
				for _, r := range all["texts-out"] {
					got[string(r.Key)+strconv.Itoa(len(r.Value))]++
				}
				for _, want := range []string{"a1", "b1", "a2", "c2", "b1001", "c3"} {
					if n := got[want]; n == 0 || guarantee == moldau.ExactlyOnce && n > 1 {
						t.Errorf("%d times %s, in %v", n, want, got)
					}
				}
				if len(got) != 6 {
					t.Errorf("got %v", got)
				}
				if len(all["rejects"]) != 1 || all["rejects"][0].Value != nil {
					t.Errorf("dead letters %v", all["rejects"])
				}
				if err := app.end(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// TestRefusedIsRetried: a record is tried again with the policy's backoff, until the topic takes it.
func TestRefusedIsRetried(t *testing.T) {
	topo := build(t, func(b *stream.Builder) { b.Stream(texts).To(texts2) })
	var undone atomic.Int32
	app := start(t, "refused", topo, moldau.Config{StateDir: t.TempDir(), Errors: moldau.Errors{
		Production: moldau.ErrorPolicy{Action: moldau.Skip, Retries: 1000, Backoff: time.Millisecond, MaxBackoff: 10 * time.Millisecond}},
		Listener: func(e moldau.Event) {
			if e.Kind == moldau.EpochUndone {
				undone.Add(1)
			}
		}})
	cl := client(t, app.App)
	defer cl.Close()
	wrote(t, cl, "a")
	processed(t, cl, "refused", "texts", 1)
	setTopic(t, cl, "texts-out", "max.message.bytes", "500")
	wrote(t, cl, "b", "c"+strings.Repeat("c", 1000), "d")
	eventually(t, "some retries", func() bool { return undone.Load() > 3 })
	setTopic(t, cl, "texts-out", "max.message.bytes", "1000000")
	processed(t, cl, "refused", "texts", 4)
	var got []string
	for _, r := range written(t, cl, "texts-out")["texts-out"] {
		got = append(got, string(r.Key)+strconv.Itoa(len(r.Value)))
	}
	if want := []string{"a1", "b1", "c1001", "d1"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if err := app.end(); err != nil {
		t.Error(err)
	}
}

// TestRefusedStops: without a policy the application stops, and says which record, where, and why. A change of a store that the changelog
// refuses stops it whatever the policy.
func TestRefusedStops(t *testing.T) {
	topo := build(t, func(b *stream.Builder) {
		b.Stream(texts).GroupByKey().Reduce(longest, longer).ToStream().To(texts2)
	})
	for topic, policy := range map[string]moldau.ErrorPolicy{"texts-out": {}, "refused-longest-changelog": {Action: moldau.Continue}} {
		t.Run(topic, func(t *testing.T) {
			app := start(t, "refused", topo, moldau.Config{StateDir: t.TempDir(), Errors: moldau.Errors{Production: policy}})
			cl := client(t, app.App)
			defer cl.Close()
			wrote(t, cl, "a")
			processed(t, cl, "refused", "texts", 1)
			setTopic(t, cl, topic, "max.message.bytes", "500")
			wrote(t, cl, "b"+strings.Repeat("b", 1000))
			select {
			case err := <-app.done:
				app.done = nil
				if !errors.Is(err, moldau.ErrTooLarge) || !errors.Is(err, kerr.MessageTooLarge) || !strings.Contains(err.Error(), topic) {
					t.Error(err)
				}
				if e, ok := errors.AsType[*moldau.RecordError](err); topic == "texts-out" && (!ok || e.Kind != moldau.Production || e.Node == "" || e.At == "") {
					t.Errorf("%+v", e)
				}
			case <-time.After(20 * time.Second):
				t.Fatal("it goes on")
			}
		})
	}
}
