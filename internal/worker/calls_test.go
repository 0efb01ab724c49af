package worker_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moldau/moldau/internal/cluster"
	"github.com/moldau/moldau/internal/cluster/mem"
	"github.com/moldau/moldau/internal/worker"
	"github.com/moldau/moldau/stream"
)

type wordRecord = stream.Record[string, string]

// answers is what is committed in the topic "named", by key.
func answers(t testing.TB, log *mem.Log) map[string]string {
	t.Helper()
	got := map[string]string{}
	for _, r := range read(t, log, "named") {
		got[string(r.Key)] += string(r.Value) + " "
	}
	return got
}

// TestCallsUnderFaults has calls take any time, the cluster refuse commits, and the process be killed and stopped: each record has one
// result, in the order of its key.
func TestCallsUnderFaults(t *testing.T) {
	log := mem.New()
	create(t, log, 2, "words", "named")
	var mu sync.Mutex
	r := rand.New(rand.NewPCG(3, 4))
	random := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		return r.IntN(n)
	}
	var off atomic.Bool
	lucky := func(n int) bool { return off.Load() || random(n) > 0 }
	log.Faults = mem.Faults{
		CommitOffsets: func(string) error {
			if lucky(10) {
				return nil
			}
			return []error{cluster.ErrGeneration, cluster.ErrAborted, errors.New("connection reset")}[random(3)]
		},
		End: func(_ string, commit bool) mem.EndFault {
			if lucky(8) || !commit {
				return mem.Ended
			}
			return mem.EndFault(1 + random(3))
		},
	}
	var calls atomic.Int64
	topo := build(t, func(b *stream.Builder) {
		b.Stream(Words).MapAsync(stream.Async{MaxInFlight: 8}, func(ctx context.Context, r wordRecord) (string, error) {
			calls.Add(1)
			select {
			case <-time.After(time.Duration(random(2000)) * time.Microsecond):
				return r.Value, nil
			case <-ctx.Done():
				return "", ctx.Err()
			}
		}).To(Named)
	})
	d := newDisk()
	begin := func() *process { return run(t, log, d, topo, nil) }
	p := begin()
	want := map[string]string{}
	for i := range 20 {
		var records []string
		for j := range 30 {
			k, v := fmt.Sprintf("w%d", random(20)), fmt.Sprint(i*30+j)
			records = append(records, k+"="+v)
			want[k] += v + " "
		}
		before := calls.Load()
		write(t, log, "words", 2, records...)
		eventually(t, "it calls", func() bool { return calls.Load() > before+10 })
		switch i {
		case 5, 10:
			d = p.kill()
			p = begin()
		case 15:
			if err := p.end(); err != nil {
				t.Error(err)
			}
			p = begin()
		}
	}
	off.Store(true)
	eventually(t, "all are answered", func() bool { return maps.Equal(answers(t, log), want) })
	if calls.Load() <= 600 {
		t.Errorf("%d calls for 600 records: nothing was called again, so the test proves little", calls.Load())
	}
}

// TestCallsUnderRebalances has tasks revoked and lost, and processes killed and stopped, while calls of theirs are out.
func TestCallsUnderRebalances(t *testing.T) {
	log := mem.New()
	create(t, log, 4, "words", "named")
	var out atomic.Int64
	var gate atomic.Pointer[chan struct{}]
	topo := build(t, func(b *stream.Builder) {
		b.Stream(Words).MapAsync(stream.Async{MaxInFlight: 8}, func(ctx context.Context, r wordRecord) (string, error) {
			out.Add(1)
			defer out.Add(-1)
			select {
			case <-*gate.Load():
				return r.Value, nil
			case <-ctx.Done():
				return "", ctx.Err()
			}
		}).To(Named)
	})
	s := watch()
	begin := func(d *disk) *process {
		return run(t, log, d, topo, func(c *worker.Config) { c.Cluster = watched{c.Cluster, s} })
	}
	want, n := map[string]string{}, 0
	open := func() {}
	t.Cleanup(func() { open() })
	// while has calls out when something happens, and expects one result of each record, in order, once they come back.
	while := func(what string, happens func()) {
		t.Helper()
		shut := make(chan struct{})
		gate.Store(&shut)
		open = sync.OnceFunc(func() { close(shut) })
		var records []string
		for range 80 {
			k, v := fmt.Sprint("w", n%13), fmt.Sprint(n)
			records = append(records, k+"="+v)
			want[k] += v + " "
			n++
		}
		write(t, log, "words", 4, records...)
		eventually(t, what+": calls are out", func() bool { return out.Load() >= 8 })
		happens()
		open()
		eventually(t, what+": all are answered", func() bool { return maps.Equal(answers(t, log), want) })
	}
	ends := func(p *process) {
		t.Helper()
		if err := p.end(); err != nil {
			t.Error(err)
		}
	}
	p := begin(newDisk())
	var q *process
	while("another process joins", func() {
		q = begin(newDisk())
		eventually(t, "tasks are revoked", func() bool { return s.times(cluster.Revoke) > 0 })
	})
	eventually(t, "both have tasks", func() bool { return len(p.Status()) == 2 && len(q.Status()) == 2 })
	while("the group loses a process", func() {
		log.Evict("app", p.identity.Instance)
		eventually(t, "tasks are lost", func() bool { return s.times(cluster.Lost) > 0 })
	})
	while("a process is killed", func() {
		d := q.kill()
		log.Evict("app", q.identity.Instance)
		q = begin(d)
	})
	while("a process is stopped", func() { ends(p) })
	while("it comes back", func() { p = begin(newDisk()) })
	ends(p)
	ends(q)
}

// TestASlowCall holds up neither the tasks beside its own nor a stop; the next run makes it again.
func TestASlowCall(t *testing.T) {
	log := mem.New()
	create(t, log, 2, "words", "named")
	begun, ended := make(chan bool, 10), make(chan error, 10)
	slow := atomic.Bool{}
	slow.Store(true)
	topo := build(t, func(b *stream.Builder) {
		b.Stream(Words).MapAsync(stream.Async{Timeout: time.Minute}, func(ctx context.Context, r wordRecord) (string, error) {
			if r.Value == "slow" && slow.Load() {
				begun <- true
				<-ctx.Done()
				ended <- context.Cause(ctx)
				return "", ctx.Err()
			}
			return strings.ToUpper(r.Value), nil
		}).To(Named)
	})
	key := [2]string{}
	for i := 0; key[0] == "" || key[1] == ""; i++ {
		k := fmt.Sprint("k", i)
		key[stream.Partition([]byte(k), 2)] = k
	}
	p := run(t, log, newDisk(), topo, func(c *worker.Config) { c.Workers = 1 })
	write(t, log, "words", 2, key[0]+"=a", key[0]+"=slow", key[0]+"=b")
	<-begun
	for range 3 {
		write(t, log, "words", 2, key[1]+"=c")
	}
	eventually(t, "the other task commits", func() bool { return answers(t, log)[key[1]] == "C C C " })
	if got := answers(t, log)[key[0]]; strings.Contains(got, "B") {
		t.Errorf("results overtake: %s", got)
	}
	at := time.Now()
	if err := p.end(); err != nil {
		t.Error(err)
	}
	if took := time.Since(at); took > 3*time.Second {
		t.Errorf("the stop took %v", took)
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	slow.Store(false)
	run(t, log, newDisk(), topo, nil)
	eventually(t, "the rest is answered", func() bool { return answers(t, log)[key[0]] == "A SLOW B " })
}

// TestACallThatTakesTooLong is an error of its record.
func TestACallThatTakesTooLong(t *testing.T) {
	log := mem.New()
	create(t, log, 1, "words", "named")
	topo := build(t, func(b *stream.Builder) {
		b.Stream(Words).MapAsync(stream.Async{Timeout: 10 * time.Millisecond}, func(ctx context.Context, r wordRecord) (string, error) {
			<-ctx.Done()
			return "", fmt.Errorf("asking: %w", ctx.Err())
		}).To(Named)
	})
	p := run(t, log, newDisk(), topo, nil)
	write(t, log, "words", 1, "k=v")
	err := p.wait()
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "calling words[0]@0 in mapAsync-1") || !strings.Contains(err.Error(), "no answer within 10ms: asking: ") {
		t.Error(err)
	}
}
