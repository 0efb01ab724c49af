// Package flow is the seam between the typed language and the untyped runtime: what a record carries through a chain of
// operators, what a step wants done, and what a store and a source look like without their types.
//
// Nothing above it knows a queue, a transaction or a client; nothing below it knows K and V. It computes nothing itself.
package flow

import (
	"context"
	"errors"
	"time"
)

// Header is one record header. A nil Value is Kafka's null.
type Header struct {
	Key   string
	Value []byte
}

// In is one record of an input partition. A nil Key or Value is Kafka's null. Key, Value and Headers may alias a buffer
// of the client: they are valid until the record has been stepped, and whoever keeps them copies them.
type In struct {
	Offset  int64
	Time    int64 // ms since the epoch
	Key     []byte
	Value   []byte
	Headers []Header
}

// Ctx travels with a record through a chain of functions. A task has one and reuses it. An operator that changes a
// field restores it before it returns to its parent, so that siblings see the record as it came.
type Ctx struct {
	Time    int64 // of the record, ms
	Headers []Header
	KeyNull bool // the key is Kafka's null; the typed key is zero
	Null    bool // the value is Kafka's null; the typed value is zero

	Topic     string // where the record came from; "" in a punctuator
	Partition int32
	Offset    int64 // -1 in a punctuator

	// Input and InHand are the record whose results these are, for the case that the broker refuses one: the task's input, counted
	// from 1, and the offset of what the task has in hand. Input is 0 for what is no record's alone, such as what an operator gives on that
	// it held back.
	Input  int16
	InHand int64

	StreamTime int64 // of the task: the greatest time it has taken up, ms; -1 before the first record
	Now        int64 // wall clock of this step, ms; taken once a step

	Out *Effects

	// Err is the first error of a user function or store, Failed the ID of the node it happened in. Once Err is set every
	// operator returns at once; the task asks the error policy.
	Err    error
	Failed int
	Fatal  bool // the error policy is not asked: it is not the record's fault
	// Node is the operator whose user function was called last, which is where a panic happened. Operators set it before
	// they call one, and again when they are back from their children in the midst of one.
	Node int

	// Wrote is set by whoever writes a store, so that a record that fails afterwards is not skipped by leaving out its
	// effects alone.
	Wrote bool
	// Pass, if not nil, asks the error policy as soon as an operator fails. If it says true, the operator leaves out
	// what it had in hand, and the rest of the chain goes on.
	Pass func(node int, err error) bool
}

// Fail records the first error of a chain. The operator that fails returns at once.
func (c *Ctx) Fail(node int, err error) {
	if c.Err == nil && (c.Pass == nil || !c.Pass(node, err)) {
		c.Err, c.Failed = err, node
	}
}

// Miss is Fail for a function that was called to look something up: whoever looks it up asks the policy, with Missed.
func (c *Ctx) Miss(node int, err error) {
	if c.Err == nil {
		c.Err, c.Failed = err, node
	}
}

// Missed says whether a lookup has failed. The operator that looked up then returns at once: if the policy passes over the error, it
// leaves out what it had in hand.
func (c *Ctx) Missed() bool {
	err := c.Err
	if err != nil && !c.Fatal {
		c.Err = nil
		c.Fail(c.Failed, err)
	}
	return err != nil
}

// ErrLater is a failure of the cluster that may pass: what was computed since the last commit is taken back and computed again.
var ErrLater = errors.New("it will be tried again")

// Break is Fail for what is not the record's fault, such as a store that cannot be read: no policy may pass over it.
func (c *Ctx) Break(node int, err error) {
	if c.Err == nil {
		c.Err, c.Failed, c.Fatal = err, node, true
	}
}

// Source feeds one record, as bytes, into a chain. It reports an undecodable record as a *DecodeError in c.Err.
type Source func(c *Ctx, key, value []byte)

// DecodeError is an input record that its serde could not read. Part is "key" or "value".
type DecodeError struct {
	Part string
	Err  error
}

func (e *DecodeError) Error() string { return "decoding the " + e.Part + ": " + e.Err.Error() }
func (e *DecodeError) Unwrap() error { return e.Err }

// WriteError is a record that could not be written to a topic.
type WriteError struct {
	Topic string
	Err   error
}

func (e *WriteError) Error() string { return "writing to topic " + e.Topic + ": " + e.Err.Error() }
func (e *WriteError) Unwrap() error { return e.Err }

// Call is one call of a user function that is made beside the task, while that goes on.
type Call struct {
	// Lane, if not 0: calls of one lane are made one after another.
	Lane uint64
	// Run calls the function, on another goroutine. ctx ends after the timeout, and when nobody wants the result any more.
	Run func(ctx context.Context) error
	// Land gives the result on, within the task; the context is as it was when the call was asked for. It is not called after
	// an error of Run.
	Land func(c *Ctx)
}

// Flusher is an operator or store that holds results back until the commit. The task calls Flush in topological order
// before it seals.
type Flusher interface{ Flush(c *Ctx) }

// Env is what wiring a node may ask of its task, once per task, never per record.
type Env interface {
	// Store is the task's store of that name, or the shared one of a global table.
	Store(name string) Store
	// Topic resolves a topic of the topology that the task writes to: its real name and number of partitions.
	Topic(name string) *Topic
	// Lookup resolves a topic that a record has chosen; nil: there is none. An error is the cluster's, not the record's.
	Lookup(name string) (*Topic, error)
	// Partition is the task's.
	Partition() int32
	// Every asks for a punctuator. In stream time the first call comes with the first record; in wall-clock time
	// after one interval. Missed calls are not made up for: the next one is on the original grid.
	Every(node int, interval int64, streamTime bool, f func(c *Ctx, at int64)) (stop func())
	// Idle registers an operator that goes by stream time, for when that moves on without a record: move then takes c.StreamTime over and
	// does what has become due. due is the earliest stream time at which there will be something to do, negative if that is known after the next move only; ok=false:
	// there is nothing.
	// Parents are moved before children.
	Idle(node int, due func() (at int64, ok bool, err error), move func(c *Ctx))
	// Cell is a number that belongs to the state of a node: Undo takes it back. It starts at -1. With keep it is committed
	// along with the offsets under its name and found again after a restart, as Kafka Streams does with the last emit
	// time of a window store; the name must then be unique in the task.
	Cell(name string, keep bool) *int64
	// Flush registers an operator that holds results back until the commit.
	Flush(node int, f Flusher)
	// Close has f called when the task ends.
	Close(f func() error)
	// Calls is for an operator whose function takes long: it gives a function that asks for a Call. Calls of the operator are made
	// beside the task, at most limit of them at once, and land in the order in which they were asked for; the commit waits
	// for all of them.
	Calls(node int, limit int, timeout time.Duration) func(c *Ctx, call Call)
	// RequestCommit asks for a commit after the record in hand.
	RequestCommit()
	// Dropped counts a record that an operator had to leave out, by reason (a metric label).
	Dropped(node int, reason string)
}
