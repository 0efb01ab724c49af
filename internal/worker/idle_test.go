package worker_test

import (
	"testing"
	"time"

	"github.com/moldau/moldau/internal/cluster"
	"github.com/moldau/moldau/internal/cluster/mem"
	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/stream"
	"github.com/moldau/moldau/window"
)

// TestAWindowClosesInSilence has a task of one input ask where that ends, and then close what is due; once.
func TestAWindowClosesInSilence(t *testing.T) {
	log := mem.New()
	create(t, log, 1, "words", "totals")
	perSecond := state.NewWindow("per-second", serde.String, serde.Int64)
	topo := build(t, func(b *stream.Builder) {
		b.Stream(Words.IdleAfter(20 * time.Millisecond)).GroupByKey().WindowedBy(window.Tumbling(time.Second)).OnClose().Count(perSecond).
			ToStream().Map(func(k window.Key[string], n int64) (string, int64) { return k.Key, n }).To(Totals)
	})
	d := newDisk()
	p := run(t, log, d, topo, nil)
	write(t, log, "words", 1, "a=x", "a=x", "b=x")
	eventually(t, "the window closes", func() bool { return len(read(t, log, "totals")) == 2 })
	committed := func() string {
		at, err := log.Connect().Admin().Committed(t.Context(), "app", cluster.TP{Topic: "words"})
		if err != nil {
			t.Fatal(err)
		}
		return at[cluster.TP{Topic: "words"}].Metadata
	}
	before := committed()
	p = run(t, log, p.kill(), topo, nil)
	eventually(t, "it runs again", func() bool { return len(p.Status()) == 1 })
	write(t, log, "words", 1, "a=x") // of the window that has closed
	eventually(t, "it is dropped", func() bool {
		all := p.Status()
		return len(all) == 1 && len(all[0].Dropped) == 1
	})
	if err := p.end(); err != nil {
		t.Fatal(err)
	}
	if before == committed() {
		t.Error("nothing was committed with the last record")
	}
	if got := read(t, log, "totals"); len(got) != 2 {
		t.Errorf("%d results", len(got))
	}
}
