package worker_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/moldau/moldau/internal/cluster"
	"github.com/moldau/moldau/internal/cluster/mem"
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
