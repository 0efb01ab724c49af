package histories

import "fmt"

// TP names a partition.
type TP struct {
	Topic     string
	Partition int32
}

func (tp TP) String() string { return fmt.Sprintf("%s-%d", tp.Topic, tp.Partition) }

// Value is what a record says; no two records of a history that were sent say the same. 0 is none.
type Value uint64

// Outcome is what a client knows of a transaction's end.
type Outcome uint8

const (
	// Unknown is a transaction whose commit was asked for and not answered.
	Unknown Outcome = iota
	// Committed is one whose commit was acknowledged.
	Committed
	// Aborted is one whose commit was never asked for, or refused for certain.
	Aborted
)

func (o Outcome) String() string { return [...]string{"unknown", "committed", "aborted"}[o] }

// Op is a transaction, or some records sent outside of one. Times are nanoseconds of one clock that all clients share.
type Op struct {
	// Client is who did it: an instance of a producer, which sends in order.
	Client string
	Txn    bool
	Begin  int64
	// Asked is when the commit was asked for; 0: never.
	Asked int64
	End   int64
	// Outcome is a transaction's. A record outside of one was written for certain if it has an offset.
	Outcome Outcome
	// Writes are in the order they were sent in.
	Writes []Write
	// Reads are the records read while the transaction was open.
	Reads []Read
	// Group and Offsets are what was committed with the transaction: where the group goes on.
	Group   string            `json:",omitempty"`
	Offsets []PartitionOffset `json:",omitempty"`
}

// Write is a record that was sent.
type Write struct {
	Value Value
	At    TP
	// Offset is what the broker acknowledged; -1: nothing.
	Offset int64
	// From is the record it was made of, by a group that copies; 0: none.
	From Value `json:",omitempty"`
}

// Read is a record that was read.
type Read struct {
	Value  Value
	At     TP
	Offset int64
}

// PartitionOffset is an offset in a partition.
type PartitionOffset struct {
	At     TP
	Offset int64
}

// Poll is what a consumer was given at once.
type Poll struct {
	// Session is a consumer between two changes of what it is assigned: within it a partition is read without a gap.
	Session    string
	Committed  bool // read_committed
	Begin, End int64
	Reads      []Read
}

// Ends is what the broker said of a partition: its first offset, the last stable one and the high watermark.
type Ends struct {
	At                  TP
	Begin, End          int64
	Start, Stable, High int64
}

// Position is what the broker said of a group's committed offset, pending ones waited for; -1: it has none.
type Position struct {
	Group      string
	At         TP
	Begin, End int64
	Offset     int64
}

// History is what all clients saw. At its end everything is quiet, no transaction is open, and all partitions are read
// once more from their start to their end.
type History struct {
	Ops       []Op
	Polls     []Poll
	Ends      []Ends
	Positions []Position
	// Closing is where the partitions end when all is quiet.
	Closing []Ends
	// Final and FinalAll are what is there then, as read_committed and as read_uncommitted, by partition and offset.
	Final, FinalAll []Read
	// Unfinished says that the end was not reached: Closing, Final and FinalAll are empty, and nothing is judged by what is
	// there then.
	Unfinished bool
	// PowerLoss says that the power failed on the way: what was never part of a committed transaction, or not yet
	// acknowledged, may have been read and be gone.
	PowerLoss bool
}

// Kind is a kind of anomaly.
type Kind string

const (
	// LostWrite is an acknowledged record, or one that was read as committed, that is not there at the end (lost-write).
	LostWrite Kind = "lost write"
	// Unseen is LostWrite of a record behind everything that is there (unseen).
	Unseen Kind = "unseen"
	// Duplicate is a record at two places (duplicate).
	Duplicate Kind = "duplicate"
	// InconsistentOffsets is a place with two records (inconsistent-offsets).
	InconsistentOffsets Kind = "inconsistent offsets"
	// PhantomRead is a record that nobody sent there.
	PhantomRead Kind = "phantom read"
	// AbortedRead is a record of an aborted transaction, read as committed (G1a).
	AbortedRead Kind = "aborted read"
	// UncommittedRead is a record of a transaction, read as committed before its commit was asked for; by the
	// transaction itself too (precommitted-read).
	UncommittedRead Kind = "uncommitted read"
	// TornTransaction is a transaction of which some records are there and others not.
	TornTransaction Kind = "torn transaction"
	// Circular is a ring of transactions that each read from the one before (G1c).
	Circular Kind = "circular information flow"
	// Reordered is a later record of a client before an earlier one (nonmonotonic-send, int-nonmonotonic-send).
	Reordered Kind = "reordered"
	// NonmonotonicPoll is a consumer that is taken back (nonmonotonic-poll, int-nonmonotonic-poll).
	NonmonotonicPoll Kind = "nonmonotonic poll"
	// PollSkip is a consumer that is not given a record which lies between two it is given (poll-skip, int-poll-skip).
	PollSkip Kind = "poll skip"
	// EndsWentBack is a last stable offset or high watermark that is below what was told, or read, before, or a last
	// stable offset above the high watermark.
	EndsWentBack Kind = "ends went back"
	// HungTransaction is a partition whose last stable offset stays behind though no transaction is open.
	HungTransaction Kind = "hung transaction"
	// LostCommit is a group's offset below one that was committed before.
	LostCommit Kind = "lost offset commit"
	// PhantomCommit is a group's offset that nobody committed, or whose transaction was aborted or not yet to be
	// committed.
	PhantomCommit Kind = "phantom offset commit"
	// ProcessedTwice is a record from which a group has made two.
	ProcessedTwice Kind = "processed twice"
	// Unprocessed is a record below a group's offset from which it has made none.
	Unprocessed Kind = "unprocessed"
)

// Anomaly is one thing that cannot have been.
type Anomaly struct {
	Kind   Kind
	Detail string
}

func (a Anomaly) String() string { return string(a.Kind) + ": " + a.Detail }
