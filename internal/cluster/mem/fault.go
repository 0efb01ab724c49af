package mem

import "github.com/moldau/moldau/internal/flow"

// Faults decide what goes wrong. They are called with the cluster locked: they must not call it. A nil function lets
// everything pass.
type Faults struct {
	// Produce refuses a record for good.
	Produce func(producer string, o flow.Out) error
	// CommitOffsets fails the adding of offsets to a transaction; nothing of it takes place.
	CommitOffsets func(producer string) error
	// End decides how the end of a transaction goes.
	End func(producer string, commit bool) EndFault
	// Commit fails a plain commit of offsets; nothing of it takes place.
	Commit func(group string) error
	// Init fails the initialisation of a producer.
	Init func(producer string) error
}

// EndFault is how the end of a transaction goes.
type EndFault int

const (
	// Ended: as asked for.
	Ended EndFault = iota
	// LostBefore: the request does not arrive; the transaction stays open. The producer sees ErrUnknown.
	LostBefore
	// LostAfter: the answer does not arrive; the transaction is ended. The producer sees ErrUnknown.
	LostAfter
	// Refused: the cluster aborts instead. The producer sees ErrAborted.
	Refused
)

// HoldAcks holds back acknowledgements from now on, or with false stops doing so and delivers those held back.
func (l *Log) HoldAcks(hold bool) {
	l.mu.Lock()
	l.holdAcks = hold
	var due []func()
	if !hold {
		due, l.acks = l.acks, nil
	}
	l.mu.Unlock()
	for _, ack := range due {
		ack()
	}
}

// Ack delivers the oldest acknowledgement held back and tells whether there was one.
func (l *Log) Ack() bool {
	l.mu.Lock()
	if len(l.acks) == 0 {
		l.mu.Unlock()
		return false
	}
	ack := l.acks[0]
	l.acks = l.acks[1:]
	l.mu.Unlock()
	ack()
	return true
}

// HoldMarkers holds back the markers of transactions that end from now on: End answers, but readers and committed
// offsets stay as they were. With false it stops doing so and writes them.
func (l *Log) HoldMarkers(hold bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holdMarkers = hold
	if !hold {
		l.writeMarkers(func(*txn) bool { return true })
	}
}

// TimeOut lets the cluster abort the open transaction of a producer that took too long.
func (l *Log) TimeOut(transactionalID string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if w := l.writers[transactionalID]; w != nil && w.open != nil {
		l.end(w.open, false)
		w.open = nil
		w.epoch++
		w.timedOut = true
	}
}
