package task

import (
	"fmt"
	"strings"
)

// Error is a record, a punctuation or a flush that failed, and where.
type Error struct {
	Task      ID
	Doing     string // "processing", "punctuating", "flushing", "starting"
	Topic     string // "" where there is no record
	Partition int32
	Offset    int64 // -1 where there is no record
	Time      int64 // of the record or punctuation, ms
	Node      string
	At        string // the author's file:line
	Undo      bool   // see Task.Step
	Err       error
}

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

// Verdict is what an error policy says.
type Verdict int

const (
	// Fail stops the task.
	Fail Verdict = iota
	// Skip leaves the record out: nothing that it did remains. Of a punctuation or a result emitted at the commit, which
	// cannot be told apart from the rest of its epoch, what it did before it failed remains.
	Skip
	// Continue leaves out what the operator that failed would have given on. What the record did elsewhere stands: results of other
	// branches, and writes to stores. It is what Kafka Streams' LogAndContinueProcessingExceptionHandler does.
	Continue
)

// Policy decides about a failure. It is called on the worker's goroutine and must not block.
type Policy func(*Error) Verdict

// failure describes what the context holds.
func (t *Task) failure() *Error {
	c := &t.ctx
	e := &Error{Task: t.id, Doing: t.doing, Topic: c.Topic, Partition: t.config.Partition, Offset: c.Offset, Time: c.Time, Err: c.Err}
	if n := t.node(c.Failed); n != nil {
		e.Node, e.At = n.Label(), n.At
	}
	return e
}

// pass is flow.Ctx.Pass. It keeps the verdict for whoever sees the error.
func (t *Task) pass(node int, err error) bool {
	c := &t.ctx
	c.Failed, c.Err = node, err
	t.verdict = t.config.Policy(t.failure())
	c.Err = nil
	if t.verdict != Continue {
		return false
	}
	t.stats.Skipped++
	return true
}

// skips says whether the error in the context is one to go on after.
func (t *Task) skips() bool {
	return !t.ctx.Fatal && t.config.Policy != nil && t.verdict != Fail
}

// ask is flow.Ctx.Ask.
func (t *Task) ask() bool {
	if !t.skips() {
		return false
	}
	t.ctx.Err = nil
	t.stats.Skipped++
	return true
}
