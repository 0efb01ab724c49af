package log

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/cockroachdb/errors/oserror"
)

// Under Durability OS a large batch is written once: to its segment, and then the write-ahead log refers to it. The log
// would only copy what the operating system has already. A power loss may take the batch and leave what refers to it: the
// log ends there, as under OS it may. Under Sync and Interval the log holds every batch, since one sync of one file is to
// make all of them durable.

// placed is where a batch was written that is not yet visible.
type placed struct {
	o   *openSegment // held; nil: it goes into the write-ahead log
	pos int64
}

// refers says that one of the entries has a batch that may be written to its segment at once.
func (l *Log) refers(q []*entry) bool {
	if l.o.Durability != OS {
		return false
	}
	for _, e := range q {
		for i := range e.batches {
			if len(e.batches[i].data) >= l.o.LargeBatch {
				return true
			}
		}
	}
	return false
}

// place writes the large batches of an entry to their segments and returns how many bytes that were. A batch that is not
// to be written there goes into the write-ahead log. With l.growing held, until the batches are published or displaced.
func (l *Log) place(e *entry) (bytes int64) {
	for i := range e.batches {
		if b := &e.batches[i]; len(b.data) >= l.o.LargeBatch && b.p.place(b, e.now) {
			bytes += int64(len(b.data))
		}
	}
	return bytes
}

func (p *Partition) place(b *ordered, now int64) bool {
	l := p.log
	for more := p.ahead == 0; more; {
		var err error
		if more, err = p.flushNext(math.MaxInt64); err != nil {
			return false
		}
	}
	p.mu.Lock()
	next := p.flushed
	var s *segment
	if len(p.segs) > 0 {
		s = p.segs[len(p.segs)-1]
	}
	p.mu.Unlock()
	if p.ahead > 0 {
		next = p.aheadNext
	}
	if b.h.base != next {
		return false // what comes before it is neither visible nor in the segment
	}
	c := p.cfg.Load()
	n, limit := int64(len(b.data)), min(c.SegmentBytes, maxSegment)
	switch {
	case p.ahead > 0:
		if s.full(c, int(p.ahead+n), b.h.last(), now) || p.ahead+n > limit {
			return false // a segment is complete before the next one begins
		}
	case s == nil || s.sealed || s.full(c, int(n), b.h.last(), now):
		var err error
		if s, err = p.roll(s, b.h.base, now); err != nil {
			return false
		}
	}
	o, err := l.files.get(s, s.size, false)
	if err != nil {
		return false
	}
	l.flushing.batch(b.data)
	if err := l.flushing.write(o.f, s.size+p.ahead, &o.reserved, limit); err != nil {
		l.files.put(o)
		return false
	}
	b.at = placed{o, s.size + p.ahead}
	p.ahead += n
	p.aheadNext = b.h.next()
	return true
}

// displace takes back what place did, of the last entry first; what the file holds does not count.
func (l *Log) displace(e *entry) {
	for i := len(e.batches) - 1; i >= 0; i-- {
		if b := &e.batches[i]; b.at.o != nil {
			l.files.put(b.at.o)
			b.at = placed{}
			b.p.ahead -= int64(len(b.data))
			b.p.aheadNext = b.h.base
		}
	}
}

// adopt makes a placed batch one of its segment. With p.mu held.
func (p *Partition) adopt(b *ordered) {
	s := b.at.o.s
	s.size += int64(len(b.data))
	s.next = b.h.next()
	s.maxTS = max(s.maxTS, b.h.recordTS())
	s.unsynced = true
	p.flushed, p.flushPos = s.next, p.pos
}

// reference is what the write-ahead log says of a batch that lies in a segment: an itemReference is
// [topic 16][partition u32][base offset of the segment u64][position u64][head of the batch].
type reference struct {
	id      PartitionID
	segment int64
	pos     int64
	head    []byte
}

func appendReferenceItem(b []byte, o *ordered) []byte {
	b = appendID(append(b, byte(itemReference)), o.p.id)
	b = binary.LittleEndian.AppendUint64(b, uint64(o.at.o.s.base))
	b = binary.LittleEndian.AppendUint64(b, uint64(o.at.pos))
	return append(b, o.data[:batchHeader]...)
}

func (d *decoder) reference() reference {
	return reference{id: d.id(), segment: d.i64(), pos: d.i64(), head: d.take(batchHeader)}
}

// errNotThere says that a segment does not hold what the write-ahead log refers to.
var errNotThere = errors.New("a segment does not hold the batch that the log refers to")

// resolve reads the batch of a reference.
func (l *Log) resolve(r *reference, h *header) ([]byte, error) {
	s := segment{p: &Partition{log: l, id: r.id}, base: r.segment}
	f, err := l.fs.Open(s.path())
	if oserror.IsNotExist(err) {
		return nil, fmt.Errorf("%w: %s is missing", errNotThere, s.path())
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	missing := fmt.Errorf("%w: %s at byte %d", errNotThere, s.path(), r.pos)
	if r.pos < 0 || r.pos+int64(h.size) > info.Size() {
		return nil, missing
	}
	b := make([]byte, h.size)
	if _, err := f.ReadAt(b, r.pos); err != nil && err != io.EOF {
		return nil, fmt.Errorf("read %s: %w", s.path(), err)
	}
	if !bytes.Equal(b[:batchHeader], r.head) || !crcMatches(b) {
		return nil, missing
	}
	return b, nil
}
