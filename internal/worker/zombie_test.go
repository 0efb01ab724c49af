package worker_test

import (
	"encoding/binary"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moldau/moldau/internal/cluster/mem"
	"github.com/moldau/moldau/internal/worker"
	"github.com/moldau/moldau/stream"
)

// TestAZombieCommitsNothing: a process whose function took longer than the session commits nothing of what it has at
// hand, for another has done it meanwhile. It may only join the group again once that is undone.
func TestAZombieCommitsNothing(t *testing.T) {
	for name, transactional := range map[string]bool{"exactly once": true, "at least once": false} {
		t.Run(name, func(t *testing.T) {
			log := mem.New()
			create(t, log, 2, "words", "totals")
			var asleep atomic.Bool
			entered, wake := make(chan bool), make(chan bool)
			sleepy := func(b *stream.Builder) {
				b.Stream(Words).MapValues(func(v string) string {
					if v == "sleep" && asleep.CompareAndSwap(false, true) {
						entered <- true
						<-wake
					}
					return v
				}).GroupByKey().Count(Counts).ToStream().To(Totals)
			}
			change := func(c *worker.Config) {
				c.Workers, c.Transactional, c.TransactionTimeout = 1, transactional, time.Second
			}
			greatest := func() (n uint64) {
				for _, r := range read(t, log, "totals") {
					n = max(n, binary.BigEndian.Uint64(r.Value))
				}
				return n
			}
			one := run(t, log, newDisk(), build(t, sleepy), change)
			eventually(t, "one has all tasks", func() bool { return len(one.Status()) == 2 })
			write(t, log, "words", 1, "a=sleep", "a=x", "a=x")
			<-entered
			two := run(t, log, newDisk(), build(t, sleepy), change)
			eventually(t, "two is in the group", func() bool { return two.State() == worker.Running })
			log.Evict("app", one.identity.Instance)
			eventually(t, "two takes over", func() bool { return len(two.Status()) == 2 })
			eventually(t, "two counts", func() bool { return greatest() == 3 })
			undone := one.happened(worker.EpochUndone)
			close(wake)
			eventually(t, "one takes its work back", func() bool { return one.happened(worker.EpochUndone) > undone })
			eventually(t, "one is back", func() bool { return len(one.Status()) == 1 && len(two.Status()) == 1 })
			write(t, log, "words", 1, "a=y")
			eventually(t, "the next is counted", func() bool { return greatest() >= 4 })
			if transactional {
				totals(t, log) // checks that no count comes twice
			}
			if n := greatest(); n != 4 {
				t.Errorf("four were counted as %d", n)
			}
			for _, p := range []*process{one, two} {
				if err := p.end(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
