package cluster

import (
	"time"

	"github.com/moldau/moldau/internal/assign"
)

// Cluster opens what the runtime needs of a log. One process has one.
type Cluster interface {
	Admin() Admin
	// Member joins a group; it fails only on a wrong configuration, whatever else happens comes from Poll.
	Member(cfg MemberConfig) (Member, error)
	// Producer makes a producer. Init comes before anything else.
	Producer(cfg ProducerConfig) (Producer, error)
	Reader() (Reader, error)
	Close()
}

// MemberConfig describes this process to its group.
type MemberConfig struct {
	// Group is the consumer group, the application's id.
	Group string
	// Instance is Kafka's group.instance.id: a process that comes back with it gets its partitions back at once. Empty: a
	// dynamic member.
	Instance string
	// Subtopologies are what there is to run; the leader of the group makes tasks of them. See Member.Subscribe.
	Subtopologies []assign.Subtopology
	// Anchor is a topic that exists, for a member that has nothing to read yet. Nobody is given any of it. "": there is none.
	Anchor string
	// Standbys is the number of standby copies of each stateful task.
	Standbys int
	// Endpoint is where other processes reach this one; every member's comes with the plan.
	Endpoint string
	// Local tells the leader what state lies on this machine's disk; nil: none. Called at every join.
	Local func() []assign.Local
	// SessionTimeout is after how long without a heartbeat the group gives a member's partitions away (Kafka's
	// session.timeout.ms). 0: 10 s.
	SessionTimeout time.Duration
	// RebalanceTimeout bounds how long the group waits for Released and the joins that follow (Kafka's
	// max.poll.interval.ms). 0: 1 min.
	RebalanceTimeout time.Duration
}

// ProducerConfig describes a producer.
type ProducerConfig struct {
	// TransactionalID makes it transactional; empty: idempotent only.
	TransactionalID string
	// TransactionTimeout is when the broker aborts a transaction that its producer has forgotten (Kafka's
	// transaction.timeout.ms). 0: 10 s.
	TransactionTimeout time.Duration
}
