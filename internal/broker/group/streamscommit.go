package group

import (
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// ValidateCommit says whether a member may commit an offset of a partition. An epoch that is over will do for tasks the
// member had in it and still has, or has yet to give up (KIP-1251).
func (g *Streams) ValidateCommit(c Commit, version int16) (func(Part) error, error) {
	accept := func(Part) error { return nil }
	if c.Generation < 0 && len(g.members) == 0 || c.anonymous() {
		return accept, nil
	}
	m := g.members[c.MemberID]
	switch {
	case m == nil:
		return nil, kerr.UnknownMemberID
	case !c.Transactional && version < 9:
		return nil, kerr.UnsupportedVersion
	case c.Generation == m.epoch:
		return accept, nil
	case c.Generation > m.epoch, c.Generation < 0, g.wiring == nil:
		return nil, c.stale()
	}
	return func(p Part) error {
		sub, ok := g.wiring.reader[p.Topic]
		if !ok {
			return c.stale()
		}
		t := Task{sub, p.Partition}
		for _, tasks := range []Tasks{m.assigned, m.revoking} {
			if tasks.has(t, false) && tasks[t].Since <= c.Generation {
				return nil
			}
		}
		return c.stale()
	}, nil
}

// anonymous says that a transaction's client does not tell who it is.
func (c Commit) anonymous() bool {
	return c.Transactional && c.Generation < 0 && c.MemberID == "" && c.InstanceID == ""
}

// stale is the error for a wrong epoch; a transaction's clients know generations only.
func (c Commit) stale() error {
	if c.Transactional {
		return kerr.IllegalGeneration
	}
	return kerr.StaleMemberEpoch
}

// ValidateFetch says whether a member may read the group's offsets.
func (g *Streams) ValidateFetch(memberID *string, epoch int32) error {
	if memberID == nil && epoch < 0 {
		return nil
	}
	var m *runner
	if memberID != nil {
		m = g.members[*memberID]
	}
	switch {
	case m == nil:
		return kerr.UnknownMemberID
	case m.epoch != epoch:
		return kerr.StaleMemberEpoch
	}
	return nil
}

// Subscribes says whether the members read a topic.
func (g *Streams) Subscribes(topic string) bool {
	if len(g.members) == 0 || g.topology == nil {
		return false
	}
	return slices.ContainsFunc(g.topology.Subtopologies, func(s Subtopology) bool { return slices.Contains(s.reads(), topic) })
}

// ExpiredOffsets returns the committed offsets whose retention is over, as that of Consumer does.
func (g *Streams) ExpiredOffsets(now time.Time, retention time.Duration, o *Offsets) []TopicPartition {
	var inUse time.Time
	if len(g.members) == 0 {
		inUse = g.since
	}
	return expiredOffsets(now, retention, o, inUse, g.Subscribes)
}
