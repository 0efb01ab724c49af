package moldau_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/moldau/moldau"
	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/stream"
)

var (
	Questions = stream.NewTopic("questions", serde.Bytes, serde.String).Partitions(1)
	Answers   = stream.NewTopic("answers", serde.Bytes, serde.String).Partitions(1)
)

// TestCallsOverTheBundledBroker stops the application while calls are under way, again and again: each question has one answer, in
// the order of the questions.
func TestCallsOverTheBundledBroker(t *testing.T) {
	var calls atomic.Int64
	ask := func(ctx context.Context, r stream.Record[[]byte, string]) (string, error) {
		calls.Add(1)
		select {
		case <-time.After(time.Duration(rand.IntN(4000)) * time.Microsecond):
			return "answer to " + r.Value, nil
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	topo := build(t, func(b *stream.Builder) {
		b.Stream(Questions).MapAsync(stream.Async{MaxInFlight: 16, Timeout: time.Minute}, ask).To(Answers)
	})
	cfg := moldau.Config{StateDir: t.TempDir(), CommitInterval: 10 * time.Millisecond}
	const rounds, each = 4, 200
	var want []string
	var app *runs
	for i := range rounds {
		app = start(t, "asks", topo, cfg)
		var questions []string
		for j := range each {
			questions = append(questions, fmt.Sprintf("%04d", i*each+j))
			want = append(want, "answer to "+questions[j])
		}
		before := calls.Load()
		write(t, app.App, "questions", questions...)
		if i < rounds-1 {
			eventually(t, "calls are under way", func() bool { return calls.Load() > before+each/4 })
			if err := app.end(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := answered(t, app.App, len(want)); !slices.Equal(got, want) {
		t.Errorf("got %d answers to %d questions: %v", len(got), len(want), got)
	}
	if n := calls.Load(); n <= rounds*each {
		t.Errorf("%d calls for %d questions: nothing was called again, so the test proves little", n, rounds*each)
	}
	if err := app.end(); err != nil {
		t.Error(err)
	}
}

// answered are n committed answers, and any that come with them.
func answered(t *testing.T, a *moldau.App, n int) (got []string) {
	t.Helper()
	cl := client(t, a, kgo.ConsumeTopics("answers"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for len(got) < n && ctx.Err() == nil {
		cl.PollFetches(ctx).EachRecord(func(r *kgo.Record) { got = append(got, string(r.Value)) })
	}
	return got
}
