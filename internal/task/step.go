package task

import (
	"math"

	"github.com/moldau/moldau/internal/flow"
)

// Step runs at most most records, lowest time first: a run of one partition until its head is later than another's.
// It stops early when an operator asks for a commit. now is the wall clock in ms. It returns how many records it took up or
// passed over.
//
// An error is an *Error. If its Undo is set, a store had been written before the record failed, and the policy said to skip
// it or to try again: after Undo of the current epoch and a seek to the offsets that returns, the task will leave that record
// out, or run it after the policy's backoff, when it comes again. After any other error the task can only be undone or closed.
func (t *Task) Step(now int64, most int) (n int, err error) {
	if t.broken != nil {
		return 0, t.broken
	}
	t.ctx.Err = nil
	n, err = t.step(now, most)
	if err == nil && t.ctx.Err != nil { // a panic, on its way through step
		err = t.failed(t.hand, t.ctx.InHand, 0)
	}
	t.stats.Records += int64(n)
	if err != nil {
		return n, t.breakdown(err)
	}
	return n + t.passed, nil
}

func (t *Task) step(now int64, most int) (n int, err error) {
	c := &t.ctx
	c.Now = now
	t.passed = 0
	if t.calls.open > 0 {
		if err := t.land(now); err != nil {
			return 0, err
		}
	}
	if t.sealing {
		return 0, nil
	}
	if t.wallNext <= now {
		if err := t.punctuate(false, now); err != nil {
			return 0, err
		}
	}
	defer c.Recover()
	for n < most && !t.asked && !t.calls.full {
		q, limit := t.choose(now)
		if q == nil {
			if n == 0 {
				err = t.idle(now)
			}
			return n, err
		}
		t.dirty = true
		for n < most && !t.asked && !t.calls.full {
			q.prefetch()
			rec := q.head()
			var tr *trouble
			if q.troubles != nil {
				if tr = q.troubles[rec.Offset]; tr != nil && now < tr.at {
					return n, nil // it is waited for
				}
			}
			if t.streamTime < q.headTime {
				t.streamTime = q.headTime
				t.age()
			}
			q.partitionTime = max(q.partitionTime, q.headTime)
			t.begin(q, rec, q.headTime)
			if tr != nil && tr.read == nil {
				tr.read = copied(rec)
			}
			if tr != nil && tr.skip {
				t.leave(tr)
			} else if again, err := t.run(q, rec); again || err != nil {
				return n, err
			}
			q.pop()
			n++
			if t.streamNext <= t.streamTime {
				if err := t.punctuate(true, t.streamTime); err != nil {
					return n, err
				}
			}
			if q.empty() || !t.time(q) || q.headTime >= limit {
				break
			}
		}
	}
	return n, nil
}

// age tells stores the stream time: with every record that moves it, so that what they show does not depend on the size of a step.
func (t *Task) age() {
	for _, s := range t.aging {
		s.Advance(t.streamTime)
	}
}

// begin sets the context to a record.
func (t *Task) begin(q *queue, rec *flow.In, time int64) {
	c := &t.ctx
	c.Time, c.Headers = time, rec.Headers
	c.KeyNull, c.Null = false, false
	c.Topic, c.Partition, c.Offset = q.topic, t.config.Partition, rec.Offset
	c.Input, c.InHand = q.input, rec.Offset
	c.StreamTime = t.streamTime
	c.Err, c.Fatal, c.Wrote = nil, false, false
	c.Node, t.hand, t.record, t.doing = q.node.ID, q, rec, "processing"
}

// leave leaves the record in hand out, as was decided when it was here before.
func (t *Task) leave(tr *trouble) {
	if tr.late != nil {
		tr.letter, tr.late = t.letter(tr.late.topic, tr.late.err), nil
	}
	t.post(tr.letter)
	t.stats.Skipped++
}

// run takes one record through its chain, and asks the policies if it fails. again: it is to be tried again later.
func (t *Task) run(q *queue, rec *flow.In) (again bool, err error) {
	c := &t.ctx
	mark := c.Out.Mark()
	if q.headErr == nil {
		q.feed(c, rec.Key, rec.Value)
	} else {
		c.Fail(q.node.ID, q.headErr)
	}
	t.calls.settle(mark, true)
	if c.Err == nil {
		return false, nil
	}
	again = t.verdict.retry && !c.Fatal
	if err := t.failed(q, rec.Offset, mark); err != nil {
		return false, err
	}
	if again {
		q.ready = false // its time is read again as well
	}
	return again, nil
}

// breakdown keeps the task from going on after an error.
func (t *Task) breakdown(err error) error {
	t.broken = err
	return err
}

// Tick runs wall-clock punctuators that are due.
func (t *Task) Tick(now int64) error {
	if t.broken != nil {
		return t.broken
	}
	t.ctx.Now = now
	if t.wallNext <= now && !t.sealing {
		if err := t.punctuate(false, now); err != nil {
			return t.breakdown(err)
		}
	}
	return nil
}

// Reach takes over a stream time that another task has reached and runs punctuators that are due: for a driver that plays several
// sub-topologies as one task, as Kafka Streams' TopologyTestDriver does.
func (t *Task) Reach(now, streamTime int64) error {
	if t.broken != nil {
		return t.broken
	}
	t.ctx.Now, t.streamTime = now, max(t.streamTime, streamTime)
	if t.streamNext <= t.streamTime {
		if err := t.punctuate(true, t.streamTime); err != nil {
			return t.breakdown(err)
		}
	}
	return nil
}

// Wake is the wall-clock time at which Step or Tick will have something to do without any new input, ms;
// math.MaxInt64: never.
func (t *Task) Wake() int64 {
	at := t.calls.wake()
	if t.sealing {
		return at
	}
	at = min(at, t.wallNext, t.rest.wake)
	for _, q := range t.queues {
		if q.deadline > 0 && q.empty() {
			at = min(at, q.deadline)
		}
		if q.troubles != nil && !q.empty() {
			if tr := q.troubles[q.head().Offset]; tr != nil && !tr.skip {
				at = min(at, tr.at)
			}
		}
	}
	return at
}

// Take hands over what the sinks have emitted since the last Take, to be produced while the epoch runs. The records
// belong to the current epoch. Give the slice back with Recycle once it is no longer needed. A task that makes calls keeps
// them until it is sealed: its epoch may take longer than those of the tasks that it shares a transaction with.
func (t *Task) Take() []flow.Out {
	if t.calls.caller() {
		return nil
	}
	return t.take()
}

func (t *Task) take() []flow.Out {
	out := t.effects.Records
	t.effects.Records = nil
	return out
}

// Recycle takes back a slice from Take or an Epoch, to be filled again.
func (t *Task) Recycle(out []flow.Out) {
	if len(t.effects.Records) == 0 && cap(out) > cap(t.effects.Records) {
		clear(out)
		t.effects.Records = out[:0]
	}
}

// never is the time of a punctuator that will not run again.
const never = math.MaxInt64
