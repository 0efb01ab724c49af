package log

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// TestCrashCompaction loses power at random while a partition is written and compacted. What is read then must have
// been written, at its offset and in order, and the last acknowledged record of each key must be there.
func TestCrashCompaction(t *testing.T) { crashCompactions(t, 0, 150, map[string]int{}) }

// compactionLives is how often crashCompactions crashes with one seed.
const compactionLives = 4

// crashCompactions runs seeds from the first on and counts the places it crashed at.
func crashCompactions(t *testing.T, first, seeds uint64, sites map[string]int) {
	for seed := first; seed < first+seeds; seed++ {
		fs := vfs.NewCrashableMem()
		c := compactCrash{t: t, seed: seed, clock: newClock(), written: map[int64]held{}, sites: sites}
		for life := range compactionLives {
			fs = c.life(fs, seed*10+uint64(life))
		}
	}
}

type compactCrash struct {
	t       *testing.T
	seed    uint64
	clock   *clock
	sites   map[string]int
	boots   int
	written map[int64]held // every record ever written and not known to be lost, by offset

	mu    sync.Mutex
	acked int64 // high watermark acknowledged
	clone *vfs.MemFS
	ack   int64 // acked when clone was made
}

func (c *compactCrash) life(fs *vfs.MemFS, seed uint64) *vfs.MemFS {
	rng := rand.New(rand.NewPCG(seed, 11))
	at, n := 1+rng.IntN(150), 0
	percent := []int{0, 50, 100}[rng.IntN(3)]
	refers := c.seed%3 == 0
	c.clone = nil
	wrapped := errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
			return nil
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if n++; n == at {
			if c.ack = c.acked; refers && percent < 100 {
				c.ack = 0 // the end of it may be gone
			}
			c.sites[callSite()]++
			c.clone = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(seed, 12))})
		}
		return nil
	}))
	l := open(c.t, wrapped, func(o *Options) {
		o.Now = c.clock.now
		if o.CacheBytes, o.WALBytes = 1<<10, 2<<10; refers {
			referring(o, 120)
			o.BootID = fmt.Sprint("boot ", c.boots)
		}
	})
	p := create(c.t, l, 0, Config{Compact: true, SegmentBytes: 600, DeleteRetentionMS: 1000})
	c.check(p)
	crashed := func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.clone != nil
	}
	for i := 0; i < 60 && !crashed(); i++ {
		s := spec{}
		for range 1 + rng.IntN(4) {
			r := kv(fmt.Sprint("key", rng.IntN(12)), fmt.Sprint(c.seed, "-", rng.Int64()))
			if rng.IntN(6) == 0 {
				r.value = nil
			}
			s.records = append(s.records, r)
		}
		c.mu.Lock()
		base := c.next()
		for j, r := range s.records {
			c.written[base+int64(j)] = held{offset: base + int64(j), key: string(r.key), value: string(r.value), null: r.value == nil, timestamp: r.ts}
		}
		c.mu.Unlock()
		r := put(c.t, l, p, s)
		c.mu.Lock()
		c.acked = r.BaseOffset + int64(len(s.records))
		c.mu.Unlock()
		if rng.IntN(8) == 0 {
			c.clock.add(time.Duration(rng.IntN(2000)) * time.Millisecond)
			if err := l.Checkpoint(); err != nil {
				c.t.Fatal(err)
			}
			if err := p.Compact(context.Background()); err != nil && !errors.Is(err, context.Canceled) {
				c.t.Fatal(err)
			}
			c.check(p)
		}
	}
	closeLog(c.t, l)
	if c.clone == nil {
		c.ack, c.clone, percent = c.acked, fs.CrashClone(vfs.CrashCloneCfg{}), 0
	}
	if percent < 100 {
		c.boots++
	}
	// What was not acknowledged may be lost; the next life finds out.
	c.acked = c.ack
	return c.clone
}

func (c *compactCrash) next() int64 {
	next := int64(0)
	for o := range c.written {
		next = max(next, o+1)
	}
	return next
}

func (c *compactCrash) check(p *Partition) {
	c.t.Helper()
	_, hw, _ := p.Offsets()
	if hw < c.acked {
		c.t.Fatalf("seed %d: the high watermark is %d, %d was acknowledged", c.seed, hw, c.acked)
	}
	maps.DeleteFunc(c.written, func(o int64, _ held) bool { return o >= hw })
	last := map[string]held{}
	for o := range hw {
		if r, ok := c.written[o]; ok {
			last[r.key] = r
		}
	}
	before := int64(-1)
	for _, r := range everything(c.t, p) {
		if w, ok := c.written[r.offset]; !ok || w != r || r.offset <= before {
			c.t.Fatalf("seed %d: read %+v behind offset %d, want %+v", c.seed, r, before, w)
		}
		before = r.offset
		if last[r.key] == r {
			delete(last, r.key)
		}
	}
	for _, r := range last {
		if !r.null {
			c.t.Fatalf("seed %d: %+v is the last of its key, and gone", c.seed, r)
		}
	}
}
