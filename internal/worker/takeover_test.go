package worker_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/moldau/moldau/internal/cluster"
	"github.com/moldau/moldau/internal/cluster/mem"
	"github.com/moldau/moldau/internal/worker"
)

// TestTopicsOfOtherNames: Kafka Streams has run the application, and not all of its internal topics have the names of ours.
func TestTopicsOfOtherNames(t *testing.T) {
	log := mem.New()
	create(t, log, 2, "words", "totals", "app-again-repartition")
	write(t, log, "words", 2, "a=x", "b=x")
	ran := func(change func(*worker.Config)) error {
		p := run(t, log, newDisk(), build(t, count), change)
		select {
		case <-p.Ready():
			return p.end()
		case err := <-p.done:
			p.done = nil
			p.identity.Close()
			return err
		}
	}
	// What Kafka Streams notes beside a position: version 1, the time 1.
	commit(t, log, map[cluster.TP]cluster.Offset{{Topic: "words", Partition: 0}: {At: 1, Metadata: "AQAAAAAAAAAB"}})
	if err := ran(nil); !errors.Is(err, worker.ErrTopology) || !strings.Contains(err.Error(), `"app-counts-changelog" are missing`) {
		t.Errorf("a store is missing: %v", err)
	}
	if err := ran(func(c *worker.Config) { c.AcceptTopology = true }); err != nil {
		t.Errorf("accepted: %v", err)
	}
	if err := ran(nil); err != nil {
		t.Errorf("again: %v", err)
	}
}
