package wire

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

// Buffer holds a frame for as long as somebody uses it. Who forgets to release one costs its reuse, no more: the
// collector takes it.
type Buffer struct {
	B    []byte
	refs atomic.Int32
	home *sync.Pool // nil: not used again
}

// Kept says whether the memory is used again, and so whether holding it matters.
func (b *Buffer) Kept() bool { return b.home != nil }

// Hold takes part in a buffer that somebody else holds.
func (b *Buffer) Hold() { b.refs.Add(1) }

// Release ends the part of one holder. The last one's lets the memory be used again.
func (b *Buffer) Release() {
	switch n := b.refs.Add(-1); {
	case n < 0:
		panic("wire: a buffer is released more often than it was held")
	case n == 0 && b.home != nil:
		b.home.Put(b)
	}
}

// Buffers keeps the memory of large frames: memory that was in use before is cheaper than fresh one, which is cleared,
// and given by the kernel page by page. The zero value is ready.
type Buffers struct {
	pools [4 * (maxPooled - minPooled)]sync.Pool
}

const (
	minPooled = 16 // bits of the size of the smallest buffer kept, and of what is above the largest
	maxPooled = 24
)

// get returns a buffer of n bytes, held by the caller. What it held before is still in it.
func (p *Buffers) get(n int) *Buffer {
	b := new(Buffer)
	if i, size := class(n); i >= 0 && i < len(p.pools) {
		if old, ok := p.pools[i].Get().(*Buffer); ok {
			b = old
		} else {
			b.B, b.home = make([]byte, size), &p.pools[i]
		}
	} else {
		b.B = make([]byte, n)
	}
	b.B = b.B[:n]
	b.refs.Store(1)
	return b
}

// class is the number of the pool for n bytes, and what its buffers have: four sizes for each power of two. It is
// negative for what is too small.
func class(n int) (i, size int) {
	unit := max(bits.Len(uint(n-1))-3, 0)
	quarters := (n + 1<<unit - 1) >> unit // 4 is the power itself, 8 the next
	return 4*(unit+2-minPooled) + quarters - 4, quarters << unit
}
