package clustertest

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/moldau/moldau/internal/assign"
	"github.com/moldau/moldau/internal/cluster"
	"github.com/moldau/moldau/internal/flow"
)

func memberReads(e *env) {
	a, b := e.topic("a", 2), e.topic("b", 1)
	w := e.producer(e.c, "")
	e.write(w, append(out(a, 0, "1", "2"), append(out(a, 1, "3"), out(b, 0, "4")...)...))
	p := e.member(e.c, "", []assign.Subtopology{{Topics: []string{a.Name}}, {Topics: []string{b.Name}}})
	e.until("all records", steps(p), func() bool {
		return len(p.got[tp(a, 0)]) == 2 && len(p.got[tp(a, 1)]) == 1 && len(p.got[tp(b, 0)]) == 1
	})
	plan, err := assign.DecodePlan(p.plan)
	e.must(err)
	if len(plan.Members) != 1 || len(plan.Members[0].Active) != 3 || plan.Members[0].Endpoint != "host-" {
		e.Errorf("plan %+v", plan)
	}
	if at, ok := p.Position(tp(a, 0)); !ok || at != 2 {
		e.Errorf("position %d %v", at, ok)
	}
	if _, err := e.c.Member(cluster.MemberConfig{}); err == nil {
		e.Error("a member without group or topics")
	}

	// Back again, as after an undo.
	p.got, p.next = map[cluster.TP][]string{}, nil
	p.Seek(map[cluster.TP]int64{tp(a, 0): 1})
	e.until("the record again", steps(p), func() bool { return len(p.got[tp(a, 0)]) > 0 })
	if got := p.got[tp(a, 0)]; !slices.Equal(got, []string{"2"}) {
		e.Errorf("after the seek %v", got)
	}
}

func plainCommit(e *env) {
	t := e.topic("t", 2)
	p := e.member(e.c, "", one(t))
	e.until("the assignment", steps(p), func() bool { return len(p.owned) == 2 })
	e.must(p.Commit(e.ctx(), offset(tp(t, 0), 5)))
	e.wantCommitted(tp(t, 0), 5)
	e.wantCommitted(tp(t, 1), -1)
	e.must(p.Commit(e.ctx(), nil))
}

func pause(e *env) {
	t := e.topic("t", 2)
	p := e.member(e.c, "", one(t))
	e.until("the assignment", steps(p), func() bool { return len(p.owned) == 2 })
	p.Pause(tp(t, 0))
	ctx, cancel := context.WithTimeout(context.Background(), 150*time.Millisecond) // whatever was on the way has come
	e.must(p.step(ctx))
	cancel()
	w := e.producer(e.c, "")
	e.write(w, append(out(t, 0, "a"), out(t, 1, "b")...))
	e.until("the other partition", steps(p), func() bool { return len(p.got[tp(t, 1)]) == 1 })
	ctx, cancel = context.WithTimeout(context.Background(), 150*time.Millisecond)
	e.must(p.step(ctx))
	cancel()
	if len(p.got[tp(t, 0)]) > 0 {
		e.Error("a paused partition was read")
	}
	p.Resume(tp(t, 0))
	e.until("the resumed partition", steps(p), func() bool { return len(p.got[tp(t, 0)]) == 1 })
}

func twoMembers(e *env) {
	t, dst := e.topic("t", 4), e.topic("dst", 1)
	w := e.producer(e.c, "")
	for i := range int32(4) {
		e.write(w, out(t, i, "a", "b"))
	}
	p := e.member(e.c, "p", one(t))
	e.until("all records", steps(p), func() bool { return len(p.owned) == 4 && count(p) == 8 })

	// A second member arrives while p has an epoch in flight. p is asked for two partitions and commits them first.
	tx := e.producer(e.c, "p")
	e.must(tx.Begin())
	e.write(tx, out(dst, 0, "x"))
	p.hold = true
	q := e.member(e.s.Connect(e), "q", one(t))
	e.until("the revocation", steps(p, q), func() bool { return len(p.revoked) > 0 })
	if len(p.revoked) != 2 || len(p.owned) != 2 {
		e.Fatalf("revoked %v, left %v", p.revoked, p.owned)
	}
	taken := p.revoked
	// p keeps what it has and reads on; q must wait.
	for kept := range p.owned {
		e.write(w, out(t, kept.Partition, "c"))
		e.until("records while a revocation is pending", steps(p, q), func() bool { return len(p.got[kept]) == 3 })
	}
	if len(q.owned) > 0 {
		e.Fatalf("q has %v before p released it", q.owned)
	}
	offsets := map[cluster.TP]cluster.Offset{}
	for _, at := range taken {
		offsets[at] = cluster.Offset{At: 2, Metadata: "by p"}
	}
	e.must(tx.CommitOffsets(e.ctx(), p.Group(), offsets))
	e.must(tx.End(e.ctx(), true))
	for _, at := range taken {
		e.write(w, out(t, at.Partition, "new"))
	}
	p.hold = false
	p.release()
	e.until("q to take over", steps(p, q), func() bool { return len(q.owned) == 2 && count(q) == 2 })
	for _, at := range taken {
		if !q.owned[at] || !slices.Equal(q.got[at], []string{"new"}) {
			e.Errorf("%v: q owns %v, read %v", at, q.owned, q.got[at])
		}
		if got, _ := e.committed(at); got.Metadata != "by p" {
			e.Errorf("committed %+v", got)
		}
	}
	e.until("the plan to show both", steps(p, q), func() bool {
		a, errA := assign.DecodePlan(p.plan)
		b, errB := assign.DecodePlan(q.plan)
		return errA == nil && errB == nil && len(a.Share("p").Active) == 2 && len(b.Share("q").Active) == 2 && b.Share("p").Endpoint == "host-p"
	})
	if len(p.lost)+len(q.lost) > 0 {
		e.Errorf("lost %v %v", p.lost, q.lost)
	}
}

func count(p *process) int {
	n := 0
	for _, v := range p.got {
		n += len(v)
	}
	return n
}

func generation(e *env) {
	t, dst := e.topic("t", 2), e.topic("dst", 1)
	p := e.member(e.c, "p", one(t))
	e.until("the assignment", steps(p), func() bool { return len(p.owned) == 2 })
	old := p.Group()
	q := e.member(e.s.Connect(e), "q", one(t))
	e.until("the second member", steps(p, q), func() bool { return len(p.owned) == 1 && len(q.owned) == 1 })
	e.settle(p, q)
	if p.Group().Generation <= old.Generation {
		e.Fatalf("generation %d became %d", old.Generation, p.Group().Generation)
	}
	mine := keys(p.owned)[0]

	tx := e.producer(e.c, "p")
	e.must(tx.Begin())
	e.write(tx, out(dst, 0, "x"))
	e.is(tx.CommitOffsets(e.ctx(), old, offset(mine, 3)), cluster.ErrGeneration)
	// The transaction is still good: refresh, send again.
	e.must(tx.CommitOffsets(e.ctx(), p.Group(), offset(mine, 4)))
	e.must(tx.End(e.ctx(), true))
	e.wantCommitted(mine, 4)
	e.holds(tp(dst, 0), "x")
	e.must(p.Commit(e.ctx(), offset(mine, 5)))
	e.wantCommitted(mine, 5)
}

// evicted: a member that the group has given up, because it was not heard of, commits nothing any more, and is not back
// before it has let go of what it had: whatever it has not committed must be undone, for another goes on from there.
func evicted(e *env) {
	t, dst := e.topic("t", 2), e.topic("dst", 1)
	w := e.producer(e.c, "")
	e.write(w, append(out(t, 0, "1", "2", "3"), out(t, 1, "1", "2", "3")...)) // for positions to be within
	p := e.member(e.c, "p", one(t))
	q := e.member(e.s.Connect(e), "q", one(t))
	e.until("both to own one", steps(p, q), func() bool { return len(p.owned) == 1 && len(q.owned) == 1 })
	e.settle(p, q)
	mine := keys(p.owned)[0]
	tx := e.producer(e.c, "p")
	e.must(tx.Begin())
	e.write(tx, out(dst, 0, "x"))
	p.hold = true
	refused := func(when string) {
		e.Helper()
		if err := p.Commit(e.ctx(), offset(mine, 1)); !errors.Is(err, cluster.ErrGeneration) {
			e.Fatalf("a plain commit %s: %v", when, err)
		}
		if err := tx.CommitOffsets(e.ctx(), p.Group(), offset(mine, 1)); !errors.Is(err, cluster.ErrGeneration) {
			e.Fatalf("a commit in a transaction %s: %v", when, err)
		}
	}

	e.s.Evict(e, e.name, "p")
	e.until("q to take over", steps(q), func() bool { return len(q.owned) == 2 })
	e.must(q.Commit(e.ctx(), offset(mine, 2)))
	e.settle(q)
	refused("before it knows")
	e.until("p to hear of it", steps(p, q), func() bool { return len(p.lost) == 1 })
	for range 3 {
		e.settle(q)
		refused("before the answer")
	}
	if len(q.owned) != 2 {
		e.Errorf("p is back before its answer: q owns %v", q.owned)
	}
	p.hold = false
	p.release()
	e.until("p to be back", steps(p, q), func() bool { return len(p.owned) == 1 && len(q.owned) == 1 })
	e.settle(p, q)
	e.must(tx.End(e.ctx(), false))
	e.wantCommitted(mine, 2)
	back := keys(p.owned)[0]
	e.must(p.Commit(e.ctx(), offset(back, 3)))
	e.wantCommitted(back, 3)
}

func leave(e *env) {
	t := e.topic("t", 4)
	p := e.member(e.c, "p", one(t))
	q := e.member(e.s.Connect(e), "", one(t)) // one static, one dynamic
	e.until("both to own two", steps(p, q), func() bool { return len(p.owned) == 2 && len(q.owned) == 2 })
	start := time.Now()
	e.must(q.Leave(e.ctx()))
	q.Close()
	e.until("p to own all", steps(p), func() bool { return len(p.owned) == 4 })
	if d := time.Since(start); d > 6*time.Second {
		e.Errorf("a clean leave of a dynamic member cost %v", d)
	}
	q = e.member(e.s.Connect(e), "q", one(t))
	e.until("both to own two", steps(p, q), func() bool { return len(p.owned) == 2 && len(q.owned) == 2 })
	start = time.Now()
	e.must(p.Leave(e.ctx()))
	p.Close()
	e.until("q to own all", steps(q), func() bool { return len(q.owned) == 4 })
	if d := time.Since(start); d > 6*time.Second {
		e.Errorf("a clean leave of a static member cost %v", d)
	}
}

// restart is what kill -9 and a new start look like from the cluster: the old process says nothing, its transaction is
// open, its membership stands. The new one waits for nobody.
func restart(e *env) {
	t, dst := e.topic("t", 2), e.topic("dst", 1)
	w := e.producer(e.c, "")
	e.write(w, out(t, 0, "a", "b"))
	c := e.s.Connect(e)
	old := e.member(c, "p", one(t))
	e.until("records", steps(old), func() bool { return len(old.got[tp(t, 0)]) == 2 })
	tx := e.producer(c, "p")
	e.must(tx.Begin())
	e.write(tx, out(dst, 0, "committed"))
	e.must(tx.CommitOffsets(e.ctx(), old.Group(), offset(tp(t, 0), 1)))
	e.must(tx.End(e.ctx(), true))
	e.must(tx.Begin())
	e.write(tx, out(dst, 0, "half"))
	e.must(tx.CommitOffsets(e.ctx(), old.Group(), offset(tp(t, 0), 2)))
	// Killed here: nothing is ended, nobody leaves.

	start := time.Now()
	c = e.s.Connect(e)
	tx2 := e.producer(c, "p") // before joining, so that nothing is left open
	p := e.member(c, "p", one(t))
	e.until("the first record", steps(p), func() bool { return len(p.got[tp(t, 0)]) > 0 })
	d := time.Since(start)
	e.Logf("restart to first record: %v", d.Round(time.Millisecond))
	if d > e.s.Restart {
		e.Errorf("the first record came after %v, want at most %v", d, e.s.Restart)
	}
	if got := p.got[tp(t, 0)]; !slices.Equal(got, []string{"b"}) {
		e.Errorf("went on with %v", got)
	}
	if len(p.owned) != 2 {
		e.Errorf("owns %v", p.owned)
	}
	e.must(tx2.Begin())
	e.write(tx2, out(dst, 0, "again"))
	e.must(tx2.CommitOffsets(e.ctx(), p.Group(), offset(tp(t, 0), 2)))
	e.must(tx2.End(e.ctx(), true))
	e.wantCommitted(tp(t, 0), 2)
	e.holds(tp(dst, 0), "committed", "again")
}

// restartWhileReleasing is the restart of a static member that was to let go of partitions and had not joined again: who is to have
// them gets them.
func restartWhileReleasing(e *env) {
	t := e.topic("t", 4)
	old := e.member(e.s.Connect(e), "p", one(t))
	e.until("all to be p's", steps(old), func() bool { return len(old.owned) == 4 })
	old.hold = true
	q := e.member(e.c, "q", one(t))
	e.until("the revocation", steps(old, q), func() bool { return len(old.revoked) == 2 })
	// Killed here.
	p := e.member(e.s.Connect(e), "p", one(t))
	e.until("both to own two", steps(p, q), func() bool { return len(p.owned) == 2 && len(q.owned) == 2 })
}

// restartOfMany is the restart of one static member among others: it must cost them nothing, not even a rebalance.
func restartOfMany(e *env) {
	t := e.topic("t", 4)
	c := e.s.Connect(e)
	p := e.member(c, "p", one(t)) // the first leads
	q := e.member(e.c, "q", one(t))
	e.until("both to own two", steps(p, q), func() bool { return len(p.owned) == 2 && len(q.owned) == 2 })
	e.settle(p, q)
	before, events, had := q.Group().Generation, q.events, keys(p.owned)
	for range 2 {
		p.Close()
		p = e.member(e.s.Connect(e), "p", one(t))
		e.until("the assignment", steps(p, q), func() bool { return len(p.owned) == 2 })
		e.settle(p, q)
	}
	if q.Group().Generation != before || q.events != events {
		e.Errorf("the restart of another moved generation %d to %d, with %d events", before, q.Group().Generation, q.events-events)
	}
	if !slices.Equal(keys(p.owned), had) {
		e.Errorf("had %v, has %v", had, keys(p.owned))
	}
}

// settle polls until nothing has happened in the group for a while.
func (e *env) settle(ps ...*process) {
	e.Helper()
	for n, quiet := -1, 0; quiet < 8; quiet++ {
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		e.must(steps(ps...)(ctx))
		cancel()
		events := 0
		for _, p := range ps {
			events += p.events
		}
		if events != n {
			n, quiet = events, 0
		}
	}
}

// found is how topics that members find by a pattern come and go: nobody is given any of one that another has not found.
func found(e *env) {
	a, b := e.topic("a", 2), e.topic("b", 2)
	names, err := e.c.Admin().List(e.ctx())
	e.must(err)
	if !slices.Contains(names, a.Name) || !slices.Contains(names, b.Name) || slices.Contains(names, "__consumer_offsets") {
		e.Errorf("the topics are %v", names)
	}
	subs := func(topics ...*flow.Topic) []assign.Subtopology {
		s := assign.Subtopology{Patterns: []string{"."}}
		for _, t := range topics {
			s.Matched = append(s.Matched, t.Name)
		}
		return []assign.Subtopology{s}
	}
	p := e.member(e.c, "p", subs(a))
	q := e.member(e.s.Connect(e), "q", subs(a))
	owns := func(each int, of *flow.Topic, n int) func() bool {
		return func() bool {
			for _, m := range []*process{p, q} {
				have := 0
				for at := range m.owned {
					if at.Topic == of.Name {
						have++
					}
				}
				if len(m.owned) != each || have != n {
					return false
				}
			}
			return true
		}
	}
	e.until("both to own one", steps(p, q), owns(1, a, 1))
	p.Subscribe(subs(a, b))
	e.settle(p, q)
	if !owns(1, a, 1)() {
		e.Errorf("b is given away before both have found it: %v %v", keys(p.owned), keys(q.owned))
	}
	q.Subscribe(subs(a, b))
	e.until("both to own one of each", steps(p, q), owns(2, b, 1))
	p.Subscribe(subs(b))
	e.until("a is nobody's", steps(p, q), owns(1, b, 1))
}

func usurped(e *env) {
	t := e.topic("t", 1)
	p := e.member(e.c, "p", one(t))
	e.until("the assignment", steps(p), func() bool { return len(p.owned) == 1 })
	q := e.member(e.s.Connect(e), "p", one(t))
	e.until("the assignment", steps(q), func() bool { return len(q.owned) == 1 })
	for deadline := time.Now().Add(patience); ; {
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		err := p.step(ctx)
		cancel()
		if err != nil {
			e.is(err, cluster.ErrFenced)
			break
		}
		if time.Now().After(deadline) {
			e.Fatal("two processes with one instance id, and the first was not told")
		}
	}
	if err := p.Commit(e.ctx(), offset(tp(t, 0), 9)); err == nil || errors.Is(err, cluster.ErrUnknown) {
		e.Errorf("the first still commits: %v", err)
	}
	e.must(q.Commit(e.ctx(), offset(tp(t, 0), 1)))
	e.wantCommitted(tp(t, 0), 1)
}
