package franz

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/moldau/moldau/internal/cluster"
	"github.com/moldau/moldau/internal/flow"
)

// fetcher reads partitions directly and turns what kgo brings into batches. Member and Reader are built on it. One
// goroutine polls and assigns; the rest may be called from any.
type fetcher struct {
	c    *Cluster
	cl   *kgo.Client
	pool batchPool

	mu  sync.Mutex
	at  map[cluster.TP]*position
	err error // found beside good batches; the next poll returns it
}

// position is where a partition is read.
type position struct {
	next    int64 // -1: the log start, wherever that is
	loaded  bool  // kgo has brought something: the partition can be sought without a look-up
	paused  bool
	settled bool          // next was seen to be the end, nothing has come since
	heard   time.Time     // when something last came, or was asked for
	quiet   time.Duration // how long to wait from then until asking for the end
}

// hear notes that something came or was asked for.
func (p *position) hear(now time.Time) { p.settled, p.heard, p.quiet = false, now, quiet }

func newFetcher(c *Cluster) (*fetcher, error) {
	f := &fetcher{c: c, at: make(map[cluster.TP]*position)}
	var err error
	f.cl, err = c.client(
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		// Markers are kept for their offsets alone: they are the only way to learn positions past them.
		kgo.KeepControlRecords(),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.WithPools(&recordPool{}),
		// A partition that is added waits for the answer to the fetch under way; so an idle one is not to take long.
		kgo.FetchMaxWait(100*time.Millisecond),
	)
	return f, err
}

// seek begins reading partitions, or goes on elsewhere.
func (f *fetcher) seek(offsets map[cluster.TP]int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	set := map[string]map[int32]kgo.EpochOffset{}
	add := map[string]map[int32]kgo.Offset{}
	var again []cluster.TP
	now := time.Now()
	for tp, at := range offsets {
		if p := f.at[tp]; p != nil {
			if p.loaded && at >= 0 {
				if set[tp.Topic] == nil {
					set[tp.Topic] = map[int32]kgo.EpochOffset{}
				}
				set[tp.Topic][tp.Partition] = kgo.EpochOffset{Epoch: -1, Offset: at}
				p.next = at
				p.hear(now)
				continue
			}
			again = append(again, tp)
		}
		p := &position{next: at}
		p.hear(now)
		f.at[tp] = p
		if add[tp.Topic] == nil {
			add[tp.Topic] = map[int32]kgo.Offset{}
		}
		o := kgo.NewOffset().At(at)
		if at < 0 {
			o = kgo.NewOffset().AtStart()
		}
		add[tp.Topic][tp.Partition] = o
	}
	f.cl.RemoveConsumePartitions(byTopic(again))
	f.cl.SetOffsets(set)
	f.cl.AddConsumePartitions(add)
}

// remove stops reading partitions.
func (f *fetcher) remove(tps []cluster.TP) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var gone []cluster.TP
	for _, tp := range tps {
		if f.at[tp] != nil {
			delete(f.at, tp)
			gone = append(gone, tp)
		}
	}
	f.cl.RemoveConsumePartitions(byTopic(gone))
	f.cl.ResumeFetchPartitions(byTopic(gone))
}

func (f *fetcher) position(tp cluster.TP) (int64, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.at[tp]
	if p == nil {
		return 0, false
	}
	return p.next, true
}

func (f *fetcher) pause(tps []cluster.TP) {
	f.mark(tps, true)
	f.cl.PauseFetchPartitions(byTopic(tps))
}

func (f *fetcher) resume(tps []cluster.TP) {
	f.mark(tps, false)
	f.cl.ResumeFetchPartitions(byTopic(tps))
}

func (f *fetcher) mark(tps []cluster.TP, paused bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	for _, tp := range tps {
		if p := f.at[tp]; p != nil {
			p.paused = paused
			p.hear(now)
		}
	}
}

// quiet is how long a partition must have brought nothing before it is asked whether anything is left; twice as long
// each time the answer was that there is.
const quiet = 30 * time.Millisecond

// poll waits for batches until ctx ends; that it ended is no error.
func (f *fetcher) poll(ctx context.Context) ([]cluster.Batch, error) {
	for {
		if batches, err := f.convert(f.buffered()); len(batches) > 0 || err != nil {
			return batches, err
		}
		if ctx.Err() != nil {
			return nil, nil
		}
		wait, stop := ctx, context.CancelFunc(func() {})
		silent, more := f.silent(time.Now())
		if len(silent) > 0 {
			if batches := f.skip(ctx, silent); len(batches) > 0 {
				return batches, nil
			}
		} else if more {
			wait, stop = context.WithTimeout(ctx, quiet)
		}
		fetches := f.cl.PollRecords(wait, 0)
		stop()
		if batches, err := f.convert(fetches); len(batches) > 0 || err != nil {
			return batches, err
		}
	}
}

// buffered takes what kgo has brought already.
func (f *fetcher) buffered() kgo.Fetches {
	return f.cl.PollRecords(nil, 0) //lint:ignore SA1012 without a context kgo does not wait
}

// convert turns fetches into batches; records go back to kgo at once, their bytes live on.
func (f *fetcher) convert(fetches kgo.Fetches) ([]cluster.Batch, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.err; err != nil && len(fetches) == 0 {
		f.err = nil
		return nil, err
	}
	var batches []cluster.Batch
	now := time.Now()
	fetches.EachPartition(func(ftp kgo.FetchTopicPartition) {
		tp := cluster.TP{Topic: ftp.Topic, Partition: ftp.Partition}
		if ftp.Err != nil {
			f.fail(tp, ftp.Err)
		}
		p := f.at[tp]
		if len(ftp.Records) == 0 {
			return
		}
		if p == nil {
			for _, r := range ftp.Records {
				r.Recycle()
			}
			return
		}
		b := f.pool.get(len(ftp.Records))
		next := p.next
		for _, r := range ftp.Records {
			if r.Offset >= p.next {
				next = r.Offset + 1
				if !r.Attrs.IsControl() {
					b.records = append(b.records, flow.In{
						Offset: r.Offset, Time: r.Timestamp.UnixMilli(), Key: r.Key, Value: r.Value, Headers: headersIn(r.Headers),
					})
				}
			}
			r.Recycle()
		}
		p.next, p.loaded = next, true
		p.hear(now)
		batches = append(batches, cluster.Batch{TP: tp, Records: b.records, Next: next, Release: b.release})
	})
	if len(batches) == 0 {
		err := f.err
		f.err = nil
		return nil, err
	}
	return batches, nil
}

// fail notes what is wrong with a partition. The end of a context is the caller's own doing.
func (f *fetcher) fail(tp cluster.TP, err error) {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || f.err != nil {
		return
	}
	if tp.Topic == "" {
		f.err = wrap(err, "fetching")
		return
	}
	at := int64(-1)
	if p := f.at[tp]; p != nil {
		at = p.next
	} else {
		return // given up meanwhile
	}
	f.err = wrap(err, "fetching %s-%d from offset %d", tp.Topic, tp.Partition, at)
}

// close stops reading before it closes the client: kgo closes badly while it still takes partitions up.
func (f *fetcher) close() {
	f.mu.Lock()
	var all []cluster.TP
	for tp := range f.at {
		all = append(all, tp)
	}
	f.mu.Unlock()
	f.remove(all)
	f.cl.Close()
}
