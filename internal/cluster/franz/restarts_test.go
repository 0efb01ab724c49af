package franz

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/moldau/moldau/internal/assign"
	"github.com/moldau/moldau/internal/broker"
	"github.com/moldau/moldau/internal/cluster"
	"github.com/moldau/moldau/internal/flow"
)

// A copy of a topic, exactly once, goes on while its broker stops and starts again.
func TestBrokerRestarts(t *testing.T) {
	dir := t.TempDir()
	type running struct {
		*broker.Broker
		life context.Context // ends with it
		end  context.CancelFunc
	}
	var now atomic.Pointer[running]
	start := func() {
		b, err := broker.Start(context.Background(), broker.Config{Dir: dir, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
		must(t, err)
		life, end := context.WithCancel(t.Context())
		now.Store(&running{b, life, end})
	}
	start()
	defer func() { must(t, now.Load().Close()) }()
	c, err := New(Config{Brokers: []string{"bundled:9092"}, Options: []kgo.Opt{kgo.Dialer(func(ctx context.Context, n, a string) (net.Conn, error) {
		return now.Load().Dial(ctx, n, a)
	})}})
	must(t, err)
	defer c.Close()

	const total = 5000
	in, out := fresh(t, c, "in", 1), fresh(t, c, "out", 1)
	at := cluster.TP{Topic: in.Name}
	w, err := c.Producer(cluster.ProducerConfig{})
	must(t, err)
	must(t, w.Init(t.Context()))
	var want []string
	var records []flow.Out
	// Retention goes by the time of records, so they must have one of today: should the test take more than a minute, a
	// topic of 1970 would be deleted under the copier.
	today := time.Now().UnixMilli()
	for i := range total {
		want = append(want, fmt.Sprint(i))
		records = append(records, flow.Out{Topic: in, Time: today, Value: []byte(want[i])})
	}
	loaded := make(chan error, 1)
	w.Produce(records, func(_ map[cluster.TP]int64, err error) { loaded <- err })
	must(t, <-loaded)
	w.Close()

	cp := &copier{t: t, c: c, in: at, out: out, life: func() context.Context { return now.Load().life }}
	restarts := 0
	var restarting sync.WaitGroup
	cp.pass = func(ending bool) {
		if restarts == 6 || cp.committed < int64(total*(restarts+1)/8) || ending != (restarts%2 == 0) {
			return
		}
		restarts++
		restarting.Wait()
		restarting.Go(func() {
			b := now.Load()
			if err := b.Close(); err != nil {
				t.Error(err)
			}
			b.end()
			start()
		})
	}
	cp.open()
	for cp.committed < total {
		cp.step()
	}
	cp.close()
	restarting.Wait()

	r, err := c.Reader()
	must(t, err)
	defer r.Close()
	r.Assign(map[cluster.TP]int64{{Topic: out.Name}: -1})
	var got []string
	for deadline := time.Now().Add(time.Minute); len(got) < total && time.Now().Before(deadline); {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		batches, err := r.Poll(ctx)
		cancel()
		must(t, err)
		for _, b := range batches {
			for _, rec := range b.Records {
				got = append(got, string(rec.Value))
			}
			b.Release()
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d records in, %d out: %v", len(want), len(got), got)
	}
	t.Logf("%d restarts, %d transactions of unknown outcome, %d aborted", restarts, cp.unknown, cp.aborted)
}

// copier is the smallest worker: one transaction per batch.
type copier struct {
	t         *testing.T
	c         *Cluster
	in        cluster.TP
	out       *flow.Topic
	m         cluster.Member
	p         cluster.Producer
	owned     bool
	committed int64
	unknown   int
	aborted   int
	life      func() context.Context // of the broker that runs
	pass      func(ending bool)      // is called as a transaction is about to end, and once it has
}

func (cp *copier) open() {
	var err error
	cp.p, err = cp.c.Producer(cluster.ProducerConfig{TransactionalID: cp.out.Name})
	must(cp.t, err)
	must(cp.t, cp.p.Init(cp.t.Context()))
	cp.m, err = cp.c.Member(cluster.MemberConfig{Group: cp.out.Name, Instance: "p", Subtopologies: []assign.Subtopology{{Topics: []string{cp.in.Topic}}}})
	must(cp.t, err)
}

func (cp *copier) close() {
	cp.m.Close()
	cp.p.Close()
}

// rewind goes back to what is committed.
func (cp *copier) rewind() {
	var got map[cluster.TP]cluster.Offset
	must(cp.t, cp.patiently(func(ctx context.Context) (err error) {
		got, err = cp.c.Admin().Committed(ctx, cp.out.Name, cp.in)
		return err
	}))
	cp.committed = got[cp.in].At
	cp.m.Seek(map[cluster.TP]int64{cp.in: cp.committed})
}

func (cp *copier) step() {
	ctx, cancel := context.WithTimeout(cp.t.Context(), 50*time.Millisecond)
	f, err := cp.m.Poll(ctx)
	cancel()
	must(cp.t, err)
	for _, e := range f.Events {
		switch e.Kind {
		case cluster.Assigned:
			if len(e.Partitions) > 0 {
				cp.owned = true
				cp.rewind()
			}
		case cluster.Revoke:
			cp.t.Fatal("revoked from the only member")
		case cluster.Lost:
			cp.owned = false
			cp.m.Released()
		}
	}
	for _, b := range f.Batches {
		// Small transactions, so that restarts hit many places.
		for part := range slices.Chunk(b.Records, 10) {
			ok := cp.transaction(part)
			cp.pass(false)
			if !ok {
				cp.rewind()
				break
			}
		}
		b.Release()
	}
}

// patiently tries again while the broker is away or the group moves; what it returns will not pass by itself. That the
// group knows nothing of us any more does not, before it has been polled.
func (cp *copier) patiently(f func(context.Context) error) error {
	began := time.Now()
	for deadline := began.Add(90 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(cp.t.Context(), 2*time.Second)
		err := f(ctx)
		cancel()
		gone := errors.Is(err, cluster.ErrGeneration) && time.Since(began) > 200*time.Millisecond
		if err == nil || gone || errors.Is(err, cluster.ErrFenced) || errors.Is(err, cluster.ErrAborted) || time.Now().After(deadline) {
			return err
		}
	}
}

// transaction copies records; false: start again from what is committed.
func (cp *copier) transaction(records []flow.In) bool {
	must(cp.t, cp.p.Begin())
	var out []flow.Out
	for _, r := range records {
		out = append(out, flow.Out{Topic: cp.out, Time: r.Time, Value: slices.Clone(r.Value)})
	}
	ch := make(chan error, 1)
	cp.p.Produce(out, func(_ map[cluster.TP]int64, err error) { ch <- err })
	cp.p.Flush()
	err := <-ch
	next := records[len(records)-1].Offset + 1
	if err == nil {
		err = cp.patiently(func(ctx context.Context) error {
			return cp.p.CommitOffsets(ctx, cp.m.Group(), map[cluster.TP]cluster.Offset{cp.in: {At: next}})
		})
	}
	if err != nil {
		cp.t.Logf("aborting: %v", err)
		cp.aborted++
		must(cp.t, cp.patiently(func(ctx context.Context) error { return cp.p.End(ctx, false) }))
		return false
	}
	// No answer is waited for that was on its way when the broker stopped: its next life would send one.
	ctx, cancel := context.WithTimeout(cp.life(), time.Minute)
	defer cancel()
	cp.pass(true)
	switch err = cp.p.End(ctx, true); {
	case err == nil:
		cp.committed = next
		return true
	case errors.Is(err, cluster.ErrUnknown):
		cp.unknown++
		must(cp.t, cp.patiently(cp.p.Init))
	default:
		cp.t.Logf("not committed: %v", err)
		cp.aborted++
	}
	return false
}
