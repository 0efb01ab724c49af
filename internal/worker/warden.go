package worker

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/moldau/moldau/internal/cluster"
	"github.com/moldau/moldau/topology"
)

// warden is the goroutine for what is asked of the cluster now and then.
type warden struct {
	n   *Node
	box *mailbox[endsWanted]
	// look asks for a look at which topics there are.
	look   chan struct{}
	purged map[cluster.TP]int64 // up to where; its goroutine's own
}

type endsWanted struct {
	w   *worker
	tps []cluster.TP
}

// lagInterval is the time between looks at how far the input reaches.
const lagInterval = 2 * time.Second

// askEnds has a worker told where partitions end.
func (d *warden) askEnds(w *worker, tps []cluster.TP) { d.box.put(endsWanted{w, tps}) }

func (d *warden) run(ctx context.Context) {
	lag := time.NewTicker(lagInterval)
	defer lag.Stop()
	purge := time.NewTicker(d.n.cfg.PurgeInterval)
	defer purge.Stop()
	watch := time.NewTicker(d.n.cfg.WatchInterval)
	defer watch.Stop()
	find := time.NewTicker(d.n.cfg.MetadataMaxAge)
	defer find.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.box.signal:
			d.ends(ctx)
		case <-lag.C:
			d.lag(ctx)
			if err := d.n.stopped(ctx); err != nil {
				d.n.fail(err)
			}
		case <-purge.C:
			d.purge(ctx)
		case <-watch.C:
			err := d.n.topics.watch(ctx)
			if errors.Is(err, errVanished) {
				err = d.find(ctx)
			}
			d.looked(ctx, err)
		case <-find.C:
			d.looked(ctx, d.find(ctx))
		case <-d.look:
			d.looked(ctx, d.find(ctx))
			sleep(ctx, lookPause)
		}
	}
}

// lookPause keeps looks apart that are asked for by whoever misses a topic.
const lookPause = 100 * time.Millisecond

// looked deals with what a look at the topics has found.
func (d *warden) looked(ctx context.Context, err error) {
	switch {
	case err == nil || ctx.Err() != nil:
	case errors.Is(err, ErrTopics):
		d.n.fail(err)
	default:
		d.n.log.Warn("looking at the source topics fails", "error", err)
	}
}

func (d *warden) ends(ctx context.Context) {
	wanted := map[*worker]map[cluster.TP]bool{}
	all := map[cluster.TP]bool{}
	for _, e := range d.box.take() {
		if wanted[e.w] == nil {
			wanted[e.w] = map[cluster.TP]bool{}
		}
		for _, tp := range e.tps {
			wanted[e.w][tp], all[tp] = true, true
		}
	}
	if len(all) == 0 {
		return
	}
	ends, err := d.n.admin.Ends(ctx, true, slices.Collect(maps.Keys(all))...)
	if err != nil {
		if ctx.Err() == nil {
			d.n.log.Warn("asking for the ends of partitions fails", "error", err)
		}
		return // workers ask again
	}
	for w, tps := range wanted {
		mine := map[cluster.TP]int64{}
		for tp := range tps {
			if end, ok := ends[tp]; ok {
				mine[tp] = end
			}
		}
		w.knowEnds(mine)
	}
}

// lag notes how far the input of the running tasks reaches.
func (d *warden) lag(ctx context.Context) {
	committed := d.n.committed()
	if len(committed) == 0 {
		return
	}
	ends, err := d.n.admin.Ends(ctx, true, slices.Collect(maps.Keys(committed))...)
	if err != nil {
		return // the figures stay as they are
	}
	d.n.setEnds(ends)
}

// purge deletes what has been read from repartition topics and committed: nobody else reads them.
func (d *warden) purge(ctx context.Context) {
	below := map[cluster.TP]int64{}
	for tp, at := range d.n.committed() {
		if source := d.n.source(tp.Topic); at > d.purged[tp] && source != nil && source.Kind == topology.Repartition {
			below[tp] = at
		}
	}
	if len(below) == 0 {
		return
	}
	switch err := d.n.admin.DeleteRecords(ctx, below); {
	case err == nil:
		maps.Copy(d.purged, below)
	case ctx.Err() == nil:
		d.n.log.Warn("purging repartition topics fails; they keep growing until it works", "error", err)
	}
}
