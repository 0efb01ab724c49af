package mem

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/moldau/moldau/internal/assign"
	"github.com/moldau/moldau/internal/cluster"
	"github.com/moldau/moldau/internal/flow"
)

// What only a cluster in memory can be told to do.

var ctx = context.Background()

type bench struct {
	*testing.T
	log *Log
	c   *Conn
	in  *flow.Topic
	at  cluster.TP
}

func start(t *testing.T) *bench {
	log := New()
	b := &bench{T: t, log: log, c: log.Connect(), in: &flow.Topic{Name: "t", Partitions: 1}, at: cluster.TP{Topic: "t"}}
	b.must(b.c.Admin().Create(ctx, cluster.TopicSpec{Name: "t", Partitions: 1}))
	return b
}

func (b *bench) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func (b *bench) is(err, want error) {
	b.Helper()
	if !errors.Is(err, want) {
		b.Fatalf("got %v, want %v", err, want)
	}
}

func (b *bench) producer(id string) cluster.Producer {
	b.Helper()
	p, err := b.c.Producer(cluster.ProducerConfig{TransactionalID: id})
	b.must(err)
	b.must(p.Init(ctx))
	return p
}

func (b *bench) write(p cluster.Producer, keysAndValues ...string) (err error) {
	var out []flow.Out
	for i := 0; i < len(keysAndValues); i += 2 {
		o := flow.Out{Topic: b.in, Key: []byte(keysAndValues[i])}
		if v := keysAndValues[i+1]; v != "" {
			o.Value = []byte(v)
		}
		out = append(out, o)
	}
	p.Produce(out, func(_ map[cluster.TP]int64, e error) { err = e })
	return err
}

// read returns the values from an offset and the position after them.
func (b *bench) read(from int64) (values []string, next int64) {
	b.Helper()
	r, err := b.c.Reader()
	b.must(err)
	r.Assign(map[cluster.TP]int64{b.at: from})
	for {
		batches, err := r.Poll(ctx)
		b.must(err)
		if len(batches) == 0 {
			next, _ = r.Position(b.at)
			return values, next
		}
		for _, batch := range batches {
			for _, rec := range batch.Records {
				values = append(values, string(rec.Value))
			}
			batch.Release()
		}
	}
}

func TestCompactionLeavesGaps(t *testing.T) {
	b := start(t)
	p := b.producer("p")
	b.must(p.Begin())
	b.must(b.write(p, "a", "1", "b", "1", "a", "2", "c", ""))
	b.must(p.End(ctx, true)) // marker at 4
	b.must(p.Begin())
	b.must(b.write(p, "b", "9"))
	b.must(p.End(ctx, false)) // aborted 5, marker 6
	b.must(b.log.Compact(b.at, 100, true))
	values, next := b.read(-1)
	if !slices.Equal(values, []string{"1", "2"}) || next != 7 {
		t.Fatalf("read %v up to %d", values, next)
	}
	if values, next := b.read(3); len(values) > 0 || next != 7 {
		t.Fatalf("read %v up to %d where nothing is left", values, next)
	}
}

func TestMarkersMayComeLate(t *testing.T) {
	b := start(t)
	p := b.producer("p")
	b.log.HoldMarkers(true)
	b.must(p.Begin())
	b.must(b.write(p, "a", "1"))
	b.must(p.CommitOffsets(ctx, cluster.GroupMetadata{Group: "g", Generation: -1}, map[cluster.TP]cluster.Offset{b.at: {At: 3}}))
	b.must(p.End(ctx, true))
	if values, _ := b.read(-1); len(values) > 0 {
		t.Fatal("visible before the marker")
	}
	_, err := b.c.Admin().Committed(ctx, "g", b.at)
	b.is(err, ErrPending)
	b.log.HoldMarkers(false)
	if values, next := b.read(-1); !slices.Equal(values, []string{"1"}) || next != 2 {
		t.Fatalf("read %v up to %d", values, next)
	}
	got, err := b.c.Admin().Committed(ctx, "g", b.at)
	b.must(err)
	if got[b.at].At != 3 {
		t.Fatalf("committed %v", got)
	}
}

func TestAcksMayComeLate(t *testing.T) {
	b := start(t)
	p := b.producer("")
	b.log.HoldAcks(true)
	calls := 0
	done := func(_ map[cluster.TP]int64, err error) { calls++ }
	for range 3 {
		p.Produce([]flow.Out{{Topic: b.in}}, done)
	}
	if calls != 0 || !b.log.Ack() || calls != 1 {
		t.Fatalf("%d calls", calls)
	}
	b.must(p.Abandon(ctx))
	if calls != 3 {
		t.Fatalf("%d calls after Abandon", calls)
	}
	b.log.HoldAcks(false)
	if calls != 3 {
		t.Fatal("a done function was called twice")
	}
}

func TestTimeOut(t *testing.T) {
	for _, how := range []string{"commit", "abort", "offsets", "init"} {
		t.Run(how, func(t *testing.T) {
			b := start(t)
			p := b.producer("p")
			b.must(p.Begin())
			b.must(b.write(p, "a", "late"))
			b.log.TimeOut("p")
			b.is(b.write(p, "a", "later"), cluster.ErrAborted)
			switch how {
			case "commit":
				b.is(p.End(ctx, true), cluster.ErrUnknown)
				b.must(p.Init(ctx))
			case "abort":
				b.must(p.End(ctx, false))
			case "offsets":
				b.is(p.CommitOffsets(ctx, cluster.GroupMetadata{Group: "g", Generation: -1}, map[cluster.TP]cluster.Offset{b.at: {}}), cluster.ErrAborted)
			case "init":
				b.must(p.Init(ctx))
			}
			b.must(p.Begin())
			b.must(b.write(p, "a", "good"))
			b.must(p.End(ctx, true))
			if values, _ := b.read(-1); !slices.Equal(values, []string{"good"}) {
				t.Fatalf("read %v", values)
			}
		})
	}
}

func TestFaults(t *testing.T) {
	b := start(t)
	p := b.producer("p")
	boom := errors.New("boom")
	b.log.Faults.Produce = func(_ string, o flow.Out) error {
		if string(o.Value) == "bad" {
			return boom
		}
		return nil
	}
	b.log.Faults.CommitOffsets = func(string) error { return boom }
	b.must(p.Begin())
	b.must(b.write(p, "a", "good"))
	b.is(b.write(p, "a", "bad"), boom)
	b.is(p.CommitOffsets(ctx, cluster.GroupMetadata{}, map[cluster.TP]cluster.Offset{b.at: {}}), boom)
	b.is(p.End(ctx, true), cluster.ErrAborted)
	b.log.Faults = Faults{End: func(string, bool) EndFault { return Refused }}
	b.must(p.Begin())
	b.must(b.write(p, "a", "good"))
	b.is(p.End(ctx, true), cluster.ErrAborted)
	b.log.Faults = Faults{Init: func(string) error { return boom }}
	b.is(p.Init(ctx), boom)
	if values, _ := b.read(-1); len(values) > 0 {
		t.Fatalf("read %v", values)
	}
}

func TestReleasedBytesAreGone(t *testing.T) {
	b := start(t)
	b.must(b.write(b.producer(""), "k", "v"))
	r, _ := b.c.Reader()
	r.Assign(map[cluster.TP]int64{b.at: 0})
	batches, _ := r.Poll(ctx)
	kept := batches[0].Records[0].Value
	batches[0].Release()
	if string(kept) == "v" {
		t.Error("bytes of a released batch are intact")
	}
}

func (b *bench) member(c *Conn, instance string) cluster.Member {
	b.Helper()
	m, err := c.Member(cluster.MemberConfig{Group: "g", Instance: instance, Subtopologies: []assign.Subtopology{{Topics: []string{"wide"}}}})
	b.must(err)
	return m
}

func (b *bench) events(m cluster.Member) (kinds []cluster.EventKind, partitions []int) {
	b.Helper()
	f, err := m.Poll(ctx)
	b.must(err)
	for _, e := range f.Events {
		kinds = append(kinds, e.Kind)
		partitions = append(partitions, len(e.Partitions))
	}
	return kinds, partitions
}

func TestKilledMemberIsEvicted(t *testing.T) {
	b := start(t)
	b.must(b.c.Admin().Create(ctx, cluster.TopicSpec{Name: "wide", Partitions: 4}))
	dead := b.log.Connect()
	b.member(dead, "p")
	q := b.member(b.c, "q")
	dead.Kill()
	if _, n := b.events(q); !slices.Equal(n, []int{0}) {
		t.Fatalf("q got %v while p stands", n)
	}
	b.log.Evict("g", "p")
	if kinds, n := b.events(q); !slices.Equal(kinds, []cluster.EventKind{cluster.Assigned}) || n[0] != 4 {
		t.Fatalf("q got %v %v", kinds, n)
	}

	// A member that lives is told that it lost everything, and is back once it has answered.
	old := q.Group()
	b.log.Evict("g", "q")
	for _, want := range []cluster.EventKind{cluster.Lost, cluster.Assigned} {
		if kinds, n := b.events(q); !slices.Equal(kinds, []cluster.EventKind{want}) || !slices.Equal(n, []int{4}) {
			t.Fatalf("q got %v %v", kinds, n)
		}
		q.Released()
	}
	if q.Group() == old {
		t.Error("evicted, and still the same member")
	}
	b.log.AddPartitions("wide", 2)
	if _, n := b.events(q); !slices.Equal(n, []int{2}) {
		t.Errorf("new partitions: %v", n)
	}
	b.log.Rebalance("g")
	if _, n := b.events(q); !slices.Equal(n, []int{0}) {
		t.Errorf("a rebalance for nothing: %v", n)
	}
}
