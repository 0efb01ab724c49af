// Package clustertest holds what every implementation of package cluster must do, as tests: a function of a factory. The
// in-memory cluster runs it always, franz-go runs it against Apache Kafka and against the bundled broker.
package clustertest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/moldau/moldau/internal/assign"
	"github.com/moldau/moldau/internal/cluster"
	"github.com/moldau/moldau/internal/flow"
)

// Setup tells the suite how to reach the cluster under test.
type Setup struct {
	// Connect opens the cluster as another process would.
	Connect func(t testing.TB) cluster.Cluster
	// Unreliable opens it over a connection that can fail.
	Unreliable func(t testing.TB) (cluster.Cluster, Fault)
	// Evict ends the session of a static member.
	Evict func(t testing.TB, group, instance string)
	// Delete removes a topic.
	Delete func(t testing.TB, topic string)
	// Unique distinguishes names of this run from those of earlier ones on the same cluster.
	Unique string
	// Restart bounds the time from opening a killed process's successor to its first record.
	Restart time.Duration
}

// Fault breaks the connection of one process.
type Fault interface {
	// LoseEnd cuts the connection at the next request that ends a transaction: before the broker has seen it, or after.
	LoseEnd(seen bool)
	// Heal brings the connection back.
	Heal()
}

// Run checks a cluster.
func Run(t *testing.T, s Setup) {
	for _, c := range []struct {
		name string
		test func(*env)
	}{
		{"topics", topics},
		{"records", records},
		{"partition left open", anyPartition},
		{"delete records", deleteRecords},
		{"reader", readerMoves},
		{"commit and abort", commitAndAbort},
		{"open transaction", openTransaction},
		{"offsets with records", offsetsWithRecords},
		{"offsets alone in a transaction", offsetsAlone},
		{"nothing in a transaction", nothingInTransaction},
		{"refused records", refusedRecords},
		{"abandon", abandon},
		{"fenced", fenced},
		{"fenced while committing offsets", fencedOffsets},
		{"unknown outcome", unknownOutcome},
		{"dead writers", deadWriters},
		{"recreated topic", recreatedTopic},
		{"member", memberReads},
		{"plain commit", plainCommit},
		{"pause", pause},
		{"two members", twoMembers},
		{"generation", generation},
		{"evicted", evicted},
		{"leave", leave},
		{"topics found by pattern", found},
		{"restart", restart},
		{"restart among others", restartOfMany},
		{"restart before tasks are handed over", restartWhileReleasing},
		{"two with one instance id", usurped},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.test(&env{T: t, s: s, c: s.Connect(t), name: s.Unique + "-" + words(c.name)})
		})
	}
}

func words(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c == ' ' {
			b[i] = '-'
		}
	}
	return string(b)
}

// env is one test.
type env struct {
	*testing.T
	s    Setup
	c    cluster.Cluster
	name string
}

const patience = 15 * time.Second

func (e *env) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	e.Cleanup(cancel)
	return ctx
}

func (e *env) must(err error) {
	e.Helper()
	if err != nil {
		e.Fatal(err)
	}
}

func (e *env) is(err, want error) {
	e.Helper()
	if !errors.Is(err, want) {
		e.Fatalf("got %v, want %v", err, want)
	}
}

// topic creates one of the test's topics.
func (e *env) topic(suffix string, partitions int32) *flow.Topic {
	e.Helper()
	name := e.name + "-" + suffix
	e.must(e.c.Admin().Create(e.ctx(), cluster.TopicSpec{Name: name, Partitions: partitions, Replication: -1}))
	return &flow.Topic{Name: name, Partitions: partitions}
}

func (e *env) producer(c cluster.Cluster, id string) cluster.Producer {
	e.Helper()
	if id != "" {
		id = e.name + "-" + id
	}
	p, err := c.Producer(cluster.ProducerConfig{TransactionalID: id})
	e.must(err)
	e.Cleanup(p.Close)
	e.must(p.Init(e.ctx()))
	return p
}

func (e *env) reader(from map[cluster.TP]int64) *source {
	e.Helper()
	r, err := e.c.Reader()
	e.must(err)
	e.Cleanup(r.Close)
	r.Assign(from)
	return &source{poll: func(ctx context.Context) ([]cluster.Batch, error) { return r.Poll(ctx) }, got: map[cluster.TP][]string{}, Reader: r}
}

// out makes records of a partition with the given values.
func out(t *flow.Topic, partition int32, values ...string) []flow.Out {
	records := make([]flow.Out, len(values))
	for i, v := range values {
		records[i] = flow.Out{Topic: t, Partition: partition, Time: 1000 + int64(i), Key: []byte("k" + v), Value: []byte(v)}
	}
	return records
}

// result is what a done function was called with.
type result struct {
	ends map[cluster.TP]int64
	err  error
}

func produce(p cluster.Producer, records []flow.Out) chan result {
	ch := make(chan result, 1)
	p.Produce(records, func(ends map[cluster.TP]int64, err error) { ch <- result{ends, err} })
	p.Flush()
	return ch
}

func (e *env) wait(ch chan result) result {
	e.Helper()
	select {
	case r := <-ch:
		return r
	case <-time.After(patience):
		e.Fatal("the done function was not called")
		return result{}
	}
}

func (e *env) write(p cluster.Producer, records []flow.Out) map[cluster.TP]int64 {
	e.Helper()
	r := e.wait(produce(p, records))
	e.must(r.err)
	return r.ends
}

// source gathers what batches bring.
type source struct {
	cluster.Reader
	poll func(context.Context) ([]cluster.Batch, error)
	got  map[cluster.TP][]string
	next map[cluster.TP]int64
}

func (s *source) take(batches []cluster.Batch) error {
	if s.next == nil {
		s.next = map[cluster.TP]int64{}
	}
	for _, b := range batches {
		for _, r := range b.Records {
			if r.Offset < s.next[b.TP] {
				return fmt.Errorf("%v: offset %d came after %d", b.TP, r.Offset, s.next[b.TP]-1)
			}
			s.next[b.TP] = r.Offset + 1
			s.got[b.TP] = append(s.got[b.TP], string(r.Value))
		}
		if b.Next < s.next[b.TP] {
			return fmt.Errorf("%v: the batch goes on at %d, its records end at %d", b.TP, b.Next, s.next[b.TP])
		}
		s.next[b.TP] = b.Next
		b.Release()
	}
	return nil
}

// until polls until the condition holds.
func (e *env) until(what string, poll func(context.Context) error, cond func() bool) {
	e.Helper()
	for deadline := time.Now().Add(patience); ; {
		if cond() {
			return
		}
		if time.Now().After(deadline) {
			e.Fatalf("waited in vain for %s", what)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		err := poll(ctx)
		cancel()
		e.must(err)
	}
}

func (e *env) step(s *source) func(context.Context) error {
	return func(ctx context.Context) error {
		batches, err := s.poll(ctx)
		if err != nil {
			return err
		}
		return s.take(batches)
	}
}

// reads waits for exactly these values of a partition.
func (e *env) reads(s *source, at cluster.TP, want ...string) {
	e.Helper()
	e.until(fmt.Sprintf("%v of %v, got %v", want, at, s.got[at]), e.step(s), func() bool { return len(s.got[at]) >= len(want) })
	if !slices.Equal(s.got[at], want) {
		e.Fatalf("%v holds %v, want %v", at, s.got[at], want)
	}
}

// reaches waits until the reader stands at the partition's end, whatever lies before it. The answer to End may come
// before the markers are written, so the end is asked for again and again.
func (e *env) reaches(s *source, at cluster.TP) {
	e.Helper()
	var pos, end int64
	e.until(fmt.Sprintf("the end of %v", at), e.step(s), func() bool {
		ends, err := e.c.Admin().Ends(e.ctx(), false, at)
		e.must(err)
		pos, _ = s.Position(at)
		end = ends[at]
		return pos >= end
	})
	if pos != end {
		e.Fatalf("%v: position %d, end %d", at, pos, end)
	}
}

// holds is reads from the start to the end.
func (e *env) holds(at cluster.TP, want ...string) {
	e.Helper()
	s := e.reader(map[cluster.TP]int64{at: -1})
	defer s.Close()
	e.reaches(s, at)
	if !slices.Equal(s.got[at], want) {
		e.Fatalf("%v holds %v, want %v", at, s.got[at], want)
	}
}

func tp(t *flow.Topic, partition int32) cluster.TP {
	return cluster.TP{Topic: t.Name, Partition: partition}
}

// one is a topology of one sub-topology.
func one(topics ...*flow.Topic) []assign.Subtopology {
	s := assign.Subtopology{}
	for _, t := range topics {
		s.Topics = append(s.Topics, t.Name)
	}
	return []assign.Subtopology{s}
}

// process is a member of the test's group: it seeks what it is assigned, at once, and notes what happens to it.
type process struct {
	cluster.Member
	*source
	c       cluster.Cluster
	e       *env
	owned   map[cluster.TP]bool
	revoked []cluster.TP // to be answered
	lost    []cluster.TP
	plan    []byte
	events  int
	hold    bool // do not answer revocations and losses
}

func (p *process) Close()                                            { p.Member.Close() }
func (p *process) Position(at cluster.TP) (int64, bool)              { return p.Member.Position(at) }
func (p *process) Poll(ctx context.Context) (cluster.Fetched, error) { return p.Member.Poll(ctx) }

func (e *env) member(c cluster.Cluster, instance string, subs []assign.Subtopology) *process {
	e.Helper()
	m, err := c.Member(cluster.MemberConfig{Group: e.name, Instance: instance, Subtopologies: subs, Endpoint: "host-" + instance, SessionTimeout: 6 * time.Second})
	e.must(err)
	e.Cleanup(m.Close)
	return &process{Member: m, source: &source{got: map[cluster.TP][]string{}}, c: c, e: e, owned: map[cluster.TP]bool{}}
}

// step polls once and does what a worker would.
func (p *process) step(ctx context.Context) error {
	f, err := p.Member.Poll(ctx)
	if err != nil {
		return err
	}
	for _, ev := range f.Events {
		p.events++
		switch ev.Kind {
		case cluster.Assigned:
			p.plan = ev.UserData
			at, err := p.c.Admin().Committed(ctx, p.e.name, ev.Partitions...)
			for err != nil { // the poll's context is short; ask until there is an answer
				at, err = p.c.Admin().Committed(p.e.ctx(), p.e.name, ev.Partitions...)
			}
			seek := map[cluster.TP]int64{}
			for _, t := range ev.Partitions {
				p.owned[t] = true
				delete(p.next, t) // it begins where the group says
				seek[t] = at[t].At
			}
			p.Seek(seek)
		case cluster.Revoke:
			p.revoked = ev.Partitions
			for _, t := range ev.Partitions {
				delete(p.owned, t)
			}
			if !p.hold {
				p.release()
			}
		case cluster.Lost:
			p.lost = append(p.lost, ev.Partitions...)
			for _, t := range ev.Partitions {
				delete(p.owned, t)
			}
			if !p.hold {
				p.release()
			}
		}
	}
	for _, b := range f.Batches {
		if !p.owned[b.TP] {
			return fmt.Errorf("records of %v, which is not ours", b.TP)
		}
	}
	return p.take(f.Batches)
}

func (p *process) release() {
	p.revoked = nil
	p.Released()
}

// steps polls several processes in turn.
func steps(ps ...*process) func(context.Context) error {
	return func(ctx context.Context) error {
		for _, p := range ps {
			if err := p.step(ctx); err != nil {
				return err
			}
		}
		return nil
	}
}

func keys[V any](m map[cluster.TP]V) []cluster.TP {
	return slices.SortedFunc(maps.Keys(m), func(a, b cluster.TP) int { return int(a.Partition - b.Partition) })
}
