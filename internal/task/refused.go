package task

import (
	"fmt"

	"github.com/moldau/moldau/internal/flow"
)

// Refused asks the policies about records of the open epochs that the broker has refused. now is the wall clock, ms; it is called between steps.
//
// Without an error they are left out, and letters are to be written in the same epoch. An *Error whose Undo is set says that an
// input record is to be left out, to be tried again, or to be put away as it was read, which by now it no longer is in memory: after
// Undo it comes again, see Step. After any other error the application stops.
func (t *Task) Refused(refusals []flow.Refusal, now int64) (letters []flow.Out, err error) {
	left := 0
	var undo *Error
	tried := map[*trouble]bool{} // a record is tried again, not each of its results
	for i := range refusals {
		r := &refusals[i]
		q := t.refuse(r, now)
		if r.Sink == 0 {
			return nil, fmt.Errorf("task %s: %w; it is no result of a sink but a change of a store or a dead letter, which no policy may leave out: make the topic accept it",
				t.id, t.ctx.Err)
		}
		var tr *trouble
		if q != nil {
			tr = q.trouble(r.InHand)
		}
		if tried[tr] {
			continue
		}
		t.verdict = t.judge(t.failure())
		v := t.verdict
		e := t.failure()
		switch {
		case v.retry:
			tr.tries++
			tr.at = now + v.wait
			tried[tr] = true
		case v.action == Fail:
			return nil, e
		case q == nil:
			if left++; v.letter != nil {
				letters = append(letters, *v.letter)
			}
			continue
		case v.action == Continue && (v.letter == nil || tr.posted):
			left++
			continue
		default:
			tr.skip = v.action != Continue
			if v.letter != nil && (len(tr.letters) == 0 || !tr.skip) {
				tr.letters = append(tr.letters, late{v.letter.Topic, e})
			}
		}
		e.Undo = true
		undo = e
	}
	if undo != nil {
		return nil, t.breakdown(undo)
	}
	t.ctx.Err = nil
	t.stats.Skipped += int64(left)
	return letters, nil
}

// refuse sets the context to a record that was refused, and says from which input it came; nil: it is no record's.
func (t *Task) refuse(r *flow.Refusal, now int64) (q *queue) {
	c := &t.ctx
	c.Topic, c.Offset = "", -1
	if r.Input > 0 {
		q = t.queues[r.Input-1]
		c.Topic, c.Offset = q.topic, r.InHand
	}
	c.Now, c.Time, c.Fatal, c.Failed = now, r.Time, false, int(r.Sink)-1
	c.Err = &flow.WriteError{Topic: r.Topic, Err: r.Err}
	t.hand, t.record, t.doing, t.verdict = q, nil, "writing", verdict{}
	return q
}
