package streamtest

import (
	"context"
	"time"
)

// caller makes the calls of one task, one after another on the test's goroutine, as soon as the task can do nothing else. They have
// no deadline: the test's clock stands still meanwhile.
type caller struct {
	asked []*asked
}

type asked struct {
	f    func(context.Context) error // nil: nobody wants the result any more
	done func(error)
}

func (c *caller) Call(_ time.Duration, f func(context.Context) error, done func(error)) {
	c.asked = append(c.asked, &asked{f, done})
}

// Cancel leaves out what was asked for; none is under way.
func (c *caller) Cancel() {
	for _, call := range c.asked {
		call.f = nil
	}
}

// run makes the calls that were asked for; false: there are none.
func (c *caller) run() bool {
	asked := c.asked
	c.asked = nil
	for _, call := range asked {
		if call.f == nil {
			call.done(context.Canceled)
		} else {
			call.done(call.f(context.Background()))
		}
	}
	return len(asked) > 0
}
