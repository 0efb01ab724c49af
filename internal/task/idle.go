package task

import (
	"slices"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/topology"
)

// rest is how a task goes on while nothing comes in: stream time moves on by itself, as far as something waits for it. Each move is
// part of an epoch, and how far it went is committed with it.
type rest struct {
	after  int64  // how long nothing must have come, ms; 0: stream time never moves by itself
	moved  *int64 // how far it has; -1: never
	broken bool   // something has come since the last step
	since  int64  // nothing has come since, wall clock, ms
	asking bool   // the ends of all inputs are to be heard, to be sure that there is no more
	wake   int64  // when something will be due, as far as is known, wall clock, ms
}

// idler is an operator that goes by stream time.
type idler struct {
	node *topology.Node
	due  func() (at int64, ok bool, err error)
	move func(c *flow.Ctx)
}

// restName is how far stream time has moved by itself, in offset metadata.
const restName = "@idle"

// wireRest prepares for silence. After a restart operators that keep no time of their own are told how far it was.
func (t *Task) wireRest(env *env) {
	t.rest.after, t.rest.wake, t.rest.asking, t.rest.broken = 0, never, false, true
	for _, q := range t.queues {
		t.rest.after = max(t.rest.after, q.source.IdleAfter)
	}
	if t.rest.after == 0 {
		return
	}
	t.rest.moved = env.Cell(restName, true)
	t.streamTime = max(t.streamTime, *t.rest.moved)
	t.age()
	slices.SortStableFunc(t.idlers, func(a, b idler) int { return a.node.ID - b.node.ID })
}

// Asks says whether the task wants to hear by Caught where its inputs end.
func (t *Task) Asks() bool { return t.rest.asking }

// idle moves stream time on if nothing has come for long enough, to what is due by then. Operators do what they do when a record moves
// it; which is why it goes from one due time to the next, and no further.
func (t *Task) idle(now int64) error {
	r := &t.rest
	if r.after == 0 || t.streamTime < 0 {
		return nil
	}
	r.broken = r.broken || t.calls.open > 0 || t.calls.lost > 0 // what is under way is no silence
	if r.broken {
		r.broken, r.since, r.asking = false, now, false
	}
	r.wake = never
	if slices.ContainsFunc(t.queues, func(q *queue) bool { return !q.empty() }) {
		return nil
	}
	if now < r.since+r.after {
		r.wake = r.since + r.after
		return nil
	}
	to, ok, err := t.due()
	if ok && satAdd(to, r.after) <= now && !t.certain() {
		return nil // it goes on once the ends are known
	}
	for err == nil && ok && satAdd(to, r.after) <= now {
		if err = t.move(to); err == nil {
			to, ok, err = t.due()
		}
	}
	if ok {
		r.wake = satAdd(to, r.after)
	}
	r.asking = false
	return err
}

// certain asks for the ends of all inputs, unless that has been done, and says whether they are known and nothing is left before them.
func (t *Task) certain() bool {
	if !t.rest.asking {
		t.rest.asking = true
		for _, q := range t.queues {
			q.asked = true
		}
	}
	return !slices.ContainsFunc(t.queues, func(q *queue) bool { return q.asked || q.added < q.end })
}

// due is the earliest stream time for which something waits, later than where it was moved last. Timers that are called with every
// record, each ms, wait for nothing.
func (t *Task) due() (to int64, ok bool, err error) {
	to = never
	for _, i := range t.idlers {
		at, waits, err := i.due()
		if err != nil {
			return 0, false, t.breakdown(err)
		}
		if at < 0 {
			at = t.streamTime + 1
		}
		if waits && at > *t.rest.moved {
			to = min(to, at)
		}
	}
	for _, p := range t.puncts {
		if p.f != nil && p.stream && p.interval > 1 {
			to = min(to, *p.next)
		}
	}
	return max(to, t.streamTime), to != never, nil
}

// move takes stream time to a later one.
func (t *Task) move(to int64) error {
	c := &t.ctx
	t.streamTime, *t.rest.moved = to, to
	t.dirty = true
	t.stats.Punctuations++
	t.age()
	for _, i := range t.idlers {
		c.Time, c.Headers, c.KeyNull, c.Null = to, nil, false, false
		c.Topic, c.Partition, c.Offset, c.Input, c.InHand = "", t.config.Partition, -1, 0, -1
		c.StreamTime, c.Err, c.Fatal, c.Wrote = to, nil, false, false
		c.Node, t.hand, t.doing = i.node.ID, nil, advancing
		i.call(c)
		t.calls.settle(0, false)
		if c.Err != nil {
			return t.failure()
		}
	}
	if t.streamNext <= t.streamTime {
		return t.punctuate(true, t.streamTime)
	}
	return nil
}

// call turns a panic into an error.
func (i idler) call(c *flow.Ctx) {
	defer c.Recover()
	i.move(c)
}
