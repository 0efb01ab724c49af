package group

import (
	"maps"
	"time"
)

// reconcile leads a member one step towards a target: first it gives up what it is not to have, then it gets what no other
// member has any more. No process ever has a task twice, in whatever role.
func (g *Streams) reconcile(now time.Time, m *runner, r StreamsRequest, target Tasks) {
	if m.state == settled && m.epoch == g.targetEpoch {
		return
	}
	owns := func(tasks Tasks) bool {
		for t, h := range tasks { //lint:ordered any of them
			if r.Owned == nil || r.Owned.has(t, h.Standby) {
				return true
			}
		}
		return false
	}
	epoch := m.epoch
	if m.state == unrevoked {
		if owns(m.revoking) {
			return
		}
		epoch++ // it has done what this one asked of it
	}
	before := *m
	keep, give := Tasks{}, Tasks{}
	for t, h := range m.assigned { //lint:ordered into sets
		if target.has(t, h.Standby) {
			keep[t] = h
		} else {
			give[t] = h
		}
	}
	if owns(give) {
		m.state, m.assigned, m.revoking = unrevoked, keep, give
	} else {
		epoch, m.state, m.revoking = g.targetEpoch, settled, Tasks{}
		taken := g.taken(m)
		for t, h := range target { //lint:ordered into a map
			if _, have := keep[t]; have {
				continue
			}
			if taken(t, h.Standby) {
				m.state = unreleased
				continue
			}
			keep[t] = Held{Standby: h.Standby, Since: epoch}
		}
		m.assigned = keep
	}
	if epoch != m.epoch {
		m.previous, m.epoch = m.epoch, epoch
	}
	changed := before.epoch != m.epoch || before.state != m.state || !maps.Equal(before.assigned, m.assigned) || !maps.Equal(before.revoking, m.revoking)
	g.unsaved = g.unsaved || changed
	switch {
	case m.state != unrevoked:
		m.revokeDeadline = time.Time{}
	case changed:
		m.revokeDeadline = now.Add(m.rebalance)
	}
}

// taken returns what says whether a member must wait for a task: an active one for whoever else is active in it, each for
// others of its own process.
func (g *Streams) taken(m *runner) func(t Task, standby bool) bool {
	active, here := map[Task]struct{}{}, map[Task]struct{}{}
	for _, o := range g.members { //lint:ordered into sets
		if o == m {
			continue
		}
		for _, tasks := range []Tasks{o.assigned, o.revoking} {
			for t, h := range tasks { //lint:ordered into sets
				if !h.Standby {
					active[t] = struct{}{}
				}
				if o.process == m.process {
					here[t] = struct{}{}
				}
			}
		}
	}
	return func(t Task, standby bool) bool {
		_, a := active[t]
		_, h := here[t]
		return h || a && !standby
	}
}
