package worker_test

import (
	"errors"
	"testing"

	"github.com/moldau/moldau/internal/cluster"
	"github.com/moldau/moldau/internal/cluster/mem"
	"github.com/moldau/moldau/internal/flow"
)

// TestOnlyOurDeadAreFenced: a start ends what a dead process of the application left open, and touches no other producer,
// however its id begins.
func TestOnlyOurDeadAreFenced(t *testing.T) {
	const instance = "0123456789abcdef01"
	log := mem.New()
	create(t, log, 2, "words", "totals", "app-counts-changelog")
	producers := map[string]cluster.Producer{}
	for _, id := range []string{"app-" + instance + "-0", "app-eu-" + instance + "-0", "app-producer", "app-" + instance + "-x", "app-77-0"} {
		p, err := log.Connect().Producer(cluster.ProducerConfig{TransactionalID: id})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(p.Init(t.Context()), p.Begin()); err != nil {
			t.Fatal(err)
		}
		p.Produce([]flow.Out{{Topic: &flow.Topic{Name: "words", Partitions: 2}, Key: []byte("k"), Value: []byte("v")}}, func(_ map[cluster.TP]int64, err error) {
			if err != nil {
				t.Error(err)
			}
		})
		producers[id] = p
	}
	p := run(t, log, newDisk(), build(t, count), nil)
	eventually(t, "the tasks run", func() bool { return len(p.Status()) == 4 })
	for id, producer := range producers {
		err := producer.End(t.Context(), true)
		if ours := id == "app-"+instance+"-0"; ours != errors.Is(err, cluster.ErrFenced) || !ours && err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
}
