package log

import (
	"context"
	"slices"
	"time"
)

const (
	keepHouseEvery   = time.Minute
	keepCompactEvery = 15 * time.Second
)

// keepHouse is the goroutine for what is safe at any time and never urgent.
func (l *Log) keepHouse(ctx context.Context) {
	for pause(ctx, keepHouseEvery) {
		l.ExpireProducers()
		if err := l.Retain(); err != nil {
			l.logger.Warn("broker log: retention failed, it is tried again", "dir", l.o.Dir, "error", err)
		}
		l.nudge()
	}
}

// keepCompact is the goroutine that compacts.
func (l *Log) keepCompact(ctx context.Context) {
	for pause(ctx, keepCompactEvery) {
		if err := l.Compact(ctx); err != nil && ctx.Err() == nil {
			l.logger.Warn("broker log: compaction failed, it is tried again", "dir", l.o.Dir, "error", err)
		}
	}
}

// pause waits; false if ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// nudge has a checkpoint taken if there is something for it to do that nobody's writes will bring about: a segment old
// enough to be sealed, so that retention and compaction get to it, or files to delete.
func (l *Log) nudge() {
	now := l.o.Now().UnixMilli()
	if l.garbageDue(now) || slices.ContainsFunc(l.all(), func(p *Partition) bool { return p.sealDue(now) }) {
		l.noteChange()
	}
}

func (l *Log) all() []*Partition {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := make([]*Partition, 0, len(l.parts))
	for _, p := range l.parts {
		if p.attached && !p.dropped {
			list = append(list, p)
		}
	}
	slices.SortFunc(list, func(a, b *Partition) int { return compareIDs(a.id, b.id) })
	return list
}

// ExpireProducers forgets producers that have written nothing for Options.ProducerExpiry and have no open transaction.
// The log does this by itself now and then.
func (l *Log) ExpireProducers() {
	before := l.o.Now().UnixMilli() - l.o.ProducerExpiry.Milliseconds()
	for _, p := range l.all() {
		l.mu.Lock()
		for pid, s := range p.producers {
			if s.txnFirst < 0 && s.written <= before {
				delete(p.producers, pid)
			}
		}
		for pid, v := range p.beginnings {
			if v.since <= before {
				delete(p.beginnings, pid)
			}
		}
		l.mu.Unlock()
	}
}

// Retain raises the first offsets of partitions as their retention by time and size says. The log does this by itself
// now and then.
func (l *Log) Retain() error {
	now := l.o.Now().UnixMilli()
	for _, p := range l.all() {
		to := p.expired(now)
		if to < 0 {
			continue
		}
		from := p.firstOffset()
		if err := p.advance(to); err != nil {
			return err
		}
		// Readers behind it will be told that they are out of range; here is why.
		c := p.cfg.Load()
		l.logger.Info("broker log: records are deleted as retention says", "partition", p.String(), "from", from, "to", to,
			"retention_ms", c.RetentionMS, "retention_bytes", c.RetentionBytes)
	}
	return nil
}

// expired returns the offset below which whole segments are due to go; -1 if none are.
func (p *Partition) expired(now int64) int64 {
	c := p.cfg.Load()
	if !c.Delete {
		return -1
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	over := int64(0)
	if c.RetentionBytes >= 0 {
		over = p.size() - c.RetentionBytes
	}
	to := int64(-1)
	for i, s := range p.segs {
		if s.next <= p.logStart {
			over -= s.size
			continue
		}
		written := s.maxTS
		if written < 0 {
			written = s.created
		}
		byTime := c.RetentionMS >= 0 && now-written > c.RetentionMS
		// By size only what leaves at least as much as was promised, and never what still grows.
		bySize := c.RetentionBytes >= 0 && over >= s.size && i < len(p.segs)-1
		// Nor what is not wholly visible, nor what grows and has batches in memory that may be younger.
		if s.next > p.hw || !byTime && !bySize || i == len(p.segs)-1 && p.hw > p.flushed {
			break
		}
		over -= s.size
		to = s.next
	}
	return to
}
