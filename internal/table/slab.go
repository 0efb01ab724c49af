package table

import (
	"encoding/binary"
	"math/bits"
)

// slab keeps byte strings of all sizes in a few large segments, so that the garbage collector has nothing to look at.
// What is released is used again for strings of about the same size; compaction of a table makes a new slab.
type slab struct {
	segs [][]byte
	at   int // where the last segment is free from
	free [classes]uint64
	used int64 // bytes given out, rounded up to their class
	held int64 // bytes of all segments
}

const (
	classes    = 60
	firstSeg   = 1 << 10
	largestSeg = 1 << 20
)

// class gives the size class of n bytes and the size that it stands for: steps of 8 up to 128, then four to a doubling.
func class(n int) (c, size int) {
	if n <= 128 {
		c = max(1, (n+7)>>3)
		return c, c << 3
	}
	p := bits.Len(uint(n-1)) - 1 // 2^p < n <= 2^(p+1)
	q := (n - 1) >> (p - 2) & 3  // which quarter of it
	return 17 + (p-7)*4 + q, (q + 5) << (p - 2)
}

// put copies b and gives its place, which is never 0.
func (s *slab) put(b []byte) uint64 {
	off := s.take(len(b))
	copy(s.get(off, len(b)), b)
	return off
}

func (s *slab) take(n int) uint64 {
	c, size := class(n)
	if c >= classes {
		return s.own(n)
	}
	s.used += int64(size)
	if off := s.free[c]; off != 0 {
		s.free[c] = binary.LittleEndian.Uint64(s.get(off, 8))
		return off
	}
	last := len(s.segs) - 1
	if last < 0 || s.at+size > len(s.segs[last]) {
		n := firstSeg
		if last >= 0 {
			n = min(2*len(s.segs[last]), largestSeg)
		}
		n = max(n, firstSeg, size)
		s.segs = append(s.segs, make([]byte, n))
		s.held += int64(n)
		last, s.at = last+1, 0
	}
	off := uint64(last+1)<<32 | uint64(s.at)
	s.at += size
	return off
}

// own gives a string that is larger than any class a segment of its own.
func (s *slab) own(n int) uint64 {
	s.segs = append(s.segs, make([]byte, n))
	s.at = n
	s.used += int64(n)
	s.held += int64(n)
	return uint64(len(s.segs)) << 32
}

func (s *slab) get(off uint64, n int) []byte {
	at := int(uint32(off))
	return s.segs[off>>32-1][at : at+n : at+n]
}

// release gives back what put gave for n bytes.
func (s *slab) release(off uint64, n int) {
	c, size := class(n)
	if c >= classes {
		seg := off>>32 - 1
		s.segs[seg] = nil
		s.used -= int64(n)
		s.held -= int64(n)
		return
	}
	s.used -= int64(size)
	binary.LittleEndian.PutUint64(s.get(off, 8), s.free[c])
	s.free[c] = off
}
