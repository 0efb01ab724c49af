package task

import (
	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/topology"
)

// punctuator is a function on a grid of times. Its next time is a cell: Undo takes a call back, and a stop as well.
type punctuator struct {
	name     string
	node     *topology.Node
	interval int64
	stream   bool
	next     *int64
	f        func(c *flow.Ctx, at int64)
}

func (t *Task) every(name string, node *topology.Node, interval int64, stream bool, f func(*flow.Ctx, int64)) (stop func()) {
	var p *punctuator
	for _, have := range t.puncts {
		if have.name == name {
			p = have // wired again
			p.f = f
		}
	}
	if p == nil {
		p = &punctuator{name: name, node: node, interval: max(interval, 1), stream: stream, f: f}
		p.next = (&env{t: t}).Cell(name, false)
		switch {
		case stream:
			*p.next = 0 // with the first record
		case t.ctx.Now > 0:
			*p.next = t.ctx.Now + p.interval
		default:
			*p.next = t.config.Now + p.interval
		}
		t.puncts = append(t.puncts, p)
	}
	t.schedule()
	return func() {
		*p.next = never
		t.schedule()
	}
}

// call turns a panic into an error.
func (p *punctuator) call(c *flow.Ctx, at int64) {
	defer c.Recover()
	p.f(c, at)
}

// schedule finds the earliest punctuator of each kind.
func (t *Task) schedule() {
	t.streamNext, t.wallNext = never, never
	for _, p := range t.puncts {
		switch {
		case p.f == nil:
		case p.stream:
			t.streamNext = min(t.streamNext, *p.next)
		default:
			t.wallNext = min(t.wallNext, *p.next)
		}
	}
}

// punctuate calls what is due, each at most once, earliest first, and parents before children. Missed calls are not made up for: the
// next one is on the original grid.
func (t *Task) punctuate(stream bool, now int64) error {
	c := &t.ctx
	for range len(t.puncts) {
		var due *punctuator
		for _, p := range t.puncts {
			if p.f != nil && p.stream == stream && *p.next <= now && (due == nil || *p.next < *due.next || *p.next == *due.next && p.node.ID < due.node.ID) {
				due = p
			}
		}
		if due == nil {
			break
		}
		*due.next += ((now-*due.next)/due.interval + 1) * due.interval
		t.dirty = true
		t.stats.Punctuations++
		c.Time, c.Headers, c.KeyNull, c.Null = now, nil, false, false
		c.Topic, c.Partition, c.Offset, c.Input, c.InHand = "", t.config.Partition, -1, 0, -1
		c.StreamTime, c.Err, c.Fatal, c.Wrote = t.streamTime, nil, false, false
		c.Node, t.hand, t.doing = due.node.ID, nil, "punctuating"
		due.call(c, now)
		t.calls.settle(0, false)
		if c.Err != nil && !t.ask() {
			return t.failure()
		}
	}
	t.schedule()
	return nil
}
