package log

// Waiter waits for many partitions at once. C holds at most one token: what happens while nobody receives is not lost,
// and what happens twice wakes once.
type Waiter struct {
	C chan struct{}
}

// NewWaiter returns a Waiter that waits for nothing yet.
func NewWaiter() *Waiter { return &Waiter{C: make(chan struct{}, 1)} }

// Wake wakes whoever receives from C, now or next.
func (w *Waiter) Wake() {
	select {
	case w.C <- struct{}{}:
	default:
	}
}
