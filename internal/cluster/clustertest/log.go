package clustertest

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/moldau/moldau/internal/cluster"
	"github.com/moldau/moldau/internal/flow"
)

func topics(e *env) {
	a := e.c.Admin()
	spec := cluster.TopicSpec{Name: e.name, Partitions: 3, Replication: -1, Config: map[string]string{"cleanup.policy": "compact"}}
	e.must(a.Create(e.ctx(), spec))
	e.must(a.Create(e.ctx(), spec)) // once more is no error
	infos, err := a.Describe(e.ctx(), e.name, e.name+"-missing")
	e.must(err)
	info := infos[e.name]
	if len(infos) != 1 || info.Partitions != 3 || info.Config["cleanup.policy"] != "compact" {
		e.Fatalf("described as %+v", infos)
	}
	tps := []cluster.TP{{Topic: e.name}, {Topic: e.name, Partition: 2}}
	for _, committed := range []bool{true, false} {
		ends, err := a.Ends(e.ctx(), committed, tps...)
		e.must(err)
		if len(ends) != 2 || ends[tps[0]] != 0 || ends[tps[1]] != 0 {
			e.Fatalf("ends %v", ends)
		}
	}
	if _, err = a.Ends(e.ctx(), true, cluster.TP{Topic: e.name + "-missing"}); err == nil {
		e.Fatal("a missing topic has an end")
	}
	at, err := a.Committed(e.ctx(), e.name, tps...)
	e.must(err)
	if len(at) != 0 {
		e.Fatalf("committed %v", at)
	}
	s := e.reader(map[cluster.TP]int64{tps[0]: -1, tps[1]: 0})
	e.reaches(s, tps[0])
	e.reaches(s, tps[1])
}

func records(e *env) {
	t := e.topic("t", 2)
	p := e.producer(e.c, "")
	ends := e.write(p, []flow.Out{
		{Topic: t, Partition: 0, Time: 17, Key: []byte("k"), Value: []byte("v"), Headers: []flow.Header{{Key: "h", Value: []byte("x")}, {Key: "null"}}},
		{Topic: t, Partition: 1, Time: 18, Key: []byte{}, Value: nil},
		{Topic: t, Partition: 0, Time: 16, Key: nil, Value: []byte{}},
	})
	if len(ends) != 2 || ends[tp(t, 0)] != 2 || ends[tp(t, 1)] != 1 {
		e.Fatalf("ends %v", ends)
	}
	r, err := e.c.Reader()
	e.must(err)
	defer r.Close()
	r.Assign(map[cluster.TP]int64{tp(t, 0): 0, tp(t, 1): -1})
	got := map[cluster.TP][]flow.In{}
	e.until("three records", func(ctx context.Context) error {
		batches, err := r.Poll(ctx)
		for _, b := range batches {
			got[b.TP] = append(got[b.TP], b.Records...) // not released: the test keeps them
		}
		return err
	}, func() bool { return len(got[tp(t, 0)]) == 2 && len(got[tp(t, 1)]) == 1 })
	first, second, null := got[tp(t, 0)][0], got[tp(t, 0)][1], got[tp(t, 1)][0]
	if first.Offset != 0 || first.Time != 17 || string(first.Key) != "k" || string(first.Value) != "v" || len(first.Headers) != 2 ||
		first.Headers[0].Key != "h" || string(first.Headers[0].Value) != "x" || first.Headers[1].Value != nil {
		e.Errorf("first record %+v", first)
	}
	if second.Offset != 1 || second.Time != 16 || second.Key != nil || second.Value == nil {
		e.Errorf("null key, empty value: %+v", second)
	}
	if null.Key == nil || null.Value != nil {
		e.Errorf("empty key, null value: %+v", null)
	}
	if ch := produce(p, nil); e.wait(ch).err != nil {
		e.Error("no records are no error")
	}
}

func anyPartition(e *env) {
	t := e.topic("t", 4)
	p := e.producer(e.c, "")
	ends := e.write(p, []flow.Out{{Topic: t, Partition: -1, Value: []byte("a")}, {Topic: t, Partition: -1, Value: []byte("b")}})
	total := int64(0)
	for _, n := range ends {
		total += n
	}
	if total != 2 {
		e.Fatalf("ends %v", ends)
	}
}

func deleteRecords(e *env) {
	t := e.topic("t", 1)
	at := tp(t, 0)
	p := e.producer(e.c, "")
	e.write(p, out(t, 0, "a", "b", "c", "d"))
	e.must(e.c.Admin().DeleteRecords(e.ctx(), map[cluster.TP]int64{at: 3}))
	starts, err := e.c.Admin().Starts(e.ctx(), at)
	e.must(err)
	if starts[at] != 3 {
		e.Fatalf("starts %v", starts)
	}
	e.holds(at, "d")

	s := e.reader(map[cluster.TP]int64{at: 1})
	for deadline := time.Now().Add(patience); ; {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		_, err := s.poll(ctx)
		cancel()
		if err != nil {
			e.is(err, cluster.ErrOutOfRange)
			if !strings.Contains(err.Error(), t.Name) {
				e.Errorf("the error does not say where: %v", err)
			}
			break
		}
		if time.Now().After(deadline) {
			e.Fatal("reading below the log start is no error")
		}
	}

	// A log whose records are all gone ends where it starts.
	e.must(e.c.Admin().DeleteRecords(e.ctx(), map[cluster.TP]int64{at: 4}))
	empty := e.reader(map[cluster.TP]int64{at: -1})
	e.reaches(empty, at)
}

func readerMoves(e *env) {
	t := e.topic("t", 2)
	p := e.producer(e.c, "")
	e.write(p, append(out(t, 0, "a", "b", "c"), out(t, 1, "x", "y")...))
	s := e.reader(map[cluster.TP]int64{tp(t, 0): 1})
	e.reads(s, tp(t, 0), "b", "c")
	if _, ok := s.Position(tp(t, 1)); ok {
		e.Error("a position where nothing is read")
	}
	// Back to the start of one, and another as well.
	s.got, s.next = map[cluster.TP][]string{}, nil
	s.Assign(map[cluster.TP]int64{tp(t, 0): 0, tp(t, 1): -1})
	e.reads(s, tp(t, 0), "a", "b", "c")
	e.reads(s, tp(t, 1), "x", "y")
	// What is no longer assigned is no longer read.
	s.Assign(map[cluster.TP]int64{tp(t, 1): 2})
	e.write(p, append(out(t, 0, "d"), out(t, 1, "z")...))
	e.reads(s, tp(t, 1), "x", "y", "z")
	if got := s.got[tp(t, 0)]; !slices.Equal(got, []string{"a", "b", "c"}) {
		e.Errorf("went on reading: %v", got)
	}
}

// idle lets a moment pass.
func idle(ctx context.Context) error {
	select {
	case <-ctx.Done():
	case <-time.After(5 * time.Millisecond):
	}
	return nil
}

func recreatedTopic(e *env) {
	t := e.topic("t", 2)
	p := e.producer(e.c, "")
	e.write(p, out(t, 0, "a"))
	before, err := e.c.Admin().Describe(e.ctx(), t.Name)
	e.must(err)
	s := e.reader(map[cluster.TP]int64{tp(t, 0): 0})
	e.reads(s, tp(t, 0), "a")

	e.s.Delete(e, t.Name)
	e.until("the topic to be gone", idle, func() bool {
		infos, err := e.c.Admin().Describe(e.ctx(), t.Name)
		return err == nil && len(infos) == 0
	})
	e.must(e.c.Admin().Create(e.ctx(), cluster.TopicSpec{Name: t.Name, Partitions: 3}))
	after, err := e.c.Admin().Describe(e.ctx(), t.Name)
	e.must(err)
	if after[t.Name].ID == before[t.Name].ID || after[t.Name].Partitions != 3 {
		e.Errorf("before %+v, after %+v", before[t.Name].ID, after[t.Name].ID)
	}
	e.write(e.producer(e.c, ""), out(t, 0, "new"))
	for deadline := time.Now().Add(patience); ; {
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		batches, err := s.poll(ctx)
		cancel()
		if err != nil {
			e.is(err, cluster.ErrRecreated)
			break
		}
		for _, b := range batches {
			if len(b.Records) > 0 {
				e.Fatalf("records of the new topic at offsets of the old: %q", b.Records[0].Value)
			}
		}
		if time.Now().After(deadline) {
			e.Fatal("a recreated topic went unnoticed")
		}
	}
}
