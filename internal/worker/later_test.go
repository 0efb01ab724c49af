package worker_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/moldau/moldau/internal/cluster"
	"github.com/moldau/moldau/internal/cluster/mem"
	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/task"
	"github.com/moldau/moldau/internal/worker"
	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/stream"
)

// unanswering is a cluster that some questions about topics get no answer from.
type unanswering struct {
	cluster.Cluster
	topic string
	left  *atomic.Int32
}

func (u unanswering) Admin() cluster.Admin { return unansweringAdmin{u.Cluster.Admin(), u} }

type unansweringAdmin struct {
	cluster.Admin
	u unanswering
}

func (a unansweringAdmin) Describe(ctx context.Context, topics ...string) (map[string]cluster.TopicInfo, error) {
	if len(topics) == 1 && topics[0] == a.u.topic && a.u.left.Add(-1) >= 0 {
		return nil, errors.New("connection reset")
	}
	return a.Admin.Describe(ctx, topics...)
}

// TestATopicThatCannotBeLookedUp: that the cluster does not answer when a record has chosen a topic is not the record's
// fault; that there is no such topic is.
func TestATopicThatCannotBeLookedUp(t *testing.T) {
	log := mem.New()
	create(t, log, 1, "words", "totals", "chosen")
	topo := build(t, func(b *stream.Builder) {
		counted := b.Stream(Words).GroupByKey().Count(Counts.EveryUpdate()).ToStream()
		counted.ToFunc(func(r stream.Record[string, int64]) stream.Topic[string, int64] {
			name := "chosen"
			if r.Key == "b" {
				name = "no such topic"
			}
			return stream.NewTopic(name, serde.String, serde.Int64)
		})
	})
	write(t, log, "words", 1, "a=1", "b=1", "a=2")
	var left atomic.Int32
	left.Store(3)
	var asked []string
	p := run(t, log, newDisk(), topo, func(c *worker.Config) {
		c.Cluster = unanswering{c.Cluster, "chosen", &left}
		c.Errors.Except = func(e *task.Error, _ task.ErrorPolicy) task.ErrorPolicy {
			asked = append(asked, e.Error())
			return task.ErrorPolicy{Action: task.Skip}
		}
	})
	eventually(t, "both of a arrive", func() bool { return len(read(t, log, "chosen")) == 2 })
	for i, r := range read(t, log, "chosen") {
		if n := binary.BigEndian.Uint64(r.Value); string(r.Key) != "a" || n != uint64(i+1) {
			t.Errorf("record %d: %s=%d", i, r.Key, n)
		}
	}
	if err := p.end(); err != nil {
		t.Error(err)
	}
	if left.Load() > 0 {
		t.Error("the topic was not looked up again")
	}
	for _, e := range asked {
		if !strings.Contains(e, "no such topic") {
			t.Errorf("the policy was asked about: %s", e)
		}
	}
	if len(asked) == 0 {
		t.Error("nobody was told of the topic that is not there")
	}
}

// trimming is a cluster that deletes the first half of a changelog while it is read.
type trimming struct {
	cluster.Cluster
	done *atomic.Bool
}

func (c trimming) Reader() (cluster.Reader, error) {
	r, err := c.Cluster.Reader()
	return &trimmingReader{Reader: r, c: c}, err
}

type trimmingReader struct {
	cluster.Reader
	c     trimming
	reads bool // the changelog
}

func (r *trimmingReader) Assign(from map[cluster.TP]int64) {
	_, r.reads = from[cluster.TP{Topic: "app-counts-changelog"}]
	r.Reader.Assign(from)
}

func (r *trimmingReader) Poll(ctx context.Context) ([]cluster.Batch, error) {
	if r.reads && r.c.done.CompareAndSwap(false, true) {
		tp := cluster.TP{Topic: "app-counts-changelog"}
		err := r.c.Cluster.Admin().DeleteRecords(ctx, map[cluster.TP]int64{tp: 5})
		return nil, errors.Join(err, fmt.Errorf("fetching %v: %w", tp, cluster.ErrOutOfRange))
	}
	return r.Reader.Poll(ctx)
}

// TestAChangelogIsTrimmedWhileItIsRead: the application goes on with what is left, as it would had it started later.
func TestAChangelogIsTrimmedWhileItIsRead(t *testing.T) {
	log := mem.New()
	create(t, log, 1, "words", "totals")
	topo := build(t, func(b *stream.Builder) { b.Stream(Words).GroupByKey().Count(Counts).ToStream().To(Totals) })
	p := run(t, log, newDisk(), topo, nil)
	records, want := words(0, 20, 20)
	write(t, log, "words", 1, records...)
	eventually(t, "all are counted", func() bool { return maps.Equal(totals(t, log), want) })
	if err := p.end(); err != nil {
		t.Fatal(err)
	}
	p = run(t, log, newDisk(), topo, func(c *worker.Config) { c.Cluster = trimming{c.Cluster, &atomic.Bool{}} })
	eventually(t, "the task runs", func() bool { return len(p.Status()) == 1 })
	n := 0
	if err := p.Query(t.Context(), "counts", 0, func(s flow.Store) {
		for range Counts.View(s).All() {
			n++
		}
	}); err != nil || n < 10 || n > 15 {
		t.Errorf("%d of 20 words are left, %v", n, err)
	}
	if err := p.end(); err != nil {
		t.Error(err)
	}
}

// TestRecordsOfNegativeTimeAreCommitted: what is passed over is work, too.
func TestRecordsOfNegativeTimeAreCommitted(t *testing.T) {
	log := mem.New()
	create(t, log, 1, "words", "totals")
	w, err := log.Connect().Producer(cluster.ProducerConfig{})
	if err == nil {
		err = w.Init(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	topo := build(t, func(b *stream.Builder) { b.Stream(Words).GroupByKey().Count(Counts).ToStream().To(Totals) })
	run(t, log, newDisk(), topo, nil)
	w.Produce([]flow.Out{{Topic: &flow.Topic{Name: "words", Partitions: 1}, Time: -5, Key: []byte("k"), Value: []byte("v")}}, func(map[cluster.TP]int64, error) {})
	tp := cluster.TP{Topic: "words"}
	eventually(t, "the position is committed", func() bool {
		got, err := log.Connect().Admin().Committed(t.Context(), "app", tp)
		return err == nil && got[tp].At == 1
	})
}

// sealed is a file system in which no lock file can be made.
type sealed struct{ vfs.FS }

func (sealed) Lock(name string) (io.Closer, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
}

// TestALockThatCannotBeMade: the directory is not said to be another's because of a disk that cannot be written.
func TestALockThatCannotBeMade(t *testing.T) {
	_, err := worker.OpenIdentity(sealed{vfs.NewMem()}, "state", "app")
	if errors.Is(err, worker.ErrInUse) || !errors.Is(err, fs.ErrPermission) {
		t.Errorf("got %v", err)
	}
}
