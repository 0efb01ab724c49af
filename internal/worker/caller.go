package worker

import (
	"context"
	"errors"
	"fmt"
	"runtime/pprof"
	"strconv"
	"time"
)

// errGoexit: an author's function has ended its goroutine.
var errGoexit = errors.New("a function has ended its goroutine with runtime.Goexit, as FailNow of package testing does; let it return an error")

// caller makes the calls of one task, each on a goroutine of its own: the task bounds how many. The node waits for all of them
// before it leaves the group. Answers go to the worker that has the task.
type caller struct {
	n      *Node
	task   string
	w      *worker         // since it was adopted
	ctx    context.Context // of the calls under way
	cancel context.CancelFunc
	labels context.Context
}

func (c *caller) Call(timeout time.Duration, f func(context.Context) error, done func(error)) {
	if c.ctx == nil {
		c.ctx, c.cancel = context.WithCancel(context.Background())
		c.labels = c.n.labels("calls of worker "+strconv.Itoa(c.w.index), c.task)
	}
	ctx, cancel := context.WithTimeout(c.ctx, timeout)
	c.n.calls.Go(func() {
		defer cancel()
		pprof.SetGoroutineLabels(c.labels)
		err := errGoexit // if it does not come back
		defer func() { c.w.box.put(func() { done(err) }) }()
		err = f(ctx)
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil {
			err = fmt.Errorf("no answer within %v: %w", timeout, err)
		}
	})
}

func (c *caller) Cancel() {
	if c.ctx != nil {
		c.cancel()
		c.ctx = nil
	}
}
