package task

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/moldau/moldau/topology"
)

// Errors says what becomes of records that fail. The zero value stops the application at the first.
type Errors struct {
	// Decoding is for records that a serde cannot read (deserialization.exception.handler).
	Decoding ErrorPolicy
	// Processing is for records on which a function fails or panics, and for timers (processing.exception.handler).
	Processing ErrorPolicy
	// Production is for records that cannot be written to a topic of a sink or to a repartition topic (production.exception.handler):
	// they cannot be encoded, are too large, have no topic; or the broker refuses them, for their size, their time, a missing key, or a rule
	// of the cluster's (MESSAGE_TOO_LARGE, RECORD_LIST_TOO_LARGE, INVALID_TIMESTAMP, INVALID_RECORD, POLICY_VIOLATION). Of a batch that is
	// refused the records at fault are found, and the others written. A changelog or dead-letter topic that refuses a record, a topic that
	// is deleted, and one that may not be written stop the application.
	Production ErrorPolicy
	// Except, if not nil, may choose another policy for one error, by its source topic, operator, sink or cause; p is the one
	// of its kind. It is called on the task's goroutine and must not block.
	Except func(e *Error, p ErrorPolicy) ErrorPolicy
	// DeadLetters are the dead-letter topics that nothing but Except names: like the others they must exist when the application
	// starts, or are created on the bundled broker.
	DeadLetters []string
}

// Action is what an error policy does in the end.
type Action int

const (
	// Fail stops the application. What came before the record's epoch is committed, the rest is done again by the next run.
	Fail Action = iota
	// Skip leaves the record out: nothing that it did remains. If it has written to a store, or the broker has refused a result of it,
	// its epoch is undone and computed again without it; without transactions, what it had written to topics stays. Of a timer,
	// of results emitted at the commit, and of what a window, a join or a suppression had held back, which are no record's alone, only what
	// failed is left out.
	Skip
	// Continue leaves out what the operator that failed would have given on, or, of a sink, the one record that cannot be
	// written. What the record did elsewhere stands: results of other branches, and writes to stores. It is what Kafka Streams'
	// LogAndContinue handlers do. A record on which a function panics is skipped; a panic on what had been held back, or on results emitted
	// at the commit, stops the application, whatever the policy: it would come again with every record.
	Continue
)

func (a Action) String() string {
	switch a {
	case Fail:
		return "fail"
	case Skip:
		return "skip"
	case Continue:
		return "continue"
	}
	return fmt.Sprintf("Action(%d)", int(a))
}

// ErrorPolicy is what becomes of one kind of error: it is tried again, then Action follows.
type ErrorPolicy struct {
	Action Action
	// DeadLetter is a topic to which the record is written as it was read, key, value and headers, and with further headers
	// __streams.errors.exception, .message, .stacktrace, .topic, .partition and .offset (errors.dead.letter.queue.topic.name,
	// KIP-1034); in the transaction that leaves it out. For what is no record's alone key and value are null. The topic must exist on a
	// cluster. Not with Fail.
	DeadLetter string
	// Retries is how often a record is tried again before Action; its task waits with it. Timers and results emitted at the
	// commit are not. A call of MapAsync is made again alone, whatever it comes from, and its task goes on meanwhile.
	Retries int
	// Backoff is the time before the first retry; it doubles with each, up to MaxBackoff. 0: 100 ms, and 10 s.
	Backoff, MaxBackoff time.Duration
}

// policy is the one for an error.
func (p *Errors) policy(e *Error) ErrorPolicy {
	var of ErrorPolicy
	switch e.Kind {
	case Decoding:
		of = p.Decoding
	case Production:
		of = p.Production
	default:
		of = p.Processing
	}
	if p.Except != nil {
		of = p.Except(e, of)
	}
	return of
}

// wait is how long to wait before another try, ms.
func (p ErrorPolicy) wait(tries int) int64 {
	wait, most := p.Backoff.Milliseconds(), p.MaxBackoff.Milliseconds()
	if wait <= 0 {
		wait = 100
	}
	if most <= 0 {
		most = max(10_000, wait)
	}
	for ; tries > 0 && wait < most; tries-- {
		wait *= 2
	}
	return min(wait, most)
}

// Topics are the dead-letter topics that are named, each once.
func (p Errors) Topics() (names []string) {
	for _, name := range append([]string{p.Decoding.DeadLetter, p.Processing.DeadLetter, p.Production.DeadLetter}, p.DeadLetters...) {
		if name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// Validate reports every mistake at once.
func (p Errors) Validate() error {
	errs := []error{p.Decoding.validate("Decoding"), p.Processing.validate("Processing"), p.Production.validate("Production")}
	for i, name := range p.DeadLetters {
		if err := topology.CheckName(name); err != nil {
			errs = append(errs, fmt.Errorf("DeadLetters[%d] %q: %w", i, name, err))
		}
	}
	return errors.Join(errs...)
}

func (p ErrorPolicy) validate(name string) error {
	var wrong []string
	if p.Action < Fail || p.Action > Continue {
		wrong = append(wrong, fmt.Sprintf("unknown Action %d; use Fail, Skip or Continue", int(p.Action)))
	}
	if p.DeadLetter != "" {
		if err := topology.CheckName(p.DeadLetter); err != nil {
			wrong = append(wrong, fmt.Sprintf("DeadLetter %q: %v", p.DeadLetter, err))
		}
		if p.Action == Fail {
			wrong = append(wrong, fmt.Sprintf("DeadLetter is %q, but Action is Fail: nothing of a record that stops the application is committed; use Skip", p.DeadLetter))
		}
	}
	if p.Retries < 0 || p.Backoff < 0 || p.MaxBackoff < 0 {
		wrong = append(wrong, "Retries, Backoff and MaxBackoff cannot be negative")
	}
	if len(wrong) == 0 {
		return nil
	}
	return errors.New(name + ": " + strings.Join(wrong, "; "))
}
