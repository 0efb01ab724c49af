package task

import (
	"errors"
	"fmt"
	"strings"

	"github.com/moldau/moldau/internal/flow"
)

// Error is a record, a punctuation or a flush that failed, and where.
type Error struct {
	Task      ID
	Kind      ErrorKind
	Doing     string // "processing", "calling", "punctuating", "advancing", "flushing", "writing", "starting"
	Topic     string // "" where there is no record
	Partition int32
	Offset    int64 // -1 where there is no record
	Time      int64 // of the record or punctuation, ms
	Node      string
	At        string // the author's file:line
	Undo      bool   // see Task.Step
	Err       error
}

// What Error.Doing says of a task that goes through what operators hold back.
const (
	flushing  = "flushing"
	advancing = "advancing" // stream time, without a record
)

// ErrorKind says which policy an error is up to.
type ErrorKind string

const (
	Decoding   ErrorKind = "decoding"   // a serde could not read the record
	Processing ErrorKind = "processing" // a function failed or panicked
	Production ErrorKind = "production" // a sink could not write a record
)

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Doing)
	if e.Topic != "" {
		fmt.Fprintf(&b, " %s[%d]@%d", e.Topic, e.Partition, e.Offset)
	}
	fmt.Fprintf(&b, " in %s (task %s", e.Node, e.Task)
	if e.At != "" {
		fmt.Fprintf(&b, ", %s", e.At)
	}
	fmt.Fprintf(&b, "): %v", e.Err)
	return b.String()
}

func (e *Error) Unwrap() error { return e.Err }

func kindOf(err error) ErrorKind {
	if _, ok := errors.AsType[*flow.DecodeError](err); ok {
		return Decoding
	}
	if _, ok := errors.AsType[*flow.WriteError](err); ok {
		return Production
	}
	return Processing
}

// failure describes what the context holds.
func (t *Task) failure() *Error {
	c := &t.ctx
	e := &Error{Task: t.id, Kind: kindOf(c.Err), Doing: t.doing, Topic: c.Topic, Partition: t.config.Partition, Offset: c.Offset, Time: c.Time, Err: c.Err}
	if t.verdict.err != nil && !c.Fatal {
		e.Err = t.verdict.err
	}
	if n := t.node(c.Failed); n != nil {
		e.Node, e.At = n.Label(), n.At
	}
	return e
}

// verdict is what the policies said of the error in the context.
type verdict struct {
	action Action
	retry  bool
	wait   int64     // ms, before it is tried again
	letter *flow.Out // nil: none
	err    error     // that stands for the error: the policy cannot be carried out
}

// pass is flow.Ctx.Pass. It keeps the verdict for whoever sees the error.
func (t *Task) pass(node int, err error) bool {
	c := &t.ctx
	c.Failed, c.Err, t.verdict = node, err, verdict{}
	e := t.failure()
	c.Err = nil
	t.verdict = t.judge(e)
	if t.verdict.action != Continue || t.verdict.retry {
		return false
	}
	t.post(t.verdict.letter)
	t.stats.Skipped++
	return true
}

// judge asks the policies about an error.
func (t *Task) judge(e *Error) (v verdict) {
	p := t.config.Errors.policy(e)
	if tries, ok := t.tries(); ok && tries < p.Retries {
		return verdict{retry: true, wait: p.wait(tries)}
	}
	v.action = p.Action
	_, panicked := errors.AsType[*flow.Panic](e.Err)
	switch ours, called := t.ctx.Input > 0, t.calls.failed != nil; {
	case !ours && panicked && !called && (t.hand != nil || t.doing == flushing || t.doing == advancing):
		// What was held back would panic again with the next record, and each would be skipped. What an operator has not given on yet
		// when it is torn out of a flush would be lost.
		v.action = Fail
	case !ours && v.action == Skip:
		v.action = Continue // likewise: what failed is left out alone
	case ours && panicked && !called && v.action == Continue:
		v.action = Skip // what the rest of the chain has seen is not known
	}
	if p.DeadLetter == "" || v.action == Fail {
		return v
	}
	topic, err := t.config.Topics(p.DeadLetter)
	switch {
	case err != nil:
		return verdict{err: fmt.Errorf("%w; and its dead-letter topic: %w", e.Err, err)}
	case topic == nil:
		return verdict{err: fmt.Errorf("%w; and it cannot be put away, because the dead-letter topic %q does not exist", e.Err, p.DeadLetter)}
	}
	v.letter = t.letter(topic, e)
	return v
}

// trouble is a record that failed and comes again.
type trouble struct {
	tries  int
	at     int64 // not before, wall clock, ms
	skip   bool
	letter *flow.Out // with skip; nil: none
	late   *late     // the same, of a record that was not in memory any more
	read   *flow.In  // a copy, as it was read when it came again
}

// late is a dead letter that is written when its record has come again.
type late struct {
	topic *flow.Topic
	err   *Error
}

// tries is how often what has failed was tried again; false: it cannot be. What is in hand counts, also where that fails which was held
// back of another record.
func (t *Task) tries() (n int, ok bool) {
	switch {
	case t.calls.failed != nil:
		return t.calls.failed.tries, true
	case t.hand == nil:
		return 0, false
	}
	if tr := t.hand.troubles[t.ctx.InHand]; tr != nil {
		return tr.tries, true
	}
	return 0, true
}

func (q *queue) trouble(offset int64) *trouble {
	tr := q.troubles[offset]
	if tr == nil {
		tr = &trouble{}
		if q.troubles == nil {
			q.troubles = map[int64]*trouble{}
		}
		q.troubles[offset] = tr
	}
	return tr
}

// failed deals with the record in hand, whose effects began at mark. nil: it was left out, or is to be tried again; both without
// undoing the epoch.
func (t *Task) failed(q *queue, offset int64, mark int) error {
	c := &t.ctx
	e := t.failure()
	v := t.verdict
	switch {
	case c.Fatal || !v.retry && v.action == Fail:
		return e
	case v.retry:
		tr := q.trouble(offset)
		tr.tries++
		tr.at = c.Now + v.wait
	case c.Wrote:
		tr := q.trouble(offset)
		tr.skip, tr.letter = true, v.letter
	default:
		c.Out.Undo(mark)
		c.Err = nil
		t.post(v.letter)
		t.stats.Skipped++
		return nil
	}
	if c.Wrote {
		e.Undo = true
		return e
	}
	c.Out.Undo(mark)
	c.Err = nil
	return nil
}
