// Package worker runs an application's tasks in one process: it joins the group, opens and restores tasks, steps them,
// produces what they emit, commits, and lets them go again. It is the edge at which the effects of the pure packages (task,
// commit, assign, restore) happen, and the only one of them with goroutines and a clock.
//
//	poller   one goroutine: the group member. Hands batches to workers and carries out their seeks.
//	keeper   one goroutine: opens tasks, restores their stores and keeps global tables up to date.
//	worker   one goroutine each: steps its tasks. It has a producer, and a courier that asks the cluster meanwhile.
//	warden   one goroutine: ends of partitions, purge of repartition topics, a look at the topics now and then.
//
// They talk through mailboxes of functions; nothing of a task is touched by two of them at a time.
//
// It refuses to know K and V, HTTP, and how a cluster is reached.
package worker

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/moldau/moldau/internal/cluster"
	"github.com/moldau/moldau/internal/task"
	"github.com/moldau/moldau/internal/tier"
	"github.com/moldau/moldau/topology"
)

// Config is all that a Node needs to know. Fields without a default must be set.
type Config struct {
	App      string
	Topology *topology.Topology
	Cluster  cluster.Cluster
	State    State
	Identity *Identity

	// Bundled: the cluster is the bundled broker, whose topics are made from the handles.
	Bundled bool
	// Transactional is exactly once; otherwise at least once.
	Transactional bool
	// CommitInterval is the time between commits. TransactionTimeout is when the broker gives up on a transaction.
	CommitInterval, TransactionTimeout time.Duration
	// Workers is the most goroutines that step tasks.
	Workers int
	// Memory is the budget for everything that tasks hold, in bytes.
	Memory int64
	// MaxIdle is task.Config.MaxIdle.
	MaxIdle time.Duration
	// Reset is where reading starts if neither a commit nor the topic's handle says; topology.ResetDefault: the log start.
	Reset topology.Reset
	// Errors says what becomes of records that fail.
	Errors task.Errors
	// Uncaught decides about errors that no policy has dealt with, where they happen; it must not block. nil: StopClient.
	Uncaught func(error) Response
	// Replication of internal topics; 0: the broker's default.
	Replication int16
	// TopicConfig holds extra settings of internal topics.
	TopicConfig map[string]string
	// AcceptTopology goes on where the topology has changed in a way that is not safe.
	AcceptTopology bool
	// Advertise is where other processes reach this one.
	Advertise string
	// SessionTimeout is after how long the group gives up a process it does not hear of; 0: the cluster package's default.
	SessionTimeout time.Duration
	// StopTimeout bounds a clean stop.
	StopTimeout time.Duration
	// PurgeInterval is the time between purges of repartition topics, WatchInterval between looks at the source topics, MetadataMaxAge
	// between looks for new ones that match a pattern.
	PurgeInterval, WatchInterval, MetadataMaxAge time.Duration

	// Event is told what happens, on the goroutine where it does; it must not block. nil: nobody is.
	Event   func(Event)
	Metrics *Metrics
	Logger  *slog.Logger
	Now     func() time.Time
}

// State is where the state of tasks lies on this machine. Names are those of tasks, and of global tables.
type State interface {
	Open(name string) (tier.DB, error)
	Remove(name string) error
}

// What stops a Node; test with errors.Is.
var (
	// ErrTopics: the topics are not what the application needs.
	ErrTopics = errors.New("the cluster's topics do not fit the application")
	// ErrOffsets: records that were never processed are gone.
	ErrOffsets = errors.New("the committed position is not in the log")
	// ErrNotHere: the task is another process's, or nobody's just now.
	ErrNotHere = errors.New("not in this process")
	// ErrNoStore: the application has no store of that name.
	ErrNoStore = errors.New("no such store")
	// ErrStopTimeout: a stop took too long; what was not committed will be done again.
	ErrStopTimeout = errors.New("the stop was cut short")
)

// EventKind says what happened.
type EventKind string

const (
	StateChanged    EventKind = "state"            // State
	TaskAssigned    EventKind = "task-assigned"    // Task
	TaskRunning     EventKind = "task-running"     // Task
	TaskReleased    EventKind = "task-released"    // Task
	RestoreStarted  EventKind = "restore-started"  // Task, Store, Topic, Partition, From, To
	RestoreProgress EventKind = "restore-progress" // the same, At, Records
	RestoreEnded    EventKind = "restore-ended"    // the same
	StoreRebuilt    EventKind = "store-rebuilt"    // Task, Store, Reason: what was on disk is not used any more
	EpochUndone     EventKind = "epoch-undone"     // Worker, Reason
)

// Event is something that happened to the application.
type Event struct {
	Kind      EventKind
	State     string
	Task      string
	Store     string
	Topic     string
	Partition int32
	From, To  int64 // changelog offsets
	At        int64
	Records   int64
	Worker    int
	Reason    string
}

// States of a Node.
const (
	Created  = "created"
	Starting = "starting" // topics, identity, global tables
	Joining  = "joining"  // the group
	Running  = "running"
	Stopping = "stopping"
	Stopped  = "stopped"
)

// transient reports whether an error of the cluster may pass by itself.
func transient(err error) bool {
	for _, e := range []error{cluster.ErrFenced, cluster.ErrUnauthorized, cluster.ErrMissingTopic, cluster.ErrTooLarge, cluster.ErrOutOfRange,
		ErrTopics, ErrTopology, ErrStopApplication, ErrOffsets, tier.ErrLocked, tier.ErrFormat, tier.ErrDamaged, errPermanent} {
		if errors.Is(err, e) {
			return false
		}
	}
	return true
}

var errPermanent = errors.New("will not pass by itself")

// permanent marks an error that trying again does not help.
type permanent struct{ error }

func (p permanent) Unwrap() []error { return []error{p.error, errPermanent} }

// sleep waits, at most until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
