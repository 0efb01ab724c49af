package log

import (
	"errors"
	"time"
)

// flushChunk is about how many bytes of a partition are written to its segment at once.
const flushChunk = 1 << 20

// markDirty notes that p has batches no segment has yet.
func (l *Log) markDirty(p *Partition) {
	l.dirtyMu.Lock()
	l.dirty = append(l.dirty, p)
	l.dirtyMu.Unlock()
}

// wakeFlusher starts the flusher if there is enough to do.
func (l *Log) wakeFlusher() {
	if l.budget.unflushed.Load() >= l.o.CacheBytes/4 || l.walGrown() >= l.checkpointEvery.Load() {
		kick(l.flushNow)
	}
	if l.idle.CompareAndSwap(true, false) {
		kick(l.flushSoon)
	}
}

// flushReport is what became of a flush; the flushes are numbered in the order they began.
type flushReport struct {
	number uint64
	err    error
}

// awaitFlusher holds the committer back while the segments are too far behind for the memory allowed. It fails only if
// a flush that began meanwhile does.
func (l *Log) awaitFlusher() error {
	for l.budget.unflushed.Load() > l.o.CacheBytes {
		next := l.flushes.Load() + 1
		kick(l.flushNow)
		for done := false; !done; {
			select {
			case r := <-l.flushed:
				done = r.number >= next
				if done && r.err != nil {
					return r.err
				}
			case <-l.stopFlush:
				return ErrClosed
			}
		}
	}
	return nil
}

// reportFlush does a flush and tells the committer, should it wait, what became of it.
func (l *Log) reportFlush(flush func() error) error {
	r := flushReport{number: l.flushes.Add(1)}
	r.err = flush()
	latest := r
	select {
	case unread := <-l.flushed:
		// A flush within this one may have begun later than it.
		if unread.number > r.number {
			latest = unread
		}
	default:
	}
	l.flushed <- latest
	return r.err
}

// flushLoop is the goroutine that brings batches from the write-ahead log into segments and takes checkpoints.
func (l *Log) flushLoop() {
	defer close(l.flushDone)
	soon := time.NewTimer(0)
	<-soon.C
	var sync <-chan time.Time
	if l.o.Durability == Interval {
		t := time.NewTicker(l.o.Interval)
		defer t.Stop()
		sync = t.C
	}
	for {
		var err error
		select {
		case <-l.stopFlush:
			return
		case <-l.flushSoon:
			soon.Reset(checkpointAfter)
			continue
		case <-sync:
			if l.wal.behind() {
				err = l.syncNow()
			}
		case <-soon.C:
			l.idle.Store(true)
			err = l.checkpoint(false)
		case reply := <-l.checkpointNow:
			l.idle.Store(true)
			err = l.checkpoint(false)
			reply <- err
		case <-l.flushNow:
			err = l.reportFlush(func() error {
				if l.walGrown() >= l.checkpointEvery.Load() {
					return l.checkpoint(false)
				}
				return l.flushDirty()
			})
		}
		if err != nil && !errors.Is(err, ErrClosed) {
			l.logger.Warn("broker log: batches stay in the write-ahead log for now", "dir", l.o.Dir, "error", err)
			soon.Reset(retryAfter)
		}
	}
}

const (
	checkpointAfter = 10 * time.Second // how long what was written may wait for a checkpoint
	retryAfter      = time.Second
)

// syncNow syncs the write-ahead log from outside the committer, for durabilities under which that never does.
func (l *Log) syncNow() error {
	if err := l.wal.sync(); err != nil {
		l.fail(nil, err, true)
		return err
	}
	return nil
}

// flushDirty brings all visible batches into segments, not yet synced.
func (l *Log) flushDirty() error {
	l.dirtyMu.Lock()
	dirty := l.dirty
	l.dirty = nil
	l.dirtyMu.Unlock()
	for i, p := range dirty {
		p.mu.Lock()
		p.dirty = false
		hw := p.hw
		p.mu.Unlock()
		err := p.flush(hw)
		if err == nil {
			continue
		}
		p.mu.Lock()
		again := !p.dirty
		p.dirty = true
		p.mu.Unlock()
		l.dirtyMu.Lock()
		l.dirty = append(l.dirty, dirty[i+1:]...)
		l.dirtyMu.Unlock()
		if again {
			l.markDirty(p)
		}
		return err
	}
	l.budget.evict(l.o.CacheBytes)
	return nil
}

// flush brings the visible batches below limit into segments. Only the flusher calls it.
func (p *Partition) flush(limit int64) error {
	for more := true; more; {
		p.log.growing.Lock()
		var err error
		more, err = p.flushNext(limit)
		p.log.growing.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// flushNext brings some of them there, and says whether there may be more. With log.growing held.
func (p *Partition) flushNext(limit int64) (more bool, err error) {
	l := p.log
	for {
		p.mu.Lock()
		p.passOver()
		var batches []cached
		var n int64
		live := p.tail.live()
		for i := p.tail.from(p.flushed); i < len(live) && live[i].base < limit && n < flushChunk; i++ {
			batches = append(batches, live[i])
			n += int64(len(live[i].data))
		}
		gone := p.gone
		var s *segment
		if len(p.segs) > 0 {
			s = p.segs[len(p.segs)-1]
		}
		p.mu.Unlock()
		if gone || len(batches) == 0 {
			return false, nil
		}
		now := l.o.Now().UnixMilli()
		c := p.cfg.Load()
		first := batches[0]
		if s == nil || s.sealed || s.full(c, len(first.data), first.last, now) {
			if s, err = p.roll(s, first.base, now); err != nil {
				return false, err
			}
		}
		// What the segment has no room for comes with the next round.
		fits, bytes := 1, len(first.data)
		for fits < len(batches) && s.size+int64(bytes+len(batches[fits].data)) <= min(c.SegmentBytes, maxSegment) {
			bytes += len(batches[fits].data)
			fits++
		}
		err = p.write(s, batches[:fits], bytes)
		if errors.Is(err, ErrCorrupt) {
			// Readers of what is there will hear of it; what is new goes elsewhere.
			l.logger.Error("broker log: a segment is corrupt, writing goes on in a new one", "error", err)
			p.mu.Lock()
			s.sealed = true
			p.mu.Unlock()
			continue
		}
		return err == nil, err
	}
}

// passOver leaves out batches that were deleted before any segment had them, as records of repartition topics are.
// With p.mu held.
func (p *Partition) passOver() {
	live := p.tail.live()
	for i := p.tail.from(p.flushed); i < len(live) && live[i].last < p.logStart; i++ {
		n := int64(len(live[i].data))
		p.flushed = live[i].last + 1
		p.flushPos += n
		p.log.budget.unflushed.Add(-n)
		if len(p.segs) > 0 {
			p.segs[len(p.segs)-1].sealed = true // offsets within a segment have no gaps
		}
	}
}

// roll begins the next segment. With log.growing held.
func (p *Partition) roll(last *segment, base, now int64) (*segment, error) {
	l := p.log
	if last == nil {
		if err := l.fs.MkdirAll(p.dir(), 0o755); err != nil {
			return nil, err
		}
		l.newDirs.Store(true)
	} else if o, err := l.files.get(last, last.size, false); err == nil {
		o.mu.Lock()
		err = o.index.finish(l.fs, last.indexPath())
		o.mu.Unlock()
		l.files.put(o)
		if err != nil {
			return nil, err
		}
	} else if !errors.Is(err, ErrCorrupt) {
		return nil, err
	}
	s := &segment{p: p, base: base, next: base, maxTS: -1, created: now}
	if err := removeIfThere(l.fs, s.indexPath()); err != nil {
		return nil, err
	}
	o, err := l.files.get(s, 0, true)
	if err != nil {
		return nil, err
	}
	l.files.put(o)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone {
		return s, nil
	}
	if last != nil {
		last.sealed = true
	}
	p.segs = append(p.segs, s)
	p.newFiles = true
	return s, nil
}

// write appends batches to a segment. With log.growing held.
func (p *Partition) write(s *segment, batches []cached, bytes int) error {
	l := p.log
	o, err := l.files.get(s, s.size, false)
	if err != nil {
		return err
	}
	defer l.files.put(o)
	for i := range batches {
		l.flushing.batch(batches[i].data)
	}
	if err := l.flushing.write(o.f, s.size, &o.reserved, min(p.cfg.Load().SegmentBytes, maxSegment)); err != nil {
		return err
	}
	maxTS := s.maxTS
	o.mu.Lock()
	for i := range batches {
		h, _ := parseHeader(batches[i].data)
		o.index.add(&h, batches[i].data)
		maxTS = max(maxTS, h.recordTS())
	}
	o.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone {
		return nil // its bytes were taken off the count when it went
	}
	s.size += int64(bytes)
	s.next = batches[len(batches)-1].last + 1
	s.maxTS = maxTS
	s.unsynced = true
	p.flushed = s.next
	p.flushPos += int64(bytes)
	l.budget.unflushed.Add(-int64(bytes))
	return nil
}
