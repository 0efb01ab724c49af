package log

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestStress writes, reads at the tail and from the start, compacts, takes checkpoints and deletes partitions all at
// once. Each reader must see every record once and in order.
func TestStress(t *testing.T) {
	const parts, writers, batches = 4, 4, 150
	l := open(t, vfs.NewMem(), func(o *Options) { o.CacheBytes, o.WALBytes = 16<<10, 32<<10 })
	var list []*Partition
	for i := range int32(parts) {
		list = append(list, create(t, l, i, Config{SegmentBytes: 4 << 10, Compact: true}))
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			var done sync.WaitGroup
			for n := range batches {
				var appends []Append
				for _, p := range list {
					s := spec{pid: int64(w + 1), seq: int32(2 * n), records: []rec{kv(fmt.Sprint(w, n), fmt.Sprint(w, " ", 2*n)), kv(fmt.Sprint(w, n, "+"), fmt.Sprint(w, " ", 2*n+1))}}
					appends = append(appends, Append{Partition: p, Batch: s.build(t)})
				}
				done.Add(1)
				for _, r := range l.Submit(Write{Appends: appends}, WaitSync, func(err error) {
					if err != nil {
						t.Error(err)
						cancel()
					}
					done.Done()
				}) {
					if r.Err != nil {
						t.Error(r.Err, r.ErrMessage)
					}
				}
				if n%5 == 0 {
					done.Wait()
				}
			}
			done.Wait()
		})
	}
	for _, p := range list {
		for _, committed := range []bool{false, true} {
			all.Go(func() { follow(ctx, t, p, committed, writers, 2*batches) })
		}
	}
	var stop atomic.Bool
	var others sync.WaitGroup
	others.Go(func() {
		for i := 0; !stop.Load(); i++ {
			if err := l.Checkpoint(); err != nil {
				t.Error(err)
			}
			if err := list[i%parts].Compact(context.Background()); err != nil { // drops nothing: no key is written twice
				t.Error(err)
			}
		}
	})
	others.Go(func() {
		for i := int32(0); !stop.Load(); i++ {
			p, err := l.CreatePartition(id(9, i), "short", Config{})
			if err != nil {
				t.Error(err)
				return
			}
			put(t, l, p, spec{records: []rec{kv("k", "v")}})
			_, _, _, _, _ = p.MaxTimestamp()
			_ = p.Producers()
			if err := l.DeletePartition(p.ID()); err != nil {
				t.Error(err)
				return
			}
		}
	})
	all.Wait()
	stop.Store(true)
	others.Wait()
	closeLog(t, l)
}

// follow reads a partition to the end as a consumer does, waiting for more.
func follow(ctx context.Context, t *testing.T, p *Partition, committed bool, writers, records int) {
	next := make([]int, writers)
	w := NewWaiter()
	p.Watch(committed, w)
	defer p.Unwatch(w)
	left := writers * records
	for from := int64(0); left > 0; {
		f, err := p.Read(from, 2000, committed, true)
		if err != nil {
			t.Error(err)
			return
		}
		if len(f.Batches) == 0 {
			select {
			case <-w.C:
			case <-ctx.Done():
				return
			}
			continue
		}
		for _, b := range f.Batches {
			h, _ := parseHeader(b)
			from = h.next()
			if err := eachRecord(b[batchHeader:], h.count, func(r *record) bool {
				var writer, n int
				if _, err := fmt.Sscan(string(r.value), &writer, &n); err != nil || n != next[writer] {
					t.Errorf("%s: record %q, expected %d (%v)", p, r.value, next[writer], err)
				}
				next[writer]++
				left--
				return true
			}); err != nil {
				t.Error(err)
			}
		}
		f.Release()
	}
}
