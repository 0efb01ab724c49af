package broker

import (
	"context"
	"sync"
)

// budget bounds the bytes of all requests that are read or not yet answered (queued.max.request.bytes). Who finds it spent
// waits, in turn.
type budget struct {
	mu   sync.Mutex
	left int64
	all  int64
	// queue are those who wait, the first first.
	queue []*claim
}

type claim struct {
	n     int64
	given chan struct{}
}

func newBudget(n int64) *budget { return &budget{left: n, all: n} }

// take takes bytes, and returns false if ctx ends before there are any.
func (b *budget) take(ctx context.Context, n int64) bool {
	b.mu.Lock()
	if len(b.queue) == 0 && b.left >= n {
		b.left -= n
		b.mu.Unlock()
		return true
	}
	c := &claim{n: n, given: make(chan struct{})}
	b.queue = append(b.queue, c)
	b.mu.Unlock()
	select {
	case <-c.given:
		return true
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, q := range b.queue {
		if q == c {
			b.queue = append(b.queue[:i], b.queue[i+1:]...)
			b.grant() // who stood behind may need less
			return false
		}
	}
	b.left += n // given in the same moment
	b.grant()
	return false
}

func (b *budget) give(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left += n
	b.grant()
}

func (b *budget) grant() {
	for len(b.queue) > 0 && b.left >= b.queue[0].n {
		b.left -= b.queue[0].n
		close(b.queue[0].given)
		b.queue = b.queue[1:]
	}
}
