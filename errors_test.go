package moldau_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/moldau/moldau"
	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/stream"
	"github.com/moldau/moldau/streamtest"
)

var (
	deposits = stream.NewTopic("deposits", serde.String, serde.Int64)
	balances = state.NewKeyValue("balances", serde.String, serde.Int64)
	bars     = stream.NewTopic("bars", serde.String, serde.String)
	rejected = stream.NewTopic("rejected", serde.Bytes, serde.Bytes)
)

// TestDeadLetters: records that cannot be read, processed or written are put away, in the transaction that leaves them out,
// whatever they had written to stores.
func TestDeadLetters(t *testing.T) {
	away := moldau.ErrorPolicy{Action: moldau.Skip, DeadLetter: "rejected"}
	app := start(t, "bars", build(t, func(b *stream.Builder) {
		b.Stream(deposits).GroupByKey().Reduce(balances.EveryUpdate(), func(a, v int64) int64 { return a + v }).ToStream().
			MapValues(func(n int64) string {
				if n == 13 {
					panic("unlucky")
				}
				return strings.Repeat("x", int(n))
			}).To(bars)
	}), moldau.Config{StateDir: t.TempDir(), Errors: moldau.Errors{Decoding: away, Processing: away, Production: away}})

	number := func(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
	cl := client(t, app.App, kgo.ConsumeTopics("bars", "rejected"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for _, v := range [][]byte{number(1), []byte("two"), number(12), number(2_000_000), number(2)} {
		r := &kgo.Record{Topic: "deposits", Key: []byte("a"), Value: v, Headers: []kgo.RecordHeader{{Key: "from", Value: []byte("here")}}}
		if err := cl.ProduceSync(ctx, r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	var good, bad []string
	for len(good) < 2 || len(bad) < 3 {
		fs := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("bars %v, rejected %v", good, bad)
		}
		fs.EachRecord(func(r *kgo.Record) {
			if r.Topic == "bars" {
				good = append(good, string(r.Value))
				return
			}
			headers := map[string]string{}
			for _, h := range r.Headers {
				headers[strings.TrimPrefix(h.Key, "__streams.errors.")] = string(h.Value)
			}
			message, _, _ := strings.Cut(headers["message"], ":")
			bad = append(bad, fmt.Sprintf("%s@%s %s=%x (%s) %s", headers["topic"], headers["offset"], r.Key, r.Value, headers["from"], message))
		})
	}
	if want := []string{"x", "xxx"}; !slices.Equal(good, want) {
		t.Errorf("bars %q", good)
	}
	want := []string{"deposits@1 a=74776f (here) decoding the value", "deposits@2 a=000000000000000c (here) panic",
		"deposits@3 a=00000000001e8480 (here) writing to topic bars"}
	if !slices.Equal(bad, want) {
		t.Errorf("rejected\n got  %q\n want %q", bad, want)
	}
	if err := app.end(); err != nil {
		t.Error(err)
	}
}

func ExampleErrors() {
	config := moldau.Config{Errors: moldau.Errors{
		Decoding:   moldau.ErrorPolicy{Action: moldau.Skip, DeadLetter: "rejected"},
		Processing: moldau.ErrorPolicy{Action: moldau.Skip, Retries: 3, Backoff: time.Second},
		// Production stays as it is: an output that cannot be written stops the application.
		Except: func(e *moldau.RecordError, p moldau.ErrorPolicy) moldau.ErrorPolicy {
			if e.Node == "accounting" { // named so in the topology
				return moldau.ErrorPolicy{Action: moldau.Fail}
			}
			return p
		},
	}}
	fmt.Println(config.Validate())

	// A test of a topology takes the same policies.
	var tb testing.B
	d := streamtest.New(&tb, func(b *stream.Builder) {
		b.Stream(deposits).MapValues(func(n int64) string { return strings.Repeat("x", int(n)) }).To(bars)
	}, streamtest.Errors(config.Errors))
	in := streamtest.In(d, deposits)
	in.SendBytes(0, []byte("a"), []byte("no number"))
	in.Send("a", 3)
	for _, r := range streamtest.Out(d, bars).All() {
		fmt.Println(r.Key, r.Value)
	}
	for _, r := range streamtest.Out(d, rejected).All() {
		fmt.Printf("%s %s", r.Key, r.Value)
		for _, h := range r.Headers {
			if h.Key == "__streams.errors.message" {
				fmt.Printf(": %s\n", h.Value)
			}
		}
	}
	// Output:
	// <nil>
	// a xxx
	// a no number: decoding the value: serde: an int64 takes 8 bytes, got 9: "no number"
}
