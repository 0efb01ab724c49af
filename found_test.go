package moldau_test

import (
	"context"
	"maps"
	"path/filepath"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/moldau/moldau"
	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/stream"
)

// TestTopicsThatMatch lets topics come and go under two processes that share the tasks, on a broker with a port.
func TestTopicsThatMatch(t *testing.T) {
	long(t)
	var (
		lines  = stream.NewTopicPattern("lines-[a-z]", serde.String, serde.String)
		counts = state.NewKeyValue("counts", serde.String, serde.Int64)
	)
	topo := build(t, func(b *stream.Builder) {
		b.StreamPattern(lines).GroupByKey().Count(counts).ToStream().To(Totals)
	})
	dir := t.TempDir()
	b := server(t, filepath.Join(dir, "broker"))
	t.Cleanup(func() { b.Close() })
	cl := reader(t, kgo.SeedBrokers(b.Addr()))
	createTopic(t, cl, "totals", 2)
	config := func(name string) moldau.Config {
		return moldau.Config{Brokers: []string{b.Addr()}, StateDir: filepath.Join(dir, name), CommitInterval: 20 * time.Millisecond,
			SessionTimeout: 6 * time.Second, MetadataMaxAge: 50 * time.Millisecond}
	}
	want := map[string]int64{}
	put := func(topic string) {
		t.Helper()
		var records []*kgo.Record
		for i := range 200 {
			key := string(rune('a' + i%20))
			want[key]++
			records = append(records, &kgo.Record{Topic: topic, Partition: int32(i % 20 % 2), Key: []byte(key), Value: []byte("x")})
		}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := cl.ProduceSync(ctx, records...).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	one := start(t, "found", topo, config("one"))
	two := start(t, "found", topo, config("two"))
	createTopic(t, cl, "lines-a", 2)
	put("lines-a")
	eventually(t, "both have a task", func() bool { return len(one.Tasks()) == 1 && len(two.Tasks()) == 1 })
	createTopic(t, cl, "lines-b", 2)
	put("lines-b")
	put("lines-a")
	exact(t, cl, maps.Clone(want))

	if err := one.end(); err != nil {
		t.Fatal(err)
	}
	createTopic(t, cl, "lines-c", 2)
	put("lines-c")
	one = start(t, "found", topo, config("one"))
	put("lines-b")
	eventually(t, "both have a task again", func() bool { return len(one.Tasks()) == 1 && len(two.Tasks()) == 1 })

	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	eventually(t, "all of it is committed", func() bool { return caughtUp(t, cl, "lines-a") })
	if _, err := kadm.NewClient(cl).DeleteTopic(ctx, "lines-a"); err != nil {
		t.Fatal(err)
	}
	put("lines-b")
	again := reader(t, kgo.SeedBrokers(b.Addr()))
	exact(t, again, want)
	for _, p := range []*runs{one, two} {
		if err := p.end(); err != nil {
			t.Error(err)
		}
	}
}

// caughtUp is whether everything in a topic is committed by the application.
func caughtUp(t testing.TB, cl *kgo.Client, topic string) bool {
	t.Helper()
	admin := kadm.NewClient(cl)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	lag, err := admin.Lag(ctx, "found")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range lag["found"].Lag[topic] {
		if p.Lag != 0 {
			return false
		}
	}
	return len(lag["found"].Lag[topic]) == 2
}
