package log

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sort"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// blockBytes is how many bytes of batches one entry of an index stands for, at least.
const blockBytes = 16 << 10

// block is an entry of a segment's index: a run of whole batches.
type block struct {
	base  int64 // offset of the first batch
	pos   int64
	len   int64
	maxTS int64
	sum   uint32 // of the bytes of each batch that its own checksum leaves out
}

func (b *block) end() int64 { return b.pos + b.len }

// outside is the part of a batch before its checksum begins: base offset, length, leader epoch.
const outside = 16

func (b *block) add(h *header, data []byte) {
	if b.len == 0 {
		b.base, b.maxTS = h.base, h.recordTS()
	}
	b.len += int64(h.size)
	b.maxTS = max(b.maxTS, h.recordTS())
	b.sum = crc32.Update(b.sum, crcTable, data[:outside])
}

// index is the sparse index of one segment, by offset and by time. Guarded by its openSegment's mu.
type index struct {
	blocks []block // full ones
	open   block   // the one that grows
	saved  int     // how many of blocks the index file holds
}

// add sees the next batch of the segment.
func (x *index) add(h *header, data []byte) {
	x.open.add(h, data)
	if x.open.len >= blockBytes {
		x.blocks = append(x.blocks, x.open)
		x.open = block{pos: x.open.end()}
	}
}

func (x *index) size() int64 { return x.open.end() }

func (x *index) count() int {
	if x.open.len > 0 {
		return len(x.blocks) + 1
	}
	return len(x.blocks)
}

func (x *index) at(i int) block {
	if i < len(x.blocks) {
		return x.blocks[i]
	}
	return x.open
}

// find is the last block that starts at offset or below, or the first one.
func (x *index) find(offset int64) int {
	i := sort.Search(x.count(), func(i int) bool { b := x.at(i); return b.base > offset })
	return max(i-1, 0)
}

// An entry of an index file is [base i64][pos u32][len u32][largest timestamp i64][sum u32][checksum of the entry u32].
// The file is a help: it is not synced, and what is missing or wrong is read from the segment again.
const indexEntry = 32

func appendIndexEntry(dst []byte, b *block) []byte {
	start := len(dst)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(b.base))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(b.pos))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(b.len))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(b.maxTS))
	dst = binary.LittleEndian.AppendUint32(dst, b.sum)
	return binary.LittleEndian.AppendUint32(dst, checksum(dst[start:]))
}

// parseIndex reads as many entries of an index file as are whole and fit a segment of size bytes.
func parseIndex(b []byte, base, size int64) index {
	var x index
	for ; len(b) >= indexEntry; b = b[indexEntry:] {
		e := block{
			base:  int64(binary.LittleEndian.Uint64(b)),
			pos:   int64(binary.LittleEndian.Uint32(b[8:])),
			len:   int64(binary.LittleEndian.Uint32(b[12:])),
			maxTS: int64(binary.LittleEndian.Uint64(b[16:])),
			sum:   binary.LittleEndian.Uint32(b[24:]),
		}
		if checksum(b[:indexEntry-4]) != binary.LittleEndian.Uint32(b[indexEntry-4:]) ||
			e.pos != x.open.pos || e.len == 0 || e.end() > size || e.base < base {
			break
		}
		base = e.base + 1
		x.blocks = append(x.blocks, e)
		x.open.pos = e.end()
	}
	x.saved = len(x.blocks)
	return x
}

// extend reads the batches of a segment that the index lacks, up to size. What their own checksums leave out must be
// what it can only be: without an index nothing else vouches for it.
func (x *index) extend(f io.ReaderAt, s *segment, size int64) error {
	next := s.base
	if n := x.count(); n > 0 && s.gen == 0 {
		last, err := x.lastOffset(f, s)
		if err != nil {
			return err
		}
		next = last + 1
	}
	var buf []byte
	for pos := x.size(); pos < size; {
		// Enough for the whole batch, should one be larger than what is usually read at once.
		want := min(size-pos, max(flushChunk, int64(cap(buf))))
		if int64(len(buf)) < want {
			buf = make([]byte, want)
		}
		b := buf[:want]
		if n, err := f.ReadAt(b, pos); n < len(b) {
			return s.corrupt(pos+int64(n), fmt.Errorf("the file ends here, %d bytes were synced: %w", size, err))
		}
		used := 0
		for used < len(b) {
			h, ok := parseHeader(b[used:])
			if !ok {
				break
			}
			data := b[used : used+h.size]
			if err := s.vouch(&h, data, next); err != nil {
				return s.corrupt(pos+int64(used), err)
			}
			next = h.next()
			x.add(&h, data)
			used += h.size
		}
		if used == 0 {
			n := int64(0)
			if len(b) >= lengthSize {
				n = int64(int32(binary.BigEndian.Uint32(b[posLength:]))) + lengthSize
			}
			if n <= want || n > size-pos {
				return s.corrupt(pos, errors.New("no batch starts here"))
			}
			buf = make([]byte, n)
		}
		pos += int64(used)
	}
	return nil
}

// vouch checks a batch that no index knows; next is where the one before ended.
func (s *segment) vouch(h *header, data []byte, next int64) error {
	if !crcMatches(data) {
		return fmt.Errorf("the batch at offset %d does not match its checksum", h.base)
	}
	if h.base < next || h.base > next && s.gen == 0 {
		return fmt.Errorf("a batch says that it is at offset %d, expected is %d", h.base, next)
	}
	l := s.p.log
	l.mu.Lock()
	defer l.mu.Unlock()
	if epoch := s.p.epochAt(h.base); h.epoch != epoch {
		return fmt.Errorf("the batch at offset %d has the leader epoch %d, expected is %d", h.base, h.epoch, epoch)
	}
	return nil
}

// lastOffset is the last offset the index covers.
func (x *index) lastOffset(f io.ReaderAt, s *segment) (int64, error) {
	last := x.at(x.count() - 1)
	buf := make([]byte, last.len)
	if n, err := f.ReadAt(buf, last.pos); n < len(buf) {
		return 0, s.corrupt(last.pos+int64(n), fmt.Errorf("the file ends here: %w", err))
	}
	if err := last.check(buf); err != nil {
		return 0, s.corrupt(last.pos, err)
	}
	offset := int64(0)
	for len(buf) > 0 {
		h, ok := parseHeader(buf)
		if !ok || !crcMatches(buf[:h.size]) {
			return 0, s.corrupt(last.pos, errors.New("a batch does not match its checksum"))
		}
		offset = h.last()
		buf = buf[h.size:]
	}
	return offset, nil
}

// outsideSum is what a segmentWriter notes of a segment: the sum over all blocks' sums.
func (x *index) outsideSum() uint32 {
	var b []byte
	for i := range x.count() {
		block := x.at(i)
		b = binary.LittleEndian.AppendUint32(b, block.sum)
	}
	return checksum(b)
}

// finish closes the last block of a segment that grows no more, and saves it.
func (x *index) finish(fs vfs.FS, path string) error {
	if x.open.len > 0 {
		x.blocks = append(x.blocks, x.open)
		x.open = block{pos: x.open.end()}
	}
	return x.save(fs, path)
}

// save writes the entries the index file lacks.
func (x *index) save(fs vfs.FS, path string) error {
	if x.saved == len(x.blocks) {
		return nil
	}
	var b []byte
	for i := range x.blocks[x.saved:] {
		b = appendIndexEntry(b, &x.blocks[x.saved+i])
	}
	// Ends the file's good part, should a crash have left entries behind it.
	b = append(b, make([]byte, indexEntry)...)
	f, err := fs.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, int64(x.saved)*indexEntry)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		x.saved = len(x.blocks)
	}
	return err
}

func loadIndex(fs vfs.FS, path string, s *segment, size int64) index {
	f, err := fs.Open(path)
	if err != nil {
		return index{}
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		return index{}
	}
	return parseIndex(b, s.base, size)
}
