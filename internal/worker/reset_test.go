package worker_test

import (
	"errors"
	"maps"
	"testing"

	"github.com/moldau/moldau/internal/cluster"
	"github.com/moldau/moldau/internal/cluster/mem"
	"github.com/moldau/moldau/internal/worker"
	"github.com/moldau/moldau/topology"
)

// TestRepartitionTopicsAreReadFromTheirStart: what upstream tasks have committed there is counted, wherever the
// application begins in its sources.
func TestRepartitionTopicsAreReadFromTheirStart(t *testing.T) {
	for name, reset := range map[string]topology.Reset{"latest": topology.ResetLatest, "none": topology.ResetNone} {
		t.Run(name, func(t *testing.T) {
			log := mem.New()
			create(t, log, 2, "words", "totals", "app-again-repartition")
			write(t, log, "app-again-repartition", 2, "a=x", "b=x", "a=x")
			commit(t, log, map[cluster.TP]cluster.Offset{{Topic: "words", Partition: 0}: {}, {Topic: "words", Partition: 1}: {}})
			p := run(t, log, newDisk(), build(t, count), func(c *worker.Config) { c.Reset = reset })
			eventually(t, "the tasks run", func() bool { return len(p.Status()) == 4 })
			write(t, log, "words", 2, "a=x", "c=x")
			want := map[string]int64{"a": 3, "b": 1, "c": 1}
			eventually(t, "all are counted", func() bool { return maps.Equal(totals(t, log), want) })
			if err := p.end(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// commit commits offsets for the application as an operator does, while it does not run.
func commit(t *testing.T, log *mem.Log, offsets map[cluster.TP]cluster.Offset) {
	t.Helper()
	p, err := log.Connect().Producer(cluster.ProducerConfig{TransactionalID: "operator"})
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(p.Init(t.Context()), p.Begin(), p.CommitOffsets(t.Context(), cluster.GroupMetadata{Group: "app", Generation: -1}, offsets), p.End(t.Context(), true))
	if err != nil {
		t.Fatal(err)
	}
}
