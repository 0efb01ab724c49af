package worker

import (
	"context"
	"sync"
)

// mailbox hands things to one goroutine. Put never blocks, so a client's callback may use it.
type mailbox[T any] struct {
	mu     sync.Mutex
	items  []T
	signal chan struct{}
	wake   context.CancelFunc // ends what the owner waits for elsewhere; may be nil
}

func newMailbox[T any]() *mailbox[T] { return &mailbox[T]{signal: make(chan struct{}, 1)} }

func (m *mailbox[T]) put(v T) {
	m.mu.Lock()
	m.items = append(m.items, v)
	if m.wake != nil {
		m.wake()
	}
	m.mu.Unlock()
	select {
	case m.signal <- struct{}{}:
	default:
	}
}

// take removes everything.
func (m *mailbox[T]) take() []T {
	m.mu.Lock()
	defer m.mu.Unlock()
	items := m.items
	m.items = nil
	return items
}

// waiting returns a context that ends as soon as there is something in the box, for an owner that waits for a client.
func (m *mailbox[T]) waiting(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wake = cancel
	if len(m.items) > 0 {
		cancel()
	}
	return ctx, cancel
}
