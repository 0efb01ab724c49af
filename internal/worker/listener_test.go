package worker_test

import (
	"testing"

	"github.com/moldau/moldau/internal/cluster/mem"
	"github.com/moldau/moldau/internal/worker"
)

// A listener is told of every store that is restored: where it starts, how far it is, and its end.
func TestRestoringIsTold(t *testing.T) {
	log := mem.New()
	log.MaxBatchRecords = 10
	create(t, log, 1, "words", "totals")
	topo := build(t, count)
	p := run(t, log, newDisk(), topo, nil)
	<-p.Ready()
	records, want := words(0, 100, 40)
	write(t, log, "words", 1, records...)
	eventually(t, "all are counted", func() bool { return len(totals(t, log)) == len(want) && totals(t, log)["w0"] == want["w0"] })
	if err := p.end(); err != nil {
		t.Fatal(err)
	}
	p = run(t, log, newDisk(), topo, nil) // another machine
	eventually(t, "the store is restored", func() bool { return p.happened(worker.RestoreEnded) == 1 })
	p.mu.Lock()
	defer p.mu.Unlock()
	var at, read int64
	var kinds []worker.EventKind
	for _, e := range p.events {
		switch e.Kind {
		case worker.RestoreStarted, worker.RestoreProgress, worker.RestoreEnded:
			if e.Task != "1_0" || e.Store != "counts" || e.Topic != "app-counts-changelog" || e.From != 0 || e.To < 40 {
				t.Errorf("told of %+v", e)
			}
			if e.At < at || e.Records < read {
				t.Errorf("back to %d and %d from %d and %d", e.At, e.Records, at, read)
			}
			at, read = e.At, e.Records
			kinds = append(kinds, e.Kind)
		}
	}
	if n := len(kinds); n < 3 || kinds[0] != worker.RestoreStarted || kinds[1] != worker.RestoreProgress || kinds[n-1] != worker.RestoreEnded {
		t.Errorf("told: %q", kinds)
	}
	if read < 40 {
		t.Errorf("%d records at the end", read)
	}
}
