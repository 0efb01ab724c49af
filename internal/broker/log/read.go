package log

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/cockroachdb/errors/oserror"
	"github.com/twmb/franz-go/pkg/kerr"
)

// Fetched is what a reader gets.
type Fetched struct {
	// Batches are whole, in order, and together no longer than was asked for, except where the first one alone is.
	// They must not be changed, nor used after Release.
	Batches       [][]byte
	Bytes         int
	LogStart      int64
	HighWatermark int64
	LastStable    int64
	// Aborted are the aborted transactions with records among Batches, by first offset; nil if committed was not asked
	// for.
	Aborted []AbortedTxn

	log  *Log
	buf  *[]byte  // where Batches live, if read from disk
	held []Memory // where they live, if not
}

// Release gives the memory of Batches back. It may be called more than once, and need not be called at all.
func (f *Fetched) Release() {
	if f.buf != nil {
		f.log.readBufs.Put(f.buf)
		f.buf, f.Batches = nil, nil
	}
	for _, mem := range f.held {
		mem.Release()
	}
	if len(f.held) > 0 {
		f.held, f.Batches = nil, nil
	}
}

// Read returns batches from the one that holds offset from on, of up to maxBytes; with minOne the first one whatever
// its size. Nothing to read yet is no error. Below the first offset or above the high watermark the error wraps
// OFFSET_OUT_OF_RANGE, where bytes on disk are not those written CORRUPT_MESSAGE; the offsets are set nonetheless.
func (p *Partition) Read(from int64, maxBytes int, committed, minOne bool) (Fetched, error) {
	for {
		f, s, size, err := p.readTail(from, maxBytes, committed, minOne)
		if err != nil || s == nil {
			return f, err
		}
		limit := f.HighWatermark
		if committed {
			limit = f.LastStable
		}
		past, err := p.readSegment(&f, s, size, from, limit, maxBytes, minOne)
		if errors.Is(err, errReplaced) {
			continue
		}
		if err != nil {
			f.Release()
			return f, err
		}
		if past {
			// Compaction left nothing from there on in the segment; go on in the next.
			f.Release()
			p.mu.Lock()
			from = max(s.next, from)
			p.mu.Unlock()
			if from < limit {
				continue
			}
		}
		if committed {
			p.mu.Lock()
			f.Aborted = p.abortedIn(&f, from)
			p.mu.Unlock()
		}
		return f, nil
	}
}

// errReplaced says that a segment was compacted or deleted meanwhile.
var errReplaced = errors.New("the segment was replaced")

// readTail reads from memory. Where from lies below what memory holds it returns the segment to read instead.
func (p *Partition) readTail(from int64, maxBytes int, committed, minOne bool) (f Fetched, s *segment, size int64, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f = Fetched{LogStart: p.logStart, HighWatermark: p.hw, LastStable: p.stable(), log: p.log}
	if p.gone {
		return f, nil, 0, fmt.Errorf("%s was deleted: %w", p, kerr.UnknownTopicOrPartition)
	}
	if from < p.logStart || from > p.hw {
		return f, nil, 0, fmt.Errorf("%s: offset %d is not within %d and %d: %w", p, from, p.logStart, p.hw, kerr.OffsetOutOfRange)
	}
	limit := p.limit(committed)
	if from < limit {
		live := p.tail.live()
		if len(live) == 0 || from < live[0].base {
			if s = p.segmentAt(from); s != nil {
				return f, s, s.size, nil
			}
		}
		for i := p.tail.from(from); i < len(live) && live[i].last < limit; i++ {
			n := len(live[i].data)
			if f.Bytes+n > maxBytes && !(minOne && f.Bytes == 0) {
				break
			}
			f.Batches = append(f.Batches, live[i].data)
			f.Bytes += n
			if mem := live[i].mem; mem != nil {
				mem.Hold()
				f.held = append(f.held, mem)
			}
		}
	}
	if committed {
		f.Aborted = p.abortedIn(&f, from)
	}
	return f, nil, 0, nil
}

// abortedIn lists the aborted transactions of f. With p.mu held.
func (p *Partition) abortedIn(f *Fetched, from int64) []AbortedTxn {
	if len(f.Batches) == 0 {
		return []AbortedTxn{}
	}
	h, _ := parseHeader(f.Batches[len(f.Batches)-1])
	return p.txns.between(from, h.next())
}

// segmentAt is the segment with offset, or the first one behind it; nil if only memory has it. With p.mu held.
func (p *Partition) segmentAt(offset int64) *segment {
	if offset >= p.flushed {
		return nil
	}
	for _, s := range p.segs {
		if s.next > offset && s.size > 0 {
			return s
		}
	}
	return nil
}

// readSegment reads batches of one segment that end below limit. past says that all it has lie before from.
func (p *Partition) readSegment(f *Fetched, s *segment, size, from, limit int64, maxBytes int, minOne bool) (past bool, err error) {
	o, err := p.log.files.get(s, size, false)
	if oserror.IsNotExist(err) && p.isReplaced(s) {
		return false, errReplaced
	}
	if errors.Is(err, ErrCorrupt) {
		return false, fmt.Errorf("%w: %w", kerr.CorruptMessage, err)
	}
	if err != nil {
		return false, storageError(err)
	}
	defer p.log.files.put(o)
	blocks := o.blocks(from, int64(maxBytes))
	for len(blocks) > 0 {
		done, err := p.readBlocks(f, o, blocks, from, limit, maxBytes, minOne)
		if done || err != nil || len(f.Batches) > 0 {
			return false, err
		}
		// from lies in a gap at the end of them.
		f.Release()
		last := blocks[len(blocks)-1]
		blocks = o.blocks(last.base, 1)[1:]
	}
	return true, nil
}

// blocks are the block with offset from and as many behind it as hold n bytes more, should from lie at its end.
func (o *openSegment) blocks(from, n int64) []block {
	o.mu.RLock()
	defer o.mu.RUnlock()
	i, count := o.index.find(from), o.index.count()
	blocks := []block{o.index.at(i)}
	for i++; n > 0 && i < count; i++ {
		b := o.index.at(i)
		blocks = append(blocks, b)
		n -= b.len
	}
	return blocks
}

// readBlocks reads and verifies blocks that follow each other. done says that f has what it may have.
func (p *Partition) readBlocks(f *Fetched, o *openSegment, blocks []block, from, limit int64, maxBytes int, minOne bool) (done bool, err error) {
	s, pos := o.s, blocks[0].pos
	f.buf = p.log.readBuf(int(blocks[len(blocks)-1].end() - pos))
	rest := *f.buf
	if n, err := o.f.ReadAt(rest, pos); n < len(rest) {
		if err == io.EOF {
			return true, s.unreadable(pos+int64(n), errors.New("the file ends here"))
		}
		return true, storageError(fmt.Errorf("read %s: %w", s.path(), err))
	}
	for _, b := range blocks {
		data := rest[:b.len]
		rest = rest[b.len:]
		if err := b.check(data); err != nil {
			return true, s.unreadable(b.pos, err)
		}
		for len(data) > 0 {
			h, _ := parseHeader(data)
			batch := data[:h.size:h.size]
			data = data[h.size:]
			if h.last() < from {
				continue
			}
			if h.last() >= limit || f.Bytes+h.size > maxBytes && !(minOne && f.Bytes == 0) {
				return true, nil
			}
			if !crcMatches(batch) {
				return true, s.unreadable(b.pos, fmt.Errorf("the batch at offset %d does not match its checksum", h.base))
			}
			f.Batches = append(f.Batches, batch)
			f.Bytes += h.size
		}
	}
	return false, nil
}

// check compares a block with what its index entry says: the batches' own checksums leave out where they belong.
func (b *block) check(data []byte) error {
	sum := uint32(0)
	for len(data) > 0 {
		if len(data) < batchHeader {
			return errors.New("no batch where the index has one")
		}
		sum = crc32.Update(sum, crcTable, data[:outside])
		n := int64(int32(binary.BigEndian.Uint32(data[posLength:]))) + lengthSize
		if n < batchHeader || n > int64(len(data)) || data[posMagic] != 2 {
			return errors.New("a batch does not end where the index says")
		}
		data = data[n:]
	}
	if sum != b.sum {
		return errors.New("offsets or lengths do not match the index")
	}
	return nil
}

// unreadable is corrupt for readers.
func (s *segment) unreadable(pos int64, cause error) error {
	return fmt.Errorf("%w: %w", kerr.CorruptMessage, s.corrupt(pos, cause))
}

// isReplaced says that s no longer belongs to the partition.
func (p *Partition) isReplaced(s *segment) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, x := range p.segs {
		if x == s {
			return false
		}
	}
	return true
}

// readBuf returns n bytes to read into.
func (l *Log) readBuf(n int) *[]byte {
	buf, _ := l.readBufs.Get().(*[]byte)
	if buf == nil || cap(*buf) < n {
		b := make([]byte, max(n, 64<<10))
		buf = &b
	}
	*buf = (*buf)[:n]
	return buf
}
