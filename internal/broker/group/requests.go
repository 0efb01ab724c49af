package group

import (
	"maps"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// JoinRequest is a JoinGroup request.
type JoinRequest struct {
	MemberID   string // "" for a member that has no id yet
	InstanceID string // group.instance.id; "" for a dynamic member
	// NewMemberID is the id for a member that has none. The caller makes it up: chance is not for a step machine.
	NewMemberID      string
	ClientID, Host   string
	Local            bool // the member's process is the broker's: it does not outlive it
	SessionTimeout   time.Duration
	RebalanceTimeout time.Duration
	ProtocolType     string
	Protocols        []Protocol
	// RequireKnownID is set for clients that can be told their id before they join (version 4).
	RequireKnownID bool
	// CanSkipAssignment is set for clients that understand SkipAssignment (version 9).
	CanSkipAssignment bool
	Reply             func(JoinResult)
}

// JoinResult answers a JoinGroup request.
type JoinResult struct {
	Err                    error
	MemberID               string
	Generation             int32 // -1 with an error
	ProtocolType, Protocol string
	Leader                 string
	SkipAssignment         bool
	Members                []JoinedMember // for the leader
}

// JoinedMember is a member as the leader is told of it.
type JoinedMember struct {
	ID, InstanceID string
	Metadata       []byte
}

// Join is a member's wish to be part of the next generation.
func (g *Classic) Join(now time.Time, r JoinRequest) Effects {
	var e Effects
	fail := func(err error, id string) Effects {
		e.join(r.Reply, JoinResult{Err: err, MemberID: id, Generation: -1})
		return e
	}
	m := g.member(r.MemberID)
	switch {
	case r.SessionTimeout < g.limits.MinSession || r.SessionTimeout > g.limits.MaxSession:
		return fail(kerr.InvalidSessionTimeout, r.MemberID)
	case g.full(r.MemberID, m):
		g.remove(r.MemberID)
		return fail(kerr.GroupMaxSizeReached, "")
	case g.state == Dead:
		return fail(kerr.CoordinatorNotAvailable, r.MemberID)
	case !g.supports(r.ProtocolType, r.Protocols):
		return fail(kerr.InconsistentGroupProtocol, r.MemberID)
	}
	if r.MemberID == "" {
		old, exists := g.static[r.InstanceID]
		switch {
		case r.InstanceID != "" && exists:
			g.replaceStatic(now, g.member(old), r, &e)
		case r.InstanceID == "" && r.RequireKnownID:
			g.invited[r.NewMemberID] = &invitation{local: r.Local, session: r.SessionTimeout, deadline: now.Add(r.SessionTimeout)}
			g.unsaved = true
			return fail(kerr.MemberIDRequired, r.NewMemberID)
		default:
			g.uninvite(r.InstanceID)
			g.addMember(now, r.NewMemberID, r, &e)
		}
		return e
	}
	if i := g.invited[r.MemberID]; i != nil && i.instance == r.InstanceID {
		g.addMember(now, r.MemberID, r, &e)
		return e
	}
	if err := g.validate(r.MemberID, r.InstanceID); err != nil {
		return fail(err, r.MemberID)
	}
	switch g.state {
	case PreparingRebalance:
		g.updateMember(now, m, r, &e)
	case CompletingRebalance, Stable:
		// A member may ask again because the answer was lost. A leader that asks again in a stable group means to
		// assign anew.
		if !m.matches(r.Protocols) || g.state == Stable && g.leader == m.id {
			g.updateMember(now, m, r, &e)
		} else {
			g.alive(now, m)
			e.join(r.Reply, g.joined(m.id, g.leader, false))
		}
	default:
		return fail(kerr.UnknownMemberID, r.MemberID)
	}
	return e
}

// uninvite takes back the id that a static member was given before the broker stopped, and says whether there was one. It has
// come, or left, without that id, so nobody will bring it.
func (g *Classic) uninvite(instance string) bool {
	before := len(g.invited)
	maps.DeleteFunc(g.invited, func(_ string, i *invitation) bool { return instance != "" && i.instance == instance })
	g.unsaved = g.unsaved || len(g.invited) < before
	return len(g.invited) < before
}

// full says whether a joining member is one too many.
func (g *Classic) full(id string, m *member) bool {
	if g.limits.MaxSize == 0 {
		return false
	}
	switch g.state {
	case PreparingRebalance:
		return (m == nil || m.joining == nil) && g.awaitingJoin() >= g.limits.MaxSize
	case CompletingRebalance, Stable:
		return m == nil && len(g.members) >= g.limits.MaxSize
	}
	return false
}

func (g *Classic) addMember(now time.Time, id string, r JoinRequest, e *Effects) {
	m := &member{
		id: id, instance: r.InstanceID, clientID: r.ClientID, host: r.Host, local: r.Local,
		session: r.SessionTimeout, rebalance: r.RebalanceTimeout, protocols: r.Protocols,
		isNew: true, joining: r.Reply, deadline: now.Add(newMemberTimeout),
	}
	if len(g.members) == 0 {
		g.protocolType = r.ProtocolType
	}
	if g.state == PreparingRebalance && g.previous == Empty {
		g.newMemberAdded = true
	}
	g.add(m)
	g.rebalance(now, e)
}

func (g *Classic) updateMember(now time.Time, m *member, r JoinRequest, e *Effects) {
	g.refresh(m, r, e)
	g.rebalance(now, e)
}

// refresh takes over what a member says of itself when it joins again.
func (g *Classic) refresh(m *member, r JoinRequest, e *Effects) {
	m.protocols, m.rebalance, m.session = r.Protocols, r.RebalanceTimeout, r.SessionTimeout
	m.clientID, m.host, m.local = r.ClientID, r.Host, r.Local
	g.proven(m)
	if m.joining != nil {
		// The member's earlier request lost its connection: its answer goes nowhere, but it must come.
		e.join(m.joining, JoinResult{Err: kerr.RebalanceInProgress, MemberID: m.id, Generation: -1})
	}
	m.joining = r.Reply
}

// replaceStatic gives a static member that comes back without its id a new one, and fences the old one. A stable group
// need not rebalance for it.
func (g *Classic) replaceStatic(now time.Time, m *member, r JoinRequest, e *Effects) {
	oldLeader := g.leader
	if m.joining != nil {
		e.join(m.joining, JoinResult{Err: kerr.FencedInstanceID, MemberID: m.id, Generation: -1})
		m.joining = nil
	}
	if m.syncing != nil {
		e.sync(m.syncing, SyncResult{Err: kerr.FencedInstanceID})
		m.syncing = nil
	}
	delete(g.unsynced, m.id)
	if g.leader == m.id {
		g.leader = r.NewMemberID
	}
	g.stored.rename(m.id, r.NewMemberID)
	g.unsaved = true
	m.id, m.isNew = r.NewMemberID, false
	g.static[m.instance] = m.id
	g.refresh(m, r, e)
	m.deadline = now.Add(m.session)

	switch g.state {
	case Stable:
		if g.selectProtocol() != g.protocol {
			g.rebalance(now, e)
			return
		}
		e.Persist = true
		m.joining = nil
		// A client that cannot skip the assignment is told of the leader before it, so that it does not assign. A
		// leader that can gets the members too.
		if r.CanSkipAssignment {
			e.join(r.Reply, g.joined(m.id, g.leader, g.leader == m.id))
		} else {
			answer := g.joined(m.id, oldLeader, false)
			e.join(r.Reply, answer)
		}
	case CompletingRebalance:
		g.prepare(now, e)
	default:
		g.maybeComplete(now, e)
	}
}

// SyncRequest is a SyncGroup request.
type SyncRequest struct {
	MemberID, InstanceID string
	Generation           int32
	// ProtocolType and Protocol are what the member believes the group to have agreed on; "" for old clients.
	ProtocolType, Protocol string
	Assignments            map[string][]byte // from the leader
	Reply                  func(SyncResult)
}

// SyncResult answers a SyncGroup request.
type SyncResult struct {
	Err                    error
	ProtocolType, Protocol string
	Assignment             []byte
}

// Sync hands the leader's assignments in, and every member its own out.
func (g *Classic) Sync(now time.Time, r SyncRequest) Effects {
	var e Effects
	fail := func(err error) Effects {
		e.sync(r.Reply, SyncResult{Err: err})
		return e
	}
	if g.state == Dead {
		return fail(kerr.CoordinatorNotAvailable)
	}
	if g.invited[r.MemberID] != nil {
		// It had joined when the broker stopped; the generation it joined never came to be.
		return fail(kerr.RebalanceInProgress)
	}
	if err := g.validate(r.MemberID, r.InstanceID); err != nil {
		return fail(err)
	}
	switch {
	case r.Generation != g.generation:
		return fail(kerr.IllegalGeneration)
	case r.ProtocolType != "" && r.ProtocolType != g.protocolType, r.Protocol != "" && r.Protocol != g.protocol:
		return fail(kerr.InconsistentGroupProtocol)
	}
	m := g.member(r.MemberID)
	switch g.state {
	case PreparingRebalance:
		return fail(kerr.RebalanceInProgress)
	case CompletingRebalance:
		if m.syncing != nil {
			e.sync(m.syncing, SyncResult{Err: kerr.RebalanceInProgress})
		}
		m.syncing = r.Reply
		delete(g.unsynced, m.id)
		if g.leader != m.id {
			return e
		}
		for _, m := range g.members {
			m.assignment = r.Assignments[m.id]
			g.answerSync(now, m, &e, g.synced(m))
		}
		g.transition(now, Stable)
		e.Persist = true
	case Stable:
		delete(g.unsynced, m.id)
		g.alive(now, m)
		e.sync(r.Reply, g.synced(m))
	default:
		return fail(kerr.UnknownMemberID)
	}
	return e
}

func (g *Classic) synced(m *member) SyncResult {
	return SyncResult{ProtocolType: g.protocolType, Protocol: g.protocol, Assignment: m.assignment}
}

// Heartbeat keeps a member's session alive and tells it of a rebalance.
func (g *Classic) Heartbeat(now time.Time, id, instance string, generation int32) error {
	if g.state == Dead {
		return kerr.CoordinatorNotAvailable
	}
	if i := g.invited[id]; i != nil {
		i.deadline, i.unproven = now.Add(i.session), 0
		return kerr.RebalanceInProgress // see Sync
	}
	if err := g.validate(id, instance); err != nil {
		return err
	}
	if generation != g.generation {
		return kerr.IllegalGeneration
	}
	g.alive(now, g.member(id))
	if g.state == PreparingRebalance {
		return kerr.RebalanceInProgress
	}
	return nil
}

// Leaving names a member that leaves: by its id, or a static member by its instance id alone.
type Leaving struct{ MemberID, InstanceID string }

// Leave removes members and returns an error or nil for each.
func (g *Classic) Leave(now time.Time, leaving []Leaving) ([]error, Effects) {
	var e Effects
	errs := make([]error, len(leaving))
	left, leftIDs := false, false
	for i, l := range leaving {
		_, invited := g.invited[l.MemberID]
		switch {
		case g.state == Dead:
			errs[i] = kerr.CoordinatorNotAvailable
		case l.MemberID == "":
			if id, ok := g.static[l.InstanceID]; ok && l.InstanceID != "" {
				g.drop(g.member(id), &e)
				left = true
			} else if g.uninvite(l.InstanceID) {
				leftIDs = true
			} else {
				errs[i] = kerr.UnknownMemberID
			}
		case invited:
			g.remove(l.MemberID)
			leftIDs = true
		default:
			if errs[i] = g.validate(l.MemberID, l.InstanceID); errs[i] == nil {
				g.drop(g.member(l.MemberID), &e)
				left = true
			}
		}
	}
	switch {
	case left:
		g.rebalance(now, &e)
	case leftIDs:
		// As in Kafka an id given back rebalances a group that had settled, too.
		if g.state != Empty {
			g.rebalance(now, &e)
		}
	}
	return errs, e
}

// Commit is who commits offsets.
type Commit struct {
	MemberID, InstanceID string
	Generation           int32 // -1 for a client that is no member
	Transactional        bool
}

// ValidateCommit says whether offsets may be committed, and counts as a sign of life of the member that commits.
func (g *Classic) ValidateCommit(now time.Time, c Commit) error {
	if g.state == Dead {
		return kerr.CoordinatorNotAvailable
	}
	if c.Generation < 0 && g.state == Empty {
		return nil
	}
	if c.Generation >= 0 || c.MemberID != "" || c.InstanceID != "" {
		if err := g.validate(c.MemberID, c.InstanceID); err != nil {
			return err
		}
		if c.Generation != g.generation {
			return kerr.IllegalGeneration
		}
	} else if !c.Transactional && g.state != Empty {
		return kerr.UnknownMemberID
	}
	if !c.Transactional && g.state == CompletingRebalance {
		return kerr.RebalanceInProgress
	}
	if m := g.member(c.MemberID); m != nil && !c.Transactional {
		g.alive(now, m)
	}
	return nil
}

// Kill makes the group refuse everything: it is deleted. Only an empty group may be.
func (g *Classic) Kill(now time.Time) error {
	switch g.state {
	case Empty:
		g.transition(now, Dead)
		return nil
	case Dead:
		return kerr.GroupIDNotFound
	}
	return kerr.NonEmptyGroup
}

// Abandon makes the group refuse everything, whatever its state, and tells those who wait to come again.
func (g *Classic) Abandon(now time.Time) Effects {
	var e Effects
	for _, m := range g.members {
		if m.joining != nil {
			e.join(m.joining, JoinResult{Err: kerr.CoordinatorNotAvailable, MemberID: m.id, Generation: -1})
		}
		if m.syncing != nil {
			e.sync(m.syncing, SyncResult{Err: kerr.CoordinatorNotAvailable})
		}
	}
	g.members = nil
	clear(g.invited)
	clear(g.unsynced)
	g.transition(now, Dead)
	return e
}
