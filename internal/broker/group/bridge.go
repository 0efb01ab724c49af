package group

import (
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// A group of the consumer protocol also takes members of the classic one, so that a group can be moved from one to the
// other while it works (KIP-848, group.consumer.migration.policy=bidirectional). For the group they are members like
// all others. JoinGroup is their heartbeat that says everything anew, an epoch their generation; none of them leads, and
// SyncGroup only fetches what the group has assigned.

// classicSide is what a member of the classic protocol has beside the others.
type classicSide struct {
	session   time.Duration
	protocols []Protocol
	// joinDeadline and syncDeadline are until when the member must have asked for either; zero: it need not.
	joinDeadline, syncDeadline time.Time
}

// Join is a classic member's wish to be part of the group, or to go on with it.
func (g *Consumer) Join(now time.Time, r JoinRequest, l Limits, topics Topics) Effects {
	var e Effects
	res, err := g.join(now, r, l, topics)
	if err != nil {
		res.Err, res.Generation = err, -1
	}
	e.join(r.Reply, res)
	return e
}

func (g *Consumer) join(now time.Time, r JoinRequest, l Limits, topics Topics) (JoinResult, error) {
	refused := JoinResult{MemberID: r.MemberID}
	if r.SessionTimeout < l.MinSession || r.SessionTimeout > l.MaxSession {
		return refused, kerr.InvalidSessionTimeout
	}
	unknown := r.MemberID == ""
	if g.limits.MaxSize > 0 && len(g.members) >= g.limits.MaxSize && g.members[r.MemberID] == nil {
		return JoinResult{}, kerr.GroupMaxSizeReached
	}
	if !g.supports(r.ProtocolType, r.Protocols) {
		return refused, kerr.InconsistentGroupProtocol
	}
	s, err := readSubscription(r.Protocols[0].Metadata)
	if err != nil {
		return refused, kerr.InconsistentGroupProtocol
	}
	if unknown && r.InstanceID == "" && r.RequireKnownID {
		return JoinResult{MemberID: r.NewMemberID}, kerr.MemberIDRequired
	}
	h := HeartbeatRequest{
		MemberID: r.MemberID, ClientID: r.ClientID, Host: r.Host, Local: r.Local, RebalanceTimeout: r.RebalanceTimeout,
		Names: s.topics, Regex: new(string), Owned: partsOf(s.owned, topics), OwnedGiven: true,
	}
	if s.rack != "" {
		h.Rack = &s.rack
	}
	if unknown {
		h.MemberID = r.NewMemberID
	}
	m, epoch := g.members[h.MemberID], g.epoch
	switch {
	case r.InstanceID != "" && unknown:
		h.InstanceID = &r.InstanceID
		m, err = g.returnStatic(now, h, true)
	case r.InstanceID != "":
		m, err = g.current(r.MemberID, r.InstanceID)
	case m == nil:
		m, err = g.add(now, h)
	}
	if err != nil {
		return refused, err
	}
	updated := g.update(m, h)
	m.classic = &classicSide{session: r.SessionTimeout, protocols: r.Protocols}
	m.revokeDeadline = time.Time{}
	g.unsaved = true
	if (updated || g.changed(topics)) && g.epoch == epoch {
		g.bump()
	}
	// A group that is about to become a classic one leaves the assignment to its leader.
	if !g.OnlyClassic() {
		if g.epoch > g.targetEpoch {
			g.retarget(topics)
		}
		m.classic.syncDeadline = now.Add(m.rebalance)
	}
	if g.epoch == g.targetEpoch {
		g.reconcile(now, m, h, topics)
	}
	g.alive(now, m)
	return JoinResult{MemberID: m.id, Generation: m.epoch, ProtocolType: consumerType, Protocol: r.Protocols[0].Name}, nil
}

// supports says whether all classic members know one of the protocols.
func (g *Consumer) supports(protocolType string, ps []Protocol) bool {
	return protocolType == consumerType && slices.ContainsFunc(ps, func(p Protocol) bool {
		for _, m := range g.members { //lint:ordered any that does not
			if m.classic != nil && !slices.ContainsFunc(m.classic.protocols, func(q Protocol) bool { return q.Name == p.Name }) {
				return false
			}
		}
		return true
	})
}

// alive starts a member's session anew.
func (g *Consumer) alive(now time.Time, m *consumer) {
	m.deadline = now.Add(m.session(g.limits))
	if m.unproven > 0 {
		m.unproven, g.unsaved = 0, true
	}
}

// session is how long a member may be silent: members of the classic protocol say so themselves.
func (m *consumer) session(l ConsumerLimits) time.Duration {
	if m.classic != nil {
		return m.classic.session
	}
	return l.Session
}

// current returns a member by its id and, if it is static, its instance.
func (g *Consumer) current(id, instance string) (*consumer, error) {
	if instance != "" {
		switch known, ok := g.static[instance]; {
		case !ok:
			return nil, kerr.UnknownMemberID
		case known != id:
			return nil, kerr.FencedInstanceID
		}
	}
	m := g.members[id]
	if m == nil {
		return nil, kerr.UnknownMemberID
	}
	return m, nil
}

// generation returns a classic member if it is in this generation.
func (g *Consumer) generation(id, instance string, generation int32) (*consumer, error) {
	m, err := g.current(id, instance)
	switch {
	case err != nil:
		return nil, err
	case m.classic == nil:
		return nil, kerr.UnknownMemberID
	case m.epoch != generation:
		return nil, kerr.IllegalGeneration
	}
	return m, nil
}

// recall gives a member until its rebalance timeout to join again.
func (m *consumer) recall(now time.Time) {
	if m.classic.joinDeadline.IsZero() {
		m.classic.joinDeadline = now.Add(m.rebalance)
	}
}

// Sync hands a classic member what it has.
func (g *Consumer) Sync(now time.Time, r SyncRequest, topics Topics) Effects {
	var e Effects
	res, err := g.sync(now, r, topics)
	if err != nil {
		res = SyncResult{Err: err}
	}
	e.sync(r.Reply, res)
	return e
}

func (g *Consumer) sync(now time.Time, r SyncRequest, topics Topics) (SyncResult, error) {
	m, err := g.generation(r.MemberID, r.InstanceID, r.Generation)
	if err != nil {
		return SyncResult{}, err
	}
	p := m.classic.protocols[0]
	if r.ProtocolType != "" && r.ProtocolType != consumerType || r.Protocol != "" && r.Protocol != p.Name {
		return SyncResult{}, kerr.InconsistentGroupProtocol
	}
	// One that has partitions to give up joins again of its own accord.
	if m.epoch < g.targetEpoch && m.state != unrevoked {
		m.recall(now)
		return SyncResult{}, kerr.RebalanceInProgress
	}
	m.classic.syncDeadline = time.Time{}
	g.alive(now, m)
	return SyncResult{ProtocolType: r.ProtocolType, Protocol: r.Protocol, Assignment: embed(p.Metadata, sortedParts(m.assigned), topics)}, nil
}

// embed encodes an assignment in the version of a member's subscription.
func embed(subscription []byte, parts []Part, topics Topics) []byte {
	s, _ := readSubscription(subscription) // which was read before
	var tps []TopicPartition
	for _, p := range parts {
		if name, ok := topics.Name(p.Topic); ok {
			tps = append(tps, TopicPartition{name, p.Partition})
		}
	}
	return appendAssignment(nil, s.version, tps)
}

// partsOf leaves out what is not there any more.
func partsOf(tps []TopicPartition, topics Topics) []Part {
	parts := make([]Part, 0, len(tps))
	for _, tp := range tps {
		if id, n, ok := topics.Lookup(tp.Topic); ok && tp.Partition >= 0 && tp.Partition < n {
			parts = append(parts, Part{id, tp.Partition})
		}
	}
	return parts
}

// ClassicHeartbeat keeps a classic member's session alive, and calls it back if there is something to give up or to get. While the group
// only ought to have another target, as after a member has left, there is not: a member of the new protocol brings it.
func (g *Consumer) ClassicHeartbeat(now time.Time, id, instance string, generation int32) error {
	m, err := g.generation(id, instance, generation)
	if err != nil {
		return err
	}
	g.alive(now, m)
	if m.epoch < g.targetEpoch || m.state == unrevoked || m.state == unreleased && !g.waits(m) {
		m.recall(now)
		return kerr.RebalanceInProgress
	}
	return nil
}

// waits says whether somebody still has a partition that the member is to get.
func (g *Consumer) waits(m *consumer) bool {
	for p := range g.target[m.id] { //lint:ordered any of them
		if _, has := m.assigned[p]; !has {
			if _, taken := g.owner[p]; taken {
				return true
			}
		}
	}
	return false
}

// Leave removes members, of either protocol, and returns an error or nil for each.
func (g *Consumer) Leave(now time.Time, leaving []Leaving) []error {
	errs := make([]error, len(leaving))
	epoch := g.epoch
	for i, l := range leaving {
		id := l.MemberID
		if id == "" && l.InstanceID != "" {
			id = g.static[l.InstanceID] // an administrator names the instance alone
		}
		m, err := g.current(id, l.InstanceID)
		if errs[i] = err; err == nil {
			g.remove(now, m)
		}
	}
	g.epoch = min(g.epoch, epoch+1) // they leave in one step
	return errs
}

// OnlyClassic says whether the group has members, and all of them speak the classic protocol: then it is to become a
// classic one.
func (g *Consumer) OnlyClassic() bool {
	for _, m := range g.members { //lint:ordered any that does not
		if m.classic == nil {
			return false
		}
	}
	return len(g.members) > 0
}

// Downgrade returns the group as a classic one. It rebalances if not all members have what they were to have; until they
// come their commits count.
func (g *Consumer) Downgrade(now time.Time, l Limits, topics Topics) (*Classic, Effects) {
	var e Effects
	c := NewClassic(g.id, l, now)
	c.state, c.generation, c.protocolType = Stable, g.targetEpoch, consumerType
	for _, id := range g.memberIDs() {
		m := g.members[id]
		c.add(&member{
			id: m.id, instance: m.instance, clientID: m.clientID, host: m.host, local: m.local, session: m.classic.session, rebalance: m.rebalance,
			protocols: m.classic.protocols, unproven: m.unproven, deadline: now.Add(m.classic.session),
		})
	}
	c.protocol = c.selectProtocol()
	for _, m := range c.members {
		n := g.members[m.id]
		// Kafka notes what members were to have. If the group changes over again before they come, it must know what they
		// work on.
		m.assignment = embed(m.metadata(c.protocol), n.has(), topics)
	}
	c.Marshal() // the generation a rebalance starts from
	c.unsaved = true
	if g.State() != "Stable" {
		c.prepare(now, &e)
	}
	return c, e
}

// Upgrade returns the group as one of the consumer protocol, in which its members are classic ones. Those who wait are told
// to come again. It is refused where the members are no consumers, or use what the new protocol has no place for.
func (g *Classic) Upgrade(now time.Time, l ConsumerLimits, topics Topics) (*Consumer, Effects, error) {
	var e Effects
	if g.protocolType != consumerType || l.MaxSize > 0 && len(g.members) > l.MaxSize {
		return nil, e, kerr.GroupIDNotFound
	}
	c := NewConsumer(g.id, l, now)
	c.epoch, c.targetEpoch = g.generation, g.generation
	owned := map[string][]Part{}
	for _, m := range g.members {
		metadata := m.metadata(g.protocol)
		if g.protocol == "" { // there has been no generation yet
			metadata = m.protocols[0].Metadata
		}
		s, err := readSubscription(metadata)
		if err != nil {
			return nil, e, kerr.GroupIDNotFound
		}
		assigned, userData, err := readAssignment(m.assignment)
		if err != nil || len(userData) > 0 {
			return nil, e, kerr.GroupIDNotFound
		}
		n := &consumer{
			id: m.id, instance: m.instance, rack: s.rack, clientID: m.clientID, host: m.host, local: m.local, rebalance: m.rebalance,
			names: slices.Compact(slices.Sorted(slices.Values(s.topics))), epoch: g.generation, previous: g.generation,
			assigned: map[Part]int32{}, revoking: map[Part]struct{}{},
			classic: &classicSide{session: m.session, protocols: m.protocols}, unproven: m.unproven, deadline: now.Add(m.session),
		}
		c.members[n.id], c.target[n.id] = n, map[Part]struct{}{}
		if n.instance != "" {
			c.static[n.instance] = n.id
		}
		c.found(n, partsOf(assigned, topics))
		owned[n.id] = partsOf(s.owned, topics)
	}
	// Kafka believes the assignments alone. A member that gives partitions up step by step may still work on some that it
	// had when it joined last: they are its own until it joins again without them.
	for _, m := range g.members {
		c.found(c.members[m.id], owned[m.id])
	}
	c.version, c.subscribed = topics.Version(), c.fingerprint(topics)
	for _, m := range g.members {
		if m.joining != nil {
			e.join(m.joining, JoinResult{Err: kerr.RebalanceInProgress, MemberID: m.id, Generation: -1})
		}
		if m.syncing != nil {
			e.sync(m.syncing, SyncResult{Err: kerr.RebalanceInProgress})
		}
	}
	return c, e, nil
}

// found notes what a member has that comes from another group. A leader may have given something away twice.
func (g *Consumer) found(m *consumer, parts []Part) {
	for _, p := range parts {
		if _, taken := g.owner[p]; !taken {
			g.owner[p], m.assigned[p] = m.id, m.epoch
			g.target[m.id][p] = struct{}{}
		}
	}
}
