package worker_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/moldau/moldau/internal/cluster"
	"github.com/moldau/moldau/internal/cluster/mem"
	"github.com/moldau/moldau/internal/worker"
	"github.com/moldau/moldau/stream"
)

// sluggish is a cluster whose member, once it has tasks, does not come back from a poll before it is let go.
type sluggish struct {
	cluster.Cluster
	leave chan bool
}

func (s sluggish) Member(cfg cluster.MemberConfig) (cluster.Member, error) {
	m, err := s.Cluster.Member(cfg)
	return &sluggishMember{Member: m, leave: s.leave}, err
}

type sluggishMember struct {
	cluster.Member
	leave chan bool
	has   bool
}

func (m *sluggishMember) Poll(ctx context.Context) (cluster.Fetched, error) {
	if m.has {
		<-m.leave
	}
	f, err := m.Member.Poll(ctx)
	m.has = len(f.Events) > 0
	return f, err
}

// TestHandedOverAtTheStop: a task that has just been restored when the stop begins is closed like any other.
func TestHandedOverAtTheStop(t *testing.T) {
	log, d, leave := mem.New(), newDisk(), make(chan bool)
	create(t, log, 1, "words", "totals")
	topo := build(t, func(b *stream.Builder) { b.Stream(Words).GroupByKey().Count(Counts).ToStream().To(Totals) })
	p := run(t, log, d, topo, func(c *worker.Config) { c.Cluster = sluggish{c.Cluster, leave} })
	eventually(t, "the task is open", func() bool { return len(d.open()) == 1 })
	p.stop()
	eventually(t, "the stop has begun", func() bool { return p.State() == worker.Stopping })
	time.AfterFunc(20*time.Millisecond, func() { close(leave) }) // time for all but the poller to end
	if err := p.wait(); err != nil {
		t.Error(err)
	}
}

// TestOneOfManyCannotBeOpened: what was opened together with a task that cannot be is closed.
func TestOneOfManyCannotBeOpened(t *testing.T) {
	log, d := mem.New(), newDisk()
	create(t, log, 3, "words", "totals")
	topo := build(t, func(b *stream.Builder) { b.Stream(Words).GroupByKey().Count(Counts).ToStream().To(Totals) })
	p := run(t, log, d, topo, nil)
	records, want := words(0, 30, 10)
	write(t, log, "words", 3, records...)
	eventually(t, "all are counted", func() bool { return len(totals(t, log)) == len(want) })
	if err := p.end(); err != nil {
		t.Fatal(err)
	}
	write(t, log, "words", 3, records...)
	tp := cluster.TP{Topic: "words"}
	ends, err := log.Connect().Admin().Ends(t.Context(), false, tp)
	if err == nil {
		err = log.Connect().Admin().DeleteRecords(t.Context(), ends)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := run(t, log, d, topo, nil).wait(); !errors.Is(err, worker.ErrOffsets) {
		t.Errorf("got %v", err)
	}
}
