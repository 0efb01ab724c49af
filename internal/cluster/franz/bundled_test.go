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

// TestBundledBroker runs the suite against the broker inside, without TCP.
func TestBundledBroker(t *testing.T) {
	b, err := broker.Start(t.Context(), broker.Config{Dir: t.TempDir(), Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), NoAutoCreate: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	open := func(t testing.TB) (*Cluster, *clustertest.Network) {
		n := &clustertest.Network{Next: b.Dial}
		c, err := New(Config{Brokers: []string{"bundled:9092"}, Options: []kgo.Opt{kgo.Dialer(n.Dial)}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c, n
	}
	clustertest.Run(t, clustertest.Setup{
		Connect: func(t testing.TB) cluster.Cluster { c, _ := open(t); return c },
		Unreliable: func(t testing.TB) (cluster.Cluster, clustertest.Fault) {
			c, n := open(t)
			return c, n
		},
		Delete:  func(t testing.TB, topic string) { c, _ := open(t); deleteTopic(t, c, topic) },
		Unique:  "t",
		Restart: time.Second,
	})
}
