package log

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"sort"
)

// maxKeys bounds the keys one pass of compaction keeps in memory; the next pass goes on where it stopped.
const maxKeys = 2 << 20

// Compact compacts every partition that is due by its configuration. The log does this by itself now and then.
func (l *Log) Compact(ctx context.Context) error {
	var errs []error
	for _, p := range l.all() {
		if ctx.Err() != nil {
			break
		}
		if p.dueForCompaction(l.o.Now().UnixMilli()) {
			errs = append(errs, p.Compact(ctx))
		}
	}
	return errors.Join(errs...)
}

// Compact leaves of each key the last committed record and what follows the segments it may touch: neither the one
// that grows, nor any not wholly below the last stable offset or younger than min.compaction.lag.ms. It drops the
// records of aborted transactions, and deletions and markers delete.retention.ms after they were first seen. Without
// compact in its cleanup.policy a partition is left alone.
func (p *Partition) Compact(ctx context.Context) error {
	p.log.compacting.Lock()
	defer p.log.compacting.Unlock()
	now := p.log.o.Now().UnixMilli()
	for {
		c := newCompaction(p, now)
		if len(c.segs) == 0 || !c.cfg.Compact {
			return nil
		}
		if err := c.run(ctx); err != nil {
			if p.isGone() {
				return nil
			}
			return fmt.Errorf("compact %s: %w", p, err)
		}
		if c.upTo >= c.end {
			return nil
		}
	}
}

// dueForCompaction weighs what is new against what is there, as min.cleanable.dirty.ratio and
// max.compaction.lag.ms say, and looks for deletions whose time has come.
func (p *Partition) dueForCompaction(now int64) bool {
	c := p.cfg.Load()
	if !c.Compact {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var dirty, total int64
	for _, s := range p.compactable(c, now) {
		total += s.size
		if s.next > p.cleaned {
			dirty += s.size
			if c.MaxCompactionLagMS > 0 && now-s.created >= c.MaxCompactionLagMS {
				return true
			}
		} else if s.horizon > 0 && s.horizon <= now {
			return true
		}
	}
	return dirty > 0 && float64(dirty) >= c.MinCleanableDirtyRatio*float64(total)
}

// compactable are the segments compaction may touch. With p.mu held.
func (p *Partition) compactable(c *Config, now int64) []*segment {
	stable := p.stable()
	n := 0
	for n < len(p.segs) {
		s := p.segs[n]
		if n == len(p.segs)-1 && !s.sealed || s.next > stable || c.MinCompactionLagMS > 0 && s.maxTS > now-c.MinCompactionLagMS {
			break
		}
		n++
	}
	return p.segs[:n]
}

// keyHash stands for a key: at 128 bits no two will ever meet.
type keyHash [2]uint64

// compaction is one pass over a partition.
type compaction struct {
	p       *Partition
	l       *Log
	cfg     *Config
	now     int64
	segs    []*segment          // what is rewritten
	from    int64               // what lies below was compacted before
	end     int64               // behind segs
	aborted map[int64][]aborted // by producer, by offset

	seeds [2]maphash.Seed
	keys  map[keyHash]int64 // key to the offset of its last committed record in [from, upTo)
	upTo  int64

	inTxn   map[int64]bool // producers whose transaction has batches that were met before its marker
	markers []int64        // offsets of abort markers that went
}

func newCompaction(p *Partition, now int64) *compaction {
	c := &compaction{p: p, l: p.log, cfg: p.cfg.Load(), now: now, keys: map[keyHash]int64{}, inTxn: map[int64]bool{}, aborted: map[int64][]aborted{}}
	c.seeds = [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}
	p.mu.Lock()
	defer p.mu.Unlock()
	c.segs = slices.Clone(p.compactable(c.cfg, now))
	if len(c.segs) == 0 {
		return c
	}
	c.end = c.segs[len(c.segs)-1].next
	c.from = p.cleaned
	c.upTo = c.end
	for _, a := range p.txns.aborted {
		c.aborted[a.pid] = append(c.aborted[a.pid], a)
	}
	return c
}

// run finds the last record of each key, then rewrites the segments.
func (c *compaction) run(ctx context.Context) error {
	for _, s := range c.segs {
		if s.next <= c.from {
			continue
		}
		if err := c.collect(ctx, s); err != nil {
			return err
		}
		if c.upTo < c.end {
			break
		}
	}
	for start := 0; start < len(c.segs) && c.segs[start].base < c.upTo; {
		n, bytes := 1, c.segs[start].size
		for start+n < len(c.segs) && c.segs[start+n].base < c.upTo && bytes+c.segs[start+n].size <= c.cfg.SegmentBytes {
			bytes += c.segs[start+n].size
			n++
		}
		if err := c.rewrite(ctx, c.segs[start:start+n]); err != nil {
			return err
		}
		start += n
	}
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	c.p.cleaned = max(c.p.cleaned, c.upTo)
	c.p.compacted = c.now
	c.p.txns.aborted = slices.DeleteFunc(slices.Clone(c.p.txns.aborted), func(a aborted) bool {
		_, gone := slices.BinarySearch(c.markers, a.marker)
		return gone
	})
	c.l.noteChange()
	return nil
}

func (c *compaction) hash(key []byte) keyHash {
	return keyHash{maphash.Bytes(c.seeds[0], key), maphash.Bytes(c.seeds[1], key)}
}

// isAborted says whether a batch belongs to an aborted transaction. All those in question have ended.
func (c *compaction) isAborted(h *header) bool {
	list := c.aborted[h.pid]
	i := sort.Search(len(list), func(i int) bool { return list[i].marker > h.base })
	return i < len(list) && list[i].first <= h.base
}

// collect notes the keys of a segment, until there are too many.
func (c *compaction) collect(ctx context.Context, s *segment) error {
	return c.l.eachBatch(ctx, s, func(h *header, b []byte) error {
		if h.base < c.from || h.base >= c.upTo || h.control() || h.txn() && c.isAborted(h) {
			return nil
		}
		if len(c.keys) > 0 && len(c.keys)+int(h.count) > maxKeys {
			c.upTo = h.base
			return nil
		}
		body, err := c.l.codecs.inflate(h.codec(), b[batchHeader:])
		if err != nil {
			return nil // rewrite keeps such a batch as it is
		}
		_ = eachRecord(body, h.count, func(r *record) bool {
			if r.key != nil {
				c.keys[c.hash(r.key)] = h.base + r.offsetDelta
			}
			return true
		})
		return nil
	})
}

// rewrite replaces some segments by one without what is superseded.
func (c *compaction) rewrite(ctx context.Context, old []*segment) (err error) {
	last := old[len(old)-1]
	out := &segment{p: c.p, base: old[0].base, next: last.next, maxTS: -1, created: last.created, sealed: true}
	for _, s := range old {
		out.gen = max(out.gen, s.gen+1)
	}
	w, err := newSegmentWriter(c.l.fs, out)
	if err != nil {
		return err
	}
	markers := len(c.markers)
	for _, s := range old {
		err = c.l.eachBatch(ctx, s, func(h *header, b []byte) error {
			kept, err := c.keep(h, b)
			if err != nil || kept == nil {
				return err
			}
			return w.add(kept)
		})
		if err != nil {
			break
		}
	}
	if err = errors.Join(err, w.finish(err == nil)); err != nil {
		return err
	}
	if !c.swap(old, out) {
		c.markers = c.markers[:markers]
		return errors.Join(removeIfThere(c.l.fs, out.path()), removeIfThere(c.l.fs, out.indexPath()))
	}
	return nil
}

// swap puts out in the place of old, unless some of that was deleted meanwhile.
func (c *compaction) swap(old []*segment, out *segment) bool {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	i := slices.Index(c.p.segs, old[0])
	if i < 0 || i+len(old) > len(c.p.segs) || !slices.Equal(c.p.segs[i:i+len(old)], old) {
		return false
	}
	segs := slices.Clone(c.p.segs[:i])
	segs = append(segs, out)
	c.p.segs = append(segs, c.p.segs[i+len(old):]...)
	c.p.newFiles = true
	c.p.tail.dropBelow(out.next)
	// The partition may be younger than the checkpoint that is being taken, and the write-ahead log refer to them.
	c.l.discardFiles(old, c.now+c.cfg.FileDeleteDelayMS, c.l.wal.written())
	return true
}
