package moldau_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/moldau/moldau"
	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/stream"
	"github.com/moldau/moldau/topology"
)

// The data dictionary of the test's application.
var (
	Lines  = stream.NewTopic("lines", serde.Bytes, serde.String).Partitions(2)
	ByWord = stream.NewRepartition("by-word", serde.String, serde.String)
	Counts = state.NewKeyValue("counts", serde.String, serde.Int64)
	Totals = stream.NewTopic("totals", serde.String, serde.Int64).Partitions(2)
)

// WordCount is the word count of the README.
func WordCount(b *stream.Builder) {
	b.Stream(Lines).
		FlatMapValues(strings.Fields).
		GroupBy(ByWord, func(_ []byte, word string) string { return word }).
		Count(Counts).
		ToStream().
		To(Totals)
}

func build(t testing.TB, f func(*stream.Builder)) *topology.Topology {
	t.Helper()
	b := stream.NewBuilder()
	f(b)
	topo, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return topo
}

// runs is an App that runs in the background of a test.
type runs struct {
	*moldau.App
	t    testing.TB
	stop context.CancelFunc
	done chan error
}

func start(t testing.TB, name string, topo *topology.Topology, cfg moldau.Config) *runs {
	t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = quiet(t)
	}
	app, err := moldau.New(name, topo, cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	r := &runs{App: app, t: t, stop: stop, done: make(chan error, 1)}
	go func() { r.done <- app.Run(ctx) }()
	t.Cleanup(func() { r.end() })
	select {
	case <-app.Ready():
	case err := <-r.done:
		r.done = nil
		t.Fatal(err)
	case <-time.After(20 * time.Second):
		t.Fatal("the application does not get ready")
	}
	return r
}

// end stops the App and returns what Run did.
func (r *runs) end() error {
	r.stop()
	if r.done == nil {
		return nil
	}
	select {
	case err := <-r.done:
		r.done = nil
		return err
	case <-time.After(20 * time.Second):
		r.t.Fatal("the application does not stop")
		return nil
	}
}

// quiet logs to the test if it is verbose.
func quiet(t testing.TB) *slog.Logger {
	if !testing.Verbose() {
		return slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	return slog.New(slog.NewTextHandler(&testWriter{t: t}, &slog.HandlerOptions{Level: slog.LevelInfo}))
}

type testWriter struct {
	mu sync.Mutex
	t  testing.TB
}

func (w *testWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fmt.Printf("%s", b)
	return len(b), nil
}

// client is a plain Kafka client of what the App uses.
func client(t testing.TB, a *moldau.App, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append(a.Client(), opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	return cl
}

func write(t testing.TB, a *moldau.App, topic string, values ...string) {
	t.Helper()
	cl := client(t, a, kgo.DefaultProduceTopic(topic))
	defer cl.Close()
	var records []*kgo.Record
	for _, v := range values {
		records = append(records, kgo.StringRecord(v))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := cl.ProduceSync(ctx, records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// follow reads a topic, committed records only, until the condition holds for the last value of each key, and returns all
// records as "key=value".
func follow(t testing.TB, a *moldau.App, topic string, until func(last map[string]int64) bool) (last map[string]int64, all []string) {
	t.Helper()
	cl := client(t, a, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	last = map[string]int64{}
	for !until(last) {
		fs := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("%s: still %v after %d records", topic, last, len(all))
		}
		fs.EachRecord(func(r *kgo.Record) {
			n := int64(binary.BigEndian.Uint64(r.Value))
			last[string(r.Key)] = n
			all = append(all, fmt.Sprintf("%s=%d", r.Key, n))
		})
	}
	return last, all
}

func isExactly(want map[string]int64) func(map[string]int64) bool {
	return func(last map[string]int64) bool { return maps.Equal(last, want) }
}

func TestWordCount(t *testing.T) {
	dir := t.TempDir()
	began := time.Now()
	app := start(t, "wordcount", build(t, WordCount), moldau.Config{StateDir: dir})
	write(t, app.App, "lines", "to be or", "not to be")
	follow(t, app.App, "totals", isExactly(map[string]int64{"to": 2, "be": 2, "or": 1, "not": 1}))
	t.Logf("from New to the first results: %v", time.Since(began))

	began = time.Now()
	if err := app.end(); err != nil {
		t.Fatal(err)
	}
	t.Logf("a clean stop: %v", time.Since(began))

	// A second run continues from the state.
	began = time.Now()
	app = start(t, "wordcount", build(t, WordCount), moldau.Config{StateDir: dir})
	write(t, app.App, "lines", "be")
	_, all := follow(t, app.App, "totals", isExactly(map[string]int64{"to": 2, "be": 3, "or": 1, "not": 1}))
	t.Logf("from New to new results: %v", time.Since(began))
	slices.Sort(all)
	if got := fmt.Sprint(all); !strings.Contains(got, "be=3") || strings.Count(got, "be=3") != 1 {
		t.Errorf("results: %v", got)
	}
	if err := app.end(); err != nil {
		t.Fatal(err)
	}
}
