package clustertest

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/moldau/moldau/internal/cluster"
	"github.com/moldau/moldau/internal/flow"
)

// nobody is a group without members: offsets may be committed in its name by anyone.
func (e *env) nobody() cluster.GroupMetadata {
	return cluster.GroupMetadata{Group: e.name, Generation: -1}
}

func (e *env) committed(at cluster.TP) (cluster.Offset, bool) {
	e.Helper()
	got, err := e.c.Admin().Committed(e.ctx(), e.name, at)
	e.must(err)
	o, ok := got[at]
	return o, ok
}

func (e *env) wantCommitted(at cluster.TP, want int64) {
	e.Helper()
	got, ok := e.committed(at)
	switch {
	case want < 0 && ok:
		e.Fatalf("%v: committed %v, want nothing", at, got)
	case want >= 0 && (!ok || got.At != want):
		e.Fatalf("%v: committed %v %v, want %d", at, got, ok, want)
	}
}

func offset(at cluster.TP, n int64) map[cluster.TP]cluster.Offset {
	return map[cluster.TP]cluster.Offset{at: {At: n, Metadata: "meta"}}
}

func commitAndAbort(e *env) {
	t := e.topic("t", 1)
	p := e.producer(e.c, "p")
	for _, step := range []struct {
		value  string
		commit bool
	}{{"a", true}, {"b", false}, {"c", false}, {"d", true}, {"e", true}, {"f", false}} {
		e.must(p.Begin())
		e.write(p, out(t, 0, step.value))
		e.must(p.End(e.ctx(), step.commit))
	}
	// The last thing is an aborted record and its marker; the reader must see that it is at the end.
	e.holds(tp(t, 0), "a", "d", "e")
	e.must(p.End(e.ctx(), false)) // nothing open: nothing to do
}

func openTransaction(e *env) {
	t := e.topic("t", 1)
	at := tp(t, 0)
	p, q := e.producer(e.c, "p"), e.producer(e.c, "q")
	e.must(p.Begin())
	e.write(p, out(t, 0, "a"))
	e.must(q.Begin())
	e.write(q, out(t, 0, "b"))
	e.must(q.End(e.ctx(), true))
	e.until("a, b and the marker of b", idle, func() bool {
		high, err := e.c.Admin().Ends(e.ctx(), false, at)
		e.must(err)
		return high[at] == 3
	})
	ends, err := e.c.Admin().Ends(e.ctx(), true, at)
	e.must(err)
	if ends[at] != 0 {
		e.Fatalf("stable end %d, want 0", ends[at])
	}
	s := e.reader(map[cluster.TP]int64{at: 0})
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	e.must(e.step(s)(ctx))
	if len(s.got[at]) > 0 {
		e.Fatalf("read %v behind an open transaction", s.got[at])
	}
	e.must(p.End(e.ctx(), true))
	e.reads(s, at, "a", "b")
	e.reaches(s, at)
}

func offsetsWithRecords(e *env) {
	in, t := e.topic("in", 1), e.topic("t", 1)
	p := e.producer(e.c, "p")
	for i, commit := range []bool{true, false, true} {
		before, _ := e.committed(tp(in, 0))
		e.must(p.Begin())
		e.write(p, out(t, 0, "x"))
		e.must(p.CommitOffsets(e.ctx(), e.nobody(), offset(tp(in, 0), int64(10+i))))

		// Until the transaction ends nobody can say what is committed.
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		if got, err := e.c.Admin().Committed(ctx, e.name, tp(in, 0)); err == nil {
			e.Fatalf("committed %v while offsets are pending", got)
		}
		cancel()
		e.must(p.End(e.ctx(), commit))
		if commit {
			got, _ := e.committed(tp(in, 0))
			if got.At != int64(10+i) || got.Metadata != "meta" {
				e.Fatalf("committed %+v", got)
			}
		} else if got, _ := e.committed(tp(in, 0)); got != before {
			e.Fatalf("an aborted transaction committed %+v", got)
		}
	}
}

func offsetsAlone(e *env) {
	in, t := e.topic("in", 1), e.topic("t", 1)
	p := e.producer(e.c, "p")
	e.must(p.Begin())
	e.must(p.CommitOffsets(e.ctx(), e.nobody(), offset(tp(in, 0), 7)))
	e.must(p.End(e.ctx(), true))
	e.wantCommitted(tp(in, 0), 7)
	e.must(p.Begin())
	e.must(p.CommitOffsets(e.ctx(), e.nobody(), offset(tp(in, 0), 8)))
	e.must(p.End(e.ctx(), false))
	e.wantCommitted(tp(in, 0), 7)

	// And the producer goes on.
	e.must(p.Begin())
	e.write(p, out(t, 0, "a"))
	e.must(p.CommitOffsets(e.ctx(), e.nobody(), offset(tp(in, 0), 9)))
	e.must(p.End(e.ctx(), true))
	e.wantCommitted(tp(in, 0), 9)
	e.must(p.Begin())
	e.must(p.CommitOffsets(e.ctx(), e.nobody(), offset(tp(in, 0), 10)))
	e.must(p.End(e.ctx(), true))
	e.wantCommitted(tp(in, 0), 10)
	e.holds(tp(t, 0), "a")
}

func nothingInTransaction(e *env) {
	t := e.topic("t", 1)
	p := e.producer(e.c, "p")
	for _, commit := range []bool{true, false, true} {
		e.must(p.Begin())
		e.must(p.End(e.ctx(), commit))
	}
	e.must(p.Begin())
	e.write(p, out(t, 0, "a"))
	e.must(p.End(e.ctx(), true))
	e.holds(tp(t, 0), "a")
}

func refusedRecords(e *env) {
	in, t := e.topic("in", 1), e.topic("t", 1)
	p := e.producer(e.c, "p")
	e.must(p.Begin())
	records := append(out(t, 0, "a"), flow.Out{Topic: t, Key: []byte("k"), Value: make([]byte, 3<<20), Sink: 3, Input: 2, InHand: 7, Time: 9})
	large := e.wait(produce(p, records))
	e.is(large.err, cluster.ErrTooLarge)
	refused, ok := errors.AsType[*cluster.Refused](large.err)
	if !ok || len(refused.Records) != 1 {
		e.Fatalf("got %v, want one record to be refused", large.err)
	}
	if r := refused.Records[0]; r.Topic != t.Name || r.Partition != 0 || r.Sink != 3 || r.Input != 2 || r.InHand != 7 || r.Time != 9 {
		e.Fatalf("refused is %+v", r)
	}
	e.write(p, out(t, 0, "b", "c"))
	e.must(p.End(e.ctx(), true)) // without it
	e.holds(tp(t, 0), "a", "b", "c")

	// A transaction of which all records are refused still commits its offsets.
	for at := range int64(3) {
		e.must(p.Begin())
		e.is(e.wait(produce(p, records[1:])).err, cluster.ErrTooLarge)
		e.must(p.CommitOffsets(e.ctx(), e.nobody(), offset(tp(in, 0), at)))
		e.must(p.End(e.ctx(), true))
		e.wantCommitted(tp(in, 0), at)
	}

	e.must(p.Begin())
	missing := produce(p, out(&flow.Topic{Name: e.name + "-missing", Partitions: 1}, 0, "a"))
	e.is(e.wait(missing).err, cluster.ErrMissingTopic)
	e.must(p.End(e.ctx(), false))

	e.must(p.Begin())
	e.write(p, out(t, 0, "d"))
	e.must(p.End(e.ctx(), true))
	e.holds(tp(t, 0), "a", "b", "c", "d")
}

func abandon(e *env) {
	t := e.topic("t", 1)
	p := e.producer(e.c, "p")
	e.must(p.Begin())
	var calls []chan result
	for range 50 {
		ch := make(chan result, 1)
		calls = append(calls, ch)
		p.Produce(out(t, 0, "a"), func(ends map[cluster.TP]int64, err error) { ch <- result{ends, err} })
	}
	e.must(p.Abandon(e.ctx()))
	for i, ch := range calls {
		select {
		case <-ch:
		default:
			e.Fatalf("call %d is still outstanding", i)
		}
	}
	e.must(p.End(e.ctx(), false))
	e.must(p.Begin())
	e.write(p, out(t, 0, "b"))
	e.must(p.End(e.ctx(), true))
	e.holds(tp(t, 0), "b")
}

func fenced(e *env) {
	t := e.topic("t", 1)
	old := e.producer(e.c, "p")
	e.must(old.Begin())
	e.write(old, out(t, 0, "old"))
	young := e.producer(e.s.Connect(e), "p")
	e.must(young.Begin())
	e.write(young, out(t, 0, "young"))

	if r := e.wait(produce(old, out(t, 0, "zombie"))); r.err == nil {
		e.Error("a zombie's record was taken")
	}
	e.is(old.End(e.ctx(), true), cluster.ErrFenced)
	e.is(old.Init(e.ctx()), cluster.ErrFenced) // it must not take the id back
	e.must(young.End(e.ctx(), true))
	e.holds(tp(t, 0), "young")
}

func fencedOffsets(e *env) {
	in, t := e.topic("in", 1), e.topic("t", 1)
	old := e.producer(e.c, "p")
	e.must(old.Begin())
	e.write(old, out(t, 0, "old"))
	young := e.producer(e.s.Connect(e), "p")
	e.is(old.CommitOffsets(e.ctx(), e.nobody(), offset(tp(in, 0), 1)), cluster.ErrFenced)
	e.must(young.Begin())
	e.must(young.CommitOffsets(e.ctx(), e.nobody(), offset(tp(in, 0), 2)))
	e.must(young.End(e.ctx(), true))
	e.wantCommitted(tp(in, 0), 2)
	e.holds(tp(t, 0))
}

func unknownOutcome(e *env) {
	in, t := e.topic("in", 1), e.topic("t", 1)
	for i, seen := range []bool{false, true} {
		c, fault := e.s.Unreliable(e)
		p := e.producer(c, "p")
		e.must(p.Begin())
		e.write(p, out(t, 0, "lost", "answer"))
		e.must(p.CommitOffsets(e.ctx(), e.nobody(), offset(tp(in, 0), int64(5+i))))
		fault.LoseEnd(seen)
		ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
		err := p.End(ctx, true)
		cancel()
		e.is(err, cluster.ErrUnknown)
		fault.Heal()
		e.must(p.Init(e.ctx()))
		if want := int64(-1); !seen {
			e.wantCommitted(tp(in, 0), want)
		} else {
			e.wantCommitted(tp(in, 0), 6)
		}
		// The next transaction is a new one.
		e.must(p.Begin())
		e.write(p, out(t, 0, "next"))
		e.must(p.End(e.ctx(), true))
	}
	e.holds(tp(t, 0), "next", "lost", "answer", "next")
}

func deadWriters(e *env) {
	t, other := e.topic("t", 2), e.topic("other", 1)
	a := e.c.Admin()
	dead := e.producer(e.s.Connect(e), "dead")
	e.must(dead.Begin())
	e.write(dead, out(t, 0, "half"))
	stranger := e.producer(e.c, "stranger")
	e.must(stranger.Begin())
	e.write(stranger, append(out(t, 1, "s"), out(other, 0, "s")...))

	named := func(name string) func(string) bool {
		return func(id string) bool { return strings.HasPrefix(id, e.name+name) }
	}
	e.must(a.ClearWriters(e.ctx(), named("-dead"), tp(t, 0), tp(t, 1)))
	ends, err := a.Ends(e.ctx(), true, tp(t, 0), tp(t, 1))
	e.must(err)
	if ends[tp(t, 0)] != 2 || ends[tp(t, 1)] != 0 {
		e.Fatalf("stable ends %v", ends)
	}
	e.holds(tp(t, 0))
	e.must(stranger.End(e.ctx(), true)) // not meant
	e.holds(tp(t, 1), "s")
	if err := dead.End(e.ctx(), true); !errors.Is(err, cluster.ErrFenced) {
		e.Errorf("the dead came back: %v", err)
	}
	e.must(a.ClearWriters(e.ctx(), named(""))) // no partitions, nothing to do
	e.must(a.ClearWriters(e.ctx(), named(""), tp(t, 0)))

	// Without regard to partitions, and of nobody else.
	again, living := e.producer(e.s.Connect(e), "dead-again"), e.producer(e.c, "living")
	for i, p := range []cluster.Producer{again, living} {
		e.must(p.Begin())
		e.write(p, out(t, int32(i), "x"))
	}
	e.must(a.EndTransactions(e.ctx(), named("-dead")))
	e.must(living.End(e.ctx(), true))
	if err := again.End(e.ctx(), true); !errors.Is(err, cluster.ErrFenced) {
		e.Errorf("the dead came back: %v", err)
	}
	if living.End(e.ctx(), true) == nil {
		e.Error("a transaction that was not begun has been committed")
	}
	e.must(living.End(e.ctx(), false))
}
