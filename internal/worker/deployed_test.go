package worker_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/moldau/moldau/internal/cluster/mem"
	"github.com/moldau/moldau/internal/worker"
	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/stream"
	"github.com/moldau/moldau/topology"
)

// A topology that could not read what the last one wrote is refused, with what is wrong and the way out; another one is recorded.
func TestUnsafeChangesAreRefused(t *testing.T) {
	log := mem.New()
	create(t, log, 2, "words", "totals")
	ran := func(topo *topology.Topology, change func(*worker.Config)) error {
		p := run(t, log, newDisk(), topo, change)
		select {
		case <-p.Ready():
			return p.end()
		case err := <-p.done:
			p.done = nil
			p.identity.Close()
			return err
		}
	}
	recorded := func() topology.Description {
		all := read(t, log, worker.DeployedTopic("app"))
		d, err := topology.ParseDescription(all[len(all)-1].Value)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	first := build(t, count)
	if err := ran(first, nil); err != nil {
		t.Fatal(err)
	}
	if d := recorded(); d.Topics[1].Name != "again-repartition" || d.Topics[1].Partitions != 2 {
		t.Errorf("recorded: %s", d.JSON())
	}
	if err := ran(first, nil); err != nil {
		t.Fatal(err)
	}
	if n := len(read(t, log, worker.DeployedTopic("app"))); n != 1 {
		t.Errorf("the same topology is recorded %d times", n)
	}
	other := build(t, func(b *stream.Builder) {
		b.Stream(Words).GroupBy(Again, func(k, _ string) string { return k }).Reduce(state.NewKeyValue("counts", serde.String, serde.String), func(a, _ string) string { return a })
	})
	err := ran(other, nil)
	if !errors.Is(err, worker.ErrTopology) || !strings.Contains(err.Error(), `! store "counts": its values were written as int64 and are now string`) ||
		!strings.Contains(err.Error(), "moldau app reset") {
		t.Errorf("an unsafe change: %v", err)
	}
	if err := ran(build(t, func(b *stream.Builder) {
		count(b)
		b.Table(Words, NameKV)
	}), nil); err != nil {
		t.Errorf("a store more: %v", err)
	}
	if err := ran(other, func(c *worker.Config) { c.AcceptTopology = true }); err != nil {
		t.Errorf("accepted: %v", err)
	}
	if d := recorded(); d.Subs[1].Stores[0].Value != "string" {
		t.Errorf("what was accepted is not recorded: %s", d.JSON())
	}
	// A store that goes leaves its changelog, which another one of its name would read.
	if err := ran(build(t, func(b *stream.Builder) {
		b.Stream(Words).Repartition(Again).Foreach(func(wordRecord) error { return nil })
	}), nil); err != nil {
		t.Errorf("a store less: %v", err)
	}
	if err := ran(first, nil); !errors.Is(err, worker.ErrTopology) || !strings.Contains(err.Error(), "what is in the changelog that an earlier version has left cannot be read") {
		t.Errorf("a store that comes back with other values: %v", err)
	}
	if err := ran(other, nil); err != nil {
		t.Errorf("a store that comes back: %v", err)
	}
}
