package group

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
)

// ValidateCommit says whether a member may commit an offset of a partition. An epoch that is over will do for partitions
// the member had in it and still has (KIP-1251).
func (g *Consumer) ValidateCommit(c Commit, version int16) (func(Part) error, error) {
	accept := func(Part) error { return nil }
	if c.Generation < 0 && len(g.members) == 0 || c.anonymous() {
		return accept, nil
	}
	m := g.members[c.MemberID]
	switch {
	case m == nil:
		return nil, kerr.UnknownMemberID
	case m.classic == nil && !c.Transactional && version < 9:
		return nil, kerr.UnsupportedVersion
	case c.Generation == m.epoch:
		return accept, nil
	case c.Generation > m.epoch, c.Generation < 0, m.classic != nil:
		return nil, m.stale(c.Transactional)
	}
	return func(p Part) error {
		if since, ok := m.assigned[p]; ok && since <= c.Generation {
			return nil
		}
		return m.stale(c.Transactional)
	}, nil
}

// stale is the error for a wrong epoch; classic members and a transaction's clients know generations only.
func (m *consumer) stale(transactional bool) error {
	if transactional || m.classic != nil {
		return kerr.IllegalGeneration
	}
	return kerr.StaleMemberEpoch
}

// ValidateFetch says whether a member may read the group's offsets.
func (g *Consumer) ValidateFetch(memberID *string, epoch int32) error {
	if memberID == nil && epoch < 0 {
		return nil
	}
	var m *consumer
	if memberID != nil {
		m = g.members[*memberID]
	}
	switch {
	case m == nil:
		return kerr.UnknownMemberID
	case m.epoch != epoch:
		return m.stale(false)
	}
	return nil
}

// Subscribes says whether a member subscribes to a topic.
func (g *Consumer) Subscribes(topic string) bool {
	for _, m := range g.members { //lint:ordered any of them
		if slices.Contains(m.names, topic) || m.pattern != nil && m.pattern.MatchString(topic) {
			return true
		}
	}
	return false
}
