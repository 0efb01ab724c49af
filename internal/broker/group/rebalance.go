package group

import (
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// rebalance starts a rebalance if the group is in a state to, and otherwise completes the one under way if it can.
func (g *Classic) rebalance(now time.Time, e *Effects) {
	switch g.state {
	case Empty, CompletingRebalance, Stable:
		g.prepare(now, e)
	case PreparingRebalance:
		g.maybeComplete(now, e)
	}
}

// prepare waits for the members to join again. A first rebalance waits a fixed delay instead: nobody knows yet who will
// come.
func (g *Classic) prepare(now time.Time, e *Effects) {
	if g.state == CompletingRebalance {
		for _, m := range g.members {
			m.assignment = nil
			g.answerSync(now, m, e, SyncResult{Err: kerr.RebalanceInProgress})
		}
	}
	clear(g.unsynced)
	g.syncDeadline = time.Time{}
	initial := g.state == Empty
	g.transition(now, PreparingRebalance)
	if initial {
		g.newMemberAdded = false
		g.initialDelay = g.limits.InitialDelay
		g.initialLeft = max(g.rebalanceTimeout()-g.limits.InitialDelay, 0)
		g.joinDeadline = now.Add(g.initialDelay)
		if g.initialDelay == 0 {
			g.complete(now, e)
		}
		return
	}
	if g.allJoined() {
		g.complete(now, e)
		return
	}
	g.joinDeadline = now.Add(g.rebalanceTimeout())
}

// maybeComplete ends the wait for members if all have come. An initial rebalance always waits its delay.
func (g *Classic) maybeComplete(now time.Time, e *Effects) {
	if g.state == PreparingRebalance && g.previous != Empty && g.allJoined() {
		g.complete(now, e)
	}
}

// joinTimeout is what the join deadline does.
func (g *Classic) joinTimeout(now time.Time, e *Effects) {
	if g.previous == Empty && g.newMemberAdded && g.initialLeft > 0 {
		g.newMemberAdded = false
		delay := min(g.limits.InitialDelay, g.initialLeft)
		g.initialLeft = max(g.initialLeft-g.initialDelay, 0)
		g.initialDelay = delay
		g.joinDeadline = now.Add(delay)
		return
	}
	g.complete(now, e)
}

// complete begins the next generation with the members that are here. Dynamic members that did not come are removed,
// static ones are kept: their session decides.
func (g *Classic) complete(now time.Time, e *Effects) {
	g.joinDeadline = time.Time{}
	for i := len(g.members) - 1; i >= 0; i-- {
		if m := g.members[i]; m.joining == nil && m.instance == "" {
			g.remove(m.id)
		}
	}
	if len(g.members) > 0 && !g.electLeader() {
		g.joinDeadline = now.Add(g.rebalanceTimeout())
		return
	}
	g.generation++
	clear(g.unsynced)
	if len(g.members) == 0 {
		g.protocol = ""
		g.transition(now, Empty)
		e.Persist = true
		return
	}
	g.protocol = g.selectProtocol()
	g.transition(now, CompletingRebalance)
	for _, m := range g.members {
		if m.joining != nil {
			e.join(m.joining, g.joined(m.id, g.leader, false))
			m.joining = nil
		}
		m.deadline = now.Add(m.session)
		m.isNew = false
		g.unsynced[m.id] = true
	}
	g.syncDeadline = now.Add(g.rebalanceTimeout())
}

// electLeader replaces a leader that did not rejoin by the first member that did.
func (g *Classic) electLeader() bool {
	if l := g.member(g.leader); l != nil && l.joining != nil {
		return true
	}
	for _, m := range g.members {
		if m.joining != nil {
			g.leader = m.id
			return true
		}
	}
	return false
}

// joined is the answer to a JoinGroup that succeeded. Only the leader, by that answer, gets the members.
func (g *Classic) joined(id, leader string, skip bool) JoinResult {
	r := JoinResult{
		MemberID: id, Generation: g.generation, ProtocolType: g.protocolType, Protocol: g.protocol,
		Leader: leader, SkipAssignment: skip,
	}
	if id == leader {
		for _, m := range g.members {
			r.Members = append(r.Members, JoinedMember{ID: m.id, InstanceID: m.instance, Metadata: m.metadata(g.protocol)})
		}
	}
	return r
}

func (g *Classic) answerSync(now time.Time, m *member, e *Effects, r SyncResult) {
	if m.syncing == nil {
		return
	}
	e.sync(m.syncing, r)
	m.syncing = nil
	m.deadline = now.Add(m.session)
}

// drop removes a member that left or failed.
func (g *Classic) drop(m *member, e *Effects) {
	if m.joining != nil {
		e.join(m.joining, JoinResult{Err: kerr.UnknownMemberID})
	}
	if m.syncing != nil {
		e.sync(m.syncing, SyncResult{Err: kerr.UnknownMemberID})
	}
	g.remove(m.id)
}

// Deadline returns when Tick has something to do; zero: not by time alone.
func (g *Classic) Deadline() time.Time {
	var d time.Time
	earliest := func(t time.Time) {
		if !t.IsZero() && (d.IsZero() || t.Before(d)) {
			d = t
		}
	}
	if g.state == PreparingRebalance {
		earliest(g.joinDeadline)
	}
	if len(g.unsynced) > 0 {
		earliest(g.syncDeadline)
	}
	for _, m := range g.members {
		if m.watched() {
			earliest(m.deadline)
		}
	}
	for _, i := range g.invited { //lint:ordered the earliest of all
		earliest(i.deadline)
	}
	return d
}

// Tick does what is due: members whose session ended are removed, a wait that timed out ends.
func (g *Classic) Tick(now time.Time) Effects {
	var e Effects
	due := func(t time.Time) bool { return !t.IsZero() && !t.After(now) }

	gone, goneIDs := false, false
	for id, i := range g.invited { //lint:ordered it only deletes
		if due(i.deadline) {
			delete(g.invited, id)
			g.unsaved, goneIDs = true, true
		}
	}
	for i := len(g.members) - 1; i >= 0; i-- {
		if m := g.members[i]; m.watched() && due(m.deadline) {
			g.drop(m, &e)
			gone = true
		}
	}
	if len(g.unsynced) > 0 && due(g.syncDeadline) {
		for i := len(g.members) - 1; i >= 0; i-- {
			if m := g.members[i]; g.unsynced[m.id] {
				g.drop(m, &e)
				gone = true
			}
		}
	}
	// An id that nobody joined with was no part of the generation: its end moves only a rebalance under way.
	switch {
	case gone:
		g.rebalance(now, &e)
	case goneIDs:
		g.maybeComplete(now, &e)
	}
	if g.state == PreparingRebalance && due(g.joinDeadline) {
		g.joinTimeout(now, &e)
	}
	return e
}
