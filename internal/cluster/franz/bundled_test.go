package franz

import (
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/moldau/moldau/internal/broker"
	"github.com/moldau/moldau/internal/cluster"
	"github.com/moldau/moldau/internal/cluster/clustertest"
)

// bundle starts the broker inside and returns a way to connect to it, without TCP.
func bundle(t *testing.T) func(testing.TB) (*Cluster, *clustertest.Network) {
	t.Helper()
	b, err := broker.Start(t.Context(), broker.Config{Dir: t.TempDir(), Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), NoAutoCreate: true})
	must(t, err)
	t.Cleanup(func() { must(t, b.Close()) })
	return func(t testing.TB) (*Cluster, *clustertest.Network) {
		n := &clustertest.Network{Next: b.Dial}
		c, err := New(Config{Brokers: []string{"bundled:9092"}, Options: []kgo.Opt{kgo.Dialer(n.Dial)}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c, n
	}
}

// TestBundledBroker runs the suite against the broker inside.
func TestBundledBroker(t *testing.T) {
	open := bundle(t)
	clustertest.Run(t, clustertest.Setup{
		Connect: func(t testing.TB) cluster.Cluster { c, _ := open(t); return c },
		Unreliable: func(t testing.TB) (cluster.Cluster, clustertest.Fault) {
			c, n := open(t)
			return c, n
		},
		Evict:   func(t testing.TB, group, instance string) { c, _ := open(t); evict(t, c, group, instance) },
		Delete:  func(t testing.TB, topic string) { c, _ := open(t); deleteTopic(t, c, topic) },
		Unique:  "t",
		Restart: 2 * time.Second,
	})
}

// Offsets that hold nothing a reader sees are skipped, up to the next record or the end.
func TestGaps(t *testing.T) {
	c, _ := bundle(t)(t)
	topic := fresh(t, c, "gap", 1)
	tp := cluster.TP{Topic: topic.Name}
	p, err := c.Producer(cluster.ProducerConfig{TransactionalID: "p"})
	must(t, err)
	defer p.Close()
	must(t, p.Init(t.Context()))
	for _, commit := range []bool{false, true, false} { // aborted 0, marker 1, committed 2, marker 3, aborted 4, marker 5
		must(t, p.Begin())
		must(t, write(p, topic, "x"))
		must(t, p.End(t.Context(), commit))
	}
	f, err := newFetcher(c)
	must(t, err)
	defer f.close()
	f.seek(map[cluster.TP]int64{tp: 6}) // makes kgo look for the leader
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if leader, _, err := f.cl.PartitionLeader(tp.Topic, 0); err == nil && leader >= 0 {
			break
		}
	}
	for at, want := range map[int64]int64{0: 2, 1: 2, 2: 2, 3: 6, 5: 6} {
		if got := f.nothingUpTo(t.Context(), tp, at); got != want {
			t.Errorf("from %d: nothing up to %d, want %d", at, got, want)
		}
	}
	// A silent partition moves to its end by itself.
	f.mu.Lock()
	f.at[tp].next = 3
	f.mu.Unlock()
	batches := f.skip(t.Context(), []cluster.TP{tp})
	if at, _ := f.position(tp); len(batches) != 1 || batches[0].Next != 6 || at != 6 {
		t.Errorf("skipped to %d with %v", at, batches)
	}
	if due, more := f.silent(time.Now().Add(time.Hour)); len(due) > 0 || more {
		t.Errorf("still asking: %v %v", due, more)
	}
}
