package log

import (
	"sort"
	"sync"
	"sync/atomic"
)

// cached is a visible batch in memory.
type cached struct {
	base, last int64
	pos        int64 // bytes of the partition before it
	ts         int64 // largest timestamp
	data       []byte
	mem        Memory // of data, held
}

// tail holds the newest batches of a partition: all that no segment has yet, and as many more as the budget allows.
// Guarded by the partition's mu.
type tail struct {
	entries []cached
	head    int // entries before it were dropped
	ahead   int // how many were dropped that the budget still counts
}

func (t *tail) live() []cached { return t.entries[t.head:] }

func (t *tail) push(c cached) {
	if c.mem != nil {
		c.mem.Hold()
	}
	t.entries = append(t.entries, c)
}

// from is the index in live of the first batch that ends at offset or later.
func (t *tail) from(offset int64) int {
	live := t.live()
	if n := len(live); n > 0 && live[n-1].last < offset {
		return n // the usual case of a reader who has everything
	}
	return sort.Search(len(live), func(i int) bool { return live[i].last >= offset })
}

// drop drops the oldest batch. Nobody but readers, who hold it themselves, uses one that a segment has.
func (t *tail) drop() {
	if mem := t.entries[t.head].mem; mem != nil {
		mem.Release()
	}
	t.entries[t.head] = cached{}
	t.head++
	switch {
	case t.head == len(t.entries):
		t.entries, t.head = nil, 0
	case t.head >= 64 && t.head*2 >= len(t.entries):
		t.entries = append(make([]cached, 0, len(t.entries)-t.head), t.live()...)
		t.head = 0
	}
}

// dropBelow drops what compaction has been over: memory would show what the segments no longer do.
func (t *tail) dropBelow(offset int64) {
	for t.head < len(t.entries) && t.entries[t.head].base < offset {
		t.drop()
		t.ahead++
	}
}

// budget bounds the bytes of all tails: the oldest batches go first, but none before a segment has it.
type budget struct {
	max       int64
	unflushed atomic.Int64 // bytes no segment has yet

	mu    sync.Mutex
	bytes int64
	fifo  []cachedAt
	head  int
}

type cachedAt struct {
	p    *Partition
	size int64
}

// overhead is what a batch costs in memory besides its bytes.
const overhead = 96

func (b *budget) add(batches []cachedAt) {
	b.mu.Lock()
	for _, c := range batches {
		b.bytes += c.size
	}
	b.fifo = append(b.fifo, batches...)
	b.mu.Unlock()
}

// evict drops batches until the budget is kept or only unflushed ones are left.
func (b *budget) evict(max int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.bytes > max && b.head < len(b.fifo) {
		c := b.fifo[b.head]
		if !c.p.dropOldest() {
			return
		}
		b.fifo[b.head] = cachedAt{}
		b.head++
		b.bytes -= c.size
		if b.head >= 1024 && b.head*2 >= len(b.fifo) || b.head == len(b.fifo) {
			b.fifo = append([]cachedAt(nil), b.fifo[b.head:]...)
			b.head = 0
		}
	}
}

// dropOldest drops the oldest batch in memory; false if no segment has it yet.
func (p *Partition) dropOldest() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone {
		return true
	}
	if p.tail.ahead > 0 {
		p.tail.ahead--
		return true
	}
	if p.tail.live()[0].base >= p.flushed {
		return false
	}
	p.tail.drop()
	return true
}
