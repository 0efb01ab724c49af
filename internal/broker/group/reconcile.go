package group

import (
	"maps"
	"time"
)

// reconcile leads a member one step towards its target: first it gives up what it is not to have, then it gets what
// nobody else has any more.
func (g *Consumer) reconcile(now time.Time, m *consumer, r HeartbeatRequest, topics Topics) {
	owns := func(parts map[Part]struct{}) bool {
		if !r.OwnedGiven {
			return true
		}
		for _, p := range r.Owned {
			if _, ok := parts[p]; ok {
				return true
			}
		}
		return false
	}
	switch m.state {
	case settled:
		if m.epoch == g.targetEpoch {
			return
		}
		g.advance(now, m, owns, topics)
	case unrevoked:
		if len(m.revoking) > 0 && owns(m.revoking) {
			return
		}
		g.advance(now, m, owns, topics)
	case unreleased:
		g.advance(now, m, owns, topics)
	}
}

// advance gives a member its next assignment. While it has to give up partitions its epoch stays.
func (g *Consumer) advance(now time.Time, m *consumer, owns func(map[Part]struct{}) bool, topics Topics) {
	subscribed := m.topics(topics)
	keep, give, get := map[Part]int32{}, map[Part]struct{}{}, map[Part]struct{}{}
	wanted := func(p Part) bool {
		_, target := g.target[m.id][p]
		_, sub := subscribed[p.Topic]
		return target && sub
	}
	for p, since := range m.assigned { //lint:ordered into sets
		if wanted(p) {
			keep[p] = since
		} else {
			give[p] = struct{}{}
		}
	}
	waiting := false
	for p := range g.target[m.id] { //lint:ordered into sets
		if _, have := keep[p]; have || !wanted(p) {
			continue
		}
		if o, taken := g.owner[p]; taken && o != m.id {
			waiting = true
			continue
		}
		get[p] = struct{}{}
	}
	before := *m
	switch {
	case len(give) > 0 && owns(give):
		m.state = unrevoked
		g.have(m, keep, give)
	default:
		m.setEpoch(g.targetEpoch)
		for p := range get { //lint:ordered into a map
			keep[p] = m.epoch
		}
		m.state = settled
		if waiting {
			m.state = unreleased
		}
		g.have(m, keep, nil)
	}
	switch {
	case m.state != unrevoked, m.classic != nil:
		m.revokeDeadline = time.Time{}
	case before.state != unrevoked || !maps.Equal(before.revoking, m.revoking):
		m.revokeDeadline = now.Add(m.rebalance)
	}
	if before.epoch != m.epoch || before.state != m.state || !sameParts(before.assigned, m.assigned) || !maps.Equal(before.revoking, m.revoking) {
		g.unsaved = true
	}
}

func (m *consumer) setEpoch(epoch int32) {
	if epoch != m.epoch {
		m.previous, m.epoch = m.epoch, epoch
	}
}
