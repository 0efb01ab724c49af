package task

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/moldau/moldau/internal/flow"
)

// Refused asks the policies about records of the open epochs that the broker has refused. now is the wall clock, ms; it is called between steps.
//
// Without an error they are left out, and letters are to be written in the same epoch. An *Error whose Undo is set says that an
// input record is to be left out, to be tried again, or to be put away as it was read, which by now it no longer is in memory: after
// Undo it comes again, see Step. It is then kept until it is committed, so that there is a letter only if a result of it is refused once more.
// After any other error the application stops.
func (t *Task) Refused(refusals []flow.Refusal, now int64) (letters []flow.Out, err error) {
	left := 0
	var undo *Error
	tried := map[*trouble]bool{} // a record is tried again, not each of its results
	refusals = slices.Clone(refusals)
	slices.SortStableFunc(refusals, func(a, b flow.Refusal) int { // so that letters are in the order of the input
		return cmp.Or(cmp.Compare(a.Input, b.Input), cmp.Compare(a.InHand, b.InHand))
	})
	for i := range refusals {
		r := &refusals[i]
		tr := t.refuse(r, now)
		if r.Sink == 0 {
			return nil, fmt.Errorf("task %s: %w; it is no result of a sink but a change of a store or a dead letter, which no policy may leave out: make the topic accept it",
				t.id, t.ctx.Err)
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
		case tr == nil, v.action == Continue && (v.letter == nil || tr.read != nil):
			if left++; v.letter != nil {
				letters = append(letters, *v.letter)
			}
			continue
		case v.action == Skip:
			if tr.skip = true; v.letter != nil && tr.late == nil {
				tr.late = &late{v.letter.Topic, e}
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

// refuse sets the context to a record that was refused, and returns the trouble of the one whose result it is; nil: it is no record's.
func (t *Task) refuse(r *flow.Refusal, now int64) (tr *trouble) {
	c := &t.ctx
	c.Topic, c.Offset, c.Input, c.InHand = "", -1, r.Input, r.InHand
	t.hand, t.record = nil, nil
	if r.Input > 0 {
		t.hand = t.queues[r.Input-1]
		c.Topic, c.Offset = t.hand.topic, r.InHand
		tr = t.hand.trouble(r.InHand)
		t.record = tr.read
	}
	c.Now, c.Time, c.Fatal, c.Failed = now, r.Time, false, int(r.Sink)-1
	c.Err = &flow.WriteError{Topic: r.Topic, Err: r.Err}
	t.doing, t.verdict = "writing", verdict{}
	return tr
}
