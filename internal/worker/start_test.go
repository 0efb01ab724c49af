package worker_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moldau/moldau/internal/cluster"
	"github.com/moldau/moldau/internal/cluster/mem"
	"github.com/moldau/moldau/internal/worker"
)

// absent is a cluster whose broker answers questions about topics only after some calls.
type absent struct {
	cluster.Cluster
	calls *atomic.Int32 // that it does not answer
}

func (a absent) Admin() cluster.Admin { return absentAdmin{a.Cluster.Admin(), a.calls} }

type absentAdmin struct {
	cluster.Admin
	calls *atomic.Int32
}

func (a absentAdmin) Describe(ctx context.Context, topics ...string) (map[string]cluster.TopicInfo, error) {
	if a.calls.Add(-1) >= 0 {
		return nil, fmt.Errorf("describing topics: %w", cluster.ErrUnreachable)
	}
	return a.Admin.Describe(ctx, topics...)
}

// A process that starts while its broker restarts waits for it; not for ever, for an address may be wrong.
func TestStartWaitsForTheCluster(t *testing.T) {
	log := mem.New()
	create(t, log, 1, "words", "totals")
	away := func(calls int32, clock func() time.Time) *process {
		return run(t, log, newDisk(), build(t, count), func(c *worker.Config) {
			left := &atomic.Int32{}
			left.Store(calls)
			c.Cluster = absent{c.Cluster, left}
			c.Now = clock
		})
	}
	p := away(3, time.Now)
	select {
	case <-p.Ready():
	case err := <-p.done:
		t.Fatalf("the start does not wait: %v", err)
	}
	if err := p.end(); err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int64
	p = away(1<<30, func() time.Time { return time.Now().Add(time.Duration(asked.Add(1)) * 10 * time.Second) })
	if err := p.wait(); !errors.Is(err, cluster.ErrUnreachable) {
		t.Errorf("the start ends with %v", err)
	}
}
