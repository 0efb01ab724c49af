package worker_test

import (
	"context"
	"errors"
	"maps"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/moldau/moldau/internal/cluster/mem"
	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/worker"
	"github.com/moldau/moldau/stream"
	"github.com/moldau/moldau/topology"
)

var errBad = errors.New("a bad record")

// picky counts words, and fails for "bad" as often as is said.
func picky(t testing.TB, failures *atomic.Int32) *topology.Topology {
	return build(t, func(b *stream.Builder) {
		b.Stream(Words).TryMapValues(func(r stream.Record[string, string]) (string, error) {
			if r.Key == "bad" && failures.Add(-1) >= 0 {
				return "", errBad
			}
			return r.Value, nil
		}).GroupBy(Again, func(k, _ string) string { return k }).Count(Counts).ToStream().To(Totals)
	})
}

func TestAWorkerIsReplaced(t *testing.T) {
	log := mem.New()
	create(t, log, 2, "words", "totals")
	var failures atomic.Int32
	failures.Store(3)
	var asked atomic.Int32
	p := run(t, log, newDisk(), picky(t, &failures), func(c *worker.Config) {
		c.Uncaught = func(err error) worker.Response {
			if errors.Is(err, errBad) {
				asked.Add(1)
			}
			return worker.ReplaceWorker
		}
	})
	<-p.Ready()
	write(t, log, "words", 2, "a=x", "bad=x", "a=x", "b=x")
	want := map[string]int64{"a": 2, "bad": 1, "b": 1}
	eventually(t, "all are counted once", func() bool { return maps.Equal(totals(t, log), want) })
	if n := asked.Load(); n != 3 {
		t.Errorf("asked %d times", n)
	}
	if err := p.end(); err != nil {
		t.Fatal(err)
	}
}

func TestAWorkerIsNotReplacedForEver(t *testing.T) {
	log := mem.New()
	create(t, log, 2, "words", "totals")
	var failures atomic.Int32
	failures.Store(1 << 20)
	p := run(t, log, newDisk(), picky(t, &failures), func(c *worker.Config) {
		c.Uncaught = func(error) worker.Response { return worker.ReplaceWorker }
	})
	<-p.Ready()
	write(t, log, "words", 2, "bad=x")
	if err := p.wait(); !errors.Is(err, errBad) {
		t.Errorf("Run gives %v", err)
	}
}

// TestGoexit: a function that ends its goroutine, as FailNow does, stops the process with words; it does not hang.
func TestGoexit(t *testing.T) {
	for name, topo := range map[string]*topology.Topology{
		"of a worker": build(t, func(b *stream.Builder) {
			b.Stream(Words).Foreach(func(wordRecord) error { runtime.Goexit(); return nil })
		}),
		"of a call": build(t, func(b *stream.Builder) {
			b.Stream(Words).MapAsync(stream.Async{}, func(context.Context, wordRecord) (string, error) { runtime.Goexit(); return "", nil }).
				Foreach(func(wordRecord) error { return nil })
		}),
	} {
		log := mem.New()
		create(t, log, 2, "words")
		p := run(t, log, newDisk(), topo, nil)
		<-p.Ready()
		write(t, log, "words", 2, "a=x")
		if err := p.wait(); err == nil || !strings.Contains(err.Error(), "runtime.Goexit") || !strings.Contains(err.Error(), "0_") {
			t.Errorf("%s: Run gives %v", name, err)
		}
	}
	log := mem.New()
	create(t, log, 2, "words", "totals")
	p := run(t, log, newDisk(), build(t, count), nil)
	eventually(t, "the store can be asked", func() bool { return p.Query(t.Context(), "counts", 0, func(flow.Store) {}) == nil })
	for who, err := range map[string]error{"a query": p.Query(t.Context(), "counts", 0, func(flow.Store) { runtime.Goexit() }), "Run": p.wait()} {
		if err == nil || !strings.Contains(err.Error(), "runtime.Goexit") {
			t.Errorf("%s of a function of a query: %v", who, err)
		}
	}
}

func TestTheApplicationIsStopped(t *testing.T) {
	log := mem.New()
	create(t, log, 2, "words", "totals")
	var failures atomic.Int32
	failures.Store(1) // whoever takes over would get on
	stop := func(c *worker.Config) {
		c.Uncaught = func(error) worker.Response { return worker.StopApplication }
	}
	topo := picky(t, &failures)
	a := run(t, log, newDisk(), topo, stop)
	b := run(t, log, newDisk(), topo, stop)
	<-a.Ready()
	<-b.Ready()
	write(t, log, "words", 2, "bad=x")
	errA, errB := a.wait(), b.wait()
	if errors.Is(errA, worker.ErrStopApplication) {
		errA, errB = errB, errA
	}
	if !errors.Is(errA, errBad) || !errors.Is(errB, worker.ErrStopApplication) || !strings.Contains(errB.Error(), "a bad record") {
		t.Errorf("one gives %v, the other %v", errA, errB)
	}
	c := run(t, log, newDisk(), topo, stop) // is not stopped by the old order
	write(t, log, "words", 2, "a=x")
	eventually(t, "all is counted", func() bool { return maps.Equal(totals(t, log), map[string]int64{"bad": 1, "a": 1}) })
	if err := c.end(); err != nil {
		t.Fatal(err)
	}
}

func TestPause(t *testing.T) {
	log := mem.New()
	create(t, log, 2, "words", "totals")
	p := run(t, log, newDisk(), build(t, count), nil)
	eventually(t, "the tasks run", func() bool { return len(p.Status()) == 4 })
	write(t, log, "words", 2, "a=x")
	eventually(t, "a is counted", func() bool { return totals(t, log)["a"] == 1 })
	p.Pause()
	write(t, log, "words", 2, "a=x", "b=x")
	buffered := func() (n int64) {
		for _, s := range p.Status() {
			n += s.Buffered
		}
		return n
	}
	eventually(t, "input waits", func() bool { return buffered() > 0 })
	if got := totals(t, log); !p.Paused() || !maps.Equal(got, map[string]int64{"a": 1}) {
		t.Errorf("while paused: %v", got)
	}
	p.Resume()
	eventually(t, "all are counted", func() bool { return maps.Equal(totals(t, log), map[string]int64{"a": 2, "b": 1}) })
	if err := p.end(); err != nil {
		t.Fatal(err)
	}
}
