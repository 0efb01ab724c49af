// Package cluster is the seam to the log: what the runtime asks of a Kafka cluster, and nothing more. Package
// cluster/franz implements it with franz-go, package cluster/mem in memory for tests and simulation.
//
// It holds types and no behaviour: no retries, no policy. Those belong to commit and worker.
package cluster

import (
	"context"

	"github.com/moldau/moldau/internal/assign"
	"github.com/moldau/moldau/internal/flow"
)

// TP is one partition of a topic.
type TP struct {
	Topic     string
	Partition int32
}

// Offset is a committed position: the next offset to read, and the metadata that travels with it.
type Offset struct {
	At       int64
	Metadata string
}

// Batch is a run of records of one partition, in offset order. Next is the offset to go on from: past transaction
// markers and compacted records, so it may be beyond the last record. Release gives its memory back; after that no
// byte of it may be touched.
type Batch struct {
	TP
	Records []flow.In
	Next    int64
	Release func()
}

// Admin creates and describes topics.
type Admin interface {
	// Describe returns the topics that exist, by name; missing ones are absent.
	Describe(ctx context.Context, topics ...string) (map[string]TopicInfo, error)
	// List names all topics but the cluster's own.
	List(ctx context.Context) ([]string, error)
	// Create makes the topics that are missing; one that exists is no error.
	Create(ctx context.Context, topics ...TopicSpec) error
	// Ends returns the end offset of each partition: the last stable offset if committed, else the high watermark. What a
	// transaction has just committed may still lie between the two; who must not miss it reads up to the latter.
	Ends(ctx context.Context, committed bool, tps ...TP) (map[TP]int64, error)
	// Starts returns the log start offset of each partition.
	Starts(ctx context.Context, tps ...TP) (map[TP]int64, error)
	// DeleteRecords deletes everything below the offsets.
	DeleteRecords(ctx context.Context, below map[TP]int64) error
	// Committed returns the group's committed offsets; it waits until none is pending in a transaction. Partitions
	// without one are absent.
	Committed(ctx context.Context, group string, tps ...TP) (map[TP]Offset, error)
	// ClearWriters makes sure that no open transaction of another, dead producer holds up the partitions: it finds
	// transactions still open there whose ids are ours and fences them.
	ClearWriters(ctx context.Context, ours func(transactionalID string) bool, tps ...TP) error
	// EndTransactions fences every producer that has a transaction open and whose id is dead: that of a process that is no
	// more, whose transactions hold back committed offsets too.
	EndTransactions(ctx context.Context, dead func(transactionalID string) bool) error
}

// TopicInfo describes a topic that exists.
type TopicInfo struct {
	ID         [16]byte // zero where the cluster has no topic ids
	Partitions int32
	Config     map[string]string // what was asked for by the broker; nil if not permitted
	MaxRecord  int               // the largest record that can be written: bytes of key, value and headers; 0: not known
}

// TopicSpec is a topic to create.
type TopicSpec struct {
	Name        string
	Partitions  int32
	Replication int16 // -1: the broker's default
	Config      map[string]string
}

// Member is this process in its consumer group. One goroutine calls Poll; Pause, Resume and Commit may be called from others.
type Member interface {
	// Poll waits for records or an event, at most until ctx ends. Events come in order and before any record that they concern.
	// A Revoke event must be answered by Released once its tasks are committed or undone; until then the group waits. So must
	// a Lost event once they are undone; until then the member does not join again. No event comes before the answer.
	Poll(ctx context.Context) (Fetched, error)
	Released()
	// Seek sets where each partition is read from; a newly assigned partition delivers nothing before its first Seek.
	Seek(offsets map[TP]int64)
	// Pause stops fetching partitions, Resume starts them again. Data already on the way still arrives.
	Pause(tps ...TP)
	Resume(tps ...TP)
	// Position is the offset that will be polled next, once the partition has been sought.
	Position(tp TP) (int64, bool)
	// Subscribe replaces what there is to run, which may differ from before in Matched topics only; the group is shared out anew.
	Subscribe(subs []assign.Subtopology)
	// Group is what a transactional offset commit must carry. It stays as it is while a loss has not been answered.
	Group() GroupMetadata
	// Commit commits offsets outside any transaction.
	Commit(ctx context.Context, offsets map[TP]Offset) error
	// Leave says goodbye to the group, so that others need not wait for the session to end.
	Leave(ctx context.Context) error
	Close()
}

// GroupMetadata identifies a member and the generation it believes in.
type GroupMetadata struct {
	Group, Member, Instance string
	Generation              int32
}

// Fetched is what one Poll brought.
type Fetched struct {
	Events  []Event
	Batches []Batch
}

// EventKind is what a rebalance did to this member.
type EventKind int

const (
	// Assigned: the partitions are now ours, in addition to what we had.
	Assigned EventKind = iota
	// Revoke: the partitions go to another member after Released. They may still be committed.
	Revoke
	// Lost: the partitions are gone already, because the group has not heard of this member for a session; nothing of them
	// may be committed.
	Lost
)

// Event is a change of what this member owns. Every rebalance ends with an Assigned event, even if it adds nothing:
// the plan may be new.
type Event struct {
	Kind       EventKind
	Partitions []TP
	// UserData is the plan that the leader sent with the assignment (package assign); nil where there is none.
	UserData []byte
}

// Producer writes records; with a transactional id, in transactions. One goroutine uses it; done functions are called from
// the client's goroutines and must not block.
type Producer interface {
	// Produce queues records in order. done is called once per call, after all of them have been acknowledged or any
	// has failed for good: ends holds, per partition written, the offset after the last record of this call. The slice is not
	// kept; what its records point to is, until done. An error that is a *Refused names the records that the broker does not take;
	// it has all others of the call, those that it had refused in one batch with them too, and each partition's in order.
	Produce(records []flow.Out, done func(ends map[TP]int64, err error))
	// Flush sends what is queued now instead of waiting for batches to fill. It does not wait for the answers.
	Flush()
	// Begin starts a transaction. Without a transactional id it does nothing.
	Begin() error
	// CommitOffsets adds the input positions to the open transaction.
	CommitOffsets(ctx context.Context, group GroupMetadata, offsets map[TP]Offset) error
	// End commits or aborts; to commit there must be a transaction. It returns ErrUnknown if it cannot say whether the commit took place; then Init comes next.
	// After ErrAborted the transaction is gone and Begin may follow. A failed abort may be asked for again. The answer may
	// come before readers see the result: until then the last stable offset, and Committed, hold back.
	End(ctx context.Context, commit bool) error
	// Init fences every earlier producer of this transactional id and aborts what it left open. After ErrUnknown it
	// settles the fate of that transaction: afterwards committed offsets tell which way it went. From the second call on
	// it returns ErrFenced if a newer producer has taken the id over: a zombie cannot take it back.
	Init(ctx context.Context) error
	// Abandon drops everything queued and waits until no done function is outstanding.
	Abandon(ctx context.Context) error
	Close()
}

// Reader reads partitions directly, outside any group: changelogs and global tables. Read_committed.
type Reader interface {
	// Assign replaces what is read: each partition from its offset (-1: the log start). It also puts a partition back
	// that is being read already.
	Assign(from map[TP]int64)
	// Poll waits for batches, at most until ctx ends.
	Poll(ctx context.Context) ([]Batch, error)
	Position(tp TP) (int64, bool)
	Close()
}
