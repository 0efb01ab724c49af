package worker_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/moldau/moldau/internal/cluster"
	"github.com/moldau/moldau/internal/cluster/mem"
	"github.com/moldau/moldau/internal/worker"
	"github.com/moldau/moldau/stream"
)

// called joins words with names, a table that is restored from its own topic.
func called(b *stream.Builder) {
	names := b.Table(Names, NameKV.ReuseSourceTopic())
	b.Stream(Words).LeftJoinTable(names, func(v string, name *string) string {
		if name == nil {
			return v + " ?"
		}
		return v + " " + *name
	}).To(Named)
}

// readUp says whether a topic has been read to its end, and committed.
func readUp(t *testing.T, log *mem.Log, topic string) bool {
	tp := cluster.TP{Topic: topic}
	offsets, err := log.Connect().Admin().Committed(t.Context(), "app", tp)
	if err != nil {
		t.Fatal(err)
	}
	return offsets[tp].At == written(t, log, topic)
}

// TestATableRestoredFromItsTopic: there is no changelog; after a crash, with and without the disk, the table is what it was, up to
// the committed position, whatever lies in the topic after it.
func TestATableRestoredFromItsTopic(t *testing.T) {
	log, topo := mem.New(), build(t, called)
	create(t, log, 1, "words", "names", "named")
	write(t, log, "names", 1, "a=Anna", "b=Bert")
	p := run(t, log, newDisk(), topo, nil)
	var want []string
	for i, lost := range []bool{false, true, false} {
		eventually(t, "names are read", func() bool { return readUp(t, log, "names") })
		d := p.kill()
		if lost {
			d = newDisk()
		}
		write(t, log, "names", 1, fmt.Sprint("a=Anna ", i)) // it is not part of the restore
		p = run(t, log, d, topo, nil)
		eventually(t, "names are read", func() bool { return readUp(t, log, "names") })
		if n := p.happened(worker.RestoreEnded); lost && n != 1 {
			t.Errorf("%d stores were restored", n)
		}
		write(t, log, "words", 1, "a=hello", "b=hello")
		want = append(want, fmt.Sprint("hello Anna ", i), "hello Bert")
		eventually(t, "both are called by their names", func() bool {
			var got []string
			for _, r := range read(t, log, "named") {
				got = append(got, string(r.Value))
			}
			return slices.Equal(got, want)
		})
	}
	if n := written(t, log, "app-names-changelog"); n != 0 {
		t.Errorf("a changelog with %d offsets", n)
	}
	if n := written(t, log, "names"); n != 5 {
		t.Errorf("the topic has %d records", n)
	}
	// Somebody sets the positions back: the store is ahead of them, and begins anew.
	if err := p.end(); err != nil {
		t.Fatal(err)
	}
	commit(t, log, map[cluster.TP]cluster.Offset{{Topic: "names"}: {At: 1}})
	p = run(t, log, p.disk, topo, nil)
	eventually(t, "names are read again", func() bool { return readUp(t, log, "names") })
	if n := p.happened(worker.StoreRebuilt); n != 1 {
		t.Errorf("%d stores were rebuilt", n)
	}
}

// TestATopicThatForgets: a table is not restored from a topic that loses rows.
func TestATopicThatForgets(t *testing.T) {
	log, topo := mem.New(), build(t, called)
	create(t, log, 1, "words", "named")
	err := log.Connect().Admin().Create(t.Context(), cluster.TopicSpec{Name: "names", Partitions: 1, Replication: -1,
		Config: map[string]string{"cleanup.policy": "delete", "retention.ms": "1000", "retention.bytes": "-1"}})
	if err != nil {
		t.Fatal(err)
	}
	err = run(t, log, newDisk(), topo, nil).wait()
	if !errors.Is(err, worker.ErrTopics) || !strings.Contains(err.Error(), "would lose rows") {
		t.Fatalf("got %v", err)
	}
	// On the bundled broker, where the application makes the topic, it makes it right.
	log = mem.New()
	topo = build(t, func(b *stream.Builder) { b.Table(Names.Partitions(1), NameKV.ReuseSourceTopic()) })
	p := run(t, log, newDisk(), topo, func(c *worker.Config) { c.Bundled = true })
	select {
	case <-p.Ready():
	case err := <-p.done:
		t.Fatal(err)
	}
	infos, err := log.Connect().Admin().Describe(t.Context(), "names")
	if err != nil || infos["names"].Config["cleanup.policy"] != "compact" {
		t.Errorf("created as %v, %v", infos, err)
	}
}
