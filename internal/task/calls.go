package task

import (
	"context"
	"time"

	"github.com/moldau/moldau/internal/flow"
)

// Caller makes calls beside the task: it is the edge's.
type Caller interface {
	// Call has f called elsewhere, with a context that ends after the timeout or with Cancel, and then done with its error, between
	// two steps of the task. A call is answered even if it was cancelled.
	Call(timeout time.Duration, f func(ctx context.Context) error, done func(err error))
	// Cancel ends the contexts of all calls that are under way.
	Cancel()
}

// calls are the calls beside a task. All of them belong to the open epoch: Seal waits until they have landed.
type calls struct {
	task      *Task
	operators []*operator
	open      int       // asked for, and neither landed nor left out
	full      bool      // no more records until some have landed
	fresh     []*called // since the last settle
	wrong     []*called // that were answered with an error
	parent    *called   // the one that lands just now
	failed    *called   // the one whose error the policies are asked about
	lost      int       // under way for an epoch that was taken back
	weighed   int       // effects whose size is in bytes
	bytes     int64
}

// operator is one operator's calls.
type operator struct {
	node    int
	limit   int
	timeout time.Duration
	line    []*called          // not landed, in the order in which they were asked for
	ready   []*called          // that may be made
	again   []*called          // that are made again later
	waiting int                // neither made nor being made for the first time
	flying  int                // being made
	lanes   map[uint64]*called // the last of each
}

// called is one call.
type called struct {
	flow.Call
	op    *operator
	next  *called // of its lane
	state callState
	err   error
	tries int
	at    int64 // when it is made again or lands again, wall clock, ms
	// alone: its record has done nothing else, so to leave the call out is to leave out the record.
	alone bool

	queue  *queue // of its record; nil: it comes from a timer or the commit
	record flow.In
	kept   *kept

	time, offset, streamTime int64
	headers                  []flow.Header
	topic                    string
	input                    int16
	keyNull, null            bool
}

type callState int

const (
	waiting  callState = iota // for its turn
	flying                    // being made
	answered                  // its error is in err
	arrived                   // it may land
	left                      // out, by the policies
	lost                      // its epoch was taken back
)

// kept is a batch that calls still read.
type kept struct {
	calls   int
	popped  bool
	release func()
}

func (k *kept) pop() { k.popped = true; k.free() }

func (k *kept) free() {
	if k.popped && k.calls == 0 {
		k.release()
	}
}

// lookahead is how many results may wait for an earlier one, in multiples of the limit; effectsMost how many bytes of effects a
// task with calls gathers before it asks for a commit.
const (
	lookahead   = 16
	effectsMost = 8 << 20
)

// caller says whether operators make calls.
func (cs *calls) caller() bool { return len(cs.operators) > 0 }

// operator is flow.Env.Calls.
func (cs *calls) operator(node, limit int, timeout time.Duration) func(*flow.Ctx, flow.Call) {
	op := &operator{node: node, limit: limit, timeout: timeout, lanes: map[uint64]*called{}}
	cs.operators = append(cs.operators, op)
	return func(c *flow.Ctx, call flow.Call) { cs.ask(op, c, call) }
}

// ask notes a call and makes it if it may be made at once.
func (cs *calls) ask(op *operator, c *flow.Ctx, call flow.Call) {
	k := &called{Call: call, op: op, time: c.Time, offset: c.Offset, streamTime: c.StreamTime, headers: c.Headers, topic: c.Topic,
		input: c.Input, keyNull: c.KeyNull, null: c.Null}
	if cs.parent != nil {
		k.queue, k.record, k.kept = cs.parent.queue, cs.parent.record, cs.parent.kept
	} else if k.queue = cs.task.hand; k.queue != nil {
		k.record, k.kept = *cs.task.record, k.queue.keep()
	}
	if k.kept != nil {
		k.kept.calls++
	}
	cs.open++
	cs.fresh = append(cs.fresh, k)
	op.line = append(op.line, k)
	op.waiting++
	if k.Lane != 0 {
		before := op.lanes[k.Lane]
		op.lanes[k.Lane] = k
		if before != nil {
			before.next = k
			cs.full = cs.full || op.full()
			return
		}
	}
	op.ready = append(op.ready, k)
	cs.make(op)
	cs.full = cs.full || op.full()
}

// keep has the batch of the head released only once calls do not read it any more.
func (q *queue) keep() *kept {
	b := &q.batches[0]
	if b.kept == nil && b.release != nil {
		b.kept = &kept{release: b.release}
		b.release = b.kept.pop
	}
	return b.kept
}

func (op *operator) full() bool {
	return op.waiting >= op.limit || len(op.line) >= lookahead*op.limit
}

// make makes the calls of an operator that may be made.
func (cs *calls) make(op *operator) {
	for cs.lost == 0 && op.flying < op.limit && len(op.ready) > 0 {
		k := op.ready[0]
		op.ready[0] = nil
		op.ready = op.ready[1:]
		op.waiting--
		op.flying++
		k.state = flying
		cs.task.config.Caller.Call(op.timeout, k.Run, func(err error) { cs.answer(k, err) })
	}
}

// answer takes the answer of a call; what follows from it is the next step's.
func (cs *calls) answer(k *called, err error) {
	if k.state == lost {
		k.forget()
		if cs.lost--; cs.lost == 0 {
			for _, op := range cs.operators {
				cs.make(op)
			}
		}
		return
	}
	k.op.flying--
	if err == nil {
		cs.arrive(k, arrived)
		return
	}
	k.state, k.err = answered, err
	cs.wrong = append(cs.wrong, k)
}

// arrive ends a call for good; the next of its lane may be made.
func (cs *calls) arrive(k *called, s callState) {
	op := k.op
	k.state = s
	if k.next != nil {
		op.ready = append(op.ready, k.next)
		k.next = nil
	} else if op.lanes[k.Lane] == k {
		delete(op.lanes, k.Lane)
	}
	cs.make(op)
}

// forget lets go of a call's record.
func (k *called) forget() {
	if k.kept != nil {
		k.kept.calls--
		k.kept.free()
		k.kept = nil
	}
}

// settle follows each record, timer and flush: which calls were made, and whether that was all that happened. single: it can be
// left out.
func (cs *calls) settle(mark int, single bool) {
	if len(cs.fresh) == 0 {
		return
	}
	c := &cs.task.ctx
	cs.fresh[0].alone = single && len(cs.fresh) == 1 && !c.Wrote && c.Out.Mark() == mark && (cs.parent == nil || cs.parent.alone)
	if c.Err != nil {
		c.Wrote = true // a call under way cannot be left out alone
	}
	clear(cs.fresh)
	cs.fresh = cs.fresh[:0]
}

// land asks the policies about calls that failed, makes those again whose time has come, and gives on results.
func (t *Task) land(now int64) error {
	cs := &t.calls
	for _, k := range cs.wrong {
		if err := t.callFailed(k); err != nil {
			return err
		}
	}
	clear(cs.wrong)
	cs.wrong = cs.wrong[:0]
	for _, op := range cs.operators {
		later := op.again[:0]
		for _, k := range op.again {
			if now < k.at {
				later = append(later, k)
				continue
			}
			op.ready = append(op.ready, k)
			op.waiting++
		}
		clear(op.again[len(later):])
		op.again = later
		cs.make(op)
	}
	cs.full = false
	for _, op := range cs.operators {
		for len(op.line) > 0 && op.line[0].state >= arrived && op.line[0].at <= now {
			k := op.line[0]
			if k.state == arrived {
				if again, err := t.landed(k); err != nil {
					return err
				} else if again {
					break
				}
			}
			op.line[0] = nil
			op.line = op.line[1:]
			k.forget()
			cs.open--
			t.passed++
		}
		cs.full = cs.full || op.full()
	}
	t.dirty = true
	if t.sealing && cs.open == 0 || cs.heavy() {
		t.asked = true
	}
	return nil
}

// heavy says whether so many effects wait for the commit that it should come soon.
func (cs *calls) heavy() bool {
	records := cs.task.effects.Records
	if len(records) < cs.weighed {
		cs.weighed, cs.bytes = 0, 0
	}
	for ; cs.weighed < len(records); cs.weighed++ {
		cs.bytes += int64(len(records[cs.weighed].Key)+len(records[cs.weighed].Value)) + recordOverhead
	}
	return cs.bytes > effectsMost
}

// resume sets the context to what it was when a call was asked for.
func (t *Task) resume(k *called, doing string) {
	c := &t.ctx
	c.Time, c.Headers, c.KeyNull, c.Null = k.time, k.headers, k.keyNull, k.null
	c.Topic, c.Partition, c.Offset = k.topic, t.config.Partition, k.offset
	c.Input, c.InHand = k.input, -1
	if k.queue != nil {
		c.InHand = k.record.Offset
	}
	c.StreamTime = k.streamTime
	c.Err, c.Fatal, c.Wrote = nil, false, false
	c.Node, t.hand, t.record, t.doing = k.op.node, k.queue, &k.record, doing
}

// callFailed asks the policies about the error of a call: it is made again, left out, or its record is.
func (t *Task) callFailed(k *called) error {
	c, cs := &t.ctx, &t.calls
	t.resume(k, "calling")
	cs.failed = k
	c.Fail(k.op.node, k.err)
	cs.failed = nil
	switch {
	case c.Err != nil && t.verdict.retry:
		k.tries++
		k.state, k.err, k.at = waiting, nil, c.Now+t.verdict.wait
		k.op.again = append(k.op.again, k)
		c.Err = nil
		return nil
	case c.Err != nil && k.input == 0:
		return t.failure()
	case c.Err != nil:
		c.Wrote = !k.alone
		if err := t.failed(k.queue, k.record.Offset, c.Out.Mark()); err != nil {
			return err
		}
	}
	k.at = 0
	cs.arrive(k, left)
	return nil
}

// landed gives the result of a call on. again: that failed, and is to be tried again.
func (t *Task) landed(k *called) (again bool, err error) {
	c, cs := &t.ctx, &t.calls
	k.at = 0
	t.resume(k, "processing")
	mark := c.Out.Mark()
	cs.parent = k
	t.guardLanding(k)
	cs.settle(mark, k.queue != nil)
	cs.parent = nil
	switch {
	case c.Err == nil:
		return false, nil
	case k.queue == nil:
		return false, t.failure()
	}
	again = t.verdict.retry && !c.Fatal
	if !again {
		c.Wrote = c.Wrote || !k.alone
	}
	if err := t.failed(k.queue, k.record.Offset, mark); err != nil {
		return false, err
	}
	if again {
		k.at = k.queue.troubles[k.record.Offset].at
	}
	return again, nil
}

// guardLanding turns a panic into an error.
func (t *Task) guardLanding(k *called) {
	defer t.ctx.Recover()
	k.Land(&t.ctx)
}

// wake is when a call is made or lands again, wall clock, ms.
func (cs *calls) wake() int64 {
	at := int64(never)
	for _, op := range cs.operators {
		for _, k := range op.again {
			at = min(at, k.at)
		}
		if len(op.line) > 0 && op.line[0].state == arrived {
			at = min(at, op.line[0].at)
		}
	}
	return at
}

// drop gives up all calls. Those under way are cancelled, and no other is made until they have come back.
func (cs *calls) drop() {
	if len(cs.operators) == 0 {
		return
	}
	for _, op := range cs.operators {
		for _, k := range op.line {
			if k.state == flying {
				cs.lost++
			} else {
				k.forget()
			}
			k.state = lost
		}
	}
	cs.task.config.Caller.Cancel()
	*cs = calls{task: cs.task, lost: cs.lost}
}
