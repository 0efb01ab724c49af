package log

import (
	"errors"
	"fmt"
	"math"

	"github.com/twmb/franz-go/pkg/kerr"
)

// OffsetForTime returns the first record with a timestamp of at least ts, in milliseconds, and the epoch of its batch;
// committed ignores what lies behind the last stable offset (ListOffsets).
func (p *Partition) OffsetForTime(ts int64, committed bool) (offset, timestamp int64, leaderEpoch int32, found bool, err error) {
	return p.search(committed, func(maxTS int64) bool { return maxTS >= ts }, func(t int64) bool { return t >= ts })
}

// MaxTimestamp returns the first record with the largest timestamp.
func (p *Partition) MaxTimestamp() (offset, timestamp int64, leaderEpoch int32, found bool, err error) {
	largest := int64(math.MinInt64)
	p.mu.Lock()
	for _, s := range p.segs {
		if s.next > p.logStart && s.size > 0 {
			largest = max(largest, s.maxTS)
		}
	}
	for _, c := range p.tail.live()[p.tail.from(p.logStart):] {
		largest = max(largest, c.ts)
	}
	p.mu.Unlock()
	if largest == math.MinInt64 {
		return -1, -1, -1, false, nil
	}
	return p.search(false, func(maxTS int64) bool { return maxTS >= largest }, func(t int64) bool { return t >= largest })
}

// search finds the first record for which wanted holds. batches says of a largest timestamp whether one may be below.
func (p *Partition) search(committed bool, may, wanted func(ts int64) bool) (offset, timestamp int64, epoch int32, found bool, err error) {
	p.mu.Lock()
	from, limit := p.logStart, p.limit(committed)
	p.mu.Unlock()
	for from < limit {
		next, err := p.skip(from, may)
		if err != nil {
			return -1, -1, -1, false, err
		}
		if next >= limit {
			break
		}
		f, err := p.Read(next, blockBytes, false, true)
		if errors.Is(err, kerr.OffsetOutOfRange) && f.LogStart > next {
			from = f.LogStart
			continue
		}
		if err != nil {
			return -1, -1, -1, false, err
		}
		from = limit
		for _, b := range f.Batches {
			h, _ := parseHeader(b)
			from = h.next()
			if h.last() >= limit || !may(h.maxTS) || h.control() {
				continue
			}
			offset, timestamp, found, err = p.log.codecs.firstRecord(b, &h, f.LogStart, wanted)
			if err != nil {
				err = fmt.Errorf("%s, batch at offset %d: %w: %w", p, h.base, kerr.CorruptMessage, err)
			}
			if found || err != nil {
				f.Release()
				return offset, timestamp, h.epoch, found, err
			}
		}
		f.Release()
	}
	return -1, -1, -1, false, nil
}

// skip returns the offset of the first block, or batch in memory, at from or later that may hold what is looked for.
func (p *Partition) skip(from int64, may func(maxTS int64) bool) (int64, error) {
	for {
		p.mu.Lock()
		s := p.segmentAt(from)
		if s == nil {
			defer p.mu.Unlock()
			for _, c := range p.tail.live()[p.tail.from(from):] {
				if may(c.ts) {
					return max(c.base, from), nil
				}
			}
			return p.hw, nil
		}
		size, next, maxTS := s.size, s.next, s.maxTS
		p.mu.Unlock()
		if !may(maxTS) {
			from = next
			continue
		}
		o, err := p.log.files.get(s, size, false)
		if err != nil {
			if p.isReplaced(s) {
				continue
			}
			return 0, storageError(err)
		}
		o.mu.RLock()
		n := o.index.count()
		for i := o.index.find(from); i < n; i++ {
			if b := o.index.at(i); may(b.maxTS) {
				o.mu.RUnlock()
				p.log.files.put(o)
				return max(b.base, from), nil
			}
		}
		o.mu.RUnlock()
		p.log.files.put(o)
		from = next
	}
}

// firstRecord finds the first record of a batch, from logStart on, whose timestamp is wanted.
func (c *codecs) firstRecord(b []byte, h *header, logStart int64, wanted func(ts int64) bool) (offset, ts int64, found bool, err error) {
	if h.attrs&attrLogAppendTime != 0 {
		return max(h.base, logStart), h.maxTS, h.count > 0 && wanted(h.maxTS), nil
	}
	body, err := c.inflate(h.codec(), b[batchHeader:])
	if err != nil {
		return -1, -1, false, err
	}
	err = eachRecord(body, h.count, func(r *record) bool {
		offset, ts = h.base+r.offsetDelta, h.baseTS+r.tsDelta
		found = offset >= logStart && wanted(ts)
		return !found
	})
	return offset, ts, found, err
}
