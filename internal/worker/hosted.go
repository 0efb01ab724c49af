package worker

import (
	"context"

	"github.com/moldau/moldau/internal/cluster"
	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/task"
	"github.com/moldau/moldau/internal/tier"
	"github.com/moldau/moldau/topology"
)

// hosted is an open task. It belongs to the keeper until it is restored, then to a worker.
type hosted struct {
	slot     *slot
	name     string
	sub      *topology.Sub
	task     *task.Task
	caller   *caller
	db       tier.DB // nil: no stores
	stores   []*opened
	start    map[cluster.TP]int64 // where reading begins
	sequence int64                // of its last commit

	// The worker's.
	labels    context.Context
	seeks     map[cluster.TP]int
	paused    map[cluster.TP]int64 // partitions that are not fetched until no more than so many bytes of them wait
	leaving   bool
	queued    int64  // bytes of input in its queues
	sealed    uint32 // the task's own number of the epoch being committed; 0: it takes no part
	sealedAt  map[cluster.TP]cluster.Offset
	committed map[cluster.TP]int64
	punctuals int64 // punctuations as of the last step
	arrived   int64 // when the oldest input of the open epoch came, ms; 0: none
	sealedIn  int64 // the same of the epoch being committed
}

// opened is one open store.
type opened struct {
	name      string
	store     flow.Store
	tier      tier.Store
	changelog cluster.TP  // zero: none
	replay    flow.Replay // the changelog is a source topic; nil: it is not
	from      int64       // where restoring begins
	end       int64       // of the changelog, when the task was opened; of a source topic, what has been committed
}

// memory is what the task's stores hold.
func (h *hosted) memory() int64 {
	var n int64
	for _, s := range h.stores {
		n += s.store.Memory()
	}
	if h.db != nil {
		n += h.db.Memory()
	}
	return n
}

// close closes everything; with flush, what is committed is made durable first, so that the next start has less to restore.
func (h *hosted) close(flush bool, now int64) error {
	var first error
	note := func(err error) {
		if err != nil && first == nil {
			first = err
		}
	}
	if h.task != nil {
		note(h.task.Close())
	}
	if h.db != nil && flush {
		note(h.db.Flush(now))
	}
	for _, s := range h.stores {
		note(s.store.Close())
	}
	if h.db != nil {
		note(h.db.Close())
	}
	return first
}
