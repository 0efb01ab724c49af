// Package commit is the commit protocol, in one place, as a step machine.
//
// A Machine belongs to one worker: one producer and the tasks that commit together. It is told what happened (time
// passed, records were stepped, an answer came, partitions are to be given up) and says what to do next (seal, produce,
// commit offsets, end the transaction, take an epoch back). It holds no client, no clock and no goroutine, so a crash, a
// refusal or a lost answer is a line in a text file.
//
// Epochs overlap by one: while epoch n is being committed n+1 may be computed. Whatever n+1 wants produced is held back
// until the fate of n is known, because a transactional id has one open transaction.
//
// It refuses to know records, stores and user functions, and it decides nothing about errors of user code.
package commit

import (
	"errors"

	"github.com/moldau/moldau/internal/cluster"
)

// Task names a task of the worker, as in "0_3".
type Task = string

// Part is what one task brings into a commit: its input partitions' positions. A task takes part in an epoch if it did
// anything in it; then it names at least one partition, moved or not, to carry its commit sequence.
type Part struct {
	Task      Task
	Positions map[cluster.TP]cluster.Offset
}

// Config are a Machine's settings.
type Config struct {
	// Transactional is exactly once; otherwise at least once, which is the same path without the transaction.
	Transactional bool
	// Interval is the least time between two seals while there is work, ms.
	Interval int64
	// GiveUp is how long the commit of offsets in an open transaction is tried again before it is aborted, ms. It must lie
	// below the transaction timeout.
	GiveUp int64
	// Writer marks this process in committed metadata, so that another owner's commit of the same number is not taken
	// for ours. It differs from process to process.
	Writer int64
}

// Kind says what an Action asks for.
type Kind int

const (
	// Seal: flush and seal every task that worked in Epoch; answer with Sealed, or Reject. Epoch+1 begins.
	Seal Kind = iota
	// Begin starts a transaction. It has no answer.
	Begin
	// Produce hands all effects of Epoch collected and not yet handed over to the producer, in one call; answer with Acked.
	Produce
	// CommitOffsets adds Offsets to the open transaction; answered.
	CommitOffsets
	// CommitPlain commits Offsets outside a transaction; answered.
	CommitPlain
	// End commits the transaction; answered.
	End
	// Abort drops what is queued in the producer and, if Transaction, aborts; answered.
	Abort
	// Init initialises the transactional id again; answered.
	Init
	// Compare asks for the committed sequences of Tasks; answer with Compared.
	Compare
	// Done: Epoch is committed; Tasks took part.
	Done
	// Undo takes back Epoch and later for all tasks; their effects are dropped, their input is read again.
	Undo
	// Release: Tasks are no longer the worker's; nothing of them is in doubt.
	Release
	// Rebuild: somebody else has committed for Tasks. What the worker holds of them is worthless; if they are still
	// its own they start anew.
	Rebuild
	// Fail: the worker must stop, because of Err. What was not committed has been undone.
	Fail
	// Stopped: everything is committed or undone after Stop.
	Stopped
)

var kindNames = [...]string{"seal", "begin", "produce", "commit-offsets", "commit-plain", "end", "abort", "init",
	"compare", "done", "undo", "release", "rebuild", "fail", "stopped"}

func (k Kind) String() string { return kindNames[k] }

// Action is one thing to do. Actions are carried out in order. Of the answered ones at most one is under way at a time.
type Action struct {
	Kind        Kind
	Epoch       uint32
	Tasks       []Task
	Offsets     map[cluster.TP]cluster.Offset
	Transaction bool
	Err         error
}

// ErrForeignCommit: the group's committed offsets are neither those before nor those after our own last commit.
var ErrForeignCommit = errors.New("somebody else commits offsets for this group")

// phase is what the machine waits for.
type phase int

const (
	running   phase = iota // nothing sealed is under way
	sealing                // Seal was asked for; the caller answers at once
	flushing               // the sealed epoch's records are being acknowledged
	offsets                // the offsets are being added to the transaction
	ending                 // the transaction is being committed
	plain                  // the offsets are being committed outside a transaction
	aborting               // what is open is being aborted
	initing                // the transactional id is being initialised, certain that nothing was committed
	settling               // the same, after a commit whose outcome is unknown
	comparing              // committed sequences are being read
	failed                 // for good
	stopped                // for good
)

var phaseNames = [...]string{"running", "sealing", "flushing", "offsets", "ending", "plain", "aborting", "initialising", "settling",
	"comparing", "failed", "stopped"}

func (p phase) String() string { return phaseNames[p] }

// epoch is one epoch that is not yet committed or undone.
type epoch struct {
	number   uint32
	worked   bool // a task did something
	hurry    bool // commit as soon as possible
	begun    bool // a transaction is open for it
	held     bool // there are effects that wait for the transaction before it
	produced bool // records have been handed to the producer
	awaiting int  // produce calls not yet acknowledged
	parts    []Part
	offsets  map[cluster.TP]cluster.Offset
}

// sequences are what the machine remembers of a task.
type sequences struct {
	committed int64 // sequence of its last commit that is known to have succeeded
	issued    int64 // sequence last given to a commit; never used twice, so that a late answer cannot deceive
}

// leaving is a task that is to be released once epoch after has been committed or undone.
type leaving struct {
	task  Task
	after uint32
	lost  bool
}

// backoff is how long to wait before the n-th attempt in a row after the first, ms.
func backoff(n int) int64 {
	if n > 8 {
		n = 8
	}
	return min(int64(10)<<n, 1000)
}

// fatal reports whether trying again cannot help.
func fatal(err error) bool {
	return errors.Is(err, cluster.ErrTooLarge) || errors.Is(err, cluster.ErrUnauthorized) || errors.Is(err, cluster.ErrMissingTopic) ||
		errors.Is(err, cluster.ErrMetadata)
}
