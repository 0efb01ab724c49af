package log

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// gather collects what is written to a file behind each other. What is small is put together, a large batch is written
// from where it lies.
type gather struct {
	min   int  // what a large batch has at least
	eager bool // a sync follows: the disk begins with what is written while the rest of it is
	buf   []byte
	large []largeBatch
	extra int64 // bytes of large
}

// largeBatch comes before buf[at:].
type largeBatch struct {
	at   int
	data []byte
}

// largeSize is from where on a write of its own is cheaper than a copy.
const largeSize = 32 << 10

// maxReserve bounds the space set aside for a file ahead of what it has.
const maxReserve = 16 << 20

// eagerBytes is what a disk is given to begin with.
const eagerBytes = 256 << 10

// place is where something begins in what was gathered.
type place struct {
	buf, large int
	extra      int64
}

func (g *gather) mark() place { return place{len(g.buf), len(g.large), g.extra} }
func (m place) size() int64   { return int64(m.buf) + m.extra }
func (g *gather) size() int64 { return g.mark().size() }
func (g *gather) cut(m place) { g.buf, g.large, g.extra = g.buf[:m.buf], g.large[:m.large], m.extra }

// batch adds a whole batch, which must stay as it is until it is written.
func (g *gather) batch(b []byte) {
	if len(b) < g.min {
		g.buf = append(g.buf, b...)
		return
	}
	g.large = append(g.large, largeBatch{len(g.buf), b})
	g.extra += int64(len(b))
}

// write writes everything at off. What was gathered is forgotten, written or not. reserved is how much of the file the file
// system has set space aside for; a file that gets large batches gets space ahead, for as much as it has but not
// beyond limit: writing is cheaper by a third then.
func (g *gather) write(f vfs.File, off int64, reserved *int64, limit int64) error {
	defer g.reset()
	if end := off + g.size(); len(g.large) > 0 && end > *reserved {
		*reserved = max(end, min(end+min(end, maxReserve), limit))
		_ = f.Preallocate(off, *reserved-off) // without it writing costs more, or says that the disk is full
	}
	from, begun := 0, off
	piece := func(b []byte) error {
		if len(b) == 0 {
			return nil
		}
		n, err := f.WriteAt(b, off)
		off += int64(n)
		return err
	}
	for _, x := range g.large {
		if err := piece(g.buf[from:x.at]); err != nil {
			return err
		}
		if err := piece(x.data); err != nil {
			return err
		}
		from = x.at
		if g.eager && off-begun >= eagerBytes {
			startSync(f, begun, off-begun)
			begun = off
		}
	}
	return piece(g.buf[from:])
}

func (g *gather) reset() {
	clear(g.large) // what they lie in may go
	g.cut(place{})
	if cap(g.buf) > 4*maxGroup {
		g.buf = nil
	}
}

// checksum is that of everything from n bytes behind m on. Of a large batch it takes the part that the batch's own
// checksum covers from there: it was compared when the batch came.
func (g *gather) checksum(m place, n int) uint32 {
	sum, from := uint32(0), m.buf+n
	for _, x := range g.large[m.large:] {
		sum = crc32.Update(sum, crcTable, g.buf[from:x.at])
		sum = crc32.Update(sum, crcTable, x.data[:posAttrs])
		sum = joinChecksums(sum, batchCRC(x.data), len(x.data)-posAttrs)
		from = x.at
	}
	return crc32.Update(sum, crcTable, g.buf[from:])
}

// joinChecksums is the checksum of what a is the checksum of followed by n bytes of which b is. A checksum is a polynomial
// over one bit, the coefficient of x^0 in its highest bit: n bytes behind it multiply it by x^8n (zlib's crc32_combine).
func joinChecksums(a, b uint32, n int) uint32 {
	for power := uint32(1) << (31 - 8); n > 0; n >>= 1 {
		if n&1 != 0 {
			a = multiply(a, power)
		}
		power = multiply(power, power)
	}
	return a ^ b
}

// multiply multiplies two polynomials modulo Castagnoli's.
func multiply(a, b uint32) (product uint32) {
	for ; a != 0; a <<= 1 {
		if a>>31 != 0 {
			product ^= b
		}
		b = b>>1 ^ crc32.Castagnoli&-(b&1) // times x
	}
	return product
}

// beginFrame begins a frame and returns its place.
func (g *gather) beginFrame() place {
	m := g.mark()
	g.buf = append(g.buf, make([]byte, frameHeader)...)
	return m
}

// endFrame completes the frame that began at m.
func (g *gather) endFrame(m place, at, synced lsn, now int64) {
	f := g.buf[m.buf:]
	binary.LittleEndian.PutUint32(f[4:], uint32(g.size()-m.size()-frameHeader))
	binary.LittleEndian.PutUint64(f[8:], uint64(at))
	binary.LittleEndian.PutUint64(f[16:], uint64(synced))
	binary.LittleEndian.PutUint64(f[24:], uint64(now))
	binary.LittleEndian.PutUint32(f, g.checksum(m, 4))
	for g.size()%8 != m.size()%8 {
		g.buf = append(g.buf, 0)
	}
}
