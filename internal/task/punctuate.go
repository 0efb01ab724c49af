package task

import (
	"slices"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/topology"
)

// punctuator is a function on a grid of times. Where wiring asks for it, its next time is a cell: Undo takes a call back, and a stop as
// well. One that an operator at work asks for is gone after Undo, as after a crash.
type punctuator struct {
	name     string // "": asked for at work
	node     *topology.Node
	interval int64
	stream   bool
	next     *int64
	f        func(c *flow.Ctx, at int64)
}

// every is for an operator that is being wired.
func (t *Task) every(name string, node *topology.Node, interval int64, stream bool, f func(*flow.Ctx, int64)) (stop func()) {
	i := slices.IndexFunc(t.puncts, func(p *punctuator) bool { return p.name == name })
	if i < 0 {
		p := &punctuator{name: name, node: node, interval: max(interval, 1), stream: stream, next: (&env{t: t}).Cell(name, false)}
		*p.next = t.first(p)
		i, t.puncts = len(t.puncts), append(t.puncts, p)
		t.wired = len(t.puncts)
	}
	p := t.puncts[i]
	p.f = f
	t.schedule()
	return func() {
		*p.next = never
		t.schedule()
	}
}

// later is for an operator at work.
func (t *Task) later(node *topology.Node, interval int64, stream bool, f func(*flow.Ctx, int64)) (stop func()) {
	p := &punctuator{node: node, interval: max(interval, 1), stream: stream, next: new(int64), f: f}
	*p.next = t.first(p)
	t.puncts = append(t.puncts, p)
	t.schedule()
	return func() {
		t.puncts = slices.DeleteFunc(t.puncts, func(have *punctuator) bool { return have == p })
		t.schedule()
	}
}

// first is the time of a new punctuator's first call.
func (t *Task) first(p *punctuator) int64 {
	switch {
	case p.stream:
		return 0 // with the first record, or the one in hand
	case t.ctx.Now > 0:
		return t.ctx.Now + p.interval
	}
	return t.config.Now + p.interval
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

// cascade is how many more calls than there are punctuators are made at once: of those that punctuators ask for. One that asks for itself again
// each time must not hold the task for ever.
const cascade = 1000

// punctuate calls what is due, each at most once, earliest first, and parents before children. Missed calls are not made up for: the
// next one is on the original grid.
func (t *Task) punctuate(stream bool, now int64) error {
	c := &t.ctx
	for range len(t.puncts) + cascade {
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
		if c.Err != nil {
			return t.failure()
		}
	}
	t.schedule()
	return nil
}
