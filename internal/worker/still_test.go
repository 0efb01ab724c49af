package worker_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/moldau/moldau/internal/cluster"
	"github.com/moldau/moldau/internal/cluster/mem"
	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/task"
	"github.com/moldau/moldau/internal/worker"
	"github.com/moldau/moldau/stream"
)

// watched is a cluster whose members tell how many records they have brought of each partition, which ones they do not fetch, and
// what has become of their partitions.
type watched struct {
	cluster.Cluster
	*seen
}

type seen struct {
	mu     sync.Mutex
	polled map[int32]int
	paused map[int32]bool
	events map[cluster.EventKind]int
}

func watch() *seen {
	return &seen{polled: map[int32]int{}, paused: map[int32]bool{}, events: map[cluster.EventKind]int{}}
}

func (w watched) Member(cfg cluster.MemberConfig) (cluster.Member, error) {
	m, err := w.Cluster.Member(cfg)
	return watchedMember{m, w.seen}, err
}

type watchedMember struct {
	cluster.Member
	*seen
}

func (m watchedMember) Poll(ctx context.Context) (cluster.Fetched, error) {
	f, err := m.Member.Poll(ctx)
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range f.Batches {
		m.polled[b.Partition] += len(b.Records)
	}
	for _, e := range f.Events {
		m.events[e.Kind]++
	}
	return f, err
}

func (m watchedMember) Pause(tps ...cluster.TP)  { m.pausing(true, m.Member.Pause, tps) }
func (m watchedMember) Resume(tps ...cluster.TP) { m.pausing(false, m.Member.Resume, tps) }

func (m watchedMember) pausing(on bool, do func(...cluster.TP), tps []cluster.TP) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, tp := range tps {
		m.paused[tp.Partition] = on
	}
	do(tps...)
}

func (s *seen) of(partition int32) (polled int, paused bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.polled[partition], s.paused[partition]
}

func (s *seen) times(kind cluster.EventKind) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.events[kind]
}

// TestInputIsBoundedWhileAFunctionStandsStill: what it cannot take up is not fetched; tasks of other workers go on.
func TestInputIsBoundedWhileAFunctionStandsStill(t *testing.T) {
	const each, batch, cost, memory = 5000, 500, 200, 1 << 20
	log := mem.New()
	log.MaxBatchRecords = batch
	create(t, log, 2, "words", "named")
	var keys [2]string
	for i := 0; keys[0] == "" || keys[1] == ""; i++ {
		k := fmt.Sprint("k", i)
		keys[stream.Partition([]byte(k), 2)] = k
	}
	value := func(i int) string {
		return fmt.Sprintf("%0*d", cost-int(task.Cost([]flow.In{{Key: []byte(keys[0])}})), i)
	}
	records := []string{keys[0] + "=wait"}
	for i := range each {
		records = append(records, keys[0]+"="+value(i), keys[1]+"="+value(i))
	}
	write(t, log, "words", 2, records...)
	gate := make(chan struct{})
	open := sync.OnceFunc(func() { close(gate) })
	topo := build(t, func(b *stream.Builder) {
		b.Stream(Words).MapValues(func(v string) string {
			if v == "wait" {
				<-gate
			}
			return v
		}).To(Named)
	})
	s := watch()
	p := run(t, log, newDisk(), topo, func(c *worker.Config) { c.Memory, c.Cluster = memory, watched{c.Cluster, s} })
	t.Cleanup(open) // before the process is ended
	eventually(t, "the partition is not fetched any more", func() bool { _, paused := s.of(0); return paused })
	before, _ := s.of(0)
	// What input may take of the budget, the batch that goes beyond it, and the one that shows that the function stands still.
	if most := memory/8/cost + 2*batch; before > most {
		t.Errorf("%d records were fetched for a function that stands still, %d at most are to be", before, most)
	}
	named := func(key string) (values []string) {
		for _, r := range read(t, log, "named") {
			if string(r.Key) == key {
				values = append(values, string(r.Value))
			}
		}
		return values
	}
	eventually(t, "the other worker has done all of its own", func() bool { return len(named(keys[1])) == each })
	if after, paused := s.of(0); after != before || !paused {
		t.Errorf("fetched while it stood still: %d records, before %d", after, before)
	}
	open()
	eventually(t, "all is done", func() bool { return len(named(keys[0])) == each+1 })
	for i, v := range named(keys[0])[1:] {
		if v != value(i) {
			t.Fatalf("%s comes in place of %d", v, i)
		}
	}
	if err := p.end(); err != nil {
		t.Error(err)
	}
}
