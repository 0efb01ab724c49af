package broker

import "context"

// future is a write that will be durable, or has failed.
type future struct {
	done chan struct{}
	err  error
}

func newFuture() *future { return &future{done: make(chan struct{})} }

// set ends the wait; it is what Submit calls.
func (f *future) set(err error) {
	f.err = err
	close(f.done)
}

// ok reports whether the write is durable already.
func (f *future) ok() bool {
	select {
	case <-f.done:
		return f.err == nil
	default:
		return false
	}
}

// failed reports whether the write has failed already.
func (f *future) failed() bool {
	select {
	case <-f.done:
		return f.err != nil
	default:
		return false
	}
}

// wait waits for the write and reports whether it is durable; false too if ctx ends first. A nil future is no write.
func (f *future) wait(ctx context.Context) bool {
	if f == nil {
		return true
	}
	select {
	case <-f.done:
		return f.err == nil
	case <-ctx.Done():
		return false
	}
}
