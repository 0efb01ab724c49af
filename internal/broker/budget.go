package broker

import (
	"context"
	"slices"
	"sync"
)

// budget bounds the bytes of all requests that are read or not yet answered (queued.max.request.bytes). Who finds it spent
// waits, in turn. Requests that are half read could wait for each other for ever: one of them at a time is given what is not
// there, until it is read, so at most the largest request comes on top.
type budget struct {
	mu   sync.Mutex
	left int64 // below 0 while something is lent
	all  int64
	// queue are those who wait, the first first.
	queue []*claim
	lent  *share // may take more than there is; nil: nobody
}

// share is what a request holds of a budget.
type share struct{ held int64 }

type claim struct {
	to    *share
	n     int64
	given chan struct{}
}

func newBudget(n int64) *budget { return &budget{left: n, all: n} }

// take adds bytes to a share, and returns false if ctx ends before there are any.
func (b *budget) take(ctx context.Context, to *share, n int64) bool {
	b.mu.Lock()
	if b.lent == to || len(b.queue) == 0 && b.left >= n {
		b.left -= n
		to.held += n
		b.mu.Unlock()
		return true
	}
	c := &claim{to: to, n: n, given: make(chan struct{})}
	b.queue = append(b.queue, c)
	b.grant()
	b.mu.Unlock()
	select {
	case <-c.given:
		return true
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if i := slices.Index(b.queue, c); i >= 0 {
		b.queue = slices.Delete(b.queue, i, i+1)
		b.grant() // who stood behind may need less
	} // else it was given in the same moment
	return false
}

// read notes that a share takes no more: its request is read, or never will be.
func (b *budget) read(s *share) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lent == s {
		b.lent = nil
		b.grant()
	}
}

// give gives bytes of a share back that takes no more.
func (b *budget) give(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left += n
	b.grant()
}

func (b *budget) grant() {
	for len(b.queue) > 0 {
		i := 0
		if b.left < b.queue[0].n {
			i = slices.IndexFunc(b.queue, func(c *claim) bool { return c.to.held > 0 })
			if i < 0 || b.lent != nil || b.left < 0 {
				return
			}
			b.lent = b.queue[i].to
		}
		c := b.queue[i]
		b.queue = slices.Delete(b.queue, i, i+1)
		b.left -= c.n
		c.to.held += c.n
		close(c.given)
	}
}
