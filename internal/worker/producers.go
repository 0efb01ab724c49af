package worker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/moldau/moldau/internal/cluster"
)

// producers initialises every transactional id that the state directory ever used, all at once, and returns the
// producers that are needed now. What a crash left open is thereby ended before the group is joined.
func (n *Node) producers(ctx context.Context) ([]cluster.Producer, error) {
	id := n.cfg.Identity
	want := min(n.cfg.Workers, max(n.taskCount(), 1))
	if n.cfg.Topology.Patterns() {
		want = n.cfg.Workers // there may be more tasks later
	}
	ever := max(want, id.Producers)
	if ever > id.Producers {
		id.Producers = ever
		if err := id.save(); err != nil {
			return nil, err
		}
	}
	if !n.cfg.Transactional {
		ever = want
	}
	producers := make([]cluster.Producer, ever)
	errs := make([]error, ever)
	var wg sync.WaitGroup
	for i := range producers {
		wg.Go(func() { producers[i], errs[i] = n.newProducer(ctx, i) })
	}
	wg.Wait()
	err := errors.Join(errs...)
	for i, p := range producers {
		if p != nil && (err != nil || i >= want) {
			p.Close()
		}
	}
	if err != nil {
		return nil, err
	}
	return producers[:want], nil
}

func (n *Node) newProducer(ctx context.Context, i int) (cluster.Producer, error) {
	cfg := cluster.ProducerConfig{TransactionTimeout: n.cfg.TransactionTimeout}
	if n.cfg.Transactional {
		cfg.TransactionalID = n.cfg.Identity.TransactionalID(i)
	}
	p, err := n.cfg.Cluster.Producer(cfg)
	if err != nil {
		return nil, fmt.Errorf("making producer %d: %w", i, err)
	}
	for attempt := 0; ; attempt++ {
		if err = p.Init(ctx); err == nil {
			return p, nil
		}
		if ctx.Err() != nil || !transient(err) {
			p.Close()
			return nil, fmt.Errorf("initialising producer %d: %w", i, err)
		}
		if attempt%20 == 0 {
			n.log.Warn("initialising a producer fails, trying again", "producer", i, "error", err)
		}
		sleep(ctx, min(time.Duration(attempt+1)*20*time.Millisecond, time.Second))
	}
}
