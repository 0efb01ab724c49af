// Package txn holds the state of one transactional id as a step machine: producer id and epoch, the open transaction and
// what belongs to it, for clients of both versions of Kafka's transactions.
//
// A step is given the time, changes the state and returns what its write has to hold. Package broker stores the state, the
// markers and the offsets of a transaction's end as one unit, so the protocol's states between decision and completion
// (PrepareCommit, PrepareAbort) are never seen here, nor are their errors: who asks waits for the write instead.
package txn

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// State is the state of a transactional id.
type State uint8

const (
	Empty State = iota
	Ongoing
	CompleteCommit
	CompleteAbort
	Dead
)

// String returns the state's name in the protocol.
func (s State) String() string {
	return [...]string{"Empty", "Ongoing", "CompleteCommit", "CompleteAbort", "Dead"}[s]
}

const (
	// noEpoch is the epoch of a transactional id no producer has been initialised for.
	noEpoch = -1
	// maxEpoch is the highest epoch a producer is given. The one above it is left for fencing it.
	maxEpoch = 32766
)

// Partition names a partition by its topic's id.
type Partition struct {
	Topic     [16]byte
	Partition int32
}

func comparePartitions(a, b Partition) int {
	return cmp.Or(slices.Compare(a.Topic[:], b.Topic[:]), cmp.Compare(a.Partition, b.Partition))
}

// Producer is a producer id and its epoch.
type Producer struct {
	ID    int64
	Epoch int16
}

// Transaction is the state of one transactional id.
type Transaction struct {
	id         string
	producer   Producer
	previousID int64 // the producer id before the last change, or -1
	lastEpoch  int16 // the epoch before the last change, for recognising a repeated request, or -1
	timeout    time.Duration
	state      State
	start      time.Time // of the open transaction
	updated    time.Time
	partitions map[Partition]struct{}
	groups     map[string]struct{}
}

// New returns the state of a transactional id that no producer has used yet.
func New(id string, producerID int64, now time.Time) *Transaction {
	return &Transaction{
		id: id, producer: Producer{producerID, noEpoch}, previousID: -1, lastEpoch: noEpoch, updated: now,
		partitions: map[Partition]struct{}{}, groups: map[string]struct{}{},
	}
}

// Ending is what the end of a transaction has to write: a marker on each partition and the offsets of each group.
type Ending struct {
	// ProducerID and DataEpoch are those the transaction was written with, MarkerEpoch the one of its markers.
	ProducerID             int64
	DataEpoch, MarkerEpoch int16
	Commit                 bool
	// TV2 says that the markers' epoch is above that of the data.
	TV2        bool
	Partitions []Partition
	Groups     []string
}

// Init begins a new session of a producer: it fences every earlier one and ends its open transaction by abort. expected is
// the producer the client believes to be, nil for one that starts. newID makes producer ids up.
func (t *Transaction) Init(now time.Time, timeout time.Duration, expected *Producer, newID func() int64) (Producer, *Ending, error) {
	if t.state == Dead {
		return Producer{}, nil, kerr.ConcurrentTransactions
	}
	if expected != nil && t.producer.Epoch != noEpoch && expected.ID != t.producer.ID &&
		!(expected.ID == t.previousID && expected.Epoch >= maxEpoch) {
		return Producer{}, nil, kerr.ProducerFenced
	}
	var ending *Ending
	if t.state == Ongoing {
		// Kafka aborts whatever is open here even for a fenced producer. We look first: a zombie must not abort the
		// transaction of its successor.
		if expected != nil && expected.Epoch != t.producer.Epoch {
			return Producer{}, nil, kerr.ProducerFenced
		}
		ending = t.fence(now)
	}
	current := t.producer.Epoch
	switch {
	case current >= maxEpoch && (expected == nil || expected.Epoch == current || expected.Epoch == t.lastEpoch):
		t.previousID = t.producer.ID
		t.lastEpoch = noEpoch
		if expected != nil {
			t.lastEpoch = expected.Epoch
		}
		t.producer = Producer{newID(), 0}
	case expected == nil:
		t.producer.Epoch++
		t.lastEpoch = noEpoch
	case current == noEpoch || expected.Epoch == current && expected.ID == t.producer.ID:
		t.producer.Epoch++
		t.lastEpoch = current
	case expected.Epoch == t.lastEpoch:
		// The answer to this very request was lost.
	default:
		return Producer{}, nil, kerr.ProducerFenced
	}
	t.timeout = timeout
	t.state = Empty
	t.start = time.Time{}
	t.updated = now
	return t.producer, ending, nil
}

// check says whether a request comes from the current producer.
func (t *Transaction) check(p Producer) error {
	switch {
	case t.state == Dead || t.producer.ID != p.ID:
		return kerr.InvalidProducerIDMapping
	case t.producer.Epoch != p.Epoch:
		return kerr.ProducerFenced
	}
	return nil
}

// Add adds partitions and groups to the open transaction, and opens one if there is none. It reports whether the state
// changed and must be stored.
func (t *Transaction) Add(now time.Time, p Producer, partitions []Partition, groups ...string) (changed bool, err error) {
	if err := t.check(p); err != nil {
		return false, err
	}
	if t.state != Ongoing {
		t.state = Ongoing
		t.start = now
		changed = true
	}
	for _, tp := range partitions {
		if _, ok := t.partitions[tp]; !ok {
			t.partitions[tp] = struct{}{}
			changed = true
		}
	}
	for _, g := range groups {
		if _, ok := t.groups[g]; !ok {
			t.groups[g] = struct{}{}
			changed = true
		}
	}
	if changed {
		t.updated = now
	}
	return changed, nil
}

// Verify says whether a producer may write to a partition as part of the open transaction: nil, the error of the producer,
// or kerr.TransactionAbortable where the partition has not been added.
func (t *Transaction) Verify(p Producer, tp Partition) error {
	if err := t.check(p); err != nil {
		return err
	}
	if _, ok := t.partitions[tp]; t.state != Ongoing || !ok {
		return kerr.TransactionAbortable
	}
	return nil
}

// VerifyGroup is Verify for the offsets of a group.
func (t *Transaction) VerifyGroup(p Producer, group string) error {
	if err := t.check(p); err != nil {
		return err
	}
	if _, ok := t.groups[group]; t.state != Ongoing || !ok {
		return kerr.InvalidTxnState
	}
	return nil
}

// Ended is the result of End.
type Ended struct {
	// Producer is what the client goes on with: under version 2 each transaction has an epoch of its own.
	Producer Producer
	// Ending is what to write, nil if the request was answered before and this is a repetition.
	Ending *Ending
}

// End commits or aborts the open transaction. tv2 says that the client speaks version 2 of transactions.
func (t *Transaction) End(now time.Time, p Producer, commit, tv2 bool, newID func() int64) (Ended, error) {
	if tv2 {
		return t.end2(now, p, commit, newID)
	}
	if err := t.check(p); err != nil {
		return Ended{}, err
	}
	switch {
	case t.state == Ongoing:
		return Ended{t.producer, t.finish(now, commit, false)}, nil
	case t.state == complete(commit):
		return Ended{t.producer, nil}, nil
	}
	return Ended{}, kerr.InvalidTxnState
}

func (t *Transaction) end2(now time.Time, p Producer, commit bool, newID func() int64) (Ended, error) {
	completed := t.state == CompleteCommit || t.state == CompleteAbort
	overflowed := completed && p.ID == t.previousID && p.Epoch == maxEpoch && t.producer.Epoch == 0 && p.ID != t.producer.ID
	repeated := overflowed || completed && t.producer.Epoch == p.Epoch+1
	switch {
	case t.state == Dead || t.producer.ID != p.ID && !overflowed:
		return Ended{}, kerr.InvalidProducerIDMapping
	case !repeated && p.Epoch != t.producer.Epoch:
		return Ended{}, kerr.ProducerFenced
	case repeated && t.state == complete(commit):
		return Ended{t.producer, nil}, nil
	case repeated, commit && t.state != Ongoing:
		return Ended{}, kerr.InvalidTxnState
	}
	ending := t.finish(now, commit, true)
	if p.Epoch >= maxEpoch {
		t.previousID, t.lastEpoch = t.producer.ID, p.Epoch
		t.producer = Producer{newID(), 0}
	}
	return Ended{t.producer, ending}, nil
}

func complete(commit bool) State {
	if commit {
		return CompleteCommit
	}
	return CompleteAbort
}

// finish ends the open transaction, if any. Under version 2 the epoch goes up with it, so that what is still on its way
// from the producer can never become part of the next transaction.
func (t *Transaction) finish(now time.Time, commit, tv2 bool) *Ending {
	e := &Ending{
		ProducerID: t.producer.ID, DataEpoch: t.producer.Epoch, MarkerEpoch: t.producer.Epoch, Commit: commit, TV2: tv2,
		Partitions: t.Partitions(), Groups: t.Groups(),
	}
	if tv2 {
		t.lastEpoch = t.producer.Epoch
		t.previousID = t.producer.ID
		t.producer.Epoch++
		e.MarkerEpoch = t.producer.Epoch
	}
	t.state = complete(commit)
	t.updated = now
	clear(t.partitions)
	clear(t.groups)
	return e
}

// fence aborts the open transaction against the will of its producer.
func (t *Transaction) fence(now time.Time) *Ending { return t.finish(now, false, true) }

// Deadline returns when the open transaction times out; zero if none is open.
func (t *Transaction) Deadline() time.Time {
	if t.state != Ongoing {
		return time.Time{}
	}
	return t.start.Add(t.timeout)
}

// Expire aborts the open transaction if it has timed out, and fences its producer. It returns nil otherwise.
func (t *Transaction) Expire(now time.Time) *Ending {
	if d := t.Deadline(); d.IsZero() || d.After(now) {
		return nil
	}
	return t.fence(now)
}

// Fence aborts the open transaction, if any, and fences its producer: part of what it wrote is gone.
func (t *Transaction) Fence(now time.Time) *Ending {
	if t.state != Ongoing {
		return nil
	}
	return t.fence(now)
}

// Forget ends the id's life if it has not been used since before, and reports whether it has.
func (t *Transaction) Forget(before time.Time) bool {
	if t.state == Ongoing || !t.updated.Before(before) {
		return t.state == Dead
	}
	t.state = Dead
	return true
}

// RemovePartition takes a partition out of the open transaction: its topic is deleted.
func (t *Transaction) RemovePartition(tp Partition) bool {
	_, ok := t.partitions[tp]
	delete(t.partitions, tp)
	return ok
}

// ID returns the transactional id.
func (t *Transaction) ID() string { return t.id }

// State returns the state.
func (t *Transaction) State() State { return t.state }

// Producer returns the current producer.
func (t *Transaction) Producer() Producer { return t.producer }

// Timeout returns the transaction timeout the producer asked for.
func (t *Transaction) Timeout() time.Duration { return t.timeout }

// Start returns when the open transaction began; zero if none is open.
func (t *Transaction) Start() time.Time {
	if t.state != Ongoing {
		return time.Time{}
	}
	return t.start
}

// Updated returns when the state last changed.
func (t *Transaction) Updated() time.Time { return t.updated }

// Partitions returns the partitions of the open transaction, in order.
func (t *Transaction) Partitions() []Partition {
	return slices.SortedFunc(maps.Keys(t.partitions), comparePartitions)
}

// Groups returns the groups whose offsets the open transaction commits, in order.
func (t *Transaction) Groups() []string { return slices.Sorted(maps.Keys(t.groups)) }
