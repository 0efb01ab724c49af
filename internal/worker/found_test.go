package worker_test

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moldau/moldau/internal/cluster"
	"github.com/moldau/moldau/internal/cluster/mem"
	"github.com/moldau/moldau/internal/worker"
	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/stream"
)

var Lines = stream.NewTopicPattern("lines-.*", serde.String, serde.String)

// countLines counts what comes from all topics that match, by key.
func countLines(b *stream.Builder) {
	b.StreamPattern(Lines).GroupByKey().Count(Counts).ToStream().To(Totals)
}

func looking(c *worker.Config) {
	c.MetadataMaxAge, c.WatchInterval = 3*time.Millisecond, 5*time.Millisecond
}

// TestTopicsComeAndGo lets topics come into being and go while two processes share the tasks, one of which crashes.
func TestTopicsComeAndGo(t *testing.T) {
	log := mem.New()
	create(t, log, 2, "totals")
	topo := build(t, countLines)
	p, q := run(t, log, newDisk(), topo, looking), run(t, log, newDisk(), topo, looking)
	want := map[string]int64{}
	put := func(topic string, from, n int) {
		t.Helper()
		records, more := words(from, n, 20)
		write(t, log, topic, 2, records...)
		for k, v := range more {
			want[k] += v
		}
	}
	counted := func(what string) {
		t.Helper()
		eventually(t, what, func() bool { return maps.Equal(totals(t, log), want) })
	}
	eventually(t, "they run without anything to read", func() bool { return p.State() == worker.Running && q.State() == worker.Running })

	create(t, log, 2, "lines-a", "other") // and written to before anybody has seen it
	put("lines-a", 0, 200)
	counted("a topic that is found is read from its start")
	eventually(t, "both have a task", func() bool { return len(p.Status()) == 1 && len(q.Status()) == 1 })

	create(t, log, 2, "lines-b")
	put("lines-a", 200, 100)
	put("lines-b", 0, 300)
	counted("a second one is read beside it, with the state there is")

	d := p.kill()
	log.Evict("app", p.identity.Instance)
	create(t, log, 2, "lines-c")
	put("lines-c", 0, 50)
	put("lines-b", 300, 50)
	counted("the other takes over, and finds one more")
	p = run(t, log, d, topo, looking)
	put("lines-a", 300, 50)
	counted("it comes back")

	log.Delete("lines-a")
	put("lines-c", 50, 50)
	put("lines-b", 350, 50)
	counted("one that has gone is done without")
	eventually(t, "its partitions are", func() bool {
		for _, s := range append(p.Status(), q.Status()...) {
			for _, in := range s.Inputs {
				if in.Topic == "lines-a" {
					return false
				}
			}
		}
		return len(p.Status())+len(q.Status()) == 2
	})
	for _, one := range []*process{p, q} {
		if err := one.end(); err != nil {
			t.Error(err)
		}
	}
}

// TestATopicIsMadeAgainDuringARebalance: while tasks change hands, a topic that had been found is deleted and made again. Processes that had
// seen the old one stop with words, unless they have missed it meanwhile: then the new one is read from its start. No other result.
func TestATopicIsMadeAgainDuringARebalance(t *testing.T) {
	log, s := mem.New(), watch()
	create(t, log, 2, "totals", "lines-a", "lines-b")
	var still atomic.Bool
	gate := make(chan struct{})
	open := sync.OnceFunc(func() { close(gate) })
	topo := build(t, func(b *stream.Builder) {
		b.StreamPattern(Lines).Filter(func(_, v string) bool {
			if v == "wait" {
				still.Store(true)
				<-gate
			}
			return true
		}).GroupByKey().Count(Counts).ToStream().To(Totals)
	})
	begin := func(d *disk) *process {
		return run(t, log, d, topo, func(c *worker.Config) { looking(c); c.Cluster = watched{c.Cluster, s} })
	}
	disks := []*disk{newDisk(), newDisk()}
	p := begin(disks[0])
	t.Cleanup(open)
	put := func(topic string, n int) {
		records, _ := words(0, n, 10)
		write(t, log, topic, 2, records...)
	}
	put("lines-a", 50)
	put("lines-b", 50)
	are := func(each int64) bool {
		got := totals(t, log)
		for i := range 10 {
			if got[fmt.Sprint("w", i)] != each {
				return false
			}
		}
		return true
	}
	eventually(t, "it counts", func() bool { return are(10) })
	write(t, log, "lines-b", 2, "wait=wait")
	eventually(t, "its function stands still", still.Load)
	q := begin(disks[1])
	eventually(t, "tasks are revoked", func() bool { return s.times(cluster.Revoke) > 0 })
	log.Delete("lines-a")
	create(t, log, 2, "lines-a")
	put("lines-a", 70)
	open()
	for _, one := range []*process{p, q} {
		select {
		case err := <-one.done:
			one.done = nil
			one.identity.Close()
			if !errors.Is(err, worker.ErrTopics) || !strings.Contains(err.Error(), `"lines-a"`) {
				t.Errorf("it has stopped: %v", err)
			}
		case <-whenever(t, func() bool { return are(17) }):
		}
	}
}

// whenever is closed once something is so, or the test has ended.
func whenever(t *testing.T, ok func() bool) <-chan struct{} {
	done := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		defer close(done)
		await(t.Context(), ok)
	})
	t.Cleanup(all.Wait)
	return done
}

// TestATopicThatDoesNotGoWithTheOthers stops the application before anything of it is read.
func TestATopicThatDoesNotGoWithTheOthers(t *testing.T) {
	log := mem.New()
	create(t, log, 2, "totals", "lines-a")
	p := run(t, log, newDisk(), build(t, countLines), looking)
	write(t, log, "lines-a", 2, "a=x")
	eventually(t, "it counts", func() bool { return totals(t, log)["a"] == 1 })
	create(t, log, 3, "lines-b")
	if err := p.wait(); !errors.Is(err, worker.ErrTopics) || !strings.Contains(err.Error(), `topic "lines-a" has 2 partitions and topic "lines-b" has 3`) {
		t.Error(err)
	}
}

// TestTheLatestOfATopicThatIsFound begins where it ends when it is found, as Kafka Streams does.
func TestTheLatestOfATopicThatIsFound(t *testing.T) {
	log := mem.New()
	create(t, log, 1, "totals", "lines-a")
	write(t, log, "lines-a", 1, "a=x", "a=x")
	p := run(t, log, newDisk(), build(t, func(b *stream.Builder) {
		b.StreamPattern(Lines.FromLatest()).GroupByKey().Count(Counts).ToStream().To(Totals)
	}), looking)
	eventually(t, "it runs", func() bool { return len(p.Status()) == 1 })
	eventually(t, "it has begun at the end", func() bool {
		write(t, log, "lines-a", 1, "b=x")
		return totals(t, log)["b"] > 0
	})
	if n := totals(t, log)["a"]; n != 0 {
		t.Errorf("counted %d that were there before", n)
	}
	at, err := log.Connect().Admin().Committed(t.Context(), "app", cluster.TP{Topic: "lines-a"})
	if err != nil || len(at) != 1 {
		t.Error(at, err)
	}
}
