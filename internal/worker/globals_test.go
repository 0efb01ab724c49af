package worker_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync/atomic"
	"testing"

	"github.com/moldau/moldau/internal/cluster"
	"github.com/moldau/moldau/internal/cluster/mem"
	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/tier"
	"github.com/moldau/moldau/internal/worker"
	"github.com/moldau/moldau/stream"
)

// flaky is a cluster whose readers fail a few times.
type flaky struct {
	cluster.Cluster
	left *atomic.Int32
}

func (f flaky) Reader() (cluster.Reader, error) {
	r, err := f.Cluster.Reader()
	return flakyReader{r, f.left}, err
}

type flakyReader struct {
	cluster.Reader
	left *atomic.Int32
}

func (r flakyReader) Poll(ctx context.Context) ([]cluster.Batch, error) {
	if r.left.Add(-1) >= 0 {
		return nil, errors.New("connection reset")
	}
	return r.Reader.Poll(ctx)
}

// TestAReaderThatFailsAtTheStart: what may pass by itself does not end an application that has just been started.
func TestAReaderThatFailsAtTheStart(t *testing.T) {
	log := mem.New()
	create(t, log, 1, "words", "names", "named")
	write(t, log, "names", 1, "a=Ada")
	topo := build(t, func(b *stream.Builder) {
		names := b.GlobalTable(Names, NameKV)
		b.Stream(Words).LeftJoinGlobal(names, func(k, _ string) string { return k }, func(v string, name *string) string {
			if name == nil {
				return v
			}
			return v + *name
		}).To(Named)
	})
	var left atomic.Int32
	left.Store(3)
	p := run(t, log, newDisk(), topo, func(c *worker.Config) { c.Cluster = flaky{c.Cluster, &left} })
	write(t, log, "words", 1, "a=x")
	eventually(t, "the word is named", func() bool {
		got := read(t, log, "named")
		return len(got) == 1 && string(got[0].Value) == "xAda"
	})
	if err := p.end(); err != nil {
		t.Fatal(err)
	}
}

// counted is a cluster that counts the names which its readers hand out.
type counted struct {
	cluster.Cluster
	records *atomic.Int64
}

func (c counted) Reader() (cluster.Reader, error) {
	r, err := c.Cluster.Reader()
	return countedReader{r, c.records}, err
}

type countedReader struct {
	cluster.Reader
	records *atomic.Int64
}

func (r countedReader) Poll(ctx context.Context) ([]cluster.Batch, error) {
	batches, err := r.Reader.Poll(ctx)
	for _, b := range batches {
		if b.Topic == "names" {
			r.records.Add(int64(len(b.Records)))
		}
	}
	return batches, err
}

// photographed is a disk that is flushed after each batch, and what a process would find that is killed then.
type photographed struct {
	*tier.Mem
	taken []*tier.Mem
}

func (d *photographed) Open(string) (tier.DB, error) { return d, nil }
func (d *photographed) Remove(string) error          { return errors.New("the store is removed") }

func (d *photographed) MaybeFlush(now int64) error {
	err := d.Flush(now)
	d.taken = append(d.taken, d.Crash())
	return err
}

// TestAGlobalTableOfSeveralPartitions: killed at any time it goes on where it was in each partition, and reads nothing twice.
func TestAGlobalTableOfSeveralPartitions(t *testing.T) {
	const partitions, rounds = 3, 20
	log := mem.New()
	create(t, log, partitions, "names")
	topo := build(t, func(b *stream.Builder) { b.GlobalTable(Names, NameKV) })
	want, total := map[string]string{}, 0
	more := func(i int) {
		var names []string
		for n := range 7 {
			k, v := fmt.Sprint("k", (i*7+n*n)%17), fmt.Sprint("v", i*7+n)
			if want[k] = v; n%3 == 2 {
				v = "null"
				delete(want, k)
			}
			names = append(names, k+"="+v)
		}
		total += len(names)
		write(t, log, "names", partitions, names...)
	}
	// up runs on a disk until the table is as it should be, and says how many records it has read.
	up := func(d *photographed, during func(await func())) int64 {
		t.Helper()
		var n atomic.Int64
		p := run(t, log, newDisk(), topo, func(c *worker.Config) { c.State, c.Cluster = d, counted{c.Cluster, &n} })
		select {
		case <-p.Ready():
		case err := <-p.done:
			p.done = nil
			t.Fatal(err)
		}
		await := func() {
			t.Helper()
			got := map[string]string{}
			eventually(t, "the table is complete", func() bool {
				clear(got)
				err := p.Query(t.Context(), "names", 0, func(s flow.Store) {
					for k, v := range NameKV.View(s).All() {
						got[k] = v
					}
				})
				return err == nil && maps.Equal(got, want)
			})
		}
		await()
		if during != nil {
			during(await)
		}
		if err := p.end(); err != nil {
			t.Fatal(err)
		}
		return n.Load()
	}
	first := &photographed{Mem: tier.NewMem()}
	more(0)
	up(first, func(await func()) {
		for i := range rounds {
			more(i + 1)
			await()
		}
	})
	if len(first.taken) < rounds {
		t.Fatalf("killed only %d times", len(first.taken))
	}
	more(rounds + 1)
	if n := up(&photographed{Mem: first.Crash()}, nil); n != 7 {
		t.Errorf("after a stop %d records were read, 7 were new", n)
	}
	for i, killed := range first.taken {
		s, err := killed.Crash().Store("names", tier.Expect{})
		if err != nil {
			t.Fatal(err)
		}
		read := int64(0)
		for _, at := range s.Positions() {
			read += max(at, 0)
		}
		if n := up(&photographed{Mem: killed.Crash()}, nil); read+n != int64(total) {
			t.Errorf("killed for the %d. time: of %d records %d had been read, then %d were", i+1, total, read, n)
		}
	}
	// What a store has missed for good it does not keep: all is read again.
	start := cluster.TP{Topic: "names", Partition: 1}
	ends, err := log.Connect().Admin().Ends(t.Context(), true, start)
	if err == nil {
		err = log.Connect().Admin().DeleteRecords(t.Context(), ends)
	}
	if err != nil {
		t.Fatal(err)
	}
	maps.DeleteFunc(want, func(k, _ string) bool { return stream.Partition([]byte(k), partitions) == start.Partition })
	if n := up(&photographed{Mem: first.taken[0].Crash()}, nil); n != int64(total)-ends[start] {
		t.Errorf("%d records were read, %d are left", n, int64(total)-ends[start])
	}
}
